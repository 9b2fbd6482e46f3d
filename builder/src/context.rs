//! Build contexts: where they are, what their ignore files hide, and the Dockerfile among them.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rbuild_cache::{StatCache, Store};
use rbuild_frontend::graph::{ImageReference, NamedContext};
use rbuild_frontend::ignore_file::{IgnoreFile, IgnoreFileError, IgnoreMatcher};
use rbuild_frontend::pattern::PatternError;
use rbuild_frontend::source::Source;

use crate::error::StepError;
use crate::options::{BuildOptions, ContextSource, DockerfileSource};
use crate::select::SelectError;
use crate::tree::TreeError;
use crate::tree::directory::DirectoryTree;

/// Largest Dockerfile or ignore file that is read.
const MAX_TEXT_SIZE: u64 = 64 << 20;

/// Names tried when none is given, in order.
const DOCKERFILE_NAMES: [&str; 3] = ["Dockerfile", "dockerfile", "Containerfile"];

/// Ignore files at a context's root, in order.
const IGNORE_NAMES: [&str; 2] = [".dockerignore", ".containerignore"];

/// Why a context or its Dockerfile can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// The context is missing or no directory.
    #[error("the build context `{path}` is {}", if path.exists() { "not a directory" } else { "not there" })]
    NotADirectory {
        /// As given.
        path: PathBuf,
    },
    /// No file with one of the usual names.
    #[error("no Dockerfile in `{context}`")]
    NoDockerfile {
        /// The context.
        context: PathBuf,
    },
    /// The Dockerfile named with `-f` is not there.
    #[error("Dockerfile `{path}` not found")]
    DockerfileMissing {
        /// As given.
        path: PathBuf,
    },
    /// A file could not be read.
    #[error("cannot read `{path}`")]
    Read {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A text file is larger than any real one.
    #[error("`{path}` is larger than {limit} bytes")]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// The ignore file can't be read as one.
    #[error("cannot use the ignore file `{path}`")]
    IgnoreFile {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: IgnoreFileError,
    },
    /// A pattern in the ignore file is none.
    #[error("cannot use the ignore file `{path}`")]
    IgnorePattern {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: PatternError,
    },
    /// A kind of context that this version does not read.
    #[error("{what} as a build context is not supported yet: `{spec}`")]
    Unsupported {
        /// A git repository, a URL, stdin.
        what: &'static str,
        /// As given.
        spec: String,
    },
    /// The build was given no context of this name.
    #[error("no build context is named `{name}`")]
    Unknown {
        /// The name.
        name: String,
    },
    /// There is no main context.
    #[error("this build has no context")]
    NoContext,
    /// The tree could not be opened.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// Why a context that is no directory can't be used.
fn unsupported(options: &BuildOptions) -> ContextError {
    match &options.context {
        ContextSource::Directory(path) => ContextError::NotADirectory { path: path.clone() },
        ContextSource::Stdin => ContextError::Unsupported {
            what: "standard input",
            spec: "-".into(),
        },
        ContextSource::Url(url) => ContextError::Unsupported {
            what: "a URL",
            spec: url.clone(),
        },
    }
}

/// All contexts of a build; each is opened when it is first used.
#[derive(Debug)]
pub(crate) struct Contexts {
    main: Option<PathBuf>,
    /// Path of the Dockerfile, for its own ignore file.
    dockerfile: Option<PathBuf>,
    named: BTreeMap<String, PathBuf>,
    store: Store,
    uses_stat_cache: bool,
    /// Opened trees; the main one has the empty name.
    open: Mutex<HashMap<String, Arc<DirectoryTree>>>,
}

impl Contexts {
    /// Nothing is opened yet.
    pub(crate) fn new(
        options: &BuildOptions,
        dockerfile: Option<PathBuf>,
        store: Store,
    ) -> Result<Self, ContextError> {
        let main = match &options.context {
            ContextSource::Directory(path) => {
                if !path.is_dir() {
                    return Err(ContextError::NotADirectory { path: path.clone() });
                }
                Some(path.clone())
            }
            ContextSource::Stdin | ContextSource::Url(_) => return Err(unsupported(options)),
        };
        let named = options
            .named_contexts
            .iter()
            .filter(|(_, spec)| matches!(classify(spec), Spec::Directory))
            .map(|(name, spec)| {
                (
                    name.clone(),
                    PathBuf::from(spec.strip_prefix("local:").unwrap_or(spec)),
                )
            })
            .collect();
        Ok(Self {
            main,
            dockerfile,
            named,
            store,
            uses_stat_cache: !options.no_stat_cache,
            open: Mutex::default(),
        })
    }

    /// The main context.
    pub(crate) fn main(&self) -> Result<Arc<DirectoryTree>, ContextError> {
        let path = self.main.as_ref().ok_or(ContextError::NoContext)?;
        self.tree(
            "",
            path,
            self.dockerfile.as_deref(),
            "the build context".into(),
        )
    }

    /// A context given with `--build-context`.
    pub(crate) fn named(&self, name: &str) -> Result<Arc<DirectoryTree>, ContextError> {
        let path = self.named.get(name).ok_or_else(|| ContextError::Unknown {
            name: name.to_owned(),
        })?;
        self.tree(name, path, None, format!("the build context `{name}`"))
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
                path: path.to_owned(),
            });
        }
        let ignore = read_ignore_file(path, dockerfile)?;
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

    /// A selection's error, with the reason when the file is there but ignored.
    pub(crate) fn explain(&self, error: SelectError) -> StepError {
        if let SelectError::NotFound { path, .. } = &error
            && let Ok(tree) = self.main()
        {
            let relative = path.trim_start_matches('/').as_bytes();
            if !tree.ignore().is_empty() && tree.exists_on_host(relative) {
                return StepError::Ignored { path: path.clone() };
            }
        }
        StepError::Select(error)
    }
}

/// What a `--build-context` spec names.
enum Spec {
    Image(ImageReference),
    Scratch,
    Directory,
    Remote,
}

fn classify(spec: &str) -> Spec {
    if let Some(name) = spec.strip_prefix("docker-image://") {
        if name == "scratch" {
            return Spec::Scratch;
        }
        return Spec::Image(ImageReference::Name(name.to_owned()));
    }
    if let Some(layout) = spec.strip_prefix("oci-layout://") {
        return Spec::Image(layout_reference(layout));
    }
    let is_remote = ["http://", "https://", "git://", "ssh://", "git@"]
        .iter()
        .any(|start| spec.starts_with(start));
    if is_remote {
        Spec::Remote
    } else {
        Spec::Directory
    }
}

/// `PATH[:TAG][@DIGEST]`; a colon that a slash follows is part of the path.
fn layout_reference(text: &str) -> ImageReference {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.to_owned())),
        None => (text, None),
    };
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag.to_owned())),
        _ => (rest, None),
    };
    ImageReference::Layout {
        path: path.to_owned(),
        tag,
        digest,
    }
}

/// The named contexts as the planner knows them.
pub(crate) fn planned_contexts(
    options: &BuildOptions,
) -> Result<BTreeMap<String, NamedContext>, ContextError> {
    options
        .named_contexts
        .iter()
        .map(|(name, spec)| {
            let context = match classify(spec) {
                Spec::Image(reference) => NamedContext::Image(reference),
                Spec::Scratch => NamedContext::Scratch,
                Spec::Directory => NamedContext::Files,
                Spec::Remote => {
                    return Err(ContextError::Unsupported {
                        what: "a git repository or URL",
                        spec: spec.clone(),
                    });
                }
            };
            Ok((name.clone(), context))
        })
        .collect()
}

/// The Dockerfile's text, and its path when it has one.
pub(crate) fn read_dockerfile(
    options: &BuildOptions,
) -> Result<(Source, Option<PathBuf>), ContextError> {
    let context = match &options.context {
        ContextSource::Directory(path) => Some(path.as_path()),
        _ => None,
    };
    match &options.dockerfile {
        Some(DockerfileSource::Text(text)) => {
            Ok((Source::new("Dockerfile", text.as_bytes()), None))
        }
        Some(DockerfileSource::Stdin) => {
            use std::io::Read;
            let mut bytes = Vec::new();
            let path = PathBuf::from("-");
            std::io::stdin()
                .take(MAX_TEXT_SIZE)
                .read_to_end(&mut bytes)
                .map_err(|source| ContextError::Read { path, source })?;
            Ok((Source::new("-", &bytes), None))
        }
        Some(DockerfileSource::Path(path)) => {
            let in_context = context.map(|context| context.join(path));
            let found = std::iter::once(path.clone())
                .chain(in_context)
                .find(|candidate| candidate.is_file())
                .ok_or_else(|| ContextError::DockerfileMissing { path: path.clone() })?;
            Ok((
                Source::new(&path.to_string_lossy(), &read_text(&found)?),
                Some(found),
            ))
        }
        None => {
            let context = context.ok_or_else(|| unsupported(options))?;
            if !context.is_dir() {
                return Err(ContextError::NotADirectory {
                    path: context.to_owned(),
                });
            }
            let name = DOCKERFILE_NAMES
                .iter()
                .find(|name| context.join(name).is_file())
                .ok_or_else(|| ContextError::NoDockerfile {
                    context: context.to_owned(),
                })?;
            let path = context.join(name);
            Ok((Source::new(name, &read_text(&path)?), Some(path)))
        }
    }
}

/// What the main context's ignore file hides; nothing where the context is no directory.
pub(crate) fn ignore_of(
    options: &BuildOptions,
    dockerfile: Option<&Path>,
) -> Result<IgnoreMatcher, ContextError> {
    match &options.context {
        ContextSource::Directory(root) => read_ignore_file(root, dockerfile),
        _ => Ok(IgnoreMatcher::default()),
    }
}

fn read_ignore_file(root: &Path, dockerfile: Option<&Path>) -> Result<IgnoreMatcher, ContextError> {
    let own = dockerfile.map(|path| {
        let mut name = path.as_os_str().to_owned();
        name.push(".dockerignore");
        PathBuf::from(name)
    });
    let candidates = own
        .into_iter()
        .chain(IGNORE_NAMES.iter().map(|name| root.join(name)));
    for path in candidates {
        if !path.is_file() {
            continue;
        }
        let bytes = read_text(&path)?;
        let file = IgnoreFile::parse(&bytes).map_err(|source| ContextError::IgnoreFile {
            path: path.clone(),
            source,
        })?;
        return file
            .matcher()
            .map_err(|source| ContextError::IgnorePattern { path, source });
    }
    Ok(IgnoreMatcher::default())
}

fn read_text(path: &Path) -> Result<Vec<u8>, ContextError> {
    use std::io::Read;
    let failed = |source| ContextError::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_TEXT_SIZE + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_TEXT_SIZE {
        return Err(ContextError::TooLarge {
            path: path.to_owned(),
            limit: MAX_TEXT_SIZE,
        });
    }
    Ok(bytes)
}
