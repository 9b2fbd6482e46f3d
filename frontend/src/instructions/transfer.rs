//! `COPY` and `ADD`: sources, destination and their flags.

use std::collections::HashMap;

use super::error;
use crate::ast::{Node, Word};
use crate::diagnostic::{Diagnostic, Found};
use crate::flags::{FlagKind, FlagRule, Flags};
use crate::heredoc;
use crate::instruction::{AddInstruction, CopyInstruction, Heredoc, SourceArgument, Transfer};
use crate::source::Source;
use crate::text::Text;

const COPY_FLAGS: [FlagRule; 6] = [
    ("from", FlagKind::Text),
    ("chown", FlagKind::Text),
    ("chmod", FlagKind::Text),
    ("link", FlagKind::Switch),
    ("parents", FlagKind::Switch),
    ("exclude", FlagKind::List),
];

const ADD_FLAGS: [FlagRule; 7] = [
    ("chown", FlagKind::Text),
    ("chmod", FlagKind::Text),
    ("checksum", FlagKind::Text),
    ("link", FlagKind::Switch),
    ("keep-git-dir", FlagKind::Switch),
    ("unpack", FlagKind::Switch),
    ("exclude", FlagKind::List),
];

/// Types a `COPY`.
pub(super) fn copy(node: &Node<'_>, source: &Source, found: &mut Found) -> Option<CopyInstruction> {
    let flags = Flags::read(&node.flags, &COPY_FLAGS, found);
    Some(CopyInstruction {
        transfer: found.or_default(transfer(node, &flags, source).map(Some))?,
        from: flags.text("from", source),
        keeps_parents: flags.switch("parents").unwrap_or(false),
    })
}

/// Types an `ADD`.
pub(super) fn add(node: &Node<'_>, source: &Source, found: &mut Found) -> Option<AddInstruction> {
    let flags = Flags::read(&node.flags, &ADD_FLAGS, found);
    Some(AddInstruction {
        transfer: found.or_default(transfer(node, &flags, source).map(Some))?,
        checksum: flags.text("checksum", source),
        keep_git_dir: flags.switch("keep-git-dir"),
        unpack: flags.switch("unpack"),
    })
}

fn transfer(node: &Node<'_>, flags: &Flags<'_>, file: &Source) -> Result<Transfer, Diagnostic> {
    let name = node.keyword.name();
    let (destination, sources) = match node.arguments.words() {
        [] => {
            return Err(error(
                "missing-argument",
                node.word.span,
                format!("{name} needs a source and a destination"),
            )
            .with_label("nothing follows")
            .with_help(format!("write `{name} SOURCE… DESTINATION`")));
        }
        [only] => {
            return Err(error(
                "missing-destination",
                only.span,
                format!("{name} has a source but no destination"),
            )
            .with_label("this is the only argument")
            .with_help(format!("write `{name} {} DESTINATION`", only.text)));
        }
        [sources @ .., destination] => (destination, sources),
    };
    // A JSON string can have a `<` that the text has not.
    let has_heredocs = node.is_json() || memchr::memchr(b'<', node.text.as_bytes()).is_some();
    if has_heredocs && heredoc::parse_word(&destination.text).is_some() {
        return Err(error(
            "heredoc-destination",
            destination.span,
            "a here-document can't be the destination",
        )
        .with_help(format!(
            "write the destination last: `{name} {} /path`",
            destination.text
        )));
    }
    // Of equal names the last counts.
    let bodies = (!node.heredocs.is_empty()).then(|| -> HashMap<&str, &Heredoc> {
        let bodies = node.heredocs.iter();
        bodies.map(|body| (body.name.as_str(), body)).collect()
    });
    let announced = |text: &str| has_heredocs.then(|| heredoc::parse_word(text)).flatten();
    let source = |word: &Word<'_>| match announced(&word.text) {
        // A source spelled `<<EOF` in JSON form has no body and stays empty.
        Some(announced) => SourceArgument::Heredoc(Heredoc {
            content: bodies
                .as_ref()
                .and_then(|bodies| bodies.get(announced.name.as_str()))
                .map(|body| body.content.clone())
                .unwrap_or_default(),
            ..announced
        }),
        None => SourceArgument::Path(Text::of(word, file)),
    };
    Ok(Transfer {
        sources: sources.iter().map(source).collect(),
        destination: Text::of(destination, file),
        chown: flags.text("chown", file),
        chmod: flags.text("chmod", file),
        is_linked: flags.switch("link").unwrap_or(false),
        exclude: flags.texts("exclude", file).collect(),
    })
}
