//! Whatever a step does to outlive its build, nothing of it stays.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::Place;

/// A number that nothing else sleeps for.
fn mark() -> String {
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap();
    format!(
        "{}.{:09}",
        90_000 + since.as_secs() % 1000,
        since.subsec_nanos()
    )
}

fn processes_with(mark: &str) -> usize {
    let lines = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let lines = lines.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines
        .filter(|line| String::from_utf8_lossy(line).contains(mark))
        .count()
}

/// Nothing runs, nothing is mounted, and nothing unfinished lies in the store. The kernel may take a moment.
#[track_caller]
fn assert_nothing_left(place: &Place, mark: &str) {
    let start = Instant::now();
    let path = place.path().display().to_string();
    loop {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let (processes, mounts) = (processes_with(mark), mounts.matches(&path).count());
        if (processes, mounts) == (0, 0) {
            break;
        }
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{processes} processes and {mounts} mounts are left"
        );
        std::thread::yield_now();
    }
    let work = place.path().join("root/work");
    let left: Vec<_> = fs::read_dir(&work)
        .into_iter()
        .flatten()
        .flatten()
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_a_step_starts_ends_with_it() {
    let mark = mark();
    let rows = [
        // Daemons: of another session, orphaned, deaf to signals, still holding the output.
        format!(
            "(setsid sh -c 'trap \"\" TERM INT HUP; sleep {mark} & sleep {mark}' &) ; echo done"
        ),
        format!("trap '' TERM INT HUP QUIT; sleep {mark} >/dev/null 2>&1 </dev/null & echo done"),
        // Many.
        format!(
            "for i in 0 1 2 3 4 5 6 7 8 9; do for j in 0 1 2 3 4 5 6 7 8 9; do sleep {mark} & done; done; echo done"
        ),
    ];
    let place = Place::new();
    for command in rows {
        let built = place.build(&format!("FROM base\nRUN {command}\n")).ok();
        assert!(built.log.contains("done"), "{command}: {}", built.log);
        assert_nothing_left(&place, &mark);
    }
}

/// The end of a step is the end of its process, not of its output.
#[test]
fn a_step_that_closes_its_output_is_waited_for() {
    let place = Place::new();
    let command = "exec >&- 2>&-; sleep 0.3; touch /reached";
    let built = place.build(&format!("FROM base\nRUN {command}\n")).ok();
    assert_eq!(built.image.text("reached"), "");
    let (code, log) = place.build("FROM base\nRUN exec >&- 2>&-; exit 7\n").err();
    assert_eq!(code, 1);
    assert!(log.contains("code 7"), "{log}");
}

/// Much output, without a line's end and in many lines, is neither lost nor kept in memory.
#[test]
fn a_flood_of_output_ends_no_build() {
    let place = Place::new();
    let dockerfile = "FROM base\nRUN head -c 8000000 /dev/zero | tr '\\0' x; echo; echo after the flood\n\
        RUN i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; head -c 1000000 /dev/urandom; echo; echo after the lines\n";
    let built = place.build(dockerfile).ok();
    for words in ["after the flood", "line 19999", "after the lines"] {
        assert!(built.log.contains(words), "{words}");
    }
}

/// A caller that stops reading, such as `rbuild … | head -1`, ends with an error or well, but it ends, and leaves nothing.
#[test]
fn a_reader_that_leaves_hangs_no_build() {
    let mark = mark();
    let place = Place::new();
    let dockerfile = format!(
        "FROM base\nRUN sleep {mark} & i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done\n"
    );
    let mut command = place.build(&dockerfile).command();
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    child.wait().unwrap();
    assert_nothing_left(&place, &mark);
}

/// How a build is ended from outside, and what it says of it.
#[test]
fn signals_end_a_build_with_all_it_started() {
    for (signal, code) in [("INT", Some(130)), ("TERM", Some(143)), ("KILL", None)] {
        let mark = mark();
        let place = Place::new();
        let dockerfile = format!(
            "FROM base\nRUN trap '' TERM INT HUP; setsid sh -c 'trap \"\" TERM INT; sleep {mark}' & sleep {mark}; sleep {mark}\n"
        );
        let mut command = place.build(&dockerfile).command();
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        while processes_with(&mark) < 2 {
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "it did not start"
            );
            std::thread::yield_now();
        }
        let kill = ["-s", signal, &child.id().to_string()];
        assert!(Command::new("kill").args(kill).status().unwrap().success());
        let status = child.wait().unwrap();
        assert_eq!(status.code(), code, "{signal}");
        if signal == "KILL" {
            // Its directory is the next build's to clean up.
            place.build("FROM base\n").ok();
        }
        assert_nothing_left(&place, &mark);
    }
}

/// How many processes a step starts, and how many builds are made; `RBUILD_MANY=1` takes the large numbers.
fn many(few: u32, all: u32) -> u32 {
    if std::env::var_os("RBUILD_MANY").is_some() {
        all
    } else {
        few
    }
}

#[test]
fn a_step_of_many_processes_ends_whole() {
    let count = many(1000, 10_000);
    let place = Place::new();
    // Each waits for a writer that never comes: no timer, no memory of its own to speak of.
    let dockerfile = format!(
        "FROM base\nADD fifo.tar /\n\
         RUN i=0; while [ $i -lt {count} ]; do (read x < /fifo) & i=$((i+1)); done; ls /proc | grep -c '^[0-9]' > /count\n"
    );
    write_fifo(&place.context().join("fifo.tar"));
    let built = place.build(&dockerfile).ok();
    let counted: u32 = built.image.text("count").trim().parse().unwrap();
    assert!(counted > count, "{counted}");
    assert_nothing_left(&place, "< /fifo");
}

fn write_fifo(path: &Path) {
    let mut tar = tar::Builder::new(fs::File::create(path).unwrap());
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Fifo);
    header.set_size(0);
    header.set_mode(0o644);
    tar.append_data(&mut header, "fifo", std::io::empty())
        .unwrap();
    tar.finish().unwrap();
}

/// Builds with a private network and limits, one after another, in a network namespace that forwards: afterwards there are as many
/// mounts, interfaces, tables, cgroups and processes as before. The kernel ends what a build leaves to it a moment after the build has
/// ended: that is waited for, ten seconds at most.
#[test]
fn many_builds_leave_no_trace() {
    const REPEAT: &str = r#"
echo 1 > /proc/sys/net/ipv4/ip_forward
processes() { ls /proc | grep -c '^[0-9]'; }
own=$(processes)
traces() {
    grep -cF "${ROOT%/root}" /proc/self/mountinfo || true; ip -o link | wc -l; nft list tables | wc -l; ip route | wc -l
    find /sys/fs/cgroup -name 'rbuild-*' | wc -l; processes; ls "$ROOT/work" | wc -l
}
"$@" >/dev/null 2>&1
is_settled() { [ "$(ip -o link | wc -l)" = 1 ] && [ -z "$(nft list tables)" ] && [ "$(processes)" -le "$own" ]; }
settle() { for _ in $(seq 1000); do if is_settled; then return; fi; sleep 0.01; done; }
settle; before=$(traces)
i=0; while [ $i -lt $COUNT ]; do "$@" >/dev/null 2>&1; i=$((i+1)); done
settle; after=$(traces)
echo "before" $before; echo "after " $after
[ "$before" = "$after" ]
"#;
    let place = Place::new();
    let build = place
        .build("FROM base\nRUN true\n")
        .arg("--no-cache")
        .arg("--memory=64m");
    let build = build.command();
    let output = Command::new("unshare")
        .args([
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ])
        .args(["sh", "-euc", REPEAT, "repeat"])
        .arg(build.get_program())
        .args(build.get_args())
        .env("ROOT", place.path().join("root"))
        .env("COUNT", many(20, 1000).to_string())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}
