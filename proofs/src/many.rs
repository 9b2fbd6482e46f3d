//! Many processes on one store: builds of overlapping Dockerfiles, exports and prunes at once, some of them killed, some in
//! pid namespaces of their own.
//!
//! Each step that matters writes a line when it starts and one when it ends into a cache mount that all share: two of one
//! step at the same time, or two in a round where nobody died, would stand there.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::base;
use crate::place::Place;
use crate::processes::{self, PATIENCE};
use crate::random::Random;
use crate::tree::{self, Tree};
use crate::verify::{check_by_fsck, check_tidy, check_whole, has_verb};
use crate::{Result, ensure};

/// Builds at once.
const BUILDS: usize = 8;

/// Dockerfiles among them: each is built by two processes at the same time.
const VARIANTS: usize = 4;

/// Steps that all Dockerfiles of a round share.
const SHARED: usize = 3;

struct Round<'a> {
    place: &'a Place,
    root: &'a Path,
    base: &'a Path,
    context: PathBuf,
    number: usize,
    has_prune: bool,
}

/// One process of a round.
struct Player {
    child: Child,
    title: String,
    output: PathBuf,
    /// None for a prune.
    variant: Option<usize>,
    is_killed: bool,
}

pub(crate) fn prove(place: &Place, random: &mut Random, is_full: bool) -> Result<String> {
    processes::adopt_orphans()?;
    let rounds = if is_full { 200 } else { 8 };
    let base = place.path("base");
    base::write_base(&base, &random.bytes(50_000))?;
    let root = place.path("store");
    let known = processes::children()?;
    let (has_prune, has_fsck) = (has_verb(place, "prune"), has_verb(place, "fsck"));
    let (mut killed, mut ran, mut reused, mut inherited) = (0, 0, 0, 0);
    for number in 0..rounds {
        let round = Round {
            place,
            root: &root,
            base: &base,
            context: place.directory("context")?,
            number,
            has_prune,
        };
        let (dead, starts, taken_over) = round
            .play(random)
            .and_then(|result| {
                processes::wait_for_orphans(&known)?;
                Ok(result)
            })
            .map_err(|error| format!("round {number}: {error}"))?;
        killed += dead;
        inherited += taken_over;
        ran += starts;
        reused += BUILDS * (SHARED + 1) - starts.min(BUILDS * (SHARED + 1));
        let check = || -> Result<()> {
            check_whole(&root)?;
            check_tidy(&root)?;
            if has_fsck && number % 10 == 0 {
                check_by_fsck(place, &root)?;
            }
            Ok(())
        };
        check().map_err(|error| format!("after round {number}: {error}"))?;
    }
    Ok(format!(
        "{rounds} rounds of {BUILDS} builds{}, a third of them in pid namespaces: {ran} runs of steps, {reused} taken from \
        another process or the cache, {killed} processes killed and {inherited} of their steps taken over; no step ran twice at once, no hang, no lock left",
        if has_prune { ", prunes" } else { "" },
    ))
}

impl Round<'_> {
    /// Name of a step in the trace.
    fn step(&self, number: usize) -> String {
        format!("r{}s{number}", self.number)
    }

    /// A Dockerfile: the steps that all have, then one that two builds have.
    fn dockerfile(&self, variant: usize) -> String {
        let run = |name: &str| {
            format!(
                "RUN --mount=type=cache,id=trace,target=/trace,sharing=shared echo start {name} >> /trace/log && \
                sleep 0.05 && echo {name} > /{name} && echo end {name} >> /trace/log\n"
            )
        };
        let mut text = "FROM base\nCOPY input /input\n".to_owned();
        for number in 0..SHARED {
            text += &run(&self.step(number));
        }
        text += &run(&format!("{}v{variant}", self.step(SHARED)));
        text
    }

    fn expected(&self, variant: usize, input: &[u8]) -> Tree {
        let mut expected = Tree::from([("input".into(), tree::file(0o644, input))]);
        let mut add = |name: String| {
            let content = format!("{name}\n");
            expected.insert(name.into(), tree::file(0o644, content.as_bytes()));
        };
        for number in 0..SHARED {
            add(self.step(number));
        }
        add(format!("{}v{variant}", self.step(SHARED)));
        expected
    }

    /// Starts everything, kills somebody now and then, waits for all, and checks; how many were killed, how many steps
    /// ran, and how many of those were taken over from the dead.
    fn play(&self, random: &mut Random) -> Result<(usize, usize, usize)> {
        let input = random.bytes(2000);
        fs::write(self.context.join("input"), &input)?;
        for variant in 0..VARIANTS {
            let path = self.context.join(format!("Dockerfile.{variant}"));
            fs::write(path, self.dockerfile(variant))?;
        }
        fs::write(self.context.join(".dockerignore"), "Dockerfile*\n")?;
        let mut players = Vec::new();
        for index in 0..BUILDS {
            players.push(self.start_build(index, random)?);
        }
        if self.has_prune {
            players.push(self.start_prune()?);
        }
        let kills = random.chance(40);
        if kills {
            std::thread::sleep(Duration::from_millis(random.below(1500) as u64));
            let victim = random.below(BUILDS);
            let player = &mut players[victim];
            if player.child.try_wait()?.is_none() {
                processes::kill(&player.child);
                player.is_killed = true;
            }
        }
        let dead = players.iter().filter(|player| player.is_killed).count();
        wait_for_all(&mut players)?;
        let store = rbuild_cache::Store::open(self.root)?;
        for (index, player) in players.iter().enumerate() {
            let (Some(variant), false) = (player.variant, player.is_killed) else {
                continue;
            };
            let image = store
                .image(&format!("docker.io/library/proof{index}:latest"))?
                .ok_or_else(|| format!("{} left no image", player.title))?;
            let found = tree::of_chain(&store, &image.chain)?;
            if let Some(wrong) = tree::lacks(&self.expected(variant, &input), &found) {
                return Err(format!("{}: {wrong}", player.title).into());
            }
        }
        let (runs, taken_over) = self.check_trace(dead)?;
        Ok((dead, runs, taken_over))
    }

    fn start_build(&self, index: usize, random: &mut Random) -> Result<Player> {
        let variant = index % VARIANTS;
        let mut command = self.place.rbuild(self.root);
        command
            .args([
                "build",
                "--progress",
                "plain",
                "-t",
                &format!("proof{index}"),
            ])
            .arg("-f")
            .arg(self.context.join(format!("Dockerfile.{variant}")))
            .arg(format!(
                "--build-context=base=oci-layout://{}",
                self.base.display()
            ));
        // There is no push yet: an archive packs the same layers.
        if random.chance(40) {
            let archive = self.place.path(&format!("out{index}.tar"));
            command.arg(format!("--output=type=oci,dest={}", archive.display()));
        }
        command.arg(&self.context);
        let in_namespace = random.chance(33);
        if in_namespace {
            command = in_pid_namespace(&command);
        }
        self.start(
            command,
            format!(
                "build {index}{}",
                if in_namespace {
                    " in a pid namespace"
                } else {
                    ""
                }
            ),
            Some(variant),
        )
    }

    fn start_prune(&self) -> Result<Player> {
        let mut command = self.place.rbuild(self.root);
        // Not the cache mounts: the trace is in one.
        command.args([
            "prune",
            "-f",
            "--max-used-space",
            "1kb",
            "--filter",
            "type=step",
        ]);
        self.start(command, "prune".to_owned(), None)
    }

    fn start(&self, mut command: Command, title: String, variant: Option<usize>) -> Result<Player> {
        let output = self.place.path(&format!("{}.log", title.replace(' ', "-")));
        let log = fs::File::create(&output)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn()?;
        Ok(Player {
            child,
            title,
            output,
            variant,
            is_killed: false,
        })
    }

    /// Reads the trace of this round: starts and ends of a step alternate, and without a death each step ran once.
    fn check_trace(&self, dead: usize) -> Result<(usize, usize)> {
        let log = find_log(&self.root.join("mounts"))?;
        let text = fs::read_to_string(&log)?;
        let mut open: BTreeMap<&str, bool> = BTreeMap::new();
        let mut starts: BTreeMap<&str, usize> = BTreeMap::new();
        let mut broken = 0;
        for line in text.lines() {
            match line.split_once(' ') {
                Some(("start", step)) => {
                    // One that started and did not end died before this one started.
                    broken += usize::from(open.insert(step, true) == Some(true));
                    *starts.entry(step).or_default() += 1;
                }
                Some(("end", step)) => {
                    ensure!(
                        open.insert(step, false) == Some(true),
                        "step {step} ended twice: it ran twice at once:\n{text}"
                    );
                }
                _ => return Err(format!("a torn line in the trace: `{line}`").into()),
            }
        }
        ensure!(
            broken <= dead,
            "{broken} steps were started again although {dead} builds died:\n{text}"
        );
        let repeated = starts.values().filter(|&&count| count > 1).count();
        ensure!(
            repeated <= dead || self.has_prune,
            "{repeated} steps ran again although {dead} builds died:\n{text}"
        );
        fs::remove_file(log)?;
        Ok((starts.values().sum(), broken))
    }
}

/// The same command as process 1 of a pid namespace; it dies with the process that made it.
fn in_pid_namespace(command: &Command) -> Command {
    let mut wrapped = Command::new("unshare");
    wrapped
        .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(command.get_program())
        .args(command.get_args());
    wrapped
}

/// Waits for every process; one that hangs is described and ends the proof.
fn wait_for_all(players: &mut [Player]) -> Result<()> {
    let start = Instant::now();
    for index in 0..players.len() {
        let left = PATIENCE.saturating_sub(start.elapsed());
        let status = processes::wait_at_most(&mut players[index].child, left)?;
        let Some(status) = status else {
            let told: Vec<_> = players
                .iter_mut()
                .filter_map(|player| {
                    if !matches!(player.child.try_wait(), Ok(None)) {
                        return None;
                    }
                    let pid = i32::try_from(player.child.id()).unwrap_or_default();
                    let told = format!("{}: {}", player.title, processes::describe(pid));
                    processes::kill(&player.child);
                    Some(told)
                })
                .collect();
            return Err(
                format!("hangs after {} s: {}", PATIENCE.as_secs(), told.join("; ")).into(),
            );
        };
        let player = &players[index];
        ensure!(
            status.success() || player.is_killed,
            "{} ended with {status}:\n{}",
            player.title,
            fs::read_to_string(&player.output).unwrap_or_default()
        );
    }
    Ok(())
}

fn find_log(mounts: &Path) -> Result<PathBuf> {
    for entry in fs::read_dir(mounts)? {
        let log = entry?.path().join("log");
        if log.exists() {
            return Ok(log);
        }
    }
    Err("no step left a trace".into())
}
