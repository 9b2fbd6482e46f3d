//! The library's front door: a store, a spawner, and what can be done with them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rbuild_cache::{Budget, RemoveTree, Store, TreeSize};
use rbuild_runner::isolation::{self, Isolation, Rung, Survey};
use rbuild_runner::job::MoveJob;
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

/// Where an engine keeps its things, and how it does its work.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The store's directory.
    pub root: PathBuf,
    /// What the store may take; kept to after a build that ran something.
    pub budget: Budget,
    /// How strongly steps are isolated.
    pub isolation: Isolation,
    /// For users without subordinate ids: owners that can't be set are left out instead of failing the step. What is made so
    /// is kept apart, in the directory `one-id` of the store.
    pub ignores_chown_errors: bool,
}

/// Where a store lies whose owners were left out.
const ONE_ID: &str = "one-id";

impl EngineOptions {
    /// The store at `root`, with the strongest isolation that can be had.
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            budget: Budget::default(),
            isolation: Isolation::Auto,
            ignores_chown_errors: false,
        }
    }

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

/// What an engine stands on.
pub(crate) struct Ground {
    pub(crate) spawner: Spawner,
    /// Where the work is done; or why it can't be.
    pub(crate) rung: Result<Rung, JobError>,
    /// Where the store is.
    pub(crate) root: PathBuf,
}

impl Ground {
    /// Decides how work is isolated, and which store that means.
    pub(crate) fn of(options: &EngineOptions) -> Result<Self, BuildError> {
        let spawner = SPAWNER.get().ok_or(BuildError::NotInitialised)?.clone();
        let rung = isolation::decide(options.isolation, options.ignores_chown_errors);
        let rung = rung.and_then(|rung| spawner.isolate(&rung).map(|()| rung));
        let mut ground = Self {
            spawner,
            rung,
            root: options.root.clone(),
        };
        if ground.loses_owners() {
            ground.root.push(ONE_ID);
        }
        Ok(ground)
    }

    /// True where owners are left out.
    pub(crate) fn loses_owners(&self) -> bool {
        matches!(&self.rung, Ok(Rung::Userns(maps)) if maps.is_single() && maps.ignores_chown_errors)
    }
}

/// A store and a spawner. Cheap to clone; several may share one store directory.
#[derive(Clone, Debug)]
pub struct Engine {
    store: Store,
    spawner: Spawner,
    budget: Budget,
    /// Where the work is done; or why it can't be, which matters only when there is some.
    rung: Result<Rung, JobError>,
}

impl Engine {
    /// Opens the store, making it when it is missing.
    ///
    /// # Errors
    /// [`init`] was not called, or the store can't be opened. That the isolation can't be had is told when there is work.
    pub fn open(options: &EngineOptions) -> Result<Self, BuildError> {
        let Ground {
            spawner,
            rung,
            root,
        } = Ground::of(options)?;
        let trees = Arc::new(TreesOfSpawner(spawner.clone()));
        let store = Store::open_with(&root, trees).map_err(BuildError::store)?;
        spawner.keep_store_at(store.root());
        Ok(Self {
            store,
            spawner,
            rung,
            budget: options.budget,
        })
    }

    /// Where the work is done.
    ///
    /// # Errors
    /// The isolation that was asked for can't be had.
    pub(crate) fn rung(&self) -> Result<&Rung, BuildError> {
        self.rung
            .as_ref()
            .map_err(|error| BuildError::Isolation(error.clone()))
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

/// Tries out what this machine allows, with a store at `root`, which is made when it is missing. Blocks.
///
/// # Errors
/// [`init`] was not called, the directory can't be made, or an engine of this process has begun to work.
pub fn survey(root: &Path) -> Result<Survey, BuildError> {
    let spawner = SPAWNER.get().ok_or(BuildError::NotInitialised)?;
    let store = Store::open_with(root, Arc::new(TreesOfSpawner(spawner.clone())))
        .map_err(BuildError::store)?;
    let lease = store.lease().map_err(BuildError::store)?;
    let place = lease.scratch("survey").map_err(BuildError::store)?;
    spawner.survey(&place).map_err(BuildError::Isolation)
}

/// Has the spawner remove and move what steps left: it may do so whoever owns it, and however deep it is.
#[derive(Debug)]
pub(crate) struct TreesOfSpawner(pub(crate) Spawner);

impl RemoveTree for TreesOfSpawner {
    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        // Mostly there is nothing, or an empty directory: no reason to start a process.
        match std::fs::remove_dir(path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            // Where no job can be done, none was: then what is left is our own, and its end no second error.
            Err(_) => self.0.remove_tree(path).or_else(|error| {
                std::fs::remove_dir_all(path).map_err(|_| io::Error::other(error))
            }),
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

    fn move_tree(&self, from: &Path, to: &Path) -> io::Result<()> {
        match std::fs::rename(from, to) {
            // The root of a layer belongs to another id, or nobody may write to it: no obstacle inside the user namespace.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let (from, to) = (from.to_owned(), to.to_owned());
                let moved = self.0.move_tree(MoveJob::Whole { from, to });
                moved.map_err(io::Error::other)
            }
            result => result,
        }
    }
}
