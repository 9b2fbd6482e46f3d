//! Mount calls, each in two ways: through mount descriptors (`fsopen`, `open_tree`, `move_mount`), or through mount(2).
//!
//! The first is the rule: it needs no paths, and says why it failed. The second serves kernels and seccomp profiles
//! that lack the calls. What to mount on is always a descriptor, so that no path of an image is ever resolved here.

use std::ffi::CString;
use std::fmt::Write as _;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount,
    mount_bind, mount_bind_recursive, mount_change, mount_remount, move_mount, open_tree,
};
use rustix::thread::UnshareFlags;

use crate::error::{JobError, JobErrorKind};
use crate::sys;

/// Which mount calls are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MountApi {
    /// Mount descriptors, and mount(2) where the kernel does not have them.
    #[default]
    Automatic,
    /// mount(2) only.
    Classic,
    /// None.
    Nothing,
}

/// What the root file system of a step is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Roots {
    /// An overlay on the layers beneath.
    #[default]
    Overlay,
    /// A plain directory with a copy of them, changed in place and handed along a chain; see `working_root`. For where
    /// nothing can be mounted, and for stores whose file system can't hold what an overlay changes.
    Copy,
}

/// A mount that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot mount {what}{}", log_suffix(.log))]
pub(crate) struct MountError {
    /// What was to be mounted.
    pub(crate) what: String,
    /// What the kernel said, line by line.
    pub(crate) log: Vec<String>,
    /// The error number.
    #[source]
    pub(crate) source: Errno,
}

fn log_suffix(log: &[String]) -> String {
    log.iter().fold(String::new(), |mut text, line| {
        let _ = write!(text, ": {line}"); // writing to a String cannot fail
        text
    })
}

impl MountError {
    pub(crate) fn new(what: impl Into<String>, source: Errno) -> Self {
        Self {
            what: what.into(),
            log: Vec::new(),
            source,
        }
    }
}

impl From<MountError> for JobError {
    fn from(error: MountError) -> Self {
        let kind = match error.source {
            Errno::PERM | Errno::ACCESS => JobErrorKind::MissingPrivilege,
            _ => JobErrorKind::Sandbox,
        };
        let made = JobError::from_error(kind, &error);
        match kind {
            JobErrorKind::MissingPrivilege => made.with_help(NEEDS_ADMIN),
            _ => made,
        }
    }
}

/// The way out when the kernel refuses namespaces or mounts.
pub(crate) const NEEDS_ADMIN: &str = "mounting and namespaces need CAP_SYS_ADMIN: run rbuild as root; in a container, \
    add `--cap-add SYS_ADMIN --security-opt seccomp=unconfined --security-opt apparmor=unconfined` or `--privileged`";

/// An option of a file system: a name, and a value unless it is a flag.
pub(crate) type FsOption<'a> = (&'a str, Option<&'a str>);

/// True once this process is alone in its mount namespace.
static IS_PRIVATE: AtomicBool = AtomicBool::new(false);

/// Moves this process into a mount namespace of its own, from which nothing propagates out. Once is enough.
pub(crate) fn ensure_private_namespace() -> Result<(), MountError> {
    if IS_PRIVATE.load(Ordering::Relaxed) {
        return Ok(());
    }
    sys::process::unshare(UnshareFlags::NEWNS)
        .map_err(|errno| MountError::new("in a namespace of our own", errno))?;
    make_private()
}

/// Cuts this process's mount namespace off from the one it was copied from. For a process that was cloned into it.
pub(crate) fn make_private() -> Result<(), MountError> {
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .map_err(|errno| MountError::new("without propagation", errno))?;
    IS_PRIVATE.store(true, Ordering::Relaxed);
    Ok(())
}

/// Makes a file system and returns its root, not yet mounted anywhere; it goes away with the descriptor.
pub(crate) fn make_filesystem(
    kind: &str,
    options: &[FsOption<'_>],
    attributes: MountAttrFlags,
) -> Result<OwnedFd, MountError> {
    let context =
        fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| MountError::new(kind, errno))?;
    let configure = || {
        for (name, value) in options {
            match value {
                Some(value) => fsconfig_set_string(&context, *name, *value)?,
                None => fsconfig_set_flag(&context, *name)?,
            }
        }
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    configure().map_err(|source| MountError {
        what: kind.to_owned(),
        log: read_log(&context),
        source,
    })
}

/// The messages that the kernel keeps for a file system context: one a read, as "e overlay: text".
pub(crate) fn read_log(context: impl AsFd) -> Vec<String> {
    let mut log = Vec::new();
    let mut line = [0; 1024];
    while let Ok(length) = rustix::io::read(&context, &mut line) {
        if length == 0 || log.len() == 16 {
            break;
        }
        let text = String::from_utf8_lossy(&line[..length]);
        log.push(
            text.trim_start_matches(['e', 'w', 'i', ' '])
                .trim_end()
                .to_owned(),
        );
    }
    log
}

/// Mounts what `mounted` is the detached root of on `target`.
pub(crate) fn attach(mounted: impl AsFd, target: impl AsFd) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mounted, "", target, "", flags)
}

/// Mounts a new file system on `target`.
///
/// Returns its root when that is known without resolving a path again.
pub(crate) fn mount_filesystem(
    api: MountApi,
    kind: &str,
    options: &[FsOption<'_>],
    attributes: MountAttrFlags,
    target: BorrowedFd<'_>,
) -> Result<Option<OwnedFd>, MountError> {
    if api == MountApi::Automatic {
        match make_filesystem(kind, options, attributes) {
            Err(error) if error.source == Errno::NOSYS => {}
            Err(error) => return Err(error),
            Ok(made) => {
                attach(&made, target).map_err(|errno| MountError::new(kind, errno))?;
                return Ok(Some(made));
            }
        }
    }
    let mut data = String::new();
    for (name, value) in options {
        let separator = if data.is_empty() { "" } else { "," };
        let _ = match value {
            Some(value) => write!(data, "{separator}{name}={value}"),
            None => write!(data, "{separator}{name}"),
        }; // writing to a String cannot fail
    }
    let data = CString::new(data).map_err(|_| MountError::new(kind, Errno::INVAL))?;
    mount(
        kind,
        path_of(target).as_str(),
        kind,
        classic(attributes),
        data.as_c_str(),
    )
    .map_err(|errno| MountError::new(kind, errno))?;
    Ok(None)
}

/// Mounts what `source` names once more, on `target`; with everything mounted below it when `is_recursive`.
pub(crate) fn bind(
    api: MountApi,
    source: BorrowedFd<'_>,
    is_recursive: bool,
    attributes: MountAttrFlags,
    target: BorrowedFd<'_>,
) -> Result<(), Errno> {
    if api == MountApi::Automatic {
        match clone_tree(source, is_recursive) {
            Err(Errno::NOSYS) => {}
            Err(errno) => return Err(errno),
            Ok(tree) => {
                let set = set_attributes(tree.as_fd(), attributes, is_recursive);
                attach(&tree, target)?;
                return match set {
                    // The tree's descriptor names its root, which is a mount point now.
                    Err(Errno::NOSYS) => remount(path_of(tree.as_fd()).as_str(), attributes),
                    set => set,
                };
            }
        }
    }
    let target_path = path_of(target);
    if is_recursive {
        mount_bind_recursive(path_of(source).as_str(), target_path.as_str())?;
    } else {
        mount_bind(path_of(source).as_str(), target_path.as_str())?;
    }
    // `target` still names what is underneath; its path, looked up again, names the new mount.
    let path = rustix::fs::readlinkat(CWD, target_path.as_str(), Vec::new())?;
    remount(path.as_c_str(), attributes)
}

/// A detached copy of the mount at `source`, from `source` down.
pub(crate) fn clone_tree(source: impl AsFd, is_recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    if is_recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(source, "", flags)
}

/// Sets attributes on a detached tree; nothing to set is nothing to do.
pub(crate) fn set_attributes(
    tree: BorrowedFd<'_>,
    attributes: MountAttrFlags,
    is_recursive: bool,
) -> Result<(), Errno> {
    if attributes.is_empty() {
        return Ok(());
    }
    sys::mount::set_mount_attributes(tree, attributes, is_recursive)
}

fn remount(path: impl rustix::path::Arg, attributes: MountAttrFlags) -> Result<(), Errno> {
    if attributes.is_empty() {
        return Ok(());
    }
    mount_remount(path, MountFlags::BIND | classic(attributes), c"")
}

/// mount(2)'s spelling of mount attributes.
pub(crate) fn classic(attributes: MountAttrFlags) -> MountFlags {
    [
        (MountAttrFlags::MOUNT_ATTR_RDONLY, MountFlags::RDONLY),
        (MountAttrFlags::MOUNT_ATTR_NOSUID, MountFlags::NOSUID),
        (MountAttrFlags::MOUNT_ATTR_NODEV, MountFlags::NODEV),
        (MountAttrFlags::MOUNT_ATTR_NOEXEC, MountFlags::NOEXEC),
    ]
    .into_iter()
    .filter(|(attribute, _)| attributes.contains(*attribute))
    .fold(MountFlags::empty(), |flags, (_, flag)| flags | flag)
}

/// A path that leads to exactly what `fd` is open on; works as long as the caller's `/proc` is there.
pub(crate) fn path_of(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}
