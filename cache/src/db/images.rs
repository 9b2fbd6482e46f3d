//! Images, tags and resolved references.

use rusqlite::{OptionalExtension, Row, params};

use super::{DbError, Tables};
use crate::image::{ImageRow, Resolution};

/// Columns of `image` as [`read_image`] wants them.
const COLUMNS: &str = "image.id, manifest, chain, created, size, platform, base";

impl Tables<'_> {
    /// An image by its id.
    pub(crate) fn image_row(&self, id: &str) -> Result<Option<ImageRow>, DbError> {
        let row = self.run("look up an image", |connection| {
            connection
                .prepare_cached(&format!("SELECT {COLUMNS} FROM image WHERE id = ?"))?
                .query_row([id], |row| read_image(row, 0))
                .optional()
        })?;
        row.map(|row| self.parsed("image", row)).transpose()
    }

    /// At most two images whose id starts with `prefix`.
    pub(crate) fn image_rows_by_prefix(&self, prefix: &str) -> Result<Vec<ImageRow>, DbError> {
        let rows: Vec<_> = self.run("look up an image", |connection| {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM image WHERE id >= ?1 AND id < ?1 || 'g' LIMIT 2"
            ))?;
            statement
                .query_map([prefix], |row| read_image(row, 0))?
                .collect()
        })?;
        rows.into_iter()
            .map(|row| self.parsed("image", row))
            .collect()
    }

    /// All images with their tags.
    pub(crate) fn image_rows(&self) -> Result<Vec<(Option<String>, ImageRow)>, DbError> {
        let rows: Vec<(Option<String>, Option<ImageRow>)> = self.run("list images", |connection| {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT name, {COLUMNS} FROM image LEFT JOIN tag ON image = id ORDER BY name IS NULL, name, id"
            ))?;
            statement.query_map([], |row| Ok((row.get(0)?, read_image(row, 1)?)))?.collect()
        })?;
        rows.into_iter()
            .map(|(name, row)| Ok((name, self.parsed("image", row)?)))
            .collect()
    }

    /// Adds or replaces an image.
    pub(crate) fn put_image(&self, row: &ImageRow) -> Result<(), DbError> {
        self.run("record an image", |connection| {
            connection
                .prepare_cached("INSERT OR REPLACE INTO image VALUES (?, ?, ?, ?, ?, ?, ?)")?
                .execute(params![
                    row.id.as_ref(),
                    row.manifest.as_ref().map(AsRef::<str>::as_ref),
                    row.chain,
                    row.created,
                    row.size.cast_signed(),
                    row.platform,
                    row.base,
                ])
                .map(drop)
        })
    }

    /// Removes an image; its tags are the caller's to remove.
    pub(crate) fn remove_image(&self, id: &str) -> Result<(), DbError> {
        self.run("remove an image", |connection| {
            connection
                .prepare_cached("DELETE FROM image WHERE id = ?")?
                .execute([id])
                .map(drop)
        })
    }

    /// Id of the image with a tag.
    pub(crate) fn tagged(&self, name: &str) -> Result<Option<String>, DbError> {
        self.run("look up a tag", |connection| {
            connection
                .prepare_cached("SELECT image FROM tag WHERE name = ?")?
                .query_row([name], |row| row.get(0))
                .optional()
        })
    }

    /// Tags of an image, in order.
    pub(crate) fn tags_of(&self, id: &str) -> Result<Vec<String>, DbError> {
        self.run("look up tags", |connection| {
            let mut statement =
                connection.prepare_cached("SELECT name FROM tag WHERE image = ? ORDER BY name")?;
            statement.query_map([id], |row| row.get(0))?.collect()
        })
    }

    /// Points a tag at an image.
    pub(crate) fn put_tag(&self, name: &str, id: &str) -> Result<(), DbError> {
        self.run("tag an image", |connection| {
            connection
                .prepare_cached("INSERT OR REPLACE INTO tag VALUES (?, ?)")?
                .execute([name, id])
                .map(drop)
        })
    }

    /// Removes a tag; false when there was none.
    pub(crate) fn remove_tag(&self, name: &str) -> Result<bool, DbError> {
        self.run("untag an image", |connection| {
            connection
                .prepare_cached("DELETE FROM tag WHERE name = ?")?
                .execute([name])
                .map(|count| count > 0)
        })
    }

    /// What a reference was resolved to.
    pub(crate) fn reference(&self, key: &str) -> Result<Option<Resolution>, DbError> {
        let row = self.run("look up a reference", |connection| {
            connection
                .prepare_cached(
                    "SELECT manifest, resolved, descriptor FROM reference WHERE key = ?",
                )?
                .query_row([key], |row| {
                    Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?))
                })
                .optional()
        })?;
        row.map(|(manifest, resolved, descriptor)| {
            let manifest_digest = self.parsed("digest", manifest.parse().ok())?;
            Ok(Resolution {
                manifest_digest,
                resolved,
                descriptor,
            })
        })
        .transpose()
    }

    /// Remembers what a reference was resolved to.
    pub(crate) fn put_reference(&self, key: &str, resolution: &Resolution) -> Result<(), DbError> {
        self.run("remember a reference", |connection| {
            connection
                .prepare_cached("INSERT OR REPLACE INTO reference VALUES (?, ?, ?, ?)")?
                .execute(params![
                    key,
                    resolution.manifest_digest.as_ref(),
                    resolution.resolved,
                    resolution.descriptor
                ])
                .map(drop)
        })
    }
}

fn read_image(row: &Row<'_>, first: usize) -> rusqlite::Result<Option<ImageRow>> {
    let id: String = row.get(first)?;
    let manifest: Option<String> = row.get(first + 1)?;
    let Ok(id) = id.parse() else { return Ok(None) };
    let manifest = match manifest.map(|manifest| manifest.parse()) {
        Some(Err(_)) => return Ok(None),
        Some(Ok(manifest)) => Some(manifest),
        None => None,
    };
    Ok(Some(ImageRow {
        id,
        manifest,
        chain: row.get(first + 2)?,
        created: row.get(first + 3)?,
        size: row.get::<_, i64>(first + 4)?.cast_unsigned(),
        platform: row.get(first + 5)?,
        base: row.get(first + 6)?,
    }))
}
