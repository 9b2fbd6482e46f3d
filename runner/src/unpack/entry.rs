//! Entries of a layer's table, and their metadata on disk.

use std::os::fd::BorrowedFd;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::{UnpackError, fail};
use crate::job::{LayerEntry, LayerEntryKind};
use crate::metadata::{self, Time};
use crate::node::{self, Attributes};
use crate::root;
use crate::tar_reader::{Member, MemberKind};
use crate::xattr::{self, Xattr};

/// How directories are opened.
pub(super) const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);

/// A directory that the layer does not name, as it is until the lower layers are known.
pub(super) fn implied(path: &[u8]) -> LayerEntry {
    LayerEntry {
        path: path.to_vec(),
        kind: LayerEntryKind::Directory { is_opaque: false },
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: 0,
        mtime_nanos: 0,
        xattrs: Vec::new(),
    }
}

pub(super) fn described(member: &Member, path: Vec<u8>, kind: LayerEntryKind) -> LayerEntry {
    let mode = if member.kind == MemberKind::Symlink {
        0o777
    } else {
        member.mode
    };
    let (mtime, mtime_nanos) = (member.mtime.seconds, member.mtime.nanos);
    let xattrs = member
        .xattrs
        .iter()
        .filter(|(name, _)| xattr::is_kept(name))
        .cloned()
        .collect();
    LayerEntry {
        path,
        kind,
        mode,
        uid: member.uid,
        gid: member.gid,
        mtime,
        mtime_nanos,
        xattrs,
    }
}

/// The attributes with the names under which they are stored.
pub(super) fn stored(xattrs: &[Xattr]) -> Vec<Xattr> {
    xattrs
        .iter()
        .map(|(name, value)| (xattr::escape(name), value.clone()))
        .collect()
}

pub(super) fn attributes<'a>(entry: &LayerEntry, xattrs: &'a [Xattr]) -> Attributes<'a> {
    let mtime = Some(Time {
        seconds: entry.mtime,
        nanos: entry.mtime_nanos,
    });
    Attributes {
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime,
        xattrs,
    }
}

pub(super) fn set(fd: BorrowedFd<'_>, entry: &LayerEntry) -> Result<(), Errno> {
    let xattrs = stored(&entry.xattrs);
    node::set(fd, &attributes(entry, &xattrs))
}

/// Sets the time of a directory in which nothing is made any more.
pub(super) fn set_directory_time(
    target: BorrowedFd<'_>,
    entry: &LayerEntry,
) -> Result<(), UnpackError> {
    let directory =
        root::open_beneath(target, &entry.path, DIRECTORY).map_err(fail("open", &entry.path))?;
    metadata::set_time(
        &directory,
        Time {
            seconds: entry.mtime,
            nanos: entry.mtime_nanos,
        },
    )
    .map_err(fail("set the time of", &entry.path))
}
