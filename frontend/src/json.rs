//! Strict JSON arrays of strings: the exec form.
//!
//! Hand-written because the answer has three sides (array of strings, array of something else, not JSON), because the
//! places of the strings are wanted, and because lone surrogates become U+FFFD here as they do in the reference.
//! Never recursive: other values are only checked, with their brackets on a stack.

use std::borrow::Cow;
use std::ops::Range;

/// A string of the array and where it stands, quotes included.
pub(crate) type Element<'a> = (Cow<'a, str>, Range<usize>);

/// Why there is no array of strings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotStrings {
    /// Not an array, or not JSON: the text is meant for a shell.
    NotJson,
    /// A JSON array with something else in it, at this place.
    OtherElement(Range<usize>),
}

/// Deeper nesting is not JSON for the reference.
const MAX_DEPTH: usize = 10_000;

/// Reads a text that must be one array and nothing else but white space.
pub(crate) fn parse_strings(text: &str) -> Result<Vec<Element<'_>>, NotStrings> {
    let mut scanner = Scanner {
        text,
        offset: text.len() - text.trim_start().len(),
    };
    let mut elements = Vec::new();
    let mut other = None;
    scanner.eat(b'[').ok_or(NotStrings::NotJson)?;
    scanner
        .elements(&mut elements, &mut other)
        .ok_or(NotStrings::NotJson)?;
    match other {
        Some(range) => Err(NotStrings::OtherElement(range)),
        None => Ok(elements),
    }
}

struct Scanner<'a> {
    text: &'a str,
    offset: usize,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.offset).copied()
    }

    fn eat(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.offset += 1)
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.offset += 1;
        }
    }

    /// The rest behind `[`. `other` becomes the place of the first element that is no string.
    fn elements(
        &mut self,
        elements: &mut Vec<Element<'a>>,
        other: &mut Option<Range<usize>>,
    ) -> Option<()> {
        self.skip_blanks();
        if self.eat(b']').is_none() {
            loop {
                self.skip_blanks();
                let start = self.offset;
                if self.peek()? == b'"' {
                    elements.push((self.string()?, start..self.offset));
                } else {
                    self.value()?;
                    other.get_or_insert(start..self.offset);
                }
                self.skip_blanks();
                if self.eat(b',').is_none() {
                    self.eat(b']')?;
                    break;
                }
            }
        }
        self.skip_blanks();
        self.peek().is_none().then_some(())
    }

    fn string(&mut self) -> Option<Cow<'a, str>> {
        self.eat(b'"')?;
        let plain = self.plain_part()?;
        if self.text.as_bytes()[self.offset - 1] == b'"' {
            return Some(Cow::Borrowed(plain));
        }
        let mut decoded = plain.to_owned();
        loop {
            let escaped = self.peek()?;
            self.offset += 1;
            decoded.push(match escaped {
                b'"' | b'\\' | b'/' => char::from(escaped),
                b'b' => '\u{8}',
                b'f' => '\u{c}',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                b'u' => self.unicode_escape()?,
                _ => return None,
            });
            decoded.push_str(self.plain_part()?);
            if self.text.as_bytes()[self.offset - 1] == b'"' {
                return Some(Cow::Owned(decoded));
            }
        }
    }

    /// The text up to a quote or a backslash, which is read too.
    fn plain_part(&mut self) -> Option<&'a str> {
        let rest = &self.text[self.offset..];
        let length = memchr::memchr2(b'"', b'\\', rest.as_bytes())?;
        let part = &rest[..length];
        self.offset += length + 1;
        (!part.bytes().any(|byte| byte < b' ')).then_some(part)
    }

    /// What follows `\u`: one code unit, or two that make a pair.
    fn unicode_escape(&mut self) -> Option<char> {
        let first = self.code_unit()?;
        if (0xd800..0xdc00).contains(&first) && self.text[self.offset..].starts_with("\\u") {
            let behind_first = self.offset;
            self.offset += 2;
            let second = self.code_unit()?;
            if let Some(Ok(pair)) = char::decode_utf16([first, second]).next() {
                return Some(pair);
            }
            self.offset = behind_first;
        }
        Some(char::from_u32(first.into()).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn code_unit(&mut self) -> Option<u16> {
        let digits = self.text.get(self.offset..self.offset + 4)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        self.offset += 4;
        u16::from_str_radix(digits, 16).ok()
    }

    /// Any value that is not a string.
    fn value(&mut self) -> Option<()> {
        // For each open bracket: what closes it.
        let mut open: Vec<u8> = Vec::new();
        loop {
            self.skip_blanks();
            match self.peek()? {
                bracket @ (b'[' | b'{') => {
                    self.offset += 1;
                    open.push(if bracket == b'[' { b']' } else { b'}' });
                    if open.len() >= MAX_DEPTH {
                        return None;
                    }
                    self.skip_blanks();
                    let close = *open.last()?;
                    if self.peek()? != close {
                        self.key_if(close)?;
                        continue;
                    }
                }
                b'"' => drop(self.string()?),
                b'-' | b'0'..=b'9' => self.number()?,
                _ => self.literal()?,
            }
            // A value has ended, or a bracket is about to close.
            loop {
                let Some(&close) = open.last() else {
                    return Some(());
                };
                self.skip_blanks();
                if self.eat(close).is_some() {
                    open.pop();
                    continue;
                }
                self.eat(b',')?;
                self.skip_blanks();
                self.key_if(close)?;
                break;
            }
        }
    }

    /// In an object, reads `"key":`.
    fn key_if(&mut self, close: u8) -> Option<()> {
        if close == b'}' {
            self.string()?;
            self.skip_blanks();
            self.eat(b':')?;
        }
        Some(())
    }

    fn literal(&mut self) -> Option<()> {
        let rest = &self.text[self.offset..];
        let literal = ["null", "true", "false"]
            .into_iter()
            .find(|literal| rest.starts_with(literal))?;
        self.offset += literal.len();
        Some(())
    }

    fn number(&mut self) -> Option<()> {
        let start = self.offset;
        let _ = self.eat(b'-'); // optional
        if self.eat(b'0').is_none() {
            self.digits()?;
        }
        if self.eat(b'.').is_some() {
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.offset += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.offset += 1;
            }
            self.digits()?;
        }
        // A number that is out of range is not JSON for the reference.
        let number: f64 = self.text[start..self.offset].parse().ok()?;
        number.is_finite().then_some(())
    }

    fn digits(&mut self) -> Option<()> {
        let rest = &self.text[self.offset..];
        let length = rest
            .find(|char: char| !char.is_ascii_digit())
            .unwrap_or(rest.len());
        self.offset += length;
        (length > 0).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_of_strings() {
        let table: &[(&str, &[&str])] = &[
            ("[]", &[]),
            ("  [ ] ", &[]),
            (r#"["a", "b c"]"#, &["a", "b c"]),
            (
                r#"["\"\\\/\b\f\n\r\t\u00e9"]"#,
                &["\"\\/\u{8}\u{c}\n\r\t\u{e9}"],
            ),
            (r#"["\ud83d\ude00"]"#, &["\u{1f600}"]),
            (
                r#"["\ud83d", "\ud83dA", "\ude00"]"#,
                &["\u{fffd}", "\u{fffd}A", "\u{fffd}"],
            ),
        ];
        for (text, expected) in table {
            let found = parse_strings(text).unwrap_or_else(|reason| panic!("{text}: {reason:?}"));
            let strings: Vec<_> = found.iter().map(|(string, _)| &**string).collect();
            assert_eq!(&strings, expected, "{text}");
        }
    }

    #[test]
    fn other_elements_and_no_json_are_told_apart() {
        for text in [
            "[1]",
            r#"["a", null]"#,
            "[[]]",
            r#"[{"a": [1, {"b": -0.5e+3}]}, "x"]"#,
            "[true]",
        ] {
            assert!(
                matches!(parse_strings(text), Err(NotStrings::OtherElement(_))),
                "{text}"
            );
        }
        let broken = [
            "",
            "a",
            "[",
            "[]]",
            "[1,]",
            r#"["a",]"#,
            r#"["a"] x"#,
            "['a']",
            r#"["a]"#,
            "[01]",
            "[1e999]",
            "[nul]",
            r#"["\x"]"#,
            r#"["\u12"]"#,
            "[\"\t\"]",
            "[[1]",
            "[{1:2}]",
            "[\"a\" \"b\"]",
            "{}",
        ];
        for text in broken {
            assert_eq!(parse_strings(text), Err(NotStrings::NotJson), "{text}");
        }
        assert_eq!(
            parse_strings(r#"["a", 1]"#),
            Err(NotStrings::OtherElement(6..7))
        );
    }

    #[test]
    fn deep_nesting_does_not_overflow() {
        assert_eq!(parse_strings(&"[".repeat(60_000)), Err(NotStrings::NotJson));
    }
}
