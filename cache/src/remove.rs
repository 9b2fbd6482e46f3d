//! Removing trees that the store made but may not own.

use std::fmt;
use std::io;
use std::path::Path;

/// Removes directory trees for the store.
///
/// Without root, what a step wrote belongs to ids of the user namespace and only a process inside it may remove
/// it: builder passes an implementation that asks the spawner. The tree is always below the store's `work/`.
pub trait RemoveTree: fmt::Debug + Send + Sync {
    /// Removes `path` and all beneath it, following no symlink. `Ok` when it does not exist.
    fn remove_tree(&self, path: &Path) -> io::Result<()>;
}

/// Removes trees as the calling process; enough for root.
#[derive(Clone, Copy, Debug, Default)]
pub struct RemoveTreeHere;

impl RemoveTree for RemoveTreeHere {
    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        match std::fs::remove_dir_all(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }
}
