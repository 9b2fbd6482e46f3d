//! What a build leaves in the caches that `--cache-to` names: after the result is out, blobs before records.

use std::sync::{Arc, PoisonError};

use rbuild_cache::{BackendError, CacheBackend, CachedLayer, CachedStep, DirectoryBackend, Lease};
use rbuild_frontend::reference::Reference;

use super::registry::LONGEST_TAG;
use super::{Caches, KeyedResult, words_of};
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

/// An error with its causes.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Told(String);

impl Caches {
    /// Publishes the results of the build; `pushed` are the names that the image was pushed to. What fails is told of.
    pub(crate) async fn publish(&self, exporter: &Exporter, lease: &Lease, pushed: &[Reference]) {
        let results = {
            let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *results)
        };
        for target in &self.targets {
            match &target.kind {
                CacheKind::Directory(path) => {
                    let (title, path) = (path.display().to_string(), path.clone());
                    let open = blocking::run(move || {
                        let backend = DirectoryBackend::create(&path)?;
                        Ok(Arc::new(backend) as Arc<dyn CacheBackend>)
                    });
                    self.publish_to(exporter, lease, target, &results, &title, open)
                        .await;
                }
                CacheKind::Registry(reference) => {
                    self.publish_below(exporter, lease, target, &results, reference)
                        .await;
                }
                CacheKind::Inline if pushed.is_empty() => self.tell(
                    &target.text,
                    "cannot use",
                    "an inline cache goes where the image is pushed to, and it is not pushed",
                ),
                CacheKind::Inline => {
                    for reference in pushed {
                        let is_too_long = |tag: &String| tag.len() > LONGEST_TAG;
                        if reference.tag.as_ref().is_some_and(is_too_long) {
                            let why = format!("its tag has more than {LONGEST_TAG} characters");
                            self.tell(&reference.to_string(), "cannot use", &why);
                            continue;
                        }
                        self.publish_below(exporter, lease, target, &results, reference)
                            .await;
                    }
                }
                CacheKind::Unknown(kind) => self.unknown(&target.text, kind),
            }
        }
    }

    async fn publish_below(
        &self,
        exporter: &Exporter,
        lease: &Lease,
        target: &CacheTarget,
        results: &[KeyedResult],
        reference: &Reference,
    ) {
        let backend: Arc<dyn CacheBackend> = Arc::new(self.remote.backend(reference));
        let title = reference.familiar();
        let open = std::future::ready(Ok(backend));
        self.publish_to(exporter, lease, target, results, &title, open)
            .await;
    }

    async fn publish_to(
        &self,
        exporter: &Exporter,
        lease: &Lease,
        target: &CacheTarget,
        results: &[KeyedResult],
        title: &str,
        open: impl Future<Output = Result<Arc<dyn CacheBackend>, BackendError>>,
    ) {
        let tasks = &exporter.sources.tasks;
        let task = tasks.start(format!("exporting cache to {title}"));
        let published = async {
            let backend = open.await?;
            let is_whole = !self.is_broken(&backend.title());
            let mut count = 0;
            for result in results {
                if result.is_in_image || target.mode == CacheMode::Max {
                    let is_new =
                        publish_one(exporter, lease, target, &backend, is_whole, result).await?;
                    count += usize::from(is_new);
                }
            }
            Ok::<_, PublishError>(count)
        };
        // It ends nothing, so all of it is told here.
        let published = published.await.map_err(|error| Told(words_of(&error)));
        task.finish(&published, |count| match count {
            0 => "nothing new".to_owned(),
            1 => "1 record".to_owned(),
            count => format!("{count} records"),
        });
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
        for layer in &chain {
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
                    diff_ids.eq(chain.iter().map(|layer| layer.diff_id.as_digest()))
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
