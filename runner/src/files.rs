//! Jobs that touch files and run nothing: mounts what they need, then calls the functions that do the work.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use crate::copy::Applied;
use crate::error::{JobError, JobErrorKind};
use crate::job::{
    AttributesJob, CompleteJob, ExportForm, ExportJob, FileJob, FileOutcome, LayerEntry, MoveJob,
    PackJob, PackOutcome, SealedLayer, SourceRoot, TreeSize, UnpackJob, UnpackOutcome,
};
use crate::metadata::{self, Metadata};
use crate::mounts::Roots;
use crate::sandbox::mount_point::Stubs;
use crate::spawner::SpawnerOptions;
use crate::working_root::{self, WorkingRoot};
use crate::{copy, export, measure, node, overlay, pack, seal, unpack, walk};

/// Changes files beneath a root and seals what the upper directory then holds.
pub(crate) fn change(job: &FileJob, options: SpawnerOptions) -> Result<FileOutcome, JobError> {
    let sources = job
        .sources
        .iter()
        .map(|source| open_source(source, options))
        .collect::<Result<Vec<_>, _>>()?;
    if options.roots == Roots::Copy {
        return change_in_place(job, &sources);
    }
    let root = readable(&overlay::mount_writable(
        &job.root,
        MountAttrFlags::empty(),
        options.mount_api,
    )?)?;
    let applied =
        copy::apply(root.as_fd(), &sources, &job.operations).map_err(|error| failed(&error))?;
    drop(root);
    let layer = seal(&job.root.scratch.join(overlay::UPPER))?;
    Ok(outcome(layer, applied))
}

fn outcome(layer: SealedLayer, applied: Applied) -> FileOutcome {
    FileOutcome {
        layer,
        copied: applied.copied,
        unknown_owners: applied
            .unknown_owners
            .iter()
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect(),
    }
}

/// The same without an overlay: the root is changed as it lies there, and then compared with what it was.
fn change_in_place(job: &FileJob, sources: &[OwnedFd]) -> Result<FileOutcome, JobError> {
    let mut root = WorkingRoot::take(&job.root)?;
    root.begin()?;
    let applied =
        copy::apply(root.fd().as_fd(), sources, &job.operations).map_err(|error| failed(&error))?;
    root.compare(&BTreeSet::new(), &Stubs::default())?;
    let layer = seal(&job.root.scratch.join(overlay::UPPER))?;
    root.leave(&layer.diff_id);
    Ok(outcome(layer, applied))
}

fn open_source(source: &SourceRoot, options: SpawnerOptions) -> Result<OwnedFd, JobError> {
    match source {
        SourceRoot::Directory(path) => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| {
                JobError::from_errno(JobErrorKind::Files, "cannot open the directory", errno)
                    .at(path.as_os_str().as_encoded_bytes())
            })
        }
        SourceRoot::Chain { lowers, scratch } => read_only(lowers, scratch, options),
    }
}

/// The tree that a chain of layers makes, for reading.
pub(crate) fn read_only(
    lowers: &[PathBuf],
    scratch: &Path,
    options: SpawnerOptions,
) -> Result<OwnedFd, JobError> {
    if options.roots == Roots::Copy {
        return working_root::merge_aside(lowers, scratch);
    }
    readable(&overlay::mount_read_only(
        lowers,
        scratch,
        MountAttrFlags::empty(),
        options.mount_api,
    )?)
}

/// Opens a mount's root for reading: what mount calls return is only a place.
fn readable(root: &OwnedFd) -> Result<OwnedFd, JobError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(root, ".", flags, Mode::empty()).map_err(|errno| {
        JobError::from_errno(
            JobErrorKind::Files,
            "cannot read the mounted root directory",
            errno,
        )
    })
}

/// Turns an upper directory into a layer.
pub(crate) fn seal(upper: &Path) -> Result<SealedLayer, JobError> {
    seal::seal(upper).map_err(|error| failed(&error))
}

/// Reads a snapshot as the layer that it is now.
pub(crate) fn examine(snapshot: &Path) -> Result<SealedLayer, JobError> {
    seal::examine(snapshot).map_err(|error| failed(&error))
}

/// What trees take on the disk.
pub(crate) fn measure(paths: &[PathBuf]) -> Result<Vec<TreeSize>, JobError> {
    measure::measure(paths).map_err(|error| failed(&error))
}

/// Unpacks a layer blob.
pub(crate) fn unpack(job: &UnpackJob) -> Result<UnpackOutcome, JobError> {
    unpack::unpack(job).map_err(|error| failed(&error))
}

/// Completes a layer that leans on lower ones.
pub(crate) fn complete(job: &CompleteJob) -> Result<Vec<LayerEntry>, JobError> {
    unpack::complete(job).map_err(|error| failed(&error))
}

/// Packs a snapshot.
pub(crate) fn pack(job: &PackJob, output: OwnedFd) -> Result<PackOutcome, JobError> {
    pack::pack(job, std::fs::File::from(output)).map_err(|error| match &error {
        pack::PackError::Corrupt { .. } => JobError::from_error(JobErrorKind::Damaged, &error),
        error => failed(error),
    })
}

/// Writes a merged root somewhere.
pub(crate) fn export(
    job: &ExportJob,
    output: Option<OwnedFd>,
    options: SpawnerOptions,
) -> Result<(), JobError> {
    let root = read_only(&job.lowers, &job.scratch, options)?;
    match (&job.form, output) {
        (ExportForm::Directory(target), _) => {
            export::to_directory(root.as_fd(), target).map_err(|error| failed(&error))
        }
        (ExportForm::Tar { clamp }, Some(output)) => {
            export::to_tar(root.as_fd(), std::fs::File::from(output), *clamp)
                .map_err(|error| failed(&error))
        }
        (ExportForm::Tar { .. }, None) => Err(JobError::new(
            JobErrorKind::Files,
            "there is nowhere to write the tar to",
        )),
    }
}

fn failed(error: &(dyn std::error::Error + 'static)) -> JobError {
    JobError::from_error(JobErrorKind::Files, error)
}

/// Removes a tree, or nothing when it is not there. A step may have made it deeper than std's removal, which keeps a
/// descriptor for every level, can follow.
pub(crate) fn remove_tree(path: &Path) -> Result<(), JobError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(cannot_remove(path, Errno::INVAL));
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::open(parent, flags, Mode::empty()) {
        Err(Errno::NOENT) => Ok(()),
        parent => parent
            .and_then(|parent| node::remove_all(parent.as_fd(), name.as_encoded_bytes()))
            .map_err(|errno| cannot_remove(path, errno)),
    }
}

/// Sets owner and mode of a directory of the store.
pub(crate) fn set_attributes(job: &AttributesJob) -> Result<(), JobError> {
    let set = || {
        let directory = open_plain(&job.path)?;
        metadata::set_owner(&directory, job.uid, job.gid)?;
        metadata::set_mode(&directory, job.mode)
    };
    set().map_err(|errno| {
        JobError::from_errno(JobErrorKind::Files, "cannot set owner and mode of", errno)
            .at(job.path.as_os_str().as_encoded_bytes())
    })
}

/// Moves a directory, or what is in it.
pub(crate) fn move_tree(job: &MoveJob) -> Result<(), JobError> {
    let (from, result) = match job {
        MoveJob::Whole { from, to } => (from, rustix::fs::rename(from, to)),
        MoveJob::Content { from, into } => (from, move_content(from, into)),
    };
    result.map_err(|errno| {
        JobError::from_errno(JobErrorKind::Files, "cannot move the directory", errno)
            .at(from.as_os_str().as_encoded_bytes())
    })
}

fn move_content(from: &Path, into: &Path) -> Result<(), Errno> {
    let from = match open_plain(from) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        from => from?,
    };
    let into = open_plain(into)?;
    for (name, _) in walk::read_names(from.as_fd())? {
        rustix::fs::renameat(&from, &name[..], &into, &name[..])?;
    }
    let attributes = Metadata::of_fd(&from)?;
    metadata::set_owner(&into, attributes.uid, attributes.gid)?;
    metadata::set_mode(&into, attributes.mode)
}

/// Opens a directory of the store whose last name is no symlink.
fn open_plain(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

fn cannot_remove(path: &Path, errno: Errno) -> JobError {
    JobError::from_errno(JobErrorKind::Files, "cannot remove the directory", errno)
        .at(path.as_os_str().as_encoded_bytes())
}
