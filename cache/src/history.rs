//! Past builds: what the builder tells of them, their logs, and how long that is kept.
//!
//! A build is a row that begins as running, with the lease of its process; one whose lease is dead was interrupted,
//! whatever its row says. `summary` and `detail` belong to the builder and are kept as they are. Nothing here is synced:
//! a power cut may take the newest builds with it, and an all-hit build costs two small commits.
//!
//! How long all that is kept: [`pruning`].

mod pruning;

use std::io::{self, Read as _};
use std::path::PathBuf;

use crate::db::{BuildRow, DbError};
use crate::gc::GcError;
use crate::layer::SnapshotId;
use crate::lease::{Lease, LeaseError};
use crate::lock::is_locked;
use crate::store::Store;

pub use self::pruning::{HistoryDropped, HistoryLimits, HistorySize};

/// Letters of a build's id. Without those that are taken for one another.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// Letters of an id that are letters and no digits: ids begin with one, so that no id is taken for a number.
const LETTERS: usize = 24;

/// Letters in an id: a million builds in a store share none but by a chance of one in two, and that is noticed.
const ID_LENGTH: usize = 8;

/// Largest detail of a build that is read.
const MAX_DETAIL: usize = 256 << 20;

/// Level of compression of details.
const DETAIL_LEVEL: i32 = 1;

/// Why the history can't be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// The database did not answer.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The lease of the build could not be taken.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// What was kept of its steps could not be removed.
    #[error(transparent)]
    Kept(#[from] Box<GcError>),
    /// The kernel gave no random bytes for an id.
    #[error("cannot get random bytes")]
    Random(#[source] rustix::io::Errno),
    /// More than one build is meant.
    #[error("`{text}` is the start of more than one build id")]
    Ambiguous {
        /// As given.
        text: String,
    },
    /// The directory of the logs, or the lock of a lease, can't be read.
    #[error("cannot read `{path}`")]
    Read {
        /// It.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A log can't be removed.
    #[error("cannot remove `{path}`")]
    Remove {
        /// It.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What became of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildStatus {
    /// Its process lives.
    Running,
    /// It came to its end.
    Done,
    /// It failed.
    Failed,
    /// It was ended, or its process died.
    Interrupted,
}

impl BuildStatus {
    fn to_row(self) -> i64 {
        match self {
            Self::Running => 0,
            Self::Done => 1,
            Self::Failed => 2,
            Self::Interrupted => 3,
        }
    }

    fn of_row(number: i64) -> Self {
        match number {
            0 => Self::Running,
            1 => Self::Done,
            2 => Self::Failed,
            _ => Self::Interrupted,
        }
    }
}

/// A past or running build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// Short and unique in the store.
    pub id: String,
    /// Builds of the same thing have the same line.
    pub line: String,
    /// When it began: milliseconds since the epoch.
    pub started: i64,
    /// What became of it.
    pub status: BuildStatus,
    /// The builder's, as it was given.
    pub summary: String,
}

/// A build that is not in the history yet.
#[derive(Clone, Debug)]
pub struct NewBuild {
    /// Short and unique in the store.
    pub id: String,
    /// Builds of the same thing have the same line.
    pub line: String,
    lease: String,
    /// When it began: milliseconds since the epoch.
    pub started: i64,
}

/// What a build has come to.
#[derive(Clone, Debug, Default)]
pub struct BuildProgress {
    /// The builder's; read with every listing.
    pub summary: String,
    /// The builder's; read for one build at a time, kept compressed.
    pub detail: Vec<u8>,
    /// Names of the step logs that it refers to, of earlier builds too.
    pub logs: Vec<String>,
    /// File lists that it refers to, as digests in hex.
    pub lists: Vec<String>,
}

/// Why a layer is not in the store any more, where that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerLoss {
    /// It was found damaged, and taken out.
    Damaged,
    /// The machine went down before it was on the disk.
    PowerCut,
}

impl LayerLoss {
    pub(crate) fn to_row(self) -> i64 {
        match self {
            Self::Damaged => 0,
            Self::PowerCut => 1,
        }
    }
}

impl Store {
    /// A build that begins now, with an id that no other has. Nothing is written yet. It will count as running as long as
    /// `lease` lives.
    pub fn new_build(&self, lease: &Lease, line: &str) -> Result<NewBuild, HistoryError> {
        let lease = lease.name()?;
        loop {
            let id = new_id()?;
            if !self.inner.db.read(|tables| tables.has_build(&id))? {
                return Ok(NewBuild {
                    id,
                    line: line.to_owned(),
                    lease,
                    started: now_in_milliseconds(),
                });
            }
        }
    }

    /// Writes a build into the history, once, with what it has come to.
    pub fn add_build(
        &self,
        build: &NewBuild,
        status: BuildStatus,
        progress: &BuildProgress,
    ) -> Result<(), HistoryError> {
        let row = BuildRow {
            id: build.id.clone(),
            line: build.line.clone(),
            lease: build.lease.clone(),
            started: build.started,
            status: status.to_row(),
            summary: progress.summary.clone(),
            logs: progress.logs.join(" "),
            lists: progress.lists.join(" "),
        };
        let detail = compress(&progress.detail, DETAIL_LEVEL);
        Ok(self
            .inner
            .db
            .write(|tables| tables.add_build(&row, &detail))?)
    }

    /// Notes what a build of the history has come to, or that it is over.
    pub fn update_build(
        &self,
        id: &str,
        status: BuildStatus,
        progress: &BuildProgress,
    ) -> Result<(), HistoryError> {
        let detail = compress(&progress.detail, DETAIL_LEVEL);
        let row = BuildRow {
            id: id.to_owned(),
            line: String::new(),
            lease: String::new(),
            started: 0,
            status: status.to_row(),
            summary: progress.summary.clone(),
            logs: progress.logs.join(" "),
            lists: progress.lists.join(" "),
        };
        Ok(self
            .inner
            .db
            .write(|tables| tables.update_build(&row, &detail))?)
    }

    /// The newest builds, newest first.
    pub fn builds(&self, limit: usize) -> Result<Vec<Build>, HistoryError> {
        let rows = self.inner.db.read(|tables| tables.builds(limit))?;
        rows.into_iter().map(|row| self.build_of(row)).collect()
    }

    /// The newest builds of a line, newest first.
    pub fn builds_of_line(&self, line: &str, limit: usize) -> Result<Vec<Build>, HistoryError> {
        let rows = self
            .inner
            .db
            .read(|tables| tables.builds_of_line(line, limit))?;
        rows.into_iter().map(|row| self.build_of(row)).collect()
    }

    /// The build that a text means: an id or its beginning, `last` or `-1` for the newest, `-2` for the one before it.
    pub fn find_build(&self, text: &str) -> Result<Option<Build>, HistoryError> {
        let back = match text {
            "last" => Some(1),
            text => text
                .strip_prefix('-')
                .and_then(|number| number.parse::<usize>().ok()),
        };
        let mut rows = if let Some(back) = back {
            let mut rows = self.inner.db.read(|tables| tables.builds(back))?;
            if back == 0 || rows.len() < back {
                return Ok(None);
            }
            rows.split_off(back - 1)
        } else {
            let is_plain = text.bytes().all(|byte| ALPHABET.contains(&byte));
            if text.is_empty() || !is_plain {
                return Ok(None);
            }
            self.inner.db.read(|tables| tables.builds_by_prefix(text))?
        };
        match rows.len() {
            0 => Ok(None),
            1 => self.build_of(rows.remove(0)).map(Some),
            _ => Err(HistoryError::Ambiguous {
                text: text.to_owned(),
            }),
        }
    }

    /// What the builder keeps of a build; empty for one that did not get far, or whose detail is damaged.
    pub fn build_detail(&self, id: &str) -> Result<Vec<u8>, HistoryError> {
        let detail = self.inner.db.read(|tables| tables.build_detail(id))?;
        let detail = detail.filter(|detail| !detail.is_empty());
        Ok(detail
            .and_then(|detail| decompress(&detail, MAX_DETAIL))
            .unwrap_or_default())
    }

    /// Why a layer is gone; none when it is there, was pruned, or nobody knows.
    pub fn layer_loss(&self, snapshot: &SnapshotId) -> Result<Option<LayerLoss>, DbError> {
        let reason = self
            .inner
            .db
            .read(|tables| tables.lost_layer(snapshot.as_str()))?;
        Ok(match reason {
            Some(0) => Some(LayerLoss::Damaged),
            Some(1) => Some(LayerLoss::PowerCut),
            _ => None,
        })
    }

    fn build_of(&self, row: BuildRow) -> Result<Build, HistoryError> {
        let mut status = BuildStatus::of_row(row.status);
        if status == BuildStatus::Running && !self.is_lease_alive(&row.lease)? {
            status = BuildStatus::Interrupted;
        }
        Ok(Build {
            id: row.id,
            line: row.line,
            started: row.started,
            status,
            summary: row.summary,
        })
    }

    fn is_lease_alive(&self, name: &str) -> Result<bool, HistoryError> {
        let path = self.inner.work.join(name).with_extension("lock");
        is_locked(&path).map_err(|source| HistoryError::Read { path, source })
    }
}

fn new_id() -> Result<String, HistoryError> {
    let mut random = [0_u8; ID_LENGTH];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(HistoryError::Random)?;
    let letter = |(position, byte): (usize, &u8)| {
        let letters = if position == 0 {
            LETTERS
        } else {
            ALPHABET.len()
        };
        char::from(ALPHABET[usize::from(*byte) % letters])
    };
    Ok(random.iter().enumerate().map(letter).collect())
}

/// Milliseconds since the epoch.
fn now_in_milliseconds() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    now.tv_sec * 1000 + now.tv_nsec / 1_000_000
}

/// Compresses with zstd.
pub(crate) fn compress(bytes: &[u8], level: i32) -> Vec<u8> {
    zstd::bulk::compress(bytes, level).expect("memory takes all that is written to it")
}

/// What was compressed, if it is at most `limit` bytes and not damaged.
pub(crate) fn decompress(bytes: &[u8], limit: usize) -> Option<Vec<u8>> {
    let decoder = zstd::stream::read::Decoder::new(bytes).ok()?;
    let mut plain = Vec::new();
    decoder
        .take(limit as u64 + 1)
        .read_to_end(&mut plain)
        .ok()?;
    (plain.len() <= limit).then_some(plain)
}
