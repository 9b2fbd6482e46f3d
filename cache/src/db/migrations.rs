//! From the tables of one format to those of the next.
//!
//! A new database goes the same way as an old one, so that both end alike. A table that a format adds stands in the
//! `TABLES` of the file with its methods, and in the list below.

use rusqlite::{Connection, TransactionBehavior};

use super::{Db, DbError, error, history, kept, schema, usage};
use crate::failpoint::reach;

/// One step, from the format before to this one.
struct Migration {
    to: u32,
    /// Run in one transaction with the change of `user_version`.
    statements: &'static [&'static str],
}

/// All steps, in order.
const MIGRATIONS: &[Migration] = &[
    Migration {
        to: 1,
        statements: &[schema::TABLES],
    },
    Migration {
        to: 2,
        statements: &[usage::COLUMNS, history::TABLES],
    },
    Migration {
        to: 3,
        statements: &[kept::TABLE],
    },
];

impl Db {
    /// The format of the tables.
    pub(crate) fn version(&self) -> Result<u32, DbError> {
        version(&self.session().connection)
            .map_err(|source| error("read the version", &self.path, source))
    }

    /// Brings the tables to [`FORMAT_VERSION`]. The caller has the store alone.
    pub(super) fn migrate(&self) -> Result<(), DbError> {
        let mut session = self.session();
        let connection = &mut session.connection;
        let from =
            version(connection).map_err(|source| error("read the version", &self.path, source))?;
        for step in MIGRATIONS.iter().filter(|step| step.to > from) {
            migrate_to(connection, step)
                .map_err(|source| error("bring the tables to a new format", &self.path, source))?;
            tracing::debug!(path = %self.path.display(), format = step.to, "migrated");
        }
        Ok(())
    }
}

/// Format 1 did not say so in its database.
fn version(connection: &Connection) -> rusqlite::Result<u32> {
    let version = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version > 0 {
        return Ok(version);
    }
    let has_tables: bool = connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'cache_mount')",
        [],
        |row| row.get(0),
    )?;
    Ok(u32::from(has_tables))
}

fn migrate_to(connection: &mut Connection, step: &Migration) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for statements in step.statements {
        transaction.execute_batch(statements)?;
    }
    transaction.pragma_update(None, "user_version", step.to)?;
    if step.to > 1 {
        reach("migration-step");
    }
    transaction.commit()?;
    if step.to > 1 {
        reach("migration-done");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open::FORMAT_VERSION;

    #[test]
    fn the_last_migration_leads_to_this_format() {
        let steps: Vec<u32> = MIGRATIONS.iter().map(|step| step.to).collect();
        assert_eq!(steps, (1..=FORMAT_VERSION).collect::<Vec<_>>());
    }
}
