//! A part of a logical line, and how it is cut into smaller ones.

use std::ops::Range;

use super::{LogicalLine, trim_end, trim_start};
use crate::source::{Lines, Span};

/// A part of a logical line that knows where it came from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fragment<'a> {
    line: &'a LogicalLine<'a>,
    /// Where it begins in the line's text.
    start: usize,
    text: &'a str,
}

impl<'a> Fragment<'a> {
    /// The whole text of a line.
    pub(super) fn of(line: &'a LogicalLine<'a>) -> Self {
        Self {
            line,
            start: 0,
            text: &line.text,
        }
    }

    pub(crate) fn text(&self) -> &'a str {
        self.text
    }

    /// Its place in the file.
    #[inline]
    pub(crate) fn span(&self) -> Span {
        self.line.span_of(self.start..self.start + self.text.len())
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
            text: &self.text[range],
        }
    }

    /// All from an offset on.
    pub(crate) fn from(&self, offset: usize) -> Self {
        Self {
            line: self.line,
            start: self.start + offset,
            text: &self.text[offset..],
        }
    }

    /// Without white space at both ends.
    #[inline]
    pub(crate) fn trim(&self) -> Self {
        let text = self.text();
        // Nothing to remove from most.
        if let [b'!'..=b'~', .., b'!'..=b'~'] = text.as_bytes() {
            return *self;
        }
        let behind = trim_start(text);
        let start = text.len() - behind.len();
        self.slice(start..start + trim_end(behind).len())
    }

    /// Cuts once at the first run of blanks; none without one.
    pub(crate) fn split_once_at_blanks(&self) -> Option<(Self, Self)> {
        let bytes = self.text().as_bytes();
        let blank = bytes.iter().position(|byte| is_blank(*byte))?;
        let rest = &bytes[blank..];
        let blanks = rest.iter().position(|byte| !is_blank(*byte));
        let behind = blank + blanks.unwrap_or(rest.len());
        Some((self.slice(0..blank), self.from(behind)))
    }

    /// Cuts at each run of blanks. Not empty, as long as the fragment is not.
    pub(crate) fn split_at_blanks(&self) -> impl Iterator<Item = Self> {
        let bytes = self.text().as_bytes();
        let mut start = Some(0);
        std::iter::from_fn(move || {
            let from = start?;
            let behind = &bytes[from..];
            let Some(length) = behind.iter().position(|byte| is_blank(*byte)) else {
                start = None;
                return Some(self.from(from));
            };
            let mut blanks = behind[length..].iter();
            let blanks = blanks.position(|byte| !is_blank(*byte));
            start = Some(blanks.map_or(bytes.len(), |blanks| from + length + blanks));
            Some(self.slice(from..from + length))
        })
    }
}

/// The characters that separate words for the grammar; narrower than Unicode white space.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b'\t' | b'\x0b' | b'\x0c' | b'\r' | b' ')
}
