//! Running one command in a sandbox.
//!
//! ```text
//! worker                                    sandbox (pid 1 of its pid namespace)
//!   clone3 into new namespaces  ─────────▶    carry out the SandboxPlan          setup.rs
//!   read reports  ◀─────── pipe ──────────    Ready(stubs made) | Failed(why)
//!   wait: pidfd, caller's hang-up             become the command                 command.rs, sys/trampoline.rs
//!   (cancel: SIGKILL pid 1, so all die)
//!   remove stubs from the upper directory, seal it                              stubs.rs
//! ```
//!
//! For most steps the process is there before the job is: see [`ahead`].
//!
//! When pid 1 can be reaped, every process of the namespace has ended and the mounts are gone, so the upper directory is
//! at rest. The report pipe is closed by a successful execve; after a failed one it holds the errno. The command reads none
//! of it.

pub(crate) mod ahead;
mod below;
mod capabilities;
mod chroot;
mod command;
mod in_place;
mod job_mounts;
pub(crate) mod mount_point;
mod plan;
pub(crate) mod seccomp;
mod setup;
pub(crate) mod stubs;
mod unchanged;
#[cfg(test)]
pub(crate) mod weak;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, pidfd_send_signal};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};

use self::ahead::Ahead;
use self::below::Below;
use self::mount_point::Stubs;
use self::plan::SandboxPlan;
use self::setup::Trees;
use crate::cgroup::Cgroup;
use crate::error::{JobError, JobErrorKind};
use crate::job::{CommandStatus, Network, RunJob, RunOutcome};
use crate::metadata::Time;
use crate::mounts::{self, MountApi, Roots};
use crate::spawner::{SpawnerOptions, Stdio, protocol};
use crate::sys::process::{ClonedProcess, Namespaces, clone_process, wait_for};
use crate::{files, ids, overlay, sys};

/// What the sandbox tells its worker before it becomes the command.
#[derive(Debug, Serialize, Deserialize)]
enum Report {
    /// Everything is set up. Four bytes after it are the errno of the command's execve.
    Ready {
        /// What was made for it.
        stubs: Stubs,
        /// Where the command was found.
        program: Vec<u8>,
    },
    /// It is not, or the command could not be started.
    Failed(JobError),
}

/// Exit code of a sandbox that could not become its command; the reason is in its report.
const SETUP_FAILED: u8 = 125;

/// Runs the job's command to its end, or until `caller` hangs up.
pub(crate) fn run(
    job: &RunJob,
    stdio: Stdio,
    network: Option<&OwnedFd>,
    caller: BorrowedFd<'_>,
    options: SpawnerOptions,
    ahead: Option<Ahead>,
) -> Result<RunOutcome, JobError> {
    if options.mount_api == MountApi::Nothing {
        return chroot::run(job, stdio, caller, options);
    }
    if options.roots == Roots::Copy {
        return in_place::run(job, stdio, network, caller, options);
    }
    let began = Time::now();
    let failed = |errno| {
        JobError::from_errno(
            JobErrorKind::Sandbox,
            "cannot make the sandbox's process",
            errno,
        )
    };
    let cgroup = Cgroup::make(&job.limits)?;
    let taken = ahead.and_then(|ahead| ahead.take(job, &stdio, network));
    let (child, report) = if let Some(taken) = taken {
        taken
    } else {
        let (report, report_writer) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
        let child = begin(
            job,
            &stdio,
            network,
            cgroup.as_ref(),
            &report_writer,
            options,
        )?;
        (child, report)
    };
    drop(stdio);
    let Watched {
        reports,
        is_cancelled,
    } = watch(&child, report, caller);
    let (status, usage) = wait_for(child.pid).map_err(failed)?;
    let memory = cgroup.as_ref().and_then(Cgroup::report);
    drop(cgroup);
    if is_cancelled {
        return Ok(RunOutcome {
            status: CommandStatus::Cancelled,
            usage,
            memory,
            layer: None,
        });
    }
    let stubs = read_reports(&reports)?;
    // From here on nothing but files is at stake, and hanging up ends this process.
    sys::signal::die_when_signalled_by(caller).map_err(failed)?;
    let upper = job.root.scratch.join(overlay::UPPER);
    stubs::remove(&upper, &stubs)?;
    let layer = match status {
        CommandStatus::Exited(0) if job.makes_layer => {
            if !job.root.lowers.is_empty() {
                let (lowers, scratch) = (&job.root.lowers, &job.root.scratch);
                unchanged::remove(&upper, began, || {
                    files::read_only(lowers, scratch, options).map(Below::Mounted)
                })?;
            }
            Some(files::seal(&upper)?)
        }
        _ => None,
    };
    sys::signal::stay_when_signalled_by(caller).map_err(failed)?;
    Ok(RunOutcome {
        status,
        usage,
        memory,
        layer,
    })
}

/// Clones the sandbox's process, which sets everything up and becomes the command.
fn begin(
    job: &RunJob,
    stdio: &Stdio,
    network: Option<&OwnedFd>,
    cgroup: Option<&Cgroup>,
    report: &OwnedFd,
    options: SpawnerOptions,
) -> Result<ClonedProcess, JobError> {
    let plan = SandboxPlan::new(job);
    let namespaces = match job.network {
        Network::Host | Network::Private => Namespaces::SANDBOX,
        Network::None => Namespaces::SANDBOX.and(Namespaces::NETWORK),
    };
    #[cfg(test)]
    let (plan, namespaces) = weak::weaken(options.trial, plan, namespaces);
    clone_process(namespaces, || {
        let given = Given {
            cgroup,
            network,
            stdio,
            trees: None,
        };
        become_command(&plan, job, given, report.as_fd(), options)
    })
    .map_err(cannot_clone)
}

fn cannot_clone(errno: Errno) -> JobError {
    let what = "cannot make the sandbox's namespaces (mount, pid, ipc, uts, cgroup, net)";
    match errno {
        Errno::PERM | Errno::ACCESS => {
            JobError::from_errno(JobErrorKind::MissingPrivilege, what, errno)
                .with_help(mounts::NEEDS_ADMIN)
        }
        Errno::NOSPC | Errno::USERS => {
            let made = JobError::new(JobErrorKind::Sandbox, what).caused_by(&errno);
            made.with_help(
                "the machine's limit of namespaces is reached: see /proc/sys/user/max_*_namespaces",
            )
        }
        Errno::NOSYS => JobError::from_errno(JobErrorKind::Sandbox, what, errno)
            .with_help("clone3 needs Linux 5.3, or a seccomp profile that knows it"),
        errno => JobError::from_errno(JobErrorKind::Sandbox, what, errno),
    }
}

/// What [`watch`] saw.
struct Watched {
    reports: Vec<u8>,
    is_cancelled: bool,
}

/// Collects reports until the sandbox has ended; kills it when the caller hangs up.
fn watch(child: &ClonedProcess, report: OwnedFd, caller: BorrowedFd<'_>) -> Watched {
    let mut watched = Watched {
        reports: Vec::new(),
        is_cancelled: false,
    };
    let mut report = Some(report);
    loop {
        let mut fds = vec![PollFd::new(&child.pidfd, PollFlags::IN)];
        // The caller sends nothing after its request: anything to read is the end of the stream.
        if !watched.is_cancelled {
            fds.push(PollFd::from_borrowed_fd(
                caller,
                PollFlags::IN | PollFlags::RDHUP,
            ));
        }
        let caller_index = fds.len() - 1;
        if let Some(report) = &report {
            fds.push(PollFd::new(report, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            Err(_) => break, // only out of memory; the wait that follows still ends with the command
            Ok(_) => {}
        }
        let is_ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
        let (has_ended, hung_up) = (is_ready(0), !watched.is_cancelled && is_ready(caller_index));
        let has_report = report.is_some() && is_ready(fds.len() - 1);
        drop(fds);
        if has_report {
            let mut buffer = [0; 4096];
            match report.as_ref().map(|fd| rustix::io::read(fd, &mut buffer)) {
                Some(Ok(length)) if length > 0 => {
                    watched.reports.extend_from_slice(&buffer[..length]);
                }
                Some(Err(Errno::INTR)) => {}
                _ => report = None,
            }
            continue;
        }
        if has_ended {
            break;
        }
        if hung_up {
            watched.is_cancelled = true;
            // Fails only when it has ended already.
            let _ = pidfd_send_signal(&child.pidfd, Signal::KILL);
        }
    }
    watched
}

fn read_reports(mut reports: &[u8]) -> Result<Stubs, JobError> {
    match protocol::read_message::<Report>(&mut reports) {
        Ok(Some(Report::Failed(error))) => Err(error),
        Ok(Some(Report::Ready { stubs, program })) => match <[u8; 4]>::try_from(reports) {
            Ok(errno) => {
                let errno = Errno::from_raw_os_error(i32::from_le_bytes(errno));
                Err(command::explain(&program, errno))
            }
            Err(_) => match protocol::read_message::<Report>(reports) {
                Ok(Some(Report::Failed(error))) => Err(error),
                _ => Ok(stubs),
            },
        },
        Ok(None) | Err(_) => Err(JobError::new(
            JobErrorKind::Sandbox,
            "the sandbox's process died while it was set up",
        )
        .with_help(
            "if the machine ran out of memory, the kernel's log says which process it killed",
        )),
    }
}

/// What the worker made for the sandbox.
struct Given<'a> {
    cgroup: Option<&'a Cgroup>,
    /// A network namespace to be in.
    network: Option<&'a OwnedFd>,
    stdio: &'a Stdio,
    /// What was mounted before the job came.
    trees: Option<Trees>,
}

impl Given<'_> {
    /// Enters what is to be entered before anything is set up.
    fn enter(&self) -> Result<(), JobError> {
        self.cgroup.map_or(Ok(()), Cgroup::enter)?;
        let Some(namespace) = self.network else {
            return Ok(());
        };
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(namespace.as_fd(), kind).map_err(|errno| {
            let what = "cannot enter the private network";
            JobError::from_errno(JobErrorKind::Network, what, errno)
        })
    }
}

/// The life of the sandbox's first process until it is the command.
fn become_command(
    plan: &SandboxPlan,
    job: &RunJob,
    given: Given<'_>,
    report: BorrowedFd<'_>,
    options: SpawnerOptions,
) -> u8 {
    let tell = |message: &Report| protocol::write_message(Writer(report), message).is_ok();
    let attempt = || -> Result<std::convert::Infallible, JobError> {
        #[cfg(test)]
        weak::begin(options.trial);
        given.enter()?;
        let prepared = setup::carry_out(plan, job, options, given.trees)?;
        let command = command::Command::new(job, &prepared.user)?;
        command::take_stdio(given.stdio)?;
        let ready = Report::Ready {
            stubs: prepared.stubs,
            program: command.program().to_bytes().to_vec(),
        };
        if !tell(&ready) {
            return Err(JobError::new(
                JobErrorKind::Lost,
                "the worker of this sandbox has gone",
            ));
        }
        #[cfg(test)]
        weak::execute(options.trial, &command);
        Err(command.execute(report))
    };
    let Err(error) = attempt();
    // When the worker has gone, nobody is left to tell.
    let _ = tell(&Report::Failed(ids::explain(error)));
    SETUP_FAILED
}

/// Writes to a borrowed descriptor.
struct Writer<'a>(BorrowedFd<'a>);

impl std::io::Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(rustix::io::write(self.0, bytes)?)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
