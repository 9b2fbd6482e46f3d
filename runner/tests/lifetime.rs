//! Nothing outlives what started it.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::Place;
use rbuild_runner::JobErrorKind;
use rbuild_runner::job::*;

/// Processes whose command line has `mark` in it.
fn processes_with(mark: &str) -> usize {
    fs::read_dir("/proc")
        .expect("proc")
        .filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok())
        .filter(|line| String::from_utf8_lossy(line).contains(mark))
        .count()
}

/// Waits until there is one. A process that is just becoming another program has no command line for a moment.
fn wait_until_there(mark: &str) -> Vec<rustix::process::Pid> {
    let start = Instant::now();
    loop {
        let names = fs::read_dir("/proc").expect("proc").filter_map(Result::ok);
        let found: Vec<_> = names
            .filter(|entry| {
                let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&line).contains(mark)
            })
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter_map(rustix::process::Pid::from_raw)
            .collect();
        if !found.is_empty() {
            return found;
        }
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{mark} is not there"
        );
        std::thread::yield_now();
    }
}

/// Waits until none is left; the kernel takes a moment to end a whole namespace.
fn wait_until_gone(mark: &str) {
    let start = Instant::now();
    while processes_with(mark) > 0 {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{mark} is still there"
        );
        std::thread::yield_now();
    }
}

/// A command with children that ignore signals, in other sessions.
fn stubborn(mark: &str) -> String {
    format!(
        "trap '' TERM INT HUP; for i in 1 2 3; do setsid sh -c 'trap \"\" TERM INT HUP; sleep {mark} & sleep {mark}' & done; \
         echo started; sleep {mark}"
    )
}

#[test]
fn cancelling_kills_grandchildren() {
    let Some(place) = Place::new() else { return };
    for drops in [false, true] {
        let mark = format!("7712{}", i32::from(drops));
        let (handle, stdout, _stderr) = place.start(place.job(&stubborn(&mark)));
        let handle = handle.expect("started");
        let mut stdout = BufReader::new(stdout);
        stdout.read_line(&mut String::new()).expect("started");
        wait_until_there(&mark);
        if drops {
            drop(handle);
            // End of file comes when the last of them is gone.
            stdout.read_to_end(&mut Vec::new()).expect("end");
        } else {
            let canceller = handle.canceller();
            let waiter = std::thread::spawn(move || handle.wait());
            canceller.cancel();
            let outcome = waiter.join().expect("join").expect("outcome");
            assert_eq!(outcome.status, CommandStatus::Cancelled);
            assert_eq!(processes_with(&mark), 0);
        }
        wait_until_gone(&mark);
    }
    assert_eq!(place.sh("echo still works"), "still works\n");
}

#[test]
fn background_processes_end_with_the_command() {
    let Some(place) = Place::new() else { return };
    place.sh("setsid sleep 77345 & exit 0");
    assert_eq!(processes_with("77345"), 0);
}

#[test]
fn no_zombies_and_no_mounts_stay() {
    let Some(place) = Place::new() else { return };
    let before = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    for _ in 0..20 {
        place.sh("true");
    }
    assert_eq!(
        fs::read_to_string("/proc/self/mountinfo").expect("mountinfo"),
        before
    );
    let zombies = fs::read_dir("/proc/self/task")
        .expect("tasks")
        .filter_map(Result::ok)
        .filter_map(|task| {
            fs::read_to_string(task.path().join("children"))
                .ok()
                .filter(|children| !children.trim().is_empty())
        });
    assert_eq!(zombies.collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn cancelling_file_work_ends_its_worker() {
    let Some(place) = Place::new() else { return };
    // Unpacking from a fifo that nobody writes to waits for ever.
    let fifo = place.directory.path().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .expect("mkfifo");
    let job = UnpackJob {
        blob: fifo,
        target: place.new_directory(),
        diff_id: String::new(),
    };
    let handle = place.spawner.begin_unpack(job).expect("started");
    handle.cancel();
    let error = handle.wait().expect_err("cancelled");
    assert!(
        matches!(error.kind, JobErrorKind::Cancelled | JobErrorKind::Files),
        "{error}"
    );
}

/// Set for the process that [`a_killed_parent_leaves_nothing`] starts of itself and kills.
const ROLE: &str = "RBUILD_TEST_PARENT_TO_BE_KILLED";

fn be_killed() {
    let Some(place) = Place::new() else { return };
    let (handle, mut stdout, _stderr) = place.start(place.job(&stubborn("77456")));
    let _handle = handle.expect("started");
    stdout.read_exact(&mut [0; 8]).expect("started");
    let line = format!("ready {}\n", place.directory.path().display());
    rustix::io::write(std::io::stdout(), line.as_bytes()).expect("tell");
    std::thread::sleep(Duration::from_mins(1));
}

#[test]
fn a_killed_parent_leaves_nothing() {
    if std::env::var_os(ROLE).is_some() {
        return be_killed();
    }
    if !common::has_privileges() {
        return;
    }
    let mut parent = Command::new(std::env::current_exe().expect("exe"))
        .args(["a_killed_parent_leaves_nothing", "--nocapture", "--exact"])
        .env(ROLE, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("spawn");
    let lines = BufReader::new(parent.stdout.take().expect("stdout")).lines();
    let ready = lines
        .map(|line| line.expect("line"))
        .find(|line| line.contains("ready "))
        .expect("ready");
    let directory = ready.split("ready ").nth(1).expect("path").to_owned();
    wait_until_there("77456");
    parent.kill().expect("kill");
    parent.wait().expect("reap");
    wait_until_gone("77456");
    assert!(
        !fs::read_to_string("/proc/self/mountinfo")
            .expect("mountinfo")
            .contains(&directory)
    );
    fs::remove_dir_all(directory).expect("nothing is busy");
}

/// The session of a process, as its `stat` tells it: 0 when the session's leader is in an outer pid
/// namespace, which is where a CI runner's often is.
fn session_of(process: &str) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("stat");
    // The name in parentheses may hold spaces; state, parent and group follow it.
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    let session = fields.split_whitespace().nth(3).expect("a session");
    session.parse().expect("a number")
}

#[test]
fn the_terminals_interrupt_does_not_reach_the_spawner() {
    let Some(place) = Place::new() else { return };
    let session = session_of("self");
    let (handle, stdout, _stderr) = place.start(place.job("echo started; sleep 77567"));
    let handle = handle.expect("started");
    BufReader::new(stdout)
        .read_line(&mut String::new())
        .expect("started");
    for pid in wait_until_there("77567") {
        assert_ne!(session_of(&pid.as_raw_nonzero().to_string()), session);
    }
    handle.cancel();
    assert_eq!(
        handle.wait().expect("outcome").status,
        CommandStatus::Cancelled
    );
}
