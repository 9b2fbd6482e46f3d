//! What the frontend has to say about a Dockerfile: data only, rendered by `builder`.

use crate::source::{Lines, Span};

/// How bad a [`Diagnostic`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// A build check fired; the build goes on.
    Warning,
    /// The Dockerfile can't be built.
    Error,
}

/// Where in the frontend an error was found. Tests against the reference compare it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Bytes to logical lines and nodes.
    Parse,
    /// Nodes to typed instructions and stages.
    Instructions,
    /// Expansion of variables, mounts, stage references: only what the target needs.
    Plan,
}

/// One message about one place of a Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Stable kebab-case code (`unknown-stage`), or the name of a build check (`FromAsCasing`).
    pub code: &'static str,
    /// Error or warning.
    pub severity: Severity,
    /// Which part found it.
    pub phase: Phase,
    /// What is wrong: one sentence, lower case, no full stop, backticks around values.
    pub message: String,
    /// The place it is about.
    pub span: Span,
    /// All lines of the instruction around the place; none if the place is not in one.
    pub instruction_lines: Option<Lines>,
    /// A few words to write below the place; empty to say nothing there.
    pub label: String,
    /// The way out, if one is known.
    pub help: Option<String>,
    /// Other places that matter, each with its words (`first defined here`).
    pub notes: Vec<(Span, String)>,
}

impl Diagnostic {
    /// An error without label, help or notes.
    pub fn error(code: &'static str, phase: Phase, span: Span, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: Severity::Error,
            phase,
            message: message.into(),
            span,
            instruction_lines: None,
            label: String::new(),
            help: None,
            notes: Vec::new(),
        }
    }

    /// A build check's warning.
    pub fn warning(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(code, Phase::Plan, span, message)
        }
    }

    /// The same, as part of an instruction that stands on these lines.
    #[must_use]
    pub fn within(mut self, lines: Lines) -> Self {
        self.instruction_lines = Some(lines);
        self
    }

    /// The same with words below the place.
    #[must_use]
    pub fn with_label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// The same with a way out.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same with one more place.
    #[must_use]
    pub fn with_note(mut self, span: Span, words: impl Into<String>) -> Self {
        self.notes.push((span, words.into()));
        self
    }
}

impl std::fmt::Display for Diagnostic {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Diagnostic {}
