//! Shell words: quotes, escapes and `$name` / `${name…}` in one argument of an instruction.
//!
//! One function serves every instruction. The planner expands most arguments with [`expand`]; heredoc detection
//! splits a whole line with [`expand_with`] in a mode that keeps quotes, escapes and unset variables. The result is
//! both one text and the list of words that unquoted blanks make of it. Patterns of `${v#p}` live in `pattern`.
//!
//! Linear in the word; the environment is only asked, never changed. Nothing outside the word is looked at.

mod environment;
mod error;
mod pattern;
mod substitution;

use std::cell::Cell;
use std::collections::BTreeSet;

pub use environment::Environment;
pub use error::WordError;

/// What happens to `$name` when the variable is not set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Unset {
    /// It becomes nothing, as in a shell.
    #[default]
    Empty,
    /// It stays as written: heredoc detection, progress names.
    Keep,
}

/// What happens to quotes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Quotes {
    /// They group and vanish.
    #[default]
    Remove,
    /// They group and stay.
    Keep,
    /// They mean nothing: heredoc bodies.
    Ordinary,
}

/// What happens to the escape character outside single quotes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Escapes {
    /// It protects the next character and vanishes.
    #[default]
    Remove,
    /// It protects the next character and stays.
    Keep,
}

/// How a word is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mode {
    /// The escape character: a backslash or a backtick.
    pub escape: char,
    /// Unset variables.
    pub unset: Unset,
    /// Quotes.
    pub quotes: Quotes,
    /// Escape characters.
    pub escapes: Escapes,
}

impl Mode {
    /// The mode of ordinary arguments: everything is processed, unset is empty.
    pub fn new(escape: char) -> Self {
        Self {
            escape,
            unset: Unset::Empty,
            quotes: Quotes::Remove,
            escapes: Escapes::Remove,
        }
    }

    /// The mode of an unquoted heredoc body: variables only, quotes stay what they are.
    pub fn heredoc_body() -> Self {
        Self {
            quotes: Quotes::Ordinary,
            ..Self::new('\\')
        }
    }

    /// The same, leaving unset variables as written.
    #[must_use]
    pub fn keeping_unset(self) -> Self {
        Self {
            unset: Unset::Keep,
            ..self
        }
    }
}

/// What became of a word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expansion {
    /// The whole text: what every instruction but `EXPOSE` uses.
    pub text: String,
    /// The text cut at blanks that stood outside quotes or came from an unquoted variable: `EXPOSE`.
    pub words: Vec<String>,
    /// Names of the variables that were used and set.
    pub matched: BTreeSet<String>,
    /// Names of the variables that were used but not set, also those that a `${name:-default}` caught.
    pub unmatched: BTreeSet<String>,
}

/// How deep `${a:-${b:-…}}` may nest. Nobody nests ten; the limit keeps hostile input off the call stack.
pub const MAX_NESTING: usize = 100;

/// What expanding may still take: a second's work or two at most, of a word or of all words of a plan.
#[derive(Clone, Debug)]
pub(crate) struct Effort {
    /// Characters of patterns times bytes of the values that they are matched with.
    matching: Cell<usize>,
    /// Bytes that substitutions make, those that go into other substitutions too.
    making: Cell<usize>,
}

impl Effort {
    /// For one word.
    pub(crate) fn of_word() -> Self {
        Self {
            matching: Cell::new(1 << 28),
            making: Cell::new(4 * MAX_EXPANSION),
        }
    }

    /// For all words of a plan; each of them may take what one word may.
    pub(crate) fn of_plan() -> Self {
        Self {
            making: Cell::new(64 * MAX_EXPANSION),
            ..Self::of_word()
        }
    }

    /// Takes a part of what is left; false if there is not so much.
    fn take(left: &Cell<usize>, part: usize) -> bool {
        let behind = left.get().checked_sub(part);
        left.set(behind.unwrap_or(0));
        behind.is_some()
    }
}

/// Bytes that a word may become. Words grow when they repeat variables; a file is no larger than this either.
pub const MAX_EXPANSION: usize = crate::ast::MAX_FILE;

/// Expands one argument as ordinary instructions do.
///
/// ```
/// use std::collections::BTreeMap;
/// let environment = BTreeMap::from([("name".to_owned(), "world".to_owned())]);
/// let expansion = rbuild_frontend::word::expand("hello-\"$name\"-${x:-y}", '\\', &environment)?;
/// assert_eq!(expansion.text, "hello-world-y");
/// # Ok::<(), rbuild_frontend::word::WordError>(())
/// ```
pub fn expand(
    word: &str,
    escape: char,
    environment: &(impl Environment + ?Sized),
) -> Result<Expansion, WordError> {
    expand_with(word, Mode::new(escape), environment)
}

/// Expands a word in any mode.
pub fn expand_with(
    word: &str,
    mode: Mode,
    environment: &(impl Environment + ?Sized),
) -> Result<Expansion, WordError> {
    expand_within(word, mode, environment, &Effort::of_word(), true)
}

/// As [`expand_with`], with as much effort as is left. [`Expansion::words`] stays empty for who wants the text as a
/// whole.
pub(crate) fn expand_within(
    word: &str,
    mode: Mode,
    environment: &(impl Environment + ?Sized),
    effort: &Effort,
    collects_words: bool,
) -> Result<Expansion, WordError> {
    // The reference's scanner drops a byte order mark in front of a word.
    let word = word.strip_prefix('\u{feff}').unwrap_or(word);
    let mut expander = Expander {
        rest: word,
        mode,
        environment,
        depth: 0,
        effort,
        alone: Effort::of_word(),
        collects_words,
        word: String::new(),
        matched: BTreeSet::new(),
        unmatched: BTreeSet::new(),
    };
    let (text, words) = expander.expand_until(Stop::End)?;
    Ok(Expansion {
        text,
        words,
        matched: expander.matched,
        unmatched: expander.unmatched,
    })
}

/// Refuses a text that has grown beyond [`MAX_EXPANSION`].
fn check_length(length: usize) -> Result<(), WordError> {
    if length > MAX_EXPANSION {
        return Err(WordError::TooLong);
    }
    Ok(())
}

/// What ends the text that is being expanded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// The end of the whole word.
    End,
    /// The `}` of a substitution.
    Brace,
    /// The slash between a pattern and its replacement.
    Slash,
}

impl Stop {
    fn char(self) -> Option<char> {
        match self {
            Self::End => None,
            Self::Brace => Some('}'),
            Self::Slash => Some('/'),
        }
    }
}

/// One expansion under way.
struct Expander<'a, E: Environment + ?Sized> {
    /// What has not been read.
    rest: &'a str,
    mode: Mode,
    environment: &'a E,
    /// Substitutions around `rest`.
    depth: usize,
    /// What this word and others may still take.
    effort: &'a Effort,
    /// What this one may.
    alone: Effort,
    /// Whether anybody asks for the words.
    collects_words: bool,
    /// The word being collected for [`Expansion::words`]. Shared by all nesting levels, as in the reference: a
    /// substitution with a nested word forgets what stood before it. Files live with the resulting heredoc rules.
    word: String,
    matched: BTreeSet<String>,
    unmatched: BTreeSet<String>,
}

/// The words of one nesting level.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    is_in_word: bool,
}

impl<'a, E: Environment + ?Sized> Expander<'a, E> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.rest = &self.rest[next.len_utf8()..];
        Some(next)
    }

    fn expand_until(&mut self, stop: Stop) -> Result<(String, Vec<String>), WordError> {
        let mut text = String::new();
        let mut words = Words::default();
        self.word.clear();
        while let Some(next) = self.peek() {
            if stop.char() == Some(next) {
                self.next();
                return Ok((text, self.finish(words)));
            }
            let plain = self.plain_run(stop);
            if !plain.is_empty() {
                self.push_protected(&mut words, plain);
                text.push_str(plain);
                continue;
            }
            match next {
                '$' => {
                    let value = self.dollar()?;
                    self.take_effort(value.len())?;
                    check_length(text.len() + value.len())?;
                    if self.collects_words {
                        let chars = value.chars();
                        chars.for_each(|char| self.push_char(&mut words, char));
                    }
                    text.push_str(&value);
                }
                '\'' if self.mode.quotes != Quotes::Ordinary => {
                    let quoted = self.single_quoted()?;
                    self.push_protected(&mut words, &quoted);
                    text.push_str(&quoted);
                }
                '"' if self.mode.quotes != Quotes::Ordinary => {
                    let quoted = self.double_quoted()?;
                    self.push_protected(&mut words, &quoted);
                    text.push_str(&quoted);
                }
                '<' if self.rest.starts_with("<<") => {
                    let marker = self.heredoc_marker();
                    self.push_protected(&mut words, marker);
                    text.push_str(marker);
                }
                _ => {
                    self.next();
                    if next != self.mode.escape {
                        self.push_char(&mut words, next);
                        text.push(next);
                        continue;
                    }
                    if self.mode.escapes == Escapes::Keep {
                        self.push_protected(&mut words, next.encode_utf8(&mut [0; 4]));
                        text.push(next);
                    }
                    // At the end of the word there is nothing to protect.
                    let Some(protected) = self.next() else { break };
                    self.push_protected(&mut words, protected.encode_utf8(&mut [0; 4]));
                    text.push(protected);
                }
            }
        }
        match stop {
            Stop::End => Ok((text, self.finish(words))),
            Stop::Brace => Err(WordError::MissingBrace),
            Stop::Slash => Err(WordError::MissingSlash),
        }
    }

    /// Counts what a substitution made: a nested one is made again at every level.
    fn take_effort(&self, bytes: usize) -> Result<(), WordError> {
        let takes = |effort: &Effort| Effort::take(&effort.making, bytes);
        if takes(self.effort) && takes(&self.alone) {
            return Ok(());
        }
        Err(WordError::TooLong)
    }

    /// Takes the text up to what may mean something: most words are that and nothing else.
    fn plain_run(&mut self, stop: Stop) -> &'a str {
        let means_nothing = |byte: u8| {
            matches!(byte, b'!'..=b'~')
                && !matches!(byte, b'$' | b'\'' | b'"' | b'<')
                && char::from(byte) != self.mode.escape
                && stop.char() != Some(char::from(byte))
        };
        let mut bytes = self.rest.bytes();
        let length = bytes.position(|byte| !means_nothing(byte));
        let (plain, rest) = self.rest.split_at(length.unwrap_or(self.rest.len()));
        self.rest = rest;
        plain
    }

    /// `'…'`: everything in it is literal.
    fn single_quoted(&mut self) -> Result<String, WordError> {
        let inner = &self.rest[1..];
        let length = inner
            .find('\'')
            .ok_or(WordError::UnclosedQuote { quote: '\'' })?;
        let whole = &self.rest[..length + 2];
        self.rest = &self.rest[length + 2..];
        Ok(if self.mode.quotes == Quotes::Keep {
            whole.to_owned()
        } else {
            inner[..length].to_owned()
        })
    }

    /// `"…"`: variables work, the escape character protects `"`, `$` and itself.
    fn double_quoted(&mut self) -> Result<String, WordError> {
        let mut text = String::new();
        self.next();
        if self.mode.quotes == Quotes::Keep {
            text.push('"');
        }
        while let Some(next) = self.peek() {
            if next == '$' {
                let value = self.dollar()?;
                self.take_effort(value.len())?;
                text.push_str(&value);
                check_length(text.len())?;
                continue;
            }
            self.next();
            if next == '"' {
                if self.mode.quotes == Quotes::Keep {
                    text.push('"');
                }
                return Ok(text);
            }
            if next != self.mode.escape {
                text.push(next);
                continue;
            }
            if self.mode.escapes == Escapes::Keep {
                text.push(next);
            }
            match self.peek() {
                None => {}
                Some(protected)
                    if protected == '"' || protected == '$' || protected == self.mode.escape =>
                {
                    self.next();
                    text.push(protected);
                }
                Some(_) => text.push(next),
            }
        }
        Err(WordError::UnclosedQuote { quote: '"' })
    }

    /// `<<` and the blanks behind it are one unit, so that `<< EOF` is one word.
    fn heredoc_marker(&mut self) -> &'a str {
        let behind = self.rest["<<".len()..].trim_start_matches([' ', '\t', '\r']);
        let (marker, rest) = self.rest.split_at(self.rest.len() - behind.len());
        self.rest = rest;
        marker
    }

    /// A character that may end a word.
    fn push_char(&mut self, words: &mut Words, char: char) {
        if !self.collects_words {
            return;
        }
        if !char.is_whitespace() {
            self.word.push(char);
            words.is_in_word = true;
        } else if words.is_in_word && !self.word.is_empty() {
            words.done.push(std::mem::take(&mut self.word));
            words.is_in_word = false;
        }
    }

    /// Text whose blanks do not end a word.
    fn push_protected(&mut self, words: &mut Words, text: &str) {
        if !self.collects_words {
            return;
        }
        self.word.push_str(text);
        words.is_in_word = true;
    }

    fn finish(&mut self, mut words: Words) -> Vec<String> {
        if !self.word.is_empty() {
            words.done.push(std::mem::take(&mut self.word));
        }
        words.done
    }
}

#[cfg(test)]
mod tests;
