//! The database: all SQL of the crate, behind typed methods.
//!
//! `db.sqlite` is in WAL mode, shared by any number of processes. Reads see one moment ([`Db::read`] is one
//! transaction); changes are `BEGIN IMMEDIATE` ([`Db::write`]), so that what a change read is still true when it is
//! written. `synchronous=NORMAL`: a commit is atomic and ordered at once, and survives a power cut after
//! [`Db::make_durable`], at the end of a build.
//!
//! Opening writes nothing when the database exists. Closing checkpoints nothing: an all-hit build leaves the files
//! as they were.

mod history;
mod images;
mod inventory;
mod kept;
mod layers;
mod migrations;
mod records;
mod salvage;
mod schema;
mod scrutiny;
mod shared_memory;
mod usage;

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use crate::layer::Layer;
use crate::store::StoreError;

use self::shared_memory::SharedMemory;

pub(crate) use history::BuildRow;
#[cfg(test)]
pub(crate) use inventory::RecordUse;
pub(crate) use inventory::{BlobUse, ImageUse, Inventory, LayerUse, MountUse, Sizes};
pub(crate) use kept::KeptRow;
pub(crate) use records::RecordRow;
pub(crate) use salvage::TableLoss;
pub(crate) use schema::Unsynced;
pub(crate) use scrutiny::{RawLayer, RawPacked};

/// How long a change waits for those of other processes. They last microseconds, a checkpoint a few seconds on a
/// slow disk; longer than this and something is wrong.
const BUSY_TIMEOUT: Duration = Duration::from_mins(1);

/// Fewest empty bytes for which the database is copied to be smaller.
const SHRINK_FROM: u64 = 1 << 20;

/// Statements kept prepared: all of ours.
const STATEMENT_CACHE: usize = 64;

/// Why the database did not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DbError {
    /// The file is not a database or its pages contradict one another.
    #[error("the store's database `{path}` is damaged")]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What SQLite found.
        #[source]
        source: rusqlite::Error,
    },
    /// There is a store, but its database is gone, empty, or of a format that the store is not of.
    #[error("the store's database `{path}` is damaged")]
    Lost {
        /// The database.
        path: PathBuf,
        /// What it looks like.
        #[source]
        source: NotADatabase,
    },
    /// The disk is full.
    #[error("no space left for the store's database `{path}`")]
    Full {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// The disk is full, and a file beside the database can't grow.
    #[error("no space left for `{path}`, which the store's database needs")]
    NoRoom {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Anything else.
    #[error("cannot {action} in the store's database `{path}`")]
    Failed {
        /// What was being done.
        action: &'static str,
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// Its log could not be forced to the disk.
    #[error("cannot sync `{path}`")]
    Sync {
        /// The log.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A value that this crate never writes.
    #[error("the store's database `{path}` holds a {what} that does not parse")]
    Value {
        /// The database.
        path: PathBuf,
        /// Which value.
        what: &'static str,
        /// That this is damage.
        #[source]
        source: Unparsable,
    },
}

/// What is where a store's database should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotADatabase {
    /// Nothing.
    #[error("the file is missing")]
    Missing,
    /// A database without tables.
    #[error("it has no tables")]
    Empty,
    /// One that says to be of another format than the store.
    #[error("it says to be of format {found}, in a store of format {expected}")]
    Format {
        /// `user_version`
        found: u32,
        /// Of `VERSION`.
        expected: u32,
    },
}

/// Says that a value was changed by something else than rbuild.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rbuild never wrote that: the file is damaged")]
pub struct Unparsable;

/// One connection, shared by the threads of the process.
#[derive(Debug)]
pub(crate) struct Db {
    /// Held for one transaction; no lock is taken while it is held but file locks of the database itself.
    session: Mutex<Session>,
    path: PathBuf,
    /// Closed after the connection is. None for a database in memory.
    _shared_memory: Option<SharedMemory>,
}

/// The connection and what it has read.
#[derive(Debug)]
struct Session {
    connection: Connection,
    /// Layers read so far: the records of a build name the same ones again and again.
    layers: LayerMemo,
}

/// Layer rows that are still as they were read.
#[derive(Debug, Default)]
struct LayerMemo {
    /// `PRAGMA data_version` when they were read: it changes with every commit of another connection. Our own
    /// changes clear the rows.
    version: i64,
    rows: HashMap<String, Layer>,
}

impl LayerMemo {
    /// Forgets rows that were read when the database had another version.
    fn keep_only(&mut self, version: i64) {
        if self.version != version {
            self.version = version;
            self.rows.clear();
        }
    }
}

impl Db {
    /// Opens the database; none when there is none.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>, DbError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Self::open_with(path, flags)
    }

    fn open_with(path: &Path, flags: OpenFlags) -> Result<Option<Self>, DbError> {
        if !path.exists() {
            return Ok(None);
        }
        let shared_memory = SharedMemory::prepare(path)?;
        match Connection::open_with_flags(path, flags) {
            Ok(connection) => Self::prepared(connection, path, shared_memory).map(Some),
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::CannotOpen) && !path.exists() =>
            {
                Ok(None)
            }
            Err(source) => Err(error("open tables", path, source)),
        }
    }

    /// Opens the database for reading only; none when there is none.
    pub(crate) fn open_to_read(path: &Path) -> Result<Option<Self>, DbError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Self::open_with(path, flags)
    }

    /// Makes a database in memory, to try out what would be in the one at `path`.
    pub(crate) fn in_memory(path: &Path) -> Result<Self, DbError> {
        let failed = |source| error("create tables", path, source);
        let connection = Connection::open_in_memory().map_err(failed)?;
        let db = Self::prepared(connection, path, None)?;
        db.migrate()?;
        Ok(db)
    }

    /// Makes the database and its tables where they are missing, and brings older ones to this format. The caller keeps
    /// others from doing so at once.
    pub(crate) fn create(path: &Path) -> Result<Self, DbError> {
        let failed = |source| error("create tables", path, source);
        let shared_memory = SharedMemory::prepare(path)?;
        let connection = Connection::open(path).map_err(failed)?;
        connection
            .pragma_update(None, "journal_mode", "wal")
            .map_err(failed)?;
        let db = Self::prepared(connection, path, shared_memory)?;
        db.migrate()?;
        Ok(db)
    }

    fn prepared(
        connection: Connection,
        path: &Path,
        shared_memory: Option<SharedMemory>,
    ) -> Result<Self, DbError> {
        let set_up = || {
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            connection.execute_batch("PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = OFF")
        };
        set_up().map_err(|source| error("open tables", path, source))?;
        let session = Session {
            connection,
            layers: LayerMemo::default(),
        };
        Ok(Self {
            session: Mutex::new(session),
            path: path.to_owned(),
            _shared_memory: shared_memory,
        })
    }

    /// Reads, all as of one moment.
    pub(crate) fn read<T, E: From<DbError>>(
        &self,
        body: impl FnOnce(&Tables<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut session = self.session();
        let Session { connection, layers } = &mut *session;
        self.transact(
            connection,
            TransactionBehavior::Deferred,
            Some(layers),
            body,
        )
    }

    /// Changes, all or nothing: `Ok` is committed, `Err` has changed nothing.
    pub(crate) fn write<T, E: From<DbError>>(
        &self,
        body: impl FnOnce(&Tables<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut session = self.session();
        // What is read in here may be rolled back, and what is written makes rows read before wrong.
        session.layers.rows.clear();
        self.transact(
            &mut session.connection,
            TransactionBehavior::Immediate,
            None,
            body,
        )
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        // A panic inside a transaction rolled it back while unwinding: the connection is as good as before.
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn transact<T, E: From<DbError>>(
        &self,
        connection: &mut Connection,
        behavior: TransactionBehavior,
        layers: Option<&mut LayerMemo>,
        body: impl FnOnce(&Tables<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let failed = |source| error("begin or commit", &self.path, source);
        let transaction = connection
            .transaction_with_behavior(behavior)
            .map_err(failed)?;
        let layers = match layers {
            Some(layers) => {
                // Reading it also fixes the moment that the transaction sees.
                let version = transaction
                    .prepare_cached("PRAGMA data_version")
                    .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
                    .map_err(failed)?;
                layers.keep_only(version);
                Some(layers)
            }
            None => None,
        };
        let value = body(&Tables {
            connection: &transaction,
            layers: layers.map(RefCell::new),
            path: &self.path,
        })?;
        transaction.commit().map_err(failed)?;
        Ok(value)
    }

    /// Gives room back to the disk, when much of the file is empty. Takes the writers' turn for as long as a copy of the
    /// rest takes.
    pub(crate) fn shrink(&self) -> Result<(), DbError> {
        let session = self.session();
        let connection = &session.connection;
        let failed = |source| error("shrink", &self.path, source);
        let pragma = |name| connection.query_row(name, [], |row| row.get::<_, i64>(0));
        let page = pragma("PRAGMA page_size").map_err(failed)?;
        let all = pragma("PRAGMA page_count").map_err(failed)?;
        let empty = pragma("PRAGMA freelist_count").map_err(failed)?;
        if u64::try_from(empty * page).unwrap_or(0) >= SHRINK_FROM && empty * 2 >= all {
            connection.execute_batch("VACUUM").map_err(failed)?;
        }
        Ok(())
    }

    /// Makes all commits so far survive a power cut, and empties the WAL if no other process is in the way.
    pub(crate) fn make_durable(&self) -> Result<(), DbError> {
        let session = self.session();
        let connection = &session.connection;
        let failed = |source| error("checkpoint", &self.path, source);
        // No waiting for readers: a WAL that is not emptied now is emptied by the next build.
        connection.busy_timeout(Duration::ZERO).map_err(failed)?;
        let is_busy = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
            row.get::<_, bool>(0)
        });
        connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
        let is_log_needed = match is_busy.map_err(failed) {
            // No room for what has to move: the log has all of it, and the next checkpoint will move it. What was committed
            // must not count as failed.
            Err(full) if full.is_full() => true,
            other => other?,
        };
        if is_log_needed {
            // Closing a file of a database lets go of SQLite's locks on that file, but it has none on the WAL.
            let wal = self.path.with_extension("sqlite-wal");
            std::fs::File::open(&wal)
                .and_then(|file| file.sync_data())
                .map_err(|source| DbError::Sync { path: wal, source })?;
        }
        Ok(())
    }
}

/// The tables inside one transaction; methods in the submodules.
#[derive(Debug)]
pub(crate) struct Tables<'a> {
    connection: &'a Connection,
    /// None inside a change.
    layers: Option<RefCell<&'a mut LayerMemo>>,
    path: &'a Path,
}

impl Tables<'_> {
    /// Runs SQL, turning its error into ours.
    fn run<T>(
        &self,
        action: &'static str,
        body: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, DbError> {
        body(self.connection).map_err(|source| error(action, self.path, source))
    }

    /// Unwraps a parsed value.
    fn parsed<T>(&self, what: &'static str, value: Option<T>) -> Result<T, DbError> {
        value.ok_or_else(|| DbError::Value {
            path: self.path.to_owned(),
            what,
            source: Unparsable,
        })
    }
}

impl DbError {
    /// True when there is no room on the disk.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::Full { .. } | Self::NoRoom { .. } => true,
            // The log or the shared memory could not grow.
            Self::Failed { source, .. } => {
                source.sqlite_error_code() == Some(ErrorCode::SystemIoFailure)
            }
            Self::Sync { source, .. } => source.kind() == std::io::ErrorKind::StorageFull,
            Self::Damaged { .. } | Self::Lost { .. } | Self::Value { .. } => false,
        }
    }
}

fn error(action: &'static str, path: &Path, source: rusqlite::Error) -> DbError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        _ if says_damaged(&source) => DbError::Damaged { path, source },
        _ if says_full(&source) => DbError::Full { path, source },
        _ => DbError::Failed {
            action,
            path,
            source,
        },
    }
}

/// True when this error, not one that caused it, is the system's or the database's word for a full disk or quota.
pub fn is_full_disk(error: &(dyn std::error::Error + 'static)) -> bool {
    use std::io::ErrorKind;
    let is_io = error.downcast_ref::<std::io::Error>().is_some_and(|error| {
        matches!(
            error.kind(),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded
        )
    });
    is_io
        || error
            .downcast_ref::<rusqlite::Error>()
            .is_some_and(says_full)
}

/// True when this error, not one that caused it, says that the store's database or version file is damaged:
/// [`fsck`](crate::fsck) mends both.
pub fn is_damaged_store(error: &(dyn std::error::Error + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(StoreError::Version { .. }))
        || error.is::<Unparsable>()
        || error.is::<NotADatabase>()
        || error
            .downcast_ref::<rusqlite::Error>()
            .is_some_and(says_damaged)
}

/// True when SQLite found something that it and we never write. Our statements are right, and tested: one that it can't
/// make sense of, or a value of another type than its column's, means that the tables are not ours any more.
fn says_damaged(error: &rusqlite::Error) -> bool {
    use rusqlite::Error;
    use rusqlite::ffi::{SQLITE_ERROR, SQLITE_IOERR_SHORT_READ};
    match error {
        Error::SqliteFailure(failure, _) => {
            matches!(
                failure.code,
                ErrorCode::DatabaseCorrupt
                    | ErrorCode::NotADatabase
                    | ErrorCode::ConstraintViolation
                    | ErrorCode::TypeMismatch
                    | ErrorCode::SchemaChanged
            ) || matches!(
                failure.extended_code,
                SQLITE_ERROR | SQLITE_IOERR_SHORT_READ
            )
        }
        Error::SqlInputError { .. }
        | Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::Utf8Error(..)
        | Error::InvalidColumnType(..) => true,
        _ => false,
    }
}

/// True when SQLite says that the disk is full. When there is no room for its shared memory it says "disk I/O error".
fn says_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| {
        error.code == ErrorCode::DiskFull
            || error.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE
    })
}
