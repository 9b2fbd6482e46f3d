//! What a `FROM` line can see: platform args and the ARGs before the first FROM.

use std::collections::{BTreeMap, BTreeSet};

use super::Inputs;
use super::budget::Budget;
use super::checks::{Checks, Place};
use super::variables::Variables;
use crate::diagnostic::{Diagnostic, Found, MOST_ERRORS};
use crate::graph::BuildArgument;
use crate::instruction::{Instruction, InstructionKind};
use crate::reference::Reference;
use crate::word::{self, Expansion};

/// The global scope after all its ARGs.
#[derive(Debug)]
pub(super) struct GlobalScope {
    /// Everything with a value.
    pub(super) variables: Variables,
    /// Names that were declared, with or without one.
    pub(super) declared: BTreeSet<String>,
    /// Names whose value could not be told: the error has been reported.
    broken: BTreeSet<String>,
    /// False if an ARG may be missing or is broken.
    pub(super) is_certain: bool,
    /// The ARGs themselves, and the variables that each one's default uses.
    arguments: Vec<(BuildArgument, BTreeSet<String>)>,
}

impl GlobalScope {
    /// Evaluates the ARGs before the first FROM.
    pub(super) fn new(
        inputs: Inputs<'_>,
        checks: &mut Checks,
        budget: &mut Budget,
        found: &mut Found,
    ) -> Self {
        let platform_args = platform_args(inputs);
        check_default_bases(inputs, &platform_args, checks, budget);
        let mut errors = Vec::new();
        let build_args = &inputs.options.build_args;
        let variables = declare(inputs, platform_args, build_args, budget, &mut errors);
        let mut declared: BTreeSet<String> = variables.names().map(str::to_owned).collect();
        for pairs in inputs.program.global_args.iter().filter_map(args_of) {
            declared.extend(pairs.iter().map(|pair| pair.name.to_string()));
        }
        let is_certain = inputs.program.is_whole && errors.is_empty();
        let (broken, errors): (_, Vec<Diagnostic>) = errors.into_iter().unzip();
        found.0.extend(errors.into_iter().take(MOST_ERRORS));
        Self {
            arguments: arguments(inputs, &variables),
            variables,
            declared,
            broken,
            is_certain,
        }
    }

    /// The ARGs among these names, and those that their defaults use.
    pub(super) fn used(&self, names: &BTreeSet<String>) -> Vec<BuildArgument> {
        let mut names = names.clone();
        let mut used: BTreeMap<&str, BuildArgument> = BTreeMap::new();
        // A default can only use what stands above.
        for (argument, uses) in self.arguments.iter().rev() {
            if names.contains(&argument.name) {
                names.extend(uses.iter().cloned());
                used.entry(&argument.name)
                    .or_insert_with(|| argument.clone());
            }
        }
        used.into_values().collect()
    }

    /// Whether what a word became may follow from an error elsewhere.
    pub(super) fn is_doubtful(&self, inputs: Inputs<'_>, expansion: &Expansion) -> bool {
        let is_broken = |name: &String| self.broken.contains(name);
        let mut names = expansion.matched.iter().chain(&expansion.unmatched);
        let may_be_missing = !inputs.program.is_whole && !expansion.unmatched.is_empty();
        may_be_missing || names.any(is_broken)
    }

    /// The known name closest to one that isn't.
    pub(super) fn closest(&self, name: &str) -> Option<&str> {
        crate::suggest::closest(name, self.declared.iter().map(String::as_str))
    }

    /// The way out for a variable without a value.
    pub(super) fn help_for(&self, name: &str) -> String {
        match self.closest(name).filter(|_| !self.declared.contains(name)) {
            Some(known) => format!("`{name}` has no value: did you mean `{known}`?"),
            None => format!(
                "`{name}` has no value: give its ARG before the first FROM a default, or pass `--build-arg {name}=…`"
            ),
        }
    }

    /// The first variable of an expanded word that has no value or an empty one.
    pub(super) fn without_value<'e>(&self, expansion: &'e Expansion) -> Option<&'e str> {
        let empty = |name: &&String| self.variables.get(name) == Some("");
        let mut empty = expansion.matched.iter().filter(empty);
        let unset = expansion.unmatched.iter().next();
        unset.or_else(|| empty.next()).map(String::as_str)
    }

    /// Expands a word of a FROM line and reports names that nobody declared.
    pub(super) fn expand(
        &self,
        inputs: Inputs<'_>,
        checks: &mut Checks,
        stage: &crate::instruction::Stage,
        text: &str,
    ) -> Result<Expansion, Diagnostic> {
        let expansion = inputs.expand(text, &self.variables).map_err(|error| {
            expansion_error(inputs, stage.span, text, &error).within(stage.lines)
        })?;
        for name in expansion
            .unmatched
            .iter()
            .filter(|name| !self.declared.contains(*name))
        {
            let help = self
                .closest(name)
                .map(|known| format!("did you mean `{known}`?"));
            let message = format!("`{name}` is not declared before the first FROM");
            let span = inputs.place_of_variable(stage.span, name);
            let place = Place::from(stage).at(span);
            checks.warn_with_help("UndefinedArgInFrom", place, message, help);
        }
        Ok(expansion)
    }
}

/// An error in a word's substitutions.
pub(super) fn expansion_error(
    inputs: Inputs<'_>,
    place: crate::source::Span,
    text: &str,
    error: &word::WordError,
) -> Diagnostic {
    let span = inputs.place_of(place, text);
    let code = match error {
        word::WordError::Required { .. } => "required-variable",
        _ => "expansion",
    };
    let diagnostic = super::error(code, span, format!("can't expand `{text}`: {error}"));
    match error.help() {
        Some(help) => diagnostic.with_help(help),
        None => diagnostic,
    }
}

fn args_of(instruction: &Instruction) -> Option<&Vec<crate::instruction::ArgPair>> {
    match &instruction.kind {
        InstructionKind::Arg(pairs) => Some(pairs),
        _ => None,
    }
}

/// The predefined args; a build arg of the same name wins.
fn platform_args(inputs: Inputs<'_>) -> Variables {
    let build = &inputs.options.build_platform;
    let target = inputs.target_platform();
    let last = inputs
        .program
        .stages
        .last()
        .and_then(|stage| stage.name.as_deref());
    let stage = inputs
        .options
        .target
        .as_deref()
        .or(last)
        .unwrap_or("default");
    let without_version = build.clone().with_os_version("");
    let mut variables = Variables::default();
    for (name, value) in [
        ("BUILDPLATFORM", without_version.to_string().as_str()),
        ("BUILDOS", &build.os),
        ("BUILDOSVERSION", &build.os_version),
        ("BUILDARCH", &build.architecture),
        ("BUILDVARIANT", &build.variant),
        ("TARGETPLATFORM", target.to_string().as_str()),
        ("TARGETOS", &target.os),
        ("TARGETOSVERSION", &target.os_version),
        ("TARGETARCH", &target.architecture),
        ("TARGETVARIANT", &target.variant),
        ("TARGETSTAGE", stage),
    ] {
        variables.set(
            name,
            inputs
                .options
                .build_args
                .get(name)
                .map_or(value, String::as_str),
        );
    }
    variables
}

/// The ARGs before the first FROM as an outline has them.
fn arguments(inputs: Inputs<'_>, variables: &Variables) -> Vec<(BuildArgument, BTreeSet<String>)> {
    let mut arguments: Vec<(BuildArgument, BTreeSet<String>)> = Vec::new();
    for instruction in &inputs.program.global_args {
        for pair in args_of(instruction).into_iter().flatten() {
            let default = pair.default.as_deref().unwrap_or_default();
            let uses = inputs
                .expand(default, variables)
                .map(|expansion| expansion.matched)
                .unwrap_or_default();
            let argument = BuildArgument {
                name: pair.name.to_string(),
                value: variables.get(&pair.name).map(str::to_owned),
                description: instruction.comments.description_of(&pair.name),
                lines: instruction.lines,
            };
            arguments.push((argument, uses));
        }
    }
    arguments
}

/// Declares all ARGs. One whose default is wrong has no value; its name and error are added to `errors`.
fn declare(
    inputs: Inputs<'_>,
    mut variables: Variables,
    build_args: &BTreeMap<String, String>,
    budget: &mut Budget,
    errors: &mut Vec<(String, Diagnostic)>,
) -> Variables {
    for instruction in &inputs.program.global_args {
        for pair in args_of(instruction).into_iter().flatten() {
            if let Some(value) = build_args.get(pair.name.as_str()) {
                variables.set(&pair.name, value);
            } else if let Some(default) = &pair.default {
                let value = inputs
                    .expand(default, &variables)
                    .map_err(|error| {
                        expansion_error(inputs, instruction.span, default, &error)
                            .within(instruction.lines)
                    })
                    .and_then(|value| {
                        budget.take(value.text.len(), instruction.span, instruction.lines)?;
                        Ok(value)
                    });
                match value {
                    Ok(value) => variables.set(&pair.name, &value.text),
                    Err(error) if errors.len() < MOST_ERRORS => {
                        errors.push((pair.name.to_string(), error));
                    }
                    Err(_) => return variables,
                }
            }
        }
    }
    variables
}

/// `InvalidDefaultArgInFrom`: a file should build without any build arg.
fn check_default_bases(
    inputs: Inputs<'_>,
    platform_args: &Variables,
    checks: &mut Checks,
    budget: &mut Budget,
) {
    let mut errors = Vec::new();
    let none = BTreeMap::new();
    let variables = declare(inputs, platform_args.clone(), &none, budget, &mut errors);
    // An error here comes up again when the build's own args are used.
    if !errors.is_empty() {
        return;
    }
    for stage in &inputs.program.stages {
        let Ok(base) = inputs.expand(&stage.base, &variables) else {
            return;
        };
        if Reference::parse(&base.text).is_err() {
            let message = format!(
                "without build args `{}` is not a valid image name",
                stage.base
            );
            let place = Place::from(stage).at(stage.base_span);
            checks.warn("InvalidDefaultArgInFrom", place, message);
        }
    }
}
