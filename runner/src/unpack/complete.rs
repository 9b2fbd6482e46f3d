//! Completes a layer with what it needs of the layers below.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::entry::{self, DIRECTORY};
use super::lowers::{Found, Lowers, Resolved};
use super::table::{self, Table};
use super::{UnpackError, fail};
use crate::job::{CompleteJob, LayerEntry, LayerEntryKind};
use crate::metadata::{FileKind, Metadata};
use crate::node::{self, Node};
use crate::root::{self, FileError, errno, open_root};
use crate::xattr;

/// A layer that is being completed.
struct Completion<'a> {
    target: BorrowedFd<'a>,
    lowers: Lowers,
    table: Table,
    links: Vec<(Vec<u8>, Vec<u8>)>,
    /// Directories that still have to be looked up below.
    implied: BTreeSet<Vec<u8>>,
}

pub(super) fn complete(job: &CompleteJob) -> Result<Vec<LayerEntry>, UnpackError> {
    let target = open_root(&job.target)?;
    let mut completion = Completion {
        target: target.as_fd(),
        lowers: Lowers::open(&job.lowers)?,
        table: Table::from_entries(&job.entries, &job.leans_on.implied_parents),
        links: job.leans_on.lower_links.clone(),
        implied: job.leans_on.implied_parents.iter().cloned().collect(),
    };
    if completion.implied.remove(&Vec::new()) {
        completion.hide_root()?;
    }
    completion.directories()?;
    for index in 0..completion.links.len() {
        let (path, lower) = completion.links[index].clone();
        completion.link(&path, &lower)?;
        completion.directories()?;
    }
    let entries = completion.table.into_entries();
    // Making links changed the times of the directories that hold them.
    for entry in &entries {
        if matches!(entry.kind, LayerEntryKind::Directory { .. }) {
            entry::set_directory_time(target.as_fd(), entry)?;
        }
    }
    Ok(entries)
}

impl Completion<'_> {
    /// Hides all that lower layers have in `/`. Nothing of theirs shines through then.
    fn hide_root(&mut self) -> Result<(), UnpackError> {
        self.implied.clear();
        for name in self.lowers.root_names().map_err(fail("read", b""))? {
            match self.table.get(&name).map(|known| &known.entry.kind) {
                None => {
                    node::create_node(self.target, &name, Node::CharDevice(0, 0))
                        .map_err(fail("delete", &name))?;
                    self.table.insert(crate::layer_tar::whiteout(&name), false);
                }
                Some(LayerEntryKind::Directory { .. }) => {
                    let opened =
                        node::open_directory(self.target, &name).map_err(fail("open", &name))?;
                    let flags = rustix::fs::XattrFlags::empty();
                    rustix::fs::fsetxattr(&opened, xattr::OPAQUE, b"y", flags)
                        .map_err(fail("set", &name))?;
                    if let Some(known) = self.table.get_mut(&name) {
                        known.entry.kind = LayerEntryKind::Directory { is_opaque: true };
                    }
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Gives implied directories the metadata that they have below.
    fn directories(&mut self) -> Result<(), UnpackError> {
        while let Some(path) = self.implied.pop_first() {
            let is_deleted_below = table::parents(&path).chain([path.as_slice()]).any(|above| {
                let kind = self.table.get(above).map(|known| &known.entry.kind);
                kind == Some(&LayerEntryKind::Directory { is_opaque: true }) && above != path
            });
            if is_deleted_below {
                continue; // what this layer hides does not shine through
            }
            match self.lowers.resolve(&path, false) {
                Ok(Resolved {
                    found: Found::Directory(directories),
                    path: place,
                }) if place == path => {
                    let entry = self.described(&path, &directories[0])?;
                    let directory = root::open_beneath(self.target, &path, DIRECTORY)
                        .map_err(fail("open", &path))?;
                    entry::set(directory.as_fd(), &entry)
                        .map_err(fail("set the metadata of", &path))?;
                    self.table.insert(entry, false);
                }
                Ok(Resolved {
                    found: Found::Missing,
                    path: place,
                }) if place == path => {}
                Ok(Resolved {
                    found: Found::Other { metadata, .. },
                    path: place,
                }) if place == path && metadata.kind != FileKind::Symlink => {
                    return Err(UnpackError::NotADirectory {
                        path: (&path).into(),
                        below: (&path).into(),
                    });
                }
                // A symlink, here or on the way.
                Ok(_) => self.follow(&path)?,
                Err(Errno::NOTDIR) => {
                    return Err(UnpackError::NotADirectory {
                        path: (&path).into(),
                        below: (&path).into(),
                    });
                }
                Err(Errno::LOOP) => {
                    return Err(UnpackError::LinkLoop {
                        path: (&path).into(),
                    });
                }
                Err(errno) => return Err(fail("look up", &path)(errno)),
            }
        }
        Ok(())
    }

    fn described(&self, path: &[u8], lower: &OwnedFd) -> Result<LayerEntry, UnpackError> {
        let metadata = Metadata::of_fd(lower).map_err(fail("stat", path))?;
        let (xattrs, _) = xattr::split(xattr::list(lower.as_fd()).map_err(fail("read", path))?);
        let mut entry = from_metadata(path, &metadata);
        entry.kind = match self.table.get(path) {
            Some(known) => known.entry.kind.clone(),
            None => LayerEntryKind::Directory { is_opaque: false },
        };
        entry.xattrs = xattrs;
        Ok(entry)
    }

    /// Moves what lies in a directory that is a symlink below to where the link leads.
    fn follow(&mut self, path: &[u8]) -> Result<(), UnpackError> {
        let resolved = match self.lowers.resolve(path, true) {
            Err(Errno::LOOP) => return Err(UnpackError::LinkLoop { path: path.into() }),
            result => result.map_err(fail("look up", path))?,
        };
        if matches!(resolved.found, Found::Other { .. }) {
            return Err(UnpackError::NotADirectory {
                path: path.into(),
                below: (&resolved.path).into(),
            });
        }
        let place = self.table.resolve(&resolved.path, path)?;
        let inside = place
            .strip_prefix(path)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"));
        if inside {
            return Err(UnpackError::LinkLoop { path: path.into() });
        }
        self.make_directories(&place, path)?;
        for from in self.table.below(path) {
            let to = [&place[..], &from[path.len()..]].concat();
            let to = to.strip_prefix(b"/").unwrap_or(&to).to_vec();
            self.move_one(&from, &to)?;
        }
        // What was moved left empty directories behind.
        let (above, name) = table::split(path);
        let above =
            root::open_beneath(self.target, above, DIRECTORY).map_err(fail("open", above))?;
        node::remove_all(above.as_fd(), name).map_err(fail("remove", path))?;
        self.table.remove(path);
        Ok(())
    }

    /// Moves one path of the table and of the disk; directories are merged, parents come first.
    fn move_one(&mut self, from: &[u8], to: &[u8]) -> Result<(), UnpackError> {
        let Some(known) = self.table.get(from).cloned() else {
            return Ok(());
        };
        let is_directory = matches!(known.entry.kind, LayerEntryKind::Directory { .. });
        let (to_above, to_name) = table::split(to);
        let to_directory =
            root::open_beneath(self.target, to_above, DIRECTORY).map_err(fail("open", to_above))?;
        let was_implied = self.implied.remove(from);
        let there = self
            .table
            .get(to)
            .map(|known| matches!(known.entry.kind, LayerEntryKind::Directory { .. }));
        match there {
            Some(true) if is_directory && known.is_implied => {
                return Ok(());
            }
            Some(_) => {
                return Err(UnpackError::Conflict {
                    path: from.into(),
                    place: to.into(),
                });
            }
            None if is_directory => {
                node::create_directory(to_directory.as_fd(), to_name).map_err(fail("make", to))?;
            }
            None => {}
        }
        if is_directory {
            let made =
                node::open_directory(to_directory.as_fd(), to_name).map_err(fail("open", to))?;
            let mut entry = LayerEntry {
                path: to.to_vec(),
                ..known.entry
            };
            entry::set(made.as_fd(), &entry).map_err(fail("set the metadata of", to))?;
            if entry.kind == (LayerEntryKind::Directory { is_opaque: true }) {
                let flags = rustix::fs::XattrFlags::empty();
                rustix::fs::fsetxattr(&made, xattr::OPAQUE, b"y", flags)
                    .map_err(fail("set", to))?;
            } else if let Some(known) = self.table.get(to) {
                entry.kind = known.entry.kind.clone();
            }
            self.table.insert(entry, known.is_implied);
            if was_implied || known.is_implied {
                self.implied.insert(to.to_vec());
            }
            return Ok(());
        }
        let (above, name) = table::split(from);
        let above =
            root::open_beneath(self.target, above, DIRECTORY).map_err(fail("open", above))?;
        match rustix::fs::renameat(&above, name, &to_directory, to_name) {
            // A device that could not be made, or a link that is still to be made.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(fail("move", from)(errno)),
        }
        self.table.rename(from, to);
        for (path, lower) in &mut self.links {
            for path in [path, lower] {
                if path == from {
                    *path = to.to_vec();
                }
            }
        }
        Ok(())
    }

    /// Makes a directory and those above it, as implied ones.
    fn make_directories(&mut self, path: &[u8], entry: &[u8]) -> Result<(), UnpackError> {
        let all: Vec<&[u8]> = table::parents(path)
            .chain(Some(path).filter(|path| !path.is_empty()))
            .collect();
        for directory in all {
            match self.table.get(directory).map(|known| &known.entry.kind) {
                Some(LayerEntryKind::Directory { .. }) => continue,
                Some(_) => {
                    return Err(UnpackError::Conflict {
                        path: entry.into(),
                        place: directory.into(),
                    });
                }
                None => {}
            }
            let (above, name) = table::split(directory);
            let above =
                root::open_beneath(self.target, above, DIRECTORY).map_err(fail("open", above))?;
            node::create_directory_with(above.as_fd(), name, 0o755, (0, 0))
                .map_err(fail("make", directory))?;
            self.table.insert(entry::implied(directory), true);
            self.implied.insert(directory.to_vec());
        }
        Ok(())
    }

    /// Makes a hard link into lower layers: the file is copied to its own place in this layer, and linked there.
    fn link(&mut self, path: &[u8], lower: &[u8]) -> Result<(), UnpackError> {
        let bad = |what| UnpackError::BadHardLink {
            path: path.into(),
            target: lower.into(),
            what,
        };
        let resolved = match self.lowers.resolve(lower, false) {
            Err(Errno::NOTDIR | Errno::LOOP) => return Err(bad("does not exist")),
            result => result.map_err(fail("look up", lower))?,
        };
        let place = self.table.resolve(table::split(&resolved.path).0, path)?;
        let place = table::join(&place, table::split(&resolved.path).1);
        match self.table.get(&place).map(|known| &known.entry.kind) {
            Some(LayerEntryKind::Directory { .. }) => return Err(bad("is a directory")),
            Some(LayerEntryKind::Whiteout | LayerEntryKind::HardLink { .. }) => {
                return Err(bad("does not exist"));
            }
            Some(_) => {} // copied for another link, or moved here
            None => match resolved.found {
                Found::Missing => return Err(bad("does not exist")),
                Found::Directory(_) => return Err(bad("is a directory")),
                Found::Other {
                    file,
                    directory,
                    metadata,
                } => {
                    self.make_directories(table::split(&place).0, path)?;
                    let name = table::split(&resolved.path).1.to_vec();
                    self.copy(&place, &file, directory.as_fd(), &name, &metadata)?;
                }
            },
        }
        let (above, name) = table::split(&place);
        let above =
            root::open_beneath(self.target, above, DIRECTORY).map_err(fail("open", above))?;
        let (to, to_name) = table::split(path);
        let to = root::open_beneath(self.target, to, DIRECTORY).map_err(fail("open", to))?;
        rustix::fs::linkat(&above, name, &to, to_name, AtFlags::empty())
            .map_err(fail("link", path))?;
        self.table.remove(path);
        self.table.insert_link(path, &place);
        Ok(())
    }

    /// Copies a lower layer's file, as overlayfs would when it is linked.
    fn copy(
        &mut self,
        place: &[u8],
        file: &OwnedFd,
        directory: BorrowedFd<'_>,
        lower_name: &[u8],
        metadata: &Metadata,
    ) -> Result<(), UnpackError> {
        let (above, name) = table::split(place);
        let above =
            root::open_beneath(self.target, above, DIRECTORY).map_err(fail("open", above))?;
        let mut entry = from_metadata(place, metadata);
        let raw = xattr::list_at(directory, lower_name).map_err(fail("read", place))?;
        (entry.xattrs, _) = xattr::split(raw);
        let text;
        let node = match metadata.kind {
            FileKind::File => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let lower = rustix::fs::openat(directory, lower_name, flags, Mode::empty());
                let mut reader = std::fs::File::from(lower.map_err(fail("open", place))?);
                let mut writer =
                    node::create_file(above.as_fd(), name).map_err(fail("make", place))?;
                let (mut hasher, mut buffer, mut size) =
                    (blake3::Hasher::new(), vec![0; 256 * 1024], 0);
                let io = |error: std::io::Error| FileError::at("copy", place)(errno(&error));
                loop {
                    let length = reader.read(&mut buffer).map_err(io)?;
                    if length == 0 {
                        break;
                    }
                    hasher.update(&buffer[..length]);
                    writer.write_all(&buffer[..length]).map_err(io)?;
                    size += length as u64;
                }
                entry.kind = LayerEntryKind::File {
                    size,
                    digest: *hasher.finalize().as_bytes(),
                };
                entry::set(writer.as_fd(), &entry).map_err(fail("set the metadata of", place))?;
                self.table.insert(entry, false);
                return Ok(());
            }
            FileKind::Symlink => {
                text = rustix::fs::readlinkat(file, "", Vec::new())
                    .map_err(fail("read", place))?
                    .into_bytes();
                entry.kind = LayerEntryKind::Symlink {
                    target: text.clone(),
                };
                Node::Symlink(&text)
            }
            FileKind::CharDevice => {
                let (major, minor) = metadata.numbers;
                entry.kind = LayerEntryKind::CharDevice { major, minor };
                Node::CharDevice(major, minor)
            }
            FileKind::BlockDevice => {
                let (major, minor) = metadata.numbers;
                entry.kind = LayerEntryKind::BlockDevice { major, minor };
                Node::BlockDevice(major, minor)
            }
            _ => {
                entry.kind = LayerEntryKind::Fifo;
                Node::Fifo
            }
        };
        node::create_node(above.as_fd(), name, node).map_err(fail("make", place))?;
        let xattrs = entry::stored(&entry.xattrs);
        node::set_at(
            above.as_fd(),
            name,
            metadata.kind,
            &entry::attributes(&entry, &xattrs),
        )
        .map_err(fail("set the metadata of", place))?;
        self.table.insert(entry, false);
        Ok(())
    }
}

/// An entry with a file's metadata; the kind of what is no directory is set by the caller.
fn from_metadata(path: &[u8], metadata: &Metadata) -> LayerEntry {
    LayerEntry {
        path: path.to_vec(),
        kind: LayerEntryKind::Directory { is_opaque: false },
        mode: if metadata.kind == FileKind::Symlink {
            0o777
        } else {
            metadata.mode
        },
        uid: metadata.uid,
        gid: metadata.gid,
        mtime: metadata.mtime.seconds,
        mtime_nanos: metadata.mtime.nanos,
        xattrs: Vec::new(),
    }
}
