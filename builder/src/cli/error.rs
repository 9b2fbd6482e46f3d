//! What can be wrong with a command line. All of it ends with exit code 2 and names the flag.

/// A command line that clap accepts and that means nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UsageError {
    /// A value that does not parse.
    #[error("invalid value `{value}` for `{flag}`: {reason}")]
    Value {
        /// The flag with its dashes.
        flag: &'static str,
        /// What was typed.
        value: String,
        /// What is wrong with it.
        reason: String,
        /// What would be right.
        help: Option<String>,
    },
    /// Something that rbuild does not do.
    #[error("`{flag}`: {reason}")]
    Unsupported {
        /// The flag with its dashes.
        flag: String,
        /// Why not.
        reason: &'static str,
        /// What to do instead.
        instead: &'static str,
    },
    /// Something that a flag needs and that was not given.
    #[error("`{flag}`: {reason}")]
    Missing {
        /// The flag with its dashes.
        flag: &'static str,
        /// What is missing.
        reason: &'static str,
        /// How to give it.
        help: &'static str,
    },
    /// Two flags that exclude each other.
    #[error("`{first}` and `{second}` {reason}")]
    Conflict {
        /// One of them.
        first: &'static str,
        /// The other.
        second: &'static str,
        /// Why they don't go together.
        reason: &'static str,
        /// How to say what was meant.
        help: Option<&'static str>,
    },
    /// A build without a context.
    #[error("there is no build context: the directory that COPY reads from")]
    NoContext {
        /// What was typed.
        typed: String,
    },
    /// A first word that is neither a verb nor alone.
    #[error("`{word}` is not a command of rbuild")]
    Verb {
        /// What was typed.
        word: String,
        /// What was probably meant.
        meant: String,
    },
    /// A second context.
    #[error("`{word}` is one argument too many: a build has one context")]
    TooMany {
        /// What was typed.
        word: String,
    },
    /// The context is no directory.
    #[error("the context `{path}` {reason}")]
    Context {
        /// As typed.
        path: String,
        /// What it is instead.
        reason: &'static str,
        /// What may have been meant.
        help: Option<String>,
    },
}

impl UsageError {
    /// A value that does not parse.
    pub(crate) fn value(
        flag: &'static str,
        value: impl Into<String>,
        reason: impl Into<String>,
    ) -> Self {
        Self::Value {
            flag,
            value: value.into(),
            reason: reason.into(),
            help: None,
        }
    }

    /// The same with what would be right.
    pub(crate) fn with_help(mut self, words: impl Into<String>) -> Self {
        if let Self::Value { help, .. } | Self::Context { help, .. } = &mut self {
            *help = Some(words.into());
        }
        self
    }

    /// The way out, if one is known.
    pub(crate) fn help(&self) -> Option<String> {
        match self {
            Self::Value { help, .. } | Self::Context { help, .. } => help.clone(),
            Self::Unsupported { instead, .. } => Some((*instead).to_owned()),
            Self::Missing { help, .. } => Some((*help).to_owned()),
            Self::Conflict { help, .. } => help.map(str::to_owned),
            Self::NoContext { typed } => {
                Some(format!("it is the last argument, often `.`: `{typed} .`"))
            }
            Self::Verb { meant, .. } => Some(format!("did you mean `{meant}`?")),
            Self::TooMany { .. } => Some(
                "a value that may be left out is joined to its flag: `--pull=always`; further contexts are named: `--build-context NAME=PATH`"
                    .to_owned(),
            ),
        }
    }
}
