//! Layers, chains and the snapshots that hold them.
//!
//! A layer counts as present when the database has its row *and* its directory stands under `snapshots/`. Both come
//! into being inside one write transaction, the directory by rename from a lease's `work/`, so a directory without
//! a row is what a crash left behind: it is never used, and replaced by the next commit of the same layer.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FileType;

use crate::beneath::Beneath;
use crate::db::DbError;
use crate::digest::{ChainId, ContentDigest, DiffId};
use crate::entry::{Entry, EntryKind, decode_table};
use crate::store::Store;

/// Name of a snapshot: its directory under `snapshots/`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SnapshotId(String);

impl SnapshotId {
    /// Of a layer that stands alone.
    pub fn of_layer(diff_id: &DiffId) -> Self {
        Self(diff_id.0.digest().to_owned())
    }

    /// Of a layer that leans on those below it, completed for the chain that ends with it.
    pub fn of_chain(chain_id: &ChainId) -> Self {
        Self(format!("chain-{}", chain_id.0.digest()))
    }

    /// As a row of the database names it, whatever that is: for messages.
    pub(crate) fn as_named(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// Reads a name; none when it could not be one of ours, and so might leave `snapshots/`.
    pub fn parse(name: &str) -> Option<Self> {
        let hex = name.strip_prefix("chain-").unwrap_or(name);
        let is_hex = hex.len() >= 64
            && hex
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        is_hex.then(|| Self(name.to_owned()))
    }

    /// True for one that was completed for a chain: its name says nothing of its own layer.
    pub(crate) fn is_of_chain(&self) -> bool {
        self.0.starts_with("chain-")
    }

    /// The directory name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// One layer of a chain, as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Digest of its uncompressed tar.
    pub diff_id: DiffId,
    /// Digest of its entries without times.
    pub content: ContentDigest,
    /// Its unpacked directory.
    pub snapshot: SnapshotId,
    /// Size of its uncompressed tar.
    pub tar_size: u64,
    /// When it was made: seconds since the epoch.
    pub created: i64,
    /// Nanoseconds of `created`.
    pub created_nanos: u32,
}

/// What [`Lease::commit_snapshot`](crate::Lease::commit_snapshot) is told about a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerRecord {
    /// Digest of its uncompressed tar.
    pub diff_id: DiffId,
    /// Size of that tar.
    pub tar_size: u64,
    /// When it was made: seconds since the epoch.
    pub created: i64,
    /// Nanoseconds of `created`.
    pub created_nanos: u32,
    /// Its entries, in tar order or in byte order of their paths.
    pub entries: Vec<Entry>,
    /// Directories that the snapshot has but the layer's tar does not name. Not part of its content digest.
    pub implied: Vec<Vec<u8>>,
}

/// Why a layer could not be read or committed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// The database did not answer.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The store has no such layer.
    #[error("the store has no snapshot `{snapshot}`")]
    Missing {
        /// Its name.
        snapshot: SnapshotId,
    },
    /// The entry table's checksum or shape is wrong.
    #[error("the entry table of snapshot `{snapshot}` is damaged")]
    DamagedEntries {
        /// The snapshot.
        snapshot: SnapshotId,
    },
    /// A snapshot is not what its entry table says.
    #[error("snapshot `{snapshot}` is damaged: `{path}` {damage}")]
    DamagedSnapshot {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The entry's place in the store.
        path: PathBuf,
        /// What is wrong with it.
        damage: &'static str,
    },
    /// A finished snapshot could not be put in its place.
    #[error("cannot move the new snapshot `{from}` to `{to}`")]
    Move {
        /// In `work/`.
        from: PathBuf,
        /// Under `snapshots/`.
        to: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The lease has no place to work in.
    #[error(transparent)]
    Lease(#[from] crate::lease::LeaseError),
}

impl Store {
    /// Directory of a snapshot, whether it is there or not.
    pub fn snapshot_path(&self, snapshot: &SnapshotId) -> PathBuf {
        self.inner.snapshots.join(snapshot.as_str())
    }

    /// The layer of a snapshot, when it is present.
    pub fn layer(&self, snapshot: &SnapshotId) -> Result<Option<Layer>, LayerError> {
        let layer = self
            .inner
            .db
            .read(|tables| tables.layer(snapshot.as_str()))?;
        Ok(layer.filter(|layer| is_directory(&self.snapshot_path(&layer.snapshot))))
    }

    /// The layer with a diff_id, when it is present and stands alone.
    ///
    /// One that leans on lower layers is found with [`layer`](Self::layer) and [`SnapshotId::of_chain`].
    pub fn layer_by_diff_id(&self, diff_id: &DiffId) -> Result<Option<Layer>, LayerError> {
        self.layer(&SnapshotId::of_layer(diff_id))
    }

    /// The entries of a snapshot, read once a process.
    pub fn entries(&self, snapshot: &SnapshotId) -> Result<Arc<[Entry]>, LayerError> {
        if let Some(entries) = self.inner.entries.lookup(snapshot) {
            return Ok(entries);
        }
        let table = self
            .inner
            .db
            .read(|tables| tables.entries(snapshot.as_str()))?;
        let table = table.ok_or_else(|| LayerError::Missing {
            snapshot: snapshot.clone(),
        })?;
        let table = decode_table(&table).ok_or_else(|| LayerError::DamagedEntries {
            snapshot: snapshot.clone(),
        })?;
        Ok(self.inner.entries.remember(snapshot, table.entries.into()))
    }

    /// Directories that a snapshot has but its layer's tar does not name.
    pub fn implied_directories(&self, snapshot: &SnapshotId) -> Result<Vec<Vec<u8>>, LayerError> {
        let table = self
            .inner
            .db
            .read(|tables| tables.entries(snapshot.as_str()))?;
        let table = table.ok_or_else(|| LayerError::Missing {
            snapshot: snapshot.clone(),
        })?;
        let table = decode_table(&table).ok_or_else(|| LayerError::DamagedEntries {
            snapshot: snapshot.clone(),
        })?;
        Ok(table.implied)
    }

    /// Compares a snapshot with its entry table: that every entry is there, with its type and size.
    ///
    /// Finds what is missing or truncated, not a flipped bit. Costs one `lstat` an entry: call it before a step
    /// runs on a snapshot, not for every hit. What this process may not look at (a directory of another id, when
    /// rootless) is taken to be right.
    pub fn check_snapshot(&self, snapshot: &SnapshotId) -> Result<(), LayerError> {
        let root = self.snapshot_path(snapshot);
        if !is_directory(&root) {
            return Err(LayerError::Missing {
                snapshot: snapshot.clone(),
            });
        }
        let mut beneath = Beneath::open(&root).map_err(|_| LayerError::Missing {
            snapshot: snapshot.clone(),
        })?;
        for entry in self.entries(snapshot)?.iter() {
            if let Some(damage) = find_damage(&mut beneath, entry) {
                return Err(LayerError::DamagedSnapshot {
                    snapshot: snapshot.clone(),
                    path: root.join(host_path(&entry.path)),
                    damage,
                });
            }
        }
        Ok(())
    }
}

/// True for a directory, not for a symlink to one.
pub(crate) fn is_directory(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

/// A path in a snapshot as a host path, for messages: nothing is opened by it.
fn host_path(path: &[u8]) -> &Path {
    use std::os::unix::ffi::OsStrExt as _;
    Path::new(std::ffi::OsStr::from_bytes(path))
}

fn find_damage(beneath: &mut Beneath, entry: &Entry) -> Option<&'static str> {
    let stat = match beneath.stat(&entry.path) {
        Ok(stat) => stat,
        Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => return None,
        Err(rustix::io::Errno::XDEV) => return Some("is named by a path that leads out of it"),
        Err(_) => return Some("is missing"),
    };
    let found = FileType::from_raw_mode(stat.st_mode);
    let has_type = match entry.kind {
        EntryKind::Directory { .. } => found == FileType::Directory,
        EntryKind::File { .. } | EntryKind::HardLink { .. } => found == FileType::RegularFile,
        EntryKind::Symlink { .. } => found == FileType::Symlink,
        // Without root a device cannot be made; what stands in for it is the unpacker's business.
        EntryKind::CharDevice { .. } | EntryKind::BlockDevice { .. } => true,
        EntryKind::Fifo => found == FileType::Fifo,
        EntryKind::Whiteout => {
            matches!(found, FileType::CharacterDevice | FileType::RegularFile)
        }
    };
    match entry.kind {
        _ if !has_type => Some("has another type"),
        EntryKind::File { size, .. } if u64::try_from(stat.st_size) != Ok(size) => {
            Some("has another size")
        }
        _ => None,
    }
}
