//! A command in its sandbox on a root that is no overlay but a directory, changed in place; see [`crate::working_root`].
//!
//! Everything else is as on an overlay. Mount points that the image lacks lie in the root itself for the time of the command.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::pipe::{PipeFlags, pipe_with};

use super::below::Below;
use super::{Watched, begin, read_reports, stubs, unchanged, watch};
use crate::cgroup::Cgroup;
use crate::error::{JobError, JobErrorKind};
use crate::job::{CommandStatus, RunJob, RunOutcome};
use crate::metadata::Time;
use crate::spawner::{SpawnerOptions, Stdio};
use crate::sys::process::wait_for;
use crate::working_root::WorkingRoot;
use crate::{files, overlay, sys};

/// Runs the job's command to its end, or until `caller` hangs up.
pub(super) fn run(
    job: &RunJob,
    stdio: Stdio,
    network: Option<&OwnedFd>,
    caller: BorrowedFd<'_>,
    options: SpawnerOptions,
) -> Result<RunOutcome, JobError> {
    let failed = |errno| {
        let what = "cannot make the sandbox's process";
        JobError::from_errno(JobErrorKind::Sandbox, what, errno)
    };
    // What the sandbox needs of it, and what the layer will be.
    overlay::prepare_upper(&job.root)?;
    let mut root = WorkingRoot::take(&job.root)?;
    root.begin()?;
    let began = Time::now();
    let cgroup = Cgroup::make(&job.limits)?;
    let (report, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
    let child = begin(job, &stdio, network, cgroup.as_ref(), &writer, options)?;
    drop((stdio, writer));
    let Watched {
        reports,
        is_cancelled,
    } = watch(&child, report, caller);
    let (status, usage) = wait_for(child.pid).map_err(failed)?;
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
    let stubs = read_reports(&reports)?;
    // From here on nothing but files is at stake, and hanging up ends this process.
    sys::signal::die_when_signalled_by(caller).map_err(failed)?;
    stubs::remove_made(&root.path(), &stubs)?;
    // Also of a command that failed: what it left may be looked at.
    root.compare(&std::collections::BTreeSet::new(), &stubs)?;
    let layer = match status {
        CommandStatus::Exited(0) if job.makes_layer => {
            let upper = job.root.scratch.join(overlay::UPPER);
            unchanged::remove(&upper, began, || {
                let below = Below::of_chain(&job.root.lowers);
                below.map_err(|error| JobError::from_error(JobErrorKind::Files, &error))
            })?;
            let layer = files::seal(&upper)?;
            root.leave(&layer.diff_id);
            Some(layer)
        }
        _ => None,
    };
    sys::signal::stay_when_signalled_by(caller).map_err(failed)?;
    Ok(outcome(status, layer))
}
