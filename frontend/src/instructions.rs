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
    /// Whether an instruction that stands in no stage is worth an error: not behind one that may have been a FROM, and
    /// not behind another such error.
    wants_stage: bool,
}

impl Typing {
    fn new(source: &Source) -> Self {
        Self {
            source: source.clone(),
            global_args: Vec::new(),
            stages: Vec::new(),
            noted: Noted::default(),
            found: Found::default(),
            wants_stage: true,
        }
    }

    fn take(&mut self, node: &mut Node<'_>) {
        self.noted.note(node);
        if self.found.is_full() {
            return;
        }
        match typed(node, &self.source) {
            Err(errors) => {
                self.wants_stage = self.wants_stage && !may_be_from(node);
                let errors = errors.map(|error| error.within(node.lines));
                self.found.or_default::<()>(Err(errors));
            }
            Ok(Typed::Stage(mut stage)) => {
                // Most files have one stage, with as many instructions as this many bytes each.
                let room = self.source.text().len() / BYTES_EACH;
                if self.stages.is_empty() {
                    stage.instructions.reserve(room.clamp(4, 32));
                }
                self.stages.push(stage);
            }
            Ok(Typed::Instruction(kind)) => self.add(node, kind),
        }
    }

    /// Puts an instruction where it belongs.
    fn add(&mut self, node: &mut Node<'_>, kind: InstructionKind) {
        let list = match self.stages.last_mut() {
            Some(stage) => &mut stage.instructions,
            None if matches!(kind, InstructionKind::Arg(_)) => &mut self.global_args,
            None => {
                if std::mem::take(&mut self.wants_stage) {
                    self.found.0.push(before_from(node));
                }
                return;
            }
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

/// Whether an instruction that could not be read was meant to begin a stage.
fn may_be_from(node: &Node<'_>) -> bool {
    let word = letters::upper(&node.word.text);
    word == "FROM"
        || closest(&word, ["FROM"]).is_some() && closest(&word, Keyword::names()) == Some("FROM")
}

/// What a node turned out to be.
enum Typed {
    Stage(Stage),
    Instruction(InstructionKind),
}

/// Checks a node and takes what is in it.
fn typed(node: &mut Node<'_>, source: &Source) -> Result<Typed, Errors> {
    let kind = match node.keyword {
        Keyword::From => return stage::stage(node, source).map(Typed::Stage),
        Keyword::Add => InstructionKind::Add(transfer::add(node, source)?),
        Keyword::Arg => InstructionKind::Arg(pairs::args(node, source)?),
        Keyword::Cmd => InstructionKind::Cmd(plain_command(node, source)?),
        Keyword::Copy => InstructionKind::Copy(transfer::copy(node, source)?),
        Keyword::Entrypoint => InstructionKind::Entrypoint(plain_command(node, source)?),
        Keyword::Env => InstructionKind::Env(pairs::name_values(node, source)?),
        Keyword::Expose => {
            let mut ports = words(node)?;
            ports.sort_unstable();
            InstructionKind::Expose(ports)
        }
        Keyword::Healthcheck => {
            InstructionKind::Healthcheck(healthcheck::healthcheck(node, source)?)
        }
        Keyword::Label => InstructionKind::Label(pairs::name_values(node, source)?),
        Keyword::Maintainer => InstructionKind::Maintainer(text(node, source)?),
        Keyword::Onbuild => InstructionKind::Onbuild(trigger::trigger(node)?),
        Keyword::Run => InstructionKind::Run(run::run(node, source)?),
        Keyword::Shell => InstructionKind::Shell(shell(node)?),
        // The reference never looks at this instruction's flags.
        Keyword::Stopsignal => InstructionKind::Stopsignal(single_argument(node, source)?),
        Keyword::User => InstructionKind::User(text(node, source)?),
        Keyword::Volume => InstructionKind::Volume(volumes(node)?),
        Keyword::Workdir => InstructionKind::Workdir(text(node, source)?),
        Keyword::Unknown => return Err(unknown_instruction(node).into()),
    };
    Ok(Typed::Instruction(kind))
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

fn no_flags(node: &Node<'_>) -> Result<(), Errors> {
    Flags::check(&node.flags, &[]).map(|_| ())
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
fn text(node: &Node<'_>, source: &Source) -> Result<Text, Errors> {
    no_flags(node)?;
    Ok(single_argument(node, source)?)
}

fn single_argument(node: &Node<'_>, source: &Source) -> Result<Text, Diagnostic> {
    match node.arguments.words() {
        [word] => Ok(Text::of(word, source)),
        _ => Err(missing_argument(
            node,
            "write it behind the instruction, on the same line",
        )),
    }
}

/// The arguments of an instruction that takes at least one, and no flags.
fn words(node: &Node<'_>) -> Result<Vec<String>, Errors> {
    no_flags(node)?;
    let words = node.arguments.words();
    if words.is_empty() {
        return Err(missing_argument(
            node,
            "write at least one argument, or remove the instruction",
        )
        .into());
    }
    Ok(texts(words))
}

/// `CMD` and `ENTRYPOINT`; nothing at all is a valid command here.
fn plain_command(node: &Node<'_>, source: &Source) -> Result<CommandLine, Errors> {
    no_flags(node)?;
    Ok(command_line(node, source))
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
fn shell(node: &Node<'_>) -> Result<Vec<String>, Errors> {
    const HELP: &str = "write it as a JSON array, such as `SHELL [\"/bin/bash\", \"-c\"]`";
    let with_help = |error: Diagnostic| {
        if error.code == "missing-argument" {
            error.with_help(HELP)
        } else {
            error
        }
    };
    let shell = words(node).map_err(|errors| errors.map(with_help))?;
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
        return Err(error.with_help(help).into());
    }
    Ok(shell)
}

/// `VOLUME`
fn volumes(node: &Node<'_>) -> Result<Vec<String>, Errors> {
    let volumes = words(node)?;
    let mut found = Found::default();
    for (volume, word) in volumes.iter().zip(node.arguments.words()) {
        if volume.trim().is_empty() {
            let blank = error("blank-volume", word.span, "a volume can't be an empty text");
            found.0.push(blank.with_help("write a path"));
        }
    }
    let trimmed = volumes.iter().map(|volume| volume.trim().to_owned());
    found.into_result().map(|()| trimmed.collect())
}

#[cfg(test)]
mod tests;
