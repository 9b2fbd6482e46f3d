//! A build context on this machine, seen through its ignore file.
//!
//! Directories are read when they are first asked for and remembered for the build, so that a context is looked at
//! once however many steps copy from it, and parts that no step copies are never looked at. File contents are
//! hashed only when the stat cache can't vouch for them.

mod found;

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rbuild_cache::{ContentDigest, FileStat, FilesDigest, Near, StatCache};
use rbuild_frontend::ignore_file::{IgnoreMatcher, Verdict};
use rbuild_frontend::pattern::ParentMatch;
use rbuild_runner::root::{self, FileError};
use rbuild_runner::walk::{self, DirectoryReader};
use rbuild_runner::{FileKind, Metadata};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::{Listing, SourceTree, TreeEntry, TreeEntryKind, TreeError, display, join};
use crate::convert;
use found::{Content, Directory, DirectoryBuilder, Unknown};

/// How often a file that is written to meanwhile is hashed, in the hope of a quiet moment.
const HASHING_ATTEMPTS: u32 = 3;

/// A directory of this machine as a source of files.
#[derive(Debug)]
pub(crate) struct DirectoryTree {
    path: PathBuf,
    root: OwnedFd,
    ignore: IgnoreMatcher,
    title: String,
    /// Directories that were read, by path. Held for single look-ups and insertions only, and so is `readers`.
    directories: Mutex<HashMap<Vec<u8>, Arc<Directory>>>,
    /// Readers that nobody is reading with.
    readers: Mutex<Vec<DirectoryReader>>,
    /// None with `--no-stat-cache`.
    stat_cache: Option<StatCache>,
}

impl DirectoryTree {
    /// Opens a context's root. `title` is what messages call it.
    pub(crate) fn open(
        path: &Path,
        ignore: IgnoreMatcher,
        title: String,
        stat_cache: Option<StatCache>,
    ) -> Result<Self, TreeError> {
        // The runner copies from this path later, in a process that has a working directory of its own.
        let path = std::path::absolute(path).map_err(|source| TreeError::Read {
            path: path.display().to_string(),
            source,
        })?;
        let root = root::open_root(&path).map_err(failed)?;
        Ok(Self {
            path,
            root,
            ignore,
            title,
            directories: Mutex::default(),
            readers: Mutex::default(),
            stat_cache,
        })
    }

    /// Path of the root on this machine, absolute.
    pub(crate) fn root(&self) -> &Path {
        &self.path
    }

    /// The ignore patterns in force.
    pub(crate) fn ignore(&self) -> &IgnoreMatcher {
        &self.ignore
    }

    /// Whether the path exists on the host, ignored or not.
    pub(crate) fn exists_on_host(&self, path: &[u8]) -> bool {
        root::metadata(self.root.as_fd(), path).is_ok()
    }

    /// Keeps the digests for the next build, if something new was learnt.
    pub(crate) fn save_stat_cache(&self) -> Result<(), rbuild_cache::StatCacheError> {
        self.stat_cache.as_ref().map_or(Ok(()), StatCache::save)
    }

    fn load(&self, path: &[u8]) -> Result<Arc<Directory>, TreeError> {
        if let Some(known) = lock(&self.directories).get(path) {
            return Ok(Arc::clone(known));
        }
        let below = if path.is_empty() {
            Some(ParentMatch::default())
        } else {
            let (parent, name) = split(path);
            let parent = self.load(parent)?;
            let index = parent.position(name);
            index.and_then(|index| parent.match_below(index))
        };
        let directory = match below {
            Some(below) => Arc::new(self.read(path, &below)?),
            None => Arc::default(),
        };
        // Another thread may have been faster: one directory is listed once in a build.
        let mut directories = lock(&self.directories);
        let directory = directories.entry(path.to_vec()).or_insert(directory);
        Ok(Arc::clone(directory))
    }

    fn read(&self, path: &[u8], parent: &ParentMatch) -> Result<Directory, TreeError> {
        let mut listed = DirectoryBuilder::default();
        let mut undecided: Vec<(Vec<u8>, ParentMatch)> = Vec::new();
        let mut near = Near::default();
        let mut reader = lock(&self.readers).pop().unwrap_or_default();
        let read = reader.read(self.root.as_fd(), path, |entry| {
            let is_directory = entry.metadata.kind == FileKind::Directory;
            // Most contexts have no ignore file, and asking for each file costs as much as looking at it.
            let mut below = None;
            if !self.ignore.is_empty() {
                let (verdict, match_below) = self.ignore.judge(entry.path(), parent);
                match verdict {
                    Verdict::Kept => {}
                    Verdict::Ignored {
                        may_keep_below: true,
                    } if is_directory => {
                        undecided.push((entry.name().to_vec(), match_below.clone()));
                    }
                    Verdict::Ignored { .. } => return Ok(()),
                }
                below = Some(match_below);
            }
            self.take(&mut listed, entry, below, &mut near)
        });
        lock(&self.readers).push(reader);
        read?;
        // Each stays only if something below it does.
        for (name, below) in undecided {
            let child = join(path, &name);
            let directory = Arc::new(self.read(&child, &below)?);
            if directory.is_empty() {
                listed.hide(name);
            }
            lock(&self.directories).entry(child).or_insert(directory);
        }
        Ok(listed.finish())
    }

    /// Adds what was listed.
    fn take(
        &self,
        listed: &mut DirectoryBuilder,
        entry: &walk::Entry<'_>,
        below: Option<ParentMatch>,
        near: &mut Near,
    ) -> Result<(), TreeError> {
        let metadata = &entry.metadata;
        let content = match metadata.kind {
            FileKind::File => {
                let stat = file_stat(metadata);
                let cache = self.stat_cache.as_ref();
                match cache.and_then(|cache| cache.find(&stat, host_path(entry.path()), near)) {
                    Some(record) => Content::Known(record),
                    None => Content::Unknown(stat),
                }
            }
            FileKind::Directory => Content::Directory(below),
            FileKind::Symlink => Content::Symlink(entry.read_link().map_err(failed)?),
            FileKind::CharDevice => Content::CharDevice(metadata.numbers),
            FileKind::BlockDevice => Content::BlockDevice(metadata.numbers),
            FileKind::Fifo => Content::Fifo,
            FileKind::Socket => Content::Socket,
        };
        listed
            .add(entry.name(), metadata.mode, content)
            .map_err(|errno| TreeError::Read {
                path: display(entry.path()),
                source: errno.into(),
            })
    }

    /// Everything about an entry of a directory.
    fn tree_entry(&self, directory: &Directory, index: usize) -> TreeEntry {
        let kind = directory.kind(index, |record| {
            let cache = self.stat_cache.as_ref();
            cache.map_or(0, |cache| cache.size_of(record))
        });
        entry_of(kind, directory.mode(index))
    }

    /// Digest of the file at `index` of the directory `parent`; none when it is no file.
    fn content_in(
        &self,
        parent: &[u8],
        directory: &Directory,
        index: usize,
    ) -> Result<Option<ContentDigest>, TreeError> {
        if let Some(record) = directory.record(index) {
            let cache = self.stat_cache.as_ref();
            return Ok(cache.map(|cache| cache.digest_of(record)));
        }
        let Some(unknown) = directory.unknown(index) else {
            return Ok(None);
        };
        if let Some(known) = unknown.digest.get() {
            return Ok(Some(*known));
        }
        self.find_out(&join(parent, directory.name(index)), unknown)
            .map(Some)
    }

    /// Hashes a file that the stat cache did not know.
    fn find_out(&self, path: &[u8], unknown: &Unknown) -> Result<ContentDigest, TreeError> {
        let digest = match &self.stat_cache {
            Some(cache) => {
                if let Some(digest) = cache.added(&unknown.stat) {
                    digest
                } else {
                    let hashing = cache.hashing_starts();
                    let (digest, hashed) = self.hash(path)?;
                    // A directory above may have been replaced since it was listed: then this is another file's digest,
                    // while the listed one, unchanged, may come back.
                    if hashed.as_ref() == Some(&unknown.stat) {
                        cache.remember(&unknown.stat, host_path(path), hashing, digest);
                    }
                    digest
                }
            }
            None => self.hash(path)?.0,
        };
        // Another thread may have been faster: one file has one digest in a build.
        Ok(*unknown.digest.get_or_init(|| digest))
    }

    /// Digests the entries of a directory that are no directories, all of them, hashing what has to be.
    fn digest_files(&self, path: &[u8], directory: &Directory) -> Result<ContentDigest, TreeError> {
        let mut files = FilesDigest::new();
        for index in (0..directory.count()).filter(|&index| !directory.is_directory(index)) {
            let digest = self.content_in(path, directory, index)?;
            let entry = self.tree_entry(directory, index);
            let entry = convert::selection_entry(directory.name(index), entry, digest);
            files
                .add(&entry)
                .expect("names of a directory are distinct, and sorted by who listed them");
        }
        Ok(files.finish())
    }

    /// Hashes the file that the path leads to by now. With it what the kernel says of that file, if it said the same
    /// before and after.
    fn hash(&self, path: &[u8]) -> Result<(ContentDigest, Option<FileStat>), TreeError> {
        // Not blocking: a fifo in the file's place would wait for its writer.
        const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);
        let read = |source| TreeError::Read {
            path: display(path),
            source,
        };
        let file = root::open_no_follow(self.root.as_fd(), path, FLAGS).map_err(failed)?;
        let file = File::from(file);
        let stat = |file: &File| Metadata::of_fd(file).map_err(|errno| read(errno.into()));
        let mut before = stat(&file)?;
        if before.kind != FileKind::File {
            return Err(read(Errno::STALE.into()));
        }
        let mut attempt = 0;
        loop {
            let (digest, _) = ContentDigest::of_file(&file).map_err(read)?;
            let after = stat(&file)?;
            if after == before {
                return Ok((digest, Some(file_stat(&before))));
            }
            attempt += 1;
            if attempt == HASHING_ATTEMPTS {
                // Whoever copies it sees to it that no mixture is copied, or refuses.
                return Ok((digest, None));
            }
            before = after;
        }
    }
}

impl SourceTree for DirectoryTree {
    fn entry(&self, path: &[u8]) -> Result<Option<TreeEntry>, TreeError> {
        if path.is_empty() {
            let metadata = root::metadata(self.root.as_fd(), b"").map_err(failed)?;
            return Ok(Some(entry_of(TreeEntryKind::Directory, metadata.mode)));
        }
        let (parent, name) = split(path);
        let parent = self.load(parent)?;
        let index = parent.position(name);
        Ok(index.map(|index| self.tree_entry(&parent, index)))
    }

    fn list(&self, directory: &[u8]) -> Result<Box<dyn Listing + '_>, TreeError> {
        Ok(Box::new(Listed {
            tree: self,
            path: directory.to_vec(),
            directory: self.load(directory)?,
        }))
    }

    fn content(&self, path: &[u8]) -> Result<ContentDigest, TreeError> {
        let (parent, name) = split(path);
        let directory = self.load(parent)?;
        let known = match directory.position(name) {
            Some(index) => self.content_in(parent, &directory, index)?,
            None => None,
        };
        known.map_or_else(|| Ok(self.hash(path)?.0), Ok)
    }

    fn read_ahead(&self, directory: &[u8]) {
        super::read_ahead::read_ahead(directory, |path| {
            // What can't be read is told by the walk that comes after.
            let Ok(directory) = self.load(path) else {
                return Vec::new();
            };
            if let Ok(digest) = self.digest_files(path, &directory) {
                let _ = directory.files.set(digest); // the same from whichever thread
            }
            (0..directory.count())
                .filter(|&index| directory.is_directory(index))
                .map(|index| join(path, directory.name(index)))
                .collect()
        });
    }

    fn title(&self) -> String {
        self.title.clone()
    }
}

/// A directory of a [`DirectoryTree`].
struct Listed<'tree> {
    tree: &'tree DirectoryTree,
    path: Vec<u8>,
    directory: Arc<Directory>,
}

impl Listing for Listed<'_> {
    fn count(&self) -> usize {
        self.directory.count()
    }

    fn name(&self, index: usize) -> &[u8] {
        self.directory.name(index)
    }

    fn is_directory(&self, index: usize) -> bool {
        self.directory.is_directory(index)
    }

    fn entry(&self, index: usize) -> TreeEntry {
        self.tree.tree_entry(&self.directory, index)
    }

    fn content(&self, index: usize) -> Result<ContentDigest, TreeError> {
        let digest = self.tree.content_in(&self.path, &self.directory, index)?;
        digest.map_or_else(
            || self.tree.content(&join(&self.path, self.name(index))),
            Ok,
        )
    }

    fn files_digest(&self) -> Option<ContentDigest> {
        self.directory.files.get().copied()
    }
}

/// Whoever owns a context's files on this machine, in an image they are root's; and attributes stay behind.
fn entry_of(kind: TreeEntryKind, mode: u32) -> TreeEntry {
    TreeEntry {
        kind,
        mode,
        uid: 0,
        gid: 0,
        xattrs: Vec::new(),
    }
}

/// Directory and name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

fn host_path(path: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(path))
}

fn file_stat(metadata: &Metadata) -> FileStat {
    FileStat {
        dev: metadata.device,
        ino: metadata.inode,
        size: metadata.size,
        mtime: (metadata.mtime.seconds, metadata.mtime.nanos),
        ctime: (metadata.ctime.seconds, metadata.ctime.nanos),
    }
}

fn failed(error: FileError) -> TreeError {
    TreeError::File(error)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A panic while one of these was held leaves it complete: they only ever grow.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use rbuild_cache::Store;

    use super::*;

    fn open(store: &Store, context: &Path) -> DirectoryTree {
        let cache = StatCache::load(store, context);
        DirectoryTree::open(
            context,
            IgnoreMatcher::default(),
            "test".into(),
            Some(cache),
        )
        .unwrap()
    }

    /// `mv` leaves the files below a directory as they are: their ctime does not tell that another file was hashed.
    #[test]
    fn a_directory_swapped_between_listing_and_hashing_is_not_remembered() {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(&place.path().join("store")).unwrap();
        let context = place.path().join("context");
        for (directory, content) in [("a", "one"), ("b", "two")] {
            std::fs::create_dir_all(context.join(directory)).unwrap();
            std::fs::write(context.join(directory).join("f"), content).unwrap();
        }
        // Until a file is as old as the stat cache wants it to be.
        let written = Instant::now();
        while written.elapsed() < Duration::from_millis(40) {
            std::thread::yield_now();
        }
        let swap = || {
            for (from, to) in [("a", "c"), ("b", "a"), ("c", "b")] {
                std::fs::rename(context.join(from), context.join(to)).unwrap();
            }
        };
        let tree = open(&store, &context);
        tree.list(b"a").unwrap();
        swap();
        assert_eq!(
            tree.content(b"a/f").unwrap(),
            ContentDigest::of_bytes(b"two")
        );
        tree.save_stat_cache().unwrap();
        swap();
        let tree = open(&store, &context);
        assert_eq!(
            tree.content(b"a/f").unwrap(),
            ContentDigest::of_bytes(b"one")
        );
    }

    #[test]
    fn a_fifo_in_a_file_s_place_does_not_block() {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(&place.path().join("store")).unwrap();
        let context = place.path().join("context");
        std::fs::create_dir(&context).unwrap();
        std::fs::write(context.join("f"), "").unwrap();
        let tree = open(&store, &context);
        tree.list(b"").unwrap();
        std::fs::remove_file(context.join("f")).unwrap();
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, context.join("f"), mode).unwrap();
        assert!(tree.content(b"f").is_err());
    }
}
