//! Snapshots: read whole, against their diff_id where packing gives it, else against their entry table.
//!
//! A layer that was made here is the tar that packing gives: its diff_id proves every byte, and its rows can be written
//! anew from it. Of a layer that was pulled only the entry table tells what it should be.

use super::check::{Check, for_each, identity};
use super::compare::differences;
use super::report::{Cure, Damage, DamageKind, Healing, Problem};
use super::{ExamineError, Examined, FsckError};
use crate::db::RawLayer;
use crate::digest::{ContentDigest, DiffId};
use crate::entry::{EntryTable, decode_table, encode_table, layer_content_digest};
use crate::layer::{Layer, SnapshotId};

/// What was found of one snapshot.
struct Verdict {
    problems: Vec<Problem>,
    cure: Option<Cure>,
    /// Of its tar.
    size: u64,
}

impl Verdict {
    fn bad(problem: Problem, cure: Cure) -> Self {
        Self {
            problems: vec![problem],
            cure: Some(cure),
            size: 0,
        }
    }
}

impl Check<'_> {
    /// Reads all snapshots.
    pub(super) fn snapshots(&mut self) -> Result<(), FsckError> {
        let mut layers = (self.store.inner.db).read(|tables| tables.raw_layers())?;
        layers.retain(|layer| !self.lost.contains(&layer.snapshot));
        let verdicts = for_each(&layers, |layer| self.judge(layer))?;
        for (layer, verdict) in layers.iter().zip(verdicts) {
            self.report.checked.snapshots += 1;
            self.report.checked.snapshot_bytes += verdict.size;
            let Some(cure) = verdict.cure else { continue };
            let path = self.store.inner.snapshots.join(&layer.snapshot);
            let row = || Cure::DropLayerRow(layer.snapshot.clone());
            if verdict.problems == [Problem::Missing] && self.is_let_go(&layer.snapshot, &path, row)
            {
                continue;
            }
            let healing = match cure {
                Cure::WriteLayer(..) => Healing::Mended,
                _ => self.healing_of_snapshot(&layer.snapshot, &layer.diff_id),
            };
            self.add(Damage {
                kind: DamageKind::Snapshot,
                id: layer.snapshot.clone(),
                path,
                problems: verdict.problems,
                needed_by: self.users_of_snapshot(&layer.snapshot),
                healing,
                is_repaired: false,
                cure,
            });
        }
        Ok(())
    }

    fn judge(&self, row: &RawLayer) -> Result<Verdict, FsckError> {
        let Some(id) = SnapshotId::parse(&row.snapshot) else {
            return Ok(Verdict::bad(
                Problem::Row { what: "its name" },
                Cure::DropLayerRow(row.snapshot.clone()),
            ));
        };
        let path = self.store.snapshot_path(&id);
        let before = identity(&path);
        let table = (self.store.inner.db).read(|tables| tables.entries(id.as_str()))?;
        let examined = match before {
            None => None,
            Some(_) => match self.examiner.examine(&path) {
                Ok(examined) => Some(Ok(examined)),
                Err(ExamineError::Unreadable { reason }) => Some(Err(reason)),
                Err(ExamineError::Failed(source)) => {
                    return Err(FsckError::Examine { path, source });
                }
            },
        };
        let verdict = match &examined {
            None => Verdict::bad(Problem::Missing, Cure::DropSnapshot(id.clone())),
            Some(Err(reason)) => Verdict::bad(
                Problem::Unreadable {
                    reason: reason.clone(),
                },
                Cure::DropSnapshot(id.clone()),
            ),
            Some(Ok(examined)) => {
                let table = table.as_deref().and_then(decode_table);
                let mut verdict = self.compare(row, &id, table.as_ref(), examined);
                verdict.size = examined.tar_size;
                verdict
            }
        };
        let is_so = verdict.cure.is_none() || self.is_still(row, &id, before)?;
        Ok(if is_so {
            verdict
        } else {
            Verdict {
                problems: Vec::new(),
                cure: None,
                size: verdict.size,
            }
        })
    }

    /// True when the row is there, and the directory that was looked at is the one that it means.
    fn is_still(
        &self,
        row: &RawLayer,
        id: &SnapshotId,
        before: Option<(u64, u64)>,
    ) -> Result<bool, FsckError> {
        self.confirm(|| {
            let rows = (self.store.inner.db).read(|tables| tables.raw_layers())?;
            let has_row = rows.iter().any(|other| other.snapshot == row.snapshot);
            Ok(has_row && identity(&self.store.snapshot_path(id)) == before)
        })
    }

    fn compare(
        &self,
        row: &RawLayer,
        id: &SnapshotId,
        table: Option<&EntryTable>,
        examined: &Examined,
    ) -> Verdict {
        let good = Verdict {
            problems: Vec::new(),
            cure: None,
            size: 0,
        };
        let different =
            table.map(|table| differences(table, &examined.entries, self.examiner.limits()));
        let is_proven = *id == SnapshotId::of_layer(&examined.diff_id);
        if is_proven {
            let problem = match (&different, table) {
                (Some(different), Some(table)) if different.is_empty() => {
                    wrong_row(row, table, Some(examined))
                }
                _ => Some(Problem::EntryTable),
            };
            let rewritten = || {
                let table = encode_table(&examined.entries, &[]);
                let content = layer_content_digest(&examined.entries);
                let layer = layer(
                    row,
                    id,
                    examined.diff_id.clone(),
                    content,
                    examined.tar_size,
                );
                Cure::WriteLayer(Box::new(layer), table)
            };
            return problem.map_or(good, |problem| Verdict::bad(problem, rewritten()));
        }
        let (Some(table), Some(different)) = (table, different) else {
            return Verdict::bad(Problem::EntryTable, Cure::DropSnapshot(id.clone()));
        };
        if !different.is_empty() {
            return Verdict {
                problems: different,
                cure: Some(Cure::DropSnapshot(id.clone())),
                size: 0,
            };
        }
        if self.origin_of(&row.diff_id).is_none() {
            let actual = examined.diff_id.to_string();
            return Verdict::bad(Problem::DiffId { actual }, Cure::DropSnapshot(id.clone()));
        }
        let Some(problem) = wrong_row(row, table, None) else {
            return good;
        };
        // What the tar was can't be told any more; what is in it can.
        match row.diff_id.parse() {
            Ok(diff_id) => {
                let content = layer_content_digest(&table.entries);
                let size = u64::try_from(row.tar_size).unwrap_or(examined.tar_size);
                let layer = layer(row, id, DiffId(diff_id), content, size);
                let table = encode_table(&table.entries, &table.implied);
                Verdict::bad(problem, Cure::WriteLayer(Box::new(layer), table))
            }
            Err(_) => Verdict::bad(problem, Cure::DropSnapshot(id.clone())),
        }
    }
}

/// What of a row contradicts its entry table, or the snapshot that proves itself.
fn wrong_row(row: &RawLayer, table: &EntryTable, proof: Option<&Examined>) -> Option<Problem> {
    let what = if row.content != layer_content_digest(&table.entries).as_bytes() {
        "content digest"
    } else if proof.is_some_and(|proof| row.diff_id != proof.diff_id.to_string()) {
        "diff_id"
    } else if proof.is_some_and(|proof| u64::try_from(row.tar_size) != Ok(proof.tar_size)) {
        "size"
    } else {
        return None;
    };
    Some(Problem::Row { what })
}

/// A layer with the times of its row.
fn layer(
    row: &RawLayer,
    id: &SnapshotId,
    diff_id: DiffId,
    content: ContentDigest,
    tar_size: u64,
) -> Layer {
    Layer {
        diff_id,
        content,
        snapshot: id.clone(),
        tar_size,
        created: row.created,
        created_nanos: row.created_nanos,
    }
}
