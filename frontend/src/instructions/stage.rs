//! `FROM`: where a stage begins.

use super::{error, missing_argument};
use crate::ast::Node;
use crate::diagnostic::Diagnostic;
use crate::flags::{FlagKind, Flags};
use crate::instruction::Stage;

/// `FROM [--platform=…] image [AS name]`
pub(super) fn stage(node: &Node) -> Result<Stage, Diagnostic> {
    let flags = Flags::check(&node.flags, &[("platform", FlagKind::Text)])?;
    let words = node.arguments.words();
    let (base, name) = match words {
        [base] => (base, None),
        [base, word, name] if word.text.eq_ignore_ascii_case("as") => (base, Some(name)),
        [] => {
            return Err(missing_argument(
                node,
                "write an image, or `scratch` for an empty root",
            ));
        }
        [_, stray, ..] => {
            return Err(error(
                "invalid-from",
                stray.span,
                "FROM takes an image, or an image, `AS` and a name",
            )
            .with_label("not expected here")
            .with_help(
                "write `FROM image` or `FROM image AS name`; a comment needs a line of its own",
            ));
        }
    };
    if let Some(word) = name
        && !is_stage_name(&word.text.to_lowercase())
    {
        return Err(error(
            "invalid-stage-name",
            word.span,
            format!("`{}` can't be a stage's name", word.text),
        )
        .with_help(
            "a name begins with a letter and goes on with letters, digits, `-`, `_` and `.`",
        ));
    }
    Ok(Stage {
        name: name.map(|name| name.text.to_lowercase()),
        name_as_written: name.map(|name| name.text.clone()),
        base: base.text.clone(),
        platform: flags.text("platform"),
        span: node.span,
        lines: node.lines,
        base_span: base.span,
        comments: node.comments.clone(),
        instructions: Vec::new(),
    })
}

/// Whether a lower-cased word is a valid stage name.
fn is_stage_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'))
}
