//! Whole images as they stand in a registry or layout, for copies: every document by its digest, nothing interpreted.

use std::sync::Arc;

use oci_spec::image::{Descriptor, Digest};
use rbuild_cache::Lease;
use rbuild_frontend::reference::Reference;

use super::{ImageSources, Origin, PullError};
use crate::blocking;
use crate::layout::Layout;
use crate::manifest;
use crate::registry::RegistryError;
use crate::tasks::Task;

/// Where a copy comes from.
#[derive(Clone, Debug)]
pub(crate) enum WholeSource {
    /// A tag or digest of a registry.
    Registry(Reference),
    /// A layout, and the entry of its `index.json`.
    Layout(Arc<Layout>, Box<Descriptor>),
}

impl WholeSource {
    fn origin(&self) -> Origin {
        match self {
            Self::Registry(reference) => Origin::Registry(reference.clone()),
            Self::Layout(layout, _) => Origin::Archive(Arc::clone(layout)),
        }
    }
}

impl ImageSources {
    /// The bytes of what a copy stands for: a manifest or an index.
    pub(crate) async fn whole_top(&self, source: &WholeSource) -> Result<Vec<u8>, PullError> {
        match source {
            WholeSource::Registry(reference) => {
                let fetched = self.client.manifest(reference).await;
                Ok(fetched.map_err(failed(reference))?.bytes)
            }
            WholeSource::Layout(_, entry) => self.whole_manifest(source, entry.digest()).await,
        }
    }

    /// The bytes of a manifest or index with this digest.
    pub(crate) async fn whole_manifest(
        &self,
        source: &WholeSource,
        digest: &Digest,
    ) -> Result<Vec<u8>, PullError> {
        match source {
            WholeSource::Registry(reference) => {
                let wrong = failed(reference);
                let fetched = self.client.raw_manifest(reference, digest.as_ref()).await;
                let bytes = fetched.map_err(&wrong)?.ok_or_else(|| {
                    wrong(RegistryError::NotFound {
                        reference: format!("{}@{digest}", reference.name()),
                    })
                })?;
                let actual = manifest::digest_of(&bytes);
                if actual == *digest {
                    return Ok(bytes);
                }
                Err(wrong(RegistryError::WrongDigest {
                    url: reference.name(),
                    expected: digest.clone(),
                    actual,
                }))
            }
            WholeSource::Layout(layout, _) => self.of_layout(layout, digest).await,
        }
    }

    /// The bytes of a config.
    pub(crate) async fn whole_config(
        &self,
        source: &WholeSource,
        digest: &Digest,
    ) -> Result<Vec<u8>, PullError> {
        match source {
            WholeSource::Registry(reference) => {
                let fetched = self.client.document(reference, digest).await;
                fetched.map_err(failed(reference))
            }
            WholeSource::Layout(layout, _) => self.of_layout(layout, digest).await,
        }
    }

    /// Makes sure that a layer is in the store while the lease lives.
    pub(crate) async fn whole_blob(
        &self,
        source: &WholeSource,
        descriptor: &Descriptor,
        lease: &Lease,
        task: &Arc<Task>,
    ) -> Result<(), PullError> {
        self.fetch_layer(descriptor, &source.origin(), lease, task)
            .await
    }

    async fn of_layout(&self, layout: &Arc<Layout>, digest: &Digest) -> Result<Vec<u8>, PullError> {
        let (layout, digest) = (Arc::clone(layout), digest.clone());
        Ok(blocking::run(move || layout.document(&digest, None)).await?)
    }
}

fn failed(reference: &Reference) -> impl Fn(RegistryError) -> PullError {
    let reference = reference.to_string();
    move |source| PullError::Registry {
        reference: reference.clone(),
        source: Box::new(source),
    }
}
