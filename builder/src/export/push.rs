//! To registries: blobs first, side by side, then the manifests that name them, then each tag.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use oci_spec::image::Digest;
use rbuild_frontend::reference::Reference;

use super::contents::{Assembled, Blob};
use super::{ExportError, Exporter};
use crate::registry::{BlobUpload, OnBytes, RegistryError, Uploaded};
use crate::tasks::Task;

/// Blobs that are looked after at once; how many bytes streams there are is the client's to limit.
const BLOBS_AT_ONCE: usize = 8;

/// What a push did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PushCounts {
    /// Blobs that were there.
    pub present: usize,
    /// Blobs that the registry took from another repository.
    pub mounted: usize,
    /// Blobs that were sent.
    pub sent: usize,
}

impl Exporter {
    /// Pushes an export under names, each with a tag. The documents must be kept in the store already.
    pub(super) async fn push(
        &self,
        assembled: &Assembled,
        names: &[String],
        task: &Arc<Task>,
    ) -> Result<PushCounts, ExportError> {
        if names.is_empty() {
            return Err(ExportError::NoName);
        }
        // One repository takes its blobs once, however many tags it gets.
        let mut repositories: BTreeMap<String, Vec<Reference>> = BTreeMap::new();
        for name in names {
            let reference = Reference::parse(name)
                .map_err(|source| crate::images::ImagesError::Name {
                    name: name.clone(),
                    source,
                })?
                .with_default_tag();
            repositories
                .entry(reference.name())
                .or_default()
                .push(reference);
        }
        let mut places = Vec::new();
        for references in repositories.into_values() {
            let missing = self.missing(assembled, &references).await?;
            places.push((references, missing));
        }
        // A repository that has the manifest has all below it: the others can mount from there.
        places.sort_by_key(|(references, missing)| missing.len() == references.len());
        let mut counts = PushCounts::default();
        let mut done: Vec<Reference> = Vec::new();
        for (references, missing) in places {
            let has_blobs = missing.len() < references.len();
            let pushed = self
                .push_to_repository(assembled, &missing, has_blobs, &done, task)
                .await?;
            counts.present += pushed.present;
            counts.mounted += pushed.mounted;
            counts.sent += pushed.sent;
            done.extend(references.into_iter().next());
        }
        Ok(counts)
    }

    /// Those of the tags of one repository that do not lead to this export already.
    async fn missing(
        &self,
        assembled: &Assembled,
        references: &[Reference],
    ) -> Result<Vec<Reference>, ExportError> {
        let mut missing = Vec::new();
        for reference in references {
            let tag = reference.tag.as_deref().unwrap_or("latest");
            let is_there = self
                .sources
                .client
                .has_manifest(reference, tag, &assembled.top.digest)
                .await
                .map_err(failed(reference))?;
            if !is_there {
                missing.push(reference.clone());
            }
        }
        Ok(missing)
    }

    async fn push_to_repository(
        &self,
        assembled: &Assembled,
        missing: &[Reference],
        has_blobs: bool,
        done: &[Reference],
        task: &Arc<Task>,
    ) -> Result<PushCounts, ExportError> {
        let top = &assembled.top;
        let Some(first) = missing.first() else {
            return Ok(PushCounts::default());
        };
        let mut counts = PushCounts::default();
        if !has_blobs {
            counts = self.push_blobs(assembled, first, done, task).await?;
            let children = assembled
                .contents
                .manifests
                .iter()
                .filter(|manifest| manifest.digest != top.digest);
            for manifest in children {
                self.put(
                    first,
                    manifest.digest.as_ref(),
                    &manifest.media_type,
                    assembled,
                    &manifest.digest,
                )
                .await?;
            }
        }
        for reference in missing {
            let tag = reference.tag.as_deref().unwrap_or("latest");
            self.put(reference, tag, &top.media_type, assembled, &top.digest)
                .await?;
        }
        Ok(counts)
    }

    async fn put(
        &self,
        reference: &Reference,
        selector: &str,
        media_type: &str,
        assembled: &Assembled,
        digest: &Digest,
    ) -> Result<(), ExportError> {
        let Some(Blob::Bytes(bytes)) = assembled.contents.blobs.get(digest.digest()) else {
            return Ok(()); // a manifest is always a document of the export
        };
        self.sources
            .client
            .put_manifest(reference, selector, media_type, bytes)
            .await
            .map_err(failed(reference))
    }

    async fn push_blobs(
        &self,
        assembled: &Assembled,
        reference: &Reference,
        done: &[Reference],
        task: &Arc<Task>,
    ) -> Result<PushCounts, ExportError> {
        let contents = &assembled.contents;
        let is_manifest = |hex: &str| {
            contents
                .manifests
                .iter()
                .any(|manifest| manifest.digest.digest() == hex)
        };
        let store = &self.sources.store;
        let mut uploads = Vec::new();
        for (hex, blob) in &contents.blobs {
            if is_manifest(hex) {
                continue;
            }
            let (digest, locations) = match blob {
                Blob::Bytes(bytes) => (crate::manifest::digest_of(bytes), &[][..]),
                Blob::Stored {
                    digest, locations, ..
                } => (digest.clone(), locations.as_slice()),
            };
            let path: PathBuf = store.blob_path(&digest);
            let upload = BlobUpload {
                digest,
                size: blob.size(),
                path,
                mount_from: mount_sources(reference, done, locations),
            };
            task.expect(upload.size);
            uploads.push(upload);
        }
        let (own, told) = (Arc::clone(task), task);
        let on_bytes: OnBytes = Arc::new(move |bytes| own.advance(bytes));
        // A loop, not `map`: the compiler can't prove a closure over these borrows general enough for `spawn`.
        let mut sending = Vec::with_capacity(uploads.len());
        for upload in &uploads {
            sending.push(self.push_blob(reference, upload, &on_bytes, told));
        }
        let outcomes: Vec<Uploaded> = stream::iter(sending)
            .buffer_unordered(BLOBS_AT_ONCE)
            .try_collect()
            .await?;
        let count = |kind| outcomes.iter().filter(|outcome| **outcome == kind).count();
        Ok(PushCounts {
            present: count(Uploaded::Present),
            mounted: count(Uploaded::Mounted),
            sent: count(Uploaded::Sent),
        })
    }

    async fn push_blob(
        &self,
        reference: &Reference,
        upload: &BlobUpload,
        on_bytes: &OnBytes,
        task: &Arc<Task>,
    ) -> Result<Uploaded, ExportError> {
        let outcome = self
            .sources
            .client
            .upload(reference, upload, on_bytes)
            .await
            .map_err(failed(reference))?;
        if outcome != Uploaded::Sent {
            task.advance(upload.size);
        }
        Ok(outcome)
    }
}

/// Repositories of the same registry that have a blob: where it came from, and where it was pushed a moment ago.
fn mount_sources(reference: &Reference, done: &[Reference], locations: &[String]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let known = locations
        .iter()
        .filter_map(|location| Reference::parse(location).ok());
    for other in done.iter().cloned().chain(known) {
        let is_useful = other.registry == reference.registry
            && other.repository != reference.repository
            && !found.contains(&other.repository);
        if is_useful {
            found.push(other.repository);
        }
    }
    found
}

fn failed(reference: &Reference) -> impl Fn(RegistryError) -> ExportError {
    let reference = reference.to_string();
    move |source| ExportError::Push {
        reference: reference.clone(),
        source: Box::new(source),
    }
}
