//! Layers, chains and the snapshots that hold them.
//!
//! A layer counts as present when the database has its row *and* its directory stands under `snapshots/`. Both come
//! into being inside one write transaction, the directory by rename from a lease's `work/`, so a directory without
//! a row is what a crash left behind: it is never used, and replaced by the next commit of the same layer.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FileType;

use crate::beneath::Beneath;
use crate::db::{DbError, Tables};
use crate::digest::{ChainId, ContentDigest, DiffId};
use crate::entry::{Entry, EntryKind, decode_table};
use crate::store::Store;

/// BLAKE3 context of [`Chain::content_chain`]. Changing it changes every result key.
const CHAIN_CONTEXT: &str = "rbuild 2026-11-23 content chain v1";

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

/// Ordered layers, lowest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain(pub Vec<Layer>);

impl Chain {
    /// A chain without layers: `FROM scratch`.
    pub fn empty() -> Self {
        Self::default()
    }

    /// The layers, lowest first.
    pub fn layers(&self) -> &[Layer] {
        &self.0
    }

    /// This chain with one more layer on top.
    #[must_use]
    pub fn with(&self, layer: Layer) -> Self {
        let mut layers = Vec::with_capacity(self.0.len() + 1);
        layers.extend_from_slice(&self.0);
        layers.push(layer);
        Self(layers)
    }

    /// The diff_ids, lowest first.
    pub fn diff_ids(&self) -> Vec<DiffId> {
        self.0.iter().map(|layer| layer.diff_id.clone()).collect()
    }

    /// The chain_id of the image spec; none for an empty chain, which has none.
    pub fn chain_id(&self) -> Option<ChainId> {
        let fold = |parent: Option<ChainId>, layer: &Layer| {
            Some(ChainId::extend(parent.as_ref(), &layer.diff_id))
        };
        self.0.iter().fold(None, fold)
    }

    /// The same fold over content digests: what result keys take for a parent. An empty chain has a fixed value.
    pub fn content_chain(&self) -> ContentDigest {
        let start = *blake3::Hasher::new_derive_key(CHAIN_CONTEXT)
            .finalize()
            .as_bytes();
        let folded = self.0.iter().fold(start, |parent, layer| {
            let mut hasher = blake3::Hasher::new_derive_key(CHAIN_CONTEXT);
            hasher.update(&parent).update(layer.content.as_bytes());
            *hasher.finalize().as_bytes()
        });
        ContentDigest(folded)
    }

    /// The snapshot directories, lowest first, each once: overlayfs refuses a directory that stands in it twice.
    ///
    /// Of equal layers the highest stays, which changes nothing: it hides or replaces whatever the lower one does.
    pub fn snapshot_paths(&self, store: &Store) -> Vec<PathBuf> {
        let mut seen = HashSet::new();
        let mut paths: Vec<PathBuf> = (self.0.iter().rev())
            .filter(|layer| seen.insert(&layer.snapshot))
            .map(|layer| store.snapshot_path(&layer.snapshot))
            .collect();
        paths.reverse();
        paths
    }

    /// As it stands in the database: a line a layer, `SNAPSHOT SECONDS NANOSECONDS`.
    ///
    /// The time is the chain's own: equal layers share a snapshot, but were made at different times.
    pub(crate) fn to_row(&self) -> String {
        use std::fmt::Write as _;
        let mut row = String::with_capacity(self.0.len() * 90);
        for layer in &self.0 {
            // Writing to a string can't fail.
            let _ = writeln!(
                row,
                "{} {} {}",
                layer.snapshot, layer.created, layer.created_nanos
            );
        }
        row
    }
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

    /// The layers of a chain's row, when all of them are present. What is in `present` was looked for already.
    pub(crate) fn present_chain(
        &self,
        tables: &Tables<'_>,
        row: &str,
        present: &mut Present,
    ) -> Result<Result<Chain, SnapshotId>, DbError> {
        let mut chain = Chain(Vec::with_capacity(row.len() / 65));
        for line in row.lines() {
            let mut words = line.split(' ');
            let name = words.next().unwrap_or_default();
            let created = words.next().and_then(|word| word.parse().ok());
            let created_nanos = words.next().and_then(|word| word.parse().ok());
            match (tables.layer(name)?, created, created_nanos) {
                (Some(layer), Some(created), Some(created_nanos))
                    if present.0.contains(name)
                        || is_directory(&self.snapshot_path(&layer.snapshot)) =>
                {
                    present.0.insert(name.to_owned());
                    chain.0.push(Layer {
                        created,
                        created_nanos,
                        ..layer
                    });
                }
                _ => return Ok(Err(SnapshotId(name.to_owned()))),
            }
        }
        Ok(Ok(chain))
    }
}

/// Snapshots whose directories were found in one read of the database: chains have most of their layers in common.
#[derive(Debug, Default)]
pub(crate) struct Present(HashSet<String>);

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
