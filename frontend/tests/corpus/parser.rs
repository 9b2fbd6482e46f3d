//! `parser/cases.jsonl`, `ast.jsonl` and `fuzz.jsonl`: accept or reject, phase, lines, and the syntax tree.

use rbuild_frontend::diagnostic::{Diagnostic, Phase};
use rbuild_frontend::source::{Lines, Source};
use rbuild_frontend::{ast, instructions};
use serde_json::{Value, json};

use super::dump;
use super::rows::{Report, dockerfile_of, dockerfiles, notice, root, rows, rows_of, text};

/// What the reference says about a file.
#[derive(Debug, PartialEq)]
enum Outcome {
    Accepted {
        escape: String,
        /// The texts of the instructions that a blank line stands in.
        blank_continuations: Vec<String>,
        has_no_stages: bool,
    },
    Rejected {
        phase: Phase,
        lines: Vec<u64>,
    },
}

fn expected_outcome(row: &Value) -> Outcome {
    if text(row, "expected") == "accepted" {
        return Outcome::Accepted {
            escape: text(row, "escape").to_owned(),
            blank_continuations: row["warnings"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(|warning| {
                    let instruction = warning.split_once(": ");
                    instruction.map_or(warning, |(_, text)| text).to_owned()
                })
                .collect(),
            has_no_stages: row["no_stages"] == json!(true),
        };
    }
    Outcome::Rejected {
        phase: match text(row, "phase") {
            "parse" => Phase::Parse,
            "instructions" => Phase::Instructions,
            other => panic!("unknown phase {other}"),
        },
        lines: row["error_lines"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_u64)
            .collect(),
    }
}

fn outcome(source: &Source) -> Outcome {
    match instructions::parse(source) {
        Ok(program) => Outcome::Accepted {
            escape: program.escape.to_string(),
            blank_continuations: blank_continuations(source),
            has_no_stages: program.stages.is_empty(),
        },
        Err(errors) => Outcome::Rejected {
            phase: errors.first().phase,
            lines: reference_lines(source, errors.first()),
        },
    }
}

/// Joined texts of the instructions that a blank line stands in.
fn blank_continuations(source: &Source) -> Vec<String> {
    let file = ast::parse(source).expect("it has been accepted");
    let lines: Vec<usize> = file
        .frame
        .warnings
        .iter()
        .map(|warning| source.lines(warning.span).last)
        .collect();
    let nodes = file.nodes.iter();
    // A warning stands on the last of an instruction's continued lines; only heredocs can follow.
    nodes
        .filter(|node| {
            lines
                .iter()
                .any(|line| (node.lines.first..=node.lines.last).contains(line))
        })
        .map(|node| node.text.to_string())
        .collect()
}

/// The lines that the reference gives for one of our errors.
fn reference_lines(source: &Source, error: &Diagnostic) -> Vec<u64> {
    let Lines { first, last } = error
        .instruction_lines
        .unwrap_or_else(|| source.lines(error.span));
    let shift = match error.code {
        // docs/differences.md: it counts from 0 here.
        "repeated-directive" | "invalid-escape" => 1,
        "no-instructions" if source.text().is_empty() => 1,
        _ => 0,
    };
    (first..=last).map(|line| (line - shift) as u64).collect()
}

fn source(row: &Value) -> Source {
    Source::new("Dockerfile", text(row, "dockerfile").as_bytes())
}

#[test]
fn cases() {
    let rows = rows("parser/cases.jsonl");
    let mut report = Report::new("parser/cases.jsonl");
    for row in &rows {
        report.compare_file(
            (text(row, "dockerfile"), row),
            &expected_outcome(row),
            &outcome(&source(row)),
        );
    }
    report.finish();
}

#[test]
fn fuzz() {
    let rows = rows_of(&root(), "parser/fuzz.jsonl");
    let mut report = Report::new("parser/fuzz.jsonl");
    for row in &rows {
        report.compare_file(
            (text(row, "dockerfile"), row),
            &expected_outcome(row),
            &outcome(&source(row)),
        );
        if row["nodes"].is_array() {
            compare_trees(&mut report, text(row, "dockerfile"), row);
        }
    }
    report.finish();
}

#[test]
fn trees() {
    let (cases, trees) = (dockerfiles(), rows("parser/ast.jsonl"));
    let mut report = Report::new("parser/ast.jsonl");
    for row in &trees {
        compare_trees(&mut report, dockerfile_of(&cases, row), row);
    }
    report.finish();
}

fn compare_trees(report: &mut Report, dockerfile: &str, expected: &Value) {
    let found = match ast::parse(&Source::new("Dockerfile", dockerfile.as_bytes())) {
        Ok(file) => {
            let nodes: Vec<_> = file.nodes.iter().map(in_bytes).collect();
            (
                nodes.iter().map(dump::node).collect::<Vec<_>>(),
                dump::expression(&nodes),
            )
        }
        Err(errors) => (vec![json!(errors.to_string())], String::new()),
    };
    let nodes = expected["nodes"].as_array().cloned().unwrap_or_default();
    report.compare_file(
        (dockerfile, expected),
        &(nodes, text(expected, "ast").to_owned()),
        &found,
    );
}

/// docs/differences.md: the reference reads flags byte by byte, each byte a character.
fn in_bytes(node: &ast::Node<'static>) -> ast::Node<'static> {
    let mut node = node.clone();
    for flag in &mut node.flags {
        flag.text = flag.text.bytes().map(char::from).collect();
    }
    if let ast::Arguments::Trigger(trigger) = &mut node.arguments {
        **trigger = in_bytes(trigger);
    }
    node
}

/// The dumps that the reference keeps for its own tests; a folder without one must be refused.
#[test]
fn kept_dumps() {
    let folder = root().join("parser/buildkit-testfiles");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        notice(&format!("skipped: no corpus folder {}", folder.display()));
        return;
    };
    let mut report = Report::new("parser/buildkit-testfiles");
    for entry in entries {
        let folder = entry.unwrap().path();
        let dockerfile = std::fs::read_to_string(folder.join("Dockerfile")).unwrap();
        let result = std::fs::read_to_string(folder.join("result")).ok();
        let found = ast::parse(&Source::new("Dockerfile", dockerfile.as_bytes()))
            .ok()
            .map(|file| dump::expression(&file.nodes));
        let expected = result.map(|result| result.trim().to_owned());
        report.compare(&dockerfile, &expected, &found);
    }
    report.finish();
}
