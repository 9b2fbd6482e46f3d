//! Jobs that touch files and run nothing: mounts what they need, then calls the functions that do the work.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use crate::error::{JobError, JobErrorKind};
use crate::job::{
    CompleteJob, ExportForm, ExportJob, FileJob, FileOutcome, LayerEntry, PackJob, PackOutcome,
    SealedLayer, SourceRoot, TreeSize, UnpackJob, UnpackOutcome,
};
use crate::mounts::MountApi;
use crate::{copy, export, measure, node, overlay, pack, seal, unpack};

/// Changes files beneath a root and seals what the upper directory then holds.
pub(crate) fn change(job: &FileJob, api: MountApi) -> Result<FileOutcome, JobError> {
    let sources = job
        .sources
        .iter()
        .map(|source| open_source(source, api))
        .collect::<Result<Vec<_>, _>>()?;
    let root = readable(&overlay::mount_writable(
        &job.root,
        MountAttrFlags::empty(),
        api,
    )?)?;
    let copied =
        copy::apply(root.as_fd(), &sources, &job.operations).map_err(|error| failed(&error))?;
    drop(root);
    Ok(FileOutcome {
        layer: seal(&job.root.scratch.join(overlay::UPPER))?,
        copied,
    })
}

fn open_source(source: &SourceRoot, api: MountApi) -> Result<OwnedFd, JobError> {
    match source {
        SourceRoot::Directory(path) => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| {
                JobError::from_errno(JobErrorKind::Files, "cannot open the directory", errno)
                    .at(path.as_os_str().as_encoded_bytes())
            })
        }
        SourceRoot::Chain { lowers, scratch } => readable(&overlay::mount_read_only(
            lowers,
            scratch,
            MountAttrFlags::empty(),
            api,
        )?),
    }
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
    pack::pack(job, std::fs::File::from(output)).map_err(|error| failed(&error))
}

/// Writes a merged root somewhere.
pub(crate) fn export(
    job: &ExportJob,
    output: Option<OwnedFd>,
    api: MountApi,
) -> Result<(), JobError> {
    let root = overlay::mount_read_only(&job.lowers, &job.scratch, MountAttrFlags::empty(), api)?;
    let root = readable(&root)?;
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

fn cannot_remove(path: &Path, errno: Errno) -> JobError {
    JobError::from_errno(JobErrorKind::Files, "cannot remove the directory", errno)
        .at(path.as_os_str().as_encoded_bytes())
}
