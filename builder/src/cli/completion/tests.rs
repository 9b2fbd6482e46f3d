//! What shells are told.

use std::fs;

use super::*;

/// Lines for a line that is typed up to its end.
fn told(line: &str) -> Vec<String> {
    let words = ["rbuild", ASK, "bash", line].map(OsString::from);
    let answer = answer(&words, &Variables::new()).expect("it was asked");
    answer.lines().map(ToOwned::to_owned).collect()
}

#[test]
fn lines_are_split_as_a_shell_does() {
    let table: [(&str, &[&str]); 6] = [
        ("rbuild", &["rbuild"]),
        ("rbuild ", &["rbuild", ""]),
        ("rbuild  -t  a", &["rbuild", "-t", "a"]),
        (
            "rbuild 'a b' \"c\\\" d\" e\\ f",
            &["rbuild", "a b", "c\" d", "e f"],
        ),
        ("rbuild --target=x", &["rbuild", "--target=x"]),
        ("rbuild 'unfinished wo", &["rbuild", "unfinished wo"]),
    ];
    for (line, expected) in table {
        assert_eq!(split(line), expected, "{line}");
    }
}

#[test]
fn verbs_flags_and_choices_are_told() {
    assert_eq!(told("rbuild expl"), ["explain"]);
    assert_eq!(told("rbuild --build-c"), ["--build-context"]);
    assert_eq!(told("rbuild -t x --build-c"), ["--build-context"]);
    assert_eq!(told("rbuild builds sh"), ["show"]);
    let verbs = told("rbuild cache ");
    assert!(verbs.contains(&"rm".to_owned()) && !verbs.iter().any(|verb| verb.starts_with('-')));
    assert_eq!(told("rbuild build --progress p"), ["plain"]);
    assert_eq!(told("rbuild build --progress=r"), ["rawjson"]);
    assert_eq!(
        told("rbuild --platform linux/amd64,linux/arm6"),
        ["linux/amd64,linux/arm64"]
    );
    // Flags that are answered only are for those who type them.
    assert!(!told("rbuild build --").contains(&"--squash".to_owned()));
    assert!(answer(&["rbuild".into(), "images".into()], &Variables::new()).is_none());
}

#[test]
fn stages_and_arguments_come_from_the_dockerfile_of_the_line() {
    let place = tempfile::tempdir().expect("tempdir");
    let text =
        "ARG BASE=scratch\nFROM $BASE AS Compile\nARG VERSION\nFROM Compile AS run\nRUN <<broken\n";
    fs::write(place.path().join("Dockerfile"), text).expect("write");
    let other = place.path().join("other file");
    fs::write(&other, "FROM scratch AS elsewhere\n").expect("write");
    let context = place.path().display();
    assert_eq!(
        told(&format!("rbuild {context} --target ")),
        ["Compile", "run"]
    );
    assert_eq!(told(&format!("rbuild {context} --target=r")), ["run"]);
    assert_eq!(
        told(&format!("rbuild build {context} --build-arg ")),
        ["BASE=", "VERSION="]
    );
    let line = format!("rbuild -f '{}' --target ", other.display());
    assert_eq!(told(&line), ["elsewhere"]);
}

#[test]
fn nothing_is_made_and_nothing_fails_where_there_is_no_store() {
    let place = tempfile::tempdir().expect("tempdir");
    let root = place.path().join("none");
    let line = format!("rbuild --root {} run ", root.display());
    let mut told = told(&line);
    // Without values there are flags.
    told.retain(|word| !word.starts_with('-'));
    assert!(told.is_empty(), "{told:?}");
    assert!(!root.exists());
}
