//! What a chain of snapshots shows at a path, without mounting it: top-most first, minding deletions and opaque
//! directories.

use std::collections::{BTreeSet, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::table;
use crate::metadata::{FileKind, Metadata};
use crate::root::{FileError, open_root};
use crate::walk::read_names;
use crate::xattr;

/// As many as the kernel follows.
const MAX_LINKS: u32 = 40;

/// The chain's root directories, top-most first.
#[derive(Debug)]
pub(super) struct Lowers(Vec<OwnedFd>);

/// What is at a path.
#[derive(Debug)]
pub(super) enum Found {
    Missing,
    /// The directories that are merged there, top-most first; the first one's metadata counts.
    Directory(Vec<OwnedFd>),
    /// Anything else: an `O_PATH` fd, the directory it lies in and what it is.
    Other {
        file: OwnedFd,
        directory: OwnedFd,
        metadata: Metadata,
    },
}

/// A resolved path.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) path: Vec<u8>,
    pub(super) found: Found,
}

impl Lowers {
    pub(super) fn open(lowers: &[PathBuf]) -> Result<Self, FileError> {
        lowers
            .iter()
            .rev()
            .map(|lower| open_root(lower))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// What is at `path`; symlinks are followed inside the chain, the last component only if `follows_last`. After a
    /// missing component the rest is taken as it is written.
    pub(super) fn resolve(&self, path: &[u8], follows_last: bool) -> Result<Resolved, Errno> {
        let mut queue: VecDeque<Vec<u8>> = path
            .split(|byte| *byte == b'/')
            .map(<[u8]>::to_vec)
            .collect();
        let mut resolved: Vec<u8> = Vec::new();
        let mut stack: Vec<Vec<OwnedFd>> = vec![self.top()?];
        let mut links = 0;
        while let Some(component) = queue.pop_front() {
            match component.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    if stack.len() > 1 {
                        stack.pop();
                    }
                    resolved.truncate(table::split(&resolved).0.len());
                    continue;
                }
                _ => {}
            }
            let next = table::join(&resolved, &component);
            match look_up(stack.last().expect("the root stays"), &component)? {
                Found::Missing if queue.is_empty() => {
                    return Ok(Resolved {
                        path: next,
                        found: Found::Missing,
                    });
                }
                Found::Missing => {
                    // Below nothing there is nothing.
                    stack.push(Vec::new());
                    resolved = next;
                }
                Found::Directory(directories) => {
                    stack.push(directories);
                    resolved = next;
                }
                Found::Other { file, metadata, .. }
                    if metadata.kind == FileKind::Symlink
                        && (follows_last || !queue.is_empty()) =>
                {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP);
                    }
                    let target = rustix::fs::readlinkat(&file, "", Vec::new())?.into_bytes();
                    if target.starts_with(b"/") {
                        stack.truncate(1);
                        resolved.clear();
                    }
                    for part in target.rsplit(|byte| *byte == b'/') {
                        queue.push_front(part.to_vec());
                    }
                }
                found if queue.is_empty() => return Ok(Resolved { path: next, found }),
                Found::Other { .. } => return Err(Errno::NOTDIR),
            }
        }
        let directories = stack.pop().expect("the root stays");
        let found = if directories.is_empty() && !resolved.is_empty() {
            Found::Missing
        } else {
            Found::Directory(directories)
        };
        Ok(Resolved {
            path: resolved,
            found,
        })
    }

    /// What the chain shows in `/`.
    pub(super) fn root_names(&self) -> Result<BTreeSet<Vec<u8>>, Errno> {
        let mut names = BTreeSet::new();
        for directory in &self.0 {
            for (name, _) in read_names(directory.as_fd())? {
                if !matches!(look_up(&self.0, &name)?, Found::Missing) {
                    names.insert(name);
                }
            }
        }
        Ok(names)
    }

    fn top(&self) -> Result<Vec<OwnedFd>, Errno> {
        self.0
            .iter()
            .map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, 0))
            .collect()
    }
}

/// What `name` is in directories that are merged, top-most first.
fn look_up(directories: &[OwnedFd], name: &[u8]) -> Result<Found, Errno> {
    let mut merged = Vec::new();
    for directory in directories {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => continue,
            result => result?,
        };
        let metadata = Metadata::of_fd(&file)?;
        if metadata.is_whiteout_device() || is_xattr_whiteout(directory, name, &metadata)? {
            break;
        }
        if metadata.kind != FileKind::Directory {
            if merged.is_empty() {
                let directory = rustix::io::fcntl_dupfd_cloexec(directory, 0)?;
                return Ok(Found::Other {
                    file,
                    directory,
                    metadata,
                });
            }
            break;
        }
        let opened = crate::node::open_directory(directory.as_fd(), name)?;
        let is_opaque =
            xattr::read(opened.as_fd(), xattr::OPAQUE)?.is_some_and(|value| value == b"y");
        merged.push(opened);
        if is_opaque {
            break;
        }
    }
    Ok(if merged.is_empty() {
        Found::Missing
    } else {
        Found::Directory(merged)
    })
}

fn is_xattr_whiteout(directory: &OwnedFd, name: &[u8], metadata: &Metadata) -> Result<bool, Errno> {
    if metadata.kind != FileKind::File || metadata.size > 0 {
        return Ok(false);
    }
    Ok(xattr::list_at(directory.as_fd(), name)?
        .iter()
        .any(|(xattr, _)| xattr == xattr::WHITEOUT))
}
