//! The metadata of `/`: which layer of a chain says something about it, and whether a step changed it.
//!
//! A layer may or may not have an entry for its root. A snapshot directory always has some mode and owner, so one that
//! has the entry carries the mark `user.overlay.rbuild.root`; an upper directory carries what it started with in
//! `user.overlay.rbuild.base`. Overlayfs hides both (its own prefix), and packing drops them.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::metadata::{self, Metadata};
use crate::root::{FileError, open_root};
use crate::xattr::{self, Xattr};

const MARK: &[u8] = b"user.overlay.rbuild.root";
const BASE: &[u8] = b"user.overlay.rbuild.base";

/// Mode, owner and attributes of a root directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootMetadata {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Extended attributes of the layer.
    pub xattrs: Vec<Xattr>,
}

impl RootMetadata {
    fn of(directory: BorrowedFd<'_>) -> Result<Self, Errno> {
        let metadata = Metadata::of_fd(directory)?;
        let (xattrs, _) = xattr::split(xattr::list(directory)?);
        Ok(Self {
            mode: metadata.mode,
            uid: metadata.uid,
            gid: metadata.gid,
            xattrs,
        })
    }

    /// Equal bytes for equal values; only ever compared.
    fn encoded(&self) -> Vec<u8> {
        let mut hasher = blake3::Hasher::new();
        for number in [self.mode, self.uid, self.gid] {
            hasher.update(&number.to_le_bytes());
        }
        for bytes in self.xattrs.iter().flat_map(|(name, value)| [name, value]) {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        }
        hasher.finalize().to_hex().as_bytes().to_vec()
    }
}

/// The metadata of `/` of a chain of snapshots, lowest first: that of the top-most layer that has an entry for it.
pub fn of_chain(lowers: &[PathBuf]) -> Result<RootMetadata, FileError> {
    for lower in lowers.iter().rev() {
        let directory = open_root(lower)?;
        let fail = |errno| FileError::at_host("read the attributes of", lower)(errno);
        if has_mark(directory.as_fd()).map_err(fail)? {
            return RootMetadata::of(directory.as_fd()).map_err(fail);
        }
    }
    Ok(RootMetadata {
        mode: 0o755,
        uid: 0,
        gid: 0,
        xattrs: Vec::new(),
    })
}

/// Gives a new upper directory the chain's `/`, and notes it, so that [`crate::seal::seal`] sees a change.
pub fn prepare_upper(upper: BorrowedFd<'_>, lowers: &[PathBuf]) -> Result<(), FileError> {
    let root = of_chain(lowers)?;
    let set = || {
        metadata::set_owner(upper, root.uid, root.gid)?;
        metadata::set_mode(upper, root.mode)?;
        for (name, value) in &root.xattrs {
            xattr::set(upper, &xattr::escape(name), value)?;
        }
        rustix::fs::fsetxattr(upper, BASE, &root.encoded(), XattrFlags::empty())
    };
    set().map_err(FileError::at("prepare the upper directory's", b""))
}

/// Marks a snapshot whose layer has an entry for the root.
pub(crate) fn set_mark(snapshot: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::fs::fsetxattr(snapshot, MARK, b"y", XattrFlags::empty())
}

/// Whether the snapshot's layer has an entry for the root.
pub(crate) fn has_mark(snapshot: BorrowedFd<'_>) -> Result<bool, Errno> {
    Ok(xattr::read(snapshot, MARK)?.is_some())
}

/// Marks an upper directory whose root is not what [`prepare_upper`] made it.
pub(crate) fn mark_when_changed(upper: BorrowedFd<'_>) -> Result<(), Errno> {
    match xattr::read(upper, BASE)? {
        Some(base) if base != RootMetadata::of(upper)?.encoded() => set_mark(upper),
        _ => Ok(()),
    }
}
