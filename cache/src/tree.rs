//! Digests of what a step reads: the files a `COPY`, `ADD` or bind mount selects.
//!
//! ```text
//! leaf      = BLAKE3(length(path) path meaning)     meaning: kind mode uid gid xattrs, as in the entry table
//! selection = BLAKE3(leaf* count)                   in byte order of the paths
//! ```
//!
//! Paths are relative to what is copied, so that the same files at another place give the same digest. No time is
//! part of it.

use crate::digest::ContentDigest;
use crate::entry::{Entry, put_bytes, put_meaning};

/// BLAKE3 context of a leaf. Changing it changes every key of a step that reads files.
const LEAF_CONTEXT: &str = "rbuild 2026-11-23 selected entry v1";
/// BLAKE3 context of a selection; as above.
const SELECTION_CONTEXT: &str = "rbuild 2026-11-23 selection v1";

/// Why a selection has no digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SelectionError {
    /// The entries do not come in byte order, or one comes twice.
    #[error("entry `{}` of a selection comes after `{}`", path.escape_ascii(), previous.escape_ascii())]
    Order {
        /// The entry before.
        previous: Vec<u8>,
        /// The entry that should have come before it.
        path: Vec<u8>,
    },
}

/// Digests a selection entry by entry, in byte order of the paths.
#[derive(Clone, Debug)]
pub struct SelectionDigest {
    leaves: blake3::Hasher,
    count: u64,
    previous: Option<Vec<u8>>,
    /// Encoded entry; kept for its memory.
    buffer: Vec<u8>,
}

impl Default for SelectionDigest {
    fn default() -> Self {
        Self::new()
    }
}

impl SelectionDigest {
    /// Starts with an empty selection.
    pub fn new() -> Self {
        let leaves = blake3::Hasher::new_derive_key(SELECTION_CONTEXT);
        Self {
            leaves,
            count: 0,
            previous: None,
            buffer: Vec::new(),
        }
    }

    /// Adds an entry as its tree has it: what `--chown` and `--chmod` make of it is the instruction's part of the key.
    /// Its `mtime` is not looked at.
    pub fn add(&mut self, entry: &Entry) -> Result<&mut Self, SelectionError> {
        if let Some(previous) = self
            .previous
            .as_ref()
            .filter(|previous| **previous >= entry.path)
        {
            return Err(SelectionError::Order {
                previous: previous.clone(),
                path: entry.path.clone(),
            });
        }
        self.buffer.clear();
        put_bytes(&mut self.buffer, &entry.path);
        put_meaning(&mut self.buffer, entry);
        self.leaves
            .update(&blake3::derive_key(LEAF_CONTEXT, &self.buffer));
        self.count += 1;
        let mut path = self.previous.take().unwrap_or_default();
        path.clone_from(&entry.path);
        self.previous = Some(path);
        Ok(self)
    }

    /// Entries so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The digest of the entries so far.
    pub fn finish(&self) -> ContentDigest {
        let mut hasher = self.leaves.clone();
        hasher.update(&self.count.to_le_bytes());
        ContentDigest(*hasher.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::EntryKind;

    fn entry(path: &str, content: &[u8]) -> Entry {
        Entry {
            path: path.into(),
            kind: EntryKind::File {
                size: content.len() as u64,
                digest: ContentDigest::of_bytes(content),
            },
            mode: 0o644,
            uid: 0,
            gid: 0,
            xattrs: Vec::new(),
            mtime: (1, 1),
        }
    }

    fn digest(entries: &[Entry]) -> ContentDigest {
        let mut selection = SelectionDigest::new();
        for entry in entries {
            selection.add(entry).unwrap();
        }
        selection.finish()
    }

    #[test]
    fn selection_feels_everything_but_time() {
        let base = digest(&[entry("a", b"1"), entry("b", b"2")]);
        assert_eq!(
            digest(&[
                Entry {
                    mtime: (9, 9),
                    ..entry("a", b"1")
                },
                entry("b", b"2")
            ]),
            base
        );
        for (case, other) in [
            ("content", digest(&[entry("a", b"1"), entry("b", b"3")])),
            ("swapped", digest(&[entry("a", b"2"), entry("b", b"1")])),
            ("renamed", digest(&[entry("a", b"1"), entry("c", b"2")])),
            (
                "mode",
                digest(&[
                    entry("a", b"1"),
                    Entry {
                        mode: 0o755,
                        ..entry("b", b"2")
                    },
                ]),
            ),
            (
                "owner",
                digest(&[
                    entry("a", b"1"),
                    Entry {
                        uid: 1,
                        ..entry("b", b"2")
                    },
                ]),
            ),
            ("one less", digest(&[entry("a", b"1")])),
            ("none", digest(&[])),
        ] {
            assert_ne!(other, base, "{case}");
        }
    }

    #[test]
    fn entries_out_of_order_are_refused() {
        for (first, second) in [("b", "a"), ("a", "a"), ("a/b", "a.txt")] {
            let mut selection = SelectionDigest::new();
            selection.add(&entry(first, b"")).unwrap();
            let error = selection.add(&entry(second, b"")).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("entry `{second}` of a selection comes after `{first}`")
            );
        }
    }
}
