//! From typed instructions to a graph: variables get values, stages find their bases, instructions become steps.
//!
//! [`plan`] is pure. What it must know about base images it asks for: it answers [`Planned::Needs`] and is called again
//! with those images added, until it answers [`Planned::Ready`]. Two or three rounds are the most a real file takes
//! (a base image whose `ONBUILD` triggers copy from a stage with another base image).
//!
//! ```text
//! global scope ─▶ stage table ─▶ reach ─▶ evaluate each reached stage, in file order ─▶ prune, number, finish
//!  (ARG before     (bases, names,  (ONBUILD    (variables, config, history, steps)
//!   FROM)           contexts)       fires)
//! ```
//!
//! Stages that the target does not reach are not evaluated, but what their `FROM` and `--from` say is checked.

mod budget;
mod checks;
mod config_effect;
mod cycle;
mod epoch;
mod evaluate;
mod global;
mod history;
mod mount;
mod named_context;
mod port;
mod prune;
mod reach;
mod run;
mod signal;
mod stage;
mod steps;
mod table;
mod transfer;
mod variables;

use std::collections::{BTreeMap, BTreeSet};

use crate::checks::CheckSettings;
use crate::diagnostic::{Diagnostic, Errors, Found, MOST_ERRORS, Phase};
use crate::graph::{BuildArgument, Graph, ImageRequest, PlanOptions, Planned, ResolvedImage};
use crate::image_config::ImageConfig;
use crate::instruction::{Instruction, Program};
use crate::platform::Platform;
use crate::source::{Lines, Span};
use crate::suggest::closest;
use crate::word::{self, Effort, Expansion, Mode, WordError};

use budget::Budget;
use checks::Checks;
pub use epoch::EpochSource;
use evaluate::{Evaluator, Shared};
use global::GlobalScope;
use reach::Reach;
use stage::StageState;
use steps::Steps;
use table::StageTable;
use variables::Variables;

/// Plans a build, or tells which images it has to know about first.
///
/// # Panics
///
/// Never: what is expected to be there was put there before.
pub fn plan(
    program: &Program,
    options: &PlanOptions,
    images: &BTreeMap<ImageRequest, ResolvedImage>,
) -> Result<Planned, Errors> {
    let effort = Effort::of_plan();
    let inputs = Inputs {
        effort: &effort,
        program,
        options,
        images,
    };
    let look = Look::at(inputs, Unknown::Asked);
    look.found.into_result()?;
    if !look.needs.is_empty() {
        return Ok(Planned::Needs(look.needs));
    }
    let state = look.target.expect("the target was evaluated without error");
    let warnings = look.checks.into_warnings(inputs)?;
    let graph = Graph {
        arguments: look.arguments,
        ..finish(inputs, state, look.steps, warnings)
    };
    Ok(Planned::Ready(Box::new(graph)))
}

/// What `SOURCE_DATE_EPOCH` says, as a build argument or as an `ARG` before the first FROM; none if it says nothing, or
/// nothing right: what is wrong, [`plan`] tells.
///
/// The builder finds out the time, and hands it on as [`PlanOptions::source_date_epoch`]; where it was given as a build
/// argument, it puts the number there.
pub fn source_date_epoch(program: &Program, options: &PlanOptions) -> Option<EpochSource> {
    let images = BTreeMap::new();
    let effort = Effort::of_plan();
    let inputs = Inputs {
        effort: &effort,
        program,
        options,
        images: &images,
    };
    let mut found = Found::default();
    let mut checks = Checks::new(CheckSettings::of(program, None).unwrap_or_default());
    let mut budget = Budget::default();
    let global = GlobalScope::new(inputs, &mut checks, &mut budget, &mut found);
    epoch::find(inputs, &global).ok().flatten()
}

/// The errors that are in a program whatever its base images are: for one that could not be read whole, to be told
/// together with what could not be read. Nothing that may follow from the missing parts is among them.
pub fn errors_without_images(program: &Program, options: &PlanOptions) -> Vec<Diagnostic> {
    check(program, options, &BTreeMap::new()).errors
}

/// All that can be said about a program without building it.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Base images that are not among those given: what depends on them was left out.
    pub needs: Vec<ImageRequest>,
    /// Why it can't be built; the first is the one that the reference builder stops at.
    pub errors: Vec<Diagnostic>,
    /// Build checks that fired, as far as the file's settings keep them. They are errors if the settings say so.
    pub warnings: Vec<Diagnostic>,
}

/// Judges a program by what is known of its base images. It can be asked again when more is known.
pub fn check(
    program: &Program,
    options: &PlanOptions,
    images: &BTreeMap<ImageRequest, ResolvedImage>,
) -> Checked {
    let effort = Effort::of_plan();
    let inputs = Inputs {
        effort: &effort,
        program,
        options,
        images,
    };
    let look = Look::at(inputs, Unknown::Passed);
    let mut errors = look.found.0;
    if let Some((_, others)) = errors.split_first_mut() {
        others.sort_by_key(|error| error.span);
    }
    let mut warnings = look.checks.into_list(inputs);
    // Beside an error, a warning about the same instruction mostly says the same.
    let lines = errors.iter().filter_map(|error| error.instruction_lines);
    let lines: BTreeSet<_> = lines.collect();
    warnings.retain(|warning| {
        warning
            .instruction_lines
            .is_none_or(|of_warning| !lines.contains(&of_warning))
    });
    Checked {
        needs: look.needs,
        errors,
        warnings,
    }
}

/// What to do about a base image that is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unknown {
    /// It is asked for, if nothing is wrong so far.
    Asked,
    /// What can be said without it is said.
    Passed,
}

/// All that one look at a program finds. The work goes on behind an error; what may follow from it is not reported.
struct Look {
    found: Found,
    checks: Checks,
    needs: Vec<ImageRequest>,
    steps: Steps,
    /// What the reached stages can be given.
    arguments: Vec<BuildArgument>,
    /// The target's state, if it was reached.
    target: Option<StageState>,
}

impl Look {
    fn at(inputs: Inputs<'_>, unknown: Unknown) -> Self {
        let program = inputs.program;
        let mut found = Found::default();
        let given = inputs.options.build_args.get("BUILDKIT_DOCKERFILE_CHECK");
        let settings = CheckSettings::of(program, given.map(String::as_str));
        let mut look = Self {
            checks: Checks::new(found.or_default(settings)),
            found,
            needs: Vec::new(),
            steps: Steps::default(),
            arguments: Vec::new(),
            target: None,
        };
        if program.stages.is_empty() && program.is_whole {
            look.found.0.push(no_stage(program));
        }
        let mut budget = Budget::default();
        let mut global = GlobalScope::new(inputs, &mut look.checks, &mut budget, &mut look.found);
        if program.stages.is_empty() {
            return look;
        }
        look.found
            .0
            .extend(epoch::settle(inputs, &mut global).err());
        let table = StageTable::new(inputs, &global, &mut look.checks, &mut look.found);
        let target = table.target();
        let target = match target {
            Ok(target) => Some(target),
            // The name may be in what could not be read: any stage will do to look at.
            Err(_) if !program.is_whole => Some(table.heads.len() - 1),
            Err(error) => {
                look.found.0.push(error);
                None
            }
        };
        table.check_sources(&mut look.found);
        let Some(target) = target else {
            return look;
        };
        let (reach, needs) = Reach::from_target(&table, target, &mut look.found);
        // With an error the build is off: no registry needs to be asked to tell the others.
        look.needs = needs;
        if unknown == Unknown::Asked && look.found.0.is_empty() && !look.needs.is_empty() {
            return look;
        }
        look.checks.leave_out(unreached(&table, &reach));
        let mut finished: Vec<Option<StageState>> =
            (0..program.stages.len()).map(|_| None).collect();
        for (index, instructions) in reach.stages() {
            let shared = Shared {
                steps: &mut look.steps,
                checks: &mut look.checks,
                budget: &mut budget,
            };
            let evaluator = Evaluator::new(&table, &global, &finished, shared, index);
            let state =
                evaluator.and_then(|evaluator| evaluator.run(instructions, &mut look.found));
            match state {
                Ok(state) => finished[index] = Some(state),
                // Whatever else is wrong: there is no room to find it.
                Err(spent) => {
                    look.found.0.push(spent);
                    return look;
                }
            }
            if look.found.0.len() >= MOST_ERRORS {
                return look;
            }
        }
        look.arguments = arguments(&global, &table, &finished);
        look.target = finished[target].take();
        look
    }
}

/// The ARGs of evaluated stages and the global ones that they use. Of equal names the last stage's counts: others may be
/// built for it, never it for them.
fn arguments(
    global: &GlobalScope,
    table: &StageTable<'_>,
    finished: &[Option<StageState>],
) -> Vec<BuildArgument> {
    let mut of_global = BTreeSet::new();
    let mut arguments: BTreeMap<String, BuildArgument> = BTreeMap::new();
    for (head, state) in table.heads.iter().zip(finished) {
        let Some(state) = state else { continue };
        of_global.extend(head.variables.iter().cloned());
        of_global.extend(state.global_arguments.iter().cloned());
        for argument in &state.arguments {
            arguments.insert(argument.name.clone(), argument.clone());
        }
    }
    for argument in global.used(&of_global) {
        arguments.entry(argument.name.clone()).or_insert(argument);
    }
    let mut arguments: Vec<BuildArgument> = arguments.into_values().collect();
    arguments.sort_by_key(|argument| argument.lines);
    arguments
}

/// The lines of the stages whose instructions are not evaluated.
fn unreached(table: &StageTable<'_>, reach: &Reach<'_>) -> Vec<Lines> {
    let mut is_evaluated = vec![false; table.heads.len()];
    for (index, _) in reach.stages() {
        is_evaluated[index] = !table.heads[index].is_replaced;
    }
    let first_line = |index: usize| table.heads.get(index).map(|head| head.stage.lines.first);
    let indices = (0..table.heads.len()).filter(|index| !is_evaluated[*index]);
    indices
        .map(|index| Lines {
            first: first_line(index).unwrap_or_default(),
            last: first_line(index + 1).map_or(usize::MAX, |next| next - 1),
        })
        .collect()
}

fn no_stage(program: &Program) -> Diagnostic {
    let span = Span::new(0, program.source.text().len());
    error("no-stage", span, "there is no FROM in this file")
        .with_help("begin with `FROM image`, or `FROM scratch` for an empty root")
}

/// The stage that was probably meant by the name of an image that does not exist.
///
/// `COPY --from=biuld` names an image as far as the planner can tell; when it can't be found, this is the help.
pub fn closest_stage<'a>(program: &'a Program, name: &str) -> Option<&'a str> {
    closest(
        name,
        program
            .stages
            .iter()
            .filter_map(|stage| stage.name.as_deref()),
    )
}

/// Bytes of an instruction in which a word is looked for, to point at it. Nobody reads longer ones, and hostile files
/// have as many words as they have bytes.
const MAX_SEARCHED: usize = 16 << 10;

/// What [`plan`] was given.
#[derive(Clone, Copy)]
struct Inputs<'a> {
    program: &'a Program,
    options: &'a PlanOptions,
    images: &'a BTreeMap<ImageRequest, ResolvedImage>,
    /// What expanding words may still take.
    effort: &'a Effort,
}

impl<'a> Inputs<'a> {
    /// Expands a word, as a whole.
    fn expand(self, text: &str, variables: &Variables) -> Result<Expansion, WordError> {
        self.expand_with(text, Mode::new(self.program.escape), variables)
    }

    /// As [`Inputs::expand`], in a mode.
    fn expand_with(
        self,
        text: &str,
        mode: Mode,
        variables: &Variables,
    ) -> Result<Expansion, WordError> {
        word::expand_within(text, mode, variables, self.effort, false)
    }

    /// The platform to build for: the one asked for, else this machine's.
    fn target_platform(self) -> &'a Platform {
        self.options
            .target_platform
            .as_ref()
            .unwrap_or(&self.options.build_platform)
    }

    /// An error about an instruction, pointing at `word` if the text has it.
    fn error_at(
        self,
        code: &'static str,
        instruction: &Instruction,
        word: &str,
        message: impl Into<String>,
    ) -> Diagnostic {
        error(code, self.place_of(instruction.span, word), message).within(instruction.lines)
    }

    /// Where `word` stands within a place as a word of its own, else anywhere, else the whole place.
    fn place_of(self, place: Span, word: &str) -> Span {
        self.find(place, word).unwrap_or(place)
    }

    /// Where the file uses a variable within a place, else the whole place.
    fn place_of_variable(self, place: Span, name: &str) -> Span {
        let source = self.program.source.text();
        let text = source
            .get(place.start..place.end)
            .filter(|text| text.len() <= MAX_SEARCHED)
            .unwrap_or_default();
        let found = ["$", "${"].iter().find_map(|open| {
            let written = format!("{open}{name}");
            let mut places = text.match_indices(&written).map(|(start, _)| start);
            let goes_on = |char: char| char.is_alphanumeric() || char == '_';
            let start = places.find(|start| !text[start + written.len()..].starts_with(goes_on))?;
            let closing = usize::from(text[start + written.len()..].starts_with('}'));
            Some((start, start + written.len() + closing))
        });
        found.map_or(place, |(start, end)| {
            Span::new(place.start + start, place.start + end)
        })
    }

    /// Where `word` stands within a place as a word of its own, else anywhere.
    fn find(self, place: Span, word: &str) -> Option<Span> {
        let text = self
            .program
            .source
            .text()
            .get(place.start..place.end)
            .filter(|text| text.len() <= MAX_SEARCHED)
            .unwrap_or_default();
        let is_border =
            |character: char| character.is_whitespace() || "=\"',[]".contains(character);
        let stands_alone = |start: usize| {
            text[..start].chars().next_back().is_none_or(is_border)
                && text[start + word.len()..]
                    .chars()
                    .next()
                    .is_none_or(is_border)
        };
        let mut places = text.match_indices(word).map(|(start, _)| start);
        let start = places
            .find(|start| stands_alone(*start))
            .or_else(|| text.find(word));
        let start = place.start + start.filter(|_| !word.is_empty())?;
        Some(Span::new(start, start + word.len()))
    }

    /// Where the value of a flag or option stands: of `--from=build` the place of `build`, given `--from=`.
    fn place_of_value(self, place: Span, option: &str, value: &str) -> Span {
        let found = self.place_of(place, &format!("{option}{value}"));
        if found == place {
            place
        } else {
            Span::new(found.start + option.len(), found.end)
        }
    }
}

/// An error of this phase.
fn error(code: &'static str, span: Span, message: impl Into<String>) -> Diagnostic {
    Diagnostic::error(code, Phase::Plan, span, message)
}

/// Makes the graph of the target's state.
fn finish(inputs: Inputs<'_>, state: StageState, steps: Steps, warnings: Vec<Diagnostic>) -> Graph {
    let mut image = state.image;
    for (name, value) in &inputs.options.labels {
        image.config = std::mem::take(&mut image.config).with_label(name, value);
    }
    if let Some(target) = &inputs.options.target_platform {
        let is_same = image.os == target.os && image.architecture == target.architecture;
        let keep_unless = |wanted: &str, current: String| {
            if wanted.is_empty() && is_same {
                current
            } else {
                wanted.to_owned()
            }
        };
        image.variant = keep_unless(&target.variant, image.variant);
        image.os_version = keep_unless(&target.os_version, image.os_version);
        image.os.clone_from(&target.os);
        image.architecture.clone_from(&target.architecture);
    }
    let platform = image.platform();
    let image = ImageConfig {
        created: None,
        history: Vec::new(),
        ..image
    }
    .with_diff_ids(Vec::new())
    .with_platform(&platform);
    let (steps, target, mut history) = prune::prune(steps.into_list(), state.root, state.history);
    if let (Some(name), Some(target)) = (&state.context_base, target) {
        let has_one_stage = inputs.program.stages.len() == 1;
        history.push(history::missing_entry(&steps, target, name, has_one_stage));
    }
    Graph {
        steps,
        target,
        image,
        history,
        platform,
        arguments: Vec::new(),
        warnings,
    }
}

#[cfg(test)]
mod tests;
