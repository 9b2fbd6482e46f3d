//! What checking a store asks of its database: whether the file is sound, and rows as they are, not as they should be.

use rusqlite::{Connection, Row};

use super::salvage::odd_tables;
use super::{Db, DbError, Tables, Unsynced};
use crate::open::FORMAT_VERSION;

/// Findings of SQLite that are told: one damaged page causes many.
const MOST_PROBLEMS: u32 = 8;

/// A layer's row, nothing of it believed.
#[derive(Clone, Debug)]
pub(crate) struct RawLayer {
    pub(crate) snapshot: String,
    pub(crate) diff_id: String,
    pub(crate) content: Vec<u8>,
    pub(crate) tar_size: i64,
    pub(crate) created: i64,
    pub(crate) created_nanos: u32,
}

/// A packed layer's row, nothing of it believed.
#[derive(Clone, Debug)]
pub(crate) struct RawPacked {
    pub(crate) diff_id: String,
    pub(crate) parameters: String,
    pub(crate) digest: String,
    pub(crate) size: i64,
    pub(crate) packed_diff_id: String,
}

impl Db {
    /// What is wrong with the file: its header, its tables, its pages. Empty when it is sound. Reads all of it.
    pub(crate) fn problems(&self) -> Vec<String> {
        let session = self.session();
        let connection = &session.connection;
        let found = header_problems(connection).and_then(|mut problems| {
            problems.extend(schema_problems(connection)?);
            if problems.is_empty() {
                problems = page_problems(connection, None)?;
            }
            if problems.is_empty() {
                let told = |table| format!("`{table}` holds a row that is no row of ours");
                problems = odd_tables(connection)?.into_iter().map(told).collect();
            }
            Ok(problems)
        });
        found.unwrap_or_else(|error| vec![error.to_string()])
    }

    /// True when it can be read, and has no tables.
    pub(crate) fn is_empty(&self) -> bool {
        let session = self.session();
        let count = "SELECT count(*) FROM sqlite_master";
        let counted = (session.connection).query_row(count, [], |row| row.get::<_, i64>(0));
        counted.is_ok_and(|count| count == 0)
    }

    /// True when all pages and indexes of these tables are sound.
    pub(super) fn are_sound(&self, tables: &[&str]) -> bool {
        let session = self.session();
        tables.iter().all(|table| {
            page_problems(&session.connection, Some(table))
                .is_ok_and(|problems| problems.is_empty())
        })
    }
}

/// What the header says that one of ours never does.
fn header_problems(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut problems = Vec::new();
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    if !matches!(mode.as_str(), "wal" | "memory") {
        problems.push(format!("it is in journal mode `{mode}`, not `wal`"));
    }
    let encoding: String = connection.query_row("PRAGMA encoding", [], |row| row.get(0))?;
    if encoding != "UTF-8" {
        problems.push(format!("its texts are in {encoding}, not UTF-8"));
    }
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version != i64::from(FORMAT_VERSION) {
        problems.push(format!(
            "it says to be of format {version}, in a store of format {FORMAT_VERSION}"
        ));
    }
    Ok(problems)
}

/// The definitions of tables and indexes, against those of a new database.
fn schema_problems(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let definitions = |connection: &Connection| -> rusqlite::Result<Vec<[String; 2]>> {
        connection
            .prepare("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name")?
            .query_map([], |row| Ok([row.get(0)?, row.get(1)?]))?
            .collect()
    };
    let fresh = Db::in_memory(std::path::Path::new(":memory:"));
    let fresh = fresh.map_err(|_| rusqlite::Error::InvalidQuery)?;
    let (ours, found) = (
        definitions(&fresh.session().connection)?,
        definitions(connection)?,
    );
    let is_missing = |definition: &&[String; 2]| !found.contains(definition);
    Ok(ours
        .iter()
        .filter(is_missing)
        .map(|[name, _]| format!("the definition of `{name}` is damaged or missing"))
        .collect())
}

fn page_problems(connection: &Connection, table: Option<&str>) -> rusqlite::Result<Vec<String>> {
    let argument = table.map_or_else(|| MOST_PROBLEMS.to_string(), ToOwned::to_owned);
    let found: Vec<String> = connection
        .prepare(&format!("PRAGMA integrity_check({argument})"))?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    // Several findings may come as one text of several lines.
    let lines = found.iter().flat_map(|text| text.lines());
    let said = lines.filter(|line| *line != "ok" && !line.starts_with("*** in database"));
    Ok(said
        .take(MOST_PROBLEMS as usize)
        .map(ToOwned::to_owned)
        .collect())
}

impl Tables<'_> {
    /// All layers.
    pub(crate) fn raw_layers(&self) -> Result<Vec<RawLayer>, DbError> {
        self.all(
            "SELECT snapshot, diff_id, content, tar_size, created, created_nanos FROM layer ORDER BY snapshot",
            |row| {
                Ok(RawLayer {
                    snapshot: row.get(0)?,
                    diff_id: row.get(1)?,
                    content: row.get(2)?,
                    tar_size: row.get(3)?,
                    created: row.get(4)?,
                    created_nanos: row.get(5)?,
                })
            },
        )
    }

    /// All blobs: digest and size.
    pub(crate) fn raw_blobs(&self) -> Result<Vec<(String, i64)>, DbError> {
        self.all("SELECT digest, size FROM blob ORDER BY digest", |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
    }

    /// All packed layers.
    pub(crate) fn raw_packed(&self) -> Result<Vec<RawPacked>, DbError> {
        self.all(
            "SELECT diff_id, parameters, digest, size, packed_diff_id FROM packed",
            |row| {
                Ok(RawPacked {
                    diff_id: row.get(0)?,
                    parameters: row.get(1)?,
                    digest: row.get(2)?,
                    size: row.get(3)?,
                    packed_diff_id: row.get(4)?,
                })
            },
        )
    }

    /// All tags: name and image id.
    pub(crate) fn raw_tags(&self) -> Result<Vec<(String, String)>, DbError> {
        self.all("SELECT name, image FROM tag ORDER BY name", |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
    }

    /// All records: number, title, and the parts of the key as JSON.
    pub(crate) fn raw_records(&self) -> Result<Vec<(i64, String, String)>, DbError> {
        self.all("SELECT id, title, parts FROM step_record", |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
    }

    /// What is listed as unsynced in other boots.
    pub(crate) fn lost(&self, boot: &str) -> Result<Vec<Unsynced>, DbError> {
        let rows = self.all("SELECT boot, kind, name FROM unsynced", |row| {
            let boot: String = row.get(0)?;
            Ok((boot, Unsynced::of_row(row.get(1)?, row.get(2)?)))
        })?;
        let of_others = rows.into_iter().filter(|(of, _)| of != boot);
        Ok(of_others.map(|(_, item)| item).collect())
    }

    /// Forgets a packed layer.
    pub(crate) fn remove_one_packed(&self, packed: &RawPacked) -> Result<(), DbError> {
        self.run("forget a packed layer", |connection| {
            connection
                .prepare_cached("DELETE FROM packed WHERE diff_id = ? AND parameters = ?")?
                .execute([&packed.diff_id, &packed.parameters])
                .map(drop)
        })
    }

    fn all<T>(
        &self,
        sql: &str,
        read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, DbError> {
        self.run("list rows", |connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([], |row| read(row))?;
            rows.collect()
        })
    }
}
