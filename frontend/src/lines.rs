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

use std::ops::Range;

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
    /// Its text, newline included.
    pub(crate) raw: &'a str,
}

impl<'a> PhysicalLine<'a> {
    /// Its text without any `\r` and `\n` at the end.
    pub(crate) fn text(&self) -> &'a str {
        self.raw.trim_end_matches(['\r', '\n'])
    }

    /// Its place without the line ending.
    pub(crate) fn span(&self) -> Span {
        Span::new(self.start, self.start + self.text().len())
    }

    /// Whether its first character that is not blank is `#`.
    pub(crate) fn is_comment(&self) -> bool {
        self.raw.trim_start().starts_with('#')
    }

    fn lines(&self) -> Lines {
        Lines {
            first: self.number,
            last: self.number,
        }
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
}

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
        }
    }

    /// The next line; none at the end of the file.
    pub(crate) fn next_line(&mut self) -> Result<Option<PhysicalLine<'a>>, Diagnostic> {
        let rest = &self.text[self.offset..];
        let Some(raw) = rest.split_inclusive('\n').next() else {
            return Ok(None);
        };
        self.count += 1;
        let line = PhysicalLine {
            start: self.offset,
            number: self.count,
            raw,
        };
        self.offset += raw.len();
        if raw.strip_suffix('\n').unwrap_or(raw).len() > MAX_LINE {
            let message = format!("line {} is longer than {MAX_LINE} bytes", line.number);
            let span = Span::new(line.start, line.start);
            return Err(
                Diagnostic::error("line-too-long", Phase::Parse, span, message)
                    .within(line.lines())
                    .with_help("break it with continuations, or COPY the content from a file"),
            );
        }
        Ok(Some(line))
    }

    /// The whole text.
    pub(crate) fn text(&self) -> &'a str {
        self.text
    }

    /// Lines handed out so far.
    pub(crate) fn count(&self) -> usize {
        self.count
    }
}

/// An instruction's text with continuations joined.
#[derive(Clone, Debug)]
pub(crate) struct LogicalLine {
    /// The joined text, blanks in front of the instruction removed.
    pub(crate) text: String,
    /// Offsets in `text` where a part begins, and the part's offset in the file.
    parts: Vec<(usize, usize)>,
    /// From the first character to the end of the last line that belongs to it.
    pub(crate) span: Span,
    /// Lines that it takes, skipped ones included.
    pub(crate) lines: Lines,
    /// Blank lines between its continuations, line ends included.
    pub(crate) blank_lines: Vec<Span>,
}

impl LogicalLine {
    /// Reads on from the instruction's first line, which must not be a comment; none if it is blank.
    pub(crate) fn read(
        first: PhysicalLine<'_>,
        reader: &mut LineReader<'_>,
        escape: char,
    ) -> Result<Option<Self>, Diagnostic> {
        let whole = first.text();
        let trimmed = whole.trim_start();
        let start = first.start + whole.len() - trimmed.len();
        let (text, mut continues) = strip_continuation(trimmed, escape);
        if text.is_empty() && !continues {
            return Ok(None);
        }
        let mut line = Self {
            text: text.to_owned(),
            parts: vec![(0, start)],
            span: Span::new(start, first.span().end),
            lines: first.lines(),
            blank_lines: Vec::new(),
        };
        while continues {
            let Some(next) = reader.next_line()? else {
                break;
            };
            line.lines.last = next.number;
            line.span.end = next.span().end;
            if next.is_comment() {
                continue;
            }
            if next.text().trim_start().is_empty() {
                let end = next.start + next.raw.len();
                line.blank_lines.push(Span::new(next.start, end));
                continue;
            }
            let (text, goes_on) = strip_continuation(next.text(), escape);
            line.parts.push((line.text.len(), next.start));
            line.text.push_str(text);
            continues = goes_on;
        }
        Ok(Some(line))
    }

    /// Where a range of the text stands in the file; from its first character to its last, continuations included.
    fn span_of(&self, range: Range<usize>) -> Span {
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
        let part = self
            .parts
            .partition_point(|&(joined, _)| joined <= offset)
            .saturating_sub(1);
        let (joined, source) = self.parts[part];
        source + (offset - joined)
    }

    /// The whole text as a fragment.
    pub(crate) fn fragment(&self) -> Fragment<'_> {
        Fragment {
            line: self,
            start: 0,
            end: self.text.len(),
        }
    }
}

/// Removes the escape character and the blanks behind it from a line's end; false if there is none.
///
/// Two escape characters in a row are no continuation, three neither.
fn strip_continuation(text: &str, escape: char) -> (&str, bool) {
    match text.trim_end_matches([' ', '\t']).strip_suffix(escape) {
        Some(before) if !before.ends_with(escape) => (before, true),
        _ => (text, false),
    }
}

/// A part of a logical line that knows where it came from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fragment<'a> {
    line: &'a LogicalLine,
    start: usize,
    end: usize,
}

impl<'a> Fragment<'a> {
    pub(crate) fn text(&self) -> &'a str {
        &self.line.text[self.start..self.end]
    }

    /// Its place in the file.
    pub(crate) fn span(&self) -> Span {
        self.line.span_of(self.start..self.end)
    }

    /// The lines of the whole logical line.
    pub(crate) fn lines(&self) -> Lines {
        self.line.lines
    }

    /// A range of it, counted from its own start.
    pub(crate) fn slice(&self, range: Range<usize>) -> Self {
        Self {
            line: self.line,
            start: self.start + range.start,
            end: self.start + range.end,
        }
    }

    /// All from an offset on.
    pub(crate) fn from(&self, offset: usize) -> Self {
        self.slice(offset..self.text().len())
    }

    /// Without white space at both ends.
    pub(crate) fn trim(&self) -> Self {
        let text = self.text();
        let start = text.len() - text.trim_start().len();
        self.slice(start..start + text.trim().len())
    }

    /// Cuts once at the first run of blanks; none without one.
    pub(crate) fn split_once_at_blanks(&self) -> Option<(Self, Self)> {
        let text = self.text();
        let blank = text.find(is_blank)?;
        let behind = text[blank..]
            .find(|char| !is_blank(char))
            .map_or(text.len(), |at| blank + at);
        Some((self.slice(0..blank), self.from(behind)))
    }

    /// Cuts at each run of blanks. Not empty, as long as the fragment is not.
    pub(crate) fn split_at_blanks(&self) -> Vec<Self> {
        let mut pieces = Vec::new();
        let mut rest = *self;
        while let Some((piece, behind)) = rest.split_once_at_blanks() {
            pieces.push(piece);
            rest = behind;
        }
        pieces.push(rest);
        pieces
    }
}

/// The characters that separate words for the grammar; narrower than Unicode white space.
fn is_blank(char: char) -> bool {
    matches!(char, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
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
                found.push((line.text, line.lines.first, line.lines.last));
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
            .iter()
            .map(Fragment::span)
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
