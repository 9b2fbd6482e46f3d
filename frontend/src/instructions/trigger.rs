//! `ONBUILD`: storing a trigger, and reading it when it fires.

use super::{error, kind_of, missing_argument, no_flags};
use crate::ast::{self, Arguments, Node};
use crate::diagnostic::{Diagnostic, Errors, Found, Phase};
use crate::instruction::{Instruction, InstructionKind};
use crate::source::{Lines, Source, Span};

/// Reads the text of an `ONBUILD` trigger that fires. `span` and `lines` are those of the `FROM` that pulls it in;
/// they become the instruction's, and those of an error.
pub fn parse_trigger(text: &str, span: Span, lines: Lines) -> Result<Instruction, Errors> {
    let place = |error: Diagnostic| Diagnostic {
        span,
        instruction_lines: Some(lines),
        // They point into the trigger's own text.
        notes: Vec::new(),
        edits: Vec::new(),
        ..in_trigger(text, error)
    };
    let refuse = |message: &str, help: &str| {
        let error =
            Diagnostic::error("invalid-trigger", Phase::Plan, span, message).with_help(help);
        Err(place(error).into())
    };
    let source = Source::new("ONBUILD", text.as_bytes());
    let mut file = ast::parse(&source).map_err(|errors| errors.map(place))?;
    let [node] = file.nodes.as_mut_slice() else {
        return refuse(
            "it holds more than one instruction",
            "the image must be built again with one instruction in each ONBUILD",
        );
    };
    let mut found = Found::default();
    let kind = kind_of(node, &source, &mut found);
    found.into_result().map_err(|errors| errors.map(place))?;
    match kind {
        // Of anything else that is not read there is an error.
        None => refuse(
            "FROM can't be a trigger",
            "the image must be built again without this trigger",
        ),
        Some(kind) => Ok(Instruction {
            kind: placed_at(kind, span),
            span,
            lines,
            comments: std::mem::take(&mut node.comments),
            trigger: Some(std::mem::take(&mut node.text).into_owned()),
        }),
    }
}

/// An error about a trigger, which the place of the error does not show.
pub(crate) fn in_trigger(text: &str, error: Diagnostic) -> Diagnostic {
    let message = format!(
        "in the ONBUILD trigger `{}`: {}",
        text.trim(),
        error.message
    );
    Diagnostic { message, ..error }
}

/// The places of words, which lie in the trigger's own text, become that of the `FROM`.
fn placed_at(mut kind: InstructionKind, span: Span) -> InstructionKind {
    match &mut kind {
        InstructionKind::Env(pairs) | InstructionKind::Label(pairs) => {
            for pair in pairs {
                pair.span = span;
            }
        }
        InstructionKind::Arg(pairs) => {
            for pair in pairs {
                pair.span = span;
            }
        }
        InstructionKind::Run(run) => {
            for mount in &mut run.mounts {
                mount.span = span;
            }
        }
        _ => {}
    }
    kind
}

/// `ONBUILD`: the trigger's text. What the trigger says is checked when it fires, its first word excepted.
pub(super) fn trigger(node: &Node<'_>, found: &mut Found) -> Option<String> {
    no_flags(node, found);
    let Arguments::Trigger(trigger) = &node.arguments else {
        let help = "write the instruction that child builds are to run";
        found.push(missing_argument(node, help));
        return None;
    };
    let word = &trigger.word;
    let keyword = word.text.to_uppercase();
    if matches!(keyword.as_str(), "ONBUILD" | "FROM" | "MAINTAINER") {
        let message = format!("{keyword} can't be an ONBUILD trigger");
        let help = "any instruction but ONBUILD, FROM and MAINTAINER can";
        found.push(error("invalid-trigger", word.span, message).with_help(help));
        return None;
    }
    // Go's `\s`: no vertical tab.
    let is_blank = |char: char| matches!(char, '\t' | '\n' | '\u{c}' | '\r' | ' ');
    let text = node.text.trim_start_matches(is_blank);
    let behind = text
        .get(node.word.text.len()..)
        .unwrap_or_default()
        .trim_start_matches(is_blank);
    let mut text = behind.to_owned();
    for heredoc in &node.heredocs {
        text = text + "\n" + &heredoc.content + &heredoc.name;
    }
    Some(text)
}
