//! Whole builds and whole steps, each next to a yardstick that is measured in the same run, in turns with it.
//!
//! `benches/run` builds and starts it; `benches/README.md` says what the figures mean.

#![forbid(unsafe_code)]

mod builds;
mod content;
mod images;
mod inputs;
mod measure;
mod packages;
mod parallel;
mod peers;
mod plot;
mod scale;
mod scan;
mod step;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clap::ValueEnum;

use crate::peers::Peer;
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
    /// COPY of many bytes, and archives of them.
    Content,
    /// COPY on a file system that shares blocks.
    Reflink,
    /// Stages at the same time.
    Stages,
    /// 1,000 cached steps.
    Graph,
    /// `apt-get install`; not part of `--quick`.
    Packages,
    /// Pulling, pushing and handing over images; not part of `--quick`.
    Images,
    /// Curves over steps, layers, builds at once and bytes of a sparse file; only where it is named.
    Scale,
}

/// Whether a workload is part of `--quick`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Short,
    Long,
}

/// In this order: the first two fork bare processes, so nothing before them may start a thread.
const WORKLOADS: [(Workload, Length, Measure); 13] = [
    (Workload::Step, Length::Short, |bench, table, _| {
        step::sandbox(bench, table)
    }),
    (Workload::Steps, Length::Short, builds::steps),
    (Workload::Noop, Length::Short, builds::noop),
    (Workload::Graph, Length::Short, |bench, table, _| {
        parallel::graph(bench, table)
    }),
    (Workload::Stages, Length::Short, parallel::stages),
    (Workload::Copy, Length::Short, builds::copy),
    (Workload::Scan, Length::Short, |bench, table, _| {
        scan::contexts(bench, table)
    }),
    (Workload::Commit, Length::Short, |bench, table, _| {
        scan::commit(bench, table)
    }),
    (Workload::Content, Length::Short, |bench, table, _| {
        content::all(bench, table)
    }),
    (Workload::Reflink, Length::Short, |bench, table, _| {
        content::reflink(bench, table)
    }),
    (Workload::Million, Length::Long, |bench, table, _| {
        scan::million(bench, table)
    }),
    (Workload::Packages, Length::Long, packages::install_all),
    (Workload::Images, Length::Long, |bench, table, _| {
        images::all(bench, table)
    }),
];

type Measure = fn(&Bench, &mut Table, &[Peer]) -> Result<()>;

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
    let peers = Peer::found(&bench.work.join("peers"));
    for (workload, length, measure) in WORKLOADS {
        let is_wanted = if arguments.workloads.is_empty() {
            length == Length::Short || (length == Length::Long && !bench.is_quick)
        } else {
            arguments.workloads.contains(&workload)
        };
        if is_wanted {
            measure(&bench, &mut table, &peers)?;
        }
    }
    if arguments.workloads.contains(&Workload::Scale) {
        return scale::all(&bench, &arguments.out);
    }
    table.write(&arguments.out)
}
