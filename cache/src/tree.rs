//! Digests of what a step reads: the files a `COPY`, `ADD` or bind mount selects.
//!
//! ```text
//! files       = BLAKE3((length(name) name meaning)*)              what is no directory
//! directories = BLAKE3((length(name) name meaning directory)*)
//! directory   = BLAKE3(files directories)                         the root of a selection is one
//! meaning     = kind mode uid gid xattrs                          as in the entry table
//! ```
//!
//! In byte order of the names. Paths begin at what is copied, so that the same files at another place give the same
//! digest. No time is part of it. Files and directories are apart so that the files of a directory can be digested
//! when it is listed, by whichever thread lists it.

use crate::digest::ContentDigest;
use crate::entry::{Entry, put_bytes, put_meaning};

/// BLAKE3 contexts. Changing one changes every key of a step that reads files.
const FILES_CONTEXT: &str = "rbuild 2026-11-23 selected files v2";
const DIRECTORIES_CONTEXT: &str = "rbuild 2026-11-23 selected directories v2";
const DIRECTORY_CONTEXT: &str = "rbuild 2026-11-23 selected directory v2";

/// Bytes that are digested at once: enough for all lanes of the CPU.
const BLOCK: usize = 16 * 1024;

/// Why a selection has no digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SelectionError {
    /// The names in a directory do not come in byte order, or one comes twice.
    #[error("entry `{}` of a selection comes after `{}`", name.escape_ascii(), previous.escape_ascii())]
    Order {
        /// The entry before.
        previous: Vec<u8>,
        /// The entry that should have come before it.
        name: Vec<u8>,
    },
}

/// Names with what they mean, in byte order.
#[derive(Clone, Debug)]
struct Names {
    hasher: blake3::Hasher,
    /// Not digested yet.
    bytes: Vec<u8>,
    previous: Option<Vec<u8>>,
}

impl Names {
    fn new(context: &str) -> Self {
        Self {
            hasher: blake3::Hasher::new_derive_key(context),
            bytes: Vec::new(),
            previous: None,
        }
    }

    fn add(&mut self, entry: &Entry) -> Result<(), SelectionError> {
        let name = &entry.path;
        if let Some(previous) = &mut self.previous {
            if *previous >= *name {
                return Err(SelectionError::Order {
                    previous: previous.clone(),
                    name: name.clone(),
                });
            }
            previous.clone_from(name);
        } else {
            self.previous = Some(name.clone());
        }
        if self.bytes.len() > BLOCK {
            self.hasher.update(&self.bytes);
            self.bytes.clear();
        }
        put_bytes(&mut self.bytes, name);
        put_meaning(&mut self.bytes, entry);
        Ok(())
    }

    fn finish(mut self) -> ContentDigest {
        self.hasher.update(&self.bytes);
        ContentDigest(*self.hasher.finalize().as_bytes())
    }
}

/// Digests the entries of one directory that are no directories, in byte order of their names.
#[derive(Clone, Debug)]
pub struct FilesDigest(Names);

impl Default for FilesDigest {
    fn default() -> Self {
        Self::new()
    }
}

impl FilesDigest {
    /// Starts with no files.
    pub fn new() -> Self {
        Self(Names::new(FILES_CONTEXT))
    }

    /// Adds an entry, whose path is its name, as its tree has it: what `--chown` and `--chmod` make of it is the
    /// instruction's part of the key. Its `mtime` is not looked at.
    pub fn add(&mut self, entry: &Entry) -> Result<(), SelectionError> {
        self.0.add(entry)
    }

    /// The digest of the entries.
    pub fn finish(self) -> ContentDigest {
        self.0.finish()
    }
}

/// Digests a selection, directory by directory, each directory's names in byte order.
#[derive(Debug)]
pub struct SelectionDigest {
    root: Level,
    /// From there down to the directory that is added to.
    below: Vec<Level>,
}

#[derive(Debug)]
struct Level {
    files: Files,
    directories: Names,
}

#[derive(Debug)]
enum Files {
    Added(Box<FilesDigest>),
    Digested(ContentDigest),
}

impl Level {
    fn new() -> Self {
        Self {
            files: Files::Added(Box::default()),
            directories: Names::new(DIRECTORIES_CONTEXT),
        }
    }

    fn finish(self) -> ContentDigest {
        let files = match self.files {
            Files::Added(files) => files.finish(),
            Files::Digested(digest) => digest,
        };
        let mut hasher = blake3::Hasher::new_derive_key(DIRECTORY_CONTEXT);
        hasher.update(files.as_bytes());
        hasher.update(self.directories.finish().as_bytes());
        ContentDigest(*hasher.finalize().as_bytes())
    }
}

impl Default for SelectionDigest {
    fn default() -> Self {
        Self::new()
    }
}

impl SelectionDigest {
    /// Starts in the root of an empty selection.
    pub fn new() -> Self {
        Self {
            root: Level::new(),
            below: Vec::new(),
        }
    }

    /// Adds an entry that is no directory; as [`FilesDigest::add`].
    pub fn add(&mut self, entry: &Entry) -> Result<(), SelectionError> {
        match &mut self.level().files {
            Files::Added(files) => files.add(entry),
            Files::Digested(_) => Err(SelectionError::Order {
                previous: Vec::new(),
                name: entry.path.clone(),
            }),
        }
    }

    /// Says what the digest of all entries is that are no directories, in place of adding them.
    pub fn set_files(&mut self, digest: ContentDigest) {
        self.level().files = Files::Digested(digest);
    }

    /// Adds a directory, whose path is its name, and goes into it.
    pub fn enter(&mut self, entry: &Entry) -> Result<(), SelectionError> {
        self.level().directories.add(entry)?;
        self.below.push(Level::new());
        Ok(())
    }

    /// Goes back to the directory above; in the root it does nothing.
    pub fn leave(&mut self) {
        if let Some(left) = self.below.pop() {
            let digest = left.finish();
            let bytes = &mut self.level().directories.bytes;
            bytes.extend_from_slice(digest.as_bytes());
        }
    }

    /// The digest of the whole selection.
    pub fn finish(mut self) -> ContentDigest {
        while !self.below.is_empty() {
            self.leave();
        }
        self.root.finish()
    }

    fn level(&mut self) -> &mut Level {
        self.below.last_mut().unwrap_or(&mut self.root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::EntryKind;

    fn file(name: &str, content: &[u8]) -> Entry {
        Entry {
            path: name.into(),
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

    fn directory(name: &str) -> Entry {
        Entry {
            kind: EntryKind::Directory { is_opaque: false },
            ..file(name, b"")
        }
    }

    /// In the order of a walk; [`up`] leaves a directory.
    fn digest(entries: &[Entry]) -> ContentDigest {
        let mut selection = SelectionDigest::new();
        for entry in entries {
            match entry.kind {
                EntryKind::Directory { .. } => selection.enter(entry).unwrap(),
                EntryKind::Whiteout => selection.leave(),
                _ => selection.add(entry).unwrap(),
            }
        }
        selection.finish()
    }

    /// Goes up.
    fn up() -> Entry {
        Entry {
            kind: EntryKind::Whiteout,
            ..file("", b"")
        }
    }

    #[test]
    fn selection_feels_everything_but_time() {
        let (a, b) = (file("a", b"1"), file("b", b"2"));
        let base = [a.clone(), directory("d"), b.clone()];
        let later = Entry {
            mtime: (9, 9),
            ..a.clone()
        };
        assert_eq!(
            digest(&[later, directory("d"), b.clone(), up()]),
            digest(&base)
        );
        let executable = Entry {
            mode: 0o755,
            ..b.clone()
        };
        let owned = Entry {
            uid: 1,
            ..b.clone()
        };
        let closed = Entry {
            mode: 0o700,
            ..directory("d")
        };
        let cases: Vec<(&str, Vec<Entry>)> = vec![
            ("base", base.to_vec()),
            ("none", vec![]),
            ("content", vec![a.clone(), directory("d"), file("b", b"3")]),
            (
                "swapped",
                vec![file("a", b"2"), directory("d"), file("b", b"1")],
            ),
            ("renamed", vec![a.clone(), directory("d"), file("c", b"2")]),
            (
                "renamed directory",
                vec![a.clone(), directory("e"), b.clone()],
            ),
            ("mode", vec![a.clone(), directory("d"), executable]),
            ("owner", vec![a.clone(), directory("d"), owned]),
            ("directory's mode", vec![a.clone(), closed, b.clone()]),
            ("moved up", vec![a.clone(), directory("d"), up(), b.clone()]),
            ("moved down", vec![directory("d"), a.clone(), b.clone()]),
            (
                "deeper",
                vec![a.clone(), directory("d"), directory("d"), b.clone()],
            ),
            (
                "another directory",
                vec![a.clone(), directory("d"), b.clone(), up(), directory("e")],
            ),
            (
                "one inside",
                vec![a.clone(), directory("d"), b, directory("e")],
            ),
            ("no file in it", vec![a.clone(), directory("d")]),
            ("no directory", vec![a]),
        ];
        for (index, (case, entries)) in cases.iter().enumerate() {
            for (other, others) in &cases[..index] {
                assert_ne!(digest(entries), digest(others), "{case}, {other}");
            }
        }
    }

    #[test]
    fn files_can_be_digested_elsewhere() {
        let names: Vec<String> = (0..2_000).map(|number| format!("{number:04}")).collect();
        let mut files = FilesDigest::new();
        let mut one_by_one = SelectionDigest::new();
        for name in &names {
            files.add(&file(name, name.as_bytes())).unwrap();
            one_by_one.add(&file(name, name.as_bytes())).unwrap();
        }
        let mut at_once = SelectionDigest::new();
        at_once.set_files(files.finish());
        for selection in [&mut one_by_one, &mut at_once] {
            selection.enter(&directory("0000")).unwrap();
            selection.leave();
        }
        assert_eq!(at_once.finish(), one_by_one.finish());
    }

    #[test]
    fn entries_out_of_order_are_refused() {
        for (first, second) in [("b", "a"), ("a", "a")] {
            let words = format!("entry `{second}` of a selection comes after `{first}`");
            let mut selection = SelectionDigest::new();
            selection.add(&file(first, b"")).unwrap();
            let error = selection.add(&file(second, b"")).unwrap_err();
            assert_eq!(error.to_string(), words);
            selection.enter(&directory(first)).unwrap();
            selection.leave();
            let error = selection.enter(&directory(second)).unwrap_err();
            assert_eq!(error.to_string(), words);
        }
    }
}
