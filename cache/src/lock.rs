//! Locks between processes: flock on a file, let go by the kernel when the holder dies.
//!
//! Liveness is never judged by pid or age, so this works between pid namespaces that share a volume. A lock file
//! may be removed only by who holds it. One who waited may therefore win the lock of a file that has no name any
//! more; [`LockFile::acquire`] notices and starts over.
//!
//! The descriptors are close-on-exec, but a `fork` without `exec` shares the lock: the spawner is forked before a
//! store is opened.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Why a lock could not be taken.
#[derive(Debug, thiserror::Error)]
#[error("cannot lock `{path}`")]
pub struct LockError {
    /// The lock file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// An exclusive lock; dropping it removes the file and lets go.
#[derive(Debug)]
pub(crate) struct LockFile {
    file: File,
    path: PathBuf,
}

impl LockFile {
    /// Waits until nobody else holds the lock at `path`. Its directory exists.
    pub(crate) fn acquire(path: &Path) -> Result<Self, LockError> {
        loop {
            let file = open(path, true)?;
            wait(&file, path, File::lock)?;
            if let Some(lock) = Self::named(file, path)? {
                return Ok(lock);
            }
        }
    }

    /// Takes the lock at `path`; none when somebody else holds it.
    pub(crate) fn try_acquire(path: &Path) -> Result<Option<Self>, LockError> {
        loop {
            let file = open(path, true)?;
            if !try_now(&file, path)? {
                return Ok(None);
            }
            if let Some(lock) = Self::named(file, path)? {
                return Ok(Some(lock));
            }
        }
    }

    /// Takes the lock that a dead process left at `path`; none when its holder lives or the file is gone.
    pub(crate) fn try_inherit(path: &Path) -> Result<Option<Self>, LockError> {
        match open(path, false) {
            Ok(file) if try_now(&file, path)? => Self::named(file, path),
            Ok(_) => Ok(None),
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The open lock file, for its holder to write in.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// A lock, if the locked file still is the one at `path`.
    fn named(file: File, path: &Path) -> Result<Option<Self>, LockError> {
        Ok(is_named(&file, path)?.then(|| Self {
            file,
            path: path.to_owned(),
        }))
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // Removed while the lock is held. What stays behind on failure is taken by the next who needs this name.
        if let Err(source) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), error = %source, "lock file stays");
        }
        unlock(&self.file);
    }
}

/// Removes the lock files in `directory` whose names begin with `prefix` and that nobody holds: their holders died.
pub(crate) fn remove_dead(directory: &Path, prefix: &str) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if !entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(prefix.as_bytes())
        {
            continue;
        }
        match LockFile::try_inherit(&entry.path()) {
            Ok(lock) => drop(lock),
            Err(error) => {
                // It harms nobody: who needs the lock takes it as it is.
                tracing::debug!(path = %error.path.display(), error = %error.source, "lock file stays");
            }
        }
    }
    Ok(())
}

/// A shared or exclusive lock on a file that stays when it is let go of.
#[derive(Debug)]
pub(crate) struct StandingLock {
    /// Holds the lock as long as it is open.
    file: File,
    path: PathBuf,
}

impl StandingLock {
    /// Waits for a lock that others may share.
    pub(crate) fn shared(path: &Path) -> Result<Self, LockError> {
        Self::wait(path, File::lock_shared)
    }

    /// Waits for a lock that nobody else has.
    pub(crate) fn exclusive(path: &Path) -> Result<Self, LockError> {
        Self::wait(path, File::lock)
    }

    fn wait(path: &Path, lock: impl Fn(&File) -> io::Result<()>) -> Result<Self, LockError> {
        let file = open(path, true)?;
        wait(&file, path, lock)?;
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }

    /// Takes a lock that others may share; none when somebody has it alone.
    pub(crate) fn try_shared(path: &Path) -> Result<Option<Self>, LockError> {
        Self::try_with(path, File::try_lock_shared)
    }

    /// Takes a lock, and makes sure that its file still has its name: see [`remove_dead`](Self::remove_dead).
    fn try_with(
        path: &Path,
        lock: impl Fn(&File) -> Result<(), TryLockError>,
    ) -> Result<Option<Self>, LockError> {
        loop {
            let file = open(path, true)?;
            match lock(&file) {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(source)) => return Err(error(path, source)),
            }
            if is_named(&file, path)? {
                return Ok(Some(Self {
                    file,
                    path: path.to_owned(),
                }));
            }
        }
    }

    /// Removes the lock file of something that is gone, unless somebody has the lock. Only of locks that are always tried
    /// for, never waited for: one who waited would have a lock without a name.
    pub(crate) fn remove_dead(path: &Path) -> Result<(), LockError> {
        // A lock file that nobody has is inherited, and removed when it is dropped.
        LockFile::try_inherit(path).map(drop)
    }

    /// Lets others share the lock from now on. Waits for one that took it alone in the moment between.
    pub(crate) fn share(&self) -> Result<(), LockError> {
        wait(&self.file, &self.path, File::lock_shared)
    }

    /// Takes an exclusive lock; none when somebody has the lock in any form.
    pub(crate) fn try_exclusive(path: &Path) -> Result<Option<Self>, LockError> {
        Self::try_with(path, File::try_lock)
    }
}

impl Drop for StandingLock {
    fn drop(&mut self) {
        unlock(&self.file);
    }
}

/// True when somebody has the lock of the file at `path` alone; false also when there is no such file.
pub(crate) fn is_locked(path: &Path) -> io::Result<bool> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    match file.try_lock_shared() {
        Ok(()) => {
            unlock(&file);
            Ok(false)
        }
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// True when somebody has the lock of the file at `path` in any form.
pub(crate) fn is_locked_shared(path: &Path) -> io::Result<bool> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    match file.try_lock() {
        Ok(()) => {
            unlock(&file);
            Ok(false)
        }
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// True when the open file still is the one at `path`.
fn is_named(file: &File, path: &Path) -> Result<bool, LockError> {
    let held = file.metadata().map_err(|source| error(path, source))?;
    match std::fs::symlink_metadata(path) {
        Ok(at_path) => Ok(at_path.ino() == held.ino() && at_path.dev() == held.dev()),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(error(path, source)),
    }
}

/// Lets go at once. Closing alone would not, while a child that another thread has just forked keeps its copy of the
/// descriptor until it calls exec.
pub(crate) fn unlock(file: &File) {
    if let Err(error) = file.unlock() {
        tracing::debug!(%error, "unlocking by closing");
    }
}

fn open(path: &Path, creates: bool) -> Result<File, LockError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(creates)
        .mode(0o600)
        .open(path)
        .map_err(|source| error(path, source))
}

fn wait(file: &File, path: &Path, lock: impl Fn(&File) -> io::Result<()>) -> Result<(), LockError> {
    loop {
        match lock(file) {
            Err(source) if source.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map_err(|source| error(path, source)),
        }
    }
}

fn try_now(file: &File, path: &Path) -> Result<bool, LockError> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(source)) => Err(error(path, source)),
    }
}

fn error(path: &Path, source: io::Error) -> LockError {
    LockError {
        path: path.to_owned(),
        source,
    }
}
