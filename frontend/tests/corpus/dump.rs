//! Our syntax tree in the two forms that the reference's was recorded in.

use std::fmt::Write;

use rbuild_frontend::ast::{Arguments, Node};
use serde_json::{Map, Value, json};

/// The S-expression of a whole file.
pub(crate) fn expression(nodes: &[Node<'_>]) -> String {
    nodes
        .iter()
        .map(|node| format!("({})", node_expression(node)))
        .collect::<Vec<_>>()
        .join("\n")
}

fn node_expression(node: &Node<'_>) -> String {
    let mut text = node.word.text.to_lowercase();
    if !node.flags.is_empty() {
        let flags: Vec<_> = node.flags.iter().map(|flag| quoted(&flag.text)).collect();
        write!(text, " [{}]", flags.join(" ")).expect("writing to a string works");
    }
    if let Arguments::Trigger(trigger) = &node.arguments {
        write!(text, " ({})", node_expression(trigger)).expect("writing to a string works");
        return text;
    }
    for argument in arguments(node) {
        text.push(' ');
        text.push_str(&quoted(&argument));
    }
    text.trim().to_owned()
}

/// The record of one node.
pub(crate) fn node(node: &Node<'_>) -> Value {
    let mut record = Map::new();
    record.insert("cmd".into(), json!(node.word.text));
    record.insert("start".into(), json!(node.lines.first));
    record.insert("end".into(), json!(node.lines.last));
    let mut insert = |key: &str, value: Value| {
        if !matches!(&value, Value::Array(list) if list.is_empty()) {
            record.insert(key.into(), value);
        }
    };
    insert(
        "flags",
        node.flags.iter().map(|flag| json!(flag.text)).collect(),
    );
    insert(
        "args",
        arguments(node).into_iter().map(Value::String).collect(),
    );
    insert(
        "comments",
        node.comments.iter().map(|comment| json!(comment)).collect(),
    );
    let heredocs = node.heredocs.iter().map(|heredoc| {
        json!({
            "Name": heredoc.name,
            "FileDescriptor": heredoc.file_descriptor,
            "Expand": heredoc.is_expanded,
            "Chomp": heredoc.is_chomped,
            "Content": heredoc.content,
        })
    });
    insert("heredocs", heredocs.collect());
    if node.is_json() {
        record.insert("json".into(), json!(true));
    }
    Value::Object(record)
}

/// Arguments as the reference's list of texts: pairs are three entries, a trigger's follow its word.
fn arguments(node: &Node<'_>) -> Vec<String> {
    match &node.arguments {
        Arguments::Words(_) | Arguments::Text(_) | Arguments::Json(_) => node
            .arguments
            .words()
            .iter()
            .map(|word| word.text.to_string())
            .collect(),
        Arguments::Pairs(pairs) => pairs
            .iter()
            .flat_map(|pair| {
                let separator = if pair.is_legacy { "" } else { "=" };
                [
                    pair.name.text.to_string(),
                    pair.value.text.to_string(),
                    separator.to_owned(),
                ]
            })
            .collect(),
        Arguments::Trigger(trigger) => {
            [vec![trigger.word.text.to_string()], arguments(trigger)].concat()
        }
        Arguments::Unparsed(_) => vec![String::new()],
    }
}

/// A text as Go's `%q` shows it, as far as the tables need.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for char in text.chars() {
        match char {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            control if (control as u32) < 0x20 || control == '\u{7f}' => {
                write!(quoted, "\\x{:02x}", control as u32).expect("writing to a string works");
            }
            blank
                if blank != ' '
                    && (blank.is_whitespace() || blank.is_control() || blank == '\u{feff}') =>
            {
                write!(quoted, "\\u{:04x}", blank as u32).expect("writing to a string works");
            }
            plain => quoted.push(plain),
        }
    }
    quoted.push('"');
    quoted
}
