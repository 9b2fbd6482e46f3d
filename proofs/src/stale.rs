//! No build ever takes a stale file: adversarial changes in batches, and after each batch the copied tree against the truth.

mod changes;
mod clock;
mod race;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rbuild::options::{BuildOptions, ContextSource, DockerfileSource};
use rbuild::{BuildError, Engine, EngineOptions};
use tokio::runtime::Runtime;

use crate::base::IMAGE;
use crate::disk::{self, Mounted};
use crate::place::Place;
use crate::random::Random;
use crate::tree::{self, Tree};
use crate::{Result, ensure, report};
use changes::Changer;

/// Changes before each build.
const BATCH: usize = 100;

/// Directories of the context, each copied by a step of its own: a batch leaves some alone, so that hits are proven too.
pub(super) const AREAS: usize = 4;

/// What is counted.
#[derive(Debug, Default)]
struct Tally {
    builds: usize,
    changes: usize,
    /// Builds during which files were changed, and how many of them ended with an error.
    raced: usize,
    refused: usize,
    steps_cached: usize,
    steps_done: usize,
}

pub(crate) fn prove(place: &Place, random: &mut Random, is_full: bool) -> Result<String> {
    let builds = if is_full { 200 } else { 14 };
    let mut tally = Tally::default();
    let mut names = Vec::new();
    for kind in Kind::ALL {
        let Some(context) = Context::make(place, kind)? else {
            report::say(&format!(
                "stale: no context on {kind:?}: its mkfs is not installed"
            ));
            continue;
        };
        names.push(format!("{kind:?}"));
        on_context(place, &context, builds, random, &mut tally)
            .map_err(|error| format!("context on {kind:?}, build {}: {error}", tally.builds))?;
    }
    let turned = clock::prove(place, random, if is_full { 40 } else { 4 })?;
    let torn = race::prove(place, random, if is_full { 400 } else { 20 })?;
    Ok(format!(
        "{} changes, {} builds of contexts on {}, {} of {AREAS} COPYs each compared with the truth: 0 wrong \
        ({} steps cached, {} done; {} builds ran during changes, {} of them refused); {turned}; {torn}",
        tally.changes,
        tally.builds,
        names.join(", "),
        tally.builds * AREAS,
        tally.steps_cached,
        tally.steps_done,
        tally.raced,
        tally.refused,
    ))
}

/// The file systems of contexts: all that the stat cache trusts and this machine can make.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Where the proof works.
    Here,
    Tmpfs,
    /// Its times are whole seconds.
    Ext4SmallInodes,
    Overlay,
    Xfs,
    Btrfs,
}

impl Kind {
    const ALL: [Self; 6] = [
        Self::Here,
        Self::Tmpfs,
        Self::Ext4SmallInodes,
        Self::Overlay,
        Self::Xfs,
        Self::Btrfs,
    ];
}

/// A context directory, and a directory beside it on the same file system.
struct Context {
    root: PathBuf,
    outside: PathBuf,
    _mounted: Option<Mounted>,
}

impl Context {
    /// None when the file system can't be made here.
    fn make(place: &Place, kind: Kind) -> Result<Option<Self>> {
        let at = place.path(&format!("on-{kind:?}"));
        let image = place.path(&format!("{kind:?}.image"));
        let on_loop = |mkfs: &[&str], mib: u64| -> Result<Option<Mounted>> {
            if !has_program(mkfs[0]) {
                return Ok(None);
            }
            disk::make(&image, mib * 1024, mkfs)?;
            Mounted::new(&image, &at, "loop").map(Some)
        };
        let mounted = match kind {
            Kind::Here => {
                std::fs::create_dir_all(&at)?;
                None
            }
            Kind::Tmpfs => Some(Mounted::of_type("tmpfs", &at, "size=64m")?),
            Kind::Ext4SmallInodes => {
                Some(on_loop(&["mkfs.ext4", "-q", "-I", "128"], 32)?.ok_or("no mkfs.ext4")?)
            }
            Kind::Overlay => {
                let [lower, upper, work] = ["lower", "upper", "work"]
                    .map(|name| place.directory(&format!("overlay-{name}")));
                let (lower, upper, work) = (lower?, upper?, work?);
                std::fs::create_dir(lower.join("context"))?;
                Changer::fill(&lower.join("context"), &mut Random::new(1))?;
                let options = format!(
                    "lowerdir={},upperdir={},workdir={}",
                    lower.display(),
                    upper.display(),
                    work.display()
                );
                Some(Mounted::of_type("overlay", &at, &options)?)
            }
            Kind::Xfs | Kind::Btrfs => {
                let (mkfs, mib): (&[&str], _) = match kind {
                    Kind::Xfs => (&["mkfs.xfs", "-q"], 320),
                    _ => (&["mkfs.btrfs", "-q"], 128),
                };
                match on_loop(mkfs, mib)? {
                    None => return Ok(None),
                    mounted => mounted,
                }
            }
        };
        let (root, outside) = (at.join("context"), at.join("outside"));
        std::fs::create_dir_all(&root)?;
        std::fs::create_dir_all(&outside)?;
        Ok(Some(Self {
            root,
            outside,
            _mounted: mounted,
        }))
    }
}

fn has_program(name: &str) -> bool {
    ["/usr/sbin", "/sbin", "/usr/bin", "/bin"]
        .iter()
        .any(|directory| Path::new(directory).join(name).exists())
}

/// Builds in this process, so that a thousand of them are quick.
pub(super) struct Builder {
    engine: Engine,
    runtime: Runtime,
    context: PathBuf,
    dockerfile: String,
}

impl Builder {
    pub(super) fn new(store: &Path, context: &Path, dockerfile: String) -> Result<Self> {
        Ok(Self {
            engine: Engine::open(&EngineOptions::new(store.to_owned()))?,
            runtime: Runtime::new()?,
            context: context.to_owned(),
            dockerfile,
        })
    }

    /// Builds; the numbers are cached and done steps.
    pub(super) fn build(&self) -> std::result::Result<(usize, usize), BuildError> {
        let options = BuildOptions {
            context: ContextSource::Directory(self.context.clone()),
            dockerfile: Some(DockerfileSource::Text(self.dockerfile.clone())),
            tags: vec!["proof".to_owned()],
            ..BuildOptions::default()
        };
        let build = self.engine.build(
            &options,
            Arc::new(|_| {}),
            tokio_util::sync::CancellationToken::new(),
        );
        let counts = self.runtime.block_on(build)?.counts;
        Ok((counts.cached, counts.done))
    }

    /// What the last image holds.
    pub(super) fn image(&self) -> Result<Tree> {
        let store = self.engine.store();
        let image = store.image(IMAGE)?.ok_or("the image is not in the store")?;
        tree::of_chain(store, &image.chain)
    }

    /// Compares the last image with the context.
    pub(super) fn compare(&self) -> Result<()> {
        match tree::difference(&tree::read(&self.context)?, &self.image()?) {
            Some(wrong) => Err(format!("a stale file: {wrong}").into()),
            None => Ok(()),
        }
    }
}

/// Copies each area with a step of its own.
pub(super) fn dockerfile() -> String {
    let mut text = "FROM scratch\n".to_owned();
    for area in 0..AREAS {
        // Into a String, which cannot fail.
        let _ = writeln!(text, "COPY area{area} /area{area}");
    }
    text
}

/// One context over many builds: what was learnt of a file is used again and again.
fn on_context(
    place: &Place,
    context: &Context,
    builds: usize,
    random: &mut Random,
    tally: &mut Tally,
) -> Result<()> {
    // In memory: a thousand small snapshots are nobody's loss.
    let memory = Mounted::of_type("tmpfs", &place.path("store"), "size=4g")?;
    let builder = Builder::new(&memory.path().join("root"), &context.root, dockerfile())?;
    let mut changer = Changer::new(&context.root, &context.outside, random.fork())?;
    for number in 0..builds {
        changer.choose_areas();
        if number == builds / 2 {
            // Old enough to be remembered on every file system, also where times are whole seconds and a machine is quick.
            std::thread::sleep(Duration::from_millis(2_500));
        }
        if random.chance(20) {
            raced(&builder, &mut changer, tally)?;
        } else {
            for _ in 0..BATCH {
                changer.change()?;
            }
        }
        tally.changes += BATCH;
        // Sometimes files grow old enough to be remembered, sometimes they are looked at in the tick they were written in.
        match random.below(4) {
            0 => std::thread::sleep(Duration::from_millis(25)),
            1 => std::thread::sleep(Duration::from_millis(random.below(6) as u64)),
            _ => {}
        }
        let (cached, done) = builder.build()?;
        tally.builds += 1;
        tally.steps_cached += cached;
        tally.steps_done += done;
        builder
            .compare()
            .map_err(|error| format!("{error}; last changes: {}", changer.last()))?;
    }
    ensure!(
        std::fs::read_dir(memory.path().join("root/statcache"))?.count() > 0,
        "no stat cache was ever written: this proves nothing"
    );
    drop(builder);
    memory.unmount()
}

/// Makes a batch of changes while a build runs. What that build takes may be old or new; the next one is compared.
fn raced(builder: &Builder, changer: &mut Changer, tally: &mut Tally) -> Result<()> {
    let is_over = AtomicBool::new(false);
    // Few of them, or all: many builds are refused then, and both have to be right afterwards.
    let ahead = *changer.random().pick(&[0, 90, 98, 99]);
    for _ in 0..ahead {
        changer.change()?;
    }
    let (built, batch) = std::thread::scope(|scope| {
        let changer = scope.spawn(|| {
            for _ in ahead..BATCH {
                changer.change()?;
                if !is_over.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
            Result::Ok(())
        });
        let built = builder.build();
        is_over.store(true, Ordering::Relaxed);
        (built, changer.join())
    });
    batch.map_err(|_| "the changing thread panicked")??;
    tally.raced += 1;
    tally.refused += usize::from(built.is_err());
    Ok(())
}
