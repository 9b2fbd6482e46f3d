//! Finding, and where need be making, the places that mounts go to, beneath the sandbox's root.
//!
//! What is made in the root overlay is written down as [`Stubs`], to be taken out of the upper directory again.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::overlay::set_mtime;

/// What was made for mounting, and what that did to directories of the image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stubs {
    /// Parents before children.
    pub(crate) made: Vec<Stub>,
    /// Directories that were copied up because something was made in them, and their parents; as they were before.
    pub(crate) touched: Vec<TouchedDirectory>,
}

/// A file or directory that the image does not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stub {
    /// Path in the root, without symlinks.
    pub(crate) path: Vec<u8>,
    pub(crate) is_directory: bool,
}

/// A directory of the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TouchedDirectory {
    pub(crate) path: Vec<u8>,
    pub(crate) metadata: Metadata,
}

/// Metadata of a directory that ends up in a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: (i64, i64),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What a mount point has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PointKind {
    Directory,
    File,
}

/// As many as the kernel follows.
const MAX_SYMLINKS: usize = 40;

/// Finds or makes the mount point `path`; symlinks are followed inside the root, dangling ones to where they point.
pub(crate) fn open(
    root: BorrowedFd<'_>,
    path: &[u8],
    kind: PointKind,
    stubs: &mut Stubs,
) -> Result<OwnedFd, Errno> {
    match look_up(root, path) {
        Err(Errno::NOENT | Errno::NOSYS) => {}
        found => {
            let found = found?;
            check(&rustix::fs::fstat(&found)?, kind)?;
            return Ok(found);
        }
    }
    Walk::new(root)?.to(path, kind, stubs)
}

/// Finds `path` beneath `root`.
pub(crate) fn look_up(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let path = if path.is_empty() { b"." } else { path };
    crate::root::openat2(
        root,
        path,
        flags,
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
}

fn check(stat: &Stat, kind: PointKind) -> Result<(), Errno> {
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    match kind {
        PointKind::Directory if !is_directory => Err(Errno::NOTDIR),
        PointKind::File if is_directory => Err(Errno::ISDIR),
        _ => Ok(()),
    }
}

/// A walk down from the root, one component at a time, on descriptors: nothing that another process renames meanwhile
/// (a cache mount is shared) can lead it out.
struct Walk {
    /// From the root down to where the walk is.
    stack: Vec<Place>,
    root_device: u64,
}

struct Place {
    fd: OwnedFd,
    path: Vec<u8>,
    /// It lies in the root overlay, not in something mounted there.
    is_in_root: bool,
}

impl Walk {
    fn new(root: BorrowedFd<'_>) -> Result<Self, Errno> {
        let fd = open_below(root, b".")?;
        let root_device = rustix::fs::fstat(&fd)?.st_dev;
        Ok(Self {
            stack: vec![Place {
                fd,
                path: Vec::new(),
                is_in_root: true,
            }],
            root_device,
        })
    }

    fn here(&self) -> &Place {
        self.stack.last().expect("the root is never popped")
    }

    fn to(mut self, path: &[u8], kind: PointKind, stubs: &mut Stubs) -> Result<OwnedFd, Errno> {
        let mut left: Vec<Vec<u8>> = components(path).rev().map(<[u8]>::to_vec).collect();
        let mut symlinks = 0;
        while let Some(name) = left.pop() {
            if name == b".." {
                self.stack.truncate((self.stack.len() - 1).max(1));
                continue;
            }
            let kind = if left.is_empty() {
                kind
            } else {
                PointKind::Directory
            };
            let fd = match open_below(self.here().fd.as_fd(), &name) {
                Err(Errno::NOENT) => {
                    self.make(&name, kind, stubs)?;
                    open_below(self.here().fd.as_fd(), &name)?
                }
                fd => fd?,
            };
            let stat = rustix::fs::fstat(&fd)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
                symlinks += 1;
                if symlinks > MAX_SYMLINKS {
                    return Err(Errno::LOOP);
                }
                let text = rustix::fs::readlinkat(&fd, "", Vec::new())?.into_bytes();
                if text.starts_with(b"/") {
                    self.stack.truncate(1);
                }
                left.extend(components(&text).rev().map(<[u8]>::to_vec));
                continue;
            }
            check(&stat, kind)?;
            if kind == PointKind::File {
                return Ok(fd);
            }
            let path = join(&self.here().path, &name);
            let is_in_root = stat.st_dev == self.root_device;
            self.stack.push(Place {
                fd,
                path,
                is_in_root,
            });
        }
        match kind {
            PointKind::Directory => Ok(self.stack.pop().expect("the root is never popped").fd),
            PointKind::File => Err(Errno::ISDIR),
        }
    }

    /// Makes `name` here, and leaves this directory's mtime as it was.
    fn make(&self, name: &[u8], kind: PointKind, stubs: &mut Stubs) -> Result<(), Errno> {
        let here = self.here();
        let directory = rustix::fs::openat(
            &here.fd,
            ".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let before = metadata(directory.as_fd())?;
        if here.is_in_root {
            self.remember_touched(stubs)?;
        }
        match kind {
            PointKind::Directory => rustix::fs::mkdirat(&directory, name, Mode::from(0o755))?,
            PointKind::File => {
                let flags = OFlags::WRONLY
                    | OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                drop(rustix::fs::openat(
                    &directory,
                    name,
                    flags,
                    Mode::from(0o644),
                )?);
            }
        }
        // As the reference does: an image without these directories has them after its first RUN.
        let stays = here.path.is_empty() && matches!(name, b"dev" | b"proc" | b"sys");
        if here.is_in_root && !stays {
            stubs.made.push(Stub {
                path: join(&here.path, name),
                is_directory: kind == PointKind::Directory,
            });
            set_mtime(directory.as_fd(), before.mtime)?;
        }
        Ok(())
    }

    /// Writes down the directories that making something here copies up.
    fn remember_touched(&self, stubs: &mut Stubs) -> Result<(), Errno> {
        for place in self.stack.iter().filter(|place| place.is_in_root) {
            let is_known = stubs
                .touched
                .iter()
                .any(|touched| touched.path == place.path)
                || stubs.made.iter().any(|made| made.path == place.path);
            if !is_known {
                let readable = rustix::fs::openat(
                    &place.fd,
                    ".",
                    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
                    Mode::empty(),
                )?;
                let metadata = metadata(readable.as_fd())?;
                stubs.touched.push(TouchedDirectory {
                    path: place.path.clone(),
                    metadata,
                });
            }
        }
        Ok(())
    }
}

/// Metadata of an open directory.
pub(crate) fn metadata(directory: BorrowedFd<'_>) -> Result<Metadata, Errno> {
    let stat = rustix::fs::fstat(directory)?;
    Ok(Metadata {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: (stat.st_mtime, stat.st_mtime_nsec.cast_signed()),
        xattrs: crate::overlay::kept_xattrs(directory)?,
    })
}

/// Makes the directory `path` and its missing parents 0755, for good; finds it when it is there.
pub(crate) fn make_directory(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    open(root, path, PointKind::Directory, &mut Stubs::default())
}

fn open_below(directory: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty())
}

fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
}

fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() {
        name.to_vec()
    } else {
        [parent, b"/", name].concat()
    }
}
