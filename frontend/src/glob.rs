//! Wildcards of COPY and ADD sources: Go's `path.Match`, component by component.
//!
//! `*` is any run, `?` one character, `[a-z]` and `[^a]` a class, a backslash takes the next character
//! literally. `**` is nothing special: only ignore files, `--exclude` and `--parents` know it
//! ([`crate::pattern`]). Names are bytes; a byte that is not UTF-8 counts as one character U+FFFD.

use crate::path;

/// One path component with wildcards.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Glob {
    tokens: Vec<Token>,
}

/// A pattern that is no pattern: an open or empty class, or a backslash at the end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{pattern}` is not a valid wildcard pattern")]
pub struct GlobError {
    /// What was given.
    pub pattern: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Token {
    Literal(char),
    Any,
    Run,
    Class(Class),
}

/// `[…]`: a set of characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Class {
    is_negated: bool,
    ranges: Vec<(char, char)>,
}

impl Class {
    /// Reads what follows `[`, the closing bracket included; none if it isn't a valid class.
    pub(crate) fn parse(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Self> {
        let is_negated = characters.next_if_eq(&'^').is_some();
        let mut ranges = Vec::new();
        let bound =
            |characters: &mut std::iter::Peekable<std::str::Chars<'_>>| match characters.next()? {
                '-' | ']' => None,
                '\\' => characters.next(),
                character => Some(character),
            };
        loop {
            if !ranges.is_empty() && characters.next_if_eq(&']').is_some() {
                return Some(Self { is_negated, ranges });
            }
            let low = bound(characters)?;
            let high = if characters.next_if_eq(&'-').is_some() {
                bound(characters)?
            } else {
                low
            };
            ranges.push((low, high));
        }
    }

    /// Whether a range of it runs backwards, `[z-a]`: no character is in that.
    pub(crate) fn has_reversed_range(&self) -> bool {
        self.ranges.iter().any(|(low, high)| low > high)
    }

    /// Whether the character is in the set.
    pub(crate) fn contains(&self, character: char) -> bool {
        self.ranges
            .iter()
            .any(|&(low, high)| (low..=high).contains(&character))
            != self.is_negated
    }
}

/// The characters of a name, lossily: what is not UTF-8 counts byte by byte.
pub(crate) fn characters(name: &[u8]) -> impl Iterator<Item = char> {
    name.utf8_chunks().flat_map(|chunk| {
        let invalid = chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER);
        chunk.valid().chars().chain(invalid)
    })
}

impl Glob {
    /// Compiles one component.
    pub fn new(pattern: &str) -> Result<Self, GlobError> {
        let error = || GlobError {
            pattern: pattern.to_owned(),
        };
        let mut tokens = Vec::new();
        let mut rest = pattern.chars().peekable();
        while let Some(character) = rest.next() {
            tokens.push(match character {
                '*' if tokens.last() == Some(&Token::Run) => continue,
                '*' => Token::Run,
                '?' => Token::Any,
                '[' => Token::Class(Class::parse(&mut rest).ok_or_else(error)?),
                '\\' => Token::Literal(rest.next().ok_or_else(error)?),
                character => Token::Literal(character),
            });
        }
        Ok(Self { tokens })
    }

    /// Whether a file name, without slashes, matches.
    pub fn is_match(&self, name: &[u8]) -> bool {
        let name: Vec<char> = characters(name).collect();
        let (mut at, mut token) = (0, 0);
        // The last `*` and where its run ends so far: the only place worth going back to.
        let mut resume: Option<(usize, usize)> = None;
        loop {
            let is_step = match (self.tokens.get(token), name.get(at)) {
                (Some(Token::Run), _) => {
                    resume = Some((token, at));
                    token += 1;
                    continue;
                }
                (Some(Token::Literal(literal)), Some(character)) => literal == character,
                (Some(Token::Any), Some(_)) => true,
                (Some(Token::Class(class)), Some(character)) => class.contains(*character),
                (None, None) => return true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            if is_step {
                at += 1;
                token += 1;
                continue;
            }
            match resume {
                Some((run, end)) if end < name.len() => {
                    resume = Some((run, end + 1));
                    at = end + 1;
                    token = run + 1;
                }
                _ => return false,
            }
        }
    }
}

/// Whether a path has a wildcard outside escapes.
pub fn has_wildcards(path: &str) -> bool {
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
            }
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

/// A COPY or ADD source: a literal part, then one glob for each further component.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SourcePattern {
    /// Path before the first component with a wildcard, cleaned. Backslashes in it are literal, symlinks in it
    /// are followed.
    pub base: String,
    /// One for each component below `base`; empty without wildcards. A matched directory is not searched further.
    pub components: Vec<Glob>,
}

impl SourcePattern {
    /// Splits and compiles a source as the Dockerfile has it after expansion.
    pub fn new(source: &str) -> Result<Self, GlobError> {
        let source = path::clean(&format!("/{source}"));
        let parts: Vec<&str> = source.split('/').skip(1).collect();
        let literal = parts
            .iter()
            .position(|part| has_wildcards(part))
            .unwrap_or(parts.len());
        let (base, wild) = parts.split_at(literal);
        let components = wild
            .iter()
            .map(|part| Glob::new(part))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            base: format!("/{}", base.join("/")),
            components,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match() {
        for (pattern, name, wanted) in [
            ("*", "", true),
            ("*.txt", "a.txt", true),
            ("*.txt", ".txt", true),
            ("**.txt", "a.txt", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("a?c", "aéc", true),
            ("a?c", "ac", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("[]]", "]", false),
            ("[\\]]", "]", true),
            ("[c-a]", "b", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("", "", true),
            ("", "a", false),
        ] {
            let matched = Glob::new(pattern).is_ok_and(|glob| glob.is_match(name.as_bytes()));
            assert_eq!(matched, wanted, "{pattern} {name}");
        }
        assert!(Glob::new("a?c").unwrap().is_match(b"a\xffc"));
    }

    #[test]
    fn broken_patterns_are_refused() {
        for pattern in ["[", "[a", "[]a]", "[^]", "[-]", "[a-]", "a\\", "[a\\"] {
            assert_eq!(Glob::new(pattern).unwrap_err().pattern, pattern);
        }
    }

    #[test]
    fn sources_are_split_at_the_first_wildcard() {
        for (source, base, components) in [
            ("a/b", "/a/b", 0),
            (".", "/", 0),
            ("*", "/", 1),
            ("a/../b\\c/*.x/d", "/b\\c", 2),
            ("a/\\*/b", "/a/\\*/b", 0),
            ("../x?", "/", 1),
        ] {
            let pattern = SourcePattern::new(source).unwrap();
            assert_eq!(
                (pattern.base.as_str(), pattern.components.len()),
                (base, components),
                "{source}"
            );
        }
    }

    #[test]
    fn many_runs_take_no_time() {
        let glob = Glob::new(&"a*".repeat(200)).unwrap();
        assert!(!glob.is_match("a".repeat(199).as_bytes()));
    }
}
