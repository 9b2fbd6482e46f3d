//! Stages at the same time, and many steps.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::measure::{Times, run, settle};
use crate::peers::{self, Peer};
use crate::table::Table;
use crate::{Bench, Result, inputs};

/// Stages of [`stages`], of a second of one CPU each.
const STAGES: usize = 4;

/// Steps of [`graph`].
const STEPS: usize = 1000;

/// Four stages that need one CPU for a second each, beside the same commands without a builder, as many at once as there are CPUs.
pub(crate) fn stages(bench: &Bench, table: &mut Table, peers: &[Peer]) -> Result<()> {
    let context = bench.work.join("stages/context");
    inputs::base(&context)?;
    let count = turns_of_a_second()?;
    let mut lines = Vec::new();
    for number in 0..STAGES {
        lines.extend([
            format!("FROM scratch AS stage{number}"),
            "COPY bin /bin".to_owned(),
            format!("RUN {} && echo {number} >/done{number}", work(count)),
        ]);
    }
    lines.push("FROM scratch".to_owned());
    lines.extend((0..STAGES).map(|number| format!("COPY --from=stage{number} /done{number} /")));
    inputs::dockerfile(&context.join("Dockerfile"), &lines)?;
    let cpus = std::thread::available_parallelism()?.get();
    let [mut ours, mut ideal] = [(); 2].map(|()| Times::default());
    for number in 0..if bench.is_quick { 3 } else { 7 } {
        let store = bench.work.join(format!("stages/store{number}"));
        settle(&bench.work)?;
        ours.take(|| run(&mut bench.build(&store, &context)))?;
        ideal.take(|| {
            let list = "seq 4 | xargs -P \"$0\" -I{} /bin/busybox sh -c \"$1\"";
            run(Command::new("sh").args(["-c", list, &cpus.to_string(), &work(count)]))
        })?;
    }
    table.add(
        "4 stages of one CPU-second",
        &ours,
        "the same 4 commands, one a CPU",
        &ideal,
        1.1,
    );
    peers::cold(table, peers, &context, "stages", 1)
}

/// Work for one CPU that reads and writes nothing.
fn work(turns: u32) -> String {
    format!("i=0; while [ $i -lt {turns} ]; do i=$((i+1)); done")
}

/// How often busybox's shell counts in a second.
fn turns_of_a_second() -> Result<u32> {
    let turns = 200_000;
    let start = Instant::now();
    run(Command::new("/bin/busybox").args(["sh", "-c", &work(turns)]))?;
    let share = 1.0 / start.elapsed().as_secs_f64();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "some hundred thousand"
    )]
    Ok((f64::from(turns) * share) as u32)
}

/// 1,000 cached steps less the same build of one: parsing, planning, keys, looking up, the order of it all.
pub(crate) fn graph(bench: &Bench, table: &mut Table) -> Result<()> {
    let place = bench.work.join("graph");
    let [one, many] = [1, STEPS].map(|count| (count, place.join(format!("steps{count}"))));
    for (count, context) in [&one, &many] {
        steps(context, *count)?;
        run(&mut bench.build(&place.join("store"), context))?;
    }
    settle(&place)?;
    let (mut solver, mut version) = (Times::default(), Times::default());
    for _ in 0..if bench.is_quick { 15 } else { 50 } {
        let (mut with, mut without) = (Times::default(), Times::default());
        with.take(|| run(&mut bench.build(&place.join("store"), &many.1)))?;
        without.take(|| run(&mut bench.build(&place.join("store"), &one.1)))?;
        version.take(|| run(Command::new(&bench.rbuild).arg("version")))?;
        solver.push(with.median().saturating_sub(without.median()));
    }
    table.add(
        "1,000 cached steps, less one",
        &solver,
        "`rbuild version`",
        &version,
        10.0,
    );
    Ok(())
}

/// A context whose Dockerfile has `count` RUN steps that change nothing.
pub(crate) fn steps(context: &Path, count: usize) -> Result<()> {
    inputs::base(context)?;
    let lines = ["FROM scratch".to_owned(), "COPY bin /bin".to_owned()].into_iter();
    let lines = lines.chain((0..count).map(|number| format!("RUN : {number}")));
    inputs::dockerfile(&context.join("Dockerfile"), lines)
}
