//! Steps whose results come from caches outside the store.

use std::collections::BTreeSet;
use std::sync::Arc;

use rbuild_cache::{Chain, KeyPart, StepKey, StepRecord};
use rbuild_frontend::graph::{Operation, StepIndex};

use super::decide::{self, Decision, Fate};
use super::step::Keys;
use super::{Solver, lock};
use crate::error::BuildError;
use crate::explain::parts::{LINK_KEY, RESULT_KEY};
use crate::remote::Found;

impl Solver {
    /// Decides, with what caches have beside what the store has. Layers are fetched for records that something is done
    /// with: a step that runs, or an output. A record whose layers can't be had counts as none, and it is decided anew.
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
            // A hit is needed by a step that is none; or it is the target.
            let wants_target = self.workspace.options.wants_image();
            let is_hit = |(index, fate): &(StepIndex, Fate)| {
                matches!(fate, Fate::Hit(_)) && (*index != target || wants_target)
            };
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

    /// A record under the result key in a cache, taken into the store; for `COPY --link` also the layer alone, as
    /// [`find`](Self::find) takes it from the store.
    pub(super) async fn find_in_caches(
        self: &Arc<Self>,
        keys: &Keys,
        parent: &Chain,
        parts: &[KeyPart],
    ) -> Result<Option<StepRecord>, BuildError> {
        let mut record = self.fetch_record(keys.result).await;
        if let (None, Some(independent)) = (&record, keys.independent)
            && let Some(alone) = self.fetch_record(independent).await
        {
            self.keep(&[independent], &alone)?;
            let mut chain = parent.clone();
            chain.extend(alone.chain.iter().cloned());
            record = Some(StepRecord { chain, ..alone });
        }
        let Some(record) = record else {
            return Ok(None);
        };
        let record = StepRecord {
            parts: parts.to_vec(),
            ..record
        };
        self.keep(&keys.of_step(), &record)?;
        Ok(Some(record))
    }

    fn keep(&self, keys: &[StepKey], record: &StepRecord) -> Result<(), BuildError> {
        let store = &self.workspace.store;
        store.record(keys, record).map_err(BuildError::store)
    }

    /// The record of a key in a cache, its layers fetched.
    async fn fetch_record(self: &Arc<Self>, key: StepKey) -> Option<StepRecord> {
        let solver = Arc::clone(self);
        let lookup = move || solver.workspace.caches.lookup(&key);
        let (_, found) = self.workspace.blocking(lookup).await?;
        self.fetch(&found).await
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
        if !caches.publishes() || is_image {
            return;
        }
        let is_in_image = self.in_image().contains(&index);
        caches.note(keys, record, is_in_image);
        if let (Some(key), Some(layer)) = (key_in(record, LINK_KEY), record.chain.top()) {
            let alone = StepRecord {
                chain: Chain::empty().with(layer.clone()),
                ..record.clone()
            };
            caches.note(vec![key], &alone, is_in_image);
        }
    }

    /// The keys of a record that was found by its definition key.
    pub(super) fn keys_of_record(&self, index: StepIndex, record: &StepRecord) -> Vec<StepKey> {
        std::iter::once(self.definition_keys[index.0])
            .chain(key_in(record, RESULT_KEY))
            .collect()
    }

    /// Steps whose layers are the image's.
    fn in_image(&self) -> BTreeSet<StepIndex> {
        let parent = |index: &StepIndex| self.graph.steps[index.0].parent;
        std::iter::successors(self.graph.target, parent).collect()
    }
}

/// A key that is among the parts of a record.
fn key_in(record: &StepRecord, name: &str) -> Option<StepKey> {
    let part = record.parts.iter().find(|part| part.name == name)?;
    StepKey::from_hex(&part.value)
}
