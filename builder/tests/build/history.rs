//! Past builds and their logs.

use std::time::Duration;

use serde_json::Value;

use crate::support::Place;

fn run(place: &Place, arguments: &[&str]) -> (i32, String, String) {
    let output = place.rbuild().args(arguments).output().unwrap();
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

fn json(place: &Place, arguments: &[&str]) -> Value {
    let (code, stdout, stderr) = run(place, arguments);
    assert_eq!(code, 0, "{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

const TALKING: &str = "FROM base\nRUN echo one; echo two >&2; echo three\nRUN echo four\n";

#[test]
fn builds_that_failed_and_were_interrupted_are_listed_too() {
    let place = Place::new();
    place.build(TALKING).arg("--tag=app:1").ok();
    place.build(TALKING).arg("--tag=app:1").ok();
    place.build("FROM base\nRUN echo oh no; false\n").err();
    place.build("FROM base\nNONSENSE\n").err();
    let mut child = (place
        .build("FROM base\nRUN echo started; sleep 1000\n")
        .command())
    .stderr(std::process::Stdio::null())
    .spawn()
    .unwrap();
    let status = |index: usize| {
        let builds = json(&place, &["builds", "--format", "json"]);
        builds[index]["status"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let has_written = || run(&place, &["logs", "last", "2"]).1 == "started\n";
    while !has_written() {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(status(0), "running");
    assert_eq!(run(&place, &["builds", "rm", "last"]).0, 1);
    child.kill().unwrap();
    child.wait().unwrap();
    while status(0) == "running" {
        // The spawner's processes end a moment after their parent.
        std::thread::sleep(Duration::from_millis(20));
    }
    let builds = json(&place, &["builds", "--format", "json"]);
    let statuses: Vec<&str> = builds
        .as_array()
        .unwrap()
        .iter()
        .map(|build| build["status"].as_str().unwrap())
        .collect();
    assert_eq!(
        statuses,
        ["interrupted", "failed", "failed", "done", "done"]
    );
    assert_eq!(
        (&builds[3]["done"], &builds[3]["cached"]),
        (&Value::from(0), &Value::from(2))
    );
    assert_eq!(builds[4]["names"][0], "docker.io/library/app:1");
    let (_, text, _) = run(&place, &["builds", "show", "-3"]);
    assert!(text.contains("the command exited with code 1"), "{text}");
    let detail = json(&place, &["builds", "show", "last", "--format", "json"]);
    assert_eq!(detail["steps"][1]["state"], "running");
    let (_, text, _) = run(&place, &["explain"]);
    assert!(
        text.contains("it was running when the build ended"),
        "{text}"
    );
    // The log of a killed build ends where it was.
    let (code, text, words) = run(&place, &["logs", "last", "2"]);
    assert_eq!((code, text.as_str()), (0, "started\n"));
    assert!(words.contains("the log ends here"), "{words}");
    let built = place.build("FROM base\nRUN echo started; sleep 0.1\n").ok();
    assert!(built.log.contains("instruction changed"), "{}", built.log);
}

#[test]
fn logs_are_whole_and_those_of_cached_steps_are_there() {
    let place = Place::new();
    place.build(TALKING).ok();
    let last = json(&place, &["builds", "--format", "json"])[0]["id"].clone();
    place.build(TALKING).ok();
    for build in ["last", "-1", "-2", last.as_str().unwrap()] {
        let (code, text, words) = run(&place, &["logs", build, "2"]);
        assert_eq!(code, 0, "{words}");
        let mut lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        // The two streams are two pipes: only within each is the order certain.
        lines.retain(|line| *line != "two");
        assert_eq!(lines, ["one", "three"]);
    }
    let (_, text, _) = run(&place, &["logs"]);
    let head = format!("(cached; from build {})", last.as_str().unwrap());
    assert!(text.contains(&head) && text.contains("four\n"), "{text}");
    let detail = json(&place, &["builds", "show", "--format", "json"]);
    assert_eq!(detail["steps"][2]["state"], "cached");
    let (code, _, words) = run(&place, &["logs", "last", "nothing like this"]);
    assert_eq!(code, 1);
    assert!(
        words.contains("has no step") && words.contains("builds show"),
        "{words}"
    );
}

#[test]
fn a_long_log_is_never_clipped() {
    let place = Place::new();
    let lines =
        "i=0; while [ $i -lt 30000 ]; do echo line $i of a log that nobody clips; i=$((i+1)); done";
    place.build(&format!("FROM base\nRUN {lines}\n")).ok();
    let (_, text, _) = run(&place, &["logs", "last", "2"]);
    assert_eq!(text.lines().count(), 30_000);
    assert!(text.ends_with("line 29999 of a log that nobody clips\n"));
    let log = std::fs::read_dir(place.path().join("root/logs")).unwrap();
    let size: u64 = log
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(
        size < text.len() as u64 / 4,
        "{size} bytes are not compressed"
    );
}

#[test]
fn a_running_build_can_be_followed() {
    let place = Place::new();
    let gate = place.context().join("gate");
    std::fs::create_dir(&gate).unwrap();
    let dockerfile = "FROM base\nRUN --mount=type=cache,id=gate,target=/gate echo before; while [ ! -e /gate/open ]; do sleep 0.05; done; echo after\n";
    let mut child = (place.build(dockerfile).command())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while run(&place, &["logs", "last", "2"]).1 != "before\n" {
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut follower = (place.rbuild())
        .args(["logs", "--follow", "last", "2"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 7];
    let mut stdout = follower.stdout.take().unwrap();
    std::io::Read::read_exact(&mut stdout, &mut first).unwrap();
    assert_eq!(&first, b"before\n");
    let mounts = std::fs::read_dir(place.path().join("root/mounts")).unwrap();
    for mount in mounts {
        std::fs::write(mount.unwrap().path().join("open"), "").unwrap();
    }
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut stdout, &mut rest).unwrap();
    assert_eq!(rest, "after\n");
    assert!(follower.wait().unwrap().success() && child.wait().unwrap().success());
}

#[test]
fn builds_are_removed_with_their_logs() {
    let place = Place::new();
    let (code, text, _) = run(&place, &["builds"]);
    assert_eq!((code, text.lines().count()), (0, 1));
    assert_eq!(run(&place, &["explain"]).0, 1);
    place.build(TALKING).ok();
    place.build(TALKING).arg("--no-cache").ok();
    let (_, text, _) = run(&place, &["builds", "rm", "-2"]);
    assert!(text.starts_with("removed 1 build, 2 logs ("), "{text}");
    assert_eq!(run(&place, &["builds", "rm"]).0, 2);
    let (_, text, _) = run(&place, &["builds", "rm", "--all"]);
    assert!(text.starts_with("removed 1 build, 2 logs ("), "{text}");
    let (_, text, _) = run(&place, &["builds"]);
    assert_eq!(text.lines().count(), 1);
    // The records stand without their builds.
    place
        .build(TALKING)
        .ok()
        .expect(&[("RUN echo one", true), ("RUN echo four", true)]);
    let (code, text, words) = run(&place, &["logs", "last", "2"]);
    assert_eq!((code, text.as_str()), (0, ""));
    assert!(words.contains("its log is not kept any more"), "{words}");
}
