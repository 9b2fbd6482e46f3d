//! What is refused and where, and what is kept of what is not.

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
    let program = parse(&Source::new("Dockerfile", text.as_bytes())).expect("the file is valid");
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
        SourceArgument::Path("a".into()),
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
