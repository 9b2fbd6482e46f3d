//! The last program of ours in a sandbox: a handful of instructions in a sealed memory file.
//!
//! A process that was forked from the caller has the caller's own binary as `/proc/self/exe`, and a command may be that path,
//! or a script or link that leads to it. It would then run our binary inside, and could get hold of the file on the host
//! (CVE-2019-5736). So the process first becomes this program, which does nothing but become the command: from then on
//! `/proc/self/exe` is the sealed file. No look at the command beforehand could be as certain: its interpreter is found by the
//! kernel, and a shared mount may change meanwhile.
//!
//! ```text
//! argv[0]   one byte: the descriptor that failures go to
//! argv[1]   the path to execute
//! argv[2…]  the command's own argv
//! ```
//!
//! When execve fails, its errno is written to the descriptor as four bytes, and the exit code is 125. So it is when `argv[0]`
//! is longer: then a script named this file as its interpreter, and would be executed over and over.
#![expect(unsafe_code, reason = "instructions for another program, and execveat")]

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;

use super::check;
use super::process::CStrings;

// fcntl(fd, F_SETFD, FD_CLOEXEC); execve(argv[1], &argv[2], envp); write(fd, &errno, 4); exit_group(125)
#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".pushsection .rodata.rbuild_trampoline,\"a\"",
    ".globl rbuild_trampoline_start",
    "rbuild_trampoline_start:",
    "mov rbx, [rsp]",
    "lea r12, [rsp + 8]",
    "mov rax, [r12]",
    "movzx r13d, byte ptr [rax]",
    "cmp byte ptr [rax + 1], 0",
    "jne 2f",
    "mov edi, r13d",
    "mov esi, 2",
    "mov edx, 1",
    "mov eax, 72",
    "syscall",
    "mov rdi, [r12 + 8]",
    "lea rsi, [r12 + 16]",
    "lea rdx, [r12 + rbx * 8 + 8]",
    "mov eax, 59",
    "syscall",
    "neg eax",
    "push rax",
    "mov edi, r13d",
    "mov rsi, rsp",
    "mov edx, 4",
    "mov eax, 1",
    "syscall",
    "2:",
    "mov edi, 125",
    "mov eax, 231",
    "syscall",
    ".globl rbuild_trampoline_end",
    "rbuild_trampoline_end:",
    ".popsection",
);

#[cfg(target_arch = "aarch64")]
std::arch::global_asm!(
    ".pushsection .rodata.rbuild_trampoline,\"a\"",
    ".balign 4",
    ".globl rbuild_trampoline_start",
    "rbuild_trampoline_start:",
    "ldr x19, [sp]",
    "add x20, sp, #8",
    "ldr x0, [x20]",
    "ldrb w21, [x0]",
    "ldrb w22, [x0, #1]",
    "cbnz w22, 2f",
    "mov w0, w21",
    "mov x1, #2",
    "mov x2, #1",
    "mov x8, #25",
    "svc #0",
    "ldr x0, [x20, #8]",
    "add x1, x20, #16",
    "add x2, x20, x19, lsl #3",
    "add x2, x2, #8",
    "mov x8, #221",
    "svc #0",
    "neg w0, w0",
    "str w0, [sp, #-16]!",
    "mov w0, w21",
    "mov x1, sp",
    "mov x2, #4",
    "mov x8, #64",
    "svc #0",
    "2:",
    "mov x0, #125",
    "mov x8, #94",
    "svc #0",
    ".globl rbuild_trampoline_end",
    "rbuild_trampoline_end:",
    ".popsection",
);

unsafe extern "C" {
    static rbuild_trampoline_start: u8;
    static rbuild_trampoline_end: u8;
}

/// What it exits with when the command can't be executed.
#[cfg(test)]
pub(crate) const FAILED: i32 = 125;

/// Where the program lies in its own memory; any page above `vm.mmap_min_addr` does.
const ADDRESS: u64 = 0x40_0000;
/// ELF header and two program headers.
const HEADERS: usize = 64 + 2 * 56;

/// The file, made once; what comes from this process inherits it.
///
/// # Errors
/// The kernel has no executable memory files (`vm.memfd_noexec` is 2).
pub(crate) fn file() -> Result<BorrowedFd<'static>, Errno> {
    static FILE: OnceLock<Result<OwnedFd, Errno>> = OnceLock::new();
    match FILE.get_or_init(make) {
        Ok(file) => Ok(file.as_fd()),
        Err(errno) => Err(*errno),
    }
}

fn make() -> Result<OwnedFd, Errno> {
    let name = c"rbuild";
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = match rustix::fs::memfd_create(name, flags | MemfdFlags::EXEC) {
        // Before Linux 6.3 all of them are executable.
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, flags)?,
        file => file?,
    };
    let program = program();
    let mut rest = program.as_slice();
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest)?;
        rest = &rest[written..];
    }
    // Whoever runs it may be any user.
    rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(0o555))?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file)
}

fn code() -> &'static [u8] {
    let (start, end) = (
        &raw const rbuild_trampoline_start,
        &raw const rbuild_trampoline_end,
    );
    // SAFETY: the two symbols enclose the bytes assembled above, in one read-only section of this binary that is never
    // unloaded; the second stands after the first.
    unsafe { std::slice::from_raw_parts(start, end.offset_from_unsigned(start)) }
}

/// An ELF file with the code as its only segment, see elf(5).
fn program() -> Vec<u8> {
    const MACHINE: u16 = if cfg!(target_arch = "x86_64") {
        62
    } else {
        183
    };
    const EXECUTABLE: u16 = 2;
    const LOAD: u32 = 1;
    const STACK: u32 = 0x6474_e551;
    let code = code();
    let size = (HEADERS + code.len()) as u64;
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let short = |elf: &mut Vec<u8>, values: &[u16]| {
        elf.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    };
    let word = |elf: &mut Vec<u8>, values: &[u32]| {
        elf.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    };
    let long = |elf: &mut Vec<u8>, values: &[u64]| {
        elf.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    };
    short(&mut elf, &[EXECUTABLE, MACHINE]);
    word(&mut elf, &[1]);
    long(&mut elf, &[ADDRESS + HEADERS as u64, 64, 0]); // entry, program headers, no section headers
    word(&mut elf, &[0]);
    short(&mut elf, &[64, 56, 2, 0, 0, 0]);
    word(&mut elf, &[LOAD, 5]); // readable, executable
    long(&mut elf, &[0, ADDRESS, ADDRESS, size, size, 4096]);
    word(&mut elf, &[STACK, 6]); // readable, writable
    long(&mut elf, &[0, 0, 0, 0, 0, 16]);
    elf.extend(code);
    elf
}

/// Becomes the program at `path` by way of the sealed file; `failures` stays open until then and is told when it can't be.
/// Returns only when not even the sealed file could be executed.
pub(crate) fn execute(
    failures: BorrowedFd<'_>,
    path: &CStr,
    argv: &[CString],
    environment: &CStrings,
) -> Errno {
    let attempt = || -> Result<std::convert::Infallible, Errno> {
        let file = file()?;
        let number = u8::try_from(failures.as_raw_fd()).map_err(|_| Errno::MFILE)?;
        let number = CString::new([number]).map_err(|_| Errno::BADF)?;
        let mut words = vec![number, path.to_owned()];
        words.extend_from_slice(argv);
        let words = CStrings::new(words);
        rustix::io::fcntl_setfd(failures, rustix::io::FdFlags::empty())?;
        // SAFETY: the path is a nul-terminated empty string, which with AT_EMPTY_PATH names the descriptor; both arrays end
        // with a null pointer and point to nul-terminated strings that `CStrings` keeps alive.
        let result = unsafe {
            libc::syscall(
                libc::SYS_execveat,
                file.as_raw_fd(),
                c"".as_ptr(),
                words.as_ptr(),
                environment.as_ptr(),
                libc::AT_EMPTY_PATH,
            )
        };
        Err(check(result).err().unwrap_or(Errno::INVAL))
    };
    let Err(errno) = attempt();
    errno
}

#[cfg(test)]
mod tests {
    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;
    use crate::job::CommandStatus;
    use crate::sys::process::{fork_process, wait_for};

    fn words(list: &[&str]) -> Vec<CString> {
        list.iter()
            .map(|word| CString::new(*word).expect("no NUL"))
            .collect()
    }

    /// What the failures' descriptor was told, and how it ended.
    fn run(path: &CStr, argv: &[&str], environment: &[&str]) -> (Vec<u8>, CommandStatus) {
        file().expect("memfd");
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).expect("pipe");
        let environment = CStrings::new(words(environment));
        let pid = fork_process(|| {
            let errno = execute(writer.as_fd(), path, &words(argv), &environment);
            u8::from(errno.raw_os_error() > 0)
        })
        .expect("fork");
        drop(writer);
        let mut told = Vec::new();
        std::io::Read::read_to_end(&mut std::fs::File::from(reader), &mut told).expect("read");
        (told, wait_for(pid).expect("wait").0)
    }

    #[test]
    fn becomes_the_command_with_its_words_and_variables() {
        let text = "test \"$0 $1 $A\" = 'zero one two' && ! test -e /proc/self/fd/9 && exit 7";
        let argv = ["sh", "-c", text, "zero", "one"];
        let ended = run(c"/bin/sh", &argv, &["A=two"]);
        assert_eq!(ended, (Vec::new(), CommandStatus::Exited(7)));
    }

    #[test]
    fn tells_why_it_cannot() {
        for (path, errno) in [
            (c"/does/not/exist", Errno::NOENT),
            (c"/etc/passwd", Errno::ACCESS),
        ] {
            let (told, status) = run(path, &["x"], &[]);
            assert_eq!(told, errno.raw_os_error().to_le_bytes(), "{path:?}");
            assert_eq!(status, CommandStatus::Exited(FAILED));
        }
    }

    #[test]
    fn nobody_can_change_it() {
        let file = file().expect("memfd");
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        assert!(rustix::io::write(file, b"x").is_err());
        assert!(rustix::fs::ftruncate(file, 0).is_err());
        let again = rustix::fs::open(
            path.as_str(),
            rustix::fs::OFlags::WRONLY,
            rustix::fs::Mode::empty(),
        );
        assert!(
            again.is_err_and(|errno| errno != Errno::NOENT)
                || rustix::io::write(file, b"x") == Err(Errno::PERM)
        );
    }
}
