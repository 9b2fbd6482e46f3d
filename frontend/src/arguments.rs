//! The grammars of arguments: what the text behind the flags is cut into.
//!
//! Which instruction uses which grammar is one table, [`read`]. Nothing is expanded and no quote is removed
//! here; counts and meanings are checked by [`crate::instructions`].

use std::borrow::Cow;

use crate::ast::{Arguments, Pair, Room, Word};
use crate::diagnostic::{Diagnostic, Phase};
use crate::json::{NotStrings, parse_strings};
use crate::keyword::Keyword;
use crate::lines::Fragment;
use crate::source::Span;

/// Cuts an instruction's trimmed text. An `ONBUILD` with a trigger is the caller's job.
pub(crate) fn read<'a>(
    keyword: Keyword,
    text: Fragment<'a>,
    escape: char,
    room: &mut Room,
) -> Result<Arguments<'a>, Diagnostic> {
    if keyword == Keyword::Unknown {
        return Ok(Arguments::Unparsed(word(text)));
    }
    if text.text().is_empty() {
        return Ok(Arguments::Words(Vec::new()));
    }
    match keyword {
        // A JSON array, else the whole text.
        Keyword::Run | Keyword::Cmd | Keyword::Entrypoint | Keyword::Shell => json_or(text, whole),
        // A JSON array, else words cut at blanks, quotes or not.
        Keyword::Add | Keyword::Copy | Keyword::Volume => json_or(text, |text| words(text, room)),
        Keyword::From | Keyword::Expose => Ok(words(text, room)),
        Keyword::User | Keyword::Workdir | Keyword::Stopsignal | Keyword::Maintainer => {
            Ok(Arguments::Text(word(text)))
        }
        // `name=value` pairs, or the old `name value`.
        Keyword::Env | Keyword::Label => pairs(text, keyword, escape, room),
        // Words in which quotes and escapes protect blanks.
        Keyword::Arg => {
            let mut words = room.words();
            words.extend(quoted_words(text, escape).map(|(text, span)| Word {
                text: Cow::Borrowed(text),
                span,
            }));
            Ok(Arguments::Words(words))
        }
        Keyword::Healthcheck => healthcheck(text),
        Keyword::Onbuild | Keyword::Unknown => Ok(Arguments::Words(Vec::new())),
    }
}

/// A piece of the text as it is.
pub(crate) fn word(text: Fragment<'_>) -> Word<'_> {
    Word {
        text: Cow::Borrowed(text.text()),
        span: text.span(),
    }
}

fn whole(text: Fragment<'_>) -> Arguments<'_> {
    Arguments::Text(word(text))
}

fn words<'a>(text: Fragment<'a>, room: &mut Room) -> Arguments<'a> {
    let mut words = room.words();
    for piece in text.split_at_blanks() {
        words.push(word(piece));
    }
    Arguments::Words(words)
}

/// A JSON array of strings, or else what `otherwise` makes of the text.
fn json_or<'a>(
    text: Fragment<'a>,
    otherwise: impl FnOnce(Fragment<'a>) -> Arguments<'a>,
) -> Result<Arguments<'a>, Diagnostic> {
    match parse_strings(text.text()) {
        Ok(elements) => {
            let words = elements
                .into_iter()
                .map(|(string, range)| Word {
                    text: string,
                    span: text.slice(range).span(),
                })
                .collect();
            Ok(Arguments::Json(words))
        }
        Err(NotStrings::NotJson) => Ok(otherwise(text)),
        Err(NotStrings::OtherElement(range)) => {
            let element = text.slice(range);
            let message = format!("`{}` in a JSON array is not a string", element.text());
            Err(error("not-a-string", element, message)
                .with_help(format!(
                    "write `\"{}\"`; to pass the whole text to a shell, don't begin it with `[`",
                    element.text()
                ))
                .with_label("not a string"))
        }
    }
}

/// A type word, then a JSON array or the whole text.
fn healthcheck(text: Fragment<'_>) -> Result<Arguments<'_>, Diagnostic> {
    let all = text.text();
    let end = all.find(char::is_whitespace).unwrap_or(all.len());
    let kind = word(text.slice(0..end));
    let command = text.from(end).trim();
    if command.text().is_empty() {
        return Ok(Arguments::Words(vec![kind]));
    }
    Ok(match json_or(command, whole)? {
        Arguments::Json(words) => Arguments::Json([vec![kind], words].concat()),
        Arguments::Text(text) => Arguments::Words(vec![kind, text]),
        other => other,
    })
}

fn pairs<'a>(
    text: Fragment<'a>,
    keyword: Keyword,
    escape: char,
    room: &mut Room,
) -> Result<Arguments<'a>, Diagnostic> {
    let mut words = quoted_words(text, escape).peekable();
    let Some((first, _)) = words.peek() else {
        return Ok(Arguments::Words(Vec::new()));
    };
    if !first.bytes().any(|byte| byte == b'=') {
        let Some((name, value)) = text.split_once_at_blanks() else {
            let keyword = keyword.name();
            let message = format!("{keyword} needs a name and a value");
            return Err(error("missing-value", text, message)
                .with_label("only a name")
                .with_help(format!("write `{keyword} {}=VALUE`", text.text())));
        };
        let mut pairs = room.pairs();
        pairs.push(Pair {
            name: word(name),
            value: word(value),
            is_legacy: true,
        });
        return Ok(Arguments::Pairs(pairs));
    }
    let mut pairs = room.pairs();
    for (text, span) in words {
        let Some(equals) = text.bytes().position(|byte| byte == b'=') else {
            return Err(no_equals(text, span));
        };
        // Both parts point at the whole pair: escapes that were dropped make offsets in the word unreliable.
        let word = |text| Word {
            text: Cow::Borrowed(text),
            span,
        };
        pairs.push(Pair {
            name: word(&text[..equals]),
            value: word(&text[equals + 1..]),
            is_legacy: false,
        });
    }
    Ok(Arguments::Pairs(pairs))
}

fn no_equals(text: &str, span: Span) -> Diagnostic {
    let message = format!("`{text}` has no `=`");
    Diagnostic::error("missing-value", Phase::Parse, span, message)
        .with_label("not a pair")
        .with_help("write every pair as name=value; quote a value that holds blanks")
}

/// Words as `ENV`, `LABEL` and `ARG` have them: quotes and escapes protect blanks and stay; an escape at the very end
/// is dropped, and is no word; an unclosed quote runs to the end.
fn quoted_words(text: Fragment<'_>, escape: char) -> impl Iterator<Item = (&str, Span)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let whole = rest.text();
        let start = whole.find(|char: char| !char.is_whitespace())?;
        let (end, behind) = end_of_word(&whole[start..], escape);
        let place = rest.slice(start..start + behind);
        rest = rest.from(start + behind);
        (end > 0).then(|| (&whole[start..start + end], place.span()))
    })
}

/// The bytes that mean nothing in a word, whatever the escape character is.
pub(crate) const IS_PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        table[byte as usize] = !matches!(byte, b'"' | b'\'' | b'\\' | b'`');
        byte += 1;
    }
    table
};

/// Where the word at the front ends, without and with an escape that protects nothing.
fn end_of_word(text: &str, escape: char) -> (usize, usize) {
    let bytes = text.as_bytes();
    let mut quote = None;
    let mut at = 0;
    loop {
        // Most bytes are neither blanks nor quotes nor escapes.
        let mut behind = bytes[at..].iter();
        let plain = behind.position(|byte| !IS_PLAIN[usize::from(*byte)]);
        at = plain.map_or(bytes.len(), |plain| at + plain);
        let Some(char) = text[at..].chars().next() else {
            return (at, at);
        };
        if char == escape && quote != Some('\'') {
            let Some(protected) = text[at + 1..].chars().next() else {
                return (at, text.len());
            };
            at += 1 + protected.len_utf8();
            continue;
        }
        match quote {
            None if char.is_whitespace() => return (at, at),
            None if char == '\'' || char == '"' => quote = Some(char),
            Some(open) if open == char => quote = None,
            _ => {}
        }
        at += char.len_utf8();
    }
}

fn error(code: &'static str, place: Fragment<'_>, message: String) -> Diagnostic {
    Diagnostic::error(code, Phase::Parse, place.span(), message).within(place.lines())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::{LineReader, LogicalLine};
    use crate::source::Source;

    fn read(keyword: &str, text: &str, escape: char) -> Result<Arguments<'static>, Diagnostic> {
        let source = Source::new("Dockerfile", text.as_bytes());
        let mut reader = LineReader::new(&source);
        let first = reader.next_line()?.expect("the text has a line");
        let line = LogicalLine::read(first, &mut reader, escape)?.expect("the line is not blank");
        let (keyword, mut room) = (Keyword::of(keyword), Room::default());
        super::read(keyword, line.fragment(), escape, &mut room).map(Arguments::into_owned)
    }

    #[test]
    fn words_are_cut_as_each_instruction_wants() {
        let table: &[(&str, &str, &[&str])] = &[
            ("run", "a  'b c'", &["a  'b c'"]),
            ("copy", "a  'b c'", &["a", "'b", "c'"]),
            ("from", "a as b", &["a", "as", "b"]),
            ("user", "a  b", &["a  b"]),
            (
                "arg",
                "a 'b c'=d \"e f\\\" g\" h\\ i",
                &["a", "'b c'=d", "\"e f\\\" g\"", "h\\ i"],
            ),
            ("arg", "'a\\' \"b c", &["'a\\'", "\"b c"]),
            ("arg", "a\u{a0}b", &["a", "b"]),
            ("copy", "a\u{a0}b", &["a\u{a0}b"]),
            ("healthcheck", "CMD  a  b", &["CMD", "a  b"]),
            ("healthcheck", "NONE", &["NONE"]),
        ];
        for (keyword, text, expected) in table {
            let arguments = read(keyword, text, '\\').expect("the text is valid");
            assert!(!matches!(arguments, Arguments::Json(_)), "{keyword} {text}");
            let words: Vec<_> = arguments.words().iter().map(|word| &*word.text).collect();
            assert_eq!(&words, expected, "{keyword} {text}");
        }
    }

    #[test]
    fn json_is_taken_where_it_is_one() {
        for (keyword, text, is_json) in [
            ("run", "[\"a\"]", true),
            ("run", "[\"a\"] && b", false),
            ("run", "[ -f a ]", false),
            ("copy", "[\"a b\", \"c\"]", true),
            ("healthcheck", "CMD [\"a\"]", true),
            ("user", "[\"a\"]", false),
        ] {
            let arguments = read(keyword, text, '\\').expect("the text is valid");
            assert_eq!(
                matches!(arguments, Arguments::Json(_)),
                is_json,
                "{keyword} {text}"
            );
        }
    }

    #[test]
    fn pairs_have_two_forms() {
        type Row<'a> = (&'a str, &'a [(&'a str, &'a str, bool)]);
        let table: &[Row<'_>] = &[
            ("a=b c='d e'", &[("a", "b", false), ("c", "'d e'", false)]),
            ("a  b=c  d", &[("a", "b=c  d", true)]),
            ("'a b'=c", &[("'a b'", "c", false)]),
            ("a==", &[("a", "=", false)]),
        ];
        for (text, expected) in table {
            let Ok(Arguments::Pairs(pairs)) = read("env", text, '\\') else {
                panic!("{text}")
            };
            let pairs: Vec<_> = pairs
                .iter()
                .map(|pair| (&*pair.name.text, &*pair.value.text, pair.is_legacy))
                .collect();
            assert_eq!(&pairs, expected, "{text}");
        }
    }
}
