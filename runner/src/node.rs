//! Making and removing single files beneath a directory fd, with their metadata in the order that the kernel wants.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::ids;
use crate::metadata::{self, FileKind, Metadata, Time};
use crate::walk::read_names;
use crate::xattr::{self, Xattr};

/// What is set on a file after it was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes<'a> {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Option<Time>,
    /// With the names as they are stored.
    pub(crate) xattrs: &'a [Xattr],
}

/// A file without content.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Node<'a> {
    Symlink(&'a [u8]),
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
    Fifo,
    Socket,
}

/// Makes a regular file that must not exist yet, readable by nobody else until it is finished.
pub(crate) fn create_file(directory: BorrowedFd<'_>, name: &[u8]) -> Result<std::fs::File, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR).map(Into::into)
}

/// Makes a file without content that must not exist yet.
pub(crate) fn create_node(
    directory: BorrowedFd<'_>,
    name: &[u8],
    node: Node<'_>,
) -> Result<(), Errno> {
    let make = |file_type, device| {
        let made = rustix::fs::mknodat(directory, name, file_type, Mode::RUSR | Mode::WUSR, device);
        if made == Err(Errno::PERM) && device != 0 {
            ids::note_device();
        }
        made
    };
    match node {
        Node::Symlink(target) => rustix::fs::symlinkat(target, directory, name),
        Node::CharDevice(major, minor) => {
            make(FileType::CharacterDevice, rustix::fs::makedev(major, minor))
        }
        Node::BlockDevice(major, minor) => {
            make(FileType::BlockDevice, rustix::fs::makedev(major, minor))
        }
        Node::Fifo => make(FileType::Fifo, 0),
        Node::Socket => make(FileType::Socket, 0),
    }
}

/// Whether a directory lies on overlayfs.
fn is_on_overlay(directory: BorrowedFd<'_>) -> Result<bool, Errno> {
    const MAGIC: u64 = 0x794c_7630;
    let kind = rustix::fs::fstatfs(directory)?.f_type;
    Ok(u64::try_from(kind) == Ok(MAGIC))
}

/// Makes the mark of a deletion: a device `0:0`, or the form of it with an attribute, where the file system is an overlay
/// itself and keeps such devices for its own.
pub(crate) fn create_whiteout(directory: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match create_node(directory, name, Node::CharDevice(0, 0)) {
        // Nowhere else: kernels before 6.7 would not take the other form for a deletion.
        Err(Errno::PERM) if is_on_overlay(directory)? => {}
        made => return made,
    }
    let file = create_file(directory, name)?;
    xattr::set(file.as_fd(), xattr::WHITEOUT, b"y")?;
    // Overlayfs looks for such files only where it is told of them. One that is opaque hides all that they could.
    match xattr::read(directory, xattr::OPAQUE)? {
        None => xattr::set(directory, xattr::OPAQUE, b"x"),
        Some(_) => Ok(()),
    }
}

/// Makes a directory that must not exist yet.
pub(crate) fn create_directory(directory: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    rustix::fs::mkdirat(directory, name, Mode::RWXU)
}

/// Makes a directory with mode and owner.
pub(crate) fn create_directory_with(
    directory: BorrowedFd<'_>,
    name: &[u8],
    mode: u32,
    (uid, gid): (u32, u32),
) -> Result<(), Errno> {
    create_directory(directory, name)?;
    let opened = open_directory(directory, name)?;
    set(
        opened.as_fd(),
        &Attributes {
            mode,
            uid,
            gid,
            mtime: None,
            xattrs: &[],
        },
    )
}

/// Opens a directory that is not reached through a symlink.
pub(crate) fn open_directory(directory: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty())
}

/// Sets everything on an open file: the owner first, as changing it clears setuid and file capabilities.
pub(crate) fn set(fd: BorrowedFd<'_>, attributes: &Attributes<'_>) -> Result<(), Errno> {
    metadata::set_owner(fd, attributes.uid, attributes.gid)?;
    metadata::set_mode(fd, attributes.mode)?;
    for (name, value) in attributes.xattrs {
        xattr::set(fd, name, value)?;
    }
    attributes
        .mtime
        .map_or(Ok(()), |mtime| metadata::set_time(fd, mtime))
}

/// The same for a name that can't be opened.
pub(crate) fn set_at(
    directory: BorrowedFd<'_>,
    name: &[u8],
    kind: FileKind,
    attributes: &Attributes<'_>,
) -> Result<(), Errno> {
    metadata::set_owner_at(directory, name, attributes.uid, attributes.gid)?;
    if kind != FileKind::Symlink {
        metadata::set_mode_at(directory, name, attributes.mode)?;
    }
    for (xattr, value) in attributes.xattrs {
        xattr::set_at(directory, name, xattr, value)?;
    }
    attributes.mtime.map_or(Ok(()), |mtime| {
        metadata::set_time_at(directory, name, mtime)
    })
}

/// Removes what is there; a directory with all that is in it.
pub(crate) fn remove_all(directory: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    // Not recursive, and with one descriptor: depth is the archive's to choose. Every directory is read once. Going up is
    // by `..` of a directory that nobody else moves, and checked.
    let mut current = open_directory(directory, name)?;
    let mut levels = vec![Level {
        name: name.to_vec(),
        parent: Metadata::of_fd(directory)?.identity(),
        below: remove_files(current.as_fd())?,
    }];
    while let Some(mut level) = levels.pop() {
        if let Some(child) = level.below.pop() {
            let parent = Metadata::of_fd(&current)?.identity();
            current = open_directory(current.as_fd(), &child)?;
            levels.push(level);
            levels.push(Level {
                name: child,
                parent,
                below: remove_files(current.as_fd())?,
            });
            continue;
        }
        if levels.is_empty() {
            return rustix::fs::unlinkat(directory, &level.name[..], AtFlags::REMOVEDIR);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let above = rustix::fs::openat(&current, "..", flags, Mode::empty())?;
        if Metadata::of_fd(&above)?.identity() != level.parent {
            return Err(Errno::STALE);
        }
        rustix::fs::unlinkat(&above, &level.name[..], AtFlags::REMOVEDIR)?;
        current = above;
    }
    Ok(())
}

/// A directory that [`remove_all`] is in.
struct Level {
    name: Vec<u8>,
    /// Identity of the directory that holds it.
    parent: (u64, u64),
    /// Directories in it that are still there.
    below: Vec<Vec<u8>>,
}

/// Removes everything but the directories, whose names are returned.
fn remove_files(directory: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>, Errno> {
    let mut below = Vec::new();
    for (child, _) in read_names(directory)? {
        match rustix::fs::unlinkat(directory, &child[..], AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) => below.push(child),
            Err(errno) => return Err(errno),
        }
    }
    Ok(below)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::open_root;

    #[test]
    fn trees_of_any_depth_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let root = open_root(directory.path()).unwrap();
        let mut current = rustix::io::dup(&root).unwrap();
        for depth in 0..1500 {
            create_directory(current.as_fd(), b"d").unwrap();
            if depth % 100 == 0 {
                create_node(current.as_fd(), b"link", Node::Symlink(b"/etc")).unwrap();
                create_node(current.as_fd(), b"fifo", Node::Fifo).unwrap();
                create_directory(current.as_fd(), b"empty").unwrap();
            }
            current = open_directory(current.as_fd(), b"d").unwrap();
        }
        remove_all(root.as_fd(), b"d").unwrap();
        assert!(!directory.path().join("d").exists());
        remove_all(root.as_fd(), b"missing").unwrap();
        remove_all(root.as_fd(), b"link").unwrap();
        assert!(std::path::Path::new("/etc").exists());
    }
}
