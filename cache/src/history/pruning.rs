//! How much of the past is kept, and the removal of the rest.
//!
//! What no kept build refers to is removed with the builds that did: step logs, and file lists but those of the
//! newest builds of each line. So does what was kept of their failed steps. A list may be removed in the moment between
//! its writing and its build's note of it; then an explanation names no files. Rows go before files: a kill in between leaves files that the next removal takes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::MetadataExt as _;

use super::{BuildStatus, HistoryError, now_in_milliseconds};
use crate::db::{BuildRow, DbError};
use crate::step_log::LOGS;
use crate::store::{Store, now};

/// Builds of a line whose file lists are kept: the newest is what the next one is compared with, the others are there
/// for builds that ended before they came to a step.
const LISTS_OF: usize = 3;

/// How much of the past is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryLimits {
    /// Most builds.
    pub builds: usize,
    /// Oldest build, in seconds.
    pub age: i64,
    /// Most bytes of step logs on disk.
    pub log_bytes: u64,
}

impl Default for HistoryLimits {
    /// What is kept when nobody says otherwise: 1,000 builds, 90 days, 512 MiB of logs.
    fn default() -> Self {
        Self {
            builds: 1_000,
            age: 90 * 24 * 3600,
            log_bytes: 512 << 20,
        }
    }
}

/// What was, or would be, removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistoryDropped {
    /// Builds.
    pub builds: usize,
    /// Step logs.
    pub logs: usize,
    /// Bytes of those on disk.
    pub log_bytes: u64,
}

/// What the history takes, outside the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistorySize {
    /// Step logs.
    pub logs: usize,
    /// Bytes of those on disk, as `du` counts.
    pub log_bytes: u64,
}

impl Store {
    /// Removes builds that do not run, with the logs and lists that no other build refers to.
    pub fn remove_builds(&self, ids: &[String]) -> Result<HistoryDropped, HistoryError> {
        let logs = self.logs()?;
        let (rows, running) = self.rows_and_running()?;
        let dropped: BTreeSet<&str> = rows
            .iter()
            .map(|row| row.id.as_str())
            .filter(|id| ids.iter().any(|given| given == id) && !running.contains(*id))
            .collect();
        self.remove(&rows, &dropped, &logs)
    }

    /// What [`drop_history`](Self::drop_history) would remove.
    pub fn history_to_drop(&self, limits: &HistoryLimits) -> Result<HistoryDropped, HistoryError> {
        // Logs first: whatever is there has its build's row by the time that rows are read.
        let logs = self.logs()?;
        let (rows, running) = self.rows_and_running()?;
        let dropped = surplus(&rows, &running, &logs, limits, now_in_milliseconds());
        Ok(count(
            &dropped,
            &unreferenced(&rows, &dropped, &logs),
            &logs,
        ))
    }

    /// Removes what the limits leave no room for, oldest builds first, and what no build refers to. Builds that run
    /// stay.
    pub fn drop_history(&self, limits: &HistoryLimits) -> Result<HistoryDropped, HistoryError> {
        // Logs first: whatever is there has its build's row by the time that rows are read.
        let logs = self.logs()?;
        let (rows, running) = self.rows_and_running()?;
        let dropped = surplus(&rows, &running, &logs, limits, now_in_milliseconds());
        let before = now().saturating_sub(limits.age);
        self.inner
            .db
            .write(|tables| tables.remove_lost_layers(before))?;
        self.remove(&rows, &dropped, &logs)
    }

    /// What the history takes on disk beside the database.
    pub fn history_size(&self) -> Result<HistorySize, HistoryError> {
        let logs = self.logs()?;
        Ok(HistorySize {
            logs: logs.len(),
            log_bytes: logs.values().sum(),
        })
    }

    fn rows_and_running(&self) -> Result<(Vec<BuildRow>, BTreeSet<String>), HistoryError> {
        let rows = self.inner.db.read(|tables| tables.builds(usize::MAX))?;
        let mut running = BTreeSet::new();
        for row in &rows {
            if row.status == BuildStatus::Running.to_row() && self.is_lease_alive(&row.lease)? {
                running.insert(row.id.clone());
            }
        }
        Ok((rows, running))
    }

    /// Names of the logs, and what they take on disk.
    fn logs(&self) -> Result<BTreeMap<String, u64>, HistoryError> {
        let path = self.inner.root.join(LOGS);
        let failed = |source| HistoryError::Read {
            path: path.clone(),
            source,
        };
        let entries = match std::fs::read_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            entries => entries.map_err(failed)?,
        };
        let mut logs = BTreeMap::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let Some(name) = name.to_str().and_then(|name| name.strip_suffix(".zst")) else {
                continue;
            };
            match entry.metadata() {
                Ok(metadata) => {
                    logs.insert(name.to_owned(), metadata.blocks() * 512);
                }
                // Another process removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(failed(source)),
            }
        }
        Ok(logs)
    }

    fn remove(
        &self,
        rows: &[BuildRow],
        dropped: &BTreeSet<&str>,
        logs: &BTreeMap<String, u64>,
    ) -> Result<HistoryDropped, HistoryError> {
        let orphans = unreferenced(rows, dropped, logs);
        let kept_lists = kept_lists(rows, dropped);
        self.inner.db.write(|tables| {
            for id in dropped {
                tables.remove_build(id)?;
            }
            for (digest, _) in tables.file_lists()? {
                if !kept_lists.contains(digest.as_str()) {
                    tables.remove_file_list(&digest)?;
                }
            }
            Ok::<_, DbError>(())
        })?;
        self.drop_kept_of(dropped).map_err(Box::new)?;
        for name in &orphans {
            let path = self.step_log_path(name);
            match std::fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(HistoryError::Remove { path, source });
                }
                _ => {}
            }
        }
        Ok(count(dropped, &orphans, logs))
    }
}

/// Builds beyond the limits. Rows are newest first.
fn surplus<'row>(
    rows: &'row [BuildRow],
    running: &BTreeSet<String>,
    logs: &BTreeMap<String, u64>,
    limits: &HistoryLimits,
    now: i64,
) -> BTreeSet<&'row str> {
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut bytes: u64 = 0;
    let mut dropped = BTreeSet::new();
    for (position, row) in rows.iter().enumerate() {
        let new: Vec<&str> = row.logs.split(' ').filter(|log| seen.insert(log)).collect();
        bytes += new.iter().filter_map(|log| logs.get(*log)).sum::<u64>();
        let is_old = now.saturating_sub(row.started) / 1000 > limits.age;
        let is_beyond = position >= limits.builds || is_old || bytes > limits.log_bytes;
        if is_beyond && !running.contains(&row.id) {
            dropped.insert(row.id.as_str());
        }
    }
    dropped
}

/// Logs that no kept build refers to. Those that a kept build wrote itself stay: it may have been killed before it
/// noted them, or be writing them.
fn unreferenced(
    rows: &[BuildRow],
    dropped: &BTreeSet<&str>,
    logs: &BTreeMap<String, u64>,
) -> Vec<String> {
    let kept = || rows.iter().filter(|row| !dropped.contains(row.id.as_str()));
    let named: BTreeSet<&str> = kept().flat_map(|row| row.logs.split(' ')).collect();
    let own: BTreeSet<&str> = kept().map(|row| row.id.as_str()).collect();
    let is_orphan = |name: &&String| {
        let build = name.split('-').next().unwrap_or_default();
        !named.contains(name.as_str()) && !own.contains(build)
    };
    logs.keys().filter(is_orphan).cloned().collect()
}

fn kept_lists<'row>(rows: &'row [BuildRow], dropped: &BTreeSet<&str>) -> BTreeSet<&'row str> {
    let mut of_line: BTreeMap<&str, usize> = BTreeMap::new();
    let mut kept = BTreeSet::new();
    for row in rows.iter().filter(|row| !dropped.contains(row.id.as_str())) {
        let count = of_line.entry(&row.line).or_default();
        *count += 1;
        if *count <= LISTS_OF {
            kept.extend(row.lists.split(' '));
        }
    }
    kept
}

fn count(
    dropped: &BTreeSet<&str>,
    orphans: &[String],
    logs: &BTreeMap<String, u64>,
) -> HistoryDropped {
    HistoryDropped {
        builds: dropped.len(),
        logs: orphans.len(),
        log_bytes: orphans.iter().filter_map(|name| logs.get(name)).sum(),
    }
}
