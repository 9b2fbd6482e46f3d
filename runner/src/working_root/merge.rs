//! A chain of snapshots as one directory: what an overlay of them would show.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::copy::{CopyError, DIRECTORY, Transfer};
use crate::job::SelectedEntry;
use crate::layer_root;
use crate::metadata::{self, FileKind, Metadata};
use crate::node;
use crate::root::{self, FileError, open_root};
use crate::walk::{self, Entry, Filter};
use crate::xattr;

/// Copies the snapshots, lowest first, into the empty directory at `target`.
pub(super) fn merge(lowers: &[PathBuf], target: &Path) -> Result<(), CopyError> {
    let root = open_root(target)?;
    for lower in lowers {
        add(open_root(lower)?.as_fd(), root.as_fd())?;
    }
    let attributes = layer_root::of_chain(lowers)?;
    let set = || {
        metadata::set_owner(&root, attributes.uid, attributes.gid)?;
        metadata::set_mode(&root, attributes.mode)?;
        for (name, value) in &attributes.xattrs {
            xattr::set(root.as_fd(), name, value)?;
        }
        Ok(())
    };
    Ok(set().map_err(FileError::at("set the metadata of", b""))?)
}

/// Puts one snapshot on top.
fn add(snapshot: BorrowedFd<'_>, root: BorrowedFd<'_>) -> Result<(), CopyError> {
    let mut copied = Vec::new();
    let mut transfer = Transfer::new(snapshot, root, b"", None, &mut copied).unescaping();
    walk::walk(
        snapshot,
        |_, _| Filter::Take,
        |entry| {
            if make_way(root, entry)? == Way::IsWhiteout {
                return Ok(());
            }
            transfer.beneath(&SelectedEntry {
                path: entry.path().to_vec(),
                mode: None,
                ids: None,
                expected: None,
            })
        },
    )?;
    transfer.finish()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    IsFree,
    IsWhiteout,
}

/// Removes what an entry hides.
fn make_way(root: BorrowedFd<'_>, entry: &Entry<'_>) -> Result<Way, FileError> {
    let path = entry.path();
    let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&b""[..], path),
    };
    let marks = match entry.metadata.kind {
        FileKind::Directory | FileKind::File => entry.xattrs()?,
        _ => Vec::new(),
    };
    let has = |wanted: &[u8]| marks.iter().any(|(name, _)| name == wanted);
    let is_whiteout = entry.metadata.is_whiteout_device()
        || (entry.metadata.kind == FileKind::File && has(xattr::WHITEOUT));
    let is_opaque = (marks.iter()).any(|(name, value)| name == xattr::OPAQUE && value == b"y");
    let directory =
        root::open_beneath(root, parent, DIRECTORY).map_err(FileError::at("open", path))?;
    let there = match Metadata::of_name(directory.as_fd(), name) {
        Ok(metadata) => metadata.kind,
        Err(Errno::NOENT) => {
            return Ok(if is_whiteout {
                Way::IsWhiteout
            } else {
                Way::IsFree
            });
        }
        Err(errno) => return Err(FileError::at("stat", path)(errno)),
    };
    let are_directories =
        there == FileKind::Directory && entry.metadata.kind == FileKind::Directory;
    if is_whiteout || is_opaque || !are_directories {
        node::remove_all(directory.as_fd(), name).map_err(FileError::at("remove", path))?;
    }
    Ok(if is_whiteout {
        Way::IsWhiteout
    } else {
        Way::IsFree
    })
}
