//! A sandbox's process that is made before its job is known, while the step before it still runs: namespaces, `/proc` and `/dev` are
//! more than half of what a step costs otherwise.
//!
//! ```text
//! worker (idle)                              waiting process (pid 1 of its pid namespace)
//!   clone3 into new namespaces  ─────────▶    mount /proc and /dev                SandboxPlan::ahead
//!   … a job comes …
//!   descriptors, RunJob  ──── socket ─────▶   SandboxPlan::after_ahead, then the command
//! ```
//!
//! It sees the mounts that were there when it was made. When they have changed since, it is not used.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};

use super::plan::SandboxPlan;
use super::{Given, become_command, setup};
use crate::job::RunJob;
use crate::mounts::{MountApi, Roots};
use crate::spawner::{SpawnerOptions, Stdio, protocol};
use crate::sys::process::{ClonedProcess, Namespaces, clone_process};

/// A process that waits for a job.
#[derive(Debug)]
pub(crate) struct Ahead {
    child: ClonedProcess,
    orders: UnixStream,
    report: OwnedFd,
    /// This process's table of mounts, as it was before.
    mounts: File,
}

impl Ahead {
    /// Makes one. None when it can't be had: the job's own attempt tells why.
    pub(crate) fn make(options: SpawnerOptions) -> Option<Self> {
        if options.mount_api != MountApi::Automatic || options.roots != Roots::Overlay {
            return None;
        }
        #[cfg(test)]
        if options.trial.is_some() {
            return None;
        }
        let mounts = File::open("/proc/self/mounts").ok()?;
        let (orders, taken) = UnixStream::pair().ok()?;
        let (report, report_writer) = pipe_with(PipeFlags::CLOEXEC).ok()?;
        let mut ends = Some((orders, report));
        let child = clone_process(Namespaces::SANDBOX, || {
            // The worker's own ends, or the end of the worker would not be seen.
            drop(ends.take());
            wait_and_become(&taken, &report_writer, options).unwrap_or(super::SETUP_FAILED)
        })
        .ok()?;
        let (orders, report) = ends?;
        Some(Self {
            child,
            orders,
            report,
            mounts,
        })
    }

    /// Gives it the job: the process that will be the command, and where it reports. None when this job needs one of its own.
    pub(super) fn take(
        self,
        job: &RunJob,
        stdio: &Stdio,
        network: Option<&OwnedFd>,
    ) -> Option<(ClonedProcess, OwnedFd)> {
        SandboxPlan::after_ahead(job)?;
        if self.are_mounts_changed() {
            return None;
        }
        let descriptors = [&stdio.stdin, &stdio.stdout, &stdio.stderr];
        let descriptors: Vec<_> = descriptors
            .into_iter()
            .chain(network)
            .map(AsFd::as_fd)
            .collect();
        // Fails when the process could not do its part, and has ended.
        protocol::hand_over(&self.orders, &descriptors).ok()?;
        protocol::write_message(&self.orders, job).ok()?;
        Some((self.child, self.report))
    }

    /// The kernel marks an open table of mounts when something in it has changed.
    fn are_mounts_changed(&self) -> bool {
        let mut fds = [PollFd::new(&self.mounts, PollFlags::PRI)];
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        !matches!(poll(&mut fds, Some(&at_once)), Ok(0))
    }
}

/// The waiting process's life. None when there is no job for it, or what is to be had ahead can't be had.
fn wait_and_become(orders: &UnixStream, report: &OwnedFd, options: SpawnerOptions) -> Option<u8> {
    let trees = setup::prepare(options).ok()?;
    let received = protocol::receive_descriptors(orders).ok()??;
    let job: RunJob = protocol::read_message(orders).ok()??;
    let mut received = received.into_iter();
    let stdio = Stdio {
        stdin: received.next()?,
        stdout: received.next()?,
        stderr: received.next()?,
    };
    let network = received.next();
    let plan = SandboxPlan::after_ahead(&job)?;
    let given = Given {
        cgroup: None,
        network: network.as_ref(),
        stdio: &stdio,
        trees: Some(trees),
    };
    Some(become_command(&plan, &job, given, report.as_fd(), options))
}
