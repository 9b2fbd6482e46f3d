//! The database of a store that is checked: the one that is there, or a new one of what can be read of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::FsckError;
use super::report::{Cure, Damage, DamageKind, Healing, Problem};
use crate::db::{Db, DbError, NotADatabase, TableLoss};
use crate::failpoint::reach;
use crate::store::{DATABASE, Store};

/// Where a new database is made.
const NEW: &str = "db.sqlite.new";

/// What is beside a database in WAL mode.
const COMPANIONS: [&str; 2] = ["-wal", "-shm"];

/// What was found of the database.
pub(super) enum Found {
    /// It is sound.
    Sound(Db),
    /// It is not.
    Damaged(Rebuilt, Box<Damage>),
}

/// A new database with what could be read of the damaged one.
pub(super) struct Rebuilt {
    pub(super) db: Db,
    /// Where it lies; nowhere, when it only shows what a repair would leave.
    pub(super) path: PathBuf,
}

/// Looks at the database, and reads what can be read if it is damaged.
pub(super) fn find_database(root: &Path, repairs: bool) -> Result<Found, FsckError> {
    let path = root.join(DATABASE);
    let opened = if repairs {
        Db::open(&path)
    } else {
        Db::open_to_read(&path)
    };
    let (damaged, problems) = match opened {
        Ok(None) => (None, vec![Problem::Missing]),
        Ok(Some(db)) if db.is_empty() => {
            let text = NotADatabase::Empty.to_string();
            (None, vec![Problem::Database { text }])
        }
        Ok(Some(db)) => {
            let problems = db.problems();
            if problems.is_empty() {
                return Ok(Found::Sound(db));
            }
            let problem = |text| Problem::Database { text };
            (Some(db), problems.into_iter().map(problem).collect())
        }
        Err(error @ (DbError::Full { .. } | DbError::NoRoom { .. } | DbError::Sync { .. })) => {
            return Err(error.into());
        }
        Err(error) => (None, vec![problem_of(&error)]),
    };
    let new = root.join(NEW);
    let db = if repairs {
        remove(&new)?;
        Db::create(&new)?
    } else {
        Db::in_memory(&path)?
    };
    let losses = match &damaged {
        Some(damaged) => db.salvage(damaged)?,
        None => Vec::new(),
    };
    if let Some(damaged) = damaged.filter(|_| repairs) {
        // What its log holds belongs into the file: the log goes before the file does.
        if let Err(error) = damaged.make_durable() {
            tracing::debug!(%error, "the log of the damaged database is lost with it");
        }
    }
    let mut damage = damage(&path, problems);
    damage.problems.extend(told(losses));
    Ok(Found::Damaged(Rebuilt { db, path: new }, Box::new(damage)))
}

fn problem_of(error: &DbError) -> Problem {
    let source = std::error::Error::source(error);
    let text = source.map_or_else(|| error.to_string(), ToString::to_string);
    Problem::Database { text }
}

/// Those of which nothing is left in one line for each reason, the others one by one.
fn told(losses: Vec<TableLoss>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut gone: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for TableLoss {
        table,
        kept,
        reason,
    } in losses
    {
        if kept == 0 {
            gone.entry(reason).or_default().push(table);
        } else {
            problems.push(Problem::Table {
                table,
                kept,
                reason,
            });
        }
    }
    let gone = gone.into_iter();
    problems.extend(gone.map(|(reason, tables)| Problem::Tables { tables, reason }));
    problems
}

fn damage(path: &Path, problems: Vec<Problem>) -> Damage {
    Damage {
        kind: DamageKind::Database,
        id: DATABASE.to_owned(),
        path: path.to_owned(),
        problems,
        needed_by: Vec::new(),
        healing: Healing::Mended,
        is_repaired: false,
        cure: Cure::Done,
    }
}

/// Puts the new database in the place of the damaged one. Nobody else has the store open, and its lock is held elsewhere.
///
/// The log of the old one goes first: SQLite would play it into the new one. Killed in between, the store has the damaged
/// database still, and is repaired again.
pub(super) fn replace(store: Store, new: &Path) -> Result<(), FsckError> {
    let root = store.root().to_owned();
    let old = root.join(DATABASE);
    store.inner.make_durable()?;
    drop(store);
    for suffix in COMPANIONS {
        remove_file(&companion(new, suffix))?;
        remove_file(&companion(&old, suffix))?;
    }
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| FsckError::Repair { path, source }
    };
    File::open(new)
        .and_then(|file| file.sync_all())
        .map_err(failed(new))?;
    reach("fsck-database");
    std::fs::rename(new, &old).map_err(failed(&old))?;
    File::open(&root)
        .and_then(|directory| directory.sync_all())
        .map_err(failed(&root))
}

fn companion(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Removes a database that an earlier repair did not finish.
pub(super) fn remove(path: &Path) -> Result<(), FsckError> {
    for suffix in COMPANIONS {
        remove_file(&companion(path, suffix))?;
    }
    remove_file(path)
}

fn remove_file(path: &Path) -> Result<(), FsckError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(|source| FsckError::Repair {
            path: path.to_owned(),
            source,
        }),
    }
}
