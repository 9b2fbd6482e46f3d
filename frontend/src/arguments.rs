//! The grammars of arguments: what the text behind the flags is cut into.
//!
//! Which instruction uses which grammar is one table, [`Grammar::of`]. Nothing is expanded and no quote is removed
//! here; counts and meanings are checked by [`crate::instructions`].

use crate::ast::{Arguments, Pair, Word};
use crate::diagnostic::{Diagnostic, Phase};
use crate::json::{NotStrings, parse_strings};
use crate::lines::Fragment;

/// How an instruction's text is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grammar {
    /// A JSON array, else the whole text.
    JsonOrText,
    /// A JSON array, else words cut at blanks, quotes or not.
    JsonOrWords,
    /// Words cut at blanks, quotes or not.
    Words,
    /// The whole text.
    Text,
    /// `name=value` pairs, or the old `name value`.
    Pairs,
    /// Words in which quotes and escapes protect blanks.
    QuotedWords,
    /// A type word, then [`Grammar::JsonOrText`].
    Healthcheck,
    /// Another instruction.
    Instruction,
    /// Not an instruction that we know.
    Unknown,
}

impl Grammar {
    /// The grammar of an instruction, by its lower-case name.
    pub(crate) fn of(keyword: &str) -> Self {
        match keyword {
            "run" | "cmd" | "entrypoint" | "shell" => Self::JsonOrText,
            "add" | "copy" | "volume" => Self::JsonOrWords,
            "from" | "expose" => Self::Words,
            "user" | "workdir" | "stopsignal" | "maintainer" => Self::Text,
            "env" | "label" => Self::Pairs,
            "arg" => Self::QuotedWords,
            "healthcheck" => Self::Healthcheck,
            "onbuild" => Self::Instruction,
            _ => Self::Unknown,
        }
    }

    /// Cuts a trimmed text. [`Grammar::Instruction`] is the caller's job and gives no arguments here.
    pub(crate) fn read(
        self,
        text: Fragment<'_>,
        keyword: &str,
        escape: char,
    ) -> Result<Arguments, Diagnostic> {
        match self {
            Self::Unknown => Ok(Arguments::Unparsed(word(text))),
            _ if text.text().is_empty() => Ok(Arguments::Words(Vec::new())),
            Self::JsonOrText => json_or(text, |text| vec![word(text)]),
            Self::JsonOrWords => json_or(text, |text| {
                text.split_at_blanks().into_iter().map(word).collect()
            }),
            Self::Words => Ok(Arguments::Words(
                text.split_at_blanks().into_iter().map(word).collect(),
            )),
            Self::Text => Ok(Arguments::Words(vec![word(text)])),
            Self::Pairs => pairs(text, keyword, escape),
            Self::QuotedWords => Ok(Arguments::Words(quoted_words(text, escape))),
            Self::Healthcheck => healthcheck(text),
            Self::Instruction => Ok(Arguments::Words(Vec::new())),
        }
    }
}

fn word(text: Fragment<'_>) -> Word {
    Word {
        text: text.text().to_owned(),
        span: text.span(),
    }
}

/// A JSON array of strings, or else what `otherwise` makes of the text.
fn json_or(
    text: Fragment<'_>,
    otherwise: impl Fn(Fragment<'_>) -> Vec<Word>,
) -> Result<Arguments, Diagnostic> {
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
        Err(NotStrings::NotJson) => Ok(Arguments::Words(otherwise(text))),
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

fn healthcheck(text: Fragment<'_>) -> Result<Arguments, Diagnostic> {
    let whole = text.text();
    let end = whole.find(char::is_whitespace).unwrap_or(whole.len());
    let kind = word(text.slice(0..end));
    let command = text.from(end).trim();
    if command.text().is_empty() {
        return Ok(Arguments::Words(vec![kind]));
    }
    Ok(match json_or(command, |text| vec![word(text)])? {
        Arguments::Json(words) => Arguments::Json([vec![kind], words].concat()),
        Arguments::Words(words) => Arguments::Words([vec![kind], words].concat()),
        other => other,
    })
}

fn pairs(text: Fragment<'_>, keyword: &str, escape: char) -> Result<Arguments, Diagnostic> {
    let keyword = keyword.to_uppercase();
    let words = quoted_words(text, escape);
    let Some(first) = words.first() else {
        return Ok(Arguments::Words(Vec::new()));
    };
    if !first.text.contains('=') {
        let Some((name, value)) = text.split_once_at_blanks() else {
            let message = format!("{keyword} needs a name and a value");
            return Err(error("missing-value", text, message)
                .with_label("only a name")
                .with_help(format!("write `{keyword} {}=VALUE`", text.text())));
        };
        return Ok(Arguments::Pairs(vec![Pair {
            name: word(name),
            value: word(value),
            is_legacy: true,
        }]));
    }
    let mut pairs = Vec::with_capacity(words.len());
    for Word { text, span } in words {
        let Some(equals) = text.find('=') else {
            let message = format!("`{text}` has no `=`");
            return Err(
                Diagnostic::error("missing-value", Phase::Parse, span, message)
                    .with_label("not a pair")
                    .with_help("write every pair as name=value; quote a value that holds blanks"),
            );
        };
        // Both parts point at the whole pair: escapes that were dropped make offsets in the word unreliable.
        let name = Word {
            text: text[..equals].to_owned(),
            span,
        };
        let value = Word {
            text: text[equals + 1..].to_owned(),
            span,
        };
        pairs.push(Pair {
            name,
            value,
            is_legacy: false,
        });
    }
    Ok(Arguments::Pairs(pairs))
}

/// Words as `ENV`, `LABEL` and `ARG` have them: quotes and escapes protect blanks and stay; an escape at the very end
/// is dropped; an unclosed quote runs to the end.
fn quoted_words(text: Fragment<'_>, escape: char) -> Vec<Word> {
    let mut words = Vec::new();
    let mut current = String::new();
    // Where the current word begins; none between words.
    let mut start = None;
    let mut quote = None;
    let whole = text.text();
    let mut chars = whole.char_indices().peekable();
    while let Some((at, char)) = chars.next() {
        if quote.is_none() && char.is_whitespace() {
            if let Some(start) = start.take() {
                push_word(&mut words, &mut current, text.slice(start..at));
            }
            continue;
        }
        start.get_or_insert(at);
        if char == escape && quote != Some('\'') {
            if let Some((_, protected)) = chars.next() {
                current.push(char);
                current.push(protected);
            }
            continue;
        }
        match quote {
            Some(open) if open == char => quote = None,
            None if char == '\'' || char == '"' => quote = Some(char),
            _ => {}
        }
        current.push(char);
    }
    if let Some(start) = start {
        push_word(&mut words, &mut current, text.from(start));
    }
    words
}

/// A word of a dropped escape alone is no word.
fn push_word(words: &mut Vec<Word>, current: &mut String, place: Fragment<'_>) {
    if !current.is_empty() {
        words.push(Word {
            text: std::mem::take(current),
            span: place.span(),
        });
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

    fn read(keyword: &str, text: &str, escape: char) -> Result<Arguments, Diagnostic> {
        let source = Source::new("Dockerfile", text.as_bytes());
        let mut reader = LineReader::new(&source);
        let first = reader.next_line()?.expect("the text has a line");
        let line = LogicalLine::read(first, &mut reader, escape)?.expect("the line is not blank");
        Grammar::of(keyword).read(line.fragment(), keyword, escape)
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
            assert!(matches!(arguments, Arguments::Words(_)), "{keyword} {text}");
            let words: Vec<_> = arguments
                .words()
                .iter()
                .map(|word| word.text.as_str())
                .collect();
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
