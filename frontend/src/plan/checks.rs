//! Build checks that need values: what variables, bases and configs turn out to be.
//!
//! Checks of the text alone have been made by the parser and wait in [`Program::warnings`](crate::instruction::Program::warnings).

use super::Inputs;
use crate::checks::{CheckSettings, is_skipped_by_comment, looks_secret, warning};
use crate::diagnostic::{Diagnostic, Edit, Severity};
use crate::ignore_file::IgnoreMatcher;
use crate::instruction::{Comments, Instruction, Stage};
use crate::path;
use crate::source::{Lines, Span};

/// Where a warning is reported.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) span: Span,
    pub(super) lines: Lines,
    pub(super) comments: &'a Comments,
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
    /// Lines of the stages that are not evaluated, in file order.
    unreached: Vec<Lines>,
}

/// Rules that the text alone can fire, but that count only where a stage is evaluated, as in the reference.
const OF_EVALUATED_STAGES: [&str; 2] = ["LegacyKeyValueFormat", "SecretsUsedInArgOrEnv"];

impl Checks {
    pub(super) fn new(settings: CheckSettings) -> Self {
        Self {
            settings,
            warnings: Vec::new(),
            unreached: Vec::new(),
        }
    }

    /// Says which stages, by their lines and in file order, are not evaluated.
    pub(super) fn leave_out(&mut self, unreached: Vec<Lines>) {
        self.unreached = unreached;
    }

    /// How many have been reported so far.
    pub(super) fn count(&self) -> usize {
        self.warnings.len()
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
        self.warnings.push(warning.within(place.lines));
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
        let Self {
            settings,
            warnings,
            unreached,
        } = self;
        let is_left_out = |warning: &Diagnostic| {
            let line = warning.instruction_lines.map_or(0, |lines| lines.first);
            let next = unreached.partition_point(|stage| stage.first <= line);
            let stage = next.checked_sub(1).map(|index| unreached[index]);
            OF_EVALUATED_STAGES.contains(&warning.code)
                && stage.is_some_and(|stage| line <= stage.last)
        };
        let of_text = inputs.program.warnings().into_iter();
        let of_text = of_text.filter(|warning| !is_left_out(warning));
        let mut all = settings.kept(inputs.program, of_text.chain(warnings));
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

    /// `SecretsUsedInArgOrEnv` of a trigger; those of the file have been found in its text.
    pub(super) fn secret_name(&mut self, place: Place<'_>, name: &str) {
        if looks_secret(name) {
            let message =
                format!("`{name}` looks like a secret, and its value can be read from the image");
            self.warn("SecretsUsedInArgOrEnv", place, message);
        }
    }

    /// `LegacyKeyValueFormat` of a trigger.
    pub(super) fn legacy_pair(&mut self, place: Place<'_>, keyword: &str, name: &str) {
        let message = format!("{keyword} `{name}` is written without `=`");
        self.warn("LegacyKeyValueFormat", place, message);
    }

    /// `MultipleInstructionsDisallowed`, reported where the instruction stands that has no effect. The comments are
    /// those of the one that replaces it, as in the reference.
    pub(super) fn replaced(&mut self, earlier: (Span, Lines), keyword: &str, comments: &Comments) {
        let (span, lines) = earlier;
        let place = Place {
            span,
            lines,
            comments,
        };
        let message = format!("this {keyword} has no effect: a later one in the stage replaces it");
        self.warn("MultipleInstructionsDisallowed", place, message);
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
