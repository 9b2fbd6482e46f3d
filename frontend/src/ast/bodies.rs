//! The bodies of here-documents: read from the lines behind the instruction that announces them.

use super::Node;
use crate::diagnostic::{Diagnostic, Phase};
use crate::heredoc;
use crate::instruction::Heredoc;
use crate::lines::LineReader;
use crate::source::Span;

/// Reads the bodies that a node's line announces, and extends the node over them.
pub(super) fn read_heredocs(
    node: &mut Node<'_>,
    reader: &mut LineReader<'_>,
) -> Result<(), Diagnostic> {
    for mut heredoc in heredoc::announced_by(&node.text) {
        let start = reader.offset();
        loop {
            let end = reader.offset();
            let Some(line) = reader.next_line()? else {
                return Err(unterminated(node, &heredoc, reader.text()));
            };
            node.lines.last = line.number;
            node.span.end = line.span().end;
            let text = if heredoc.is_chomped {
                line.text.trim_start_matches('\t')
            } else {
                line.text
            };
            if text == heredoc.name {
                reader.text()[start..end].clone_into(&mut heredoc.content);
                break;
            }
        }
        node.heredocs.push(heredoc);
    }
    Ok(())
}

fn unterminated(node: &Node<'_>, heredoc: &Heredoc, text: &str) -> Diagnostic {
    let dash = if heredoc.is_chomped { "-" } else { "" };
    let name = &heredoc.name;
    let message = format!("the here-document `<<{dash}{name}` is never ended");
    let around = if heredoc.is_chomped {
        "with nothing but tabs in front"
    } else {
        "without blanks around"
    };
    let help = if name.starts_with(|char: char| char.is_ascii_digit()) {
        "a blank before and behind `<<` makes a here-document even in arithmetic: write `$((1<<2))`"
            .to_owned()
    } else {
        format!("end it with a line that is `{name}`, {around}")
    };
    let place = announcement(node, heredoc, text).unwrap_or(node.span);
    let error = Diagnostic::error("unterminated-heredoc", Phase::Parse, place, message)
        .within(node.lines)
        .with_help(help);
    match almost_terminator(node, heredoc, text) {
        Some(line) => error.with_note(line, format!("was this to be `{name}`?")),
        None => error,
    }
}

/// Where `<<NAME` stands on the line.
fn announcement(node: &Node<'_>, heredoc: &Heredoc, text: &str) -> Option<Span> {
    let instruction = text.get(node.span.start..node.span.end)?;
    let mut places = instruction.match_indices("<<");
    places.find_map(|(at, _)| {
        let behind = &instruction[at + 2..];
        let name = behind.trim_start_matches(['-', ' ', '\t', '"', '\'', '\\']);
        let quotes = behind.len() - name.len();
        let length = 2
            + quotes
            + name
                .starts_with(&heredoc.name)
                .then_some(heredoc.name.len())?;
        let start = node.span.start + at;
        Some(Span::new(start, start + length))
    })
}

/// The first line of the body that is the terminator but for blanks or case.
fn almost_terminator(node: &Node<'_>, heredoc: &Heredoc, text: &str) -> Option<Span> {
    let body = text.get(node.span.start..node.span.end)?;
    let mut start = node.span.start;
    // The first line is the instruction's own.
    for (number, line) in body.split_inclusive('\n').enumerate() {
        let trimmed = line.trim();
        if number > 0 && !trimmed.is_empty() && trimmed.eq_ignore_ascii_case(&heredoc.name) {
            let start = start + (line.len() - line.trim_start().len());
            return Some(Span::new(start, start + trimmed.len()));
        }
        start += line.len();
    }
    None
}
