//! A build context on this machine, seen through its ignore file.
//!
//! Directories are read when they are first asked for and remembered for the build, so that a context is looked at
//! once however many steps copy from it, and parts that no step copies are never looked at. File contents are
//! hashed only when the stat cache can't vouch for them.

use std::collections::HashMap;
use std::fs::File;
use std::io::Seek as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use rbuild_cache::{ContentDigest, FileStat, StatCache};
use rbuild_frontend::ignore_file::{IgnoreMatcher, Verdict};
use rbuild_frontend::pattern::ParentMatch;
use rbuild_runner::root::{self, FileError};
use rbuild_runner::walk;
use rbuild_runner::{FileKind, Metadata};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::{SourceTree, TreeEntry, TreeEntryKind, TreeError, display, join};

/// How often a file that is written to meanwhile is hashed, in the hope of a quiet moment.
const HASHING_ATTEMPTS: u32 = 3;

/// A directory of this machine as a source of files.
#[derive(Debug)]
pub(crate) struct DirectoryTree {
    path: PathBuf,
    root: OwnedFd,
    ignore: IgnoreMatcher,
    title: String,
    /// Directories that were read, by path.
    directories: Mutex<HashMap<Vec<u8>, Arc<Directory>>>,
    /// None with `--no-stat-cache`, and once it was saved.
    stat_cache: RwLock<Option<StatCache>>,
}

/// What a directory holds, as far as it is not hidden. There may be a million of these entries.
#[derive(Debug, Default)]
struct Directory {
    /// In byte order.
    names: Arc<[Vec<u8>]>,
    /// In the same order.
    entries: Box<[Found]>,
}

impl Directory {
    fn get(&self, name: &[u8]) -> Option<&Found> {
        let index = self
            .names
            .binary_search_by(|known| known.as_slice().cmp(name))
            .ok()?;
        Some(&self.entries[index])
    }
}

#[derive(Debug)]
struct Found {
    metadata: Metadata,
    /// Text of a symlink.
    target: Option<Box<[u8]>>,
    /// For a directory: what its entries need to know of the patterns.
    below: Option<Box<ParentMatch>>,
    /// Digest of a file's content, once it was asked for.
    digest: OnceLock<ContentDigest>,
}

impl Found {
    fn is_directory(&self) -> bool {
        self.metadata.kind == FileKind::Directory
    }
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
            stat_cache: RwLock::new(stat_cache),
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
        let cache = self
            .stat_cache
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        cache.map_or(Ok(()), StatCache::save)
    }

    fn load(&self, path: &[u8]) -> Result<Arc<Directory>, TreeError> {
        if let Some(known) = lock(&self.directories).get(path) {
            return Ok(Arc::clone(known));
        }
        let below = match path.iter().rposition(|&byte| byte == b'/') {
            _ if path.is_empty() => Some(ParentMatch::default()),
            Some(slash) => self.parent_match(&path[..slash], &path[slash + 1..])?,
            None => self.parent_match(b"", path)?,
        };
        let directory = match below {
            Some(below) => Arc::new(self.read(path, &below)?),
            None => Arc::default(),
        };
        lock(&self.directories).insert(path.to_vec(), Arc::clone(&directory));
        Ok(directory)
    }

    fn parent_match(&self, parent: &[u8], name: &[u8]) -> Result<Option<ParentMatch>, TreeError> {
        let parent = self.load(parent)?;
        let below = parent.get(name).and_then(|found| found.below.as_deref());
        Ok(below.cloned())
    }

    fn read(&self, path: &[u8], parent: &ParentMatch) -> Result<Directory, TreeError> {
        let (mut names, mut entries) = (Vec::new(), Vec::new());
        for listed in walk::list_directory(self.root.as_fd(), path).map_err(failed)? {
            let child = join(path, &listed.name);
            let (verdict, below) = self.ignore.judge(&child, parent);
            let is_directory = listed.metadata.kind == FileKind::Directory;
            match verdict {
                Verdict::Kept => {}
                Verdict::Ignored {
                    may_keep_below: true,
                } if is_directory => {
                    // It stays only if something below it does.
                    let directory = Arc::new(self.read(&child, &below)?);
                    let is_empty = directory.entries.is_empty();
                    lock(&self.directories).insert(child.clone(), directory);
                    if is_empty {
                        continue;
                    }
                }
                Verdict::Ignored { .. } => continue,
            }
            let target = match listed.metadata.kind {
                FileKind::Symlink => {
                    let text = root::read_link(self.root.as_fd(), &child).map_err(failed)?;
                    Some(text.into_boxed_slice())
                }
                _ => None,
            };
            names.push(listed.name);
            entries.push(Found {
                metadata: listed.metadata,
                target,
                below: is_directory.then(|| Box::new(below)),
                digest: OnceLock::new(),
            });
        }
        Ok(Directory {
            names: names.into(),
            entries: entries.into(),
        })
    }

    /// Calls `use_it` with the entry at a path, if there is one.
    fn found<T>(
        &self,
        path: &[u8],
        use_it: impl FnOnce(&Found) -> T,
    ) -> Result<Option<T>, TreeError> {
        let (parent, name) = match path.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&path[..0], path),
        };
        Ok(self.load(parent)?.get(name).map(use_it))
    }

    /// Digest of the file `found` at `path`.
    fn content_of(&self, path: &[u8], found: &Found) -> Result<ContentDigest, TreeError> {
        if let Some(known) = found.digest.get() {
            return Ok(*known);
        }
        let cache = self
            .stat_cache
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let digest = match &*cache {
            Some(cache) => {
                let stat = file_stat(path, &found.metadata);
                if let Some(digest) = cache.digest(&stat) {
                    digest
                } else {
                    let hashing = cache.hashing_starts();
                    let (digest, hashed) = self.hash(path)?;
                    // A directory above may have been replaced since it was listed: then this is another file's digest,
                    // while the listed one, unchanged, may come back.
                    if hashed.as_ref() == Some(&stat) {
                        cache.remember(&stat, hashing, digest);
                    }
                    digest
                }
            }
            None => self.hash(path)?.0,
        };
        // Another thread may have been faster: one file has one digest in a build.
        Ok(*found.digest.get_or_init(|| digest))
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
        let mut file = File::from(file);
        let stat = |file: &File| Metadata::of_fd(file).map_err(|errno| read(errno.into()));
        let mut before = stat(&file)?;
        if before.kind != FileKind::File {
            return Err(read(Errno::STALE.into()));
        }
        let mut attempt = 0;
        loop {
            let (digest, _) = ContentDigest::of_reader(&file).map_err(read)?;
            let after = stat(&file)?;
            if after == before {
                return Ok((digest, Some(file_stat(path, &before))));
            }
            attempt += 1;
            if attempt == HASHING_ATTEMPTS {
                // Whoever copies it sees to it that no mixture is copied, or refuses.
                return Ok((digest, None));
            }
            before = after;
            file.rewind().map_err(read)?;
        }
    }
}

impl SourceTree for DirectoryTree {
    fn entry(&self, path: &[u8]) -> Result<Option<TreeEntry>, TreeError> {
        if path.is_empty() {
            let metadata = root::metadata(self.root.as_fd(), b"").map_err(failed)?;
            return Ok(Some(tree_entry(&metadata, None)));
        }
        self.found(path, |found| {
            tree_entry(&found.metadata, found.target.as_deref())
        })
    }

    fn names(&self, directory: &[u8]) -> Result<Arc<[Vec<u8>]>, TreeError> {
        Ok(Arc::clone(&self.load(directory)?.names))
    }

    fn content(&self, path: &[u8]) -> Result<ContentDigest, TreeError> {
        match self.found(path, |found| self.content_of(path, found))? {
            Some(digest) => digest,
            None => Ok(self.hash(path)?.0),
        }
    }

    fn read_ahead(&self, directory: &[u8]) {
        super::read_ahead::read_ahead(directory, |path| {
            // What can't be read is told by the walk that comes after.
            let Ok(directory) = self.load(path) else {
                return Vec::new();
            };
            let mut below = Vec::new();
            for (name, found) in directory.names.iter().zip(&directory.entries) {
                if found.is_directory() {
                    below.push(join(path, name));
                } else if found.metadata.kind == FileKind::File {
                    let _ = self.content_of(&join(path, name), found); // as above
                }
            }
            below
        });
    }

    fn title(&self) -> String {
        self.title.clone()
    }
}

fn tree_entry(metadata: &Metadata, target: Option<&[u8]>) -> TreeEntry {
    let (major, minor) = metadata.numbers;
    let kind = match metadata.kind {
        FileKind::Directory => TreeEntryKind::Directory,
        FileKind::File => TreeEntryKind::File(metadata.size),
        FileKind::Symlink => TreeEntryKind::Symlink(target.unwrap_or_default().to_vec()),
        FileKind::CharDevice => TreeEntryKind::CharDevice(major, minor),
        FileKind::BlockDevice => TreeEntryKind::BlockDevice(major, minor),
        FileKind::Fifo => TreeEntryKind::Fifo,
        FileKind::Socket => TreeEntryKind::Socket,
    };
    // Whoever owns a context's files on this machine, in an image they are root's; and attributes stay behind.
    TreeEntry {
        kind,
        mode: metadata.mode,
        uid: 0,
        gid: 0,
        xattrs: Vec::new(),
    }
}

fn file_stat(path: &[u8], metadata: &Metadata) -> FileStat {
    FileStat {
        path: PathBuf::from(std::ffi::OsStr::from_bytes(path)),
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
    // A panic while one of these maps was held leaves it complete: they only ever grow.
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
        tree.names(b"a").unwrap();
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
        tree.names(b"").unwrap();
        std::fs::remove_file(context.join("f")).unwrap();
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, context.join("f"), mode).unwrap();
        assert!(tree.content(b"f").is_err());
    }
}
