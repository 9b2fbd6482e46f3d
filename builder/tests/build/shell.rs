//! `rbuild shell`: what a step left, as its command had it.

use std::fs;
use std::process::{Command, Output, Stdio};

use crate::support::{Build, Place};

const SECRET: &str = "Zx9-never-to-be-kept-42";

/// The exit code, and what was printed: stdout and stderr.
struct Said {
    code: i32,
    out: String,
    err: String,
}

fn said(output: &Output) -> Said {
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn shell(place: &Place, words: &[&str]) -> Said {
    let mut command = place.rbuild();
    said(&command.arg("shell").args(words).output().unwrap())
}

/// Fails, with what was said; what was kept is told by the command that opens it.
fn fail(build: Build<'_>) -> String {
    let (code, log) = build.err();
    assert_eq!(code, 1, "{log}");
    log
}

/// The words after `rbuild` of the command that opens a shell, as the build printed it.
fn printed_command(log: &str) -> Vec<String> {
    let lines: Vec<&str> = log
        .lines()
        .filter_map(|line| line.split_once("a shell in it: rbuild "))
        .map(|(_, command)| command.trim())
        .collect();
    assert_eq!(lines.len(), 1, "one command is printed:\n{log}");
    lines[0].split(' ').map(str::to_owned).collect()
}

/// Everything that a command can be given, changed in a way that shows, and a failure.
const RICH: &str = r#"FROM base AS other
RUN mkdir /from && echo other > /from/file
FROM base
ENV GREETING="two words"
ARG LEVEL=low
ARG API_TOKEN
RUN rm /data/one && mkdir -p /work && echo > /work/old && chown -R 1000:1001 /work
WORKDIR /work
USER app
RUN --mount=type=bind,source=source,target=/source,rw \
    --mount=type=bind,source=source/a,target=/one-file,rw \
    --mount=type=bind,source=source,target=/read-only \
    --mount=type=bind,from=other,source=/from,target=/other,rw \
    --mount=type=cache,target=/cache,uid=1000 \
    --mount=type=tmpfs,target=/scratch \
    --mount=type=secret,id=key,uid=1000 \
    --mount=type=secret,id=word,env=WORD \
    --network=none \
    echo half > made && echo changed > /source/a && rm old && echo written > /one-file \
    && echo mine > /other/new && echo kept > /cache/file && echo gone > /scratch/file \
    && test "$WORD" = "$(cat /run/secrets/key)" && exit 3
"#;

fn rich(place: &Place) -> Build<'_> {
    place.file("source/a", "a").file("source/b", "b");
    place.mode("source/a", 0o666);
    fs::write(place.path().join("secret"), SECRET).unwrap();
    let path = place.path().join("secret");
    place
        .build(&RICH.replace("RUN mkdir /from", "RUN mkdir -m 777 /from"))
        .arg("--on-failure=keep")
        .arg(&format!("--secret=id=key,src={}", path.display()))
        .arg(&format!("--secret=id=word,src={}", path.display()))
        .arg(&format!("--build-arg=API_TOKEN={SECRET}"))
        .arg("--build-arg=LEVEL=high")
}

#[test]
fn what_a_failed_step_left_is_seen_as_its_command_had_it() {
    let place = Place::new();
    let log = fail(rich(&place));
    assert!(
        log.contains("exit code 3") || log.contains("code 3"),
        "{log}"
    );
    let command = printed_command(&log);
    let open = |more: &[&str], script: &str| {
        let mut shell = Command::new(env!("CARGO_BIN_EXE_rbuild"));
        shell
            .args(&command)
            .args(more)
            .args(["--", "sh", "-c", script]);
        said(&shell.output().unwrap())
    };
    let look = "pwd; id -u; id -g; echo $GREETING, $LEVEL; ls; cat made; ls /data /source; cat /source/a /one-file \
                /read-only/a /other/file /other/new /cache/file; ls /scratch; test -w /source/a && echo writable; \
                echo x 2> /dev/null > /read-only/a || echo not";
    let seen = open(&[], look);
    assert_eq!(
        seen.out,
        "/work\n1000\n1001\ntwo words, high\nmade\nhalf\n/data:\ntwo\n\n/source:\na\nb\nchanged\nwritten\naother\nmine\nkept\nwritable\nnot\n",
        "{}",
        seen.err
    );
    assert_eq!(seen.code, 0);
    // What is not kept is said, and can be given.
    for words in [
        "the secret `key` is not there",
        "the secret `word` is not there",
        "the variable `API_TOKEN` is not set",
    ] {
        assert_eq!(seen.err.matches(words).count(), 1, "{words}: {}", seen.err);
    }
    let file = place.path().join("secret");
    let given = [
        format!("--secret=id=key,src={}", file.display()),
        format!("--secret=id=word,src={}", file.display()),
        "--env=API_TOKEN=mine".to_owned(),
        "--user=0".to_owned(),
    ];
    let given: Vec<&str> = given.iter().map(String::as_str).collect();
    let seen = open(
        &given,
        "cat /run/secrets/key; echo; echo $WORD $API_TOKEN; id -u; exit 7",
    );
    assert_eq!(
        seen.out,
        format!("{SECRET}\n{SECRET} mine\n0\n"),
        "{}",
        seen.err
    );
    assert_eq!((seen.code, seen.err.as_str()), (7, ""));
    // Nothing that is done in it stays, but in cache mounts.
    open(&[], "rm made; echo > /source/a; echo more >> /cache/file");
    let seen = open(&[], "cat made /source/a /cache/file");
    assert_eq!(seen.out, "half\nchanged\nkept\nmore\n");
    // No secret is anywhere in the store.
    let found = Command::new("grep")
        .args(["-r", "-l", "-a", "-F", SECRET])
        .arg(place.path().join("root"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}

#[test]
fn the_last_failed_step_needs_no_name() {
    let place = Place::new();
    place.build("FROM base\nRUN true\n").ok();
    let nothing = shell(&place, &["--", "true"]);
    assert_eq!(nothing.code, 125);
    assert!(nothing.err.contains("no step of build"), "{}", nothing.err);
    fail(
        place
            .build("FROM base\nRUN echo here > /here; false\n")
            .arg("--on-failure=keep"),
    );
    for words in [
        &["--", "cat", "/here"][..],
        &["last", "--", "cat", "/here"],
        &["last", "2", "--", "cat", "/here"],
        &["echo here", "--", "cat", "/here"],
    ] {
        let seen = shell(&place, words);
        assert_eq!(
            (seen.out.as_str(), seen.code),
            ("here\n", 0),
            "{words:?}: {}",
            seen.err
        );
    }
    // A shell reads what is piped into it.
    let mut command = place.rbuild();
    let mut child = command
        .arg("shell")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"cat /here\nexit 5\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(said(&output).out, "here\n");
    assert_eq!(output.status.code(), Some(5));
}

#[test]
fn it_is_kept_only_where_that_was_asked_for() {
    let place = Place::new();
    let dockerfile = "FROM base\nRUN echo > /one\nRUN echo half > /half; false\n";
    let log = fail(place.build(dockerfile));
    assert!(
        !log.contains("rbuild shell") && !log.contains("a shell in it"),
        "{log}"
    );
    let seen = shell(&place, &["last", "3"]);
    assert_eq!(seen.code, 125);
    for words in [
        "nothing is kept of the failed step `RUN echo half",
        "--on-failure keep",
        "shell",
    ] {
        assert!(seen.err.contains(words), "{words}: {}", seen.err);
    }
    // What it stood on can be opened, as that says.
    let (_, below) = seen.err.split_once("`rbuild shell ").unwrap();
    let words: Vec<&str> = below.split('`').next().unwrap().split(' ').collect();
    let seen = shell(&place, &[&words[..], &["--", "ls", "/one"]].concat());
    assert_eq!(seen.out, "/one\n", "{}", seen.err);
    let wrong = place.build(dockerfile).arg("--on-failure=perhaps").err();
    assert_eq!(wrong.0, 2, "{}", wrong.1);
    assert!(
        wrong.1.contains("auto, keep, shell, discard"),
        "{}",
        wrong.1
    );
}

#[test]
fn it_is_listed_pruned_and_forgotten() {
    let place = Place::new();
    let dockerfile = "FROM base\nRUN echo > /one\nRUN head -c 300000 /dev/zero > /half; false\n";
    fail(place.build(dockerfile).arg("--on-failure=keep"));
    let run = |words: &[&str]| said(&place.rbuild().args(words).output().unwrap());
    let used = run(&["du"]);
    let line = used
        .out
        .lines()
        .find(|line| line.starts_with("Failed steps"));
    assert!(line.is_some_and(|line| line.contains('1')), "{}", used.out);
    let used = run(&["du", "-v"]);
    assert!(used.out.contains("RUN head -c 300000"), "{}", used.out);
    assert_eq!(run(&["fsck"]).code, 0);
    let pruned = run(&["prune", "-f", "--filter", "type=failed-step"]);
    assert!(
        pruned.out.contains("RUN head -c 300000") || pruned.err.contains("RUN head"),
        "{}{}",
        pruned.out,
        pruned.err
    );
    assert!(
        shell(&place, &["last", "3"])
            .err
            .contains("nothing is kept")
    );
    // With the history, it goes too.
    fail(place.build(dockerfile).arg("--on-failure=keep"));
    assert_eq!(
        fs::read_dir(place.path().join("root/kept"))
            .unwrap()
            .count(),
        1
    );
    assert_eq!(run(&["builds", "rm", "last"]).code, 0);
    assert_eq!(
        fs::read_dir(place.path().join("root/kept"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn only_the_newest_are_kept() {
    let place = Place::new();
    for number in 0..10 {
        let dockerfile = format!("FROM base\nRUN echo {number} > /number; false\n");
        fail(place.build(&dockerfile).arg("--on-failure=keep"));
    }
    assert_eq!(
        fs::read_dir(place.path().join("root/kept"))
            .unwrap()
            .count(),
        8
    );
    assert_eq!(shell(&place, &["--", "cat", "/number"]).out, "9\n");
    assert_eq!(shell(&place, &["-8", "--", "cat", "/number"]).out, "2\n");
    assert!(shell(&place, &["-9"]).err.contains("nothing is kept"));
}

#[test]
fn without_a_shell_a_program_is_named() {
    let place = Place::new();
    let dockerfile = "FROM base AS tools\nFROM scratch\nCOPY --from=tools /bin/busybox /busybox\nRUN [\"/busybox\", \"false\"]\n";
    fail(place.build(dockerfile).arg("--on-failure=keep"));
    let seen = shell(&place, &[]);
    assert_eq!(seen.code, 127, "{}", seen.err);
    assert!(
        seen.err
            .contains("there is no `/bin/sh` in the file system of step"),
        "{}",
        seen.err
    );
    assert!(seen.err.contains("-- PROGRAM"), "{}", seen.err);
    let seen = shell(&place, &["--", "/busybox", "ls", "/"]);
    assert!(seen.out.contains("busybox\n"), "{}{}", seen.out, seen.err);
}

#[test]
fn a_command_that_could_not_be_started_is_kept_without_stubs() {
    let place = Place::new();
    let dockerfile = "FROM base\nRUN rm -r /sys\nRUN [\"/no/such/program\"]\n";
    fail(place.build(dockerfile).arg("--on-failure=keep"));
    let seen = shell(&place, &["--", "cat", "/data/one"]);
    assert_eq!((seen.out.as_str(), seen.code), ("1", 0), "{}", seen.err);
}

#[test]
fn results_of_steps_can_be_opened() {
    let place = Place::new();
    place.file("f", "from the context");
    let dockerfile = "FROM base\nENV COLOUR=red\nWORKDIR /place\nCOPY f .\nUSER app\nRUN --mount=type=tmpfs,target=/t id -u > /tmp/user\nRUN echo > /tmp/later\n";
    place.build(dockerfile).ok();
    place.build(dockerfile).ok();
    for build in ["-1", "-2"] {
        let seen = shell(
            &place,
            &[
                build,
                "id -u",
                "--",
                "sh",
                "-c",
                "pwd; id -u; echo $COLOUR; cat f /tmp/user; ls /tmp",
            ],
        );
        assert_eq!(
            seen.out, "/place\n1000\nred\nfrom the context1000\nuser\n",
            "{build}: {}",
            seen.err
        );
        assert!(
            seen.err.contains("what the step had mounted is not there"),
            "{}",
            seen.err
        );
    }
    assert_eq!(
        shell(&place, &["COPY f", "--", "cat", "/place/f"]).out,
        "from the context"
    );
    let image = shell(&place, &["1"]);
    assert!(image.err.contains("is an image"), "{}", image.err);
    place.rbuild().args(["prune", "-a", "-f"]).output().unwrap();
    let gone = shell(&place, &["id -u"]);
    assert!(
        gone.err.contains("the store has no result of step"),
        "{}",
        gone.err
    );
}

/// Runs rbuild on a pseudo-terminal on which `typed` is typed; what stands on it, and the exit code.
fn on_a_terminal(place: &Place, arguments: &str, typed: &str) -> (String, i32) {
    let root = place.path().join("root");
    let line = format!(
        "stty cols 200 rows 40; {} --root {} {arguments}",
        env!("CARGO_BIN_EXE_rbuild"),
        root.display()
    );
    let input = place.path().join("typed");
    fs::write(&input, typed).unwrap();
    let output = Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .stdin(fs::File::open(&input).unwrap())
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    (shown, output.status.code().unwrap_or(-1))
}

fn arguments(place: &Place, dockerfile: &str, more: &str) -> String {
    fs::write(place.path().join("Dockerfile"), dockerfile).unwrap();
    format!(
        "build -f {0}/Dockerfile --build-context=base=oci-layout://{0}/base {more} {0}/context",
        place.path().display()
    )
}

#[test]
fn on_a_terminal_it_is_kept_and_one_command_opens_it() {
    let place = Place::new();
    let dockerfile = "FROM base\nENV WHERE=inside\nWORKDIR /work\nRUN echo half > made; false\n";
    let (shown, code) = on_a_terminal(&place, &arguments(&place, dockerfile, ""), "");
    assert_eq!(code, 1, "{shown}");
    let (_, command) = shown.split_once("a shell in it: ").unwrap();
    let words: Vec<&str> = command.lines().next().unwrap().trim().split(' ').collect();
    let ["rbuild", "--root", _, "shell", build, step] = words[..] else {
        panic!("{words:?}");
    };
    let typed = "test -t 0 && echo a terminal; cat made; echo $WHERE in $PWD as $TERM; exit 4\n";
    let (shown, code) = on_a_terminal(&place, &format!("shell {build} {step}"), typed);
    assert_eq!(code, 4, "{shown}");
    for words in ["\na terminal", "half", "inside in /work as xterm"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    // Unless it is not wanted.
    let discarding = arguments(&place, dockerfile, "--no-cache --on-failure=discard");
    let (shown, code) = on_a_terminal(&place, &discarding, "");
    assert_eq!(code, 1);
    assert!(!shown.contains("a shell in it"), "{shown}");
}

#[test]
fn on_failure_shell_opens_it_at_once() {
    let place = Place::new();
    fs::write(place.path().join("secret"), SECRET).unwrap();
    let dockerfile =
        "FROM base\nARG API_TOKEN\nRUN --mount=type=secret,id=key echo half > /made; false\n";
    let more = format!(
        "--on-failure shell --build-arg API_TOKEN=known --secret id=key,src={}/secret",
        place.path().display()
    );
    let typed = "cat /made /run/secrets/key; echo; echo it is $API_TOKEN; exit 9\n";
    let (shown, code) = on_a_terminal(&place, &arguments(&place, dockerfile, &more), typed);
    assert_eq!(code, 1, "the build failed, whatever the shell did: {shown}");
    let failure = shown.find("a shell in it: rbuild").unwrap();
    for words in ["half", SECRET, "it is known"] {
        assert!(shown[failure..].contains(words), "{words}: {shown}");
    }
    // Without a terminal there is nobody to open it for.
    let log = fail(
        place
            .build(dockerfile)
            .arg("--on-failure=shell")
            .arg("--secret=id=key,env=HOME"),
    );
    printed_command(&log);
}
