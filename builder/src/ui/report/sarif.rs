//! SARIF 2.1.0 (OASIS): what code hosts and editors read findings from.

use rbuild::check::Report;
use rbuild_frontend::codes::{self, Code};
use rbuild_frontend::diagnostic::{Diagnostic, Severity};
use rbuild_frontend::source::Span;
use serde_json::{Value, json};

use super::{Region, findings, shown_path};

pub(super) fn log(report: &Report) -> Value {
    let mut names: Vec<&str> = findings(report).map(|found| found.code).collect();
    names.sort_unstable();
    names.dedup();
    let results: Vec<Value> = findings(report)
        .map(|found| result(report, found, &names))
        .collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "rbuild",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": names.iter().map(|name| rule(name)).collect::<Vec<_>>(),
            }},
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn rule(name: &str) -> Value {
    let (summary, why, fix, level) = match codes::find(name) {
        Some(Code::Rule(rule)) => (rule.summary, rule.why, rule.fix, "warning"),
        Some(Code::Error(error)) => (error.summary, error.why, "", "error"),
        None => return json!({ "id": name }),
    };
    let help = if fix.is_empty() { why } else { fix };
    json!({
        "id": name,
        "shortDescription": { "text": summary },
        "fullDescription": { "text": why },
        "help": { "text": help },
        "defaultConfiguration": { "level": level },
    })
}

fn result(report: &Report, found: &Diagnostic, names: &[&str]) -> Value {
    let message = match &found.help {
        Some(help) => format!("{}\n{help}", found.message),
        None => found.message.clone(),
    };
    let mut result = json!({
        "ruleId": found.code,
        "ruleIndex": names.binary_search(&found.code).unwrap_or_default(),
        "level": match found.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        },
        "message": { "text": message },
        "locations": [{ "physicalLocation": place(report, found.span) }],
    });
    if !found.notes.is_empty() {
        let note = |(id, (span, words)): (usize, &(Span, String))| {
            json!({
                "id": id,
                "message": { "text": words },
                "physicalLocation": place(report, *span),
            })
        };
        result["relatedLocations"] = found.notes.iter().enumerate().map(note).collect();
    }
    if !found.edits.is_empty() {
        let replacement = |edit: &rbuild_frontend::diagnostic::Edit| {
            json!({
                "deletedRegion": region(report, edit.span),
                "insertedContent": { "text": edit.text },
            })
        };
        let help = found.help.as_deref().unwrap_or(&found.message);
        result["fixes"] = json!([{
            "description": { "text": help },
            "artifactChanges": [{
                "artifactLocation": artifact(report),
                "replacements": found.edits.iter().map(replacement).collect::<Vec<_>>(),
            }],
        }]);
    }
    result
}

fn place(report: &Report, span: Span) -> Value {
    json!({ "artifactLocation": artifact(report), "region": region(report, span) })
}

/// A URI reference, relative to where the check ran unless the path is absolute.
fn artifact(report: &Report) -> Value {
    let path = shown_path(report.path.as_deref(), &report.source);
    let mut uri = if path.starts_with('/') {
        "file://".to_owned()
    } else {
        String::new()
    };
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri = format!("{uri}%{byte:02X}");
        }
    }
    json!({ "uri": uri })
}

fn region(report: &Report, span: Span) -> Value {
    let region = Region::of(&report.source, span);
    json!({
        "startLine": region.line,
        "startColumn": region.column,
        "endLine": region.end_line,
        "endColumn": region.end_column,
    })
}
