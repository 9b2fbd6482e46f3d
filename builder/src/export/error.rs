//! Why an image could not be written out.

use std::io;
use std::path::PathBuf;

use rbuild_cache::{BlobError, DbError, LayerError, LeaseError};
use rbuild_runner::JobError;

use super::AnnotationError;
use super::engine::EngineError;
use crate::images::ImagesError;
use crate::manifest::ManifestError;
use crate::pull::PullError;
use crate::registry::RegistryError;

/// An export that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// A layer could not be packed.
    #[error("cannot pack layer {number} (`{diff_id}`)")]
    Pack {
        /// From 1.
        number: usize,
        /// Its `diff_id`.
        diff_id: String,
        /// Why.
        #[source]
        source: Box<JobError>,
    },
    /// A layer is not what it was when it was made. It was taken out of the store.
    #[error("layer {number} (`{diff_id}`) is damaged")]
    Damaged {
        /// From 1.
        number: usize,
        /// Its `diff_id`.
        diff_id: String,
        /// How.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A layer of the base could not be compressed in another way.
    #[error("cannot compress layer {number} (`{diff_id}`) anew")]
    Recompress {
        /// From 1.
        number: usize,
        /// Its `diff_id`.
        diff_id: String,
        /// Why.
        #[source]
        source: rbuild_runner::pack::PackError,
    },
    /// A registry did not take it.
    #[error("cannot push `{reference}`")]
    Push {
        /// Full name.
        reference: String,
        /// Why.
        #[source]
        source: Box<RegistryError>,
    },
    /// The image that is copied can't be used.
    #[error("the image that is copied can't be used")]
    Source {
        /// Why.
        #[source]
        source: ManifestError,
    },
    /// No engine to hand an image to.
    #[error(
        "there is no engine to load the image into: neither podman nor docker nor ctr is in PATH"
    )]
    NoEngine,
    /// An engine did not take an image.
    #[error("`{program}` did not take the image")]
    Engine {
        /// What was called.
        program: &'static str,
        /// Why.
        #[source]
        source: EngineError,
    },
    /// A push without a name.
    #[error("there is nowhere to push to: the image has no name")]
    NoName,
    /// A Docker archive is for one platform.
    #[error("a Docker archive takes one platform for each name, and {count} were built")]
    SeveralPlatforms {
        /// Platforms.
        count: usize,
    },
    /// The packed bytes did not arrive as they were sent.
    #[error("packing layer {number} (`{diff_id}`) gave other bytes than announced")]
    PackDiffers {
        /// From 1.
        number: usize,
        /// Its `diff_id`.
        diff_id: String,
    },
    /// The root file system could not be written.
    #[error("cannot write the root file system to `{destination}`")]
    Root {
        /// Where to.
        destination: String,
        /// Why.
        #[source]
        source: Box<JobError>,
    },
    /// The destination could not be made or written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Writing to stdout.
    #[error("cannot write to standard output")]
    Stdout(#[source] io::Error),
    /// Binary data for people's eyes.
    #[error("an archive would be written to the terminal")]
    Terminal,
    /// No `dest=` where one is needed.
    #[error("the output needs a destination directory")]
    NoDestination,
    /// A directory where a file would go.
    #[error("`{}` is a directory, and the output is a file", path.display())]
    IsDirectory {
        /// The destination.
        path: PathBuf,
    },
    /// A file where a directory would go.
    #[error("`{}` is a file, and the output is a directory", path.display())]
    IsFile {
        /// The destination.
        path: PathBuf,
    },
    /// A layout that is already there and can't be added to.
    #[error("`{}` is not the index of an OCI layout", path.display())]
    ForeignIndex {
        /// Its `index.json`.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// One tar has room for one root.
    #[error("a tar output takes one platform, and {count} were built")]
    SeveralRoots {
        /// Platforms.
        count: usize,
    },
    /// An annotation that can't be read.
    #[error(transparent)]
    Annotation(#[from] AnnotationError),
    /// A name or the store's images.
    #[error(transparent)]
    Images(#[from] ImagesError),
    /// A base layer's blob.
    #[error(transparent)]
    Original(Box<PullError>),
    /// The store.
    #[error("cannot read or write the store")]
    Blob(#[from] BlobError),
    /// The store.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The store.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The store.
    #[error(transparent)]
    Layer(#[from] LayerError),
}

impl From<PullError> for ExportError {
    fn from(error: PullError) -> Self {
        Self::Original(Box::new(error))
    }
}

impl ExportError {
    /// What the user can do about it.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Terminal => {
                Some("redirect standard output, or name a file with `dest=`".to_owned())
            }
            Self::NoEngine => {
                Some("install one, or write an archive: `-o type=docker,dest=image.tar`".to_owned())
            }
            Self::NoDestination => Some("add `dest=DIR`".to_owned()),
            Self::IsDirectory { .. } => {
                Some("name a file in it, or ask for a directory with `tar=false`".to_owned())
            }
            Self::IsFile { .. } => {
                Some("name a directory, or ask for a file with `type=tar`".to_owned())
            }
            Self::Push { source, .. } => source.help(),
            Self::NoName => {
                Some("give it one with `-t REGISTRY/NAME` or in the output with `name=`".to_owned())
            }
            Self::SeveralPlatforms { .. } => {
                Some("use `type=oci`, which holds several, or build one platform".to_owned())
            }
            Self::SeveralRoots { .. } => {
                Some("use `type=local`, which makes one directory for each platform".to_owned())
            }
            Self::Damaged { .. } => Some(
                "it has been taken out of the store: build again, and it is made or pulled anew; \
                 `rbuild fsck` looks for more"
                    .to_owned(),
            ),
            Self::Pack { source, .. } | Self::Root { source, .. } => source.help.clone(),
            Self::PackDiffers { .. } => Some(
                "the store's file system may be damaged; `--no-cache` makes the layer anew"
                    .to_owned(),
            ),
            Self::Original(source) => source.help(),
            _ => None,
        }
    }
}
