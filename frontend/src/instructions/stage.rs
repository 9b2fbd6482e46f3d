//! `FROM`: where a stage begins.

use super::{error, missing_argument};
use crate::ast::{Node, Word};
use crate::diagnostic::{Diagnostic, Errors};
use crate::flags::{FlagKind, Flags};
use crate::instruction::Stage;
use crate::letters;
use crate::source::Source;
use crate::suggest::closest;
use crate::text::Text;

/// `FROM [--platform=…] image [AS name]`
pub(super) fn stage(node: &mut Node<'_>, source: &Source) -> Result<Stage, Errors> {
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
    let lower = name.map(|name| letters::lower(&name.text));
    if let (Some(word), Some(lower)) = (name, &lower)
        && !is_stage_name(lower)
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
        name: lower,
        name_as_written: name.map(|name| Text::of(name, source)),
        base: Text::of(base, source),
        platform: flags.text("platform", source),
        span: node.span,
        lines: node.lines,
        base_span: base.span,
        comments: std::mem::take(&mut node.comments),
        instructions: Vec::new(),
    })
}

/// A word behind the image that is not `AS`, or is not followed by one name.
fn stray_word(base: &Word<'_>, stray: &Word<'_>, rest: &[Word<'_>]) -> Diagnostic {
    let is_as = |word: &Word<'_>| word.text.eq_ignore_ascii_case("as");
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
