//! Past builds on stdout.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use rbuild::explain::Reason;
use rbuild::history::{BuildDetail, PastBuild, StepNote, StepState};
use rbuild_cache::{BuildStatus, HistoryDropped, KeyPart, LogPiece};
use serde_json::{Value, json};

use super::ansi::clean_line;
use super::table::table;
use super::{print_json, units, write_stderr, write_stdout};

/// Characters of an instruction beside its state.
const TITLE_WIDTH: usize = 60;

/// `rbuild builds`
pub(crate) fn print_builds(builds: &[PastBuild], is_json: bool) {
    if is_json {
        return print_json(&builds.iter().map(build_json).collect());
    }
    let row = |build: &PastBuild| {
        let summary = &build.summary;
        let what = match summary.names.as_slice() {
            [] => summary.context.clone(),
            names => names.join(", "),
        };
        let target = summary.target.as_deref();
        let target = target.map(|target| format!(" ({target})"));
        vec![
            build.id.clone(),
            build.started_text(),
            time_of(summary.duration),
            status_of(build.status).to_owned(),
            summary.done.to_string(),
            summary.cached.to_string(),
            clean(&format!("{what}{}", target.unwrap_or_default())),
        ]
    };
    let head = ["ID", "STARTED", "TIME", "RESULT", "RUN", "CACHED", "WHAT"];
    write_stdout(&table(&head, builds.iter().map(row)));
}

/// `rbuild builds show`
pub(crate) fn print_build(build: &PastBuild, detail: &BuildDetail, is_json: bool) {
    if is_json {
        let mut object = build_json(build);
        object["steps"] = detail.steps.iter().enumerate().map(step_json).collect();
        object["warnings"] = json!(detail.warnings);
        object["outputs"] = json!(detail.outputs);
        object["error"] = json!(detail.error);
        object["machine"] = json!(detail.machine);
        object["kernel"] = json!(detail.kernel);
        return print_json(&object);
    }
    let summary = &build.summary;
    let mut facts = vec![
        ("build", build.id.clone()),
        ("started", build.started_text()),
        ("time", time_of(summary.duration)),
        ("result", status_of(build.status).to_owned()),
        ("context", summary.context.clone()),
        ("file", summary.dockerfile.clone()),
    ];
    facts.extend(summary.target.clone().map(|target| ("target", target)));
    facts.push(("platform", summary.platforms.join(", ")));
    facts.extend(summary.names.iter().map(|name| ("name", name.clone())));
    facts.extend(summary.image_id.clone().map(|id| ("id", id)));
    facts.extend(
        detail
            .outputs
            .iter()
            .map(|output| ("output", output.clone())),
    );
    facts.push((
        "rbuild",
        format!(
            "{} on {}, Linux {}",
            summary.version, detail.machine, detail.kernel
        ),
    ));
    let fact = |(name, value): &(&str, String)| format!("{name:<8} {}", clean(value));
    let mut lines: Vec<String> = facts.iter().map(fact).collect();
    lines.push(String::new());
    let row = |(index, step): (usize, &StepNote)| {
        vec![
            (index + 1).to_string(),
            step.label(),
            state_of(step).to_owned(),
            time_of(step.duration),
            step.cpu.map(|_| time_of(step.cpu)).unwrap_or_default(),
            step.peak_memory.map(units::bytes).unwrap_or_default(),
            step.layer_size
                .filter(|_| !step.is_image)
                .map(units::bytes)
                .unwrap_or_default(),
            shorten(&step.title),
            why(build, step),
        ]
    };
    let head = [
        "#",
        "STEP",
        "STATE",
        "TIME",
        "CPU",
        "MEMORY",
        "SIZE",
        "INSTRUCTION",
        "WHY",
    ];
    let steps = table(&head, detail.steps.iter().enumerate().map(row));
    lines.extend(steps.lines().map(ToOwned::to_owned));
    let error = detail.error.iter().flat_map(|error| error.lines());
    let warnings = detail.warnings.iter().map(String::as_str);
    for (title, words) in [
        ("warnings", warnings.collect::<Vec<_>>()),
        ("error", error.collect()),
    ] {
        if !words.is_empty() {
            lines.extend([String::new(), title.to_owned()]);
            lines.extend(words.iter().map(|words| format!("  {}", clean(words))));
        }
    }
    write_lines(&lines);
}

fn write_lines(lines: &[String]) {
    write_stdout(&(lines.join("\n") + "\n"));
}

/// `rbuild explain`
pub(crate) fn print_explanation(
    build: &PastBuild,
    detail: &BuildDetail,
    chosen: Option<usize>,
    is_json: bool,
) {
    let steps = detail
        .steps
        .iter()
        .enumerate()
        .filter(|(index, _)| chosen.is_none_or(|chosen| chosen == *index));
    if is_json {
        let steps: Value = steps.map(step_json).collect();
        let status = status_of(build.status);
        return print_json(&json!({"build": build.id, "status": status, "steps": steps}));
    }
    let mut lines = vec![format!(
        "build {}, {}, {}",
        build.id,
        build.started_text(),
        status_of(build.status)
    )];
    for (_, step) in steps {
        lines.push(format!("{} {}", clean(&step.label()), clean(&step.title)));
        let words = explanation(build, step);
        lines.extend(words.iter().map(|words| format!("    {}", clean(words))));
        if chosen.is_some() {
            let part =
                |part: &KeyPart| format!("      {} = {}", clean(&part.name), clean(&part.value));
            lines.push("    its key is made of:".to_owned());
            lines.extend(step.shown_parts().map(part));
        }
    }
    write_lines(&lines);
}

/// What became of a step and why, a line each.
fn explanation(build: &PastBuild, step: &StepNote) -> Vec<String> {
    if step.is_image {
        return Vec::new();
    }
    let state = match step.state {
        StepState::Cached => match step.ran_in() {
            Some(other) if other != build.id => {
                format!("cached: nothing changed since build {other}")
            }
            _ => "cached: nothing changed".to_owned(),
        },
        StepState::Pending => "the build did not come to it".to_owned(),
        StepState::Running if build.status == BuildStatus::Running => "running:".to_owned(),
        StepState::Running => "it was running when the build ended:".to_owned(),
        StepState::Done => format!("ran for {}:", time_of(step.duration)),
        StepState::Failed => format!("failed after {}:", time_of(step.duration)),
        StepState::Cancelled => "stopped:".to_owned(),
    };
    let reasons = step.reasons.iter().map(ToString::to_string);
    match step.state {
        StepState::Cached | StepState::Pending => vec![state],
        _ => std::iter::once(state)
            .chain(reasons.map(|reason| format!("  {reason}")))
            .collect(),
    }
}

/// `rbuild builds rm`
pub(crate) fn print_removed(dropped: &HistoryDropped) {
    write_stdout(&format!(
        "removed {}, {} ({})\n",
        counted(dropped.builds, "build"),
        counted(dropped.logs, "log"),
        units::bytes(dropped.log_bytes)
    ));
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Stands before each step's log when several are printed.
pub(crate) fn print_log_head(build: &str, step: &StepNote) {
    let from = match step.ran_in() {
        Some(other) if other != build => format!(" (cached; from build {other})"),
        _ => String::new(),
    };
    write_stdout(&format!(
        "{} {}{from}\n",
        clean(&step.label()),
        clean(&step.title)
    ));
}

/// A step without a log.
pub(crate) fn print_no_log(step: &StepNote) {
    let why = match (step.state, &step.log) {
        _ if step.is_image => "an image is pulled, not run",
        (StepState::Pending, _) => "the build did not come to it",
        (_, None) => "it was taken from the cache, and its record names no run",
        _ => "it wrote nothing, or its log is not kept any more",
    };
    write_stderr(&format!("no log of {}: {why}\n", clean(&step.label())));
}

/// The writer of a log was killed, or writes still.
pub(crate) fn print_log_cut() {
    write_stderr("the log ends here: the step was still running\n");
}

/// Prints a step's output: as it was when it goes to a file or a pipe, made safe line by line on a terminal.
pub(crate) struct LogPrinter {
    is_terminal: bool,
    partial: Vec<u8>,
}

impl LogPrinter {
    pub(crate) fn new() -> Self {
        Self {
            is_terminal: io::stdout().is_terminal(),
            partial: Vec::new(),
        }
    }

    /// Both streams go to stdout: it is the log that is asked for.
    pub(crate) fn print(&mut self, piece: &LogPiece) {
        if !self.is_terminal {
            // Whoever closed the pipe does not want to know.
            let _ = io::stdout().lock().write_all(&piece.bytes);
            return;
        }
        self.partial.extend_from_slice(&piece.bytes);
        let Some(end) = self.partial.iter().rposition(|&byte| byte == b'\n') else {
            return;
        };
        let rest = self.partial.split_off(end + 1);
        let whole = std::mem::replace(&mut self.partial, rest);
        let lines = whole[..end].split(|&byte| byte == b'\n');
        let text: String = lines.map(|line| clean_line(line, true) + "\n").collect();
        write_stdout(&text);
    }

    /// Shows what has no line end yet.
    pub(crate) fn pause(&mut self) {
        if !self.partial.is_empty() {
            write_stdout(&clean_line(&std::mem::take(&mut self.partial), true));
        }
        // As in `print`.
        let _ = io::stdout().lock().flush();
    }

    /// Ends the last line on a terminal.
    pub(crate) fn finish(&mut self) {
        let has_partial = !self.partial.is_empty();
        self.pause();
        if has_partial {
            write_stdout("\n");
        }
    }
}

fn build_json(build: &PastBuild) -> Value {
    let mut object = json!(build.summary);
    object["id"] = json!(build.id);
    object["started"] = json!(build.started_text_utc());
    object["status"] = json!(status_of(build.status));
    object
}

fn step_json((index, step): (usize, &StepNote)) -> Value {
    let mut object = json!(step);
    object["step"] = json!(index + 1);
    object["label"] = json!(step.label());
    object["reasons"] = step.reasons.iter().map(reason_json).collect();
    let part = |part: &KeyPart| json!({"name": part.name, "value": part.value});
    object["parts"] = step.shown_parts().map(part).collect();
    object
}

/// A reason's fields, and the words for it.
pub(super) fn reason_json(reason: &Reason) -> Value {
    let mut object = json!(reason);
    object["text"] = json!(reason.to_string());
    object
}

/// Why a step ran, or where its result is from, in a few words.
fn why(build: &PastBuild, step: &StepNote) -> String {
    match step.state {
        StepState::Cached => match step.ran_in() {
            Some(other) if other != build.id => format!("from build {other}"),
            _ => String::new(),
        },
        _ => clean(&rbuild::explain::in_one_line(&step.reasons, 1)),
    }
}

pub(crate) fn status_of(status: BuildStatus) -> &'static str {
    match status {
        BuildStatus::Running => "running",
        BuildStatus::Done => "done",
        BuildStatus::Failed => "failed",
        BuildStatus::Interrupted => "interrupted",
    }
}

fn state_of(step: &StepNote) -> &'static str {
    match step.state {
        StepState::Pending if step.is_image => "not needed",
        StepState::Pending => "not reached",
        StepState::Running => "running",
        StepState::Cached => "cached",
        StepState::Done => "done",
        StepState::Failed => "failed",
        StepState::Cancelled => "stopped",
    }
}

fn time_of(milliseconds: Option<u64>) -> String {
    milliseconds.map_or_else(
        || "-".to_owned(),
        |milliseconds| units::duration(Duration::from_millis(milliseconds)),
    )
}

fn shorten(title: &str) -> String {
    let title = clean(title);
    if title.chars().count() <= TITLE_WIDTH {
        return title;
    }
    title.chars().take(TITLE_WIDTH - 1).chain(['…']).collect()
}

/// What a Dockerfile or a file name says must not move the cursor.
fn clean(text: &str) -> String {
    clean_line(text.as_bytes(), false)
}
