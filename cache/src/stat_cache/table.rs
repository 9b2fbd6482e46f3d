//! The file of the stat cache: see the module above for its layout.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::FileStat;
use super::clock::Now;
use crate::digest::ContentDigest;

/// First bytes; the last four are the version.
const MAGIC: &[u8; 8] = b"RBSC\x01\0\0\0";
/// Magic, saved, offset, boot.
const HEADER: usize = 8 + 12 + 8 + 16;
/// Bytes of one record.
const RECORD: usize = 24 + 12 + 12 + 4 + 4 + 32;
/// Bytes of the checksum.
const CHECKSUM: usize = 32;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    dev: u64,
    ino: u64,
    pub(super) size: u64,
    mtime: (i64, u32),
    ctime: (i64, u32),
    /// Saves since it was looked up.
    age: u32,
    pub(super) digest: ContentDigest,
}

impl Record {
    pub(super) fn new(stat: &FileStat, digest: ContentDigest) -> Self {
        Self {
            dev: stat.dev,
            ino: stat.ino,
            size: stat.size,
            mtime: stat.mtime,
            ctime: stat.ctime,
            age: 0,
            digest,
        }
    }

    /// True when the kernel says the same of the file as when it was hashed.
    pub(super) fn fits(&self, stat: &FileStat) -> bool {
        (self.dev, self.ino, self.size, self.mtime, self.ctime)
            == (stat.dev, stat.ino, stat.size, stat.mtime, stat.ctime)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        for number in [self.dev, self.ino, self.size] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for (seconds, nanos) in [self.mtime, self.ctime] {
            out.extend_from_slice(&seconds.to_le_bytes());
            out.extend_from_slice(&nanos.to_le_bytes());
        }
        out.extend_from_slice(&self.age.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(self.digest.as_bytes());
    }

    fn decode(bytes: &[u8; RECORD]) -> Self {
        Self {
            dev: u64::from_le_bytes(part(bytes, 0)),
            ino: u64::from_le_bytes(part(bytes, 8)),
            size: u64::from_le_bytes(part(bytes, 16)),
            mtime: (
                i64::from_le_bytes(part(bytes, 24)),
                u32::from_le_bytes(part(bytes, 32)),
            ),
            ctime: (
                i64::from_le_bytes(part(bytes, 36)),
                u32::from_le_bytes(part(bytes, 44)),
            ),
            age: u32::from_le_bytes(part(bytes, 48)),
            digest: ContentDigest(part(bytes, 56)),
        }
    }
}

/// `N` bytes at an offset that is known to be inside.
fn part<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&bytes[offset..offset + N]);
    part
}

/// A loaded file: its bytes, checked, and which records were looked up.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Header and records, or nothing.
    bytes: Vec<u8>,
    /// One bit a record.
    used: Vec<AtomicU64>,
}

impl Table {
    /// Reads a file; none when there is none or it is damaged.
    pub(super) fn load(path: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(path) {
            Ok(bytes) => Ok(Self::parse(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn parse(mut bytes: Vec<u8>) -> Option<Self> {
        let (body, checksum) = bytes.split_last_chunk::<CHECKSUM>()?;
        let records = body.len().checked_sub(HEADER)?;
        let is_whole = records % RECORD == 0 && body.starts_with(MAGIC);
        if !is_whole || blake3::hash(body).as_bytes() != checksum {
            return None;
        }
        bytes.truncate(HEADER + records);
        let used = std::iter::repeat_with(AtomicU64::default)
            .take((records / RECORD).div_ceil(64))
            .collect();
        Some(Self { bytes, used })
    }

    /// True when the clock has not been set back since the file was saved.
    pub(super) fn is_from_now(&self, now: &Now) -> bool {
        let saved = Now {
            seconds: i64::from_le_bytes(part(&self.bytes, 8)),
            nanos: u32::from_le_bytes(part(&self.bytes, 16)),
            offset: i64::from_le_bytes(part(&self.bytes, 20)),
            boot: part(&self.bytes, 28),
        };
        saved.is_before(now)
    }

    fn records(&self) -> &[[u8; RECORD]] {
        self.bytes.get(HEADER..).unwrap_or_default().as_chunks().0
    }

    /// Device and inode of a record, none beyond the last.
    fn key(&self, index: usize) -> Option<(u64, u64)> {
        let record = self.records().get(index)?;
        Some((
            u64::from_le_bytes(part(record, 0)),
            u64::from_le_bytes(part(record, 8)),
        ))
    }

    /// The index of an inode's record. Looks at `near` first, then twice as far away again and again: what lies close by is
    /// found in a step or two, anything in twice the steps of a binary search.
    pub(super) fn find(&self, dev: u64, ino: u64, near: usize) -> Option<usize> {
        let (wanted, count) = (Some((dev, ino)), self.records().len());
        let near = near.min(count.saturating_sub(1));
        if self.key(near) == wanted {
            return Some(near);
        }
        let mut reach = 1;
        // The wanted one, if there is one, lies in `low..high`.
        let (mut low, mut high);
        if self.key(near) < wanted {
            (low, high) = (near + 1, near + 1);
            while high < count && self.key(high) <= wanted {
                low = high;
                high = (near + reach).min(count);
                reach *= 2;
            }
            high = high.min(count);
        } else {
            (low, high) = (near, near);
            while low > 0 && self.key(low) > wanted {
                high = low;
                low = near.saturating_sub(reach);
                reach *= 2;
            }
        }
        while low < high {
            let middle = low.midpoint(high);
            match self.key(middle).cmp(&wanted) {
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// True when the kernel says the same of the file as when its record was made.
    pub(super) fn fits(&self, index: usize, stat: &FileStat) -> bool {
        self.record(index).fits(stat)
    }

    /// A record by its index.
    pub(super) fn record(&self, index: usize) -> Record {
        Record::decode(&self.records()[index])
    }

    /// Notes that a record was looked up.
    pub(super) fn mark_used(&self, index: usize) {
        let word = &self.used[index / 64];
        let bit = 1 << (index % 64);
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// The bytes of a file with `added` in place of older records of the same inodes, without those that nobody has
    /// looked up for `max_age` saves.
    pub(super) fn merge(
        &self,
        added: HashMap<(u64, u64), Record>,
        max_age: u32,
        now: &Now,
    ) -> Vec<u8> {
        let mut added: Vec<_> = added.into_values().collect();
        added.sort_unstable_by_key(|record| (record.dev, record.ino));
        let mut added = added.into_iter().peekable();
        let mut out =
            Vec::with_capacity(self.bytes.len() + HEADER + CHECKSUM + added.len() * RECORD);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&now.seconds.to_le_bytes());
        out.extend_from_slice(&now.nanos.to_le_bytes());
        out.extend_from_slice(&now.offset.to_le_bytes());
        out.extend_from_slice(&now.boot);
        for (index, record) in self.records().iter().enumerate() {
            let mut record = Record::decode(record);
            while let Some(next) =
                added.next_if(|next| (next.dev, next.ino) < (record.dev, record.ino))
            {
                next.encode(&mut out);
            }
            if added
                .peek()
                .is_some_and(|next| (next.dev, next.ino) == (record.dev, record.ino))
            {
                continue; // the new one follows in the next round
            }
            let is_used = self.used[index / 64].load(Ordering::Relaxed) & 1 << (index % 64) != 0;
            record.age = if is_used {
                0
            } else {
                record.age.saturating_add(1)
            };
            if record.age <= max_age {
                record.encode(&mut out);
            }
        }
        for record in added {
            record.encode(&mut out);
        }
        let checksum = blake3::hash(&out);
        out.extend_from_slice(checksum.as_bytes());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(ino: u64) -> FileStat {
        FileStat {
            dev: 7,
            ino,
            size: 3,
            mtime: (-5, 1),
            ctime: (10, 2),
        }
    }

    fn now(seconds: i64, offset: i64, boot: u8) -> Now {
        Now {
            seconds,
            nanos: 0,
            offset,
            boot: [boot; 16],
        }
    }

    fn table(inodes: &[u64], previous: &Table) -> Table {
        let added = inodes
            .iter()
            .map(|&ino| {
                (
                    (7, ino),
                    Record::new(&stat(ino), ContentDigest::of_bytes(&ino.to_le_bytes())),
                )
            })
            .collect();
        Table::parse(previous.merge(added, 1, &now(100, 100, 1))).unwrap()
    }

    fn inodes(table: &Table) -> Vec<u64> {
        table
            .records()
            .iter()
            .map(|record| Record::decode(record).ino)
            .collect()
    }

    #[test]
    fn records_are_merged_found_and_forgotten() {
        let first = table(&[5, 1, 9], &Table::default());
        assert_eq!(inodes(&first), [1, 5, 9]);
        let index = first.find(7, 5, 0).unwrap();
        assert_eq!(
            first.record(index),
            Record::new(&stat(5), ContentDigest::of_bytes(&5_u64.to_le_bytes()))
        );
        first.mark_used(index);
        let second = table(&[0, 6, 9, 12], &first);
        assert_eq!(inodes(&second), [0, 1, 5, 6, 9, 12]);
        let third = table(&[2], &second);
        assert_eq!(
            inodes(&third),
            [0, 2, 5, 6, 9, 12],
            "1 was not looked up in two saves"
        );
    }

    #[test]
    fn records_are_found_from_wherever_one_begins() {
        for count in [0, 1, 2, 3, 10, 33] {
            let present: Vec<u64> = (0..count).map(|number| 10 + number * 2).collect();
            let table = table(&present, &Table::default());
            for near in 0..present.len() + 2 {
                for ino in 8..14 + count * 2 {
                    let expected = present.binary_search(&ino).ok();
                    assert_eq!(
                        table.find(7, ino, near),
                        expected,
                        "{ino} of {count}, {near}"
                    );
                    assert_eq!(table.find(6, ino, near), None);
                    assert_eq!(table.find(8, ino, near), None);
                }
            }
        }
    }

    #[test]
    fn damaged_file_is_empty() {
        let bytes = Table::default().merge(HashMap::new(), 1, &now(0, 0, 0));
        assert!(Table::parse(bytes.clone()).is_some());
        for length in 0..bytes.len() {
            assert!(
                Table::parse(bytes[..length].to_vec()).is_none(),
                "cut to {length}"
            );
        }
        for index in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[index] ^= 1;
            assert!(Table::parse(flipped).is_none(), "flipped at {index}");
        }
    }

    #[test]
    fn clock_set_back_drops_the_file() {
        let second = 1_000_000_000;
        for (case, later, is_trusted) in [
            ("a moment later", now(100, 100, 1), true),
            ("much later", now(1_000_000, 100, 1), true),
            ("slewed a little", now(200, 100 - second / 10, 1), true),
            ("set forward", now(9_000, 9 * second, 1), true),
            ("before it was saved", now(99, 100, 1), false),
            (
                "set back since, but later by now",
                now(5_000, 100 - second, 1),
                false,
            ),
            ("another boot", now(5_000, 100 - second, 2), true),
            ("another boot with a clock set back", now(99, 100, 2), false),
        ] {
            assert_eq!(
                table(&[1], &Table::default()).is_from_now(&later),
                is_trusted,
                "{case}"
            );
        }
    }
}
