//! The pattern language of `.dockerignore`, `--exclude` and `--parents`.
//!
//! `*` is a run without slashes, `?` one character but a slash, `**` anything with slashes, `**/` any number of
//! directories, `[…]` a class, a backslash takes the next character literally. A pattern is matched against
//! a whole path, relative to the root and without a leading slash.
//!
//! Two things are as in moby/patternmatcher although nobody would invent them: a negated class matches a slash, and
//! `**name` is any path that *ends* in `name`, unless the pattern has another wildcard.

use std::iter::Peekable;
use std::str::Chars;

use crate::glob::{Class, characters};
use crate::path;

/// One compiled pattern. `!` in front of an exception has been taken off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    tokens: Vec<Token>,
    /// Literal text that every match begins with: most paths are refused by it alone.
    prefix: String,
}

/// Why a text is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A lone `!`.
    #[error("`!` has to be followed by a pattern")]
    LoneExclamation,
    /// An open or empty class, a range that runs backwards, or a backslash at the end.
    #[error("`{pattern}` is not a valid pattern")]
    Syntax {
        /// What was given.
        pattern: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Literal(char),
    /// `?`
    NotSlash,
    Class(Class),
    /// `*`
    Run,
    /// `**` at the end: anything.
    Everything,
    /// `**/`: nothing, or anything that ends in a slash. Always followed by [`Token::Directories`].
    MaybeDirectories,
    /// Within `**/`: everything up to and including the last slash.
    Directories,
}

impl Pattern {
    /// Compiles a pattern; it is cleaned like a path first. `!` is an ordinary character here.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        Self::compile(&path::clean(text))
    }

    fn compile(text: &str) -> Result<Self, PatternError> {
        let error = || PatternError::Syntax {
            pattern: text.to_owned(),
        };
        let mut tokens = Vec::new();
        let mut rest = text.chars().peekable();
        while let Some(character) = rest.next() {
            match character {
                '*' if rest.next_if_eq(&'*').is_some() => {
                    let is_first = tokens.is_empty();
                    let had_slash = rest.next_if_eq(&'/').is_some();
                    if rest.peek().is_none() || is_first && !had_slash && is_plain(&rest) {
                        tokens.push(Token::Everything);
                    } else {
                        tokens.extend([Token::MaybeDirectories, Token::Directories]);
                    }
                }
                '*' => tokens.push(Token::Run),
                '?' => tokens.push(Token::NotSlash),
                '[' => {
                    // Unlike those of COPY's wildcards, ranges that run backwards are refused.
                    let class = Class::parse(&mut rest);
                    let class = class.filter(|class| !class.has_reversed_range());
                    tokens.push(Token::Class(class.ok_or_else(error)?));
                }
                '\\' => tokens.push(Token::Literal(rest.next().ok_or_else(error)?)),
                character => tokens.push(Token::Literal(character)),
            }
        }
        let prefix = tokens.iter().map_while(|token| match token {
            Token::Literal(character) => Some(*character),
            _ => None,
        });
        let prefix = prefix.collect();
        Ok(Self {
            text: text.to_owned(),
            tokens,
            prefix,
        })
    }

    /// The cleaned text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the pattern matches this path itself; a match of a parent directory doesn't count.
    pub fn is_match(&self, path: &[u8]) -> bool {
        path.starts_with(self.prefix.as_bytes())
            && self.run(path).last().is_some_and(|is_end| *is_end)
    }

    /// Whether the pattern could match something below a directory; false allows to skip it.
    pub fn may_match_below(&self, directory: &[u8]) -> bool {
        let mut path = directory.to_vec();
        if !path.is_empty() {
            path.push(b'/');
        }
        // The last place is the end of the pattern: reached there, nothing more can follow.
        let reached = self.run(&path);
        reached[..self.tokens.len()].contains(&true)
    }

    /// Which places in the pattern are reached after reading the path: one for each token, and the end.
    fn run(&self, path: &[u8]) -> Vec<bool> {
        let mut reached = vec![false; self.tokens.len() + 1];
        let mut next = reached.clone();
        self.reach(&mut reached, 0);
        for character in characters(path) {
            next.fill(false);
            let mut is_dead = true;
            for (place, token) in self
                .tokens
                .iter()
                .enumerate()
                .filter(|(place, _)| reached[*place])
            {
                let (stays, steps) = match token {
                    Token::Literal(literal) => (false, *literal == character),
                    Token::NotSlash => (false, character != '/'),
                    Token::Class(class) => (false, class.contains(character)),
                    Token::Run => (character != '/', false),
                    Token::Everything => (true, false),
                    Token::MaybeDirectories => (false, false),
                    Token::Directories => (true, character == '/'),
                };
                if stays {
                    if matches!(token, Token::Directories) {
                        next[place] = true;
                    } else {
                        self.reach(&mut next, place);
                    }
                }
                if steps {
                    self.reach(&mut next, place + 1);
                }
                is_dead &= !(stays || steps);
            }
            std::mem::swap(&mut reached, &mut next);
            if is_dead {
                break;
            }
        }
        reached
    }

    /// Marks a place and those that follow it without reading anything.
    fn reach(&self, places: &mut [bool], place: usize) {
        let mut place = place;
        loop {
            places[place] = true;
            match self.tokens.get(place) {
                Some(Token::Run | Token::Everything) => place += 1,
                Some(Token::MaybeDirectories) => {
                    places[place + 1] = true;
                    place += 2;
                }
                _ => return,
            }
        }
    }
}

/// Whether the rest of a pattern is literal text.
fn is_plain(rest: &Peekable<Chars<'_>>) -> bool {
    !rest.clone().any(|character| "*?[]\\".contains(character))
}

/// A list of patterns with `!` exceptions; the last one that matches decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatternList {
    patterns: Vec<(Pattern, Effect)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Matches,
    Excepts,
}

/// What was found for a directory, to be handed on to its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParentMatch {
    /// One for each pattern; empty at the root.
    matched: Vec<bool>,
}

impl PatternList {
    /// Compiles patterns; blank ones are left out.
    pub fn new<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Result<Self, PatternError> {
        let mut list = Vec::new();
        for text in patterns {
            let text = text.as_ref().trim();
            if text.is_empty() {
                continue;
            }
            // Cleaned with the `!` in place, as the reference does: it is part of the first component.
            let cleaned = path::clean(text);
            list.push(match cleaned.strip_prefix('!') {
                Some("") => return Err(PatternError::LoneExclamation),
                Some(pattern) => (Pattern::compile(pattern)?, Effect::Excepts),
                None => (Pattern::compile(&cleaned)?, Effect::Matches),
            });
        }
        Ok(Self { patterns: list })
    }

    /// Whether there is no pattern.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether some pattern is an exception.
    pub fn has_exceptions(&self) -> bool {
        self.patterns
            .iter()
            .any(|(_, effect)| *effect == Effect::Excepts)
    }

    /// Texts of the patterns that are no exceptions.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        let patterns = self
            .patterns
            .iter()
            .filter(|(_, effect)| *effect == Effect::Matches);
        patterns.map(|(pattern, _)| pattern.text())
    }

    /// Whether the path is matched, by itself or by one of its parents.
    pub fn is_match(&self, path: &[u8]) -> bool {
        let mut is_matched = false;
        for (pattern, effect) in &self.patterns {
            let would_change = is_matched == (*effect == Effect::Excepts);
            if would_change && matches_path_or_parent(pattern, path) {
                is_matched = !is_matched;
            }
        }
        is_matched
    }

    /// Whether an entry is matched, given what was found for its directory; and the same for its own entries.
    ///
    /// Walks from the root down with [`ParentMatch::default`] at the top. The result can differ from
    /// [`PatternList::is_match`] when an exception names a directory that was not matched at the time; walking
    /// is what the reference does to a build context, so it is right there.
    pub fn is_match_below(&self, path: &[u8], parent: &ParentMatch) -> (bool, ParentMatch) {
        let mut is_matched = false;
        let mut matched = vec![false; self.patterns.len()];
        for (index, (pattern, effect)) in self.patterns.iter().enumerate() {
            let would_change = is_matched == (*effect == Effect::Excepts);
            let applies = match parent.matched.get(index) {
                Some(true) => true,
                Some(false) => would_change && pattern.is_match(path),
                None => would_change && matches_path_or_parent(pattern, path),
            };
            matched[index] = applies;
            if applies {
                is_matched = *effect == Effect::Matches;
            }
        }
        (is_matched, ParentMatch { matched })
    }

    /// Whether something below an unmatched directory could be matched.
    pub fn may_match_below(&self, directory: &[u8]) -> bool {
        self.may(Effect::Matches, directory)
    }

    /// Whether something below a matched directory could be excepted; false allows a walker to skip it.
    pub fn may_except_below(&self, directory: &[u8]) -> bool {
        self.may(Effect::Excepts, directory)
    }

    fn may(&self, wanted: Effect, directory: &[u8]) -> bool {
        self.patterns
            .iter()
            .any(|(pattern, effect)| *effect == wanted && pattern.may_match_below(directory))
    }
}

fn matches_path_or_parent(pattern: &Pattern, path: &[u8]) -> bool {
    let parents = path
        .iter()
        .enumerate()
        .filter(|(at, byte)| **byte == b'/' && *at > 0);
    pattern.is_match(path)
        || parents
            .into_iter()
            .any(|(end, _)| pattern.is_match(&path[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_match() {
        for (pattern, path, wanted) in [
            ("a", "a", true),
            ("a/", "a", true),
            ("a", "a/b", false),
            ("*", "a/b", false),
            ("*/b", "a/b", true),
            ("**", "a/b/c", true),
            ("**/b", "b", true),
            ("**/b", "a/x/b", true),
            ("**/b", "a/xb", false),
            ("**b", "a/xb", true),
            ("**b?", "xbc", false),
            ("**b?", "x/bc", true),
            ("a/**", "a", false),
            ("a/**", "a/b/c", true),
            ("a**", "ab/c", true),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("a/**/b", "a/xb", false),
            ("a?b", "a/b", false),
            ("a[^x]b", "a/b", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("a.b", "axb", false),
            ("x/**/*.go", "x/y/z.go", true),
        ] {
            assert_eq!(
                Pattern::new(pattern).unwrap().is_match(path.as_bytes()),
                wanted,
                "{pattern} {path}"
            );
        }
    }

    #[test]
    fn hopeless_directories_are_known() {
        for (pattern, directory, wanted) in [
            ("a/b/c", "a", true),
            ("a/b/c", "a/b", true),
            ("a/b/c", "a/b/c", false),
            ("a/b/c", "x", false),
            ("a", "", true),
            ("**/x", "any/where", true),
            ("a/**", "a", true),
            ("a/*/c", "a/x", true),
            ("a/*/c", "b", false),
            ("*", "a", false),
            ("é/b", "é", true),
        ] {
            assert_eq!(
                Pattern::new(pattern)
                    .unwrap()
                    .may_match_below(directory.as_bytes()),
                wanted,
                "{pattern}"
            );
        }
    }

    #[test]
    fn the_last_match_decides() {
        let list = PatternList::new(["*", "!src", "src/*.log", " ", "!src/keep.log"]).unwrap();
        for (path, wanted) in [
            ("a", true),
            ("src", false),
            ("src/main.rs", false),
            ("src/x.log", true),
            ("src/keep.log", false),
            ("a/src", true),
        ] {
            assert_eq!(list.is_match(path.as_bytes()), wanted, "{path}");
        }
        assert!(
            list.has_exceptions() && list.may_except_below(b"src") && !list.may_except_below(b"a")
        );
    }

    #[test]
    fn broken_patterns_are_refused() {
        assert_eq!(PatternList::new(["!"]), Err(PatternError::LoneExclamation));
        for pattern in ["[", "a/[", "[]", "a\\"] {
            assert!(
                matches!(
                    PatternList::new([pattern]),
                    Err(PatternError::Syntax { .. })
                ),
                "{pattern}"
            );
        }
    }
}
