//! `.dockerignore`: which entries of a build context are left out.
//!
//! A walker asks for each entry, from the top down and with what it got for the directory above:
//!
//! ```
//! use rbuild_frontend::ignore_file::{IgnoreFile, ParentMatch, Verdict};
//!
//! let ignore = IgnoreFile::parse(b"# build output\ntarget\n!target/keep\n")?.matcher()?;
//! let (verdict, below) = ignore.judge(b"target", &ParentMatch::default());
//! assert_eq!(verdict, Verdict::Ignored { may_keep_below: true });
//! assert_eq!(ignore.judge(b"target/keep", &below).0, Verdict::Kept);
//! assert_eq!(ignore.judge(b"target/debug", &below).0, Verdict::Ignored { may_keep_below: false });
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A directory that is ignored but has something kept below is part of the context, just before that entry.

use crate::path;
use crate::pattern::PatternList;
pub use crate::pattern::{ParentMatch, PatternError};

/// Longest line of an ignore file in bytes. The reference reads with Go's line scanner, whose limit this is.
const MAX_LINE: usize = 64 * 1024;

/// An ignore file's patterns, cleaned, comments and blank lines gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IgnoreFile {
    /// In file order; exceptions with their `!`.
    pub patterns: Vec<String>,
    /// The line of each pattern, from 1.
    lines: Vec<usize>,
}

/// Why an ignore file can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreFileError {
    /// A line beyond all measure.
    #[error("line {line} is longer than {MAX_LINE} bytes")]
    LineTooLong {
        /// Which line, from 1.
        line: usize,
    },
}

impl IgnoreFile {
    /// Reads the bytes of an ignore file. Patterns are not checked here but by [`IgnoreFile::matcher`].
    pub fn parse(bytes: &[u8]) -> Result<Self, IgnoreFileError> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let (mut patterns, mut lines) = (Vec::new(), Vec::new());
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            if line.len() >= MAX_LINE {
                return Err(IgnoreFileError::LineTooLong { line: index + 1 });
            }
            if line.starts_with(b"#") {
                continue;
            }
            let line = String::from_utf8_lossy(line);
            let (exception, pattern) = match line.trim() {
                "" => continue,
                line => line
                    .strip_prefix('!')
                    .map_or(("", line), |pattern| ("!", pattern.trim())),
            };
            let cleaned = if pattern.is_empty() {
                String::new()
            } else {
                path::clean(pattern)
            };
            let relative = cleaned
                .strip_prefix('/')
                .filter(|rest| !rest.is_empty())
                .unwrap_or(&cleaned);
            patterns.push(format!("{exception}{relative}"));
            lines.push(index + 1);
        }
        Ok(Self { patterns, lines })
    }

    /// The line, from 1, of the first pattern that is none: [`IgnoreFile::matcher`] refuses the file for it.
    pub fn first_invalid(&self) -> Option<usize> {
        let mut lines = self.patterns.iter().zip(&self.lines);
        lines
            .find(|(text, _)| PatternList::new([text]).is_err())
            .map(|(_, line)| *line)
    }

    /// The pattern that leaves `path` out, or a directory above it, and its line from 1: the last one that matches
    /// decides. None when the path is kept.
    pub fn excluding(&self, path: &[u8]) -> Option<(&str, usize)> {
        let deciding = self
            .patterns
            .iter()
            .zip(&self.lines)
            .rev()
            .find(|(text, _)| {
                let alone = PatternList::new([text.strip_prefix('!').unwrap_or(text)]);
                alone.is_ok_and(|alone| alone.is_match(path))
            });
        deciding
            .filter(|(text, _)| !text.starts_with('!'))
            .map(|(text, line)| (text.as_str(), *line))
    }

    /// Compiles the patterns.
    pub fn matcher(&self) -> Result<IgnoreMatcher, PatternError> {
        IgnoreMatcher::new(&self.patterns)
    }
}

/// What becomes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Part of the context.
    Kept,
    /// Not part of it.
    Ignored {
        /// For a directory: an exception may keep something below, so it has to be walked.
        may_keep_below: bool,
    },
}

/// Compiled ignore patterns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IgnoreMatcher {
    list: PatternList,
}

impl IgnoreMatcher {
    /// Compiles patterns as [`IgnoreFile`] has them, or as given to `--exclude`.
    pub fn new<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Result<Self, PatternError> {
        Ok(Self {
            list: PatternList::new(patterns)?,
        })
    }

    /// Whether nothing is ever ignored for lack of patterns.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The patterns.
    pub fn patterns(&self) -> &PatternList {
        &self.list
    }

    /// Whether a path, or a directory above it, is ignored: for a single question without a walk.
    pub fn matches(&self, path: &[u8]) -> bool {
        self.list.is_match(path)
    }

    /// Judges an entry by its path from the root and by what came out for its directory.
    pub fn judge(&self, path: &[u8], parent: &ParentMatch) -> (Verdict, ParentMatch) {
        let (is_ignored, below) = self.list.is_match_below(path, parent);
        let verdict = if is_ignored {
            Verdict::Ignored {
                may_keep_below: self.may_match_below(path),
            }
        } else {
            Verdict::Kept
        };
        (verdict, below)
    }

    /// Whether an exception may keep something below an ignored directory; false allows to skip it.
    pub fn may_match_below(&self, directory: &[u8]) -> bool {
        self.list.may_except_below(directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_leaves_a_path_out_is_known() {
        let text = b"# build output\n\n/dist\n*.log\n!keep.log\n  docs/**/draft  \n!\n";
        let file = IgnoreFile::parse(text).unwrap();
        for (path, wanted) in [
            ("dist", Some(("dist", 3))),
            ("dist/app.js", Some(("dist", 3))),
            ("a.log", Some(("*.log", 4))),
            ("keep.log", None),
            ("docs/a/draft/x", Some(("docs/**/draft", 6))),
            ("src/main.rs", None),
        ] {
            assert_eq!(file.excluding(path.as_bytes()), wanted, "{path}");
        }
    }

    #[test]
    fn lines_become_patterns() {
        for (text, patterns) in [
            ("", vec![]),
            (
                "\u{feff}a\r\n\r\n # not a comment\n#comment\n",
                vec!["a", "# not a comment"],
            ),
            ("/a/\n/\n! /b//c\n!", vec!["a", "/", "!b/c", "!"]),
            ("a/../b\n./c\n..", vec!["b", "c", ".."]),
        ] {
            assert_eq!(
                IgnoreFile::parse(text.as_bytes()).unwrap().patterns,
                patterns,
                "{text:?}"
            );
        }
    }

    #[test]
    fn endless_lines_are_refused() {
        let text = format!("a\n{}", "x".repeat(MAX_LINE));
        assert_eq!(
            IgnoreFile::parse(text.as_bytes()),
            Err(IgnoreFileError::LineTooLong { line: 2 })
        );
    }

    #[test]
    fn entries_are_judged_on_the_way_down() {
        let ignore = IgnoreMatcher::new(["*", "!src/*.rs"]).unwrap();
        let (verdict, below) = ignore.judge(b"src", &ParentMatch::default());
        assert_eq!(
            verdict,
            Verdict::Ignored {
                may_keep_below: true
            }
        );
        assert_eq!(ignore.judge(b"src/a.rs", &below).0, Verdict::Kept);
        assert_eq!(
            ignore.judge(b"src/a.txt", &below).0,
            Verdict::Ignored {
                may_keep_below: false
            }
        );
        assert_eq!(
            ignore.judge(b"doc", &ParentMatch::default()).0,
            Verdict::Ignored {
                may_keep_below: false
            }
        );
    }
}
