//! Cache mounts: directories that `RUN --mount=type=cache` keeps from build to build.
//!
//! ```text
//! mounts/<id>/       the directory; <id> is BLAKE3 of the id in the Dockerfile, with -1, -2 … for private ones
//! locks/mount-<id>   locked shared or exclusively while a step uses it
//! ```
//!
//! The locks die with their holder: a crash in a step never leaves a mount locked. A directory is *new* until the
//! step that prepares it (owner, mode, first content) says so with [`CacheMountGuard::mark_prepared`]; after a crash
//! in between it is new again.

mod manage;

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::db::DbError;
use crate::digest::to_hex;
use crate::failpoint::reach;
use crate::lock::{LockError, StandingLock};
use crate::store::{Store, now};
use crate::usage::Used;

pub use manage::{CacheMountUse, MountRemoveError};

/// BLAKE3 context of directory names. Changing it empties all cache mounts.
const CONTEXT: &str = "rbuild 2026-11-23 cache mount v1";

/// Most private directories of one id. Reached only by as many steps at once; the next one waits for the first.
const PRIVATE_LIMIT: u32 = 256;

/// First pause before a busy mount's lock is asked for again.
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// Longest such pause: how late a waiting step may notice that the other is done.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Who else may use a cache mount at the same time: `sharing=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Sharing {
    /// Everybody, but who wants it locked.
    #[default]
    Shared,
    /// Nobody: another one gets a directory of its own.
    Private,
    /// Nobody: another one waits.
    Locked,
}

/// Which cache mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheMountId {
    /// What tells it from all others: the id, and what its first content is made of.
    pub identity: String,
    /// The id in the Dockerfile, for people.
    pub title: String,
}

impl CacheMountId {
    /// A mount whose id tells it from all others.
    pub fn plain(id: &str) -> Self {
        Self {
            identity: id.to_owned(),
            title: id.to_owned(),
        }
    }
}

/// Why a cache mount could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheMountError {
    /// Its directory could not be made.
    #[error("cannot create cache mount `{path}`")]
    Create {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its lock could not be taken.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The database did not answer.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// A cache mount in use; dropping it lets others have it.
#[derive(Debug)]
pub struct CacheMountGuard {
    store: Store,
    /// Name under `mounts/`.
    directory: String,
    id: CacheMountId,
    path: PathBuf,
    sharing: Sharing,
    is_new: bool,
    lock: StandingLock,
}

impl CacheMountGuard {
    /// The directory to mount.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// True when nobody has prepared the directory yet.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Says that the directory has its owner, mode and first content.
    pub fn mark_prepared(&mut self) -> Result<(), CacheMountError> {
        if self.is_new {
            self.store.inner.db.write(|tables| {
                let (identity, title) = (&self.id.identity, &self.id.title);
                tables.put_cache_mount(&self.directory, identity, title, now())
            })?;
            reach("mount-prepared");
            self.is_new = false;
            self.share()?;
        }
        Ok(())
    }

    /// Lets others in, where sharing allows it.
    fn share(&self) -> Result<(), CacheMountError> {
        match self.sharing {
            Sharing::Shared => Ok(self.lock.share()?),
            Sharing::Private | Sharing::Locked => Ok(()),
        }
    }
}

impl Store {
    /// Takes a cache mount for a step, waiting while others hold it in a way that excludes this one. None when
    /// `is_cancelled` says so first.
    ///
    /// A directory that nobody has prepared yet is empty, and nobody else's until [`CacheMountGuard::mark_prepared`].
    /// A step with several cache mounts takes them in the order of their ids, each once, so that two steps never wait
    /// for one another.
    pub fn lock_cache_mount(
        &self,
        id: &CacheMountId,
        sharing: Sharing,
        is_cancelled: impl Fn() -> bool,
    ) -> Result<Option<CacheMountGuard>, CacheMountError> {
        let mut pause = FIRST_PAUSE;
        loop {
            if let Some(guard) = self.try_lock_cache_mount(id, sharing)? {
                return Ok(Some(guard));
            }
            if is_cancelled() {
                return Ok(None);
            }
            // Asked again and again instead of blocked on: the kernel's wait could not be cancelled.
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn try_lock_cache_mount(
        &self,
        id: &CacheMountId,
        sharing: Sharing,
    ) -> Result<Option<CacheMountGuard>, CacheMountError> {
        let base = directory_name(&id.identity);
        let is_prepared = |directory: &str| {
            self.inner
                .db
                .read(|tables| tables.has_cache_mount(directory))
        };
        let locked = match sharing {
            // The first user prepares it, alone.
            Sharing::Shared if !is_prepared(&base)? => self.try_exclusive(base)?,
            Sharing::Shared => {
                StandingLock::try_shared(&self.mount_lock(&base))?.map(|lock| (base, lock))
            }
            Sharing::Locked => self.try_exclusive(base)?,
            Sharing::Private => self.try_private(&base)?,
        };
        let Some((directory, lock)) = locked else {
            return Ok(None);
        };
        let is_new = !is_prepared(&directory)?;
        if is_new {
            // What a crash left while it was being prepared.
            let path = self.inner.mounts.join(&directory);
            let removed = self.inner.remover.remove_tree(&path);
            removed.map_err(|source| CacheMountError::Create { path, source })?;
        }
        let path = self.make_mount(&directory)?;
        let guard = CacheMountGuard {
            store: self.clone(),
            directory,
            id: id.clone(),
            path,
            sharing,
            is_new,
            lock,
        };
        if !is_new {
            guard.share()?;
            self.inner.note_use(Used::CacheMount(&guard.directory));
        }
        Ok(Some(guard))
    }

    fn try_exclusive(
        &self,
        directory: String,
    ) -> Result<Option<(String, StandingLock)>, CacheMountError> {
        let lock = StandingLock::try_exclusive(&self.mount_lock(&directory))?;
        Ok(lock.map(|lock| (directory, lock)))
    }

    /// The first directory of an id that nobody uses.
    fn try_private(&self, base: &str) -> Result<Option<(String, StandingLock)>, CacheMountError> {
        for number in 0..PRIVATE_LIMIT {
            let directory = if number == 0 {
                base.to_owned()
            } else {
                format!("{base}-{number}")
            };
            if let Some(locked) = self.try_exclusive(directory)? {
                return Ok(Some(locked));
            }
        }
        Ok(None)
    }

    fn make_mount(&self, directory: &str) -> Result<PathBuf, CacheMountError> {
        let path = self.inner.mounts.join(directory);
        match std::fs::DirBuilder::new().mode(0o755).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(path),
            Err(source) => Err(CacheMountError::Create { path, source }),
            Ok(()) => Ok(path),
        }
    }

    fn mount_lock(&self, directory: &str) -> PathBuf {
        self.inner.locks.join(mount_lock_name(directory))
    }
}

/// Name of a cache mount's lock file.
pub(crate) fn mount_lock_name(directory: &str) -> String {
    format!("mount-{directory}")
}

fn directory_name(id: &str) -> String {
    to_hex(&blake3::derive_key(CONTEXT, id.as_bytes())[..20])
}
