//! Work on trees that the store made but may not own: removing, moving, and measuring what they take.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Removes, moves and measures directory trees for the store.
///
/// Without root, what a step wrote belongs to ids of the user namespace and only a process inside it may remove
/// it: builder passes an implementation that asks the spawner. The tree is always below the store's `work/`.
pub trait RemoveTree: fmt::Debug + Send + Sync {
    /// Removes `path` and all beneath it, following no symlink. `Ok` when it does not exist.
    fn remove_tree(&self, path: &Path) -> io::Result<()>;

    /// Renames the directory `from` to `to`, both in the store. The kernel wants write permission on a directory whose
    /// parent changes, and a layer's root may deny it to the store's owner.
    fn move_tree(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    /// What each of these trees takes on the disk, the top included. Follows no symlink, counts nothing of another file
    /// system, and copes with any name, any depth, and files that come and go. One that does not exist has no size.
    fn measure_trees(&self, paths: &[PathBuf]) -> io::Result<Vec<TreeSize>>;
}

/// What a tree takes on its disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeSize {
    /// Bytes of files that have one name, and of directories.
    pub bytes: u64,
    /// Names of files that have several: device, inode and bytes. An inode counts once, however often it is here.
    pub linked: Vec<(u64, u64, u64)>,
}

/// Inodes with several names that were counted already.
#[derive(Debug, Default)]
pub(crate) struct Counted(HashSet<(u64, u64)>);

impl Counted {
    /// Bytes of a tree that no tree before it had.
    pub(crate) fn add(&mut self, size: &TreeSize) -> u64 {
        let linked: u64 = size
            .linked
            .iter()
            .filter(|(device, inode, _)| self.0.insert((*device, *inode)))
            .map(|(_, _, bytes)| bytes)
            .sum();
        size.bytes + linked
    }
}

/// Bytes in which the kernel counts what a file takes.
const STAT_BLOCK: u64 = 512;

/// Works as the calling process, path by path: enough for root, where nobody else changes the trees.
#[derive(Clone, Copy, Debug, Default)]
pub struct RemoveTreeHere;

impl RemoveTree for RemoveTreeHere {
    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        match std::fs::remove_dir_all(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    fn measure_trees(&self, paths: &[PathBuf]) -> io::Result<Vec<TreeSize>> {
        paths.iter().map(|path| measure_here(path)).collect()
    }
}

/// What the disk gives a file.
pub(crate) fn allocated(metadata: &std::fs::Metadata) -> u64 {
    metadata.blocks() * STAT_BLOCK
}

fn measure_here(path: &Path) -> io::Result<TreeSize> {
    let mut size = TreeSize::default();
    let mut waiting = vec![path.to_owned()];
    while let Some(path) = waiting.pop() {
        let metadata = match std::fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            metadata => metadata?,
        };
        let bytes = allocated(&metadata);
        if metadata.is_dir() {
            size.bytes += bytes;
            for entry in std::fs::read_dir(&path)? {
                waiting.push(entry?.path());
            }
        } else if metadata.nlink() > 1 {
            size.linked.push((metadata.dev(), metadata.ino(), bytes));
        } else {
            size.bytes += bytes;
        }
    }
    Ok(size)
}
