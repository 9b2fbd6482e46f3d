//! Carries out a graph: takes what the cache knows, runs the rest, independent steps at the same time.
//!
//! First every step gets its definition key, which needs nothing to have run. [`decide`] then says which steps are
//! needed at all. Each needed step becomes a future that waits for its parent and its inputs; a step whose
//! definition key missed computes its result key from what they really left, and runs only if that misses too.
//!
//! Ends early on the first error: the others are cancelled and waited for, so that nothing outlives the build.

mod caches;
pub(crate) mod decide;
mod entitlements;
mod explain;
mod inputs;
mod step;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use rbuild_cache::{Chain, Lookup, SnapshotId, StepKey, StepRecord};
use rbuild_frontend::graph::{Graph, Network, Operation, Step, StepIndex};
use tokio::sync::Semaphore;

use crate::build::Workspace;
use crate::error::BuildError;
use crate::event::{Event, StepId, StepOutcome};
use crate::remote::Found;
use decide::{Decision, Fate};
pub(crate) use inputs::{Prepared, Reading, ask, dependencies, sources};
pub(crate) use step::Made;

/// What a step left.
#[derive(Clone, Debug)]
pub(crate) struct StepResult {
    /// All layers, lowest first.
    pub(crate) chain: Chain,
    /// False when something that it was made of changed while it was read: then nothing above it may be recorded
    /// under a definition key, which was made of what was there before.
    pub(crate) is_as_planned: bool,
}

/// A step did not get its result; why is kept by the solver, which tells of the first failure only.
#[derive(Clone, Copy, Debug)]
struct Stopped;

type StepFuture = Shared<BoxFuture<'static, Result<StepResult, Stopped>>>;

/// How many steps of a build were taken from the cache, and how many were done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepCounts {
    /// Taken from the cache.
    pub cached: usize,
    /// Done in this build.
    pub done: usize,
}

/// One graph in one build.
#[derive(Debug)]
pub(crate) struct Solver {
    pub(crate) graph: Arc<Graph>,
    pub(crate) workspace: Arc<Workspace>,
    /// Position of the graph's first step among the build's [`StepId`]s.
    first_id: usize,
    prepared: Vec<Prepared>,
    definition_keys: Vec<StepKey>,
    permits: Semaphore,
    /// Held for single additions only.
    counts: Mutex<StepCounts>,
    /// What was missing of records that were forgotten. Held for single insertions only.
    lost: Mutex<BTreeMap<StepIndex, SnapshotId>>,
    /// What was found under definition keys. Held for single changes only, and so is `remote`.
    known: Mutex<BTreeMap<StepIndex, Option<StepRecord>>>,
    /// Which of those are a cache's, their layers not fetched.
    remote: Mutex<BTreeMap<StepIndex, Found>>,
    /// The first failure.
    failure: Mutex<Option<BuildError>>,
}

impl Solver {
    /// Brings the graph's target about.
    pub(crate) async fn solve(
        graph: &Arc<Graph>,
        workspace: &Arc<Workspace>,
        first_id: usize,
    ) -> Result<(Chain, StepCounts), BuildError> {
        let Some(target) = graph.target else {
            return Ok((Chain::default(), StepCounts::default()));
        };
        entitlements::check(graph, &workspace.options, target)?;
        let solver = Self::prepared(graph, workspace, first_id).await?;
        let decision = solver.decide(target).await;
        solver.prepare_network(&decision);
        solver.tell_of_cached(&decision);
        let result = solver.spawn(&decision, target).await;
        // Nothing outlives the build: after a failure the others see the token and end.
        workspace.tasks.close();
        workspace.tasks.wait().await;
        workspace.tasks.reopen();
        if let Some(failure) = lock(&solver.failure).take() {
            return Err(failure);
        }
        let counts = *lock(&solver.counts);
        result
            .map(|result| (result.chain, counts))
            .map_err(|Stopped| BuildError::Interrupted)
    }

    /// Which steps a build would not have to do: those with a record, and all that only those need. Does nothing.
    pub(crate) async fn forecast(
        graph: &Arc<Graph>,
        workspace: &Arc<Workspace>,
    ) -> Result<Vec<bool>, BuildError> {
        let Some(target) = graph.target else {
            return Ok(Vec::new());
        };
        let solver = Self::prepared(graph, workspace, 0).await?;
        let decision = solver.decide(target).await;
        let indices = (0..graph.steps.len()).map(StepIndex);
        Ok(indices.map(|index| decision.is_cached(index)).collect())
    }

    /// Knows the keys of all steps; images are looked up and inputs are read for that.
    async fn prepared(
        graph: &Arc<Graph>,
        workspace: &Arc<Workspace>,
        first_id: usize,
    ) -> Result<Arc<Self>, BuildError> {
        let prepared = workspace
            .unless_cancelled(async {
                workspace.resolve_images(graph).await?;
                inputs::prepare(graph, workspace).await
            })
            .await?;
        Ok(Arc::new(Self {
            definition_keys: inputs::definition_keys(graph, workspace, &prepared)?,
            graph: Arc::clone(graph),
            workspace: Arc::clone(workspace),
            first_id,
            prepared,
            permits: Semaphore::new(workspace.max_parallelism()),
            counts: Mutex::default(),
            lost: Mutex::default(),
            known: Mutex::default(),
            remote: Mutex::default(),
            failure: Mutex::default(),
        }))
    }

    /// The store's records of all steps' definition keys. What can't be read is a miss: the step runs again, which is
    /// always right. Blocks.
    fn stored_records(&self) -> Vec<Option<StepRecord>> {
        let found = match self.workspace.lease.look_up_all(&self.definition_keys) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "cannot look up step records");
                Vec::new()
            }
        };
        let mut records: Vec<Option<StepRecord>> = vec![None; self.definition_keys.len()];
        for (index, found) in found.into_iter().enumerate() {
            if let Lookup::Lost(snapshot) = &found {
                lock(&self.lost).insert(StepIndex(index), snapshot.clone());
            }
            records[index] = found.found();
        }
        records
    }

    fn tell_of_cached(&self, decision: &Decision) {
        let is_cached = |(index, step): &(usize, &Step)| {
            let is_image = matches!(step.operation, Operation::Image(_));
            !is_image && decision.is_cached(StepIndex(*index))
        };
        let steps = self.graph.steps.iter().enumerate().filter(is_cached);
        let cached: Vec<StepIndex> = steps.map(|(index, _)| StepIndex(index)).collect();
        let records = cached
            .iter()
            .filter_map(|&index| Some((index, decision.record_of(index)?)));
        self.note_records(records.clone());
        for (index, record) in records {
            self.note_for_caches(index, self.keys_of_record(index, record), record);
        }
        for index in cached {
            self.finished_from_cache(index);
        }
    }

    /// Has a private network made ahead, so that the first RUN that needs one does not wait for it.
    fn prepare_network(&self, decision: &Decision) {
        let needs_one = decision.needed().any(|(index, fate)| {
            let operation = &self.graph.steps[index.0].operation;
            let is_private =
                matches!(operation, Operation::Run(run) if run.network == Network::Default);
            is_private && matches!(fate, Fate::Miss)
        });
        if needs_one {
            let workspace = Arc::clone(&self.workspace);
            // What is wrong with the lease is told by the step that needs it.
            let prepare = move || drop(workspace.private_network());
            self.workspace.tasks.spawn_blocking(prepare);
        }
    }

    /// Starts a task for every needed step; each waits for what it stands on. Gives the target's future.
    fn spawn(self: &Arc<Self>, decision: &Decision, target: StepIndex) -> StepFuture {
        let mut futures: BTreeMap<StepIndex, StepFuture> = BTreeMap::new();
        for (index, fate) in decision.needed() {
            let waits_for: Vec<(StepIndex, StepFuture)> = match fate {
                Fate::Hit(record) => {
                    // Nothing to wait for: no reason to wake a thread.
                    let found = futures_util::future::ready(Ok(StepResult {
                        chain: record.chain,
                        is_as_planned: true,
                    }));
                    futures.insert(index, found.boxed().shared());
                    continue;
                }
                Fate::Image => Vec::new(),
                Fate::Miss => dependencies(&self.graph, index)
                    .into_iter()
                    .map(|dependency| (dependency, futures[&dependency].clone()))
                    .collect(),
            };
            let solver = Arc::clone(self);
            let task = self.workspace.tasks.spawn(solver.one(index, waits_for));
            let joined = task.map(|joined| match joined {
                Ok(result) => result,
                Err(failure) => std::panic::resume_unwind(failure.into_panic()),
            });
            futures.insert(index, joined.boxed().shared());
        }
        futures[&target].clone()
    }

    /// One step, from waiting to its result. A failure is kept, and ends the others.
    async fn one(
        self: Arc<Self>,
        index: StepIndex,
        waits_for: Vec<(StepIndex, StepFuture)>,
    ) -> Result<StepResult, Stopped> {
        let (indices, futures): (Vec<StepIndex>, Vec<StepFuture>) = waits_for.into_iter().unzip();
        let results = futures_util::future::try_join_all(futures).await?;
        let results: BTreeMap<StepIndex, StepResult> = indices.into_iter().zip(results).collect();
        let permit = self.permits.acquire().await;
        if self.workspace.cancel.is_cancelled() {
            return Err(Stopped);
        }
        let result = self.take_or_run(index, &results).await;
        drop(permit);
        result.map_err(|error| {
            let mut failure = lock(&self.failure);
            if !matches!(error, BuildError::Interrupted) {
                failure.get_or_insert(error);
            }
            self.workspace.cancel.cancel();
            Stopped
        })
    }

    /// The step's place in the build's list of steps.
    pub(crate) fn id(&self, index: StepIndex) -> StepId {
        StepId(self.first_id + index.0)
    }

    fn finished_from_cache(&self, index: StepIndex) {
        lock(&self.counts).cached += 1;
        let (step, duration) = (self.id(index), Duration::ZERO);
        self.workspace.emit(Event::Finished {
            step,
            outcome: StepOutcome::Cached,
            duration,
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What these guard is never left half-changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
