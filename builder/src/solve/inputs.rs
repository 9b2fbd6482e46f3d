//! What steps read besides their parent: found before anything runs, named in both keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use rbuild_cache::StepKey;
use rbuild_frontend::graph::{Copy, CopySource, Graph, Input, MountKind, Operation, StepIndex};

use super::StepResult;
use crate::build::Workspace;
use crate::download::Download;
use crate::error::{BuildError, StepError};
use crate::keys::{InputKey, ParentKey, step_key};
use crate::select::{self, Request, Selected};
use crate::tree::SourceTree;
use crate::tree::layered::LayeredTree;

/// One thing that a step reads: a source of a `COPY`, or the source of a mount.
#[derive(Clone, Debug)]
pub(crate) enum Reading {
    /// Nothing from elsewhere: inline content, tmpfs, secret.
    Nothing,
    /// Files of a context, selected already.
    Context(Vec<Selected>),
    /// Files of a step's root; selected when that step has its result.
    Step(StepIndex),
    /// A downloaded file.
    Download(Download),
}

/// What a step reads, in the order of its sources or mounts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prepared {
    pub(crate) readings: Vec<Reading>,
}

/// Steps that `index` needs a result of: its parent first, each once.
pub(crate) fn dependencies(graph: &Graph, index: StepIndex) -> Vec<StepIndex> {
    let step = &graph.steps[index.0];
    let mut all: Vec<StepIndex> = step.parent.into_iter().collect();
    for (input, _) in sources(&step.operation) {
        if let Input::Step(other) = input
            && !all.contains(other)
        {
            all.push(*other);
        }
    }
    all
}

/// Every place that a step reads from, with the request that selects files there.
pub(crate) fn sources(operation: &Operation) -> Vec<(&Input, Option<Request<'_>>)> {
    const NOTHING: &Input = &Input::Empty;
    match operation {
        Operation::Copy(copy) => copy
            .sources
            .iter()
            .map(|source| copy_source(copy, source))
            .collect(),
        Operation::Run(run) => run
            .mounts
            .iter()
            .map(|mount| match &mount.kind {
                MountKind::Bind { from, source, .. } | MountKind::Cache { from, source, .. } => (
                    from,
                    Some(Request {
                        source,
                        keeps_parents: false,
                        exclude: &[],
                    }),
                ),
                _ => (NOTHING, None),
            })
            .collect(),
        Operation::Image(_) | Operation::Workdir { .. } => Vec::new(),
    }
}

fn copy_source<'copy>(
    copy: &'copy Copy,
    source: &'copy CopySource,
) -> (&'copy Input, Option<Request<'copy>>) {
    match source {
        CopySource::Path(path) => {
            let request = Request {
                source: path,
                keeps_parents: copy.keeps_parents,
                exclude: &copy.exclude,
            };
            (&copy.from, Some(request))
        }
        _ => (&Input::Empty, None),
    }
}

/// Selects from contexts and asks URLs, for all steps.
pub(super) async fn prepare(
    graph: &Arc<Graph>,
    workspace: &Arc<Workspace>,
) -> Result<Vec<Prepared>, BuildError> {
    let mut prepared = {
        let (graph, workspace) = (Arc::clone(graph), Arc::clone(workspace));
        let inner = Arc::clone(&workspace);
        inner
            .blocking(move || select_all(&graph, &workspace))
            .await?
    };
    for (index, step) in graph.steps.iter().enumerate() {
        let Operation::Copy(copy) = &step.operation else {
            continue;
        };
        for (position, source) in copy.sources.iter().enumerate() {
            let failed = |error| BuildError::step(graph, StepIndex(index), error);
            match source {
                CopySource::Url { url, checksum } => {
                    let download = crate::download::fetch(workspace, url, checksum.as_deref())
                        .await
                        .map_err(|error| failed(StepError::Download(error)))?;
                    prepared[index].readings[position] = Reading::Download(download);
                }
                CopySource::Git { reference, .. } => {
                    return Err(failed(StepError::GitSource {
                        reference: reference.clone(),
                    }));
                }
                CopySource::Path(_) | CopySource::Inline(_) => {}
            }
        }
    }
    Ok(prepared)
}

fn select_all(graph: &Graph, workspace: &Workspace) -> Result<Vec<Prepared>, BuildError> {
    let mut prepared = Vec::with_capacity(graph.steps.len());
    for (index, step) in graph.steps.iter().enumerate() {
        let failed = |error| BuildError::step(graph, StepIndex(index), error);
        let mut readings = Vec::new();
        for (input, request) in sources(&step.operation) {
            let reading = match (input, request) {
                (Input::Empty, _) | (_, None) => Reading::Nothing,
                (Input::Step(other), Some(_)) => Reading::Step(*other),
                (Input::Context, Some(request)) => {
                    let tree = workspace
                        .contexts
                        .main()
                        .map_err(|error| failed(StepError::Context(error)))?;
                    let found = select::select(&*tree, &request);
                    Reading::Context(
                        found.map_err(|error| failed(workspace.contexts.explain(error)))?,
                    )
                }
                (Input::NamedContext(name), Some(request)) => {
                    let tree = workspace
                        .contexts
                        .named(name)
                        .map_err(|error| failed(StepError::Context(error)))?;
                    Reading::Context(
                        select::select(&*tree, &request).map_err(|error| failed(error.into()))?,
                    )
                }
            };
            readings.push(reading);
        }
        prepared.push(Prepared { readings });
    }
    Ok(prepared)
}

/// Definition keys of all steps. All images have been looked up.
pub(super) fn definition_keys(
    graph: &Graph,
    workspace: &Workspace,
    prepared: &[Prepared],
) -> Result<Vec<StepKey>, BuildError> {
    let mut keys: Vec<StepKey> = Vec::with_capacity(graph.steps.len());
    for (index, step) in graph.steps.iter().enumerate() {
        let failed = |error| BuildError::step(graph, StepIndex(index), error);
        let base = |other| workspace.base_id(graph, other).map_err(failed);
        let parent = match step.parent {
            None => ParentKey::Empty,
            Some(parent) => {
                base(parent)?.map_or(ParentKey::Definition(keys[parent.0]), ParentKey::Base)
            }
        };
        let mut inputs: Vec<InputKey> = Vec::new();
        for reading in &prepared[index].readings {
            inputs.push(match reading {
                Reading::Step(other) => {
                    base(*other)?.map_or(InputKey::Definition(keys[other.0]), InputKey::Base)
                }
                other => independent_input(other),
            });
        }
        keys.push(step_key(step, &parent, &inputs, &workspace.settings));
    }
    Ok(keys)
}

fn independent_input(reading: &Reading) -> InputKey {
    match reading {
        Reading::Context(found) => InputKey::Content(select::digest(found)),
        Reading::Download(download) => download.input_key(),
        Reading::Nothing | Reading::Step(_) => InputKey::Nothing,
    }
}

/// Replaces what is read from steps by what those steps really hold.
pub(super) fn resolve(
    graph: &Graph,
    workspace: &Workspace,
    index: StepIndex,
    prepared: &Prepared,
    results: &BTreeMap<StepIndex, StepResult>,
) -> Result<Vec<(Reading, InputKey)>, StepError> {
    let operation = &graph.steps[index.0].operation;
    let mut resolved = Vec::new();
    for ((_, request), reading) in sources(operation).into_iter().zip(&prepared.readings) {
        let Reading::Step(other) = reading else {
            resolved.push((reading.clone(), independent_input(reading)));
            continue;
        };
        let Some(request) = request else { continue };
        let chain = &results[other].chain;
        let found = if chain.0.is_empty() {
            let tree = LayeredTree::load(&workspace.store, chain, stage_title(graph, *other))?;
            select::select(&tree, &request)?
        } else {
            let tree = workspace.layered_tree(chain, || stage_title(graph, *other))?;
            select::select(&*tree as &dyn SourceTree, &request)?
        };
        let key = InputKey::Content(select::digest(&found));
        resolved.push((Reading::Context(found), key));
    }
    Ok(resolved)
}

fn stage_title(graph: &Graph, index: StepIndex) -> String {
    let step = &graph.steps[index.0];
    match (&step.operation, &step.stage_name) {
        (Operation::Image(_), _) => format!("image `{}`", step.title.trim_start_matches("FROM ")),
        (_, Some(name)) => format!("stage `{name}`"),
        (_, None) => format!("stage {}", step.stage.0),
    }
}
