//! Entering a user namespace.
//!
//! ```text
//! server ──clone(NEWUSER, NEWPID, NEWNS)──▶ inner server: waits for its maps, becomes root, serves
//!   │ writes the maps (newuidmap, newgidmap, or itself)      pid 1 of the pid namespace of all workers
//!   └ waits for the inner server to end, and ends
//! ```
//!
//! Only a process outside may write maps of more than one id, hence the two. The outer one holds nothing open that would keep
//! a caller from being missed.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, kill_process};
use rustix::thread::{Gid, Uid};

use crate::error::{JobError, JobErrorKind};
use crate::isolation::{IdMaps, IdRange, IdSource};
use crate::sys::process::{ClonedProcess, Namespaces, clone_process, wait_for};
use crate::{emulation, ids, isolation, mounts, sys};

/// Runs `body` in a new process in a user namespace with these maps and returns when that has ended. `body` is told whether the
/// namespace is ready for work.
///
/// # Errors
/// The namespace could not be made; `body` has not run.
pub(crate) fn enter(
    maps: &IdMaps,
    body: impl FnOnce(Result<(), JobError>),
) -> Result<(), JobError> {
    let (go, say_go) = pipe_with(PipeFlags::CLOEXEC).map_err(cannot_make)?;
    let mut say_go = Some(say_go);
    let namespaces = Namespaces::USER;
    let child = clone_process(namespaces, || {
        say_go = None;
        if !is_told(&go) {
            return 1;
        }
        drop(go);
        body(settle(maps.clone()));
        0
    })
    .map_err(|errno| isolation::explain_refusal(cannot_make(errno), errno))?;
    let written = write_maps(&child, maps);
    if written.is_ok()
        && let Some(say_go) = say_go.take()
    {
        // Fails when the child has died, which is seen below.
        let _ = rustix::io::write(&say_go, b"g");
    }
    drop(say_go);
    if written.is_err() {
        // It would end by itself, but a body that never ran must be certain.
        let _ = kill_process(child.pid, Signal::KILL);
    }
    wait_out(&child);
    written
}

fn cannot_make(errno: Errno) -> JobError {
    JobError::from_errno(
        JobErrorKind::MissingPrivilege,
        "cannot make a user namespace",
        errno,
    )
}

fn is_told(go: &OwnedFd) -> bool {
    loop {
        match rustix::io::read(go, &mut [0_u8; 1]) {
            Err(Errno::INTR) => {}
            result => return result == Ok(1),
        }
    }
}

/// Becomes the namespace's root, apart from the mounts outside.
fn settle(maps: IdMaps) -> Result<(), JobError> {
    ids::enter(maps);
    let become_root = || -> Result<(), Errno> {
        // Supplementary groups stay: they may be what lets the caller read the context. Commands lose them.
        rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
        rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)
    };
    become_root().map_err(|errno| {
        JobError::from_errno(
            JobErrorKind::MissingPrivilege,
            "cannot become root of the user namespace",
            errno,
        )
    })?;
    mounts::make_private().map_err(|error| {
        let errno = error.source;
        isolation::explain_mounts(JobError::from(error), errno)
    })?;
    emulation::register();
    Ok(())
}

fn write_maps(child: &ClonedProcess, maps: &IdMaps) -> Result<(), JobError> {
    let pid = pid_in_proc(child).map_err(cannot_make)?;
    match &maps.source {
        IdSource::Granted {
            newuidmap,
            newgidmap,
        } => {
            run_helper(newuidmap, pid, &maps.uids)?;
            run_helper(newgidmap, pid, &maps.gids)
        }
        IdSource::Own => {
            write_map(pid, "uid_map", &maps.uids)?;
            write_map(pid, "gid_map", &maps.gids)
        }
        IdSource::Single { .. } => {
            // Whoever may write only its own group must first give up changing groups (CVE-2014-8989).
            write_file(pid, "setgroups", "deny")?;
            write_map(pid, "uid_map", &maps.uids)?;
            write_map(pid, "gid_map", &maps.gids)
        }
    }
}

/// The child's pid as `/proc` has it. As root the server is in a pid namespace of its own, but `/proc` is the caller's, where
/// the child's pid is another and its number is somebody else's.
fn pid_in_proc(child: &ClonedProcess) -> Result<u32, Errno> {
    let path = format!("/proc/self/fdinfo/{}", child.pidfd.as_raw_fd());
    let text = std::fs::read_to_string(path).map_err(|error| errno_of(&error))?;
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:"));
    // -1 is a process that has ended, 0 one that is not to be seen there.
    (pid.and_then(|pid| pid.trim().parse().ok()))
        .filter(|&pid| pid > 0)
        .ok_or(Errno::SRCH)
}

fn errno_of(error: &std::io::Error) -> Errno {
    error
        .raw_os_error()
        .map_or(Errno::IO, Errno::from_raw_os_error)
}

fn write_map(pid: u32, file: &str, ranges: &[IdRange]) -> Result<(), JobError> {
    let mut lines = String::new();
    for range in ranges {
        // Writing to a String cannot fail.
        let _ = writeln!(lines, "{} {} {}", range.inside, range.outside, range.count);
    }
    write_file(pid, file, &lines)
}

fn write_file(pid: u32, file: &str, text: &str) -> Result<(), JobError> {
    // One write: the kernel takes a map whole or not at all.
    let written = std::fs::OpenOptions::new()
        .write(true)
        .open(format!("/proc/{pid}/{file}"))
        .and_then(|mut open| open.write_all(text.as_bytes()));
    written.map_err(|error| {
        let errno = errno_of(&error);
        isolation::explain_refusal(cannot_make(errno), errno)
    })
}

fn run_helper(program: &str, pid: u32, ranges: &[IdRange]) -> Result<(), JobError> {
    let numbers = ranges
        .iter()
        .flat_map(|range| [range.inside, range.outside, range.count]);
    let mut command = Command::new(program);
    command
        .arg(pid.to_string())
        .args(numbers.map(|number| number.to_string()))
        .stdin(Stdio::null());
    // It has to be waited for; what the server says of its children otherwise would reap it.
    sys::signal::keep_ended_children();
    let output = command.output();
    sys::signal::reap_children_automatically();
    let failed = |why: String| {
        JobError::new(
            JobErrorKind::MissingPrivilege,
            format!("`{program}` did not map the ids of the user namespace: {why}"),
        )
        .with_help(isolation::why_helper_failed(program))
    };
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            let status = output.status.to_string();
            Err(failed(if words.is_empty() { status } else { words }))
        }
        Err(error) => Err(failed(error.to_string())),
    }
}

/// Waits for the inner server to end. Its children are not ours.
fn wait_out(child: &ClonedProcess) {
    sys::signal::keep_ended_children();
    // Fails only when it was reaped already.
    let _ = wait_for(child.pid);
}
