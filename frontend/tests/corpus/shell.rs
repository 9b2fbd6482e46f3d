//! `shell/shell.jsonl`: word expansion in all modes.

use std::collections::BTreeMap;

use rbuild_frontend::word::{Escapes, Mode, Quotes, Unset, expand_with};
use serde_json::{Value, json};

use super::rows::{Report, rows, text};

#[test]
fn expansion() {
    let rows = rows("shell/shell.jsonl");
    let mut report = Report::new("shell/shell.jsonl");
    for row in &rows {
        let expected = if row["error"].is_null() {
            Ok(json!([row["result"], row["words"], row["unmatched"]]))
        } else {
            Err("an error")
        };
        let found = expand_with(text(row, "word"), mode(row), &environment(row))
            .map(|expansion| json!([expansion.text, expansion.words, expansion.unmatched]))
            .map_err(|_| "an error");
        report.compare(&row.to_string(), &expected, &found);
    }
    report.finish();
}

fn mode(row: &Value) -> Mode {
    let is_set = |field: &str| row[field] == json!(true);
    Mode {
        escape: text(row, "escape")
            .chars()
            .next()
            .expect("every row names its escape character"),
        unset: if is_set("skip_unset") {
            Unset::Keep
        } else {
            Unset::Empty
        },
        quotes: match (is_set("raw_quotes"), is_set("skip_process_quotes")) {
            (_, true) => Quotes::Ordinary,
            (true, false) => Quotes::Keep,
            _ => Quotes::Remove,
        },
        escapes: if is_set("raw_escapes") {
            Escapes::Keep
        } else {
            Escapes::Remove
        },
    }
}

fn environment(row: &Value) -> BTreeMap<String, String> {
    let pairs = row["env"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    pairs
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
