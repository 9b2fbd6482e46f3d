//! Which system calls a sandboxed command may make: Docker's default seccomp profile as a filter for the kernel.
//!
//! [`profile`] is the policy as a table; this module decides it for one machine (its capabilities, kernel and
//! architectures); [`program`] writes the decision as a BPF program; `sys::seccomp` hands it to the kernel.
//!
//! What the table does not name fails with `EPERM`; calls newer than everything it names fail with `ENOSYS`, so that C
//! libraries fall back as they do on an older kernel. 32-bit programs of the same family get the same policy; the x32
//! ABI, which distributions do not switch on, answers `ENOSYS`.

mod profile;
mod program;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use self::profile::{Condition, PROFILE, Rule, Test, Verdict};
use super::capabilities;
use crate::sys;
use crate::sys::seccomp::Instruction;

/// What happens to a system call.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Decision {
    /// It is made.
    Allow,
    /// It fails with this error.
    Fail(Errno),
    /// It is made when one of the tests holds, else it fails with `EPERM`.
    AllowIf(Vec<Test>),
}

/// An architecture whose calls the kernel takes: the machine's own, or its 32-bit sibling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Architecture {
    X86_64,
    X86,
    Aarch64,
    Arm,
}

impl Architecture {
    /// Those that this machine's kernel may run, its own first.
    const NATIVE: &[Self] = if cfg!(target_arch = "x86_64") {
        &[Self::X86_64, Self::X86]
    } else if cfg!(target_arch = "aarch64") {
        &[Self::Aarch64, Self::Arm]
    } else {
        &[]
    };

    /// `AUDIT_ARCH_*` of `linux/audit.h`: ELF machine, 64 bits, little endian.
    const fn audit(self) -> u32 {
        const LITTLE_ENDIAN: u32 = 0x4000_0000;
        const WIDE: u32 = 0x8000_0000;
        match self {
            Self::X86_64 => 0x3E | LITTLE_ENDIAN | WIDE,
            Self::X86 => 0x03 | LITTLE_ENDIAN,
            Self::Aarch64 => 0xB7 | LITTLE_ENDIAN | WIDE,
            Self::Arm => 0x28 | LITTLE_ENDIAN,
        }
    }

    /// The number of a call; none when the architecture does not have it.
    fn number(self, name: &str) -> Option<u32> {
        let number = match self {
            Self::X86_64 => name.parse().map(|call: syscalls::x86_64::Sysno| call.id()),
            Self::X86 => name.parse().map(|call: syscalls::x86::Sysno| call.id()),
            Self::Aarch64 => name.parse().map(|call: syscalls::aarch64::Sysno| call.id()),
            Self::Arm => name.parse().map(|call: syscalls::arm::Sysno| call.id()),
        };
        number.ok().and_then(|number| u32::try_from(number).ok())
    }
}

/// What rules depend on.
#[derive(Clone, Copy, Debug)]
struct Circumstances {
    capabilities: CapabilitySet,
    /// Version of the running kernel: major, minor.
    kernel: (u32, u32),
}

impl Circumstances {
    fn hold(self, condition: Condition) -> bool {
        match condition {
            Condition::Always => true,
            Condition::Has(capabilities) => self.capabilities.intersects(capabilities),
            Condition::Lacks(capabilities) => !self.capabilities.intersects(capabilities),
            Condition::KernelFrom(major, minor) => self.kernel >= (major, minor),
        }
    }
}

/// The program for a sandbox of this machine that has Docker's default capabilities; made once.
///
/// A process that forks workers calls this first, so that no worker makes it again.
pub(crate) fn default_program() -> &'static [Instruction] {
    static PROGRAM: OnceLock<Vec<Instruction>> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let circumstances = Circumstances {
            capabilities: capabilities::DEFAULT,
            kernel: running_kernel(),
        };
        compile(Architecture::NATIVE, circumstances)
    })
}

/// Filters this process and what it becomes. Call it while the process still has the right to.
pub(super) fn install() -> Result<(), Errno> {
    sys::seccomp::install(default_program())
}

/// Major and minor version; what cannot be read is taken for old, which allows less.
fn running_kernel() -> (u32, u32) {
    let uname = rustix::system::uname();
    let release = uname.release().to_str().unwrap_or_default();
    let mut numbers = release
        .split(|character: char| !character.is_ascii_digit())
        .map(|digits| digits.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn compile(architectures: &[Architecture], circumstances: Circumstances) -> Vec<Instruction> {
    let tables: Vec<program::Table> = architectures
        .iter()
        .map(|&architecture| decide(architecture, circumstances))
        .collect();
    program::write(&tables)
}

/// Where 32-bit ARM's private calls begin, far above all others.
const PRIVATE_CALLS: u32 = 0x000F_0000;

/// Applies the profile to one architecture. Any rule that allows wins over one that tests or fails.
fn decide(architecture: Architecture, circumstances: Circumstances) -> program::Table {
    let mut decisions = BTreeMap::new();
    let mut newest = 0;
    for rule in PROFILE {
        let holds = circumstances.hold(rule.condition);
        let numbers = rule
            .calls
            .iter()
            .filter_map(|name| architecture.number(name));
        for number in numbers {
            if number < PRIVATE_CALLS {
                newest = newest.max(number);
            }
            if holds {
                apply(&mut decisions, number, rule);
            }
        }
    }
    program::Table {
        architecture,
        decisions,
        newest,
    }
}

fn apply(decisions: &mut BTreeMap<u32, Decision>, number: u32, rule: &Rule) {
    match (decisions.get_mut(&number), rule.verdict) {
        (Some(Decision::Allow), _) => {}
        (_, Verdict::Allow) => {
            decisions.insert(number, Decision::Allow);
        }
        (Some(Decision::AllowIf(tests)), Verdict::AllowIf(test)) => tests.push(test),
        (_, Verdict::AllowIf(test)) => {
            decisions.insert(number, Decision::AllowIf(vec![test]));
        }
        (_, Verdict::Fail(errno)) => {
            decisions.insert(number, Decision::Fail(errno));
        }
    }
}

#[cfg(test)]
mod tests;
