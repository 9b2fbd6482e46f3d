//! Fetching contexts that are no directories, and reading the Dockerfile.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use rbuild_cache::ContentDigest;
use rbuild_frontend::git_reference::{GitMtime, GitReference};
use rbuild_frontend::source::Source;
use rbuild_runner::archive;
use rbuild_runner::job::SourceRoot;

use super::{
    ContextError, LocalDockerfile, Main, Opened, Remote, STDIN_NAME, Spec, Time, dockerfile, stdin,
};
use crate::build::Workspace;
use crate::download;
use crate::error::{BuildError, StepError};
use crate::fetch::{Archive, Fetched};
use crate::git::{self, GitSource, redacted};
use crate::options::{BuildOptions, ContextSource, DockerfileSource};

/// Name of an archive from standard input in its directory of the lease.
const SPOOL: &str = "archive";

/// What messages call a context that is standard input.
const STDIN: &str = "-";

/// A context that came from elsewhere, and the Dockerfile if that is what it turned out to be.
struct Arrived {
    main: Main,
    text: Option<Source>,
}

/// Makes the main context ready and reads the Dockerfile.
///
/// A Dockerfile of this machine was read before, as `local`: what is wrong with it is known before anything begins.
pub(crate) async fn open_main(
    workspace: &Arc<Workspace>,
    local: Option<LocalDockerfile>,
) -> Result<Source, BuildError> {
    let arrived = workspace
        .unless_cancelled(async { arrive(workspace).await.map_err(as_build_error) })
        .await?;
    let Arrived { mut main, text } = arrived;
    if let (Some(found), Main::Directory { dockerfile, .. }) = (&local, &mut main) {
        dockerfile.clone_from(&found.path);
        workspace.contexts.set_main(main);
        return Ok(found.source.clone());
    }
    let given = match (text, &workspace.options.dockerfile) {
        (Some(text), None) => Some(text),
        (Some(_), Some(DockerfileSource::Path(path))) if !path.is_absolute() => {
            return Err(ContextError::TwoDockerfiles {
                context: main.title().to_owned(),
                path: path.clone(),
            }
            .into());
        }
        (_, dockerfile) => {
            workspace
                .unless_cancelled(async {
                    given(workspace, dockerfile.as_ref())
                        .await
                        .map_err(as_build_error)
                })
                .await?
        }
    };
    let source = if let Some(source) = given {
        source
    } else {
        let path = match &workspace.options.dockerfile {
            Some(DockerfileSource::Path(path)) => Some(path.as_path()),
            _ => None,
        };
        let found = main.find_dockerfile(workspace, path)?;
        if let Main::Directory { dockerfile, .. } = &mut main {
            dockerfile.clone_from(&found.path);
        }
        found.source
    };
    workspace.contexts.set_main(main);
    Ok(source)
}

fn as_build_error(error: ContextError) -> BuildError {
    match error {
        ContextError::Interrupted => BuildError::Interrupted,
        ContextError::Fetch { source, .. } if matches!(*source, StepError::Cancelled) => {
            BuildError::Interrupted
        }
        error => BuildError::Context(error),
    }
}

/// A Dockerfile that lies in no context.
async fn given(
    workspace: &Arc<Workspace>,
    dockerfile: Option<&DockerfileSource>,
) -> Result<Option<Source>, ContextError> {
    Ok(match dockerfile {
        None | Some(DockerfileSource::Path(_)) => None,
        Some(DockerfileSource::Text(text)) => Some(Source::new("Dockerfile", text.as_bytes())),
        Some(DockerfileSource::Stdin) => {
            let cancel = workspace.cancel.clone();
            let text = workspace
                .blocking(move || stdin::read_text(&cancel))
                .await?;
            Some(Source::new(STDIN_NAME, &text))
        }
        Some(DockerfileSource::Url(url)) => {
            let fetched = download(workspace, url).await?;
            Some(lone_dockerfile(workspace, url, &fetched)?)
        }
    })
}

/// Fetches the main context, or sees that it is a directory.
async fn arrive(workspace: &Arc<Workspace>) -> Result<Arrived, ContextError> {
    let options = &workspace.options;
    if let Some(path) = dockerfile::local_context(options) {
        if !path.is_dir() {
            return Err(ContextError::NotADirectory {
                name: String::new(),
                path,
            });
        }
        let main = Main::Directory {
            path,
            dockerfile: None,
        };
        return Ok(Arrived { main, text: None });
    }
    let mut arrived = match &options.context {
        ContextSource::Directory(_) => return Err(ContextError::NoContext),
        ContextSource::Stdin => from_stdin(workspace).await?,
        ContextSource::Url(text) => match Remote::parse(text)? {
            None => {
                return Err(ContextError::Address {
                    spec: redacted(text),
                });
            }
            Some(Remote::Git(reference)) => {
                let source = main_git_source(options, &reference)
                    .map_err(|error| failed(&redacted(text), error.into()))?;
                let opened = from_git(workspace, source).await?;
                Arrived {
                    main: Main::Fetched(opened),
                    text: None,
                }
            }
            Some(Remote::Url(url)) => from_url(workspace, &url).await?,
        },
    };
    if let Some(directory) = &options.context_subdirectory {
        let Main::Fetched(opened) = &mut arrived.main else {
            return Err(ContextError::NoSubdirectory {
                context: arrived.main.title().to_owned(),
            });
        };
        if arrived.text.is_some() {
            return Err(ContextError::NoSubdirectory {
                context: opened.title.clone(),
            });
        }
        let (inner, whole, directory) = (Arc::clone(workspace), opened.clone(), directory.clone());
        opened.fetched = workspace
            .blocking(move || {
                whole
                    .fetched
                    .beneath(&inner, &directory, format!("`{}`", whole.title))
                    .map_err(|error| failed(&whole.title, error))
            })
            .await?;
    }
    Ok(arrived)
}

/// The reference keeps `.git` of the main context, or gives files the commit's time, when build args say so.
fn main_git_source(
    options: &BuildOptions,
    reference: &GitReference,
) -> Result<GitSource, git::GitError> {
    let mut source = GitSource::new(reference)?;
    let argument = |name: &str| options.build_args.get(name).map(String::as_str);
    if matches!(
        argument("BUILDKIT_CONTEXT_KEEP_GIT_DIR"),
        Some("1" | "t" | "T" | "true" | "True" | "TRUE")
    ) {
        source.keeps_git_dir = true;
    }
    if argument("SOURCE_DATE_EPOCH").is_some_and(|value| !value.is_empty()) {
        source.mtime = GitMtime::Commit;
    }
    Ok(source)
}

async fn from_git(workspace: &Arc<Workspace>, source: GitSource) -> Result<Opened, ContextError> {
    let title = source.title();
    let fetch = async {
        let resolved = workspace.commit_of(&source).await?;
        git::fetch(workspace, &source, &resolved).await
    };
    let fetched = fetch.await.map_err(|error| failed(&title, error))?;
    Ok(Opened {
        time: Time::Known(git::commit_time(&fetched)),
        fetched,
        title,
    })
}

async fn download(workspace: &Arc<Workspace>, url: &str) -> Result<Fetched, ContextError> {
    let fetch = async {
        let source = workspace.file_at(url, None).await?;
        download::fetch(workspace, &source).await
    };
    fetch.await.map_err(|error| failed(&redacted(url), error))
}

async fn from_url(workspace: &Arc<Workspace>, url: &str) -> Result<Arrived, ContextError> {
    let fetched = download(workspace, url).await?;
    let (inner, url) = (Arc::clone(workspace), url.to_owned());
    workspace
        .blocking(move || {
            let title = redacted(&url);
            let path =
                download::host_path(&inner, &fetched).map_err(|error| failed(&title, error))?;
            let modified = download::last_modified(&fetched);
            if !is_archive(&path, &title)? {
                let text = lone_dockerfile(&inner, &url, &fetched)?;
                let opened = Opened {
                    time: Time::Known(modified),
                    fetched,
                    title,
                };
                return Ok(Arrived {
                    main: Main::Fetched(opened),
                    text: Some(text),
                });
            }
            let unpack = || {
                let archive = Archive {
                    source: SourceRoot::Chain {
                        lowers: fetched.chain().snapshot_paths(&inner.store),
                        scratch: inner.scratch("source")?,
                    },
                    path: Path::new(download::FILE_NAME),
                    digest: download::content_digest(&inner, &fetched)?,
                };
                archive.unpack(&inner, title.clone())
            };
            let unpacked = unpack().map_err(|error| failed(&title, error))?;
            let opened = Opened {
                fetched: unpacked,
                time: modified.map_or(Time::NewestFile, |time| Time::Known(Some(time))),
                title,
            };
            Ok(Arrived {
                main: Main::Fetched(opened),
                text: None,
            })
        })
        .await
}

/// The text of a file that was downloaded.
fn lone_dockerfile(
    workspace: &Workspace,
    url: &str,
    fetched: &Fetched,
) -> Result<Source, ContextError> {
    let title = redacted(url);
    let path = download::host_path(workspace, fetched).map_err(|error| failed(&title, error))?;
    Ok(Source::new(&title, &dockerfile::read_text(&path)?))
}

async fn from_stdin(workspace: &Arc<Workspace>) -> Result<Arrived, ContextError> {
    if matches!(workspace.options.dockerfile, Some(DockerfileSource::Stdin)) {
        return Err(ContextError::StdinTwice);
    }
    let directory = workspace
        .scratch("stdin")
        .map_err(|error| failed(STDIN, error))?;
    let inner = Arc::clone(workspace);
    workspace
        .blocking(move || {
            let spool = directory.join(SPOOL);
            match stdin::read(&spool, &inner.cancel)? {
                stdin::Input::Text(text) => Ok(Arrived {
                    main: Main::Directory {
                        path: directory,
                        dockerfile: None,
                    },
                    text: Some(Source::new(STDIN_NAME, &text)),
                }),
                stdin::Input::Archive => {
                    let fetched = unpack_spool(&inner, &directory)?;
                    let opened = Opened {
                        fetched,
                        time: Time::NewestFile,
                        title: STDIN.to_owned(),
                    };
                    Ok(Arrived {
                        main: Main::Fetched(opened),
                        text: None,
                    })
                }
            }
        })
        .await
}

fn unpack_spool(workspace: &Workspace, directory: &Path) -> Result<Fetched, ContextError> {
    let path = directory.join(SPOOL);
    is_archive(&path, STDIN)?;
    let read = |source| ContextError::Read {
        path: path.clone(),
        source,
    };
    let file = std::fs::File::open(&path).map_err(read)?;
    let (digest, _) = ContentDigest::of_file(&file).map_err(read)?;
    let archive = Archive {
        source: SourceRoot::Directory(directory.to_owned()),
        path: Path::new(SPOOL),
        digest,
    };
    let fetched = archive
        .unpack(workspace, "the archive on standard input".to_owned())
        .map_err(|error| failed(STDIN, error))?;
    // It is in the store now; the lease would keep it until the build ends.
    let _ = std::fs::remove_file(&path);
    Ok(fetched)
}

/// Whether the file is a tar, compressed or not; what is compressed has to be one.
fn is_archive(path: &Path, title: &str) -> Result<bool, ContextError> {
    let read = |source| ContextError::Read {
        path: path.to_owned(),
        source,
    };
    let mut file = std::fs::File::open(path).map_err(read)?;
    let mut start = Vec::new();
    (&mut file)
        .take(archive::START as u64)
        .read_to_end(&mut start)
        .map_err(read)?;
    match archive::identify(&start) {
        archive::Content::Other => Ok(false),
        archive::Content::Tar => Ok(true),
        archive::Content::Compressed => {
            let mut file = std::fs::File::open(path).map_err(read)?;
            if archive::holds_tar(&mut file).map_err(|errno| read(errno.into()))? {
                return Ok(true);
            }
            Err(ContextError::NoArchive {
                context: title.to_owned(),
            })
        }
    }
}

/// Fetches a named context, once a build. One that is a directory is left where it is.
pub(crate) async fn fetch_named(
    workspace: &Arc<Workspace>,
    name: &str,
) -> Result<(), ContextError> {
    let contexts = &workspace.contexts;
    let Some(Spec::Remote(remote)) = contexts.named.get(name) else {
        return Ok(());
    };
    if contexts.lock_fetched().contains_key(name) {
        return Ok(());
    }
    let opened = match remote {
        Remote::Git(reference) => {
            let source = GitSource::new(reference)
                .map_err(|error| failed(&redacted(&reference.remote), error.into()))?;
            from_git(workspace, source).await?
        }
        Remote::Url(url) => {
            let fetched = download(workspace, url).await?;
            Opened {
                time: Time::NewestMember,
                fetched,
                title: redacted(url),
            }
        }
    };
    contexts.lock_fetched().insert(name.to_owned(), opened);
    Ok(())
}

fn failed(context: &str, source: StepError) -> ContextError {
    ContextError::Fetch {
        context: context.to_owned(),
        source: Box::new(source),
    }
}

impl Main {
    /// What messages call it.
    fn title(&self) -> &str {
        match self {
            Self::Directory { .. } => STDIN,
            Self::Fetched(opened) => &opened.title,
        }
    }

    fn find_dockerfile(
        &self,
        workspace: &Workspace,
        path: Option<&Path>,
    ) -> Result<LocalDockerfile, ContextError> {
        match self {
            Self::Directory { path: context, .. } => dockerfile::in_directory(Some(context), path),
            Self::Fetched(_) if path.is_some_and(Path::is_absolute) => {
                dockerfile::in_directory(None, path)
            }
            Self::Fetched(opened) => {
                let directories = opened.fetched.chain().snapshot_paths(&workspace.store);
                let root = directories.first().ok_or(ContextError::NoContext)?;
                dockerfile::beneath(root, path, &opened.title)
            }
        }
    }
}
