//! Reading what can still be read of a damaged database into a sound one.
//!
//! A row is taken if every value has its column's type; whether it is true is judged afterwards, by what it names. Steps
//! are the exception: nothing but their keys says which record is whose, so they are taken only from tables that are sound.

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Row, Statement, params_from_iter};

use super::{Db, DbError, error};

/// Tables whose rows prove nothing of themselves.
const STEPS: [&str; 2] = ["step_record", "step_key"];

/// What could not be had of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableLoss {
    /// Its name.
    pub(crate) table: String,
    /// Rows that were read.
    pub(crate) kept: usize,
    /// Why not all.
    pub(crate) reason: String,
}

/// A table: name, columns in order with the types that they may have.
struct Shape {
    name: String,
    columns: Vec<Column>,
}

struct Column {
    name: String,
    type_name: String,
    is_nullable: bool,
}

impl Db {
    /// Copies what can be read of `damaged` into this new database, in one transaction.
    pub(crate) fn salvage(&self, damaged: &Self) -> Result<Vec<TableLoss>, DbError> {
        let keeps_steps = damaged.are_sound(&STEPS);
        let from = damaged.session();
        let mut into = self.session();
        let failed = |source| error("rebuild the tables", &self.path, source);
        let transaction = into.connection.transaction().map_err(failed)?;
        let mut losses = Vec::new();
        for shape in shapes(&transaction).map_err(failed)? {
            let is_step = STEPS.contains(&shape.name.as_str());
            let copied = if is_step && !keeps_steps {
                Copied {
                    kept: 0,
                    reason: Some("it is not whole, and a wrong one would do harm".to_owned()),
                }
            } else {
                copy(&shape, &from.connection, &transaction).map_err(failed)?
            };
            if let Some(reason) = copied.reason {
                losses.push(TableLoss {
                    table: shape.name,
                    kept: copied.kept,
                    reason,
                });
            }
        }
        transaction.commit().map_err(failed)?;
        Ok(losses)
    }
}

/// Tables that hold rows which are no rows of ours. The error is that of a table that can't be read.
pub(super) fn odd_tables(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut odd = Vec::new();
    for shape in shapes(connection)? {
        let columns: Vec<&str> = (shape.columns.iter())
            .map(|column| column.name.as_str())
            .collect();
        let sql = format!("SELECT {} FROM {}", columns.join(", "), shape.name);
        let mut statement = connection.prepare(&sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if values(&shape, row).is_none() {
                odd.push(shape.name);
                break;
            }
        }
    }
    Ok(odd)
}

struct Copied {
    kept: usize,
    reason: Option<String>,
}

fn shapes(connection: &Connection) -> rusqlite::Result<Vec<Shape>> {
    let names: Vec<String> = connection
        .prepare(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
        )?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let shape = |name: String| {
        let columns = connection
            .prepare("SELECT name, type, \"notnull\" FROM pragma_table_info(?)")?
            .query_map([&name], |row| {
                Ok(Column {
                    name: row.get(0)?,
                    type_name: row.get(1)?,
                    is_nullable: !row.get::<_, bool>(2)?,
                })
            })?
            .collect::<rusqlite::Result<_>>()?;
        Ok(Shape { name, columns })
    };
    names.into_iter().map(shape).collect()
}

/// Copies from both ends: behind a page that can't be read there may be more. The error is the new database's.
fn copy(shape: &Shape, from: &Connection, into: &Connection) -> rusqlite::Result<Copied> {
    let columns: Vec<&str> = (shape.columns.iter())
        .map(|column| column.name.as_str())
        .collect();
    let (list, name) = (columns.join(", "), &shape.name);
    let marks = vec!["?"; columns.len()].join(", ");
    let mut insert = into.prepare(&format!(
        "INSERT OR IGNORE INTO {name} ({list}) VALUES ({marks})"
    ))?;
    let mut copied = Copied {
        kept: 0,
        reason: None,
    };
    for order in ["ASC", "DESC"] {
        let sql = format!("SELECT {list} FROM {name} ORDER BY {} {order}", columns[0]);
        match copy_until_damage(shape, from, &sql, &mut insert, &mut copied)? {
            None => break,
            Some(damage) => copied.reason = Some(damage.to_string()),
        }
    }
    Ok(copied)
}

/// Copies rows as long as they can be read; what ended that. The error is the new database's.
fn copy_until_damage(
    shape: &Shape,
    from: &Connection,
    sql: &str,
    insert: &mut Statement<'_>,
    copied: &mut Copied,
) -> rusqlite::Result<Option<rusqlite::Error>> {
    let mut statement = match from.prepare(sql) {
        Ok(statement) => statement,
        Err(damage) => return Ok(Some(damage)),
    };
    let mut rows = match statement.query([]) {
        Ok(rows) => rows,
        Err(damage) => return Ok(Some(damage)),
    };
    loop {
        match rows.next() {
            Ok(None) => return Ok(None),
            Err(damage) => return Ok(Some(damage)),
            Ok(Some(row)) => match values(shape, row) {
                Some(values) => copied.kept += insert.execute(params_from_iter(values))?,
                None => copied.reason = Some("a row of it is no row of ours".to_owned()),
            },
        }
    }
}

/// The values of a row, if all of them have the types that they should have.
fn values(shape: &Shape, row: &Row<'_>) -> Option<Vec<Value>> {
    let value = |(index, column): (usize, &Column)| {
        Some(
            match (row.get_ref(index).ok()?, column.type_name.as_str()) {
                (ValueRef::Null, _) if column.is_nullable => Value::Null,
                (ValueRef::Integer(number), "INTEGER") => Value::Integer(number),
                (ValueRef::Text(text), "TEXT") => {
                    Value::Text(std::str::from_utf8(text).ok()?.to_owned())
                }
                (ValueRef::Blob(bytes), "BLOB") => Value::Blob(bytes.to_vec()),
                _ => return None,
            },
        )
    };
    shape.columns.iter().enumerate().map(value).collect()
}
