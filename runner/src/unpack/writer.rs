//! Puts the members of a layer on disk.

use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, XattrFlags};
use rustix::io::Errno;

use super::entry::{DIRECTORY, attributes, described, implied, set, set_directory_time, stored};
use super::table::{self, Table};
use super::{UnpackError, fail};
use crate::job::{LayerEntry, LayerEntryKind, LeansOn};
use crate::metadata::FileKind;
use crate::node::{self, Attributes, Node};
use crate::root::{self, FileError, errno};
use crate::tar_reader::{Member, MemberKind, Piece, TarReader};
use crate::tar_writer::{OPAQUE_NAME, WHITEOUT_PREFIX};
use crate::xattr;
use crate::{layer_root, layer_tar};

const BUFFER: usize = 256 * 1024;
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
/// Names of marks that aufs left in old images; they mean nothing.
const MARK_PREFIX: &[u8] = b".wh..wh.";

/// A layer that is being unpacked.
pub(super) struct Writer<'a> {
    target: BorrowedFd<'a>,
    table: Table,
    lower_links: Vec<(Vec<u8>, Vec<u8>)>,
    /// Everything in `/` of lower layers is hidden: overlayfs knows no such mark.
    hides_root: bool,
    /// The directory of the last member, as the archive wrote it and as it is; most have the same.
    parent: Option<(Vec<u8>, Vec<u8>, OwnedFd)>,
    buffer: Vec<u8>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(target: BorrowedFd<'a>) -> Result<Self, UnpackError> {
        // What the root has until the layer says something else.
        let attributes = Attributes {
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: None,
            xattrs: &[],
        };
        node::set(target, &attributes).map_err(fail("set the metadata of", b""))?;
        let (table, lower_links) = (Table::default(), Vec::new());
        Ok(Self {
            target,
            table,
            lower_links,
            hides_root: false,
            parent: None,
            buffer: vec![0; BUFFER],
        })
    }

    /// Makes one member.
    pub(super) fn member(
        &mut self,
        member: &Member,
        tar: &mut TarReader<impl Read>,
    ) -> Result<(), UnpackError> {
        let path = table::clean(&member.path)?;
        let (parent, name) = table::split(&path);
        if path.is_empty() {
            return self.root(member);
        }
        if name == OPAQUE_NAME {
            let (parent, directory) = self.parent(parent, &path)?;
            self.set_opaque(&parent, directory.as_fd())?;
            return self.keep_parent(&path, parent, directory);
        }
        if name.starts_with(MARK_PREFIX) {
            return Ok(());
        }
        let (parent, directory) = self.parent(parent, &path)?;
        if let Some(deleted) = name.strip_prefix(WHITEOUT_PREFIX) {
            if matches!(deleted, b"" | b"." | b"..") {
                return Err(UnpackError::BadWhiteout {
                    path: (&path).into(),
                });
            }
            self.whiteout(&table::join(&parent, deleted), directory.as_fd(), deleted)?;
        } else {
            self.file(
                member,
                &table::join(&parent, name),
                directory.as_fd(),
                name,
                tar,
            )?;
        }
        self.keep_parent(&path, parent, directory)
    }

    /// Sets what had to wait, and gives the table.
    pub(super) fn finish(self) -> Result<(Vec<LayerEntry>, LeansOn), UnpackError> {
        let mut implied_parents = self.table.implied();
        let is_link = |path: &[u8]| matches!(self.table.get(path), Some(known) if matches!(known.entry.kind, LayerEntryKind::HardLink { .. }));
        let lower_links = self
            .lower_links
            .iter()
            .filter(|(path, _)| is_link(path))
            .cloned()
            .collect();
        let entries = self.table.into_entries();
        for entry in entries
            .iter()
            .filter(|entry| matches!(entry.kind, LayerEntryKind::Directory { .. }))
        {
            if implied_parents.binary_search(&entry.path).is_err() {
                set_directory_time(self.target, entry)?;
            }
        }
        if self.hides_root {
            implied_parents.insert(0, Vec::new());
        }
        Ok((
            entries,
            LeansOn {
                implied_parents,
                lower_links,
            },
        ))
    }

    fn root(&mut self, member: &Member) -> Result<(), UnpackError> {
        if member.kind != MemberKind::Directory {
            return Err(UnpackError::BadRoot);
        }
        let entry = described(
            member,
            Vec::new(),
            LayerEntryKind::Directory { is_opaque: false },
        );
        set(self.target, &entry)
            .and_then(|()| layer_root::set_mark(self.target))
            .map_err(fail("set", b""))?;
        self.table.insert(entry, false);
        Ok(())
    }

    /// The directory of an entry, made where it is missing.
    fn parent(&mut self, written: &[u8], entry: &[u8]) -> Result<(Vec<u8>, OwnedFd), UnpackError> {
        match self.parent.take() {
            Some((key, path, directory)) if key == written => return Ok((path, directory)),
            _ => {}
        }
        let path = self.table.resolve(written, entry)?;
        let own: Vec<&[u8]> = table::parents(&path)
            .chain(Some(&path[..]).filter(|path| !path.is_empty()))
            .collect();
        for directory in own {
            let is_deleted = match self.table.get(directory).map(|known| &known.entry.kind) {
                None => false,
                Some(LayerEntryKind::Whiteout) => true,
                Some(_) => continue,
            };
            let (above, name) = table::split(directory);
            // As a directory it could be in no layer made of this one.
            if name.starts_with(WHITEOUT_PREFIX) {
                return Err(UnpackError::BadWhiteout {
                    path: directory.into(),
                });
            }
            let above =
                root::open_beneath(self.target, above, DIRECTORY).map_err(fail("open", above))?;
            if is_deleted {
                rustix::fs::unlinkat(&above, name, AtFlags::empty())
                    .map_err(fail("replace", directory))?;
            }
            node::create_directory_with(above.as_fd(), name, 0o755, (0, 0))
                .map_err(fail("make", directory))?;
            self.table.insert(implied(directory), true);
            if is_deleted {
                let made =
                    node::open_directory(above.as_fd(), name).map_err(fail("open", directory))?;
                self.set_opaque(directory, made.as_fd())?;
            }
        }
        let directory =
            root::open_beneath(self.target, &path, DIRECTORY).map_err(fail("open", &path))?;
        Ok((path, directory))
    }

    #[expect(
        clippy::unnecessary_wraps,
        reason = "the last step of members that can fail"
    )]
    fn keep_parent(
        &mut self,
        written: &[u8],
        path: Vec<u8>,
        directory: OwnedFd,
    ) -> Result<(), UnpackError> {
        // Only while the name still leads to the same place: a member may have replaced a part of it.
        let is_there = path.is_empty()
            || matches!(self.table.get(&path), Some(known) if matches!(known.entry.kind, LayerEntryKind::Directory { .. }));
        let written = table::split(written).0;
        if is_there
            && self
                .table
                .resolve(written, written)
                .is_ok_and(|now| now == path)
        {
            self.parent = Some((written.to_vec(), path, directory));
        }
        Ok(())
    }

    fn whiteout(
        &mut self,
        path: &[u8],
        directory: BorrowedFd<'_>,
        name: &[u8],
    ) -> Result<(), UnpackError> {
        match self.table.get(path).map(|known| &known.entry.kind) {
            None => {
                node::create_whiteout(directory, name).map_err(fail("delete", path))?;
                self.table.insert(layer_tar::whiteout(path), false);
                Ok(())
            }
            // A deletion means lower layers only: what this one has stays, and hides all that was there.
            Some(LayerEntryKind::Directory { .. }) => {
                let made = node::open_directory(directory, name).map_err(fail("open", path))?;
                self.set_opaque(path, made.as_fd())
            }
            Some(_) => Ok(()),
        }
    }

    fn set_opaque(&mut self, path: &[u8], directory: BorrowedFd<'_>) -> Result<(), UnpackError> {
        if path.is_empty() {
            self.hides_root = true;
            return Ok(());
        }
        rustix::fs::fsetxattr(directory, xattr::OPAQUE, b"y", XattrFlags::empty())
            .map_err(fail("set", path))?;
        if let Some(known) = self.table.get_mut(path) {
            known.entry.kind = LayerEntryKind::Directory { is_opaque: true };
        }
        Ok(())
    }

    fn file(
        &mut self,
        member: &Member,
        path: &[u8],
        directory: BorrowedFd<'_>,
        name: &[u8],
        tar: &mut TarReader<impl Read>,
    ) -> Result<(), UnpackError> {
        // A link to itself; removing it first would lose the file.
        let link = if member.kind == MemberKind::HardLink {
            let target = table::clean(&member.link)?;
            let (above, last) = table::split(&target);
            let target = table::join(&self.table.resolve(above, path)?, last);
            if target == path {
                return match self.table.get(path) {
                    Some(_) => Ok(()),
                    None => Err(bad_link(path, &target, "is the link itself")),
                };
            }
            Some(target)
        } else {
            None
        };
        let (mut is_deleted, mut is_merged) = (false, None);
        match self.table.get(path).map(|known| &known.entry.kind) {
            None => {}
            Some(LayerEntryKind::Directory { is_opaque })
                if member.kind == MemberKind::Directory =>
            {
                is_merged = Some(*is_opaque);
            }
            Some(kind) => {
                is_deleted = *kind == LayerEntryKind::Whiteout;
                node::remove_all(directory, name).map_err(fail("replace", path))?;
                self.table.remove(path);
            }
        }
        let create = |node| match node::create_node(directory, name, node) {
            // Device nodes can't be made in a user namespace; the table has them all the same.
            Err(Errno::PERM) if !matches!(node, Node::Symlink(_) | Node::Fifo) => Ok(false),
            result => result.map(|()| true).map_err(fail("make", path)),
        };
        let kind = match member.kind {
            MemberKind::Directory => {
                if is_merged.is_none() {
                    node::create_directory(directory, name).map_err(fail("make", path))?;
                }
                let made = node::open_directory(directory, name).map_err(fail("open", path))?;
                let kind = LayerEntryKind::Directory {
                    is_opaque: is_merged.unwrap_or(false),
                };
                let entry = described(member, path.to_vec(), kind);
                set(made.as_fd(), &entry).map_err(fail("set the metadata of", path))?;
                self.table.insert(entry, false);
                if is_deleted {
                    self.set_opaque(path, made.as_fd())?;
                }
                return Ok(());
            }
            MemberKind::File => return self.regular(member, path, directory, name, tar),
            MemberKind::HardLink => {
                let target = link.expect("was resolved above");
                return self.link(member, path, directory, name, target);
            }
            MemberKind::Symlink => LayerEntryKind::Symlink {
                target: member.link.clone(),
            },
            MemberKind::CharDevice if member.device == (0, 0) => {
                return Err(UnpackError::WhiteoutDevice { path: path.into() });
            }
            MemberKind::CharDevice => LayerEntryKind::CharDevice {
                major: member.device.0,
                minor: member.device.1,
            },
            MemberKind::BlockDevice => LayerEntryKind::BlockDevice {
                major: member.device.0,
                minor: member.device.1,
            },
            MemberKind::Fifo => LayerEntryKind::Fifo,
        };
        let (file_kind, is_made) = match &kind {
            LayerEntryKind::Symlink { target } => {
                (FileKind::Symlink, create(Node::Symlink(target))?)
            }
            LayerEntryKind::CharDevice { major, minor } => (
                FileKind::CharDevice,
                create(Node::CharDevice(*major, *minor))?,
            ),
            LayerEntryKind::BlockDevice { major, minor } => (
                FileKind::BlockDevice,
                create(Node::BlockDevice(*major, *minor))?,
            ),
            _ => (FileKind::Fifo, create(Node::Fifo)?),
        };
        let entry = described(member, path.to_vec(), kind);
        if is_made {
            let xattrs = stored(&entry.xattrs);
            node::set_at(directory, name, file_kind, &attributes(&entry, &xattrs))
                .map_err(fail("set the metadata of", path))?;
        }
        self.table.insert(entry, false);
        Ok(())
    }

    fn regular(
        &mut self,
        member: &Member,
        path: &[u8],
        directory: BorrowedFd<'_>,
        name: &[u8],
        tar: &mut TarReader<impl Read>,
    ) -> Result<(), UnpackError> {
        let write = |error: std::io::Error| FileError::at("write", path)(errno(&error));
        let mut file = node::create_file(directory, name).map_err(fail("make", path))?;
        let mut hasher = blake3::Hasher::new();
        let mut has_holes = false;
        // A few bytes of an archive can promise 2^62 zeros. The file system refuses what it can't hold, and does so before
        // they are all hashed.
        if member.size > tar.stored() {
            file.set_len(member.size).map_err(write)?;
        }
        loop {
            match tar.read(&mut self.buffer)? {
                Piece::Data(length) => {
                    hasher.update(&self.buffer[..length]);
                    file.write_all(&self.buffer[..length]).map_err(write)?;
                }
                Piece::Hole(length) => {
                    has_holes = true;
                    file.seek(SeekFrom::Current(
                        i64::try_from(length).expect("the reader bounds holes"),
                    ))
                    .map_err(write)?;
                    let mut left = length;
                    while left > 0 {
                        let part = left.min(ZEROS.len() as u64);
                        hasher.update(&ZEROS[..usize::try_from(part).expect("is bounded")]);
                        left -= part;
                    }
                }
                Piece::End => break,
            }
        }
        if has_holes {
            file.set_len(member.size).map_err(write)?;
        }
        let kind = LayerEntryKind::File {
            size: member.size,
            digest: *hasher.finalize().as_bytes(),
        };
        let entry = described(member, path.to_vec(), kind);
        set(file.as_fd(), &entry).map_err(fail("set the metadata of", path))?;
        self.table.insert(entry, false);
        Ok(())
    }

    fn link(
        &mut self,
        member: &Member,
        path: &[u8],
        directory: BorrowedFd<'_>,
        name: &[u8],
        target: Vec<u8>,
    ) -> Result<(), UnpackError> {
        let lower = match self.table.get(&target).map(|known| &known.entry.kind) {
            Some(LayerEntryKind::Directory { .. }) => {
                return Err(bad_link(path, &target, "is a directory"));
            }
            Some(LayerEntryKind::Whiteout) => {
                return Err(bad_link(path, &target, "the layer deletes"));
            }
            Some(LayerEntryKind::HardLink { target }) => target.clone(),
            Some(_) => {
                let (above, last) = table::split(&target);
                let above = root::open_beneath(self.target, above, DIRECTORY)
                    .map_err(fail("open", above))?;
                match rustix::fs::linkat(&above, last, directory, name, AtFlags::empty()) {
                    Err(Errno::NOENT) => {} // a device that could not be made
                    result => result.map_err(fail("link", path))?,
                }
                self.table.insert_link(path, &target);
                return Ok(());
            }
            None => target,
        };
        self.lower_links.retain(|(other, _)| other != path);
        self.lower_links.push((path.to_vec(), lower.clone()));
        self.table.insert(
            described(
                member,
                path.to_vec(),
                LayerEntryKind::HardLink { target: lower },
            ),
            false,
        );
        Ok(())
    }
}

fn bad_link(path: &[u8], target: &[u8], what: &'static str) -> UnpackError {
    UnpackError::BadHardLink {
        path: path.into(),
        target: target.into(),
        what,
    }
}
