//! The mounts and files that a job brings: bind, cache, tmpfs, secret, and `/etc/hosts` and its like.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::mount_point::{self, PointKind};
use super::setup::Setup;
use crate::error::{JobError, JobErrorKind};
use crate::job::{Access, Confinement, OverlaySpec, ProvidedFile, SandboxMount, SandboxMountKind};
use crate::metadata;
use crate::mounts::{self, MountError, Roots};
use crate::overlay;
use crate::working_root;

/// Makes one mount of the job.
pub(super) fn mount(setup: &mut Setup<'_>, mount: &SandboxMount) -> Result<(), JobError> {
    let target = mount.target.as_slice();
    let base = match setup.job.confinement {
        Confinement::Default => MountAttrFlags::MOUNT_ATTR_NODEV,
        Confinement::Insecure => MountAttrFlags::empty(),
    };
    match &mount.kind {
        SandboxMountKind::Directory {
            root,
            source,
            access,
        } => {
            let root = overlay::open_directory(root)?;
            let source = find_source(root.as_fd(), source)?;
            mount_with_access(setup, &source, access, base, target)
        }
        SandboxMountKind::Chain {
            lowers,
            source,
            access,
            scratch,
        } => {
            let read_only = MountAttrFlags::MOUNT_ATTR_RDONLY;
            let (chain, attributes, place) = match access {
                Access::ReadOnly => {
                    let chain = match setup.roots {
                        Roots::Overlay => {
                            overlay::mount_read_only(lowers, scratch, base, setup.api)?
                        }
                        Roots::Copy => working_root::merge_aside(lowers, scratch)?,
                    };
                    (chain, base | read_only, scratch)
                }
                Access::Discarded(upper) => {
                    let spec = OverlaySpec {
                        lowers: lowers.clone(),
                        scratch: upper.clone(),
                    };
                    (discarded(setup, &spec, base)?, base, upper)
                }
                Access::Shared => {
                    let message = "a mount from a chain of layers cannot be shared";
                    return Err(JobError::new(JobErrorKind::Sandbox, message).at(target));
                }
            };
            attach_aside(&chain, place)?;
            let source = find_source(chain.as_fd(), source)?;
            let kind = point_kind(&source)?;
            setup.bind(source.as_fd(), false, attributes, target, kind)
        }
        SandboxMountKind::Tmpfs { size, is_read_only } => {
            let size = size.map(|size| size.to_string());
            let mut options = vec![("mode", Some("1777"))];
            options.extend(size.as_deref().map(|size| ("size", Some(size))));
            let mut attributes = base | MountAttrFlags::MOUNT_ATTR_NOSUID;
            if *is_read_only {
                attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
            }
            let point = setup.point(target, PointKind::Directory)?;
            mounts::mount_filesystem(setup.api, "tmpfs", &options, attributes, point.as_fd())?;
            Ok(())
        }
        SandboxMountKind::File {
            content,
            mode,
            uid,
            gid,
        } => {
            let file = ProvidedFile {
                target: target.to_vec(),
                content: content.clone(),
                mode: *mode,
                uid: *uid,
                gid: *gid,
            };
            provide(setup, &file)
        }
    }
}

/// Puts a file on a tmpfs and mounts it, read-only as the reference does, on its target.
pub(super) fn provide(setup: &mut Setup<'_>, file: &ProvidedFile) -> Result<(), JobError> {
    let number = setup.file_count;
    setup.file_count += 1;
    let written = write_file(files_directory(setup)?, number, file).map_err(|errno| {
        JobError::from_errno(JobErrorKind::Sandbox, "cannot provide the file", errno)
            .at(file.target.as_slice())
    })?;
    let mut attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV;
    if file.mode & 0o111 == 0 {
        attributes |= MountAttrFlags::MOUNT_ATTR_NOEXEC;
    }
    setup.bind(
        written.as_fd(),
        false,
        attributes,
        &file.target,
        PointKind::File,
    )
}

/// The tmpfs that holds provided files, outside the root; made for the first one.
fn files_directory<'a>(setup: &'a mut Setup<'_>) -> Result<BorrowedFd<'a>, JobError> {
    if setup.files.is_none() {
        // In this namespace nobody needs the upper directory's path any more, so it serves as the mount point.
        let path = setup.job.root.scratch.join(overlay::UPPER);
        let point = overlay::open_directory(&path)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        let options = [("mode", Some("700"))];
        let root = match mounts::mount_filesystem(
            setup.api,
            "tmpfs",
            &options,
            attributes,
            point.as_fd(),
        )? {
            Some(root) => root,
            None => overlay::open_directory(&path)?,
        };
        setup.files = Some(root);
    }
    Ok(setup.files.as_ref().expect("made above").as_fd())
}

fn write_file(
    directory: BorrowedFd<'_>,
    number: usize,
    file: &ProvidedFile,
) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(directory, number.to_string(), flags, Mode::from(0o600))?;
    let mut fd = File::from(fd);
    fd.write_all(&file.content).map_err(|error| {
        error
            .raw_os_error()
            .map_or(Errno::IO, Errno::from_raw_os_error)
    })?;
    if (file.uid, file.gid) != (0, 0) {
        metadata::set_owner(&fd, file.uid, file.gid)?;
    }
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(file.mode & 0o7777))?;
    Ok(fd.into())
}

fn mount_with_access(
    setup: &mut Setup<'_>,
    source: &OwnedFd,
    access: &Access,
    base: MountAttrFlags,
    target: &[u8],
) -> Result<(), JobError> {
    let kind = point_kind(source)?;
    match access {
        Access::ReadOnly => {
            let attributes = base | MountAttrFlags::MOUNT_ATTR_RDONLY;
            setup.bind(source.as_fd(), true, attributes, target, kind)
        }
        Access::Shared => setup.bind(source.as_fd(), true, base, target, kind),
        Access::Discarded(scratch) if kind == PointKind::Directory => {
            // The dot makes it the directory itself and not the link to it, wherever links are not followed.
            let lower = PathBuf::from(format!("{}/.", mounts::path_of(source.as_fd())));
            let spec = OverlaySpec {
                lowers: vec![lower],
                scratch: scratch.clone(),
            };
            let root = discarded(setup, &spec, base)?;
            attach_aside(&root, scratch)?;
            setup.bind(root.as_fd(), false, base, target, kind)
        }
        Access::Discarded(scratch) => {
            let copy = copy_file(source, scratch)?;
            setup.bind(copy.as_fd(), false, base, target, kind)
        }
    }
}

/// A tree whose changes nobody keeps.
fn discarded(
    setup: &Setup<'_>,
    spec: &OverlaySpec,
    attributes: MountAttrFlags,
) -> Result<OwnedFd, JobError> {
    match setup.roots {
        Roots::Overlay => overlay::mount_writable(spec, attributes, setup.api),
        Roots::Copy => working_root::merge_aside(&spec.lowers, &spec.scratch),
    }
}

/// Overlays have directories only, so a single file is copied.
fn copy_file(source: &OwnedFd, scratch: &Path) -> Result<OwnedFd, JobError> {
    let path = scratch.join("file");
    let failed =
        |error: std::io::Error| overlay::failed("cannot copy the mounted file to", &path, &error);
    let mut from = File::open(mounts::path_of(source.as_fd())).map_err(failed)?;
    let attributes = from.metadata().map_err(failed)?;
    if !attributes.is_file() {
        return Err(failed(std::io::Error::from(Errno::INVAL)));
    }
    let mut to = File::create_new(&path).map_err(failed)?;
    std::io::copy(&mut from, &mut to).map_err(failed)?;
    to.set_permissions(attributes.permissions())
        .map_err(failed)?;
    metadata::set_owner(&to, attributes.uid(), attributes.gid())
        .map_err(|errno| failed(errno.into()))?;
    Ok(to.into())
}

/// Mounts a detached overlay in its scratch directory, since only what is mounted somewhere can be bound from on all
/// kernels. It goes with the old root.
fn attach_aside(root: &OwnedFd, scratch: &Path) -> Result<(), JobError> {
    let path = scratch.join(overlay::MERGED);
    overlay::make_directory(&path)?;
    let point = overlay::open_directory(&path)?;
    if overlay::is_same(root, &point) {
        return Ok(());
    }
    mounts::attach(root, &point).map_err(|errno| MountError::new("an overlay", errno).into())
}

/// Finds what is mounted, inside its root.
fn find_source(root: BorrowedFd<'_>, source: &[u8]) -> Result<OwnedFd, JobError> {
    mount_point::look_up(root, source).map_err(|errno| {
        JobError::from_errno(
            JobErrorKind::Sandbox,
            "cannot find the source of the mount",
            errno,
        )
        .at(source)
    })
}

fn point_kind(source: &OwnedFd) -> Result<PointKind, JobError> {
    let stat = rustix::fs::fstat(source).map_err(|errno| {
        JobError::from_errno(
            JobErrorKind::Sandbox,
            "cannot read the source of the mount",
            errno,
        )
    })?;
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => PointKind::Directory,
        _ => PointKind::File,
    })
}
