//! Blobs of layers: those packed here and the originals of pulled ones.

use oci_spec::image::Digest;

use crate::db::DbError;
use crate::digest::DiffId;
use crate::store::Store;

/// Everything that decides the bytes of a packed layer, but the layer itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PackParameters {
    /// `rewrite-timestamp`: later times become this one (seconds since the epoch).
    pub clamp: Option<i64>,
    /// Compression and level, such as `gzip:6`.
    pub compression: String,
    /// Version of the encoder: raised whenever it gives other bytes for the same input.
    pub encoder: u32,
}

impl PackParameters {
    /// As it stands in the database.
    fn to_row(&self) -> String {
        let clamp = self
            .clamp
            .map_or_else(|| "-".to_owned(), |clamp| clamp.to_string());
        format!("{}/{}/{clamp}", self.compression, self.encoder)
    }
}

/// A layer packed as a blob of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedBlob {
    /// Digest of the blob.
    pub digest: Digest,
    /// Size of the blob.
    pub size: u64,
    /// diff_id of what is packed in it: not the layer's own when times were clamped.
    pub diff_id: DiffId,
}

/// The blob that a pulled layer came from. No snapshot gives its bytes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginalBlob {
    /// Digest of the blob.
    pub digest: Digest,
    /// Size of the blob.
    pub size: u64,
    /// Its media type.
    pub media_type: String,
    /// Repositories that had it, such as `docker.io/library/debian`: where to fetch it again.
    pub locations: Vec<String>,
}

impl Store {
    /// The blob that a layer was packed as, if the store still has it. A note that contradicts what is there is none: what
    /// it says would be shipped.
    pub fn packed(
        &self,
        diff_id: &DiffId,
        parameters: &PackParameters,
    ) -> Result<Option<PackedBlob>, DbError> {
        let packed = self
            .inner
            .db
            .read(|tables| tables.packed(diff_id, &parameters.to_row()))?;
        Ok(packed.filter(|blob| {
            let has_size = self.blob_size(&blob.digest).ok() == Some(blob.size);
            has_size && (parameters.clamp.is_some() || blob.diff_id == *diff_id)
        }))
    }

    /// Notes the blob that a layer was packed as; it was committed to the store before.
    pub fn record_packed(
        &self,
        diff_id: &DiffId,
        parameters: &PackParameters,
        blob: &PackedBlob,
    ) -> Result<(), DbError> {
        self.inner
            .db
            .write(|tables| tables.put_packed(diff_id, &parameters.to_row(), blob))
    }

    /// Where a pulled layer came from. The blob itself may or may not be in the store.
    pub fn original(&self, diff_id: &DiffId) -> Result<Option<OriginalBlob>, DbError> {
        self.inner.db.read(|tables| tables.original(diff_id))
    }

    /// Notes where a pulled layer came from. Locations of the same blob that were known before are kept.
    pub fn record_original(
        &self,
        diff_id: &DiffId,
        original: &OriginalBlob,
    ) -> Result<(), DbError> {
        self.inner.db.write(|tables| {
            let mut merged = original.clone();
            if let Some(before) = tables.original(diff_id)?
                && before.digest == original.digest
            {
                let known = before
                    .locations
                    .into_iter()
                    .filter(|place| !original.locations.contains(place));
                merged.locations.extend(known);
            }
            tables.put_original(diff_id, &merged)
        })
    }
}
