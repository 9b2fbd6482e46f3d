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
    /// What would mend it without changing what the file means; empty if only a person can tell. All or none are made.
    pub edits: Vec<Edit>,
}

/// A piece of text to put in another's place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edit {
    /// What is replaced; empty to insert.
    pub span: Span,
    /// What stands there afterwards.
    pub text: String,
}

impl Diagnostic {
    /// An error without label, help or notes.
    pub fn error(code: &'static str, phase: Phase, span: Span, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: Severity::Error,
            phase,
            message: shortened(message.into()),
            span,
            instruction_lines: None,
            label: String::new(),
            help: None,
            notes: Vec::new(),
            edits: Vec::new(),
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
        self.help = Some(shortened(help.into()));
        self
    }

    /// The same with one more place.
    #[must_use]
    pub fn with_note(mut self, span: Span, words: impl Into<String>) -> Self {
        self.notes.push((span, words.into()));
        self
    }

    /// The same with one more edit that mends it.
    #[must_use]
    pub fn with_edit(mut self, span: Span, text: impl Into<String>) -> Self {
        let text = text.into();
        self.edits.push(Edit { span, text });
        self
    }
}

/// Bytes of a message: they name values, and a value may be as long as a file.
const MOST_BYTES: usize = 2_000;

/// The text without its middle, if it is longer than anybody reads.
fn shortened(text: String) -> String {
    if text.len() <= MOST_BYTES {
        return text;
    }
    let (start, end) = (MOST_BYTES / 4 * 3, text.len() - MOST_BYTES / 4);
    let (start, end) = (
        text.floor_char_boundary(start),
        text.ceil_char_boundary(end),
    );
    format!("{} … {}", &text[..start], &text[end..])
}

impl std::fmt::Display for Diagnostic {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Diagnostic {}

/// Why a file is refused: all errors that do not follow from others, at least one.
///
/// The first is the one that the reference builder stops at; the others stand in file order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors(Vec<Diagnostic>);

impl Errors {
    /// Nothing for no errors; otherwise the first of them stays the first.
    pub fn of(mut found: Vec<Diagnostic>) -> Result<(), Self> {
        if found.is_empty() {
            return Ok(());
        }
        found[1..].sort_by_key(|error| error.span);
        Err(Self(found))
    }

    /// The error that the reference builder stops at.
    pub fn first(&self) -> &Diagnostic {
        &self.0[0]
    }

    /// All of them, in the order in which they are shown.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.0.iter()
    }

    /// All of them, in the order in which they are shown.
    pub fn into_vec(self) -> Vec<Diagnostic> {
        self.0
    }

    /// Each of them changed.
    #[must_use]
    pub fn map(self, change: impl FnMut(Diagnostic) -> Diagnostic) -> Self {
        Self(self.0.into_iter().map(change).collect())
    }
}

impl From<Diagnostic> for Errors {
    fn from(error: Diagnostic) -> Self {
        Self(vec![error])
    }
}

/// Nobody reads more errors of one file: behind this many nothing more is looked for, and hostile files stay cheap.
pub(crate) const MOST_ERRORS: usize = 1_000;

/// Errors so far, where the work goes on behind one.
#[derive(Debug, Default)]
pub(crate) struct Found(pub(crate) Vec<Diagnostic>);

impl Found {
    /// The value; the default in place of what could not be had.
    pub(crate) fn or_default<T: Default>(&mut self, result: Result<T, impl Into<Errors>>) -> T {
        result.unwrap_or_else(|errors| {
            let room = MOST_ERRORS.saturating_sub(self.0.len());
            self.0.extend(errors.into().0.into_iter().take(room));
            T::default()
        })
    }

    /// One more error.
    pub(crate) fn push(&mut self, error: Diagnostic) {
        if !self.is_full() {
            self.0.push(error);
        }
    }

    /// Whether there are more than anybody reads.
    pub(crate) fn is_full(&self) -> bool {
        self.0.len() >= MOST_ERRORS
    }

    /// Whether an instruction on these lines is in error already: what else is wrong with it may follow from that.
    pub(crate) fn has(&self, lines: Lines) -> bool {
        self.0
            .iter()
            .any(|error| error.instruction_lines == Some(lines))
    }

    /// Nothing, if nothing was found.
    pub(crate) fn into_result(self) -> Result<(), Errors> {
        Errors::of(self.0)
    }
}

impl std::fmt::Display for Errors {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.first().fmt(formatter)
    }
}

impl std::error::Error for Errors {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_an_end() {
        let long = format!("`{}` is not a port", "é".repeat(10_000_000));
        let error = Diagnostic::error("x", Phase::Plan, Span::default(), long);
        assert!(error.message.len() <= MOST_BYTES + " … ".len());
        assert!(error.message.starts_with("`éé") && error.message.ends_with("é` is not a port"));
    }

    #[test]
    fn the_first_error_stays_the_first() {
        let at = |start| Diagnostic::error("x", Phase::Parse, Span::new(start, start), "x");
        assert_eq!(Errors::of(Vec::new()), Ok(()));
        let errors = Errors::of(vec![at(5), at(9), at(1)]).expect_err("there are some");
        let starts: Vec<_> = errors.iter().map(|error| error.span.start).collect();
        assert_eq!((errors.first(), starts), (&at(5), vec![5, 1, 9]));
    }
}
