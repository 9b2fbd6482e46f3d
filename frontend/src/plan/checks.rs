//! Build checks that need values: what variables, bases and configs turn out to be.
//!
//! Checks of the text alone have been made by the parser and wait in [`Program::warnings`](crate::instruction::Program).

use super::Inputs;
use crate::checks::{CheckSettings, is_skipped_by_comment, warning};
use crate::diagnostic::{Diagnostic, Edit, Severity};
use crate::ignore_file::IgnoreMatcher;
use crate::instruction::{Instruction, Stage};
use crate::path;
use crate::source::{Lines, Span};

/// Where a warning is reported.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) span: Span,
    pub(super) lines: Lines,
    pub(super) comments: &'a [String],
}

impl<'a> From<&'a Instruction> for Place<'a> {
    fn from(instruction: &'a Instruction) -> Self {
        Self {
            span: instruction.span,
            lines: instruction.lines,
            comments: &instruction.comments,
        }
    }
}

impl<'a> From<&'a Stage> for Place<'a> {
    fn from(stage: &'a Stage) -> Self {
        Self {
            span: stage.span,
            lines: stage.lines,
            comments: &stage.comments,
        }
    }
}

impl Place<'_> {
    /// The same, pointing at a part of it.
    pub(super) fn at(self, span: Span) -> Self {
        Self { span, ..self }
    }
}

/// Warnings collected so far.
#[derive(Debug)]
pub(super) struct Checks {
    settings: CheckSettings,
    warnings: Vec<Diagnostic>,
}

impl Checks {
    pub(super) fn new(settings: CheckSettings) -> Self {
        Self {
            settings,
            warnings: Vec::new(),
        }
    }

    /// Notes that a check fired, unless it is skipped here.
    pub(super) fn warn(&mut self, rule: &'static str, place: Place<'_>, message: String) {
        self.report(place, warning(rule, place.span, message));
    }

    /// As [`Checks::warn`], with an edit that mends it if there is one.
    pub(super) fn warn_mendable(
        &mut self,
        rule: &'static str,
        place: Place<'_>,
        message: String,
        edit: Option<Edit>,
    ) {
        let mut warning = warning(rule, place.span, message);
        warning.edits.extend(edit);
        self.report(place, warning);
    }

    /// As [`Checks::warn`], with a better way out if one is known.
    pub(super) fn warn_with_help(
        &mut self,
        rule: &'static str,
        place: Place<'_>,
        message: String,
        help: Option<String>,
    ) {
        let warning = warning(rule, place.span, message);
        self.report(
            place,
            Diagnostic {
                help: help.or_else(|| warning.help.clone()),
                ..warning
            },
        );
    }

    fn report(&mut self, place: Place<'_>, warning: Diagnostic) {
        if is_skipped_by_comment(warning.code, place.comments) {
            return;
        }
        let warning = warning.within(place.lines);
        // Words of one instruction often share a mistake; those of one instruction stand together.
        let lines = warning.instruction_lines;
        let of_instruction = self.warnings.iter().rev();
        let mut of_instruction =
            of_instruction.take_while(|other| other.instruction_lines == lines);
        let is_known = of_instruction.any(|other| *other == warning);
        if !is_known {
            self.warnings.push(warning);
        }
    }

    /// All warnings in file order, or an error if the file wants warnings to fail the build.
    pub(super) fn into_warnings(self, inputs: Inputs<'_>) -> Result<Vec<Diagnostic>, Diagnostic> {
        let fails_build = self.settings.fails_build;
        let warnings = self.into_list(inputs);
        match warnings.first() {
            Some(first) if fails_build => {
                let mut rules: Vec<&str> = warnings.iter().map(|warning| warning.code).collect();
                rules.sort_unstable();
                rules.dedup();
                let message = format!("build checks failed: {}", rules.join(", "));
                let asked = inputs.options.build_args.get("BUILDKIT_DOCKERFILE_CHECK");
                let reason = match asked {
                    Some(_) => "the build argument BUILDKIT_DOCKERFILE_CHECK has `error=true`",
                    None => "the `check` directive of this file has `error=true`",
                };
                let error = super::error("check-failed", first.span, message).with_help(format!(
                    "{reason}; `rbuild check` shows each of them with its way out"
                ));
                let error = error.with_label(&*first.message);
                Err(warnings[1..].iter().fold(error, |error, warning| {
                    error.with_note(warning.span, &*warning.message)
                }))
            }
            _ => Ok(warnings),
        }
    }

    /// All warnings that are kept, in file order; as errors if the file wants them to fail the build.
    pub(super) fn into_list(self, inputs: Inputs<'_>) -> Vec<Diagnostic> {
        let Self { settings, warnings } = self;
        let of_text = inputs.program.warnings.iter().cloned();
        let mut all: Vec<Diagnostic> = of_text
            .chain(warnings)
            .filter(|warning| settings.keeps(warning.code))
            .collect();
        all.sort_by_key(|warning| warning.span);
        if settings.fails_build {
            for warning in &mut all {
                warning.severity = Severity::Error;
            }
        }
        all
    }

    /// `UndefinedVar`
    pub(super) fn undefined_variable(
        &mut self,
        place: Place<'_>,
        name: &str,
        suggestion: Option<&str>,
    ) {
        let help = suggestion.map(|known| format!("did you mean `${known}`?"));
        self.warn_with_help(
            "UndefinedVar",
            place,
            format!("variable `${name}` is not set here"),
            help,
        );
    }

    /// `CopyIgnoredFile`; an ignore file with exceptions is too hard to judge.
    pub(super) fn ignored_source(
        &mut self,
        place: Place<'_>,
        ignore: &IgnoreMatcher,
        source: &str,
    ) {
        let cleaned = path::clean(source);
        let is_root = matches!(cleaned.as_str(), "." | "/");
        let ignores_all = || {
            ignore
                .patterns()
                .texts()
                .any(|text| matches!(text, "*" | "**" | "**/*"))
        };
        if ignore.patterns().has_exceptions() || is_root && !ignores_all() {
            return;
        }
        if ignore.matches(cleaned.as_bytes()) {
            let message =
                format!("`{cleaned}` is left out of the build context by the ignore file");
            self.warn("CopyIgnoredFile", place, message);
        }
    }
}
