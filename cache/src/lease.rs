//! Leases: a place to work in that dies with its process, and a hold on what a build uses.
//!
//! ```text
//! work/<lease>.lock   locked while the lease lives; lists what it holds: `snapshot NAME`, `blob DIGEST` or `kept NAME` a line
//! work/<lease>/       everything unfinished: temporary blobs, scratch directories
//! ```
//!
//! The lock file is made and locked before the directory, and removed after it, so a directory whose lock file is
//! unlocked or missing belongs to nobody; [`clean_dead`] removes it when a store is opened. Each is made when it is
//! first needed: a build that only hits makes the lock file, for its holds, and no directory.
//!
//! A hold is written and what it names is checked under the shared `locks/gc`; who removes snapshots or blobs takes
//! that lock exclusively, reads the holds of all live leases, and moves what goes out of view before letting go. What a
//! lease commits it holds from before it can be seen.

mod hits;
mod live;

use std::collections::BTreeSet;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use oci_spec::image::Digest;

use crate::blob::{BlobError, BlobWriter};
use crate::chain::Chain;
use crate::db::{DbError, Unsynced};
use crate::digest::to_hex;
use crate::entry::{encode_table, layer_content_digest};
use crate::failpoint::reach;
use crate::history::LayerLoss;
use crate::layer::{Layer, LayerError, LayerRecord, SnapshotId, is_directory};
use crate::lock::{LockError, LockFile, StandingLock};
use crate::remove::RemoveTree;
use crate::store::{Store, StoreInner, now};
use crate::usage::{Used, estimate_disk};

pub(crate) use live::{has_live, read_holds};

/// Why a lease could not be worked with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// Its lock could not be taken.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A directory or file of it could not be made.
    #[error("cannot create `{path}`")]
    Create {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The list of what is held could not be written.
    #[error("cannot write `{path}`")]
    Hold {
        /// The lock file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A snapshot to be held is not there (any more).
    #[error("snapshot `{snapshot}` is not in the store any more")]
    Missing {
        /// Its name.
        snapshot: SnapshotId,
    },
    /// A blob to be held could not be looked up.
    #[error(transparent)]
    Blob(Box<BlobError>),
    /// The database did not answer.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// A hold on the store: what it works on is nobody else's, what it holds is not removed. Clones share one lease.
#[derive(Clone, Debug)]
pub struct Lease {
    inner: Arc<LeaseInner>,
}

#[derive(Debug)]
struct LeaseInner {
    store: Arc<StoreInner>,
    /// `work/<lease>`.
    dir: PathBuf,
    /// Numbers the scratch directories and temporary files.
    next: AtomicU64,
    /// The lease on disk, once there is one. Taken before the database's lock where both are.
    disk: Mutex<Option<Disk>>,
}

#[derive(Debug)]
struct Disk {
    lock: LockFile,
    /// The lease's directory was made.
    has_directory: bool,
    /// Snapshots that the lock file lists.
    held: BTreeSet<SnapshotId>,
    /// Blobs that it lists.
    held_blobs: BTreeSet<String>,
}

impl Lease {
    /// A lease with a name of its own.
    pub(crate) fn new(store: &Store) -> rustix::io::Result<Self> {
        let mut name = [0_u8; 12];
        rustix::rand::getrandom(&mut name, rustix::rand::GetRandomFlags::empty())?;
        Ok(Self {
            inner: Arc::new(LeaseInner {
                store: Arc::clone(&store.inner),
                dir: store.inner.work.join(to_hex(&name)),
                next: AtomicU64::new(0),
                disk: Mutex::new(None),
            }),
        })
    }

    /// The store it is a lease on.
    pub fn store(&self) -> Store {
        Store {
            inner: Arc::clone(&self.inner.store),
        }
    }

    /// Its name, under which others find out whether it lives. Makes its lock file.
    pub(crate) fn name(&self) -> Result<String, LeaseError> {
        self.inner.on_disk(|_| Ok(()))?;
        let name = self.inner.dir.file_name().unwrap_or_default();
        Ok(name.to_string_lossy().into_owned())
    }

    /// The lease's own directory, made when this is first called.
    pub fn dir(&self) -> Result<&Path, LeaseError> {
        self.inner
            .on_disk(|disk| disk.make_directory(&self.inner.dir))?;
        Ok(&self.inner.dir)
    }

    /// Makes a new empty directory in the lease's own, named after `name_hint`.
    pub fn scratch(&self, name_hint: &str) -> Result<PathBuf, LeaseError> {
        let path = self.unique(name_hint)?;
        std::fs::create_dir(&path).map_err(|source| LeaseError::Create {
            path: path.clone(),
            source,
        })?;
        Ok(path)
    }

    /// A new name in the lease's directory.
    fn unique(&self, name_hint: &str) -> Result<PathBuf, LeaseError> {
        let number = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let is_plain = |character: &char| character.is_ascii_alphanumeric() || *character == '-';
        let hint: String = name_hint.chars().filter(is_plain).take(32).collect();
        Ok(self.dir()?.join(format!("{number}-{hint}")))
    }

    /// Starts a blob.
    pub fn blob_writer(&self) -> Result<BlobWriter, BlobError> {
        let path = self.unique("blob")?;
        BlobWriter::create(self.clone(), path)
    }

    /// Makes the finished directory `dir` of this lease the snapshot `id`, and holds it.
    ///
    /// `Ok` means that the store has the snapshot, not that it is this one: if it is there already, the present one
    /// wins and `dir` is removed.
    pub fn commit_snapshot(
        &self,
        dir: &Path,
        record: &LayerRecord,
        id: &SnapshotId,
    ) -> Result<Layer, LayerError> {
        let store = &self.inner.store;
        let layer = Layer {
            diff_id: record.diff_id.clone(),
            content: layer_content_digest(&record.entries),
            snapshot: id.clone(),
            tar_size: record.tar_size,
            created: record.created,
            created_nanos: record.created_nanos,
        };
        let table = encode_table(&record.entries, &record.implied);
        let disk = estimate_disk(&record.entries);
        let target = store.snapshots.join(id.as_str());
        let aside = self.unique("orphan")?;
        let _gc = StandingLock::shared(&store.gc_lock()).map_err(LeaseError::from)?;
        self.inner.hold_snapshots(std::iter::once(id))?;
        reach("snapshot-held");
        let (layer, is_ours) = store.db.write(|tables| {
            if let Some(present) = tables.layer(id.as_str())?
                && is_directory(&target)
            {
                return Ok::<_, LayerError>((present, false));
            }
            // What stands at the target without a row is the rest of a crash; a row without a directory is a loss.
            match store.remover.move_tree(&target, &aside) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(LayerError::Move {
                        from: target.clone(),
                        to: aside.clone(),
                        source,
                    });
                }
                _ => {}
            }
            store
                .remover
                .move_tree(dir, &target)
                .map_err(|source| LayerError::Move {
                    from: dir.to_owned(),
                    to: target.clone(),
                    source,
                })?;
            reach("snapshot-renamed");
            tables.put_layer(&layer, &table, now(), disk)?;
            tables.add_unsynced(&store.boot, &Unsynced::Layer(id.as_str().to_owned()))?;
            reach("snapshot-rows");
            Ok((layer, true))
        })?;
        reach("snapshot-committed");
        if is_ours {
            store.mark_dirty();
        }
        let rest = if is_ours { aside.as_path() } else { dir };
        if let Err(error) = store.remover.remove_tree(rest) {
            // It lies in the lease's directory: removed with the lease, or by who opens the store after it.
            tracing::debug!(path = %rest.display(), %error, "left for the end of the lease");
        }
        Ok(layer)
    }

    /// Takes a damaged snapshot out of the store: what was recorded with it is a miss from now on, so that it is made or
    /// pulled anew.
    pub fn discard_snapshot(&self, id: &SnapshotId) -> Result<(), LayerError> {
        let store = &self.inner.store;
        let target = store.snapshots.join(id.as_str());
        let aside = self.unique("damaged")?;
        // Who checks the store sees it before or after this.
        let _gc = StandingLock::shared(&store.gc_lock()).map_err(LeaseError::from)?;
        store.db.write(|tables| {
            tables.remove_layer(id.as_str())?;
            tables.put_lost_layer(id.as_str(), LayerLoss::Damaged.to_row(), now())?;
            match store.remover.move_tree(&target, &aside) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    Err(LayerError::Move {
                        from: target.clone(),
                        to: aside.clone(),
                        source,
                    })
                }
                _ => Ok(()),
            }
        })?;
        reach("damaged-removed");
        if let Err(error) = store.remover.remove_tree(&aside) {
            // It lies in the lease's directory: removed with the lease, or by who opens the store after it.
            tracing::debug!(path = %aside.display(), %error, "left for the end of the lease");
        }
        Ok(())
    }

    /// Looks whether a snapshot is what its entry table says, see [`Store::check_snapshot`]; a damaged one is taken out of
    /// the store.
    pub fn verify_snapshot(&self, id: &SnapshotId) -> Result<(), LayerError> {
        let checked = self.store().check_snapshot(id);
        if let Err(
            LayerError::Missing { .. }
            | LayerError::DamagedEntries { .. }
            | LayerError::DamagedSnapshot { .. },
        ) = &checked
        {
            self.discard_snapshot(id)?;
        }
        checked
    }

    /// Keeps the snapshots of `chain` from being removed as long as the lease lives.
    ///
    /// `Ok` means that all of them are there now and stay. [`LeaseError::Missing`] after a hit means that another
    /// process removed one in between: treat it as a miss.
    pub fn hold(&self, chain: &Chain) -> Result<(), LeaseError> {
        self.hold_all(&Chain::snapshots_of([chain]))
    }

    fn hold_all(&self, snapshots: &BTreeSet<&SnapshotId>) -> Result<(), LeaseError> {
        let store = &self.inner.store;
        let gc = StandingLock::shared(&store.gc_lock())?;
        let new = self.hold_present(snapshots)?;
        drop(gc);
        if !new.is_empty() {
            store.note_use(Used::Snapshots(&new));
        }
        Ok(())
    }

    /// Holds snapshots that are there; gives those that were not held before. The caller has the shared `locks/gc`.
    pub(crate) fn hold_present(
        &self,
        snapshots: &BTreeSet<&SnapshotId>,
    ) -> Result<BTreeSet<SnapshotId>, LeaseError> {
        let store = &self.inner.store;
        let new = self.inner.hold_snapshots(snapshots.iter().copied())?;
        for &snapshot in snapshots {
            if !is_directory(&store.snapshots.join(snapshot.as_str())) {
                return Err(LeaseError::Missing {
                    snapshot: snapshot.clone(),
                });
            }
        }
        Ok(new)
    }

    /// Lists a kept file system as held. The caller has the shared `locks/gc`.
    pub(crate) fn list_kept(&self, name: &str) -> Result<(), LeaseError> {
        self.inner
            .on_disk(|disk| disk.list(&self.inner.dir, "kept", std::iter::once(name)))
    }

    /// Keeps a blob from being removed as long as the lease lives; its size when the store has it, none when it does not.
    ///
    /// What is written through [`blob_writer`](Self::blob_writer) is held already.
    pub fn hold_blob(&self, digest: &Digest) -> Result<Option<u64>, LeaseError> {
        let store = self.store();
        let gc = StandingLock::shared(&store.inner.gc_lock())?;
        let size = match store.blob_size(digest) {
            Ok(size) => size,
            Err(BlobError::Missing { .. }) => return Ok(None),
            Err(error) => return Err(LeaseError::Blob(Box::new(error))),
        };
        let is_new = self.inner.hold_blob(digest)?;
        drop(gc);
        if is_new {
            store.inner.note_use(Used::Blob(digest.as_ref()));
        }
        Ok(Some(size))
    }

    /// Holds a blob that is about to be committed. The caller has the shared `locks/gc`.
    pub(crate) fn hold_new_blob(&self, digest: &Digest) -> Result<(), LeaseError> {
        self.inner.hold_blob(digest).map(drop)
    }
}

impl LeaseInner {
    /// Calls `body` with the lease's lock file on disk, made if there is none.
    fn on_disk(
        &self,
        body: impl FnOnce(&mut Disk) -> Result<(), LeaseError>,
    ) -> Result<(), LeaseError> {
        let mut disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(disk) = disk.as_mut() {
            return body(disk);
        }
        let lock = LockFile::acquire(&lock_path(&self.dir))?;
        body(disk.insert(Disk {
            lock,
            has_directory: false,
            held: BTreeSet::new(),
            held_blobs: BTreeSet::new(),
        }))
    }

    /// Lists snapshots as held; gives those that were not before.
    fn hold_snapshots<'a>(
        &self,
        snapshots: impl Iterator<Item = &'a SnapshotId>,
    ) -> Result<BTreeSet<SnapshotId>, LeaseError> {
        let mut new = BTreeSet::new();
        self.on_disk(|disk| {
            new = snapshots
                .filter(|snapshot| !disk.held.contains(snapshot))
                .cloned()
                .collect();
            disk.list(&self.dir, "snapshot", new.iter().map(SnapshotId::as_str))?;
            disk.held.extend(new.iter().cloned());
            Ok(())
        })?;
        Ok(new)
    }

    /// Lists a blob as held; false when it was before.
    fn hold_blob(&self, digest: &Digest) -> Result<bool, LeaseError> {
        let mut is_new = false;
        self.on_disk(|disk| {
            is_new = !disk.held_blobs.contains(digest.as_ref());
            if is_new {
                disk.list(&self.dir, "blob", std::iter::once(digest.as_ref()))?;
                disk.held_blobs.insert(digest.to_string());
            }
            Ok(())
        })?;
        Ok(is_new)
    }
}

impl Disk {
    fn make_directory(&mut self, dir: &Path) -> Result<(), LeaseError> {
        if !self.has_directory {
            std::fs::create_dir(dir).map_err(|source| LeaseError::Create {
                path: dir.to_owned(),
                source,
            })?;
            self.has_directory = true;
        }
        Ok(())
    }

    /// Appends a line `KIND NAME` for each name to the lock file.
    fn list<'a>(
        &mut self,
        dir: &Path,
        kind: &str,
        names: impl Iterator<Item = &'a str>,
    ) -> Result<(), LeaseError> {
        let lines: String = names.flat_map(|name| [kind, " ", name, "\n"]).collect();
        if lines.is_empty() {
            return Ok(());
        }
        let mut file = self.lock.file();
        let failed = |source| LeaseError::Hold {
            path: lock_path(dir),
            source,
        };
        let before = file.metadata().map_err(failed)?.len();
        file.write_all(lines.as_bytes()).map_err(|source| {
            // A line that was cut off by a full disk would spoil the next one. What stays of it holds nothing: who
            // reads the file ignores a line that is not whole, and the caller does not use what it could not hold.
            let _ = file.set_len(before);
            let _ = file.seek(SeekFrom::Start(before));
            failed(source)
        })
    }
}

impl Drop for LeaseInner {
    fn drop(&mut self) {
        let disk = self.disk.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Some(disk) = disk.take() else { return };
        if !disk.has_directory {
            return;
        }
        if let Err(error) = self.store.remover.remove_tree(&self.dir) {
            tracing::warn!(path = %self.dir.display(), %error, "work directory stays until the store is opened next");
            // Without its lock file the directory still counts as dead.
        }
        reach("lease-removed");
        drop(disk);
    }
}

impl LeaseError {
    /// True when there is no room on the disk.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::Lock(LockError { source, .. })
            | Self::Create { source, .. }
            | Self::Hold { source, .. } => source.kind() == std::io::ErrorKind::StorageFull,
            Self::Db(error) => error.is_full(),
            Self::Missing { .. } | Self::Blob(_) => false,
        }
    }
}

fn is_there(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

fn lock_path(dir: &Path) -> PathBuf {
    dir.with_extension("lock")
}

/// Removes the work of leases whose process is gone, and returns how many there were.
///
/// What cannot be removed is reported to the log and left for the next time: it harms nobody.
pub(crate) fn clean_dead(work: &Path, remover: &dyn RemoveTree) -> std::io::Result<usize> {
    let mut cleaned = 0;
    let mut dirs = BTreeSet::new();
    for entry in std::fs::read_dir(work)? {
        dirs.insert(entry?.path().with_extension(""));
    }
    for dir in dirs {
        let lock = lock_path(&dir);
        // Without a lock file a directory is dead too, so one is made for the time of the removal.
        let dead = match LockFile::try_inherit(&lock) {
            Ok(None) if !lock.exists() && is_there(&dir) => LockFile::try_acquire(&lock),
            dead => dead,
        };
        let result = match dead {
            Ok(None) => continue,
            // No room for a lock file: what pruning left for want of room is removed without one. Two who do so at once
            // only help each other.
            Err(error) if error.source.kind() == std::io::ErrorKind::StorageFull => {
                remover.remove_tree(&dir)
            }
            Ok(Some(_lock)) => remover.remove_tree(&dir),
            Err(error) => Err(error.source),
        };
        match result {
            Ok(()) => {
                reach("dead-lease-removed");
                cleaned += 1;
            }
            Err(error) => {
                tracing::warn!(path = %dir.display(), %error, "cannot remove the work of a dead lease");
            }
        }
    }
    Ok(cleaned)
}
