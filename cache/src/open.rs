//! Opening a store: making it where there is none, and bringing an older one to this format.
//!
//! ```text
//! ROOT itself is locked (flock)   shared while a store is open; exclusively while it is made, migrated or repaired
//! VERSION                         what an rbuild must know to use the store; raised before a migration begins
//! user_version of the database    what the store has been brought to
//! ```
//!
//! A store of an older format is migrated one version at a time, see [`crate::db`]'s list of migrations. `VERSION` is
//! raised first, so that no older rbuild opens a store that is on its way; each migration is one transaction that also
//! raises `user_version`, so one that was killed half-way has not happened, and the next opening starts it again.

use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{IFlags, Mode, OFlags, ioctl_getflags, ioctl_setflags};

use crate::db::{Db, DbError, NotADatabase};
use crate::failpoint::reach;
use crate::kept::KEPT;
use crate::lease::has_live;
use crate::lock::unlock;
use crate::store::{DATABASE, StoreError};

/// Version of everything on disk. A change that an older rbuild would misread raises it, and adds a migration.
pub const FORMAT_VERSION: u32 = 3;

/// A store of its own in the directory of another, see `EngineOptions` of builder.
pub(crate) const NESTED: &str = "one-id";

/// Where leases have their directories.
pub(crate) const WORK: &str = "work";

/// Directories of a store, in the order in which they are made.
pub(crate) const DIRECTORIES: [&str; 9] = [
    "blobs",
    "blobs/sha256",
    "snapshots",
    "mounts",
    "statcache",
    WORK,
    "locks",
    "logs",
    KEPT,
];

/// How long the making, migration or repair of a store by another process is waited for. Making takes milliseconds, a
/// migration seconds; a repair reads every blob, and is not waited for to its end.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a repair waits for the store to itself: longer than a verb that only looks, shorter than a build.
const MOMENT: Duration = Duration::from_secs(1);

/// Pause before the lock is asked for again.
const PAUSE: Duration = Duration::from_millis(10);

/// Says that a process has the store open; dropping it lets go.
#[derive(Debug)]
pub(crate) struct OpenLock {
    /// The root directory, locked.
    root: File,
}

impl Drop for OpenLock {
    fn drop(&mut self) {
        unlock(&self.root);
    }
}

/// Opens the database of a store that is made where it is missing, and brought to this format where it is older.
pub(crate) fn open_or_create(root: &Path) -> Result<(Db, OpenLock), StoreError> {
    let started = Instant::now();
    loop {
        if let Some(lock) = lock_root(root, File::try_lock_shared)?
            && is_current(root)?
            && let Some(db) = Db::open(&root.join(DATABASE))?
            && db.version()? == FORMAT_VERSION
        {
            make_directories(root)?;
            return Ok((db, lock));
        }
        // The shared lock is gone here: from now on one process at a time.
        make_directory(root, true)?;
        if let Some(_alone) = lock_root(root, File::try_lock)? {
            make_ready(root)?;
        } else if started.elapsed() > PATIENCE {
            return Err(StoreError::Busy {
                root: root.to_owned(),
                reason: "another rbuild is repairing it or bringing it to another format",
            });
        } else {
            std::thread::sleep(PAUSE);
        }
    }
}

/// Locks a root as those do who use the store; none when a process has it alone, or there is no such directory.
pub(crate) fn share_root(root: &Path) -> Result<Option<OpenLock>, StoreError> {
    lock_root(root, File::try_lock_shared)
}

/// Locks a root for this process alone, where nobody uses the store within [`MOMENT`]; none when somebody does.
pub(crate) fn take_root(root: &Path) -> Result<Option<OpenLock>, StoreError> {
    let started = Instant::now();
    loop {
        match lock_root(root, File::try_lock)? {
            None if started.elapsed() < MOMENT => std::thread::sleep(PAUSE),
            lock => return Ok(lock),
        }
    }
}

/// Locks the root; none when another process excludes it, or there is no such directory.
fn lock_root(
    root: &Path,
    lock: impl Fn(&File) -> Result<(), TryLockError>,
) -> Result<Option<OpenLock>, StoreError> {
    let failed = |source| StoreError::Read {
        path: root.to_owned(),
        source,
    };
    let directory = match File::open(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        directory => directory.map_err(failed)?,
    };
    match lock(&directory) {
        Ok(()) => Ok(Some(OpenLock { root: directory })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Makes every part that is missing, and migrates. The caller has the root alone.
fn make_ready(root: &Path) -> Result<(), StoreError> {
    let found = read_version(root)?;
    match found {
        None => refuse_foreign(root)?,
        // Format 1 did not say that a store is open, but every build of it has a lease.
        Some(1) => {
            let work = root.join(WORK);
            let is_used =
                has_live(&work).map_err(|source| StoreError::Read { path: work, source })?;
            if is_used {
                return Err(StoreError::Busy {
                    root: root.to_owned(),
                    reason: "an older rbuild is building, and this one keeps the store in another format",
                });
            }
        }
        Some(_) => {}
    }
    for directory in DIRECTORIES {
        make_directory(&root.join(directory), false)?;
    }
    spread(&root.join(WORK));
    reach("store-directories");
    if found.is_some_and(|found| found != FORMAT_VERSION) {
        write_version(root)?;
        reach("migration-announced");
    }
    let path = root.join(DATABASE);
    // A store that is one has a database: making a new one would forget all that it held.
    if found.is_some() && !path.exists() {
        return Err(lost(path, NotADatabase::Missing));
    }
    if found.is_some()
        && let Some(db) = Db::open(&path)?
        && db.version()? == 0
    {
        return Err(lost(path, NotADatabase::Empty));
    }
    let db = Db::create(&path)?;
    reach("store-database");
    let made = db.version()?;
    if made != FORMAT_VERSION {
        return Err(lost(
            path,
            NotADatabase::Format {
                found: made,
                expected: FORMAT_VERSION,
            },
        ));
    }
    if found.is_none() {
        // A power cut must not leave the version and take the tables.
        db.make_durable()?;
        // Last: a directory without it is not a store yet.
        write_version(root)?;
    }
    reach("store-version");
    Ok(())
}

/// Has ext4 put each directory made in this one into a block group of its own choice instead of beside the others.
///
/// Every step removes some ten inodes, most of them overlayfs's own, and ext4 walks past those of a group that were removed
/// in the last minutes whenever it makes one there. So the leases of a store don't stand in each other's way: 200 RUN steps
/// soon after other builds take a fifth less. Other file systems don't know the flag, and lose nothing without it.
fn spread(directory: &Path) {
    let set = || -> Result<(), rustix::io::Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(directory, flags, Mode::empty())?;
        let flags = ioctl_getflags(&directory)?;
        ioctl_setflags(&directory, flags | IFlags::TOPDIR)
    };
    if let Err(error) = set() {
        tracing::debug!(%error, "leases will share a block group");
    }
}

fn lost(path: PathBuf, source: NotADatabase) -> StoreError {
    StoreError::Db(DbError::Lost { path, source })
}

/// True when the store has this version; false when it is older or has none yet.
fn is_current(root: &Path) -> Result<bool, StoreError> {
    Ok(read_version(root)? == Some(FORMAT_VERSION))
}

/// The store's version, at most [`FORMAT_VERSION`]; none when it has none yet.
pub(crate) fn read_version(root: &Path) -> Result<Option<u32>, StoreError> {
    let path = root.join("VERSION");
    let text = match std::fs::read(&path) {
        Ok(text) => String::from_utf8_lossy(&text).trim().to_owned(),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound) => return Ok(None),
        Err(source) => return Err(StoreError::Read { path, source }),
    };
    match text.parse::<u32>() {
        Ok(found @ 1..=FORMAT_VERSION) => Ok(Some(found)),
        Ok(found) if found > FORMAT_VERSION => Err(StoreError::Newer {
            root: root.to_owned(),
            found,
            known: FORMAT_VERSION,
        }),
        _ => Err(StoreError::Version { path, text }),
    }
}

pub(crate) fn write_version(root: &Path) -> Result<(), StoreError> {
    let (path, temporary) = (root.join("VERSION"), root.join("VERSION.new"));
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(format!("{FORMAT_VERSION}\n").as_bytes())?;
        // A rename may reach the disk before the bytes do: an empty version file would be damage for ever.
        file.sync_all()?;
        std::fs::rename(&temporary, &path)
    };
    write().map_err(|source| StoreError::Create {
        path: path.clone(),
        source,
    })
}

/// Refuses a directory that holds what a store does not, so that a mistyped --root does no harm.
fn refuse_foreign(root: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::Read {
        path: root.to_owned(),
        source,
    };
    for entry in std::fs::read_dir(root).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let text = name.to_string_lossy();
        let is_ours = DIRECTORIES.contains(&text.as_ref())
            || text.starts_with(DATABASE)
            || text == "VERSION.new"
            || text == NESTED
            || text == "lost+found";
        if !is_ours {
            return Err(StoreError::NotAStore {
                root: root.to_owned(),
                found: root.join(name),
            });
        }
    }
    Ok(())
}

/// Makes what somebody removed: an empty directory is whole, what was in it is missing.
fn make_directories(root: &Path) -> Result<(), StoreError> {
    let paths = DIRECTORIES.map(|name| root.join(name));
    let mut missing = paths.iter().filter(|path| !path.is_dir());
    missing.try_for_each(|path| make_directory(path, false))
}

/// Makes a directory for the owner alone: layers hold set-user-ID programs and other people's secrets.
pub(crate) fn make_directory(path: &Path, makes_parents: bool) -> Result<(), StoreError> {
    match DirBuilder::new()
        .recursive(makes_parents)
        .mode(0o700)
        .create(path)
    {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        result => result.map_err(|source| StoreError::Create {
            path: path.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Another thread that runs a command has a copy of every descriptor between its fork and its exec.
    #[test]
    fn a_root_is_let_go_of_though_a_child_has_a_copy_of_its_descriptor() {
        let root = tempfile::tempdir().unwrap();
        let alone = take_root(root.path()).unwrap().unwrap();
        let copy = alone.root.try_clone().unwrap();
        assert!(share_root(root.path()).unwrap().is_none());
        drop(alone);
        assert!(share_root(root.path()).unwrap().is_some());
        drop(copy);
    }
}
