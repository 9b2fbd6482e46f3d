//! Answers to `rbuild check` and `--call`, on stdout: what was asked for is data, in whatever form.

mod explanation;
pub(super) mod github;
mod json;
mod outline;
#[cfg(test)]
mod rules_reference;
mod sarif;

use std::path::Path;

use rbuild::check::{Mend, Outline, Report, Targets};
use rbuild_frontend::codes::Code;
use rbuild_frontend::diagnostic::{Diagnostic, Severity};
use rbuild_frontend::source::{Source, Span};
use similar::{ChangeTag, TextDiff};

use super::ansi::clean_line;
use super::terminal::{Style, Terminal};
use super::{diagnostic, print_json, write_stderr, write_stdout};
use crate::cli::Format;

/// Prints what checks have to say.
pub(crate) fn print_check(report: &Report, format: Format) {
    match format {
        Format::Text => write_stdout(&text(report, Terminal::of_stdout())),
        Format::Json => print_json(&json::check(report)),
        Format::Sarif => print_json(&sarif::log(report)),
        Format::Github => write_stdout(&github::commands(report)),
    }
    for rbuild::check::UnknownImage { name, reason } in &report.unknown_images {
        write_stderr(&format!(
            "note: the image `{name}` could not be looked up, and checks that depend on it were left out: {reason}\n"
        ));
    }
}

/// Prints what a target can be given.
pub(crate) fn print_outline(outline: &Outline, format: Format) {
    if format == Format::Text {
        write_stdout(&outline::text(outline));
    } else {
        print_json(&json::outline(outline));
    }
}

/// Prints the stages.
pub(crate) fn print_targets(targets: &Targets, format: Format) {
    if format == Format::Text {
        write_stdout(&outline::targets(targets));
    } else {
        print_json(&json::targets(targets));
    }
}

/// Prints what a code means.
pub(crate) fn print_explanation(code: Code) {
    write_stdout(&explanation::text(code));
}

/// Prints what mending changes; false if that is nothing. Stdout is left to findings that a program reads.
pub(crate) fn print_mends(mend: &Mend, format: Format) -> bool {
    let (text, terminal) = if format.is_for_programs() {
        (diff(mend, Terminal::of_stderr()), Terminal::of_stderr())
    } else {
        (diff(mend, Terminal::of_stdout()), Terminal::of_stdout())
    };
    let has_mends = !text.is_empty();
    let count: usize = mend.mended.count.values().sum();
    let words = match count {
        0 if mend.mended.is_refused => {
            "nothing was mended: a file with errors is left as it is".to_owned()
        }
        0 => "nothing to mend".to_owned(),
        count => format!("{} mended", counted(count, "finding")),
    };
    let words = format!("{text}{}\n\n", terminal.paint(Style::Bold, &words));
    if format.is_for_programs() {
        write_stderr(&words);
    } else {
        write_stdout(&words);
    }
    has_mends
}

/// A unified diff, as `patch` takes it.
fn diff(mend: &Mend, terminal: Terminal) -> String {
    let (old, new) = (mend.source.text(), mend.mended.text.as_str());
    if old == new {
        return String::new();
    }
    let name = shown_path(mend.path.as_deref(), &mend.source);
    let diff = TextDiff::from_lines(old, new);
    let mut text = format!("--- {name}\n+++ {name}\n");
    for hunk in diff.unified_diff().context_radius(3).iter_hunks() {
        text = format!(
            "{text}{}\n",
            terminal.paint(Style::Cyan, &hunk.header().to_string())
        );
        for change in hunk.iter_changes() {
            let (mark, style) = match change.tag() {
                ChangeTag::Equal => (' ', None),
                ChangeTag::Delete => ('-', Some(Style::Red)),
                ChangeTag::Insert => ('+', Some(Style::Green)),
            };
            let value = change.value();
            // A carriage return at the end is kept: the diff may be applied.
            let line = value.trim_end_matches('\n');
            let (line, end) = line
                .strip_suffix('\r')
                .map_or((line, ""), |line| (line, "\r"));
            let line = format!("{mark}{}{end}", clean_line(line.as_bytes(), false));
            let line = style.map_or_else(|| line.clone(), |style| terminal.paint(style, &line));
            let missing = if value.ends_with('\n') {
                ""
            } else {
                "\\ No newline at end of file\n"
            };
            text = format!("{text}{line}\n{missing}");
        }
    }
    text
}

fn text(report: &Report, terminal: Terminal) -> String {
    let findings: Vec<String> = findings(report)
        .map(|found| diagnostic::render(found, &report.source, terminal) + "\n")
        .collect();
    findings.concat() + &summary(report, terminal)
}

/// The last line: how much was found, and how much of it a machine can mend.
fn summary(report: &Report, terminal: Terminal) -> String {
    let count = |severity| {
        findings(report)
            .filter(|found| found.severity == severity)
            .count()
    };
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let parts: Vec<String> = [(errors, "error"), (warnings, "warning")]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| counted(count, word))
        .collect();
    if parts.is_empty() {
        return format!("{}\n", terminal.paint(Style::Green, "no problems found"));
    }
    let mendable = findings(report).filter(|found| !found.edits.is_empty());
    let mendable = match mendable.count() {
        count if count > 0 && report.errors.is_empty() => {
            format!("; `rbuild check --fix` mends {count}")
        }
        _ => String::new(),
    };
    format!(
        "{}{mendable}\n",
        terminal.paint(Style::Bold, &parts.join(", "))
    )
}

/// `1 error`, `2 errors`
pub(super) fn counted(count: usize, word: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {word}{plural}")
}

fn findings(report: &Report) -> impl Iterator<Item = &Diagnostic> {
    report.errors.iter().chain(&report.warnings)
}

/// The path as tools that run in the same directory find it, else the name.
fn shown_path(path: Option<&Path>, source: &Source) -> String {
    let Some(path) = path else {
        return source.name().to_owned();
    };
    let path = path.to_string_lossy();
    path.strip_prefix("./").unwrap_or(&path).to_owned()
}

/// Lines and columns of a place, both counted from 1; the end is behind its last character.
struct Region {
    line: usize,
    column: usize,
    end_line: usize,
    end_column: usize,
}

impl Region {
    fn of(source: &Source, span: Span) -> Self {
        let (line, column) = source.position(span.start);
        let (end_line, end_column) = source.position(span.end.max(span.start));
        Self {
            line,
            column,
            end_line,
            end_column,
        }
    }
}

#[cfg(test)]
mod tests;
