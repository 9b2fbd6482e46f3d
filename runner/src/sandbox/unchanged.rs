//! Takes files out of an upper directory that are what the layers beneath have already.
//!
//! Overlayfs copies a file up when it is opened for writing or its owner or mode is set, whether anything changes or not:
//! `chown -R` of what has that owner would make a layer of everything. The reference leaves such files out of its layers.
//!
//! Works on the upper directory itself, when the overlay is no longer mounted. A file goes only when everything that a
//! layer says of it is the same beneath: type, mode, owner, time, attributes and content. One with several names goes only
//! with all of them. Directories stay, they cost nothing.

use std::collections::{BTreeMap, HashSet};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::below::Below;
use super::stubs::{open_parent, unlink};
use crate::error::{JobError, JobErrorKind};
use crate::metadata::{FileKind, Metadata, Time};
use crate::root::{FileError, errno, open_root};
use crate::walk::{self, Entry, Filter};
use crate::xattr;

/// One read of a comparison.
const BUFFER: usize = 64 * 1024;

/// Removes what is in `upper` as it is in the tree that `below` opens; that is asked only when there may be something.
/// What the step wrote itself has a time from `began` on: it is not looked at.
pub(super) fn remove(
    upper: &Path,
    began: Time,
    below: impl FnOnce() -> Result<Below, JobError>,
) -> Result<(), JobError> {
    let failed = |error: &FileError| {
        let message = format!("cannot compare the step's files with those beneath: {error}");
        JobError::new(JobErrorKind::Files, message)
    };
    let root = open_root(upper).map_err(|error| failed(&error))?;
    let candidates = candidates(root.as_fd(), began).map_err(|error| failed(&error))?;
    if candidates.is_empty() {
        return Ok(());
    }
    let below = below()?;
    for names in candidates {
        remove_if_same(&root, &below, &names)
            .map_err(|errno| failed(&FileError::at("read", &names[0])(errno)))?;
    }
    Ok(())
}

/// The names of one file.
struct Names {
    count: u64,
    seen: Vec<Vec<u8>>,
}

/// Files that are older than the step and may be in the tree beneath under the same names: each with all that it has.
fn candidates(upper: BorrowedFd<'_>, began: Time) -> Result<Vec<Vec<Vec<u8>>>, FileError> {
    let mut found: BTreeMap<(u64, u64), Names> = BTreeMap::new();
    // Nothing beneath an opaque directory shows through it.
    let mut opaque: HashSet<Vec<u8>> = HashSet::new();
    let is_hidden = |opaque: &HashSet<Vec<u8>>, path: &[u8]| {
        let mut slashes = slashes_of(path);
        !opaque.is_empty() && slashes.any(|slash| opaque.contains(&path[..slash]))
    };
    let mut look = |entry: &Entry<'_>| -> Result<(), FileError> {
        let metadata = &entry.metadata;
        if metadata.kind == FileKind::Directory {
            let raw = entry.xattrs()?;
            if raw
                .iter()
                .any(|(name, value)| name == xattr::OPAQUE && value == b"y")
            {
                opaque.insert(entry.path().to_vec());
            }
        } else if metadata.mtime < began
            && metadata.kind != FileKind::Socket
            && !metadata.is_whiteout_device()
            && !is_hidden(&opaque, entry.path())
        {
            let names = found.entry(metadata.identity());
            let names = names.or_insert_with(|| Names {
                count: metadata.links,
                seen: Vec::new(),
            });
            names.seen.push(entry.path().to_vec());
        }
        Ok(())
    };
    walk::walk(upper, |_, _| Filter::Take, |entry| look(entry))?;
    let all_seen = |names: Names| (names.count == names.seen.len() as u64).then_some(names.seen);
    Ok(found.into_values().filter_map(all_seen).collect())
}

/// Where the slashes of a path are.
fn slashes_of(path: &[u8]) -> impl Iterator<Item = usize> {
    let bytes = path.iter().enumerate();
    bytes.filter_map(|(at, byte)| (*byte == b'/').then_some(at))
}

fn remove_if_same(upper: &OwnedFd, below: &Below, names: &[Vec<u8>]) -> Result<(), Errno> {
    let mut places = Vec::with_capacity(names.len());
    let mut beneath_all = None;
    for path in names {
        let Some((above, name)) = open_parent(upper, path)? else {
            return Ok(());
        };
        let Some((beneath, metadata)) = below.find(path)? else {
            return Ok(());
        };
        // Names of one file have to be that beneath too.
        if *beneath_all.get_or_insert_with(|| metadata.identity()) != metadata.identity()
            || !is_same(above.as_fd(), below, (beneath.as_fd(), &metadata), name)?
        {
            return Ok(());
        }
        places.push((above, name));
    }
    for (above, name) in places {
        unlink(&above, name, AtFlags::empty())?;
    }
    Ok(())
}

/// Whether a layer would say the same of both.
fn is_same(
    above: BorrowedFd<'_>,
    below: &Below,
    (beneath, theirs): (BorrowedFd<'_>, &Metadata),
    name: &[u8],
) -> Result<bool, Errno> {
    let ours = Metadata::of_name(above, name)?;
    let said = |metadata: &Metadata| {
        let Metadata {
            kind,
            mode,
            uid,
            gid,
            mtime,
            ..
        } = *metadata;
        (kind, mode, (uid, gid), mtime)
    };
    if said(&ours) != said(theirs) {
        return Ok(false);
    }
    let (ours_kept, own) = xattr::split(xattr::list_at(above, name)?);
    // A whiteout, or what has a part of itself elsewhere.
    if own.iter().any(|(name, _)| name != ORIGIN) {
        return Ok(false);
    }
    if below.xattrs(beneath, name)?.as_ref() != Some(&ours_kept) {
        return Ok(false);
    }
    Ok(match ours.kind {
        FileKind::File => ours.size == theirs.size && has_same_content(above, beneath, name)?,
        FileKind::Symlink => link(above, name)? == link(beneath, name)?,
        FileKind::CharDevice | FileKind::BlockDevice => ours.numbers == theirs.numbers,
        FileKind::Fifo => true,
        FileKind::Directory | FileKind::Socket => false,
    })
}

/// Where overlayfs notes what a file was copied up from.
pub(super) const ORIGIN: &[u8] = b"user.overlay.origin";

fn link(directory: BorrowedFd<'_>, name: &[u8]) -> Result<Vec<u8>, Errno> {
    rustix::fs::readlinkat(directory, name, Vec::new()).map(std::ffi::CString::into_bytes)
}

fn has_same_content(
    above: BorrowedFd<'_>,
    beneath: BorrowedFd<'_>,
    name: &[u8],
) -> Result<bool, Errno> {
    let open = |directory| {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::openat(directory, name, flags, Mode::empty()).map(std::fs::File::from)
    };
    let (mut ours, mut theirs) = (open(above)?, open(beneath)?);
    let (mut left, mut right) = (Vec::with_capacity(BUFFER), Vec::with_capacity(BUFFER));
    loop {
        let read = |file: &mut std::fs::File, buffer: &mut Vec<u8>| {
            buffer.clear();
            let read = file.by_ref().take(BUFFER as u64).read_to_end(buffer);
            read.map_err(|error| errno(&error))
        };
        read(&mut ours, &mut left)?;
        read(&mut theirs, &mut right)?;
        if left != right {
            return Ok(false);
        }
        if left.is_empty() {
            return Ok(true);
        }
    }
}
