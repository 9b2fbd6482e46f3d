//! File systems of failed steps.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{DbError, Tables};

/// Since version 3. Harmless when the table exists.
///
/// `snapshots` names what it stands on, one a line. `description` is the builder's, compressed. `disk` is NULL until
/// somebody measures it.
pub(super) const TABLE: &str = "
CREATE TABLE IF NOT EXISTS kept (
    name        TEXT PRIMARY KEY,
    title       TEXT NOT NULL,
    created     INTEGER NOT NULL,
    disk        INTEGER,
    snapshots   TEXT NOT NULL,
    description BLOB NOT NULL
);
";

/// A kept file system, without its description.
#[derive(Clone, Debug)]
pub(crate) struct KeptRow {
    /// Its directory under `kept/`.
    pub(crate) name: String,
    /// What people call the step.
    pub(crate) title: String,
    /// Seconds since the epoch.
    pub(crate) created: i64,
    /// Bytes on the disk. None: nobody has measured it.
    pub(crate) disk: Option<u64>,
    /// What it stands on.
    pub(crate) snapshots: Vec<String>,
}

fn read_kept(row: &Row<'_>) -> rusqlite::Result<KeptRow> {
    let disk: Option<i64> = row.get(3)?;
    Ok(KeptRow {
        name: row.get(0)?,
        title: row.get(1)?,
        created: row.get(2)?,
        disk: disk.map(|bytes| u64::try_from(bytes).unwrap_or(0)),
        snapshots: (row.get::<_, String>(4)?.lines())
            .map(str::to_owned)
            .collect(),
    })
}

/// All of them, newest first.
pub(super) fn read_all(connection: &Connection) -> rusqlite::Result<Vec<KeptRow>> {
    connection
        .prepare_cached(
            "SELECT name, title, created, disk, snapshots FROM kept ORDER BY created DESC, rowid DESC",
        )?
        .query_map([], read_kept)?
        .collect()
}

impl Tables<'_> {
    /// Notes a kept file system.
    pub(crate) fn put_kept(&self, row: &KeptRow, description: &[u8]) -> Result<(), DbError> {
        self.run("note a kept file system", |connection| {
            connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO kept (name, title, created, disk, snapshots, description)
                     VALUES (?, ?, ?, NULL, ?, ?)",
                )?
                .execute(params![
                    row.name,
                    row.title,
                    row.created,
                    row.snapshots.join("\n"),
                    description
                ])
                .map(drop)
        })
    }

    /// All of them, newest first.
    pub(crate) fn kept(&self) -> Result<Vec<KeptRow>, DbError> {
        self.run("list kept file systems", read_all)
    }

    /// One, with its description.
    pub(crate) fn one_kept(&self, name: &str) -> Result<Option<(KeptRow, Vec<u8>)>, DbError> {
        self.run("look up a kept file system", |connection| {
            connection
                .prepare_cached(
                    "SELECT name, title, created, disk, snapshots, description FROM kept
                     WHERE name = ?",
                )?
                .query_row([name], |row| Ok((read_kept(row)?, row.get(5)?)))
                .optional()
        })
    }

    /// Forgets one.
    pub(crate) fn remove_kept(&self, name: &str) -> Result<(), DbError> {
        self.run("forget a kept file system", |connection| {
            connection
                .prepare_cached("DELETE FROM kept WHERE name = ?")?
                .execute([name])
                .map(drop)
        })
    }
}
