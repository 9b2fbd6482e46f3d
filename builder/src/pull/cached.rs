//! The layers of a step that a cache has: fetched, verified and unpacked as those of an image are.

use std::collections::HashMap;
use std::sync::Arc;

use oci_spec::image::{Descriptor, DescriptorBuilder, MediaType};
use rbuild_cache::{CacheBackend, CachedLayer, CachedStep, Chain, DiffId, Lease, OriginalBlob};
use rbuild_frontend::image_config::ImageConfig;

use super::{BaseLayers, ImageSources, LAYOUT_SCHEME, Origin, PullError, ResolvedBase};
use crate::manifest;

/// A cache as the origin of blobs.
#[derive(Clone, Debug)]
pub(super) struct CacheOrigin {
    pub(super) backend: Arc<dyn CacheBackend>,
    /// Layers whose blobs are those of pulled images.
    originals: HashMap<DiffId, OriginalBlob>,
}

impl CacheOrigin {
    fn of(backend: Arc<dyn CacheBackend>, layers: &[CachedLayer]) -> Self {
        let original = |layer: &CachedLayer| {
            let origins = layer.origins.as_ref()?;
            // A cache has no say in which files of this machine are read.
            let is_registry = |place: &&String| !place.starts_with(LAYOUT_SCHEME);
            let original = OriginalBlob {
                digest: layer.blob.clone(),
                size: layer.size,
                media_type: layer.media_type.clone(),
                locations: origins.iter().filter(is_registry).cloned().collect(),
            };
            Some((DiffId(layer.diff_id.clone()), original))
        };
        Self {
            backend,
            originals: layers.iter().filter_map(original).collect(),
        }
    }

    /// The pulled image's blob that a layer came as, if it did.
    pub(super) fn original(&self, diff_id: &DiffId) -> Option<OriginalBlob> {
        self.originals.get(diff_id).cloned()
    }
}

impl ImageSources {
    /// Makes the layers of a cached step present and holds them under the lease. What they hold is what their diff_ids
    /// say; the times of the chain are not yet the step's.
    pub(crate) async fn chain_from_cache(
        &self,
        step: &CachedStep,
        backend: &Arc<dyn CacheBackend>,
        lease: &Lease,
    ) -> Result<Chain, PullError> {
        let mut config = ImageConfig::default();
        let diff_ids = step.layers.iter().map(|layer| layer.diff_id.to_string());
        config.rootfs.diff_ids = diff_ids.collect();
        let origin = CacheOrigin::of(Arc::clone(backend), &step.layers);
        let base = ResolvedBase {
            name: format!("layers from the cache {}", backend.title()),
            platform: config.platform(),
            config,
            config_digest: manifest::digest_of(b""),
            manifest_digest: None,
            layers: BaseLayers::Blobs {
                descriptors: step.layers.iter().map(descriptor).collect(),
                origin: Origin::Cache(origin),
            },
        };
        self.chain(&base, lease).await
    }
}

fn descriptor(layer: &CachedLayer) -> Descriptor {
    DescriptorBuilder::default()
        .media_type(MediaType::from(layer.media_type.as_str()))
        .digest(layer.blob.clone())
        .size(layer.size)
        .build()
        .expect("all required fields are set")
}
