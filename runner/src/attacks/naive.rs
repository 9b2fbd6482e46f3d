//! An unpacker as one writes it at first: it believes names, links and sizes.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// What it gets wrong in reading the format; all of it trusts paths.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// The size in a PAX header is for the next file, as it should be.
    Sound,
    /// The size in a PAX header is not looked at.
    IgnoresPaxSize,
    /// The size in a PAX header is taken for the next header of any kind.
    AppliesPaxToAll,
}

/// Unpacks a tar; failures of single entries are passed over, as long as anything can be done.
pub(super) fn unpack(tar: &[u8], target: &Path, reader: Reader) {
    let (mut at, mut pax_size, mut long_name) = (0, None, None);
    let mut xattrs: Vec<(String, Vec<u8>)> = Vec::new();
    while let Some(header) = tar.get(at..at + 512) {
        if header.iter().all(|byte| *byte == 0) {
            break;
        }
        at += 512;
        let flag = header[156];
        let is_file = !matches!(flag, b'x' | b'L');
        let mut size = octal(&header[124..136]);
        let applies = match reader {
            Reader::Sound => is_file,
            Reader::IgnoresPaxSize => false,
            Reader::AppliesPaxToAll => flag != b'x',
        };
        if applies && let Some(pax) = pax_size.take() {
            size = pax;
        }
        let content = &tar[at..(at + size).min(tar.len())];
        at += size.next_multiple_of(512);
        match flag {
            b'x' => {
                for (key, value) in records(content) {
                    match key.strip_prefix("SCHILY.xattr.") {
                        Some(name) => xattrs.push((name.to_owned(), value.to_vec())),
                        None if key == "size" => pax_size = decimal(value),
                        None => {}
                    }
                }
            }
            b'L' => long_name = Some(until_zero(content).to_vec()),
            _ => {
                let name = (long_name.take()).unwrap_or_else(|| until_zero(&header[..100]).into());
                let path = join(target, &name);
                entry(header, &path, target, content);
                for (name, value) in xattrs.drain(..) {
                    let _ =
                        rustix::fs::setxattr(&path, name, &value, rustix::fs::XattrFlags::empty());
                }
            }
        }
    }
}

fn entry(header: &[u8], path: &Path, target: &Path, content: &[u8]) {
    let name = path.file_name().map(OsStrExt::as_bytes).unwrap_or_default();
    let directory = path.parent().unwrap_or(target);
    let link = until_zero(&header[157..257]);
    let mode = u32::try_from(octal(&header[100..108])).unwrap_or(0o644);
    if name == b".wh..wh..opq" {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let _ = fs::remove_file(entry.path());
        }
        return;
    }
    if let Some(gone) = name.strip_prefix(b".wh.") {
        let gone = join(directory, gone);
        let _ = fs::remove_file(&gone).or_else(|_| fs::remove_dir_all(&gone));
        return;
    }
    let _ = fs::create_dir_all(directory);
    let _ = match header[156] {
        b'5' => fs::create_dir(path),
        b'2' => symlink(std::ffi::OsStr::from_bytes(link), path),
        b'1' => fs::hard_link(join(target, link), path),
        _ => fs::write(path, content),
    };
    if header[156] != b'2' {
        let _ = fs::set_permissions(path, fs::Permissions::from_mode(mode));
    }
}

/// A path of the archive made one of the host.
pub(super) fn join(root: &Path, path: &[u8]) -> std::path::PathBuf {
    root.join(std::ffi::OsStr::from_bytes(path))
}

fn until_zero(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0);
    &field[..end.unwrap_or(field.len())]
}

fn octal(field: &[u8]) -> usize {
    let text = String::from_utf8_lossy(until_zero(field)).into_owned();
    usize::from_str_radix(text.trim(), 8).unwrap_or(0)
}

fn decimal(text: &[u8]) -> Option<usize> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn records(content: &[u8]) -> Vec<(String, &[u8])> {
    let lines = content.split(|byte| *byte == b'\n');
    lines
        .filter_map(|line| {
            let record = line.splitn(2, |byte| *byte == b' ').nth(1)?;
            let mut halves = record.splitn(2, |byte| *byte == b'=');
            let key = String::from_utf8_lossy(halves.next()?).into_owned();
            Some((key, halves.next()?))
        })
        .collect()
}
