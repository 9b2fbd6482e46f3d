//! Reading the tables of iptables-legacy (`x_tables`), as its own program does: by socket options.
#![expect(unsafe_code, reason = "rustix has no socket options of netfilter")]

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

use super::check;

/// `IPT_SO_GET_INFO` and `IP6T_SO_GET_INFO`.
const GET_INFO: libc::c_int = 64;
/// `IPT_SO_GET_ENTRIES` and `IP6T_SO_GET_ENTRIES`.
const GET_ENTRIES: libc::c_int = 65;

/// Whose tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Ipv4,
    Ipv6,
}

/// Asks about the table whose name `answer` begins with (a `struct ipt_getinfo`), and has the answer written there. The
/// socket is one of this protocol, in the network namespace that is asked about.
pub(crate) fn get_info(
    socket: impl AsFd,
    protocol: Protocol,
    answer: &mut [u8],
) -> Result<(), Errno> {
    get_option(socket, protocol, GET_INFO, answer)
}

/// The same for its rules (a `struct ipt_get_entries`); the length of `answer` has to be the one that it says.
pub(crate) fn get_entries(
    socket: impl AsFd,
    protocol: Protocol,
    answer: &mut [u8],
) -> Result<(), Errno> {
    get_option(socket, protocol, GET_ENTRIES, answer)
}

fn get_option(
    socket: impl AsFd,
    protocol: Protocol,
    name: libc::c_int,
    answer: &mut [u8],
) -> Result<(), Errno> {
    let level = match protocol {
        Protocol::Ipv4 => libc::IPPROTO_IP,
        Protocol::Ipv6 => libc::IPPROTO_IPV6,
    };
    let wanted = libc::socklen_t::try_from(answer.len()).map_err(|_| Errno::INVAL)?;
    let mut length = wanted;
    // SAFETY: `answer` is writable for `length` bytes, which is what the kernel is told and writes at most; `length` is a
    // socklen_t that lives as long as the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            answer.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    check(result.into())?;
    // Part of an answer is none.
    if length == wanted {
        Ok(())
    } else {
        Err(Errno::MSGSIZE)
    }
}
