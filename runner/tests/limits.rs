//! Limits that are kept, told of, and leave nothing behind.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::Place;
use rbuild_runner::JobErrorKind;
use rbuild_runner::job::*;

/// Where cgroups of this controller are made; none where this machine can't have them here.
fn parent(controller: &str) -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").expect("cgroup");
    let found = first_version(&own, controller).or_else(|| second_version(&own, controller));
    let is_writable =
        |place: &PathBuf| rustix::fs::access(place, rustix::fs::Access::WRITE_OK).is_ok();
    let found = found.filter(is_writable);
    assert!(
        found.is_some() || std::env::var_os("RBUILD_TESTS_MUST_RUN").is_none(),
        "limits need a writable cgroup with the controller `{controller}`: {own}"
    );
    found
}

/// Below this process's own cgroup.
fn first_version(own: &str, controller: &str) -> Option<PathBuf> {
    let line = own.lines().find(|line| {
        let list = line.split(':').nth(1).unwrap_or_default();
        list.split(',').any(|name| name == controller)
    });
    let path = line.and_then(|line| line.splitn(3, ':').nth(2))?;
    let top = Path::new("/sys/fs/cgroup").join(controller);
    Some(top.join(path.trim_start_matches('/')))
}

/// Beside it, where the controller is handed down.
fn second_version(own: &str, controller: &str) -> Option<PathBuf> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let place = Path::new("/sys/fs/cgroup").join(path);
    let place = place.parent()?.to_owned();
    let handed_down = fs::read_to_string(place.join("cgroup.subtree_control")).ok()?;
    let has_it = handed_down
        .split_whitespace()
        .any(|name| name == controller);
    has_it.then_some(place)
}

fn left(controller: &str) -> Vec<String> {
    let entries = fs::read_dir(parent(controller).expect("a cgroup")).expect("list");
    let names = entries.map(|entry| {
        entry
            .expect("entry")
            .file_name()
            .to_string_lossy()
            .into_owned()
    });
    names.filter(|name| name.starts_with("rbuild-")).collect()
}

#[test]
fn a_command_that_takes_too_much_memory_is_killed_and_its_peak_is_told() {
    let Some(place) = Place::new() else { return };
    if parent("memory").is_none() {
        return;
    }
    let mut job = place.job("head -c 200000000 /dev/zero | tail -c 150000000 | wc -c");
    job.limits.memory = Some(24 << 20);
    job.limits.memory_swap = Some(24 << 20);
    let outcome = place.run(job).result.expect("outcome");
    let memory = outcome.memory.expect("a report");
    assert!(memory.kills > 0, "{outcome:?}");
    let peak = memory.peak.expect("v1 keeps it");
    assert!((20 << 20..=24 << 20).contains(&peak), "{peak}");
    let mut job = place.job("head -c 2000000 /dev/zero | tail -c 1000000 | wc -c");
    job.limits.memory = Some(64 << 20);
    let ran = place.run(job);
    let memory = ran
        .result
        .as_ref()
        .expect("outcome")
        .memory
        .expect("a report");
    assert_eq!((ran.stdout.as_str(), memory.kills), ("1000000\n", 0));
    assert_eq!(left("memory"), [""; 0]);
}

#[test]
fn processes_are_counted() {
    let Some(place) = Place::new() else { return };
    if parent("pids").is_none() {
        return;
    }
    let text = "for i in 1 2 3 4 5 6 7 8 9; do sleep 9 & done 2>/dev/null; echo made";
    let mut job = place.job(text);
    job.limits.pids = Some(5);
    let ran = place.run(job);
    assert!(!ran.stdout.contains("made"), "{ran:?}");
    let mut job = place.job(text);
    job.limits.pids = Some(50);
    assert_eq!(place.run(job).stdout, "made\n");
    assert_eq!(left("pids"), [""; 0]);
}

#[test]
fn cpus_are_shared_out() {
    let Some(place) = Place::new() else { return };
    if parent("cpu").is_none() || parent("cpuset").is_none() {
        return;
    }
    let mut job = place.job("nproc; sleep 1000 & read -t 1 x; kill %1; true");
    job.limits.cpuset_cpus = Some("0".into());
    job.limits.cpu_thousandths = Some(500);
    job.limits.cpu_shares = Some(512);
    assert_eq!(place.run(job).stdout, "1\n");
    for controller in ["cpu", "cpuset"] {
        assert_eq!(left(controller), [""; 0]);
    }
}

#[test]
fn a_limit_that_cannot_be_set_is_an_error_and_nothing_runs() {
    let Some(place) = Place::new() else { return };
    if parent("cpuset").is_none() {
        return;
    }
    for (limits, words) in [
        (
            Limits {
                cpuset_cpus: Some("4000".into()),
                ..Limits::default()
            },
            "`cpuset.cpus` to `4000`",
        ),
        (
            Limits {
                pids: Some(5),
                parent: Some("/is/not/there".into()),
                ..Limits::default()
            },
            "cannot make the cgroup",
        ),
    ] {
        let mut job = place.job("echo ran");
        job.limits = limits;
        let ran = place.run(job);
        let error = ran.error();
        assert_eq!(error.kind, JobErrorKind::Limit);
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(ran.stdout, "");
    }
    assert_eq!(left("cpuset"), [""; 0]);
}

/// A cancelled command leaves none either.
#[test]
fn a_cancelled_command_leaves_no_cgroup() {
    let Some(place) = Place::new() else { return };
    if parent("pids").is_none() {
        return;
    }
    let mut job = place.job("echo up; sleep 1000");
    job.limits.pids = Some(50);
    let (handle, mut stdout, _stderr) = place.start(job);
    let handle = handle.expect("started");
    let mut word = [0; 3];
    std::io::Read::read_exact(&mut stdout, &mut word).expect("it runs");
    handle.cancel();
    assert_eq!(
        handle.wait().expect("outcome").status,
        CommandStatus::Cancelled
    );
    assert_eq!(left("pids"), [""; 0]);
}
