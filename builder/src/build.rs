//! One build, from options to an image: read, plan, solve, assemble, hand over.

mod arguments;
mod budget;
mod epoch;
mod forecast;
pub(crate) mod hosts;
pub(crate) mod network;
mod plan;
pub(crate) mod resolver;
mod workspace;

use std::sync::Arc;

use oci_spec::image::Digest;
use rbuild_cache::Budget;
use rbuild_frontend::graph::{Graph, ImageReference, Operation};
use rbuild_frontend::instruction::Program;
use rbuild_frontend::platform::Platform;
use rbuild_frontend::reference::Reference;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::context::{self, LocalDockerfile};
use crate::engine::Engine;
use crate::error::{BuildError, StepError};
use crate::event::{Event, EventSink, StepDescription};
use crate::export::{ExportOptions, Exported, ExportedDescriptor, Exporter};
use crate::history::Written;
use crate::image::{self, BuiltImage};
use crate::layers::{self, LargestLayer};
use crate::options::{BuildOptions, Output, OutputKind};
use crate::solve::{Solver, StepCounts};
pub(crate) use plan::{misspelt_stage, name as image_name, place_of, this_machine};
pub(crate) use workspace::Workspace;

/// What a build made.
#[derive(Clone, Debug)]
pub struct BuildOutcome {
    /// Image id of the first platform: digest of the config that was shipped.
    pub image_id: Digest,
    /// Manifest or index that was written; none when nothing was packed.
    pub descriptor: Option<ExportedDescriptor>,
    /// Full names that were set.
    pub tags: Vec<String>,
    /// One image for each platform, in the order asked for.
    pub images: Vec<BuiltPlatform>,
    /// How many steps were cached and done.
    pub counts: StepCounts,
    /// Id of the build in the history; none when that can't be written.
    pub build_id: Option<String>,
}

impl BuildOutcome {
    /// What `--metadata-file` holds, with the keys that buildx uses.
    pub fn metadata(&self) -> serde_json::Value {
        let mut metadata = serde_json::Map::new();
        metadata.insert(
            "containerimage.config.digest".into(),
            self.image_id.to_string().into(),
        );
        if let Some(descriptor) = &self.descriptor {
            metadata.insert(
                "containerimage.digest".into(),
                descriptor.digest.to_string().into(),
            );
            let json = serde_json::json!({
                "mediaType": descriptor.media_type,
                "digest": descriptor.digest.to_string(),
                "size": descriptor.size,
            });
            metadata.insert("containerimage.descriptor".into(), json);
        }
        if !self.tags.is_empty() {
            metadata.insert("image.name".into(), self.tags.join(",").into());
        }
        metadata.into()
    }
}

/// The image of one platform.
#[derive(Clone, Debug)]
pub struct BuiltPlatform {
    /// Platform.
    pub platform: Platform,
    /// Image id: digest of the config.
    pub image_id: Digest,
    /// Number of layers.
    pub layers: usize,
    /// Sum of the layers' uncompressed tars in bytes.
    pub size: u64,
    /// The same of the layers above the base image's.
    pub added: u64,
    /// The largest layer above the base image's, when this build ran a step.
    pub largest: Option<LargestLayer>,
}

impl Engine {
    /// Builds what `options` ask for.
    ///
    /// # Errors
    /// Ends at the first failing step; the others are cancelled and waited for. The store is left as good as it
    /// was: finished steps stay in the cache.
    pub async fn build(
        &self,
        options: &BuildOptions,
        events: EventSink,
        cancel: CancellationToken,
    ) -> Result<BuildOutcome, BuildError> {
        let local = context::read_local(options)?;
        self.rung()?;
        // A failing build ends its own steps, never another build of the caller's; and one that is dropped ends too.
        let cancel = cancel.child_token();
        let _ends_with_us = cancel.clone().drop_guard();
        let workspace = Arc::new(Workspace::new(
            self,
            options.clone(),
            local.as_ref(),
            events,
            cancel,
        )?);
        let flusher = workspace
            .recorder
            .clone()
            .map(|recorder| AbortOnDropHandle::new(tokio::spawn(recorder.flush_now_and_then())));
        let result = open_and_build(&workspace, local).await;
        drop(flusher);
        workspace.contexts.save_stat_caches();
        // Also after a failure: what was finished is worth keeping.
        let synced = if workspace.store.needs_sync() {
            let store = workspace.store.clone();
            workspace.blocking(move || store.sync()).await
        } else {
            Ok(())
        };
        if result.as_ref().is_ok_and(|outcome| outcome.counts.done > 0) {
            keep_within_budget(&workspace, self.budget()).await;
        }
        let outcome = match (result, synced) {
            (Err(error), _) => Err(error),
            (Ok(outcome), Err(error)) => {
                // What was asked for was synced before it got its name. The rest is only dropped by a power cut.
                tracing::warn!(%error, "results for later builds may not survive a power cut");
                Ok(outcome)
            }
            (Ok(outcome), Ok(())) => Ok(outcome),
        }
        .map_err(|error| crate::full_disk::explain(error, self.store().root()));
        match workspace.recorder.clone() {
            None => outcome,
            Some(recorder) => {
                crate::blocking::run(move || {
                    let is_written = recorder.end(outcome.as_ref());
                    outcome.map(|outcome| BuildOutcome {
                        build_id: is_written.then(|| recorder.id().to_owned()),
                        ..outcome
                    })
                })
                .await
            }
        }
    }
}

async fn open_and_build(
    workspace: &Arc<Workspace>,
    local: Option<LocalDockerfile>,
) -> Result<BuildOutcome, BuildError> {
    let source = context::open_main(workspace, local).await?;
    let built = build_in(workspace, &source).await;
    built.map_err(|error| error.with_source(&source))
}

/// Prunes what the store has grown beyond its budget, while the build still holds what it used. A build that ran nothing
/// has added nothing.
async fn keep_within_budget(workspace: &Arc<Workspace>, budget: Budget) {
    let store = workspace.store.clone();
    match workspace
        .blocking(move || store.keep_within(budget))
        .await
    {
        Ok(None) => {}
        Ok(Some(pruned)) => workspace.emit(Event::Notice(format!(
            "the store had grown beyond its budget: {} things that nothing needs were removed, {} MB",
            pruned.items.len(),
            pruned.freed.div_ceil(1_000_000)
        ))),
        // The image is built; a store that is too large harms nobody yet.
        Err(error) => tracing::warn!(%error, "the store could not be kept within its budget"),
    }
}

async fn build_in(
    workspace: &Arc<Workspace>,
    source: &rbuild_frontend::source::Source,
) -> Result<BuildOutcome, BuildError> {
    let has_index = arguments::wants_index(&workspace.options)?;
    for words in arguments::notices(source, &workspace.options) {
        workspace.emit(Event::Notice(words));
    }
    if !workspace.options.wants_image() && !workspace.options.tags.is_empty() {
        let words = "`--output type=cacheonly` keeps no image: `--tag` has no effect";
        workspace.emit(Event::Notice(words.to_owned()));
    }
    let program = plan::parse(source, &workspace.options)?;
    workspace
        .unless_cancelled(epoch::settle(workspace, &program))
        .await?;
    if let Some(recorder) = &workspace.recorder {
        recorder.set_arguments(plan::argument_names(&program));
    }
    let graphs = workspace
        .unless_cancelled(Box::pin(plan::all_platforms(workspace, &program, source)))
        .await?;
    announce(workspace, &graphs, source);
    workspace.tell_isolation();
    for name in plan::unknown_stages(&program, &workspace.options) {
        workspace.emit(Event::Notice(format!(
            "no stage is named `{name}`: `--no-cache-filter {name}` has no effect"
        )));
    }
    if !workspace.has_triggers() {
        for name in plan::unused_arguments(&program, &workspace.options) {
            workspace.emit(Event::Notice(format!(
                "no ARG asks for the build argument `{name}`: it has no effect"
            )));
        }
    }
    let mut images: Vec<BuiltImage> = Vec::new();
    let mut counts = StepCounts::default();
    let mut first_id = 0;
    for graph in graphs {
        let graph = Arc::new(graph);
        let (chain, made) = Solver::solve(&graph, workspace, first_id)
            .await
            .map_err(|error| in_the_whole_build(error, &program, &graph, first_id))?;
        counts.cached += made.cached;
        counts.done += made.done;
        first_id += graph.steps.len();
        let config = graph.image.clone();
        images.push(image::assemble(
            config,
            &graph.history,
            chain,
            workspace.source_date_epoch(),
        ));
    }
    // Before anything is named or pushed.
    budget::check(&workspace.options.budget, &images)?;
    let exports = workspace
        .unless_cancelled(Box::pin(export(workspace, &images, has_index)))
        .await?;
    if workspace.caches.publishes() {
        let exporter = Exporter {
            sources: workspace.images.clone(),
        };
        let pushed = pushed_names(&workspace.options);
        let published = workspace
            .caches
            .publish(&exporter, &workspace.lease, &pushed);
        let published = Box::pin(published);
        let cancelled = workspace.cancel.run_until_cancelled(published).await;
        cancelled.ok_or(BuildError::Interrupted)?;
    }
    Ok(outcome(workspace, &images, &exports, counts))
}

/// Where the image was pushed to.
fn pushed_names(options: &BuildOptions) -> Vec<Reference> {
    let mut names: Vec<Reference> = Vec::new();
    for output in options.outputs.iter().filter(|output| output.pushes) {
        for text in options.tags.iter().chain(&output.names) {
            // One that is no name has failed in the export.
            if let Ok(name) = Reference::parse(text).map(Reference::with_default_tag)
                && !names.contains(&name)
            {
                names.push(name);
            }
        }
    }
    names
}

/// A step's failure with what its graph alone does not know: its number among all steps, a stage that was misspelt.
fn in_the_whole_build(
    error: BuildError,
    program: &Program,
    graph: &Graph,
    first_id: usize,
) -> BuildError {
    let BuildError::Step {
        mut failure,
        source,
    } = error
    else {
        return error;
    };
    if let (StepError::Image(_), Operation::Image(ImageReference::Name(name))) =
        (&source, &graph.steps[failure.step].operation)
    {
        failure.help = misspelt_stage(program, name);
        failure.span = plan::name_within(program, failure.span, &[name]);
    }
    failure.step += first_id;
    BuildError::Step { failure, source }
}

/// Keeps the images in the store and writes every output that was asked for.
async fn export(
    workspace: &Arc<Workspace>,
    images: &[BuiltImage],
    has_index: bool,
) -> Result<Vec<Exported>, BuildError> {
    let options = &workspace.options;
    let exporter = Exporter {
        sources: workspace.images.clone(),
    };
    let export_options = ExportOptions {
        tags: options.tags.clone(),
        annotations: options.annotations.clone(),
        source_date_epoch: workspace.source_date_epoch(),
        has_index,
    };
    let has_store_output = options
        .outputs
        .iter()
        .any(|output| output.kind == OutputKind::Image);
    let to_store = Output::of_kind(OutputKind::Image);
    let mut exports = Vec::new();
    for output in (!has_store_output && options.wants_image())
        .then_some(&to_store)
        .into_iter()
        .chain(&options.outputs)
    {
        let written = exporter
            .export(images, output, &export_options, &workspace.lease)
            .await
            .map_err(|source| BuildError::Export {
                output: describe(output),
                source: Box::new(source),
            })?;
        exports.push(written);
    }
    Ok(exports)
}

fn outcome(
    workspace: &Workspace,
    images: &[BuiltImage],
    exports: &[Exported],
    counts: StepCounts,
) -> BuildOutcome {
    let mut tags: Vec<String> = Vec::new();
    for name in exports.iter().flat_map(|exported| &exported.names) {
        if !tags.contains(name) {
            tags.push(name.clone());
        }
    }
    let descriptor = exports
        .iter()
        .find_map(|exported| exported.descriptor.clone());
    let shipped = exports
        .iter()
        .rev()
        .find_map(|exported| exported.config_digest.clone());
    let image_id = shipped.unwrap_or_else(|| images[0].config_digest.clone());
    BuildOutcome {
        image_id,
        descriptor,
        tags,
        images: images
            .iter()
            .map(|image| summary(workspace, image, counts))
            .collect(),
        counts,
        build_id: None,
    }
}

fn describe(output: &Output) -> String {
    if output.kind == OutputKind::Image {
        return if output.pushes { "registry" } else { "image" }.to_owned();
    }
    if output.kind == OutputKind::Engine {
        return "engine".to_owned();
    }
    output.destination.as_ref().map_or_else(
        || "standard output".to_owned(),
        |path| path.display().to_string(),
    )
}

fn summary(workspace: &Workspace, image: &BuiltImage, counts: StepCounts) -> BuiltPlatform {
    let (store, config, chain) = (&workspace.store, &image.config, &image.chain);
    // A build that made nothing has no news of its layers, and is over before their tables were read.
    let largest =
        (counts.done > 0).then(|| layers::largest(store, config, chain, image.base_layers));
    BuiltPlatform {
        platform: image.platform.clone(),
        image_id: image.config_digest.clone(),
        layers: image.chain.len(),
        size: image.chain.tar_size(),
        added: image.added_size(),
        largest: largest.flatten(),
    }
}

fn announce(workspace: &Workspace, graphs: &[Graph], source: &rbuild_frontend::source::Source) {
    workspace.emit(Event::Planned {
        steps: descriptions(graphs),
    });
    if let Some(recorder) = &workspace.recorder {
        recorder.set_places(Written::all(graphs, source).into_iter());
        recorder.set_dockerfile(source.text());
    }
    if let Some(graph) = graphs.first() {
        for diagnostic in &graph.warnings {
            workspace.emit(Event::Warning {
                diagnostic: diagnostic.clone(),
                source: source.clone(),
            });
        }
    }
}

/// All steps as people see them, in the order of their ids.
pub(crate) fn descriptions(graphs: &[Graph]) -> Vec<StepDescription> {
    let shows_platform = graphs.len() > 1;
    let mut steps = Vec::new();
    for graph in graphs {
        let has_stages = graph
            .steps
            .iter()
            .any(|step| step.stage != graph.steps[0].stage);
        for step in &graph.steps {
            let stage = match &step.stage_name {
                Some(name) => name.clone(),
                None if has_stages => format!("stage-{}", step.stage.0),
                None => String::new(),
            };
            steps.push(StepDescription {
                stage,
                number: step.number,
                of: step.of,
                title: step.title.clone(),
                platform: shows_platform.then(|| step.platform.to_string()),
                lines: (step.lines.first, step.lines.last),
            });
        }
    }
    steps
}
