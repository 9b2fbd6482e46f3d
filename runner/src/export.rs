//! The flattened root file system of an image: as a directory (`type=local`) or a tar (`type=tar`).

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::io::Errno;

use crate::copy::{CopyError, Transfer};
use crate::job::SelectedEntry;
pub use crate::layer_tar::LayerTarError as ExportTarError;
use crate::layer_tar::{self, Digests, View};
use crate::metadata::FileKind;
use crate::root::{FileError, open_root};
use crate::walk::{self, Filter};

/// Copies everything beneath the merged root into an existing host directory. Files belong to whoever exports, as with
/// the reference; what is there already is replaced, directories are merged. Device nodes are left out where they can't
/// be made (in a user namespace).
pub fn to_directory(root: BorrowedFd<'_>, target: &Path) -> Result<(), CopyError> {
    let target = open_root(target)?;
    let mut copied = Vec::new();
    let mut transfer = Transfer::new(root, target.as_fd(), b"", None, &mut copied);
    walk::walk(
        root,
        |_, _| Filter::Take,
        |entry| {
            let is_device = matches!(
                entry.metadata.kind,
                FileKind::CharDevice | FileKind::BlockDevice
            );
            let path = entry.path().to_vec();
            match transfer.beneath(&SelectedEntry {
                path,
                mode: None,
                ids: Some((0, 0)),
                expected: None,
            }) {
                Err(CopyError::File(FileError {
                    source: Errno::PERM,
                    ..
                })) if is_device => Ok(()),
                result => result,
            }
        },
    )?;
    transfer.finish()
}

/// Writes everything in the merged root as a tar with owners, `./` first; times after `clamp` become it.
pub fn to_tar(
    root: BorrowedFd<'_>,
    out: impl Write,
    clamp: Option<i64>,
) -> Result<(), ExportTarError> {
    let mut out = std::io::BufWriter::with_capacity(256 * 1024, out);
    layer_tar::write(root, View::Merged, clamp, Digests::LeftOut, &mut out)?;
    out.flush().map_err(|source| ExportTarError::Write {
        path: [].as_slice().into(),
        source,
    })
}
