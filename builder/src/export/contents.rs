//! What leaves the store: the documents and layers of one or several images, in whatever form they are written then.

use std::collections::BTreeMap;

use oci_spec::image::Digest;
use rbuild_cache::{DiffId, Lease};

use super::annotations::{Annotations, Place};
use super::document::{Descriptor, Index, manifest_json};
use super::layers::{Packing, ShippedLayer};
use super::{ExportError, ExportOptions, ExportedDescriptor, Exporter};
use crate::blocking;
use crate::image::BuiltImage;
use crate::manifest::{self, Document, MAX_DOCUMENT, media};
use crate::options::{MediaTypes, Output};
use crate::pull::keep_document;
use crate::tasks::Task;

/// Everything that an export holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents {
    /// Blobs by hex digest, which is also their order.
    pub(super) blobs: BTreeMap<String, Blob>,
    /// Manifests and indexes, each after what it names.
    pub(super) manifests: Vec<Descriptor>,
    /// For each image its manifest, config and layers.
    pub(super) images: Vec<ImageParts>,
}

/// The documents of one image.
#[derive(Clone, Debug)]
pub(super) struct ImageParts {
    /// The image's own id, which is not the config's digest where times were rewritten.
    pub(super) image_id: Digest,
    pub(super) manifest: Descriptor,
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
}

#[derive(Clone, Debug)]
pub(super) enum Blob {
    /// A document.
    Bytes(Vec<u8>),
    /// A layer in the store.
    Stored {
        digest: Digest,
        size: u64,
        /// Repositories that are known to have it.
        locations: Vec<String>,
    },
}

impl Blob {
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Stored { size, .. } => *size,
        }
    }
}

/// A whole export: what it holds, and what stands for all of it.
#[derive(Clone, Debug)]
pub(super) struct Assembled {
    pub(super) contents: Contents,
    /// The manifest, or the index over several.
    pub(super) top: Descriptor,
}

impl Assembled {
    pub(super) fn descriptor(&self) -> ExportedDescriptor {
        ExportedDescriptor {
            media_type: self.top.media_type.clone(),
            digest: self.top.digest.clone(),
            size: self.top.size,
        }
    }

    /// The config that was shipped, of the first platform.
    pub(super) fn config_digest(&self) -> Option<Digest> {
        let first = self.contents.images.first()?;
        Some(first.config.digest.clone())
    }
}

impl Contents {
    pub(super) fn add_document(&mut self, media_type: &str, bytes: Vec<u8>) -> Descriptor {
        let descriptor = Descriptor::of(media_type, &bytes);
        self.blobs
            .insert(descriptor.digest.digest().to_owned(), Blob::Bytes(bytes));
        descriptor
    }

    fn add_layer(&mut self, layer: &ShippedLayer) {
        let (digest, size) = (layer.descriptor.digest.clone(), layer.descriptor.size);
        let blob = Blob::Stored {
            digest: digest.clone(),
            size,
            locations: layer.locations.clone(),
        };
        self.blobs.insert(digest.digest().to_owned(), blob);
    }

    /// Takes in what another export holds.
    pub(super) fn add(&mut self, other: Self) {
        self.blobs.extend(other.blobs);
        self.manifests.extend(other.manifests);
        self.images.extend(other.images);
    }
}

impl MediaTypes {
    fn manifest(self) -> &'static str {
        match self {
            Self::Oci => media::OCI_MANIFEST,
            Self::Docker => media::DOCKER_MANIFEST,
        }
    }

    fn config(self) -> &'static str {
        match self {
            Self::Oci => media::OCI_CONFIG,
            Self::Docker => media::DOCKER_CONFIG,
        }
    }

    fn layer(self, descriptor: &Descriptor) -> Descriptor {
        let mut descriptor = descriptor.clone();
        if self == Self::Docker {
            let media_type = match descriptor.media_type.as_str() {
                media::OCI_LAYER => media::DOCKER_LAYER,
                media::OCI_LAYER_ZSTD => media::DOCKER_LAYER_ZSTD,
                _ => media::DOCKER_LAYER_GZIP,
            };
            media_type.clone_into(&mut descriptor.media_type);
        }
        descriptor
    }
}

impl Exporter {
    /// Packs what is to be packed and writes the documents.
    pub(super) async fn assemble(
        &self,
        images: &[BuiltImage],
        output: &Output,
        options: &ExportOptions,
        lease: &Lease,
        task: &Task,
    ) -> Result<Assembled, ExportError> {
        if output.rewrites_timestamps && options.source_date_epoch.is_none() {
            self.sources
                .tasks
                .notice("rewrite-timestamp has no effect without SOURCE_DATE_EPOCH");
        }
        let epoch = options
            .source_date_epoch
            .filter(|_| output.rewrites_timestamps);
        let annotations =
            Annotations::parse(options.annotations.iter().chain(&output.annotations))?;
        let family = match output.media_types {
            MediaTypes::Docker if annotations.is_empty() => MediaTypes::Docker,
            MediaTypes::Docker => {
                self.sources.tasks.notice(
                    "oci-mediatypes=false has no effect together with annotations, which Docker's manifests have no place for",
                );
                MediaTypes::Oci
            }
            MediaTypes::Oci => MediaTypes::Oci,
        };
        let packing = Packing::of(output, epoch);
        let mut contents = Contents::default();
        let mut manifests = Vec::with_capacity(images.len());
        for image in images {
            let layers = self.ship_layers(image, packing, lease, task).await?;
            let diff_ids: Vec<DiffId> = layers.iter().map(|layer| layer.diff_id.clone()).collect();
            let config = if diff_ids == image.chain.diff_ids() {
                image.config_bytes.clone()
            } else {
                image.with_diff_ids(&diff_ids).config_bytes
            };
            for layer in &layers {
                contents.add_layer(layer);
            }
            let layers: Vec<Descriptor> = layers
                .iter()
                .map(|layer| family.layer(&layer.descriptor))
                .collect();
            let config = contents.add_document(family.config(), config);
            let on_manifest = annotations.on(Place::Manifest, Some(&image.platform));
            let bytes = manifest_json(&config, &layers, &on_manifest, family.manifest());
            let on_descriptor = annotations.on(Place::ManifestDescriptor, Some(&image.platform));
            let descriptor = contents
                .add_document(family.manifest(), bytes)
                .for_platform(&image.platform)
                .with_annotations(on_descriptor);
            contents.manifests.push(descriptor.clone());
            contents.images.push(ImageParts {
                image_id: image.config_digest.clone(),
                manifest: descriptor.clone(),
                config,
                layers,
            });
            manifests.push(descriptor);
        }
        let top = match <[Descriptor; 1]>::try_from(manifests) {
            Ok([only]) if !(annotations.need_index() || options.has_index) => only,
            manifests => {
                let manifests = manifests.map_or_else(|several| several, Vec::from);
                let index = Index::new(manifests, annotations.on(Place::Index, None));
                let (index, media_type) = match family {
                    MediaTypes::Oci => (index, media::OCI_INDEX),
                    MediaTypes::Docker => (index.of_docker(), media::DOCKER_INDEX),
                };
                let top = contents
                    .add_document(media_type, index.to_json())
                    .with_annotations(annotations.on(Place::IndexDescriptor, None));
                contents.manifests.push(top.clone());
                top
            }
        };
        Ok(Assembled { contents, top })
    }

    /// The same for an image of the store, with the very manifest that it was packed or pulled with, if the store has it
    /// and all of its layers can be had.
    pub(super) async fn assemble_stored(
        &self,
        image: &BuiltImage,
        manifest_digest: &Digest,
        lease: &Lease,
        task: &Task,
    ) -> Result<Option<Assembled>, ExportError> {
        let (store, wanted) = (self.sources.store.clone(), manifest_digest.clone());
        let bytes = blocking::run(move || store.read_blob(&wanted, MAX_DOCUMENT).ok()).await;
        let Some(bytes) = bytes else { return Ok(None) };
        let Ok(Document::Manifest(found)) = manifest::parse_document(&bytes, None) else {
            return Ok(None);
        };
        if found.config().digest() != &image.config_digest
            || found.layers().len() != image.chain.len()
        {
            return Ok(None);
        }
        let mut contents = Contents::default();
        let mut layers = Vec::new();
        for (wanted, layer) in found.layers().iter().zip(&image.chain) {
            let mut locations = Vec::new();
            let (own, digest) = (lease.clone(), wanted.digest().clone());
            let is_here = blocking::run(move || own.hold_blob(&digest))
                .await?
                .is_some();
            let diff_id = layer.diff_id.clone();
            let store = self.sources.store.clone();
            let of_this_blob = blocking::run(move || store.original(&diff_id))
                .await?
                .filter(|original| original.digest == *wanted.digest());
            match of_this_blob {
                Some(original) if is_here => locations = original.locations,
                Some(_) => {
                    let fetched = self.sources.original(&layer.diff_id, lease).await?;
                    locations.extend(fetched.into_iter().flat_map(|fetched| fetched.locations));
                }
                None if is_here => {}
                None => return Ok(None),
            }
            let descriptor = Descriptor::new(
                &manifest::media_type(wanted),
                wanted.digest().clone(),
                wanted.size(),
            );
            contents.add_layer(&ShippedLayer {
                descriptor: descriptor.clone(),
                diff_id: layer.diff_id.clone(),
                locations,
            });
            layers.push(descriptor);
        }
        task.advance(0);
        let media_type = match found.config().media_type().to_string().as_str() {
            media::DOCKER_CONFIG => media::DOCKER_MANIFEST,
            _ => media::OCI_MANIFEST,
        };
        let config_type = found.config().media_type().to_string();
        let config = contents.add_document(&config_type, image.config_bytes.clone());
        let top = contents
            .add_document(media_type, bytes)
            .for_platform(&image.platform);
        contents.manifests.push(top.clone());
        contents.images.push(ImageParts {
            image_id: image.config_digest.clone(),
            manifest: top.clone(),
            config,
            layers,
        });
        Ok(Some(Assembled { contents, top }))
    }

    /// Keeps the documents of an export in the store; gives for each image the digest of its manifest.
    pub(super) async fn keep_documents(
        &self,
        contents: &Contents,
        lease: &Lease,
    ) -> Result<Vec<(Digest, Digest)>, ExportError> {
        let documents: Vec<Vec<u8>> = contents
            .blobs
            .values()
            .filter_map(|blob| match blob {
                Blob::Bytes(bytes) => Some(bytes.clone()),
                Blob::Stored { .. } => None,
            })
            .collect();
        let lease = lease.clone();
        blocking::run(move || {
            documents
                .iter()
                .try_for_each(|bytes| keep_document(&lease, bytes).map(drop))
        })
        .await?;
        let of = |parts: &ImageParts| (parts.image_id.clone(), parts.manifest.digest.clone());
        Ok(contents.images.iter().map(of).collect())
    }
}
