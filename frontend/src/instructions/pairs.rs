//! `ARG`, `ENV` and `LABEL`: names and values.

use super::{error, missing_argument, name_of, no_flags};
use crate::ast::{Arguments, Node};
use crate::diagnostic::{Diagnostic, Errors, Found};
use crate::instruction::{ArgPair, NameValue};
use crate::source::Span;

/// `ARG`; the reference never looks at its flags.
pub(super) fn args(node: &Node) -> Result<Vec<ArgPair>, Errors> {
    let words = node.arguments.words();
    if words.is_empty() {
        return Err(missing_argument(node, "write `ARG name` or `ARG name=default`").into());
    }
    let mut found = Found::default();
    let pairs = words.iter().map(|word| match word.text.split_once('=') {
        Some(("", _)) => Err(blank_name(node, word.span)),
        Some((name, default)) => Ok(Some(ArgPair {
            name: name.to_owned(),
            default: Some(default.to_owned()),
            span: word.span,
        })),
        None => Ok(Some(ArgPair {
            name: word.text.clone(),
            default: None,
            span: word.span,
        })),
    });
    let pairs = pairs.filter_map(|pair| found.or_default(pair)).collect();
    found.into_result().map(|()| pairs)
}

/// `ENV` and `LABEL`
pub(super) fn name_values(node: &Node) -> Result<Vec<NameValue>, Errors> {
    no_flags(node)?;
    let Arguments::Pairs(pairs) = &node.arguments else {
        return Err(
            missing_argument(node, &format!("write `{} name=value`", name_of(node))).into(),
        );
    };
    let mut found = Found::default();
    let pairs = pairs.iter().map(|pair| {
        if pair.name.text.is_empty() {
            return Err(blank_name(node, pair.name.span));
        }
        Ok(Some(NameValue {
            name: pair.name.text.clone(),
            value: pair.value.text.clone(),
            is_legacy: pair.is_legacy,
            span: pair.name.span,
        }))
    });
    let pairs = pairs.filter_map(|pair| found.or_default(pair)).collect();
    found.into_result().map(|()| pairs)
}

fn blank_name(node: &Node, span: Span) -> Diagnostic {
    error(
        "blank-name",
        span,
        format!("nothing stands before the `=` of this {}", name_of(node)),
    )
    .with_help("write a name, without a blank between it and the `=`")
}
