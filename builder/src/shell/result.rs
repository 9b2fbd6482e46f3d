//! A step that was done: its result, with what the history knows of its command.

use rbuild_cache::{Chain, Lease, StepKey};
use rbuild_runner::job::{Confinement, Limits, Network, OverlaySpec, ProvidedFile, RunJob};

use super::{Asked, Open, ShellError, store_failed, verify};
use crate::build::{hosts, resolver};
use crate::engine::Engine;
use crate::explain::parts::{self, PartName};
use crate::history::StepState;

/// Size of `/dev/shm`: Docker's default.
const SHM_SIZE: u64 = 64 << 20;

/// The host name of steps.
const HOSTNAME: &str = "buildkitsandbox";

/// Where programs are looked for when neither the image nor the Dockerfile says so: the reference's.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Makes a job of a step's result. Blocks.
pub(super) fn open(engine: &Engine, lease: &Lease, asked: &Asked<'_>) -> Result<Open, ShellError> {
    let note = &asked.note;
    let chain = find(engine, lease, asked)?;
    let layers = chain.iter().map(|layer| &layer.snapshot);
    verify(lease, layers, &note.spelt)?;
    let resolv_conf = std::fs::read("/etc/resolv.conf").unwrap_or_default();
    let part = |name: &str| {
        let part = note.parts.iter().find(|part| part.name == name);
        part.map_or("", |part| part.value.as_str())
    };
    let network = match part("network") {
        "none" => Network::None,
        "host" => Network::Host,
        _ => Network::Private,
    };
    let resolv_conf = match network {
        Network::Private => resolver::inside(&resolv_conf).text,
        Network::Host | Network::None => resolv_conf,
    };
    let file = |target: &str, content| ProvidedFile {
        target: target.into(),
        content,
        mode: 0o644,
        uid: 0,
        gid: 0,
    };
    let directory = Some(part("directory")).filter(|path| path.starts_with('/'));
    let job = RunJob {
        root: OverlaySpec {
            lowers: chain.snapshot_paths(engine.store()),
            scratch: lease.scratch("shell").map_err(store_failed)?,
        },
        argv: (part("command").split(' '))
            .map(|word| word.as_bytes().to_vec())
            .collect(),
        environment: environment(asked),
        working_directory: directory.unwrap_or("/").into(),
        user: part("user").into(),
        hostname: HOSTNAME.into(),
        files: vec![
            file("/etc/hosts", hosts::text(HOSTNAME, &[], network)),
            file("/etc/resolv.conf", resolv_conf),
        ],
        mounts: Vec::new(),
        network,
        confinement: Confinement::Default,
        shm_size: SHM_SIZE,
        rlimits: Vec::new(),
        limits: Limits::default(),
        makes_layer: false,
    };
    if (note.parts.iter()).any(|part| part.name.starts_with("mount ")) {
        (asked.tell)("what the step had mounted is not there: only its result is kept".to_owned());
    }
    Ok(Open {
        job,
        leads_to_host: false,
        caches: Vec::new(),
        agents: Vec::new(),
    })
}

/// The chain that the step left, held.
fn find(engine: &Engine, lease: &Lease, asked: &Asked<'_>) -> Result<Chain, ShellError> {
    let note = &asked.note;
    let (build, step) = (asked.build.clone(), note.spelt.clone());
    if note.is_image {
        return Err(ShellError::IsImage { step });
    }
    if note.state == StepState::Failed {
        return Err(ShellError::NotKept {
            build,
            step,
            below: asked.below,
        });
    }
    let key = (note.parts.iter())
        .find(|part| part.name == parts::RESULT_KEY)
        .and_then(|part| StepKey::from_hex(&part.value));
    let is_done = matches!(note.state, StepState::Done | StepState::Cached);
    let Some(key) = key.filter(|_| is_done) else {
        return Err(ShellError::NoResult { build, step });
    };
    let found = engine.store().lookup(&key).map_err(store_failed)?;
    // The same key may lead to a newer run's result.
    let is_same = |chain: &Chain| {
        let top = chain.layers().last().map(|layer| layer.diff_id.to_string());
        top == note.layer
    };
    match found.map(|record| record.chain).filter(is_same) {
        Some(chain) => {
            lease.hold(&chain).map_err(store_failed)?;
            Ok(chain)
        }
        None => Err(ShellError::NoResult { build, step }),
    }
}

/// The variables that the history knows the values of.
fn environment(asked: &Asked<'_>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut environment = Vec::new();
    for part in &asked.note.parts {
        let (PartName::Variable(name) | PartName::Argument(name)) = PartName::parse(&part.name)
        else {
            continue;
        };
        let known = Some(part.value.clone()).filter(|value| !parts::is_incomplete(value));
        if let Some(value) = known.or_else(|| asked.value_of(name)) {
            environment.push((name.as_bytes().to_vec(), value.into_bytes()));
        }
    }
    if !environment.iter().any(|(name, _)| name == b"PATH") {
        environment.push((b"PATH".to_vec(), PATH.into()));
    }
    environment
}
