//! What a build leaves in the caches that `--cache-to` names: after the result is out, blobs before records.

use std::sync::{Arc, PoisonError};

use rbuild_cache::{BackendError, CacheBackend, CachedLayer, CachedStep, DirectoryBackend, Lease};

use super::{Caches, KeyedResult};
use crate::blocking;
use crate::error::StepError;
use crate::export::{ExportError, Exporter};
use crate::options::{CacheKind, CacheMode, CacheTarget, Output, OutputKind};

/// Why a result could not be published.
#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error(transparent)]
    Backend(#[from] BackendError),
    #[error("cannot make the blobs of its layers")]
    Layers(#[source] Box<ExportError>),
    #[error("cannot read a blob of the store")]
    Blob(#[from] rbuild_cache::BlobError),
    #[error(transparent)]
    Layer(#[from] rbuild_cache::LayerError),
    #[error(transparent)]
    Step(#[from] StepError),
}

impl Caches {
    /// Publishes the results of the build. What fails is told of.
    pub(crate) async fn publish(&self, exporter: &Exporter, lease: &Lease) {
        let results = {
            let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *results)
        };
        for target in &self.targets {
            let path = match &target.kind {
                CacheKind::Directory(path) => path.clone(),
                CacheKind::Unknown(kind) => {
                    self.unknown(&target.text, kind);
                    continue;
                }
            };
            let task = exporter
                .sources
                .tasks
                .start(format!("exporting cache to {}", path.display()));
            let published = async {
                let backend = blocking::run(move || DirectoryBackend::create(&path)).await?;
                let backend: Arc<dyn CacheBackend> = Arc::new(backend);
                let is_whole = !self.is_broken(&backend.title());
                let mut count = 0;
                for result in &results {
                    if result.is_in_image || target.mode == CacheMode::Max {
                        let is_new =
                            publish_one(exporter, lease, target, &backend, is_whole, result)
                                .await?;
                        count += usize::from(is_new);
                    }
                }
                Ok::<_, PublishError>(count)
            };
            let published = published.await;
            task.finish(&published, |count| match count {
                0 => "nothing new".to_owned(),
                1 => "1 step".to_owned(),
                count => format!("{count} steps"),
            });
        }
    }
}

/// Publishes one result, unless it is there and the cache `is_whole` as far as is known; false also for one whose layers are not in this store.
async fn publish_one(
    exporter: &Exporter,
    lease: &Lease,
    target: &CacheTarget,
    backend: &Arc<dyn CacheBackend>,
    is_whole: bool,
    result: &KeyedResult,
) -> Result<bool, PublishError> {
    let chain = result.record.chain.clone();
    let (store, keys, other) = (
        exporter.sources.store.clone(),
        result.keys.clone(),
        Arc::clone(backend),
    );
    let is_wanted = blocking::run(move || {
        for layer in &chain.0 {
            if store.layer(&layer.snapshot)?.is_none() {
                return Ok(false);
            }
        }
        for key in &keys {
            // One that can't be read is written anew.
            let there = other.lookup(key).unwrap_or_default();
            let same = is_whole
                && there.is_some_and(|step| {
                    let diff_ids = step.layers.iter().map(|layer| &layer.diff_id);
                    diff_ids.eq(chain.0.iter().map(|layer| layer.diff_id.as_digest()))
                        && has_all(other.as_ref(), &step.layers)
                });
            if !same {
                return Ok(true);
            }
        }
        Ok::<_, PublishError>(false)
    });
    if !is_wanted.await? {
        return Ok(false);
    }
    let packing = Output {
        compression: target.compression,
        compression_level: target.compression_level,
        ..Output::of_kind(OutputKind::Oci)
    };
    let layers = exporter
        .ship_for_cache(&result.record.chain, &packing, lease)
        .await
        .map_err(|error| PublishError::Layers(Box::new(error)))?;
    let (store, backend) = (exporter.sources.store.clone(), Arc::clone(backend));
    let (keys, record) = (result.keys.clone(), result.record.clone());
    blocking::run(move || {
        for layer in &layers {
            if !is_whole || !backend.has_blob(&layer.blob, layer.size)? {
                backend.publish_blob(&layer.blob, &mut store.open_blob(&layer.blob)?)?;
            }
        }
        let step = CachedStep {
            title: record.title,
            created: record.created,
            cost_us: record.cost_us,
            parts: record.parts,
            layers,
        };
        backend.publish(&keys, &step)?;
        Ok(true)
    })
    .await
}

fn has_all(backend: &dyn CacheBackend, layers: &[CachedLayer]) -> bool {
    layers
        .iter()
        .all(|layer| backend.has_blob(&layer.blob, layer.size).unwrap_or(false))
}
