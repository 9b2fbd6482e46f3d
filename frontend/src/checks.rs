//! Build checks: which exist, which count, and those that the text alone can fire.
//!
//! Rules that need variables, bases or the context are fired by the planner with the names of [`RULES`]. Everything is
//! reported here; [`CheckSettings`], from the `check` directive or the build's options, says what is kept. A comment
//! `# check=skip=Rule` right above an instruction is obeyed at once.

mod casing;
mod noted;
mod quote;
mod rules;
mod text;

use std::collections::HashMap;

pub(crate) use noted::Noted;
pub use rules::{RULES, Rule};
pub use text::looks_secret;
pub(crate) use text::{is_skipped_by_comment, of_text, settings_of, warning};

use crate::diagnostic::{Diagnostic, Phase};
use crate::directive::{self, DirectiveName};
use crate::instruction::Program;
use crate::source::{Lines, Span};
use crate::suggest::closest;

/// A set of rules as users write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleSet {
    /// `all`
    All,
    /// These names; unknown ones are not an error.
    Named(Vec<String>),
}

impl Default for RuleSet {
    fn default() -> Self {
        Self::Named(Vec::new())
    }
}

impl RuleSet {
    fn parse(text: &str) -> Self {
        match text.trim() {
            "all" => Self::All,
            names => Self::Named(
                names
                    .split(',')
                    .map(|name| name.trim().to_owned())
                    .collect(),
            ),
        }
    }

    fn has(&self, rule: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.iter().any(|name| name == rule),
        }
    }
}

/// What `check=` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckSettings {
    /// Rules that are not reported.
    pub skip: RuleSet,
    /// Experimental rules that are reported.
    pub experimental: RuleSet,
    /// A reported rule fails the build.
    pub fails_build: bool,
}

/// Why a `check=` value is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckSettingsError {
    /// Not `skip`, `error` or `experimental`, or without `=`.
    #[error("`{option}` is not an option of build checks")]
    UnknownOption {
        /// The part as written.
        option: String,
    },
    /// `error=` something that is no truth value.
    #[error("`{value}` is neither true nor false")]
    NotBoolean {
        /// The value as written.
        value: String,
    },
}

impl CheckSettings {
    /// Reads `skip=A,B;error=true;experimental=all`.
    pub fn parse(text: &str) -> Result<Self, CheckSettingsError> {
        let mut settings = Self::default();
        // The third part is the last: further semicolons belong to it.
        for option in text
            .trim()
            .splitn(3, ';')
            .filter(|_| !text.trim().is_empty())
        {
            let unknown = || CheckSettingsError::UnknownOption {
                option: option.trim().to_owned(),
            };
            let (name, value) = option.split_once('=').ok_or_else(unknown)?;
            match name.trim() {
                "skip" => settings.skip = RuleSet::parse(value),
                "experimental" => settings.experimental = RuleSet::parse(value),
                "error" => {
                    settings.fails_build = match value.trim() {
                        "1" | "t" | "T" | "TRUE" | "true" | "True" => true,
                        "0" | "f" | "F" | "FALSE" | "false" | "False" => false,
                        other => {
                            return Err(CheckSettingsError::NotBoolean {
                                value: other.to_owned(),
                            });
                        }
                    }
                }
                _ => return Err(unknown()),
            }
        }
        Ok(settings)
    }

    /// The settings of a build: `given` (the build arg `BUILDKIT_DOCKERFILE_CHECK`) replaces the file's directive.
    pub fn of(program: &Program, given: Option<&str>) -> Result<Self, Diagnostic> {
        let mut directives = directive::scan(program.source.text(), "#").into_iter();
        let directive = directives.find(|found| found.name == DirectiveName::Check);
        let (text, span) = match (given, &directive) {
            (Some(text), _) => (text, Span::default()),
            // As with `syntax`, the value ends at a blank.
            (None, Some(directive)) => {
                let value = directive.value.split(' ').next().unwrap_or_default();
                (value, directive.value_span)
            }
            (None, None) => return Ok(Self::default()),
        };
        Self::parse(text).map_err(|reason| {
            // The word itself, where the settings stand in the file.
            let wrong = match &reason {
                CheckSettingsError::UnknownOption { option } => option,
                CheckSettingsError::NotBoolean { value } => value,
            };
            let place = match text.find(wrong.as_str()).filter(|_| given.is_none()) {
                Some(at) => Span::new(span.start + at, span.start + at + wrong.len()),
                None => span,
            };
            let error = Diagnostic::error("invalid-check", Phase::Plan, place, reason.to_string());
            let name = wrong.split('=').next().unwrap_or_default().trim();
            match closest(name, ["skip", "error", "experimental"]) {
                Some(known) if known != name => error.with_help(format!("did you mean `{known}=`?")),
                _ => error.with_help("write `skip=RULE,RULE`, `skip=all`, `error=true` or `experimental=RULE`, with `;` between"),
            }
        })
    }

    /// The warnings that are to be reported: those that these settings keep, and experimental ones that a comment
    /// right above their instruction asks for.
    pub fn kept(
        &self,
        program: &Program,
        warnings: impl Iterator<Item = Diagnostic>,
    ) -> Vec<Diagnostic> {
        let stages = || program.stages.iter();
        let heads = stages().map(|stage| (stage.lines, &stage.comments));
        let instructions = stages().flat_map(|stage| &stage.instructions);
        let instructions = program.global_args.iter().chain(instructions);
        let places = instructions.map(|found| (found.lines, &found.comments));
        let asked: HashMap<Lines, RuleSet> = heads
            .chain(places)
            .filter_map(|(lines, comments)| Some((lines, settings_of(comments)?.experimental)))
            .collect();
        let is_asked = |warning: &Diagnostic| {
            let rules = warning
                .instruction_lines
                .and_then(|lines| asked.get(&lines));
            is_experimental(warning.code) && rules.is_some_and(|rules| rules.has(warning.code))
        };
        warnings
            .filter(|warning| self.keeps(warning.code) || is_asked(warning))
            .collect()
    }

    /// Whether a rule is to be reported.
    pub fn keeps(&self, rule: &str) -> bool {
        if is_experimental(rule) {
            self.experimental.has(rule)
        } else {
            !self.skip.has(rule)
        }
    }
}

fn is_experimental(rule: &str) -> bool {
    let mut rules = RULES.iter();
    rules.any(|known| known.name == rule && known.is_experimental)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read() {
        let named =
            |names: &[&str]| RuleSet::Named(names.iter().map(|name| (*name).to_owned()).collect());
        let settings = |skip, experimental, fails_build| CheckSettings {
            skip,
            experimental,
            fails_build,
        };
        let table = [
            ("", Some(CheckSettings::default())),
            ("skip=all", Some(settings(RuleSet::All, named(&[]), false))),
            (
                " skip = A, B ; error=True",
                Some(settings(named(&["A", "B"]), named(&[]), true)),
            ),
            (
                "experimental=all;skip=A;error=0",
                Some(settings(named(&["A"]), RuleSet::All, false)),
            ),
            ("skip", None),
            ("nope=1", None),
            ("error=yes", None),
            ("error=1;skip=a;error=0;skip=b", None),
        ];
        for (text, expected) in table {
            assert_eq!(CheckSettings::parse(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn a_directives_value_ends_at_a_blank() {
        for (text, skipped) in [
            ("# check=skip=A,B and why\nFROM a\n", "B"),
            ("# check=skip=A, B\nFROM a\n", "A"),
        ] {
            let source = crate::source::Source::new("Dockerfile", text.as_bytes());
            let program = crate::instructions::parse(&source).unwrap();
            let settings = CheckSettings::of(&program, None).unwrap();
            assert!(!settings.keeps(skipped) && settings.keeps("C"), "{text}");
            assert_eq!(settings.keeps("B"), skipped == "A", "{text}");
        }
    }

    #[test]
    fn experimental_rules_must_be_asked_for() {
        let default = CheckSettings::default();
        assert!(default.keeps("FromAsCasing"));
        assert!(!default.keeps("InvalidDefinitionDescription"));
        let asked = CheckSettings {
            skip: RuleSet::All,
            experimental: RuleSet::All,
            fails_build: false,
        };
        assert!(!asked.keeps("FromAsCasing"));
        assert!(asked.keeps("InvalidDefinitionDescription"));
    }
}
