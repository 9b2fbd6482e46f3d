//! A RUN step as the runner does it, against what the kernel charges for one.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::Path;

use rbuild_runner::floor::Floor;
use rbuild_runner::job::{Confinement, Network, NetworkJob, OverlaySpec, RunJob};
use rbuild_runner::{Spawner, Stdio};

use crate::measure::{Times, settle};
use crate::table::Table;
use crate::{Bench, Result, inputs};

/// The floor step, as a yardstick.
pub(crate) const BARE: &str = "clone3 + overlay + proc + pivot_root + exec + wait";
/// The same with a network namespace.
const BARE_NET: &str = "the same with a net namespace";

/// Measures the sandbox without the builder: worker, mounts, command, layer.
pub(crate) fn sandbox(bench: &Bench, table: &mut Table) -> Result<()> {
    let runs = if bench.is_quick { 100 } else { 400 };
    let spawner = Spawner::start()?;
    let place = bench.work.join("step");
    let base = place.join("base");
    inputs::base(&base)?;
    for (network, work, yardstick, goal) in [
        (Network::Host, "RUN true, host network", BARE, 1.5),
        (Network::None, "RUN true, no network", BARE_NET, 2.0),
        // As in a build, the network is there before the step.
        (Network::Private, "RUN true, private network", BARE_NET, 2.0),
    ] {
        let private = match network {
            Network::Private => Some(spawner.open_network(NetworkJob {
                name: "bench-1".to_owned(),
                ..NetworkJob::default()
            })?),
            Network::Host | Network::None => None,
        };
        settle(&place)?;
        let (mut floor, mut step) = (Times::default(), Times::default());
        for number in 0..runs {
            let scratch = place.join(format!("{network:?}{number}"));
            take_bare(&mut floor, &base, &scratch.join("floor"), network)?;
            let job = job(&base, &scratch, network);
            let stdio = Stdio {
                stdin: null()?,
                stdout: null()?,
                stderr: null()?,
            };
            step.take(|| {
                let handle = match &private {
                    Some(private) => spawner.run_in_network(job, stdio, private)?,
                    None => spawner.run(job, stdio)?,
                };
                let outcome = handle.wait()?;
                outcome.layer.map(drop).ok_or_else(|| "no layer".into())
            })?;
        }
        table.add(work, &step, yardstick, &floor, goal);
    }
    Ok(())
}

/// Takes the time of one floor step in the new directory `scratch`.
pub(crate) fn take_bare(
    times: &mut Times,
    base: &Path,
    scratch: &Path,
    network: Network,
) -> Result<()> {
    fs::create_dir_all(scratch)?;
    let floor = Floor::prepare(base, scratch, "/bin/true", network)?;
    times.take(|| Ok(floor.run()?))
}

fn null() -> Result<OwnedFd> {
    let file = File::options().read(true).write(true).open("/dev/null")?;
    Ok(file.into())
}

fn job(base: &Path, scratch: &Path, network: Network) -> RunJob {
    RunJob {
        root: OverlaySpec {
            lowers: vec![base.to_owned()],
            scratch: scratch.to_owned(),
        },
        argv: vec![b"/bin/true".to_vec()],
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
