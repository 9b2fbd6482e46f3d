//! The library's front door: a store, a spawner, and what can be done with them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rbuild_cache::{Budget, RemoveTree, Store, TreeSize};
use rbuild_runner::{JobError, Spawner};

use crate::error::BuildError;

/// The spawner that [`init`] started.
static SPAWNER: OnceLock<Spawner> = OnceLock::new();

/// Starts the spawner: a small process that does all privileged file work and sets up sandboxes.
///
/// Call it at the top of `main`, before any thread exists: it forks. Calling it again does nothing.
///
/// # Errors
/// The process could not be forked.
pub fn init() -> Result<(), JobError> {
    if SPAWNER.get().is_none() {
        let spawner = Spawner::start()?;
        // Only another caller of this function can have been faster, and then its spawner serves.
        let _ = SPAWNER.set(spawner);
    }
    Ok(())
}

/// Says plainly what is missing, instead of failing at the first mount.
pub(crate) fn require_root() -> Result<(), BuildError> {
    if rustix::process::geteuid().is_root() {
        Ok(())
    } else {
        Err(BuildError::NotRoot)
    }
}

/// Where an engine keeps its things.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The store's directory.
    pub root: PathBuf,
    /// What the store may take; kept to after a build that ran something.
    pub budget: Budget,
}

impl EngineOptions {
    /// `RBUILD_ROOT`; else, as root, `/var/lib/rbuild`; else `$XDG_DATA_HOME/rbuild` or `~/.local/share/rbuild`.
    pub fn default_root() -> PathBuf {
        if let Some(root) = std::env::var_os("RBUILD_ROOT").filter(|root| !root.is_empty()) {
            return PathBuf::from(root);
        }
        if rustix::process::geteuid().is_root() {
            return PathBuf::from("/var/lib/rbuild");
        }
        let data = std::env::var_os("XDG_DATA_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute());
        let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/share"));
        data.or_else(home)
            .unwrap_or_else(|| PathBuf::from("."))
            .join("rbuild")
    }
}

/// A store and a spawner. Cheap to clone; several may share one store directory.
#[derive(Clone, Debug)]
pub struct Engine {
    store: Store,
    spawner: Spawner,
    budget: Budget,
}

impl Engine {
    /// Opens the store, making it when it is missing.
    ///
    /// # Errors
    /// [`init`] was not called, or the store can't be opened.
    pub fn open(options: &EngineOptions) -> Result<Self, BuildError> {
        let spawner = SPAWNER.get().ok_or(BuildError::NotInitialised)?.clone();
        let remover = Arc::new(RemoveBySpawner(spawner.clone()));
        // An ordinary user could do nothing with a store; why it can't be opened would only lead astray.
        let store = Store::open_with(&options.root, remover).map_err(|error| {
            require_root()
                .err()
                .unwrap_or_else(|| BuildError::store(error))
        })?;
        Ok(Self {
            store,
            spawner,
            budget: options.budget,
        })
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn budget(&self) -> Budget {
        self.budget
    }

    pub(crate) fn spawner(&self) -> &Spawner {
        &self.spawner
    }
}

/// Has the spawner remove and measure what steps left: it may do so whoever owns it, and however deep it is.
#[derive(Debug)]
struct RemoveBySpawner(Spawner);

impl RemoveTree for RemoveBySpawner {
    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        // Mostly there is nothing, or an empty directory: no reason to start a process.
        match std::fs::remove_dir(path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(_) => self.0.remove_tree(path).map_err(io::Error::other),
        }
    }

    fn measure_trees(&self, paths: &[PathBuf]) -> io::Result<Vec<TreeSize>> {
        let sizes = self.0.measure(paths.to_vec()).map_err(io::Error::other)?;
        let size = |size: rbuild_runner::job::TreeSize| TreeSize {
            bytes: size.bytes,
            linked: size
                .linked
                .into_iter()
                .map(|file| (file.device, file.inode, file.bytes))
                .collect(),
        };
        Ok(sizes.into_iter().map(size).collect())
    }
}
