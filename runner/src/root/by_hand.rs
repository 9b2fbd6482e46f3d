//! Resolution of a path component by component, with a stack of directory fds in place of `..`.
//!
//! It stands in for `openat2` where that is missing, and does what `openat2` can't: stop before the last component,
//! and make directories on the way.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::NO_FOLLOW;
use crate::container_path::ContainerPath;
use crate::metadata::{FileKind, Metadata};

/// As many as the kernel follows.
const MAX_LINKS: u32 = 40;

/// What happens to a symlink that is the last component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Last {
    /// It is followed.
    Follow,
    /// It is the result.
    Keep,
}

/// Makes the directory of this name.
pub(crate) type MakeDirectory<'a> = dyn FnMut(BorrowedFd<'_>, &[u8]) -> Result<(), Errno> + 'a;

/// Where a path lies.
#[derive(Debug)]
pub(crate) struct Located {
    /// Names and `O_PATH` fds of the directories from the root (not included) down to the one that holds `name`.
    stack: Vec<(Vec<u8>, OwnedFd)>,
    root: OwnedFd,
    /// The last component; none when the path is a directory that was entered: then it is the top of the stack.
    pub(crate) name: Option<Vec<u8>>,
}

impl Located {
    /// The directory that holds `name`, or the directory itself when there is no name. An `O_PATH` fd.
    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        self.stack
            .last()
            .map_or_else(|| self.root.as_fd(), |(_, fd)| fd.as_fd())
    }

    /// The resolved path, relative to the root.
    pub(crate) fn path(&self) -> ContainerPath {
        let names = self.stack.iter().map(|(name, _)| name).chain(&self.name);
        let names: Vec<&[u8]> = names.map(Vec::as_slice).collect();
        names.join(&b'/').as_slice().into()
    }
}

/// For `make`: nothing is made, a missing directory is an error.
pub(crate) fn never_make(_: BorrowedFd<'_>, _: &[u8]) -> Result<(), Errno> {
    Err(Errno::NOENT)
}

/// Resolves `path` inside `root`. Missing directories before the last component are made by `make`. The last
/// component may be missing, or anything; a directory (followed) is entered.
pub(crate) fn locate(
    root: BorrowedFd<'_>,
    path: &[u8],
    last: Last,
    make: &mut MakeDirectory<'_>,
) -> Result<Located, Errno> {
    let mut queue: VecDeque<Vec<u8>> = path
        .split(|byte| *byte == b'/')
        .map(<[u8]>::to_vec)
        .collect();
    let root = rustix::io::fcntl_dupfd_cloexec(root, 0)?;
    let mut located = Located {
        stack: Vec::new(),
        root,
        name: None,
    };
    let mut links = 0;
    while let Some(component) = queue.pop_front() {
        match component.as_slice() {
            b"" | b"." => continue,
            b".." => {
                located.stack.pop();
                continue;
            }
            _ => {}
        }
        let is_last = queue.is_empty();
        let file = match open_component(located.directory(), &component) {
            Err(Errno::NOENT) if is_last => {
                located.name = Some(component);
                return Ok(located);
            }
            Err(Errno::NOENT) => {
                match make(located.directory(), &component) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno),
                }
                open_component(located.directory(), &component)?
            }
            result => result?,
        };
        match Metadata::of_fd(&file)?.kind {
            FileKind::Directory => located.stack.push((component, file)),
            FileKind::Symlink if !(is_last && last == Last::Keep) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP);
                }
                let target = rustix::fs::readlinkat(&file, "", Vec::new())?.into_bytes();
                if target.starts_with(b"/") {
                    located.stack.clear();
                }
                for part in target.rsplit(|byte| *byte == b'/') {
                    queue.push_front(part.to_vec());
                }
            }
            _ if is_last => {
                located.name = Some(component);
                return Ok(located);
            }
            _ => return Err(Errno::NOTDIR),
        }
    }
    Ok(located)
}

fn open_component(directory: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(directory, name, OFlags::PATH | NO_FOLLOW, Mode::empty())
}

/// [`super::open`] and [`super::open_no_follow`] without `openat2`.
pub(super) fn open(
    root: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
    last: Last,
) -> Result<OwnedFd, Errno> {
    let located = locate(root, path, last, &mut never_make)?;
    let name = located.name.as_deref().unwrap_or(b".");
    rustix::fs::openat(located.directory(), name, flags | NO_FOLLOW, Mode::empty())
}

/// [`super::open_beneath`] without `openat2`.
pub(super) fn open_without_links(
    root: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    let mut reached: Option<OwnedFd> = None;
    let mut components = path.split(|byte| *byte == b'/').peekable();
    while let Some(component) = components.next() {
        if component == b".." {
            return Err(Errno::XDEV);
        }
        let flags = if components.peek().is_some() {
            OFlags::PATH | OFlags::DIRECTORY
        } else {
            flags
        };
        let from = reached.as_ref().map_or(root, AsFd::as_fd);
        reached = Some(rustix::fs::openat(
            from,
            component,
            flags | NO_FOLLOW,
            Mode::empty(),
        )?);
    }
    reached.ok_or(Errno::NOENT)
}
