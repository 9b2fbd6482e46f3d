//! A network of its own for commands: a namespace that leads out into the world and to nothing on this machine.
//!
//! ```text
//! worker ──clone(NEWNET)──▶ `lo` up; gives its namespace and a route socket in it; ends
//!   │ as root: lays a cable to it (`cable`); else, or where that can't be: starts `pasta` on it (`pasta`)
//!   │ hands the namespace to the caller, who gives it to each command
//!   └ waits until the caller hangs up; what it made ends with it
//! ```
//!
//! Nothing of the host's settings is changed, so nothing can stay changed.

mod cable;
mod firewall;
mod link;
mod netlink;
mod pasta;
mod xtables;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::Signal;

use self::cable::Obstacle;
use self::netlink::Netlink;
use self::pasta::Pasta;
use crate::error::{JobError, JobErrorKind};
use crate::ids;
use crate::job::NetworkJob;
use crate::spawner::protocol;
use crate::sys;
use crate::sys::process::{Namespaces, clone_process, wait_for};

/// How long pasta may take to bring a way out up; it takes some 50 ms.
const PATIENCE: Duration = Duration::from_secs(10);

/// What to do when there can be no private network.
const WAY_OUT: &str = "`--network host` gives steps the host's network";

/// Makes the network, sends its namespace through `to`, and keeps it until the caller hangs up.
pub(crate) fn keep(job: &NetworkJob, to: &OwnedFd, caller: BorrowedFd<'_>) -> Result<(), JobError> {
    let (namespace, mut inside) = new_namespace().map_err(cannot)?;
    let cable = match why_no_cable(job) {
        Some(obstacle) => Err(obstacle),
        None => cable::lay(job, namespace.as_fd(), &mut inside),
    };
    match cable {
        Ok(cable) => {
            protocol::hand_over(to, &[namespace.as_fd()]).map_err(cannot)?;
            drop((namespace, inside));
            wait_for_end(caller);
            drop(cable);
            Ok(())
        }
        Err(obstacle) => keep_pasta(job, to, caller, namespace, inside)
            .map_err(|error| with_obstacle(error, &obstacle)),
    }
}

/// What speaks for pasta before anything is tried.
fn why_no_cable(job: &NetworkJob) -> Option<Obstacle> {
    let because = |reason: &str| {
        Some(Obstacle {
            reason: reason.to_owned(),
            remedy: String::new(),
        })
    };
    if ids::maps().is_some() {
        return because("a veth pair takes root");
    }
    if !job.ports.is_empty() {
        return because("a veth pair leads no ports inside");
    }
    if job.dns_forward.is_some() {
        return because(
            "the host's resolver listens on its loopback only, which a veth pair does not lead to",
        );
    }
    None
}

fn keep_pasta(
    job: &NetworkJob,
    to: &OwnedFd,
    caller: BorrowedFd<'_>,
    namespace: OwnedFd,
    mut inside: Netlink,
) -> Result<(), JobError> {
    let mut pasta = Pasta::start(job, &namespace)?;
    if !pasta.brings_up(&mut inside, caller)? {
        return Ok(());
    }
    protocol::hand_over(to, &[namespace.as_fd()]).map_err(cannot)?;
    drop((namespace, inside));
    pasta.wait_for_end(caller)
}

/// The network that steps are to have can't be had in one way, and not in the other either.
fn with_obstacle(mut error: JobError, obstacle: &Obstacle) -> JobError {
    if ids::maps().is_some() {
        return error;
    }
    error.message = format!("{}; and as root: {}", error.message, obstacle.reason);
    let helps = [
        obstacle.remedy.as_str(),
        error.help.as_deref().unwrap_or_default(),
    ];
    let helps: Vec<&str> = helps.into_iter().filter(|help| !help.is_empty()).collect();
    error.help = Some(helps.join("; or: "));
    error
}

fn cannot(errno: Errno) -> JobError {
    let message = "cannot make a network namespace for the steps";
    JobError::from_errno(JobErrorKind::Network, message, errno).with_help(WAY_OUT)
}

/// A new network namespace whose loopback is up, and a route socket in it.
fn new_namespace() -> Result<(OwnedFd, Netlink), Errno> {
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let child = clone_process(Namespaces::NETWORK, || {
        u8::from(give_away(&theirs).is_err())
    })?;
    drop(theirs);
    let received = protocol::receive_descriptors(&ours)?.unwrap_or_default();
    // It has said all that it has to say.
    let _ = wait_for(child.pid);
    let [namespace, socket] = <[OwnedFd; 2]>::try_from(received).map_err(|_| Errno::IO)?;
    Ok((namespace, Netlink::over(socket)?))
}

/// The life of the first process in the namespace.
fn give_away(to: &OwnedFd) -> Result<(), Errno> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    sys::network::bring_loopback_up()?;
    let socket = Netlink::route()?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let namespace = rustix::fs::open("/proc/self/ns/net", flags, Mode::empty())?;
    protocol::hand_over(to, &[namespace.as_fd(), socket.as_fd()])
}

/// Waits until the caller hangs up.
fn wait_for_end(caller: BorrowedFd<'_>) {
    let flags = PollFlags::IN | PollFlags::RDHUP;
    // An error of poll's other than an interruption ends the network, as the caller's end does.
    while matches!(
        poll(&mut [PollFd::from_borrowed_fd(caller, flags)], None),
        Err(Errno::INTR)
    ) {}
}

/// How a private network would be made here, for `rbuild info`; else why there can be none, and what to do.
pub(crate) fn prospect(is_root: bool) -> Result<String, (String, String)> {
    let cable = if is_root {
        cable::obstacle()
    } else {
        Some(Obstacle {
            reason: "a veth pair takes root".to_owned(),
            remedy: String::new(),
        })
    };
    let Some(obstacle) = cable else {
        return Ok("steps have one of their own, by a veth pair and an nft table".to_owned());
    };
    let path = std::env::var_os("PATH");
    let program = pasta::find(path.as_deref());
    let (missing, remedy) = match (&program, pasta::why_no_tun()) {
        (Some(program), None) => {
            return Ok(format!(
                "steps have one of their own, by `{}`, since {}",
                program.display(),
                obstacle.reason
            ));
        }
        (Some(_), Some(why)) => why,
        (None, _) => ("`pasta` is not installed".to_owned(), pasta::INSTALL),
    };
    // What is in the way of a cable is nobody's business who can't have one.
    let (reason, remedies) = if is_root {
        let reason = format!("{}, and {missing}", obstacle.reason);
        (reason, vec![obstacle.remedy.as_str(), remedy, WAY_OUT])
    } else {
        (missing, vec![remedy, WAY_OUT])
    };
    Err((
        format!("{reason}: steps have a loopback only"),
        remedies.join("; or: "),
    ))
}
