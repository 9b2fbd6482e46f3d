//! The syntax tree: one [`Node`] for each instruction, with places, before anything is checked or expanded.
//!
//! ```text
//! lines ──▶ logical lines ──▶ keyword, flags, arguments ──▶ Node (+ heredoc bodies)
//! ```
//!
//! Unknown instructions survive here; they fail in [`crate::instructions`]. An instruction that can't be parsed is left
//! out and told, and the ones behind it are still read.

use crate::arguments::Grammar;
use crate::diagnostic::{Diagnostic, Errors, MOST_ERRORS, Phase};
use crate::directive::{Directive, DirectiveZone, Zone};
use crate::instruction::Heredoc;
use crate::lines::{Fragment, LineReader, LogicalLine};
use crate::source::{Lines, Source, Span};
use crate::{flags, heredoc, letters};

/// A parsed file.
#[derive(Clone, Debug)]
pub struct Dockerfile {
    /// The text that all spans point into.
    pub source: Source,
    /// The escape character in effect: a backslash or a backtick.
    pub escape: char,
    /// Directives at the top.
    pub directives: Vec<Directive>,
    /// Instructions in file order; at least one.
    pub nodes: Vec<Node>,
    /// `NoEmptyContinuation` warnings.
    pub warnings: Vec<Diagnostic>,
}

/// A piece of text and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// The text; what was removed while lexing is not in it.
    pub text: String,
    /// Where it stands.
    pub span: Span,
}

/// One pair of `ENV` or `LABEL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Text before `=`.
    pub name: Word,
    /// Text behind `=`, quotes kept.
    pub value: Word,
    /// Written `name value`, without `=`.
    pub is_legacy: bool,
}

/// What stands behind the flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arguments {
    /// Words, or one word that is the whole text; empty when there is no text.
    Words(Vec<Word>),
    /// The strings of a JSON array. `HEALTHCHECK`: the type word, then those strings.
    Json(Vec<Word>),
    /// `ENV` and `LABEL`
    Pairs(Vec<Pair>),
    /// `ONBUILD`
    Trigger(Box<Node>),
    /// The text behind a word that is no instruction.
    Unparsed(Word),
}

impl Arguments {
    /// The words; empty for pairs, triggers and unknown instructions.
    pub fn words(&self) -> &[Word] {
        match self {
            Self::Words(words) | Self::Json(words) => words,
            Self::Pairs(_) | Self::Trigger(_) | Self::Unparsed(_) => &[],
        }
    }
}

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The instruction word as written.
    pub keyword: Word,
    /// The whole instruction with continuations and heredocs.
    pub span: Span,
    /// Its lines.
    pub lines: Lines,
    /// The logical line: continuations joined, keyword included, heredoc bodies not.
    pub text: String,
    /// Flags, quotes and escapes removed, not checked.
    pub flags: Vec<Word>,
    /// What follows.
    pub arguments: Arguments,
    /// Bodies announced on the line, in order.
    pub heredocs: Vec<Heredoc>,
    /// Comments right above, without `#`.
    pub comments: Vec<String>,
}

impl Dockerfile {
    /// Whether a word stands in the text as it was read: without continuations, quotes or escapes that were taken out.
    pub(crate) fn is_verbatim(&self, word: &Word) -> bool {
        self.source.text().get(word.span.start..word.span.end) == Some(&*word.text)
    }

    /// Whether nothing but blanks stands between two places, on one line.
    pub(crate) fn is_blank_between(&self, start: usize, end: usize) -> bool {
        let between = self.source.text().get(start..end);
        between.is_some_and(|text| text.chars().all(|char| matches!(char, ' ' | '\t')))
    }
}

impl Node {
    /// Whether the arguments are a JSON array.
    pub fn is_json(&self) -> bool {
        matches!(self.arguments, Arguments::Json(_))
    }

    /// Whether `<<` on the line can announce heredocs.
    fn can_have_heredocs(&self) -> bool {
        let node = match &self.arguments {
            Arguments::Trigger(trigger) => trigger,
            _ => self,
        };
        matches!(
            letters::lower(&node.keyword.text).as_str(),
            "add" | "copy" | "run"
        ) && !node.is_json()
    }
}

/// Bytes that a file may have. The reference can't send a larger one to its frontend.
pub const MAX_FILE: usize = 16 << 20;

/// Instructions that a file may have; the longest of the field's have some hundreds. An image with so many layers could
/// not be pushed anywhere, and a plan of so many steps would fill the memory.
pub const MAX_INSTRUCTIONS: usize = 100_000;

/// `ONBUILD ONBUILD …` is parsed this deep; all but the first level are refused later anyway.
const MAX_TRIGGER_DEPTH: usize = 4;

/// Parses a file.
pub fn parse(source: &Source) -> Result<Dockerfile, Errors> {
    let (file, errors) = parse_partly(source);
    Errors::of(errors).map(|()| file)
}

/// Parses what can be parsed of a file; what can't is left out and told. Without errors it is the whole file.
///
/// An instruction that is wrong ends with its line, so the ones behind it are still read. A file is read no further
/// where nobody can tell how it goes on: at a line that is too long, behind an unknown escape character.
pub(crate) fn parse_partly(source: &Source) -> (Dockerfile, Vec<Diagnostic>) {
    let mut parser = Parser {
        reader: LineReader::new(source),
        zone: DirectiveZone::default(),
        comments: Vec::new(),
        nodes: Vec::new(),
        warnings: Vec::new(),
        errors: Vec::new(),
    };
    if source.text().len() > MAX_FILE {
        parser.errors.push(too_large(source));
    }
    while parser.errors.len() < MOST_ERRORS && source.text().len() <= MAX_FILE {
        match parser.step() {
            Ok(true) => {}
            Ok(false) => break,
            Err(last) => {
                parser.errors.push(last);
                break;
            }
        }
    }
    let count = parser.reader.count().max(1);
    if parser.nodes.is_empty() && parser.errors.is_empty() {
        parser.errors.push(no_instructions(source, count));
    }
    let file = Dockerfile {
        source: source.clone(),
        escape: parser.zone.escape(),
        directives: parser.zone.into_found(),
        nodes: parser.nodes,
        warnings: parser.warnings,
    };
    (file, parser.errors)
}

/// A file that is being parsed.
struct Parser<'a> {
    reader: LineReader<'a>,
    zone: DirectiveZone,
    /// Comments since the last instruction.
    comments: Vec<String>,
    nodes: Vec<Node>,
    warnings: Vec<Diagnostic>,
    /// Errors behind which the file could be read on.
    errors: Vec<Diagnostic>,
}

impl Parser<'_> {
    /// Reads a comment, a blank line or an instruction; false at the end of the file. An error ends the reading.
    fn step(&mut self) -> Result<bool, Diagnostic> {
        let Some(first) = self.reader.next_line()? else {
            return Ok(false);
        };
        match self.zone.read(first)? {
            Zone::Over => {}
            Zone::Directive => return Ok(true),
            Zone::Repeated(error) => {
                self.errors.push(error);
                return Ok(true);
            }
        }
        if first.is_comment() {
            collect_comment(&mut self.comments, first.raw);
            return Ok(true);
        }
        let escape = self.zone.escape();
        let Some(line) = LogicalLine::read(first, &mut self.reader, escape)? else {
            return Ok(true);
        };
        if self.nodes.len() == MAX_INSTRUCTIONS {
            return Err(too_many(&line));
        }
        self.warnings.extend(blank_continuation(&line));
        let comments = std::mem::take(&mut self.comments);
        match parse_node(line.fragment(), escape, 0) {
            Ok(node) => {
                let mut node = Node {
                    comments,
                    span: line.span,
                    ..node
                };
                if line.text.contains("<<") && node.can_have_heredocs() {
                    read_heredocs(&mut node, &mut self.reader)?;
                }
                self.nodes.push(node);
            }
            // None of the instructions that can fail here is followed by here-documents.
            Err(error) => self.errors.push(error.within(line.lines)),
        }
        Ok(true)
    }
}

fn no_instructions(source: &Source, last: usize) -> Diagnostic {
    let lines = Lines { first: last, last };
    let message = "the file has no instructions";
    Diagnostic::error(
        "no-instructions",
        Phase::Parse,
        source.span_of_lines(lines),
        message,
    )
    .within(lines)
    .with_help("a Dockerfile needs at least a FROM instruction, such as `FROM scratch`")
}

fn too_large(source: &Source) -> Diagnostic {
    let message = format!(
        "the file has {} bytes, and at most {MAX_FILE} can be read",
        source.text().len()
    );
    Diagnostic::error("file-too-large", Phase::Parse, Span::new(0, 0), message)
        .with_help("is this a Dockerfile? COPY large files into the image from the build context")
}

fn too_many(line: &LogicalLine) -> Diagnostic {
    let message = format!("the file has more than {MAX_INSTRUCTIONS} instructions");
    Diagnostic::error("too-many-instructions", Phase::Parse, line.span, message)
        .within(line.lines)
        .with_help("do more in each RUN, or call a script")
}

/// Keeps a comment for the instruction below. An empty one separates: what stood above it is forgotten.
fn collect_comment(comments: &mut Vec<String>, line: &str) {
    // Of an indented comment the reference removes the first blank instead of the `#`, so those never match a rule
    // that looks at comments; the same here.
    let mut chars = line.chars();
    chars.next();
    let comment = chars.as_str().trim();
    if comment.is_empty() {
        comments.clear();
    } else {
        comments.push(comment.to_owned());
    }
}

/// `NoEmptyContinuation`, pointing at the first blank line. Its lines are the last one, as the reference has it.
fn blank_continuation(line: &LogicalLine) -> Option<Diagnostic> {
    let first = line.blank_lines.first()?;
    let warning = Diagnostic::warning(
        "NoEmptyContinuation",
        Span::new(first.start, first.start),
        "a blank line stands inside this instruction",
    );
    let lines = Lines {
        first: line.lines.last,
        last: line.lines.last,
    };
    let warning = warning
        .within(lines)
        .with_label("the instruction goes on below")
        .with_help("remove the blank line, or put a `#` on it");
    let edits = line.blank_lines.iter();
    Some(edits.fold(warning, |warning, blank| warning.with_edit(*blank, "")))
}

/// Parses one instruction's joined text; `depth` counts the ONBUILDs around it.
fn parse_node(line: Fragment<'_>, escape: char, depth: usize) -> Result<Node, Diagnostic> {
    let trimmed = line.trim();
    let (keyword, rest) = trimmed
        .split_once_at_blanks()
        .unwrap_or_else(|| (trimmed, trimmed.from(trimmed.text().len())));
    let (flags, rest) = flags::lex(rest, escape);
    let lower = letters::lower(keyword.text());
    let grammar = Grammar::of(&lower);
    let arguments = if grammar == Grammar::Instruction && !rest.text().is_empty() {
        if depth < MAX_TRIGGER_DEPTH {
            Arguments::Trigger(Box::new(parse_node(rest, escape, depth + 1)?))
        } else {
            Grammar::Text.read(rest, &lower, escape)?
        }
    } else {
        grammar.read(rest, &lower, escape)?
    };
    Ok(Node {
        keyword: Word {
            text: keyword.text().to_owned(),
            span: keyword.span(),
        },
        span: line.span(),
        lines: line.lines(),
        text: line.text().to_owned(),
        flags,
        arguments,
        heredocs: Vec::new(),
        comments: Vec::new(),
    })
}

/// Reads the bodies that a node's line announces, and extends the node over them.
fn read_heredocs(node: &mut Node, reader: &mut LineReader<'_>) -> Result<(), Diagnostic> {
    for mut heredoc in heredoc::announced_by(&node.text) {
        loop {
            let Some(line) = reader.next_line()? else {
                return Err(unterminated(node, &heredoc, reader.text()));
            };
            node.lines.last = line.number;
            node.span.end = line.span().end;
            let text = if heredoc.is_chomped {
                line.text().trim_start_matches('\t')
            } else {
                line.text()
            };
            if text == heredoc.name {
                break;
            }
            heredoc.content.push_str(line.raw);
        }
        node.heredocs.push(heredoc);
    }
    Ok(())
}

fn unterminated(node: &Node, heredoc: &Heredoc, text: &str) -> Diagnostic {
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
fn announcement(node: &Node, heredoc: &Heredoc, text: &str) -> Option<Span> {
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
fn almost_terminator(node: &Node, heredoc: &Heredoc, text: &str) -> Option<Span> {
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
