//! Bad input: the message, the exit code, and a store that the next build uses as if nothing had happened.

use std::io::Write;
use std::process::Stdio;

use crate::support::Place;

/// A row: Dockerfile, exit code, words that the message must have.
const ROWS: &[(&str, i32, &[&str])] = &[
    (
        "FROM base\nRUNN true\n",
        2,
        &["Dockerfile:2", "RUNN", "RUN"],
    ),
    (
        "FROM base\nCOPY --frm=x a b\n",
        2,
        &["Dockerfile:2", "--frm"],
    ),
    ("", 2, &["no instructions"]),
    (
        "FROM base\nCOPY missing /x\n",
        1,
        &["missing", "not found", "Dockerfile:2"],
    ),
    (
        "FROM base AS build\nFROM base\nCOPY --from=biuld /a /b\n",
        1,
        &["biuld", "did you mean `build`?"],
    ),
    ("FROM base\nRUN exit 3\n", 1, &["exit", "3", "Dockerfile:2"]),
    (
        "FROM base\nRUN [\"/no/such\"]\n",
        1,
        &["/no/such", "Dockerfile:2"],
    ),
    (
        "FROM base\nUSER nobody-here\nRUN true\n",
        1,
        &["nobody-here"],
    ),
    (
        "FROM base\nRUN --mount=type=secret,id=x,required true\n",
        1,
        &["secret", "`x`", "--secret"],
    ),
    (
        "FROM base\nRUN --security=insecure true\n",
        1,
        &["insecure", "--allow"],
    ),
    (
        "FROM localhost:1/none\n",
        1,
        &["localhost:1/none", "Dockerfile:1"],
    ),
    (
        "FROM base AS build\nFROM localhost:1/none AS x\nFROM biuld\n",
        1,
        &["Dockerfile:3", "did you mean `build`?"],
    ),
    (
        "FROM scratch\nRUN true\n",
        1,
        &["Dockerfile:2", "/bin/sh", "FROM scratch"],
    ),
    ("FROM Upper\n", 1, &["Upper"]),
];

#[test]
fn messages_exit_codes_and_a_store_that_goes_on() {
    let place = Place::new();
    for (dockerfile, code, words) in ROWS {
        // Nothing here may ask a registry that is not on this machine.
        let (found, log) = place.build(dockerfile).arg("--pull=never").err();
        assert_eq!(found, *code, "{dockerfile:?}:\n{log}");
        for word in *words {
            assert!(
                log.contains(word),
                "{dockerfile:?} should say `{word}`:\n{log}"
            );
        }
        assert!(!log.contains("panicked"), "{log}");
    }
    place.build("FROM base\nRUN echo fine > /fine\n").ok();
}

#[test]
fn an_ignored_file_is_named_as_such() {
    let place = Place::new();
    place.file("hidden", "1").file(".dockerignore", "hidden\n");
    let (_, log) = place.build("FROM base\nCOPY hidden /x\n").err();
    assert!(log.contains("ignore file"), "{log}");
}

#[test]
fn a_failing_command_shows_its_last_lines() {
    let (_, log) = Place::new()
        .build("FROM base\nRUN echo the reason is here; exit 9\n")
        .err();
    assert!(
        log.contains("the reason is here") && log.contains('9'),
        "{log}"
    );
}

#[test]
fn a_failing_step_ends_those_that_run_beside_it() {
    let place = Place::new();
    let started = std::time::Instant::now();
    let (code, log) = place
        .build(
            "FROM base AS long\nRUN sleep 100\nFROM base AS failing\nRUN sleep 1; exit 3\n\
             FROM long\nCOPY --from=failing /etc /etc\n",
        )
        .err();
    assert_eq!(code, 1, "{log}");
    assert!(log.contains("code 3"), "{log}");
    assert!(started.elapsed().as_secs() < 60, "{log}");
}

#[test]
fn an_interrupted_build_ends_and_leaves_nothing_running() {
    let place = Place::new();
    let mut child = place
        .build("FROM base\nRUN echo started; sleep 987\n")
        .command()
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = String::new();
    let mut reader = std::io::BufReader::new(child.stderr.take().unwrap());
    while !log.contains("started\n")
        || !log
            .lines()
            .last()
            .is_some_and(|line| line.ends_with("started"))
    {
        let mut line = String::new();
        assert_ne!(
            std::io::BufRead::read_line(&mut reader, &mut line).unwrap(),
            0,
            "{log}"
        );
        log.push_str(&line);
    }
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(),
        rustix::process::Signal::INT,
    )
    .unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130), "{log}");
    let still_there = std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        std::fs::read(entry.path().join("cmdline"))
            .is_ok_and(|line| line.windows(9).any(|part| part == b"sleep\x00987"))
    });
    assert!(!still_there, "the command outlived its build");
    place.build("FROM base\nRUN echo fine\n").ok();
    std::io::stderr().flush().unwrap();
}

#[test]
fn an_interrupted_lookup_does_not_wait_for_the_registry() {
    let place = Place::new();
    // Accepts, and never says a word.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let mut child = place
        .build(&format!("FROM localhost:{port}/silent\n"))
        .command()
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let connection = silent.accept().unwrap();
    let started = std::time::Instant::now();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(),
        rustix::process::Signal::INT,
    )
    .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(started.elapsed().as_secs() < 10, "it waited for an answer");
    drop(connection);
}

#[test]
fn a_broken_base_is_refused_and_then_replaced() {
    let place = Place::new();
    let blobs = place.path().join("base/blobs/sha256");
    let layer = std::fs::read_dir(&blobs)
        .unwrap()
        .flatten()
        .max_by_key(|entry| entry.metadata().unwrap().len())
        .unwrap()
        .path();
    let good = std::fs::read(&layer).unwrap();
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    for (name, bytes) in [
        ("flipped", flipped.as_slice()),
        ("truncated", &good[..middle]),
    ] {
        std::fs::write(&layer, bytes).unwrap();
        let (code, log) = place.build("FROM base\nRUN echo fine\n").err();
        assert_eq!(code, 1, "{name}: {log}");
        assert!(log.contains("sha256:"), "{name} names the blob: {log}");
    }
    std::fs::write(&layer, &good).unwrap();
    place.build("FROM base\nRUN echo fine\n").ok();
}

#[test]
fn a_registry_that_is_not_there_is_named() {
    let place = Place::new();
    let (code, log) = place.build("FROM localhost:1/none\n").err();
    assert_eq!(code, 1, "{log}");
    assert!(
        log.contains("localhost:1/none")
            && log.contains("refused")
            && log.contains("help: check the name"),
        "{log}"
    );
}

#[test]
fn options_that_do_nothing_or_cannot_be_read_are_named() {
    let place = Place::new();
    let built = place
        .build("FROM base\nARG VERSION\nRUN true\n")
        .arg("--build-arg=VERSION=1")
        .arg("--build-arg=VERSON=1")
        .ok();
    assert!(built.log.contains("`VERSON`"), "{}", built.log);
    assert!(!built.log.contains("`VERSION`"), "{}", built.log);
    let built = place
        .build("FROM base AS a\nRUN true\n")
        .arg("--no-cache-filter=A,nosuch")
        .ok();
    assert!(
        built.log.contains("`nosuch`") && !built.log.contains("`A`"),
        "{}",
        built.log
    );
    let (_, log) = place
        .build("FROM base\nRUN --mount=type=secret,id=token true\n")
        .arg("--secret=id=token,src=/no/such/file")
        .err();
    assert!(log.contains("/no/such/file"), "{log}");
}

#[test]
fn a_failing_step_that_several_wait_for_is_still_shown_in_its_place() {
    let (_, log) = Place::new()
        .build(
            "FROM base AS a\nRUN exit 5\nFROM a AS b\nRUN true\nFROM a AS c\nRUN true\nFROM b\n\
             COPY --from=c /etc /etc\n",
        )
        .err();
    assert!(log.contains("Dockerfile:2"), "{log}");
}

#[test]
fn a_damaged_layer_is_noticed_and_made_again() {
    let place = Place::new();
    let dockerfile = |last: &str| format!("FROM base\nRUN echo precious > /precious\nRUN {last}\n");
    place.build(&dockerfile("cat /precious > /one")).ok();
    let snapshots = std::fs::read_dir(place.path().join("root/snapshots"))
        .unwrap()
        .flatten();
    let lost: Vec<_> = snapshots
        .map(|entry| entry.path().join("precious"))
        .filter(|path| path.exists())
        .collect();
    assert_eq!(lost.len(), 1, "{lost:?}");
    std::fs::remove_file(&lost[0]).unwrap();
    let (code, log) = place.build(&dockerfile("cat /precious > /two")).err();
    assert_eq!(code, 1, "{log}");
    assert!(
        log.contains("damaged") && log.contains("precious") && log.contains("build again"),
        "{log}"
    );
    let image = place.build(&dockerfile("cat /precious > /two")).ok().image;
    assert_eq!(image.text("two"), "precious\n");
}
