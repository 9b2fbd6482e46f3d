//! Blobs on their way into the store: documents, layers from registries and layouts, and originals fetched again.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use oci_spec::image::{Descriptor, DescriptorBuilder, Digest, MediaType};
use rbuild_cache::{DiffId, Lease, OriginalBlob};
use rbuild_frontend::reference::Reference;

use super::{ImageSources, LAYOUT_SCHEME, Origin, PullError};
use crate::blocking;
use crate::layout::Layout;
use crate::manifest;
use crate::tasks::Task;

/// Bytes copied out of a layout at a time, and told to the task.
const COPY_BUFFER: usize = 256 << 10;

/// Puts a document into the store, unless it is there, and holds it.
pub(crate) fn keep_document(lease: &Lease, bytes: &[u8]) -> Result<Digest, PullError> {
    let digest = manifest::digest_of(bytes);
    if lease.hold_blob(&digest)?.is_none() {
        let mut writer = lease.blob_writer()?;
        let written = writer.write_all(bytes);
        written.map_err(|source| PullError::CopyBlob {
            digest: digest.clone(),
            location: "memory".to_owned(),
            source,
        })?;
        writer.commit(Some(&digest))?;
    }
    Ok(digest)
}

impl ImageSources {
    /// Makes sure that a layer blob is in the store, and stays there while the lease lives.
    pub(super) async fn fetch_layer(
        &self,
        descriptor: &Descriptor,
        origin: &Origin,
        lease: &Lease,
        task: &Arc<Task>,
    ) -> Result<(), PullError> {
        let digest = descriptor.digest().clone();
        let (own, wanted) = (lease.clone(), digest.clone());
        if blocking::run(move || is_here_and_whole(&own, &wanted)).await? {
            return Ok(());
        }
        task.expect(descriptor.size());
        let location = origin.location();
        match origin {
            Origin::Registry(reference) => {
                let own = lease.clone();
                let writer = blocking::run(move || own.blob_writer()).await?;
                let hear = |bytes| task.advance(bytes);
                let writer = self
                    .client
                    .download(reference, &digest, descriptor.size(), writer, &hear)
                    .await
                    .map_err(|source| PullError::Registry {
                        reference: reference.to_string(),
                        source: Box::new(source),
                    })?;
                blocking::run(move || {
                    let committed = writer.commit(Some(&digest));
                    committed.map_err(|source| PullError::Blob {
                        digest,
                        location,
                        source: Box::new(source),
                    })
                })
                .await?;
            }
            Origin::Cache(cache) => {
                let (backend, lease) = (Arc::clone(&cache.backend), lease.clone());
                let (size, task) = (descriptor.size(), Arc::clone(task));
                blocking::run(move || {
                    let mut writer = lease.blob_writer()?;
                    let fetched = backend.fetch(&digest, size, &mut writer);
                    fetched.map_err(|error| PullError::Cache {
                        digest: digest.clone(),
                        source: Box::new(error),
                    })?;
                    task.advance(size);
                    let committed = writer.commit(Some(&digest));
                    committed.map_err(|error| PullError::Blob {
                        digest,
                        location,
                        source: Box::new(error),
                    })?;
                    Ok::<_, PullError>(())
                })
                .await?;
            }
            Origin::Layout(layout) | Origin::Archive(layout) => {
                let (layout, descriptor, lease) =
                    (Arc::clone(layout), descriptor.clone(), lease.clone());
                let task = Arc::clone(task);
                blocking::run(move || {
                    copy_from_layout(&layout, &descriptor, &lease, &task, location)
                })
                .await?;
            }
        }
        Ok(())
    }

    /// Makes sure that the blob a pulled layer came from is in the store, fetching it again where that is needed.
    /// None for a layer that was made here.
    pub(crate) async fn original(
        &self,
        diff_id: &DiffId,
        lease: &Lease,
    ) -> Result<Option<OriginalBlob>, PullError> {
        let (store, own, wanted) = (self.store.clone(), lease.clone(), diff_id.clone());
        let found = blocking::run(move || {
            let Some(original) = store.original(&wanted)? else {
                return Ok::<_, PullError>(None);
            };
            let is_here = own.hold_blob(&original.digest)?.is_some();
            Ok(Some((original, is_here)))
        })
        .await?;
        let Some((original, is_here)) = found else {
            return Ok(None);
        };
        if is_here {
            return Ok(Some(original));
        }
        let descriptor = DescriptorBuilder::default()
            .media_type(MediaType::from(original.media_type.as_str()))
            .digest(original.digest.clone())
            .size(original.size)
            .build()
            .expect("all required fields are set");
        let task = Arc::new(
            self.tasks
                .start(format!("fetching layer {} again", original.digest)),
        );
        let mut last = None;
        for location in &original.locations {
            let origin = match open_location(location).await {
                Ok(origin) => origin,
                Err(error) => {
                    last = Some(Box::new(error));
                    continue;
                }
            };
            match self.fetch_layer(&descriptor, &origin, lease, &task).await {
                Ok(()) => return Ok(Some(original)),
                Err(error) => last = Some(Box::new(error)),
            }
        }
        Err(PullError::OriginalGone {
            diff_id: diff_id.to_string(),
            digest: original.digest,
            source: last,
        })
    }
}

/// Holds a blob that was in the store before. It is read once: what a disk has spoilt since is forgotten, and fetched anew.
fn is_here_and_whole(lease: &Lease, digest: &Digest) -> Result<bool, PullError> {
    if lease.hold_blob(digest)?.is_none() {
        return Ok(false);
    }
    let mut reader = lease.store().open_blob(digest)?;
    match io::copy(&mut reader, &mut io::sink()) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            tracing::warn!(%digest, "a blob was damaged; it is fetched again");
            Ok(false)
        }
        Err(source) => Err(PullError::CopyBlob {
            digest: digest.clone(),
            location: "the store".to_owned(),
            source,
        }),
    }
}

async fn open_location(location: &str) -> Result<Origin, PullError> {
    if let Some(path) = location.strip_prefix(LAYOUT_SCHEME) {
        let path = path.to_owned();
        let layout = blocking::run(move || Layout::open(Path::new(&path))).await?;
        return Ok(Origin::Layout(Arc::new(layout)));
    }
    let reference = Reference::parse(location).map_err(|source| PullError::Name {
        name: location.to_owned(),
        source,
    })?;
    Ok(Origin::Registry(reference))
}

fn copy_from_layout(
    layout: &Layout,
    descriptor: &Descriptor,
    lease: &Lease,
    task: &Task,
    location: String,
) -> Result<(), PullError> {
    let digest = descriptor.digest().clone();
    let mut reader = layout.open_layer(descriptor)?;
    let mut writer = lease.blob_writer()?;
    let copied = copy_and_tell(&mut reader, &mut writer, task);
    match copied {
        Ok(()) => {
            writer
                .commit(Some(&digest))
                .map_err(|source| PullError::Blob {
                    digest,
                    location,
                    source: Box::new(source),
                })?;
            Ok(())
        }
        Err(source) => Err(PullError::CopyBlob {
            digest,
            location,
            source,
        }),
    }
}

fn copy_and_tell(reader: &mut dyn Read, writer: &mut dyn Write, task: &Task) -> io::Result<()> {
    let mut buffer = vec![0; COPY_BUFFER];
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        writer.write_all(&buffer[..count])?;
        task.advance(count as u64);
    }
}
