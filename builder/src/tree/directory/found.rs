//! What was found in a directory, in few bytes: a context may have a million files.
//!
//! A file that the stat cache knows takes its name and 12 bytes; what it is, the stat cache's record says.

use std::sync::OnceLock;

use rbuild_cache::{ContentDigest, FileStat, RecordIndex};
use rbuild_frontend::pattern::ParentMatch;
use rustix::io::Errno;

use crate::tree::TreeEntryKind;

/// What a directory holds, as far as it is not hidden, in byte order of the names.
#[derive(Debug, Default)]
pub(super) struct Directory {
    /// One after another.
    names: Box<[u8]>,
    entries: Box<[Found]>,
    unknown: Box<[Unknown]>,
    others: Box<[Other]>,
    /// Digest of all that is no directory, once it was made.
    pub(super) files: OnceLock<ContentDigest>,
}

/// A file whose content the stat cache did not know.
#[derive(Debug)]
pub(super) struct Unknown {
    /// What it was when it was listed.
    pub(super) stat: FileStat,
    /// Once it was hashed.
    pub(super) digest: OnceLock<ContentDigest>,
}

#[derive(Clone, Copy, Debug)]
struct Found {
    /// Where its name ends.
    end: u32,
    /// Number of the stat cache's record, or index in `unknown` or in `others`.
    detail: u32,
    mode: u16,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Known,
    Unknown,
    /// `detail` is nothing.
    Directory,
    /// Where there is an ignore file.
    JudgedDirectory,
    Symlink,
    CharDevice,
    BlockDevice,
    Fifo,
    Socket,
}

/// What few entries have.
#[derive(Debug)]
enum Other {
    /// Of a directory: what its entries need to know of the patterns.
    Below(ParentMatch),
    Target(Vec<u8>),
    Numbers(u32, u32),
}

/// An entry, as it is added.
#[derive(Debug)]
pub(super) enum Content {
    /// A file that the stat cache knows.
    Known(RecordIndex),
    /// One that it does not.
    Unknown(FileStat),
    /// With what the ignore patterns said of it, where there are any.
    Directory(Option<ParentMatch>),
    Symlink(Vec<u8>),
    CharDevice((u32, u32)),
    BlockDevice((u32, u32)),
    Fifo,
    Socket,
}

impl Directory {
    pub(super) fn count(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn name(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1);
        let start = start.map_or(0, |before| self.entries[before].end as usize);
        &self.names[start..self.entries[index].end as usize]
    }

    /// The index of a name.
    pub(super) fn position(&self, name: &[u8]) -> Option<usize> {
        let (mut low, mut high) = (0, self.count());
        while low < high {
            let middle = low.midpoint(high);
            match self.name(middle).cmp(name) {
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    pub(super) fn is_directory(&self, index: usize) -> bool {
        let kind = self.entries[index].kind;
        matches!(kind, Kind::Directory | Kind::JudgedDirectory)
    }

    pub(super) fn mode(&self, index: usize) -> u32 {
        self.entries[index].mode.into()
    }

    /// The stat cache's record of a file.
    pub(super) fn record(&self, index: usize) -> Option<RecordIndex> {
        let found = self.entries[index];
        (found.kind == Kind::Known).then(|| RecordIndex::from_number(found.detail))
    }

    /// A file that the stat cache did not know.
    pub(super) fn unknown(&self, index: usize) -> Option<&Unknown> {
        let found = self.entries[index];
        (found.kind == Kind::Unknown).then(|| &self.unknown[found.detail as usize])
    }

    /// What entries of a directory need to know of the patterns; none when it is no directory.
    pub(super) fn match_below(&self, index: usize) -> Option<ParentMatch> {
        match (self.entries[index].kind, self.other(index)) {
            (Kind::Directory, _) => Some(ParentMatch::default()),
            (Kind::JudgedDirectory, Some(Other::Below(below))) => Some(below.clone()),
            _ => None,
        }
    }

    fn other(&self, index: usize) -> Option<&Other> {
        self.others.get(self.entries[index].detail as usize)
    }

    /// The type; `size_of` tells the size of a file by the stat cache's record.
    pub(super) fn kind(
        &self,
        index: usize,
        size_of: impl FnOnce(RecordIndex) -> u64,
    ) -> TreeEntryKind {
        let found = self.entries[index];
        let numbers = || match self.other(index) {
            Some(Other::Numbers(major, minor)) => (*major, *minor),
            _ => (0, 0),
        };
        match found.kind {
            Kind::Known => TreeEntryKind::File(size_of(RecordIndex::from_number(found.detail))),
            Kind::Unknown => TreeEntryKind::File(self.unknown[found.detail as usize].stat.size),
            Kind::Directory | Kind::JudgedDirectory => TreeEntryKind::Directory,
            Kind::Symlink => TreeEntryKind::Symlink(match self.other(index) {
                Some(Other::Target(target)) => target.clone(),
                _ => Vec::new(),
            }),
            Kind::CharDevice => {
                let (major, minor) = numbers();
                TreeEntryKind::CharDevice(major, minor)
            }
            Kind::BlockDevice => {
                let (major, minor) = numbers();
                TreeEntryKind::BlockDevice(major, minor)
            }
            Kind::Fifo => TreeEntryKind::Fifo,
            Kind::Socket => TreeEntryKind::Socket,
        }
    }
}

/// A [`Directory`] that is being listed.
#[derive(Debug, Default)]
pub(super) struct DirectoryBuilder {
    names: Vec<u8>,
    entries: Vec<Found>,
    unknown: Vec<Unknown>,
    others: Vec<Other>,
    /// Names that turned out not to count, in byte order.
    hidden: Vec<Vec<u8>>,
}

impl DirectoryBuilder {
    /// Adds an entry; its name comes after those before. `EFBIG` when the names are 4 GiB.
    pub(super) fn add(&mut self, name: &[u8], mode: u32, content: Content) -> Result<(), Errno> {
        let (kind, detail) = match content {
            Content::Known(record) => (Kind::Known, record.to_number()),
            Content::Unknown(stat) => {
                let digest = OnceLock::new();
                let detail = push(&mut self.unknown, Unknown { stat, digest })?;
                (Kind::Unknown, detail)
            }
            Content::Directory(None) => (Kind::Directory, 0),
            Content::Directory(Some(below)) => {
                let detail = push(&mut self.others, Other::Below(below))?;
                (Kind::JudgedDirectory, detail)
            }
            Content::Symlink(target) => {
                let detail = push(&mut self.others, Other::Target(target))?;
                (Kind::Symlink, detail)
            }
            Content::CharDevice((major, minor)) => {
                let detail = push(&mut self.others, Other::Numbers(major, minor))?;
                (Kind::CharDevice, detail)
            }
            Content::BlockDevice((major, minor)) => {
                let detail = push(&mut self.others, Other::Numbers(major, minor))?;
                (Kind::BlockDevice, detail)
            }
            Content::Fifo => (Kind::Fifo, 0),
            Content::Socket => (Kind::Socket, 0),
        };
        self.names.extend_from_slice(name);
        self.entries.push(Found {
            end: u32::try_from(self.names.len()).map_err(|_| Errno::FBIG)?,
            detail,
            // Twelve bits.
            mode: u16::try_from(mode).map_err(|_| Errno::INVAL)?,
            kind,
        });
        Ok(())
    }

    /// Takes a name back; they come in byte order too.
    pub(super) fn hide(&mut self, name: Vec<u8>) {
        self.hidden.push(name);
    }

    pub(super) fn finish(mut self) -> Directory {
        if !self.hidden.is_empty() {
            self.drop_hidden();
        }
        Directory {
            names: self.names.into(),
            entries: self.entries.into(),
            unknown: self.unknown.into(),
            others: self.others.into(),
            files: OnceLock::new(),
        }
    }

    fn drop_hidden(&mut self) {
        let names = std::mem::take(&mut self.names);
        let mut hidden = self.hidden.iter().peekable();
        let mut start = 0;
        let kept = &mut self.names;
        self.entries.retain_mut(|found| {
            let name = &names[start..found.end as usize];
            start = found.end as usize;
            if hidden.next_if(|hidden| hidden.as_slice() == name).is_some() {
                return false;
            }
            kept.extend_from_slice(name);
            // Never longer than it was.
            found.end = u32::try_from(kept.len()).unwrap_or(u32::MAX);
            true
        });
    }
}

/// The index of what is added.
fn push<T>(all: &mut Vec<T>, one: T) -> Result<u32, Errno> {
    let index = u32::try_from(all.len()).map_err(|_| Errno::FBIG)?;
    all.push(one);
    Ok(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(size: u64) -> FileStat {
        FileStat {
            dev: 1,
            ino: 2,
            size,
            mtime: (3, 4),
            ctime: (5, 6),
        }
    }

    fn sample() -> DirectoryBuilder {
        let mut listed = DirectoryBuilder::default();
        let target = b"to".to_vec();
        for (name, content) in [
            ("a", Content::Known(RecordIndex::from_number(7))),
            ("b", Content::Directory(None)),
            ("bb", Content::Symlink(target)),
            ("c", Content::Unknown(stat(9))),
            ("d", Content::Directory(Some(ParentMatch::default()))),
            ("e", Content::CharDevice((1, 3))),
            ("f", Content::Fifo),
        ] {
            listed.add(name.as_bytes(), 0o755, content).unwrap();
        }
        listed
    }

    fn shown(directory: &Directory) -> Vec<(String, TreeEntryKind)> {
        (0..directory.count())
            .map(|index| {
                let name = String::from_utf8_lossy(directory.name(index)).into_owned();
                assert_eq!(directory.position(name.as_bytes()), Some(index));
                assert_eq!(directory.mode(index), 0o755);
                let kind = directory.kind(index, |record| record.to_number().into());
                (name, kind)
            })
            .collect()
    }

    #[test]
    fn entries_come_back() {
        let directory = sample().finish();
        let expected = [
            ("a", TreeEntryKind::File(7)),
            ("b", TreeEntryKind::Directory),
            ("bb", TreeEntryKind::Symlink(b"to".to_vec())),
            ("c", TreeEntryKind::File(9)),
            ("d", TreeEntryKind::Directory),
            ("e", TreeEntryKind::CharDevice(1, 3)),
            ("f", TreeEntryKind::Fifo),
        ];
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(name, kind)| (name.to_owned(), kind))
            .collect();
        assert_eq!(shown(&directory), expected);
        assert_eq!(directory.position(b""), None);
        assert_eq!(directory.position(b"ba"), None);
        let unknown = directory.unknown(3).map(|unknown| unknown.stat);
        assert_eq!(unknown, Some(stat(9)));
        let judged: Vec<bool> = (0..directory.count())
            .map(|index| directory.match_below(index).is_some())
            .collect();
        assert_eq!(judged, [false, true, false, false, true, false, false]);
    }

    #[test]
    fn hidden_entries_are_gone() {
        for hidden in [
            &["a"][..],
            &["f"],
            &["b", "bb", "d"],
            &["a", "b", "bb", "c", "d", "e", "f"],
        ] {
            let mut listed = sample();
            for name in hidden {
                listed.hide(name.as_bytes().to_vec());
            }
            let mut expected = shown(&sample().finish());
            expected.retain(|(name, _)| !hidden.contains(&name.as_str()));
            assert_eq!(shown(&listed.finish()), expected, "{hidden:?}");
        }
    }

    #[test]
    fn a_known_file_takes_twelve_bytes() {
        assert_eq!(size_of::<Found>(), 12);
    }
}
