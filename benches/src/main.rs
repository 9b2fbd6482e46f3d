//! Whole builds and whole steps, each next to a yardstick that is measured in the same run, in turns with it.
//!
//! `benches/run` builds and starts it; `benches/README.md` says what the figures mean.

#![forbid(unsafe_code)]

mod builds;
mod images;
mod inputs;
mod measure;
mod scan;
mod step;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clap::ValueEnum;

use crate::table::Table;

/// Any error: a benchmark that can't measure stops and says why.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Benchmarks of rbuild against what the machine allows.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to measure; everything without it.
    workloads: Vec<Workload>,
    /// Fewer runs.
    #[arg(long)]
    quick: bool,
    /// The rbuild to measure.
    #[arg(long, value_name = "FILE")]
    rbuild: PathBuf,
    /// An empty directory for stores and inputs, on the file system to be measured. What is put there stays.
    #[arg(long, value_name = "DIR")]
    work: PathBuf,
    /// Where `results.md` and `results.json` go.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// A RUN step in the sandbox against bare system calls.
    Step,
    /// 50 RUN steps as a build.
    Steps,
    /// A build in which everything is cached.
    Noop,
    /// COPY of 20,000 files.
    Copy,
    /// Contexts of 20,000 and 100,000 files in which nothing has changed.
    Scan,
    /// A context of 1,000,000 files; not part of `--quick`.
    Million,
    /// Committing a step's files.
    Commit,
    /// Pulling, pushing and handing over images; not part of `--quick`.
    Images,
}

/// Where things are, and how often.
#[derive(Debug)]
struct Bench {
    rbuild: PathBuf,
    work: PathBuf,
    is_quick: bool,
}

fn main() -> ExitCode {
    match carry_out(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            table::complain(&*error);
            ExitCode::FAILURE
        }
    }
}

fn carry_out(arguments: &Arguments) -> Result<()> {
    std::fs::create_dir_all(&arguments.work)?;
    let bench = Bench {
        rbuild: arguments.rbuild.canonicalize()?,
        work: arguments.work.canonicalize()?,
        is_quick: arguments.quick,
    };
    let mut table = Table::start();
    let is_wanted =
        |workload| arguments.workloads.is_empty() || arguments.workloads.contains(&workload);
    // The first two fork bare processes, so nothing before them may start a thread.
    if is_wanted(Workload::Step) {
        step::sandbox(&bench, &mut table)?;
    }
    if is_wanted(Workload::Steps) {
        builds::steps(&bench, &mut table)?;
    }
    if is_wanted(Workload::Noop) {
        builds::noop(&bench, &mut table)?;
    }
    if is_wanted(Workload::Copy) {
        builds::copy(&bench, &mut table)?;
    }
    if is_wanted(Workload::Scan) {
        scan::contexts(&bench, &mut table)?;
    }
    let is_wanted_at_length = |workload| {
        arguments.workloads.contains(&workload)
            || (arguments.workloads.is_empty() && !bench.is_quick)
    };
    if is_wanted_at_length(Workload::Million) {
        scan::million(&bench, &mut table)?;
    }
    if is_wanted(Workload::Commit) {
        scan::commit(&bench, &mut table)?;
    }
    if is_wanted_at_length(Workload::Images) {
        images::all(&bench, &mut table)?;
    }
    table.write(&arguments.out)
}
