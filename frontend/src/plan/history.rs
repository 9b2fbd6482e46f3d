//! How instructions are written in an image's history.
//!
//! Tools show and compare these texts, so their shape is the reference builder's to the byte: Go's way to print lists,
//! quoted strings and durations included.

use super::variables::{BuildArgs, Variables};
use crate::graph::{Input, Operation, PlannedHistory, Step, StepIndex};
use crate::image_config::{HealthcheckConfig, HistoryEntry};
use crate::letters;

/// What the reference puts into `comment`; tools recognise its images by it.
const COMMENT: &str = "buildkit.dockerfile.v0";

/// An entry without a layer.
pub(super) fn config_entry(created_by: String) -> PlannedHistory {
    new_entry(created_by, None)
}

/// An entry for a step's layer. `RUN`, `COPY` and `ADD` carry a mark at the end, `WORKDIR` doesn't.
pub(super) fn layer_entry(created_by: &str, step: StepIndex) -> PlannedHistory {
    new_entry(format!("{created_by} # buildkit"), Some(step))
}

/// The entry of a `WORKDIR`.
pub(super) fn workdir_entry(path: &str, step: Option<StepIndex>) -> PlannedHistory {
    new_entry(format!("WORKDIR {path}"), step)
}

fn new_entry(created_by: String, step: Option<StepIndex>) -> PlannedHistory {
    let entry = HistoryEntry {
        created_by,
        comment: COMMENT.to_owned(),
        empty_layer: step.is_none(),
        ..HistoryEntry::default()
    };
    PlannedHistory::New { entry, step }
}

/// The entry that is missing when a directory is the base: it has a layer, but nobody wrote an instruction for it.
///
/// As in the reference the others move down by one layer, and the last layer is told of by the name of its step. In
/// that name the directory has no number of its own.
pub(super) fn missing_entry(
    steps: &[Step],
    target: StepIndex,
    context: &str,
    has_one_stage: bool,
) -> PlannedHistory {
    let step = &steps[target.0];
    let is_directory = |step: &Step| {
        step.parent.is_none()
            && matches!(&step.operation, Operation::Copy(copy) if copy.from == Input::NamedContext(context.to_owned()))
    };
    let created_by = if is_directory(step) {
        format!("[context {context}] load from client")
    } else {
        let of_stage = |other: &&Step| other.stage == step.stage;
        let begins_here = steps.iter().filter(of_stage).any(is_directory);
        let number = step.number - usize::from(begins_here);
        let stage = match (&step.stage_name, has_one_stage) {
            (_, true) => String::new(),
            (Some(name), false) => format!("{name} "),
            (None, false) => format!("stage-{} ", step.stage.0),
        };
        let width = step.of.to_string().len();
        format!("[{stage}{number:width$}/{}] {}", step.of, step.title)
    };
    let entry = HistoryEntry {
        created_by,
        comment: "buildkit.exporter.image.v0".to_owned(),
        ..HistoryEntry::default()
    };
    PlannedHistory::New {
        entry,
        step: Some(target),
    }
}

/// `RUN |2 A=1 B= /bin/sh -c text`: build args in the order of their first declaration, with current values.
pub(super) fn run_text(argv: &[String], build_args: &BuildArgs, variables: &Variables) -> String {
    let mut parts = Vec::new();
    if !build_args.list().is_empty() {
        parts.push(format!("|{}", build_args.list().len()));
    }
    for (name, value) in build_args.list() {
        let value = variables.get(name).or(value.as_deref()).unwrap_or_default();
        parts.push(format!("{name}={value}"));
    }
    parts.extend(argv.iter().cloned());
    format!("RUN {}", parts.join(" "))
}

/// `[a b]`
pub(super) fn list(words: &[String]) -> String {
    format!("[{}]", words.join(" "))
}

/// `["a" "b"]`
pub(super) fn quoted_list(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| quote(word)).collect();
    format!("[{}]", quoted.join(" "))
}

/// A string literal of the Go language.
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            character if letters::is_printable(character) => quoted.push(character),
            character => {
                let number = u32::from(character);
                let (letter, width) = match number {
                    0..=0x7f => ('x', 2),
                    0x80..=0xffff => ('u', 4),
                    _ => ('U', 8),
                };
                quoted.extend(['\\', letter]);
                let digits = format!("{number:0width$x}");
                quoted.push_str(&digits);
            }
        }
    }
    quoted.push('"');
    quoted
}

/// `{Test:[CMD a] Interval:5s Timeout:0s StartPeriod:0s StartInterval:0s Retries:3}`
pub(super) fn healthcheck(check: &HealthcheckConfig) -> String {
    format!(
        "{{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        list(&check.test),
        duration(check.interval),
        duration(check.timeout),
        duration(check.start_period),
        duration(check.start_interval),
        check.retries
    )
}

/// Nanoseconds as Go prints a duration: `1h30m0s`, `1.5s`, `2ms`.
fn duration(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let total = nanoseconds.unsigned_abs();
    let decimal = |value: u64, unit: u64| {
        let fraction = format!("{:0width$}", value % unit, width = unit.ilog10() as usize);
        let fraction = fraction.trim_end_matches('0');
        let whole = value / unit;
        if fraction.is_empty() || unit == 1 {
            whole.to_string()
        } else {
            format!("{whole}.{fraction}")
        }
    };
    match total {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{total}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", decimal(total, 1_000)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", decimal(total, 1_000_000)),
        _ => {
            let minutes = total / 60_000_000_000;
            let seconds = decimal(total % 60_000_000_000, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_look_like_go() {
        for (nanoseconds, wanted) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (2_000_000, "2ms"),
            (1_000_001, "1.000001ms"),
            (1_500_000_000, "1.5s"),
            (5_000_000_000, "5s"),
            (60_000_000_000, "1m0s"),
            (5_400_000_000_000, "1h30m0s"),
            (3_600_000_000_001, "1h0m0.000000001s"),
            (-1_000_000_000, "-1s"),
        ] {
            assert_eq!(duration(nanoseconds), wanted);
        }
    }

    #[test]
    fn strings_are_quoted_like_go() {
        for (text, wanted) in [
            ("a \"b\" \\", r#""a \"b\" \\""#),
            ("\t\n\u{1}\u{7f}", r#""\t\n\x01\x7f""#),
            (
                "é☃\u{a0}\u{200b}\u{10ffff}",
                r#""é☃\u00a0\u200b\U0010ffff""#,
            ),
        ] {
            assert_eq!(quote(text), wanted);
        }
        assert_eq!(quoted_list(&[]), "[]");
    }

    #[test]
    fn run_lists_build_args_once() {
        let mut variables = Variables::default();
        variables.set("B", "now");
        let args = [
            ("A", Some("1")),
            ("B", Some("old")),
            ("C", None),
            ("A", Some("2")),
        ];
        let mut declared = BuildArgs::default();
        for (name, value) in args {
            declared.declare(name, value.map(str::to_owned));
        }
        assert_eq!(
            run_text(&["x".to_owned()], &declared, &variables),
            "RUN |3 A=2 B=now C= x"
        );
    }
}
