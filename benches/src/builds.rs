//! Whole builds as processes.

use std::fs;
use std::path::Path;
use std::process::Command;

use rbuild_runner::job::Network;

use crate::measure::{Times, peak_memory_of_all, run, settle};
use crate::peers::{self, Peer};
use crate::step::{self, take_bare};
use crate::table::Table;
use crate::{Bench, Result, inputs};

/// RUN steps in the build of [`steps`] that are measured.
const STEPS: u32 = 50;
/// The same for other builders, of which each takes half a second.
const PEERS_STEPS: u32 = 10;
/// Files in the context of [`copy`].
const FILES: usize = 20_000;

impl Bench {
    /// A build with a store of its own.
    pub(crate) fn build(&self, store: &Path, context: &Path) -> Command {
        let mut command = Command::new(&self.rbuild);
        command
            .arg("--root")
            .arg(store)
            .args(["build", "-t", "bench"])
            .arg(context);
        command
    }
}

/// 51 RUN steps in a new store, less the same build with one of them: what a step costs with all that the builder adds.
/// What a build has once, such as its private network, is in both.
pub(crate) fn steps(bench: &Bench, table: &mut Table, peers: &[Peer]) -> Result<()> {
    let place = bench.work.join("steps");
    let (one, some, full) = (place.join("one"), place.join("some"), place.join("full"));
    let chain = place.join("chain");
    inputs::base(&chain.join("0"))?;
    for (context, count) in [(&one, 1), (&some, 1 + PEERS_STEPS), (&full, 1 + STEPS)] {
        inputs::base(context)?;
        let start = ["FROM scratch".to_owned(), "COPY . /".to_owned()];
        let runs = (0..count).map(|number| format!("RUN : {number}"));
        inputs::dockerfile(&context.join("Dockerfile"), start.into_iter().chain(runs))?;
    }
    let rows = [
        (
            Network::Host,
            "host",
            "a step of 50 × `RUN : N`, host network",
        ),
        (Network::Private, "default", "the same, private network"),
    ];
    for (network, name, work) in rows {
        let (mut bare, mut step) = (Times::default(), Times::default());
        for number in 0..if bench.is_quick { 3 } else { 15 } {
            settle(&place)?;
            let [few, many] = [&one, &full].map(|context| {
                let mut times = Times::default();
                let context_name = context.file_name().unwrap_or_default();
                let store = format!("store-{name}-{number}-{}", context_name.display());
                let mut build = bench.build(&place.join(store), context);
                build.args(["--network", name]);
                times.take(|| run(&mut build)).map(|()| times.median())
            });
            step.push(many?.saturating_sub(few?));
            for turn in 0..STEPS {
                let scratch = place.join(format!("bare-{name}-{number}-{turn}"));
                take_bare(&mut bare, &chain, &scratch, network)?;
            }
        }
        let (yardstick, goal) = step::yardstick(network);
        table.add_of_many(work, &step, STEPS, yardstick, &bare, goal);
        for peer in peers.iter().filter(|_| network == Network::Host) {
            let [mut few, mut many] = [(); 2].map(|()| Times::default());
            few.take(|| run(&mut peer.build_cold(&one, "steps")))?;
            many.take(|| run(&mut peer.build_cold(&some, "steps")))?;
            let mut each = Times::default();
            each.push(many.median().saturating_sub(few.median()));
            table.beside(&peer.name, &each, PEERS_STEPS);
        }
    }
    let most = peak_memory_of_all(&mut bench.build(&place.join("store-memory"), &full))?;
    let title = "memory of that build, all processes";
    table.add_bytes(title, most, "60 MB", 60_000_000, 1.0);
    Ok(())
}

/// 20 steps and 10 files, all cached.
pub(crate) fn noop(bench: &Bench, table: &mut Table, peers: &[Peer]) -> Result<()> {
    let place = bench.work.join("noop");
    let (base, context, store) = (
        place.join("base"),
        place.join("context"),
        place.join("store"),
    );
    inputs::base(&base)?;
    inputs::dockerfile(&base.join("Dockerfile"), ["FROM scratch", "COPY . /"])?;
    let mut build_base = Command::new(&bench.rbuild);
    build_base.arg("--root").arg(&store);
    run(build_base.args(["build", "-t", "base"]).arg(&base))?;
    inputs::files(&context, 10)?;
    let lines = ["FROM base".to_owned()].into_iter();
    let lines = lines
        .chain((0..10).map(|number| format!("COPY d0000/f{number:06} /f{number}")))
        .chain((0..10).map(|number| format!("RUN echo {number} >/r{number}")));
    inputs::dockerfile(&context.join("Dockerfile"), lines)?;
    run(&mut bench.build(&store, &context))?;
    // The stat cache trusts no file that is as young as its file system's clock is coarse.
    std::thread::sleep(std::time::Duration::from_millis(50));
    run(&mut bench.build(&store, &context))?;
    settle(&place)?;
    let [mut build, mut version, mut spawned] = [(); 3].map(|()| Times::default());
    for _ in 0..if bench.is_quick { 50 } else { 200 } {
        build.take(|| run(&mut bench.build(&store, &context)))?;
        version.take(|| run(Command::new(&bench.rbuild).arg("version")))?;
        spawned.take(|| run(&mut Command::new("/bin/true")))?;
    }
    table.add("20 cached steps", &build, "`rbuild version`", &version, 5.0);
    for peer in peers {
        run(&mut peer.build_as(&base, "noop", "base"))?;
        run(&mut peer.build(&context, "noop"))?;
    }
    let rounds = if bench.is_quick { 1 } else { 3 };
    peers::again(table, peers, &context, "noop", rounds)?;
    let mut deciding = Times::default();
    deciding.push(build.median().saturating_sub(version.median()));
    table.add(
        "of which opening the store and deciding",
        &deciding,
        "/bin/true",
        &spawned,
        5.0,
    );
    table.add("`rbuild version`", &version, "/bin/true", &spawned, 3.0);
    Ok(())
}

/// 20,000 files of 1 to 8 KiB: into a new store, then with nothing changed.
pub(crate) fn copy(bench: &Bench, table: &mut Table, peers: &[Peer]) -> Result<()> {
    let place = bench.work.join("copy");
    let context = place.join("context");
    inputs::files(&context.join("files"), FILES)?;
    inputs::dockerfile(
        &context.join("Dockerfile"),
        ["FROM scratch", "COPY files /"],
    )?;
    let [mut cold, mut warm, mut plain, mut walk, mut changed] = [(); 5].map(|()| Times::default());
    for number in 0..if bench.is_quick { 3 } else { 7 } {
        let (store, copied) = (
            place.join(format!("store{number}")),
            place.join(format!("cp{number}")),
        );
        settle(&place)?;
        cold.take(|| run(&mut bench.build(&store, &context)))?;
        settle(&place)?;
        plain.take(|| {
            run(Command::new("cp").arg("-r").arg(&context).arg(&copied))?;
            run(Command::new("sync").arg("-f").arg(&copied))
        })?;
        warm.take(|| run(&mut bench.build(&store, &context)))?;
        walk.take(|| walk_in_parallel(&context.join("files")))?;
        fs::write(
            context.join("files/d0000/f000000"),
            format!("changed {number}"),
        )?;
        settle(&place)?;
        changed.take(|| run(&mut bench.build(&store, &context)))?;
    }
    table.add(
        "COPY of 20,000 files, cold",
        &cold,
        "cp -r + sync -f",
        &plain,
        1.2,
    );
    peers::cold(table, peers, &context, "copy", 1)?;
    table.add(
        "the same, nothing changed",
        &warm,
        "lstat of each, on all CPUs",
        &walk,
        1.5,
    );
    peers::again(table, peers, &context, "copy0", 1)?;
    let mut least = Times::default();
    least.push(warm.median() + plain.median());
    table.add(
        "the same, one file changed",
        &changed,
        "nothing changed, and cp -r + sync -f: the layer has all files",
        &least,
        1.5,
    );
    if !bench.is_quick {
        fs::write(context.join("files/d0000/f000000"), "changed for others")?;
        peers::again(table, peers, &context, "copy0", 1)?;
    }
    Ok(())
}

/// Looks at every file two levels down, the directories dealt out to one thread a CPU.
pub(crate) fn walk_in_parallel(root: &Path) -> Result<()> {
    let mut directories = Vec::new();
    for entry in fs::read_dir(root)? {
        directories.push(entry?.path());
    }
    let cpus = std::thread::available_parallelism()?.get();
    let look = |first: usize| -> std::io::Result<()> {
        for directory in directories.iter().skip(first).step_by(cpus) {
            for entry in fs::read_dir(directory)? {
                entry?.metadata()?;
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let look = &look;
        let threads: Vec<_> = (0..cpus)
            .map(|first| scope.spawn(move || look(first)))
            .collect();
        for thread in threads {
            thread.join().map_err(|_| "a walking thread panicked")??;
        }
        Ok(())
    })
}
