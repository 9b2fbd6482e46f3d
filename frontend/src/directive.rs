//! Parser directives: the `# name=value` lines at the very top of a Dockerfile.
//!
//! The zone ends for good at the first line that is not a known directive: a blank line, an ordinary comment, an
//! instruction. Directive-looking lines after it are comments. Only `escape` changes how the rest is read; `syntax`
//! and `check` are kept for others.

use crate::diagnostic::{Diagnostic, Phase};
use crate::lines::PhysicalLine;
use crate::source::Span;

/// The directives that exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DirectiveName {
    /// The frontend image that the reference would fetch. Nothing is fetched here.
    Syntax,
    /// The escape character.
    Escape,
    /// Which build checks are skipped, and whether they fail the build.
    Check,
}

impl DirectiveName {
    fn from_word(word: &str) -> Option<Self> {
        [Self::Syntax, Self::Escape, Self::Check]
            .into_iter()
            .find(|name| name.as_str().eq_ignore_ascii_case(word))
    }

    /// The name as it is written in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::Escape => "escape",
            Self::Check => "check",
        }
    }
}

/// One directive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// Which one.
    pub name: DirectiveName,
    /// Its value without blanks around it.
    pub value: String,
    /// The whole line.
    pub span: Span,
    /// The value's place.
    pub value_span: Span,
}

/// What a line is to the zone.
#[derive(Debug)]
pub(crate) enum Zone {
    /// No directive, nor will any line behind it be one.
    Over,
    /// A directive.
    Directive,
    /// A directive that stood before: the first one counts.
    Repeated(Box<Diagnostic>),
}

/// Reads directives as long as the zone lasts.
#[derive(Debug, Default)]
pub(crate) struct DirectiveZone {
    is_over: bool,
    found: Vec<Directive>,
}

impl DirectiveZone {
    /// Looks at a line that begins an instruction, is blank or is a comment. An error leaves open how to read the rest.
    pub(crate) fn read(&mut self, line: PhysicalLine<'_>) -> Result<Zone, Diagnostic> {
        if self.is_over {
            return Ok(Zone::Over);
        }
        let Some((name, value_offset, value)) = parse(line.text) else {
            self.is_over = true;
            return Ok(Zone::Over);
        };
        let value_start = line.start + value_offset;
        let directive = Directive {
            name,
            value: value.to_owned(),
            span: line.span(),
            value_span: Span::new(value_start, value_start + value.len()),
        };
        if let Some(first) = self.found.iter().find(|found| found.name == name) {
            let message = format!(
                "the directive `{}` stands here a second time",
                name.as_str()
            );
            let error = Diagnostic::error("repeated-directive", Phase::Parse, line.span(), message);
            let error = error.with_note(first.span, "first here");
            return Ok(Zone::Repeated(Box::new(
                error.with_help("keep one of them"),
            )));
        }
        if name == DirectiveName::Escape && value != "\\" && value != "`" {
            let message = format!("`{value}` can't be the escape character");
            return Err(Diagnostic::error(
                "invalid-escape",
                Phase::Parse,
                directive.value_span,
                message,
            )
            .with_help("it is a backslash or a backtick"));
        }
        self.found.push(directive);
        Ok(Zone::Directive)
    }

    /// The escape character so far.
    pub(crate) fn escape(&self) -> char {
        let escape = self
            .found
            .iter()
            .find(|found| found.name == DirectiveName::Escape);
        if escape.is_some_and(|escape| escape.value == "`") {
            '`'
        } else {
            '\\'
        }
    }

    /// All that was found.
    pub(crate) fn into_found(self) -> Vec<Directive> {
        self.found
    }
}

/// Directives as whoever picks a frontend or a set of checks looks for them, before anything is parsed: behind a `#!`
/// line too, after another comment mark, and only in the first column. Ends where the parser's zone would.
pub(crate) fn scan(text: &str, mark: &str) -> Vec<Directive> {
    let mut offset = text.len() - text.strip_prefix('\u{feff}').unwrap_or(text).len();
    if text[offset..].starts_with("#!") {
        offset += text[offset..]
            .find('\n')
            .map_or(text.len() - offset, |at| at + 1);
    }
    let mut found: Vec<Directive> = Vec::new();
    for raw in text[offset..].split_inclusive('\n') {
        let line = raw.trim_end_matches(['\r', '\n']);
        let Some((name, value_offset, value)) = parse_after(line, mark) else {
            break;
        };
        if found.iter().any(|earlier| earlier.name == name) {
            break;
        }
        let value_start = offset + value_offset;
        found.push(Directive {
            name,
            value: value.to_owned(),
            span: Span::new(offset, offset + line.len()),
            value_span: Span::new(value_start, value_start + value.len()),
        });
        offset += raw.len();
    }
    found
}

/// The name of a known directive, its value and the value's offset in the line. The parser allows blanks before `#`.
fn parse(line: &str) -> Option<(DirectiveName, usize, &str)> {
    let trimmed = line.trim_start();
    let (name, offset, value) = parse_after(trimmed, "#")?;
    Some((name, line.len() - trimmed.len() + offset, value))
}

/// The same behind a comment mark at the very start.
fn parse_after<'a>(line: &'a str, mark: &str) -> Option<(DirectiveName, usize, &'a str)> {
    // Narrower than Unicode white space, and without the vertical tab: Go's `\s`.
    let is_blank = |char: char| matches!(char, '\t' | '\n' | '\u{c}' | '\r' | ' ');
    let text = line.strip_prefix(mark)?.trim_start();
    let (name, value) = text.split_once('=')?;
    let name = DirectiveName::from_word(name.trim_end_matches(is_blank))?;
    let start = line.len() - value.trim_start_matches(is_blank).len();
    let trimmed = line[start..].trim_end_matches(is_blank);
    if !trimmed.is_empty() {
        return Some((name, start, trimmed));
    }
    // A value of blanks only is its last blank, which then is no good value for anything.
    let (last, _) = value.char_indices().next_back()?;
    Some((name, line.len() - value.len() + last, &value[last..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::LineReader;
    use crate::source::Source;

    fn read(text: &str) -> Result<Vec<(DirectiveName, String)>, &'static str> {
        let source = Source::new("Dockerfile", text.as_bytes());
        let mut reader = LineReader::new(&source);
        let mut zone = DirectiveZone::default();
        while let Some(line) = reader.next_line().expect("the text is valid") {
            if let Zone::Repeated(error) = zone.read(line).map_err(|error| error.code)? {
                return Err(error.code);
            }
        }
        for directive in &zone.found {
            let span = directive.value_span;
            assert_eq!(directive.value, &text[span.start..span.end]);
        }
        Ok(zone
            .into_found()
            .into_iter()
            .map(|found| (found.name, found.value))
            .collect())
    }

    #[test]
    fn directives_are_read_at_the_top_only() {
        use DirectiveName::{Check, Escape, Syntax};

        type Row<'a> = (&'a str, &'a str, &'a [(DirectiveName, &'a str)]);
        let table: &[Row<'_>] = &[
            (
                "all",
                "#syntax=a b\n# Escape = ` \n#CHECK=skip=all\nFROM a",
                &[(Syntax, "a b"), (Escape, "`"), (Check, "skip=all")],
            ),
            ("blank line ends the zone", "\n# escape=`", &[]),
            ("comment ends the zone", "# hi\n# escape=`", &[]),
            ("unknown name ends the zone", "# x=1\n# escape=`", &[]),
            ("two hashes are a comment", "## escape=`", &[]),
            ("no value", "# escape=\n# syntax=x", &[]),
            (
                "any blank behind the mark",
                "#\u{a0}\u{b}escape=`",
                &[(Escape, "`")],
            ),
        ];
        for (name, text, expected) in table {
            let expected: Vec<_> = expected
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned()))
                .collect();
            assert_eq!(read(text), Ok(expected), "{name}");
        }
        assert_eq!(read("# escape=x"), Err("invalid-escape"));
        assert_eq!(read("# escape=  "), Err("invalid-escape"));
        assert_eq!(read("# escape=`\n# escape=`"), Err("repeated-directive"));
    }
    #[test]
    fn scanning_is_tolerant_and_strict_in_its_own_way() {
        use DirectiveName::{Check, Syntax};

        type Row<'a> = (&'a str, &'a str, &'a [(DirectiveName, &'a str)]);
        let table: &[Row<'_>] = &[
            ("#!/bin/x\n#check=skip=all", "#", &[(Check, "skip=all")]),
            (
                "\u{feff}#syntax=a b\r\n#check=c\nFROM a",
                "#",
                &[(Syntax, "a b"), (Check, "c")],
            ),
            (" #check=a", "#", &[]),
            ("//syntax = a", "//", &[(Syntax, "a")]),
            ("//syntax=a\n//syntax=b", "//", &[(Syntax, "a")]),
            ("#!x", "#", &[]),
            ("", "#", &[]),
        ];
        for (text, mark, expected) in table {
            let found = scan(text, mark);
            for directive in &found {
                let span = directive.value_span;
                assert_eq!(directive.value, &text[span.start..span.end], "{text}");
            }
            let found: Vec<_> = found
                .iter()
                .map(|found| (found.name, found.value.as_str()))
                .collect();
            assert_eq!(&found, expected, "{text}");
        }
    }
}
