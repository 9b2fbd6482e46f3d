//! Manifests, indexes and descriptors as they come from registries, layouts and the store.
//!
//! Pure: bytes in, checked values out. OCI and Docker schema 2 documents are the same to the callers; the media type
//! strings of both stand here and nowhere else. What was read is never written again from these types (oci-spec drops
//! unknown fields, and its maps have no order): a stored document keeps its own bytes.

mod index;
pub mod media;
mod types;

use std::str::FromStr;

use oci_spec::image::{Digest, DigestAlgorithm, ImageIndex, ImageManifest};
use serde::Deserialize;

pub use self::index::{choose, images_of, is_attestation, platform_of, platforms_of};
use self::types::{essence, is_generic};
pub use self::types::{is_index, is_manifest, media_type, oci_layer_type};

/// No manifest, index or config is read past this size; registries refuse larger ones too (Docker's: 4 MiB).
pub const MAX_DOCUMENT: u64 = 4 << 20;

/// Layers of one image: far above the 127 that Docker allows, far below what could hurt.
const MAX_LAYERS: usize = 4096;

/// Why a document can't be used. Says nothing of where it came from: callers add that.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Not JSON, or not of the shape that its media type promises.
    #[error("not a valid {what}")]
    Malformed {
        /// `image manifest`, `image index`.
        what: &'static str,
        /// The parser's words.
        #[source]
        source: serde_json::Error,
    },
    /// A web page or other text where a manifest was expected.
    #[error("not a manifest but `{media_type}` starting with `{start}`")]
    NotAManifest {
        /// Content type that came with it.
        media_type: String,
        /// First characters.
        start: String,
    },
    /// Docker schema 1.
    #[error("a Docker schema 1 manifest, which has no config and no diff_ids")]
    Schema1,
    /// Something that is no image.
    #[error("media type `{media_type}` is not an image manifest or index")]
    UnknownMediaType {
        /// As found.
        media_type: String,
    },
    /// The document and what announced it disagree.
    #[error("announced as `{announced}`, but says itself that it is `{stated}`")]
    MediaTypeMismatch {
        /// By header or descriptor.
        announced: String,
        /// `mediaType` in the document.
        stated: String,
    },
    /// `schemaVersion` is not 2.
    #[error("schema version {version} is not supported, only 2 is")]
    SchemaVersion {
        /// As found.
        version: u32,
    },
    /// An artifact, not an image.
    #[error("an artifact with a config of type `{media_type}`, not a container image")]
    Artifact {
        /// Media type of the config.
        media_type: String,
    },
    /// A layer of a kind that can't be unpacked.
    #[error(
        "layer {number} has media type `{media_type}`, which is not a layer that can be unpacked"
    )]
    UnknownLayer {
        /// From 1.
        number: usize,
        /// As found.
        media_type: String,
    },
    /// A foreign layer.
    #[error(
        "layer {number} (`{media_type}`) is not distributable: its content is not in the registry"
    )]
    ForeignLayer {
        /// From 1.
        number: usize,
        /// As found.
        media_type: String,
    },
    /// A digest that is not sha256.
    #[error("digest `{digest}` uses an algorithm other than sha256")]
    DigestAlgorithm {
        /// As found.
        digest: Digest,
    },
    /// Absurd number of layers.
    #[error("{count} layers are more than the {MAX_LAYERS} that are accepted")]
    TooManyLayers {
        /// As found.
        count: usize,
    },
    /// A document larger than [`MAX_DOCUMENT`] is announced.
    #[error("a document of {size} bytes is larger than the {MAX_DOCUMENT} that are accepted")]
    TooLarge {
        /// As announced.
        size: u64,
    },
}

/// What a manifest request may answer.
#[derive(Clone, Debug)]
pub enum Document {
    /// One image.
    Manifest(Box<ImageManifest>),
    /// Several.
    Index(Box<ImageIndex>),
}

/// Only what is needed to see what a document is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    #[serde(default)]
    schema_version: u32,
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
    config: Option<serde::de::IgnoredAny>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

/// Reads a manifest or index. `announced` is the media type of the descriptor or the `Content-Type`, if there was one.
pub fn parse_document(bytes: &[u8], announced: Option<&str>) -> Result<Document, ManifestError> {
    let announced = announced
        .map(essence)
        .filter(|media_type| !is_generic(media_type));
    let probe: Probe = serde_json::from_slice(bytes).map_err(|source| match announced {
        Some(media_type) if is_index(media_type) => ManifestError::Malformed {
            what: "image index",
            source,
        },
        Some(media_type) if is_manifest(media_type) => ManifestError::Malformed {
            what: "image manifest",
            source,
        },
        _ => ManifestError::NotAManifest {
            media_type: announced.unwrap_or("unknown content").to_owned(),
            start: String::from_utf8_lossy(bytes)
                .trim_start()
                .chars()
                .take(40)
                .collect(),
        },
    })?;
    let stated = probe
        .media_type
        .as_deref()
        .filter(|media_type| !media_type.is_empty());
    let is_schema1 = |media_type: &str| media_type.starts_with(media::DOCKER_SCHEMA1);
    if probe.fs_layers.is_some()
        || announced.is_some_and(is_schema1)
        || stated.is_some_and(is_schema1)
    {
        return Err(ManifestError::Schema1);
    }
    let media_type = match (announced, stated) {
        (Some(announced), Some(stated)) if announced != stated => {
            return Err(ManifestError::MediaTypeMismatch {
                announced: announced.to_owned(),
                stated: stated.to_owned(),
            });
        }
        (Some(media_type), _) | (None, Some(media_type)) => media_type,
        // An OCI document may leave its type out, and layouts made by hand do.
        (None, None) if probe.manifests.is_some() => media::OCI_INDEX,
        (None, None) if probe.config.is_some() => media::OCI_MANIFEST,
        (None, None) => {
            return Err(ManifestError::UnknownMediaType {
                media_type: "none".to_owned(),
            });
        }
    };
    if !is_index(media_type) && !is_manifest(media_type) {
        return Err(ManifestError::UnknownMediaType {
            media_type: media_type.to_owned(),
        });
    }
    // A document with both lists is read differently by different tools (CVE-2021-41190).
    if (is_index(media_type) && probe.config.is_some())
        || (is_manifest(media_type) && probe.manifests.is_some())
    {
        return Err(ManifestError::MediaTypeMismatch {
            announced: media_type.to_owned(),
            stated: "a manifest and an index at once".to_owned(),
        });
    }
    if probe.schema_version != 2 {
        return Err(ManifestError::SchemaVersion {
            version: probe.schema_version,
        });
    }
    if is_index(media_type) {
        let index = serde_json::from_slice(bytes).map_err(|source| ManifestError::Malformed {
            what: "image index",
            source,
        })?;
        Ok(Document::Index(Box::new(index)))
    } else {
        let manifest =
            serde_json::from_slice(bytes).map_err(|source| ManifestError::Malformed {
                what: "image manifest",
                source,
            })?;
        check_manifest(&manifest)?;
        Ok(Document::Manifest(Box::new(manifest)))
    }
}

fn check_manifest(manifest: &ImageManifest) -> Result<(), ManifestError> {
    let config = manifest.config();
    let config_type = media_type(config);
    if config_type != media::OCI_CONFIG && config_type != media::DOCKER_CONFIG {
        return Err(ManifestError::Artifact {
            media_type: config_type,
        });
    }
    if config.size() > MAX_DOCUMENT {
        return Err(ManifestError::TooLarge {
            size: config.size(),
        });
    }
    check_digest(config.digest())?;
    if manifest.layers().len() > MAX_LAYERS {
        return Err(ManifestError::TooManyLayers {
            count: manifest.layers().len(),
        });
    }
    for (position, layer) in manifest.layers().iter().enumerate() {
        check_digest(layer.digest())?;
        let media_type = media_type(layer);
        let number = position + 1;
        match media_type.as_str() {
            media::OCI_LAYER
            | media::OCI_LAYER_GZIP
            | media::OCI_LAYER_ZSTD
            | media::DOCKER_LAYER
            | media::DOCKER_LAYER_GZIP
            | media::DOCKER_LAYER_ZSTD => {}
            foreign if foreign.contains("nondistributable") || foreign.contains(".foreign.") => {
                return Err(ManifestError::ForeignLayer { number, media_type });
            }
            _ => return Err(ManifestError::UnknownLayer { number, media_type }),
        }
    }
    Ok(())
}

/// Refuses a digest that can't be verified here.
pub fn check_digest(digest: &Digest) -> Result<(), ManifestError> {
    if *digest.algorithm() == DigestAlgorithm::Sha256 {
        Ok(())
    } else {
        Err(ManifestError::DigestAlgorithm {
            digest: digest.clone(),
        })
    }
}

/// Parses a digest and refuses everything but sha256.
pub fn parse_digest(text: &str) -> Option<Digest> {
    Digest::from_str(text)
        .ok()
        .filter(|digest| *digest.algorithm() == DigestAlgorithm::Sha256)
}

/// The sha256 digest of some bytes.
pub fn digest_of(bytes: &[u8]) -> Digest {
    use sha2::Digest as _;
    digest_from_hash(&sha2::Sha256::digest(bytes))
}

/// The digest with this sha256 value.
pub(crate) fn digest_from_hash(hash: &[u8]) -> Digest {
    use std::fmt::Write as _;
    let mut text = String::from("sha256:");
    for byte in hash {
        let _ = write!(text, "{byte:02x}"); // writing to a String can't fail
    }
    Digest::from_str(&text).expect("a sha256 in hex is a digest")
}

#[cfg(test)]
mod tests;
