//! Errors point at their cause, checks at what looks wrong.

use super::Case;
use crate::diagnostic::Errors;
use crate::graph::PlanOptions;
use crate::instructions::{self, parse_partly};
use crate::plan::errors_without_images;
use crate::source::{Lines, Source};

#[test]
fn targets_are_found() {
    let case = |target: &str| {
        Case::new("FROM a AS one\nRUN 1\nFROM a AS two\nRUN 2\n")
            .with(|options| options.target = Some(target.to_owned()))
    };
    assert_eq!(case("ONE").graph().steps[1].title, "RUN 1");
    assert_eq!(
        case("twoo").error(),
        (
            "unknown-target",
            String::new(),
            "did you mean `two`?".to_owned()
        )
    );
}

#[test]
fn errors_point_at_their_cause() {
    for (text, code, place, help) in [
        ("ARG A", "no-stage", "ARG A", "FROM image"),
        ("FROM $A", "empty-base", "$A", "--build-arg A="),
        (
            "ARG V\nFROM a:$V",
            "invalid-image-name",
            "a:$V",
            "--build-arg V=",
        ),
        ("FROM \"\"", "empty-base", "\"\"", "scratch"),
        (
            "FROM a AS Foo\nFROM Foo",
            "invalid-image-name",
            "Foo",
            "write `foo`",
        ),
        (
            "FROM debian:",
            "invalid-image-name",
            "debian:",
            "did you mean `debian`?",
        ),
        (
            "FROM --platform=linux/ a",
            "invalid-platform",
            "linux/",
            "linux/amd64",
        ),
        (
            "FROM a\nCOPY --from=$X a b",
            "variable-in-from",
            "$X",
            "AS name",
        ),
        (
            "FROM a\nCOPY --from=3 a b",
            "unknown-stage",
            "3",
            "one stage",
        ),
        (
            "FROM a AS b\nCOPY --from=b a b",
            "circular-dependency",
            "b",
            "before",
        ),
        (
            "FROM a AS b\nCOPY --from=c a b\nFROM b AS c",
            "forward-reference",
            "c",
            "move",
        ),
        (
            "FROM a\nCOPY --chown=9 --chmod=9 a b",
            "invalid-mode",
            "9",
            "755",
        ),
        (
            "FROM a\nCOPY https://h/f /",
            "remote-source",
            "https://h/f",
            "ADD",
        ),
        (
            "FROM a\nADD --checksum=x a /",
            "misplaced-checksum",
            "--checksum",
            "remove",
        ),
        (
            "FROM a\nRUN --mount=type=tmp x",
            "invalid-mount",
            "type=tmp",
            "`tmpfs`",
        ),
        (
            "FROM a\nRUN --mount=target=/ x",
            "invalid-mount",
            "target=/",
            "below",
        ),
        (
            "FROM a\nEXPOSE 80/icmp",
            "invalid-port",
            "80/icmp",
            "protocols are",
        ),
        (
            "FROM a\nSTOPSIGNAL SIGTREM",
            "invalid-signal",
            "SIGTREM",
            "SIG",
        ),
        ("FROM a\nVOLUME $X", "empty-volume", "$X", "ENV"),
        ("FROM a\nENV A=\"b", "expansion", "\"b", "quote"),
        (
            "FROM a\nADD https://h/r.git?x=1 /",
            "invalid-git-reference",
            "https://h/r.git?x=1",
            "tag=v1",
        ),
        (
            "# check=error=true\nFROM a as b",
            "check-failed",
            "as",
            "error=true",
        ),
    ] {
        // The forward reference is only met when its stage is built.
        let case = Case::new(text)
            .with(|options| options.target = text.contains("AS c").then(|| "b".to_owned()));
        let (found, pointed, advice) = case.error();
        assert_ne!(advice, "", "{text}");
        assert_eq!((found, pointed.as_str()), (code, place), "{text}");
        assert!(advice.contains(help), "{text}: {advice}");
    }
}

#[test]
fn checks_need_values() {
    let text = "FROM a\nWORKDIR w\nRUN x\nENV A=$ARCH\nEXPOSE 1:80/TCP\nCMD sh\nCOPY ignored /\n";
    let graph = Case::new(text)
        .with(|options| {
            options.ignore =
                crate::ignore_file::IgnoreMatcher::new(["ignored"]).unwrap_or_default();
        })
        .image("a", |config| config.os = "windows".to_owned())
        .graph();
    let rules: Vec<&str> = graph.warnings.iter().map(|warning| warning.code).collect();
    assert_eq!(
        rules,
        [
            "InvalidBaseImagePlatform",
            "WorkdirRelativePath",
            "UndefinedVar",
            "ExposeProtoCasing",
            "ExposeInvalidFormat",
            "JSONArgsRecommended",
            "CopyIgnoredFile",
        ]
    );
    let graph = Case::new("# check=skip=JSONArgsRecommended\nFROM a\nCMD sh\n").graph();
    assert_eq!(graph.warnings, []);
    let text =
        "FROM a\n# check=experimental=all;skip=all\n# which one\nARG A\n# not asked for\nARG B\n";
    let graph = Case::new(text).graph();
    let found: Vec<_> = graph.warnings.iter().map(|found| found.code).collect();
    assert_eq!(found, ["InvalidDefinitionDescription"]);
    assert_eq!(
        graph.warnings[0].instruction_lines,
        Some(Lines { first: 4, last: 4 })
    );
    let graph = Case::new("FROM a\n# check=skip=UndefinedVar\nENV A=$B\n").graph();
    assert_eq!(graph.warnings, []);
}

/// Codes and lines of all errors of a file, in the order in which they are told.
fn all_errors(text: &str) -> Vec<(&'static str, usize)> {
    let source = Source::new("Dockerfile", text.as_bytes());
    let (program, mut errors) = parse_partly(&source);
    let options = PlanOptions {
        checks_all_stages: true,
        ..PlanOptions::default()
    };
    errors.extend(errors_without_images(&program, &options));
    let errors = Errors::of(errors).expect_err(text);
    errors
        .iter()
        .map(|error| (error.code, source.line_at(error.span.start)))
        .collect()
}

#[test]
fn all_independent_errors_are_told_the_references_first() {
    let table: &[(&str, &[(&str, usize)])] = &[
        // Parse errors come first, as they do in the reference; the rest is in file order.
        (
            "FROM a\nRUNN x\nENV b\nCMD [1]\nCOPY --form=c --chmow=1 d\nSTOPSIGNAL nope\n",
            &[
                ("missing-value", 3),
                ("unknown-instruction", 2),
                ("not-a-string", 4),
                ("unknown-flag", 5),
                ("unknown-flag", 5),
                ("missing-destination", 5),
                ("invalid-signal", 6),
            ],
        ),
        // Without a stage nothing has a place to be, once.
        (
            "RUN a\nRUN b\nCOPY c\n",
            &[("no-stage", 1), ("missing-destination", 3)],
        ),
        ("FORM a\nRUN b\n", &[("unknown-instruction", 1)]),
        ("FROM a b c d\nRUN b\n", &[("invalid-from", 1)]),
        // What stands on a base that nobody could read is judged all the same; nothing about the base follows.
        (
            "FORM base AS b\nRUN --mount=typ=bind true\nRUN --netwrok=none --mount=type=bnd,target=$X x\nWORKDIR\nCOPPY a b\nEXPOSE $P x\nVOLUME $V\nFROM b\nCOPY --from=b a c\nSTOPSIGNAL x\n",
            &[
                ("unknown-instruction", 1),
                ("invalid-mount", 2),
                ("unknown-flag", 3),
                ("invalid-mount", 3),
                ("missing-argument", 4),
                ("unknown-instruction", 5),
                ("invalid-port", 6),
                ("invalid-signal", 10),
            ],
        ),
        (
            "ARG V=1\nRUN --mount=typ=bind a\nARG W=2\nFROM a:$W as 1\nEXPOSE x\nCOPY --from=1 b c\n",
            &[
                ("no-stage", 2),
                ("invalid-mount", 2),
                ("invalid-stage-name", 4),
                ("invalid-port", 5),
            ],
        ),
        (
            "FROM --platfrom=x A:b:c\nEXPOSE --all x\nHEALTHCHECK --retries=x CMMD y\nVOLUME --a [\"\"]\nENV --b =c\n",
            &[
                ("unknown-flag", 1),
                ("invalid-image-name", 1),
                ("unknown-flag", 2),
                ("invalid-port", 2),
                ("invalid-retries", 3),
                ("unknown-healthcheck", 3),
                ("unknown-flag", 4),
                ("blank-volume", 4),
                ("unknown-flag", 5),
                ("blank-name", 5),
            ],
        ),
        ("ARG V=${\n", &[("no-stage", 1), ("expansion", 1)]),
        // A name that the broken line may have said is not blamed.
        (
            "FROM a My_Stage\nFROM c AS d\nCOPY --from=My_Stage e f\nRUN --mount=from=My_Stage,typ=x g\n",
            &[("invalid-from", 1), ("invalid-mount", 4)],
        ),
        // A variable that an error left without its value is not blamed.
        (
            "ARG V=${\nFROM a:$V\nARG W=$V\nEXPOSE $W 70000\nEXPOSE 1/x\n",
            &[("expansion", 1), ("invalid-port", 4), ("invalid-port", 5)],
        ),
        (
            "FROM a\nARG P=${Q:?}\nENV R=${P\nHEALTHCHECK --timout=1 --interval=5 CMD x\n",
            &[
                ("unknown-flag", 4),
                ("expansion", 3),
                ("invalid-duration", 4),
            ],
        ),
        (
            "FROM a\nENV P=\"x\nEXPOSE $P\nVOLUME $P\nSTOPSIGNAL x\n",
            &[("expansion", 2), ("invalid-signal", 5)],
        ),
        ("FROM a\nENV P\nEXPOSE $P\n", &[("missing-value", 2)]),
        // Nor is what stands on a stage that is not known.
        (
            "FROM A:B:C AS b\nRUN --mount=target=. x\nVOLUME $X\nFROM b\nVOLUME $X\nEXPOSE x\n",
            &[("invalid-image-name", 1), ("invalid-port", 6)],
        ),
        // Every word of an instruction, every stage.
        (
            "FROM a\nEXPOSE x 1 y\nRUN --mount=type=tmp --mount=typ=bind b\nFROM b\nCOPY --from=9 c d\n",
            &[
                ("unknown-stage", 5),
                ("invalid-port", 2),
                ("invalid-port", 2),
                ("invalid-mount", 3),
                ("invalid-mount", 3),
            ],
        ),
        (
            "FROM scratch\nENV b=${c d=${e:?} f=g\nARG h=${i j=${k:?$h} l=${m/}\nCOPY --chmod=9 --chown=${n o ${p /\nADD --chmod=9 --checksum=x http://a/b /\nCOPY http://a/b git@c:d /\n",
            &[
                ("expansion", 2),
                ("required-variable", 2),
                ("expansion", 3),
                ("expansion", 3),
                ("invalid-mode", 4),
                ("expansion", 4),
                ("expansion", 4),
                ("invalid-mode", 5),
                ("invalid-checksum", 5),
                ("remote-source", 6),
                ("remote-source", 6),
            ],
        ),
        // Every option of every mount, every flag; what only follows from another error is not told.
        (
            "FROM a\nRUN --mount=type=cahce,target=/uid,uid=x,size=1 --mount=target=/uid,uid=1,ro=x --mount=target=/ --device=a,b,required=maybe --netwrok=none --security=no x\n",
            &[
                ("unknown-flag", 2),
                ("invalid-mount", 2),
                ("invalid-mount", 2),
                ("invalid-mount", 2),
                ("invalid-mount", 2),
                ("invalid-mount", 2),
                ("invalid-device", 2),
                ("invalid-device", 2),
                ("invalid-flag-value", 2),
            ],
        ),
        (
            "FROM a\nRUN --mount=from=$X,typ=y,from=$Z --mount='\"type=x\"y' --mount=from=9,uid=x z\n",
            &[
                ("variable-in-from", 2),
                ("invalid-mount", 2),
                ("variable-in-from", 2),
                ("invalid-mount", 2),
                ("invalid-mount", 2),
            ],
        ),
        (
            "FROM a\nCOPY --from=9 --chmod=9 --chown=${o https://b/c ${p d\nCOPY --from=9 --chmod=9 https://b/c d\nADD --chmod=9 --checksum=x b c d\n",
            &[
                ("unknown-stage", 2),
                ("invalid-mode", 2),
                ("expansion", 2),
                ("expansion", 2),
                ("unknown-stage", 3),
                ("invalid-mode", 3),
                ("remote-source", 3),
                ("invalid-mode", 4),
                ("misplaced-checksum", 4),
            ],
        ),
        // The same of triggers, as far as no variable is in them.
        (
            "FROM a AS b\nONBUILD COPY --form=x c d\nONBUILD RUN --mount=type=cahce,ro=x e\nONBUILD EXPOSE $P x\nFROM b\n",
            &[
                ("unknown-flag", 5),
                ("invalid-mount", 5),
                ("invalid-mount", 5),
            ],
        ),
        // A circle is told once.
        (
            "FROM a AS b\nCOPY --from=c d e\nFROM a AS c\nCOPY --from=b d e\n",
            &[("circular-dependency", 4)],
        ),
        ("# escape=x\nFROM\n", &[("invalid-escape", 1)]),
        (
            "# escape=`\n# escape=`\nFROM\n",
            &[("repeated-directive", 2), ("missing-argument", 3)],
        ),
        (
            "FROM\nRUN <<E\n",
            &[("unterminated-heredoc", 2), ("missing-argument", 1)],
        ),
    ];
    for (text, expected) in table {
        assert_eq!(&all_errors(text), expected, "{text}");
    }
}

#[test]
fn an_error_of_a_trigger_names_it() {
    let text = "FROM a AS b\nONBUILD EXPOSE x\nFROM b\n";
    let program = instructions::parse(&Source::new("Dockerfile", text.as_bytes()));
    let program = program.expect("triggers are read where they fire");
    let errors = errors_without_images(&program, &PlanOptions::default());
    let messages: Vec<_> = errors.iter().map(|error| &*error.message).collect();
    assert_eq!(
        messages,
        [
            "in the ONBUILD trigger `EXPOSE x`: `x` is not a port: `x` is not a port number between 0 and 65535"
        ]
    );
}

#[test]
fn hostile_files_end_in_few_errors() {
    for line in [
        "NOPE\n",
        "CMD [1]\n",
        "EXPOSE x\n",
        "FROM A:b:c\n",
        "COPY --from=9 a b\n",
    ] {
        let errors = all_errors(&format!("FROM a\n{}", line.repeat(5_000)));
        // Every instruction may bring a few; every kind of look ends by itself.
        assert!(errors.len() <= 3 * crate::diagnostic::MOST_ERRORS, "{line}");
    }
}
