//! Step records: what a step key maps to.
//!
//! A record holds the whole result chain, so that a hit never mixes an old child with a new parent. It is written
//! under two keys, by definition and by result (see `docs/cache-keys.md`); a key points at the newest record that was
//! written under it, and a record that no key points at any more is forgotten.
//!
//! One step runs in one process at a time: who misses takes the [`StepLock`] of the key, looks again, and only then
//! runs. The lock dies with its holder.

use serde::{Deserialize, Serialize};

use crate::chain::{Chain, Present};
use crate::db::{DbError, RecordRow, Tables, Unparsable};
use crate::failpoint::reach;
use crate::key::StepKey;
use crate::layer::SnapshotId;
use crate::lock::{LockError, LockFile};
use crate::store::Store;

/// The result of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepRecord {
    /// All layers of the result, the parent's too.
    pub chain: Chain,
    /// What its key was made of; for `rbuild explain`, never a secret's value.
    pub parts: Vec<KeyPart>,
    /// The step as users know it: what is shown, and what an earlier build's record is found by.
    pub title: String,
    /// When it ran: seconds since the epoch.
    pub created: i64,
    /// How long it took, in microseconds.
    pub cost_us: u64,
}

/// One named part of a step key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPart {
    /// Such as `env PATH`, `files`, `base image`.
    #[serde(rename = "n")]
    pub name: String,
    /// Its value as text; a digest where the value is long.
    #[serde(rename = "v")]
    pub value: String,
}

impl KeyPart {
    /// A part.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            value: value.into(),
        }
    }
}

/// What a look-up came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// A record with all its snapshots.
    Found(Box<StepRecord>),
    /// There was one, but this snapshot of its chain is not there any more. It is forgotten.
    Lost(SnapshotId),
    /// No record under this key.
    Nothing,
}

impl Lookup {
    /// The record, if there is one.
    pub fn found(self) -> Option<StepRecord> {
        match self {
            Self::Found(record) => Some(*record),
            Self::Lost(_) | Self::Nothing => None,
        }
    }
}

/// The right to run a step; see [`Store::step_lock`].
#[derive(Debug)]
pub struct StepLock {
    _lock: LockFile,
}

/// A row, and its chain as far as it is there.
type FoundRow = (Result<Chain, SnapshotId>, RecordRow);

/// What names of step locks begin with.
pub(crate) const STEP_LOCK: &str = "step-";

/// As they stand in the database.
fn encode_parts(parts: &[KeyPart]) -> String {
    serde_json::to_string(parts).expect("a list of pairs of strings is JSON")
}

impl Store {
    /// The record of a step, if every snapshot of its chain is there. A record that is not usable is forgotten.
    ///
    /// The chain is not held: see [`Lease::lookup`](crate::Lease::lookup).
    pub fn lookup(&self, key: &StepKey) -> Result<Option<StepRecord>, DbError> {
        Ok(self.look_up(key)?.found())
    }

    /// The same for many, read at one moment, and what was missing of records that had to be forgotten.
    pub fn look_up_all(&self, keys: &[StepKey]) -> Result<Vec<Lookup>, DbError> {
        let mut present = Present::default();
        let rows = self.inner.db.read(|tables| {
            let found = keys
                .iter()
                .map(|key| self.find_record(tables, key, &mut present));
            found.collect::<Result<Vec<_>, DbError>>()
        })?;
        let found = keys.iter().zip(rows);
        found
            .map(|(key, row)| self.judge_record(key, row))
            .collect()
    }

    /// As [`lookup`](Self::lookup), and what was missing of a record that had to be forgotten.
    pub fn look_up(&self, key: &StepKey) -> Result<Lookup, DbError> {
        let found = self
            .inner
            .db
            .read(|tables| self.find_record(tables, key, &mut Present::default()))?;
        self.judge_record(key, found)
    }

    fn find_record(
        &self,
        tables: &Tables<'_>,
        key: &StepKey,
        present: &mut Present,
    ) -> Result<Option<FoundRow>, DbError> {
        let Some(row) = tables.record(key)? else {
            return Ok(None);
        };
        let chain = self.present_chain(tables, &row.chain, present)?;
        Ok(Some((chain, row)))
    }

    /// What came of a look-up. A record whose chain is not whole is forgotten.
    fn judge_record(&self, key: &StepKey, found: Option<FoundRow>) -> Result<Lookup, DbError> {
        match found {
            None => Ok(Lookup::Nothing),
            Some((Ok(chain), row)) => {
                let record = self.parse_record(chain, row)?;
                Ok(Lookup::Found(Box::new(record)))
            }
            Some((Err(snapshot), row)) => {
                tracing::debug!(%key, %snapshot, "record forgotten: its snapshot is gone");
                self.inner.db.write(|tables| {
                    // The snapshot may have come back since: somebody ran the step again.
                    let present = &mut Present::default();
                    if self.present_chain(tables, &row.chain, present)?.is_err() {
                        tables.remove_record(row.id)?;
                    }
                    Ok::<_, DbError>(())
                })?;
                Ok(Lookup::Lost(snapshot))
            }
        }
    }

    /// Writes a record under all of `keys`. The newest wins; others see it at once.
    pub fn record(&self, keys: &[StepKey], record: &StepRecord) -> Result<(), DbError> {
        let row = RecordRow {
            id: 0,
            chain: record.chain.to_row(),
            title: record.title.clone(),
            created: record.created,
            cost_us: record.cost_us,
            parts: encode_parts(&record.parts),
        };
        reach("record-before");
        self.inner
            .db
            .write(|tables| tables.put_record(keys, &row))?;
        reach("record-committed");
        self.inner.mark_dirty();
        Ok(())
    }

    /// Waits for the right to run the step of `key`, while another process or thread has it.
    ///
    /// Look the key up again after this returns: the other one may have recorded a result. Take locks in the order
    /// in which steps depend on one another, and hold none while waiting for a parent.
    pub fn step_lock(&self, key: &StepKey) -> Result<StepLock, LockError> {
        LockFile::acquire(&self.step_lock_path(key)).map(|lock| StepLock { _lock: lock })
    }

    /// Takes the right to run the step of `key`; none when another process or thread has it.
    pub fn try_step_lock(&self, key: &StepKey) -> Result<Option<StepLock>, LockError> {
        Ok(LockFile::try_acquire(&self.step_lock_path(key))?.map(|lock| StepLock { _lock: lock }))
    }

    fn step_lock_path(&self, key: &StepKey) -> std::path::PathBuf {
        self.inner.locks.join(format!("{STEP_LOCK}{key}"))
    }

    fn parse_record(&self, chain: Chain, row: RecordRow) -> Result<StepRecord, DbError> {
        let parts = serde_json::from_str(&row.parts).map_err(|_| DbError::Value {
            path: self.inner.root.join(crate::store::DATABASE),
            what: "step record",
            source: Unparsable,
        })?;
        Ok(StepRecord {
            chain,
            parts,
            title: row.title,
            created: row.created,
            cost_us: row.cost_us,
        })
    }
}
