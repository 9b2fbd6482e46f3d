//! Flags: the `--name` and `--name=value` words in front of an instruction's arguments.
//!
//! Lexed from every instruction's text, checked only where an instruction has flags to offer: see [`Flags::check`].
//! Quotes of both kinds and the escape character are removed while lexing, inside single quotes too.

use std::borrow::Cow;

use crate::arguments::IS_PLAIN;
use crate::ast::{Room, Word};
use crate::diagnostic::{Diagnostic, Found, Phase};
use crate::lines::Fragment;
use crate::source::{Source, Span};
use crate::suggest::closest;
use crate::text::Text;

/// What kind of value a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlagKind {
    /// `--flag`, `--flag=true`, `--flag=false`
    Switch,
    /// `--flag=value`, once.
    Text,
    /// `--flag=value`, as often as wanted.
    List,
}

/// A flag that an instruction offers: its name without dashes.
pub(crate) type FlagRule = (&'static str, FlagKind);

/// Cuts the flags off the front of an instruction's text.
pub(crate) fn lex<'a>(
    text: Fragment<'a>,
    escape: char,
    room: &mut Room,
) -> (Vec<Word<'a>>, Fragment<'a>) {
    let mut rest = behind_blanks(text);
    let mut flags = if rest.text().starts_with("--") {
        room.flags()
    } else {
        Vec::new()
    };
    while rest.text().starts_with("--") {
        let (flag, length) = lex_one(rest.text(), escape);
        let span = rest.slice(0..length).span();
        let end = rest.text()[length..].chars().next();
        rest = behind_blanks(rest.from(length + end.map_or(0, char::len_utf8)));
        if flag == "--" {
            break;
        }
        flags.push(Word { text: flag, span });
    }
    (flags, rest.trim())
}

/// What ends a flag: of the characters beyond ASCII only those whose code is one byte, as in the reference.
fn is_blank(char: char) -> bool {
    is_ascii_blank(char) || matches!(char, '\u{85}' | '\u{a0}')
}

fn is_ascii_blank(char: char) -> bool {
    matches!(char, '\t'..='\r' | ' ')
}

/// Without the blanks in front. Another kind of white space is where the arguments begin.
fn behind_blanks(text: Fragment<'_>) -> Fragment<'_> {
    let mut bytes = text.text().bytes();
    let behind = bytes.position(|byte| !is_ascii_blank(char::from(byte)));
    text.from(behind.unwrap_or_else(|| text.text().len()))
}

/// The flag at the front without quotes, and how many bytes it takes. An unclosed quote runs to the end.
fn lex_one(text: &str, escape: char) -> (Cow<'_, str>, usize) {
    // Most flags are written as they are meant.
    let mut bytes = text.as_bytes().iter();
    let plain = bytes.position(|byte| !IS_PLAIN[usize::from(*byte)]);
    let plain = plain.unwrap_or(text.len());
    if text[plain..].chars().next().is_none_or(is_ascii_blank) {
        return (Cow::Borrowed(&text[..plain]), plain);
    }
    let mut flag = String::from(&text[..plain]);
    let mut quote = None;
    let mut chars = text[plain..].char_indices();
    while let Some((at, char)) = chars.next() {
        if char == escape {
            flag.extend(chars.next().map(|(_, protected)| protected));
        } else if quote == Some(char) {
            quote = None;
        } else if quote.is_some() {
            flag.push(char);
        } else if char == '\'' || char == '"' {
            quote = Some(char);
        } else if is_blank(char) {
            return (Cow::Owned(flag), plain + at);
        } else {
            flag.push(char);
        }
    }
    (Cow::Owned(flag), text.len())
}

/// The checked flags of one instruction.
#[derive(Debug, Default)]
pub(crate) struct Flags<'a> {
    words: &'a [Word<'a>],
    /// Which of the words are wrong: those have been told.
    wrong: Vec<usize>,
}

/// The name of a flag with its dashes, and the value behind `=`.
fn split(word: &str) -> (&str, Option<&str>) {
    match word.bytes().position(|byte| byte == b'=') {
        Some(equals) => (&word[..equals], Some(&word[equals + 1..])),
        None => (word, None),
    }
}

/// The name of a flag without dashes.
fn name_of(flag: &str) -> &str {
    flag.strip_prefix("--").unwrap_or(flag)
}

impl<'a> Flags<'a> {
    /// Checks flags against what the instruction offers, and goes on with those that are right.
    pub(crate) fn read(words: &'a [Word<'a>], rules: &[FlagRule], found: &mut Found) -> Self {
        let mut flags = Self {
            words: &[],
            wrong: Vec::new(),
        };
        for (position, word) in words.iter().enumerate() {
            // What stood before it.
            flags.words = &words[..position];
            if let Err(error) = flags.check_one(word, rules) {
                found.push(*error);
                flags.wrong.push(position);
            }
        }
        flags.words = words;
        flags
    }

    fn check_one(&self, word: &Word<'_>, rules: &[FlagRule]) -> Result<(), Box<Diagnostic>> {
        let (flag, value) = split(&word.text);
        let name = name_of(flag);
        let Some(&(name, kind)) = rules.iter().find(|(known, _)| *known == name) else {
            return Err(Box::new(unknown(word, flag, name, rules)));
        };
        if kind != FlagKind::List
            && let Some((first, _)) = self.given(name).next()
        {
            let message = format!("the flag `{flag}` is given twice");
            let error = error("duplicate-flag", word, message);
            return Err(Box::new(
                error
                    .with_note(first.span, "first here")
                    .with_help("keep one of them"),
            ));
        }
        check_value(word, flag, value, kind).map_err(Box::new)
    }

    /// The words of a flag that are right, with their values; a switch without one is empty.
    fn given(&self, name: &str) -> impl Iterator<Item = (&'a Word<'a>, &'a str)> {
        let words = self.words.iter().enumerate();
        words.filter_map(move |(position, word)| {
            let behind = name_of(&word.text).strip_prefix(name)?;
            let value = match behind.as_bytes() {
                [] => behind,
                [b'=', ..] => &behind[1..],
                _ => return None,
            };
            let is_right = self.wrong.binary_search(&position).is_err();
            is_right.then_some((word, value))
        })
    }

    /// The value of a text flag, as written.
    pub(crate) fn text(&self, name: &str, source: &Source) -> Option<Text> {
        self.texts(name, source).next()
    }

    /// The values of a list flag, as written.
    pub(crate) fn texts(&self, name: &str, source: &Source) -> impl Iterator<Item = Text> {
        self.given(name).map(|(word, value)| {
            // Of a flag that had quotes the text is not found there, and is copied.
            let start = word.span.start + word.text.len() - value.len();
            Text::at(start, value, source)
        })
    }

    /// The value and place of a text flag.
    pub(crate) fn place(&self, name: &str) -> Option<(&'a str, Span)> {
        self.list(name).next()
    }

    /// The values of a list flag with their places: the whole flag's for one without a value.
    pub(crate) fn list(&self, name: &str) -> impl Iterator<Item = (&'a str, Span)> {
        self.given(name).map(|(word, value)| {
            let start = word.text.len() - value.len();
            (value, part_of(word, start..word.text.len()))
        })
    }

    /// A switch, none when it was not given.
    pub(crate) fn switch(&self, name: &str) -> Option<bool> {
        self.place(name)
            .map(|(value, _)| value.is_empty() || value.eq_ignore_ascii_case("true"))
    }
}

/// Checks that the value fits the kind.
fn check_value(
    word: &Word<'_>,
    flag: &str,
    value: Option<&str>,
    kind: FlagKind,
) -> Result<(), Diagnostic> {
    let missing = |help: String| {
        Err(error(
            "missing-flag-value",
            word,
            format!("the flag `{flag}` needs a value"),
        )
        .with_help(help))
    };
    match (kind, value) {
        (FlagKind::Switch, None) | (FlagKind::Text | FlagKind::List, Some(_)) => Ok(()),
        (FlagKind::Switch, Some("")) => {
            missing(format!("write `{flag}`, `{flag}=true` or `{flag}=false`"))
        }
        (FlagKind::Switch, Some(value)) => {
            // All case mappings of Unicode, as the reference has it.
            if matches!(value.to_lowercase().as_str(), "true" | "false") {
                return Ok(());
            }
            let message = format!("`{value}` is neither true nor false");
            let error = error("invalid-flag-value", word, message)
                .with_help(format!("write `{flag}`, `{flag}=true` or `{flag}=false`"));
            Err(Diagnostic {
                span: part_of(word, flag.len() + 1..word.text.len()),
                ..error
            })
        }
        (FlagKind::Text | FlagKind::List, None) => {
            missing(format!("write `{flag}=VALUE`, without a blank around `=`"))
        }
    }
}

fn unknown(word: &Word<'_>, flag: &str, name: &str, rules: &[FlagRule]) -> Diagnostic {
    let help = match closest(name, rules.iter().map(|(known, _)| *known)) {
        Some(known) => format!("did you mean `--{known}`?"),
        None if rules.is_empty() => {
            "this instruction has no flags; quote the word to pass it as an argument".to_owned()
        }
        None => {
            let known: Vec<_> = rules
                .iter()
                .map(|(known, _)| format!("--{known}"))
                .collect();
            format!("the flags of this instruction are {}", known.join(", "))
        }
    };
    let error = error("unknown-flag", word, format!("unknown flag `{flag}`")).with_help(help);
    Diagnostic {
        span: part_of(word, 0..flag.len()),
        ..error
    }
}

/// The place of a part of a word; of the whole word if quotes, escapes or continuations were taken out of it.
pub(crate) fn part_of(word: &Word<'_>, part: std::ops::Range<usize>) -> Span {
    if word.span.end - word.span.start == word.text.len() && !part.is_empty() {
        Span::new(word.span.start + part.start, word.span.start + part.end)
    } else {
        word.span
    }
}

fn error(code: &'static str, word: &Word<'_>, message: String) -> Diagnostic {
    Diagnostic::error(code, Phase::Instructions, word.span, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_escapes_are_removed() {
        let table = [
            ("--a b", '\\', "--a", 3),
            ("--a='b c' d", '\\', "--a=b c", 9),
            ("--a=\"b'c\"d e", '\\', "--a=b'cd", 10),
            ("--a=b\\ c d", '\\', "--a=b c", 8),
            ("--a='b\\'c'", '\\', "--a=b'c", 10),
            ("--a=b` c", '`', "--a=b c", 8),
            ("--a=\u{e9}\u{a0}x", '\\', "--a=\u{e9}", 6),
            ("--a=x\u{2003}y z", '\\', "--a=x\u{2003}y", 9),
            ("--a=\"b", '\\', "--a=b", 6),
            ("--a\\", '\\', "--a", 4),
        ];
        for (text, escape, flag, length) in table {
            assert_eq!(
                lex_one(text, escape),
                (Cow::Borrowed(flag), length),
                "{text}"
            );
        }
    }

    #[test]
    fn values_are_checked() {
        let rules = [
            ("link", FlagKind::Switch),
            ("from", FlagKind::Text),
            ("exclude", FlagKind::List),
        ];
        let table: &[(&[&str], Result<(), &str>)] = &[
            (&["--link", "--from=", "--exclude=a", "--exclude=b"], Ok(())),
            (&["--link=FALSE"], Ok(())),
            (&["--link="], Err("missing-flag-value")),
            (&["--link=1"], Err("invalid-flag-value")),
            (&["--from"], Err("missing-flag-value")),
            (&["--from=a", "--from=b"], Err("duplicate-flag")),
            (&["--form=a"], Err("unknown-flag")),
        ];
        for (flags, expected) in table {
            let words: Vec<_> = flags
                .iter()
                .map(|flag| Word {
                    text: Cow::Borrowed(*flag),
                    span: Span::default(),
                })
                .collect();
            let mut found = Found::default();
            Flags::read(&words, &rules, &mut found);
            let checked = found.into_result().map_err(|errors| errors.first().code);
            assert_eq!(&checked, expected, "{flags:?}");
        }
    }
}
