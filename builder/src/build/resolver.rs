//! `/etc/resolv.conf` of steps in a private network. Pure, but for one file of systemd's.

use std::net::IpAddr;

/// Where the network has a way to the host's own resolver, when that listens on the host's loopback only.
const FORWARD: &str = "169.254.1.1";

/// systemd-resolved keeps the servers that it asks itself here.
const UPSTREAM: &str = "/run/systemd/resolve/resolv.conf";

/// What steps are given.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Resolver {
    /// Content of `/etc/resolv.conf`.
    pub(crate) text: Vec<u8>,
    /// The address that has to lead to the host's resolver.
    pub(crate) forward: Option<&'static str>,
}

/// What the host's file is inside, where the host's loopback can't be reached.
pub(crate) fn inside(host: &[u8]) -> Resolver {
    let upstream = || std::fs::read(UPSTREAM).unwrap_or_default();
    translate(host, upstream)
}

fn translate(host: &[u8], upstream: impl FnOnce() -> Vec<u8>) -> Resolver {
    let host = String::from_utf8_lossy(host).into_owned();
    if servers(&host).any(is_reachable) {
        return Resolver {
            text: without_loopback(&host, None),
            forward: None,
        };
    }
    let upstream = String::from_utf8_lossy(&upstream()).into_owned();
    if servers(&upstream).any(is_reachable) {
        return Resolver {
            text: without_loopback(&upstream, None),
            forward: None,
        };
    }
    let has_one = servers(&host).next().is_some();
    let forward = has_one.then_some(FORWARD);
    Resolver {
        text: without_loopback(&host, forward),
        forward,
    }
}

fn servers(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(server)
}

fn server(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    (words.next() == Some("nameserver"))
        .then(|| words.next())
        .flatten()
}

fn is_reachable(server: &str) -> bool {
    // `fe80::1%eth0` is of an interface that is not there.
    server
        .parse::<IpAddr>()
        .is_ok_and(|address| !address.is_loopback())
}

fn without_loopback(text: &str, first: Option<&str>) -> Vec<u8> {
    let mut lines: Vec<String> = first
        .map(|address| format!("nameserver {address}"))
        .into_iter()
        .collect();
    let kept = text
        .lines()
        .filter(|line| server(line).is_none_or(is_reachable));
    lines.extend(kept.map(str::to_owned));
    let mut text = lines.join("\n").into_bytes();
    text.push(b'\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_on_the_hosts_loopback_are_replaced() {
        let none = Vec::new;
        let rows: [(&str, &str, &str, Option<&str>); 5] = [
            (
                "nameserver 192.0.2.1\nsearch a\n",
                "",
                "nameserver 192.0.2.1\nsearch a\n",
                None,
            ),
            (
                "nameserver 127.0.0.1\nnameserver ::1\nnameserver 2001:db8::1\n",
                "",
                "nameserver 2001:db8::1\n",
                None,
            ),
            (
                "nameserver 127.0.0.53\noptions edns0\n",
                "nameserver 192.0.2.7\nsearch b\n",
                "nameserver 192.0.2.7\nsearch b\n",
                None,
            ),
            (
                "nameserver 127.0.0.53\noptions edns0\n",
                "",
                "nameserver 169.254.1.1\noptions edns0\n",
                Some(FORWARD),
            ),
            ("search a\n", "", "search a\n", None),
        ];
        for (host, upstream, expected, forward) in rows {
            let found = translate(host.as_bytes(), || upstream.as_bytes().to_vec());
            assert_eq!(String::from_utf8_lossy(&found.text), expected, "{host}");
            assert_eq!(found.forward, forward, "{host}");
        }
        assert_eq!(translate(b"", none).text, b"\n");
    }
}
