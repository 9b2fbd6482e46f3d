//! Where the reference decides although one could think otherwise.

use super::*;

/// Rules that fire, with the text that each points at.
fn fired(case: &Case) -> Vec<(&'static str, String)> {
    let warnings = case.graph().warnings;
    warnings
        .iter()
        .map(|warning| {
            let span = warning.span;
            (warning.code, case.text[span.start..span.end].to_owned())
        })
        .collect()
}

fn owned<'a>(pairs: &[(&'a str, &str)]) -> Vec<(&'a str, String)> {
    pairs
        .iter()
        .map(|(rule, text)| (*rule, (*text).to_owned()))
        .collect()
}

#[test]
fn checks_of_values_fire_where_stages_are_evaluated() {
    let table: &[(&str, &[(&str, &str)])] = &[
        ("FROM a\nENV b c", &[("LegacyKeyValueFormat", "b")]),
        ("FROM a\nLABEL b c", &[("LegacyKeyValueFormat", "b")]),
        (
            "FROM a\n# check=skip=LegacyKeyValueFormat for now\nENV b c",
            &[],
        ),
        (
            "FROM a\nARG MY_TOKEN TOKEN_FILE KEYS",
            &[("SecretsUsedInArgOrEnv", "MY_TOKEN")],
        ),
        ("ARG MY_TOKEN\nFROM a", &[]),
        (
            "FROM a\nENV aws_secret_KEY=x",
            &[("SecretsUsedInArgOrEnv", "aws_secret_KEY=x")],
        ),
        (
            "FROM a\nCMD [\"b\"]\nCMD [\"c\"]",
            &[("MultipleInstructionsDisallowed", "CMD")],
        ),
        ("FROM a\nCMD [\"b\"]\nFROM c\nCMD [\"d\"]", &[]),
        // One word each, and the second is what hides the first.
        (
            "FROM a\nCMD [\"b\"]\n# check=skip=MultipleInstructionsDisallowed\nCMD [\"c\"]",
            &[],
        ),
        (
            "FROM a\nENV b=$x-1 c=$x-2",
            &[("UndefinedVar", "$x"), ("UndefinedVar", "$x")],
        ),
        // Nothing asks for this stage.
        ("FROM a AS b\nENV TOKEN c\nFROM a", &[]),
    ];
    for (text, expected) in table {
        assert_eq!(fired(&Case::new(text)), owned(expected), "{text}");
    }
    let all = Case::new("FROM a AS b\nENV TOKEN c\nFROM a").with(|options| {
        options.checks_all_stages = true;
    });
    assert_eq!(fired(&all).len(), 2);
}

#[test]
fn triggers_are_checked_where_they_fire() {
    let case = Case::new("FROM on\nCMD [\"own\"]").image("on", |config| {
        config.config.on_build = vec!["ENV TOKEN x".to_owned(), "CMD [\"theirs\"]".to_owned()];
    });
    let found = fired(&case);
    let rules: Vec<_> = found.iter().map(|(rule, _)| *rule).collect();
    assert_eq!(
        rules,
        [
            "MultipleInstructionsDisallowed",
            "LegacyKeyValueFormat",
            "SecretsUsedInArgOrEnv"
        ]
    );
    assert_eq!(found[1].1, "FROM on");
}

#[test]
fn a_directory_as_base_leaves_a_gap_in_the_history() {
    for (text, last) in [
        ("FROM dir", "[context dir] load from client"),
        ("FROM dir\nCOPY a /a\nWORKDIR /b", "[2/3] WORKDIR /b"),
        (
            "FROM dir AS one\nCOPY a /a\nFROM one\nRUN b",
            "[stage-1 1/1] RUN b",
        ),
        (
            "FROM dir AS one\nFROM one AS two\nLABEL a=b",
            "[context dir] load from client",
        ),
    ] {
        let graph = Case::new(text).context("dir", NamedContext::Files).graph();
        assert_eq!(history(&graph).last(), Some(&last), "{text}");
        let layers = graph.history.iter().filter(
            |entry| matches!(entry, PlannedHistory::New { entry, .. } if !entry.empty_layer),
        );
        assert_eq!(layers.count(), graph.steps.len(), "{text}");
    }
}

#[test]
fn the_base_of_a_replaced_stage_has_to_be_an_image() {
    let replaced = |text: &str| Case::new(text).context("b", NamedContext::Files);
    assert_eq!(
        replaced("FROM Not:an:image AS b").error().0,
        "invalid-image-name"
    );
    assert_eq!(
        dump(&replaced("FROM any AS b\nRUN x").graph()),
        ["0<- [b 1/1] FROM b"]
    );
}

#[test]
fn names_of_variables_are_letters_and_digits() {
    for (word, title) in [
        ("$é", "RUN é"),
        ("$é½", "RUN é½"),
        ("$a\u{301}", "RUN a\u{301}"),
    ] {
        let text = format!("FROM a\nARG é=é a=a\nRUN {word}");
        assert_eq!(Case::new(&text).graph().steps[1].title, title, "{word}");
    }
}

#[test]
fn checks_are_set_behind_a_shebang() {
    let case =
        Case::new("#!/usr/bin/build\n#check=skip=MaintainerDeprecated\nFROM a\nMAINTAINER b");
    assert_eq!(fired(&case), owned(&[]));
}
