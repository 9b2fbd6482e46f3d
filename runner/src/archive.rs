//! `ADD` of an archive: recognised by its content, unpacked into a directory that is its root.
//!
//! `..`, absolute names and links that climb stay inside that directory. What is in the way of a member is removed,
//! except a directory in the way of a directory. Of extended attributes only `security.capability` is taken, as by the
//! reference: others in an archive are its maker's, not the image's.
//!
//! An archive is bounded by what a machine can stand, not by what it says of itself: [`MAX_MEMBERS`] and [`MAX_CONTENT`].

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
use crate::tar_reader::{Member, MemberKind, Piece, TarError, TarReader};
use crate::xattr::Xattr;

const BUFFER: usize = 256 * 1024;

/// Size of a tar header.
const HEADER: u64 = 512;

/// Members of one archive. Each costs an inode, and a directory some memory; the largest source trees have a million.
pub const MAX_MEMBERS: u64 = 16_000_000;

/// Bytes of all files of one archive, holes included: more than any build context, less than what a few kilobytes of
/// compressed zeros can claim.
pub const MAX_CONTENT: u64 = 256 << 30;

/// Bytes from the beginning of a file that [`identify`] should be given: a PAX header may stand before the first member.
pub const START: usize = 64 * 1024;

/// What a file is, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A tar without compression; an empty one is nothing but zeros.
    Tar,
    /// Compressed with gzip, bzip2, xz or zstd; what is in it is not known yet.
    Compressed,
    /// Something else.
    Other,
}

/// Says what a file is that begins with `start`. Names and media types are not asked.
pub fn identify(start: &[u8]) -> Content {
    if decompress::Format::of(start) != decompress::Format::Plain {
        return Content::Compressed;
    }
    match TarReader::new(start).next() {
        Ok(Some(_)) => Content::Tar,
        Ok(None) if !start.is_empty() => Content::Tar,
        // The first header is good, and what follows it lies beyond the bytes at hand.
        Err(TarError::Truncated { offset }) if offset >= HEADER => Content::Tar,
        _ => Content::Other,
    }
}

/// Whether the file holds a tar, compressed or not; its position is at the beginning afterwards.
pub fn holds_tar(file: &mut File) -> Result<bool, Errno> {
    is_archive(file)
}

/// The newest modification time of a regular file in an archive, in seconds since the epoch; none for what is no archive,
/// or a broken one.
pub fn newest_file(file: &File) -> Option<i64> {
    let reader = decompress::reader(BufReader::with_capacity(BUFFER, file)).ok()?;
    let mut tar = TarReader::new(reader);
    let mut newest = None;
    for _ in 0..MAX_MEMBERS {
        let Some(member) = tar.next().ok()? else {
            return newest;
        };
        if member.kind == MemberKind::File {
            newest = newest.max(Some(member.mtime.seconds));
        }
    }
    None
}

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
        let reader = decompress::reader(source).map_err(|error| archive(TarError::Read(error)))?;
        let mut tar = TarReader::new(reader);
        let mut extraction = Extraction {
            directory,
            owner,
            times: HashMap::new(),
            buffer: vec![0; BUFFER],
        };
        let mut room = Room::default();
        while let Some(member) = tar.next().map_err(archive)? {
            room.take(&member, path)?;
            extraction.member(&member, &mut tar, archive)?;
        }
        extraction.finish()?;
    }
    // What comes after the archive's end is part of the file.
    let mut buffer = vec![0; BUFFER];
    while hashed.read(&mut buffer).map_err(read)? > 0 {}
    Ok(*hashed.hasher.finalize().as_bytes())
}

/// What an archive may still hold.
struct Room {
    members: u64,
    content: u64,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            members: MAX_MEMBERS,
            content: MAX_CONTENT,
        }
    }
}

impl Room {
    fn take(&mut self, member: &Member, path: &[u8]) -> Result<(), CopyError> {
        let size = match member.kind {
            MemberKind::File => member.size,
            _ => 0,
        };
        let too_large = || CopyError::ArchiveTooLarge { path: path.into() };
        self.members = self.members.checked_sub(1).ok_or_else(too_large)?;
        self.content = self.content.checked_sub(size).ok_or_else(too_large)?;
        Ok(())
    }
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
        archive: impl Fn(TarError) -> CopyError,
    ) -> Result<(), CopyError> {
        let shown = member.path.as_slice();
        let (uid, gid) = self.owner.unwrap_or((member.uid, member.gid));
        // As the reference: nothing else gets into its layers, whatever the archive says.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn tar(name: &str) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(3);
        builder.append_data(&mut header, name, &b"abc"[..]).unwrap();
        builder.into_inner().unwrap()
    }

    #[test]
    fn files_are_told_by_their_beginning() {
        let whole = tar("Dockerfile");
        for (what, start, expected) in [
            ("a tar", whole.as_slice(), Content::Tar),
            ("its first header alone", &whole[..512], Content::Tar),
            ("an empty tar", &[0; 1024], Content::Tar),
            ("a cut header", &whole[..511], Content::Other),
            ("gzip", &[0x1f, 0x8b, 8, 0], Content::Compressed),
            ("xz", b"\xfd7zXZ\0", Content::Compressed),
            ("bzip2", b"BZh9", Content::Compressed),
            ("zstd", &[0x28, 0xb5, 0x2f, 0xfd], Content::Compressed),
            ("a Dockerfile", b"FROM scratch\n", Content::Other),
            ("nothing", b"", Content::Other),
        ] {
            assert_eq!(identify(start), expected, "{what}");
        }
    }

    #[test]
    fn an_archive_has_room_for_so_much() {
        let mut reader = TarReader::new(&tar("f")[..]).next().unwrap().unwrap();
        let mut room = Room {
            members: 2,
            content: 5,
        };
        assert!(room.take(&reader, b"a").is_ok());
        assert!(room.take(&reader, b"a").is_err(), "too much content");
        reader.size = 0;
        let mut room = Room {
            members: 1,
            content: 0,
        };
        assert!(room.take(&reader, b"a").is_ok());
        assert!(room.take(&reader, b"a").is_err(), "too many members");
    }
}
