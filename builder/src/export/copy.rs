//! Copies of whole images: manifests and indexes keep their bytes, and so their digests and signatures.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use oci_spec::image::{Descriptor as OciDescriptor, ImageManifest};
use rbuild_cache::Lease;
use rbuild_frontend::platform::Platform;

use super::contents::{Assembled, Blob, Contents, ImageParts};
use super::document::Descriptor;
use super::{ExportError, Exported, Exporter};
use crate::manifest::{self, Document, ManifestError, media};
use crate::options::{Output, OutputKind};
use crate::pull::{PullError, WholeSource};
use crate::tasks::Task;

/// Indexes in indexes that are followed.
const MAX_NESTING: usize = 4;

/// Manifests of one copy: far above what any index has.
const MAX_MANIFESTS: usize = 1000;

/// Blobs that are fetched at once; the client limits what one host is asked for.
const BLOBS_AT_ONCE: usize = 6;

/// Layers of one manifest.
const MAX_LAYERS: usize = 4096;

impl Exporter {
    /// Copies what `source` stands for to a registry or into an archive or layout: all of it, or with `platform` the one
    /// image. `names` are full names of what is written.
    pub(crate) async fn copy_whole(
        &self,
        source: &WholeSource,
        platform: Option<&Platform>,
        output: &Output,
        names: Vec<String>,
        lease: &Lease,
    ) -> Result<Exported, ExportError> {
        let task = Arc::new(self.sources.tasks.start("copying an image"));
        let copied = async {
            let assembled = self.gather(source, platform, lease, &task).await?;
            self.deliver(assembled, output, names, lease, &task).await
        };
        let copied = copied.await;
        super::finish(task, &copied, super::digest_of);
        copied
    }

    /// Writes or pushes what was gathered.
    pub(super) async fn deliver(
        &self,
        assembled: Assembled,
        output: &Output,
        names: Vec<String>,
        lease: &Lease,
        task: &Arc<Task>,
    ) -> Result<Exported, ExportError> {
        let exported = Exported {
            descriptor: Some(assembled.descriptor()),
            config_digest: assembled.config_digest(),
            names: names.clone(),
        };
        if output.kind == OutputKind::Image {
            self.keep_documents(&assembled.contents, lease).await?;
            self.push(&assembled, &names, task).await?;
        } else {
            self.write_assembled(vec![(assembled, names)], output)
                .await?;
        }
        Ok(exported)
    }

    async fn gather(
        &self,
        source: &WholeSource,
        platform: Option<&Platform>,
        lease: &Lease,
        task: &Arc<Task>,
    ) -> Result<Assembled, ExportError> {
        let mut bytes = self.sources.whole_top(source).await?;
        if let Some(platform) = platform {
            bytes = self.only(source, bytes, platform).await?;
        }
        let mut contents = Contents::default();
        // Depth first, a document after all that it names.
        let mut open: Vec<(Vec<u8>, Option<OciDescriptor>, usize)> = vec![(bytes, None, 0)];
        let mut top = None;
        while let Some((bytes, entry, depth)) = open.pop() {
            if contents.manifests.len() + open.len() > MAX_MANIFESTS || depth > MAX_NESTING {
                return Err(unusable(ManifestError::TooManyLayers {
                    count: contents.manifests.len() + open.len(),
                }));
            }
            let kind = kind_of(&bytes, entry.as_ref());
            let mut descriptor = Descriptor::of(&kind, &bytes);
            if manifest::is_index(&kind) {
                let Document::Index(index) =
                    manifest::parse_document(&bytes, Some(&kind)).map_err(unusable)?
                else {
                    return Err(unusable(ManifestError::UnknownMediaType {
                        media_type: kind,
                    }));
                };
                for entry in index.manifests() {
                    manifest::check_digest(entry.digest()).map_err(unusable)?;
                    let below = self.sources.whole_manifest(source, entry.digest()).await?;
                    open.push((below, Some(entry.clone()), depth + 1));
                }
            } else {
                let parts = self
                    .gather_image(source, &bytes, entry.as_ref(), &mut contents, lease, task)
                    .await?;
                if let Some(platform) = entry.as_ref().and_then(manifest::platform_of) {
                    descriptor = descriptor.for_platform(&platform);
                }
                contents.images.extend(parts);
            }
            contents.add_document(&kind, bytes);
            contents.manifests.push(descriptor.clone());
            top.get_or_insert(descriptor);
        }
        // What names others was met before them.
        contents.manifests.reverse();
        let top = top.expect("the stack began with the top");
        Ok(Assembled { contents, top })
    }

    /// The manifest of one platform.
    async fn only(
        &self,
        source: &WholeSource,
        top: Vec<u8>,
        platform: &Platform,
    ) -> Result<Vec<u8>, ExportError> {
        let mut bytes = top;
        for _ in 0..=MAX_NESTING {
            match manifest::parse_document(&bytes, None).map_err(unusable)? {
                Document::Manifest(_) => return Ok(bytes),
                Document::Index(index) => {
                    let entries = index.manifests();
                    let chosen = manifest::choose(entries, platform).ok_or_else(|| {
                        PullError::NoSuchPlatform {
                            name: "the image".to_owned(),
                            platform: platform.to_string(),
                            available: manifest::platforms_of(entries),
                        }
                    })?;
                    bytes = self.sources.whole_manifest(source, chosen.digest()).await?;
                }
            }
        }
        Err(unusable(ManifestError::UnknownMediaType {
            media_type: "indexes nested without end".to_owned(),
        }))
    }

    /// Fetches what a manifest names; none for one that is no image (a signature, provenance).
    async fn gather_image(
        &self,
        source: &WholeSource,
        bytes: &[u8],
        entry: Option<&OciDescriptor>,
        contents: &mut Contents,
        lease: &Lease,
        task: &Arc<Task>,
    ) -> Result<Option<ImageParts>, ExportError> {
        let malformed = |source| {
            unusable(ManifestError::Malformed {
                what: "image manifest",
                source,
            })
        };
        let found: ImageManifest = serde_json::from_slice(bytes).map_err(malformed)?;
        if found.layers().len() > MAX_LAYERS {
            return Err(unusable(ManifestError::TooManyLayers {
                count: found.layers().len(),
            }));
        }
        for descriptor in std::iter::once(found.config()).chain(found.layers()) {
            manifest::check_digest(descriptor.digest()).map_err(unusable)?;
        }
        let config_digest = found.config().digest();
        let config = self.sources.whole_config(source, config_digest).await?;
        let config = contents.add_document(&manifest::media_type(found.config()), config);
        let mut fetching = Vec::new();
        for layer in found.layers() {
            fetching.push(self.sources.whole_blob(source, layer, lease, task));
        }
        stream::iter(fetching)
            .buffer_unordered(BLOBS_AT_ONCE)
            .try_collect::<()>()
            .await?;
        let mut layers = Vec::new();
        for layer in found.layers() {
            let descriptor = Descriptor::new(
                &manifest::media_type(layer),
                layer.digest().clone(),
                layer.size(),
            );
            let blob = Blob::Stored {
                digest: layer.digest().clone(),
                size: layer.size(),
                locations: match source {
                    WholeSource::Registry(reference) => vec![reference.name()],
                    WholeSource::Layout(..) => Vec::new(),
                },
            };
            contents
                .blobs
                .insert(layer.digest().digest().to_owned(), blob);
            layers.push(descriptor);
        }
        let is_image = manifest::parse_document(bytes, None).is_ok()
            && !entry.is_some_and(manifest::is_attestation);
        Ok(is_image.then(|| ImageParts {
            image_id: config_digest.clone(),
            manifest: Descriptor::of(&kind_of(bytes, entry), bytes),
            config,
            layers,
        }))
    }
}

/// The media type of a document: what it says, what its entry says, or what it looks like.
fn kind_of(bytes: &[u8], entry: Option<&OciDescriptor>) -> String {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Probe {
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
    }
    let probe: Option<Probe> = serde_json::from_slice(bytes).ok();
    let stated = probe.as_ref().and_then(|probe| probe.media_type.clone());
    stated
        .or_else(|| entry.map(manifest::media_type))
        .unwrap_or_else(|| match probe {
            Some(probe) if probe.manifests.is_some() => media::OCI_INDEX.to_owned(),
            _ => media::OCI_MANIFEST.to_owned(),
        })
}

fn unusable(source: ManifestError) -> ExportError {
    ExportError::Source { source }
}
