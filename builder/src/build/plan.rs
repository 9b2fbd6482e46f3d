//! From the Dockerfile's text to graphs, one a platform: asks the planner until it has all base images' configs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rbuild_frontend::diagnostic::Errors;
use rbuild_frontend::graph::{
    Graph, ImageReference, ImageRequest, NamedContext, PlanOptions, Planned, ResolvedImage,
};
use rbuild_frontend::instruction::{InstructionKind, Program};
use rbuild_frontend::platform::Platform;
use rbuild_frontend::source::{Source, Span};

use super::Workspace;
use crate::context;
use crate::error::BuildError;
use crate::options::BuildOptions;
use crate::pull::PullError;

/// How often the planner may ask for more images; each round answers everything that it asked for.
const MAX_ROUNDS: usize = 64;

/// Parses the text. What is refused is refused with all errors that can be told without looking at base images.
pub(super) fn parse(source: &Source, options: &BuildOptions) -> Result<Program, BuildError> {
    let (program, mut errors) = rbuild_frontend::instructions::parse_partly(source);
    if !errors.is_empty() {
        let options = PlanOptions {
            target: options.target.clone(),
            build_args: options.build_args.clone(),
            build_platform: this_machine(),
            target_platform: options.platforms.first().cloned(),
            ..PlanOptions::default()
        };
        let further = rbuild_frontend::plan::errors_without_images(&program, &options);
        errors.extend(further);
    }
    Errors::of(errors).map_err(|errors| refused(errors, source))?;
    Ok(program)
}

/// Plans for every platform that was asked for, or once for this machine's.
pub(super) async fn all_platforms(
    workspace: &Arc<Workspace>,
    program: &Program,
    source: &Source,
) -> Result<Vec<Graph>, BuildError> {
    let platforms = &workspace.options.platforms;
    if platforms.is_empty() {
        return Ok(vec![one(workspace, program, source, None).await?]);
    }
    let mut graphs = Vec::new();
    for platform in platforms {
        graphs.push(one(workspace, program, source, Some(platform.clone())).await?);
    }
    Ok(graphs)
}

/// What the planner is told, now that it is settled what `SOURCE_DATE_EPOCH` means.
fn options(
    workspace: &Workspace,
    target_platform: Option<Platform>,
) -> Result<PlanOptions, BuildError> {
    let mut options = unsettled_options(workspace, target_platform)?;
    options.source_date_epoch = workspace.source_date_epoch();
    if let Some(text) = options.build_args.get_mut(super::epoch::NAME) {
        let seconds = options.source_date_epoch;
        *text = seconds.map_or_else(String::new, |seconds| seconds.to_string());
    }
    Ok(options)
}

/// The same before that.
pub(super) fn unsettled_options(
    workspace: &Workspace,
    target_platform: Option<Platform>,
) -> Result<PlanOptions, BuildError> {
    let options = &workspace.options;
    Ok(PlanOptions {
        target: options.target.clone(),
        build_args: options.build_args.clone(),
        source_date_epoch: None,
        build_platform: this_machine(),
        target_platform,
        labels: options.labels.clone(),
        named_contexts: context::planned_contexts(options)?,
        ignores_cache: options.ignores_cache,
        ignores_cache_of: options.ignores_cache_of.clone(),
        network: options.network,
        ignore: workspace
            .contexts
            .main()
            .map(|context| context.ignore())
            .unwrap_or_default(),
        checks_all_stages: false,
    })
}

async fn one(
    workspace: &Arc<Workspace>,
    program: &Program,
    source: &Source,
    target_platform: Option<Platform>,
) -> Result<Graph, BuildError> {
    let plan_options = options(workspace, target_platform)?;
    let mut known: BTreeMap<ImageRequest, ResolvedImage> = BTreeMap::new();
    for _ in 0..MAX_ROUNDS {
        let planned = rbuild_frontend::plan(program, &plan_options, &known)
            .map_err(|errors| refused(errors, source))?;
        let requests = match planned {
            Planned::Ready(graph) => return Ok(*graph),
            Planned::Needs(requests) => requests,
        };
        for request in requests {
            let base = workspace
                .resolve(&request)
                .await
                .map_err(|error| image_failed(program, &plan_options, &request.reference, error))?;
            known.insert(
                request,
                ResolvedImage {
                    config: base.config.clone(),
                },
            );
        }
    }
    Err(BuildError::Unsupported {
        what: "a Dockerfile with this many rounds of base images".to_owned(),
    })
}

/// Why a base image can't be used, and where the Dockerfile asks for it.
fn image_failed(
    program: &Program,
    options: &PlanOptions,
    reference: &ImageReference,
    error: PullError,
) -> BuildError {
    let mut names: Vec<&str> = Vec::new();
    if let ImageReference::Name(name) = reference {
        names.push(name);
    }
    for (name, context) in &options.named_contexts {
        if matches!(context, NamedContext::Image(image) if image == reference) {
            names.push(name);
        }
    }
    let help = names
        .iter()
        .find_map(|name| misspelt_stage(program, name))
        .or_else(|| error.help());
    BuildError::Image {
        reference: name(reference),
        place: place_of(program, &names).map(|span| Box::new((span, program.source.clone()))),
        help,
        source: Box::new(error),
    }
}

/// The help for an image that is not there and whose name is almost that of a stage.
pub(crate) fn misspelt_stage(program: &Program, name: &str) -> Option<String> {
    let stage = rbuild_frontend::plan::closest_stage(program, name)?;
    Some(format!(
        "did you mean `{stage}`? That is a stage of this file"
    ))
}

/// Where an image is named. The planner's request does not say; a name made of variables is the one FROM that has some.
pub(crate) fn place_of(program: &Program, names: &[&str]) -> Option<Span> {
    let is_named = |written: &str| {
        let short = written.strip_suffix(":latest").unwrap_or(written);
        names.iter().any(|name| *name == written || *name == short)
    };
    let has_it = |kind: &InstructionKind| match kind {
        InstructionKind::Copy(copy) => copy.from.as_deref().is_some_and(is_named),
        InstructionKind::Run(run) => run
            .mounts
            .iter()
            .flat_map(|mount| mount.text.split(','))
            .any(|option| option.strip_prefix("from=").is_some_and(is_named)),
        _ => false,
    };
    let by_name = || {
        program.stages.iter().find_map(|stage| {
            if is_named(&stage.base) {
                return Some(stage.base_span);
            }
            let mut instructions = stage.instructions.iter();
            let found = instructions.find(|instruction| has_it(&instruction.kind))?;
            Some(name_within(program, found.span, names))
        })
    };
    let by_variable = || {
        let mut stages = program
            .stages
            .iter()
            .filter(|stage| stage.base.contains('$'));
        stages.next().filter(|_| stages.next().is_none())
    };
    by_name().or_else(|| Some(by_variable()?.base_span))
}

/// Where one of the names stands behind `from=` in an instruction; the whole of it if none does.
pub(crate) fn name_within(program: &Program, instruction: Span, names: &[&str]) -> Span {
    let text = program
        .source
        .text()
        .get(instruction.start..instruction.end);
    let find = |name: &&str| {
        let at = text?.find(&format!("from={name}"))? + "from=".len();
        let start = instruction.start + at;
        Some(Span::new(start, start + name.len()))
    };
    names.iter().find_map(find).unwrap_or(instruction)
}

/// Names that the Dockerfile declares with `ARG`, in any stage.
pub(super) fn argument_names(program: &Program) -> BTreeSet<String> {
    let instructions = program
        .global_args
        .iter()
        .chain(program.stages.iter().flat_map(|stage| &stage.instructions));
    let names = instructions.flat_map(|instruction| match &instruction.kind {
        InstructionKind::Arg(pairs) => pairs.iter().map(|pair| pair.name.to_string()).collect(),
        _ => Vec::new(),
    });
    names.collect()
}

/// Build arguments that no ARG asks for: likely misspelt.
pub(super) fn unused_arguments(program: &Program, options: &BuildOptions) -> Vec<String> {
    let instructions = || {
        program
            .global_args
            .iter()
            .chain(program.stages.iter().flat_map(|stage| &stage.instructions))
    };
    let is_used = |name: &str| {
        instructions().any(|instruction| match &instruction.kind {
            InstructionKind::Arg(pairs) => pairs.iter().any(|pair| pair.name == name),
            // Fires in another build or is text that may hold anything.
            InstructionKind::Onbuild(text) => text.contains(name),
            _ => false,
        })
    };
    let names = options.build_args.keys();
    names
        .filter(|name| !super::arguments::is_predefined(name) && !is_used(name))
        .cloned()
        .collect()
}

/// Names of `--no-cache-filter` that are no stage's.
pub(super) fn unknown_stages(program: &Program, options: &BuildOptions) -> Vec<String> {
    let is_known = |wanted: &str| {
        let mut names = program
            .stages
            .iter()
            .filter_map(|stage| stage.name.as_deref());
        wanted.parse::<usize>().is_ok() || names.any(|name| name.eq_ignore_ascii_case(wanted))
    };
    let names = options.ignores_cache_of.iter();
    names.filter(|name| !is_known(name)).cloned().collect()
}

/// Platform of this machine, by Go's names.
pub(crate) fn this_machine() -> Platform {
    Platform::of_machine(std::env::consts::OS, std::env::consts::ARCH)
}

fn refused(errors: Errors, source: &Source) -> BuildError {
    BuildError::Dockerfile {
        errors,
        source_text: source.clone(),
    }
}

/// The reference as the user wrote it.
pub(crate) fn name(reference: &ImageReference) -> String {
    match reference {
        ImageReference::Name(name) => name.clone(),
        ImageReference::Layout { path, tag, digest } => {
            let tag = tag
                .as_ref()
                .map(|tag| format!(":{tag}"))
                .unwrap_or_default();
            let digest = digest
                .as_ref()
                .map(|digest| format!("@{digest}"))
                .unwrap_or_default();
            format!("oci-layout://{path}{tag}{digest}")
        }
    }
}
