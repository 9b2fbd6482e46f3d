//! A Dockerfile's text, its name, and positions in it.
//!
//! Everything that comes from a Dockerfile carries a [`Span`] (byte offsets) so that an error can point at it;
//! [`Source`] turns offsets into lines. Pure text: nothing here reads a file.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

/// A range of bytes of a [`Source`]: `start..end`, `end` exclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// Offset of the first byte.
    pub start: usize,
    /// Offset behind the last byte.
    pub end: usize,
}

impl Span {
    /// The range `start..end`.
    pub fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }
}

/// A range of lines, both ends included, counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lines {
    /// First line.
    pub first: usize,
    /// Last line; equal to `first` for one line.
    pub last: usize,
}

/// The text of one Dockerfile, cheap to clone.
#[derive(Clone, Debug)]
pub struct Source(Arc<Shared>);

/// What all clones of a source share.
#[derive(Debug)]
struct Shared {
    name: Box<str>,
    text: Box<str>,
    /// Offset of the first byte of each line; found when a place is first asked for, which a file without a fault
    /// never is.
    line_starts: OnceLock<Box<[usize]>>,
}

impl Source {
    /// Names a text. `name` is what messages show, usually the path as the user typed it.
    ///
    /// Bytes that are not UTF-8 become U+FFFD: the reference passes them on unchanged, but no Dockerfile seen
    /// in the field has them outside comments.
    pub fn new(name: &str, bytes: &[u8]) -> Self {
        let text = std::str::from_utf8(bytes).map_or_else(
            |_| String::from_utf8_lossy(bytes),
            // Checked in one sweep: nearly every file is what it should be.
            Cow::Borrowed,
        );
        Self(Arc::new(Shared {
            name: name.into(),
            text: text.into(),
            line_starts: OnceLock::new(),
        }))
    }

    /// The name given to [`Source::new`].
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    fn line_starts(&self) -> &[usize] {
        self.0.line_starts.get_or_init(|| {
            let text = self.text().as_bytes();
            // A file beyond the limit is refused, so its lines are of no use.
            let counted = &text[..text.len().min(crate::ast::MAX_FILE)];
            let behind_newlines = memchr::memchr_iter(b'\n', counted).map(|at| at + 1);
            std::iter::once(0).chain(behind_newlines).collect()
        })
    }

    /// The line, counted from 1, that holds the byte at `offset`.
    pub fn line_at(&self, offset: usize) -> usize {
        self.line_starts()
            .partition_point(|&start| start <= offset)
            .max(1)
    }

    /// The line and column, both counted from 1, of the character at `offset`. Columns are characters.
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let offset = (0..=offset.min(self.text().len()))
            .rev()
            .find(|&at| self.text().is_char_boundary(at))
            .unwrap_or(0);
        let line = self.line_at(offset);
        let start = self.line_starts().get(line - 1).copied().unwrap_or(0);
        (line, self.text()[start..offset].chars().count() + 1)
    }

    /// The lines that a span touches.
    pub fn lines(&self, span: Span) -> Lines {
        let last = if span.end > span.start {
            span.end - 1
        } else {
            span.start
        };
        Lines {
            first: self.line_at(span.start),
            last: self.line_at(last),
        }
    }

    /// The span of whole lines, without the last line's newline.
    pub fn span_of_lines(&self, lines: Lines) -> Span {
        let start = self
            .line_starts()
            .get(lines.first.saturating_sub(1))
            .copied()
            .unwrap_or_else(|| self.text().len());
        let end = self
            .line_starts()
            .get(lines.last)
            .map_or_else(|| self.text().len(), |next| next - 1);
        Span {
            start,
            end: end.max(start),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_become_lines() {
        let source = Source::new("Dockerfile", b"FROM a\nRUN b\\\n c\n");
        assert_eq!(source.line_at(0), 1);
        assert_eq!(source.line_at(6), 1, "the newline belongs to its line");
        assert_eq!(source.line_at(7), 2);
        assert_eq!(source.position(12), (2, 6));
        assert_eq!(source.position(99), (4, 1));
        assert_eq!(source.lines(Span::new(7, 16)), Lines { first: 2, last: 3 });
        assert_eq!(
            source.span_of_lines(Lines { first: 2, last: 3 }),
            Span::new(7, 16)
        );
    }
}
