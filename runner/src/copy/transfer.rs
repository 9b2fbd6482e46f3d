//! The entries of one copy operation: reading them from one tree and making them in another.

mod parallel;

use std::collections::HashMap;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, OFlags};
use rustix::io::Errno;

use super::{CopyError, content, split};
use crate::container_path::ContainerPath;
use crate::job::{Expected, ExpectedKind, SelectedEntry};
use crate::metadata::{self, FileKind, Metadata, Time};
use crate::node::{self, Attributes, Node};
use crate::root::{self, FileError, errno};
use crate::xattr::{self, Xattr};

/// How directories are opened.
pub(crate) const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);
/// How files are opened; a fifo that took a file's place must not block us.
pub(super) const FILE: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// One copy operation in progress.
pub(crate) struct Transfer<'a> {
    source: BorrowedFd<'a>,
    destination: BorrowedFd<'a>,
    /// Path of `destination`, for errors.
    base: &'a [u8],
    owner: Option<(u32, u32)>,
    copied: &'a mut Vec<[u8; 32]>,
    /// Where the first name of a source inode went, and its content's digest.
    links: HashMap<(u64, u64), (Vec<u8>, [u8; 32])>,
    /// Directories whose times are set when nothing is made in them any more.
    times: Vec<(Vec<u8>, Time)>,
    /// The two directories of the last entry: most have the same ones.
    parents: Option<(Vec<u8>, OwnedFd, OwnedFd)>,
    content: content::Copier,
    names: XattrNames,
    /// Files with several names are passed over.
    leaves_links: bool,
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    Copied,
    /// It has several names, and was passed over.
    IsLinked,
}

/// How names of attributes go from the source to the destination.
#[derive(Clone, Copy, PartialEq, Eq)]
enum XattrNames {
    /// From a root to a root.
    Plain,
    /// From a root into a snapshot.
    Escaped,
    /// From a snapshot into a root, without overlayfs's own.
    Unescaped,
}

impl<'a> Transfer<'a> {
    pub(crate) fn new(
        source: BorrowedFd<'a>,
        destination: BorrowedFd<'a>,
        base: &'a [u8],
        owner: Option<(u32, u32)>,
        copied: &'a mut Vec<[u8; 32]>,
    ) -> Self {
        let (links, times) = (HashMap::new(), Vec::new());
        Self {
            source,
            destination,
            base,
            owner,
            copied,
            links,
            times,
            parents: None,
            content: content::Copier::default(),
            names: XattrNames::Plain,
            leaves_links: false,
        }
    }

    /// The destination is a snapshot.
    pub(crate) fn escaping(self) -> Self {
        Self {
            names: XattrNames::Escaped,
            ..self
        }
    }

    /// The source is a snapshot.
    pub(crate) fn unescaping(self) -> Self {
        Self {
            names: XattrNames::Unescaped,
            ..self
        }
    }

    /// Copies an entry of a selected directory.
    pub(crate) fn beneath(&mut self, entry: &SelectedEntry) -> Result<(), CopyError> {
        self.beneath_or_left(entry).map(drop)
    }

    fn beneath_or_left(&mut self, entry: &SelectedEntry) -> Result<Done, CopyError> {
        let (parent, name) = split(&entry.path);
        let (from, to) = match self.parents.take() {
            Some((path, from, to)) if path == parent => (from, to),
            _ => {
                let fail = || FileError::at("open", &entry.path);
                let from = root::open_beneath(self.source, parent, DIRECTORY).map_err(fail())?;
                (
                    from,
                    root::open_beneath(self.destination, parent, DIRECTORY).map_err(fail())?,
                )
            }
        };
        let done = self.entry_or_left(from.as_fd(), name, to.as_fd(), name, entry)?;
        self.parents = Some((parent.to_vec(), from, to));
        Ok(done)
    }

    /// Copies `name` of `from` to `target` in `to`.
    pub(super) fn entry(
        &mut self,
        from: BorrowedFd<'_>,
        name: &[u8],
        to: BorrowedFd<'_>,
        target: &[u8],
        entry: &SelectedEntry,
    ) -> Result<(), CopyError> {
        self.entry_or_left(from, name, to, target, entry).map(drop)
    }

    fn entry_or_left(
        &mut self,
        from: BorrowedFd<'_>,
        name: &[u8],
        to: BorrowedFd<'_>,
        target: &[u8],
        entry: &SelectedEntry,
    ) -> Result<Done, CopyError> {
        let shown = if entry.path.is_empty() {
            name
        } else {
            &entry.path
        };
        let metadata = Metadata::of_name(from, name).map_err(FileError::at("stat", shown))?;
        if metadata.is_whiteout_device() {
            return Err(CopyError::WhiteoutDevice { path: shown.into() });
        }
        if let Some(expected) = &entry.expected
            && !is_as_expected(from, name, &metadata, expected)
                .map_err(FileError::at("read the link", shown))?
        {
            return Err(CopyError::Changed { path: shown.into() });
        }
        let link = (metadata.links > 1 && metadata.kind != FileKind::Directory)
            .then(|| metadata.identity());
        if self.leaves_links && link.is_some() {
            return Ok(Done::IsLinked);
        }
        // An entry that does not keep the source's owner comes from a host directory, whose attributes stay there.
        let xattrs = if entry.ids.is_some() {
            Vec::new()
        } else {
            self.names.carry(kept(from, name, shown)?)
        };
        let (uid, gid) = self
            .owner
            .or(entry.ids)
            .unwrap_or((metadata.uid, metadata.gid));
        let mode = entry.mode.unwrap_or(metadata.mode);
        let attributes = Attributes {
            mode,
            uid,
            gid,
            mtime: Some(metadata.mtime),
            xattrs: &xattrs,
        };
        if let Some((first, digest)) = link.and_then(|link| self.links.get(&link)) {
            let digest = *digest;
            self.link(&first.clone(), to, target, shown)?;
            if metadata.kind == FileKind::File {
                self.copied.push(digest);
            }
            return Ok(Done::Copied);
        }
        let mut digest = [0; 32];
        match metadata.kind {
            FileKind::Directory => {
                self.directory(to, target, shown, &attributes)?;
                return Ok(Done::Copied);
            }
            FileKind::File => {
                digest = self.file(from, name, to, target, shown, &attributes)?;
                self.copied.push(digest);
            }
            kind => {
                let text;
                let node = match kind {
                    FileKind::Symlink => {
                        let fail = FileError::at("read the link", shown);
                        text = rustix::fs::readlinkat(from, name, Vec::new())
                            .map_err(fail)?
                            .into_bytes();
                        Node::Symlink(&text)
                    }
                    FileKind::CharDevice => {
                        Node::CharDevice(metadata.numbers.0, metadata.numbers.1)
                    }
                    FileKind::BlockDevice => {
                        Node::BlockDevice(metadata.numbers.0, metadata.numbers.1)
                    }
                    FileKind::Fifo => Node::Fifo,
                    _ => Node::Socket,
                };
                self.replace(to, target, shown, || node::create_node(to, target, node))?;
                node::set_at(to, target, kind, &attributes)
                    .map_err(FileError::at("set the metadata of", shown))?;
            }
        }
        if let Some(link) = link {
            // Relative to the destination directory: the entry's own path, or the one name of a file operation.
            let place = if entry.path.is_empty() {
                target.to_vec()
            } else {
                entry.path.clone()
            };
            self.links.insert(link, (place, digest));
        }
        Ok(Done::Copied)
    }

    /// Sets the times of directories, deepest first.
    pub(crate) fn finish(mut self) -> Result<(), CopyError> {
        for (path, mtime) in std::mem::take(&mut self.times).into_iter().rev() {
            let set = || {
                let directory = root::open_beneath(self.destination, &path, DIRECTORY)?;
                metadata::set_time(&directory, mtime)
            };
            set().map_err(FileError::at("set the time of", &path))?;
        }
        Ok(())
    }

    fn directory(
        &mut self,
        to: BorrowedFd<'_>,
        target: &[u8],
        shown: &[u8],
        attributes: &Attributes<'_>,
    ) -> Result<(), CopyError> {
        match node::create_directory(to, target) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(FileError::at("make the directory", shown)(errno).into()),
        }
        let made = match node::open_directory(to, target) {
            Err(Errno::NOTDIR | Errno::LOOP) => {
                return Err(CopyError::NotADirectory {
                    path: self.full(shown),
                });
            }
            result => result.map_err(FileError::at("open", shown))?,
        };
        node::set(made.as_fd(), attributes).map_err(FileError::at("set the metadata of", shown))?;
        if let Some(mtime) = attributes.mtime {
            self.times.push((shown.to_vec(), mtime));
        }
        Ok(())
    }

    fn file(
        &mut self,
        from: BorrowedFd<'_>,
        name: &[u8],
        to: BorrowedFd<'_>,
        target: &[u8],
        shown: &[u8],
        attributes: &Attributes<'_>,
    ) -> Result<[u8; 32], CopyError> {
        let file = root::open_beneath(from, name, FILE).map_err(FileError::at("open", shown))?;
        let mut reader = std::fs::File::from(file);
        let mut writer = self.replace(to, target, shown, || node::create_file(to, target))?;
        let digest = self.content.copy(&mut reader, &mut writer, shown)?;
        node::set(writer.as_fd(), attributes)
            .map_err(FileError::at("set the metadata of", shown))?;
        Ok(digest)
    }

    fn link(
        &self,
        first: &[u8],
        to: BorrowedFd<'_>,
        target: &[u8],
        shown: &[u8],
    ) -> Result<(), CopyError> {
        let (parent, name) = split(first);
        let directory = root::open_beneath(self.destination, parent, DIRECTORY)
            .map_err(FileError::at("open", first))?;
        self.replace(to, target, shown, || {
            rustix::fs::linkat(&directory, name, to, target, AtFlags::empty())
        })
    }

    fn replace<T>(
        &self,
        to: BorrowedFd<'_>,
        target: &[u8],
        shown: &[u8],
        make: impl FnMut() -> Result<T, Errno>,
    ) -> Result<T, CopyError> {
        match replace(to, target, make) {
            Err(Errno::ISDIR) => Err(CopyError::IsADirectory {
                path: self.full(shown),
            }),
            result => Ok(result.map_err(FileError::at("write", shown))?),
        }
    }

    fn full(&self, shown: &[u8]) -> ContainerPath {
        [self.base, shown].join(&b'/').as_slice().into()
    }
}

impl XattrNames {
    fn carry(self, xattrs: Vec<Xattr>) -> Vec<Xattr> {
        let carry = |(name, value): Xattr| {
            let name = match self {
                Self::Plain => Some(name),
                Self::Escaped => Some(xattr::escape(&name)),
                Self::Unescaped => xattr::unescape(name),
            };
            name.map(|name| (name, value))
        };
        xattrs.into_iter().filter_map(carry).collect()
    }
}

/// Makes something where another file may be, which is removed first; `ISDIR` when that is a directory.
fn replace<T>(
    to: BorrowedFd<'_>,
    target: &[u8],
    mut make: impl FnMut() -> Result<T, Errno>,
) -> Result<T, Errno> {
    match make() {
        Err(Errno::EXIST) => {
            match rustix::fs::unlinkat(to, target, AtFlags::empty()) {
                // POSIX's answer for a directory, beside Linux's.
                Err(Errno::PERM) if Metadata::of_name(to, target)?.kind == FileKind::Directory => {
                    Err(Errno::ISDIR)
                }
                result => result,
            }?;
            make()
        }
        result => result,
    }
}

/// Writes a file whose content came with the job.
pub(super) fn write_inline(
    to: BorrowedFd<'_>,
    target: &[u8],
    content: &[u8],
    attributes: &Attributes<'_>,
    shown: &[u8],
) -> Result<(), CopyError> {
    let mut file = match replace(to, target, || node::create_file(to, target)) {
        Err(Errno::ISDIR) => return Err(CopyError::IsADirectory { path: shown.into() }),
        result => result.map_err(FileError::at("write", shown))?,
    };
    file.write_all(content)
        .map_err(|error| FileError::at("write", shown)(errno(&error)))?;
    Ok(node::set(file.as_fd(), attributes).map_err(FileError::at("set the metadata of", shown))?)
}

fn kept(from: BorrowedFd<'_>, name: &[u8], shown: &[u8]) -> Result<Vec<Xattr>, CopyError> {
    let mut xattrs =
        xattr::list_at(from, name).map_err(FileError::at("read the attributes of", shown))?;
    xattrs.retain(|(name, _)| xattr::is_kept(name));
    Ok(xattrs)
}

/// Whether the source still is what was selected.
fn is_as_expected(
    directory: BorrowedFd<'_>,
    name: &[u8],
    metadata: &Metadata,
    expected: &Expected,
) -> Result<bool, Errno> {
    let is_kind = match (&expected.kind, metadata.kind) {
        (ExpectedKind::Symlink(target), FileKind::Symlink) => {
            return Ok(rustix::fs::readlinkat(directory, name, Vec::new())?.as_bytes() == target);
        }
        (ExpectedKind::Directory, FileKind::Directory) | (ExpectedKind::File, FileKind::File) => {
            true
        }
        (ExpectedKind::Special, kind) => !matches!(
            kind,
            FileKind::Directory | FileKind::File | FileKind::Symlink
        ),
        _ => false,
    };
    Ok(is_kind && metadata.mode == expected.mode)
}
