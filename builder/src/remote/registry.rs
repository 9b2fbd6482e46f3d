//! A cache in a registry: `type=registry`, and `type=inline` beside a pushed image.
//!
//! ```text
//! REPOSITORY:TAG                      what `ref=` names; nothing needs to be there
//! REPOSITORY:TAG-<64 hex of a key>    manifest: config = {keys, step} as JSON, layers = the blobs of its layers
//! ```
//!
//! One entry a key, each under a tag of its own: any number of builds may write at once, and none takes away what another
//! wrote. Blobs come before the manifest that names them and the manifest before its tags, so an entry that is found is
//! whole, and the registry's own garbage collection keeps what it needs. The record stands in the manifest once more
//! (`data` of its descriptor), so that a lookup is one request.
//!
//! A registry that fails once is left alone for the rest of the build: every further request would be waited for.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci_spec::image::Digest;
use rbuild_cache::{BackendError, CacheBackend, CachedStep, StepKey, Store};
use rbuild_frontend::reference::Reference;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::manifest::{self, MAX_DOCUMENT, media};
use crate::registry::{BlobUpload, OnBytes, RegistryClient, RegistryError};

/// Media type of a record, which is the config of its manifest.
const RECORD: &str = "application/vnd.rbuild.cache.record.v1+json";

/// Longest tag of a `ref=`: a tag has 128 characters, a key 64 and a hyphen.
pub const LONGEST_TAG: usize = 128 - 64 - 1;

/// Records up to this size stand in the manifest. Registries take manifests of 4 MiB.
const LARGEST_INLINE: usize = 512 << 10;

/// Chunks between the network and the store while a blob is fetched.
const CHUNKS_IN_FLIGHT: usize = 64;

/// A cache below a tag of a registry.
pub(crate) struct RegistryBackend {
    reference: Reference,
    client: RegistryClient,
    /// Where the blobs lie that are published.
    store: Store,
    runtime: Handle,
    /// Ends every wait.
    cancel: CancellationToken,
    /// The registry failed: nothing more is asked of it.
    has_failed: AtomicBool,
    /// Blobs that the repository has, as far as is known. Held for single look-ups and additions only.
    present: Mutex<BTreeSet<String>>,
}

impl std::fmt::Debug for RegistryBackend {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("RegistryBackend")
            .field("reference", &self.reference)
            .finish_non_exhaustive()
    }
}

/// What stands in a registry for a record.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    schema_version: u32,
    media_type: String,
    config: EntryDescriptor,
    layers: Vec<EntryDescriptor>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct EntryDescriptor {
    media_type: String,
    digest: Digest,
    size: u64,
    /// base64 of the content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<String>,
}

/// A record, with the keys under which it was written: an entry that someone gave another tag is none.
#[derive(Serialize, Deserialize)]
struct Record {
    keys: Vec<String>,
    step: CachedStep,
}

impl RegistryBackend {
    /// A cache below `reference`, which has a tag of at most [`LONGEST_TAG`] characters. Asks nothing of the registry. Must
    /// be called where a runtime is; the other functions block and must not be called there.
    pub(crate) fn new(
        reference: &Reference,
        client: RegistryClient,
        store: Store,
        cancel: CancellationToken,
    ) -> Self {
        Self {
            reference: reference.clone().with_default_tag(),
            client,
            store,
            runtime: Handle::current(),
            cancel,
            has_failed: AtomicBool::new(false),
            present: Mutex::default(),
        }
    }

    fn tag(&self, key: &StepKey) -> String {
        let tag = self.reference.tag.as_deref().unwrap_or("latest");
        format!("{tag}-{key}")
    }

    /// Waits for a request; one that failed was the last.
    fn wait<T>(
        &self,
        request: impl Future<Output = Result<T, RegistryError>>,
    ) -> Result<T, BackendError> {
        let outcome = self
            .runtime
            .block_on(self.cancel.run_until_cancelled(request));
        let Some(outcome) = outcome else {
            return Err(BackendError::Remote {
                place: self.title(),
                source: "the build was ended".into(),
            });
        };
        outcome.map_err(|source| {
            self.has_failed.store(true, Ordering::Relaxed);
            self.failed(source)
        })
    }

    fn failed(&self, source: RegistryError) -> BackendError {
        BackendError::Remote {
            place: self.title(),
            source: Box::new(source),
        }
    }

    fn damaged(&self, key: &StepKey) -> BackendError {
        BackendError::Damaged {
            path: PathBuf::from(format!("{}:{}", self.reference.name(), self.tag(key))),
        }
    }

    fn note_present(&self, digest: &Digest) {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        present.insert(digest.to_string());
    }

    fn is_known_present(&self, digest: &Digest) -> bool {
        let present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        present.contains(digest.as_ref())
    }

    /// The bytes of a record, checked against the manifest.
    fn record_of(&self, entry: &Entry) -> Result<Option<Vec<u8>>, BackendError> {
        let config = &entry.config;
        if config.media_type != RECORD || config.size > MAX_DOCUMENT {
            return Ok(None);
        }
        let bytes = match &config.data {
            Some(text) => STANDARD.decode(text).ok(),
            None => Some(self.wait(self.client.document(&self.reference, &config.digest))?),
        };
        Ok(bytes.filter(|bytes| manifest::digest_of(bytes) == config.digest))
    }

    fn upload(&self, digest: &Digest, path: PathBuf, size: u64) -> Result<(), BackendError> {
        let blob = BlobUpload {
            digest: digest.clone(),
            size,
            path,
            mount_from: Vec::new(),
        };
        let unheard: OnBytes = Arc::new(|_| {});
        self.wait(self.client.upload(&self.reference, &blob, &unheard))?;
        self.note_present(digest);
        Ok(())
    }

    /// Puts a small blob that is no file yet.
    fn upload_bytes(&self, bytes: &[u8]) -> Result<(), BackendError> {
        let digest = manifest::digest_of(bytes);
        let written = || {
            let mut file = tempfile::NamedTempFile::new()?;
            file.write_all(bytes)?;
            Ok::<_, io::Error>(file)
        };
        let file = written().map_err(|source| BackendError::Write {
            path: std::env::temp_dir(),
            source,
        })?;
        self.upload(&digest, file.path().to_owned(), bytes.len() as u64)
    }
}

impl CacheBackend for RegistryBackend {
    fn title(&self) -> String {
        self.reference.to_string()
    }

    fn lookup(&self, key: &StepKey) -> Result<Option<CachedStep>, BackendError> {
        if self.has_failed.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let tag = self.tag(key);
        let found = self.wait(self.client.raw_manifest(&self.reference, &tag))?;
        let Some(bytes) = found else { return Ok(None) };
        let damaged = || self.damaged(key);
        let entry: Entry = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
        let record = self.record_of(&entry)?.ok_or_else(damaged)?;
        let record: Record = serde_json::from_slice(&record).map_err(|_| damaged())?;
        let is_ours = record.keys.contains(&key.to_string());
        is_ours.then_some(Some(record.step)).ok_or_else(damaged)
    }

    fn fetch(&self, digest: &Digest, size: u64, to: &mut dyn Write) -> Result<(), BackendError> {
        let (sender, receiver) = mpsc::sync_channel(CHUNKS_IN_FLIGHT);
        let (client, reference, wanted) =
            (self.client.clone(), self.reference.clone(), digest.clone());
        let cancel = self.cancel.clone();
        let fetching = self.runtime.spawn(async move {
            let pipe = Pipe(sender);
            let fetched = client.download(&reference, &wanted, size, pipe, &|_| {});
            // Cancelled: the pipe is dropped, and who reads from it comes to its end.
            let fetched = cancel.run_until_cancelled(fetched).await;
            fetched.map(|fetched| fetched.map(drop))
        });
        let mut taken = Ok(());
        for chunk in receiver {
            let chunk: Vec<u8> = chunk;
            if let Err(error) = to.write_all(&chunk) {
                taken = Err(error);
                break; // hangs up: the download ends
            }
        }
        let fetched = self.runtime.block_on(fetching);
        taken.map_err(|source| BackendError::Receive {
            digest: digest.clone(),
            source,
        })?;
        match fetched {
            Ok(Some(Ok(()))) => Ok(()),
            Ok(Some(Err(RegistryError::BlobNotFound { .. }))) => Err(BackendError::MissingBlob {
                digest: digest.clone(),
            }),
            Ok(Some(Err(error))) => Err(self.failed(error)),
            Ok(None) => Err(BackendError::Receive {
                digest: digest.clone(),
                source: io::ErrorKind::Interrupted.into(),
            }),
            Err(ended) => Err(BackendError::Receive {
                digest: digest.clone(),
                source: io::Error::other(ended),
            }),
        }
    }

    fn has_blob(&self, digest: &Digest, _size: u64) -> Result<bool, BackendError> {
        if self.is_known_present(digest) {
            return Ok(true);
        }
        let is_there = self.wait(self.client.has_blob(&self.reference, digest))?;
        if is_there {
            self.note_present(digest);
        }
        Ok(is_there)
    }

    /// The bytes are taken from the store's file, which can be sent again after a failure; the registry checks the digest.
    fn publish_blob(&self, digest: &Digest, _bytes: &mut dyn Read) -> Result<(), BackendError> {
        let path = self.store.blob_path(digest);
        let size = std::fs::metadata(&path)
            .map_err(|source| BackendError::Read {
                path: path.clone(),
                source,
            })?
            .len();
        self.upload(digest, path, size)
    }

    fn publish(&self, keys: &[StepKey], step: &CachedStep) -> Result<(), BackendError> {
        let record = Record {
            keys: keys.iter().map(ToString::to_string).collect(),
            step: step.clone(),
        };
        let record = serde_json::to_vec(&record).expect("strings and numbers only: always JSON");
        self.upload_bytes(&record)?;
        let data = (record.len() <= LARGEST_INLINE).then(|| STANDARD.encode(&record));
        let layers = step.layers.iter().map(|layer| EntryDescriptor {
            media_type: layer.media_type.clone(),
            digest: layer.blob.clone(),
            size: layer.size,
            data: None,
        });
        let entry = Entry {
            schema_version: 2,
            media_type: media::OCI_MANIFEST.to_owned(),
            config: EntryDescriptor {
                media_type: RECORD.to_owned(),
                digest: manifest::digest_of(&record),
                size: record.len() as u64,
                data,
            },
            layers: layers.collect(),
        };
        let bytes = serde_json::to_vec(&entry).expect("strings and numbers only: always JSON");
        for key in keys {
            let tag = self.tag(key);
            let put = self
                .client
                .put_manifest(&self.reference, &tag, media::OCI_MANIFEST, &bytes);
            self.wait(put)?;
        }
        Ok(())
    }
}

/// Hands what is written to another thread.
struct Pipe(mpsc::SyncSender<Vec<u8>>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.send(bytes.to_vec());
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
