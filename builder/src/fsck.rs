//! Checking and mending a store: the cache knows what has to hold, the spawner may look at every file.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rbuild_cache::{ExamineError, ExamineSnapshot, Examined, FsckReport, SnapshotLimits};
use rbuild_runner::isolation::Rung;
use rbuild_runner::{JobError, JobErrorKind, Spawner};
use rustix::io::Errno;

use crate::convert;
use crate::engine::{EngineOptions, Ground, TreesOfSpawner};
use crate::error::BuildError;

/// Why a store could not be checked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FsckError {
    /// It belongs to someone else, whose ids mean other things.
    #[error("the store `{root}` belongs to the user {owner}")]
    OtherUser {
        /// The store.
        root: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// Its directory can't be looked at.
    #[error("cannot read `{root}`")]
    Read {
        /// The store.
        root: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store could not be checked or mended.
    #[error(transparent)]
    Store(#[from] rbuild_cache::FsckError),
    /// The spawner can't be had.
    #[error(transparent)]
    Engine(Box<BuildError>),
}

impl FsckError {
    /// What the user can do about it.
    pub fn help(&self) -> Option<String> {
        use rbuild_cache::FsckError as Cause;
        match self {
            Self::OtherUser { .. } => Some("check it as that user".to_owned()),
            Self::Store(Cause::NoStore { .. }) => Some(
                "name one with `--root` or RBUILD_ROOT; `rbuild info` says which is the usual one"
                    .to_owned(),
            ),
            Self::Store(Cause::Unfinished { .. }) => {
                Some("`rbuild images` makes what is missing; then check it".to_owned())
            }
            Self::Store(Cause::ReadOnly { .. }) => Some(
                "mount it writable, or check a copy of it (`cp -a`) that can be written to"
                    .to_owned(),
            ),
            Self::Store(Cause::Busy { .. }) => Some(
                "wait until all builds, pulls and prunes are over, then repair it; `rbuild fsck` alone needs no waiting"
                    .to_owned(),
            ),
            Self::Store(Cause::Taken { .. }) => Some("try again when that is done".to_owned()),
            Self::Store(Cause::Older { .. }) => {
                Some("`rbuild images` brings it to this format".to_owned())
            }
            Self::Engine(error) => error.help(),
            Self::Read { .. } | Self::Store(_) => None,
        }
    }
}

/// Checks the store that an engine with these options would open, and mends it if `repairs`. Blocks.
///
/// Without a repair nothing is written, and builds may go on.
///
/// # Errors
/// There is no such store, a repair can't have it alone, or something in it can't be looked at. Damage is no error.
pub fn fsck(options: &EngineOptions, repairs: bool) -> Result<FsckReport, FsckError> {
    let ground = Ground::of(options).map_err(|error| FsckError::Engine(Box::new(error)))?;
    refuse_other_users(&ground.root)?;
    let limits = SnapshotLimits {
        lacks_privileged: !matches!(ground.rung, Ok(Rung::Namespaces)),
        lacks_owners: ground.loses_owners(),
    };
    let examiner = Examiner {
        spawner: ground.spawner.clone(),
        limits,
    };
    let trees = Arc::new(TreesOfSpawner(ground.spawner));
    Ok(rbuild_cache::fsck(&ground.root, trees, &examiner, repairs)?)
}

/// As root, owners in a user's store would be taken for damage.
fn refuse_other_users(root: &Path) -> Result<(), FsckError> {
    let owner = match std::fs::symlink_metadata(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata
            .map_err(|source| FsckError::Read {
                root: root.to_owned(),
                source,
            })?
            .uid(),
    };
    if owner == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    Err(FsckError::OtherUser {
        root: root.to_owned(),
        owner,
    })
}

/// Reads snapshots by way of the spawner.
#[derive(Debug)]
struct Examiner {
    spawner: Spawner,
    limits: SnapshotLimits,
}

impl ExamineSnapshot for Examiner {
    fn examine(&self, directory: &Path) -> Result<Examined, ExamineError> {
        let sealed = self.spawner.examine(directory).map_err(judge)?;
        let diff_id = convert::digest(&sealed.diff_id)
            .map_err(|error| ExamineError::Failed(Box::new(error)))?;
        Ok(Examined {
            diff_id: diff_id.into(),
            tar_size: sealed.tar_size,
            entries: sealed.entries.into_iter().map(convert::entry).collect(),
        })
    }

    fn limits(&self) -> SnapshotLimits {
        self.limits
    }
}

/// Tells what a disk spoiled from what nobody may look at.
fn judge(error: JobError) -> ExamineError {
    let errno = error.errno.map(Errno::from_raw_os_error);
    let is_forbidden = matches!(errno, Some(Errno::ACCESS | Errno::PERM));
    if error.kind != JobErrorKind::Files || is_forbidden {
        return ExamineError::Failed(Box::new(error));
    }
    let first: &(dyn std::error::Error + 'static) = &error;
    let chain: Vec<String> = std::iter::successors(Some(first), |&error| error.source())
        .map(ToString::to_string)
        .collect();
    ExamineError::Unreadable {
        reason: chain.join(": "),
    }
}
