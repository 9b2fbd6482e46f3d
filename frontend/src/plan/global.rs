//! What a `FROM` line can see: platform args and the ARGs before the first FROM.

use std::collections::{BTreeMap, BTreeSet};

use super::Inputs;
use super::checks::{Checks, Place};
use super::variables::Variables;
use crate::diagnostic::Diagnostic;
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
}

impl GlobalScope {
    /// Evaluates the ARGs before the first FROM.
    pub(super) fn new(inputs: Inputs<'_>, checks: &mut Checks) -> Result<Self, Diagnostic> {
        let platform_args = platform_args(inputs);
        check_default_bases(inputs, &platform_args, checks);
        let variables = declare(inputs, platform_args, &inputs.options.build_args)?;
        let mut declared: BTreeSet<String> = variables.names().map(str::to_owned).collect();
        for pairs in inputs.program.global_args.iter().filter_map(args_of) {
            declared.extend(pairs.iter().map(|pair| pair.name.clone()));
        }
        Ok(Self {
            variables,
            declared,
        })
    }

    /// The known name closest to one that isn't.
    pub(super) fn closest(&self, name: &str) -> Option<&str> {
        crate::suggest::closest(name, self.declared.iter().map(String::as_str))
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
        let expansion =
            word::expand(text, inputs.program.escape, &self.variables).map_err(|error| {
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
            checks.warn_with_help("UndefinedArgInFrom", Place::from(stage), message, help);
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
    let diagnostic = super::error("expansion", span, format!("can't expand `{text}`: {error}"));
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

fn declare(
    inputs: Inputs<'_>,
    mut variables: Variables,
    build_args: &BTreeMap<String, String>,
) -> Result<Variables, Diagnostic> {
    for instruction in &inputs.program.global_args {
        for pair in args_of(instruction).into_iter().flatten() {
            if let Some(value) = build_args.get(&pair.name) {
                variables.set(&pair.name, value);
            } else if let Some(default) = &pair.default {
                let value =
                    word::expand(default, inputs.program.escape, &variables).map_err(|error| {
                        expansion_error(inputs, instruction.span, default, &error)
                            .within(instruction.lines)
                    })?;
                variables.set(&pair.name, &value.text);
            }
        }
    }
    Ok(variables)
}

/// `InvalidDefaultArgInFrom`: a file should build without any build arg.
fn check_default_bases(inputs: Inputs<'_>, platform_args: &Variables, checks: &mut Checks) {
    // An error here comes up again when the build's own args are used.
    let Ok(variables) = declare(inputs, platform_args.clone(), &BTreeMap::new()) else {
        return;
    };
    for stage in &inputs.program.stages {
        let Ok(base) = word::expand(&stage.base, inputs.program.escape, &variables) else {
            return;
        };
        if Reference::parse(&base.text).is_err() {
            let message = format!(
                "without build args `{}` is not a valid image name",
                stage.base
            );
            checks.warn("InvalidDefaultArgInFrom", Place::from(stage), message);
        }
    }
}
