//! The tree beneath an upper directory: mounted, or looked up in the snapshots where nothing can be.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::stubs::open_parent;
use super::unchanged::ORIGIN;
use crate::metadata::{FileKind, Metadata};
use crate::root::{FileError, open_root};
use crate::xattr::{self, Xattr};

/// What a chain of snapshots shows.
#[derive(Debug)]
pub(super) enum Below {
    /// By a mount: attributes have their own names.
    Mounted(OwnedFd),
    /// By its snapshots, the highest first.
    Chain(Vec<OwnedFd>),
}

impl Below {
    /// Opens the snapshots of a chain, lowest first.
    pub(super) fn of_chain(lowers: &[PathBuf]) -> Result<Self, FileError> {
        let snapshots = lowers.iter().rev().map(|lower| open_root(lower));
        Ok(Self::Chain(snapshots.collect::<Result<_, _>>()?))
    }

    /// The directory that the entry at `path` lies in, and the entry's metadata; none where the tree has no such entry.
    pub(super) fn find(&self, path: &[u8]) -> Result<Option<(OwnedFd, Metadata)>, Errno> {
        match self {
            Self::Mounted(root) => {
                let Some((directory, name)) = open_parent(root, path)? else {
                    return Ok(None);
                };
                let metadata = there(directory.as_fd(), name)?;
                Ok(metadata.map(|metadata| (directory, metadata)))
            }
            Self::Chain(snapshots) => {
                for snapshot in snapshots {
                    match look(snapshot, path)? {
                        Look::Found(directory, metadata) => {
                            return Ok(Some((directory, metadata)));
                        }
                        Look::Hidden => return Ok(None),
                        Look::Further => {}
                    }
                }
                Ok(None)
            }
        }
    }

    /// The attributes that a layer has of an entry, in the order of their names; none for what is a mark and no file.
    pub(super) fn xattrs(
        &self,
        directory: BorrowedFd<'_>,
        name: &[u8],
    ) -> Result<Option<Vec<Xattr>>, Errno> {
        let mut raw = xattr::list_at(directory, name)?;
        if let Self::Chain(_) = self {
            let (kept, own) = xattr::split(raw);
            return Ok(own.iter().all(|(name, _)| name == ORIGIN).then_some(kept));
        }
        raw.retain(|(name, _)| xattr::is_kept(name));
        raw.sort_unstable();
        Ok(Some(raw))
    }
}

/// What one snapshot says of a path.
enum Look {
    Found(OwnedFd, Metadata),
    /// There is no such entry, whatever is in the snapshots beneath.
    Hidden,
    /// It says nothing.
    Further,
}

fn look(snapshot: &OwnedFd, path: &[u8]) -> Result<Look, Errno> {
    let mut directory = rustix::io::dup(snapshot)?;
    let mut is_opaque = false;
    let mut steps = path.split(|byte| *byte == b'/').peekable();
    while let Some(step) = steps.next() {
        let Some(metadata) = there(directory.as_fd(), step)? else {
            return Ok(if is_opaque {
                Look::Hidden
            } else {
                Look::Further
            });
        };
        if metadata.is_whiteout_device() || is_xattr_whiteout(directory.as_fd(), step, &metadata)? {
            return Ok(Look::Hidden);
        }
        if steps.peek().is_none() {
            return Ok(Look::Found(directory, metadata));
        }
        if metadata.kind != FileKind::Directory {
            return Ok(Look::Hidden);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        directory = rustix::fs::openat(&directory, step, flags, Mode::empty())?;
        is_opaque |= xattr::read(directory.as_fd(), xattr::OPAQUE)?.as_deref() == Some(b"y");
    }
    Ok(Look::Further)
}

fn is_xattr_whiteout(
    directory: BorrowedFd<'_>,
    name: &[u8],
    metadata: &Metadata,
) -> Result<bool, Errno> {
    if metadata.kind != FileKind::File || metadata.size > 0 {
        return Ok(false);
    }
    let attributes = xattr::list_at(directory, name)?;
    Ok(attributes.iter().any(|(name, _)| name == xattr::WHITEOUT))
}

fn there(directory: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Metadata>, Errno> {
    match Metadata::of_name(directory, name) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        metadata => metadata.map(Some),
    }
}
