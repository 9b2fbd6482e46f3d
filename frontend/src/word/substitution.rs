//! `$name` and `${name…}` inside a word.

use super::pattern::Pattern;
use super::{Environment, Escapes, Expander, MAX_NESTING, Stop, Unset, WordError};
use crate::letters::{is_digit, is_letter};

impl<'a, E: Environment + ?Sized> Expander<'a, E> {
    /// What stands for the substitution at the front, which begins with `$`.
    pub(super) fn dollar(&mut self) -> Result<String, WordError> {
        self.next();
        if self.peek() == Some('{') {
            self.next();
            return self.braced();
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        match self.value(name) {
            Some(value) => Ok(value.to_owned()),
            None if self.mode.unset == Unset::Keep => Ok(format!("${name}")),
            None => Ok(String::new()),
        }
    }

    /// What follows `${`.
    fn braced(&mut self) -> Result<String, WordError> {
        if matches!(self.peek(), Some('{' | '}' | ':')) {
            return Err(WordError::MissingName);
        }
        let name = self.name();
        match self.next() {
            None => Err(WordError::MissingBrace),
            Some('}') => match self.value(name) {
                Some(value) => Ok(value.to_owned()),
                None if self.mode.unset == Unset::Keep => Ok(format!("${{{name}}}")),
                None => Ok(String::new()),
            },
            Some(':') => match self.next() {
                None => Err(WordError::MissingBrace),
                Some(modifier) => self.modified(name, modifier, true),
            },
            Some(modifier @ ('+' | '-' | '?' | '#' | '%')) => self.modified(name, modifier, false),
            Some('/') => self.replaced(name),
            Some(other) => Err(unsupported(name, other.to_string())),
        }
    }

    /// `${name-word}` and its kin; `empty_is_unset` is the colon.
    fn modified(
        &mut self,
        name: &str,
        modifier: char,
        empty_is_unset: bool,
    ) -> Result<String, WordError> {
        let colon = if empty_is_unset { ":" } else { "" };
        // Found before the word is looked at, so that it is an error for unset variables too when those are kept.
        if empty_is_unset && matches!(modifier, '#' | '%') {
            return Err(unsupported(name, format!("{colon}{modifier}")));
        }
        let escapes = if matches!(modifier, '#' | '%') {
            Escapes::Keep
        } else {
            Escapes::Remove
        };
        let word = self.nested(Stop::Brace, escapes)?;
        let value = self.value(name);
        if value.is_none() && self.mode.unset == Unset::Keep {
            return Ok(format!("${{{name}{colon}{modifier}{word}}}"));
        }
        let present = value.filter(|value| !(empty_is_unset && value.is_empty()));
        match (modifier, empty_is_unset) {
            ('-', _) => Ok(present.map_or(word, str::to_owned)),
            ('+', _) => Ok(if present.is_some() {
                word
            } else {
                String::new()
            }),
            ('?', _) => present.map(str::to_owned).ok_or_else(|| {
                let reason = match (word.is_empty(), value) {
                    (false, _) => word,
                    (true, None) => "it is not set".to_owned(),
                    (true, Some(_)) => "it is empty".to_owned(),
                };
                WordError::Required {
                    name: name.to_owned(),
                    reason,
                }
            }),
            ('#' | '%', false) => {
                let (pattern, is_longest) = match word.strip_prefix(modifier) {
                    Some(pattern) => (pattern, true),
                    None => (word.as_str(), false),
                };
                let pattern = Pattern::new(pattern)?;
                let value = value.unwrap_or_default();
                pattern.take_effort(value, self.effort)?;
                let kept = if modifier == '#' {
                    pattern.without_prefix(value, is_longest)
                } else {
                    pattern.without_suffix(value, is_longest)
                };
                Ok(kept.to_owned())
            }
            _ => Err(unsupported(name, format!("{colon}{modifier}"))),
        }
    }

    /// `${name/pattern/replacement}` and `${name//pattern/replacement}`
    fn replaced(&mut self, name: &str) -> Result<String, WordError> {
        let replaces_all = self.peek() == Some('/');
        if replaces_all {
            self.next();
        }
        let pattern = self.nested(Stop::Slash, Escapes::Keep)?;
        let replacement = self.nested(Stop::Brace, Escapes::Keep)?;
        let value = self.value(name);
        if value.is_none() && self.mode.unset == Unset::Keep {
            return Ok(format!("${{{name}/{pattern}/{replacement}}}"));
        }
        let pattern = Pattern::new(&pattern)?;
        let value = value.unwrap_or_default();
        pattern.take_effort(value, self.effort)?;
        if replaces_all {
            pattern.replace_all(value, &replacement)
        } else {
            Ok(pattern.replace_first(value, &replacement))
        }
    }

    /// Expands the text up to `stop`, with its own rule for escapes.
    fn nested(&mut self, stop: Stop, escapes: Escapes) -> Result<String, WordError> {
        if self.depth == MAX_NESTING {
            return Err(WordError::TooDeep);
        }
        self.depth += 1;
        let outer = std::mem::replace(&mut self.mode.escapes, escapes);
        let expanded = self.expand_until(stop);
        self.mode.escapes = outer;
        self.depth -= 1;
        expanded.map(|(text, _)| text)
    }

    /// Looks a variable up and notes whether it was there.
    fn value(&mut self, name: &str) -> Option<&'a str> {
        let value = self.environment.lookup(name);
        let names = if value.is_some() {
            &mut self.matched
        } else {
            &mut self.unmatched
        };
        if !names.contains(name) {
            names.insert(name.to_owned());
        }
        value
    }

    /// Reads a name: letters, digits and `_`; or only the digits when it starts with one; or one special character.
    fn name(&mut self) -> &'a str {
        let text = self.rest;
        let end_of =
            |belongs: fn(char) -> bool| text.find(|char| !belongs(char)).unwrap_or(text.len());
        let length = match self.peek() {
            Some(first) if is_digit(first) => end_of(is_digit),
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => 1,
            _ => end_of(|char| is_letter(char) || is_digit(char) || char == '_'),
        };
        let (name, rest) = text.split_at(length);
        self.rest = rest;
        name
    }
}

fn unsupported(name: &str, modifier: String) -> WordError {
    WordError::UnsupportedModifier {
        name: name.to_owned(),
        modifier,
    }
}
