//! PAX extended headers.

use super::sparse::{self, Map, Segment};
use crate::metadata::Time;

/// What the records of one header say; anything unknown is left out.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Time>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse_name: Option<Vec<u8>>,
    pub(super) sparse_size: Option<u64>,
    version: (Option<u64>, Option<u64>),
    numbers: Vec<u64>,
    has_map: bool,
}

impl Records {
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self, &'static str> {
        let mut records = Self::default();
        while !bytes.is_empty() {
            let blank = bytes
                .iter()
                .take(21)
                .position(|byte| *byte == b' ')
                .ok_or("a PAX record without length")?;
            let length = decimal(&bytes[..blank]).and_then(|length| usize::try_from(length).ok());
            let length = length
                .filter(|length| *length <= bytes.len())
                .ok_or("a PAX record with a wrong length")?;
            let record = bytes
                .get(blank + 1..length)
                .ok_or("a PAX record with a wrong length")?;
            let record = record
                .strip_suffix(b"\n")
                .ok_or("a PAX record without line end")?;
            let equals = record
                .iter()
                .position(|byte| *byte == b'=')
                .ok_or("a PAX record without keyword")?;
            records.add(&record[..equals], &record[equals + 1..])?;
            bytes = &bytes[length..];
        }
        records.xattrs.sort_unstable();
        Ok(records)
    }

    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let text = || Some(value.to_vec()).filter(|value| !value.is_empty());
        // An empty value takes an earlier one back.
        let number = || match value {
            b"" => Ok(None),
            _ => decimal(value).map(Some).ok_or("a PAX number"),
        };
        match key {
            b"path" => self.path = text(),
            b"linkpath" => self.link = text(),
            b"size" => self.size = number()?,
            b"uid" => self.uid = number()?,
            b"gid" => self.gid = number()?,
            b"mtime" if value.is_empty() => self.mtime = None,
            b"mtime" => self.mtime = Some(time(value).ok_or("a PAX time")?),
            b"GNU.sparse.name" => self.sparse_name = text(),
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.sparse_size = number()?,
            b"GNU.sparse.major" => self.version.0 = number()?,
            b"GNU.sparse.minor" => self.version.1 = number()?,
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                let is_offset = key.ends_with(b"offset");
                if is_offset != self.numbers.len().is_multiple_of(2) {
                    return Err("a sparse map out of order");
                }
                self.has_map = true;
                self.numbers.push(decimal(value).ok_or("a sparse map")?);
            }
            b"GNU.sparse.map" => {
                self.has_map = true;
                self.numbers.clear();
                for part in value
                    .split(|byte| *byte == b',')
                    .filter(|_| !value.is_empty())
                {
                    self.numbers.push(decimal(part).ok_or("a sparse map")?);
                }
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    if name.is_empty() || name.contains(&0) {
                        return Err("an extended attribute without a proper name");
                    }
                    self.xattrs.retain(|(other, _)| other != name);
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }

    /// Whether the map stands before the content.
    pub(super) fn is_sparse_1_0(&self) -> bool {
        self.version == (Some(1), Some(0))
    }

    /// The map of formats 0.0 and 0.1.
    pub(super) fn sparse_map(&self) -> Option<Map> {
        if !self.has_map {
            return None;
        }
        if !self.numbers.len().is_multiple_of(2) {
            return Some(Err("a sparse map with an odd number of fields"));
        }
        let pairs = self.numbers.chunks_exact(2);
        let segments = pairs
            .map(|pair| Segment {
                offset: pair[0],
                length: pair[1],
            })
            .collect();
        Some(sparse::with_size((segments, self.sparse_size)))
    }
}

pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text)
        .ok()
        .filter(|_| is_number)?
        .parse()
        .ok()
}

/// `[-]seconds[.fraction]`
fn time(text: &[u8]) -> Option<Time> {
    let (is_negative, text) = text
        .strip_prefix(b"-")
        .map_or((false, text), |rest| (true, rest));
    let (seconds, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &b""[..]),
    };
    let seconds = i64::try_from(decimal(seconds)?).ok()?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction
        .iter()
        .copied()
        .chain(std::iter::repeat(b'0'))
        .take(9);
    let nanos = digits.fold(0, |nanos, digit| nanos * 10 + u32::from(digit - b'0'));
    Some(match (is_negative, nanos) {
        (false, _) => Time { seconds, nanos },
        (true, 0) => Time {
            seconds: -seconds,
            nanos,
        },
        (true, _) => Time {
            seconds: -seconds - 1,
            nanos: 1_000_000_000 - nanos,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, seconds, nanos) in [
            ("1.5", 1, 500_000_000),
            ("-0.5", -1, 500_000_000),
            ("7", 7, 0),
            ("1.1234567899", 1, 123_456_789),
            ("2.", 2, 0),
        ] {
            assert_eq!(
                time(text.as_bytes()),
                Some(Time { seconds, nanos }),
                "{text}"
            );
        }
        for text in ["", "x", "1.x", "--1", "1e5"] {
            assert_eq!(time(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn malformed_records_are_errors() {
        for bytes in [
            &b"x"[..],
            b"5 a=b",
            b"99 a=b\n",
            b"6 a=b\n\n",
            b"0 a=b\n",
            b"2 \n",
            b"6 aab\n\n",
            b"11 size=-1\n",
            b"-1 a=b\n",
            b"18446744073709551616 a=b\n",
        ] {
            assert!(Records::parse(bytes).is_err(), "{}", bytes.escape_ascii());
        }
        let records = Records::parse(b"10 size=7\n8 path=\n25 SCHILY.xattr.user.a=b\n").unwrap();
        assert_eq!((records.size, records.path), (Some(7), None));
        assert_eq!(records.xattrs, [(b"user.a".to_vec(), b"b".to_vec())]);
    }
}
