//! The server: keeps one idle worker that waits for the next job, and nothing else.
//!
//! Forked ahead of time, a worker costs the job nothing; only the first is forked when its job comes. It tells the server
//! through a pipe of its own when it has taken a job, and the server forks the next one; when the job was a command, that one
//! makes a sandbox ahead too. A worker that dies idle closes the pipe and is replaced too.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitOptions, waitpid};
use rustix::thread::UnshareFlags;

use super::protocol::Header;
use super::{SpawnerOptions, protocol, userns, worker};
use crate::error::JobError;
use crate::isolation::{Rung, survey};
use crate::mounts::{MountApi, Roots};
use crate::sandbox::ahead::Ahead;
use crate::sys;

/// Forks the server, which serves `socket` until its other end is closed everywhere.
///
/// Two forks: only a child of the process that unshares is in the new pid namespace, and the caller's own later
/// children must not be. The one in between ends at once, so the server is nobody's child here and leaves the caller
/// no zombie.
pub(super) fn start(socket: &OwnedFd, options: SpawnerOptions) -> Result<(), Errno> {
    let between = sys::process::fork_process(|| {
        // Without the privilege the workers still see their callers hang up, and each kills its own sandbox.
        let _ = sys::process::unshare(UnshareFlags::NEWPID);
        let server = sys::process::fork_process(|| {
            serve(socket, options);
            0
        });
        u8::from(server.is_err())
    })?;
    loop {
        match waitpid(Some(between), WaitOptions::empty()) {
            Ok(Some((_, status))) if status.exit_status() == Some(0) => return Ok(()),
            Ok(_) => return Err(Errno::AGAIN),
            Err(Errno::INTR) => {}
            // Somebody ignores SIGCHLD: the child was reaped for us, and how it ended is not known.
            Err(Errno::CHILD) => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
}

/// What a worker tells the server when it has taken a job.
const TAKEN: u8 = b'j';
/// The same of a command to run.
const TAKEN_COMMAND: u8 = b'c';
/// What it tells the server when every caller has gone.
const ENDED: u8 = b'e';

/// The reply socket, and what a command reads and writes: no other job comes with as many.
const COMMAND_DESCRIPTORS: usize = 4;

fn serve(socket: &OwnedFd, options: SpawnerOptions) {
    prepare(socket);
    // Most commands need no worker: the first is forked when there is something to do. It also says where to stand.
    loop {
        let header = protocol::peek_header(socket);
        if matches!(header, Ok(Some(Header::Job(..)))) {
            // Made once, and then in every worker. What could not be made is told by the job that needs it.
            let _ = crate::sandbox::seccomp::default_program();
            let _ = sys::trampoline::file();
        }
        match header {
            Ok(Some(Header::Survey)) => {
                if !matches!(fork_worker(socket, options, &Ok(()), false), Ok(TAKEN)) {
                    return;
                }
            }
            Ok(Some(Header::Job(Rung::Namespaces, doubted))) => {
                return serve_jobs(socket, try_overlays(options, doubted), &Ok(()));
            }
            Ok(Some(Header::Job(Rung::Chroot { .. }, _))) => {
                let mut options = options;
                (options.mount_api, options.roots) = (MountApi::Nothing, Roots::Copy);
                return serve_jobs(socket, options, &Ok(()));
            }
            Ok(Some(Header::Job(Rung::Userns(maps), doubted))) => {
                let entered = userns::enter(&maps, |standing| {
                    // Where nothing can be mounted at all, every job is told that.
                    let doubted = doubted.filter(|_| standing.is_ok());
                    serve_jobs(socket, try_overlays(options, doubted), &standing);
                });
                return match entered {
                    Ok(()) => (),
                    // Every job is told why.
                    Err(error) => serve_jobs(socket, options, &Err(error)),
                };
            }
            Ok(None) | Err(_) => return,
        }
    }
}

/// Has steps work on copies, if overlays were doubted and are refused.
fn try_overlays(mut options: SpawnerOptions, doubted: Option<PathBuf>) -> SpawnerOptions {
    if let Some(place) = doubted {
        // What is tried has to be waited for; what the server says of its children otherwise would reap it.
        sys::signal::keep_ended_children();
        if !survey::takes_overlays(&place) {
            options.roots = Roots::Copy;
        }
        sys::signal::reap_children_automatically();
    }
    options
}

/// Serves until every caller has gone. When the workers can't stand where they should, every job fails with the reason.
fn serve_jobs(socket: &OwnedFd, options: SpawnerOptions, standing: &Result<(), JobError>) {
    let mut expects_command = false;
    loop {
        let Ok(word) = fork_worker(socket, options, standing, expects_command) else {
            // No process can be had now. The next caller sees its reply socket close and reports the job as lost.
            match protocol::receive_descriptors(socket) {
                Ok(Some(_)) => continue,
                _ => break,
            }
        };
        if word == ENDED {
            break;
        }
        // Commands come one after the other.
        expects_command = word == TAKEN_COMMAND;
    }
    // The kernel kills everything that is left in our pid namespace.
}

/// Forks a worker and returns what it said when it was idle no more.
fn fork_worker(
    socket: &OwnedFd,
    options: SpawnerOptions,
    standing: &Result<(), JobError>,
    expects_command: bool,
) -> Result<u8, Errno> {
    let (news, teller) = pipe_with(PipeFlags::CLOEXEC)?;
    let mut teller = Some(teller);
    sys::process::fork_process(|| {
        sys::signal::keep_ended_children();
        let ahead = (expects_command && standing.is_ok()).then(|| Ahead::make(options));
        let received = protocol::receive_descriptors(socket);
        let word = match &received {
            Ok(Some(descriptors)) if descriptors.len() >= COMMAND_DESCRIPTORS => TAKEN_COMMAND,
            Ok(Some(_)) => TAKEN,
            _ => ENDED,
        };
        if let Some(teller) = teller.take() {
            // Fails when the server has died, and then the kernel is about to end this process too.
            let _ = rustix::io::write(&teller, &[word]);
        }
        if let Ok(Some(descriptors)) = received {
            worker::work(descriptors, options, standing, ahead.flatten());
        }
        0
    })?;
    drop(teller);
    let mut word = [TAKEN];
    loop {
        match rustix::io::read(&news, &mut word) {
            Err(Errno::INTR) => {}
            // Nothing read: it died idle.
            result => return result.map(|_| word[0]),
        }
    }
}

fn prepare(socket: &OwnedFd) {
    sys::process::close_all_but(&mut [socket.as_raw_fd().cast_unsigned()]);
    // 0 to 2 must not be given to something else, and a panic's message belongs in the job's error and not over the
    // caller's terminal.
    if let Ok(null) = rustix::fs::open(
        "/dev/null",
        rustix::fs::OFlags::RDWR,
        rustix::fs::Mode::empty(),
    ) {
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
        std::mem::forget(null); // it is descriptor 0, the lowest that was free
    }
    // Fails only for a process group leader, which a child just forked is not.
    let _ = rustix::process::setsid();
    sys::signal::reset_all();
    sys::signal::reap_children_automatically();
    // Some kernels and containers forbid keyctl; then there are no keys to protect either.
    let _ = sys::process::join_new_session_keyring();
    let _ = rustix::process::umask(rustix::fs::Mode::from(0o022));
}
