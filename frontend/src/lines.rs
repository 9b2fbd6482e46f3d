//! Bytes to logical lines: line endings, continuations, comments and blank lines.
//!
//! ```text
//! RUN a \          one logical line `RUN a b`: continuation characters vanish, comment lines inside vanish,
//! # why            blanks in front of continuation lines stay
//!   b
//! ```
//!
//! A [`LogicalLine`] remembers where each of its parts came from, so that any range of the joined text can be shown
//! in the file. Heredoc bodies are read from the same [`LineReader`] by [`crate::ast`]. Directives are not looked at.

mod fragment;
mod newline;

use std::borrow::Cow;
use std::ops::Range;

pub(crate) use fragment::Fragment;
use newline::newline_in;

use crate::diagnostic::{Diagnostic, Phase};
use crate::source::{Lines, Source, Span};

/// Bytes of one physical line without its newline. The reference reads lines into a 64 KiB buffer.
const MAX_LINE: usize = 65_535;

/// One line of the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PhysicalLine<'a> {
    /// Offset of its first byte.
    pub(crate) start: usize,
    /// Line number, counted from 1.
    pub(crate) number: usize,
    /// Offset of the next line.
    pub(crate) end: usize,
    /// Its text without any `\r` and `\n` at the end.
    pub(crate) text: &'a str,
}

impl<'a> PhysicalLine<'a> {
    /// Its place without the line ending.
    pub(crate) fn span(&self) -> Span {
        Span::new(self.start, self.start + self.text.len())
    }

    /// Its text without blanks in front.
    pub(crate) fn trimmed(&self) -> &'a str {
        trim_start(self.text)
    }

    /// Whether its first character that is not blank is `#`.
    pub(crate) fn is_comment(&self) -> bool {
        self.trimmed().starts_with('#')
    }

    fn lines(&self) -> Lines {
        Lines {
            first: self.number,
            last: self.number,
        }
    }
}

/// As `str::trim_start`, quick where nothing but ordinary blanks is to be trimmed.
fn trim_start(text: &str) -> &str {
    let mut bytes = text.as_bytes().iter();
    let plain = bytes.position(|byte| !matches!(byte, b' ' | b'\t'));
    let rest = &text[plain.unwrap_or(text.len())..];
    match rest.as_bytes().first() {
        Some(b'!'..=b'~') | None => rest,
        _ => rest.trim_start(),
    }
}

/// As `str::trim_end`, quick where there is nothing to trim.
fn trim_end(text: &str) -> &str {
    match text.as_bytes().last() {
        Some(b'!'..=b'~') => text,
        _ => text.trim_end(),
    }
}

/// Hands out the lines of a file, one after the other.
#[derive(Debug)]
pub(crate) struct LineReader<'a> {
    text: &'a str,
    /// Offset of the next line.
    offset: usize,
    /// Lines handed out.
    count: usize,
    /// Whether there is more to read than one instruction.
    reads_all: bool,
    /// Room that a joined line left behind for the next one.
    spare: Spare,
}

/// Where continuations are joined.
#[derive(Debug, Default)]
struct Spare {
    text: String,
    parts: Vec<(usize, usize)>,
}

/// Of a room larger than this not all is kept.
const MAX_SPARE: usize = 64 << 10;

/// Bytes and lines that are made ready for continuations: few instructions have more.
const FIRST_ROOM: usize = 2 << 10;
const FIRST_PARTS: usize = 32;

impl<'a> LineReader<'a> {
    pub(crate) fn new(source: &'a Source) -> Self {
        let text = source.text();
        let offset = if text.starts_with('\u{feff}') {
            '\u{feff}'.len_utf8()
        } else {
            0
        };
        Self {
            text,
            offset,
            count: 0,
            reads_all: true,
            spare: Spare::default(),
        }
    }

    /// A reader of the lines from an offset on.
    pub(crate) fn at(source: &'a Source, offset: usize) -> Self {
        Self {
            offset,
            count: source.line_at(offset) - 1,
            reads_all: false,
            ..Self::new(source)
        }
    }

    /// Takes the room of a line that is done with.
    pub(crate) fn reuse(&mut self, line: LogicalLine<'_>) {
        if let Cow::Owned(mut text) = line.text {
            text.clear();
            text.shrink_to(MAX_SPARE);
            let mut parts = line.parts;
            parts.clear();
            self.spare = Spare { text, parts };
        }
    }

    /// The next line; none at the end of the file.
    #[expect(
        clippy::inline_always,
        reason = "a tenth of what reading takes would be calls"
    )]
    #[inline(always)]
    pub(crate) fn next_line(&mut self) -> Result<Option<PhysicalLine<'a>>, Diagnostic> {
        let start = self.offset;
        let rest = &self.text[start..];
        let (length, newline) = match newline_in(rest.as_bytes()) {
            Some(at) => (at, 1),
            None if rest.is_empty() => return Ok(None),
            None => (rest.len(), 0),
        };
        self.offset = start + length + newline;
        self.count += 1;
        let line = PhysicalLine {
            start,
            number: self.count,
            end: self.offset,
            text: without_returns(&rest[..length]),
        };
        if length > MAX_LINE {
            return Err(too_long(&line));
        }
        Ok(Some(line))
    }

    /// The whole text.
    pub(crate) fn text(&self) -> &'a str {
        self.text
    }

    /// Offset of the next line.
    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    /// Lines handed out so far.
    pub(crate) fn count(&self) -> usize {
        self.count
    }
}

/// The text without carriage returns at its end.
fn without_returns(text: &str) -> &str {
    if text.as_bytes().last() == Some(&b'\r') {
        text.trim_end_matches('\r')
    } else {
        text
    }
}

#[cold]
fn too_long(line: &PhysicalLine<'_>) -> Diagnostic {
    let message = format!("line {} is longer than {MAX_LINE} bytes", line.number);
    let span = Span::new(line.start, line.start);
    Diagnostic::error("line-too-long", Phase::Parse, span, message)
        .within(line.lines())
        .with_help("break it with continuations, or COPY the content from a file")
}

/// An instruction's text with continuations joined.
#[derive(Clone, Debug)]
pub(crate) struct LogicalLine<'a> {
    /// The joined text, blanks in front of the instruction removed; the file's own where there is nothing to join.
    pub(crate) text: Cow<'a, str>,
    /// Offsets in `text` where a part begins, and the part's offset in the file: all but the first part.
    parts: Vec<(usize, usize)>,
    /// From the first character to the end of the last line that belongs to it.
    pub(crate) span: Span,
    /// Lines that it takes, skipped ones included.
    pub(crate) lines: Lines,
    /// Blank lines between its continuations, line ends included.
    pub(crate) blank_lines: Vec<Span>,
}

impl<'a> LogicalLine<'a> {
    /// Reads on from the instruction's first line, which must not be a comment; none if it is blank.
    pub(crate) fn read(
        first: PhysicalLine<'a>,
        reader: &mut LineReader<'a>,
        escape: char,
    ) -> Result<Option<Self>, Diagnostic> {
        let trimmed = first.trimmed();
        let start = first.start + first.text.len() - trimmed.len();
        let (text, continues) = strip_continuation(trimmed, escape);
        if text.is_empty() && !continues {
            return Ok(None);
        }
        let mut line = Self {
            text: Cow::Borrowed(text),
            parts: Vec::new(),
            span: Span::new(start, first.span().end),
            lines: first.lines(),
            blank_lines: Vec::new(),
        };
        if continues {
            line.join(reader, escape)?;
        }
        Ok(Some(line))
    }

    /// Appends the lines that a continuation takes along.
    fn join(&mut self, reader: &mut LineReader<'a>, escape: char) -> Result<(), Diagnostic> {
        let Spare { mut text, parts } = std::mem::take(&mut reader.spare);
        self.parts = parts;
        // Room for most instructions, at once.
        if reader.reads_all {
            let behind = reader.text.len() - reader.offset;
            text.reserve(self.text.len() + behind.min(FIRST_ROOM));
            self.parts.reserve(FIRST_PARTS);
        }
        text.push_str(&self.text);
        let mut continues = true;
        while continues {
            let Some(next) = reader.next_line()? else {
                break;
            };
            self.lines.last = next.number;
            self.span.end = next.span().end;
            let trimmed = next.trimmed();
            if trimmed.starts_with('#') {
                continue;
            }
            if trimmed.is_empty() {
                self.blank_lines.push(Span::new(next.start, next.end));
                continue;
            }
            let (part, goes_on) = strip_continuation(next.text, escape);
            self.parts.push((text.len(), next.start));
            text.push_str(part);
            continues = goes_on;
        }
        self.text = Cow::Owned(text);
        Ok(())
    }

    /// Where a range of the text stands in the file; from its first character to its last, continuations included.
    #[inline]
    fn span_of(&self, range: Range<usize>) -> Span {
        if self.parts.is_empty() {
            return Span::new(self.span.start + range.start, self.span.start + range.end);
        }
        let start = self.source_offset(range.start);
        let end = if range.is_empty() {
            start
        } else {
            self.source_offset(range.end - 1) + 1
        };
        Span::new(start, end)
    }

    /// Where one byte of the text stands in the file.
    fn source_offset(&self, offset: usize) -> usize {
        let behind = self.parts.partition_point(|&(joined, _)| joined <= offset);
        let (joined, source) = match behind {
            0 => (0, self.span.start),
            behind => self.parts[behind - 1],
        };
        source + (offset - joined)
    }

    /// The whole text as a fragment.
    pub(crate) fn fragment(&self) -> Fragment<'_> {
        Fragment::of(self)
    }
}

/// The joined text of the instruction that begins at an offset; empty if none does.
pub(crate) fn joined_at(source: &Source, offset: usize, escape: char) -> Cow<'_, str> {
    let mut reader = LineReader::at(source, offset);
    let first = reader.next_line().ok().flatten();
    let line = first.and_then(|first| LogicalLine::read(first, &mut reader, escape).ok()?);
    line.map(|line| line.text).unwrap_or_default()
}

/// Removes the escape character and the blanks behind it from a line's end; false if there is none.
///
/// Two escape characters in a row are no continuation, three neither.
fn strip_continuation(text: &str, escape: char) -> (&str, bool) {
    let bytes = text.as_bytes();
    let is_escape = |byte: &u8| char::from(*byte) == escape;
    let last = bytes.iter().rposition(|byte| !matches!(byte, b' ' | b'\t'));
    match last {
        Some(last) if is_escape(&bytes[last]) && !bytes[..last].last().is_some_and(is_escape) => {
            (&text[..last], true)
        }
        _ => (text, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logical_lines(text: &str, escape: char) -> Vec<(String, usize, usize)> {
        let source = Source::new("Dockerfile", text.as_bytes());
        let mut reader = LineReader::new(&source);
        let mut found = Vec::new();
        while let Some(first) = reader.next_line().expect("the text is valid") {
            if first.is_comment() {
                continue;
            }
            if let Some(line) =
                LogicalLine::read(first, &mut reader, escape).expect("the text is valid")
            {
                found.push((line.text.into_owned(), line.lines.first, line.lines.last));
            }
        }
        found
    }

    #[test]
    fn continuations_are_joined() {
        type Row<'a> = (&'a str, &'a str, char, &'a [(&'a str, usize, usize)]);
        let table: &[Row<'_>] = &[
            ("plain", "A b\nC d\n", '\\', &[("A b", 1, 1), ("C d", 2, 2)]),
            (
                "blanks of later lines stay",
                "A b\\\n  c\n",
                '\\',
                &[("A b  c", 1, 2)],
            ),
            (
                "blanks behind the escape",
                "A b \\ \t\nc",
                '\\',
                &[("A b c", 1, 2)],
            ),
            (
                "two escapes end a line",
                "A b\\\\\nC\n",
                '\\',
                &[("A b\\\\", 1, 1), ("C", 2, 2)],
            ),
            (
                "three as well",
                "A b\\\\\\\nC\n",
                '\\',
                &[("A b\\\\\\", 1, 1), ("C", 2, 2)],
            ),
            (
                "comments inside vanish",
                "A \\\n # x \\\nb\n",
                '\\',
                &[("A b", 1, 3)],
            ),
            (
                "blank lines inside vanish",
                "A \\\n\n \nb\nC\n",
                '\\',
                &[("A b", 1, 4), ("C", 5, 5)],
            ),
            ("end of file ends it", "A b \\", '\\', &[("A b ", 1, 1)]),
            (
                "carriage returns",
                "A \\\r\nb\r\nC\r\n",
                '\\',
                &[("A b", 1, 2), ("C", 3, 3)],
            ),
            ("byte order mark", "\u{feff}A b", '\\', &[("A b", 1, 1)]),
            (
                "backtick",
                "A c:\\\nB `\nc",
                '`',
                &[("A c:\\", 1, 1), ("B c", 2, 3)],
            ),
            ("lone escape", "\\\n", '\\', &[("", 1, 1)]),
        ];
        for (name, text, escape, expected) in table {
            let expected: Vec<_> = expected
                .iter()
                .map(|(a, b, c)| ((*a).to_owned(), *b, *c))
                .collect();
            assert_eq!(logical_lines(text, *escape), expected, "{name}");
        }
    }

    #[test]
    fn ranges_point_into_the_file() {
        let text = "  RUN one \\\n# note\n  two";
        let source = Source::new("Dockerfile", text.as_bytes());
        let mut reader = LineReader::new(&source);
        let first = reader
            .next_line()
            .expect("the text is valid")
            .expect("the text is valid");
        let line = LogicalLine::read(first, &mut reader, '\\')
            .expect("the text is valid")
            .expect("the text is valid");
        let words: Vec<_> = line
            .fragment()
            .split_at_blanks()
            .map(|piece| piece.span())
            .collect();
        let shown: Vec<_> = words
            .iter()
            .map(|span| &text[span.start..span.end])
            .collect();
        assert_eq!(shown, ["RUN", "one", "two"]);
    }

    #[test]
    fn long_lines_are_refused() {
        for (length, is_fine) in [(MAX_LINE, true), (MAX_LINE + 1, false)] {
            let source = Source::new("Dockerfile", "x".repeat(length).as_bytes());
            assert_eq!(
                LineReader::new(&source).next_line().is_ok(),
                is_fine,
                "{length}"
            );
        }
    }
}
