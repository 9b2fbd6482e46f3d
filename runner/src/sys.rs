//! The only unsafe code of the project: system calls that rustix does not have, each as one safe function.
//!
//! Everything takes and returns owned types; an error is a [`rustix::io::Errno`]. What rustix has is used from there.
//!
//! The functions that make processes are for **single-threaded** callers: the child goes on in ordinary Rust code
//! (it allocates, it drops), which is sound only where no other thread can have held a lock at the time of the fork.
//! The spawner is such a process by construction, see [`crate::spawner`].

pub(crate) mod mount;
pub(crate) mod network;
pub(crate) mod process;
pub(crate) mod seccomp;
pub(crate) mod signal;
pub(crate) mod trampoline;
pub(crate) mod xtables;

use rustix::io::Errno;

/// Turns the return value of a libc wrapper into a result.
fn check(result: libc::c_long) -> Result<libc::c_long, Errno> {
    if result == -1 {
        let code = std::io::Error::last_os_error()
            .raw_os_error()
            .unwrap_or(libc::EIO);
        Err(Errno::from_raw_os_error(code))
    } else {
        Ok(result)
    }
}
