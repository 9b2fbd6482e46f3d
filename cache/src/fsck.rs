//! Checking a store as a whole, and mending it.
//!
//! ```text
//! ROOT          locked as by everybody who uses the store; for a repair, by this process alone
//! layout        VERSION and the directories
//! database      sound, or what can be read of it goes into a new one, and what the disk proves is added      `recover`
//! snapshots     read whole, against their diff_id and their entry tables                                     `compare`
//! blobs         read whole, against their digests
//! rows          images, tags, steps: what they name is there                                                 `rows`
//! leftovers     what crashes left: no damage, and gone by itself sooner or later                             `leftover`
//! repair        what is damaged goes, or is written anew                                                     `repair`
//! ```
//!
//! Without a repair nothing is written, and other processes go on building and pruning. What looks damaged is therefore
//! looked at again under the exclusive `locks/gc`: if its row has gone, or its directory is another one, it was removed
//! meanwhile.
//!
//! A repair mends one thing after the other; killed in between, it is done again. A database is replaced at the end, by a
//! rename, when the new one is on the disk.

#![expect(
    clippy::redundant_closure_for_method_calls,
    reason = "the methods are not general enough over their lifetimes"
)]

mod blobs;
mod check;
mod compare;
mod database;
mod leftover;
mod recover;
mod repair;
mod report;
mod rows;
mod snapshots;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::StatVfsMountFlags;

use crate::blob::BlobError;
use crate::db::DbError;
use crate::digest::DiffId;
use crate::entry::Entry;
use crate::layer::LayerError;
use crate::lease::LeaseError;
use crate::lock::LockError;
use crate::open::{DIRECTORIES, FORMAT_VERSION, OpenLock, read_version, share_root, take_root};
use crate::remove::RemoveTree;
use crate::store::{DATABASE, Store, StoreError, boot_id};

use self::check::Check;
use self::database::{Found, find_database};
pub use self::report::{
    Checked, Damage, DamageKind, Dependant, FsckReport, Healing, Leftover, LeftoverKind, Problem,
    Recovered,
};

/// A snapshot as the layer that it is now.
#[derive(Clone, Debug)]
pub struct Examined {
    /// Digest of the tar that packing it gives.
    pub diff_id: DiffId,
    /// Size of that tar.
    pub tar_size: u64,
    /// Its entries.
    pub entries: Vec<Entry>,
}

/// Why a snapshot could not be examined.
#[derive(Debug, thiserror::Error)]
pub enum ExamineError {
    /// The disk did not give what is there: that is damage.
    #[error("{reason}")]
    Unreadable {
        /// What could not be read, and why.
        reason: String,
    },
    /// Nobody could look.
    #[error(transparent)]
    Failed(Box<dyn std::error::Error + Send + Sync>),
}

/// Reads snapshots for [`fsck`]: what is in them may belong to ids that only a user namespace has, and only packing knows
/// what a tree is as a layer.
pub trait ExamineSnapshot: fmt::Debug + Sync {
    /// Reads the whole tree at `directory`, changing nothing.
    fn examine(&self, directory: &Path) -> Result<Examined, ExamineError>;

    /// What was left out of the snapshots of this store, because whoever unpacked them may not make it.
    fn limits(&self) -> SnapshotLimits {
        SnapshotLimits::default()
    }
}

/// What snapshots may lack of what their entry tables say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotLimits {
    /// Device nodes and `trusted.*` attributes: only root of the machine makes them.
    pub lacks_privileged: bool,
    /// Owners.
    pub lacks_owners: bool,
}

/// Why a store could not be checked or mended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FsckError {
    /// There is none.
    #[error("there is no store at `{root}`")]
    NoStore {
        /// The directory.
        root: PathBuf,
    },
    /// Its making did not come to its end, or its version file was removed.
    #[error("`{root}` has a database and no `VERSION`: it is not a store yet")]
    Unfinished {
        /// The directory.
        root: PathBuf,
    },
    /// Nothing can be written beside it, and the database and locks need that even for reading.
    #[error("the store `{root}` is on a read-only file system")]
    ReadOnly {
        /// The store.
        root: PathBuf,
    },
    /// It is in use.
    #[error("the store `{root}` is in use, and a repair needs it alone")]
    Busy {
        /// The store.
        root: PathBuf,
    },
    /// Another process repairs it.
    #[error(
        "another rbuild has the store `{root}` for itself, to repair it or to bring it to another format"
    )]
    Taken {
        /// The store.
        root: PathBuf,
    },
    /// It is of an older format.
    #[error(
        "the store `{root}` is of format {found}, and only format {FORMAT_VERSION} can be checked"
    )]
    Older {
        /// The store.
        root: PathBuf,
        /// Its format.
        found: u32,
    },
    /// A snapshot could not be looked at.
    #[error("cannot examine the snapshot `{path}`")]
    Examine {
        /// Its directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A directory could not be read.
    #[error("cannot read `{path}`")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something could not be written or removed.
    #[error("cannot repair `{path}`")]
    Repair {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] Box<StoreError>),
    /// The database did not answer.
    #[error(transparent)]
    Db(#[from] DbError),
    /// A lock.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// No place to move things to.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// A layer could not be taken out.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// A blob could not be taken out.
    #[error(transparent)]
    Blob(Box<BlobError>),
}

impl From<StoreError> for FsckError {
    fn from(error: StoreError) -> Self {
        Self::Store(Box::new(error))
    }
}

/// Checks the store at `root`, and mends it if `repairs`.
///
/// Without a repair it may be called while others use the store, and writes nothing.
pub fn fsck(
    root: &Path,
    remover: Arc<dyn RemoveTree>,
    examiner: &dyn ExamineSnapshot,
    repairs: bool,
) -> Result<FsckReport, FsckError> {
    let root = std::path::absolute(root).map_err(|source| FsckError::Read {
        path: root.to_owned(),
        source,
    })?;
    let mut report = FsckReport::default();
    let is_version_damaged = match read_version(&root) {
        Ok(Some(FORMAT_VERSION)) => false,
        Ok(Some(found)) => return Err(FsckError::Older { root, found }),
        Ok(None) if root.join(DATABASE).exists() => return Err(FsckError::Unfinished { root }),
        Ok(None) => return Err(FsckError::NoStore { root }),
        Err(StoreError::Version { .. }) => true,
        Err(error) => return Err(error.into()),
    };
    if is_read_only(&root)? {
        return Err(FsckError::ReadOnly { root });
    }
    let lock = lock(&root, repairs)?;
    if is_version_damaged {
        report
            .damages
            .push(layout(root.join("VERSION"), Problem::Version));
    }
    for name in DIRECTORIES {
        let path = root.join(name);
        if !path.is_dir() {
            let is_other = std::fs::symlink_metadata(&path).is_ok();
            let problem = if is_other {
                Problem::NoDirectory
            } else {
                Problem::Missing
            };
            report.damages.push(layout(path, problem));
        }
    }
    if repairs {
        repair::layout(&root, &mut report)?;
    }
    let (db, rebuilt) = match find_database(&root, repairs)? {
        Found::Sound(db) => (db, None),
        Found::Damaged(rebuilt, damage) => {
            report.damages.push(*damage);
            (rebuilt.db, Some(rebuilt.path))
        }
    };
    let lock = Arc::new(lock);
    let store = Store::assemble(root, remover, boot_id()?, db, Arc::clone(&lock));
    let mut check = Check::new(&store, examiner, report);
    if rebuilt.is_some() {
        check.recover()?;
    }
    // Whoever has read all of it need not drop what may not have reached the disk.
    check.everything(repairs || rebuilt.is_some())?;
    let mut report = check.report;
    if repairs {
        repair::repair(&store, &mut report)?;
        if let Some(new) = rebuilt {
            database::replace(store, &new)?;
        }
    }
    Ok(report)
}

fn is_read_only(root: &Path) -> Result<bool, FsckError> {
    let status = rustix::fs::statvfs(root).map_err(|errno| FsckError::Read {
        path: root.to_owned(),
        source: errno.into(),
    })?;
    Ok(status.f_flag.contains(StatVfsMountFlags::RDONLY))
}

fn lock(root: &Path, repairs: bool) -> Result<OpenLock, FsckError> {
    let root = root.to_owned();
    if repairs {
        take_root(&root)?.ok_or(FsckError::Busy { root })
    } else {
        share_root(&root)?.ok_or(FsckError::Taken { root })
    }
}

fn layout(path: PathBuf, problem: Problem) -> Damage {
    Damage {
        kind: DamageKind::Layout,
        id: path.display().to_string(),
        path,
        problems: vec![problem],
        needed_by: Vec::new(),
        healing: Healing::Mended,
        is_repaired: false,
        cure: report::Cure::Done,
    }
}
