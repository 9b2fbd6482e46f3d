//! `parser/cases.jsonl`, `ast.jsonl` and `fuzz.jsonl`: accept or reject, phase, lines, and the syntax tree.

use std::collections::HashMap;

use rbuild_frontend::diagnostic::{Diagnostic, Phase};
use rbuild_frontend::source::{Lines, Source};
use rbuild_frontend::{ast, instructions};
use serde_json::{Value, json};

use super::dump;
use super::rows::{Report, rows, text};

/// What the reference says about a file.
#[derive(Debug, PartialEq)]
enum Outcome {
    Accepted {
        escape: String,
        warnings: usize,
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
            warnings: row["warnings"].as_array().map_or(0, Vec::len),
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
            warnings: program
                .warnings
                .iter()
                .filter(|warning| warning.code == "NoEmptyContinuation")
                .count(),
            has_no_stages: program.stages.is_empty(),
        },
        Err(errors) => Outcome::Rejected {
            phase: errors.first().phase,
            lines: reference_lines(source, errors.first()),
        },
    }
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
    let Some(rows) = rows("parser/cases.jsonl") else {
        return;
    };
    let mut report = Report::new("parser/cases.jsonl");
    for row in &rows {
        report.compare(
            text(row, "dockerfile"),
            &expected_outcome(row),
            &outcome(&source(row)),
        );
    }
    report.finish();
}

#[test]
fn fuzz() {
    let Some(rows) = rows("parser/fuzz.jsonl") else {
        return;
    };
    let mut report = Report::new("parser/fuzz.jsonl");
    for row in &rows {
        report.compare(
            text(row, "dockerfile"),
            &expected_outcome(row),
            &outcome(&source(row)),
        );
        if row["nodes"].is_array() {
            compare_trees(&mut report, row, row);
        }
    }
    report.finish();
}

#[test]
fn trees() {
    let (Some(cases), Some(trees)) = (rows("parser/cases.jsonl"), rows("parser/ast.jsonl")) else {
        return;
    };
    let cases: HashMap<&str, &Value> = cases.iter().map(|row| (text(row, "id"), row)).collect();
    let mut report = Report::new("parser/ast.jsonl");
    for row in &trees {
        compare_trees(&mut report, cases[text(row, "id")], row);
    }
    report.finish();
}

fn compare_trees(report: &mut Report, case: &Value, expected: &Value) {
    let found = match ast::parse(&source(case)) {
        Ok(file) if file.nodes.iter().any(has_flag_beyond_ascii) => return,
        Ok(file) => (
            file.nodes.iter().map(dump::node).collect::<Vec<_>>(),
            dump::expression(&file.nodes),
        ),
        Err(errors) => (vec![json!(errors.to_string())], String::new()),
    };
    let nodes = expected["nodes"].as_array().cloned().unwrap_or_default();
    report.compare(
        text(case, "dockerfile"),
        &(nodes, text(expected, "ast").to_owned()),
        &found,
    );
}

/// docs/differences.md: the reference reads flags byte by byte.
fn has_flag_beyond_ascii(node: &ast::Node) -> bool {
    node.flags.iter().any(|flag| !flag.text.is_ascii())
}
