//! `RUN`: a job for the sandbox, its output as events, its upper directory as a layer.

use std::sync::{Arc, OnceLock};

use rbuild_frontend::graph::{Network, Operation, Run, Security};
use rbuild_frontend::platform::Platform;
use rbuild_runner::job::{CommandStatus, Confinement, OverlaySpec, ProvidedFile, Rlimit, RunJob};
use rbuild_runner::{Canceller, JobError, JobErrorKind, RunHandle};
use tokio_util::sync::CancellationToken;

use super::cache_mounts::CacheMounts;
use super::output::Output;
use super::{StepJob, authorities, mounts, seal, ssh};
use crate::build::network::LentNetwork;
use crate::build::{self, Workspace, hosts, resolver};
use crate::error::StepError;
use crate::event::Event;
use crate::kept::{self, Description};
use crate::options::FailedSteps;
use crate::postmortem::{self, Failed, Tail};
use crate::solve::Made;

/// Size of `/dev/shm` when none is asked for: Docker's default.
const DEFAULT_SHM_SIZE: u64 = 64 << 20;

/// Says what a machine lacks for programs of another one.
fn explain_foreign(error: JobError, platform: &Platform) -> JobError {
    let this = build::this_machine();
    if error.kind != JobErrorKind::CommandFormat || this.accepts(platform) {
        return error;
    }
    let name = match platform.architecture.as_str() {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        "386" => "i386",
        other => other,
    };
    error.with_help(format!(
        "this machine is {this} and runs no programs for {platform}: install qemu-user-static; where it does not register itself with the kernel, `--isolation userns` does with `qemu-{name}-static` from PATH (Linux 6.7 and later)"
    ))
}

/// Ends a command from outside, once there is one.
#[derive(Clone, Debug, Default)]
pub(crate) struct CancelHandle(Arc<OnceLock<Canceller>>);

impl CancelHandle {
    /// Ends the command that runs; one that has yet to start asks for itself.
    pub(crate) fn cancel(&self) {
        if let Some(canceller) = self.0.get() {
            canceller.cancel();
        }
    }

    /// A command has begun.
    fn hold(&self, handle: &RunHandle, cancelled: &CancellationToken) {
        // A step has one command.
        let _ = self.0.set(handle.canceller());
        if cancelled.is_cancelled() {
            handle.cancel();
        }
    }
}

/// Runs the command and commits what it left. Blocks: one thread does all of it, which is 18 switches of context a step
/// fewer than one for each thing that is waited for, and a tenth of the CPU time of a small one.
pub(super) fn run(job: &StepJob, cancel: &CancelHandle) -> Result<Made, StepError> {
    let workspace = &job.solver.workspace;
    let step = job.solver.id(job.index);
    let Prepared {
        request,
        description,
        scratch,
        caches,
        agents,
        network,
    } = prepare(job)?;
    let (stdio, output) = Output::new()?;
    let handle = match network.as_ref().and_then(LentNetwork::get) {
        Some(network) => workspace.spawner.run_in_network(request, stdio, network),
        None => workspace.spawner.run(request, stdio),
    }
    .map_err(StepError::Job)?;
    cancel.hold(&handle, &workspace.cancel);
    let mut tail = Tail::default();
    output.relay(|stream, bytes| {
        tail.push(bytes);
        workspace.emit(Event::Output {
            step,
            stream,
            bytes: bytes.to_vec(),
        });
    });
    let outcome = match handle.wait() {
        Ok(outcome) => outcome,
        Err(error) => {
            drop((caches, network));
            let description = description.filter(|_| is_of_the_command(&error));
            let description = description.map(|mut description| {
                description.has_not_run();
                description
            });
            keep(job, description);
            return Err(not_started(job, error));
        }
    };
    // Agents for keys are told to forget them, and waited for.
    drop((caches, network, agents));
    if let Some(recorder) = &workspace.recorder {
        recorder.note_usage(step, &outcome);
    }
    match outcome.status {
        CommandStatus::Exited(0) => {}
        CommandStatus::Cancelled => return Err(StepError::Cancelled),
        status if outcome.memory.is_some_and(|memory| memory.kills > 0) => {
            keep(job, description);
            return Err(StepError::OutOfMemory {
                status,
                limit: workspace.options.limits.memory,
                peak: outcome.memory.and_then(|memory| memory.peak),
            });
        }
        status => {
            keep(job, description);
            return Err(failed(job, status, &tail));
        }
    }
    let Some(sealed) = outcome.layer else {
        return Err(StepError::Internal("the runner returned no layer"));
    };
    let layer = seal::commit(workspace, &scratch.join("upper"), sealed)?;
    Ok(Made {
        layer,
        inputs: None,
    })
}

/// Keeps what the command left, where that was asked for. The step failed anyway: that nothing could be kept of it is only said.
fn keep(job: &StepJob, description: Option<Description>) {
    let Some(description) = description else {
        return;
    };
    let workspace = &job.solver.workspace;
    let step = job.solver.id(job.index);
    match kept::keep(workspace, step, &job.parent, description) {
        Ok(true) => workspace.emit(Event::Kept { step }),
        Ok(false) => {}
        Err(error) => {
            let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| {
                error.source()
            });
            let words: Vec<String> = causes.map(ToString::to_string).collect();
            let text = format!(
                "the failed step's file system is not kept: {}",
                words.join(": ")
            );
            workspace.emit(Event::Notice(text));
        }
    }
}

/// Whether a command could not be started for what it is: then the sandbox is one that can be looked at.
fn is_of_the_command(error: &JobError) -> bool {
    matches!(
        error.kind,
        JobErrorKind::CommandNotFound
            | JobErrorKind::CommandPermissionDenied
            | JobErrorKind::CommandFormat
    )
}

/// What ended a command, and the way out where its words or its program tell.
fn failed(job: &StepJob, status: CommandStatus, tail: &Tail) -> StepError {
    let Operation::Run(run) = job.operation() else {
        return StepError::Internal("not a RUN step");
    };
    let workspace = &job.solver.workspace;
    let failed = Failed {
        status,
        output: tail.bytes(),
        script: run.argv.last().map_or("", String::as_str),
        working_directory: &run.working_directory,
        is_offline: run.network == Network::None,
        resolv_conf: &workspace.resolv_conf,
    };
    StepError::Command {
        status,
        advice: failed.advice(&files_of(job)),
    }
}

/// The same of a command that never ran.
fn not_started(job: &StepJob, error: JobError) -> StepError {
    let platform = &job.solver.graph.steps[job.index.0].platform;
    let error = explain_foreign(error, platform);
    let advice = postmortem::of_program(&error, &files_of(job));
    StepError::Job(match advice {
        Some(advice) => error.with_help(advice),
        None => error,
    })
}

fn files_of(job: &StepJob) -> postmortem::Files {
    postmortem::Files::new(&job.parent.snapshot_paths(&job.solver.workspace.store))
}

/// A job that is ready to go, and what must stay alive while it runs.
struct Prepared {
    request: RunJob,
    /// What it takes to see it again, should it fail and be kept.
    description: Option<Description>,
    scratch: std::path::PathBuf,
    caches: CacheMounts,
    agents: Vec<ssh::Forwarded>,
    /// Given back when the command has ended.
    network: Option<LentNetwork>,
}

fn prepare(job: &StepJob) -> Result<Prepared, StepError> {
    let Operation::Run(run) = job.operation() else {
        return Err(StepError::Internal("not a RUN step"));
    };
    let workspace = &job.solver.workspace;
    check_devices(workspace, run)?;
    let mut network = match run.network {
        Network::Default => workspace.private_network()?,
        Network::Host | Network::None => None,
    };
    if run.security == Security::Insecure
        && let Some(network) = &mut network
    {
        network.spoil();
    }
    let kind = match run.network {
        Network::Host => rbuild_runner::job::Network::Host,
        Network::Default if network.is_some() => rbuild_runner::job::Network::Private,
        Network::Default | Network::None => rbuild_runner::job::Network::None,
    };
    workspace.tell_ground()?;
    let scratch = workspace.scratch("run")?;
    let mounts = mounts::prepare(job, run)?;
    let mut environment: Vec<(Vec<u8>, Vec<u8>)> = bytes(&run.environment);
    for (name, value) in bytes(&run.proxy_environment) {
        if !environment.iter().any(|(known, _)| *known == name) {
            environment.push((name, value));
        }
    }
    environment.extend(mounts.environment);
    authorities::add_variables(workspace.options.registries.authorities(), &mut environment);
    let options = &workspace.options;
    let request = RunJob {
        root: OverlaySpec {
            lowers: job.parent.snapshot_paths(&workspace.store),
            scratch: scratch.clone(),
        },
        argv: run
            .argv
            .iter()
            .map(|word| word.clone().into_bytes())
            .collect(),
        environment,
        working_directory: run.working_directory.clone().into_bytes(),
        user: run.user.clone().into_bytes(),
        hostname: run.hostname.clone().into_bytes(),
        files: provided_files(workspace, run, kind),
        mounts: mounts.mounts,
        network: kind,
        confinement: match run.security {
            Security::Sandbox => Confinement::Default,
            Security::Insecure => Confinement::Insecure,
        },
        shm_size: options.shm_size.unwrap_or(DEFAULT_SHM_SIZE),
        rlimits: options
            .ulimits
            .iter()
            .map(|(name, soft, hard)| Rlimit {
                name: name.clone(),
                soft: *soft,
                hard: *hard,
            })
            .collect(),
        limits: options.limits.clone(),
        makes_layer: true,
    };
    let is_kept = options.failed_steps == FailedSteps::Kept;
    let description = is_kept.then(|| {
        let environment = plain_environment(workspace, run);
        let leads_to_host = hosts::lead_to_host(&options.extra_hosts);
        let mut description = Description::new(&request, environment, mounts.again);
        description.secret_variables = mounts.secret_variables;
        let proxies = run.proxy_environment.iter();
        description
            .left_out
            .extend(proxies.map(|(name, _)| name.clone()));
        description.leads_to_host = leads_to_host;
        description
    });
    Ok(Prepared {
        request,
        description,
        scratch,
        caches: mounts.caches,
        agents: mounts.agents,
        network,
    })
}

/// What an image, the Dockerfile and `--ca-cert` set: no secrets, and no proxies.
fn plain_environment(workspace: &Workspace, run: &Run) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut environment = bytes(&run.environment);
    authorities::add_variables(workspace.options.registries.authorities(), &mut environment);
    environment
}

fn check_devices(workspace: &Workspace, run: &Run) -> Result<(), StepError> {
    for device in &run.devices {
        if device.is_required {
            return Err(StepError::Device {
                device: device.name.clone(),
            });
        }
        workspace.emit(Event::Notice(format!(
            "a step runs without the device `{}`: a sandbox has no devices of the host",
            device.name
        )));
    }
    Ok(())
}

fn bytes(pairs: &[(String, String)]) -> Vec<(Vec<u8>, Vec<u8>)> {
    pairs
        .iter()
        .map(|(name, value)| (name.clone().into_bytes(), value.clone().into_bytes()))
        .collect()
}

fn provided_files(
    workspace: &Workspace,
    run: &Run,
    network: rbuild_runner::job::Network,
) -> Vec<ProvidedFile> {
    let resolv_conf = if network == rbuild_runner::job::Network::Private {
        resolver::inside(&workspace.resolv_conf).text
    } else {
        workspace.resolv_conf.clone()
    };
    let file = |target: &str, content: Vec<u8>, mode| ProvidedFile {
        target: target.into(),
        content,
        mode,
        uid: 0,
        gid: 0,
    };
    let hosts = hosts::text(&run.hostname, &workspace.options.extra_hosts, network);
    let mut files = vec![
        file("/etc/hosts", hosts, 0o644),
        file("/etc/resolv.conf", resolv_conf, 0o644),
    ];
    files.extend(authorities::file(
        workspace.options.registries.authorities(),
    ));
    for script in &run.scripts {
        files.push(file(
            &format!("/dev/pipes/{}", script.name),
            script.content.clone().into_bytes(),
            0o755,
        ));
    }
    files
}
