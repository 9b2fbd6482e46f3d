//! Looking at cache mounts, and removing single ones.

#![expect(
    clippy::redundant_closure_for_method_calls,
    reason = "the methods are not general enough over their lifetimes"
)]

use std::path::PathBuf;

use super::mount_lock_name;
use crate::db::DbError;
use crate::gc::GcError;
use crate::lease::LeaseError;
use crate::lock::{LockError, StandingLock};
use crate::store::{Store, StoreError, now};

/// A cache mount and what it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheMountUse {
    /// Its directory under `mounts/`.
    pub directory: String,
    /// The id in the Dockerfile.
    pub title: String,
    /// Bytes on the disk.
    pub bytes: u64,
    /// When it was made: seconds since the epoch.
    pub created: i64,
    /// When it was used last, at most an hour late.
    pub used: i64,
    /// A step has it now.
    pub is_in_use: bool,
}

impl CacheMountUse {
    /// Seconds since it was used.
    pub fn age(&self) -> u64 {
        u64::try_from(now().saturating_sub(self.used)).unwrap_or(0)
    }
}

/// Why a cache mount could not be removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountRemoveError {
    /// There is none like that.
    #[error("the store has no cache mount `{id}`")]
    Unknown {
        /// What was asked for.
        id: String,
    },
    /// A step is running with it.
    #[error("cache mount `{title}` (`{directory}`) is in use by a running step")]
    InUse {
        /// The id in the Dockerfile.
        title: String,
        /// Its directory.
        directory: String,
    },
    /// Its directory could not be moved out of the way.
    #[error("cannot remove cache mount `{path}`")]
    Remove {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Sizes or uses could not be found out.
    #[error(transparent)]
    Gc(#[from] Box<GcError>),
    /// Its lock could not be tried.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// No place to move it to.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The store.
    #[error(transparent)]
    Store(#[from] Box<StoreError>),
    /// The database did not answer.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl Store {
    /// All cache mounts by id. Walks them, for their sizes.
    pub fn cache_mounts(&self) -> Result<Vec<CacheMountUse>, GcError> {
        self.inner.measure_unknown()?;
        let holds = self.inner.holds()?;
        let mounts = self.inner.db.read(|tables| tables.mounts())?;
        Ok(mounts
            .into_iter()
            .map(|mount| CacheMountUse {
                is_in_use: holds.mounts.contains(&mount.directory),
                directory: mount.directory,
                title: mount.title,
                bytes: mount.disk.unwrap_or(0),
                created: mount.created,
                used: mount.used,
            })
            .collect())
    }

    /// Removes the cache mounts of an id: by the Dockerfile's id, or by the first digits (four at least) of a directory's
    /// name. Either all that fit go, or none: when one is in use, that one is named.
    pub fn remove_cache_mount(&self, id: &str) -> Result<Vec<CacheMountUse>, MountRemoveError> {
        let inner = &self.inner;
        let mut mounts = self.cache_mounts().map_err(Box::new)?;
        let has_title = mounts.iter().any(|mount| mount.title == id);
        mounts.retain(|mount| {
            if has_title {
                mount.title == id
            } else {
                id.len() >= 4 && mount.directory.starts_with(id)
            }
        });
        if mounts.is_empty() {
            return Err(MountRemoveError::Unknown { id: id.to_owned() });
        }
        let mut locks = Vec::new();
        for mount in &mounts {
            let path = inner.locks.join(mount_lock_name(&mount.directory));
            let lock = StandingLock::try_exclusive(&path)?;
            locks.push((
                path,
                lock.ok_or_else(|| MountRemoveError::InUse {
                    title: mount.title.clone(),
                    directory: mount.directory.clone(),
                })?,
            ));
        }
        let lease = self.lease().map_err(Box::new)?;
        let grave = lease.scratch("mounts")?;
        inner.db.write(|tables| {
            for mount in &mounts {
                let path = inner.mounts.join(&mount.directory);
                let moved = (inner.remover).move_tree(&path, &grave.join(&mount.directory));
                match moved {
                    Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                        return Err(MountRemoveError::Remove { path, source });
                    }
                    _ => tables.remove_cache_mount(&mount.directory)?,
                }
            }
            Ok(())
        })?;
        for (path, lock) in locks {
            drop(lock);
            StandingLock::remove_dead(&path)?;
        }
        // The trees go with the lease.
        Ok(mounts)
    }
}
