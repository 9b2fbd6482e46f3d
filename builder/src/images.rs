//! Images of the local store: adding, naming, listing, showing.

use std::time::{SystemTime, UNIX_EPOCH};

use oci_spec::image::Digest;
use rbuild_cache::{BlobError, ImageError, ImageRecord, Lease, Store};
use rbuild_frontend::image_config::ImageConfig;
use rbuild_frontend::reference::{Reference, ReferenceError};
use serde_json::{Value, json};

use crate::blocking;
use crate::export::{ExportError, Exported};
use crate::history::Origins;
use crate::image::BuiltImage;
use crate::manifest::MAX_DOCUMENT;
use crate::pull::{PullError, keep_document};

/// The images of a store.
#[derive(Clone, Debug)]
pub struct Images {
    store: Store,
}

/// A line of `rbuild images`.
#[derive(Clone, Debug)]
pub struct ImageSummary {
    /// `name:tag` as people write it; none for an image without a name.
    pub name: Option<String>,
    /// Digest of the config.
    pub id: Digest,
    /// When it was made, RFC 3339.
    pub created: Option<String>,
    /// Bytes of its layers, unpacked.
    pub size: u64,
    /// `linux/amd64`
    pub platform: String,
}

/// A line of `rbuild history`.
#[derive(Clone, Debug)]
pub struct HistoryLine {
    /// When, RFC 3339.
    pub created: Option<String>,
    /// The instruction.
    pub created_by: String,
    /// Bytes of the layer; none for an instruction without one.
    pub size: Option<u64>,
    /// The layer.
    pub diff_id: Option<Digest>,
    /// How long the step took that made the layer, in milliseconds, as far as the history of builds knows.
    pub took: Option<u64>,
    /// Where the layer came from: a build, a cache, an image.
    pub origin: Option<String>,
}

/// A document of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Document {
    /// Its config.
    Config,
    /// Its manifest.
    Manifest,
}

/// Why an image of the store can't be shown or named.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImagesError {
    /// A text that is no name.
    #[error("`{name}` is not an image name")]
    Name {
        /// As given.
        name: String,
        /// Why.
        #[source]
        source: ReferenceError,
    },
    /// A digest where a tag is needed.
    #[error("`{name}` has a digest; an image is named by a tag")]
    DigestInName {
        /// As given.
        name: String,
    },
    /// No such image.
    #[error("no image `{name}` in the store")]
    Unknown {
        /// As given.
        name: String,
    },
    /// An image that was never packed.
    #[error("image `{name}` has no manifest yet")]
    NoManifest {
        /// As given.
        name: String,
    },
    /// The config is not one.
    #[error("the config of image `{name}` is not valid")]
    Config {
        /// As given.
        name: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The store.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The store.
    #[error("cannot read or write the store")]
    Blob(#[from] BlobError),
    /// The store.
    #[error(transparent)]
    Keep(#[from] Box<PullError>),
}

impl ImagesError {
    /// What the user can do about it.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::NoManifest { name } => Some(format!(
                "one is made when it is pushed or saved: `rbuild save -o FILE {name}`"
            )),
            Self::Unknown { .. } => Some("`rbuild images` lists what the store has".to_owned()),
            _ => None,
        }
    }
}

/// The full name with a tag: `app` → `docker.io/library/app:latest`.
pub fn full_name(text: &str) -> Result<String, ImagesError> {
    let parsed = Reference::parse(text).map_err(|source| ImagesError::Name {
        name: text.to_owned(),
        source,
    })?;
    if parsed.digest.is_some() {
        return Err(ImagesError::DigestInName {
            name: text.to_owned(),
        });
    }
    Ok(parsed.with_default_tag().to_string())
}

/// What the store is asked for when a person names an image: a full name, or an id as it is.
fn lookup_name(text: &str) -> String {
    full_name(text).unwrap_or_else(|_| text.to_owned())
}

/// A stored full name as people write it.
fn short_name(name: &str) -> String {
    Reference::parse(name).map_or_else(|_| name.to_owned(), |reference| reference.familiar())
}

impl Images {
    /// The images of this store.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Keeps built images under full names (see [`full_name`]). With several platforms a name points at the first.
    /// `manifests` has image ids with the digests of their manifests, as far as they were packed; what was known of an
    /// image before stays.
    pub async fn add(
        &self,
        images: &[BuiltImage],
        names: Vec<String>,
        manifests: &[(Digest, Digest)],
        lease: &Lease,
    ) -> Result<Exported, ExportError> {
        let (store, lease, images) = (self.store.clone(), lease.clone(), images.to_vec());
        let manifests = manifests.to_vec();
        blocking::run(move || {
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs().cast_signed());
            let mut config_digest = None;
            for image in images {
                keep_document(&lease, &image.config_bytes)
                    .map_err(Box::new)
                    .map_err(ImagesError::Keep)?;
                let own_names: Vec<&str> = match config_digest {
                    None => names.iter().map(String::as_str).collect(),
                    Some(_) => Vec::new(),
                };
                let packed = manifests
                    .iter()
                    .find(|(id, _)| *id == image.config_digest)
                    .map(|(_, manifest)| manifest.clone());
                let manifest_digest = match packed {
                    Some(packed) => Some(packed),
                    None => store
                        .image(image.config_digest.as_ref())
                        .ok()
                        .flatten()
                        .and_then(|known| known.manifest_digest),
                };
                let record = ImageRecord {
                    config_digest: image.config_digest.clone(),
                    manifest_digest,
                    size: image.chain.tar_size(),
                    created: now,
                    platform: image.platform.to_string(),
                    base: None,
                    chain: image.chain,
                };
                store
                    .put_image(&own_names, &record)
                    .map_err(ImagesError::Image)?;
                config_digest.get_or_insert(image.config_digest);
            }
            Ok(Exported {
                descriptor: None,
                config_digest,
                names,
            })
        })
        .await
    }

    /// All images, one line for each name. Blocks.
    pub fn list(&self) -> Result<Vec<ImageSummary>, ImagesError> {
        let mut summaries = Vec::new();
        for (name, record) in self.store.images()? {
            let shown = name.as_deref().map(short_name);
            let known = shown.as_deref();
            let known = known.unwrap_or_else(|| record.config_digest.as_ref());
            // One that is damaged must not hide the others.
            let created = match self.config(&record, known) {
                Ok(config) => config.created,
                Err(error @ ImagesError::Blob(BlobError::Db(_))) => return Err(error),
                Err(error) => {
                    let why = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(
                        image = known,
                        why,
                        "the image's config is damaged: build or pull it again"
                    );
                    None
                }
            };
            summaries.push(ImageSummary {
                name: shown,
                id: record.config_digest,
                created,
                size: record.size,
                platform: record.platform,
            });
        }
        summaries.sort_by(|one, other| {
            (&one.name, one.id.as_ref()).cmp(&(&other.name, other.id.as_ref()))
        });
        Ok(summaries)
    }

    /// An image by name, id or start of an id, with its config. Blocks.
    pub fn find(&self, name: &str) -> Result<(ImageRecord, ImageConfig), ImagesError> {
        let mut found = self.store.image(&lookup_name(name))?;
        if found.is_none() {
            found = self.store.image(name)?; // an id looks like a name, too
        }
        let record = found.ok_or_else(|| ImagesError::Unknown {
            name: name.to_owned(),
        })?;
        let config = self.config(&record, name)?;
        Ok((record, config))
    }

    /// Everything that the store knows of an image, as JSON: the form of `docker image inspect`. Blocks.
    pub fn inspect(&self, name: &str) -> Result<Value, ImagesError> {
        let (record, config) = self.find(name)?;
        let mut names: Vec<String> = Vec::new();
        for (name, other) in self.store.images()? {
            if other.config_digest == record.config_digest {
                names.extend(name.as_deref().map(short_name));
            }
        }
        let diff_ids: Vec<String> = record
            .chain
            .iter()
            .map(|layer| layer.diff_id.to_string())
            .collect();
        Ok(json!({
            "Id": record.config_digest,
            "RepoTags": names,
            "ManifestDigest": record.manifest_digest,
            "Created": config.created,
            "Author": config.author,
            "Architecture": config.architecture,
            "Variant": config.variant,
            "Os": config.os,
            "Size": record.size,
            "Config": config.config,
            "RootFS": { "Type": "layers", "Layers": diff_ids },
            "History": config.history,
        }))
    }

    /// A document of an image, byte for byte. Blocks.
    pub fn document(&self, name: &str, what: Document) -> Result<Vec<u8>, ImagesError> {
        let (record, _) = self.find(name)?;
        let digest = match what {
            Document::Config => Some(record.config_digest),
            Document::Manifest => record.manifest_digest,
        };
        let digest = digest.ok_or_else(|| ImagesError::NoManifest {
            name: name.to_owned(),
        })?;
        Ok(self.store.read_blob(&digest, MAX_DOCUMENT)?)
    }

    /// The history of an image, newest first, with the sizes of its layers. Blocks.
    pub fn history(&self, name: &str) -> Result<Vec<HistoryLine>, ImagesError> {
        let (record, config) = self.find(name)?;
        let origins = Origins::read(&self.store);
        let mut layers = record.chain.iter();
        let mut lines: Vec<HistoryLine> = config
            .history
            .into_iter()
            .map(|entry| {
                let layer = if entry.empty_layer {
                    None
                } else {
                    layers.next()
                };
                let origin = layer.map(|layer| origins.of(&layer.diff_id));
                let (took, origin) = origin.unwrap_or_default();
                HistoryLine {
                    took,
                    origin,
                    created: entry.created,
                    created_by: entry.created_by,
                    size: layer.map(|layer| layer.tar_size),
                    diff_id: layer.map(|layer| layer.diff_id.as_digest().clone()),
                }
            })
            .collect();
        lines.reverse();
        Ok(lines)
    }

    /// Gives an image one more name. Blocks.
    pub fn tag(&self, image: &str, name: &str) -> Result<(), ImagesError> {
        let (record, _) = self.find(image)?;
        Ok(self
            .store
            .tag(&full_name(name)?, record.config_digest.as_ref())?)
    }

    /// Takes a name away; with the last one the image goes too. Blocks.
    pub fn remove(&self, name: &str) -> Result<rbuild_cache::RemovedImage, ImagesError> {
        let full = lookup_name(name);
        let wanted = if self.store.image(&full)?.is_some() {
            full
        } else {
            name.to_owned()
        };
        self.store
            .remove_image(&wanted)
            .map_err(|error| match error {
                ImageError::Unknown { .. } => ImagesError::Unknown {
                    name: name.to_owned(),
                },
                other => ImagesError::Image(other),
            })
    }

    fn config(&self, record: &ImageRecord, name: &str) -> Result<ImageConfig, ImagesError> {
        let bytes = self.store.read_blob(&record.config_digest, MAX_DOCUMENT)?;
        ImageConfig::from_json(&bytes).map_err(|source| ImagesError::Config {
            name: name.to_owned(),
            source,
        })
    }
}
