//! Steps whose results come from caches outside the store.

use std::collections::BTreeSet;
use std::sync::Arc;

use rbuild_cache::{KeyPart, StepKey, StepRecord};
use rbuild_frontend::graph::{Operation, StepIndex};

use super::decide::{self, Decision, Fate};
use super::step::Keys;
use super::{Solver, lock};
use crate::error::BuildError;
use crate::explain::parts;
use crate::remote::Found;

impl Solver {
    /// Decides, with what caches have beside what the store has. Layers are fetched for records that are needed; a
    /// record whose layers can't be had counts as none, and it is decided anew.
    pub(super) async fn decide(self: &Arc<Self>, target: StepIndex) -> Decision {
        loop {
            let decision = {
                let solver = Arc::clone(self);
                let decide = move || {
                    // What was known the first time still is.
                    let is_first = lock(&solver.known).is_empty();
                    let mut stored = is_first.then(|| solver.stored_records());
                    decide::decide(&solver.graph, target, |index| {
                        let stored = stored.as_mut().and_then(|stored| stored[index.0].take());
                        solver.known_record(index, stored)
                    })
                };
                self.workspace.blocking(decide).await
            };
            let is_hit = |(_, fate): &(StepIndex, Fate)| matches!(fate, Fate::Hit(_));
            let hits: Vec<StepIndex> = (decision.needed().filter(is_hit))
                .map(|(index, _)| index)
                .collect();
            let mut is_changed = false;
            for index in hits {
                let found = lock(&self.remote).remove(&index);
                let Some(found) = found else { continue };
                is_changed = true;
                let mut record = self.fetch(&found).await;
                if let Some(fetched) = &record {
                    let keys = self.keys_of_record(index, fetched);
                    if let Err(error) = self.workspace.store.record(&keys, fetched) {
                        tracing::warn!(%error, "cannot record a step from a cache");
                        record = None;
                    }
                }
                lock(&self.known).insert(index, record);
            }
            if !is_changed {
                return decision;
            }
        }
    }

    /// The record of a step's definition key, from the store or a cache; looked up once. Blocks.
    fn known_record(&self, index: StepIndex, stored: Option<StepRecord>) -> Option<StepRecord> {
        if let Some(known) = lock(&self.known).get(&index) {
            return known.clone();
        }
        let mut record = stored;
        // Decided once: what the store says need not be kept.
        if !self.workspace.caches.has_sources() {
            return record;
        }
        if record.is_none() && !self.graph.steps[index.0].ignores_cache {
            let key = &self.definition_keys[index.0];
            if let Some((found, place)) = self.workspace.caches.lookup(key) {
                lock(&self.remote).insert(index, place);
                record = Some(found);
            }
        }
        lock(&self.known).insert(index, record.clone());
        record
    }

    /// A record under the result key in a cache, taken into the store.
    pub(super) async fn find_in_caches(
        self: &Arc<Self>,
        keys: &Keys,
        parts: &[KeyPart],
    ) -> Result<Option<StepRecord>, BuildError> {
        let (solver, result) = (Arc::clone(self), keys.result);
        let lookup = move || solver.workspace.caches.lookup(&result);
        let Some((_, found)) = self.workspace.blocking(lookup).await else {
            return Ok(None);
        };
        let Some(record) = self.fetch(&found).await else {
            return Ok(None);
        };
        let record = StepRecord {
            parts: parts.to_vec(),
            ..record
        };
        self.workspace
            .store
            .record(&keys.of_step(), &record)
            .map_err(BuildError::store)?;
        Ok(Some(record))
    }

    async fn fetch(&self, found: &Found) -> Option<StepRecord> {
        let workspace = &self.workspace;
        let fetched = workspace
            .caches
            .fetch(found, &workspace.images, &workspace.lease);
        workspace.cancel.run_until_cancelled(fetched).await?
    }

    /// Notes a result for `--cache-to`.
    pub(super) fn note_for_caches(
        &self,
        index: StepIndex,
        keys: Vec<StepKey>,
        record: &StepRecord,
    ) {
        let caches = &self.workspace.caches;
        let is_image = matches!(self.graph.steps[index.0].operation, Operation::Image(_));
        if caches.publishes() && !is_image {
            caches.note(keys, record, self.in_image().contains(&index));
        }
    }

    /// The keys of a record that was found by its definition key.
    pub(super) fn keys_of_record(&self, index: StepIndex, record: &StepRecord) -> Vec<StepKey> {
        let part = record
            .parts
            .iter()
            .find(|part| part.name == parts::RESULT_KEY);
        let result = part.and_then(|part| StepKey::from_hex(&part.value));
        std::iter::once(self.definition_keys[index.0])
            .chain(result)
            .collect()
    }

    /// Steps whose layers are the image's.
    fn in_image(&self) -> BTreeSet<StepIndex> {
        let parent = |index: &StepIndex| self.graph.steps[index.0].parent;
        std::iter::successors(self.graph.target, parent).collect()
    }
}
