//! Looking at a Dockerfile without building it: build checks, an outline of what can be given, the targets.
//!
//! None of it needs root, a sandbox or a store. Base images are looked up where that is possible, because some checks
//! and every `ONBUILD` trigger depend on them; what could not be looked up is told and left out.

mod graph;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use rbuild_cache::Lease;
use rbuild_frontend::diagnostic::{Diagnostic, Errors, Phase, Severity};
use rbuild_frontend::graph::{
    BuildArgument, Graph, ImageReference, ImageRequest, MountKind, Operation, PlanOptions, Planned,
    ResolvedImage,
};
use rbuild_frontend::image_config::ImageConfig;
use rbuild_frontend::instruction::{InstructionKind, Program, Stage};
use rbuild_frontend::mend::{Mended, mend};
use rbuild_frontend::source::{Lines, Source};
use rbuild_frontend::{instructions, plan};

use crate::build::{Workspace, image_name, misspelt_stage, place_of, this_machine};
use crate::context;
use crate::engine::Engine;
use crate::error::BuildError;
use crate::options::BuildOptions;
use crate::pull::ImageSources;
use crate::registry::{ClientOptions, RegistryClient};
use crate::tasks::Tasks;

pub(crate) use self::graph::planned_steps;
pub use self::graph::{PlannedStep, graph};

/// What checks have to say about a Dockerfile.
#[derive(Debug)]
pub struct Report {
    /// The Dockerfile.
    pub source: Source,
    /// Where it is; none for one that is no file of its own.
    pub path: Option<PathBuf>,
    /// Why it can't be built; the first is the one that the reference builder stops at.
    pub errors: Vec<Diagnostic>,
    /// Build checks that fired. They are errors if the file's settings say so.
    pub warnings: Vec<Diagnostic>,
    /// Images that could not be looked up: checks that depend on them were left out.
    pub unknown_images: Vec<UnknownImage>,
}

/// An image that could not be looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownImage {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
}

impl Report {
    /// The exit code of a check: 2 for a file that does not parse, 1 for one that can't be built or where a check of
    /// at least this severity fired.
    pub fn exit_code(&self, least: Severity) -> u8 {
        let fired = |found: &Diagnostic| found.severity >= least;
        match self.errors.first() {
            Some(first) if first.phase != Phase::Plan => 2,
            Some(_) => 1,
            None => u8::from(self.warnings.iter().any(fired)),
        }
    }
}

/// What a target can be given: its build arguments, secrets and agents, and the caches it keeps.
#[derive(Clone, Debug)]
pub struct Outline {
    /// The Dockerfile.
    pub source: Source,
    /// The target's name, if it has one.
    pub name: Option<String>,
    /// The comment above it.
    pub description: Option<String>,
    /// In file order.
    pub arguments: Vec<BuildArgument>,
    /// `RUN --mount=type=secret`, one for each id.
    pub secrets: Vec<Needed>,
    /// `RUN --mount=type=ssh`, one for each id.
    pub ssh: Vec<Needed>,
    /// `RUN --mount=type=cache`, one for each id.
    pub caches: Vec<Needed>,
}

/// Something that a step mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    /// Its id.
    pub id: String,
    /// The build fails without it.
    pub is_required: bool,
    /// The instruction that mounts it first.
    pub lines: Lines,
}

/// The stages that can be built.
#[derive(Clone, Debug)]
pub struct Targets {
    /// The Dockerfile.
    pub source: Source,
    /// In file order; the last is the default.
    pub stages: Vec<Stage>,
}

/// Runs all build checks. The engine's store and the registries are asked about base images, if there is an engine.
///
/// # Errors
/// The Dockerfile or its context can't be read. What is wrong in the file is in the report.
pub async fn check(engine: Option<&Engine>, options: &BuildOptions) -> Result<Report, BuildError> {
    let file = File::read(engine, options).await?;
    let (program, errors) = instructions::parse_partly(&file.source);
    let plans = file.plan_options(options)?;
    let mut report = Report {
        source: file.source,
        path: file.path,
        errors,
        warnings: Vec::new(),
        unknown_images: Vec::new(),
    };
    if !report.errors.is_empty() {
        let further = plan::errors_without_images(&program, &plans[0]);
        report.errors.extend(further);
        report.errors = Errors::of(report.errors).map_or_else(Errors::into_vec, |()| Vec::new());
        return Ok(report);
    }
    let mut bases = Bases::new(engine, options)?;
    for plan_options in &plans {
        let found = loop {
            let found = plan::check(&program, plan_options, &bases.known);
            // With an error no image is worth a question.
            if !found.errors.is_empty() || !bases.look_up(&found.needs).await {
                break found;
            }
        };
        let push_new = |all: &mut Vec<Diagnostic>, new: Vec<Diagnostic>| {
            for diagnostic in new {
                if !all.contains(&diagnostic) {
                    all.push(diagnostic);
                }
            }
        };
        push_new(&mut report.errors, found.errors);
        push_new(&mut report.warnings, found.warnings);
    }
    let names = like_stages(&program, options);
    bases.look_up(&requests_of(names, &plans[0])).await;
    report.unknown_images = bases.unknown();
    let misspelt = report.unknown_images.iter();
    let misspelt: Vec<_> = misspelt
        .filter_map(|image| no_such_stage(&program, &image.name))
        .collect();
    report.errors.extend(misspelt);
    Ok(report)
}

/// The error about an image that is not to be had and is called almost like a stage.
fn no_such_stage(program: &Program, name: &str) -> Option<Diagnostic> {
    let help = misspelt_stage(program, name)?;
    let span = place_of(program, &[name])?;
    let message =
        format!("no stage is named `{name}`, and an image of this name can't be looked up");
    let error = Diagnostic::error("unknown-stage", Phase::Plan, span, message);
    Some(error.with_help(help))
}

/// Images that files are copied from and that are called almost like a stage: worth a question, since nothing else tells
/// a misspelt stage from an image.
fn like_stages(program: &Program, options: &BuildOptions) -> Vec<String> {
    let is_stage = |name: &str| {
        let mut stages = program.stages.iter();
        name.parse::<usize>().is_ok()
            || stages.any(|stage| {
                let stage = stage.name.as_deref();
                stage.is_some_and(|stage| stage.eq_ignore_ascii_case(name))
            })
    };
    let instructions = program.stages.iter().flat_map(|stage| &stage.instructions);
    let names = instructions.filter_map(|instruction| match &instruction.kind {
        InstructionKind::Copy(copy) => copy.from.as_deref(),
        _ => None,
    });
    let names = names.filter(|name| {
        !is_stage(name)
            && !options.named_contexts.contains_key(*name)
            && plan::closest_stage(program, name).is_some()
    });
    names.map(str::to_owned).collect()
}

fn requests_of(names: Vec<String>, options: &PlanOptions) -> Vec<ImageRequest> {
    let platform = options.target_platform.as_ref();
    let platform = platform.unwrap_or(&options.build_platform);
    let requests = names.into_iter().map(|name| ImageRequest {
        reference: ImageReference::Name(name),
        platform: platform.clone(),
    });
    requests.collect()
}

/// Says what the target can be given.
///
/// # Errors
/// The Dockerfile can't be read or built.
pub async fn outline(
    engine: Option<&Engine>,
    options: &BuildOptions,
) -> Result<Outline, BuildError> {
    let file = File::read(engine, options).await?;
    let program = parse(&file.source)?;
    let plan_options = PlanOptions {
        checks_all_stages: false,
        ..file.plan_options(options)?.swap_remove(0)
    };
    let mut bases = Bases::new(engine, options)?;
    let graph = loop {
        let planned = plan(&program, &plan_options, &bases.known);
        match planned.map_err(|errors| refused(errors, &file.source))? {
            Planned::Ready(graph) => break graph,
            Planned::Needs(requests) => {
                if !bases.look_up(&requests).await {
                    bases.take_for_empty(requests);
                }
            }
        }
    };
    let target = target_of(&program, options);
    Ok(Outline {
        source: file.source,
        name: target.and_then(|stage| stage.name.clone()),
        description: target.and_then(Stage::description),
        secrets: mounted(&graph, |kind| match kind {
            MountKind::Secret {
                id, is_required, ..
            } => Some((id, *is_required)),
            _ => None,
        }),
        ssh: mounted(&graph, |kind| match kind {
            MountKind::Ssh {
                id, is_required, ..
            } => Some((id, *is_required)),
            _ => None,
        }),
        caches: caches(&graph, options),
        arguments: graph.arguments,
    })
}

/// Lists the stages.
///
/// # Errors
/// The Dockerfile can't be read, or does not parse.
pub async fn targets(
    engine: Option<&Engine>,
    options: &BuildOptions,
) -> Result<Targets, BuildError> {
    let file = File::read(engine, options).await?;
    let stages = parse(&file.source)?.stages;
    Ok(Targets {
        source: file.source,
        stages,
    })
}

/// A Dockerfile and what can be mended of it.
#[derive(Debug)]
pub struct Mend {
    /// As it is.
    pub source: Source,
    /// Where it is; none for one that is no file of its own.
    pub path: Option<PathBuf>,
    /// As it could be.
    pub mended: Mended,
}

/// Mends what is mechanical in the Dockerfile's text; nothing is written.
///
/// # Errors
/// The Dockerfile can't be read.
pub async fn mend_dockerfile(
    engine: Option<&Engine>,
    options: &BuildOptions,
) -> Result<Mend, BuildError> {
    let file = File::read(engine, options).await?;
    let plans = file.plan_options(options)?;
    let mended = mend(&file.source, &plans[0]);
    Ok(Mend {
        source: file.source,
        path: file.path,
        mended,
    })
}

fn parse(source: &Source) -> Result<Program, BuildError> {
    instructions::parse(source).map_err(|errors| refused(errors, source))
}

fn refused(errors: Errors, source: &Source) -> BuildError {
    BuildError::Dockerfile {
        errors,
        source_text: source.clone(),
    }
}

fn target_of<'a>(program: &'a Program, options: &BuildOptions) -> Option<&'a Stage> {
    let Some(target) = &options.target else {
        return program.stages.last();
    };
    let is_target = |stage: &&Stage| {
        let name = stage.name.as_deref();
        name.is_some_and(|name| name.eq_ignore_ascii_case(target))
    };
    program.stages.iter().rev().find(is_target)
}

/// Cache mounts by the ids that the file gives them: without the namespace that the build puts before.
fn caches(graph: &Graph, options: &BuildOptions) -> Vec<Needed> {
    let namespace = options.build_args.get("BUILDKIT_CACHE_MOUNT_NS");
    let prefix = format!("{}/", namespace.map_or("", String::as_str));
    let mut caches = mounted(graph, |kind| match kind {
        MountKind::Cache { id, .. } => Some((id, false)),
        _ => None,
    });
    for cache in &mut caches {
        if let Some(id) = cache.id.strip_prefix(&prefix) {
            cache.id = id.to_owned();
        }
    }
    caches
}

/// What the graph's RUN steps mount of one kind, in file order.
fn mounted(graph: &Graph, of_kind: impl Fn(&MountKind) -> Option<(&String, bool)>) -> Vec<Needed> {
    let mut needed: Vec<Needed> = Vec::new();
    for step in &graph.steps {
        let Operation::Run(run) = &step.operation else {
            continue;
        };
        for (id, is_required) in run.mounts.iter().filter_map(|mount| of_kind(&mount.kind)) {
            match needed.iter_mut().find(|known| known.id == *id) {
                Some(known) => known.is_required |= is_required,
                None => needed.push(Needed {
                    id: id.clone(),
                    is_required,
                    lines: step.lines,
                }),
            }
        }
    }
    needed.sort_by_key(|needed| needed.lines);
    needed
}

/// The Dockerfile that options name.
struct File {
    source: Source,
    path: Option<PathBuf>,
    ignore: rbuild_frontend::ignore_file::IgnoreMatcher,
}

impl File {
    /// Reads it; a context that is no directory is fetched into the engine's store, as a build would.
    async fn read(engine: Option<&Engine>, options: &BuildOptions) -> Result<Self, BuildError> {
        // Where nothing can be unpacked, what needs no unpacking can be read all the same.
        let fetcher = engine.filter(|engine| engine.rung().is_ok());
        if let Some(engine) = fetcher.filter(|_| context::is_elsewhere(options)) {
            let workspace = Arc::new(Workspace::for_a_look(engine, options.clone())?);
            return Ok(Self {
                source: context::open_main(&workspace, None).await?,
                path: None,
                ignore: context::ignore_of(options, None)?,
            });
        }
        let context::LocalDockerfile { source, path } = context::read_alone(options)?;
        let ignore = context::ignore_of(options, path.as_deref())?;
        Ok(Self {
            source,
            path,
            ignore,
        })
    }

    /// What the planner is told, once for each platform; at least once.
    fn plan_options(&self, options: &BuildOptions) -> Result<Vec<PlanOptions>, BuildError> {
        let plan_options = PlanOptions {
            target: options.target.clone(),
            build_args: options.build_args.clone(),
            build_platform: this_machine(),
            named_contexts: context::planned_contexts(options)?,
            ignore: self.ignore.clone(),
            checks_all_stages: options.target.is_none(),
            ..PlanOptions::default()
        };
        if options.platforms.is_empty() {
            return Ok(vec![plan_options]);
        }
        let platforms = options.platforms.iter().map(|platform| PlanOptions {
            target_platform: Some(platform.clone()),
            ..plan_options.clone()
        });
        Ok(platforms.collect())
    }
}

/// Base images that were looked up.
struct Bases<'a> {
    options: &'a BuildOptions,
    sources: Option<(ImageSources, Lease)>,
    known: BTreeMap<ImageRequest, ResolvedImage>,
    failed: BTreeMap<ImageRequest, String>,
}

impl<'a> Bases<'a> {
    fn new(engine: Option<&Engine>, options: &'a BuildOptions) -> Result<Self, BuildError> {
        let sources = |engine: &Engine| {
            let lease = engine.store().lease().map_err(BuildError::store)?;
            let sources = ImageSources {
                store: engine.store().clone(),
                spawner: engine.spawner().clone(),
                client: RegistryClient::with_settings(
                    ClientOptions::default(),
                    options.registries.clone(),
                ),
                tasks: Tasks::new(Arc::new(|_| {})),
            };
            Ok::<_, BuildError>((sources, lease))
        };
        Ok(Self {
            options,
            sources: engine.map(sources).transpose()?,
            known: BTreeMap::new(),
            failed: BTreeMap::new(),
        })
    }

    /// Looks up images; false if nothing new came of it.
    async fn look_up(&mut self, requests: &[ImageRequest]) -> bool {
        let mut has_new = false;
        for request in requests {
            if self.failed.contains_key(request) {
                continue;
            }
            let found = match &self.sources {
                Some((sources, lease)) => sources
                    .resolve(
                        &request.reference,
                        &request.platform,
                        self.options.pull,
                        lease,
                    )
                    .await
                    .map_err(|error| words(&error)),
                None => Err("there is no store to keep what a registry says".to_owned()),
            };
            match found {
                Ok(base) => {
                    let config = base.config.clone();
                    self.known.insert(request.clone(), ResolvedImage { config });
                    has_new = true;
                }
                Err(reason) => {
                    self.failed.insert(request.clone(), reason);
                }
            }
        }
        has_new
    }

    /// Goes on as if these images held nothing.
    fn take_for_empty(&mut self, requests: Vec<ImageRequest>) {
        for request in requests {
            let config = ImageConfig::default().with_platform(&request.platform);
            self.known.insert(request, ResolvedImage { config });
        }
    }

    fn unknown(self) -> Vec<UnknownImage> {
        let failed = self.failed.into_iter();
        let unknown = failed.map(|(request, reason)| UnknownImage {
            name: image_name(&request.reference),
            reason,
        });
        unknown.collect()
    }
}

/// An error and its causes on one line.
fn words(error: &dyn Error) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |&error| error.source()) {
        let cause = cause.to_string();
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
