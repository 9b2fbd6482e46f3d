//! Sandboxes that are made before their job is known.

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use common::Place;
use rbuild_runner::job::*;

/// How long a sandbox that was made ahead has waited, at least, when its job comes.
const PAUSE: Duration = Duration::from_secs(1);

/// Prints for how many milliseconds the command's process has been there; `/proc/self/stat` counts from the boot in hundredths.
const AGE: &str = "read -r up _ </proc/uptime; read -r stat </proc/1/stat; set -- ${stat##*) }; shift 19; \
    echo $(( ${up%.*}${up#*.}0 - $1 * 10 ))";

fn usual(place: &Place, text: &str) -> RunJob {
    RunJob {
        network: Network::Host,
        ..place.job(text)
    }
}

fn run_a_first_one(place: &Place) {
    let outcome = place.run(usual(place, "true")).result.expect("runs");
    assert_eq!(outcome.status, CommandStatus::Exited(0));
    sleep(PAUSE);
}

/// The age of the process of the job that is run after another one.
fn age_of_the_next(place: &Place, next: RunJob) -> u64 {
    run_a_first_one(place);
    let ran = place.run(next);
    let age = ran.stdout.lines().next().and_then(|line| line.parse().ok());
    age.unwrap_or_else(|| panic!("{ran:?}"))
}

#[test]
fn a_usual_job_finds_its_sandbox_made() {
    let Some(place) = Place::new() else { return };
    let age = age_of_the_next(&place, usual(&place, AGE));
    assert!(age + 20 >= 1000, "made for this job: {age} ms");
    // The clock of the kernel is coarse.
    assert!(age_of_the_next(&place, usual(&place, AGE)) + 20 >= 1000);
}

#[test]
fn an_unusual_job_has_one_of_its_own() {
    let Some(place) = Place::new() else { return };
    let small_shm = RunJob {
        shm_size: 1 << 20,
        ..usual(&place, AGE)
    };
    let offline = RunJob {
        network: Network::None,
        ..usual(&place, AGE)
    };
    let insecure = RunJob {
        confinement: Confinement::Insecure,
        ..usual(&place, AGE)
    };
    for job in [small_shm, offline, insecure] {
        let age = age_of_the_next(&place, job);
        assert!(age < 980, "{age} ms");
    }
}

/// A file system on a directory, for the time that this lives.
struct Mounted(PathBuf);

impl Mounted {
    fn on(path: PathBuf) -> Self {
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "none"])
            .arg(&path)
            .status();
        assert!(done.expect("mount").success());
        Self(path)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn what_is_mounted_meanwhile_is_seen() {
    let Some(place) = Place::new() else { return };
    run_a_first_one(&place);
    let host = place.new_directory();
    fs::write(host.join("file"), "covered\n").expect("write");
    let mounted = Mounted::on(host.clone());
    fs::write(host.join("file"), "on top\n").expect("write");
    let mut job = usual(&place, "cat /there/file");
    job.mounts = vec![SandboxMount {
        target: b"/there".to_vec(),
        kind: SandboxMountKind::Directory {
            root: host,
            source: Vec::new(),
            access: Access::ReadOnly,
        },
    }];
    let ran = place.run(job);
    drop(mounted);
    assert_eq!(ran.stdout, "on top\n", "{ran:?}");
}
