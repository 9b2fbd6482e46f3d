//! Bringing up the loopback interface.
#![expect(unsafe_code, reason = "rustix has no SIOCSIFFLAGS")]

use std::os::fd::AsRawFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::check;

/// Sets `lo` of the current network namespace up; the kernel then gives it 127.0.0.1 and `::1`.
pub(crate) fn bring_loopback_up() -> Result<(), Errno> {
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: ifreq is made of integers, arrays and pointers, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    request.ifr_ifru.ifru_flags =
        libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or_default();
    // SAFETY: `SIOCSIFFLAGS` reads an ifreq, which `request` is, with a nul-terminated name and the flags set.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) }.into())
        .map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::CommandStatus;
    use crate::sys::process::{Namespaces, clone_process, wait_for};

    #[test]
    fn loopback_answers_after_it_is_up() {
        let child = clone_process(Namespaces::NETWORK, || {
            let before = std::net::UdpSocket::bind("127.0.0.1:0")
                .and_then(|s| s.send_to(b"x", "127.0.0.1:9"));
            u8::from(
                before.is_err() && bring_loopback_up().is_ok() && {
                    std::net::TcpListener::bind("127.0.0.1:0").is_ok()
                },
            )
        });
        match child {
            Ok(child) => assert_eq!(
                wait_for(child.pid).expect("wait").0,
                CommandStatus::Exited(1)
            ),
            Err(errno) => assert!(
                std::env::var_os("CI").is_none(),
                "no network namespace: {errno}"
            ),
        }
    }
}
