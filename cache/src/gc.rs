//! Pruning: what may go, what goes first, and how it goes while others build.
//!
//! ```text
//! measure    sizes that are not known yet, without any lock
//! locks/gc   taken exclusively, and the database for writing: nobody holds, commits or tags anything meanwhile
//!   holds    of the leases that live
//!   plan     pure: what is needed stays, of the rest the least regretted goes first        `plan`
//!   rows     deleted, committed                                                             `sweep`
//!   move     out of view, into work/
//! remove     the trees, without any lock
//! ```
//!
//! A kill in between leaves files without rows, which nobody reads and the next pruning removes; the dead lease's directory
//! is removed by who opens the store next. On a full disk rows may not be deletable before files are: the files go first,
//! then it is tried again, and a kill in between leaves rows without files, which count as missing.

#![expect(
    clippy::redundant_closure_for_method_calls,
    reason = "the methods are not general enough over their lifetimes"
)]

mod budget;
mod grave;
mod kept;
mod order;
mod plan;
mod report;
mod sweep;

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::time::Duration;

use crate::db::DbError;
use crate::lease::LeaseError;
use crate::lock::LockError;
use crate::store::StoreError;

pub use budget::Budget;
pub use report::{DiskUse, ItemUse, KindUse};

/// What a stat cache is called.
const STAT_CACHE_TITLE: &str = "digests of a context's files";

/// What a thing in the store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// An image with its config; in a report, also the snapshots that images need.
    Image,
    /// Step records and the snapshots that no image needs.
    Step,
    /// What `RUN --mount=type=cache` keeps.
    CacheMount,
    /// File systems of failed steps.
    Kept,
    /// Packed layers, layers as they were pulled, manifests and configs.
    Blob,
    /// Digests of context files.
    StatCache,
    /// Logs of past builds; they have limits of their own.
    History,
    /// Unfinished work of running builds.
    Work,
    /// The database.
    Database,
    /// Directories and lock files.
    Other,
}

impl Kind {
    /// Every kind, in the order of reports.
    pub const ALL: [Self; 10] = [
        Self::Image,
        Self::Step,
        Self::CacheMount,
        Self::Kept,
        Self::Blob,
        Self::StatCache,
        Self::History,
        Self::Work,
        Self::Database,
        Self::Other,
    ];

    /// What can be pruned.
    pub const PRUNABLE: [Self; 6] = [
        Self::Image,
        Self::Step,
        Self::CacheMount,
        Self::Kept,
        Self::Blob,
        Self::StatCache,
    ];

    /// As it is written in filters and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Step => "step",
            Self::CacheMount => "cache-mount",
            Self::Kept => "failed-step",
            Self::Blob => "blob",
            Self::StatCache => "stat-cache",
            Self::History => "history",
            Self::Work => "work",
            Self::Database => "database",
            Self::Other => "other",
        }
    }
}

/// What is to be pruned. Without a limit everything that may go goes; with one, as much as it takes.
#[derive(Clone, Debug, Default)]
pub struct PruneOptions {
    /// Tagged images too, unless a running build uses them.
    pub includes_tagged: bool,
    /// Most bytes that the store may take.
    pub max_used_space: Option<u64>,
    /// Bytes that the store may always keep, whatever the other limits say.
    pub reserved_space: Option<u64>,
    /// Bytes that should be free on the disk.
    pub min_free_space: Option<u64>,
    /// Only what was not used for so long.
    pub unused_for: Option<Duration>,
    /// Only these kinds; all when empty.
    pub kinds: BTreeSet<Kind>,
    /// Only things whose id begins with one of these; all when empty.
    pub ids: Vec<String>,
}

/// What pruning removed, or would remove.
#[derive(Clone, Debug, Default)]
pub struct Pruned {
    /// One by one, in the order in which they were chosen.
    pub items: Vec<PrunedItem>,
    /// Bytes that they took.
    pub freed: u64,
}

/// One thing that was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrunedItem {
    /// What it was.
    pub kind: Kind,
    /// A digest, a snapshot's or a cache mount's directory.
    pub id: String,
    /// What people call it: a tag, a step, a mount's id.
    pub title: String,
    /// Bytes that are free because of it.
    pub bytes: u64,
    /// Seconds since the epoch, at most an hour late.
    pub used: i64,
}

/// Why a store could not be pruned or measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GcError {
    /// Sizes could not be found out.
    #[error("cannot measure what is in `{path}`")]
    Measure {
        /// The store or a directory of it.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A directory could not be listed.
    #[error("cannot read `{path}`")]
    Read {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Something could not be taken out of view.
    #[error("cannot remove `{path}`")]
    Remove {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The lock that keeps holds and removals apart.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// No place to move things to.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The store.
    #[error(transparent)]
    Store(#[from] Box<StoreError>),
    /// The database did not answer.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// What the leases that live hold, and what is in use otherwise.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holds {
    pub(crate) snapshots: HashSet<String>,
    pub(crate) blobs: HashSet<String>,
    /// Directories of cache mounts that somebody has locked.
    pub(crate) mounts: HashSet<String>,
    /// Kept file systems, by name.
    pub(crate) kept: HashSet<String>,
}
