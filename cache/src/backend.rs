//! The seam for caches outside the store: what a place must be able to do to hold records and layers for others.
//!
//! A backend maps step keys to [`CachedStep`]s and digests to blobs. It blocks; whoever calls it does so where that is
//! allowed. It is trusted as far as its user trusts it and no further: that a key stands for a result is its word, but
//! bytes are verified against their digests, layers against their diff_ids, and content digests are computed anew, by
//! whoever fetches. An error of a backend is never one of the build.

mod directory;

use std::fmt::Debug;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use oci_spec::image::Digest;
use serde::{Deserialize, Serialize};

pub use self::directory::DirectoryBackend;
use crate::chain::Chain;
use crate::digest::{ContentDigest, DiffId, parse_hex};
use crate::key::StepKey;
use crate::layer::{Layer, SnapshotId};
use crate::record::{KeyPart, StepRecord};

/// Most layers of a record that is believed: more than any image has.
const MAX_LAYERS: usize = 4096;

/// Why a backend could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// There is nothing at its place.
    #[error("there is no cache in `{path}`")]
    Missing {
        /// The place.
        path: PathBuf,
    },
    /// What is there is something else, or was made by a later rbuild.
    #[error("`{path}` is not a cache of this format")]
    Format {
        /// The file that should say so.
        path: PathBuf,
    },
    /// A file is not what a cache holds.
    #[error("`{path}` is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// A blob that a record names is not there.
    #[error("blob `{digest}` is not in the cache")]
    MissingBlob {
        /// The blob.
        digest: Digest,
    },
    /// Reading failed.
    #[error("cannot read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Writing failed.
    #[error("cannot write `{path}`")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A cache across a network did not do what was asked.
    #[error("`{place}` cannot be used")]
    Remote {
        /// The place.
        place: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The receiver of a blob's bytes failed.
    #[error("cannot take blob `{digest}`")]
    Receive {
        /// The blob.
        digest: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel gave no random bytes for a file's name.
    #[error("cannot get random bytes")]
    Random(#[source] rustix::io::Errno),
}

/// A place that keeps results of steps for other stores.
///
/// Any number of processes may use one at once. A writer makes blobs before the records that name them, so a reader
/// never finds a record whose blobs were not there when it was written.
pub trait CacheBackend: Debug + Send + Sync {
    /// What messages call it.
    fn title(&self) -> String;

    /// The record of a key. Its claims are not verified.
    fn lookup(&self, key: &StepKey) -> Result<Option<CachedStep>, BackendError>;

    /// Writes a blob's bytes, at most `size` of them. They are not verified.
    fn fetch(&self, digest: &Digest, size: u64, to: &mut dyn Write) -> Result<(), BackendError>;

    /// Whether it has a blob of this size: then it need not be published.
    fn has_blob(&self, digest: &Digest, size: u64) -> Result<bool, BackendError>;

    /// Keeps a blob whose bytes are known to have this digest. `Ok` means that it is there, not that this call put it.
    fn publish_blob(&self, digest: &Digest, bytes: &mut dyn Read) -> Result<(), BackendError>;

    /// Keeps a record under its keys. All its blobs are there. The newest wins.
    fn publish(&self, keys: &[StepKey], step: &CachedStep) -> Result<(), BackendError>;
}

/// A step's result as a backend holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CachedStep {
    /// The step as users know it.
    pub title: String,
    /// When it ran: seconds since the epoch.
    pub created: i64,
    /// How long it took, in microseconds.
    pub cost_us: u64,
    /// What its key was made of; never a secret's value.
    pub parts: Vec<KeyPart>,
    /// All layers of the result, lowest first.
    pub layers: Vec<CachedLayer>,
}

/// One layer of a [`CachedStep`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CachedLayer {
    /// diff_id.
    pub diff_id: Digest,
    /// Content digest in hex.
    pub content: String,
    /// Size of the uncompressed tar.
    pub tar_size: u64,
    /// When it was made: seconds since the epoch.
    pub created: i64,
    /// And nanoseconds.
    pub created_nanos: u32,
    /// Digest of its blob.
    pub blob: Digest,
    /// Size of its blob.
    pub size: u64,
    /// Media type of its blob.
    pub media_type: String,
    /// For a layer of a pulled image, where its blob was pulled from: the blob is that image's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origins: Option<Vec<String>>,
}

impl CachedStep {
    /// The record as far as it can be believed before anything was fetched: its snapshots are not there. None when it is
    /// not possible.
    pub fn unfetched(&self) -> Option<StepRecord> {
        if self.layers.len() > MAX_LAYERS {
            return None;
        }
        let layer = |layer: &CachedLayer| {
            let diff_id = DiffId(layer.diff_id.clone());
            Some(Layer {
                snapshot: SnapshotId::of_layer(&diff_id),
                content: ContentDigest(parse_hex(&layer.content)?),
                diff_id,
                tar_size: layer.tar_size,
                created: layer.created,
                created_nanos: layer.created_nanos,
            })
        };
        let chain: Option<Chain> = self.layers.iter().map(layer).collect();
        Some(StepRecord {
            chain: chain?,
            parts: self.parts.clone(),
            title: self.title.clone(),
            created: self.created,
            cost_us: self.cost_us,
        })
    }

    /// The record with the layers that were fetched; none when they are not those that it claims.
    pub fn fetched(&self, chain: &Chain) -> Option<StepRecord> {
        let claimed = self.unfetched()?;
        let is_right = |(claimed, real): (&Layer, &Layer)| {
            claimed.diff_id == real.diff_id && claimed.content == real.content
        };
        let is_whole = claimed.chain.len() == chain.len();
        if !is_whole || !claimed.chain.iter().zip(chain).all(is_right) {
            return None;
        }
        // A chain has its own times: equal layers share a snapshot, but were made at different times.
        let timed = claimed.chain.iter().zip(chain);
        let layers = timed.map(|(claimed, real)| Layer {
            created: claimed.created,
            created_nanos: claimed.created_nanos,
            ..real.clone()
        });
        Some(StepRecord {
            chain: layers.collect(),
            ..claimed
        })
    }
}
