//! Mending changes what it says and nothing else.

use proptest::prelude::*;

#[path = "mend/same.rs"]
mod same;

use same::mend_and_check;

#[test]
fn what_is_mended() {
    let table = [
        ("casing", "from a\nRUN b\nRun c\n", "FROM a\nRUN b\nRUN c\n"),
        (
            "mostly lower",
            "from a\nRUN b\nrun c\n",
            "from a\nrun b\nrun c\n",
        ),
        (
            "AS follows its FROM",
            "from a as b\nRUN c\nRUN d\n",
            "FROM a AS b\nRUN c\nRUN d\n",
        ),
        (
            "stage names",
            "FROM a AS B\nFROM b\n",
            "FROM a AS b\nFROM b\n",
        ),
        (
            "pairs",
            "FROM a\nENV b  c d\t\nLABEL e $b\n",
            "FROM a\nENV b=\"c d\"\t\nLABEL e=$b\n",
        ),
        (
            "quotes",
            "FROM a\nENV b \"c\" 'd e' \\$\n",
            "FROM a\nENV b=\"c\"\\ 'd e'\\ \\$\n",
        ),
        (
            "unclosed quotes stay",
            "FROM a\nMAINTAINER x\nLABEL b it\"s\n",
            "FROM a\nMAINTAINER x\nLABEL b it\"s\n",
        ),
        (
            "continuations stay",
            "FROM a\nENV b \\\n  c\n",
            "FROM a\nENV b \\\n  c\n",
        ),
        (
            "author",
            "FROM a\nMAINTAINER A \"B\" $C\n",
            "FROM a\nLABEL org.opencontainers.image.authors=\"A \\\"B\\\" \\$C\"\n",
        ),
        (
            "blank lines",
            "FROM a\nRUN b \\\n\n  \n  c\n\nRUN d\n",
            "FROM a\nRUN b \\\n  c\n\nRUN d\n",
        ),
        (
            "platform",
            "FROM --platform=$TARGETPLATFORM  a AS b\n",
            "FROM a AS b\n",
        ),
        (
            "ports",
            "FROM a\nEXPOSE 1:80/TCP\nEXPOSE 53/Udp 1:2\n",
            "FROM a\nEXPOSE 80/tcp\nEXPOSE 53/udp 1:2\n",
        ),
        (
            "skipped by the file",
            "# check=skip=FromAsCasing\nFROM a as b\n",
            "# check=skip=FromAsCasing\nFROM a as b\n",
        ),
        (
            "skipped by a comment",
            "FROM a\n# check=skip=LegacyKeyValueFormat\nENV b c\n",
            "FROM a\n# check=skip=LegacyKeyValueFormat\nENV b c\n",
        ),
        (
            "errors",
            "from a\nRUN b\nRUN c\nNOPE\n",
            "from a\nRUN b\nRUN c\nNOPE\n",
        ),
        (
            "line endings",
            "FROM a\r\nENV b c\r\nRUN d # keep  \r\n",
            "FROM a\r\nENV b=c\r\nRUN d # keep  \r\n",
        ),
        (
            "escape",
            "# escape=`\nFROM a\nENV b c:\\d e\n",
            "# escape=`\nFROM a\nENV b=\"c:\\d e\"\n",
        ),
    ];
    for (name, text, mended) in table {
        assert_eq!(mend_and_check(text), mended, "{name}");
    }
}

#[test]
fn a_long_file_is_mended_in_bounded_time() {
    let text = format!("FROM a\n{}", "ENV b c\nmaintainer d\n".repeat(10_000));
    let mended = mend_and_check(&text);
    assert_eq!(mended.matches("LABEL org.opencontainers").count(), 10_000);
    assert_eq!(mended.matches("ENV b=c\n").count(), 10_000);
}

/// Files that have much to mend.
fn file() -> impl Strategy<Value = String> {
    let value = prop::collection::vec(
        prop::sample::select(vec![
            "a",
            "b c",
            " ",
            "  ",
            "\"",
            "'",
            "\\",
            "\\ ",
            "$V",
            "${V:-x y}",
            "${V",
            "=",
            "\t",
            "é",
            "\\\n",
            "\"q r\"",
            "#",
            "`",
        ]),
        1..6,
    )
    .prop_map(|pieces| pieces.concat());
    let line = prop_oneof![
        value.clone().prop_map(|value| format!("ENV V {value}\n")),
        value
            .clone()
            .prop_map(|value| format!("label x.y {value}\n")),
        value
            .clone()
            .prop_map(|value| format!("MAINTAINER {value}\n")),
        value.prop_map(|value| format!("Run x {value}\n")),
        prop::sample::select(vec![
            "from a as B\n",
            "FROM --platform=$TARGETPLATFORM b AS C\n",
            "FROM --platform=${TARGETPLATFORM} \\\n a as scratch\n",
            "EXPOSE 80/TCP 1:2\n",
            "expose 1.2.3.4:5:6/UDP\n",
            "EXPOSE $V/TCP\n",
            "RUN a \\\n\n \\\n\nb\n",
            "RUN <<EOF\n\nenv v x\nEOF\n",
            "ONBUILD ENV a b\n",
            "ONBUILD EXPOSE 1:80/TCP\n",
            "cmd x\n",
            "workdir y\n",
            "# check=skip=MaintainerDeprecated\n",
            "e\\\nnv v w\n",
        ])
        .prop_map(str::to_owned),
    ];
    prop::collection::vec(line, 0..8).prop_map(|lines| format!("FROM a\n{}", lines.concat()))
}

proptest! {
    #[test]
    fn a_mended_file_means_the_same_and_stays(text in file()) {
        mend_and_check(&text);
    }
}
