//! `rbuild report`, `--report` and `rbuild graph`: builds and plans as pictures.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rbuild::Engine;
use rbuild::check;
use rbuild::history::{History, PastBuild, StepNote};
use rbuild::images::Images;
use rbuild::layers;
use rbuild::options::{ContextSource, DockerfileSource};

use super::args::{GlobalArgs, GraphArgs, GraphFormat, IsolationArgs, ReportArgs};
use super::commands::{open_engine, runtime};
use super::failure::Failure;
use super::request::{BuildRequest, Variables};
use crate::ui::graph::{self, Node};
use crate::ui::page::{self, MOST_LOG, Page, StepLog};

/// A page that can't be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the report `{path}`")]
struct WriteError {
    path: PathBuf,
    source: io::Error,
}

/// `rbuild report`
pub(super) fn report(args: &ReportArgs, engine: &Engine) -> Result<ExitCode, Failure> {
    let history = History::new(engine.store().clone());
    let build = history.find(&args.build).map_err(super::past::failed)?;
    write(&build, &args.output, engine)?;
    Ok(ExitCode::SUCCESS)
}

/// `--report`: the page of a build that has just ended. A failure to write it is told, and is not the build's.
pub(super) fn report_of(id: &str, path: &Path, engine: &Engine) -> Result<(), Failure> {
    let history = History::new(engine.store().clone());
    let build = history.find(id).map_err(super::past::failed)?;
    write(&build, path, engine)
}

fn write(build: &PastBuild, path: &Path, engine: &Engine) -> Result<(), Failure> {
    let history = History::new(engine.store().clone());
    let detail = history.detail(&build.id).map_err(super::past::failed)?;
    let logs: Vec<StepLog> = detail
        .steps
        .iter()
        .map(|step| log_of(&history, step))
        .collect();
    let images = Images::new(engine.store().clone());
    let image = build.summary.image_id.as_deref();
    // An image that was removed since has no layers to show; the rest is worth a page all the same.
    let layers = image.and_then(|id| layers::layers_of(&images, engine.store(), id).ok());
    let text = page::html(&Page {
        build,
        detail: &detail,
        logs: &logs,
        layers: layers.as_ref(),
    });
    if path == Path::new("-") {
        crate::ui::print_line(text.trim_end());
        return Ok(());
    }
    std::fs::write(path, text).map_err(|source| {
        Failure::new(WriteError {
            path: path.to_owned(),
            source,
        })
    })
}

/// The end of what a step wrote. A log that is damaged is shown as far as it can be read.
fn log_of(history: &History, step: &StepNote) -> StepLog {
    let mut log = StepLog::default();
    let Ok(Some(mut reader)) = history.log(step) else {
        return log;
    };
    while let Ok(Some(piece)) = reader.next_piece() {
        log.text.extend_from_slice(&piece.bytes);
        // Cut now and then, not with every piece.
        if log.text.len() > 2 * MOST_LOG {
            log.cut();
        }
    }
    log.cut();
    log
}

/// `rbuild graph`
pub(super) fn graph(
    args: &GraphArgs,
    global: &GlobalArgs,
    variables: &Variables,
) -> Result<ExitCode, Failure> {
    let nodes = match &args.build {
        Some(build) => {
            let engine = open_engine(global, &IsolationArgs::default(), variables)?;
            let history = History::new(engine.store().clone());
            let build = history.find(build).map_err(super::past::failed)?;
            let detail = history.detail(&build.id).map_err(super::past::failed)?;
            detail.steps.iter().map(Node::of).collect()
        }
        None => planned(args, global, variables)?,
    };
    let text = match args.format {
        GraphFormat::Dot => graph::dot(&nodes),
        GraphFormat::Mermaid => graph::mermaid(&nodes),
        GraphFormat::Svg => graph::svg(&nodes, true),
        GraphFormat::Json => format!("{:#}", graph::json(&nodes)),
    };
    crate::ui::print_line(text.trim_end());
    Ok(ExitCode::SUCCESS)
}

fn planned(
    args: &GraphArgs,
    global: &GlobalArgs,
    variables: &Variables,
) -> Result<Vec<Node>, Failure> {
    let options = BuildRequest::of_graph(args, variables)?;
    super::commands::check_context(&options, true)?;
    // As for checks: a store that can't be written is no reason not to draw.
    let engine = open_engine(global, &IsolationArgs::default(), variables).ok();
    let steps = runtime()?.block_on(async {
        // stdin can be read once, and a plan can be drawn where a build could not begin.
        let is_read_once = matches!(options.context, ContextSource::Stdin)
            || matches!(options.dockerfile, Some(DockerfileSource::Stdin));
        if !is_read_once
            && let Some(engine) = &engine
            && let Ok(steps) = engine.forecast(&options).await
        {
            return Ok(steps);
        }
        check::graph(engine.as_ref(), &options).await
    });
    let steps = steps.map_err(|error| Failure::of_build(error, |_| Vec::new()))?;
    Ok(steps.into_iter().map(Node::of_plan).collect())
}
