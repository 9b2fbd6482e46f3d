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
            Self::Conflict { .. } => None,
        }
    }
}
