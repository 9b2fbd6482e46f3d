//! Taking what was made for mounting out of an upper directory again.
//!
//! Works on the upper directory itself, when the overlay is no longer mounted. The command had the tree in its hands
//! in between, so nothing is taken for granted: a stub that was filled, moved or replaced stays what the command made of it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::mount_point::{self, Stubs};
use crate::error::JobError;
use crate::overlay;

/// Removes stubs that are still as they were made, and directories that were copied up for nothing else.
pub(crate) fn remove(upper: &Path, stubs: &Stubs) -> Result<(), JobError> {
    if stubs.made.is_empty() {
        return Ok(());
    }
    remove_made(upper, stubs)?;
    let root = overlay::open_directory(upper)?;
    // Children first: a parent is empty only then. The root itself has no parent and stays.
    let mut touched: Vec<_> = stubs
        .touched
        .iter()
        .filter(|touched| !touched.path.is_empty())
        .collect();
    touched.sort_by(|one, other| other.path.cmp(&one.path));
    for directory in touched {
        remove_if_unchanged(&root, directory)
            .map_err(|errno| failed(upper, &directory.path, errno))?;
    }
    Ok(())
}

/// Removes stubs that are still as they were made, from an upper directory or from a root that was changed in place.
pub(super) fn remove_made(tree: &Path, stubs: &Stubs) -> Result<(), JobError> {
    let root = overlay::open_directory(tree)?;
    for stub in stubs.made.iter().rev() {
        remove_stub(&root, &stub.path, stub.is_directory)
            .map_err(|errno| failed(tree, &stub.path, errno))?;
    }
    Ok(())
}

fn failed(tree: &Path, path: &[u8], errno: Errno) -> JobError {
    let path = tree.join(std::ffi::OsStr::new(&*String::from_utf8_lossy(path)));
    overlay::failed("cannot remove the mount point", &path, &errno.into())
}

fn remove_stub(root: &OwnedFd, path: &[u8], is_directory: bool) -> Result<(), Errno> {
    let Some((parent, name)) = open_parent(root, path)? else {
        return Ok(());
    };
    let stat = match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        stat => stat?,
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory if is_directory => unlink(&parent, name, AtFlags::REMOVEDIR),
        FileType::RegularFile if !is_directory && stat.st_size == 0 && stat.st_nlink == 1 => {
            unlink(&parent, name, AtFlags::empty())
        }
        _ => Ok(()),
    }
}

fn remove_if_unchanged(
    root: &OwnedFd,
    directory: &mount_point::TouchedDirectory,
) -> Result<(), Errno> {
    let Some((parent, name)) = open_parent(root, &directory.path)? else {
        return Ok(());
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = match rustix::fs::openat(&parent, name, flags, Mode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        fd => fd?,
    };
    // An opaque directory was made by the command, in place of one that it removed.
    let is_opaque = rustix::fs::fgetxattr(&fd, "user.overlay.opaque", &mut [0_u8; 8]).is_ok();
    if is_opaque || mount_point::metadata(fd.as_fd())? != directory.metadata {
        return Ok(());
    }
    unlink(&parent, name, AtFlags::REMOVEDIR)
}

/// Removes an entry without a trace in its directory's mtime. A directory that is not empty stays.
pub(super) fn unlink(parent: &OwnedFd, name: &[u8], flags: AtFlags) -> Result<(), Errno> {
    let before = rustix::fs::fstat(parent)?;
    match rustix::fs::unlinkat(parent, name, flags) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => return Ok(()),
        result => result?,
    }
    overlay::set_mtime(
        parent.as_fd(),
        (before.st_mtime, before.st_mtime_nsec.cast_signed()),
    )
}

/// The directory that `path` lies in, when that is still a directory reached without symlinks, and its last name.
pub(super) fn open_parent<'a>(
    root: &OwnedFd,
    path: &'a [u8],
) -> Result<Option<(OwnedFd, &'a [u8])>, Errno> {
    let (parent, name) = match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b".".as_slice(), path),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match crate::root::openat2(root.as_fd(), parent, flags, resolve) {
        Ok(parent) => Ok(Some((parent, name))),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(errno) => Err(errno),
    }
}
