//! Turns a step's upper directory into a layer: its `diff_id` and the table of its entries, in one pass over the files.
//!
//! The directory is not changed, except that a root which the step changed gets its mark (see [`crate::layer_root`]);
//! it is the snapshot from then on. The tar itself is only hashed: [`crate::pack`] writes the same bytes later.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use sha2::Sha256;

use crate::aside::Aside;
use crate::job::SealedLayer;
pub use crate::layer_tar::LayerTarError as SealError;
use crate::layer_tar::{self, Digests, View};
use crate::root::{FileError, open_root};
use crate::{layer_root, sha256};

/// Seals the upper directory of an overlay (`userxattr`) that nobody writes to any more.
pub fn seal(upper: &Path) -> Result<SealedLayer, SealError> {
    let directory = open_root(upper)?;
    layer_root::mark_when_changed(directory.as_fd()).map_err(FileError::at("mark", b""))?;
    read(directory.as_fd())
}

/// Reads a snapshot again: what it holds now is what was sealed, or it is damaged. Nothing is changed.
pub fn examine(snapshot: &Path) -> Result<SealedLayer, SealError> {
    read(open_root(snapshot)?.as_fd())
}

fn read(directory: BorrowedFd<'_>) -> Result<SealedLayer, SealError> {
    let mut hasher = Hashing(Aside::sha256());
    let (entries, tar_size) =
        layer_tar::write(directory, View::Snapshot, None, Digests::Taken, &mut hasher)?;
    Ok(SealedLayer {
        diff_id: sha256::text(hasher.0.finish()),
        tar_size,
        entries,
    })
}

struct Hashing(Aside<Sha256>);

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
