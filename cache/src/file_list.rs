//! Lists of the files that steps read, kept so that it can be told which of them changed.
//!
//! A list belongs to the digest that a selection has in a step's key, so equal selections share one. It is there to be
//! compared by name and never decides anything: contents and attributes are shortened to 8 bytes of their digest.
//!
//! ```text
//! list  = zstd("RBF1" count item*)
//! item  = kept suffix kind:u8 mode uid gid content:[u8;8] attributes
//! ```
//! `content` is of the bytes, the target or the device numbers, absent for a directory or fifo; `attributes` is 0, or 1
//! and 8 bytes of the digest of the xattrs. Numbers and `kept` as in the entry table.

use crate::db::DbError;
use crate::digest::ContentDigest;
use crate::entry::{Entry, EntryKind, put_bytes, put_number};
use crate::store::Store;

/// First bytes of an uncompressed list.
const MAGIC: &[u8; 4] = b"RBF1";

/// Level of compression. Half of a list are digests, which no level makes smaller.
const LEVEL: i32 = 1;

/// Largest uncompressed list that is read: several million files.
const MAX_BYTES: usize = 1 << 30;

/// What kind of thing a listed path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListedKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A device, fifo or anything else.
    Special,
}

/// One path that a step read, as far as it is told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedFile {
    /// Relative to what was selected; empty for a lone file.
    pub path: Vec<u8>,
    /// Type.
    pub kind: ListedKind,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Of the content, link target or device numbers.
    pub content: [u8; 8],
    /// Of the extended attributes; none without any.
    pub attributes: Option<[u8; 8]>,
}

impl ListedFile {
    fn of(entry: &Entry) -> Self {
        let device = |major: u32, minor: u32| [major.to_le_bytes(), minor.to_le_bytes()].concat();
        let (kind, content) = match &entry.kind {
            EntryKind::Directory { .. } => (ListedKind::Directory, [0; 8]),
            EntryKind::File { digest, .. } => (ListedKind::File, shorten(digest)),
            EntryKind::Symlink { target } => (ListedKind::Symlink, digest_of(target)),
            EntryKind::HardLink { target } => (ListedKind::Special, digest_of(target)),
            EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor } => {
                (ListedKind::Special, digest_of(&device(*major, *minor)))
            }
            EntryKind::Fifo | EntryKind::Whiteout => (ListedKind::Special, [0; 8]),
        };
        let attributes = (!entry.xattrs.is_empty()).then(|| {
            let mut bytes = Vec::new();
            for (name, value) in &entry.xattrs {
                put_bytes(&mut bytes, name);
                put_bytes(&mut bytes, value);
            }
            digest_of(&bytes)
        });
        Self {
            path: entry.path.clone(),
            kind,
            mode: entry.mode,
            owner: (entry.uid, entry.gid),
            content,
            attributes,
        }
    }
}

fn digest_of(bytes: &[u8]) -> [u8; 8] {
    shorten(&ContentDigest::of_bytes(bytes))
}

fn shorten(digest: &ContentDigest) -> [u8; 8] {
    let mut short = [0; 8];
    short.copy_from_slice(&digest.0[..8]);
    short
}

impl Store {
    /// True when lists are kept under all these digests.
    pub fn has_file_lists(&self, digests: &[ContentDigest]) -> Result<bool, DbError> {
        if digests.is_empty() {
            return Ok(true);
        }
        self.inner.db.read(|tables| {
            for digest in digests {
                if !tables.has_file_list(&digest.to_string())? {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    /// Keeps a list of entries under a digest that stands for them.
    pub fn put_file_list(&self, digest: &ContentDigest, entries: &[Entry]) -> Result<(), DbError> {
        let list = encode(entries.iter().map(ListedFile::of));
        let name = digest.to_string();
        self.inner
            .db
            .write(|tables| tables.put_file_list(&name, &list))
    }

    /// The list of a selection; none when it is not kept (any more), or is damaged: it only explains.
    pub fn file_list(&self, digest: &ContentDigest) -> Result<Option<Vec<ListedFile>>, DbError> {
        let name = digest.to_string();
        let list = self.inner.db.read(|tables| tables.file_list(&name))?;
        Ok(list.and_then(|list| decode(&list)))
    }
}

fn encode(files: impl Iterator<Item = ListedFile>) -> Vec<u8> {
    let mut body = Vec::new();
    let mut count: u64 = 0;
    let mut before: Vec<u8> = Vec::new();
    for file in files {
        let kept = before
            .iter()
            .zip(&file.path)
            .take_while(|(left, right)| left == right)
            .count();
        put_number(&mut body, kept as u64);
        put_bytes(&mut body, &file.path[kept..]);
        body.push(match file.kind {
            ListedKind::Directory => 0,
            ListedKind::File => 1,
            ListedKind::Symlink => 2,
            ListedKind::Special => 3,
        });
        for number in [file.mode, file.owner.0, file.owner.1] {
            put_number(&mut body, u64::from(number));
        }
        if !matches!(file.kind, ListedKind::Directory) {
            body.extend_from_slice(&file.content);
        }
        match file.attributes {
            None => body.push(0),
            Some(attributes) => {
                body.push(1);
                body.extend_from_slice(&attributes);
            }
        }
        count += 1;
        before = file.path;
    }
    let mut list = MAGIC.to_vec();
    put_number(&mut list, count);
    list.extend_from_slice(&body);
    crate::history::compress(&list, LEVEL)
}

fn decode(list: &[u8]) -> Option<Vec<ListedFile>> {
    let bytes = crate::history::decompress(list, MAX_BYTES)?;
    let mut reader = Reader(bytes.strip_prefix(MAGIC.as_slice())?);
    let count = reader.number()?;
    let mut files: Vec<ListedFile> = Vec::new();
    for _ in 0..count {
        let kept = usize::try_from(reader.number()?).ok()?;
        let mut path = match files.last() {
            Some(before) => before.path.get(..kept)?.to_vec(),
            None if kept == 0 => Vec::new(),
            None => return None,
        };
        let length = usize::try_from(reader.number()?).ok()?;
        path.extend_from_slice(reader.take(length)?);
        let kind = match reader.take(1)?[0] {
            0 => ListedKind::Directory,
            1 => ListedKind::File,
            2 => ListedKind::Symlink,
            3 => ListedKind::Special,
            _ => return None,
        };
        let mut small = || u32::try_from(reader.number()?).ok();
        let (mode, owner) = (small()?, (small()?, small()?));
        let content = match kind {
            ListedKind::Directory => [0; 8],
            _ => reader.take(8)?.try_into().ok()?,
        };
        let attributes = match reader.take(1)?[0] {
            0 => None,
            _ => Some(reader.take(8)?.try_into().ok()?),
        };
        files.push(ListedFile {
            path,
            kind,
            mode,
            owner,
            content,
            attributes,
        });
    }
    reader.0.is_empty().then_some(files)
}

/// What is left of a list.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, content: u8) -> ListedFile {
        ListedFile {
            path: path.into(),
            kind: ListedKind::File,
            mode: 0o644,
            owner: (0, 1000),
            content: [content; 8],
            attributes: None,
        }
    }

    #[test]
    fn a_list_comes_back_as_it_was() {
        let files = vec![
            ListedFile {
                kind: ListedKind::Directory,
                content: [0; 8],
                ..file("a", 0)
            },
            file("a/b.txt", 1),
            ListedFile {
                attributes: Some([7; 8]),
                ..file("a/bc", 2)
            },
            ListedFile {
                kind: ListedKind::Symlink,
                ..file("z", 3)
            },
        ];
        assert_eq!(decode(&encode(files.clone().into_iter())), Some(files));
        assert_eq!(decode(&encode(std::iter::empty())), Some(Vec::new()));
    }

    #[test]
    fn what_is_no_list_is_none() {
        let whole = encode([file("a", 1)].into_iter());
        for cut in 0..whole.len() {
            assert_eq!(decode(&whole[..cut]), None, "{cut}");
        }
        for bytes in [
            &b"RBF1"[..],
            b"RBF1\x01",
            b"RBF1\x01\x05a",
            b"RBF1\x00rest",
            b"XXXX\x00",
        ] {
            let list = zstd::bulk::compress(bytes, 1).unwrap();
            assert_eq!(decode(&list), None, "{bytes:?}");
        }
    }
}
