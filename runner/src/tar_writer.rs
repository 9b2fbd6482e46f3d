//! Writes layer tars: the same entries always give the same bytes, on every machine and in every version.
//!
//! POSIX ustar headers; a PAX header goes before an entry only for what ustar can't say: names over 100 bytes, ids
//! over 2,097,151, sizes over 8 GiB, extended attributes (`SCHILY.xattr.`), and times with a fraction of a second (or
//! before 1970). User and group names are never written. **Any change here changes `diff_ids`**: it is a format break.

use std::io::{self, Write};

use crate::job::{LayerEntry, LayerEntryKind};
use crate::metadata::Time;

const BLOCK: usize = 512;
/// Largest number in an 8-byte octal field.
const MAX_OCTAL_7: u64 = 0o777_7777;
/// Largest number in a 12-byte octal field.
const MAX_OCTAL_11: u64 = 0o777_7777_7777;

/// Prefix of the name of a deletion mark.
pub(crate) const WHITEOUT_PREFIX: &[u8] = b".wh.";
/// Name of the mark of an opaque directory.
pub(crate) const OPAQUE_NAME: &[u8] = b".wh..wh..opq";

/// A tar being written. Content goes through [`Write`] after the entry of a regular file.
#[derive(Debug)]
pub(crate) struct TarWriter<W> {
    out: W,
    written: u64,
}

/// What a header says.
struct Header<'a> {
    path: &'a [u8],
    type_flag: u8,
    link: &'a [u8],
    mode: u32,
    uid: u32,
    gid: u32,
    size: u64,
    mtime: Time,
    device: (u32, u32),
    xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

impl<W: Write> TarWriter<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, written: 0 }
    }

    /// Writes an entry's header, and all of a deletion or an opaque mark. After a file's, its content has to be
    /// written, then [`Self::pad`].
    pub(crate) fn append(&mut self, entry: &LayerEntry, clamp: Option<i64>) -> io::Result<()> {
        let mut path = entry.path.clone();
        let mut header = Header {
            path: b"",
            type_flag: b'0',
            link: b"",
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            size: 0,
            mtime: clamped(
                Time {
                    seconds: entry.mtime,
                    nanos: entry.mtime_nanos,
                },
                clamp,
            ),
            device: (0, 0),
            xattrs: &entry.xattrs,
        };
        match &entry.kind {
            LayerEntryKind::Directory { .. } => {
                if path.is_empty() {
                    path.push(b'.');
                }
                path.push(b'/');
                header.type_flag = b'5';
            }
            LayerEntryKind::File { size, .. } => header.size = *size,
            LayerEntryKind::HardLink { target } => {
                header.type_flag = b'1';
                header.link = target;
                header.xattrs = &[]; // they stand at the first name
            }
            LayerEntryKind::Symlink { target } => {
                header.type_flag = b'2';
                header.link = target;
            }
            LayerEntryKind::CharDevice { major, minor } => {
                header.type_flag = b'3';
                header.device = (*major, *minor);
            }
            LayerEntryKind::BlockDevice { major, minor } => {
                header.type_flag = b'4';
                header.device = (*major, *minor);
            }
            LayerEntryKind::Fifo => header.type_flag = b'6',
            LayerEntryKind::Whiteout => {
                let name = path
                    .iter()
                    .rposition(|byte| *byte == b'/')
                    .map_or(0, |slash| slash + 1);
                path.splice(name..name, WHITEOUT_PREFIX.iter().copied());
            }
        }
        header.path = &path;
        self.write_header(&header)?;
        if entry.kind == (LayerEntryKind::Directory { is_opaque: true }) {
            // Directly after its directory: before everything that lies in it.
            let path = [entry.path.as_slice(), OPAQUE_NAME].join(&b"/"[..]);
            let path = path.strip_prefix(b"/").unwrap_or(&path);
            let (mtime, xattrs) = (Time::default(), &[][..]);
            self.write_header(&Header {
                path,
                type_flag: b'0',
                mode: 0,
                uid: 0,
                gid: 0,
                mtime,
                xattrs,
                ..header
            })?;
        }
        Ok(())
    }

    /// Pads a file's content of `size` bytes to whole blocks.
    pub(crate) fn pad(&mut self, size: u64) -> io::Result<()> {
        let rest = usize::try_from(size % BLOCK as u64).expect("a remainder of 512");
        self.write_all(&[0; BLOCK][..(BLOCK - rest) % BLOCK])
    }

    /// Writes the end mark: an empty archive is these 1024 zero bytes and nothing else, as everywhere.
    pub(crate) fn finish(mut self) -> io::Result<u64> {
        self.write_all(&[0; 2 * BLOCK])?;
        Ok(self.written)
    }

    fn write_header(&mut self, header: &Header<'_>) -> io::Result<()> {
        let records = pax_records(header)?;
        if !records.is_empty() {
            let pax = Header {
                path: b"PaxHeaders.0",
                type_flag: b'x',
                link: b"",
                mode: 0o644,
                uid: 0,
                gid: 0,
                size: records.len() as u64,
                mtime: Time::default(),
                device: (0, 0),
                xattrs: &[],
            };
            self.write_all(&ustar(&pax))?;
            self.write_all(&records)?;
            self.pad(records.len() as u64)?;
        }
        self.write_all(&ustar(header))
    }
}

impl<W: Write> Write for TarWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.out.write(bytes)?;
        self.written += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// `rewrite-timestamp`: what is later becomes `clamp`.
pub(crate) fn clamped(time: Time, clamp: Option<i64>) -> Time {
    match clamp {
        Some(seconds) if time > (Time { seconds, nanos: 0 }) => Time { seconds, nanos: 0 },
        _ => time,
    }
}

fn header_seconds(mtime: Time) -> Option<u64> {
    u64::try_from(mtime.seconds)
        .ok()
        .filter(|seconds| *seconds <= MAX_OCTAL_11)
}

/// The PAX records that the entry needs, sorted by keyword.
fn pax_records(header: &Header<'_>) -> io::Result<Vec<u8>> {
    let mut records: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut add = |key: &str, value: Vec<u8>| records.push((key.as_bytes().to_vec(), value));
    if header.path.len() > 100 {
        add("path", header.path.to_vec());
    }
    if header.link.len() > 100 {
        add("linkpath", header.link.to_vec());
    }
    if u64::from(header.uid) > MAX_OCTAL_7 {
        add("uid", header.uid.to_string().into());
    }
    if u64::from(header.gid) > MAX_OCTAL_7 {
        add("gid", header.gid.to_string().into());
    }
    if header.size > MAX_OCTAL_11 {
        add("size", header.size.to_string().into());
    }
    if header.mtime.nanos != 0 || header_seconds(header.mtime).is_none() {
        add("mtime", pax_time(header.mtime).into());
    }
    for (name, value) in header.xattrs {
        if name.contains(&b'=') {
            // A reader would take the first `=` for the end of the keyword.
            let text = format!(
                "extended attribute `{}` can't be written in a tar",
                name.escape_ascii()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        records.push(([b"SCHILY.xattr.", name.as_slice()].concat(), value.clone()));
    }
    records.sort_unstable();
    let mut bytes = Vec::new();
    for (key, value) in records {
        // The length counts its own digits.
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        bytes.extend_from_slice(format!("{length} ").as_bytes());
        bytes.extend_from_slice(&key);
        bytes.push(b'=');
        bytes.extend_from_slice(&value);
        bytes.push(b'\n');
    }
    Ok(bytes)
}

/// Decimal seconds, without zeros at the end of the fraction.
fn pax_time(time: Time) -> String {
    let (sign, seconds, nanos) = if time.seconds < 0 && time.nanos > 0 {
        (
            "-",
            (time.seconds + 1).unsigned_abs(),
            1_000_000_000 - time.nanos,
        )
    } else {
        (
            if time.seconds < 0 { "-" } else { "" },
            time.seconds.unsigned_abs(),
            time.nanos,
        )
    };
    let text = format!("{sign}{seconds}.{nanos:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

fn ustar(header: &Header<'_>) -> [u8; BLOCK] {
    fn text(field: &mut [u8], bytes: &[u8]) {
        let length = bytes.len().min(field.len());
        field[..length].copy_from_slice(&bytes[..length]);
    }
    fn octal(field: &mut [u8], number: u64) {
        let width = field.len() - 1;
        text(field, format!("{number:0width$o}").as_bytes());
    }
    let fits_7 = |number: u32| {
        if u64::from(number) <= MAX_OCTAL_7 {
            number.into()
        } else {
            0
        }
    };
    let mut block = [0; BLOCK];
    text(&mut block[0..100], header.path);
    octal(&mut block[100..108], header.mode.into());
    octal(&mut block[108..116], fits_7(header.uid));
    octal(&mut block[116..124], fits_7(header.gid));
    octal(
        &mut block[124..136],
        if header.size <= MAX_OCTAL_11 {
            header.size
        } else {
            0
        },
    );
    octal(
        &mut block[136..148],
        header_seconds(header.mtime).unwrap_or(0),
    );
    block[156] = header.type_flag;
    text(&mut block[157..257], header.link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    octal(&mut block[329..337], fits_7(header.device.0));
    octal(&mut block[337..345], fits_7(header.device.1));
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    octal(&mut block[148..155], sum);
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_decimals() {
        for (seconds, nanos, text) in [
            (1, 500_000_000, "1.5"),
            (0, 1, "0.000000001"),
            (-1, 500_000_000, "-0.5"),
            (-2, 0, "-2"),
            (-3, 250_000_000, "-2.75"),
            (100, 0, "100"),
        ] {
            assert_eq!(pax_time(Time { seconds, nanos }), text);
        }
    }

    static LONG: [u8; 110] = [b'a'; 110];

    #[test]
    fn a_record_counts_its_own_length() {
        let header = |path: &'static [u8]| Header {
            path,
            type_flag: b'0',
            link: b"",
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: Time::default(),
            device: (0, 0),
            xattrs: &[],
        };
        for length in 101..=110 {
            let records = pax_records(&header(&LONG[..length])).unwrap();
            let digits = records.iter().position(|byte| *byte == b' ').unwrap();
            let stated: usize = std::str::from_utf8(&records[..digits])
                .unwrap()
                .parse()
                .unwrap();
            assert_eq!(stated, records.len());
        }
        assert!(pax_records(&header(&LONG[..100])).unwrap().is_empty());
    }
}
