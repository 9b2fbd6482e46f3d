//! Pieces of a Dockerfile that instructions keep.

use std::fmt;
use std::ops::Deref;

use crate::ast::Word;
use crate::source::Source;

/// A piece of a Dockerfile as an instruction says it, mostly a place in the file's own text: nothing is copied as long
/// as no continuation, quote or escape has to be taken out.
#[derive(Clone)]
pub struct Text(Kept);

#[derive(Clone)]
enum Kept {
    /// A range of a file, which is no longer than [`crate::ast::MAX_FILE`].
    Place {
        source: Source,
        start: u32,
        end: u32,
    },
    Copy(Box<str>),
}

impl Text {
    /// The text of a word.
    pub(crate) fn of(word: &Word<'_>, source: &Source) -> Self {
        Self::at(word.span.start, &word.text, source)
    }

    /// A text that stands in the file at `start`, if it does.
    pub(crate) fn at(start: usize, written: &str, source: &Source) -> Self {
        let text = written.as_bytes();
        let end = start + text.len();
        let file = source.text().as_bytes();
        // Most are borrowed from the file: then there is nothing to compare.
        let is_text = |there: &[u8]| std::ptr::eq(there, text) || there == text;
        let is_there = file.get(start..end).is_some_and(is_text);
        match (u32::try_from(start), u32::try_from(end)) {
            (Ok(start), Ok(end)) if is_there => Self(Kept::Place {
                source: source.clone(),
                start,
                end,
            }),
            _ => Self(Kept::Copy(written.into())),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Kept::Place { source, start, end } => &source.text()[*start as usize..*end as usize],
            Kept::Copy(text) => text,
        }
    }
}

/// Copies for who keeps them without the file.
pub(crate) fn to_strings(texts: &[Text]) -> Vec<String> {
    texts.iter().map(Text::to_string).collect()
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Kept::Copy(text.into()))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(Kept::Copy(text.into()))
    }
}

impl Default for Text {
    fn default() -> Self {
        Self::from("")
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Text {}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), formatter)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), formatter)
    }
}

impl serde::Serialize for Text {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_does_not_stand_in_the_file_is_copied() {
        let source = Source::new("Dockerfile", b"RUN a\\\nb");
        for (start, text, is_place) in [(4, "a", true), (4, "ab", false), (7, "bc", false)] {
            let kept = Text::at(start, text, &source);
            assert_eq!(kept, text);
            assert_eq!(matches!(kept.0, Kept::Place { .. }), is_place, "{text}");
        }
    }
}
