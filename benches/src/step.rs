//! A RUN step as the runner does it, against what the kernel charges for one.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rbuild_runner::floor::{Floor, FloorBelow, FloorSpec};
use rbuild_runner::isolation::{self, Isolation, Rung};
use rbuild_runner::job::{Confinement, Network, NetworkJob, OverlaySpec, RunJob};
use rbuild_runner::{PrivateNetwork, Spawner, Stdio};

use crate::measure::{Times, settle};
use crate::table::Table;
use crate::{Bench, Result, inputs};

/// The floor step, as a yardstick.
const BARE: &str = "clone3 + overlay + proc + pivot_root + exec + wait";
/// The same with a network namespace.
const BARE_NET: &str = "the same with a net namespace";

/// Layers of a long chain.
const LAYERS: usize = 60;

const PROGRAM: &str = "/bin/true";

/// What is measured on one rung: chain, network, the row's name.
type Rows = [(usize, Network, &'static str); 6];

const AS_ROOT: Rows = [
    (1, Network::Host, "RUN true, host network"),
    (1, Network::None, "RUN true, no network"),
    (1, Network::Private, "RUN true, private network"),
    (LAYERS, Network::Host, "RUN true, host network, 60 layers"),
    (LAYERS, Network::None, "RUN true, no network, 60 layers"),
    (
        LAYERS,
        Network::Private,
        "RUN true, private network, 60 layers",
    ),
];

const ROOTLESS: Rows = [
    (1, Network::Host, "RUN true, rootless, host network"),
    (1, Network::None, "RUN true, rootless, no network"),
    (1, Network::Private, "RUN true, rootless, private network"),
    (
        LAYERS,
        Network::Host,
        "RUN true, rootless, host network, 60 layers",
    ),
    (
        LAYERS,
        Network::None,
        "RUN true, rootless, no network, 60 layers",
    ),
    (
        LAYERS,
        Network::Private,
        "RUN true, rootless, private network, 60 layers",
    ),
];

/// Measures the sandbox without the builder: worker, mounts, command, layer; with root's own privileges, and below a user
/// namespace.
pub(crate) fn sandbox(bench: &Bench, table: &mut Table) -> Result<()> {
    let place = bench.work.join("step");
    let chain = place.join("chain");
    for layer in 0..LAYERS {
        let layer = chain.join(layer.to_string());
        fs::create_dir_all(&layer)?;
        fs::write(layer.join("file"), [])?;
    }
    inputs::base(&chain.join("0"))?;
    let rung = isolation::decide(Isolation::Userns, false)?;
    let Rung::Userns(maps) = &rung else {
        return Err("there is no user namespace to measure in".into());
    };
    // All processes are forked before the first step, and none of them is a child of a busy one.
    let below = FloorBelow::start(maps)?;
    let (root, rootless) = (Spawner::start()?, Spawner::start()?);
    rootless.isolate(&rung)?;
    let bare_as_root: &BareStep = &|times, spec| {
        let floor = Floor::prepare(spec)?;
        times.take(|| Ok(floor.run()?))
    };
    let bare_below: &BareStep = &|times, spec| {
        times.push(below.run(spec)?);
        Ok(())
    };
    for (spawner, rows, bare, name) in [
        (&root, AS_ROOT, bare_as_root, "root"),
        (&rootless, ROOTLESS, bare_below, "rootless"),
    ] {
        let yard = Yard {
            chain: &chain,
            place: place.join(name),
            spawner,
            bare,
            steps: if bench.is_quick { 60 } else { 200 },
        };
        for row in rows {
            yard.measure(row, table)?;
        }
    }
    Ok(())
}

/// Runs a bare step and adds its time.
type BareStep<'a> = dyn Fn(&mut Times, &FloorSpec) -> Result<()> + 'a;

/// Where and how steps of one rung are measured.
struct Yard<'a> {
    chain: &'a Path,
    place: PathBuf,
    spawner: &'a Spawner,
    bare: &'a BareStep<'a>,
    steps: usize,
}

impl Yard<'_> {
    fn measure(
        &self,
        (layers, network, work): (usize, Network, &'static str),
        table: &mut Table,
    ) -> Result<()> {
        // As in a build, the network is there before the step.
        let private = match network {
            Network::Private => Some(self.spawner.open_network(NetworkJob {
                name: "bench-1".to_owned(),
                ..NetworkJob::default()
            })?),
            Network::Host | Network::None => None,
        };
        let lowers: Vec<PathBuf> = (0..layers)
            .map(|layer| self.chain.join(layer.to_string()))
            .collect();
        fs::create_dir_all(&self.place)?;
        settle(&self.place)?;
        let (mut floor, mut step) = (Times::default(), Times::default());
        for number in 0..self.steps {
            let scratch = self.place.join(format!("{network:?}{layers}-{number}"));
            let spec = FloorSpec {
                chain: self.chain.to_owned(),
                layers,
                scratch: scratch.join("floor"),
                program: PROGRAM.to_owned(),
                network,
            };
            fs::create_dir_all(&spec.scratch)?;
            (self.bare)(&mut floor, &spec)?;
            let job = job(&lowers, &scratch, network);
            self.take_step(&mut step, job, private.as_ref())?;
        }
        let (yardstick, goal) = yardstick(network);
        table.add(work, &step, yardstick, &floor, goal);
        Ok(())
    }

    fn take_step(
        &self,
        times: &mut Times,
        job: RunJob,
        private: Option<&PrivateNetwork>,
    ) -> Result<()> {
        let stdio = Stdio {
            stdin: null()?,
            stdout: null()?,
            stderr: null()?,
        };
        times.take(|| {
            let handle = match private {
                Some(private) => self.spawner.run_in_network(job, stdio, private)?,
                None => self.spawner.run(job, stdio)?,
            };
            let outcome = handle.wait()?;
            outcome.layer.map(drop).ok_or_else(|| "no layer".into())
        })
    }
}

/// What a step in a network is measured against, and how many times that it may take.
pub(crate) fn yardstick(network: Network) -> (&'static str, f64) {
    match network {
        Network::Host => (BARE, 1.5),
        Network::None | Network::Private => (BARE_NET, 2.0),
    }
}

/// Takes the time of one floor step on one layer in the new directory `scratch`.
pub(crate) fn take_bare(
    times: &mut Times,
    chain: &Path,
    scratch: &Path,
    network: Network,
) -> Result<()> {
    fs::create_dir_all(scratch)?;
    let floor = Floor::prepare(&FloorSpec {
        chain: chain.to_owned(),
        layers: 1,
        scratch: scratch.to_owned(),
        program: PROGRAM.to_owned(),
        network,
    })?;
    times.take(|| Ok(floor.run()?))
}

fn null() -> Result<OwnedFd> {
    let file = File::options().read(true).write(true).open("/dev/null")?;
    Ok(file.into())
}

fn job(lowers: &[PathBuf], scratch: &Path, network: Network) -> RunJob {
    RunJob {
        root: OverlaySpec {
            lowers: lowers.to_vec(),
            scratch: scratch.to_owned(),
        },
        argv: vec![PROGRAM.into()],
        environment: vec![(b"PATH".to_vec(), b"/bin".to_vec())],
        working_directory: b"/".to_vec(),
        user: Vec::new(),
        hostname: b"buildkitsandbox".to_vec(),
        files: Vec::new(),
        mounts: Vec::new(),
        network,
        confinement: Confinement::Default,
        shm_size: 64 << 20,
        rlimits: Vec::new(),
        limits: rbuild_runner::job::Limits::default(),
        makes_layer: true,
    }
}
