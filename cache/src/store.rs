//! The store: one directory, shared by any number of processes.
//!
//! ```text
//! ROOT/
//!   VERSION             format version; written last when a store is made
//!   blobs/sha256/<hex>  see `blob`
//!   snapshots/<id>/     see `layer`
//!   mounts/<id>/        see `cache_mount`
//!   statcache/<id>      see `stat_cache`
//!   work/<lease>/       see `lease`
//!   kept/<step>/        see `kept`
//!   logs/               see `step_log`
//!   locks/              step-<key>, gc, and those of cache mounts
//!   db.sqlite           see `db`
//! ```
//!
//! Crash behaviour: a killed process leaves a dead lease and nothing else; the next [`Store::open`] removes it. After
//! a power cut, rows listed as unsynced by another boot are dropped with their files, because their data may not
//! have reached the disk. All else was synced before it was struck off that list.
//!
//! Opening an existing store writes nothing unless there is something to clean up.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::db::{Db, DbError, Unsynced};
use crate::failpoint::reach;
use crate::history::LayerLoss;
use crate::kept::KEPT;
use crate::layer_memo::EntryMemo;
use crate::lease::{Lease, LeaseError, clean_dead};
use crate::lock::remove_dead;
use crate::open::{OpenLock, open_or_create};
use crate::record::STEP_LOCK;
use crate::remove::{RemoveTree, RemoveTreeHere};

/// File name of the database.
pub(crate) const DATABASE: &str = "db.sqlite";

/// Why a store could not be opened or synced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// It was made by a newer rbuild.
    #[error(
        "store `{root}` has format {found}, this rbuild knows formats up to {known}: use a newer rbuild or another --root"
    )]
    Newer {
        /// The store.
        root: PathBuf,
        /// Its format.
        found: u32,
        /// [`FORMAT_VERSION`](crate::FORMAT_VERSION).
        known: u32,
    },
    /// It is being repaired or brought to this format, or an older rbuild keeps that from being done.
    #[error("store `{root}` is in use: {reason}; try again when that is done")]
    Busy {
        /// The store.
        root: PathBuf,
        /// By whom.
        reason: &'static str,
    },
    /// Its version file says nothing.
    #[error("store version file `{path}` is damaged: it holds `{text}`")]
    Version {
        /// The file.
        path: PathBuf,
        /// What it holds.
        text: String,
    },
    /// The directory holds something else.
    #[error("`{root}` is not a store: it holds `{found}`, which rbuild did not put there")]
    NotAStore {
        /// The directory.
        root: PathBuf,
        /// A file in it.
        found: PathBuf,
    },
    /// A directory or file could not be made.
    #[error("cannot create `{path}`")]
    Create {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A directory or file could not be read.
    #[error("cannot read `{path}`")]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The data could not be forced to the disk.
    #[error("cannot sync `{path}`")]
    Sync {
        /// The store, or a file in it.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What a power cut spoiled could not be moved away.
    #[error("cannot remove `{path}`, which a power cut may have spoiled")]
    Drop {
        /// A blob or snapshot.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel gave no random name for a lease.
    #[error("cannot get random bytes")]
    Random {
        /// Why.
        #[source]
        source: rustix::io::Errno,
    },
    /// The lease for cleaning up could not be taken.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The database did not answer.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// An open store. Clones share it; it may be used from any thread.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) inner: Arc<StoreInner>,
}

#[derive(Debug)]
pub(crate) struct StoreInner {
    pub(crate) root: PathBuf,
    pub(crate) blobs: PathBuf,
    pub(crate) snapshots: PathBuf,
    pub(crate) mounts: PathBuf,
    pub(crate) stat_caches: PathBuf,
    pub(crate) work: PathBuf,
    pub(crate) kept: PathBuf,
    pub(crate) locks: PathBuf,
    pub(crate) db: Db,
    /// Identifies this boot of the machine.
    pub(crate) boot: String,
    pub(crate) remover: Arc<dyn RemoveTree>,
    /// Entry tables read so far.
    pub(crate) entries: EntryMemo,
    /// True when something was committed since the last sync.
    is_dirty: AtomicBool,
    /// Says that the store is in use. The last field: let go of when all else is closed.
    _open: Arc<OpenLock>,
}

impl Store {
    /// Opens the store at `root`, making it if there is none, and cleans up after processes that died.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        Self::open_with(root, Arc::new(RemoveTreeHere))
    }

    /// Opens a store whose trees are removed by `remover`: see [`RemoveTree`].
    pub fn open_with(root: &Path, remover: Arc<dyn RemoveTree>) -> Result<Self, StoreError> {
        Self::open_in_boot(root, remover, boot_id()?)
    }

    /// Opens a store as if in the boot `boot`; for tests of power cuts.
    #[doc(hidden)]
    pub fn open_in_boot(
        root: &Path,
        remover: Arc<dyn RemoveTree>,
        boot: String,
    ) -> Result<Self, StoreError> {
        let root = std::path::absolute(root).map_err(|source| StoreError::Read {
            path: root.to_owned(),
            source,
        })?;
        let (db, lock) = open_or_create(&root)?;
        let store = Self::assemble(root, remover, boot, db, Arc::new(lock));
        store.clean_up()?;
        Ok(store)
    }

    /// A store of its parts, as they are: nothing is cleaned up.
    pub(crate) fn assemble(
        root: PathBuf,
        remover: Arc<dyn RemoveTree>,
        boot: String,
        db: Db,
        lock: Arc<OpenLock>,
    ) -> Self {
        let inner = StoreInner {
            blobs: root.join("blobs/sha256"),
            snapshots: root.join("snapshots"),
            mounts: root.join("mounts"),
            stat_caches: root.join("statcache"),
            work: root.join(crate::open::WORK),
            kept: root.join(KEPT),
            locks: root.join("locks"),
            db,
            boot,
            remover,
            entries: EntryMemo::default(),
            is_dirty: AtomicBool::new(false),
            _open: lock,
            root,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The store's directory, absolute.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// Starts a lease. Nothing is written before it is first needed.
    pub fn lease(&self) -> Result<Lease, StoreError> {
        Lease::new(self).map_err(|source| StoreError::Random { source })
    }

    /// Ends a build: what was committed since the store was opened survives a power cut from here on.
    ///
    /// Does nothing when nothing was committed: see [`needs_sync`](Self::needs_sync).
    pub fn sync(&self) -> Result<(), StoreError> {
        if !self.needs_sync() {
            return Ok(());
        }
        self.inner.sync_all()?;
        self.inner.make_durable()
    }

    /// Whether something was committed since the last sync.
    pub fn needs_sync(&self) -> bool {
        self.inner.is_dirty.load(Ordering::Acquire)
    }

    /// Removes what dead processes and power cuts left.
    pub(crate) fn clean_up(&self) -> Result<(), StoreError> {
        let inner = &self.inner;
        clean_dead(&inner.work, inner.remover.as_ref()).map_err(|source| StoreError::Read {
            path: inner.work.clone(),
            source,
        })?;
        remove_dead(&inner.locks, STEP_LOCK).map_err(|source| StoreError::Read {
            path: inner.locks.clone(),
            source,
        })?;
        if inner.db.read(|tables| tables.has_lost(&inner.boot))? {
            self.drop_lost()?;
        }
        Ok(())
    }

    /// Drops what another boot did not sync: the rows at once, the files by way of a lease.
    fn drop_lost(&self) -> Result<(), StoreError> {
        let inner = &self.inner;
        let lease = self.lease()?;
        let grave = lease.scratch("lost")?;
        let count = inner.db.write(|tables| {
            let lost = tables.take_lost(&inner.boot)?;
            for (number, item) in lost.iter().enumerate() {
                let path = match item {
                    Unsynced::Layer(snapshot) => {
                        tables.remove_layer(snapshot)?;
                        tables.put_lost_layer(snapshot, LayerLoss::PowerCut.to_row(), now())?;
                        inner.snapshots.join(snapshot)
                    }
                    Unsynced::Blob(digest) => {
                        tables.remove_blob(digest)?;
                        inner.blobs.join(digest.trim_start_matches("sha256:"))
                    }
                    Unsynced::Kept(name) => {
                        tables.remove_kept(name)?;
                        inner.kept.join(name)
                    }
                };
                match inner
                    .remover
                    .move_tree(&path, &grave.join(number.to_string()))
                {
                    Err(source) if source.kind() != io::ErrorKind::NotFound => {
                        return Err(StoreError::Drop { path, source });
                    }
                    _ => {}
                }
            }
            Ok(lost.len())
        })?;
        tracing::info!(
            count,
            "dropped what was not on the disk yet when the machine went down"
        );
        Ok(())
    }
}

impl StoreInner {
    /// Lock that orders holds and removals of snapshots.
    pub(crate) fn gc_lock(&self) -> PathBuf {
        self.locks.join("gc")
    }

    /// Notes that there is something to sync.
    pub(crate) fn mark_dirty(&self) {
        self.is_dirty.store(true, Ordering::Release);
    }

    /// Syncs the data of everything committed so far, by any process, and strikes it off the list.
    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the method is not general enough over its lifetime"
    )]
    pub(crate) fn sync_all(&self) -> Result<(), StoreError> {
        let Some(last) = self.db.read(|tables| tables.last_unsynced())? else {
            return Ok(());
        };
        let failed = |source| StoreError::Sync {
            path: self.root.clone(),
            source,
        };
        let root = File::open(&self.root).map_err(failed)?;
        reach("sync-before");
        rustix::fs::syncfs(&root).map_err(|errno| failed(errno.into()))?;
        reach("sync-done");
        // What was listed after `last` was read may have been written after the sync began.
        self.db.write(|tables| tables.forget_unsynced(last))?;
        reach("sync-noted");
        Ok(())
    }

    /// Syncs the disk, and strikes off all that is listed as unsynced, by whichever boot: it has been read as a whole.
    pub(crate) fn sync_verified(&self) -> Result<(), StoreError> {
        let failed = |source| StoreError::Sync {
            path: self.root.clone(),
            source,
        };
        let root = File::open(&self.root).map_err(failed)?;
        rustix::fs::syncfs(&root).map_err(|errno| failed(errno.into()))?;
        Ok((self.db).write(|tables| tables.forget_unsynced(i64::MAX))?)
    }

    /// Makes the commits so far survive a power cut.
    pub(crate) fn make_durable(&self) -> Result<(), StoreError> {
        self.is_dirty.store(false, Ordering::Release);
        if let Err(error) = self.db.make_durable() {
            self.mark_dirty();
            return Err(error.into());
        }
        reach("checkpoint-done");
        Ok(())
    }
}

/// What identifies this boot of the machine, the same in every container on it.
pub(crate) fn boot_id() -> Result<String, StoreError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    match std::fs::read_to_string(path) {
        Ok(id) => Ok(id.trim().to_owned()),
        Err(source) => {
            // Sandboxed kernels such as gVisor hide it; the time of the boot tells boots apart as well.
            let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
            let time = stat.lines().find_map(|line| line.strip_prefix("btime "));
            time.map(|time| format!("btime-{}", time.trim()))
                .ok_or_else(|| StoreError::Read {
                    path: path.to_owned(),
                    source,
                })
        }
    }
}

/// Seconds since the epoch.
pub(crate) fn now() -> i64 {
    rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec
}
