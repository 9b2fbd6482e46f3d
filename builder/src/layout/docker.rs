//! What `docker save` writes: `manifest.json` names configs and layers by the paths of files in the archive.
//!
//! Layers are given the names of blobs here, so that a Docker archive is read as a layout is: the digest of a plain tar is
//! its diff_id, a path `blobs/sha256/<hex>` says its digest, and everything else is hashed once. None of that is believed:
//! whoever copies a blob out checks it.

use std::collections::HashMap;
use std::io::{self, Read};

use oci_spec::image::{Descriptor, DescriptorBuilder, MediaType};
use rbuild_frontend::image_config::ImageConfig;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::archive::{Archive, Section};
use super::{ArchivedImage, read_limited};
use crate::manifest::{self, ManifestError, media};

/// Name of the list of images.
pub(super) const LIST: &str = "manifest.json";

/// Links from link to link that are followed; `docker save` makes one.
const MAX_LINKS: usize = 4;

#[derive(Debug)]
pub(super) struct DockerArchive {
    archive: Archive,
    /// Hex digest → file.
    blobs: HashMap<String, String>,
    pub(super) images: Vec<ArchivedImage>,
}

/// Why a Docker archive can't be used.
#[derive(Debug)]
pub(super) enum DockerError {
    /// A file is missing or can't be read.
    Read { name: String, source: io::Error },
    /// A file that is not what it should be.
    Document { name: String, source: ManifestError },
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

impl DockerArchive {
    /// Reads the list and the configs. Layers whose digest is not known without it are read whole.
    pub(super) fn read(archive: Archive) -> Result<Self, DockerError> {
        let mut docker = Self {
            archive,
            blobs: HashMap::new(),
            images: Vec::new(),
        };
        let bytes = docker.document(LIST)?;
        let entries: Vec<Entry> =
            serde_json::from_slice(&bytes).map_err(|source| malformed(LIST, source))?;
        for entry in entries {
            let image = docker.image(entry)?;
            docker.images.push(image);
        }
        Ok(docker)
    }

    /// Opens a file by the name that a layout would give it.
    pub(super) fn open_file(&self, name: &str) -> io::Result<Section> {
        let hex = name.strip_prefix("blobs/sha256/").unwrap_or(name);
        let file = self.blobs.get(hex).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, "it is not in the archive's list")
        })?;
        self.archive.open_linked(file, MAX_LINKS)
    }

    fn document(&self, name: &str) -> Result<Vec<u8>, DockerError> {
        let read = |source| DockerError::Read {
            name: name.to_owned(),
            source,
        };
        let section = self.archive.open_linked(name, MAX_LINKS).map_err(read)?;
        read_limited(section).map_err(read)
    }

    fn image(&mut self, entry: Entry) -> Result<ArchivedImage, DockerError> {
        let config_bytes = self.document(&entry.config)?;
        let config = ImageConfig::from_json(&config_bytes)
            .map_err(|source| malformed(&entry.config, source))?;
        let diff_ids = config.rootfs.diff_ids;
        let mut layers = Vec::with_capacity(entry.layers.len());
        for (position, name) in entry.layers.iter().enumerate() {
            let diff_id = diff_ids.get(position).map(String::as_str);
            layers.push(self.layer(position + 1, name, diff_id)?);
        }
        Ok(ArchivedImage {
            names: entry.repo_tags.unwrap_or_default(),
            config_digest: manifest::digest_of(&config_bytes),
            config_bytes,
            manifest: None,
            layers,
        })
    }

    fn layer(
        &mut self,
        number: usize,
        name: &str,
        diff_id: Option<&str>,
    ) -> Result<Descriptor, DockerError> {
        let read = |source| DockerError::Read {
            name: name.to_owned(),
            source,
        };
        let open = || self.archive.open_linked(name, MAX_LINKS);
        let mut section = open().map_err(read)?;
        let size = section.size();
        let mut start = Vec::new();
        let begun = section.by_ref().take(6).read_to_end(&mut start);
        begun.map_err(read)?;
        let media_type = match start.as_slice() {
            [0x1f, 0x8b, ..] => media::OCI_LAYER_GZIP,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => media::OCI_LAYER_ZSTD,
            [b'B', b'Z', b'h', ..] | [0xfd, b'7', b'z', ..] => {
                return Err(DockerError::Document {
                    name: name.to_owned(),
                    source: ManifestError::UnknownLayer {
                        number,
                        media_type: "a tar compressed with bzip2 or xz".to_owned(),
                    },
                });
            }
            _ => media::OCI_LAYER,
        };
        let by_path = name
            .strip_prefix("blobs/sha256/")
            .and_then(|hex| manifest::parse_digest(&format!("sha256:{hex}")));
        let by_diff_id = diff_id
            .filter(|_| media_type == media::OCI_LAYER)
            .and_then(manifest::parse_digest);
        let digest = match by_path.or(by_diff_id) {
            Some(digest) => digest,
            None => manifest::digest_from_hash(&hash(open().map_err(read)?).map_err(read)?),
        };
        self.blobs
            .insert(digest.digest().to_owned(), name.to_owned());
        Ok(DescriptorBuilder::default()
            .media_type(MediaType::from(media_type))
            .digest(digest)
            .size(size)
            .build()
            .expect("all required fields are set"))
    }
}

fn hash(mut section: Section) -> io::Result<Vec<u8>> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match section.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().to_vec()),
            count => hasher.update(&buffer[..count]),
        }
    }
}

fn malformed(name: &str, source: serde_json::Error) -> DockerError {
    DockerError::Document {
        name: name.to_owned(),
        source: ManifestError::Malformed {
            what: "list or config of a Docker archive",
            source,
        },
    }
}
