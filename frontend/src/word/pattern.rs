//! The patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: `*`, `?` and backslash escapes.
//!
//! Matching simulates all ways at once instead of backtracking, so a hostile pattern costs its length times the
//! value's, never more. `*` and `?` do not match a newline.

use super::{Effort, WordError, check_length};
use crate::letters::{is_digit, is_letter};

/// One element of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    /// This character.
    Literal(char),
    /// `?`
    AnyChar,
    /// `*`
    AnyRun,
}

/// A parsed pattern.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    tokens: Vec<Token>,
}

/// No way of matching has reached this place.
const NOWHERE: usize = usize::MAX;

impl Pattern {
    pub(super) fn new(pattern: &str) -> Result<Self, WordError> {
        let mut tokens = Vec::new();
        let mut chars = pattern.chars().peekable();
        while let Some(char) = chars.next() {
            tokens.push(match char {
                '*' => Token::AnyRun,
                '?' => Token::AnyChar,
                '\\' => match chars.next() {
                    Some(escaped @ ('*' | '?' | '\\' | '}' | '/')) => Token::Literal(escaped),
                    other => {
                        return Err(WordError::InvalidPattern {
                            pattern: pattern.to_owned(),
                            escaped: other.map(String::from).unwrap_or_default(),
                        });
                    }
                },
                literal => Token::Literal(literal),
            });
        }
        Ok(Self { tokens })
    }

    /// Refuses a pattern that would take too long on this value, and takes its part of what may still be taken.
    pub(super) fn take_effort(&self, value: &str, effort: &Effort) -> Result<(), WordError> {
        let steps = self.tokens.len().saturating_mul(value.len());
        if Effort::take(&effort.matching, steps) {
            return Ok(());
        }
        let start = self.tokens.iter().take(20).map(|token| match token {
            Token::Literal(char) => *char,
            Token::AnyChar => '?',
            Token::AnyRun => '*',
        });
        Err(WordError::TooMuchToMatch {
            start: start.collect(),
            value: value.len(),
        })
    }

    /// The value without the shortest or longest prefix that matches.
    pub(super) fn without_prefix<'a>(&self, value: &'a str, is_longest: bool) -> &'a str {
        let end = self.prefix_end(
            value
                .char_indices()
                .map(|(at, char)| (at + char.len_utf8(), char)),
            is_longest,
        );
        &value[end..]
    }

    /// The value without the shortest or longest suffix that matches.
    pub(super) fn without_suffix<'a>(&self, value: &'a str, is_longest: bool) -> &'a str {
        let reversed = Self {
            tokens: self.tokens.iter().rev().copied().collect(),
        };
        let from_behind = value
            .char_indices()
            .rev()
            .map(|(at, char)| (value.len() - at, char));
        &value[..value.len() - reversed.prefix_end(from_behind, is_longest)]
    }

    /// Replaces the first match; the replacement is literal.
    pub(super) fn replace_first(&self, value: &str, replacement: &str) -> String {
        match self.find(value, 0) {
            Some((start, end)) => [&value[..start], replacement, &value[end..]].concat(),
            None => value.to_owned(),
        }
    }

    /// Replaces all matches; `$0` and its like in the replacement mean what they mean in Go's `regexp` templates.
    pub(super) fn replace_all(&self, value: &str, replacement: &str) -> Result<String, WordError> {
        let mut result = String::new();
        let mut copied = 0;
        let mut position = 0;
        while position <= value.len() {
            let Some((start, end)) = self.find(value, position) else {
                break;
            };
            result.push_str(&value[copied..start]);
            // An empty match right behind another match does not count.
            if end > copied || start == 0 {
                push_template(&mut result, replacement, &value[start..end]);
                check_length(result.len())?;
            }
            copied = end;
            let step = value[position..].chars().next().map_or(1, char::len_utf8);
            position = if position + step > end {
                position + step
            } else {
                end
            };
        }
        result.push_str(value.get(copied..).unwrap_or_default());
        Ok(result)
    }

    /// Where the shortest or longest match from the front ends; 0 without a match. `chars` come with the offset
    /// behind them.
    fn prefix_end(&self, chars: impl Iterator<Item = (usize, char)>, is_longest: bool) -> usize {
        let mut states = vec![NOWHERE; self.tokens.len() + 1];
        states[0] = 0;
        let mut found = 0;
        self.skip_runs(&mut states);
        for (end, char) in chars {
            if !is_longest && states[self.tokens.len()] != NOWHERE {
                return found;
            }
            if !self.step(&mut states, char) {
                break;
            }
            if states[self.tokens.len()] != NOWHERE {
                found = end;
            }
        }
        found
    }

    /// The leftmost match at or behind `from`, as long as possible.
    fn find(&self, value: &str, from: usize) -> Option<(usize, usize)> {
        let last = self.tokens.len();
        let mut states = vec![NOWHERE; last + 1];
        let mut best: Option<(usize, usize)> = None;
        let mut chars = value[from..].char_indices();
        loop {
            let (offset, char) = chars
                .next()
                .map_or((value.len(), None), |(at, char)| (from + at, Some(char)));
            if best.is_none() {
                states[0] = states[0].min(offset);
                self.skip_runs(&mut states);
            }
            let start = states[last];
            if start != NOWHERE && best.is_none_or(|(known, _)| start <= known) {
                best = Some((start, offset));
            }
            if let Some((start, _)) = best {
                states
                    .iter_mut()
                    .filter(|state| **state > start)
                    .for_each(|state| *state = NOWHERE);
            }
            let is_alive = char.is_some_and(|char| self.step(&mut states, char));
            if char.is_none() || (best.is_some() && !is_alive) {
                return best;
            }
        }
    }

    /// Reads one character in all states; false when none is left. A state holds the smallest start that led to it.
    fn step(&self, states: &mut [usize], char: char) -> bool {
        // From the back, so that no way moves twice.
        for at in (0..states.len()).rev() {
            let start = std::mem::replace(&mut states[at], NOWHERE);
            if start == NOWHERE {
                continue;
            }
            match self.tokens.get(at) {
                Some(Token::AnyRun) if char != '\n' => states[at] = start,
                Some(Token::AnyChar) if char != '\n' => states[at + 1] = states[at + 1].min(start),
                Some(Token::Literal(literal)) if *literal == char => {
                    states[at + 1] = states[at + 1].min(start);
                }
                _ => {}
            }
        }
        self.skip_runs(states);
        states.iter().any(|state| *state != NOWHERE)
    }

    /// `*` may match nothing.
    fn skip_runs(&self, states: &mut [usize]) {
        for (at, token) in self.tokens.iter().enumerate() {
            if *token == Token::AnyRun {
                states[at + 1] = states[at + 1].min(states[at]);
            }
        }
    }
}

/// Appends a replacement in which `$0`/`${0}` is the match, any other group is empty and `$$` is a dollar sign.
fn push_template(result: &mut String, template: &str, matched: &str) {
    let mut rest = template;
    while let Some((before, behind)) = rest.split_once('$') {
        result.push_str(before);
        rest = behind;
        if let Some(behind) = rest.strip_prefix('$') {
            result.push('$');
            rest = behind;
            continue;
        }
        let (is_braced, inner) = rest
            .strip_prefix('{')
            .map_or((false, rest), |inner| (true, inner));
        let length = inner
            .find(|char: char| !(is_letter(char) || is_digit(char) || char == '_'))
            .unwrap_or(inner.len());
        let (name, behind) = inner.split_at(length);
        let behind = if is_braced {
            behind.strip_prefix('}')
        } else {
            Some(behind)
        };
        match behind {
            Some(behind) if !name.is_empty() => {
                if name == "0" {
                    result.push_str(matched);
                }
                rest = behind;
            }
            // Malformed: the dollar sign stands for itself.
            _ => result.push('$'),
        }
    }
    result.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::new(text).expect("the pattern is valid")
    }

    #[test]
    fn prefixes_and_suffixes_are_removed() {
        // pattern, value, without the shortest prefix, longest prefix, shortest suffix, longest suffix
        let table = [
            ("*/", "a/b/c", "b/c", "c", "a/b/c", "a/b/c"),
            ("/*", "a/b/c", "a/b/c", "a/b/c", "a/b", "a"),
            ("?", "\u{e9}x", "x", "x", "\u{e9}", "\u{e9}"),
            ("*", "abc", "abc", "", "abc", ""),
            ("", "abc", "abc", "abc", "abc", "abc"),
            ("\\*", "*a*", "a*", "a*", "*a", "*a"),
            ("[a]", "[a]b", "b", "b", "[a]b", "[a]b"),
            ("*a", "x\nya", "x\nya", "x\nya", "x\ny", "x\n"),
        ];
        for (text, value, short_prefix, long_prefix, short_suffix, long_suffix) in table {
            let pattern = pattern(text);
            assert_eq!(pattern.without_prefix(value, false), short_prefix, "{text}");
            assert_eq!(pattern.without_prefix(value, true), long_prefix, "{text}");
            assert_eq!(pattern.without_suffix(value, false), short_suffix, "{text}");
            assert_eq!(pattern.without_suffix(value, true), long_suffix, "{text}");
        }
    }

    #[test]
    fn matches_are_replaced() {
        // pattern, value, replacement, first replaced, all replaced
        let table = [
            ("o", "foo", "0", "f0o", "f00"),
            ("o*o", "foo boo", "X", "fX", "fX"),
            ("", "ab", "-", "-ab", "-a-b-"),
            ("*", "ab", "-", "-", "-"),
            ("x", "ab", "-", "ab", "ab"),
            ("a", "aa", "$0$0", "$0$0a", "aaaa"),
            ("a", "a", "[$1${0}$$$]", "[$1${0}$$$]", "[a$$]"),
            ("?", "\u{e9}\u{e8}", "e", "e\u{e8}", "ee"),
        ];
        for (text, value, replacement, first, all) in table {
            assert_eq!(
                pattern(text).replace_first(value, replacement),
                first,
                "{text} in {value}"
            );
            assert_eq!(
                pattern(text).replace_all(value, replacement).as_deref(),
                Ok(all),
                "{text} in {value}"
            );
        }
    }

    #[test]
    fn needless_escapes_are_refused() {
        assert!(Pattern::new("\\a").is_err());
        assert!(Pattern::new("a\\").is_err());
        assert!(Pattern::new("\\}\\/\\?\\\\").is_ok());
    }
}
