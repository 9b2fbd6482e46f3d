//! Commands with the caller's own streams: what `rbuild run` and `rbuild shell` have in common.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rbuild_cache::Lease;
use rbuild_runner::job::{CommandStatus, NetworkJob, RunJob};
use rbuild_runner::{JobError, JobErrorKind, PrivateNetwork, Stdio};
use tokio_util::sync::CancellationToken;

use crate::blocking;
use crate::build::{network, resolver};
use crate::engine::Engine;
use crate::terminal::Terminal;

/// Exit codes of a shell for a command killed by a signal start here.
const SIGNAL_BASE: i32 = 128;

/// Exit code of a command that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

/// Why a command did not come to its end.
#[derive(Debug)]
pub(crate) enum AttachedError {
    /// Our own stdin, stdout or stderr can't be handed on.
    Streams(io::Error),
    /// The sandbox could not be set up.
    Job(JobError),
}

/// Runs a job with our standard streams, or in a terminal of its own that is carried to ours; gives its exit code.
pub(crate) async fn run(
    engine: &Engine,
    job: RunJob,
    network: Option<Arc<PrivateNetwork>>,
    has_terminal: bool,
    cancel: &CancellationToken,
) -> Result<u8, AttachedError> {
    let (stdio, terminal) = if has_terminal {
        let (terminal, far) = Terminal::open().map_err(AttachedError::Streams)?;
        let stdio = same_three(far).map_err(AttachedError::Streams)?;
        (stdio, Some(terminal))
    } else {
        (own_streams().map_err(AttachedError::Streams)?, None)
    };
    let spawner = engine.spawner().clone();
    let start = move || match &network {
        Some(network) => spawner.run_in_network(job, stdio, network),
        None => spawner.run(job, stdio),
    };
    let running = blocking::job_until(cancel, start);
    let outcome = match terminal {
        Some(terminal) => in_terminal(terminal, running)
            .await
            .map_err(AttachedError::Streams)?,
        None => running.await,
    };
    let outcome = outcome.map_err(AttachedError::Job)?;
    let code = match outcome.status {
        CommandStatus::Exited(code) => code,
        CommandStatus::Signaled(signal) => SIGNAL_BASE + signal,
        CommandStatus::Cancelled => INTERRUPTED,
    };
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

/// A private network for one command, under the name of its lease. Blocks.
pub(crate) fn open_network(
    engine: &Engine,
    lease: &str,
    leads_to_host: bool,
    ports: &[(u16, u16)],
) -> Result<PrivateNetwork, JobError> {
    let resolv_conf = std::fs::read("/etc/resolv.conf").unwrap_or_default();
    engine.spawner().open_network(NetworkJob {
        name: network::name(lease, 1),
        leads_to_host,
        ports: ports.to_vec(),
        dns_forward: resolver::inside(&resolv_conf).forward.map(str::to_owned),
    })
}

/// The name of a lease's directory.
pub(crate) fn name_of(lease: &Lease) -> Result<String, rbuild_cache::LeaseError> {
    let name = lease.dir()?.file_name().unwrap_or_default();
    Ok(name.to_string_lossy().into_owned())
}

/// Carries the terminal while the command runs, and hands on changes of its size.
async fn in_terminal<T>(mut terminal: Terminal, running: impl Future<Output = T>) -> io::Result<T> {
    let out = terminal.carry()?;
    let kind = tokio::signal::unix::SignalKind::window_change();
    let mut resized = tokio::signal::unix::signal(kind)?;
    tokio::pin!(running);
    let outcome = loop {
        tokio::select! {
            outcome = &mut running => break outcome,
            _ = resized.recv() => terminal.take_size(),
        }
    };
    // What was printed last is on its way still.
    let _ = tokio::task::spawn_blocking(move || out.join()).await;
    Ok(outcome)
}

/// One end of a terminal as all three streams.
fn same_three(far: OwnedFd) -> io::Result<Stdio> {
    Ok(Stdio {
        stdin: far.try_clone()?,
        stdout: far.try_clone()?,
        stderr: far,
    })
}

fn own_streams() -> io::Result<Stdio> {
    let copy = |fd: std::os::fd::BorrowedFd<'_>| -> io::Result<OwnedFd> { fd.try_clone_to_owned() };
    Ok(Stdio {
        stdin: copy(io::stdin().as_fd())?,
        stdout: copy(io::stdout().as_fd())?,
        stderr: copy(io::stderr().as_fd())?,
    })
}

/// The code that shells have for a command that could not be run: 127 it is not there, 126 it can't be executed; 125 what is ours.
pub(crate) fn exit_code_of(error: &JobError) -> u8 {
    match error.kind {
        JobErrorKind::CommandNotFound => 127,
        JobErrorKind::CommandPermissionDenied | JobErrorKind::CommandFormat => 126,
        _ => 125,
    }
}
