//! Handing a seccomp filter to the kernel.
#![expect(unsafe_code, reason = "rustix has no seccomp")]

use rustix::io::Errno;

use super::check;

/// One instruction of a classic BPF program, as `struct sock_filter` of `linux/filter.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Instruction {
    pub(crate) code: u16,
    /// Instructions to skip when a comparison holds.
    pub(crate) if_true: u8,
    /// … and when it does not.
    pub(crate) if_false: u8,
    pub(crate) value: u32,
}

const _: () = assert!(size_of::<Instruction>() == size_of::<libc::sock_filter>());
const _: () = assert!(align_of::<Instruction>() == align_of::<libc::sock_filter>());

/// Offsets in what a program sees, `struct seccomp_data` of `linux/seccomp.h`.
pub(crate) mod data {
    /// The number of the call.
    pub(crate) const NUMBER: u32 = 0;
    /// `AUDIT_ARCH_*`.
    pub(crate) const ARCHITECTURE: u32 = 4;

    /// The lower and the upper half of an argument, on a little-endian machine.
    pub(crate) const fn argument(index: u8) -> (u32, u32) {
        let offset = 16 + 8 * index as u32;
        (offset, offset + 4)
    }
}

/// Filters the system calls of this process and of all that come from it, for good.
///
/// Needs `CAP_SYS_ADMIN` in the process's user namespace, or `no_new_privs`. The kernel refuses a program that is not
/// sound (`EINVAL`).
pub(crate) fn install(program: &[Instruction]) -> Result<(), Errno> {
    let length = libc::c_ushort::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    let filter = libc::sock_fprog {
        len: length,
        filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut(),
    };
    // SAFETY: `filter` points at `length` instructions of sock_filter's layout (asserted above), alive during the call,
    // which only reads them; no flag asks for a listener.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const filter,
        )
    };
    check(result).map(|_| ())
}

/// True when this process may filter itself without giving up setuid programs.
#[cfg(test)]
pub(crate) fn may_install() -> bool {
    use rustix::thread::{CapabilitySet, capabilities};
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// Trying calls without making them, for tests.
#[cfg(test)]
pub(crate) mod probe {
    use rustix::io::Errno;

    use super::{Instruction, data, install};
    use crate::job::CommandStatus;
    use crate::sys::process::{fork_process, wait_for};

    /// A call with this as its sixth argument is really made; odd, so that no frame pointer is equal to it.
    const REALLY: u32 = 0x5EC0_57ED;
    /// What every other call fails with.
    const HELD_BACK: u32 = 3000;
    const I386: u32 = 0x4000_0003;

    /// From now on no call of this process happens, except [`leave`]. Filters installed after this still answer first.
    pub(crate) fn hold_calls_back() -> Result<(), Errno> {
        let instruction = |code, value, if_true, if_false| Instruction {
            code,
            if_true,
            if_false,
            value,
        };
        install(&[
            instruction(0x20, data::argument(5).0, 0, 0),
            instruction(0x15, REALLY, 0, 1),
            instruction(0x06, 0x7FFF_0000, 0, 0),
            instruction(0x06, 0x0005_0000 | HELD_BACK, 0, 0),
        ])
    }

    /// Like [`install`], past [`hold_calls_back`].
    pub(crate) fn install_above(program: &[Instruction]) {
        let filter = libc::sock_fprog {
            len: u16::try_from(program.len()).expect("short"),
            filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut(),
        };
        // SAFETY: as in `install`; the further arguments are looked at by no one but our filter.
        let result = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                0,
                &raw const filter,
                0,
                0,
                REALLY,
            )
        };
        if result != 0 {
            leave(99);
        }
    }

    /// Ends this process.
    pub(crate) fn leave(code: u8) -> ! {
        // SAFETY: ends the process; plain integers.
        unsafe { libc::syscall(libc::SYS_exit_group, i64::from(code), 0, 0, 0, 0, REALLY) };
        unreachable!("exit_group does not return")
    }

    /// What the filters answer, in the encoding of `linux/seccomp.h`; `argument` is the first.
    pub(crate) fn answer(architecture: u32, number: u32, argument: u64) -> u32 {
        let result = if architecture == I386 {
            i386_call(number, argument)
        } else {
            native_call(number, argument)
        };
        match result {
            errno if errno == HELD_BACK => 0x7FFF_0000,
            errno => 0x0005_0000 | errno,
        }
    }

    /// The error of a call.
    fn native_call(number: u32, argument: u64) -> u32 {
        // SAFETY: callers have held all calls back, so nothing is done, whatever the number.
        let result = unsafe { libc::syscall(i64::from(number), argument, 0, 0, 0, 0, 0) };
        assert_eq!(result, -1, "held back");
        let errno = std::io::Error::last_os_error().raw_os_error();
        errno.unwrap_or_default().unsigned_abs()
    }

    #[cfg(target_arch = "x86_64")]
    fn i386_call(number: u32, argument: u64) -> u32 {
        let result: i64;
        // SAFETY: a call by the 32-bit gate: eax is the number, ebx the first argument; callers have held all calls
        // back, so nothing is done. rbx, which the compiler keeps for itself, is put back.
        unsafe {
            std::arch::asm!(
                "xchg rbx, {argument}",
                "int 0x80",
                "xchg rbx, {argument}",
                argument = inout(reg) argument => _,
                inlateout("rax") i64::from(number) => result,
                in("rcx") 0, in("rdx") 0, in("rsi") 0, in("rdi") 0,
                out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            );
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "32 bits are what it returns"
        )]
        let result = result as i32;
        result.unsigned_abs()
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn i386_call(_number: u32, _argument: u64) -> u32 {
        unreachable!("only x86-64 runs i386 programs")
    }

    /// True when a call of that architecture can be made from here.
    pub(crate) fn can_call(architecture: u32) -> bool {
        const ARM: u32 = 0x4000_0028;
        if architecture == ARM {
            return false; // the processor would have to be in another state
        }
        if architecture != I386 {
            return true;
        }
        let child = fork_process(|| match hold_calls_back() {
            Ok(()) => leave(u8::from(answer(I386, 20, 0) != 0x7FFF_0000)),
            Err(_) => 1,
        });
        let ended = child.and_then(wait_for);
        ended.is_ok_and(|(status, _)| status == CommandStatus::Exited(0))
    }
}
