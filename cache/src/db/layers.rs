//! Layers, their entry tables, blobs, packed blobs and originals.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{DbError, Tables};
use crate::digest::{ContentDigest, DiffId};
use crate::layer::{Layer, SnapshotId};
use crate::packed::{OriginalBlob, PackedBlob};

/// Columns of `layer` as [`read_layer`] wants them.
const LAYER: &str = "SELECT snapshot, diff_id, content, tar_size, created, created_nanos FROM layer WHERE snapshot = ?";

impl Tables<'_> {
    /// A layer by its snapshot; outside a change, read once as long as nobody commits anything.
    pub(crate) fn layer(&self, snapshot: &str) -> Result<Option<Layer>, DbError> {
        let Some(memo) = &self.layers else {
            return self.read_layer(snapshot);
        };
        if let Some(layer) = memo.borrow().rows.get(snapshot) {
            return Ok(Some(layer.clone()));
        }
        let layer = self.read_layer(snapshot)?;
        if let Some(layer) = &layer {
            memo.borrow_mut()
                .rows
                .insert(snapshot.to_owned(), layer.clone());
        }
        Ok(layer)
    }

    fn read_layer(&self, snapshot: &str) -> Result<Option<Layer>, DbError> {
        let row = self.run("look up a layer", |connection| {
            connection
                .prepare_cached(LAYER)?
                .query_row([snapshot], read_layer)
                .optional()
        })?;
        row.map(|layer| self.parsed("layer", layer)).transpose()
    }

    /// Adds a layer, used just now, and its entry table. `disk` is what its snapshot takes in bytes.
    pub(crate) fn put_layer(
        &self,
        layer: &Layer,
        entries: &[u8],
        used: i64,
        disk: u64,
    ) -> Result<(), DbError> {
        self.run("record a layer", |connection| {
            connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO layer
                     (snapshot, diff_id, content, tar_size, created, created_nanos, used, disk)
                     VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                )?
                .execute(params![
                    layer.snapshot.as_str(),
                    layer.diff_id.0.as_ref(),
                    layer.content.as_bytes(),
                    layer.tar_size.cast_signed(),
                    layer.created,
                    layer.created_nanos,
                    used,
                    disk.cast_signed(),
                ])?;
            connection
                .prepare_cached("INSERT OR REPLACE INTO layer_entries VALUES (?, ?)")?
                .execute(params![layer.snapshot.as_str(), entries])
                .map(drop)
        })
    }

    /// Forgets a layer and its entry table.
    pub(crate) fn remove_layer(&self, snapshot: &str) -> Result<(), DbError> {
        self.run("forget a layer", |connection| {
            connection
                .prepare_cached("DELETE FROM layer WHERE snapshot = ?")?
                .execute([snapshot])?;
            connection
                .prepare_cached("DELETE FROM layer_entries WHERE snapshot = ?")?
                .execute([snapshot])
                .map(drop)
        })
    }

    /// The encoded entry table of a snapshot.
    pub(crate) fn entries(&self, snapshot: &str) -> Result<Option<Vec<u8>>, DbError> {
        self.run("read a layer's entries", |connection| {
            connection
                .prepare_cached("SELECT entries FROM layer_entries WHERE snapshot = ?")?
                .query_row([snapshot], |row| row.get(0))
                .optional()
        })
    }

    /// Size of a blob that the store has.
    pub(crate) fn blob_size(&self, digest: &str) -> Result<Option<u64>, DbError> {
        self.run("look up a blob", |connection| {
            connection
                .prepare_cached("SELECT size FROM blob WHERE digest = ?")?
                .query_row([digest], |row| Ok(row.get::<_, i64>(0)?.cast_unsigned()))
                .optional()
        })
    }

    /// Adds a blob, used just now.
    pub(crate) fn put_blob(&self, digest: &str, size: u64, created: i64) -> Result<(), DbError> {
        self.run("record a blob", |connection| {
            connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO blob (digest, size, created, used)
                     VALUES (?1, ?2, ?3, ?3)",
                )?
                .execute(params![digest, size.cast_signed(), created])
                .map(drop)
        })
    }

    /// Forgets a blob.
    pub(crate) fn remove_blob(&self, digest: &str) -> Result<(), DbError> {
        self.run("forget a blob", |connection| {
            connection
                .prepare_cached("DELETE FROM blob WHERE digest = ?")?
                .execute([digest])
                .map(drop)
        })
    }

    /// A packed blob.
    pub(crate) fn packed(
        &self,
        diff_id: &DiffId,
        parameters: &str,
    ) -> Result<Option<PackedBlob>, DbError> {
        let row = self.run("look up a packed layer", |connection| {
            connection
                .prepare_cached("SELECT digest, size, packed_diff_id FROM packed WHERE diff_id = ? AND parameters = ?")?
                .query_row(params![diff_id.0.as_ref(), parameters], |row| {
                    Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, String>(2)?))
                })
                .optional()
        })?;
        row.map(|(digest, size, packed)| {
            Ok(PackedBlob {
                digest: self.parsed("digest", digest.parse().ok())?,
                size: size.cast_unsigned(),
                diff_id: DiffId(self.parsed("diff_id", packed.parse().ok())?),
            })
        })
        .transpose()
    }

    /// Adds a packed blob; a later one replaces it.
    pub(crate) fn put_packed(
        &self,
        diff_id: &DiffId,
        parameters: &str,
        blob: &PackedBlob,
    ) -> Result<(), DbError> {
        self.run("record a packed layer", |connection| {
            connection
                .prepare_cached("INSERT OR REPLACE INTO packed VALUES (?, ?, ?, ?, ?)")?
                .execute(params![
                    diff_id.0.as_ref(),
                    parameters,
                    blob.digest.as_ref(),
                    blob.size.cast_signed(),
                    blob.diff_id.0.as_ref()
                ])
                .map(drop)
        })
    }

    /// Where a pulled layer came from.
    pub(crate) fn original(&self, diff_id: &DiffId) -> Result<Option<OriginalBlob>, DbError> {
        let row = self.run("look up a pulled layer", |connection| {
            connection
                .prepare_cached(
                    "SELECT digest, size, media_type, locations FROM original WHERE diff_id = ?",
                )?
                .query_row([diff_id.0.as_ref()], |row| {
                    Ok((
                        row.get::<_, String>(0)?,
                        row.get::<_, i64>(1)?,
                        row.get(2)?,
                        row.get::<_, String>(3)?,
                    ))
                })
                .optional()
        })?;
        row.map(|(digest, size, media_type, locations)| {
            Ok(OriginalBlob {
                digest: self.parsed("digest", digest.parse().ok())?,
                size: size.cast_unsigned(),
                media_type,
                locations: self
                    .parsed("list of locations", serde_json::from_str(&locations).ok())?,
            })
        })
        .transpose()
    }

    /// Adds or replaces where a pulled layer came from.
    pub(crate) fn put_original(
        &self,
        diff_id: &DiffId,
        original: &OriginalBlob,
    ) -> Result<(), DbError> {
        let locations =
            serde_json::to_string(&original.locations).expect("a list of strings is JSON");
        self.run("record a pulled layer", |connection: &Connection| {
            connection
                .prepare_cached("INSERT OR REPLACE INTO original VALUES (?, ?, ?, ?, ?)")?
                .execute(params![
                    diff_id.0.as_ref(),
                    original.digest.as_ref(),
                    original.size.cast_signed(),
                    original.media_type,
                    locations
                ])
                .map(drop)
        })
    }
}

fn read_layer(row: &Row<'_>) -> rusqlite::Result<Option<Layer>> {
    let snapshot: String = row.get(0)?;
    let diff_id: String = row.get(1)?;
    let (Some(snapshot), Ok(diff_id)) = (SnapshotId::parse(&snapshot), diff_id.parse()) else {
        return Ok(None);
    };
    let diff_id = DiffId(diff_id);
    // The snapshot of a layer that stands alone is named by it: one of the two has changed.
    if !snapshot.is_of_chain() && snapshot != SnapshotId::of_layer(&diff_id) {
        return Ok(None);
    }
    Ok(Some(Layer {
        diff_id,
        content: ContentDigest(row.get(2)?),
        snapshot,
        tar_size: row.get::<_, i64>(3)?.cast_unsigned(),
        created: row.get(4)?,
        created_nanos: row.get(5)?,
    }))
}
