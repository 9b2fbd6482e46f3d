//! One stage, instruction by instruction.
//!
//! What only changes the config is in [`super::config_effect`], COPY and ADD in [`super::transfer`], RUN in
//! [`super::run`]. Here is what they share: expansion, titles, steps, and the start of a stage.

use super::Inputs;
use super::budget::{self, Budget};
use super::checks::{Checks, Place};
use super::global::{GlobalScope, expansion_error};
use super::history;
use super::reach::{StageInstruction, image_request};
use super::stage::StageState;
use super::steps::Steps;
use super::table::{FromName, Origin, StageHead, StageTable};
use crate::diagnostic::{Diagnostic, Errors, Found, MOST_ERRORS};
use crate::graph::{
    Copy, CopySource, ImageReference, Input, Operation, StageIndex, Step, StepIndex, Unpack,
};
use crate::instruction::{Instruction, InstructionKind};
use crate::instructions::in_trigger;
use crate::path;
use crate::platform::Platform;
use crate::source::Span;
use crate::text::Text;
use crate::word::{Escapes, Expansion, Mode, Quotes};

/// ARGs that steer the builder and never become variables.
pub(super) const SILENT_ARGS: &[&str] = &["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// Warnings after which names are no longer compared with what was meant: nobody reads so many.
const MAX_SUGGESTIONS: usize = 1_000;

/// Errors about one word or a mount's option, whatever the others say.
const OF_ONE_WORD: [&str; 5] = [
    "invalid-checksum",
    "invalid-mode",
    "invalid-mount",
    "invalid-port",
    "remote-source",
];

/// Evaluates one stage.
pub(super) struct Evaluator<'a, 'b> {
    pub(super) inputs: Inputs<'a>,
    pub(super) table: &'b StageTable<'a>,
    pub(super) global: &'b GlobalScope,
    pub(super) checks: &'b mut Checks,
    pub(super) state: StageState,
    pub(super) budget: &'b mut Budget,
    finished: &'b [Option<StageState>],
    steps: &'b mut Steps,
    index: usize,
}

/// What all stages add to.
pub(super) struct Shared<'b> {
    pub(super) steps: &'b mut Steps,
    pub(super) checks: &'b mut Checks,
    pub(super) budget: &'b mut Budget,
}

impl<'a, 'b> Evaluator<'a, 'b> {
    /// Begins a stage on its base.
    pub(super) fn new(
        table: &'b StageTable<'a>,
        global: &'b GlobalScope,
        finished: &'b [Option<StageState>],
        shared: Shared<'b>,
        index: usize,
    ) -> Result<Self, Diagnostic> {
        let Shared {
            steps,
            checks,
            budget,
        } = shared;
        let inputs = table.inputs;
        let state = StageState::on_empty(None, inputs.target_platform().clone());
        let mut evaluator = Self {
            inputs,
            table,
            global,
            checks,
            state,
            budget,
            finished,
            steps,
            index,
        };
        evaluator.state = evaluator.base_state();
        let from = evaluator.head().stage;
        let size = evaluator.state.size();
        evaluator.budget.take(size, from.span, from.lines)?;
        Ok(evaluator)
    }

    /// Applies the instructions; the error is that the budget is spent. Behind one that is wrong the others are still judged, as far as they can be.
    pub(super) fn run(
        mut self,
        instructions: &[StageInstruction<'_>],
        found: &mut Found,
    ) -> Result<StageState, Diagnostic> {
        // A trigger that could not be read may have set something.
        self.state.is_certain &= !found.has(self.head().stage.lines);
        for planned in instructions {
            if found.is_full() {
                break;
            }
            let Err(errors) = self.apply(planned) else {
                continue;
            };
            let lines = planned.instruction.lines;
            if let Some(spent) = errors.iter().find(|error| error.code == budget::SPENT) {
                return Err(spent.clone());
            }
            if found.0.len() >= MOST_ERRORS {
                break;
            }
            let told: Vec<Span> = if planned.is_trigger {
                Vec::new()
            } else {
                let of_same = |error: &&Diagnostic| error.instruction_lines == Some(lines);
                let told = found.0.iter().filter(of_same);
                told.map(|error| error.span).collect()
            };
            for error in errors.into_vec() {
                if Self::may_follow(&error, &told, found) || !self.is_certain_of(planned, &error) {
                    continue;
                }
                let error = match &planned.instruction.trigger {
                    Some(text) => in_trigger(text, error),
                    None => error,
                };
                found.push(error.within(lines));
            }
            let kind = &planned.instruction.kind;
            self.state.is_certain &= !matches!(
                kind,
                InstructionKind::Env(_) | InstructionKind::Arg(_) | InstructionKind::Workdir(_)
            );
        }
        Ok(self.state)
    }

    /// Whether an error may come from another one: from those that were told of its instruction, at these places.
    fn may_follow(error: &Diagnostic, told: &[Span], found: &Found) -> bool {
        // One of the stages of a circle always stands too low.
        if error.code == "forward-reference" {
            let mut found = found.0.iter();
            return found.any(|error| error.code == "circular-dependency") || !told.is_empty();
        }
        let is_elsewhere =
            |told: &Span| told.end <= error.span.start || error.span.end <= told.start;
        let is_independent = OF_ONE_WORD.contains(&error.code) || error.code == "expansion";
        !(told.is_empty() || is_independent && told.iter().all(is_elsewhere))
    }

    /// Whether an error is there whatever the values of variables are, where those are in doubt.
    fn is_certain_of(&self, planned: &StageInstruction<'_>, error: &Diagnostic) -> bool {
        // A substitution that is none does not depend on any value.
        if self.state.is_certain || error.code == "expansion" {
            return true;
        }
        let file = self.inputs.program.source.text();
        let text_at = |span: Span| file.get(span.start..span.end).unwrap_or("$");
        // A trigger does not stand in the file.
        let trigger = planned.instruction.trigger.as_deref();
        let text = trigger.unwrap_or_else(|| text_at(planned.instruction.span));
        if !text.contains('$') {
            return true;
        }
        if planned.is_trigger {
            return false;
        }
        // Of a mount only the type counts for all of it.
        let is_of_one_word = OF_ONE_WORD.contains(&error.code);
        is_of_one_word && !text_at(error.span).contains('$') && !text.contains("type=$")
    }

    /// What the stage's FROM says.
    pub(super) fn head(&self) -> &'b StageHead<'a> {
        &self.table.heads[self.index]
    }

    fn base_state(&mut self) -> StageState {
        let head = self.head();
        let target = self.inputs.target_platform();
        let platform = head.platform.as_ref().unwrap_or(target).clone();
        // What stands in a file that could not be read whole may have been left out here.
        if !self.global.is_certain {
            return StageState::on_unknown(platform);
        }
        match &head.base {
            Origin::Unknown => StageState::on_unknown(platform),
            // A base is an earlier stage, and those that are reached have been evaluated.
            Origin::Stage(base) => self.finished[*base]
                .as_ref()
                .map_or_else(|| StageState::on_empty(None, platform), StageState::child),
            Origin::Scratch => StageState::on_empty(None, target.clone()),
            Origin::Files(name) => {
                let step = self.files_step(name, &platform);
                let mut state = StageState::on_empty(Some(step), platform);
                state.context_base = Some(name.clone());
                state
            }
            Origin::Image(reference) => self.image_state(reference, platform),
        }
    }

    fn image_state(&mut self, reference: &ImageReference, platform: Platform) -> StageState {
        let head = self.head();
        let image =
            image_request(self.table, head).and_then(|request| self.inputs.images.get(&request));
        let Some(image) = image else {
            return StageState::on_unknown(platform);
        };
        let config = &image.config;
        let has_layers = !config.rootfs.diff_ids.is_empty()
            || config.history.iter().any(|entry| !entry.empty_layer);
        let root = has_layers
            .then(|| self.image_step(reference, &platform, head.stage.span, head.stage.lines));
        let own = config.platform();
        let is_context = !matches!(reference, ImageReference::Name(name) if self.names_base(name));
        if !is_context && !own.is_same_machine(&platform) {
            let message = format!(
                "the base `{}` is for {own}, not for {platform}",
                head.stage.base
            );
            let place = Place::from(head.stage).at(head.stage.base_span);
            self.checks.warn("InvalidBaseImagePlatform", place, message);
        }
        let says_platform = !config.os.is_empty() && !config.architecture.is_empty();
        let platform = if head.is_replaced && says_platform {
            own
        } else {
            platform
        };
        StageState::on_image(config, root, platform)
    }

    /// Whether the image is what the FROM line says, not a named context in its place.
    fn names_base(&self, name: &str) -> bool {
        let base = &self.head().stage.base;
        let written = self.inputs.expand(base, &self.global.variables);
        written.is_ok_and(|written| written.text == name)
    }

    /// Takes a named context's files as a root of their own.
    fn files_step(&mut self, name: &str, platform: &Platform) -> StepIndex {
        let copy = Copy {
            instruction: "COPY",
            from: Input::NamedContext(name.to_owned()),
            sources: vec![CopySource::Path("/".to_owned())],
            destination: "/".to_owned(),
            owner: None,
            mode: None,
            is_linked: false,
            keeps_parents: false,
            exclude: Vec::new(),
            unpack: Unpack::Never,
        };
        let stage = self.head().stage;
        self.steps.push(Step {
            parent: None,
            operation: Operation::Copy(Box::new(copy)),
            title: format!("FROM {name}"),
            span: stage.span,
            lines: stage.lines,
            platform: platform.clone(),
            ..self.blank_step()
        })
    }

    fn image_step(
        &mut self,
        reference: &ImageReference,
        platform: &Platform,
        span: crate::source::Span,
        lines: crate::source::Lines,
    ) -> StepIndex {
        let name = match reference {
            ImageReference::Name(name) => name.clone(),
            ImageReference::Layout { path, tag, digest } => {
                let end = |mark: &str, part: &Option<String>| {
                    part.as_ref()
                        .map_or(String::new(), |part| format!("{mark}{part}"))
                };
                format!("oci-layout://{path}{}{}", end(":", tag), end("@", digest))
            }
        };
        let blank = self.blank_step();
        let platform_of_step = platform.clone();
        self.steps.image(reference, platform, |operation| Step {
            operation,
            title: format!("FROM {name}"),
            span,
            lines,
            platform: platform_of_step,
            ..blank
        })
    }

    /// A step of this stage without its own matters.
    fn blank_step(&self) -> Step {
        let stage = self.head().stage;
        Step {
            stage: StageIndex(self.index),
            stage_name: stage.name.clone(),
            number: 0,
            of: 0,
            parent: None,
            operation: Operation::Workdir {
                path: String::new(),
                owner: String::new(),
            },
            title: String::new(),
            span: stage.span,
            lines: stage.lines,
            platform: self.state.platform.clone(),
            ignores_cache: false,
        }
    }

    /// Adds a step on the current root, which its result replaces.
    pub(super) fn push_step(
        &mut self,
        planned: &StageInstruction<'_>,
        operation: Operation,
        title: String,
    ) -> StepIndex {
        let options = self.inputs.options;
        let name = self.head().stage.name.as_deref().unwrap_or_default();
        let is_filtered = options
            .ignores_cache_of
            .iter()
            .any(|filter| filter.eq_ignore_ascii_case(name));
        // The filter is for what runs and copies; making a directory again would change nothing.
        let can_be_filtered = !matches!(operation, Operation::Workdir { .. });
        let step = Step {
            parent: self.state.root,
            operation,
            title,
            span: planned.instruction.span,
            lines: planned.instruction.lines,
            ignores_cache: options.ignores_cache || can_be_filtered && is_filtered,
            ..self.blank_step()
        };
        let index = self.steps.push(step);
        self.state.root = Some(index);
        index
    }

    /// Where a `from` takes its files; none for a stage that is not finished is an error.
    pub(super) fn input(
        &mut self,
        instruction: &Instruction,
        from: FromName<'_>,
    ) -> Result<Input, Diagnostic> {
        Ok(match self.table.origin(instruction, from)? {
            Origin::Scratch | Origin::Unknown => Input::Empty,
            Origin::Files(name) => Input::NamedContext(name),
            Origin::Image(reference) => {
                let platform = self.inputs.target_platform().clone();
                Input::Step(self.image_step(
                    &reference,
                    &platform,
                    instruction.span,
                    instruction.lines,
                ))
            }
            Origin::Stage(stage) => {
                let Some(result) = self.finished.get(stage).and_then(Option::as_ref) else {
                    return Err(self.table.not_finished(instruction, from, stage));
                };
                result.root.map_or(Input::Empty, Input::Step)
            }
        })
    }

    /// Expands a word and reports variables that nobody set.
    pub(super) fn expand(
        &mut self,
        instruction: &Instruction,
        text: &str,
    ) -> Result<Expansion, Diagnostic> {
        self.expand_with(instruction, text, Mode::new(self.inputs.program.escape))
    }

    /// As [`Evaluator::expand`], in a mode.
    pub(super) fn expand_with(
        &mut self,
        instruction: &Instruction,
        text: &str,
        mode: Mode,
    ) -> Result<Expansion, Diagnostic> {
        let expansion = self
            .inputs
            .expand_with(text, mode, &self.state.variables)
            .map_err(|error| expansion_error(self.inputs, instruction.span, text, &error))?;
        self.budget
            .take(expansion.text.len(), instruction.span, instruction.lines)?;
        for name in &expansion.unmatched {
            // The base may have set it.
            let is_declared = !self.state.is_certain || self.state.build_args.has(name);
            if !is_declared && !SILENT_ARGS.contains(&name.as_str()) {
                let names = self.state.variables.names();
                let known = (self.checks.count() < MAX_SUGGESTIONS)
                    .then(|| crate::suggest::closest(name, names))
                    .flatten();
                let word = self.inputs.place_of(instruction.span, text);
                let place = Place::from(instruction).at(self.inputs.place_of_variable(word, name));
                self.checks.undefined_variable(place, name, known);
            }
        }
        Ok(expansion)
    }

    /// An optional flag's value; an empty one is as good as none.
    pub(super) fn expand_flag(
        &mut self,
        instruction: &Instruction,
        value: Option<&Text>,
    ) -> Result<Option<String>, Diagnostic> {
        let Some(value) = value else { return Ok(None) };
        let text = self.expand(instruction, value)?.text;
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// The instruction for people: keyword in upper case, variables with their values.
    pub(super) fn title(&self, planned: &StageInstruction<'_>) -> String {
        let text = self.inputs.program.text_of(&planned.instruction);
        let text = text.trim();
        let (keyword, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let mode = Mode {
            quotes: Quotes::Keep,
            escapes: Escapes::Keep,
            ..Mode::new(self.inputs.program.escape)
        };
        let rest = self
            .inputs
            .expand_with(rest.trim(), mode.keeping_unset(), &self.state.variables)
            .map_or_else(|_| rest.trim().to_owned(), |expansion| expansion.text);
        let origin = if planned.is_trigger { "ONBUILD " } else { "" };
        let mut title = [origin, &keyword.to_uppercase(), " ", &rest].concat();
        title.truncate(title.trim_end().len());
        title
    }

    fn apply(&mut self, planned: &StageInstruction<'_>) -> Result<(), Errors> {
        match &planned.instruction.kind {
            InstructionKind::Run(run) => self.apply_run(planned, run)?,
            InstructionKind::Copy(copy) => self.apply_copy(planned, copy)?,
            InstructionKind::Add(add) => self.apply_add(planned, add)?,
            InstructionKind::Workdir(path) => self.apply_workdir(planned, path)?,
            _ => self.apply_config(&planned.instruction)?,
        }
        Ok(())
    }

    fn apply_workdir(
        &mut self,
        planned: &StageInstruction<'_>,
        text: &str,
    ) -> Result<(), Diagnostic> {
        let instruction = &*planned.instruction;
        let title = self.title(planned);
        let written = text;
        let text = self.expand(instruction, text)?.text;
        if !self.state.has_workdir && !text.starts_with('/') {
            let message =
                format!("the relative path `{text}` depends on where the base image starts");
            let span = self.inputs.place_of(instruction.span, written);
            let place = Place::from(instruction).at(span);
            self.checks.warn("WorkdirRelativePath", place, message);
        }
        self.state.has_workdir = true;
        let directory = &mut self.state.image.config.working_dir;
        // An absolute path goes into the config as written; only what is made on disk is cleaned.
        if text.starts_with('/') {
            *directory = text;
        } else if !text.is_empty() {
            *directory = path::resolve("/", &format!("{directory}/{text}"));
        }
        let shown = directory.clone();
        let mut step = None;
        if shown != "/" {
            let owner = self.state.image.config.user.clone();
            let operation = Operation::Workdir {
                path: self.state.directory(),
                owner,
            };
            step = Some(self.push_step(planned, operation, title));
        }
        self.state
            .history
            .push(history::workdir_entry(&shown, step));
        Ok(())
    }
}
