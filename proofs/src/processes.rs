//! Running programs with a time limit, and seeing to it that nothing of a killed one lives on.

use std::fs;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, waitpid};

use crate::{Result, ensure};

/// Longer than anything here takes on a busy machine: who is not done by then hangs.
pub(crate) const PATIENCE: Duration = Duration::from_mins(3);

/// How long the processes of a killed rbuild may take to end.
const ORPHANS_END: Duration = Duration::from_secs(20);

/// How often a process is asked whether it is done.
const POLL: Duration = Duration::from_millis(2);

/// Makes orphans of killed processes our children, so that they can be seen.
pub(crate) fn adopt_orphans() -> Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(getpid()))?)
}

/// Pids of our children.
pub(crate) fn children() -> Result<Vec<i32>> {
    let mut pids = Vec::new();
    for task in fs::read_dir("/proc/self/task")? {
        // A thread may end meanwhile.
        let text = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
        pids.extend(
            text.split_whitespace()
                .filter_map(|pid| pid.parse::<i32>().ok()),
        );
    }
    Ok(pids)
}

/// Waits until we have no children but `known` any more: no process of what was killed is left.
pub(crate) fn wait_for_orphans(known: &[i32]) -> Result<()> {
    let start = Instant::now();
    loop {
        let mut left = Vec::new();
        for pid in children()?.into_iter().filter(|pid| !known.contains(pid)) {
            let Some(target) = Pid::from_raw(pid) else {
                continue;
            };
            // Reaped; an error means that it is gone already.
            if matches!(waitpid(Some(target), WaitOptions::NOHANG), Ok(None)) {
                left.push(pid);
            }
        }
        if left.is_empty() && children()?.iter().all(|pid| known.contains(pid)) {
            return Ok(());
        }
        if start.elapsed() > ORPHANS_END {
            let lines: Vec<_> = left.iter().map(|&pid| describe(pid)).collect();
            return Err(format!("processes outlive a killed rbuild: {}", lines.join(", ")).into());
        }
        std::thread::sleep(POLL);
    }
}

/// What a process is and where it waits, for a report.
pub(crate) fn describe(pid: i32) -> String {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let command = read("cmdline").replace('\0', " ");
    let stack = read("stack").replace('\n', " ");
    format!("{pid} `{}` [{stack}]", command.trim())
}

/// Waits for a process at most `limit`; none when it is still running.
pub(crate) fn wait_at_most(
    child: &mut Child,
    limit: Duration,
) -> Result<Option<std::process::ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() >= limit {
            return Ok(None);
        }
        std::thread::sleep(POLL.min(limit.saturating_sub(start.elapsed())));
    }
}

/// Kills a process as the kernel does when memory is short.
pub(crate) fn kill(child: &Child) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended by itself meanwhile.
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Runs a program to its end, and fails when it hangs.
pub(crate) fn output(command: &mut Command) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command
        .spawn()
        .map_err(|error| format!("cannot start {command:?}: {error}"))?;
    let pid = i32::try_from(child.id())?;
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    // A watchdog of its own, because both pipes have to be read meanwhile.
    let watchdog = std::thread::spawn(move || {
        let is_late =
            is_done.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
        let told = is_late.then(|| describe(pid));
        if is_late && let Some(pid) = Pid::from_raw(pid) {
            let _ = kill_process(pid, Signal::KILL); // gone is as good
        }
        told
    });
    let output = child.wait_with_output();
    drop(done);
    if let Ok(Some(told)) = watchdog.join() {
        return Err(format!("hangs: {told}").into());
    }
    Ok(output?)
}

/// Runs a program that has to succeed, and gives its standard output.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
