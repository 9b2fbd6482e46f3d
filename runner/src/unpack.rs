//! Unpacks a layer blob into a snapshot directory, and completes one that leans on lower layers.
//!
//! Nobody vouches for a layer. The target starts empty and only this module writes to it, so the tree is known in
//! memory (`table`): symlinks on the way of a name are followed there, inside the layer, and the disk is reached with
//! fds of real directories only. What can't be represented is an error with the entry's name, never a guess. Layer
//! marks (`.wh.`) become overlayfs's; a layer's own `user.overlay.*` attributes are escaped, so that they are never
//! taken for ours. The `diff_id` is checked to the end of the stream.

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::fd::AsFd;

use rustix::io::Errno;

use crate::container_path::ContainerPath;
use crate::job::{CompleteJob, LayerEntry, UnpackJob, UnpackOutcome};
use crate::root::{FileError, open_root};
pub use crate::tar_reader::TarError;
use crate::tar_reader::TarReader;

mod complete;
mod entry;
mod lowers;
mod stream;
mod table;
mod writer;

/// Why a layer could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// A system call failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The archive can't be read.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// The name climbs out of the root.
    #[error("layer entry `{path}` leaves the root file system")]
    Escape {
        /// As it is written in the archive.
        path: ContainerPath,
    },
    /// Something on the way is no directory.
    #[error("layer entry `{path}` lies below `{below}`, which is not a directory")]
    NotADirectory {
        /// The entry.
        path: ContainerPath,
        /// What is in its way.
        below: ContainerPath,
    },
    /// Too many symlinks on the way.
    #[error("layer entry `{path}` leads through a loop of symbolic links")]
    LinkLoop {
        /// The entry.
        path: ContainerPath,
    },
    /// A hard link to something that is not there, or can't be linked.
    #[error("layer entry `{path}` is a hard link to `{target}`, which {what}")]
    BadHardLink {
        /// The entry.
        path: ContainerPath,
        /// Its target.
        target: ContainerPath,
        /// What is wrong with the target.
        what: &'static str,
    },
    /// A deletion mark without a proper name.
    #[error("layer entry `{path}` is a deletion of nothing")]
    BadWhiteout {
        /// The entry.
        path: ContainerPath,
    },
    /// A character device 0:0 is overlayfs's mark of a deleted file.
    #[error(
        "layer entry `{path}` is a character device with the numbers 0:0, which would delete a file"
    )]
    WhiteoutDevice {
        /// The entry.
        path: ContainerPath,
    },
    /// The root is not a directory.
    #[error("the layer's entry for the root is not a directory")]
    BadRoot,
    /// A lower layer's symlink leads to where this layer has something else.
    #[error("layer entry `{path}` belongs at `{place}`, where the layer has another entry")]
    Conflict {
        /// The entry.
        path: ContainerPath,
        /// Where lower layers' links lead.
        place: ContainerPath,
    },
    /// The content is not what the image's config promises.
    #[error("the layer's content has the diff_id `{found}`, not `{expected}` as the image says")]
    DiffId {
        /// In the config.
        expected: String,
        /// Of the blob.
        found: String,
    },
}

/// Unpacks the blob into the job's empty directory. On an error the directory is of no use.
pub fn unpack(job: &UnpackJob) -> Result<UnpackOutcome, UnpackError> {
    let blob = File::open(&job.blob)
        .map_err(|error| FileError::at_host("open", &job.blob)(crate::root::errno(&error)))?;
    let source = BufReader::with_capacity(256 * 1024, blob);
    let target = open_root(&job.target)?;
    std::thread::scope(|scope| {
        let mut stream = stream::Uncompressed::start(scope, source);
        let mut tar = TarReader::new(&mut stream);
        let mut writer = writer::Writer::new(target.as_fd())?;
        while let Some(member) = tar.next()? {
            writer.member(&member, &mut tar)?;
        }
        let (entries, leans_on) = writer.finish()?;
        let (found, tar_size) = stream.finish().map_err(TarError::Read)?;
        if found != job.diff_id {
            return Err(UnpackError::DiffId {
                expected: job.diff_id.clone(),
                found,
            });
        }
        Ok(UnpackOutcome {
            tar_size,
            entries,
            leans_on,
        })
    })
}

/// Gives an unpacked layer what it needs of the layers below it: the metadata of directories that it does not name,
/// and the files that it links to. An implied directory that is a symlink below makes its content land where the link
/// leads. Returns the completed entries.
pub fn complete(job: &CompleteJob) -> Result<Vec<LayerEntry>, UnpackError> {
    complete::complete(job)
}

/// For `map_err` on an entry.
fn fail(action: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> UnpackError {
    let path: ContainerPath = path.into();
    move |source| {
        FileError {
            action,
            path,
            source,
        }
        .into()
    }
}

/// Reads on until the end.
fn drain(source: &mut impl Read) -> std::io::Result<()> {
    std::io::copy(source, &mut std::io::sink()).map(drop)
}

#[cfg(test)]
pub(crate) mod tests;
