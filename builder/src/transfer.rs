//! Images between the store and the world, without a build: pull, push, save; load, import, export, copy.

mod copy;
mod import;
mod load;

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use oci_spec::image::Digest;
use rbuild_cache::{Chain, ImageError, ImageRecord, Lease};
use rbuild_frontend::graph::ImageReference;
use rbuild_frontend::platform::Platform;

use crate::engine::Engine;
use crate::error::BuildError;
use crate::event::EventSink;
use crate::export::{ExportError, ExportOptions, Exported, Exporter, PushCounts};
use crate::image::BuiltImage;
use crate::images::{Images, ImagesError, full_name};
use crate::layout::LayoutError;
use crate::manifest::MAX_DOCUMENT;
use crate::options::{Output, OutputKind, PullPolicy};
use crate::pull::{ImageSources, PullError, ResolvedBase};
use crate::registry::{ClientOptions, RegistryClient, RegistrySettings};
use crate::tasks::Tasks;
use crate::{blocking, build};

/// Why an image could not be carried.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// The image, or its name.
    #[error(transparent)]
    Images(#[from] ImagesError),
    /// A pull.
    #[error(transparent)]
    Pull(#[from] Box<PullError>),
    /// A push or an archive.
    #[error(transparent)]
    Export(#[from] Box<ExportError>),
    /// A repository of which the store has no tag.
    #[error("the store has no image named `{repository}` with any tag")]
    NoTags {
        /// As typed.
        repository: String,
    },
    /// `--all-tags` with a tag.
    #[error("`{name}` has a tag, and all tags of a repository were asked for")]
    TagWithAllTags {
        /// As typed.
        name: String,
    },
    /// Layers can be neither kept nor packed: the isolation that was asked for can't be had.
    #[error(transparent)]
    Isolation(Box<BuildError>),
    /// An archive that can't be used.
    #[error(transparent)]
    Archive(#[from] Box<LayoutError>),
    /// An archive that can't be opened or read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// As given; `-` is standard input.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An archive larger than any image.
    #[error("`{}` holds more than {limit} bytes once it is decompressed", path.display())]
    TooLarge {
        /// As given.
        path: PathBuf,
        /// Bytes.
        limit: u64,
    },
    /// There is no room for what is read.
    #[error("cannot write `{}`", path.display())]
    Spool {
        /// Where to.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An end of a copy that can't be read.
    #[error("`{text}` is no place to copy from or to: {reason}")]
    Endpoint {
        /// As typed.
        text: String,
        /// Why.
        reason: &'static str,
    },
    /// Something else where a root file system was expected.
    #[error("`{}` is not a tar archive with files, compressed or not", path.display())]
    NotATar {
        /// As given.
        path: PathBuf,
    },
    /// `--change` with an instruction that changes more than the config.
    #[error("`{change}` cannot be a change of an imported image")]
    Change {
        /// As given.
        change: String,
    },
    /// Making the image of an imported file system failed.
    #[error("cannot make an image of `{}`", path.display())]
    Import {
        /// As given.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<BuildError>,
    },
    /// The store failed.
    #[error("the store failed")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl TransferError {
    /// What the user can do about it.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Pull(source) => source.help(),
            Self::Export(source) => source.help(),
            Self::Images(ImagesError::Unknown { .. }) | Self::NoTags { .. } => {
                Some("`rbuild images` lists what the store has".to_owned())
            }
            Self::TagWithAllTags { .. } => Some("leave the tag or `--all-tags` out".to_owned()),
            Self::Isolation(source) | Self::Import { source, .. } => source.help(),
            Self::Archive(source) => source.help(),
            Self::Endpoint { .. } => Some(
                "places are NAME, store:NAME, oci:DIR[:TAG], oci-archive:FILE[:NAME] and docker-archive:FILE[:NAME]"
                    .to_owned(),
            ),
            Self::Change { .. } => Some(format!("changes are {}", import::CHANGES.join(", "))),
            _ => None,
        }
    }
}

impl From<PullError> for TransferError {
    fn from(error: PullError) -> Self {
        Self::Pull(Box::new(error))
    }
}

impl From<LayoutError> for TransferError {
    fn from(error: LayoutError) -> Self {
        Self::Archive(Box::new(error))
    }
}

impl From<ExportError> for TransferError {
    fn from(error: ExportError) -> Self {
        Self::Export(Box::new(error))
    }
}

impl From<ImageError> for TransferError {
    fn from(error: ImageError) -> Self {
        Self::Images(ImagesError::Image(error))
    }
}

/// What was pushed.
#[derive(Clone, Debug)]
pub struct PushedImage {
    /// Full names.
    pub names: Vec<String>,
    /// Digest of the manifest.
    pub digest: Digest,
    /// What became of its blobs.
    pub counts: PushCounts,
}

pub use self::copy::{Copied, Endpoint};
pub use self::import::ImportOptions;
pub use self::load::LoadedImage;

/// How `save` writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SaveForm {
    /// What `docker save` writes; an OCI layout at the same time.
    #[default]
    DockerArchive,
    /// An OCI layout in a tar archive.
    OciArchive,
    /// An OCI layout as a directory.
    OciDirectory,
}

impl Engine {
    /// A store, a client and a lease for one transfer.
    pub(crate) fn sources(
        &self,
        settings: &RegistrySettings,
        events: EventSink,
    ) -> Result<(ImageSources, Lease), TransferError> {
        self.rung()
            .map_err(|error| TransferError::Isolation(Box::new(error)))?;
        let lease = self
            .store()
            .lease()
            .map_err(|error| TransferError::Store(Box::new(error)))?;
        let sources = ImageSources {
            store: self.store().clone(),
            spawner: self.spawner().clone(),
            client: RegistryClient::with_settings(ClientOptions::default(), settings.clone()),
            tasks: Tasks::new(events),
        };
        Ok((sources, lease))
    }

    /// Pulls an image and keeps it under its full name; gives its id.
    pub async fn pull(
        &self,
        name: &str,
        platform: Option<Platform>,
        policy: PullPolicy,
        settings: &RegistrySettings,
        events: EventSink,
    ) -> Result<(String, Digest), TransferError> {
        let (sources, lease) = self.sources(settings, events)?;
        let platform = platform.unwrap_or_else(build::this_machine);
        let reference = ImageReference::Name(name.to_owned());
        let base = sources
            .resolve(&reference, &platform, policy, &lease)
            .await?;
        let chain = sources.chain(&base, &lease).await?;
        // A name with a digest is no tag; the image is kept all the same, under its id.
        let full = full_name(name).ok();
        let id = base.config_digest.clone();
        self.keep(&base, chain, full.clone().into_iter().collect())
            .await?;
        self.end(lease).await?; // until here nothing of it may go
        Ok((full.unwrap_or_else(|| name.to_owned()), id))
    }

    /// Pushes images of the store under their own names; with `all_tags` every tag of each repository.
    pub async fn push(
        &self,
        names: &[String],
        all_tags: bool,
        output: &Output,
        settings: &RegistrySettings,
        events: EventSink,
    ) -> Result<Vec<PushedImage>, TransferError> {
        let (sources, lease) = self.sources(settings, events)?;
        let exporter = Exporter { sources };
        let mut groups: Vec<(StoredImage, Vec<String>)> = Vec::new();
        for name in names {
            let wanted = if all_tags {
                self.all_tags(name).await?
            } else {
                vec![full_name(name)?]
            };
            for full in wanted {
                let stored = self.stored(&full, &lease).await?;
                let id = stored.image.config_digest.clone();
                match groups
                    .iter_mut()
                    .find(|(known, _)| known.image.config_digest == id)
                {
                    Some((_, names)) if names.contains(&full) => {}
                    Some((_, names)) => names.push(full),
                    None => groups.push((stored, vec![full])),
                }
            }
        }
        let mut pushed = Vec::new();
        for (stored, names) in groups {
            let (sent, counts) = exporter
                .push_stored(
                    &stored.image,
                    stored.manifest_digest.as_ref(),
                    output,
                    names.clone(),
                    &lease,
                )
                .await?;
            let digest = digest_of(&sent, &stored.image);
            pushed.push(PushedImage {
                names,
                digest,
                counts,
            });
        }
        self.end(lease).await?;
        Ok(pushed)
    }

    /// Writes images of the store into one archive or directory; no destination is standard output.
    pub async fn save(
        &self,
        names: &[String],
        form: SaveForm,
        destination: Option<PathBuf>,
        compression: crate::options::OutputCompression,
        events: EventSink,
        settings: &RegistrySettings,
    ) -> Result<(), TransferError> {
        let (sources, lease) = self.sources(settings, events)?;
        let mut images: Vec<(BuiltImage, Option<Digest>, Vec<String>)> = Vec::new();
        for name in names {
            let stored = self.stored(name, &lease).await?;
            // An id has no name to be saved under.
            let is_id = stored
                .image
                .config_digest
                .digest()
                .starts_with(name.trim_start_matches("sha256:"));
            let full = full_name(name).ok().filter(|_| !is_id);
            let id = stored.image.config_digest.clone();
            match images
                .iter_mut()
                .find(|(known, ..)| known.config_digest == id)
            {
                Some((_, _, names)) => names.extend(full),
                None => images.push((
                    stored.image,
                    stored.manifest_digest,
                    full.into_iter().collect(),
                )),
            }
        }
        let kind = match form {
            SaveForm::DockerArchive => OutputKind::Docker,
            SaveForm::OciArchive => OutputKind::Oci,
            SaveForm::OciDirectory => OutputKind::OciDirectory,
        };
        let output = Output {
            destination,
            compression,
            ..Output::of_kind(kind)
        };
        Exporter { sources }
            .save_stored(images, &output, &lease)
            .await?;
        self.end(lease).await
    }

    /// Gives an image that was brought in its names in the store.
    async fn keep(
        &self,
        base: &ResolvedBase,
        chain: Chain,
        names: Vec<String>,
    ) -> Result<(), TransferError> {
        let record = ImageRecord {
            config_digest: base.config_digest.clone(),
            manifest_digest: base.manifest_digest.clone(),
            size: chain.tar_size(),
            created: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs().cast_signed()),
            platform: base.platform.to_string(),
            base: None,
            chain,
        };
        let store = self.store().clone();
        blocking::run(move || {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            Ok(store.put_image(&names, &record)?)
        })
        .await
    }

    /// Writes the root file system of an image of the store as a tar; no destination is standard output.
    pub async fn export(
        &self,
        name: &str,
        destination: Option<PathBuf>,
        settings: &RegistrySettings,
        events: EventSink,
    ) -> Result<(), TransferError> {
        let (sources, lease) = self.sources(settings, events)?;
        let found = self.stored(name, &lease).await?;
        let output = Output {
            destination,
            ..Output::of_kind(OutputKind::Tar)
        };
        Exporter { sources }
            .export(&[found.image], &output, &ExportOptions::default(), &lease)
            .await?;
        Ok(())
    }

    /// Everything of the transfer is durable, and nothing of it is held any more.
    async fn end(&self, lease: Lease) -> Result<(), TransferError> {
        let store = self.store().clone();
        blocking::run(move || {
            let synced = store.sync();
            drop(lease);
            synced.map_err(|error| TransferError::Store(Box::new(error)))
        })
        .await
    }

    /// The full names of all tags of a repository.
    async fn all_tags(&self, repository: &str) -> Result<Vec<String>, TransferError> {
        let full = full_name(repository)?;
        let prefix = match full.strip_suffix(":latest") {
            Some(prefix) if !repository.ends_with(":latest") => format!("{prefix}:"),
            _ => {
                return Err(TransferError::TagWithAllTags {
                    name: repository.to_owned(),
                });
            }
        };
        let store = self.store().clone();
        let mut names: Vec<String> = blocking::run(move || store.images())
            .await?
            .into_iter()
            .filter_map(|(name, _)| name.filter(|name| name.starts_with(&prefix)))
            .collect();
        names.sort();
        if names.is_empty() {
            return Err(TransferError::NoTags {
                repository: repository.to_owned(),
            });
        }
        Ok(names)
    }

    /// An image of the store, its layers held.
    async fn stored(&self, name: &str, lease: &Lease) -> Result<StoredImage, TransferError> {
        let (store, lease, name) = (self.store().clone(), lease.clone(), name.to_owned());
        blocking::run(move || {
            let (record, config) = Images::new(store.clone()).find(&name)?;
            lease
                .hold(&record.chain)
                .map_err(|error| TransferError::Store(Box::new(error)))?;
            let bytes = store
                .read_blob(&record.config_digest, MAX_DOCUMENT)
                .map_err(ImagesError::Blob)?;
            Ok(StoredImage {
                image: BuiltImage::of_store(config, bytes, record.config_digest, record.chain),
                manifest_digest: record.manifest_digest,
            })
        })
        .await
    }
}

/// An image of the store with what is known of its manifest.
#[derive(Debug)]
struct StoredImage {
    image: BuiltImage,
    manifest_digest: Option<Digest>,
}

fn digest_of(exported: &Exported, image: &BuiltImage) -> Digest {
    exported.descriptor.as_ref().map_or_else(
        || image.config_digest.clone(),
        |descriptor| descriptor.digest.clone(),
    )
}
