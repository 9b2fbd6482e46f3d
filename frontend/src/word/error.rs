//! Why a word can't be expanded, and what to do about it.

use super::{MAX_EXPANSION, MAX_NESTING};

/// Why a word can't be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WordError {
    /// A `'` or `"` without its partner.
    #[error("the quote `{quote}` is never closed")]
    UnclosedQuote {
        /// The quote character.
        quote: char,
    },
    /// `${` without `}`.
    #[error("`${{` has no closing `}}`")]
    MissingBrace,
    /// `${v/p` without the second slash.
    #[error("`${{name/pattern/replacement}}` needs both slashes")]
    MissingSlash,
    /// `${}`, `${{` or `${:`
    #[error("`${{` must be followed by a variable's name")]
    MissingName,
    /// A form that this language does not have.
    #[error("`${{{name}{modifier}…}}` is not a supported substitution")]
    UnsupportedModifier {
        /// The variable.
        name: String,
        /// The modifier as written.
        modifier: String,
    },
    /// A backslash in a pattern before a character that needs none.
    #[error("`\\{escaped}` is not a valid escape in the pattern `{pattern}`")]
    InvalidPattern {
        /// The pattern.
        pattern: String,
        /// The character behind the backslash; empty at the end of the pattern.
        escaped: String,
    },
    /// `${v?words}` or `${v:?words}` applied.
    #[error("variable `{name}` is required: {reason}")]
    Required {
        /// The variable.
        name: String,
        /// The author's words, or `it is not set` / `it is empty`.
        reason: String,
    },
    /// Substitutions inside substitutions beyond [`MAX_NESTING`].
    #[error("substitutions are nested more than {MAX_NESTING} deep")]
    TooDeep,
    /// Beyond [`MAX_EXPANSION`].
    #[error("it becomes longer than {MAX_EXPANSION} bytes")]
    TooLong,
    /// A pattern and a value that would take too long to match.
    #[error("the pattern `{start}…` is too long to be matched with a value of {value} bytes")]
    TooMuchToMatch {
        /// The first characters of the pattern.
        start: String,
        /// Length of the value.
        value: usize,
    },
}

impl WordError {
    /// The way out, where one can be told.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::UnclosedQuote { quote: '\'' } => Some(
                "close the quote, or write the apostrophe inside double quotes; a blank inside quotes still ends a COPY or EXPOSE argument",
            ),
            Self::UnclosedQuote { .. } => Some(
                "close the quote, or put the escape character before it; a blank inside quotes still ends a COPY or EXPOSE argument",
            ),
            Self::UnsupportedModifier { .. } | Self::MissingSlash => Some(
                "the forms are ${v}, ${v-w}, ${v:-w}, ${v+w}, ${v:+w}, ${v?w}, ${v:?w}, ${v#p}, ${v##p}, ${v%p}, ${v%%p}, ${v/p/r} and ${v//p/r}",
            ),
            Self::InvalidPattern { .. } => {
                Some("a backslash in a pattern goes before `*`, `?`, `\\`, `}` or `/` only")
            }
            Self::MissingBrace | Self::MissingName => {
                Some("put the escape character before `$` to mean a dollar sign")
            }
            Self::Required { .. } => Some("pass it with --build-arg, or give the ARG a default"),
            Self::TooDeep | Self::TooLong | Self::TooMuchToMatch { .. } => None,
        }
    }
}
