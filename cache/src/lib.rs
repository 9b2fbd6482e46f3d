//! The content-addressed store of rbuild: blobs, layer snapshots, step records, key derivation, file checksums with
//! the stat cache, image tags, leases. Knows nothing of Dockerfiles, sandboxes or registries.
//!
//! Start with [`Store`]; `docs/store-format.md` has the layout on disk, `docs/cache-keys.md` the keys.

#![forbid(unsafe_code)]

mod backend;
mod beneath;
mod blob;
mod cache_mount;
mod chain;
mod db;
mod digest;
mod entry;
#[doc(hidden)]
pub mod failpoint;
mod file_list;
mod fsck;
mod gc;
mod history;
mod image;
mod kept;
mod key;
mod layer;
mod layer_memo;
mod lease;
mod lock;
mod open;
mod packed;
mod record;
mod remove;
mod stat_cache;
mod step_log;
mod store;
mod tree;
mod usage;

pub use backend::{BackendError, CacheBackend, CachedLayer, CachedStep, DirectoryBackend};
pub use blob::{BlobError, BlobInfo, BlobWriter, VerifiedReader, VerifyError};
pub use cache_mount::{
    CacheMountError, CacheMountGuard, CacheMountId, CacheMountUse, MountRemoveError, Sharing,
};
pub use chain::Chain;
pub use db::{DbError, NotADatabase, Unparsable, is_damaged_store, is_full_disk};
pub use digest::{ChainId, ContentDigest, DiffId};
pub use entry::{Entry, EntryKind, layer_content_digest};
pub use file_list::{ListedFile, ListedKind};
pub use fsck::{
    Checked, Damage, DamageKind, Dependant, ExamineError, ExamineSnapshot, Examined, FsckError,
    FsckReport, Healing, Leftover, LeftoverKind, Problem, Recovered, SnapshotLimits, fsck,
};
pub use gc::{Budget, DiskUse, GcError, ItemUse, Kind, KindUse, PruneOptions, Pruned, PrunedItem};
pub use history::{
    Build, BuildProgress, BuildStatus, HistoryDropped, HistoryError, HistoryLimits, HistorySize,
    LayerLoss, NewBuild,
};
pub use image::{ImageError, ImageRecord, RemovedImage, Resolution};
pub use kept::{Kept, KeptError, KeptId, KeptLimits, NewKept};
pub use key::{KeyEncoder, StepKey};
pub use layer::{Layer, LayerError, LayerRecord, SnapshotId};
pub use lease::{Lease, LeaseError};
pub use lock::LockError;
pub use open::FORMAT_VERSION;
pub use packed::{OriginalBlob, PackParameters, PackedBlob};
pub use record::{KeyPart, Lookup, StepLock, StepRecord};
pub use remove::{RemoveTree, RemoveTreeHere, TreeSize};
pub use stat_cache::{FileStat, HashingStart, Near, RecordIndex, StatCache, StatCacheError};
pub use step_log::{LogPiece, LogStream, StepLogError, StepLogReader, StepLogWriter};
pub use store::{Store, StoreError};
pub use tree::{FilesDigest, SelectionDigest, SelectionError};
