//! Everything that pruning and checking weigh, read in one go, and the removal of single rows.

use rusqlite::{Connection, Row, params};

use super::kept::read_all;
use super::{DbError, KeptRow, Tables};
use crate::usage::BLOCK;

/// Rows as they are kept, of one moment. Chains are lists of snapshot names, lowest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inventory {
    pub(crate) layers: Vec<LayerUse>,
    pub(crate) records: Vec<RecordUse>,
    pub(crate) images: Vec<ImageUse>,
    pub(crate) blobs: Vec<BlobUse>,
    pub(crate) mounts: Vec<MountUse>,
    /// Newest first.
    pub(crate) kept: Vec<KeptRow>,
    /// `packed`: diff_id and digest of the blob.
    pub(crate) packed: Vec<(String, String)>,
    /// `original`: diff_id, digest of the blob, locations as JSON.
    pub(crate) originals: Vec<(String, String, String)>,
    /// `reference`: key and digest of the manifest.
    pub(crate) references: Vec<(String, String)>,
}

#[derive(Clone, Debug)]
pub(crate) struct LayerUse {
    pub(crate) snapshot: String,
    pub(crate) diff_id: String,
    pub(crate) used: i64,
    /// None: nobody has measured it.
    pub(crate) disk: Option<u64>,
}

#[derive(Clone, Debug)]
pub(crate) struct RecordUse {
    pub(crate) id: i64,
    pub(crate) chain: Vec<String>,
    pub(crate) title: String,
    pub(crate) cost_us: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct ImageUse {
    pub(crate) id: String,
    pub(crate) manifest: Option<String>,
    pub(crate) chain: Vec<String>,
    pub(crate) created: i64,
    pub(crate) tags: Vec<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct BlobUse {
    pub(crate) digest: String,
    /// Bytes on the disk.
    pub(crate) size: u64,
    pub(crate) used: i64,
}

#[derive(Clone, Debug)]
pub(crate) struct MountUse {
    pub(crate) directory: String,
    pub(crate) title: String,
    pub(crate) created: i64,
    pub(crate) used: i64,
    pub(crate) disk: Option<u64>,
}

/// What was measured, by name: bytes on the disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sizes {
    pub(crate) snapshots: Vec<(String, u64)>,
    /// By directory.
    pub(crate) mounts: Vec<(String, u64)>,
    pub(crate) kept: Vec<(String, u64)>,
}

impl Sizes {
    /// True when nothing was.
    pub(crate) fn is_empty(&self) -> bool {
        self.snapshots.is_empty() && self.mounts.is_empty() && self.kept.is_empty()
    }
}

impl Inventory {
    /// What people call a blob.
    pub(crate) fn title_of_blob(&self, digest: &str) -> String {
        let reference = (self.references.iter()).find(|(_, manifest)| manifest == digest);
        if let Some((key, _)) = reference {
            return format!("manifest of {key}");
        }
        let title = if self.packed.iter().any(|(_, blob)| blob == digest) {
            "a layer as it was packed"
        } else if self.originals.iter().any(|(_, blob, _)| blob == digest) {
            "a layer as it was pulled"
        } else {
            "a config or manifest"
        };
        title.to_owned()
    }
}

/// Snapshot names of a chain's row.
fn names(chain: &str) -> Vec<String> {
    let name = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    chain.lines().map(name).collect()
}

fn rows<T>(
    connection: &Connection,
    sql: &str,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    connection
        .prepare_cached(sql)?
        .query_map([], |row| read(row))?
        .collect()
}

fn size(value: Option<i64>) -> Option<u64> {
    value.map(|value| u64::try_from(value).unwrap_or(0))
}

impl Tables<'_> {
    /// Reads all of it. A use that was never noted counts as made when the thing was.
    pub(crate) fn inventory(&self) -> Result<Inventory, DbError> {
        self.run("list what the store holds", |connection| {
            let mut images = rows(
                connection,
                "SELECT id, manifest, chain, created FROM image",
                |row| {
                    Ok(ImageUse {
                        id: row.get(0)?,
                        manifest: row.get(1)?,
                        chain: names(&row.get::<_, String>(2)?),
                        created: row.get(3)?,
                        tags: Vec::new(),
                    })
                },
            )?;
            let tags: Vec<(String, String)> = rows(
                connection,
                "SELECT image, name FROM tag ORDER BY name",
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?;
            for (id, name) in tags {
                if let Some(image) = images.iter_mut().find(|image| image.id == id) {
                    image.tags.push(name);
                }
            }
            Ok(Inventory {
                layers: rows(
                    connection,
                    "SELECT snapshot, diff_id, CASE WHEN used > 0 THEN used ELSE created END, disk FROM layer",
                    |row| {
                        Ok(LayerUse {
                            snapshot: row.get(0)?,
                            diff_id: row.get(1)?,
                            used: row.get(2)?,
                            disk: size(row.get(3)?),
                        })
                    },
                )?,
                records: rows(
                    connection,
                    "SELECT id, chain, title, cost_us FROM step_record",
                    |row| {
                        Ok(RecordUse {
                            id: row.get(0)?,
                            chain: names(&row.get::<_, String>(1)?),
                            title: row.get(2)?,
                            cost_us: row.get::<_, i64>(3)?.cast_unsigned(),
                        })
                    },
                )?,
                images,
                blobs: rows(
                    connection,
                    "SELECT digest, size, CASE WHEN used > 0 THEN used ELSE created END FROM blob",
                    |row| {
                        Ok(BlobUse {
                            digest: row.get(0)?,
                            size: row.get::<_, i64>(1)?.cast_unsigned().div_ceil(BLOCK) * BLOCK,
                            used: row.get(2)?,
                        })
                    },
                )?,
                mounts: self.mount_rows(connection)?,
                kept: read_all(connection)?,
                packed: rows(connection, "SELECT diff_id, digest FROM packed", |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?,
                originals: rows(
                    connection,
                    "SELECT diff_id, digest, locations FROM original",
                    |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
                )?,
                references: rows(connection, "SELECT key, manifest FROM reference", |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?,
            })
        })
    }

    /// All cache mounts.
    pub(crate) fn mounts(&self) -> Result<Vec<MountUse>, DbError> {
        self.run("list cache mounts", |connection| {
            self.mount_rows(connection)
        })
    }

    #[expect(clippy::unused_self, reason = "all SQL is in methods of the tables")]
    fn mount_rows(&self, connection: &Connection) -> rusqlite::Result<Vec<MountUse>> {
        rows(
            connection,
            "SELECT directory, title, created, CASE WHEN used > 0 THEN used ELSE created END, disk FROM cache_mount
             ORDER BY title, directory",
            |row| {
                Ok(MountUse {
                    directory: row.get(0)?,
                    title: row.get(1)?,
                    created: row.get(2)?,
                    used: row.get(3)?,
                    disk: size(row.get(4)?),
                })
            },
        )
    }

    /// Notes what snapshots, cache mounts and kept file systems take, by name.
    pub(crate) fn put_sizes(&self, sizes: &Sizes) -> Result<(), DbError> {
        self.run("note sizes", |connection| {
            for (statement, sizes) in [
                (
                    "UPDATE layer SET disk = ?2 WHERE snapshot = ?1",
                    &sizes.snapshots,
                ),
                (
                    "UPDATE cache_mount SET disk = ?2 WHERE directory = ?1",
                    &sizes.mounts,
                ),
                ("UPDATE kept SET disk = ?2 WHERE name = ?1", &sizes.kept),
            ] {
                for (name, bytes) in sizes {
                    connection
                        .prepare_cached(statement)?
                        .execute(params![name, bytes.cast_signed()])?;
                }
            }
            Ok(())
        })
    }

    /// Bytes of all layers, blobs, cache mounts and kept file systems, as far as they are known.
    pub(crate) fn known_size(&self) -> Result<u64, DbError> {
        self.run("add up sizes", |connection| {
            connection
                .prepare_cached(
                    "SELECT ifnull((SELECT sum(disk) FROM layer), 0)
                          + ifnull((SELECT sum((size + 4095) / 4096 * 4096) FROM blob), 0)
                          + ifnull((SELECT sum(disk) FROM cache_mount), 0)
                          + ifnull((SELECT sum(disk) FROM kept), 0)",
                )?
                .query_row([], |row| row.get::<_, i64>(0))
                .map(|sum| u64::try_from(sum).unwrap_or(0))
        })
    }

    /// Forgets a cache mount.
    pub(crate) fn remove_cache_mount(&self, directory: &str) -> Result<(), DbError> {
        self.execute("DELETE FROM cache_mount WHERE directory = ?", directory)
    }

    /// Forgets what a layer was packed as, by the blob.
    pub(crate) fn remove_packed(&self, digest: &str) -> Result<(), DbError> {
        self.execute("DELETE FROM packed WHERE digest = ?", digest)
    }

    /// Forgets where a pulled layer came from.
    pub(crate) fn remove_original(&self, diff_id: &str) -> Result<(), DbError> {
        self.execute("DELETE FROM original WHERE diff_id = ?", diff_id)
    }

    /// Forgets what a reference was resolved to.
    pub(crate) fn remove_reference(&self, key: &str) -> Result<(), DbError> {
        self.execute("DELETE FROM reference WHERE key = ?", key)
    }

    fn execute(&self, statement: &str, name: &str) -> Result<(), DbError> {
        self.run("forget what was removed", |connection| {
            connection
                .prepare_cached(statement)?
                .execute([name])
                .map(drop)
        })
    }
}
