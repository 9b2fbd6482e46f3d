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

use crate::ast::{self, Dockerfile, Node};
use crate::checks;
use crate::diagnostic::{Diagnostic, Errors, Found, Phase};
use crate::flags::Flags;
use crate::instruction::{CommandLine, Instruction, InstructionKind, Program, Stage};
use crate::letters;
use crate::source::{Source, Span};
use crate::suggest::closest;

/// All instruction words.
const INSTRUCTIONS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Parses a Dockerfile and checks its instructions.
pub fn parse(source: &Source) -> Result<Program, Errors> {
    let (program, errors) = parse_partly(source);
    Errors::of(errors).map(|()| program)
}

/// Reads what can be read of a Dockerfile; what can't is left out and told. Without errors it is the whole program.
pub fn parse_partly(source: &Source) -> (Program, Vec<Diagnostic>) {
    let (file, mut errors) = ast::parse_partly(source);
    let (program, wrong) = check_partly(&file);
    // Without its escape character or its rest, a file is not one that can be judged any further.
    errors.extend(wrong);
    let program = Program {
        is_whole: errors.is_empty(),
        ..program
    };
    (program, errors)
}

/// Makes typed instructions of a parsed file.
pub fn check_nodes(file: &Dockerfile) -> Result<Program, Errors> {
    let (program, errors) = check_partly(file);
    Errors::of(errors).map(|()| program)
}

fn check_partly(file: &Dockerfile) -> (Program, Vec<Diagnostic>) {
    let mut program = Program {
        source: file.source.clone(),
        escape: file.escape,
        directives: file.directives.clone(),
        global_args: Vec::new(),
        stages: Vec::new(),
        warnings: checks::of_text(file),
        is_whole: true,
    };
    let mut found = Found::default();
    // Whether an instruction that stands in no stage is worth an error: not behind one that may have been a FROM, and
    // not behind another such error.
    let mut wants_stage = true;
    for node in &file.nodes {
        if found.is_full() {
            break;
        }
        match typed(node) {
            Err(errors) => {
                wants_stage &= !may_be_from(node);
                let errors = errors.map(|error| error.within(node.lines));
                found.or_default::<()>(Err(errors));
            }
            Ok(Typed::Stage(stage)) => program.stages.push(*stage),
            Ok(Typed::Instruction(kind)) => {
                let instruction = instruction(node, kind);
                match program.stages.last_mut() {
                    Some(stage) => stage.instructions.push(instruction),
                    None if matches!(instruction.kind, InstructionKind::Arg(_)) => {
                        program.global_args.push(instruction);
                    }
                    None if wants_stage => {
                        wants_stage = false;
                        found.0.push(before_from(node));
                    }
                    None => {}
                }
            }
        }
    }
    (program, found.0)
}

/// Whether an instruction that could not be read was meant to begin a stage.
fn may_be_from(node: &Node) -> bool {
    let word = letters::upper(&node.keyword.text);
    word == "FROM" || closest(&word, INSTRUCTIONS) == Some("FROM")
}

fn instruction(node: &Node, kind: InstructionKind) -> Instruction {
    Instruction {
        kind,
        span: node.span,
        lines: node.lines,
        text: node.text.clone(),
        comments: node.comments.clone(),
    }
}

/// What a node turned out to be.
enum Typed {
    Stage(Box<Stage>),
    Instruction(InstructionKind),
}

fn typed(node: &Node) -> Result<Typed, Errors> {
    let keyword = letters::lower(&node.keyword.text);
    let kind = match keyword.as_str() {
        "from" => return stage::stage(node).map(|stage| Typed::Stage(Box::new(stage))),
        "add" => InstructionKind::Add(transfer::add(node)?),
        "arg" => InstructionKind::Arg(pairs::args(node)?),
        "cmd" => InstructionKind::Cmd(plain_command(node)?),
        "copy" => InstructionKind::Copy(transfer::copy(node)?),
        "entrypoint" => InstructionKind::Entrypoint(plain_command(node)?),
        "env" => InstructionKind::Env(pairs::name_values(node)?),
        "expose" => {
            let mut ports = words(node)?;
            ports.sort_unstable();
            InstructionKind::Expose(ports)
        }
        "healthcheck" => InstructionKind::Healthcheck(healthcheck::healthcheck(node)?),
        "label" => InstructionKind::Label(pairs::name_values(node)?),
        "maintainer" => InstructionKind::Maintainer(text(node)?),
        "onbuild" => InstructionKind::Onbuild(trigger::trigger(node)?),
        "run" => InstructionKind::Run(run::run(node)?),
        "shell" => InstructionKind::Shell(shell(node)?),
        // The reference never looks at this instruction's flags.
        "stopsignal" => InstructionKind::Stopsignal(single_argument(node)?),
        "user" => InstructionKind::User(text(node)?),
        "volume" => InstructionKind::Volume(volumes(node)?),
        "workdir" => InstructionKind::Workdir(text(node)?),
        _ => return Err(unknown_instruction(node).into()),
    };
    Ok(Typed::Instruction(kind))
}

fn error(code: &'static str, span: Span, message: impl Into<String>) -> Diagnostic {
    Diagnostic::error(code, Phase::Instructions, span, message)
}

fn unknown_instruction(node: &Node) -> Diagnostic {
    let word = &node.keyword;
    let help = match closest(&word.text, INSTRUCTIONS) {
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

fn before_from(node: &Node) -> Diagnostic {
    let message = format!(
        "{} stands before the first FROM",
        node.keyword.text.to_uppercase()
    );
    error("no-stage", node.keyword.span, message)
        .within(node.lines)
        .with_label("no stage to add this to")
        .with_help("only ARG may stand before the first FROM: move this below it")
}

/// The instruction's name in messages.
fn name_of(node: &Node) -> String {
    node.keyword.text.to_uppercase()
}

fn no_flags(node: &Node) -> Result<(), Errors> {
    Flags::check(&node.flags, &[]).map(|_| ())
}

fn missing_argument(node: &Node, help: &str) -> Diagnostic {
    error(
        "missing-argument",
        node.keyword.span,
        format!("{} needs an argument", name_of(node)),
    )
    .with_label("nothing follows")
    .with_help(help)
}

/// The text of an instruction that takes exactly one, and no flags.
fn text(node: &Node) -> Result<String, Errors> {
    no_flags(node)?;
    Ok(single_argument(node)?)
}

fn single_argument(node: &Node) -> Result<String, Diagnostic> {
    match node.arguments.words() {
        [word] => Ok(word.text.clone()),
        _ => Err(missing_argument(
            node,
            "write it behind the instruction, on the same line",
        )),
    }
}

/// The arguments of an instruction that takes at least one, and no flags.
fn words(node: &Node) -> Result<Vec<String>, Errors> {
    no_flags(node)?;
    let words = node.arguments.words();
    if words.is_empty() {
        return Err(missing_argument(
            node,
            "write at least one argument, or remove the instruction",
        )
        .into());
    }
    Ok(words.iter().map(|word| word.text.clone()).collect())
}

/// `CMD` and `ENTRYPOINT`; nothing at all is a valid command here.
fn plain_command(node: &Node) -> Result<CommandLine, Errors> {
    no_flags(node)?;
    Ok(command_line(node))
}

/// Exec form for a JSON array, otherwise shell form.
fn command_line(node: &Node) -> CommandLine {
    let words = node.arguments.words().iter().map(|word| word.text.clone());
    if node.is_json() {
        CommandLine::Exec(words.collect())
    } else {
        CommandLine::Shell(words.collect())
    }
}

/// `SHELL`
fn shell(node: &Node) -> Result<Vec<String>, Errors> {
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
fn volumes(node: &Node) -> Result<Vec<String>, Errors> {
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
mod tests {
    use super::*;
    use crate::instruction::{Heredoc, SourceArgument};
    use crate::source::Lines;

    /// The code, phase and marked text of the error of a file.
    fn refusal(text: &str) -> Option<(&'static str, Phase, String)> {
        let errors = parse(&Source::new("Dockerfile", text.as_bytes())).err()?;
        let error = errors.first();
        Some((
            error.code,
            error.phase,
            text[error.span.start..error.span.end].to_owned(),
        ))
    }

    fn kinds(text: &str) -> Vec<InstructionKind> {
        let text = format!("FROM scratch\n{text}");
        let program =
            parse(&Source::new("Dockerfile", text.as_bytes())).expect("the file is valid");
        program
            .stages
            .into_iter()
            .flat_map(|stage| stage.instructions)
            .map(|found| found.kind)
            .collect()
    }

    #[test]
    fn errors_point_at_their_cause() {
        use Phase::{Instructions, Parse};

        // All but the first few stand below a FROM.
        let table = [
            ("", "no-instructions", Parse, ""),
            ("# escape=x\nFROM a", "invalid-escape", Parse, "x"),
            ("RUN a", "no-stage", Instructions, "RUN"),
            ("FROM", "missing-argument", Instructions, "FROM"),
            ("FROM a b", "invalid-from", Instructions, "b"),
            ("FROM a AS 1b", "invalid-stage-name", Instructions, "1b"),
            (
                "FROM a\nRUNN a",
                "unknown-instruction",
                Instructions,
                "RUNN",
            ),
            (
                "FROM a\nCOPY --form=b a \\\n  b",
                "unknown-flag",
                Instructions,
                "--form",
            ),
            (
                "FROM a\nCOPY \\\n  --link=maybe a b",
                "invalid-flag-value",
                Instructions,
                "maybe",
            ),
            ("FROM a\nCOPY a", "missing-destination", Instructions, "a"),
            (
                "FROM a\nCOPY a <<B\nB",
                "heredoc-destination",
                Instructions,
                "<<B",
            ),
            ("FROM a\nENV a", "missing-value", Parse, "a"),
            ("FROM a\nENV a=b c", "missing-value", Parse, "c"),
            ("FROM a\nENV a=b \\\n =c", "blank-name", Instructions, "=c"),
            ("FROM a\nCMD [\"a\", 1]", "not-a-string", Parse, "1"),
            ("FROM a\nRUN <<B\nb", "unterminated-heredoc", Parse, "<<B"),
            (
                "FROM a\nRUN --network=nope b",
                "invalid-flag-value",
                Instructions,
                "nope",
            ),
            (
                "FROM a\nRUN --mount=from=$b c",
                "variable-in-from",
                Instructions,
                "from=$b",
            ),
            (
                "FROM a\nSHELL sh -c",
                "shell-not-json",
                Instructions,
                "sh -c",
            ),
            (
                "FROM a\nVOLUME [\"b\", \" \"]",
                "blank-volume",
                Instructions,
                "\" \"",
            ),
            (
                "FROM a\nHEALTHCHECK NONE b",
                "stray-argument",
                Instructions,
                "b",
            ),
            (
                "FROM a\nHEALTHCHECK --interval=5 CMD b",
                "invalid-duration",
                Instructions,
                "5",
            ),
            (
                "FROM a\nHEALTHCHECK --retries=-1 CMD b",
                "invalid-retries",
                Instructions,
                "-1",
            ),
            (
                "FROM a\nONBUILD ONBUILD RUN b",
                "invalid-trigger",
                Instructions,
                "ONBUILD",
            ),
        ];
        for (text, code, phase, marked) in table {
            assert_eq!(
                refusal(text),
                Some((code, phase, marked.to_owned())),
                "{text}"
            );
        }
    }

    #[test]
    fn quirks_of_the_reference_are_kept() {
        let accepted = [
            "ARG --any=thing a",
            "STOPSIGNAL --any 9",
            "HEALTHCHECK --any NONE",
            "ENTRYPOINT []",
            "RUN",
            "ONBUILD nonsense",
            "LABEL \"\"=b",
            "healthcheck cmd x",
        ];
        for text in accepted {
            assert_eq!(kinds(text).len(), 1, "{text}");
        }
    }

    #[test]
    fn heredocs_become_sources_and_triggers() {
        let heredoc = Heredoc {
            name: "EOF".to_owned(),
            file_descriptor: 0,
            is_expanded: true,
            is_chomped: true,
            content: "\tx\n".to_owned(),
        };
        let copied = kinds("COPY <<-EOF a /b/\n\tx\n\tEOF");
        let [InstructionKind::Copy(copy)] = copied.as_slice() else {
            panic!("{copied:?}")
        };
        let sources = [
            SourceArgument::Heredoc(heredoc.clone()),
            SourceArgument::Path("a".to_owned()),
        ];
        assert_eq!(copy.transfer.sources, sources);
        assert_eq!(heredoc.body(), "x\n");
        let stored = kinds("ONBUILD RUN <<EOF\nx\nEOF");
        assert_eq!(
            stored,
            [InstructionKind::Onbuild("RUN <<EOF\nx\nEOF".to_owned())]
        );
    }

    #[test]
    fn triggers_are_parsed_when_they_fire() {
        let (span, lines) = (Span::new(3, 9), Lines { first: 2, last: 2 });
        let fired = parse_trigger("RUN <<EOF\nx\nEOF", span, lines).expect("the trigger is valid");
        assert_eq!((fired.span, fired.lines), (span, lines));
        assert!(matches!(fired.kind, InstructionKind::Run(_)));
        for (text, code) in [
            ("FROM a", "invalid-trigger"),
            ("RUN a\nRUN b", "invalid-trigger"),
            ("NOPE", "unknown-instruction"),
            ("ENV a", "missing-value"),
            ("", "no-instructions"),
        ] {
            let errors = parse_trigger(text, span, lines).expect_err("the trigger is invalid");
            let error = errors.first();
            assert_eq!(
                (error.code, error.span, error.instruction_lines),
                (code, span, Some(lines)),
                "{text}"
            );
        }
    }
}
