//! Looking up `USER` in an image's passwd and group files.
//!
//! The rules are the reference builder's (moby's `user.GetExecUser`): numbers are always numbers, the first match wins, an
//! explicit group replaces the supplementary ones, and numbers need no entry while names do. `uid:gid` in numbers asks
//! no file at all.

use std::io::Read;
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Who a command runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups.
    pub(crate) groups: Vec<u32>,
    /// Home directory by passwd.
    pub(crate) home: Option<Vec<u8>>,
}

/// Why a user could not be looked up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UserError {
    #[error("no user is named `{name}` in the image's /etc/passwd")]
    UnknownUser { name: String },
    #[error("no group is named `{name}` in the image's /etc/group")]
    UnknownGroup { name: String },
    #[error("`{text}` is not in the range of user and group ids")]
    OutOfRange { text: String },
    #[error("the image's /{path} is not a regular file")]
    NotAFile { path: &'static str },
    #[error("the image's /{path} is larger than {MAX_FILE} bytes")]
    TooLarge { path: &'static str },
    #[error("cannot read the image's /{path}")]
    Read {
        path: &'static str,
        #[source]
        source: Errno,
    },
}

/// Larger files are refused, as the reference does: they are an attack on the builder's memory.
const MAX_FILE: u64 = 10 << 20;

/// Ids are 31-bit: the reference refuses larger ones (CVE-2024-40635 was such a wrap-around to root).
const MAX_ID: u32 = i32::MAX.cast_unsigned();

/// Looks up `text` (`user`, `uid`, either with `:group` or `:gid`; empty is uid 0) beneath `root`.
pub(crate) fn look_up(root: BorrowedFd<'_>, text: &[u8]) -> Result<User, UserError> {
    let (user, group) = split(text);
    if let (Some(uid), Some(Some(gid))) = (number(user)?, group.map(number).transpose()?) {
        // Two numbers need no lookup but for the home directory, for which a broken passwd file is no obstacle.
        let passwd = read(root, "etc/passwd").unwrap_or_default();
        let entry = lines(&passwd).find(|fields| id(fields, 2) == Some(uid));
        return Ok(User {
            uid,
            gid,
            groups: vec![gid],
            home: entry.and_then(|fields| home(&fields)),
        });
    }
    resolve(text, &read(root, "etc/passwd")?, &read(root, "etc/group")?)
}

/// The pure half of [`look_up`].
pub(crate) fn resolve(text: &[u8], passwd: &[u8], group_file: &[u8]) -> Result<User, UserError> {
    let (user_text, group_text) = split(text);
    let user_number = number(user_text)?;
    let wanted = if user_text.is_empty() {
        Some(0)
    } else {
        user_number
    };
    let entry = lines(passwd).find(|fields| match wanted {
        Some(uid) => id(fields, 2) == Some(uid),
        None => fields[0] == user_text,
    });
    let mut user = User::default();
    let mut name = None;
    match (&entry, wanted) {
        (Some(fields), _) => {
            name = Some(fields[0]);
            user.uid = own_id(fields, 2)?;
            user.gid = own_id(fields, 3)?;
            user.home = home(fields);
        }
        (None, Some(uid)) => user.uid = uid,
        (None, None) => {
            return Err(UserError::UnknownUser {
                name: lossy(user_text),
            });
        }
    }
    match (group_text.filter(|group| !group.is_empty()), name) {
        (Some(group_text), _) => {
            let group_number = number(group_text)?;
            let entry = lines(group_file).find(|fields| match group_number {
                Some(gid) => id(fields, 2) == Some(gid),
                None => fields[0] == group_text,
            });
            user.gid = entry
                .and_then(|fields| id(&fields, 2))
                .or(group_number)
                .ok_or_else(|| UserError::UnknownGroup {
                    name: lossy(group_text),
                })?;
        }
        (None, Some(name)) => {
            user.groups = lines(group_file)
                .filter(|fields| {
                    fields
                        .get(3)
                        .is_some_and(|list| list.split(|&byte| byte == b',').any(|m| m == name))
                })
                .filter_map(|fields| id(&fields, 2))
                .collect();
        }
        (None, None) => {}
    }
    // As the reference does: the primary group stands among the supplementary ones too. A setgid program gives up the
    // primary one, and would then read what is kept from the group (CVE-2022-2990).
    if !user.groups.contains(&user.gid) {
        user.groups.push(user.gid);
    }
    Ok(user)
}

fn home(fields: &[&[u8]]) -> Option<Vec<u8>> {
    fields
        .get(5)
        .filter(|home| !home.is_empty())
        .map(|home| home.to_vec())
}

fn split(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    match text.iter().position(|&byte| byte == b':') {
        Some(colon) => (&text[..colon], Some(&text[colon + 1..])),
        None => (text, None),
    }
}

/// The fields of each line; empty lines and comments are none.
fn lines(file: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    file.split(|&byte| byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty() && !line.starts_with(b"#"))
        .map(|line| line.split(|&byte| byte == b':').collect())
}

fn id(fields: &[&[u8]], index: usize) -> Option<u32> {
    number(fields.get(index)?).ok().flatten()
}

/// The number in a user's own line: what is none is root, as in the reference, but what wraps around is refused.
fn own_id(fields: &[&[u8]], index: usize) -> Result<u32, UserError> {
    let number = fields.get(index).map(|text| number(text)).transpose()?;
    Ok(number.flatten().unwrap_or(0))
}

/// `None` when it is a name.
fn number(text: &[u8]) -> Result<Option<u32>, UserError> {
    // With a sign too, as Go reads numbers.
    let digits = text.strip_prefix(b"-").or_else(|| text.strip_prefix(b"+"));
    let digits = digits.unwrap_or(text);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Ok(None);
    }
    let number = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok());
    match number.filter(|&number: &u32| number <= MAX_ID) {
        Some(number) => Ok(Some(number)),
        None => Err(UserError::OutOfRange { text: lossy(text) }),
    }
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

/// A file of the image, which may be missing, a symlink to anywhere inside, a fifo, or endless.
fn read(root: BorrowedFd<'_>, path: &'static str) -> Result<Vec<u8>, UserError> {
    // Not blocking: opening a fifo would wait for a writer for ever.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let failed = |source| UserError::Read { path, source };
    // Looked at before it is opened for reading: opening a device can have effects.
    let place = OFlags::PATH | OFlags::CLOEXEC;
    let place = match crate::root::openat2(root, path.as_bytes(), place, resolve) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
        place => place.map_err(failed)?,
    };
    let stat = rustix::fs::fstat(&place).map_err(failed)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(UserError::NotAFile { path });
    }
    let fd = crate::root::openat2(root, path.as_bytes(), flags, resolve).map_err(failed)?;
    let mut content = Vec::new();
    let io_error = |error: std::io::Error| {
        failed(
            error
                .raw_os_error()
                .map_or(Errno::IO, Errno::from_raw_os_error),
        )
    };
    std::fs::File::from(fd)
        .take(MAX_FILE + 1)
        .read_to_end(&mut content)
        .map_err(io_error)?;
    if content.len() as u64 > MAX_FILE {
        return Err(UserError::TooLarge { path });
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n# c\n\napp:x:1000:1001:App:/home/app:/bin/sh\napp:x:7:7::/:\n12:x:5:5::/five:\nnine:x:+9:9::/nine:\nlarge:x:+4294967296:0::/:\n";
    const GROUP: &[u8] = b"root:x:0:root\nwheel:x:10:root,app\nstaff:x:50:app\napp:x:1001:\n";

    #[test]
    fn rules_of_the_reference() {
        type Found = (u32, u32, &'static [u32], Option<&'static str>);
        let rows: &[(&str, Result<Found, &str>)] = &[
            ("", Ok((0, 0, &[0, 10], Some("/root")))),
            ("root", Ok((0, 0, &[0, 10], Some("/root")))),
            ("app", Ok((1000, 1001, &[10, 50, 1001], Some("/home/app")))),
            ("1000", Ok((1000, 1001, &[10, 50, 1001], Some("/home/app")))),
            ("app:staff", Ok((1000, 50, &[50], Some("/home/app")))),
            ("app:77", Ok((1000, 77, &[77], Some("/home/app")))),
            ("app:", Ok((1000, 1001, &[10, 50, 1001], Some("/home/app")))),
            (":staff", Ok((0, 50, &[50], Some("/root")))),
            ("4242", Ok((4242, 0, &[0], None))),
            ("4242:staff", Ok((4242, 50, &[50], None))),
            ("12", Ok((12, 0, &[0], None))),
            ("5", Ok((5, 5, &[5], Some("/five")))),
            ("+5", Ok((5, 5, &[5], Some("/five")))),
            ("9", Ok((9, 9, &[9], Some("/nine")))),
            (
                "large",
                Err("`+4294967296` is not in the range of user and group ids"),
            ),
            (
                "nobody",
                Err("no user is named `nobody` in the image's /etc/passwd"),
            ),
            (
                "app:none",
                Err("no group is named `none` in the image's /etc/group"),
            ),
            (
                "4294967296",
                Err("`4294967296` is not in the range of user and group ids"),
            ),
            (
                "2147483648:0",
                Err("`2147483648` is not in the range of user and group ids"),
            ),
            ("-1", Err("`-1` is not in the range of user and group ids")),
        ];
        for (text, expected) in rows {
            let user = resolve(text.as_bytes(), PASSWD, GROUP).map_err(|error| error.to_string());
            let user = user.map(|u| (u.uid, u.gid, u.groups, u.home.map(|home| lossy(&home))));
            let expected = expected
                .map(|(u, g, s, h)| (u, g, s.to_vec(), h.map(str::to_owned)))
                .map_err(str::to_owned);
            assert_eq!(user, expected, "USER {text}");
        }
    }

    #[test]
    fn hostile_files_are_refused() {
        let root = tempfile::tempdir().expect("tempdir");
        let etc = root.path().join("etc");
        std::fs::create_dir(&etc).expect("mkdir");
        let open = || std::fs::File::open(root.path()).expect("open");
        assert_eq!(look_up(open().as_fd(), b"3:4").expect("numbers").gid, 4);
        assert!(matches!(
            look_up(open().as_fd(), b"x"),
            Err(UserError::UnknownUser { .. })
        ));
        rustix::fs::mknodat(
            rustix::fs::CWD,
            etc.join("passwd"),
            FileType::Fifo,
            0o644.into(),
            0,
        )
        .expect("mkfifo");
        assert!(matches!(
            look_up(open().as_fd(), b"x"),
            Err(UserError::NotAFile { .. })
        ));
        std::fs::remove_file(etc.join("passwd")).expect("rm");
        std::fs::File::create(etc.join("passwd"))
            .expect("create")
            .set_len(MAX_FILE + 1)
            .expect("grow");
        assert!(matches!(
            look_up(open().as_fd(), b"x"),
            Err(UserError::TooLarge { .. })
        ));
        std::fs::remove_file(etc.join("passwd")).expect("rm");
        // A link that leaves the root stays inside it.
        std::os::unix::fs::symlink("../../../../etc/hostile", etc.join("passwd")).expect("link");
        std::fs::write(etc.join("hostile"), "x:x:9:9::/:\n").expect("write");
        assert_eq!(look_up(open().as_fd(), b"x").expect("inside").uid, 9);
    }
}
