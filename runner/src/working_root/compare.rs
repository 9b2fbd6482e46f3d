//! What changed between two looks at a tree, written as an overlay's upper directory.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::io::Errno;

use super::open_place;
use crate::copy::{CopyError, DIRECTORY, Transfer};
use crate::job::SelectedEntry;
use crate::metadata::{self, FileKind, Metadata, Time};
use crate::node;
use crate::root::{self, FileError};
use crate::walk::{self, Filter};
use crate::xattr;

/// Everything in a tree, by path in byte order, without the root itself.
#[derive(Debug, Default)]
pub(super) struct Table {
    entries: BTreeMap<Vec<u8>, Metadata>,
    /// The latest ctime.
    pub(super) newest: Time,
    /// Directories that were made after an earlier look. One that was removed and made anew often gets its old inode.
    made: BTreeSet<Vec<u8>>,
}

impl Table {
    pub(super) fn read(root: BorrowedFd<'_>) -> Result<Self, FileError> {
        let mut table = Self::default();
        walk::walk(
            root,
            |_, _| Filter::Take,
            |entry| {
                table.newest = table.newest.max(entry.metadata.ctime);
                let path = entry.path().to_vec();
                table.entries.insert(path, entry.metadata);
                Ok::<_, FileError>(())
            },
        )?;
        Ok(table)
    }

    /// The second look.
    pub(super) fn read_again(root: BorrowedFd<'_>, before: &Self) -> Result<Self, FileError> {
        let mut table = Self::read(root)?;
        for (path, metadata) in &table.entries {
            let is_candidate = metadata.kind == FileKind::Directory
                && metadata.ctime > before.newest
                && before.entries.contains_key(path);
            if !is_candidate {
                continue;
            }
            let directory =
                root::open_beneath(root, path, DIRECTORY).map_err(FileError::at("open", path))?;
            if metadata::birth(&directory).is_some_and(|birth| birth > before.newest) {
                table.made.insert(path.clone());
            }
        }
        Ok(table)
    }

    /// Both tables have this directory, and it is the same one.
    fn has_kept(&self, path: &[u8], before: &Self) -> bool {
        match (before.entries.get(path), self.entries.get(path)) {
            (Some(then), Some(now)) => is_same_directory(then, now) && !self.made.contains(path),
            _ => false,
        }
    }
}

/// Waits until what changes now gets a later time than `newest`: the kernel's clock for files ticks every few milliseconds.
pub(super) fn wait_for_the_clock(scratch: &Path, newest: Time) -> Result<(), Errno> {
    const NAME: &[u8] = b"clock";
    let directory = open_place(scratch)?;
    loop {
        let file = node::create_file(directory.as_fd(), NAME)?;
        let now = Metadata::of_fd(&file)?.ctime;
        node::remove_all(directory.as_fd(), NAME)?;
        if now > newest {
            return Ok(());
        }
        // A clock that was set back is waited for no longer than a tick could take.
        std::thread::sleep(std::time::Duration::from_millis(2));
        if newest.seconds - now.seconds > 1 {
            return Ok(());
        }
    }
}

/// Whether a file is as it was. What counts of a directory is not what is in it: its time tells of that.
fn is_same(before: &Metadata, after: &Metadata) -> bool {
    let what = |metadata: &Metadata| {
        (
            metadata.kind,
            metadata.identity(),
            metadata.mode,
            (metadata.uid, metadata.gid),
            (metadata.mtime, metadata.ctime),
            metadata.numbers,
        )
    };
    let has_size = before.kind == FileKind::Directory || before.size == after.size;
    what(before) == what(after) && has_size
}

/// Both are directories, and the same one.
fn is_same_directory(before: &Metadata, after: &Metadata) -> bool {
    before.kind == FileKind::Directory
        && after.kind == FileKind::Directory
        && before.identity() == after.identity()
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Parents before what is in them.
    written: BTreeSet<Vec<u8>>,
    /// Directories among them that stand in the place of something else, and hide it.
    opaque: Vec<Vec<u8>>,
    /// What is gone from directories that stay; not what went with its directory.
    deleted: Vec<Vec<u8>>,
}

impl Changes {
    /// What is other in `after`, but for what stands at the paths of `provided`, and for directories that are as they were but
    /// for their ctime.
    pub(super) fn between(
        before: &Table,
        after: &Table,
        provided: &BTreeSet<Vec<u8>>,
        as_before: &BTreeSet<Vec<u8>>,
    ) -> Self {
        let mut changes = Self::default();
        for (path, now) in &after.entries {
            let then = before.entries.get(path);
            if provided.contains(path) {
                continue;
            }
            let is_kept = as_before.contains(path) && after.has_kept(path, before);
            if is_kept || then.is_some_and(|then| is_same(then, now)) {
                continue;
            }
            changes.write(path);
            if now.kind == FileKind::Directory && then.is_some() && !after.has_kept(path, before) {
                changes.opaque.push(path.clone());
            }
        }
        for path in before.entries.keys() {
            let (parent, _) = split(path);
            let parent_stays = parent.is_empty() || after.has_kept(parent, before);
            if parent_stays && !after.entries.contains_key(path) && !provided.contains(path) {
                changes.write_parents(path);
                changes.deleted.push(path.clone());
            }
        }
        changes
    }

    /// Makes an upper directory of it.
    pub(super) fn write_out(
        &self,
        root: BorrowedFd<'_>,
        upper: BorrowedFd<'_>,
    ) -> Result<(), CopyError> {
        let mut copied = Vec::new();
        let mut transfer = Transfer::new(root, upper, b"", None, &mut copied).escaping();
        for path in &self.written {
            transfer.beneath(&SelectedEntry {
                path: path.clone(),
                mode: None,
                ids: None,
                expected: None,
            })?;
        }
        for path in &self.opaque {
            let fail = || FileError::at("mark as opaque", path);
            let directory = root::open_beneath(upper, path, DIRECTORY).map_err(fail())?;
            xattr::set(directory.as_fd(), xattr::OPAQUE, b"y").map_err(fail())?;
        }
        for path in &self.deleted {
            let (parent, name) = split(path);
            let fail = || FileError::at("note the deletion of", path);
            let directory = root::open_beneath(upper, parent, DIRECTORY).map_err(fail())?;
            node::create_whiteout(directory.as_fd(), name).map_err(fail())?;
        }
        // Last: what was made in directories has changed their times.
        transfer.finish()?;
        take_root_metadata(root, upper).map_err(FileError::at("set the metadata of", b""))?;
        Ok(())
    }

    fn write(&mut self, path: &[u8]) {
        self.write_parents(path);
        self.written.insert(path.to_vec());
    }

    fn write_parents(&mut self, path: &[u8]) {
        for (at, byte) in path.iter().enumerate() {
            if *byte == b'/' {
                self.written.insert(path[..at].to_vec());
            }
        }
    }
}

/// The upper directory is what `/` is now; sealing tells whether that is a change.
fn take_root_metadata(root: BorrowedFd<'_>, upper: BorrowedFd<'_>) -> Result<(), Errno> {
    let now = Metadata::of_fd(root)?;
    metadata::set_owner(upper, now.uid, now.gid)?;
    metadata::set_mode(upper, now.mode)?;
    for (name, value) in xattr::list(root)? {
        if xattr::is_kept(&name) {
            xattr::set(upper, &xattr::escape(&name), &value)?;
        }
    }
    metadata::set_time(upper, now.mtime)
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}
