//! The policy as decided, and as the kernel carries it out.

use std::collections::BTreeSet;

use super::program::tests::run;
use super::*;
use crate::job::CommandStatus;
use crate::sys::process::{fork_process, wait_for};
use crate::sys::seccomp::probe;

const ALLOWED: u32 = 0x7FFF_0000;

fn failed(errno: Errno) -> u32 {
    0x0005_0000 | errno.raw_os_error().unsigned_abs()
}

fn flags(bits: libc::c_int) -> u64 {
    bits.unsigned_abs().into()
}

fn circumstances(capabilities: CapabilitySet) -> Circumstances {
    Circumstances {
        capabilities,
        kernel: (6, 1),
    }
}

/// What a call gets, with all arguments 0.
fn answer(architecture: Architecture, circumstances: Circumstances, name: &str) -> u32 {
    let number = architecture.number(name).expect(name);
    let program = compile(&[architecture], circumstances);
    run(&program, architecture.audit(), number, [0; 6])
}

#[test]
fn every_name_is_a_call_of_some_architecture() {
    let all = [
        Architecture::X86_64,
        Architecture::X86,
        Architecture::Aarch64,
        Architecture::Arm,
    ];
    let unknown: BTreeSet<&str> = PROFILE
        .iter()
        .flat_map(|rule| rule.calls)
        .copied()
        .filter(|name| {
            all.iter()
                .all(|architecture| architecture.number(name).is_none())
        })
        .collect();
    // Of a machine whose other rules are left out.
    assert_eq!(unknown, BTreeSet::from(["riscv_hwprobe"]));
}

#[test]
fn programs_fit_the_kernel_on_every_architecture() {
    for architectures in [
        [Architecture::X86_64, Architecture::X86],
        [Architecture::Aarch64, Architecture::Arm],
    ] {
        let program = compile(&architectures, circumstances(CapabilitySet::all()));
        assert!(program.len() < 4096, "{} instructions", program.len());
    }
}

#[test]
fn rules_depend_on_capabilities() {
    let rows = [
        ("mount", CapabilitySet::SYS_ADMIN),
        ("bpf", CapabilitySet::BPF),
        ("open_by_handle_at", CapabilitySet::DAC_READ_SEARCH),
        ("reboot", CapabilitySet::SYS_BOOT),
        ("chroot", CapabilitySet::SYS_CHROOT),
        ("init_module", CapabilitySet::SYS_MODULE),
        ("acct", CapabilitySet::SYS_PACCT),
        ("kcmp", CapabilitySet::SYS_PTRACE),
        ("ioperm", CapabilitySet::SYS_RAWIO),
        ("clock_settime", CapabilitySet::SYS_TIME),
        ("vhangup", CapabilitySet::SYS_TTY_CONFIG),
        ("mbind", CapabilitySet::SYS_NICE),
        ("syslog", CapabilitySet::SYSLOG),
        ("perf_event_open", CapabilitySet::PERFMON),
    ];
    for (name, capability) in rows {
        let architecture = Architecture::X86_64;
        let with = answer(architecture, circumstances(capability), name);
        let without = answer(architecture, circumstances(CapabilitySet::empty()), name);
        assert_eq!((with, without), (ALLOWED, failed(Errno::PERM)), "{name}");
    }
}

#[test]
fn rules_depend_on_the_kernel() {
    let old = Circumstances {
        capabilities: CapabilitySet::empty(),
        kernel: (4, 7),
    };
    assert_eq!(
        answer(Architecture::Aarch64, old, "ptrace"),
        failed(Errno::PERM)
    );
    let new = circumstances(CapabilitySet::empty());
    assert_eq!(answer(Architecture::Aarch64, new, "ptrace"), ALLOWED);
    assert!(running_kernel() > (4, 0), "{:?}", running_kernel());
}

#[test]
fn new_namespaces_need_a_capability() {
    let number = Architecture::X86_64.number("clone").expect("clone");
    let made = |capabilities, flags: u64| {
        let program = compile(&[Architecture::X86_64], circumstances(capabilities));
        let audit = Architecture::X86_64.audit();
        run(&program, audit, number, [flags, 0, 0, 0, 0, 0]) == ALLOWED
    };
    let namespaces = [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
    ];
    assert!(made(CapabilitySet::empty(), flags(libc::SIGCHLD)));
    for flag in namespaces {
        assert!(!made(CapabilitySet::empty(), flags(flag)), "{flag:#x}");
        assert!(made(CapabilitySet::SYS_ADMIN, flags(flag)), "{flag:#x}");
    }
    let threads = libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND;
    assert!(made(CapabilitySet::empty(), flags(threads)));
    let clone3 = answer(
        Architecture::X86_64,
        circumstances(CapabilitySet::empty()),
        "clone3",
    );
    assert_eq!(clone3, failed(Errno::NOSYS));
}

/// `uretprobe` and `uprobe` of x86-64: newer kernels let them pass before any filter, and end who calls them by hand.
const UNFILTERED: [u32; 2] = [335, 336];

/// Every call number of the machine, made in a child with the filter on: the kernel's answer is the program's.
///
/// Beneath ours lies a filter that lets nothing happen: each call fails with a number of its own, unless ours, the
/// newer one, fails it first. So `reboot` and `exit` can be tried like any other.
#[test]
fn the_kernel_answers_every_call_as_the_profile_says() {
    if !crate::sys::seccomp::may_install() {
        assert!(
            std::env::var_os("RBUILD_TESTS_MUST_RUN").is_none(),
            "needs CAP_SYS_ADMIN"
        );
        return;
    }
    for &architecture in Architecture::NATIVE {
        let audit = architecture.audit();
        if !probe::can_call(audit) {
            continue; // a kernel without 32-bit programs; what the program answers is tested above
        }
        let program = default_program();
        let table = decide(
            architecture,
            Circumstances {
                capabilities: capabilities::DEFAULT,
                kernel: running_kernel(),
            },
        );
        let most = match architecture {
            Architecture::X86 | Architecture::Arm => u64::from(u32::MAX),
            Architecture::X86_64 | Architecture::Aarch64 => u64::MAX,
        };
        // Every value up to the last address family, and what has all bits.
        let values: Vec<u64> = (0..48)
            .chain([0x2_0000, 0x2_0008, 0xFFFF_FFFF, most])
            .collect();
        let child = fork_process(|| {
            if probe::hold_calls_back().is_err() {
                return 98;
            }
            probe::install_above(program);
            let numbers = (0..table.newest + 40).filter(|number| !UNFILTERED.contains(number));
            let is_wrong = numbers.into_iter().any(|number| {
                values.iter().any(|&value| {
                    let expected = run(program, audit, number, [value, 0, 0, 0, 0, 0]);
                    probe::answer(audit, number, value) != expected
                })
            });
            probe::leave(u8::from(is_wrong))
        });
        let (status, _) = wait_for(child.expect("fork")).expect("wait");
        assert_eq!(status, CommandStatus::Exited(0), "{architecture:?}");
    }
}

/// To the kernel's crypto code (CVE-2026-31431) and to the hypervisor. A 32-bit program's `socketcall` hides its arguments from
/// every filter.
#[test]
fn sockets_of_some_families_are_refused() {
    for architecture in [
        Architecture::X86_64,
        Architecture::X86,
        Architecture::Aarch64,
    ] {
        let program = compile(&[architecture], circumstances(CapabilitySet::all()));
        let number = architecture.number("socket").expect("socket");
        let made = |family: libc::c_int| {
            let arguments = [flags(family), 0, 0, 0, 0, 0];
            run(&program, architecture.audit(), number, arguments)
        };
        for family in [
            libc::AF_UNIX,
            libc::AF_INET,
            libc::AF_INET6,
            libc::AF_NETLINK,
        ] {
            assert_eq!(made(family), ALLOWED, "{family}");
        }
        for family in [libc::AF_ALG, libc::AF_VSOCK] {
            assert_ne!(made(family), ALLOWED, "{family}");
        }
    }
}
