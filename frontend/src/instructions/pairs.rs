//! `ARG`, `ENV` and `LABEL`: names and values.

use super::{error, missing_argument, name_of, no_flags};
use crate::ast::{Arguments, Node};
use crate::diagnostic::{Diagnostic, Found};
use crate::instruction::{ArgPair, NameValue};
use crate::source::{Source, Span};
use crate::text::Text;

/// `ARG`; the reference never looks at its flags.
pub(super) fn args(node: &Node<'_>, source: &Source, found: &mut Found) -> Option<Vec<ArgPair>> {
    let words = node.arguments.words();
    if words.is_empty() {
        found.push(missing_argument(
            node,
            "write `ARG name` or `ARG name=default`",
        ));
        return None;
    }
    let mut pairs = Vec::with_capacity(words.len());
    for word in words {
        let start = word.span.start;
        let equals = word.text.bytes().position(|byte| byte == b'=');
        let (name, default) = match equals {
            Some(0) => {
                found.push(blank_name(node, word.span));
                continue;
            }
            Some(at) => {
                let default = Text::at(start + at + 1, &word.text[at + 1..], source);
                (&word.text[..at], Some(default))
            }
            None => (&*word.text, None),
        };
        pairs.push(ArgPair {
            name: Text::at(start, name, source),
            default,
            span: word.span,
        });
    }
    Some(pairs)
}

/// `ENV` and `LABEL`
pub(super) fn name_values(
    node: &Node<'_>,
    source: &Source,
    found: &mut Found,
) -> Option<Vec<NameValue>> {
    no_flags(node, found);
    let Arguments::Pairs(pairs) = &node.arguments else {
        let help = format!("write `{} name=value`", name_of(node));
        found.push(missing_argument(node, &help));
        return None;
    };
    let mut typed = Vec::with_capacity(pairs.len());
    for pair in pairs {
        let (name, value) = (&pair.name, &pair.value);
        if name.text.is_empty() {
            found.push(blank_name(node, name.span));
            continue;
        }
        let value_start = if pair.is_legacy {
            value.span.start
        } else {
            name.span.start + name.text.len() + 1
        };
        typed.push(NameValue {
            name: Text::of(name, source),
            value: Text::at(value_start, &value.text, source),
            is_legacy: pair.is_legacy,
            span: name.span,
        });
    }
    Some(typed)
}

fn blank_name(node: &Node<'_>, span: Span) -> Diagnostic {
    error(
        "blank-name",
        span,
        format!("nothing stands before the `=` of this {}", name_of(node)),
    )
    .with_help("write a name, without a blank between it and the `=`")
}
