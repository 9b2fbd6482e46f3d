//! `COPY`, `ADD` and `WORKDIR`: changes files in a merged root.
//!
//! The destination path is resolved inside the root, symlinks included. Below it no symlink is followed: a link that is
//! in the way of a file is replaced, one in the way of a directory is an error. Sources were resolved by the caller,
//! and are read without following anything. What is reported as copied are digests of the very bytes that were written.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::container_path::ContainerPath;
use crate::job::{CopyOperation, FileOperation, OwnerSpec, Selection};
use crate::metadata::{self, FileKind, Metadata, Time};
use crate::root::{self, FileError, Last, Located};
use crate::tar_reader::TarError;
use crate::{archive, node, owner};

/// Mode of directories that `WORKDIR` makes.
const WORKING_DIRECTORY_MODE: u32 = 0o755;

mod content;
mod transfer;

pub(crate) use transfer::{DIRECTORY, Transfer};

/// Why files could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The source is no longer what was selected.
    #[error("`{path}` changed while it was being copied")]
    Changed {
        /// Path in the source.
        path: ContainerPath,
    },
    /// A system call failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// A directory would have to replace something else.
    #[error("cannot copy to non-directory: `{path}`")]
    NotADirectory {
        /// In the image.
        path: ContainerPath,
    },
    /// The same for `WORKDIR`.
    #[error(
        "cannot make the working directory: there is a file where a directory has to be, `{path}`"
    )]
    NoWorkingDirectory {
        /// In the image.
        path: ContainerPath,
    },
    /// A file would have to replace a directory.
    #[error("cannot replace to directory `{path}` with file")]
    IsADirectory {
        /// In the image.
        path: ContainerPath,
    },
    /// An archive that began well and is broken further on.
    #[error("cannot unpack `{path}`")]
    Archive {
        /// In the source.
        path: ContainerPath,
        /// What is wrong with it.
        #[source]
        source: TarError,
    },
    /// More than [`crate::archive::MAX_MEMBERS`] or [`crate::archive::MAX_CONTENT`].
    #[error(
        "cannot unpack `{path}`: it holds more than {} files or {} GiB",
        crate::archive::MAX_MEMBERS,
        crate::archive::MAX_CONTENT >> 30
    )]
    ArchiveTooLarge {
        /// In the source.
        path: ContainerPath,
    },
    /// A member of an archive that can't be made.
    #[error("cannot unpack the member `{path}`: {what}")]
    Member {
        /// In the archive.
        path: ContainerPath,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A character device 0:0 is overlayfs's mark of a deleted file and can't be in an image.
    #[error("`{path}` is a character device with the numbers 0:0, which can't be part of a layer")]
    WhiteoutDevice {
        /// In the source.
        path: ContainerPath,
    },
    /// The operation names a source that the job does not have.
    #[error("there is no source {index}")]
    NoSource {
        /// As it was given.
        index: usize,
    },
}

/// What was done.
#[derive(Debug, Default)]
pub struct Applied {
    /// BLAKE3 digests of all regular files that were read from the sources (an archive counts as the file that it is), in the
    /// order of the selections.
    pub copied: Vec<[u8; 32]>,
    /// Users and groups that owners name and the file system does not have.
    pub unknown_owners: BTreeSet<Vec<u8>>,
}

/// Carries out the operations, in order, in the file system at `root`.
pub fn apply(
    root: BorrowedFd<'_>,
    sources: &[OwnedFd],
    operations: &[FileOperation],
) -> Result<Applied, CopyError> {
    let mut applied = Applied::default();
    for operation in operations {
        match operation {
            FileOperation::MakeDirectory { path, owner, mtime } => {
                let owner = owner::lookup(root, owner, &mut applied.unknown_owners)?;
                make_working_directory(root, path, owner, *mtime).map_err(|error| match error {
                    CopyError::NotADirectory { path } => CopyError::NoWorkingDirectory { path },
                    error => error,
                })?;
            }
            FileOperation::Copy(operation) => copy(root, sources, operation, &mut applied)?,
        }
    }
    Ok(applied)
}

fn copy(
    root: BorrowedFd<'_>,
    sources: &[OwnedFd],
    operation: &CopyOperation,
    applied: &mut Applied,
) -> Result<(), CopyError> {
    let owner = match &operation.owner {
        None => None,
        Some(OwnerSpec::Ids(uid, gid)) => Some((*uid, *gid)),
        Some(OwnerSpec::Lookup(text)) => {
            Some(owner::lookup(root, text, &mut applied.unknown_owners)?)
        }
    };
    let copied = &mut applied.copied;
    let source = || {
        sources.get(operation.source).ok_or(CopyError::NoSource {
            index: operation.source,
        })
    };
    let parents = (operation.parent_mode, owner.unwrap_or((0, 0)));
    let destination = &operation.destination;
    match &operation.selection {
        Selection::File { path, name, entry } => {
            let source = source()?.as_fd();
            if operation.unpacks
                && let Some(digest) = unpack(root, source, path, destination, parents.1, owner)?
            {
                copied.push(digest);
                return Ok(());
            }
            let place = file_place(root, destination, name, parents)?;
            let base = place.path();
            let mut transfer =
                Transfer::new(source, place.directory(), base.as_bytes(), owner, copied);
            let (from, leaf) = split(path);
            let from =
                root::open_beneath(source, from, DIRECTORY).map_err(FileError::at("open", path))?;
            let to = place.name.as_deref().unwrap_or(name);
            transfer.entry(from.as_fd(), leaf, place.directory(), to, entry)?;
            transfer.finish()
        }
        Selection::Directory {
            path,
            entries,
            keeps_root_mtime,
        } => {
            let source = source()?.as_fd();
            let from =
                root::open_beneath(source, path, DIRECTORY).map_err(FileError::at("open", path))?;
            let place = make_directory(root, destination, parents.0, parents.1)?;
            let base = place.path();
            let mut transfer = Transfer::new(
                from.as_fd(),
                place.directory(),
                base.as_bytes(),
                owner,
                copied,
            );
            transfer.all(entries)?;
            transfer.finish()?;
            if *keeps_root_mtime {
                let fail = || FileError::at("set the time of", destination);
                let mtime = Metadata::of_fd(&from).map_err(fail())?.mtime;
                metadata::set_time_at(place.directory(), b".", mtime).map_err(fail())?;
            }
            Ok(())
        }
        Selection::Inline {
            name,
            content,
            mode,
            mtime,
        } => {
            let place = file_place(root, destination, name, parents)?;
            let to = place.name.as_deref().unwrap_or(name);
            let mtime = mtime.map(|seconds| Time { seconds, nanos: 0 });
            let (uid, gid) = parents.1;
            let attributes = node::Attributes {
                mode: *mode,
                uid,
                gid,
                mtime,
                xattrs: &[],
            };
            transfer::write_inline(
                place.directory(),
                to,
                content,
                &attributes,
                place.path().as_bytes(),
            )
        }
    }
}

/// Unpacks the file when it is an archive, and returns its digest.
fn unpack(
    root: BorrowedFd<'_>,
    source: BorrowedFd<'_>,
    path: &[u8],
    destination: &[u8],
    ids: (u32, u32),
    owner: Option<(u32, u32)>,
) -> Result<Option<[u8; 32]>, CopyError> {
    let file =
        root::open_beneath(source, path, transfer::FILE).map_err(FileError::at("open", path))?;
    if Metadata::of_fd(&file)
        .map_err(FileError::at("stat", path))?
        .kind
        != FileKind::File
    {
        return Ok(None);
    }
    let mut file = std::fs::File::from(file);
    if !archive::is_archive(&mut file).map_err(FileError::at("read", path))? {
        return Ok(None);
    }
    // `--chmod` has no effect on archives, nor on the directory that they go to.
    let place = make_directory(root, destination, 0o755, ids)?;
    archive::extract(&mut file, path, place.directory(), owner).map(Some)
}

/// Makes a directory and what is missing above it; links are followed inside the root. One that exists is left alone.
fn make_directory(
    root: BorrowedFd<'_>,
    path: &[u8],
    mode: u32,
    ids: (u32, u32),
) -> Result<Located, CopyError> {
    let mut make =
        |parent: BorrowedFd<'_>, name: &[u8]| node::create_directory_with(parent, name, mode, ids);
    match root::make_directories(root, path, &mut make) {
        Err(Errno::NOTDIR) => Err(CopyError::NotADirectory { path: path.into() }),
        result => Ok(result.map_err(FileError::at("make the directory", path))?),
    }
}

/// `WORKDIR`: makes what is missing of `path`, and gives it `mtime` once nothing more is made in it.
fn make_working_directory(
    root: BorrowedFd<'_>,
    path: &[u8],
    ids: (u32, u32),
    mtime: Option<i64>,
) -> Result<(), CopyError> {
    let mut new: Vec<(OwnedFd, Vec<u8>)> = Vec::new();
    let mut make = |parent: BorrowedFd<'_>, name: &[u8]| {
        node::create_directory_with(parent, name, WORKING_DIRECTORY_MODE, ids)?;
        new.push((rustix::io::fcntl_dupfd_cloexec(parent, 0)?, name.to_vec()));
        Ok(())
    };
    match root::make_directories(root, path, &mut make) {
        Err(Errno::NOTDIR) => return Err(CopyError::NotADirectory { path: path.into() }),
        result => drop(result.map_err(FileError::at("make the directory", path))?),
    }
    let Some(seconds) = mtime else { return Ok(()) };
    for (parent, name) in new.iter().rev() {
        metadata::set_time_at(parent.as_fd(), name, Time { seconds, nanos: 0 })
            .map_err(FileError::at("set the time of", name))?;
    }
    Ok(())
}

/// Where a file called `name` goes: into the destination when that is a directory or says so, else it is the
/// destination. Directories above are made.
fn file_place(
    root: BorrowedFd<'_>,
    destination: &[u8],
    name: &[u8],
    (mode, ids): (u32, (u32, u32)),
) -> Result<Located, CopyError> {
    if destination.is_empty()
        || [&b"/"[..], b"/.", b"/.."]
            .iter()
            .any(|end| destination.ends_with(end))
    {
        let mut place = make_directory(root, destination, mode, ids)?;
        place.name = Some(name.to_vec());
        return Ok(place);
    }
    let mut make =
        |parent: BorrowedFd<'_>, name: &[u8]| node::create_directory_with(parent, name, mode, ids);
    let mut place = match root::locate_and_make(root, destination, Last::Follow, &mut make) {
        Err(Errno::NOTDIR) => {
            return Err(CopyError::NotADirectory {
                path: destination.into(),
            });
        }
        result => result.map_err(FileError::at("resolve", destination))?,
    };
    place.name.get_or_insert_with(|| name.to_vec());
    Ok(place)
}

/// Directory and last component.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

#[cfg(test)]
mod large_tests;
#[cfg(test)]
mod tests;
