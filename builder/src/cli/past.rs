//! The verbs about past builds: builds, logs, explain.

use std::process::ExitCode;
use std::time::Duration;

use rbuild::history::{self, BuildDetail, History, PastBuild, PastError, StepNote};
use rbuild_cache::{BuildStatus, StepLogReader};

use super::args::{BuildsArgs, BuildsVerb, ExplainArgs, ListFormat, LogsArgs};
use super::error::UsageError;
use super::failure::Failure;
use crate::ui::past;

/// How often a log that grows is looked at again.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(200);

pub(super) fn failed(error: PastError) -> Failure {
    let help = error.help();
    Failure::with_help(error, help)
}

/// `rbuild builds`
pub(super) fn builds(args: &BuildsArgs, history: &History) -> Result<ExitCode, Failure> {
    match &args.verb {
        None => {
            let builds = history.list(args.number).map_err(failed)?;
            past::print_builds(&builds, args.format == ListFormat::Json);
        }
        Some(BuildsVerb::Show { build, format }) => {
            let build = history.find(build).map_err(failed)?;
            let detail = history.detail(&build.id).map_err(failed)?;
            past::print_build(&build, &detail, *format == ListFormat::Json);
        }
        Some(BuildsVerb::Rm { builds, all }) => remove(builds, *all, history)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn remove(builds: &[String], all: bool, history: &History) -> Result<(), Failure> {
    let mut ids = Vec::new();
    if all {
        let ended = history.list(usize::MAX).map_err(failed)?.into_iter();
        ids.extend(
            ended
                .filter(|build| build.status != BuildStatus::Running)
                .map(|build| build.id),
        );
    }
    for text in builds {
        let build = history.find(text).map_err(failed)?;
        if build.status == BuildStatus::Running {
            return Err(failed(PastError::Running { build: build.id }));
        }
        ids.push(build.id);
    }
    let dropped = history.remove(&ids).map_err(failed)?;
    past::print_removed(&dropped);
    Ok(())
}

/// `rbuild explain`
pub(super) fn explain(args: &ExplainArgs, history: &History) -> Result<ExitCode, Failure> {
    let (build, step) = match (&args.tag, &args.build, &args.step) {
        (Some(name), step, None) => (history.find_by_name(name), step.as_ref()),
        (Some(_), _, Some(_)) => {
            return Err(UsageError::Conflict {
                first: "--tag",
                second: "BUILD",
                reason: "both say which build",
                help: Some("leave one of them out"),
            }
            .into());
        }
        (None, Some(build), Some(step)) => (history.find(build), Some(step)),
        // One word is a build if it means one, else a step of the last build.
        (None, Some(word), None) if !history.has(word) && !word.starts_with('-') => {
            (history.find("last"), Some(word))
        }
        (None, build, _) => (history.find(build.as_deref().unwrap_or("last")), None),
    };
    let build = build.map_err(failed)?;
    let detail = history.detail(&build.id).map_err(failed)?;
    let chosen = match step {
        None => None,
        Some(text) => Some(history::find_step(&build.id, &detail.steps, text).map_err(failed)?),
    };
    past::print_explanation(&build, &detail, chosen, args.format == ListFormat::Json);
    Ok(ExitCode::SUCCESS)
}

/// `rbuild logs`
pub(super) fn logs(args: &LogsArgs, history: &History) -> Result<ExitCode, Failure> {
    let (build, step) = match (&args.build, &args.step) {
        (Some(word), None) if !history.has(word) && !word.starts_with('-') => {
            ("last", Some(word.as_str()))
        }
        (build, step) => (build.as_deref().unwrap_or("last"), step.as_deref()),
    };
    let build = history.find(build).map_err(failed)?;
    if args.follow && build.status == BuildStatus::Running {
        return follow(&build, step, history);
    }
    let detail = history.detail(&build.id).map_err(failed)?;
    for index in chosen(&build, &detail, step)? {
        let note = &detail.steps[index];
        let log = history.log(note).map_err(failed)?;
        // One step: nothing but its bytes. All of them: each under its name, those that wrote nothing left out.
        match (step, log) {
            (None, Some(log)) => {
                past::print_log_head(&build.id, note);
                print_all(log)?;
            }
            (Some(_), Some(log)) => print_all(log)?,
            (Some(_), None) => past::print_no_log(note),
            (None, None) => {}
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn chosen(
    build: &PastBuild,
    detail: &BuildDetail,
    step: Option<&str>,
) -> Result<Vec<usize>, Failure> {
    Ok(match step {
        None => (0..detail.steps.len()).collect(),
        Some(text) => vec![history::find_step(&build.id, &detail.steps, text).map_err(failed)?],
    })
}

fn print_all(mut log: StepLogReader) -> Result<(), Failure> {
    let mut printer = past::LogPrinter::new();
    while let Some(piece) = log.next_piece().map_err(|error| failed(error.into()))? {
        printer.print(&piece);
    }
    printer.finish();
    if !log.is_whole() {
        past::print_log_cut();
    }
    Ok(())
}

/// What is there, and then what comes, until the build is over. Steps that run at the same time are shown line by line
/// as they are found, under their names.
fn follow(build: &PastBuild, step: Option<&str>, history: &History) -> Result<ExitCode, Failure> {
    let mut shown: std::collections::BTreeMap<usize, usize> = std::collections::BTreeMap::new();
    let mut last = None;
    loop {
        // Asked first: what was written before the build's end is printed after it was seen.
        let status = history.find(&build.id).map_err(failed)?.status;
        let detail = history.detail(&build.id).map_err(failed)?;
        let steps = match step {
            // The plan may not be there yet.
            Some(_) if detail.steps.is_empty() => Vec::new(),
            step => chosen(build, &detail, step)?,
        };
        for index in steps {
            let note: &StepNote = &detail.steps[index];
            let Some(mut log) = history.log(note).map_err(failed)? else {
                continue;
            };
            let seen = shown.entry(index).or_default();
            let mut printer = past::LogPrinter::new();
            let mut position = 0;
            while let Some(piece) = log.next_piece().map_err(|error| failed(error.into()))? {
                if position >= *seen {
                    if step.is_none() && last != Some(index) {
                        past::print_log_head(&build.id, note);
                        last = Some(index);
                    }
                    printer.print(&piece);
                }
                position += 1;
            }
            printer.pause();
            *seen = position.max(*seen);
        }
        if status != BuildStatus::Running {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(FOLLOW_INTERVAL);
    }
}
