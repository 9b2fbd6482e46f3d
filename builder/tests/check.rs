//! `rbuild check` and `--call` as a shell sees them: findings on stdout, exit codes, and what `--fix` writes.

#![expect(clippy::unwrap_used, reason = "in tests an unwrap is an assertion")]

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// A directory with a Dockerfile.
fn context(dockerfile: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("Dockerfile"), dockerfile).unwrap();
    directory
}

fn rbuild(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rbuild"));
    command
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .env("RBUILD_ROOT", directory.join("store"));
    command
        .output()
        .expect("the binary was built with this test")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn exit_codes_say_what_was_found() {
    let table: &[(&str, &[&str], i32)] = &[
        ("FROM scratch\n", &[], 0),
        ("FROM scratch as a\n", &[], 1),
        ("FROM scratch as a\n", &["--severity", "error"], 0),
        (
            "# check=error=true\nFROM scratch as a\n",
            &["--severity", "error"],
            1,
        ),
        ("# check=skip=all\nFROM scratch as a\n", &[], 0),
        (
            "FROM scratch as a\n",
            &["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=FromAsCasing"],
            0,
        ),
        ("FROM scratch\nSTOPSIGNAL x\n", &["--severity", "error"], 1),
        ("FROM scratch\nNOPE\n", &[], 2),
        ("FROM scratch\nFROM scratch as a\n", &["--target", "a"], 1),
    ];
    for (dockerfile, arguments, code) in table {
        let directory = context(dockerfile);
        let arguments = [&["check", "."], *arguments].concat();
        let output = rbuild(directory.path(), &arguments);
        assert_eq!(
            output.status.code(),
            Some(*code),
            "{dockerfile}: {output:?}"
        );
        let is_clean = stdout(&output) == "no problems found\n";
        let only_warns = arguments.contains(&"error") && stdout(&output).contains("warning");
        assert_eq!(is_clean || only_warns, *code == 0, "{output:?}");
    }
}

#[test]
fn build_has_the_references_flags() {
    let directory = context("FROM scratch as a\n");
    for (arguments, code) in [
        (&["build", "--check", "."][..], 1),
        (&["--call", "check", "."], 1),
        (&["--call=check,ignorestatus=true", "."], 0),
        (&["--call=check", "--format", "json", "."], 1),
    ] {
        let output = rbuild(directory.path(), arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert!(stdout(&output).contains("FromAsCasing"), "{arguments:?}");
    }
}

#[test]
fn the_dockerfile_may_come_from_elsewhere() {
    let directory = context("FROM scratch\n");
    let other = directory.path().join("other.Dockerfile");
    std::fs::write(&other, "FROM scratch as a\n").unwrap();
    let output = rbuild(
        directory.path(),
        &["check", "-f", "other.Dockerfile", "--format", "github"],
    );
    assert_eq!(output.status.code(), Some(1));
    let line =
        "::warning file=other.Dockerfile,line=1,endLine=1,col=14,endColumn=15,title=FromAsCasing::";
    assert!(stdout(&output).starts_with(line), "{}", stdout(&output));
}

#[test]
fn a_base_that_cannot_be_looked_up_hides_no_finding() {
    let directory = context("FROM localhost:1/none AS a\nENV B c\nENV D=$SET_BY_THE_BASE\n");
    let output = rbuild(directory.path(), &["check", "--pull=never"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stdout(&output).contains("\n1 warning;"),
        "{}",
        stdout(&output)
    );
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("the image `localhost:1/none` could not be looked up"),
        "{stderr}"
    );
}

#[test]
fn an_image_that_is_not_there_and_is_called_almost_like_a_stage_is_an_error() {
    let directory = context("FROM scratch AS build\nFROM scratch\nCOPY --from=biuld /a /\n");
    let output = rbuild(directory.path(), &["check", "--pull=never"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stdout = String::from_utf8_lossy(&output.stdout);
    for said in [
        "error[unknown-stage]: no stage is named `biuld`",
        "Dockerfile:3:13",
        "did you mean `build`?",
    ] {
        assert!(stdout.contains(said), "{said}: {stdout}");
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let reason = "the image `biuld` could not be looked up";
    assert!(stderr.contains(reason), "{stderr}");
    let meant = context("FROM scratch AS build\nFROM scratch\nCOPY --from=Build /a /\n");
    let output = rbuild(meant.path(), &["check", "--pull=never"]);
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_dockerfile_may_be_a_pipe_but_not_endless() {
    let directory = context("");
    let output = rbuild(directory.path(), &["check", "-f", "/dev/zero", "."]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("`/dev/zero` is larger than"), "{stderr}");
    let output = rbuild(directory.path(), &["check", "-f", "/dev/null", "."]);
    assert_eq!(output.status.code(), Some(2));
    // What has no place still has a file.
    let shown = stdout(&output);
    assert!(
        shown.starts_with("error[no-instructions]: the file has no instructions\n"),
        "{shown}"
    );
    assert!(shown.contains("--> /dev/null\n"), "{shown}");
}

#[test]
fn fix_writes_what_diff_shows() {
    let text = "from scratch\nCOPY a /\nENV b c d\nENV e f\nCMD x\n";
    let directory = context(text);
    let path = directory.path().join("Dockerfile");
    let shown = rbuild(directory.path(), &["check", "--diff"]);
    assert_eq!(shown.status.code(), Some(1));
    assert_eq!(
        std::fs::read_to_string(&path).unwrap(),
        text,
        "nothing is written"
    );
    let fixed = rbuild(directory.path(), &["check", "--fix"]);
    assert!(
        stdout(&fixed).starts_with(&stdout(&shown)),
        "{}",
        stdout(&fixed)
    );
    assert!(
        stdout(&fixed).contains("\n-from scratch\n+FROM scratch\n"),
        "{}",
        stdout(&fixed)
    );
    // What only a person can mend is still found.
    assert_eq!(fixed.status.code(), Some(1));
    assert!(
        stdout(&fixed).ends_with("\n1 warning\n"),
        "{}",
        stdout(&fixed)
    );
    assert_eq!(
        std::fs::read_to_string(&path).unwrap(),
        "FROM scratch\nCOPY a /\nENV b=\"c d\"\nENV e=f\nCMD x\n"
    );
    let again = rbuild(directory.path(), &["check", "--diff"]);
    assert_eq!(
        (again.status.code(), stdout(&again)),
        (Some(0), "nothing to mend\n\n".to_owned())
    );
}

#[test]
fn fix_keeps_links_modes_and_what_is_not_text() {
    use std::os::unix::fs::PermissionsExt;
    let directory = context("FROM scratch\n");
    let real = directory.path().join("real");
    let link = directory.path().join("link");
    std::fs::write(&real, "FROM scratch as a\n").unwrap();
    std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("real", &link).unwrap();
    let output = rbuild(directory.path(), &["check", "--fix", "-f", "link"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(link.is_symlink());
    assert_eq!(
        std::fs::read_to_string(&real).unwrap(),
        "FROM scratch AS a\n"
    );
    assert_eq!(real.metadata().unwrap().permissions().mode() & 0o777, 0o640);
    std::fs::write(&real, b"# caf\xe9\nFROM scratch as a\n").unwrap();
    let output = rbuild(directory.path(), &["check", "--fix", "-f", "link"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("is not UTF-8"));
    assert_eq!(
        std::fs::read(&real).unwrap(),
        b"# caf\xe9\nFROM scratch as a\n"
    );
}

#[test]
fn fix_leaves_what_it_cannot_judge() {
    let directory = context("from scratch\nRUN a\nRUN b\nNOPE\n");
    let output = rbuild(directory.path(), &["check", "--fix"]);
    assert_eq!(output.status.code(), Some(2));
    let stdout = stdout(&output);
    assert!(
        stdout.starts_with("nothing was mended: a file with errors"),
        "{stdout}"
    );
    let output = rbuild(directory.path(), &["check", "--fix", "-f", "-", "."]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("there is no file to write"), "{stderr}");
}

const OUTLINED: &str = "\
# TAG which one
ARG TAG=12
ARG UNUSED=1
FROM scratch AS base
ARG OTHER
# run what is shipped
FROM scratch AS run
# LEVEL of noise
ARG LEVEL=debug
ARG TAG
ARG TARGETARCH
RUN --mount=type=secret,id=token,required --mount=type=ssh --mount=type=cache,target=/c true
RUN --mount=type=secret,id=token --mount=type=secret,id=other true
";

#[test]
fn outlines_say_what_can_be_given() {
    let directory = context(OUTLINED);
    let output = rbuild(
        directory.path(),
        &["--call=outline", "--build-arg", "LEVEL=info", "."],
    );
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    insta::assert_snapshot!(stdout(&output), @r"
    TARGET:        run
    DESCRIPTION:   what is shipped

    BUILD ARG   VALUE   DESCRIPTION
    TAG         12      which one
    LEVEL       info    of noise

    SECRET   REQUIRED
    token    true
    other

    SSH       REQUIRED
    default

    CACHE MOUNT
    /c
    ");
    let output = rbuild(directory.path(), &["--call=outline,format=json", "."]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    insta::assert_snapshot!(json["args"].to_string(), @r#"
    [{"description":"which one","location":{"ranges":[{"end":{"line":2},"start":{"line":2}}]},"name":"TAG","value":"12"},{"description":"of noise","location":{"ranges":[{"end":{"line":9},"start":{"line":9}}]},"name":"LEVEL","value":"debug"}]
    "#);
    insta::assert_snapshot!(json["secrets"].to_string(), @r#"
    [{"location":{"ranges":[{"end":{"line":12},"start":{"line":12}}]},"name":"token","required":true},{"location":{"ranges":[{"end":{"line":13},"start":{"line":13}}]},"name":"other"}]
    "#);
    assert_eq!(json["cache"][0]["ID"], "/c");
    assert_eq!(json["ssh"][0]["name"], "default");
    assert!(
        json["sources"][0]
            .as_str()
            .is_some_and(|data| data.starts_with("IyBUQUcg"))
    );
}

#[test]
fn targets_are_listed() {
    let directory = context(OUTLINED);
    let output = rbuild(directory.path(), &["--call=targets", "."]);
    insta::assert_snapshot!(stdout(&output), @r"
    TARGET          DESCRIPTION
    base
    run (default)   what is shipped
    ");
    let output = rbuild(directory.path(), &["--call=targets", "--format=json", "."]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    insta::assert_snapshot!(json["targets"].to_string(), @r#"
    [{"base":"scratch","location":{"ranges":[{"end":{"line":4},"start":{"line":4}}]},"name":"base"},{"base":"scratch","default":true,"description":"what is shipped","location":{"ranges":[{"end":{"line":7},"start":{"line":7}}]},"name":"run"}]
    "#);
}

#[test]
fn codes_are_explained() {
    let directory = context("");
    let output = rbuild(
        directory.path(),
        &["check", "--explain", "legacykeyvalueformat"],
    );
    assert_eq!(output.status.code(), Some(0));
    insta::assert_snapshot!(stdout(&output), @r#"
    LegacyKeyValueFormat (build check): ENV or LABEL is written without `=`

    `ENV name value` takes everything to the line's end as the value, which surprises who adds a second pair.

    The way out: write name=value; quote a value that holds blanks.

    For example:

        FROM debian
        ENV GREETING hello world

    Mended:

        FROM debian
        ENV GREETING="hello world"
    "#);
    let output = rbuild(directory.path(), &["check", "--explain", "unknown-flga"]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("did you mean `unknown-flag`?"), "{stderr}");
}
