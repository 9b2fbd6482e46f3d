//! Limits of steps as a user meets them, and what the history tells of what steps used.

use crate::support::Place;

#[test]
fn a_step_without_memory_says_so_and_what_it_used() {
    let place = Place::new();
    // The shell keeps what it reads.
    let dockerfile =
        "FROM base\nRUN a=$(cat /dev/zero | head -c 99000000 | tr '\\0' x); echo ${#a}\n";
    let build = place.build(dockerfile);
    let (code, log) = build.arg("--memory=24m").arg("--memory-swap=24m").err();
    assert_eq!(code, 1);
    for words in [
        "may use 24 MiB of memory",
        "most in use at a time: 2",
        "`--memory`",
    ] {
        assert!(log.contains(words), "{words}: {log}");
    }
}

#[test]
fn what_steps_used_is_in_the_history() {
    let place = Place::new();
    place.build("FROM base\nRUN true\n").ok();
    let show = |arguments: &[&str]| {
        let mut command = place.rbuild();
        let output = command.args(["builds", "show"]).args(arguments).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let text = show(&[]);
    assert!(text.contains("CPU") && text.contains("MEMORY"), "{text}");
    let row = text.lines().find(|line| line.contains("RUN true")).unwrap();
    assert!(row.contains(" MB") || row.contains(" kB"), "{row}");
    let json: serde_json::Value = serde_json::from_str(&show(&["--format=json"])).unwrap();
    let step = json["steps"].as_array().unwrap().last().unwrap();
    assert!(step["peak_memory"].as_u64().unwrap() > 100_000, "{step}");
    assert!(step["cpu_ms"].is_u64(), "{step}");
}

#[test]
fn limits_that_are_set_reach_the_step() {
    let place = Place::new();
    let dockerfile = "FROM base\nRUN cat /proc/self/status > /status\n";
    let build = place.build(dockerfile);
    let build = build.arg("--resource=cpuset-cpus=0,cpus=0.5");
    let done = build.arg("--pids-limit=20").ok();
    let status = done.image.text("status");
    assert!(status.contains("Cpus_allowed_list:\t0\n"), "{status}");
}
