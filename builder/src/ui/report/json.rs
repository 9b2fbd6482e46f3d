//! JSON in the reference's shape: `ruleName`, `detail`, `location.ranges`; what it does not have stands beside.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rbuild::check::{Needed, Outline, Report, Targets};
use rbuild_frontend::codes::{self, Code};
use rbuild_frontend::diagnostic::{Diagnostic, Severity};
use rbuild_frontend::source::{Lines, Source};
use serde_json::{Map, Value, json};

use super::{Region, shown_path};

pub(super) fn check(report: &Report) -> Value {
    let warnings = report.warnings.iter();
    let warnings: Vec<Value> = warnings.map(|found| warning(report, found)).collect();
    let source = json!({
        "filename": shown_path(report.path.as_deref(), &report.source),
        "language": "Dockerfile",
        "data": STANDARD.encode(report.source.text()),
    });
    let mut result = json!({ "warnings": warnings, "sources": [source] });
    if let Some(first) = report.errors.first() {
        // The reference has one error and no more.
        result["buildError"] = json!({
            "message": first.message,
            "location": location(lines_of(report, first)),
        });
        let errors = report.errors.iter();
        result["errors"] = errors.map(|found| warning(report, found)).collect();
    }
    result
}

fn warning(report: &Report, found: &Diagnostic) -> Value {
    let region = Region::of(&report.source, found.span);
    let description = match codes::find(found.code) {
        Some(Code::Rule(rule)) => rule.summary,
        Some(Code::Error(error)) => error.summary,
        None => "",
    };
    json!({
        "ruleName": found.code,
        "description": description,
        "detail": found.message,
        "location": location(lines_of(report, found)),
        "severity": match found.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        },
        "help": found.help,
        "place": {
            "line": region.line, "column": region.column,
            "endLine": region.end_line, "endColumn": region.end_column,
        },
        "isMendable": !found.edits.is_empty(),
    })
}

/// What the reference points at: the whole instruction.
fn lines_of(report: &Report, found: &Diagnostic) -> Lines {
    let lines = || report.source.lines(found.span);
    found.instruction_lines.unwrap_or_else(lines)
}

fn location(lines: Lines) -> Value {
    json!({ "ranges": [{ "start": { "line": lines.first }, "end": { "line": lines.last } }] })
}

pub(super) fn outline(outline: &Outline) -> Value {
    let mut result = Map::new();
    let mut insert = |key: &str, value: Value| {
        result.insert(key.to_owned(), value);
    };
    if let Some(name) = &outline.name {
        insert("name", json!(name));
    }
    if let Some(description) = &outline.description {
        insert("description", json!(description));
    }
    let arguments = outline.arguments.iter().map(|argument| {
        without_nothing(json!({
            "name": argument.name,
            "description": argument.description,
            "value": argument.value.as_deref().filter(|value| !value.is_empty()),
            "location": location(argument.lines),
        }))
    });
    let needed = |needed: &Needed| {
        without_nothing(json!({
            "name": needed.id,
            "required": needed.is_required.then_some(true),
            "location": location(needed.lines),
        }))
    };
    let cache = |needed: &Needed| json!({ "ID": needed.id, "location": location(needed.lines) });
    let lists: [(&str, Vec<Value>); 4] = [
        ("args", arguments.collect()),
        ("secrets", outline.secrets.iter().map(needed).collect()),
        ("ssh", outline.ssh.iter().map(needed).collect()),
        ("cache", outline.caches.iter().map(cache).collect()),
    ];
    for (key, list) in lists {
        if !list.is_empty() {
            insert(key, Value::Array(list));
        }
    }
    insert("sources", sources(&outline.source));
    Value::Object(result)
}

pub(super) fn targets(targets: &Targets) -> Value {
    let count = targets.stages.len();
    let stages = targets.stages.iter().enumerate().map(|(index, stage)| {
        without_nothing(json!({
            "name": stage.name,
            "default": (index + 1 == count).then_some(true),
            "description": stage.description(),
            "base": stage.base,
            "platform": stage.platform,
            "location": location(stage.lines),
        }))
    });
    json!({ "targets": stages.collect::<Vec<_>>(), "sources": sources(&targets.source) })
}

fn sources(source: &Source) -> Value {
    json!([STANDARD.encode(source.text())])
}

/// Absent, not null.
fn without_nothing(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .collect(),
        other => other,
    }
}
