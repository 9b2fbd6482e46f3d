//! The syntax tree: one [`Node`] for each instruction, with places, before anything is checked or expanded.
//!
//! ```text
//! lines ──▶ logical lines ──▶ keyword, flags, arguments ──▶ Node (+ heredoc bodies)
//! ```
//!
//! Nodes borrow from the text, and from the logical line where continuations were joined, so `read` hands them out one
//! by one: most are looked at once, and only what is made of them is kept. [`parse`] keeps them all.
//!
//! Unknown instructions survive here; they fail in [`crate::instructions`]. An instruction that can't be parsed is left
//! out and told, and the ones behind it are still read.

mod bodies;

use std::borrow::Cow;

use self::bodies::read_heredocs;
use crate::arguments;
use crate::diagnostic::{Diagnostic, Errors, MOST_ERRORS, Phase};
use crate::directive::{Directive, DirectiveZone, Zone};
use crate::flags;
use crate::instruction::{Comments, Heredoc, comment_of};
use crate::keyword::Keyword;
use crate::lines::{Fragment, LineReader, LogicalLine, PhysicalLine};
use crate::source::{Lines, Source, Span};
use crate::text::Text;

/// A parsed file.
#[derive(Clone, Debug)]
pub struct Dockerfile {
    /// The text that all spans point into.
    pub source: Source,
    /// What stands around the instructions.
    pub frame: Frame,
    /// Instructions in file order; at least one.
    pub nodes: Vec<Node<'static>>,
}

/// What a file says beside its instructions.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The escape character in effect: a backslash or a backtick.
    pub escape: char,
    /// Directives at the top.
    pub directives: Vec<Directive>,
    /// `NoEmptyContinuation` warnings.
    pub warnings: Vec<Diagnostic>,
}

/// A piece of text and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word<'a> {
    /// The text; what was removed while lexing is not in it.
    pub text: Cow<'a, str>,
    /// Where it stands.
    pub span: Span,
}

/// One pair of `ENV` or `LABEL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair<'a> {
    /// Text before `=`.
    pub name: Word<'a>,
    /// Text behind `=`, quotes kept.
    pub value: Word<'a>,
    /// Written `name value`, without `=`.
    pub is_legacy: bool,
}

/// What stands behind the flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arguments<'a> {
    /// Words; empty when there is no text.
    Words(Vec<Word<'a>>),
    /// The whole text as one word.
    Text(Word<'a>),
    /// The strings of a JSON array. `HEALTHCHECK`: the type word, then those strings.
    Json(Vec<Word<'a>>),
    /// `ENV` and `LABEL`
    Pairs(Vec<Pair<'a>>),
    /// `ONBUILD`
    Trigger(Box<Node<'a>>),
    /// The text behind a word that is no instruction.
    Unparsed(Word<'a>),
}

impl<'a> Arguments<'a> {
    /// The words; empty for pairs, triggers and unknown instructions.
    pub fn words(&self) -> &[Word<'a>] {
        match self {
            Self::Words(words) | Self::Json(words) => words,
            Self::Text(text) => std::slice::from_ref(text),
            Self::Pairs(_) | Self::Trigger(_) | Self::Unparsed(_) => &[],
        }
    }

    /// The same, borrowing nothing.
    pub fn into_owned(self) -> Arguments<'static> {
        let words = |words: Vec<Word<'_>>| words.into_iter().map(Word::into_owned).collect();
        match self {
            Self::Words(list) => Arguments::Words(words(list)),
            Self::Text(text) => Arguments::Text(text.into_owned()),
            Self::Json(list) => Arguments::Json(words(list)),
            Self::Pairs(pairs) => {
                Arguments::Pairs(pairs.into_iter().map(Pair::into_owned).collect())
            }
            Self::Trigger(node) => Arguments::Trigger(Box::new(node.into_owned())),
            Self::Unparsed(word) => Arguments::Unparsed(word.into_owned()),
        }
    }
}

impl Word<'_> {
    /// The same, borrowing nothing.
    pub fn into_owned(self) -> Word<'static> {
        Word {
            text: Cow::Owned(self.text.into_owned()),
            span: self.span,
        }
    }
}

impl Pair<'_> {
    /// The same, borrowing nothing.
    pub fn into_owned(self) -> Pair<'static> {
        Pair {
            name: self.name.into_owned(),
            value: self.value.into_owned(),
            is_legacy: self.is_legacy,
        }
    }
}

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node<'a> {
    /// Which instruction it is.
    pub keyword: Keyword,
    /// The instruction word as written.
    pub word: Word<'a>,
    /// The whole instruction with continuations and heredocs.
    pub span: Span,
    /// Its lines.
    pub lines: Lines,
    /// The logical line: continuations joined, keyword included, heredoc bodies not.
    pub text: Cow<'a, str>,
    /// Flags, quotes and escapes removed, not checked.
    pub flags: Vec<Word<'a>>,
    /// What follows.
    pub arguments: Arguments<'a>,
    /// Bodies announced on the line, in order.
    pub heredocs: Vec<Heredoc>,
    /// Comments right above, without `#`.
    pub comments: Comments,
}

impl Node<'_> {
    /// Whether the arguments are a JSON array.
    pub fn is_json(&self) -> bool {
        matches!(self.arguments, Arguments::Json(_))
    }

    /// The same, borrowing nothing.
    pub fn into_owned(self) -> Node<'static> {
        Node {
            word: self.word.into_owned(),
            text: Cow::Owned(self.text.into_owned()),
            flags: self.flags.into_iter().map(Word::into_owned).collect(),
            arguments: self.arguments.into_owned(),
            keyword: self.keyword,
            span: self.span,
            lines: self.lines,
            heredocs: self.heredocs,
            comments: self.comments,
        }
    }

    /// Whether the line announces heredocs, if it has `<<` in it.
    fn can_have_heredocs(&self) -> bool {
        let node = match &self.arguments {
            Arguments::Trigger(trigger) => trigger,
            _ => self,
        };
        matches!(node.keyword, Keyword::Add | Keyword::Copy | Keyword::Run)
            && !node.is_json()
            && memchr::memchr(b'<', self.text.as_bytes()).is_some()
            && self.text.contains("<<")
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
    let mut nodes = Vec::new();
    let (frame, errors) = read(source, &mut |node| nodes.push(node.clone().into_owned()));
    Errors::of(errors).map(|()| Dockerfile {
        source: source.clone(),
        frame,
        nodes,
    })
}

/// Reads what can be read of a file and hands out its instructions; what can't be read is left out and told.
///
/// An instruction that is wrong ends with its line, so the ones behind it are still read. A file is read no further
/// where nobody can tell how it goes on: at a line that is too long, behind an unknown escape character.
pub(crate) fn read(
    source: &Source,
    sink: &mut dyn FnMut(&mut Node<'_>),
) -> (Frame, Vec<Diagnostic>) {
    let mut parser = Parser {
        reader: LineReader::new(source),
        zone: DirectiveZone::default(),
        source,
        comments: None,
        count: 0,
        warnings: Vec::new(),
        errors: Vec::new(),
        room: Room::default(),
    };
    if source.text().len() > MAX_FILE {
        parser.errors.push(too_large(source));
    }
    while parser.errors.len() < MOST_ERRORS && source.text().len() <= MAX_FILE {
        match parser.step(sink) {
            Ok(true) => {}
            Ok(false) => break,
            Err(last) => {
                parser.errors.push(last);
                break;
            }
        }
    }
    let lines = parser.reader.count().max(1);
    if parser.count == 0 && parser.errors.is_empty() {
        parser.errors.push(no_instructions(source, lines));
    }
    let frame = Frame {
        escape: parser.zone.escape(),
        directives: parser.zone.into_found(),
        warnings: parser.warnings,
    };
    (frame, parser.errors)
}

/// Reads an instruction that has been read before, by where it begins; without its comments. None if there is none.
pub(crate) fn read_at(
    source: &Source,
    start: usize,
    escape: char,
    sink: impl FnOnce(&mut Node<'_>),
) -> Option<()> {
    let mut reader = LineReader::at(source, start);
    let first = reader.next_line().ok()??;
    let line = LogicalLine::read(first, &mut reader, escape).ok()??;
    let mut node = parse_node(line.fragment(), line.span, escape, 0, &mut Room::default()).ok()?;
    if node.can_have_heredocs() {
        read_heredocs(&mut node, &mut reader).ok()?;
    }
    sink(&mut node);
    Some(())
}

/// A file that is being parsed.
struct Parser<'a> {
    reader: LineReader<'a>,
    zone: DirectiveZone,
    source: &'a Source,
    /// Where the comments since the last instruction stand.
    comments: Option<Span>,
    /// Instructions handed out.
    count: usize,
    warnings: Vec<Diagnostic>,
    /// Errors behind which the file could be read on.
    errors: Vec<Diagnostic>,
    room: Room,
}

/// Vectors that an instruction left behind for the next one.
#[derive(Default)]
pub(crate) struct Room {
    flags: Vec<Word<'static>>,
    words: Vec<Word<'static>>,
    pairs: Vec<Pair<'static>>,
}

impl Room {
    pub(crate) fn flags<'a>(&mut self) -> Vec<Word<'a>> {
        std::mem::take(&mut self.flags)
    }

    pub(crate) fn words<'a>(&mut self) -> Vec<Word<'a>> {
        std::mem::take(&mut self.words)
    }

    pub(crate) fn pairs<'a>(&mut self) -> Vec<Pair<'a>> {
        std::mem::take(&mut self.pairs)
    }

    /// Takes what a node does not need any more. Collecting a vector of nothing keeps its room.
    fn reuse(&mut self, node: &mut Node<'_>) {
        let emptied = |words: &mut Vec<Word<'_>>| {
            words.clear();
            let words = std::mem::take(words).into_iter();
            words.map(Word::into_owned).collect()
        };
        if !node.flags.is_empty() {
            self.flags = emptied(&mut node.flags);
        }
        match &mut node.arguments {
            Arguments::Words(words) => self.words = emptied(words),
            Arguments::Pairs(pairs) => {
                pairs.clear();
                let pairs = std::mem::take(pairs).into_iter();
                self.pairs = pairs.map(Pair::into_owned).collect();
            }
            Arguments::Json(_)
            | Arguments::Text(_)
            | Arguments::Trigger(_)
            | Arguments::Unparsed(_) => {}
        }
    }
}

impl<'a> Parser<'a> {
    /// Reads a comment, a blank line or an instruction; false at the end of the file. An error ends the reading.
    fn step(&mut self, sink: &mut dyn FnMut(&mut Node<'_>)) -> Result<bool, Diagnostic> {
        let Some(first) = self.reader.next_line()? else {
            return Ok(false);
        };
        match self.zone.read(first)? {
            Zone::Over => {}
            Zone::Directive => return Ok(true),
            Zone::Repeated(error) => {
                self.errors.push(*error);
                return Ok(true);
            }
        }
        if first.is_comment() {
            self.collect_comment(first);
        } else {
            self.instruction(first, sink)?;
        }
        Ok(true)
    }

    /// Keeps a comment for the instruction below. An empty one separates: what stood above it is forgotten.
    fn collect_comment(&mut self, line: PhysicalLine<'a>) {
        self.comments = (!comment_of(line.text).is_empty()).then(|| {
            let start = self.comments.map_or(line.start, |above| above.start);
            Span::new(start, line.span().end)
        });
    }

    /// Reads the instruction that a line begins, unless that is blank.
    fn instruction(
        &mut self,
        first: PhysicalLine<'a>,
        sink: &mut dyn FnMut(&mut Node<'_>),
    ) -> Result<(), Diagnostic> {
        let escape = self.zone.escape();
        let Some(line) = LogicalLine::read(first, &mut self.reader, escape)? else {
            return Ok(());
        };
        if self.count == MAX_INSTRUCTIONS {
            return Err(too_many(&line));
        }
        if !line.blank_lines.is_empty() {
            self.warnings.extend(blank_continuation(&line));
        }
        let comments = self.comments.take().map(|lines| {
            let text = &self.source.text()[lines.start..lines.end];
            Text::at(lines.start, text, self.source)
        });
        match parse_node(line.fragment(), line.span, escape, 0, &mut self.room) {
            // Stays where it is: a node is large.
            Ok(ref mut node) => {
                node.comments = Comments::of(comments);
                if node.can_have_heredocs() {
                    read_heredocs(node, &mut self.reader)?;
                }
                self.count += 1;
                sink(node);
                self.room.reuse(node);
            }
            // None of the instructions that can fail here is followed by here-documents.
            Err(error) => self.errors.push(error.within(line.lines)),
        }
        self.reader.reuse(line);
        Ok(())
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

fn too_many(line: &LogicalLine<'_>) -> Diagnostic {
    let message = format!("the file has more than {MAX_INSTRUCTIONS} instructions");
    Diagnostic::error("too-many-instructions", Phase::Parse, line.span, message)
        .within(line.lines)
        .with_help("do more in each RUN, or call a script")
}

/// `NoEmptyContinuation`, pointing at the first blank line. Its lines are the last one, as the reference has it.
fn blank_continuation(line: &LogicalLine<'_>) -> Option<Diagnostic> {
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

/// Parses one instruction's joined text, which stands at `span`; `depth` counts the ONBUILDs around it.
fn parse_node<'a>(
    line: Fragment<'a>,
    span: Span,
    escape: char,
    depth: usize,
    room: &mut Room,
) -> Result<Node<'a>, Diagnostic> {
    let trimmed = line.trim();
    let (word, rest) = trimmed
        .split_once_at_blanks()
        .unwrap_or_else(|| (trimmed, trimmed.from(trimmed.text().len())));
    let (flags, rest) = flags::lex(rest, escape, room);
    let keyword = Keyword::of(word.text());
    let is_trigger = keyword == Keyword::Onbuild && !rest.text().is_empty();
    let arguments = if is_trigger && depth < MAX_TRIGGER_DEPTH {
        Arguments::Trigger(Box::new(parse_node(
            rest,
            rest.span(),
            escape,
            depth + 1,
            room,
        )?))
    } else if is_trigger {
        Arguments::Text(arguments::word(rest))
    } else {
        arguments::read(keyword, rest, escape, room)?
    };
    Ok(Node {
        keyword,
        word: arguments::word(word),
        span,
        lines: line.lines(),
        text: Cow::Borrowed(line.text()),
        flags,
        arguments,
        heredocs: Vec::new(),
        comments: Comments::default(),
    })
}
