//! The Dockerfile and the ignore file: where they are looked for, and reading them.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rbuild_frontend::ignore_file::{IgnoreFile, IgnoreMatcher};
use rbuild_frontend::source::Source;
use rbuild_runner::root;
use rustix::fs::OFlags;
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::{ContextError, MAX_TEXT_SIZE, STDIN_NAME};
use crate::git::redacted;
use crate::options::{BuildOptions, ContextSource, DockerfileSource};

/// Names tried when none is given, in order.
const DOCKERFILE_NAMES: [&str; 3] = ["Dockerfile", "dockerfile", "Containerfile"];

/// Ignore files at a context's root, in order.
const IGNORE_NAMES: [&str; 2] = [".dockerignore", ".containerignore"];

/// A Dockerfile that was read.
#[derive(Clone, Debug)]
pub(crate) struct LocalDockerfile {
    /// Its text.
    pub(crate) source: Source,
    /// Where it lies on this machine, for the ignore file beside it; none where it is no file of this machine.
    pub(crate) path: Option<PathBuf>,
}

/// The Dockerfile of a build whose context is a directory; none where something has to be fetched or read from standard
/// input before it is known.
pub(crate) fn read_local(options: &BuildOptions) -> Result<Option<LocalDockerfile>, ContextError> {
    let Some(context) = local_context(options) else {
        return Ok(None);
    };
    if !context.is_dir() {
        return Err(ContextError::NotADirectory {
            name: String::new(),
            path: context,
        });
    }
    if options.context_subdirectory.is_some() {
        return Err(ContextError::NoSubdirectory {
            context: context.display().to_string(),
        });
    }
    match &options.dockerfile {
        Some(DockerfileSource::Stdin | DockerfileSource::Url(_)) => Ok(None),
        Some(DockerfileSource::Text(text)) => Ok(Some(LocalDockerfile {
            source: Source::new("Dockerfile", text.as_bytes()),
            path: None,
        })),
        Some(DockerfileSource::Path(path)) => in_directory(Some(&context), Some(path)).map(Some),
        None => in_directory(Some(&context), None).map(Some),
    }
}

/// Whether the Dockerfile is known only when something was fetched or unpacked, or may be: what comes on standard input
/// can be an archive.
pub(crate) fn is_elsewhere(options: &BuildOptions) -> bool {
    match &options.dockerfile {
        Some(DockerfileSource::Stdin | DockerfileSource::Text(_)) => false,
        Some(DockerfileSource::Url(_)) => true,
        Some(DockerfileSource::Path(path)) if path.is_absolute() => false,
        Some(DockerfileSource::Path(_)) | None => local_context(options).is_none(),
    }
}

/// The same for who looks at a Dockerfile and builds nothing: without the files of a context that would have to be
/// fetched.
pub(crate) fn read_alone(options: &BuildOptions) -> Result<LocalDockerfile, ContextError> {
    if let Some(found) = read_local(options)? {
        return Ok(found);
    }
    let stdin = || {
        let never = CancellationToken::new();
        let text = super::stdin::read_text(&never)?;
        if rbuild_runner::archive::identify(&text) != rbuild_runner::archive::Content::Other {
            return Err(ContextError::NotFetched {
                context: "-".to_owned(),
            });
        }
        Ok(LocalDockerfile {
            source: Source::new(STDIN_NAME, &text),
            path: None,
        })
    };
    match (&options.context, &options.dockerfile) {
        (ContextSource::Stdin, Some(DockerfileSource::Stdin)) => Err(ContextError::StdinTwice),
        (ContextSource::Stdin, None) | (_, Some(DockerfileSource::Stdin)) => stdin(),
        (_, Some(DockerfileSource::Text(text))) => Ok(LocalDockerfile {
            source: Source::new("Dockerfile", text.as_bytes()),
            path: None,
        }),
        (_, Some(DockerfileSource::Path(path))) if path.is_absolute() => {
            in_directory(None, Some(path))
        }
        (_, Some(DockerfileSource::Url(url))) | (ContextSource::Url(url), _) => {
            Err(ContextError::NotFetched {
                context: redacted(url),
            })
        }
        (ContextSource::Stdin | ContextSource::Directory(_), _) => Err(ContextError::NotFetched {
            context: "-".to_owned(),
        }),
    }
}

/// The directory of this machine that is the context. One that is called like an address is the directory, as with the
/// reference's clients.
pub(super) fn local_context(options: &BuildOptions) -> Option<PathBuf> {
    match &options.context {
        ContextSource::Directory(path) => Some(path.clone()),
        ContextSource::Url(text) if Path::new(text).is_dir() => Some(PathBuf::from(text)),
        ContextSource::Url(_) | ContextSource::Stdin => None,
    }
}

/// What the history calls the Dockerfile.
pub(crate) fn dockerfile_name(options: &BuildOptions, local: Option<&LocalDockerfile>) -> String {
    if let Some(path) = local.and_then(|local| local.path.as_ref()) {
        return crate::history::absolute(path);
    }
    match &options.dockerfile {
        Some(DockerfileSource::Text(_)) => "(text)".to_owned(),
        Some(DockerfileSource::Url(url)) => redacted(url),
        Some(DockerfileSource::Path(path)) => path.display().to_string(),
        Some(DockerfileSource::Stdin) => "-".to_owned(),
        None if matches!(options.context, ContextSource::Stdin) => "-".to_owned(),
        None => DOCKERFILE_NAMES[0].to_owned(),
    }
}

/// What the main context's ignore file hides; nothing where the context is no directory.
pub(crate) fn ignore_of(
    options: &BuildOptions,
    dockerfile: Option<&Path>,
) -> Result<IgnoreMatcher, ContextError> {
    match local_context(options) {
        Some(root) => read_ignore_file(&root, dockerfile),
        None => Ok(IgnoreMatcher::default()),
    }
}

/// A Dockerfile of a directory of this machine, or one that lies elsewhere on it.
pub(super) fn in_directory(
    context: Option<&Path>,
    path: Option<&Path>,
) -> Result<LocalDockerfile, ContextError> {
    let Some(path) = path else {
        let context = context.ok_or(ContextError::NoContext)?;
        let name = DOCKERFILE_NAMES
            .iter()
            .find(|name| context.join(name).is_file())
            .ok_or_else(|| ContextError::NoDockerfile {
                context: context.display().to_string(),
            })?;
        return read(name, context.join(name));
    };
    // A pipe is as good as a file: `-f <(generate)`. What never ends is given up at [`MAX_TEXT_SIZE`].
    let is_readable = |path: &PathBuf| path.metadata().is_ok_and(|found| !found.is_dir());
    let candidates = |path: &Path| {
        let in_context = context.map(|context| context.join(path));
        std::iter::once(path.to_owned())
            .chain(in_context)
            .find(is_readable)
    };
    let lower_case = || candidates(&in_lower_case(path)?);
    let found =
        candidates(path)
            .or_else(lower_case)
            .ok_or_else(|| ContextError::DockerfileMissing {
                path: path.to_owned(),
                context: None,
            })?;
    read(&path.to_string_lossy(), found)
}

fn read(name: &str, path: PathBuf) -> Result<LocalDockerfile, ContextError> {
    Ok(LocalDockerfile {
        source: Source::new(name, &read_text(&path)?),
        path: Some(path),
    })
}

/// `dir/dockerfile` for `dir/Dockerfile`: the reference takes it when the usual spelling is missing.
fn in_lower_case(path: &Path) -> Option<PathBuf> {
    (path.file_name()? == DOCKERFILE_NAMES[0]).then(|| path.with_file_name(DOCKERFILE_NAMES[1]))
}

/// A Dockerfile beneath a root that nobody vouches for: no link leads out of it.
pub(super) fn beneath(
    root: &Path,
    path: Option<&Path>,
    context: &str,
) -> Result<LocalDockerfile, ContextError> {
    let directory = root::open_root(root).map_err(crate::tree::TreeError::File)?;
    let names: Vec<PathBuf> = match path {
        Some(path) => std::iter::once(path.to_owned())
            .chain(in_lower_case(path))
            .collect(),
        None => DOCKERFILE_NAMES.iter().map(PathBuf::from).collect(),
    };
    for name in &names {
        const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);
        let failed = |source| ContextError::Read {
            path: name.clone(),
            source,
        };
        let file = match root::open(directory.as_fd(), name.as_os_str().as_bytes(), FLAGS) {
            Ok(file) => File::from(file),
            Err(error) if matches!(error.source, Errno::NOENT | Errno::NOTDIR) => continue,
            Err(error) => return Err(failed(error.source.into())),
        };
        if !file.metadata().map_err(failed)?.is_file() {
            continue;
        }
        let text = read_limited(file, name)?;
        return Ok(LocalDockerfile {
            source: Source::new(&name.to_string_lossy(), &text),
            path: None,
        });
    }
    Err(match path {
        Some(path) => ContextError::DockerfileMissing {
            path: path.to_owned(),
            context: Some(context.to_owned()),
        },
        None => ContextError::NoDockerfile {
            context: context.to_owned(),
        },
    })
}

/// The ignore patterns of a directory.
pub(super) fn read_ignore_file(
    root: &Path,
    dockerfile: Option<&Path>,
) -> Result<IgnoreMatcher, ContextError> {
    let Some((path, file)) = find_ignore_file(root, dockerfile)? else {
        return Ok(IgnoreMatcher::default());
    };
    file.matcher()
        .map_err(|source| ContextError::IgnorePattern {
            path,
            line: file.first_invalid().unwrap_or(1),
            source,
        })
}

/// The ignore file of a directory: the Dockerfile's own, else the one at the root; never both.
pub(super) fn find_ignore_file(
    root: &Path,
    dockerfile: Option<&Path>,
) -> Result<Option<(PathBuf, IgnoreFile)>, ContextError> {
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
        return Ok(Some((path, file)));
    }
    Ok(None)
}

pub(super) fn read_text(path: &Path) -> Result<Vec<u8>, ContextError> {
    let file = File::open(path).map_err(|source| ContextError::Read {
        path: path.to_owned(),
        source,
    })?;
    read_limited(file, path)
}

fn read_limited(file: File, path: &Path) -> Result<Vec<u8>, ContextError> {
    let mut bytes = Vec::new();
    file.take(MAX_TEXT_SIZE + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| ContextError::Read {
            path: path.to_owned(),
            source,
        })?;
    if bytes.len() as u64 > MAX_TEXT_SIZE {
        return Err(ContextError::TooLarge {
            path: path.to_owned(),
            limit: MAX_TEXT_SIZE,
        });
    }
    Ok(bytes)
}
