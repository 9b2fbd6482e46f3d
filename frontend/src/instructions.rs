//! Nodes to typed instructions: counts, flags and names are checked, in file order, before anything is evaluated.
//!
//! [`parse`] is the way from a text to a [`Program`]; [`parse_trigger`] reads an `ONBUILD` trigger when it fires.
//! What needs variables (mount options, base names, ports) is the planner's to check.

mod healthcheck;
mod pairs;
mod run;
mod stage;
mod transfer;
mod trigger;

pub(crate) use run::has_variable;
pub(crate) use trigger::in_trigger;
pub use trigger::parse_trigger;

use crate::ast::{self, Node, Word};
use crate::checks::Noted;
use crate::diagnostic::{Diagnostic, Errors, Found, Phase};
use crate::flags::Flags;
use crate::instruction::{CommandLine, Instruction, InstructionKind, Program, Stage};
use crate::keyword::Keyword;
use crate::letters;
use crate::source::{Source, Span};
use crate::suggest::closest;
use crate::text::Text;

/// Parses a Dockerfile and checks its instructions.
pub fn parse(source: &Source) -> Result<Program, Errors> {
    let (program, errors) = parse_partly(source);
    Errors::of(errors).map(|()| program)
}

/// Reads what can be read of a Dockerfile; what can't is left out and told. Without errors it is the whole program.
pub fn parse_partly(source: &Source) -> (Program, Vec<Diagnostic>) {
    let mut typing = Typing::new(source);
    let (frame, mut errors) = ast::read(source, &mut |node| typing.take(node));
    // Without its escape character or its rest, a file is not one that can be judged any further.
    errors.extend(typing.found.0);
    let program = Program {
        source: source.clone(),
        escape: frame.escape,
        directives: frame.directives,
        global_args: typing.global_args,
        stages: typing.stages,
        noted: typing.noted.with(frame.warnings),
        is_whole: errors.is_empty(),
    };
    (program, errors)
}

/// Bytes that an instruction takes, at a guess; room for a few too many costs nothing.
const BYTES_EACH: usize = 64;

/// Nodes on their way to a program.
struct Typing {
    source: Source,
    global_args: Vec<Instruction>,
    stages: Vec<Stage>,
    noted: Noted,
    found: Found,
    /// Instructions above the first FROM have been told of, once; they make up the first stage.
    has_orphans: bool,
}

impl Typing {
    fn new(source: &Source) -> Self {
        Self {
            source: source.clone(),
            global_args: Vec::new(),
            stages: Vec::new(),
            noted: Noted::default(),
            found: Found::default(),
            has_orphans: false,
        }
    }

    fn take(&mut self, node: &mut Node<'_>) {
        self.noted.note(node);
        if self.found.is_full() {
            return;
        }
        let told = self.found.0.len();
        if node.keyword == Keyword::From {
            match stage::stage(node, &self.source, &mut self.found) {
                Some(stage) => self.begin(stage),
                None => self.stages.push(stage::unreadable(node)),
            }
        } else if let Some(kind) = kind_of(node, &self.source, &mut self.found) {
            self.add(node, kind);
        } else if node.keyword == Keyword::Unknown && may_be_from(node) {
            self.stages.push(stage::unreadable(node));
        }
        for error in &mut self.found.0[told..] {
            error.instruction_lines = Some(node.lines);
        }
    }

    /// Begins a stage.
    fn begin(&mut self, mut stage: Stage) {
        // Most files have one stage, with as many instructions as this many bytes each.
        let room = self.source.text().len() / BYTES_EACH;
        if self.stages.is_empty() {
            stage.instructions.reserve(room.clamp(4, 32));
        }
        self.stages.push(stage);
    }

    /// Puts an instruction where it belongs.
    fn add(&mut self, node: &mut Node<'_>, kind: InstructionKind) {
        let is_global = matches!(kind, InstructionKind::Arg(_))
            && self.stages.len() == usize::from(self.has_orphans);
        if self.stages.is_empty() && !is_global {
            self.found.push(before_from(node));
            self.has_orphans = true;
            self.stages.push(stage::of_orphans(node));
        }
        let list = match self.stages.last_mut() {
            Some(stage) if !is_global => &mut stage.instructions,
            _ => &mut self.global_args,
        };
        list.push(Instruction {
            kind,
            span: node.span,
            lines: node.lines,
            comments: std::mem::take(&mut node.comments),
            trigger: None,
        });
    }
}

/// Whether a word that is no instruction was meant to begin a stage.
fn may_be_from(node: &Node<'_>) -> bool {
    let word = letters::upper(&node.word.text);
    closest(&word, ["FROM"]).is_some() && closest(&word, Keyword::names()) == Some("FROM")
}

/// Checks a node and takes what is in it: also of one that is wrong, as far as the planner can judge the rest of it.
/// None for a FROM, which is no instruction of a stage.
fn kind_of(node: &mut Node<'_>, source: &Source, found: &mut Found) -> Option<InstructionKind> {
    Some(match node.keyword {
        Keyword::From => return None,
        Keyword::Add => InstructionKind::Add(transfer::add(node, source, found)?),
        Keyword::Arg => InstructionKind::Arg(pairs::args(node, source, found)?),
        Keyword::Cmd => InstructionKind::Cmd(plain_command(node, source, found)),
        Keyword::Copy => InstructionKind::Copy(transfer::copy(node, source, found)?),
        Keyword::Entrypoint => InstructionKind::Entrypoint(plain_command(node, source, found)),
        Keyword::Env => InstructionKind::Env(pairs::name_values(node, source, found)?),
        Keyword::Expose => {
            let mut ports = words(node, LIST_HELP, found)?;
            ports.sort_unstable();
            InstructionKind::Expose(ports)
        }
        Keyword::Healthcheck => {
            InstructionKind::Healthcheck(healthcheck::healthcheck(node, source, found)?)
        }
        Keyword::Label => InstructionKind::Label(pairs::name_values(node, source, found)?),
        Keyword::Maintainer => InstructionKind::Maintainer(text(node, source, found)?),
        Keyword::Onbuild => InstructionKind::Onbuild(trigger::trigger(node, found)?),
        Keyword::Run => InstructionKind::Run(run::run(node, source, found)),
        Keyword::Shell => InstructionKind::Shell(shell(node, found)?),
        // The reference never looks at this instruction's flags.
        Keyword::Stopsignal => InstructionKind::Stopsignal(single_argument(node, source, found)?),
        Keyword::User => InstructionKind::User(text(node, source, found)?),
        Keyword::Volume => InstructionKind::Volume(volumes(node, found)?),
        Keyword::Workdir => InstructionKind::Workdir(text(node, source, found)?),
        Keyword::Unknown => {
            found.push(unknown_instruction(node));
            return None;
        }
    })
}

fn error(code: &'static str, span: Span, message: impl Into<String>) -> Diagnostic {
    Diagnostic::error(code, Phase::Instructions, span, message)
}

fn unknown_instruction(node: &Node<'_>) -> Diagnostic {
    let word = &node.word;
    let help = match closest(&word.text, Keyword::names()) {
        Some(known) => format!("did you mean `{known}`?"),
        None => "if it belongs to the instruction above, end that one's line with the escape character, mostly `\\`".to_owned(),
    };
    error(
        "unknown-instruction",
        word.span,
        format!("unknown instruction `{}`", word.text),
    )
    .with_help(help)
}

fn before_from(node: &Node<'_>) -> Diagnostic {
    let message = format!(
        "{} stands before the first FROM",
        node.word.text.to_uppercase()
    );
    error("no-stage", node.word.span, message)
        .within(node.lines)
        .with_label("no stage to add this to")
        .with_help("only ARG may stand before the first FROM: move this below it")
}

/// The instruction's name in messages.
fn name_of(node: &Node<'_>) -> String {
    node.word.text.to_uppercase()
}

fn no_flags(node: &Node<'_>, found: &mut Found) {
    Flags::read(&node.flags, &[], found);
}

fn missing_argument(node: &Node<'_>, help: &str) -> Diagnostic {
    error(
        "missing-argument",
        node.word.span,
        format!("{} needs an argument", name_of(node)),
    )
    .with_label("nothing follows")
    .with_help(help)
}

/// The text of an instruction that takes exactly one, and no flags.
fn text(node: &Node<'_>, source: &Source, found: &mut Found) -> Option<Text> {
    no_flags(node, found);
    single_argument(node, source, found)
}

fn single_argument(node: &Node<'_>, source: &Source, found: &mut Found) -> Option<Text> {
    if let [word] = node.arguments.words() {
        return Some(Text::of(word, source));
    }
    let help = "write it behind the instruction, on the same line";
    found.push(missing_argument(node, help));
    None
}

const LIST_HELP: &str = "write at least one argument, or remove the instruction";

/// The arguments of an instruction that takes at least one, and no flags.
fn words(node: &Node<'_>, help: &str, found: &mut Found) -> Option<Vec<String>> {
    no_flags(node, found);
    let words = node.arguments.words();
    if words.is_empty() {
        found.push(missing_argument(node, help));
        return None;
    }
    Some(texts(words))
}

/// `CMD` and `ENTRYPOINT`; nothing at all is a valid command here.
fn plain_command(node: &Node<'_>, source: &Source, found: &mut Found) -> CommandLine {
    no_flags(node, found);
    command_line(node, source)
}

/// Exec form for a JSON array, otherwise shell form.
fn command_line(node: &Node<'_>, source: &Source) -> CommandLine {
    command_of(node.arguments.words(), node.is_json(), source)
}

fn command_of(words: &[Word<'_>], is_json: bool, source: &Source) -> CommandLine {
    match words {
        words if is_json => {
            // Behind its quote.
            let string = |word: &Word<'_>| Text::at(word.span.start + 1, &word.text, source);
            CommandLine::Exec(words.iter().map(string).collect())
        }
        [text] => CommandLine::Shell(Text::of(text, source)),
        words => {
            let joined: String = words.iter().map(|word| &*word.text).collect();
            CommandLine::Shell(joined.into())
        }
    }
}

fn texts(words: &[Word<'_>]) -> Vec<String> {
    let texts = words.iter().map(|word| word.text.clone().into_owned());
    texts.collect()
}

/// `SHELL`
fn shell(node: &Node<'_>, found: &mut Found) -> Option<Vec<String>> {
    const HELP: &str = "write it as a JSON array, such as `SHELL [\"/bin/bash\", \"-c\"]`";
    let shell = words(node, HELP, found)?;
    if !node.is_json() {
        let text = &node.arguments.words()[0];
        let error = error("shell-not-json", text.span, "SHELL takes a JSON array only");
        let is_plain = |char: char| !char.is_control() && !"\"'\\[]".contains(char);
        let help = if text.text.chars().all(is_plain) {
            let words = text
                .text
                .split_whitespace()
                .map(|word| format!("\"{word}\""));
            format!("write `SHELL [{}]`", words.collect::<Vec<_>>().join(", "))
        } else {
            HELP.to_owned()
        };
        found.push(error.with_help(help));
        return None;
    }
    Some(shell)
}

/// `VOLUME`
fn volumes(node: &Node<'_>, found: &mut Found) -> Option<Vec<String>> {
    let volumes = words(node, LIST_HELP, found)?;
    let told = found.0.len();
    for (volume, word) in volumes.iter().zip(node.arguments.words()) {
        if volume.trim().is_empty() {
            let blank = error("blank-volume", word.span, "a volume can't be an empty text");
            found.push(blank.with_help("write a path"));
        }
    }
    let trimmed = volumes.iter().map(|volume| volume.trim().to_owned());
    (found.0.len() == told).then(|| trimmed.collect())
}

#[cfg(test)]
mod tests;
