//! How instructions are written in an image's history.
//!
//! Tools show and compare these texts, so their shape is the reference builder's to the byte: Go's way to print lists,
//! quoted strings and durations included.

use std::collections::HashSet;

use super::variables::Variables;
use crate::graph::{PlannedHistory, StepIndex};
use crate::image_config::{HealthcheckConfig, HistoryEntry};

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

/// `RUN |2 A=1 B= /bin/sh -c text`: build args in the order of their first declaration, with current values.
pub(super) fn run_text(
    argv: &[String],
    build_args: &[(String, Option<String>)],
    variables: &Variables,
) -> String {
    let mut seen = HashSet::new();
    let names = build_args.iter().map(|(name, _)| name.as_str());
    let names: Vec<&str> = names.filter(|name| seen.insert(*name)).collect();
    let mut parts = Vec::new();
    if !names.is_empty() {
        parts.push(format!("|{}", names.len()));
    }
    for name in names {
        let declared = || {
            build_args
                .iter()
                .rev()
                .find(|(other, _)| other == name)
                .and_then(|(_, value)| value.as_deref())
        };
        let value = variables.get(name).or_else(declared).unwrap_or_default();
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
            character if is_printable(character) => quoted.push(character),
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

/// Go's `unicode.IsPrint` but for unassigned characters, which the standard library can't tell.
fn is_printable(character: char) -> bool {
    let is_format = matches!(character,
        '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e000}'..='\u{f8ff}' | '\u{fffe}'..='\u{ffff}' | '\u{e0000}'..='\u{e007f}' | '\u{f0000}'..);
    character == ' ' || !(character.is_control() || character.is_whitespace() || is_format)
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
        let args = args.map(|(name, value)| (name.to_owned(), value.map(str::to_owned)));
        assert_eq!(
            run_text(&["x".to_owned()], &args, &variables),
            "RUN |3 A=2 B=now C= x"
        );
    }
}
