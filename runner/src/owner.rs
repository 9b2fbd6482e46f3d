//! `--chown` and the owner of `WORKDIR`: ids from a text and the image's own passwd and group.
//!
//! An unknown user and missing files are root, and an unknown group is what there would be without one: the reference does so,
//! silently, and images rely on it. Here the names are handed back, so that the build can say it.

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use crate::root::{FileError, read_small_file};

/// Larger files than this are no passwd files.
const LIMIT: u64 = 16 * 1024 * 1024;

/// Larger numbers are refused: the one above means "leave it" to chown(2), and would have made the file root's.
const MAX_ID: u32 = u32::MAX - 1;

/// Looks up `user[:group]`. A name's primary group is its group; a number alone is user and group. Names that the image does not
/// have are put into `unknown`.
pub(crate) fn lookup(
    root: BorrowedFd<'_>,
    text: &[u8],
    unknown: &mut BTreeSet<Vec<u8>>,
) -> Result<(u32, u32), FileError> {
    let (user, group) = match text.iter().position(|byte| *byte == b':') {
        Some(colon) => (&text[..colon], Some(&text[colon + 1..])),
        None => (text, None),
    };
    let (uid, mut gid) = match given(user)? {
        Some(uid) => (uid, uid),
        None if user.is_empty() || user == b"root" => (0, 0),
        None => {
            let passwd = read_small_file(root, b"etc/passwd", LIMIT)?.unwrap_or_default();
            let found = find(&passwd, user);
            if found.is_none() {
                unknown.insert(user.to_vec());
            }
            found
                .and_then(|fields| Some((number(fields.first()?)?, number(fields.get(1)?)?)))
                .unwrap_or_default()
        }
    };
    if let Some(group) = group {
        gid = match given(group)? {
            Some(gid) => gid,
            None if group.is_empty() || group == b"root" => 0,
            None => {
                let groups = read_small_file(root, b"etc/group", LIMIT)?.unwrap_or_default();
                let found = find(&groups, group);
                if found.is_none() {
                    unknown.insert(group.to_vec());
                }
                found.map_or(gid, |fields| {
                    fields
                        .first()
                        .and_then(|gid| number(gid))
                        .unwrap_or_default()
                })
            }
        };
    }
    Ok((uid, gid))
}

/// The number that a text is; none when it is a name.
fn given(text: &[u8]) -> Result<Option<u32>, FileError> {
    if !is_number(text) {
        return Ok(None);
    }
    let number = number(text).ok_or(Errno::OVERFLOW);
    number
        .map(Some)
        .map_err(FileError::at("give files to the user or group", text))
}

fn is_number(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

fn number(text: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(text).ok()?;
    text.parse()
        .ok()
        .filter(|&id| is_number(text.as_bytes()) && id <= MAX_ID)
}

/// The fields after name and password of the first line with this name.
fn find<'a>(file: &'a [u8], name: &[u8]) -> Option<Vec<&'a [u8]>> {
    file.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.trim_ascii().split(|byte| *byte == b':');
        (fields.next()? == name).then(|| fields.skip(1).collect())
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::root::open_root;

    #[test]
    fn texts_give_ids() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(
            root.path().join("etc/passwd"),
            "# x\nroot:x:0:0::/:/\nbad:x\napp:x:1000:1001:a:/:\n",
        )
        .unwrap();
        std::fs::write(root.path().join("etc/group"), "staff:x:50:app\nnone:x::\n").unwrap();
        let fd = open_root(root.path()).unwrap();
        for (text, ids) in [
            ("", (0, 0)),
            ("root", (0, 0)),
            ("7", (7, 7)),
            ("7:8", (7, 8)),
            ("app", (1000, 1001)),
            ("app:staff", (1000, 50)),
            ("app:0", (1000, 0)),
            ("7:staff", (7, 50)),
            ("app:root", (1000, 0)),
            ("nobody-knows", (0, 0)),
            ("bad", (0, 0)),
            ("9:unknown", (9, 9)),
            ("app:unknown", (1000, 1001)),
            ("unknown:unknown", (0, 0)),
            ("app:", (1000, 0)),
            ("9:none", (9, 0)),
            (":staff", (0, 50)),
            ("4294967294:2147483648", (u32::MAX - 1, 1 << 31)),
        ] {
            let mut unknown = BTreeSet::new();
            let found = lookup(fd.as_fd(), text.as_bytes(), &mut unknown).unwrap();
            assert_eq!(found, ids, "{text}");
            let names = text
                .split(':')
                .filter(|name| name.contains("unknown") || name.contains("knows"));
            let names: BTreeSet<Vec<u8>> = names.map(|name| name.as_bytes().to_vec()).collect();
            assert_eq!(unknown, names, "{text}");
        }
        for text in [
            "99999999999",
            "4294967295",
            "4294967296:0",
            "app:4294967295",
        ] {
            let error = lookup(fd.as_fd(), text.as_bytes(), &mut BTreeSet::new()).unwrap_err();
            assert_eq!(error.source, Errno::OVERFLOW, "{text}");
        }
        std::fs::remove_file(root.path().join("etc/passwd")).unwrap();
        std::os::unix::fs::symlink("/etc/group", root.path().join("etc/passwd")).unwrap();
        assert_eq!(
            lookup(fd.as_fd(), b"none", &mut BTreeSet::new()).unwrap(),
            (0, 0),
            "a link stays inside, a line that is none of passwd's is 0"
        );
    }
}
