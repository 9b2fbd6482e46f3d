//! The stages of a file: what each is built on, and what `--from` means by a name.

use std::collections::{BTreeSet, HashMap};

use super::Inputs;
use super::checks::{Checks, Place};
use super::cycle;
use super::global::GlobalScope;
use super::named_context::NamedContexts;
use super::reach::sources_of;
use crate::diagnostic::{Diagnostic, Found};
use crate::graph::{ImageReference, NamedContext};
use crate::instruction::{Instruction, Stage};
use crate::letters;
use crate::platform::Platform;
use crate::reference::{Reference, ReferenceError};
use crate::source::Span;
use crate::suggest::closest;
use crate::word;

/// Names that people mean when they mistype an image.
const COMMON_IMAGES: &[&str] = &[
    "alpine", "busybox", "centos", "debian", "fedora", "golang", "node", "python", "ubuntu",
];

/// Where files come from: what a base or a `--from` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A stage of this file, by index.
    Stage(usize),
    /// An image.
    Image(ImageReference),
    /// The empty root.
    Scratch,
    /// A named context that is a directory, repository or URL.
    Files(String),
    /// Nobody knows: the line that names it is in error.
    Unknown,
}

/// What a `FROM` line says.
#[derive(Debug)]
pub(super) struct StageHead<'a> {
    pub(super) stage: &'a Stage,
    pub(super) base: Origin,
    /// `--platform`, parsed.
    pub(super) platform: Option<Platform>,
    /// A named context stands in for the stage: its instructions do not count.
    pub(super) is_replaced: bool,
    /// Variables of its base and platform.
    pub(super) variables: BTreeSet<String>,
}

impl<'a> StageHead<'a> {
    /// A stage about whose base nothing is known.
    fn unknown(stage: &'a Stage) -> Self {
        Self {
            stage,
            base: Origin::Unknown,
            platform: None,
            is_replaced: false,
            variables: BTreeSet::new(),
        }
    }
}

/// All stages.
pub(super) struct StageTable<'a> {
    pub(super) inputs: Inputs<'a>,
    pub(super) heads: Vec<StageHead<'a>>,
    /// Lower-cased names; of equal ones the last.
    by_name: HashMap<&'a str, usize>,
    contexts: NamedContexts<'a>,
}

impl<'a> StageTable<'a> {
    /// Evaluates all `FROM` lines.
    pub(super) fn new(
        inputs: Inputs<'a>,
        global: &GlobalScope,
        checks: &mut Checks,
        found: &mut Found,
    ) -> Self {
        let contexts = NamedContexts::new(&inputs.options.named_contexts);
        let mut table = Self {
            inputs,
            heads: Vec::new(),
            by_name: HashMap::new(),
            contexts,
        };
        for (index, stage) in inputs.program.stages.iter().enumerate() {
            let head = if found.is_full() || !stage.is_readable {
                StageHead::unknown(stage)
            } else {
                table.head(stage, global, checks).unwrap_or_else(|error| {
                    found.0.push(error.within(stage.lines));
                    StageHead::unknown(stage)
                })
            };
            table.heads.push(head);
            if let Some(name) = &stage.name {
                table.by_name.insert(name, index);
            }
        }
        table
    }

    fn head(
        &self,
        stage: &'a Stage,
        global: &GlobalScope,
        checks: &mut Checks,
    ) -> Result<StageHead<'a>, Diagnostic> {
        let expansion = global.expand(self.inputs, checks, stage, &stage.base)?;
        if global.is_doubtful(self.inputs, &expansion) {
            return Ok(StageHead::unknown(stage));
        }
        // A name that came out wrong is most often one whose variable has no value.
        let blame_variable = |error: Diagnostic| match global.without_value(&expansion) {
            Some(name) => error.with_help(global.help_for(name)),
            None => error,
        };
        let base = &expansion.text;
        if base.is_empty() {
            let message = format!("the base `{}` is empty after expansion", stage.base);
            let error = super::error("empty-base", stage.base_span, message);
            return Err(blame_variable(
                error
                    .with_label("no image name is left")
                    .with_help("write the name of an image, or `scratch`"),
            ));
        }
        let mut variables = expansion.matched.clone();
        let of_platform = stage.platform.as_deref().unwrap_or_default();
        if let Ok(used) = self.inputs.expand(of_platform, &global.variables) {
            variables.extend(used.matched);
        }
        // `--platform=` with nothing behind it is no flag; a variable that turns out empty is a mistake.
        let platform = match stage.platform.as_deref().filter(|text| !text.is_empty()) {
            Some(text) => self.platform(stage, text, global, checks)?,
            None => None,
        };
        let replaced = stage
            .name
            .as_deref()
            .and_then(|name| self.context(name, platform.as_ref()));
        let is_replaced = replaced.is_some();
        let base = match (replaced, self.by_name.get(base.as_str())) {
            (Some(origin), earlier) => {
                // The base is not used then, but it has to be one.
                if earlier.is_none() {
                    self.outside(base, stage.base_span, platform.as_ref())
                        .map_err(blame_variable)?;
                }
                origin
            }
            (None, Some(&earlier)) => Origin::Stage(earlier),
            (None, None) => self
                .outside(base, stage.base_span, platform.as_ref())
                .map_err(blame_variable)?,
        };
        Ok(StageHead {
            stage,
            base,
            platform,
            is_replaced,
            variables,
        })
    }

    fn platform(
        &self,
        stage: &Stage,
        text: &str,
        global: &GlobalScope,
        checks: &mut Checks,
    ) -> Result<Option<Platform>, Diagnostic> {
        let expansion = global.expand(self.inputs, checks, stage, text)?;
        if global.is_doubtful(self.inputs, &expansion) {
            return Ok(None);
        }
        let span = self.inputs.place_of(stage.span, text);
        let help = || {
            expansion
                .unmatched
                .iter()
                .find_map(|name| global.closest(name))
        };
        let refuse = |message: String| {
            let error = super::error("invalid-platform", span, message);
            match help() {
                Some(known) => error.with_help(format!("did you mean `${known}`?")),
                None => match crate::platform::closest(&expansion.text) {
                    Some(known) => error.with_help(format!("did you mean `{known}`?")),
                    None => error.with_help("write it as `linux/amd64`, or use `$BUILDPLATFORM`"),
                },
            }
        };
        if expansion.text.is_empty() {
            return Err(refuse(format!(
                "the platform `{text}` is empty after expansion"
            )));
        }
        let platform = Platform::parse_for(&expansion.text, &self.inputs.options.build_platform)
            .map_err(|error| refuse(error.to_string()))?;
        let name = stage.name.as_deref().unwrap_or_default();
        let is_constant = expansion.matched.is_empty() && expansion.unmatched.is_empty();
        if is_constant && !name.contains(&platform.os) && !name.contains(&platform.architecture) {
            let message = format!("`--platform={text}` fixes the platform for every build");
            let place = Place::from(stage).at(span);
            checks.warn("FromPlatformFlagConstDisallowed", place, message);
        }
        Ok(Some(platform))
    }

    /// A name that is no stage: `scratch`, a named context or an image.
    fn outside(
        &self,
        name: &str,
        span: Span,
        platform: Option<&Platform>,
    ) -> Result<Origin, Diagnostic> {
        if name == "scratch" {
            return Ok(Origin::Scratch);
        }
        match Reference::parse(name) {
            Ok(_) => Ok(self
                .context(name, platform)
                .unwrap_or_else(|| Origin::Image(ImageReference::Name(name.to_owned())))),
            Err(error) => {
                let is_stage = self.by_name.contains_key(letters::lower(name).as_str());
                let known = closest(name, self.names().chain(COMMON_IMAGES.iter().copied()));
                let diagnostic = super::error("invalid-image-name", span, error.to_string());
                Err(match (error, known) {
                    _ if is_stage => diagnostic.with_help(format!(
                        "stages are named in lower case: write `{}`",
                        name.to_lowercase()
                    )),
                    (ReferenceError::UpperCase { repository }, _) => {
                        let lower = name.replacen(&repository, &repository.to_lowercase(), 1);
                        diagnostic.with_help(format!("names are in lower case: write `{lower}`"))
                    }
                    (_, Some(known)) => diagnostic.with_help(format!("did you mean `{known}`?")),
                    _ => diagnostic.with_help(
                        "an image name looks like `debian:12` or `ghcr.io/owner/name:tag`",
                    ),
                })
            }
        }
    }

    fn context(&self, name: &str, platform: Option<&Platform>) -> Option<Origin> {
        let (key, context) = self.contexts.get(
            name,
            platform.unwrap_or_else(|| self.inputs.target_platform()),
        )?;
        Some(match context {
            NamedContext::Image(reference) => Origin::Image(reference.clone()),
            NamedContext::Scratch => Origin::Scratch,
            NamedContext::Files => Origin::Files(key.to_owned()),
        })
    }

    fn names(&self) -> impl Iterator<Item = &'a str> {
        self.heads
            .iter()
            .filter_map(|head| head.stage.name.as_deref())
    }

    /// The stage to build.
    pub(super) fn target(&self) -> Result<usize, Diagnostic> {
        let Some(target) = &self.inputs.options.target else {
            return Ok(self.heads.len() - 1);
        };
        if let Some(&index) = self.by_name.get(letters::lower(target).as_str()) {
            return Ok(index);
        }
        let names: Vec<&str> = self.names().collect();
        let message = format!("the target stage `{target}` is not in this file");
        let error = super::error("unknown-target", Span::default(), message);
        Err(match closest(target, names.iter().copied()) {
            Some(known) => error.with_help(format!("did you mean `{known}`?")),
            None if names.is_empty() => {
                error.with_help("no stage of this file has a name: add `AS name` to its FROM")
            }
            None => error.with_help(format!("the stages are {}", names.join(", "))),
        })
    }

    /// What a `--from` of a COPY or of a mount means.
    pub(super) fn origin(
        &self,
        instruction: &Instruction,
        from: FromName<'_>,
    ) -> Result<Origin, Diagnostic> {
        let FromName { name, kind } = from;
        // Looked for only when there is something to say: an instruction may have a great many mounts.
        let span = || self.place_of_from(instruction, from);
        let error =
            |code, message: String| super::error(code, span(), message).within(instruction.lines);
        if kind == FromKind::Copy {
            let expanded = word::expand(name, self.inputs.program.escape, &());
            if expanded.is_ok_and(|expanded| expanded.text != name) || name.contains('$') {
                let message = format!("`--from={name}` can't hold a variable");
                return Err(error("variable-in-from", message).with_help(format!(
                    "name the image with a stage of its own, `FROM {name} AS name`, and write `--from=name`"
                )));
            }
            if let Ok(index) = name.parse::<i64>() {
                let found = usize::try_from(index)
                    .ok()
                    .filter(|index| *index < self.heads.len());
                if !self.inputs.program.is_whole {
                    // A FROM that could not be read moves the numbers.
                    return Ok(Origin::Unknown);
                }
                return found.map(Origin::Stage).ok_or_else(|| {
                    let last = self.heads.len() - 1;
                    let numbers = match last {
                        0 => "this file has one stage, number 0".to_owned(),
                        last => format!("the stages of this file are numbered 0 to {last}"),
                    };
                    error("unknown-stage", format!("there is no stage number {name}")).with_help(
                        format!("{numbers}; a name stays right when stages are added"),
                    )
                });
            }
        }
        match self.by_name.get(letters::lower(name).as_str()) {
            Some(&index) => Ok(Origin::Stage(index)),
            None => self.outside(name, Span::default(), None).map_err(|error| {
                let error = error.within(instruction.lines);
                Diagnostic {
                    span: span(),
                    ..error
                }
            }),
        }
    }

    /// Checks what all stages, reached or not, say about where they copy from.
    pub(super) fn check_sources(&self, found: &mut Found) {
        let mut edges = cycle::Edges::new();
        for head in &self.heads {
            let mut needed = Vec::new();
            let counted = if head.is_replaced {
                &[][..]
            } else {
                &head.stage.instructions[..]
            };
            for instruction in counted {
                for from in sources_of(instruction) {
                    match self.origin(instruction, from.as_name()) {
                        Ok(Origin::Stage(index)) => {
                            let span = self.place_of_from(instruction, from.as_name());
                            needed.push((index, Place::from(instruction).at(span)));
                        }
                        Err(error) if !found.is_full() => found.0.push(error),
                        Ok(_) | Err(_) => {}
                    }
                }
            }
            edges.push(needed);
        }
        if let Some(cycle) = cycle::find(&edges) {
            found.0.push(self.cycle_error(&cycle));
        }
    }

    fn cycle_error(&self, cycle: &[(usize, Place<'_>)]) -> Diagnostic {
        let (stage, place) = cycle[cycle.len() - 1];
        let name = self.display_name(stage);
        let message = if cycle.len() == 1 {
            format!("{name} copies from itself")
        } else {
            format!("{name} needs its own result")
        };
        let error = super::error("circular-dependency", place.span, message).within(place.lines);
        let error = error.with_help("a stage can only use stages that are finished before it");
        cycle[..cycle.len() - 1]
            .iter()
            .fold(error, |error, (needed, place)| {
                error.with_note(
                    place.span,
                    format!("this needs {}", self.display_name(*needed)),
                )
            })
    }

    /// The stage's name, or its number.
    pub(super) fn display_name(&self, index: usize) -> String {
        match &self.heads[index].stage.name {
            Some(name) => format!("stage `{name}`"),
            None => format!("stage {index}"),
        }
    }

    fn place_of_from(&self, instruction: &Instruction, from: FromName<'_>) -> Span {
        let option = match from.kind {
            FromKind::Copy => "--from=",
            FromKind::Mount => "from=",
        };
        self.inputs
            .place_of_value(instruction.span, option, from.name)
    }

    /// The error for a stage that is not finished when it is used.
    pub(super) fn not_finished(
        &self,
        instruction: &Instruction,
        from: FromName<'_>,
        stage: usize,
    ) -> Diagnostic {
        let span = self.place_of_from(instruction, from);
        let message = format!("`{}` is a stage that is not finished here", from.name);
        let defined = self.heads[stage].stage.lines;
        super::error("forward-reference", span, message)
            .within(instruction.lines)
            .with_note(
                self.inputs.program.source.span_of_lines(defined),
                "it begins here",
            )
            .with_help("a stage can only use stages above it: move that one up")
    }
}

/// A name after `--from=` or `from=`.
#[derive(Clone, Copy, Debug)]
pub(super) struct FromName<'a> {
    pub(super) name: &'a str,
    pub(super) kind: FromKind,
}

/// Whose `from` it is. Only COPY knows stages by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FromKind {
    Copy,
    Mount,
}
