//! Signal dispositions and masks, and signals tied to descriptors.
#![expect(
    unsafe_code,
    reason = "rustix has no sigaction, sigprocmask or F_SETOWN"
)]

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::check;

/// Highest signal number on Linux, real-time signals included.
const LAST_SIGNAL: libc::c_int = 64;

/// Puts every signal back to its default disposition and unblocks all: what a fresh program expects.
///
/// Rust itself ignores SIGPIPE, and a build may have been started under `nohup`: neither is for commands to inherit.
pub(crate) fn reset_all() {
    for signal in 1..=LAST_SIGNAL {
        set_disposition(signal, libc::SIG_DFL);
    }
    let mut none = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: sigemptyset initialises the set it is given; sigprocmask then reads it and is given no old set to fill.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
    }
}

/// Children that end are reaped by the kernel.
pub(crate) fn reap_children_automatically() {
    set_disposition(libc::SIGCHLD, libc::SIG_IGN);
}

/// Children that end stay until they are waited for.
pub(crate) fn keep_ended_children() {
    set_disposition(libc::SIGCHLD, libc::SIG_DFL);
}

/// `struct kernel_sigaction`, as the kernel wants it.
#[repr(C)]
struct KernelAction {
    handler: libc::sighandler_t,
    flags: libc::c_ulong,
    restorer: usize,
    mask: u64,
}

/// Fails only for SIGKILL and SIGSTOP, which stay as they are. Not through glibc, which keeps two signals to itself: a
/// caller that ignored those would pass that on.
fn set_disposition(signal: libc::c_int, handler: libc::sighandler_t) {
    let action = KernelAction {
        handler,
        flags: 0,
        restorer: 0,
        mask: 0,
    };
    let no_old: *mut KernelAction = ptr::null_mut();
    // SAFETY: SIG_DFL and SIG_IGN are no functions, so nothing of ours can run in a signal handler; `action` has the
    // kernel's layout (on x86_64 and aarch64), lives through the call, and 8 is the size of its mask.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            &raw const action,
            no_old,
            8_usize,
        )
    };
}

/// From now on this process gets SIGIO, which ends it, when the peer of `socket` hangs up. It ends at once when that has
/// happened already: no signal comes for the past.
pub(crate) fn die_when_signalled_by(socket: impl AsFd) -> Result<(), Errno> {
    let fd = socket.as_fd();
    let own = rustix::process::getpid().as_raw_nonzero().get();
    // SAFETY: F_SETOWN takes an integer and only changes who is told of events on the descriptor.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETOWN, own) }.into())?;
    let flags = rustix::fs::fcntl_getfl(fd)?;
    rustix::fs::fcntl_setfl(fd, flags | ASYNC)?;
    let mut now = [PollFd::from_borrowed_fd(fd, PollFlags::RDHUP)];
    if poll(&mut now, Some(&Timespec::default()))? > 0 {
        super::process::exit_now(0);
    }
    Ok(())
}

/// Undoes [`die_when_signalled_by`].
pub(crate) fn stay_when_signalled_by(socket: impl AsFd) -> Result<(), Errno> {
    let flags = rustix::fs::fcntl_getfl(&socket)?;
    rustix::fs::fcntl_setfl(&socket, flags - ASYNC)
}

/// rustix has no name for `O_ASYNC`.
const ASYNC: rustix::fs::OFlags =
    rustix::fs::OFlags::from_bits_retain(libc::O_ASYNC.cast_unsigned());

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::job::CommandStatus;
    use crate::sys::process::{fork_process, wait_for};

    #[test]
    fn a_hung_up_peer_ends_the_process() {
        let (ours, theirs) = UnixStream::pair().expect("pair");
        let pid = fork_process(|| {
            drop(theirs.try_clone());
            reset_all();
            die_when_signalled_by(&theirs).expect("arm");
            (&theirs).write_all(b"x").expect("tell");
            std::thread::sleep(std::time::Duration::from_secs(20));
            0
        });
        (&ours).read_exact(&mut [0]).expect("armed");
        ours.shutdown(std::net::Shutdown::Both).expect("hang up");
        assert_eq!(
            wait_for(pid.expect("fork")).expect("wait").0,
            CommandStatus::Signaled(libc::SIGIO)
        );
    }

    #[test]
    fn a_peer_that_has_gone_already_ends_it_too() {
        let (ours, theirs) = UnixStream::pair().expect("pair");
        ours.shutdown(std::net::Shutdown::Write).expect("hang up");
        let pid = fork_process(|| {
            reset_all();
            let _ = die_when_signalled_by(&theirs); // does not come back
            9
        });
        let (status, _) = wait_for(pid.expect("fork")).expect("wait");
        assert_ne!(status, CommandStatus::Exited(9));
    }

    #[test]
    fn a_disarmed_socket_does_not() {
        let (ours, theirs) = UnixStream::pair().expect("pair");
        let pid = fork_process(|| {
            reset_all();
            die_when_signalled_by(&theirs).expect("arm");
            stay_when_signalled_by(&theirs).expect("disarm");
            theirs.shutdown(std::net::Shutdown::Both).expect("hang up");
            5
        });
        assert_eq!(
            wait_for(pid.expect("fork")).expect("wait").0,
            CommandStatus::Exited(5)
        );
        drop(ours);
    }

    #[test]
    fn reaping_modes() {
        let pid = fork_process(|| {
            reap_children_automatically();
            let child = fork_process(|| 1).expect("fork");
            let gone = wait_for(child).is_err();
            keep_ended_children();
            let child = fork_process(|| 1).expect("fork");
            u8::from(gone && wait_for(child).is_ok())
        });
        assert_eq!(
            wait_for(pid.expect("fork")).expect("wait").0,
            CommandStatus::Exited(1)
        );
    }
}
