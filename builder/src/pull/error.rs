//! Why an image could not be had.

use oci_spec::image::Digest;
use rbuild_cache::{BlobError, DbError, ImageError, LayerError, LeaseError};
use rbuild_frontend::reference::ReferenceError;
use rbuild_runner::JobError;

use crate::layout::LayoutError;
use crate::registry::{RegistryError, SettingsError};

/// An image that could not be resolved, fetched or unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullError {
    /// A text that is no name.
    #[error("`{name}` is not an image name")]
    Name {
        /// As given.
        name: String,
        /// Why.
        #[source]
        source: ReferenceError,
    },
    /// A text that is no sha256 digest.
    #[error("`{digest}` is not a sha256 digest")]
    Digest {
        /// As given.
        digest: String,
    },
    /// `--pull=never`, and it is not in the store.
    #[error("image `{reference}` is not in the local store, and pulling is switched off")]
    NotHere {
        /// Full name.
        reference: String,
    },
    /// The registry did not give it.
    #[error("cannot pull `{reference}`")]
    Registry {
        /// Full name.
        reference: String,
        /// Why.
        #[source]
        source: Box<RegistryError>,
    },
    /// The machine's configuration of registries.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The layout did not give it.
    #[error(transparent)]
    Layout(Box<LayoutError>),
    /// The index has nothing for the platform.
    #[error("image `{name}` has nothing for {platform}; it has: {available}")]
    NoSuchPlatform {
        /// The image.
        name: String,
        /// What was wanted.
        platform: String,
        /// What there is.
        available: String,
    },
    /// The config is not one.
    #[error("the config of image `{name}` is not valid")]
    Config {
        /// The image.
        name: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Manifest and config contradict each other.
    #[error("the manifest of image `{name}` lists {layers} layers, its config {diff_ids}")]
    LayerCount {
        /// The image.
        name: String,
        /// In the manifest.
        layers: usize,
        /// In the config.
        diff_ids: usize,
    },
    /// A layer's bytes could not be kept: wrong digest, full disk.
    #[error("cannot keep layer `{digest}` from `{location}`")]
    Blob {
        /// The layer's digest.
        digest: Digest,
        /// Where it comes from.
        location: String,
        /// Why.
        #[source]
        source: Box<BlobError>,
    },
    /// A cache could not give a blob.
    #[error("cannot get blob `{digest}`")]
    Cache {
        /// Which blob.
        digest: Digest,
        /// Why.
        #[source]
        source: Box<rbuild_cache::BackendError>,
    },
    /// A layer could not be read out of a layout.
    #[error("cannot copy layer `{digest}` from `{location}`")]
    CopyBlob {
        /// The layer's digest.
        digest: Digest,
        /// Where it comes from.
        location: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A layer that can't be unpacked.
    #[error("cannot unpack layer {number} (`{digest}`) of image `{name}`")]
    Unpack {
        /// The image.
        name: String,
        /// From 1.
        number: usize,
        /// The layer's digest.
        digest: Digest,
        /// Why.
        #[source]
        source: Box<JobError>,
    },
    /// The blob that a pulled layer came from is gone, and so are the places that had it.
    #[error(
        "the original blob `{digest}` of layer `{diff_id}` is no longer in the store and cannot be fetched again"
    )]
    OriginalGone {
        /// The layer.
        diff_id: String,
        /// Its blob.
        digest: Digest,
        /// Why the last place did not have it.
        #[source]
        source: Option<Box<PullError>>,
    },
    /// The store.
    #[error("cannot read or write the store")]
    Blobs(#[from] BlobError),
    /// The store.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The store.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The store.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The store.
    #[error(transparent)]
    Lease(#[from] LeaseError),
}

impl From<LayoutError> for PullError {
    fn from(error: LayoutError) -> Self {
        Self::Layout(Box::new(error))
    }
}

impl PullError {
    /// Whether the registry has nothing against the request but that there were too many.
    pub(super) fn is_rate_limit(&self) -> bool {
        matches!(self, Self::Registry { source, .. } if source.is_rate_limit())
    }

    /// What the user can do about it.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::NotHere { .. } => Some(
                "build or tag an image of that name, or allow pulling with `--pull`".to_owned(),
            ),
            Self::Registry { source, .. } => source.help(),
            Self::Settings(source) => source.help(),
            Self::Layout(source) => source.help(),
            Self::NoSuchPlatform { .. } => Some("choose another one with `--platform`".to_owned()),
            // A full disk has its own way out.
            Self::Blob { source, .. } if !matches!(**source, BlobError::Write { .. }) => Some(
                "what came is not what the manifest promises; nothing of it was kept".to_owned(),
            ),
            Self::Unpack { source, .. } => source.help.clone(),
            Self::OriginalGone { .. } => {
                Some("build once more with `--pull` to fetch the base again".to_owned())
            }
            _ => None,
        }
    }
}
