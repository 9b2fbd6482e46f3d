//! `FROM`: where a stage begins.

use super::{error, missing_argument};
use crate::ast::{Node, Word};
use crate::diagnostic::{Diagnostic, Errors};
use crate::flags::{FlagKind, Flags};
use crate::instruction::Stage;
use crate::letters;
use crate::suggest::closest;

/// `FROM [--platform=…] image [AS name]`
pub(super) fn stage(node: &Node) -> Result<Stage, Errors> {
    let flags = Flags::check(&node.flags, &[("platform", FlagKind::Text)])?;
    let words = node.arguments.words();
    let (base, name) = match words {
        [base] => (base, None),
        [base, word, name] if letters::is_as(&word.text) => (base, Some(name)),
        [] => {
            return Err(
                missing_argument(node, "write an image, or `scratch` for an empty root").into(),
            );
        }
        [base, stray, rest @ ..] => return Err(stray_word(base, stray, rest).into()),
    };
    if let Some(word) = name
        && !is_stage_name(&letters::lower(&word.text))
    {
        return Err(error(
            "invalid-stage-name",
            word.span,
            format!("`{}` can't be a stage's name", word.text),
        )
        .with_help("a name begins with a letter and goes on with letters, digits, `-`, `_` and `.`")
        .into());
    }
    Ok(Stage {
        name: name.map(|name| letters::lower(&name.text)),
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

/// A word behind the image that is not `AS`, or is not followed by one name.
fn stray_word(base: &Word, stray: &Word, rest: &[Word]) -> Diagnostic {
    let is_as = |word: &Word| word.text.eq_ignore_ascii_case("as");
    // With `AS` in its place, what is wrong comes behind it.
    let (place, help) = match rest {
        [] if is_as(stray) => (stray, format!("write `FROM {} AS name`", base.text)),
        [_, more, ..] if is_as(stray) => (
            more,
            "a stage has one name; a comment needs a line of its own".to_owned(),
        ),
        [name] if closest(&stray.text, ["AS"]).is_some() => (
            stray,
            format!("did you mean `FROM {} AS {}`?", base.text, name.text),
        ),
        [] if is_stage_name(&stray.text.to_lowercase()) => (
            stray,
            format!(
                "to name the stage, write `FROM {} AS {}`; a comment needs a line of its own",
                base.text, stray.text
            ),
        ),
        _ => (
            stray,
            "write `FROM image` or `FROM image AS name`; a comment needs a line of its own"
                .to_owned(),
        ),
    };
    let message = "FROM takes an image, or an image, `AS` and a name";
    let label = if is_as(place) {
        "a name is missing behind it"
    } else {
        "not expected here"
    };
    error("invalid-from", place.span, message)
        .with_label(label)
        .with_help(help)
}

/// Whether a lower-cased word is a valid stage name.
fn is_stage_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'))
}
