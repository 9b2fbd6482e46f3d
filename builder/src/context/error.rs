//! Why a context or its Dockerfile can't be used.

use std::path::PathBuf;

use rbuild_frontend::git_reference::GitReferenceError;
use rbuild_frontend::ignore_file::IgnoreFileError;
use rbuild_frontend::pattern::PatternError;

use crate::error::StepError;
use crate::tree::TreeError;

/// Why a context or its Dockerfile can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContextError {
    /// The context is missing or no directory.
    #[error("the build context {} is {}", named(.name, .path), if path.exists() { "not a directory" } else { "not there" })]
    NotADirectory {
        /// Of a named context; empty for the main one.
        name: String,
        /// As given.
        path: PathBuf,
    },
    /// No file with one of the usual names.
    #[error("no Dockerfile in `{context}`")]
    NoDockerfile {
        /// The context.
        context: String,
    },
    /// The Dockerfile named with `-f` is not there.
    #[error("Dockerfile `{path}` not found{}", place(.context.as_deref()))]
    DockerfileMissing {
        /// As given.
        path: PathBuf,
        /// The context that it was looked for in, if that is no directory of this machine.
        context: Option<String>,
    },
    /// Both standard input and `-f`, or both an address and `-f`, give a Dockerfile.
    #[error("there are two Dockerfiles: `{context}` is one, and `-f {path}` names another")]
    TwoDockerfiles {
        /// The context.
        context: String,
        /// As given.
        path: PathBuf,
    },
    /// `-f -` with the context `-`.
    #[error("both the context and the Dockerfile would be read from standard input")]
    StdinTwice,
    /// Nothing came.
    #[error("standard input is empty: it should be a Dockerfile or a tar archive")]
    StdinEmpty,
    /// The build was ended while standard input was read.
    #[error("interrupted")]
    Interrupted,
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
    #[error("cannot use line {line} of the ignore file `{path}`")]
    IgnorePattern {
        /// Which.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// The cause.
        #[source]
        source: PatternError,
    },
    /// A text that should be an address is none.
    #[error("`{spec}` is neither a directory nor the address of a git repository or file")]
    Address {
        /// As given.
        spec: String,
    },
    /// A git reference that contradicts itself.
    #[error("cannot use the build context `{spec}`")]
    GitReference {
        /// As given, without credentials.
        spec: String,
        /// What is wrong.
        #[source]
        source: GitReferenceError,
    },
    /// It could not be fetched or unpacked.
    #[error("cannot use the build context `{context}`")]
    Fetch {
        /// Its address, without credentials.
        context: String,
        /// The cause.
        #[source]
        source: Box<StepError>,
    },
    /// Compressed, but not a tar.
    #[error("the build context `{context}` is compressed, but holds no tar archive")]
    NoArchive {
        /// Its address.
        context: String,
    },
    /// `--context-subdir` with a directory or a Dockerfile.
    #[error("`{context}` is not an archive or repository: a subdirectory of it can't be chosen")]
    NoSubdirectory {
        /// The context.
        context: String,
    },
    /// A context that would have to be fetched by who has nowhere to put it.
    #[error("cannot fetch or unpack `{context}`: there is no store, or no isolation to unpack in")]
    NotFetched {
        /// Its address.
        context: String,
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

impl ContextError {
    /// The way out, where one is known.
    pub fn help(&self) -> Option<String> {
        let words = match self {
            Self::NoDockerfile { .. } => "name it with `-f PATH`; the context is the last argument",
            Self::NotADirectory { name, .. } if !name.is_empty() => {
                "a path is meant as seen from where rbuild is called: `--build-context NAME=PATH`"
            }
            Self::NotADirectory { .. } => {
                "the last argument is the directory that COPY reads from, often `.`"
            }
            Self::DockerfileMissing {
                context: Some(_), ..
            } => {
                "a relative path is one in the context; for a file of this machine give the whole path"
            }
            Self::TwoDockerfiles { .. } => "leave `-f` away",
            Self::GitReference { .. } => {
                "a git reference looks like `https://host/name.git#branch:directory`"
            }
            Self::NoArchive { .. } => {
                "gzip, bzip2, xz and zstd are known; what is in it has to be a tar"
            }
            Self::NoSubdirectory { .. } => "name the directory itself as the context",
            Self::NotFetched { .. } => {
                "`rbuild info` says what is missing; a directory, or the Dockerfile alone on standard input, can be checked all the same"
            }
            Self::Fetch { source, .. } => return source.help(),
            _ => return None,
        };
        Some(words.to_owned())
    }
}

fn named(name: &str, path: &std::path::Path) -> String {
    let path = path.display();
    if name.is_empty() {
        format!("`{path}`")
    } else {
        format!("`{name}` (`{path}`)")
    }
}

fn place(context: Option<&str>) -> String {
    context.map_or_else(String::new, |context| format!(" in `{context}`"))
}
