//! When things were used last, and how much room they take: what pruning decides by.

use rusqlite::{Connection, params};

use super::{DbError, Tables};
use crate::usage::Used;

/// Format 2. `used`: seconds since the epoch, at most [`crate::usage::GRAIN`] late; 0 where it is not known. `disk`: bytes
/// on the disk, from the entry table until somebody measures it; NULL where it is not known.
pub(super) const COLUMNS: &str = "
ALTER TABLE layer ADD COLUMN used INTEGER NOT NULL DEFAULT 0;
ALTER TABLE layer ADD COLUMN disk INTEGER;
ALTER TABLE blob ADD COLUMN used INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cache_mount ADD COLUMN used INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cache_mount ADD COLUMN disk INTEGER;
ALTER TABLE cache_mount ADD COLUMN title TEXT NOT NULL DEFAULT '';
";

impl Tables<'_> {
    /// True when something's last use was noted before `time`.
    pub(crate) fn has_used_before(&self, used: Used<'_>, time: i64) -> Result<bool, DbError> {
        let is_older = |connection: &Connection, table: Table, name: &str| {
            connection
                .prepare_cached(table.is_older)?
                .query_row(params![name, time], |row| row.get(0))
        };
        self.run("look up when something was used", |connection| match used {
            Used::Snapshots(names) => {
                for name in names {
                    if is_older(connection, LAYER, name.as_str())? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Used::Blob(name) => is_older(connection, BLOB, name),
            Used::CacheMount(name) => is_older(connection, CACHE_MOUNT, name),
        })
    }

    /// Notes when something was used.
    pub(crate) fn put_used(&self, used: Used<'_>, time: i64) -> Result<(), DbError> {
        let put = |connection: &Connection, table: Table, name: &str| {
            connection
                .prepare_cached(table.put)?
                .execute(params![name, time])
                .map(drop)
        };
        self.run("note when something was used", |connection| match used {
            Used::Snapshots(names) => names
                .iter()
                .try_for_each(|name| put(connection, LAYER, name.as_str())),
            Used::Blob(name) => put(connection, BLOB, name),
            Used::CacheMount(name) => put(connection, CACHE_MOUNT, name),
        })
    }
}

/// Statements about the uses of one table's rows.
#[derive(Clone, Copy)]
struct Table {
    is_older: &'static str,
    put: &'static str,
}

const LAYER: Table = Table {
    is_older: "SELECT EXISTS (SELECT 1 FROM layer WHERE snapshot = ? AND used < ?)",
    put: "UPDATE layer SET used = ?2 WHERE snapshot = ?1",
};

const BLOB: Table = Table {
    is_older: "SELECT EXISTS (SELECT 1 FROM blob WHERE digest = ? AND used < ?)",
    put: "UPDATE blob SET used = ?2 WHERE digest = ?1",
};

const CACHE_MOUNT: Table = Table {
    is_older: "SELECT EXISTS (SELECT 1 FROM cache_mount WHERE directory = ? AND used < ?)",
    put: "UPDATE cache_mount SET used = ?2 WHERE directory = ?1",
};
