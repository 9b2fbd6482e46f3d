//! Step records and cache mounts.

use rusqlite::{OptionalExtension, params};

use super::{DbError, Tables};
use crate::key::StepKey;

/// A step record as it is kept.
#[derive(Clone, Debug)]
pub(crate) struct RecordRow {
    /// Number of the record.
    pub(crate) id: i64,
    /// Snapshot names, lowest first, one a line.
    pub(crate) chain: String,
    /// Title.
    pub(crate) title: String,
    /// Seconds since the epoch.
    pub(crate) created: i64,
    /// Microseconds.
    pub(crate) cost_us: u64,
    /// JSON.
    pub(crate) parts: String,
}

impl Tables<'_> {
    /// The record of a key.
    pub(crate) fn record(&self, key: &StepKey) -> Result<Option<RecordRow>, DbError> {
        self.run("look up a step", |connection| {
            connection
                .prepare_cached(
                    // The index has a copy of what the table says: a bit that flipped in one of them is a miss, not
                    // another step's result.
                    "SELECT id, chain, title, created, cost_us, parts FROM step_key
                     JOIN step_record ON id = record
                     WHERE key = ?1 AND EXISTS (
                         SELECT 1 FROM step_key AS copy INDEXED BY step_key_record
                         WHERE copy.record = id AND copy.key = ?1)",
                )?
                .query_row([key.as_bytes()], read_record)
                .optional()
        })
    }

    /// Adds a record under all of `keys`, taking them from older records; a record without a key is forgotten.
    /// `row.id` is not read.
    pub(crate) fn put_record(&self, keys: &[StepKey], row: &RecordRow) -> Result<(), DbError> {
        self.run("record a step", |connection| {
            connection
                .prepare_cached(
                    "INSERT INTO step_record (chain, title, created, cost_us, parts) VALUES (?, ?, ?, ?, ?)",
                )?
                .execute(params![row.chain, row.title, row.created, row.cost_us.cast_signed(), row.parts])?;
            let id = connection.last_insert_rowid();
            for key in keys {
                let before: Option<i64> = connection
                    .prepare_cached("SELECT record FROM step_key WHERE key = ?")?
                    .query_row([key.as_bytes()], |row| row.get(0))
                    .optional()?;
                connection
                    .prepare_cached("INSERT OR REPLACE INTO step_key VALUES (?, ?)")?
                    .execute(params![key.as_bytes(), id])?;
                if let Some(before) = before {
                    connection
                        .prepare_cached(
                            "DELETE FROM step_record
                             WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM step_key WHERE record = ?1)",
                        )?
                        .execute([before])?;
                }
            }
            Ok(())
        })
    }

    /// Forgets a record and its keys.
    pub(crate) fn remove_record(&self, id: i64) -> Result<(), DbError> {
        self.run("forget a step", |connection| {
            connection
                .prepare_cached("DELETE FROM step_key WHERE record = ?")?
                .execute([id])?;
            connection
                .prepare_cached("DELETE FROM step_record WHERE id = ?")?
                .execute([id])
                .map(drop)
        })
    }

    /// True when the directory of a cache mount was prepared.
    pub(crate) fn has_cache_mount(&self, directory: &str) -> Result<bool, DbError> {
        self.run("look up a cache mount", |connection| {
            connection
                .prepare_cached("SELECT 1 FROM cache_mount WHERE directory = ?")?
                .query_row([directory], |_| Ok(()))
                .optional()
                .map(|found| found.is_some())
        })
    }

    /// Notes that the directory of a cache mount was prepared; it is in use.
    pub(crate) fn put_cache_mount(
        &self,
        directory: &str,
        id: &str,
        title: &str,
        created: i64,
    ) -> Result<(), DbError> {
        self.run("record a cache mount", |connection| {
            connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO cache_mount (directory, id, created, used, title)
                     VALUES (?1, ?2, ?3, ?3, ?4)",
                )?
                .execute(params![directory, id, created, title])
                .map(drop)
        })
    }
}

fn read_record(row: &rusqlite::Row<'_>) -> rusqlite::Result<RecordRow> {
    Ok(RecordRow {
        id: row.get(0)?,
        chain: row.get(1)?,
        title: row.get(2)?,
        created: row.get(3)?,
        cost_us: row.get::<_, i64>(4)?.cast_unsigned(),
        parts: row.get(5)?,
    })
}
