//! Build contexts: where they are, what their ignore files hide, and the Dockerfile among them.
//!
//! A directory of this machine is read in place, through its ignore file. Everything else (git, a URL, an archive on
//! standard input) is fetched into the store first and then read like the root of a stage; ignore files have no say
//! there, as in the reference.

mod dockerfile;
mod error;
mod open;
mod spec;
mod stdin;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rbuild_cache::{StatCache, Store};
use rbuild_frontend::graph::Input;
use rbuild_frontend::ignore_file::IgnoreMatcher;

use crate::build::Workspace;
use crate::download;
use crate::error::StepError;
use crate::fetch::Fetched;
use crate::options::BuildOptions;
use crate::select::SelectError;
use crate::tree::SourceTree;
use crate::tree::directory::DirectoryTree;
pub(crate) use dockerfile::{
    LocalDockerfile, dockerfile_name, ignore_of, is_elsewhere, read_alone, read_local,
};
pub use error::ContextError;
pub(crate) use open::{fetch_named, open_main};
pub(crate) use spec::planned_contexts;
use spec::{Remote, Spec};
pub(crate) use stdin::Patient;

/// Largest Dockerfile or ignore file that is read.
const MAX_TEXT_SIZE: u64 = 64 << 20;

/// What messages call a Dockerfile that was read from standard input.
const STDIN_NAME: &str = "<stdin>";

/// The files of a context.
#[derive(Clone, Debug)]
pub(crate) enum ContextTree {
    /// A directory of this machine: it may change while it is read, and its files are root's.
    Directory(Arc<DirectoryTree>),
    /// Files in the store, with owners of their own.
    Fetched(Fetched),
}

impl ContextTree {
    /// For selections.
    pub(crate) fn tree(&self) -> Arc<dyn SourceTree> {
        match self {
            Self::Directory(tree) => Arc::clone(tree) as Arc<dyn SourceTree>,
            Self::Fetched(fetched) => fetched.shared_tree(),
        }
    }

    /// The ignore patterns in force.
    pub(crate) fn ignore(&self) -> IgnoreMatcher {
        match self {
            Self::Directory(tree) => tree.ignore().clone(),
            Self::Fetched(_) => IgnoreMatcher::default(),
        }
    }
}

/// A context that was fetched.
#[derive(Clone, Debug)]
struct Opened {
    fetched: Fetched,
    /// For `SOURCE_DATE_EPOCH`.
    time: Time,
    /// Its address, without credentials.
    title: String,
}

/// The time of what was fetched.
#[derive(Clone, Copy, Debug)]
enum Time {
    /// A commit's, or what a server says; none is unknown.
    Known(Option<i64>),
    /// That of its newest file.
    NewestFile,
    /// It is one file: that of the newest member, if it is an archive.
    NewestMember,
}

/// Where the main context's files are.
#[derive(Debug)]
enum Main {
    Directory {
        path: PathBuf,
        /// Path of the Dockerfile, for its own ignore file.
        dockerfile: Option<PathBuf>,
    },
    Fetched(Opened),
}

/// All contexts of a build; directories are opened when they are first used.
#[derive(Debug)]
pub(crate) struct Contexts {
    /// Set by [`open_main`].
    main: OnceLock<Main>,
    named: BTreeMap<String, Spec>,
    store: Store,
    uses_stat_cache: bool,
    /// Opened directories; the main one has the empty name.
    open: Mutex<HashMap<String, Arc<DirectoryTree>>>,
    /// Named contexts that were fetched in this build. Held for single insertions only.
    fetched: Mutex<BTreeMap<String, Opened>>,
}

impl Contexts {
    /// Nothing is opened yet.
    pub(crate) fn new(options: &BuildOptions, store: Store) -> Result<Self, ContextError> {
        let named = options.named_contexts.iter();
        Ok(Self {
            main: OnceLock::new(),
            named: named
                .map(|(name, text)| Ok((name.clone(), spec::classify(text)?)))
                .collect::<Result<_, ContextError>>()?,
            store,
            uses_stat_cache: !options.no_stat_cache,
            open: Mutex::default(),
            fetched: Mutex::default(),
        })
    }

    /// Set once, before anything is planned.
    fn set_main(&self, main: Main) {
        let is_first = self.main.set(main).is_ok();
        debug_assert!(is_first, "the main context is opened once");
    }

    /// The context that a step reads from; none when it reads from something else.
    pub(crate) fn of(&self, input: &Input) -> Result<Option<ContextTree>, ContextError> {
        match input {
            Input::Context => self.main().map(Some),
            Input::NamedContext(name) => self.named(name).map(Some),
            Input::Step(_) | Input::Empty => Ok(None),
        }
    }

    /// The time of a fetched context, in seconds since the epoch; a directory has none. Blocks.
    pub(crate) fn time_of(
        &self,
        workspace: &Workspace,
        input: &Input,
    ) -> Result<Option<i64>, StepError> {
        let opened = match (input, self.main.get()) {
            (Input::NamedContext(name), _) => self.lock_fetched().get(name).cloned(),
            (Input::Context, Some(Main::Fetched(opened))) => Some(opened.clone()),
            _ => None,
        };
        let Some(opened) = opened else {
            return Ok(None);
        };
        match opened.time {
            Time::Known(time) => Ok(time),
            Time::NewestFile => opened.fetched.newest_file(workspace),
            Time::NewestMember => download::time_of(workspace, &opened.fetched),
        }
    }

    /// The main context.
    pub(crate) fn main(&self) -> Result<ContextTree, ContextError> {
        match self.main.get().ok_or(ContextError::NoContext)? {
            Main::Directory { path, dockerfile } => self
                .tree("", path, dockerfile.as_deref(), "the build context".into())
                .map(ContextTree::Directory),
            Main::Fetched(opened) => Ok(ContextTree::Fetched(opened.fetched.clone())),
        }
    }

    /// A context given with `--build-context`.
    fn named(&self, name: &str) -> Result<ContextTree, ContextError> {
        let unknown = || ContextError::Unknown {
            name: name.to_owned(),
        };
        match self.named.get(name) {
            Some(Spec::Directory(path)) => self
                .tree(name, path, None, format!("the build context `{name}`"))
                .map(ContextTree::Directory),
            Some(Spec::Remote(_)) => {
                let opened = self.lock_fetched().get(name).cloned();
                opened
                    .map(|opened| ContextTree::Fetched(opened.fetched))
                    .ok_or_else(unknown)
            }
            Some(Spec::Image(_) | Spec::Scratch) | None => Err(unknown()),
        }
    }

    fn lock_fetched(&self) -> MutexGuard<'_, BTreeMap<String, Opened>> {
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tree(
        &self,
        key: &str,
        path: &Path,
        dockerfile: Option<&Path>,
        title: String,
    ) -> Result<Arc<DirectoryTree>, ContextError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tree) = open.get(key) {
            return Ok(Arc::clone(tree));
        }
        if !path.is_dir() {
            return Err(ContextError::NotADirectory {
                name: key.to_owned(),
                path: path.to_owned(),
            });
        }
        let ignore = dockerfile::read_ignore_file(path, dockerfile)?;
        let stat_cache = self
            .uses_stat_cache
            .then(|| StatCache::load(&self.store, path));
        let tree = Arc::new(DirectoryTree::open(path, ignore, title, stat_cache)?);
        open.insert(key.to_owned(), Arc::clone(&tree));
        Ok(tree)
    }

    /// Keeps what was learnt about the contexts' files for the next build.
    pub(crate) fn save_stat_caches(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for tree in open.values() {
            if let Err(error) = tree.save_stat_cache() {
                // The next build hashes more; nothing is lost.
                tracing::warn!(%error, context = %tree.root().display(), "cannot keep the stat cache");
            }
        }
    }

    /// The ignore file, its line and the pattern that leave a path out, as text for people. Reads the file once more:
    /// only who failed asks.
    fn excluding(&self, input: &Input, root: &Path, path: &[u8]) -> Option<String> {
        let dockerfile = match (input, self.main.get()) {
            (Input::Context, Some(Main::Directory { dockerfile, .. })) => dockerfile.as_deref(),
            _ => None,
        };
        let (file, patterns) = dockerfile::find_ignore_file(root, dockerfile).ok()??;
        let (pattern, line) = patterns.excluding(path)?;
        let name = file.strip_prefix(root).unwrap_or(&file).display();
        Some(format!("`{pattern}` on line {line} of `{name}`"))
    }

    /// A selection's error, with the reason when the file is there but ignored.
    pub(crate) fn explain(&self, input: &Input, error: SelectError) -> StepError {
        if let SelectError::NotFound { path, .. } = &error
            && let Ok(Some(ContextTree::Directory(tree))) = self.of(input)
        {
            let relative = path.trim_start_matches('/').as_bytes();
            if !tree.ignore().is_empty() && tree.exists_on_host(relative) {
                return StepError::Ignored {
                    path: path.clone(),
                    by: self.excluding(input, tree.root(), relative),
                };
            }
        }
        StepError::Select(error)
    }
}
