//! A command in a chroot, for where there are neither namespaces nor mounts.
//!
//! It has its own root and loses what capabilities it can; everything else it shares with the surrounding container: its
//! processes, network and host name. What it leaves running is found and ended, since this process adopts it all.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, getpid, kill_process};

use super::below::Below;
use super::mount_point::Stubs;
use super::plan::SandboxPlan;
use super::{Given, Watched, become_command, read_reports, unchanged, watch};
use crate::cgroup::Cgroup;
use crate::error::{JobError, JobErrorKind};
use crate::files;
use crate::job::{CommandStatus, Network, RunJob, RunOutcome};
use crate::metadata::Time;
use crate::overlay;
use crate::spawner::{SpawnerOptions, Stdio};
use crate::sys::process::{Namespaces, clone_process, wait_for};
use crate::working_root::{Provided, WorkingRoot};

/// Runs the job's command to its end, or until `caller` hangs up.
pub(super) fn run(
    job: &RunJob,
    stdio: Stdio,
    caller: BorrowedFd<'_>,
    options: SpawnerOptions,
) -> Result<RunOutcome, JobError> {
    refuse(job)?;
    let failed = |errno| {
        JobError::from_errno(
            JobErrorKind::Sandbox,
            "cannot make the command's process",
            errno,
        )
    };
    let mut root = WorkingRoot::take(&job.root)?;
    let provided = Provided::place(root.fd(), &job.root.scratch, &job.files)?;
    root.begin()?;
    let plan = SandboxPlan::in_a_chroot(job);
    let began = Time::now();
    let cgroup = Cgroup::make(&job.limits)?;
    let (report, report_writer) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
    // Whatever loses its parent is a child of this process from now on.
    rustix::process::set_child_subreaper(Some(getpid())).map_err(failed)?;
    let child = clone_process(Namespaces::NOTHING, || {
        let given = Given {
            cgroup: cgroup.as_ref(),
            network: None,
            stdio: &stdio,
            trees: None,
        };
        become_command(&plan, job, given, report_writer.as_fd(), options)
    })
    .map_err(failed)?;
    drop((stdio, report_writer));
    let Watched {
        reports,
        is_cancelled,
    } = watch(&child, report, caller);
    let (status, usage) = wait_for(child.pid).map_err(failed)?;
    end_children().map_err(failed)?;
    let memory = cgroup.as_ref().and_then(Cgroup::report);
    drop(cgroup);
    let outcome = |status, layer| RunOutcome {
        status,
        usage,
        memory,
        layer,
    };
    if is_cancelled {
        return Ok(outcome(CommandStatus::Cancelled, None));
    }
    read_reports(&reports)?;
    // Also of a command that failed: what it left may be looked at.
    root.compare(&provided.paths(), &Stubs::default())?;
    provided.undo()?;
    if !matches!(status, CommandStatus::Exited(0)) || !job.makes_layer {
        return Ok(outcome(status, None));
    }
    let upper = job.root.scratch.join(overlay::UPPER);
    unchanged::remove(&upper, began, || {
        let below = Below::of_chain(&job.root.lowers);
        below.map_err(|error| JobError::from_error(JobErrorKind::Files, &error))
    })?;
    let layer = files::seal(&upper)?;
    root.leave(&layer.diff_id);
    Ok(outcome(status, Some(layer)))
}

/// What takes a mount or a namespace.
fn refuse(job: &RunJob) -> Result<(), JobError> {
    const MORE: &str = "give this container more (`rbuild info` says what)";
    let refused = |message: String, help: String| {
        Err(JobError::new(JobErrorKind::MissingPrivilege, message).with_help(help))
    };
    if let Some(mount) = job.mounts.first() {
        return refused(
            format!(
                "a chroot has no mounts, and the step wants one at `{}`",
                String::from_utf8_lossy(&mount.target)
            ),
            format!("COPY what the step needs, and remove it in the same stage; or {MORE}"),
        );
    }
    match job.network {
        Network::Host => Ok(()),
        Network::Private | Network::None => refused(
            "a chroot has no network of its own".to_owned(),
            format!("let steps use this container's: `--network host`; or {MORE}"),
        ),
    }
}

/// Ends every process that the command left, and theirs.
fn end_children() -> Result<(), Errno> {
    loop {
        let mut has_ended_one = false;
        for child in children()? {
            // It may have ended by itself meanwhile.
            let _ = kill_process(child, Signal::KILL);
            match wait_for(child) {
                Ok(_) => has_ended_one = true,
                Err(Errno::CHILD) => {}
                Err(errno) => return Err(errno),
            }
        }
        // Those that the ended ones had are ours now.
        if !has_ended_one {
            return Ok(());
        }
    }
}

/// Processes whose parent this one is, by their numbers in our pid namespace: `/proc` may be that of one around it.
fn children() -> Result<Vec<Pid>, Errno> {
    let own = rustix::fs::readlink("/proc/self", Vec::new())?;
    let own = own.to_string_lossy().into_owned();
    let mut found = Vec::new();
    let entries = std::fs::read_dir("/proc").map_err(|error| crate::root::errno(&error))?;
    for entry in entries.flatten() {
        // One that is gone has no such file.
        let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        if field("PPid:").is_some_and(|parent| parent.trim() == own) {
            let inner = field("NSpid:").and_then(|numbers| numbers.split_whitespace().last());
            let inner = inner.and_then(|number| number.parse().ok());
            found.extend(inner.and_then(Pid::from_raw));
        }
    }
    Ok(found)
}
