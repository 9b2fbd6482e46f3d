//! Path resolution beneath a directory fd: the only way by which this crate reaches files that an image or a build
//! context names.
//!
//! The directory is the root: absolute symlinks and `..` can't leave it (`openat2` with `RESOLVE_IN_ROOT`; where that
//! is missing or a path has to be made on the way, an equal walk by hand that keeps a stack of directory fds, so that
//! a concurrent rename can't lead out of it either). Nothing here checks first and acts later.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::container_path::ContainerPath;
use crate::metadata::{FileKind, Metadata};

mod by_hand;

pub(crate) use by_hand::{Last, Located, MakeDirectory};

/// A file operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{path}`")]
pub struct FileError {
    /// What was tried, as a verb.
    pub action: &'static str,
    /// On what.
    pub path: ContainerPath,
    /// Why it failed.
    #[source]
    pub source: Errno,
}

impl FileError {
    /// A closure for `map_err`.
    pub(crate) fn at(action: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> Self {
        move |source| Self {
            action,
            path: path.into(),
            source,
        }
    }

    /// The same for a host path.
    pub(crate) fn at_host(action: &'static str, path: &Path) -> impl FnOnce(Errno) -> Self {
        move |source| Self {
            action,
            path: path.as_os_str().as_bytes().into(),
            source,
        }
    }
}

/// The errno of an I/O error that came from a system call.
pub(crate) fn errno(error: &std::io::Error) -> Errno {
    error
        .raw_os_error()
        .map_or(Errno::IO, Errno::from_raw_os_error)
}

const NO_FOLLOW: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC);

/// Set once `openat2` turned out to be missing (before 5.6, or under an old seccomp filter).
static LACKS_OPENAT2: AtomicBool = AtomicBool::new(false);

/// Opens a host directory that becomes a root.
pub fn open_root(path: &Path) -> Result<OwnedFd, FileError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(FileError::at_host("open", path))
}

/// Opens `path` inside `root`, following symlinks within it.
pub fn open(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, FileError> {
    open_with(root, path, flags, Last::Follow)
}

/// Opens `path` inside `root`; a symlink as its last component is not followed.
pub fn open_no_follow(
    root: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
) -> Result<OwnedFd, FileError> {
    open_with(root, path, flags | OFlags::NOFOLLOW, Last::Keep)
}

fn open_with(
    root: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
    last: Last,
) -> Result<OwnedFd, FileError> {
    let flags = flags | OFlags::CLOEXEC;
    let text: &[u8] = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let result = match openat2(root, text, flags, resolve) {
        Err(Errno::NOSYS) => by_hand::open(root, text, flags, last),
        result => result,
    };
    result.map_err(FileError::at("open", path))
}

/// `openat2`, `ENOSYS` where the kernel or a filter does not let us have it.
pub(crate) fn openat2(
    root: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    if LACKS_OPENAT2.load(Ordering::Relaxed) {
        return Err(Errno::NOSYS);
    }
    // EAGAIN: a rename somewhere in the system raced with `..`; the kernel asks to try again.
    for _ in 0..64 {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            Err(Errno::NOSYS) => {
                LACKS_OPENAT2.store(true, Ordering::Relaxed);
                return Err(Errno::NOSYS);
            }
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}

/// Opens a path that came from walking `root`: no component may be a symlink, and it may be longer than `PATH_MAX`.
pub(crate) fn open_beneath(
    root: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    /// Below `PATH_MAX` (4096), with its final zero.
    const LONGEST: usize = 4000;
    let (mut rest, mut reached) = (path, None::<OwnedFd>);
    loop {
        let from = reached.as_ref().map_or(root, AsFd::as_fd);
        if rest.len() <= LONGEST {
            return open_beneath_once(from, rest, flags);
        }
        let cut = rest[..LONGEST]
            .iter()
            .rposition(|byte| *byte == b'/')
            .ok_or(Errno::NAMETOOLONG)?;
        let next = open_beneath_once(from, &rest[..cut], OFlags::PATH | OFlags::DIRECTORY)?;
        rest = &rest[cut + 1..];
        reached = Some(next);
    }
}

fn open_beneath_once(from: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    if !path.contains(&b'/') && path != b".." {
        return rustix::fs::openat(from, path, flags | NO_FOLLOW, Mode::empty());
    }
    match openat2(
        from,
        path,
        flags | NO_FOLLOW,
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
    ) {
        Err(Errno::NOSYS) => by_hand::open_without_links(from, path, flags),
        result => result,
    }
}

/// `stat` of `path` inside `root`; a symlink as its last component is not followed.
pub fn metadata(root: BorrowedFd<'_>, path: &[u8]) -> Result<Metadata, FileError> {
    let file = open_no_follow(root, path, OFlags::PATH)?;
    Metadata::of_fd(file).map_err(FileError::at("stat", path))
}

/// The text of the symlink at `path` inside `root`.
pub fn read_link(root: BorrowedFd<'_>, path: &[u8]) -> Result<Vec<u8>, FileError> {
    let file = open_no_follow(root, path, OFlags::PATH)?;
    rustix::fs::readlinkat(file, "", Vec::new())
        .map(std::ffi::CString::into_bytes)
        .map_err(FileError::at("read the link", path))
}

/// The path of the file that `path` leads to, with all symlinks resolved inside `root`; the last component may be
/// missing. Relative to the root, without a leading `/`.
pub fn resolve(root: BorrowedFd<'_>, path: &[u8]) -> Result<ContainerPath, FileError> {
    by_hand::locate(root, path, Last::Follow, &mut by_hand::never_make)
        .map(|located| located.path())
        .map_err(FileError::at("resolve", path))
}

/// Finds where `path` lies: the directory that holds it and its name there, which may be missing.
pub(crate) fn locate(root: BorrowedFd<'_>, path: &[u8], last: Last) -> Result<Located, Errno> {
    by_hand::locate(root, path, last, &mut by_hand::never_make)
}

/// As [`locate`], and `make` is called for each directory that is missing before the last component.
pub(crate) fn locate_and_make(
    root: BorrowedFd<'_>,
    path: &[u8],
    last: Last,
    make: &mut MakeDirectory<'_>,
) -> Result<Located, Errno> {
    by_hand::locate(root, path, last, make)
}

/// Opens the directory at `path` (symlinks are followed inside the root); `make` is called for each directory that is
/// missing on the way and must make it.
pub(crate) fn make_directories(
    root: BorrowedFd<'_>,
    path: &[u8],
    make: &mut MakeDirectory<'_>,
) -> Result<Located, Errno> {
    // A last `.` makes the final component an intermediate one, which is made like the others.
    by_hand::locate(root, &[path, b"/."].concat(), Last::Follow, make)
}

/// The content of a regular file inside `root`, links followed; none when there is no such file or it is not one.
pub(crate) fn read_small_file(
    root: BorrowedFd<'_>,
    path: &[u8],
    limit: u64,
) -> Result<Option<Vec<u8>>, FileError> {
    use std::io::Read;
    // NONBLOCK: opening a fifo must not wait for its writer.
    let file = match open(
        root,
        path,
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY,
    ) {
        Ok(file) => file,
        Err(FileError {
            source: Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO,
            ..
        }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let metadata = Metadata::of_fd(&file).map_err(FileError::at("stat", path))?;
    if metadata.kind != FileKind::File {
        return Ok(None);
    }
    let mut content = Vec::new();
    std::fs::File::from(file)
        .take(limit + 1)
        .read_to_end(&mut content)
        .map_err(|error| FileError::at("read", path)(errno(&error)))?;
    if content.len() as u64 > limit {
        return Err(FileError::at("read", path)(Errno::FBIG));
    }
    Ok(Some(content))
}

#[cfg(test)]
mod tests;
