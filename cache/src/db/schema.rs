//! The tables, and the list of what a power cut could still take.

use rusqlite::{OptionalExtension, params};

use super::{DbError, Tables};

/// Format 1. Every statement is harmless when the table exists. A change of a table is a new format, and a migration.
///
/// `unsynced` lists rows whose files or commits a power cut may lose: written in the transaction that adds the row,
/// removed after a `syncfs`. Usually empty. `AUTOINCREMENT`, so that a number is never used twice.
pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS unsynced (
    number  INTEGER PRIMARY KEY AUTOINCREMENT,
    boot    TEXT NOT NULL,
    kind    INTEGER NOT NULL,
    name    TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS blob (
    digest  TEXT PRIMARY KEY,
    size    INTEGER NOT NULL,
    created INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS layer (
    snapshot      TEXT PRIMARY KEY,
    diff_id       TEXT NOT NULL,
    content       BLOB NOT NULL,
    tar_size      INTEGER NOT NULL,
    created       INTEGER NOT NULL,
    created_nanos INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS layer_entries (
    snapshot TEXT PRIMARY KEY,
    entries  BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS packed (
    diff_id        TEXT NOT NULL,
    parameters     TEXT NOT NULL,
    digest         TEXT NOT NULL,
    size           INTEGER NOT NULL,
    packed_diff_id TEXT NOT NULL,
    PRIMARY KEY (diff_id, parameters)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS original (
    diff_id    TEXT PRIMARY KEY,
    digest     TEXT NOT NULL,
    size       INTEGER NOT NULL,
    media_type TEXT NOT NULL,
    locations  TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS step_record (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    chain   TEXT NOT NULL,
    title   TEXT NOT NULL,
    created INTEGER NOT NULL,
    cost_us INTEGER NOT NULL,
    parts   TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS step_record_title ON step_record (title, id);
CREATE TABLE IF NOT EXISTS step_key (
    key    BLOB PRIMARY KEY,
    record INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS step_key_record ON step_key (record);
CREATE TABLE IF NOT EXISTS image (
    id       TEXT PRIMARY KEY,
    manifest TEXT,
    chain    TEXT NOT NULL,
    created  INTEGER NOT NULL,
    size     INTEGER NOT NULL,
    platform TEXT NOT NULL,
    base     TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tag (
    name  TEXT PRIMARY KEY,
    image TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tag_image ON tag (image);
CREATE TABLE IF NOT EXISTS reference (
    key        TEXT PRIMARY KEY,
    manifest   TEXT NOT NULL,
    resolved   INTEGER NOT NULL,
    descriptor TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cache_mount (
    directory TEXT PRIMARY KEY,
    id        TEXT NOT NULL,
    created   INTEGER NOT NULL
) WITHOUT ROWID;
";

/// A row that a power cut may lose or leave without its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unsynced {
    /// `layer`, by snapshot.
    Layer(String),
    /// `blob`, by digest.
    Blob(String),
    /// `kept`, by name. Since version 3.
    Kept(String),
}

impl Unsynced {
    fn to_row(&self) -> (i64, &str) {
        match self {
            Self::Layer(name) => (0, name),
            Self::Blob(name) => (1, name),
            Self::Kept(name) => (2, name),
        }
    }

    pub(super) fn of_row(kind: i64, name: String) -> Self {
        match kind {
            0 => Self::Layer(name),
            1 => Self::Blob(name),
            _ => Self::Kept(name),
        }
    }
}

impl Tables<'_> {
    /// Lists a row as unsynced in this boot.
    pub(crate) fn add_unsynced(&self, boot: &str, item: &Unsynced) -> Result<(), DbError> {
        let (kind, name) = item.to_row();
        self.run("list unsynced data", |connection| {
            connection
                .prepare_cached("INSERT INTO unsynced (boot, kind, name) VALUES (?, ?, ?)")?
                .execute(params![boot, kind, name])
                .map(drop)
        })
    }

    /// The highest number listed so far; none when all is synced.
    pub(crate) fn last_unsynced(&self) -> Result<Option<i64>, DbError> {
        self.run("list unsynced data", |connection| {
            connection
                .prepare_cached("SELECT max(number) FROM unsynced")?
                .query_row([], |row| row.get(0))
        })
    }

    /// Strikes out what was listed up to `number`: it has been synced.
    pub(crate) fn forget_unsynced(&self, number: i64) -> Result<(), DbError> {
        self.run("mark data as synced", |connection| {
            connection
                .prepare_cached("DELETE FROM unsynced WHERE number <= ?")?
                .execute([number])
                .map(drop)
        })
    }

    /// True when something of another boot is listed.
    pub(crate) fn has_lost(&self, boot: &str) -> Result<bool, DbError> {
        self.run("list unsynced data", |connection| {
            connection
                .prepare_cached("SELECT 1 FROM unsynced WHERE boot <> ? LIMIT 1")?
                .query_row([boot], |_| Ok(()))
                .optional()
                .map(|found| found.is_some())
        })
    }

    /// What is listed of other boots, struck out.
    pub(crate) fn take_lost(&self, boot: &str) -> Result<Vec<Unsynced>, DbError> {
        self.run("drop unsynced data", |connection| {
            let mut statement = connection
                .prepare_cached("DELETE FROM unsynced WHERE boot <> ? RETURNING kind, name")?;
            let rows = statement
                .query_map([boot], |row| Ok(Unsynced::of_row(row.get(0)?, row.get(1)?)))?;
            rows.collect()
        })
    }

    /// True when nothing is listed.
    pub(crate) fn is_unsynced_empty(&self) -> Result<bool, DbError> {
        Ok(self.last_unsynced()?.is_none())
    }
}
