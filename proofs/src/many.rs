//! Many processes on one store: builds of overlapping Dockerfiles, exports, pushes, a prune and a check at once, some of them
//! killed, some in pid namespaces of their own.
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
use crate::real_registry::RealRegistry;
use crate::tree::{self, Tree};
use crate::verify::{check_by_fsck, check_tidy, check_whole};
use crate::{Result, ensure};

/// Builds at once.
const BUILDS: usize = 8;

/// Dockerfiles among them: each is built by two processes at the same time.
const VARIANTS: usize = 4;

/// Repository of an image of an earlier round.
const AGAIN: &str = "again";

/// Steps that all Dockerfiles of a round share.
const SHARED: usize = 3;

struct Round<'a> {
    place: &'a Place,
    root: &'a Path,
    base: &'a Path,
    context: PathBuf,
    number: usize,
    registry: &'a RealRegistry,
    /// What the image named [`AGAIN`] shows, if there is one: pushed while the others build and prune.
    again: Option<&'a Tree>,
}

/// What was seen in a round.
struct Seen {
    /// Processes that were killed.
    dead: usize,
    /// Steps that ran.
    starts: usize,
    /// Those of them that somebody who was killed had begun.
    taken_over: usize,
    /// Builds that pushed, and were not killed.
    pushes: usize,
    /// The name of one of the images, and what it shows.
    image: Option<(String, Tree)>,
}

/// One process of a round.
struct Player {
    child: Child,
    title: String,
    output: PathBuf,
    /// None for what builds nothing.
    variant: Option<usize>,
    pushes: bool,
    is_killed: bool,
}

pub(crate) fn prove(place: &Place, random: &mut Random, is_full: bool) -> Result<String> {
    processes::adopt_orphans()?;
    let rounds = if is_full { 200 } else { 8 };
    let base = place.path("base");
    base::write_base(&base, &random.bytes(50_000))?;
    let root = place.path("store");
    let registry = RealRegistry::start(place)?;
    let known = processes::children()?;
    let (mut pushed, mut killed, mut ran, mut reused, mut inherited) = (0, 0, 0, 0, 0);
    let mut again: Option<Tree> = None;
    for number in 0..rounds {
        let round = Round {
            place,
            root: &root,
            base: &base,
            context: place.directory("context")?,
            number,
            registry: &registry,
            again: again.as_ref(),
        };
        let Seen {
            dead,
            starts,
            taken_over,
            pushes,
            image,
        } = round
            .play(random)
            .and_then(|result| {
                processes::wait_for_orphans(&known)?;
                Ok(result)
            })
            .map_err(|error| format!("round {number}: {error}"))?;
        if let Some((name, shows)) = image {
            let mut tag = place.rbuild(&root);
            processes::run(tag.args(["tag", &name, &registry.name(AGAIN)]))?;
            again = Some(shows);
        }
        pushed += pushes;
        killed += dead;
        inherited += taken_over;
        ran += starts;
        reused += BUILDS * (SHARED + 1) - starts.min(BUILDS * (SHARED + 1));
        let check = || -> Result<()> {
            check_whole(&root)?;
            check_tidy(&root)?;
            check_by_fsck(place, &root)
        };
        check().map_err(|error| format!("after round {number}: {error}"))?;
    }
    Ok(format!(
        "{rounds} rounds of {BUILDS} builds, a push, a prune and a check, {pushed} builds pushed too, a third of them in pid namespaces: {ran} runs of steps, {reused} taken from \
        another process or the cache, {killed} processes killed and {inherited} of their steps taken over; no step ran twice at once, no hang, no lock left"
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

    /// Starts everything, kills somebody now and then, waits for all, and checks.
    fn play(&self, random: &mut Random) -> Result<Seen> {
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
        players.push(self.start_prune()?);
        players.push(self.start_fsck()?);
        if self.again.is_some() {
            players.push(self.start_push()?);
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
        let (mut pushes, mut image) = (0, None);
        let fetched = self.place.path("fetched.tar");
        if let Some(again) = self.again
            && let Some(wrong) = tree::lacks(again, &self.registry.read(AGAIN, &fetched)?)
        {
            return Err(format!("the image that was pushed again: {wrong}").into());
        }
        for (index, player) in players.iter().enumerate() {
            let (Some(variant), false) = (player.variant, player.is_killed) else {
                continue;
            };
            let is_right = |found: &Tree| match tree::lacks(&self.expected(variant, &input), found)
            {
                Some(wrong) => Err(format!("{}: {wrong}", player.title)),
                None => Ok(()),
            };
            let repository = format!("proof{index}");
            let name = if player.pushes {
                pushes += 1;
                is_right(&self.registry.read(&repository, &fetched)?)?;
                self.registry.name(&repository)
            } else {
                format!("docker.io/library/{repository}")
            };
            let kept = store
                .image(&format!("{name}:latest"))?
                .ok_or_else(|| format!("{} left no image", player.title))?;
            is_right(&tree::of_chain(&store, &kept.chain)?)?;
            image.get_or_insert_with(|| (name, self.expected(variant, &input)));
        }
        let (starts, taken_over) = self.check_trace(dead)?;
        Ok(Seen {
            dead,
            starts,
            taken_over,
            pushes,
            image,
        })
    }

    fn start_build(&self, index: usize, random: &mut Random) -> Result<Player> {
        let variant = index % VARIANTS;
        let mut command = self.place.rbuild(self.root);
        command
            .args(["build", "--progress", "plain"])
            .arg("-f")
            .arg(self.context.join(format!("Dockerfile.{variant}")))
            .arg(format!(
                "--build-context=base=oci-layout://{}",
                self.base.display()
            ));
        let repository = format!("proof{index}");
        let pushes = random.chance(30);
        if pushes {
            command
                .args(["--push", "-t"])
                .arg(self.registry.name(&repository));
        } else {
            command.args(["-t", &repository]);
        }
        if random.chance(30) {
            let archive = self.place.path(&format!("out{index}.tar"));
            command.arg(format!("--output=type=oci,dest={}", archive.display()));
        }
        command.arg(&self.context);
        let in_namespace = random.chance(33);
        if in_namespace {
            command = in_pid_namespace(&command);
        }
        let place = if in_namespace {
            " in a pid namespace"
        } else {
            ""
        };
        let player = self.start(command, format!("build {index}{place}"), Some(variant))?;
        Ok(Player { pushes, ..player })
    }

    /// A check while others build: it finds nothing.
    fn start_fsck(&self) -> Result<Player> {
        let mut command = self.place.rbuild(self.root);
        // Makes the store, if none of the builds has come so far.
        processes::run(command.arg("images"))?;
        let mut command = self.place.rbuild(self.root);
        command.arg("fsck");
        self.start(command, "fsck".to_owned(), None)
    }

    /// A push of what an earlier round built.
    fn start_push(&self) -> Result<Player> {
        let mut command = self.place.rbuild(self.root);
        command.arg("push").arg(self.registry.name(AGAIN));
        self.start(command, "push".to_owned(), None)
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
            pushes: false,
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
