//! What steps read besides their parent: found before anything runs, named in both keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};
use rbuild_cache::{Chain, StepKey};
use rbuild_frontend::git_reference::GitReference;
use rbuild_frontend::graph::{Copy, CopySource, Graph, Input, MountKind, Operation, StepIndex};

use super::StepResult;
use crate::build::Workspace;
use crate::context;
use crate::error::{BuildError, StepError};
use crate::fetch::Source;
use crate::git::GitSource;
use crate::keys::{InputKey, ParentKey, step_key};
use crate::select::{self, Request, Selected};
use crate::tree::SourceTree;
use crate::tree::layered::LayeredTree;

/// How many servers are asked at once.
const MAX_FETCHES: usize = 8;

/// One thing that a step reads: a source of a `COPY`, or the source of a mount.
#[derive(Clone, Debug)]
pub(crate) enum Reading {
    /// Nothing from elsewhere: inline content, tmpfs, secret.
    Nothing,
    /// Files of a context, selected already.
    Context(Vec<Selected>),
    /// Files of a step's root; selected when that step has its result.
    Step(StepIndex),
    /// A URL or repository, fetched if the step runs.
    Source(Source),
    /// The same, fetched.
    Fetched {
        /// Where its files lie.
        chain: Chain,
        /// What of it is copied.
        found: Vec<Selected>,
        /// What the step's key was made of.
        key: InputKey,
    },
}

/// What a step reads, in the order of its sources or mounts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prepared {
    pub(crate) readings: Vec<Reading>,
}

impl Prepared {
    /// Neither files nor servers: no more is known of it than its definition says.
    pub(super) fn reads_nothing(&self) -> bool {
        let is_nothing = |reading| matches!(reading, &Reading::Nothing);
        self.readings.iter().all(is_nothing)
    }

    /// Something is fetched from a server before the work.
    pub(super) fn is_fetched(&self) -> bool {
        let is_source = |reading| matches!(reading, &Reading::Source(_));
        self.readings.iter().any(is_source)
    }
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
    fetch_contexts(graph, workspace).await?;
    let mut prepared = {
        let (graph, workspace) = (Arc::clone(graph), Arc::clone(workspace));
        let inner = Arc::clone(&workspace);
        inner
            .blocking(move || select_all(&graph, &workspace))
            .await?
    };
    ask_servers(graph, workspace, &mut prepared).await?;
    Ok(prepared)
}

/// Fetches what named contexts of all steps are, so that files can be selected from them.
async fn fetch_contexts(graph: &Graph, workspace: &Arc<Workspace>) -> Result<(), BuildError> {
    let mut names: BTreeMap<&str, StepIndex> = BTreeMap::new();
    for (index, step) in graph.steps.iter().enumerate() {
        for (input, _) in sources(&step.operation) {
            if let Input::NamedContext(name) = input {
                names.entry(name).or_insert(StepIndex(index));
            }
        }
    }
    let fetches = names.into_iter().map(|(name, index)| async move {
        context::fetch_named(workspace, name)
            .await
            .map_err(|error| BuildError::step(graph, index, StepError::Context(error)))
    });
    futures_util::stream::iter(fetches)
        .buffer_unordered(MAX_FETCHES)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(())
}

/// Asks servers what URLs and git references are by now, each once.
async fn ask_servers(
    graph: &Graph,
    workspace: &Arc<Workspace>,
    prepared: &mut [Prepared],
) -> Result<(), BuildError> {
    let mut wanted: Vec<(&CopySource, StepIndex)> = Vec::new();
    let mut places: Vec<(StepIndex, usize, usize)> = Vec::new();
    for (index, step) in graph.steps.iter().enumerate() {
        let Operation::Copy(copy) = &step.operation else {
            continue;
        };
        for (position, source) in copy.sources.iter().enumerate() {
            if !matches!(source, CopySource::Url { .. } | CopySource::Git { .. }) {
                continue;
            }
            let number = wanted
                .iter()
                .position(|(known, _)| *known == source)
                .unwrap_or_else(|| {
                    wanted.push((source, StepIndex(index)));
                    wanted.len() - 1
                });
            places.push((StepIndex(index), position, number));
        }
    }
    let answers = wanted.into_iter().map(|(source, index)| async move {
        ask(workspace, source)
            .await
            .map_err(|error| BuildError::step(graph, index, error))
    });
    let answers: Vec<Source> = futures_util::stream::iter(answers)
        .buffered(MAX_FETCHES)
        .try_collect()
        .await?;
    for (index, position, number) in places {
        prepared[index.0].readings[position] = Reading::Source(answers[number].clone());
    }
    Ok(())
}

/// What a URL or git reference is by now.
pub(crate) async fn ask(
    workspace: &Arc<Workspace>,
    source: &CopySource,
) -> Result<Source, StepError> {
    match source {
        CopySource::Url { url, checksum } => {
            let file = workspace.file_at(url, checksum.as_deref()).await?;
            Ok(Source::Url(file))
        }
        CopySource::Git {
            reference,
            checksum,
            keep_git_dir,
        } => {
            let parsed = GitReference::parse(reference)
                .ok()
                .flatten()
                .ok_or(StepError::Internal("a git source is no git reference"))?;
            let mut source = GitSource::new(&parsed)?;
            if let Some(checksum) = checksum {
                source = source.with_checksum(checksum)?;
            }
            if let Some(keeps) = keep_git_dir {
                source.keeps_git_dir = *keeps;
            }
            let resolved = workspace.commit_of(&source).await?;
            Ok(Source::Git(source, resolved))
        }
        CopySource::Path(_) | CopySource::Inline(_) => {
            Err(StepError::Internal("not a source to be fetched"))
        }
    }
}

/// Fetches what a step that runs reads from URLs and repositories.
pub(super) async fn fetch(
    graph: &Graph,
    workspace: &Arc<Workspace>,
    index: StepIndex,
    readings: Vec<Reading>,
) -> Result<Vec<Reading>, StepError> {
    let exclude = match &graph.steps[index.0].operation {
        Operation::Copy(copy) => copy.exclude.as_slice(),
        _ => &[],
    };
    let fetches = readings.into_iter().map(|reading| async move {
        let Reading::Source(source) = reading else {
            return Ok(reading);
        };
        let fetched = source.fetch(workspace).await?;
        Ok(Reading::Fetched {
            found: source.select(&fetched, exclude)?,
            chain: fetched.chain().clone(),
            key: source.input_key(),
        })
    });
    futures_util::stream::iter(fetches)
        .buffered(MAX_FETCHES)
        .try_collect()
        .await
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
                (Input::Context | Input::NamedContext(_), Some(request)) => {
                    let context = workspace
                        .contexts
                        .of(input)
                        .map_err(|error| failed(StepError::Context(error)))?
                        .ok_or_else(|| failed(StepError::Internal("not a context")))?;
                    let found = select::select(&context.tree(), &request);
                    Reading::Context(
                        found.map_err(|error| failed(workspace.contexts.explain(input, error)))?,
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
        keys.push(step_key(step, &parent, &inputs, workspace.settings()));
    }
    Ok(keys)
}

fn independent_input(reading: &Reading) -> InputKey {
    match reading {
        Reading::Context(found) => InputKey::Content(select::digest(found)),
        Reading::Source(source) => source.input_key(),
        Reading::Fetched { key, .. } => key.clone(),
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
        let tree: Arc<dyn SourceTree> = if chain.is_empty() {
            let title = stage_title(graph, *other);
            Arc::new(LayeredTree::load(&workspace.store, chain, title)?)
        } else {
            workspace.layered_tree(chain, || stage_title(graph, *other))?
        };
        let found = select::select(&tree, &request)?;
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
