//! Errors point at their cause, checks at what looks wrong.

use super::Case;

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
        ("FROM a\nCOPY --from=3 a b", "unknown-stage", "3", "0 to 0"),
        (
            "FROM a AS b\nCOPY --from=b a b",
            "circular-dependency",
            "COPY --from=b a b",
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
            "53/udp",
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
    let graph = Case::new("FROM a\n# check=skip=UndefinedVar\nENV A=$B\n").graph();
    assert_eq!(graph.warnings, []);
}
