//! `parser/image-config.jsonl`, its `lint` part: build checks that the text alone can fire.

use std::collections::HashMap;

use rbuild_frontend::checks::CheckSettings;
use rbuild_frontend::instructions;
use rbuild_frontend::source::Source;
use serde_json::{Value, json};

use super::rows::{Report, rows, text};

/// The rules that the planner has no part in.
const TEXT_RULES: [&str; 12] = [
    "ConsistentInstructionCasing",
    "DuplicateStageName",
    "FromAsCasing",
    "InvalidDefinitionDescription",
    "LegacyKeyValueFormat",
    "MaintainerDeprecated",
    "MultipleInstructionsDisallowed",
    "NoEmptyContinuation",
    "RedundantTargetPlatform",
    "ReservedStageName",
    "SecretsUsedInArgOrEnv",
    "StageNameCasing",
];

#[test]
fn text_rules() {
    let (Some(cases), Some(images)) = (
        rows("parser/cases.jsonl"),
        rows("parser/image-config.jsonl"),
    ) else {
        return;
    };
    let cases: HashMap<&str, &str> = cases
        .iter()
        .map(|row| (text(row, "id"), text(row, "dockerfile")))
        .collect();
    let mut report = Report::new("parser/image-config.jsonl (text rules)");
    for row in &images {
        let dockerfile = cases[text(row, "id")];
        // A conversion that failed reported only part of its warnings.
        if row["ok"] == json!(true) && row["all_stages_error"].is_null() {
            report.compare(dockerfile, &expected(row), &fired(dockerfile));
        }
    }
    report.finish();
}

/// Rule and lines of each warning, sorted.
type Fired = Vec<(String, Vec<u64>)>;

fn expected(row: &Value) -> Fired {
    let lines = |warning: &Value| {
        warning["lines"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_u64)
            .collect()
    };
    let warnings = row["lint"].as_array().into_iter().flatten();
    let mut fired: Fired = warnings
        .map(|warning| (text(warning, "rule").to_owned(), lines(warning)))
        .collect();
    fired.retain(|(rule, _)| TEXT_RULES.contains(&rule.as_str()));
    fired.sort();
    fired
}

fn fired(dockerfile: &str) -> Fired {
    let source = Source::new("Dockerfile", dockerfile.as_bytes());
    let program = instructions::parse(&source).expect("the reference builds it");
    let settings = CheckSettings::of(&program, None).expect("the reference builds it");
    let mut fired: Fired = Vec::new();
    for warning in program
        .warnings
        .iter()
        .filter(|warning| settings.keeps(warning.code))
    {
        let lines = warning
            .instruction_lines
            .unwrap_or_else(|| source.lines(warning.span));
        fired.push((
            warning.code.to_owned(),
            (lines.first as u64..=lines.last as u64).collect(),
        ));
    }
    fired.sort();
    fired
}
