//! Making, replacing and ending processes.
#![expect(
    unsafe_code,
    reason = "rustix has neither clone3 nor fork, execve, wait4 or close_range"
)]

use std::ffi::CString;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::ptr;

use rustix::io::Errno;
use rustix::process::Pid;
use rustix::thread::UnshareFlags;

use super::check;
use crate::job::{CommandStatus, Usage};

/// Namespaces a new process gets of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Namespaces(u64);

impl Namespaces {
    /// Mount, pid, ipc, uts and cgroup: what every sandbox has.
    pub(crate) const SANDBOX: Self = Self(
        (libc::CLONE_NEWNS
            | libc::CLONE_NEWPID
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWCGROUP)
            .cast_unsigned() as u64,
    );
    /// Network.
    pub(crate) const NETWORK: Self = Self(libc::CLONE_NEWNET as u64);

    /// User, and the pid and mount namespaces that belong to it.
    pub(crate) const USER: Self =
        Self((libc::CLONE_NEWUSER | libc::CLONE_NEWPID | libc::CLONE_NEWNS).cast_unsigned() as u64);
    /// Without a pid namespace.
    #[cfg(test)]
    pub(crate) const fn without_pid(self) -> Self {
        Self(self.0 & !(libc::CLONE_NEWPID.cast_unsigned() as u64))
    }

    /// None: a plain fork that gives a pidfd.
    pub(crate) const NOTHING: Self = Self(0);

    /// Both.
    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A child made by [`clone_process`].
#[derive(Debug)]
pub(crate) struct ClonedProcess {
    /// Its pid, seen from here.
    pub(crate) pid: Pid,
    /// A descriptor that names it for good and becomes readable when it has ended.
    pub(crate) pidfd: OwnedFd,
}

/// Forks, runs `child` in the new process and ends it with the code that `child` returns.
///
/// The calling process has to be single-threaded, or to make do with what glibc's own `fork` handlers keep usable
/// (the allocator), see the module above.
pub(crate) fn fork_process(child: impl FnOnce() -> u8) -> Result<Pid, Errno> {
    // SAFETY: fork has no preconditions on memory; the child only runs `child` and then ends without returning into
    // the caller's frames. Locks of other threads are excluded by what the doc comment asks of callers.
    let pid = check(unsafe { libc::fork() }.into())?;
    if pid == 0 {
        exit_now(run_child(child));
    }
    to_pid(pid)
}

/// Like [`fork_process`], in new namespaces, and with a pidfd.
pub(crate) fn clone_process(
    namespaces: Namespaces,
    child: impl FnOnce() -> u8,
) -> Result<ClonedProcess, Errno> {
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is a struct of integers, for which all zeroes is a value.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = namespaces.0 | u64::from(libc::CLONE_PIDFD.cast_unsigned());
    arguments.pidfd = (&raw mut pidfd) as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    // SAFETY: `arguments` and `pidfd` outlive the call. No stack is given and CLONE_VM is not among the flags (the
    // type Namespaces can't hold it), so the child goes on on a copy of this stack as after fork; it runs `child`
    // and ends without returning into the caller's frames.
    let made = check(unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut arguments,
            size_of::<libc::clone_args>(),
        )
    });
    let pid = match made {
        // Container profiles that can't look into its arguments refuse it so that callers take clone.
        Err(Errno::NOSYS) => clone_as_of_old(namespaces, &mut pidfd)?,
        made => made?,
    };
    if pid == 0 {
        exit_now(run_child(child));
    }
    // SAFETY: the call succeeded with CLONE_PIDFD, so the kernel stored a new descriptor that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(ClonedProcess {
        pid: to_pid(pid)?,
        pidfd,
    })
}

/// clone(2), which says the same in registers.
fn clone_as_of_old(namespaces: Namespaces, pidfd: &mut RawFd) -> Result<libc::c_long, Errno> {
    let flags = namespaces.0
        | u64::from(libc::CLONE_PIDFD.cast_unsigned())
        | u64::from(libc::SIGCHLD.cast_unsigned());
    // SAFETY: as for clone3. The order of the last two arguments differs between architectures; both are null. With
    // CLONE_PIDFD the third one is where the kernel stores the descriptor: it is live and writable.
    check(unsafe {
        libc::syscall(
            libc::SYS_clone,
            flags,
            ptr::null_mut::<libc::c_void>(),
            ptr::from_mut(pidfd),
            ptr::null_mut::<libc::c_void>(),
            ptr::null_mut::<libc::c_void>(),
        )
    })
}

/// A panic must not unwind into frames that belong to the parent's program.
fn run_child(child: impl FnOnce() -> u8) -> u8 {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(PANICKED)
}

/// Exit code of a forked child whose code panicked.
pub(crate) const PANICKED: u8 = 101;

fn to_pid(raw: libc::c_long) -> Result<Pid, Errno> {
    i32::try_from(raw)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(Errno::INVAL)
}

/// Moves this process (for the pid namespace: its children to come) into new namespaces.
pub(crate) fn unshare(namespaces: UnshareFlags) -> Result<(), Errno> {
    assert!(
        !namespaces.contains(UnshareFlags::FILES),
        "that would take descriptors from their owners"
    );
    // SAFETY: what makes unshare unsafe is CLONE_FILES, excluded above.
    unsafe { rustix::thread::unshare_unsafe(namespaces) }
}

/// Ends the process at once: no destructors, no exit handlers, no flushing of buffers shared with the parent.
pub(crate) fn exit_now(code: u8) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code.into()) }
}

/// Replaces this process's program. Returns only when that failed.
#[cfg(any(test, feature = "floor"))]
pub(crate) fn execute(path: &std::ffi::CStr, argv: &CStrings, environment: &CStrings) -> Errno {
    // SAFETY: `path` is nul-terminated; both arrays end with a null pointer and point to nul-terminated strings
    // that `CStrings` keeps alive.
    let result = unsafe {
        libc::execve(
            path.as_ptr(),
            argv.pointers.as_ptr(),
            environment.pointers.as_ptr(),
        )
    };
    check(result.into()).err().unwrap_or(Errno::INVAL)
}

/// A null-terminated array of C strings, as execve wants it.
#[derive(Debug)]
pub(crate) struct CStrings {
    /// Points into `_strings`, whose buffers do not move.
    pointers: Vec<*const libc::c_char>,
    _strings: Vec<CString>,
}

impl CStrings {
    /// Makes the array.
    pub(crate) fn new(strings: Vec<CString>) -> Self {
        let pointers = strings
            .iter()
            .map(|s| s.as_ptr())
            .chain([ptr::null()])
            .collect();
        Self {
            pointers,
            _strings: strings,
        }
    }

    /// The array; valid as long as this value lives.
    pub(super) fn as_ptr(&self) -> *const *const libc::c_char {
        self.pointers.as_ptr()
    }
}

/// Waits for a child to end and reaps it; with what it and its waited-for descendants used.
pub(crate) fn wait_for(pid: Pid) -> Result<(CommandStatus, Usage), Errno> {
    let mut status: libc::c_int = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    loop {
        // SAFETY: both pointers are to live, writable values of the types that wait4 fills in.
        let result = unsafe {
            libc::wait4(
                pid.as_raw_nonzero().get(),
                &raw mut status,
                0,
                usage.as_mut_ptr(),
            )
        };
        match check(result.into()) {
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    // SAFETY: zeroed is a valid rusage (integers only), and wait4 has filled it in.
    let usage = unsafe { usage.assume_init() };
    let status = if libc::WIFSIGNALED(status) {
        CommandStatus::Signaled(libc::WTERMSIG(status))
    } else {
        CommandStatus::Exited(libc::WEXITSTATUS(status))
    };
    Ok((
        status,
        Usage {
            user_us: microseconds(usage.ru_utime),
            system_us: microseconds(usage.ru_stime),
            max_rss_kib: u64::try_from(usage.ru_maxrss).unwrap_or(0),
        },
    ))
}

fn microseconds(time: libc::timeval) -> u64 {
    u64::try_from(time.tv_sec * 1_000_000 + time.tv_usec).unwrap_or(0)
}

/// Marks every descriptor from `first` on as close-on-exec, so that nothing of ours reaches a command.
///
/// Kernels before 5.11 cannot; there the descriptors that may be open are gone through one by one.
pub(crate) fn close_on_exec_from(first: u32) -> Result<(), Errno> {
    // SAFETY: plain integers; CLOSE_RANGE_CLOEXEC closes nothing, so no owner of a descriptor is surprised.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    match check(result) {
        Ok(_) => Ok(()),
        Err(Errno::NOSYS | Errno::INVAL) => {
            mark_each_close_on_exec(first);
            Ok(())
        }
        Err(errno) => Err(errno),
    }
}

/// The opposite, for one descriptor.
#[cfg(test)]
pub(crate) fn stay_open_on_exec(fd: u32) {
    // SAFETY: F_SETFD only changes a flag of the descriptor, and fails harmlessly when there is none.
    unsafe { libc::fcntl(fd.cast_signed(), libc::F_SETFD, 0) };
}

fn mark_each_close_on_exec(first: u32) {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = u32::try_from(limit.unwrap_or(65_536))
        .unwrap_or(65_536)
        .min(1 << 20);
    for fd in first..limit {
        // SAFETY: F_SETFD only changes a flag of the descriptor, and fails harmlessly when there is none.
        unsafe { libc::fcntl(fd.cast_signed(), libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// Closes every descriptor except standard error and those given, in a process that was just forked.
///
/// The child of a fork has copies of everything its parent had open (also other spawners' sockets, which would keep
/// them from seeing that their owner has gone).
pub(crate) fn close_all_but(kept: &mut [u32]) {
    kept.sort_unstable();
    let mut first = 0;
    for &fd in kept.iter() {
        if fd > first {
            close_range(first, fd - 1);
        }
        first = fd + 1;
    }
    close_range(first, u32::MAX);
}

fn close_range(first: u32, last: u32) {
    // SAFETY: plain integers. Rust values that own one of these descriptors exist only in frames that the forked
    // child never returns to, so none is closed twice or used after.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if check(result).is_err() {
        for fd in first..=last.min(65_536) {
            // SAFETY: as above.
            unsafe { libc::close(fd.cast_signed()) };
        }
    }
}

/// Gives this process an empty session keyring, so that the caller's keys are out of reach of what it runs.
pub(crate) fn join_new_session_keyring() -> Result<(), Errno> {
    // SAFETY: KEYCTL_JOIN_SESSION_KEYRING takes a name or null, which makes an anonymous keyring.
    let result = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_JOIN_SESSION_KEYRING,
            ptr::null::<libc::c_char>(),
        )
    };
    check(result).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clones_give_a_child_with_a_pidfd() {
        let mut pidfd = -1;
        let pid = clone_as_of_old(Namespaces::NOTHING, &mut pidfd).expect("clone");
        if pid == 0 {
            exit_now(5);
        }
        assert!(pidfd > 2);
        let status = wait_for(to_pid(pid).expect("pid")).expect("wait").0;
        assert_eq!(status, CommandStatus::Exited(5));
        let child = clone_process(Namespaces::NOTHING, || 6).expect("clone3");
        let status = wait_for(child.pid).expect("wait").0;
        assert_eq!(status, CommandStatus::Exited(6));
    }

    #[test]
    fn forked_child_ends_with_its_code() {
        let pid = fork_process(|| 7).expect("fork");
        assert_eq!(wait_for(pid).expect("wait").0, CommandStatus::Exited(7));
    }

    #[test]
    fn cloned_child_has_a_pidfd() {
        let child = clone_process(Namespaces(0), || 3).expect("clone3");
        let mut poll = [rustix::event::PollFd::new(
            &child.pidfd,
            rustix::event::PollFlags::IN,
        )];
        assert_eq!(rustix::event::poll(&mut poll, None), Ok(1));
        assert_eq!(
            wait_for(child.pid).expect("wait").0,
            CommandStatus::Exited(3)
        );
    }

    #[test]
    fn unsharing_gives_a_namespace_of_its_own() {
        let name = || rustix::fs::readlink("/proc/self/ns/uts", Vec::new()).expect("link");
        let before = name();
        let pid = fork_process(|| match unshare(UnshareFlags::NEWUTS) {
            Ok(()) => u8::from(name() == before),
            Err(errno) => u8::from(errno != Errno::PERM),
        });
        let (status, _) = wait_for(pid.expect("fork")).expect("wait");
        assert_eq!(status, CommandStatus::Exited(0));
    }

    #[test]
    fn exec_reports_what_failed() {
        let none = CStrings::new(Vec::new());
        assert_eq!(execute(c"/does/not/exist", &none, &none), Errno::NOENT);
        assert_eq!(execute(c"/etc/passwd", &none, &none), Errno::ACCESS);
    }

    #[test]
    fn close_on_exec_marks_all() {
        let pid = fork_process(|| {
            let fd = rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), 50).expect("dup");
            rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::empty()).expect("clear");
            close_on_exec_from(3).expect("close_range");
            let first = rustix::io::fcntl_getfd(&fd).expect("get");
            rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::empty()).expect("clear");
            mark_each_close_on_exec(3);
            let second = rustix::io::fcntl_getfd(&fd).expect("get");
            u8::from(first == second && first == rustix::io::FdFlags::CLOEXEC)
        });
        assert_eq!(
            wait_for(pid.expect("fork")).expect("wait").0,
            CommandStatus::Exited(1)
        );
    }

    #[test]
    fn close_all_but_keeps_what_it_should() {
        let pid = fork_process(|| {
            let kept = rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), 60).expect("dup");
            let gone = rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), 70).expect("dup");
            close_all_but(&mut [60, 2]);
            let result =
                rustix::io::fcntl_getfd(&kept).is_ok() && rustix::io::fcntl_getfd(&gone).is_err();
            std::mem::forget(gone);
            u8::from(result)
        });
        assert_eq!(
            wait_for(pid.expect("fork")).expect("wait").0,
            CommandStatus::Exited(1)
        );
    }

    #[test]
    fn session_keyring_is_joined() {
        let pid = fork_process(|| u8::from(join_new_session_keyring().is_err()));
        assert_eq!(
            wait_for(pid.expect("fork")).expect("wait").0,
            CommandStatus::Exited(0)
        );
    }
}
