//! Manifests and indexes as they are written: fields in a fixed order, maps sorted, nothing empty.

use std::collections::BTreeMap;

use oci_spec::image::Digest;
use rbuild_frontend::platform::Platform;
use serde::{Deserialize, Serialize};

use crate::manifest::{self, media};

/// A descriptor.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) platform: Option<serde_json::Value>,
    /// What an index of someone else says beside that.
    #[serde(flatten)]
    pub(super) other: serde_json::Map<String, serde_json::Value>,
}

impl Descriptor {
    pub(super) fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            annotations: BTreeMap::new(),
            platform: None,
            other: serde_json::Map::new(),
        }
    }

    /// Of bytes.
    pub(super) fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, manifest::digest_of(bytes), bytes.len() as u64)
    }

    pub(super) fn for_platform(mut self, platform: &Platform) -> Self {
        let mut fields = serde_json::Map::new();
        for (key, value) in [
            ("architecture", &platform.architecture),
            ("os", &platform.os),
            ("os.version", &platform.os_version),
            ("variant", &platform.variant),
        ] {
            if !value.is_empty() {
                fields.insert(key.to_owned(), value.as_str().into());
            }
        }
        self.platform = Some(fields.into());
        self
    }

    pub(super) fn with_annotations(mut self, annotations: BTreeMap<String, String>) -> Self {
        self.annotations.extend(annotations);
        self
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ManifestDocument<'a> {
    schema_version: u32,
    media_type: &'a str,
    config: &'a Descriptor,
    layers: &'a [Descriptor],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

/// An index, also `index.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Index {
    pub(super) schema_version: u32,
    #[serde(default = "index_media_type")]
    pub(super) media_type: String,
    pub(super) manifests: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) annotations: BTreeMap<String, String>,
}

fn index_media_type() -> String {
    media::OCI_INDEX.to_owned()
}

impl Index {
    pub(super) fn new(manifests: Vec<Descriptor>, annotations: BTreeMap<String, String>) -> Self {
        Self {
            schema_version: 2,
            media_type: index_media_type(),
            manifests,
            annotations,
        }
    }

    /// The same with Docker's media type.
    pub(super) fn of_docker(mut self) -> Self {
        media::DOCKER_INDEX.clone_into(&mut self.media_type);
        self
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self)
            .expect("an index has string keys only, so it can be written as JSON")
    }
}

/// Writes a manifest.
pub(super) fn manifest_json(
    config: &Descriptor,
    layers: &[Descriptor],
    annotations: &BTreeMap<String, String>,
    media_type: &str,
) -> Vec<u8> {
    let document = ManifestDocument {
        schema_version: 2,
        media_type,
        config,
        layers,
        annotations,
    };
    serde_json::to_vec(&document)
        .expect("a manifest has string keys only, so it can be written as JSON")
}
