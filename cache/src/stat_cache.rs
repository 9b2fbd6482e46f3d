//! The stat cache: digests of files that the kernel says have not changed.
//!
//! One file a context root, read whole, replaced by rename; sorted records of a fixed size, so that nothing is
//! parsed and a look-up is a search in the bytes as they were read, which begins where the last one ended:
//!
//! ```text
//! statcache/<id>  = header record* checksum     <id> is BLAKE3 of the context root's path
//! header   = "RBSC" version:u32 saved:i64,u32 uptime-offset:i64 boot:[u8;16]
//! record   = dev:u64 ino:u64 size:u64 mtime:i64,u32 ctime:i64,u32 age:u32 padding:u32 digest:[u8;32]
//! checksum = BLAKE3(header record*)             all numbers little-endian
//! ```
//!
//! # When a record is trusted
//!
//! Only when device, inode, size, mtime and ctime are all equal, the file system is known to keep the promise below,
//! and the clock has not been set back since. A record is *made* only when the file's ctime is older than the start
//! of hashing by at least the file system's grain.
//!
//! The promise: every change of content, metadata or links sets ctime to the time of the change. A change after the
//! start of hashing then gets a ctime of at least that start (less the grain), which differs from the one recorded;
//! a change before it is in the bytes that were hashed. So a record with an equal ctime describes the same bytes.
//!
//! *By which clock:* the allowed file systems are all local, and take their times from this kernel's coarse
//! real-time clock (multigrain times of Linux 6.13 are never older than it). `CLOCK_REALTIME_COARSE` read in this
//! process therefore is the file system's own clock, also where the context is read-only and nothing can be
//! touched in it. File systems with somebody else's clock (NFS, 9p, virtiofs, FUSE, CIFS) are not on the list and are
//! always hashed.
//!
//! *Clock set back:* a later change could get an old ctime again. The header holds when the cache was saved, and the
//! distance between real time and uptime; when now is before the former, or in the same boot the latter has shrunk,
//! every record is dropped. A ctime in the future is younger than the start of hashing and so never recorded.
//!
//! Writes through a shared mapping that lives across a build are outside what the kernel reports.
//! So is the rest of a single `write` that began more than the grain before hashing did (ctime is set when it begins), and
//! a file system that somebody changed while it was not mounted, and gave the same times.

mod clock;
mod file_system;
mod table;

use std::collections::HashMap;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};

pub use clock::HashingStart;

use crate::digest::{ContentDigest, to_hex};
use crate::failpoint::reach;
use crate::store::{Store, StoreError};
use file_system::FileSystem;
use table::{Record, Table};

/// Saves that a record survives without being looked up. Contexts are built with several ignore files in turn.
const MAX_AGE: u32 = 16;

/// What the kernel says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStat {
    /// `st_dev`.
    pub dev: u64,
    /// `st_ino`.
    pub ino: u64,
    /// Size in bytes.
    pub size: u64,
    /// Modification time: seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Change time: seconds and nanoseconds.
    pub ctime: (i64, u32),
}

/// A record that [`StatCache::find`] found; of that cache only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordIndex(u32);

impl RecordIndex {
    /// As a number, for who keeps a million of them.
    pub fn to_number(self) -> u32 {
        self.0
    }

    /// What [`to_number`](Self::to_number) gave.
    pub fn from_number(number: u32) -> Self {
        Self(number)
    }
}

/// Where the last look-up ended: files of one directory have inodes that lie together, so the next is near.
#[derive(Clone, Copy, Debug, Default)]
pub struct Near {
    index: usize,
    /// A device whose file system is trusted.
    trusted: Option<u64>,
}

/// Why a stat cache could not be saved. Losing one costs time, never a wrong file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StatCacheError {
    /// Its file could not be written.
    #[error("cannot write the stat cache `{path}`")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no place to write it.
    #[error("cannot write a stat cache")]
    Lease {
        /// Why.
        #[source]
        source: Box<StoreError>,
    },
}

/// The digests known for one context root. Look-ups and additions may come from any thread.
#[derive(Debug)]
pub struct StatCache {
    store: Store,
    context_root: PathBuf,
    path: PathBuf,
    /// As it was loaded.
    table: Table,
    /// Added since, by device and inode.
    added: Mutex<HashMap<(u64, u64), Record>>,
    /// What the devices seen so far are.
    file_systems: RwLock<HashMap<u64, FileSystem>>,
}

impl StatCache {
    /// Loads the cache of a context root. One that is missing, damaged or not to be trusted any more is empty.
    pub fn load(store: &Store, context_root: &Path) -> Self {
        // `.` is another context in every directory. When the working directory is gone, so is the context.
        let context_root =
            std::path::absolute(context_root).unwrap_or_else(|_| context_root.to_owned());
        let name = to_hex(&blake3::hash(context_root.as_os_str().as_bytes()).as_bytes()[..20]);
        let path = store.inner.stat_caches.join(name);
        let table = match Table::load(&path) {
            Ok(Some(table)) if table.is_from_now(&clock::Now::read()) => table,
            Ok(_) => Table::default(),
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "stat cache not read");
                Table::default()
            }
        };
        Self {
            store: store.clone(),
            context_root,
            path,
            table,
            added: Mutex::default(),
            file_systems: RwLock::default(),
        }
    }

    /// Takes the time before files are opened; see the module.
    ///
    /// Call it before the file whose digest is to be remembered is opened.
    pub fn hashing_starts(&self) -> HashingStart {
        HashingStart::now()
    }

    /// The record of a file that has not changed since it was saved; none when there is none.
    ///
    /// `path` is absolute or relative to the context root; it is asked for the type of the file system of a device that was not
    /// seen before.
    pub fn find(&self, stat: &FileStat, path: &Path, near: &mut Near) -> Option<RecordIndex> {
        let index = self.table.find(stat.dev, stat.ino, near.index)?;
        near.index = index + 1;
        if !self.table.fits(index, stat) {
            return None;
        }
        if near.trusted != Some(stat.dev) {
            if !self.file_system(stat.dev, path).is_trusted() {
                return None;
            }
            near.trusted = Some(stat.dev);
        }
        self.table.mark_used(index);
        u32::try_from(index).ok().map(RecordIndex)
    }

    /// The digest that a record holds.
    pub fn digest_of(&self, record: RecordIndex) -> ContentDigest {
        self.table.record(record.0 as usize).digest
    }

    /// The size of the file that a record is of.
    pub fn size_of(&self, record: RecordIndex) -> u64 {
        self.table.record(record.0 as usize).size
    }

    /// The digest of a file that was remembered by this process, if it has not changed since: another name of it was hashed.
    pub fn added(&self, stat: &FileStat) -> Option<ContentDigest> {
        let added = self.added.lock().unwrap_or_else(PoisonError::into_inner);
        let record = added.get(&(stat.dev, stat.ino))?;
        record.fits(stat).then_some(record.digest)
    }

    /// The digest of a file that has not changed; none when it has to be hashed.
    pub fn digest(&self, stat: &FileStat, path: &Path) -> Option<ContentDigest> {
        let found = self.find(stat, path, &mut Near::default());
        found
            .map(|record| self.digest_of(record))
            .or_else(|| self.added(stat))
    }

    /// Remembers the digest of a file: `hashing` began before its bytes were read, and `stat` is of the very file that was
    /// read, not of what its path led to at another moment. `path` as in [`find`](Self::find).
    ///
    /// False when it cannot be trusted later, and so is not remembered.
    pub fn remember(
        &self,
        stat: &FileStat,
        path: &Path,
        hashing: HashingStart,
        digest: ContentDigest,
    ) -> bool {
        let Some(grain) = self.file_system(stat.dev, path).grain(stat.ctime) else {
            return false;
        };
        if !hashing.is_later_than(stat.ctime, grain) {
            return false;
        }
        let mut added = self.added.lock().unwrap_or_else(PoisonError::into_inner);
        added.insert((stat.dev, stat.ino), Record::new(stat, digest));
        true
    }

    /// Writes the cache, if something was added since it was loaded or saved. The newest of several processes wins.
    ///
    /// Not synced: the checksum tells a torn file, which then counts as missing.
    pub fn save(&self) -> Result<(), StatCacheError> {
        let added = {
            let mut added = self.added.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *added)
        };
        if added.is_empty() {
            return Ok(());
        }
        let bytes = self.table.merge(added, MAX_AGE, &clock::Now::read());
        // Written in a lease, so that what a crash leaves is cleaned up.
        let lease = self.store.lease().map_err(|source| StatCacheError::Lease {
            source: Box::new(source),
        })?;
        let temporary = lease
            .scratch("statcache")
            .map_err(|source| StatCacheError::Lease {
                source: Box::new(source.into()),
            })?
            .join("new");
        let failed = |source| StatCacheError::Write {
            path: self.path.clone(),
            source,
        };
        std::fs::write(&temporary, bytes).map_err(failed)?;
        reach("stat-cache-written");
        std::fs::rename(&temporary, &self.path).map_err(failed)?;
        reach("stat-cache-renamed");
        Ok(())
    }

    fn file_system(&self, dev: u64, path: &Path) -> FileSystem {
        let known = self
            .file_systems
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(&dev) {
            return *found;
        }
        drop(known);
        let found = FileSystem::of(&self.context_root.join(path), dev);
        if found.is_trusted() {
            let mut known = self
                .file_systems
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            known.insert(dev, found);
        }
        found
    }
}
