//! What failed steps left, kept for a look at it.
//!
//! ```text
//! kept/<build>-<step>/<part>/   directories of the build's lease, moved here as they were when the step failed
//! ```
//!
//! A row names the snapshots that they stand on, which pruning spares as long as the row is there, and holds the
//! builder's description of how to see it all again. Like a snapshot, what is kept appears by a rename and a row in one
//! transaction: a directory without a row is what a crash left and is removed by pruning, a row without its directory is
//! one that somebody removed. Nothing below `kept/` is ever written to: who looks at it mounts something above.
//!
//! Not worth a lot for long: the newest [`KeptLimits`] stay, and pruning takes them first, the oldest before the others.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::db::{DbError, KeptRow, Unsynced};
use crate::failpoint::reach;
use crate::history::{compress, decompress};
use crate::layer::{SnapshotId, is_directory};
use crate::lease::{Lease, LeaseError};
use crate::lock::{LockError, StandingLock};
use crate::store::{Store, now};

/// Directory of the store that holds them.
pub(crate) const KEPT: &str = "kept";

/// Largest description that is read: it holds a step's environment and scripts.
const MAX_DESCRIPTION: usize = 64 << 20;

/// Level of compression of descriptions.
const DESCRIPTION_LEVEL: i32 = 1;

/// Why something could not be kept, or be looked at again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeptError {
    /// A directory could not be moved.
    #[error("cannot move `{from}` to `{to}`")]
    Move {
        /// From where.
        from: PathBuf,
        /// To where.
        to: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No place to move it to, or no hold on it.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The lock that keeps holds and removals apart.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The database did not answer.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Which step of which build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptId {
    /// The build's id.
    pub build: String,
    /// The step's number in the build, from 1.
    pub step: usize,
}

impl KeptId {
    /// Name of the directory under `kept/`.
    fn name(&self) -> String {
        format!("{}-{}", self.build, self.step)
    }
}

/// Something to be kept.
#[derive(Clone, Debug)]
pub struct NewKept<'a> {
    /// Of which step.
    pub id: KeptId,
    /// What people call the step.
    pub title: &'a str,
    /// What it stands on.
    pub snapshots: &'a BTreeSet<SnapshotId>,
    /// How to see it again: the builder's, kept as it is.
    pub description: &'a [u8],
    /// Directories of the lease. They are moved, each under its own name.
    pub parts: &'a [PathBuf],
}

/// Something that is kept.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Its directory, which holds the parts.
    pub path: PathBuf,
    /// What people call the step.
    pub title: String,
    /// When it was kept: seconds since the epoch.
    pub created: i64,
    /// The builder's. Empty when it is damaged.
    pub description: Vec<u8>,
}

/// How much is kept of failed steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptLimits {
    /// Most file systems.
    pub count: usize,
    /// Oldest one, in seconds.
    pub age: i64,
}

impl Default for KeptLimits {
    /// What is kept when nobody says otherwise: the newest 8, for 7 days.
    fn default() -> Self {
        Self {
            count: 8,
            age: 7 * 24 * 3600,
        }
    }
}

impl KeptLimits {
    /// Those of `rows`, newest first, that are too many or too old.
    pub(crate) fn surplus(self, rows: &[KeptRow], now: i64) -> BTreeSet<String> {
        (rows.iter().enumerate())
            .filter(|(position, row)| {
                *position >= self.count || now.saturating_sub(row.created) > self.age
            })
            .map(|(_, row)| row.name.clone())
            .collect()
    }
}

/// Whether a name leads nowhere but to a directory under `kept/`.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    !name.is_empty() && name.bytes().all(is_plain)
}

impl KeptRow {
    /// Whether the name leads nowhere but to a directory under `kept/`.
    pub(crate) fn has_plain_name(&self) -> bool {
        is_plain_name(&self.name)
    }

    /// Whether it is of this build.
    pub(crate) fn is_of(&self, build: &str) -> bool {
        self.name
            .rsplit_once('-')
            .is_some_and(|(of, _)| of == build)
    }

    /// What it stands on; none when a name is not one of a snapshot.
    pub(crate) fn snapshot_ids(&self) -> Option<BTreeSet<SnapshotId>> {
        (self.snapshots.iter())
            .map(|name| SnapshotId::parse(name))
            .collect()
    }
}

impl Lease {
    /// Keeps what a step left in this lease's directory, and holds it as long as the lease lives.
    ///
    /// What is kept under this name already makes room. `Ok` means that it will be found, also when this process is killed.
    pub fn keep(&self, new: &NewKept<'_>) -> Result<(), KeptError> {
        let store = self.store();
        let inner = &store.inner;
        let name = new.id.name();
        let target = inner.kept.join(&name);
        let together = self.scratch("kept")?;
        let move_tree = |from: &Path, to: &Path| {
            let moved = inner.remover.move_tree(from, to);
            moved.map_err(|source| KeptError::Move {
                from: from.to_owned(),
                to: to.to_owned(),
                source,
            })
        };
        for part in new.parts {
            move_tree(part, &together.join(part.file_name().unwrap_or_default()))?;
        }
        let row = KeptRow {
            name: name.clone(),
            title: new.title.to_owned(),
            created: now(),
            disk: None,
            snapshots: (new.snapshots.iter())
                .map(|snapshot| snapshot.as_str().to_owned())
                .collect(),
        };
        let description = compress(new.description, DESCRIPTION_LEVEL);
        let aside = self.scratch("orphan")?;
        let _gc = StandingLock::shared(&inner.gc_lock())?;
        self.list_kept(&name)?;
        inner.db.write(|tables| {
            // What stands there without a row is the rest of a crash.
            if is_directory(&target) {
                move_tree(&target, &aside.join("old"))?;
            }
            move_tree(&together, &target)?;
            reach("kept-moved");
            tables.put_kept(&row, &description)?;
            tables.add_unsynced(&inner.boot, &Unsynced::Kept(name.clone()))?;
            Ok::<_, KeptError>(())
        })?;
        inner.mark_dirty();
        reach("kept-committed");
        Ok(())
    }

    /// What is kept of a step, with all that it stands on, for as long as the lease lives. None when nothing is.
    pub fn hold_kept(&self, id: &KeptId) -> Result<Option<Kept>, KeptError> {
        let store = self.store();
        let inner = &store.inner;
        let name = id.name();
        let _gc = StandingLock::shared(&inner.gc_lock())?;
        let found = inner.db.read(|tables| tables.one_kept(&name))?;
        let path = inner.kept.join(&name);
        let Some((row, description)) = found.filter(|(row, _)| row.has_plain_name()) else {
            return Ok(None);
        };
        if !is_directory(&path) {
            return Ok(None);
        }
        self.list_kept(&name)?;
        let snapshots = row.snapshot_ids().unwrap_or_default();
        self.hold_present(&snapshots.iter().collect())?;
        Ok(Some(Kept {
            path,
            title: row.title,
            created: row.created,
            description: decompress(&description, MAX_DESCRIPTION).unwrap_or_default(),
        }))
    }
}

impl Store {
    /// Whether something is kept of a step.
    pub fn has_kept(&self, id: &KeptId) -> Result<bool, DbError> {
        let name = id.name();
        let found = self.inner.db.read(|tables| tables.one_kept(&name))?;
        Ok(found.is_some() && is_directory(&self.inner.kept.join(&name)))
    }
}
