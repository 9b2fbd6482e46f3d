//! `parser/image-config.jsonl`, its `lint` part: build checks.

use rbuild_frontend::checks::CheckSettings;
use rbuild_frontend::diagnostic::Diagnostic;
use rbuild_frontend::instructions;
use rbuild_frontend::source::{Lines, Source};
use serde_json::Value;

use super::rows::{Report, dockerfile_of, dockerfiles, rows, text};

/// The rules that are through before anything is evaluated: what is wrong later does not hide them.
const TEXT_RULES: [&str; 8] = [
    "ConsistentInstructionCasing",
    "DuplicateStageName",
    "FromAsCasing",
    "InvalidDefinitionDescription",
    "MaintainerDeprecated",
    "NoEmptyContinuation",
    "ReservedStageName",
    "StageNameCasing",
];

/// The reference's canned base made this one fire by itself, so the table leaves it out.
const LEFT_OUT: &str = "InvalidBaseImagePlatform";

/// Rule and lines of each warning, sorted.
pub(crate) type Fired = Vec<(String, Vec<u64>)>;

/// Those that the reference reported for a row.
pub(crate) fn recorded(row: &Value, counts: impl Fn(&str) -> bool) -> Fired {
    let lines = |warning: &Value| {
        let lines = warning["lines"].as_array().into_iter().flatten();
        lines.filter_map(Value::as_u64).collect()
    };
    let warnings = row["lint"].as_array().into_iter().flatten();
    let mut fired: Fired = warnings
        .map(|warning| (text(warning, "rule").to_owned(), lines(warning)))
        .filter(|(rule, _)| counts(rule))
        .collect();
    fired.sort();
    fired
}

/// Our own.
pub(crate) fn fired<'a>(
    source: &Source,
    warnings: impl IntoIterator<Item = &'a Diagnostic>,
    counts: impl Fn(&str) -> bool,
) -> Fired {
    let warnings = warnings
        .into_iter()
        .filter(|warning| counts(warning.code) && warning.code != LEFT_OUT);
    let mut fired: Fired = warnings
        .map(|warning| {
            let Lines { first, last } = warning
                .instruction_lines
                .unwrap_or_else(|| source.lines(warning.span));
            (
                warning.code.to_owned(),
                (first as u64..=last as u64).collect(),
            )
        })
        .collect();
    fired.sort();
    fired
}

#[test]
fn text_rules() {
    let (cases, images) = (dockerfiles(), rows("parser/image-config.jsonl"));
    let mut report = Report::new("parser/image-config.jsonl (text rules)");
    let counts = |rule: &str| TEXT_RULES.contains(&rule);
    for row in &images {
        let dockerfile = dockerfile_of(&cases, row);
        let source = Source::new("Dockerfile", dockerfile.as_bytes());
        let program = match instructions::parse(&source) {
            Ok(program) => program,
            Err(errors) => {
                report.compare_file(
                    (dockerfile, row),
                    &"accepted".to_owned(),
                    &errors.to_string(),
                );
                continue;
            }
        };
        // Without a stage, and with options that can't be read, the reference stops before any check.
        let Ok(settings) = CheckSettings::of(&program, None) else {
            continue;
        };
        if program.stages.is_empty() {
            continue;
        }
        let kept = settings.kept(&program, program.warnings().into_iter());
        let found = fired(&source, &kept, counts);
        report.compare_file((dockerfile, row), &recorded(row, counts), &found);
    }
    report.finish();
}
