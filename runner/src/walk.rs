//! Walks a tree by directory fds, in byte order of the paths, parents first.
//!
//! The order is that of the whole path as bytes (`a`, `a-b`, `a/c`), so that sorted tables and a walk agree. Symlinks
//! are never followed. Depth costs neither stack nor fds: at most `MAX_OPEN` directories are open, and one that was
//! closed is found again by its path and must be the same inode. A filter decides by path and type, before anything is
//! asked of the file, so that an ignored directory costs nothing.

use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::vec::IntoIter;

use rustix::fs::{Mode, OFlags, RawDir, RawDirEntry};
use rustix::io::Errno;

use crate::metadata::{FileKind, Metadata};
use crate::root::{self, FileError};
use crate::xattr::{self, Xattr};

/// Open directories of one walk. Well below the usual limit of 1024 fds a process, deep enough for real trees.
const MAX_OPEN: usize = 96;

/// What one call of a [`DirectoryReader`] for names may fill: some 2,000 of them.
const READ_BUFFER: usize = 64 * 1024;

/// What a filter says about a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Yield it, and what is beneath it.
    Take,
    /// Yield it, not what is beneath it.
    TakeAlone,
    /// Don't yield it, but go on beneath it (a re-included path may be there).
    Enter,
    /// Neither.
    Skip,
}

/// One file of a walk.
#[derive(Debug)]
pub struct Entry<'a> {
    directory: BorrowedFd<'a>,
    path: &'a [u8],
    name_start: usize,
    /// What `stat` says.
    pub metadata: Metadata,
}

impl Entry<'_> {
    /// Path relative to where the walk began, without a leading `/`.
    pub fn path(&self) -> &[u8] {
        self.path
    }

    /// Last component of the path.
    pub fn name(&self) -> &[u8] {
        &self.path[self.name_start..]
    }

    /// Opens it for reading. Never blocks on a fifo; fails when it has become a symlink.
    pub fn open(&self) -> Result<OwnedFd, FileError> {
        let flags =
            OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(self.directory, self.name(), flags, Mode::empty())
            .map_err(FileError::at("open", self.path))
    }

    /// The text of a symlink.
    pub fn read_link(&self) -> Result<Vec<u8>, FileError> {
        rustix::fs::readlinkat(self.directory, self.name(), Vec::new())
            .map(std::ffi::CString::into_bytes)
            .map_err(FileError::at("read the link", self.path))
    }

    /// All extended attributes by name, in byte order, as the file system has them.
    pub fn xattrs(&self) -> Result<Vec<Xattr>, FileError> {
        xattr::list_at(self.directory, self.name())
            .map_err(FileError::at("read the attributes of", self.path))
    }

    /// The attributes that count for a layer: without `security.*` (but `security.capability`) and `system.*`.
    pub fn kept_xattrs(&self) -> Result<Vec<Xattr>, FileError> {
        let mut xattrs = self.xattrs()?;
        xattrs.retain(|(name, _)| xattr::is_kept(name));
        Ok(xattrs)
    }
}

/// Reads directories one after another, with the same memory for all of them.
#[derive(Debug, Default)]
pub struct DirectoryReader {
    /// What the kernel writes names into.
    buffer: Vec<u8>,
    /// Names of one directory, one after another.
    names: Vec<u8>,
    /// Where they are in `names`.
    places: Vec<Range<usize>>,
}

impl DirectoryReader {
    /// Calls `visit` with the entries of the directory at `path` inside `root` (symlinks in `path` are followed inside), in
    /// byte order of their names. Their paths begin with `path`.
    pub fn read<E: From<FileError>>(
        &mut self,
        root: BorrowedFd<'_>,
        path: &[u8],
        mut visit: impl FnMut(&Entry<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let directory = root::open(root, path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        self.names.clear();
        self.places.clear();
        self.buffer.clear();
        // Once: a directory of a few files must not pay for one of a million.
        self.buffer.reserve(READ_BUFFER);
        let (names, places) = (&mut self.names, &mut self.places);
        each_name(
            directory.as_fd(),
            self.buffer.spare_capacity_mut(),
            |entry| {
                let start = names.len();
                names.extend_from_slice(entry.file_name().to_bytes());
                places.push(start..names.len());
            },
        )
        .map_err(FileError::at("read", path))?;
        places.sort_unstable_by(|left, right| {
            names[left.start..left.end].cmp(&names[right.start..right.end])
        });
        let mut child = path.to_vec();
        if !child.is_empty() {
            child.push(b'/');
        }
        let name_start = child.len();
        for place in places {
            child.truncate(name_start);
            child.extend_from_slice(&names[place.start..place.end]);
            match Metadata::of_name(directory.as_fd(), &child[name_start..]) {
                Ok(metadata) => visit(&Entry {
                    directory: directory.as_fd(),
                    path: &child,
                    name_start,
                    metadata,
                })?,
                Err(Errno::NOENT) => {} // removed meanwhile
                Err(errno) => return Err(FileError::at("stat", &child)(errno).into()),
            }
        }
        Ok(())
    }
}

/// Walks everything beneath `directory` (itself not included). `filter` is asked first, in the same order; `visit`
/// gets what it takes.
pub fn walk<E: From<FileError>>(
    directory: BorrowedFd<'_>,
    mut filter: impl FnMut(&[u8], FileKind) -> Filter,
    mut visit: impl FnMut(&Entry<'_>) -> Result<(), E>,
) -> Result<(), E> {
    // An O_PATH fd can't be read.
    let top = root::open_beneath(directory, b"", OFlags::RDONLY | OFlags::DIRECTORY);
    let mut frames = vec![
        Frame::read(top.map_err(FileError::at("open", b""))?, 0)
            .map_err(FileError::at("read", b""))?,
    ];
    let mut path = Vec::new();
    while let Some(depth) = frames.len().checked_sub(1) {
        let frame = &mut frames[depth];
        path.truncate(frame.prefix);
        let Some(event) = frame.events.next() else {
            frames.pop();
            continue;
        };
        let fd = frame
            .open(directory, &path)
            .map_err(FileError::at("open", &path))?;
        let prefix = path.len();
        path.extend_from_slice(&event.key);
        if let Some(kind) = event.kind {
            let answer = filter(&path, kind);
            if matches!(answer, Filter::Take | Filter::TakeAlone) {
                match Metadata::of_name(fd, &event.key) {
                    Ok(metadata) => visit(&Entry {
                        directory: fd,
                        path: &path,
                        name_start: prefix,
                        metadata,
                    })?,
                    Err(Errno::NOENT) => continue, // removed since it was listed
                    Err(errno) => return Err(FileError::at("stat", &path)(errno).into()),
                }
            }
            if kind == FileKind::Directory && matches!(answer, Filter::Take | Filter::Enter) {
                frames[depth].entered.push(event.key);
            }
        } else {
            let name = &event.key[..event.key.len() - 1];
            let Some(position) = frame.entered.iter().position(|entered| entered == name) else {
                continue;
            };
            frame.entered.swap_remove(position);
            let fd = frame
                .open(directory, &path[..prefix])
                .map_err(FileError::at("open", &path))?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let child = match rustix::fs::openat(fd, name, flags, Mode::empty()) {
                Ok(child) => child,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(FileError::at("open", &path)(errno).into()),
            };
            let child = Frame::read(child, path.len()).map_err(FileError::at("read", &path))?;
            frames.push(child);
            if let Some(oldest) = frames.len().checked_sub(MAX_OPEN + 1) {
                frames[oldest].fd = None;
            }
        }
    }
    Ok(())
}

/// A directory that is being walked.
struct Frame {
    /// None while it is closed because the walk is deep below it.
    fd: Option<OwnedFd>,
    identity: (u64, u64),
    /// Length of its path with the final `/`.
    prefix: usize,
    events: IntoIter<Event>,
    /// Directories whose content the filter wants; their second event has not come yet.
    entered: Vec<Vec<u8>>,
}

/// A name, or (with a final `/` and no kind) the content of a directory. Sorting these keys gives the byte order of
/// whole paths, as all that is in `a` begins with `a/`.
struct Event {
    key: Vec<u8>,
    kind: Option<FileKind>,
}

impl Frame {
    fn read(fd: OwnedFd, prefix: usize) -> Result<Self, Errno> {
        let mut events = Vec::new();
        for (name, kind) in read_names(fd.as_fd())? {
            let kind = match kind {
                Some(kind) => kind,
                None => match Metadata::of_name(fd.as_fd(), &name) {
                    Ok(metadata) => metadata.kind,
                    Err(Errno::NOENT) => continue,
                    Err(errno) => return Err(errno),
                },
            };
            if kind == FileKind::Directory {
                events.push(Event {
                    key: [&name[..], b"/"].concat(),
                    kind: None,
                });
            }
            events.push(Event {
                key: name,
                kind: Some(kind),
            });
        }
        events.sort_unstable_by(|left, right| left.key.cmp(&right.key));
        let identity = Metadata::of_fd(&fd)?.identity();
        Ok(Self {
            fd: Some(fd),
            identity,
            prefix,
            events: events.into_iter(),
            entered: Vec::new(),
        })
    }

    /// Its fd, opened again when it had been closed.
    fn open(&mut self, root: BorrowedFd<'_>, path: &[u8]) -> Result<BorrowedFd<'_>, Errno> {
        if self.fd.is_none() {
            let path = path.strip_suffix(b"/").unwrap_or(path);
            let fd = root::open_beneath(root, path, OFlags::RDONLY | OFlags::DIRECTORY)?;
            if Metadata::of_fd(&fd)?.identity() != self.identity {
                return Err(Errno::STALE);
            }
            self.fd = Some(fd);
        }
        Ok(self.fd.as_ref().expect("was opened above").as_fd())
    }
}

/// A name in a directory, and its type where the file system tells it.
pub(crate) type Name = (Vec<u8>, Option<FileKind>);

/// Names in a directory with the type where the file system tells it, in no order.
pub(crate) fn read_names(directory: BorrowedFd<'_>) -> Result<Vec<Name>, Errno> {
    let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
    let mut names = Vec::new();
    each_name(directory, &mut buffer, |entry| {
        let name = entry.file_name().to_bytes().to_vec();
        names.push((name, FileKind::from_type(entry.file_type())));
    })?;
    Ok(names)
}

/// Calls `take` with what is in a directory, but for `.` and `..`, in no order.
fn each_name(
    directory: BorrowedFd<'_>,
    buffer: &mut [MaybeUninit<u8>],
    mut take: impl FnMut(&RawDirEntry<'_>),
) -> Result<(), Errno> {
    let mut reader = RawDir::new(directory, buffer);
    while let Some(entry) = reader.next() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            take(&entry);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
