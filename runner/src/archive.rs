//! `ADD` of an archive: recognised by its content, unpacked into a directory that is its root.
//!
//! `..`, absolute names and links that climb stay inside that directory. What is in the way of a member is removed,
//! except a directory in the way of a directory. Of extended attributes only `security.capability` is taken, as by the
//! reference: others in an archive are its maker's, not the image's.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::AtFlags;
use rustix::io::Errno;

use crate::copy::CopyError;
use crate::decompress;
use crate::metadata::{self, FileKind, Time};
use crate::node::{self, Attributes, Node};
use crate::root::{self, FileError, Last, Located, errno};
use crate::tar_reader::{Member, MemberKind, Piece, TarReader};
use crate::xattr::Xattr;

const BUFFER: usize = 256 * 1024;

/// Whether the content, once decompressed, begins with a tar member. Anything broken is not an archive.
pub(crate) fn is_archive(file: &mut File) -> Result<bool, Errno> {
    // Errors are those of the decompression, or of no tar: then it is a file like any other.
    let is_archive = decompress::reader(BufReader::with_capacity(BUFFER, &mut *file))
        .is_ok_and(|reader| matches!(TarReader::new(reader).next(), Ok(Some(_))));
    file.seek(SeekFrom::Start(0))
        .map_err(|error| errno(&error))?;
    Ok(is_archive)
}

/// Unpacks the archive into `directory`. Returns the digest of the archive file's bytes.
pub(crate) fn extract(
    file: &mut File,
    path: &[u8],
    directory: BorrowedFd<'_>,
    owner: Option<(u32, u32)>,
) -> Result<[u8; 32], CopyError> {
    let read = |error: std::io::Error| FileError::at("read", path)(errno(&error));
    let archive = |source| CopyError::Archive {
        path: path.into(),
        source,
    };
    let mut hashed = Hashing {
        file,
        hasher: blake3::Hasher::new(),
    };
    {
        let source = BufReader::with_capacity(BUFFER, &mut hashed);
        let reader = decompress::reader(source)
            .map_err(|error| archive(crate::tar_reader::TarError::Read(error)))?;
        let mut tar = TarReader::new(reader);
        let mut extraction = Extraction {
            directory,
            owner,
            times: HashMap::new(),
            buffer: vec![0; BUFFER],
        };
        while let Some(member) = tar.next().map_err(archive)? {
            extraction.member(&member, &mut tar, archive)?;
        }
        extraction.finish()?;
    }
    // What comes after the archive's end is part of the file.
    let mut buffer = vec![0; BUFFER];
    while hashed.read(&mut buffer).map_err(read)? > 0 {}
    Ok(*hashed.hasher.finalize().as_bytes())
}

struct Hashing<'a> {
    file: &'a mut File,
    hasher: blake3::Hasher,
}

impl Read for Hashing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.file.read(buffer)?;
        self.hasher.update(&buffer[..length]);
        Ok(length)
    }
}

struct Extraction<'a> {
    directory: BorrowedFd<'a>,
    owner: Option<(u32, u32)>,
    /// Times of directories, set at the end.
    times: HashMap<Vec<u8>, Time>,
    buffer: Vec<u8>,
}

impl Extraction<'_> {
    fn member(
        &mut self,
        member: &Member,
        tar: &mut TarReader<impl Read>,
        archive: impl Fn(crate::tar_reader::TarError) -> CopyError,
    ) -> Result<(), CopyError> {
        let shown = member.path.as_slice();
        let (uid, gid) = self.owner.unwrap_or((member.uid, member.gid));
        let xattrs: Vec<Xattr> = member
            .xattrs
            .iter()
            .filter(|(name, _)| name == b"security.capability")
            .cloned()
            .collect();
        let attributes = Attributes {
            mode: member.mode,
            uid,
            gid,
            mtime: Some(member.mtime),
            xattrs: &xattrs,
        };
        let fail = |action| FileError::at(action, shown);
        let Some(place) = self.place(shown)? else {
            // The destination itself (`./`): it is left as it is, but a directory member sets its metadata.
            if member.kind == MemberKind::Directory {
                let directory = root::open_beneath(self.directory, b"", super::copy::DIRECTORY);
                node::set(directory.map_err(fail("open"))?.as_fd(), &attributes)
                    .map_err(fail("set the metadata of"))?;
                self.times.insert(Vec::new(), member.mtime);
            }
            return Ok(());
        };
        let (to, name) = (
            place.directory(),
            place.name.as_deref().expect("place() gives a name"),
        );
        let path = place.path();
        let node = match member.kind {
            MemberKind::Directory => {
                let made = match make_or_open(to, name) {
                    Err(Errno::NOTDIR | Errno::LOOP) => {
                        node::remove_all(to, name).and_then(|()| make_or_open(to, name))
                    }
                    result => result,
                };
                node::set(made.map_err(fail("make"))?.as_fd(), &attributes)
                    .map_err(fail("set the metadata of"))?;
                self.times.insert(path.as_bytes().to_vec(), member.mtime);
                return Ok(());
            }
            MemberKind::File => {
                let mut file =
                    replace(to, name, || node::create_file(to, name)).map_err(fail("make"))?;
                let write = |error: std::io::Error| FileError::at("write", shown)(errno(&error));
                loop {
                    match tar.read(&mut self.buffer).map_err(&archive)? {
                        Piece::Data(length) => {
                            file.write_all(&self.buffer[..length]).map_err(write)?;
                        }
                        Piece::Hole(length) => {
                            let length = i64::try_from(length).expect("the reader bounds holes");
                            file.seek(SeekFrom::Current(length)).map_err(write)?;
                        }
                        Piece::End => break,
                    }
                }
                file.set_len(member.size).map_err(write)?;
                node::set(file.as_fd(), &attributes).map_err(fail("set the metadata of"))?;
                self.times.remove(path.as_bytes());
                return Ok(());
            }
            MemberKind::HardLink => {
                let target = root::locate(self.directory, &member.link, Last::Keep);
                let target = target.map_err(FileError::at("find the link target", &member.link))?;
                let Some(first) = target.name.as_deref() else {
                    return Err(CopyError::Member {
                        path: shown.into(),
                        what: "a hard link to a directory",
                    });
                };
                if target.path() == path {
                    return Ok(()); // a link to itself: removing it first would lose the file
                }
                replace(to, name, || {
                    rustix::fs::linkat(target.directory(), first, to, name, AtFlags::empty())
                })
                .map_err(fail("link"))?;
                return Ok(());
            }
            MemberKind::Symlink => Node::Symlink(&member.link),
            MemberKind::CharDevice if member.device == (0, 0) => {
                return Err(CopyError::WhiteoutDevice { path: shown.into() });
            }
            MemberKind::CharDevice => Node::CharDevice(member.device.0, member.device.1),
            MemberKind::BlockDevice => Node::BlockDevice(member.device.0, member.device.1),
            MemberKind::Fifo => Node::Fifo,
        };
        replace(to, name, || node::create_node(to, name, node)).map_err(fail("make"))?;
        let kind = if member.kind == MemberKind::Symlink {
            FileKind::Symlink
        } else {
            FileKind::Fifo
        };
        Ok(node::set_at(to, name, kind, &attributes).map_err(fail("set the metadata of"))?)
    }

    /// Where a member lies; none is the destination itself. Missing directories are made.
    fn place(&self, path: &[u8]) -> Result<Option<Located>, CopyError> {
        let ids = self.owner.unwrap_or((0, 0));
        let mut make = |parent: BorrowedFd<'_>, name: &[u8]| {
            node::create_directory_with(parent, name, 0o755, ids)
        };
        // Trailing slashes and dots go, so that the last component is the member's own name.
        let mut path = path;
        while let Some(rest) = path.strip_suffix(b"/").or_else(|| path.strip_suffix(b"/.")) {
            path = rest;
        }
        let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&b""[..], path),
        };
        if name.is_empty() || name == b"." {
            return Ok(None);
        }
        if name == b".." {
            return Err(CopyError::Member {
                path: path.into(),
                what: "a name that ends in `..`",
            });
        }
        let mut place = root::make_directories(self.directory, parent, &mut make)
            .map_err(FileError::at("make the directory of", path))?;
        place.name = Some(name.to_vec());
        Ok(Some(place))
    }

    fn finish(self) -> Result<(), CopyError> {
        for (path, mtime) in self.times {
            match root::open_beneath(self.directory, &path, super::copy::DIRECTORY) {
                Ok(directory) => metadata::set_time(&directory, mtime)
                    .map_err(FileError::at("set the time of", &path))?,
                // Replaced by a later member.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(FileError::at("open", &path)(errno).into()),
            }
        }
        Ok(())
    }
}

fn make_or_open(to: BorrowedFd<'_>, name: &[u8]) -> Result<std::os::fd::OwnedFd, Errno> {
    match node::create_directory(to, name) {
        Ok(()) | Err(Errno::EXIST) => node::open_directory(to, name),
        Err(errno) => Err(errno),
    }
}

/// Makes something in the place of whatever is there.
fn replace<T>(
    to: BorrowedFd<'_>,
    name: &[u8],
    mut make: impl FnMut() -> Result<T, Errno>,
) -> Result<T, Errno> {
    match make() {
        Err(Errno::EXIST) => node::remove_all(to, name).and_then(|()| make()),
        result => result,
    }
}
