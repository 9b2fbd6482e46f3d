//! Reads tars that nobody vouches for: v7, ustar, GNU (long names, sparse) and PAX (sparse 0.0, 0.1, 1.0).
//!
//! Every size is bounded before memory is taken for it, a PAX size always replaces the header's, and what is malformed
//! is an error, never skipped: a reader that disagrees with others about where an entry ends can be made to see files
//! that others don't (CVE-2025-62518). Nothing here touches the file system.

use std::io::{self, Read};

use crate::metadata::Time;

mod header;
mod pax;
mod sparse;

use header::RawHeader;
use sparse::Segment;

const BLOCK: usize = 512;
/// Longest path or link. The kernel takes 4096 a call; deeper trees are made step by step.
const MAX_NAME: u64 = 64 * 1024;
/// Longest extended header: Go's reader, which registries and engines use, takes no more either.
const MAX_EXTENDED: u64 = 1024 * 1024;

/// Why an archive can't be read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream failed: the file, or its compression.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// It ends inside an entry.
    #[error("the archive is cut off at byte {offset}")]
    Truncated {
        /// Of the uncompressed stream.
        offset: u64,
    },
    /// It is not a tar, or broken.
    #[error("the archive is malformed at byte {offset}: {what}")]
    Malformed {
        /// Of the uncompressed stream.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
}

/// The type of a [`Member`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemberKind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// One entry of an archive.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// As it is written there.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: MemberKind,
    /// Target of a link.
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    /// Size of a file with its holes.
    pub(crate) size: u64,
    pub(crate) device: (u32, u32),
    /// `SCHILY.xattr.` records.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Part of a file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// So many bytes were put into the buffer.
    Data(usize),
    /// So many zeros that are not stored.
    Hole(u64),
    /// That was all.
    End,
}

/// An archive that is being read.
#[derive(Debug)]
pub(crate) struct TarReader<R> {
    source: R,
    offset: u64,
    /// Stored bytes of the current file that were not read, and the padding after them.
    left: u64,
    padding: u64,
    /// Segments of the current file that were not read, and where in it we are.
    segments: std::collections::VecDeque<Segment>,
    position: u64,
    size: u64,
    is_finished: bool,
}

impl<R: Read> TarReader<R> {
    pub(crate) fn new(source: R) -> Self {
        Self {
            source,
            offset: 0,
            left: 0,
            padding: 0,
            segments: std::collections::VecDeque::new(),
            position: 0,
            size: 0,
            is_finished: false,
        }
    }

    /// The next entry; what was not read of the current one is skipped.
    pub(crate) fn next(&mut self) -> Result<Option<Member>, TarError> {
        let (mut long_name, mut long_link, mut pax) = (None, None, None);
        loop {
            self.skip(self.left + self.padding)?;
            (self.left, self.padding) = (0, 0);
            let has_extension = long_name.is_some() || long_link.is_some() || pax.is_some();
            let Some(header) = self.read_header()? else {
                return if has_extension {
                    Err(self.malformed("an extension without an entry"))
                } else {
                    Ok(None)
                };
            };
            match header.type_flag() {
                b'L' if pax.is_none() => long_name = Some(self.read_name(&header)?),
                b'K' if pax.is_none() => long_link = Some(self.read_name(&header)?),
                b'x' | b'X' => {
                    if pax.is_some() {
                        return Err(self.malformed("two PAX headers for one entry"));
                    }
                    let bytes = self.read_extended(&header, MAX_EXTENDED)?;
                    pax = Some(pax::Records::parse(&bytes).map_err(|what| self.malformed(what))?);
                }
                // Defaults for later entries: git writes its commit there. Go's reader applies none of it either.
                b'g' => drop(self.read_extended(&header, MAX_EXTENDED)?),
                b'V' => self.set_content(self.number(header.size())?),
                _ => {
                    return self
                        .member(&header, long_name, long_link, pax.unwrap_or_default())
                        .map(Some);
                }
            }
        }
    }

    /// Bytes of the current file's content that are stored and were not read yet: less than its size when it has holes.
    pub(crate) fn stored(&self) -> u64 {
        self.left
    }

    /// Reads on in the current file.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<Piece, TarError> {
        while self
            .segments
            .front()
            .is_some_and(|segment| segment.length == 0)
        {
            self.segments.pop_front();
        }
        let next = self
            .segments
            .front()
            .map_or(self.size, |segment| segment.offset);
        if self.position < next {
            let hole = next - self.position;
            self.position = next;
            return Ok(Piece::Hole(hole));
        }
        let Some(segment) = self.segments.front_mut() else {
            return Ok(Piece::End);
        };
        let wanted = usize::try_from(segment.length)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let length = self
            .source
            .read(&mut buffer[..wanted])
            .map_err(TarError::Read)?;
        if length == 0 {
            return Err(TarError::Truncated {
                offset: self.offset,
            });
        }
        segment.offset += length as u64;
        segment.length -= length as u64;
        self.position += length as u64;
        self.left -= length as u64;
        self.offset += length as u64;
        Ok(Piece::Data(length))
    }

    fn member(
        &mut self,
        header: &RawHeader,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
        mut pax: pax::Records,
    ) -> Result<Member, TarError> {
        let path = pax
            .sparse_name
            .take()
            .or_else(|| pax.path.take())
            .or(long_name)
            .unwrap_or_else(|| header.path());
        let kind = match header.type_flag() {
            0 | b'0' | b'7' if path.ends_with(b"/") => MemberKind::Directory,
            0 | b'0' | b'7' | b'S' => MemberKind::File,
            b'1' => MemberKind::HardLink,
            b'2' => MemberKind::Symlink,
            b'3' => MemberKind::CharDevice,
            b'4' => MemberKind::BlockDevice,
            b'5' => MemberKind::Directory,
            b'6' => MemberKind::Fifo,
            _ => return Err(self.malformed("an entry of unknown type")),
        };
        let link = pax
            .link
            .take()
            .or(long_link)
            .unwrap_or_else(|| header.link());
        if path.contains(&0)
            || link.contains(&0)
            || path.len() as u64 > MAX_NAME
            || link.len() as u64 > MAX_NAME
        {
            return Err(self.malformed("a name with a zero byte, or too long"));
        }
        let stored = match pax.size {
            Some(size) => size,
            None => self.number(header.size())?,
        };
        let id = |pax: Option<u64>, header: Option<i64>| {
            pax.or_else(|| header.and_then(|id| u64::try_from(id).ok()))
        };
        let uid = id(pax.uid, header.uid()).and_then(|id| u32::try_from(id).ok());
        let gid = id(pax.gid, header.gid()).and_then(|id| u32::try_from(id).ok());
        let (Some(uid), Some(gid)) = (uid, gid) else {
            return Err(self.malformed("a user or group id"));
        };
        let mtime = match (pax.mtime, header.mtime()) {
            (Some(time), _) => time,
            (None, Some(seconds)) => Time { seconds, nanos: 0 },
            (None, None) => return Err(self.malformed("a modification time")),
        };
        let mode = header.mode().ok_or_else(|| self.malformed("a mode"))?;
        let mut member = Member {
            path,
            kind,
            link,
            mode: u32::try_from(mode & 0o7777).expect("twelve bits"),
            uid,
            gid,
            mtime,
            size: 0,
            device: header.device(),
            xattrs: pax.xattrs.clone(),
        };
        if kind == MemberKind::File {
            member.size = self.start_file(header, stored, &pax)?;
        }
        Ok(member)
    }

    /// Sets what [`Self::read`] yields. Returns the file's size.
    fn start_file(
        &mut self,
        header: &RawHeader,
        stored: u64,
        pax: &pax::Records,
    ) -> Result<u64, TarError> {
        self.set_content(stored);
        let map = if header.type_flag() == b'S' {
            let mut blocks = Vec::new();
            let mut more = header.sparse_continues();
            while more {
                let mut block = [0; BLOCK];
                self.read_exact(&mut block)?;
                more = block[504] != 0;
                blocks.push(block);
                if blocks.len() > 4096 {
                    return Err(self.malformed("a sparse map that is too long"));
                }
            }
            Some(sparse::from_gnu_header(header, &blocks))
        } else if pax.is_sparse_1_0() {
            let segments = self.read_sparse_map()?;
            Some(sparse::with_size((segments, pax.sparse_size)))
        } else {
            pax.sparse_map()
        };
        let (segments, size) = match map {
            Some(map) => map.map_err(|what| self.malformed(what))?,
            None => (
                vec![Segment {
                    offset: 0,
                    length: stored,
                }],
                stored,
            ),
        };
        sparse::check(&segments, size, self.left).map_err(|what| self.malformed(what))?;
        (self.segments, self.position, self.size) = (segments.into(), 0, size);
        Ok(size)
    }

    /// The map that stands before the content of a PAX 1.0 sparse file: decimal lines, padded to whole blocks.
    fn read_sparse_map(&mut self) -> Result<Vec<Segment>, TarError> {
        let mut parser = sparse::MapParser::default();
        loop {
            let mut block = [0; BLOCK];
            if self.left < BLOCK as u64 {
                return Err(self.malformed("a sparse map that is cut off"));
            }
            self.read_exact(&mut block)?;
            self.left -= BLOCK as u64;
            if let Some(segments) = parser.block(&block).map_err(|what| self.malformed(what))? {
                return Ok(segments);
            }
        }
    }

    fn set_content(&mut self, stored: u64) {
        self.left = stored;
        self.padding = (BLOCK as u64 - stored % BLOCK as u64) % BLOCK as u64;
        self.segments.clear();
        (self.position, self.size) = (0, 0);
    }

    fn read_header(&mut self) -> Result<Option<RawHeader>, TarError> {
        self.segments.clear();
        if self.is_finished {
            return Ok(None);
        }
        let mut block = [0; BLOCK];
        if !self.read_block_or_end(&mut block)? || block == [0; BLOCK] {
            // Without end mark, or after one zero block: what follows is not part of the archive, but of the stream.
            self.is_finished = true;
            return Ok(None);
        }
        let header = RawHeader::new(&block);
        if header.is_intact() {
            Ok(Some(header))
        } else {
            Err(self.malformed("a header with a wrong checksum"))
        }
    }

    fn read_name(&mut self, header: &RawHeader) -> Result<Vec<u8>, TarError> {
        let mut name = self.read_extended(header, MAX_NAME)?;
        name.truncate(
            name.iter()
                .position(|byte| *byte == 0)
                .unwrap_or(name.len()),
        );
        Ok(name)
    }

    fn read_extended(&mut self, header: &RawHeader, limit: u64) -> Result<Vec<u8>, TarError> {
        let size = self.number(header.size())?;
        if size > limit {
            return Err(self.malformed("an extended header that is too long"));
        }
        self.set_content(size);
        let mut bytes = vec![0; usize::try_from(size).expect("was bounded above")];
        self.read_exact(&mut bytes)?;
        self.left = 0;
        Ok(bytes)
    }

    fn number(&self, number: Option<i64>) -> Result<u64, TarError> {
        number
            .and_then(|number| u64::try_from(number).ok())
            .ok_or_else(|| self.malformed("a size"))
    }

    fn malformed(&self, what: &'static str) -> TarError {
        TarError::Malformed {
            offset: self.offset,
            what,
        }
    }

    /// False at the clean end of the stream.
    fn read_block_or_end(&mut self, block: &mut [u8]) -> Result<bool, TarError> {
        let mut filled = 0;
        while filled < block.len() {
            match self.source.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => {
                    return Err(TarError::Truncated {
                        offset: self.offset,
                    });
                }
                Ok(length) => {
                    filled += length;
                    self.offset += length as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(TarError::Read(error)),
            }
        }
        Ok(true)
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), TarError> {
        if buffer.is_empty() || self.read_block_or_end(buffer)? {
            return Ok(());
        }
        Err(TarError::Truncated {
            offset: self.offset,
        })
    }

    fn skip(&mut self, mut count: u64) -> Result<(), TarError> {
        let mut buffer = [0; 16 * BLOCK];
        while count > 0 {
            let length = usize::try_from(count)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            self.read_exact(&mut buffer[..length])?;
            count -= length as u64;
        }
        Ok(())
    }
}
