//! SIGKILL at random moments of builds, pulls, exports and prunes, and at every named point of a commit. After each: the
//! store opens and is whole, the next build is right, nothing is left behind.

mod registry;

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rbuild_cache::failpoint;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::base::{self, Workload};
use crate::place::Place;
use crate::random::Random;
use crate::verify::{build_is_right, check_by_fsck, check_tidy, check_whole};
use crate::{Result, ensure, processes, report};
use registry::Registry;

/// Bytes of the base that is pulled: enough for a download to take a while.
const BALLAST: usize = 1 << 20;

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Build,
    Pull,
    ExportArchive,
    ExportTree,
    Prune,
}

impl Work {
    const ALL: [Self; 5] = [
        Self::Build,
        Self::Pull,
        Self::ExportArchive,
        Self::ExportTree,
        Self::Prune,
    ];
}

/// A store, a workload, and what they are killed with.
struct Victim<'a> {
    place: &'a Place,
    root: PathBuf,
    base: PathBuf,
    workload: Workload,
    registry: Registry,
    /// Children that are ours: the spawner of this process.
    known: Vec<i32>,
}

pub(crate) fn prove(place: &Place, random: &mut Random, is_full: bool) -> Result<String> {
    processes::adopt_orphans()?;
    let base = place.path("base");
    base::write_base(&base, &random.bytes(BALLAST))?;
    let context = place.path("context");
    let mut victim = Victim {
        place,
        root: place.path("store"),
        workload: Workload::new(context, &base, random)?,
        registry: Registry::start(&base)?,
        base,
        known: processes::children()?,
    };
    let mut durations = [Duration::ZERO; Work::ALL.len()];
    build_is_right(place, &victim.root, &victim.workload)?;
    let rounds = if is_full { 500 } else { 40 };
    let mut killed = [0_usize; Work::ALL.len()];
    let mut done = 0;
    while done < rounds {
        let index = random.below(Work::ALL.len());
        let work = Work::ALL[index];
        let is_killed = round(&mut victim, work, &mut durations[index], random)
            .map_err(|error| format!("round {done}, {work:?}: {error}"))?;
        killed[index] += usize::from(is_killed);
        done += usize::from(is_killed);
    }
    let points = at_points(&mut victim, random)?;
    let counts: Vec<_> = Work::ALL
        .iter()
        .zip(killed)
        .map(|(work, count)| format!("{count} {work:?}"))
        .collect();
    Ok(format!(
        "{done} kills at random moments ({}), and at {points} named points",
        counts.join(", ")
    ))
}

/// One kill at a random moment; false when the work was done before it.
fn round(
    victim: &mut Victim<'_>,
    work: Work,
    duration: &mut Duration,
    random: &mut Random,
) -> Result<bool> {
    let mut command = victim.prepare(work, random)?;
    // The longest seen so far; the first time is anybody's guess.
    let longest = (*duration).max(Duration::from_millis(150));
    let moment = longest * u32::try_from(random.below(1050))? / 1000;
    let start = Instant::now();
    let mut child = spawn(&mut command)?;
    let ended = processes::wait_at_most(&mut child, moment)?;
    if let Some(status) = ended {
        ensure!(
            status.success(),
            "{work:?} failed with {status} before it was killed: {command:?}"
        );
        *duration = start.elapsed();
        processes::wait_for_orphans(&victim.known)?;
        return Ok(false);
    }
    kill(&child, random);
    child.wait()?;
    *duration = longest;
    victim.check(random)?;
    Ok(true)
}

/// Kills at every named point, each in the work that comes past it.
fn at_points(victim: &mut Victim<'_>, random: &mut Random) -> Result<usize> {
    let points = [failpoint::POINTS, failpoint::PRUNE_POINTS].concat();
    for &point in &points {
        let mut is_dead = false;
        for attempt in 0..6 {
            let work = prepare_for(victim, point, attempt)?;
            let mut command = victim.prepare(work, random)?;
            command.env("RBUILD_DIES_AT", point);
            let mut child = spawn(&mut command)?;
            let status = processes::wait_at_most(&mut child, processes::PATIENCE)?;
            if status.is_none() {
                processes::kill(&child);
            }
            let status = status.ok_or_else(|| format!("{work:?} hangs on its way to {point}"))?;
            is_dead = !status.success();
            if is_dead {
                ensure!(
                    status.code().is_none(),
                    "{work:?} failed with {status} on its way to {point}"
                );
                let checked = match point {
                    // What the proof damaged is gone, and the image that had it is not whole until it is built again.
                    "damaged-removed" => victim.check_next(random),
                    _ => victim.check(random),
                };
                checked.map_err(|error| format!("killed at {point}: {error}"))?;
                break;
            }
        }
        ensure!(
            is_dead,
            "nothing came past the point `{point}`: is it still in the code?"
        );
    }
    Ok(points.len())
}

/// Makes the store such that a work comes past `point`, and says which one; attempts differ.
fn prepare_for(victim: &mut Victim<'_>, point: &str, attempt: usize) -> Result<Work> {
    let fresh = |victim: &mut Victim<'_>| -> Result<()> { Ok(fs::remove_dir_all(&victim.root)?) };
    match point {
        _ if point.starts_with("store-") || point == "mount-prepared" => fresh(victim)?,
        "dead-lease-removed" => {
            let work = victim.root.join("work/00112233445566778899aabb");
            fs::create_dir_all(work.join("0-step"))?;
            fs::write(work.with_extension("lock"), "")?;
        }
        "damaged-removed" => {
            // A file of the base is missing: noticed when a step runs on it.
            let lost = find(&victim.root.join("snapshots"), "busybox")?;
            fs::remove_file(lost)?;
        }
        _ => {}
    }
    if point.starts_with("prune-") {
        return Ok(Work::Prune);
    }
    let works = [Work::Build, Work::Pull, Work::ExportArchive, Work::Prune];
    Ok(works[attempt % works.len()])
}

/// A file of this name in a tree.
fn find(root: &Path, name: &str) -> Result<PathBuf> {
    let mut waiting = vec![root.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_name() == name {
                return Ok(entry.path());
            }
            if entry.file_type()?.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    Err(format!("no `{name}` beneath {}", root.display()).into())
}

impl Victim<'_> {
    /// A command with something to do.
    fn prepare(&mut self, work: Work, random: &mut Random) -> Result<Command> {
        let (place, root) = (self.place, &self.root);
        match work {
            Work::Build => {
                self.workload.change(random)?;
                Ok(self.workload.command(place, root))
            }
            Work::Pull => {
                // Another image each time: new layers, new blobs.
                let name = self.registry.make_image(random)?;
                let mut command = place.rbuild(root);
                command
                    .args([
                        "build",
                        "--progress",
                        "plain",
                        "--pull",
                        "-t",
                        "pulled",
                        "-f",
                        "-",
                    ])
                    .arg(self.base.join("blobs"));
                let text = format!("FROM {name}\nRUN cat /ballast/* > /sum\n");
                let input = self.place.path("Dockerfile.pull");
                fs::write(&input, text)?;
                command.stdin(fs::File::open(input)?);
                Ok(command)
            }
            Work::ExportArchive | Work::ExportTree => {
                // What is exported is new, so that it has to be packed.
                self.workload.change(random)?;
                let mut command = self.workload.command(place, root);
                let destination = place.path(&format!("out-{}", random.next()));
                let kind = if work == Work::ExportTree {
                    "local"
                } else {
                    "oci"
                };
                command.arg(format!(
                    "--output=type={kind},dest={}",
                    destination.display()
                ));
                Ok(command)
            }
            Work::Prune => {
                // There has to be something to prune.
                self.workload.change(random)?;
                processes::run(&mut self.workload.command(place, root))?;
                let mut command = place.rbuild(root);
                command.args(["prune", "-f", "--max-used-space", "1kb"]);
                if random.chance(30) {
                    command.arg("-a");
                }
                Ok(command)
            }
        }
    }

    /// After a kill: everything ends, the store opens and is whole, the next build is right and leaves nothing.
    fn check(&mut self, random: &mut Random) -> Result<()> {
        processes::wait_for_orphans(&self.known)?;
        // Who is killed while it makes the store leaves none yet.
        if self.root.join("VERSION").exists() {
            // Before anything has cleaned up.
            check_by_fsck(self.place, &self.root)?;
            check_whole(&self.root)?;
        }
        self.check_next(random)
    }

    /// The next build is right and leaves nothing.
    fn check_next(&mut self, random: &mut Random) -> Result<()> {
        if random.chance(50) {
            self.workload.change(random)?;
        }
        // A damaged snapshot is told once, and made anew by the build after that.
        if let Err(error) = build_is_right(self.place, &self.root, &self.workload) {
            ensure!(
                error.to_string().contains("damaged"),
                "the next build: {error}"
            );
            report::say("kill: a build reported a damaged snapshot, as it should");
            build_is_right(self.place, &self.root, &self.workload)?;
        }
        processes::wait_for_orphans(&self.known)?;
        check_tidy(&self.root)?;
        for entry in fs::read_dir(self.place.path(""))? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with("out-") {
                if entry.file_type()?.is_dir() {
                    fs::remove_dir_all(entry.path())?;
                } else {
                    fs::remove_file(entry.path())?;
                }
            }
        }
        Ok(())
    }
}

fn spawn(command: &mut Command) -> Result<Child> {
    Ok(command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?)
}

/// Kills the process alone, as when memory is short, or its group, as a CI runner does.
fn kill(child: &Child, random: &mut Random) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    match pid {
        // It may have ended by itself meanwhile.
        Some(pid) if random.chance(30) => _ = kill_process_group(pid, Signal::KILL),
        _ => processes::kill(child),
    }
}
