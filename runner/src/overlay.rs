//! Assembling a chain of snapshots into one tree with overlayfs.
//!
//! ```text
//! scratch/upper    what the step changes; becomes the layer
//! scratch/work     overlayfs's own; covered by the new root in a sandbox's namespace
//! scratch/merged   mount point, for mount(2) and for what is mounted aside
//! scratch/fold     mount point of the bottom layers of a very long chain
//! scratch/l/0 …    short names of the lower directories, for mount(2), whose options must fit in one page
//! ```
//!
//! All mounts are made with `userxattr` (one format for root and ordinary users), `index=off` (no origin file handles;
//! `redirect_dir` and `metacopy` are off with `userxattr`) and, when there is an upper directory, `volatile` (the store
//! syncs once at the end of a build).
//!
//! Mounts are detached where the kernel can do that: they go away with their descriptor, whatever happens to us.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{
    Mode, OFlags, StatVfsMountFlags, Timespec, Timestamps, XattrFlags, fstatvfs, statvfs,
};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, UnmountFlags, mount, unmount};

use crate::error::{JobError, JobErrorKind};
use crate::isolation::survey;
use crate::job::OverlaySpec;
use crate::metadata;
use crate::mounts::{self, FsOption, MountApi, MountError};

/// Name of the upper directory in a scratch directory.
pub(crate) const UPPER: &str = "upper";
/// Name of overlayfs's own directory there; once that is mounted, also the mount point of the new root.
pub(crate) const WORK: &str = "work";
pub(crate) const MERGED: &str = "merged";
const FOLD: &str = "fold";
const LINKS: &str = "l";
const EMPTY: &str = "empty";

/// A disk with less space than this is the reason when overlayfs could not make its few directories.
const WORK_SPACE: u64 = 1 << 20;

/// overlayfs refuses more than 500 lower layers ("too many lower directories, limit is 500"). Stay well below, so
/// that the options of mount(2), at `l/399:` each, fit in a page with room to spare.
const MAX_LOWERS: usize = 400;

/// The bottom of a longer chain becomes one overlay (only the bottom can: further up, its whiteouts would be lost).
/// File systems stack two deep, so there is one fold.
const MAX_CHAIN: usize = 2 * MAX_LOWERS - 1;

/// fsconfig takes strings of up to 255 bytes.
const MAX_OPTION: usize = 255;

/// Mounts a chain with an upper directory for changes; the root of the result.
///
/// An upper directory that is there already (a failed step's) is used again.
pub(crate) fn mount_writable(
    spec: &OverlaySpec,
    attributes: MountAttrFlags,
    api: MountApi,
) -> Result<OwnedFd, JobError> {
    prepare_upper(spec)?;
    let upper = spec.scratch.join(UPPER);
    if spec.lowers.is_empty() {
        return bind_directory(&upper, &spec.scratch.join(MERGED), attributes, api);
    }
    let work = spec.scratch.join(WORK);
    let root = mount_chain(
        &spec.lowers,
        Some((&upper, &work)),
        &spec.scratch,
        attributes,
        api,
    )
    .map_err(|error| survey::explain_overlay(error, &spec.scratch))?;
    refuse_read_only(&root, &work)?;
    Ok(root)
}

/// Overlayfs that can't make what it needs in its work directory mounts read-only and says so in the kernel's log alone.
/// On a full disk that would come up much later, as something else.
fn refuse_read_only(root: &OwnedFd, work: &Path) -> Result<(), JobError> {
    let message = "cannot mount the root file system of the step for writing";
    let failed = |errno| {
        JobError::from_errno(JobErrorKind::Sandbox, message, errno)
            .at(work.as_os_str().as_encoded_bytes())
    };
    let is_read_only = |flags: StatVfsMountFlags| flags.contains(StatVfsMountFlags::RDONLY);
    if !is_read_only(fstatvfs(root).map_err(failed)?.f_flag) {
        return Ok(());
    }
    let disk = statvfs(work).map_err(failed)?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let is_full = free < WORK_SPACE || (disk.f_files > 0 && disk.f_favail == 0);
    Err(failed(if is_full { Errno::NOSPC } else { Errno::ROFS }))
}

/// Mounts a chain read-only; the root of the result.
pub(crate) fn mount_read_only(
    lowers: &[PathBuf],
    scratch: &Path,
    attributes: MountAttrFlags,
    api: MountApi,
) -> Result<OwnedFd, JobError> {
    let attributes = attributes | MountAttrFlags::MOUNT_ATTR_RDONLY;
    // overlayfs wants two layers when there is no upper. A plain bind mount of a single snapshot would show its
    // whiteouts and escaped attributes as they are stored, so it is overlaid on nothing.
    let empty = scratch.join(EMPTY);
    let padded = match lowers {
        [] => {
            make_directory(&empty)?;
            return bind_directory(&empty, &scratch.join(MERGED), attributes, api);
        }
        [only] => {
            make_directory(&empty)?;
            vec![empty, only.clone()]
        }
        _ => lowers.to_vec(),
    };
    mount_chain(&padded, None, scratch, attributes, api)
}

fn mount_chain(
    lowers: &[PathBuf],
    writable: Option<(&Path, &Path)>,
    scratch: &Path,
    attributes: MountAttrFlags,
    api: MountApi,
) -> Result<OwnedFd, JobError> {
    if lowers.len() <= MAX_LOWERS {
        return mount_layers(lowers, writable, scratch, MERGED, attributes, api);
    }
    if lowers.len() > MAX_CHAIN {
        let message = format!(
            "cannot mount a chain of {} layers: the limit is {MAX_CHAIN}",
            lowers.len()
        );
        return Err(JobError::new(JobErrorKind::Sandbox, message));
    }
    mounts::ensure_private_namespace()?;
    let (bottom, top) = lowers.split_at((lowers.len() - (MAX_LOWERS - 1)).max(2));
    let fold = scratch.join(FOLD);
    make_directory(&fold)?;
    let under = open_directory(&fold)?;
    let bottom = mount_layers(
        bottom,
        None,
        scratch,
        FOLD,
        MountAttrFlags::MOUNT_ATTR_RDONLY,
        api,
    )?;
    // Only the newest kernels take a detached mount as a layer, so it is attached; after mount(2) it is already.
    match mounts::attach(&bottom, &under) {
        Ok(()) => {}
        Err(_) if api == MountApi::Classic || is_same(&bottom, &open_directory(&fold)?) => {}
        Err(errno) => return Err(MountError::new("the bottom of a long chain", errno).into()),
    }
    let mut all = vec![fold.clone()];
    all.extend_from_slice(top);
    let root = mount_layers(&all, writable, scratch, MERGED, attributes, api)?;
    // The overlay has its own reference. A mount left behind would only last as long as this namespace.
    let _ = unmount(&fold, UnmountFlags::DETACH);
    Ok(root)
}

/// True when both are open on the same directory.
pub(crate) fn is_same(one: &OwnedFd, other: &OwnedFd) -> bool {
    match (rustix::fs::fstat(one), rustix::fs::fstat(other)) {
        (Ok(one), Ok(other)) => (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino),
        _ => false,
    }
}

/// Mounts up to [`MAX_LOWERS`] layers, lowest first.
fn mount_layers(
    lowers: &[PathBuf],
    writable: Option<(&Path, &Path)>,
    scratch: &Path,
    target: &str,
    attributes: MountAttrFlags,
    api: MountApi,
) -> Result<OwnedFd, JobError> {
    let first_error = match api {
        MountApi::Classic | MountApi::Nothing => None,
        MountApi::Automatic => match mount_by_descriptor(lowers, writable, attributes) {
            Ok(root) => return Ok(root),
            // No fsopen, no `lowerdir+` (before 6.5), or a path that is too long for it.
            Err(error) if matches!(error.source, Errno::NOSYS | Errno::INVAL) => Some(error),
            Err(error) => return Err(error.into()),
        },
    };
    mount_by_path(lowers, writable.is_some(), scratch, target, attributes).map_err(|error| {
        match first_error {
            // mount(2) has no words; the first attempt may have had some.
            Some(first) if !first.log.is_empty() => first.into(),
            _ => error,
        }
    })
}

fn mount_by_descriptor(
    lowers: &[PathBuf],
    writable: Option<(&Path, &Path)>,
    attributes: MountAttrFlags,
) -> Result<OwnedFd, MountError> {
    let text = |path: &Path| match path.to_str() {
        Some(text) if text.len() <= MAX_OPTION => Ok(text.to_owned()),
        _ => Err(MountError::new("overlay", Errno::INVAL)),
    };
    // Overlayfs wants the top-most first.
    let mut values = lowers
        .iter()
        .rev()
        .map(|lower| text(lower))
        .collect::<Result<Vec<_>, _>>()?;
    let lower_count = values.len();
    if let Some((upper, work)) = writable {
        values.extend([text(upper)?, text(work)?]);
    }
    let mut options: Vec<FsOption<'_>> = vec![("userxattr", None), ("index", Some("off"))];
    options.extend(
        values[..lower_count]
            .iter()
            .map(|value| ("lowerdir+", Some(value.as_str()))),
    );
    if let [upper, work] = &values[lower_count..] {
        options.extend([
            ("upperdir", Some(upper.as_str())),
            ("workdir", Some(work.as_str())),
            ("volatile", None),
        ]);
    }
    mounts::make_filesystem("overlay", &options, attributes)
}

/// Mounts with mount(2), from inside the scratch directory and by short names, on `scratch/target`.
fn mount_by_path(
    lowers: &[PathBuf],
    is_writable: bool,
    scratch: &Path,
    target: &str,
    attributes: MountAttrFlags,
) -> Result<OwnedFd, JobError> {
    mounts::ensure_private_namespace()?;
    make_directory(&scratch.join(target))?;
    let links = scratch.join(LINKS);
    remove_directory(&links)?;
    make_directory(&links)?;
    let mut options = String::from("userxattr,index=off,lowerdir=");
    for (index, lower) in lowers.iter().enumerate().rev() {
        let link = links.join(index.to_string());
        symlink(lower, &link).map_err(|error| failed("cannot make the link", &link, &error))?;
        let _ = write!(options, "{LINKS}/{index}"); // writing to a String cannot fail
        options.push(if index == 0 { ',' } else { ':' });
    }
    if is_writable {
        let _ = write!(options, "upperdir={UPPER},workdir={WORK},volatile"); // as above
    } else {
        options.pop();
    }
    let enter = |path: &Path| {
        rustix::process::chdir(path)
            .map_err(|errno| failed("cannot enter", path, &io::Error::from(errno)))
    };
    enter(scratch)?;
    let data =
        std::ffi::CString::new(options).map_err(|_| MountError::new("overlay", Errno::INVAL))?;
    let mounted = mount(
        "overlay",
        target,
        "overlay",
        mounts::classic(attributes),
        data.as_c_str(),
    );
    enter(Path::new("/"))?;
    mounted.map_err(|errno| MountError::new("overlay", errno))?;
    remove_directory(&links)?;
    open_directory(&scratch.join(target))
}

/// Shows a directory of the host as a root.
pub(crate) fn bind_directory(
    source: &Path,
    target: &Path,
    attributes: MountAttrFlags,
    api: MountApi,
) -> Result<OwnedFd, JobError> {
    let source_fd = open_directory(source)?;
    let cannot = |errno| MountError::new("the root directory", errno);
    if api == MountApi::Automatic {
        match mounts::clone_tree(&source_fd, false) {
            Err(Errno::NOSYS) => {}
            Err(errno) => return Err(cannot(errno).into()),
            Ok(tree) => match mounts::set_attributes(tree.as_fd(), attributes, false) {
                Ok(()) => return Ok(tree),
                Err(Errno::NOSYS) => {}
                Err(errno) => return Err(cannot(errno).into()),
            },
        }
    }
    mounts::ensure_private_namespace()?;
    make_directory(target)?;
    let target_fd = open_directory(target)?;
    mounts::bind(
        MountApi::Classic,
        source_fd.as_fd(),
        false,
        attributes,
        target_fd.as_fd(),
    )
    .map_err(cannot)?;
    open_directory(target)
}

/// Makes `upper` (with what the chain's `/` has) unless it is there, and a new `work`.
/// Makes the upper directory and overlayfs's own.
pub(crate) fn prepare_upper(spec: &OverlaySpec) -> Result<(), JobError> {
    // A volatile overlay marks its work directory, and refuses one that is marked.
    let work = spec.scratch.join(WORK);
    remove_directory(&work)?;
    make_directory(&work)?;
    let upper = spec.scratch.join(UPPER);
    match rustix::fs::mkdir(&upper, Mode::from(0o755)) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(()),
        Err(errno) => return Err(failed("cannot make the directory", &upper, &errno.into())),
    }
    require_user_xattrs(&upper)?;
    match spec.lowers.last() {
        Some(top) => copy_metadata(top, &upper),
        None => Ok(()),
    }
}

/// Without them overlayfs still mounts, and then forgets which directories are opaque.
fn require_user_xattrs(upper: &Path) -> Result<(), JobError> {
    match rustix::fs::getxattr(upper, "user.overlay.opaque", &mut [0_u8; 8]) {
        Err(Errno::OPNOTSUPP) => Err(JobError::from_errno(
            JobErrorKind::Sandbox,
            "the store's file system has no `user.*` extended attributes, which overlayfs needs, at",
            Errno::OPNOTSUPP,
        )
        .at(upper.as_os_str().as_encoded_bytes())
        .with_help("put the store on a file system that has them, such as ext4, xfs or btrfs: `--root DIR`")),
        _ => Ok(()),
    }
}

/// Gives the directory `to` mode, owner, times and kept extended attributes of the directory `from`.
fn copy_metadata(from: &Path, to: &Path) -> Result<(), JobError> {
    let open = |path: &Path| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty())
            .map_err(|errno| failed("cannot open the directory", path, &errno.into()))
    };
    let (from, target) = (open(from)?, open(to)?);
    let copy = || -> Result<(), Errno> {
        let stat = rustix::fs::fstat(&from)?;
        metadata::set_owner(&target, stat.st_uid, stat.st_gid)?;
        rustix::fs::fchmod(&target, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
        for (name, value) in kept_xattrs(from.as_fd())? {
            rustix::fs::fsetxattr(&target, name.as_slice(), &value, XattrFlags::empty())?;
        }
        set_mtime(
            target.as_fd(),
            (stat.st_mtime, stat.st_mtime_nsec.cast_signed()),
        )
    };
    copy().map_err(|errno| {
        failed(
            "cannot copy the metadata of the root directory to",
            to,
            &errno.into(),
        )
    })
}

/// Sets the mtime of an open directory; atimes never reach a layer.
pub(crate) fn set_mtime(
    directory: BorrowedFd<'_>,
    (seconds, nanoseconds): (i64, i64),
) -> Result<(), Errno> {
    let omit = Timespec {
        tv_sec: 0,
        tv_nsec: rustix::fs::UTIME_OMIT,
    };
    let times = Timestamps {
        last_access: omit,
        last_modification: Timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds,
        },
    };
    rustix::fs::futimens(directory, &times)
}

/// Extended attributes by name, in byte order.
pub(crate) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// Extended attributes of an open directory that belong to an image: not overlayfs's, and none that it only has
/// because it lies in the store.
pub(crate) fn kept_xattrs(directory: BorrowedFd<'_>) -> Result<Xattrs, Errno> {
    const FOREIGN: [&[u8]; 4] = [
        b"user.overlay.",
        b"trusted.overlay.",
        b"system.posix_acl_",
        b"security.selinux",
    ];
    const LIMIT: usize = 65_536; // the kernel's own, for a list of names and for a value
    let mut names = vec![0_u8; 1024];
    let length = match rustix::fs::flistxattr(directory, names.as_mut_slice()) {
        Err(Errno::OPNOTSUPP) => 0,
        Err(Errno::RANGE) => {
            names.resize(LIMIT, 0);
            rustix::fs::flistxattr(directory, names.as_mut_slice())?
        }
        length => length?,
    };
    let mut kept = Vec::new();
    for name in names[..length]
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
    {
        if FOREIGN.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        let mut value = vec![0_u8; LIMIT];
        let length = rustix::fs::fgetxattr(directory, name, value.as_mut_slice())?;
        value.truncate(length);
        kept.push((name.to_vec(), value));
    }
    kept.sort();
    Ok(kept)
}

pub(crate) fn make_directory(path: &Path) -> Result<(), JobError> {
    match rustix::fs::mkdir(path, Mode::from(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(failed("cannot make the directory", path, &errno.into())),
    }
}

fn remove_directory(path: &Path) -> Result<(), JobError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed("cannot remove the directory", path, &error))
        }
        _ => Ok(()),
    }
}

/// Opens a host directory as a place, not for reading.
pub(crate) fn open_directory(path: &Path) -> Result<OwnedFd, JobError> {
    rustix::fs::open(
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|errno| failed("cannot open the directory", path, &errno.into()))
}

pub(crate) fn failed(message: &str, path: &Path, error: &io::Error) -> JobError {
    let made = JobError::from_errno(
        JobErrorKind::Files,
        message,
        error
            .raw_os_error()
            .map_or(Errno::IO, Errno::from_raw_os_error),
    );
    made.at(path.as_os_str().as_encoded_bytes())
        .caused_by(error)
}
