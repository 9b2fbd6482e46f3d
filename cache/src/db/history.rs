//! Past builds, lists of what steps read, and why layers are gone.

use rusqlite::{OptionalExtension, Row, params};

use super::{DbError, Tables};

/// Since version 2. Every statement is harmless when the table exists.
///
/// `build.logs` and `build.lists` name, a word each, the step logs and file lists that the build refers to; what no
/// build refers to is removed. `detail` is the builder's, compressed.
pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS build (
    number  INTEGER PRIMARY KEY AUTOINCREMENT,
    id      TEXT NOT NULL UNIQUE,
    line    TEXT NOT NULL,
    lease   TEXT NOT NULL,
    started INTEGER NOT NULL,
    status  INTEGER NOT NULL,
    summary TEXT NOT NULL,
    logs    TEXT NOT NULL,
    lists   TEXT NOT NULL,
    detail  BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS build_line ON build (line, number);
CREATE TABLE IF NOT EXISTS file_list (
    digest  TEXT PRIMARY KEY,
    entries BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS lost_layer (
    snapshot TEXT PRIMARY KEY,
    reason   INTEGER NOT NULL,
    noticed  INTEGER NOT NULL
) WITHOUT ROWID;
";

/// Columns of a [`BuildRow`], in its order.
const COLUMNS: &str = "id, line, lease, started, status, summary, logs, lists";

/// A build as it is kept, without its detail.
#[derive(Clone, Debug)]
pub(crate) struct BuildRow {
    /// Short name.
    pub(crate) id: String,
    /// What the build was of.
    pub(crate) line: String,
    /// Lease of its process.
    pub(crate) lease: String,
    /// Milliseconds since the epoch.
    pub(crate) started: i64,
    /// As [`crate::history`] numbers them.
    pub(crate) status: i64,
    /// JSON of the builder.
    pub(crate) summary: String,
    /// Step logs, a word each.
    pub(crate) logs: String,
    /// File lists, a word each.
    pub(crate) lists: String,
}

fn read_build(row: &Row<'_>) -> rusqlite::Result<BuildRow> {
    Ok(BuildRow {
        id: row.get(0)?,
        line: row.get(1)?,
        lease: row.get(2)?,
        started: row.get(3)?,
        status: row.get(4)?,
        summary: row.get(5)?,
        logs: row.get(6)?,
        lists: row.get(7)?,
    })
}

impl Tables<'_> {
    /// True when there is a build with this id.
    pub(crate) fn has_build(&self, id: &str) -> Result<bool, DbError> {
        self.run("look up a build", |connection| {
            connection
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM build WHERE id = ?)")?
                .query_row([id], |row| row.get(0))
        })
    }

    /// Adds a build; its id must be new.
    pub(crate) fn add_build(&self, row: &BuildRow, detail: &[u8]) -> Result<(), DbError> {
        self.run("note a build", |connection| {
            connection
                .prepare_cached(
                    "INSERT INTO build (id, line, lease, started, status, summary, logs, lists, detail)
                     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                )?
                .execute(params![
                    row.id, row.line, row.lease, row.started, row.status, row.summary, row.logs,
                    row.lists, detail
                ])
                .map(drop)
        })
    }

    /// Changes what a build has come to; harmless when it was removed.
    pub(crate) fn update_build(&self, row: &BuildRow, detail: &[u8]) -> Result<(), DbError> {
        self.run("note a build", |connection| {
            connection
                .prepare_cached(
                    "UPDATE build SET status = ?, summary = ?, logs = ?, lists = ?, detail = ? WHERE id = ?",
                )?
                .execute(params![row.status, row.summary, row.logs, row.lists, detail, row.id])
                .map(drop)
        })
    }

    /// Builds, newest first.
    pub(crate) fn builds(&self, limit: usize) -> Result<Vec<BuildRow>, DbError> {
        self.run("list builds", |connection| {
            let sql = format!("SELECT {COLUMNS} FROM build ORDER BY number DESC LIMIT ?");
            let mut statement = connection.prepare_cached(&sql)?;
            let rows = statement.query_map([limit_of(limit)], read_build)?;
            rows.collect()
        })
    }

    /// Builds of one line, newest first.
    pub(crate) fn builds_of_line(
        &self,
        line: &str,
        limit: usize,
    ) -> Result<Vec<BuildRow>, DbError> {
        self.run("list builds", |connection| {
            let sql =
                format!("SELECT {COLUMNS} FROM build WHERE line = ? ORDER BY number DESC LIMIT ?");
            let mut statement = connection.prepare_cached(&sql)?;
            let rows = statement.query_map(params![line, limit_of(limit)], read_build)?;
            rows.collect()
        })
    }

    /// Builds whose id begins with `start`, which holds no wildcard; two are enough to know that it is ambiguous.
    pub(crate) fn builds_by_prefix(&self, start: &str) -> Result<Vec<BuildRow>, DbError> {
        self.run("look up a build", |connection| {
            let sql = format!(
                "SELECT {COLUMNS} FROM build WHERE id GLOB ? || '*' ORDER BY number DESC LIMIT 2"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let rows = statement.query_map([start], read_build)?;
            rows.collect()
        })
    }

    /// What the builder keeps of a build.
    pub(crate) fn build_detail(&self, id: &str) -> Result<Option<Vec<u8>>, DbError> {
        self.run("look up a build", |connection| {
            connection
                .prepare_cached("SELECT detail FROM build WHERE id = ?")?
                .query_row([id], |row| row.get(0))
                .optional()
        })
    }

    /// Forgets a build.
    pub(crate) fn remove_build(&self, id: &str) -> Result<(), DbError> {
        self.run("forget a build", |connection| {
            connection
                .prepare_cached("DELETE FROM build WHERE id = ?")?
                .execute([id])
                .map(drop)
        })
    }

    /// Adds a file list; one that is there already is the same.
    pub(crate) fn put_file_list(&self, digest: &str, entries: &[u8]) -> Result<(), DbError> {
        self.run("note what a step read", |connection| {
            connection
                .prepare_cached("INSERT OR IGNORE INTO file_list VALUES (?, ?)")?
                .execute(params![digest, entries])
                .map(drop)
        })
    }

    /// True when a file list is kept.
    pub(crate) fn has_file_list(&self, digest: &str) -> Result<bool, DbError> {
        self.run("look up what a step read", |connection| {
            connection
                .prepare_cached("SELECT 1 FROM file_list WHERE digest = ?")?
                .query_row([digest], |_| Ok(()))
                .optional()
                .map(|found| found.is_some())
        })
    }

    /// A file list.
    pub(crate) fn file_list(&self, digest: &str) -> Result<Option<Vec<u8>>, DbError> {
        self.run("look up what a step read", |connection| {
            connection
                .prepare_cached("SELECT entries FROM file_list WHERE digest = ?")?
                .query_row([digest], |row| row.get(0))
                .optional()
        })
    }

    /// Digests and sizes of all file lists.
    pub(crate) fn file_lists(&self) -> Result<Vec<(String, u64)>, DbError> {
        self.run("list what steps read", |connection| {
            let mut statement =
                connection.prepare_cached("SELECT digest, length(entries) FROM file_list")?;
            let rows = statement.query_map([], |row| {
                Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned()))
            })?;
            rows.collect()
        })
    }

    /// Forgets a file list.
    pub(crate) fn remove_file_list(&self, digest: &str) -> Result<(), DbError> {
        self.run("forget what a step read", |connection| {
            connection
                .prepare_cached("DELETE FROM file_list WHERE digest = ?")?
                .execute([digest])
                .map(drop)
        })
    }

    /// Notes why a layer is gone.
    pub(crate) fn put_lost_layer(
        &self,
        snapshot: &str,
        reason: i64,
        noticed: i64,
    ) -> Result<(), DbError> {
        self.run("note a lost layer", |connection| {
            connection
                .prepare_cached("INSERT OR REPLACE INTO lost_layer VALUES (?, ?, ?)")?
                .execute(params![snapshot, reason, noticed])
                .map(drop)
        })
    }

    /// Why a layer is gone.
    pub(crate) fn lost_layer(&self, snapshot: &str) -> Result<Option<i64>, DbError> {
        self.run("look up a lost layer", |connection| {
            connection
                .prepare_cached("SELECT reason FROM lost_layer WHERE snapshot = ?")?
                .query_row([snapshot], |row| row.get(0))
                .optional()
        })
    }

    /// Forgets what was noticed of lost layers before a time.
    pub(crate) fn remove_lost_layers(&self, before: i64) -> Result<(), DbError> {
        self.run("forget lost layers", |connection| {
            connection
                .prepare_cached("DELETE FROM lost_layer WHERE noticed < ?")?
                .execute([before])
                .map(drop)
        })
    }
}

fn limit_of(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
