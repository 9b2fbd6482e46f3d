//! `FROM`: where a stage begins.

use super::{error, missing_argument};
use crate::ast::{Arguments, Node, Word};
use crate::diagnostic::{Diagnostic, Found};
use crate::flags::{FlagKind, Flags};
use crate::instruction::{Comments, Stage};
use crate::letters;
use crate::source::Source;
use crate::suggest::closest;
use crate::text::Text;

/// `FROM [--platform=…] image [AS name]`
pub(super) fn stage(node: &mut Node<'_>, source: &Source, found: &mut Found) -> Option<Stage> {
    let flags = Flags::read(&node.flags, &[("platform", FlagKind::Text)], found);
    let words = node.arguments.words();
    let (base, name) = match words {
        [base] => (base, None),
        [base, word, name] if letters::is_as(&word.text) => (base, Some(name)),
        [] => {
            let help = "write an image, or `scratch` for an empty root";
            found.push(missing_argument(node, help));
            return None;
        }
        [base, stray, rest @ ..] => {
            found.push(stray_word(base, stray, rest));
            return None;
        }
    };
    let lower = name.map(|name| letters::lower(&name.text));
    if let (Some(word), Some(lower)) = (name, &lower)
        && !is_stage_name(lower)
    {
        let message = format!("`{}` can't be a stage's name", word.text);
        let help = "a name begins with a letter and goes on with letters, digits, `-`, `_` and `.`";
        found.push(error("invalid-stage-name", word.span, message).with_help(help));
    }
    Some(Stage {
        name: lower,
        name_as_written: name.map(|name| Text::of(name, source)),
        base: Text::of(base, source),
        is_readable: true,
        platform: flags.text("platform", source),
        span: node.span,
        lines: node.lines,
        base_span: base.span,
        comments: std::mem::take(&mut node.comments),
        instructions: Vec::new(),
    })
}

/// A stage that nothing is known of.
fn blank(node: &Node<'_>) -> Stage {
    Stage {
        name: None,
        name_as_written: None,
        base: Text::default(),
        is_readable: false,
        platform: None,
        span: node.span,
        lines: node.lines,
        base_span: node.word.span,
        comments: Comments::default(),
        instructions: Vec::new(),
    }
}

/// The stage below something that was meant to be a FROM. Its last word may be a name that others copy from.
pub(super) fn unreadable(node: &Node<'_>) -> Stage {
    let unparsed = match &node.arguments {
        Arguments::Unparsed(word) => word.text.split_whitespace().skip(1).last(),
        _ => None,
    };
    let words = node.arguments.words().iter().skip(1);
    let name = words.last().map(|word| &*word.text).or(unparsed);
    Stage {
        name: name.map(letters::lower),
        name_as_written: name.map(Text::from),
        ..blank(node)
    }
}

/// The stage of what stands above the first FROM, begun by its first instruction.
pub(super) fn of_orphans(first: &Node<'_>) -> Stage {
    blank(first)
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
