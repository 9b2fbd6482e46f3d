//! Ports of `EXPOSE`: `[ip:][hostport:]port[-end][/protocol]`.

use std::net::IpAddr;

/// Container ports of one word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ports {
    /// First port.
    first: u16,
    /// Last port.
    last: u16,
    /// `tcp`, `udp` or `sctp` as written.
    protocol: String,
    /// An address or host port stood in front; it is thrown away.
    pub(super) has_host_part: bool,
}

impl Ports {
    /// Reads a word; the error says what is wrong with it.
    pub(super) fn parse(word: &str) -> Result<Self, String> {
        let (front, container) = word.rsplit_once(':').unwrap_or(("", word));
        let (address, host) = front.rsplit_once(':').unwrap_or(("", front));
        let (range, protocol) = container.split_once('/').unwrap_or((container, ""));
        let protocol = if protocol.is_empty() { "tcp" } else { protocol };
        if !matches!(protocol.to_lowercase().as_str(), "tcp" | "udp" | "sctp") {
            return Err(format!("`{protocol}` is not a protocol"));
        }
        let bare = address
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(address);
        if !address.is_empty() && bare.parse::<IpAddr>().is_err() {
            return Err(format!("`{address}` is not an IP address"));
        }
        let (first, last) = parse_range(range)?;
        if !host.is_empty() {
            let (host_first, host_last) = parse_range(host)?;
            if first != last && host_last - host_first != last - first {
                return Err(format!(
                    "the ranges `{host}` and `{range}` differ in length"
                ));
            }
        }
        let has_host_part = !address.is_empty() || !host.is_empty();
        Ok(Self {
            first,
            last,
            protocol: protocol.to_owned(),
            has_host_part,
        })
    }

    /// Whether the protocol has upper-case letters.
    pub(super) fn has_odd_protocol_case(&self) -> bool {
        self.protocol != self.protocol.to_lowercase()
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        usize::from(self.last - self.first) + 1
    }

    /// Keys for the config: `80/tcp`.
    pub(super) fn keys(&self) -> impl Iterator<Item = String> {
        let protocol = self.protocol.to_lowercase();
        (self.first..=self.last).map(move |port| format!("{port}/{protocol}"))
    }
}

fn parse_range(text: &str) -> Result<(u16, u16), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |part: &str| {
        part.parse::<u16>().map_err(|_| match part {
            "" => "a port number is missing".to_owned(),
            part => format!("`{part}` is not a port number between 0 and 65535"),
        })
    };
    let (first, last) = (number(first)?, number(last)?);
    if last < first {
        Err(format!("the range `{text}` runs backwards"))
    } else {
        Ok((first, last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_keys() {
        for (word, wanted) in [
            ("80", vec!["80/tcp"]),
            ("53/UDP", vec!["53/udp"]),
            ("8000-8002", vec!["8000/tcp", "8001/tcp", "8002/tcp"]),
            ("127.0.0.1:80:81", vec!["81/tcp"]),
            ("[::1]:8080:80", vec!["80/tcp"]),
            ("::1:8080:80", vec!["80/tcp"]),
            ("1000-1009:80", vec!["80/tcp"]),
            ("80/", vec!["80/tcp"]),
            ("65535-65535", vec!["65535/tcp"]),
        ] {
            assert_eq!(
                Ports::parse(word).unwrap().keys().collect::<Vec<_>>(),
                wanted,
                "{word}"
            );
        }
    }

    #[test]
    fn other_words_are_refused() {
        for word in [
            "",
            "x",
            "80/icmp",
            "70000",
            "9-8",
            "1-3:1-2",
            "x:80:80",
            "80-",
            "-80",
            "80/tcp/udp",
            ":",
        ] {
            assert!(Ports::parse(word).is_err(), "{word}");
        }
    }
}
