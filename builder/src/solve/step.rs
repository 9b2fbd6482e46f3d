//! One step that the definition key did not find: result key, then the work itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rbuild_cache::{Chain, KeyPart, StepKey, StepLock, StepRecord};
use rbuild_frontend::graph::{Operation, StepIndex};

use super::decide;
use super::inputs::{self, Reading};
use super::{Solver, StepResult};
use crate::error::{BuildError, StepError};
use crate::event::{Event, StepOutcome};
use crate::explain::parts::{LINK_KEY, RAN_IN, RESULT_KEY};
use crate::keys::{InputKey, ParentKey, step_key};
use crate::steps;

/// First pause before a busy step's lock is asked for again.
const FIRST_LOCK_PAUSE: Duration = Duration::from_millis(5);

/// Longest such pause: how late a waiting build may notice that the other is done.
const LONGEST_LOCK_PAUSE: Duration = Duration::from_millis(100);

/// What the steps' rooms give back: a layer in the store, on top of what.
pub(crate) struct Made {
    pub(crate) layer: rbuild_cache::Layer,
    /// Inputs as they really were, when they changed while they were read.
    pub(crate) inputs: Option<Vec<InputKey>>,
}

/// Gives what a step reads; blocks.
type Readings = Box<dyn FnOnce() -> Vec<Reading> + Send>;

impl Solver {
    /// Takes the result that the parents' real content leads to, or does the work.
    pub(super) async fn take_or_run(
        self: &Arc<Self>,
        index: StepIndex,
        results: &BTreeMap<StepIndex, StepResult>,
    ) -> Result<StepResult, BuildError> {
        let step = &self.graph.steps[index.0];
        if let Operation::Image(reference) = &step.operation {
            return self.image(index, reference).await;
        }
        let parent = step
            .parent
            .map(|parent| results[&parent].chain.clone())
            .unwrap_or_default();
        let started = Instant::now();
        let resolved = self
            .resolve(index, results)
            .await
            .map_err(|error| BuildError::step(&self.graph, index, error))?;
        let mut parts = self.parts(index, &parent, &resolved);
        let stands_as_planned = results.values().all(|result| result.is_as_planned);
        parts.extend(decide::stands_on(&self.graph, index, |other| {
            &results[&other].chain
        }));
        let input_keys: Vec<InputKey> = resolved.iter().map(|(_, key)| key.clone()).collect();
        let keys = Keys::new(self, index, &parent, &input_keys, stands_as_planned);
        let Some(_lock) = self.lock_step(&keys.result).await? else {
            return Err(BuildError::Interrupted);
        };
        keys.note_in(&mut parts);
        let mut found = None;
        if !step.ignores_cache {
            found = self.find(&keys, &parent, &parts)?;
            if found.is_none() {
                found = self.find_in_caches(&keys, &parent, &parts).await?;
            }
        }
        if let Some(record) = found {
            self.note_for_caches(index, keys.of_step(), &record);
            self.note_records(std::iter::once((index, &record)));
            self.finished_from_cache(index);
            return Ok(StepResult {
                chain: record.chain,
                is_as_planned: stands_as_planned,
            });
        }
        self.workspace.emit(Event::Started(self.id(index)));
        let readings = {
            let (solver, parts) = (Arc::clone(self), parts.clone());
            let explain = move || {
                solver.explain(index, &parts, &resolved);
                resolved.into_iter().map(|(reading, _)| reading).collect()
            };
            self.readings(index, explain).await
        };
        let made = match readings {
            Ok(readings) => self.work(index, &parent, readings, results).await,
            Err(error) => Err(error),
        };
        let duration = started.elapsed();
        let made = match made {
            Ok(made) => made,
            Err(error) => {
                let is_cancelled = matches!(error, StepError::Cancelled);
                let outcome = if is_cancelled {
                    StepOutcome::Cancelled
                } else {
                    StepOutcome::Failed
                };
                self.workspace.emit(Event::Finished {
                    step: self.id(index),
                    outcome,
                    duration,
                });
                if is_cancelled {
                    return Err(BuildError::Interrupted);
                }
                return Err(BuildError::step(&self.graph, index, error));
            }
        };
        let keys = match &made.inputs {
            Some(changed) => {
                let keys = Keys::new(self, index, &parent, changed, false);
                keys.note_in(&mut parts);
                keys
            }
            None => keys,
        };
        let chain = parent.with(made.layer.clone());
        if let Some(recorder) = &self.workspace.recorder {
            let log = recorder.log_name(self.id(index));
            parts.push(KeyPart::new(RAN_IN, log));
        }
        let record = StepRecord {
            chain,
            parts,
            title: step.title.clone(),
            created: made.layer.created,
            cost_us: u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
        };
        self.record(&keys, &record, &made)?;
        if let Some(recorder) = &self.workspace.recorder {
            recorder.note_result(self.id(index), &record);
        }
        self.note_for_caches(index, keys.of_step(), &record);
        super::lock(&self.counts).done += 1;
        self.workspace.emit(Event::Finished {
            step: self.id(index),
            outcome: StepOutcome::Done,
            duration,
        });
        Ok(StepResult {
            chain: record.chain,
            is_as_planned: keys.definition.is_some(),
        })
    }

    async fn image(
        &self,
        index: StepIndex,
        reference: &rbuild_frontend::graph::ImageReference,
    ) -> Result<StepResult, BuildError> {
        let started = Instant::now();
        self.workspace.emit(Event::Started(self.id(index)));
        let platform = &self.graph.steps[index.0].platform;
        let chain = self.workspace.image_chain(reference, platform).await;
        let outcome = match &chain {
            Ok(_) => StepOutcome::Done,
            Err(StepError::Cancelled) => StepOutcome::Cancelled,
            Err(_) => StepOutcome::Failed,
        };
        self.workspace.emit(Event::Finished {
            step: self.id(index),
            outcome,
            duration: started.elapsed(),
        });
        let chain = chain.map_err(|error| match error {
            StepError::Cancelled => BuildError::Interrupted,
            error => BuildError::step(&self.graph, index, error),
        })?;
        self.workspace.hold(&chain)?;
        Ok(StepResult {
            chain,
            is_as_planned: true,
        })
    }

    /// Waits while another process does this very step, to take its result afterwards. None when the build ends first.
    ///
    /// Asks again and again instead of blocking: a build that was interrupted must not wait for a stranger's step.
    async fn lock_step(&self, key: &StepKey) -> Result<Option<StepLock>, BuildError> {
        let mut pause = FIRST_LOCK_PAUSE;
        loop {
            if let Some(lock) = self
                .workspace
                .store
                .try_step_lock(key)
                .map_err(BuildError::store)?
            {
                return Ok(Some(lock));
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_LOCK_PAUSE),
                () = self.workspace.cancel.cancelled() => return Ok(None),
            }
        }
    }

    /// A record under the result key; for `COPY --link` also the layer alone, whatever is below. `parts` are those of
    /// the key now; the log is that of the run that made the record.
    fn find(
        &self,
        keys: &Keys,
        parent: &Chain,
        parts: &[KeyPart],
    ) -> Result<Option<StepRecord>, BuildError> {
        let workspace = &self.workspace;
        let with_parts = |found: StepRecord, chain: Chain| {
            let run = found.parts.into_iter().filter(|part| part.name == RAN_IN);
            StepRecord {
                chain,
                parts: parts.iter().cloned().chain(run).collect(),
                ..found
            }
        };
        let found = workspace.lease.lookup(&keys.result);
        if let Some(record) = found.map_err(BuildError::store)? {
            let chain = record.chain.clone();
            let record = with_parts(record, chain);
            // The next build finds it at once, whatever way this one took.
            if let Some(definition) = &keys.definition {
                let keys = std::slice::from_ref(definition);
                workspace
                    .store
                    .record(keys, &record)
                    .map_err(BuildError::store)?;
            }
            return Ok(Some(record));
        }
        let Some(independent) = &keys.independent else {
            return Ok(None);
        };
        let found = workspace.lease.lookup(independent);
        let Some(record) = found.map_err(BuildError::store)? else {
            return Ok(None);
        };
        let mut chain = parent.clone();
        chain.extend(record.chain.iter().cloned());
        let record = with_parts(record, chain);
        workspace
            .store
            .record(&keys.of_step(), &record)
            .map_err(BuildError::store)?;
        Ok(Some(record))
    }

    /// What the step reads, found in what it stands on. A step that reads nothing wakes no other thread for it.
    async fn resolve(
        self: &Arc<Self>,
        index: StepIndex,
        results: &BTreeMap<StepIndex, StepResult>,
    ) -> Result<Vec<(Reading, InputKey)>, StepError> {
        let prepared = &self.prepared[index.0];
        let (graph, workspace) = (&self.graph, &self.workspace);
        if prepared.reads_nothing() {
            return inputs::resolve(graph, workspace, index, prepared, results);
        }
        let (solver, results) = (Arc::clone(self), results.clone());
        let resolve = move || {
            let prepared = &solver.prepared[index.0];
            inputs::resolve(&solver.graph, &solver.workspace, index, prepared, &results)
        };
        workspace.blocking(resolve).await
    }

    /// What the step reads, once `explain` has told why it runs: before anything is fetched, or with the work itself.
    async fn readings(
        self: &Arc<Self>,
        index: StepIndex,
        explain: impl FnOnce() -> Vec<Reading> + Send + 'static,
    ) -> Result<Readings, StepError> {
        if !self.prepared[index.0].is_fetched() {
            return Ok(Box::new(explain));
        }
        let readings = self.workspace.blocking(explain).await;
        let fetch = inputs::fetch(&self.graph, &self.workspace, index, readings);
        match self.workspace.cancel.run_until_cancelled(fetch).await {
            Some(readings) => {
                let readings = readings?;
                Ok(Box::new(move || readings))
            }
            None => Err(StepError::Cancelled),
        }
    }

    /// Does the work, on one thread from its beginning to its end.
    async fn work(
        self: &Arc<Self>,
        index: StepIndex,
        parent: &Chain,
        readings: Readings,
        results: &BTreeMap<StepIndex, StepResult>,
    ) -> Result<Made, StepError> {
        let mut job = steps::StepJob {
            solver: Arc::clone(self),
            index,
            parent: parent.clone(),
            readings: Vec::new(),
            chains: results
                .iter()
                .map(|(index, result)| (*index, result.chain.clone()))
                .collect(),
        };
        let cancel = steps::CancelHandle::default();
        let made = {
            let cancel = cancel.clone();
            self.workspace.blocking(move || {
                job.readings = readings();
                let workspace = &job.solver.workspace;
                workspace.check_chain(&job.parent)?;
                for chain in job.chains.values() {
                    workspace.check_chain(chain)?;
                }
                job.carry_out(&cancel)
            })
        };
        tokio::pin!(made);
        tokio::select! {
            made = &mut made => made,
            () = self.workspace.cancel.cancelled() => {
                cancel.cancel();
                made.await
            }
        }
    }

    fn record(&self, keys: &Keys, record: &StepRecord, made: &Made) -> Result<(), BuildError> {
        let store = &self.workspace.store;
        store
            .record(&keys.of_step(), record)
            .map_err(BuildError::store)?;
        if let Some(independent) = &keys.independent {
            let alone = StepRecord {
                chain: Chain::empty().with(made.layer.clone()),
                ..record.clone()
            };
            store
                .record(std::slice::from_ref(independent), &alone)
                .map_err(BuildError::store)?;
        }
        Ok(())
    }
}

/// The keys that a step's record is written under.
pub(super) struct Keys {
    /// None when what was read, here or below, differs from what the definition key was made of.
    definition: Option<StepKey>,
    pub(super) result: StepKey,
    /// For `COPY --link`.
    pub(super) independent: Option<StepKey>,
}

impl Keys {
    fn new(
        solver: &Solver,
        index: StepIndex,
        parent: &Chain,
        inputs: &[InputKey],
        is_as_planned: bool,
    ) -> Self {
        let step = &solver.graph.steps[index.0];
        let settings = solver.workspace.settings();
        let is_linked = matches!(&step.operation, Operation::Copy(copy) if copy.is_linked);
        Self {
            definition: is_as_planned.then(|| solver.definition_keys[index.0]),
            result: step_key(
                step,
                &ParentKey::Content(parent.content_chain()),
                inputs,
                settings,
            ),
            independent: is_linked
                .then(|| step_key(step, &ParentKey::Independent, inputs, settings)),
        }
    }

    /// Puts the keys that are not of the graph alone among the parts, for who has only the record.
    fn note_in(&self, parts: &mut Vec<KeyPart>) {
        parts.retain(|part| part.name != RESULT_KEY && part.name != LINK_KEY);
        parts.push(KeyPart::new(RESULT_KEY, self.result.to_string()));
        if let Some(independent) = &self.independent {
            parts.push(KeyPart::new(LINK_KEY, independent.to_string()));
        }
    }

    pub(super) fn of_step(&self) -> Vec<StepKey> {
        self.definition
            .iter()
            .copied()
            .chain([self.result])
            .collect()
    }
}
