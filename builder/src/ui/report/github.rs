//! Workflow commands of GitHub Actions: one line each, which the run shows beside the code.

use rbuild::check::Report;
use rbuild_frontend::diagnostic::{Diagnostic, Severity};
use rbuild_frontend::source::Source;

use super::{Region, findings, shown_path};

pub(super) fn commands(report: &Report) -> String {
    let path = shown_path(report.path.as_deref(), &report.source);
    findings(report)
        .map(|found| annotation(found, &report.source, &path))
        .collect()
}

/// One finding beside its line of `path`.
pub(crate) fn annotation(found: &Diagnostic, source: &Source, path: &str) -> String {
    let level = match found.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let Region {
        line,
        column,
        end_line,
        end_column,
    } = Region::of(source, found.span);
    // Columns are for one line only; the end is inclusive.
    let columns = if line == end_line {
        format!(",col={column},endColumn={}", end_column.max(column + 1) - 1)
    } else {
        String::new()
    };
    let help = found.help.as_deref().map(|help| format!("\n{help}"));
    let message = format!("{}{}", found.message, help.unwrap_or_default());
    format!(
        "::{level} file={},line={line},endLine={end_line}{columns},title={}::{}\n",
        property(path),
        property(found.code),
        data(&message)
    )
}

/// What ends a command, or begins an escape.
fn data(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

/// The same, and what ends a property.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
