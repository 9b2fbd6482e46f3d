//! Docker's default seccomp profile as a table: what moby/profiles holds for amd64 and arm64 in 2026.
//!
//! A call is made when a rule whose conditions hold allows it. Names that an architecture does not have are no rules
//! there. The rules for s390x, ppc64le and riscv64 are left out with those machines.

use rustix::io::Errno;
use rustix::thread::CapabilitySet;

/// One row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    /// The calls, by their kernel names.
    pub(super) calls: &'static [&'static str],
    /// What the rule says of them.
    pub(super) verdict: Verdict,
    /// When it says so.
    pub(super) condition: Condition,
}

/// What a rule says of a call.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verdict {
    Allow,
    Fail(Errno),
    AllowIf(Test),
}

/// When a rule holds. All are known before the command starts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Condition {
    Always,
    /// The command may use one of these.
    Has(CapabilitySet),
    Lacks(CapabilitySet),
    /// From this version of Linux on.
    KernelFrom(u32, u32),
}

/// A test of one argument, which is 64 bits wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Test {
    /// 0 to 5.
    pub(super) argument: u8,
    pub(super) comparison: Comparison,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Below(u64),
    Equal(u64),
    /// None of these bits is set.
    NoneOf(u64),
}

const fn allow(calls: &'static [&'static str]) -> Rule {
    Rule {
        calls,
        verdict: Verdict::Allow,
        condition: Condition::Always,
    }
}

const fn allow_with(capability: CapabilitySet, calls: &'static [&'static str]) -> Rule {
    Rule {
        calls,
        verdict: Verdict::Allow,
        condition: Condition::Has(capability),
    }
}

const fn allow_if(calls: &'static [&'static str], argument: u8, comparison: Comparison) -> Rule {
    Rule {
        calls,
        verdict: Verdict::AllowIf(Test {
            argument,
            comparison,
        }),
        condition: Condition::Always,
    }
}

const fn first_equals(calls: &'static [&'static str], value: u64) -> Rule {
    allow_if(calls, 0, Comparison::Equal(value))
}

const fn without_admin(calls: &'static [&'static str], verdict: Verdict) -> Rule {
    Rule {
        calls,
        verdict,
        condition: Condition::Lacks(CapabilitySet::SYS_ADMIN),
    }
}

const SOCKET: &[&str] = &["socket"];
const PERSONALITY: &[&str] = &["personality"];

/// `CLONE_NEWNS`, `NEWCGROUP`, `NEWUTS`, `NEWIPC`, `NEWUSER`, `NEWPID` and `NEWNET`.
const NEW_NAMESPACES: u64 = 0x7E02_0000;

/// The profile.
pub(super) const PROFILE: &[Rule] = &[
    allow(ALWAYS),
    // Before 4.8 a tracer could change a call after the filter had let it pass.
    Rule {
        calls: &["process_vm_readv", "process_vm_writev", "ptrace"],
        verdict: Verdict::Allow,
        condition: Condition::KernelFrom(4, 8),
    },
    // Address families. Left out: 38 (AF_ALG) and 40 (AF_VSOCK), ways to the kernel's crypto code and to the
    // hypervisor, and those that nobody has needed.
    allow_if(SOCKET, 0, Comparison::Below(12)),
    first_equals(SOCKET, 13),
    first_equals(SOCKET, 14),
    first_equals(SOCKET, 15),
    first_equals(SOCKET, 16),
    first_equals(SOCKET, 17),
    first_equals(SOCKET, 18),
    first_equals(SOCKET, 21),
    first_equals(SOCKET, 22),
    first_equals(SOCKET, 24),
    first_equals(SOCKET, 26),
    first_equals(SOCKET, 27),
    first_equals(SOCKET, 28),
    first_equals(SOCKET, 29),
    first_equals(SOCKET, 30),
    first_equals(SOCKET, 31),
    first_equals(SOCKET, 32),
    first_equals(SOCKET, 33),
    first_equals(SOCKET, 35),
    first_equals(SOCKET, 36),
    first_equals(SOCKET, 39),
    first_equals(SOCKET, 41),
    first_equals(SOCKET, 42),
    first_equals(SOCKET, 43),
    first_equals(SOCKET, 44),
    first_equals(SOCKET, 45),
    // PER_LINUX, PER_LINUX32, both with UNAME26, and the question what it is.
    first_equals(PERSONALITY, 0x0),
    first_equals(PERSONALITY, 0x8),
    first_equals(PERSONALITY, 0x2_0000),
    first_equals(PERSONALITY, 0x2_0008),
    first_equals(PERSONALITY, 0xFFFF_FFFF),
    #[cfg(target_arch = "aarch64")]
    allow(&[
        "arm_fadvise64_64",
        "arm_sync_file_range",
        "sync_file_range2",
        "breakpoint",
        "cacheflush",
        "set_tls",
    ]),
    #[cfg(target_arch = "x86_64")]
    allow(&["arch_prctl", "modify_ldt"]),
    allow_with(CapabilitySet::DAC_READ_SEARCH, &["open_by_handle_at"]),
    allow_with(
        CapabilitySet::SYS_ADMIN,
        &[
            "bpf",
            "clone",
            "clone3",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "lsm_get_self_attr",
            "lsm_list_modules",
            "lsm_set_self_attr",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "perf_event_open",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "syslog",
            "umount",
            "umount2",
            "unshare",
        ],
    ),
    without_admin(
        &["clone"],
        Verdict::AllowIf(Test {
            argument: 0,
            comparison: Comparison::NoneOf(NEW_NAMESPACES),
        }),
    ),
    // Its flags lie in memory, where a filter can't look. ENOSYS makes C libraries use clone.
    without_admin(&["clone3"], Verdict::Fail(Errno::NOSYS)),
    allow_with(CapabilitySet::SYS_BOOT, &["reboot"]),
    allow_with(CapabilitySet::SYS_CHROOT, &["chroot"]),
    allow_with(
        CapabilitySet::SYS_MODULE,
        &["delete_module", "init_module", "finit_module"],
    ),
    allow_with(CapabilitySet::SYS_PACCT, &["acct"]),
    allow_with(
        CapabilitySet::SYS_PTRACE,
        &[
            "kcmp",
            "pidfd_getfd",
            "process_madvise",
            "process_vm_readv",
            "process_vm_writev",
            "ptrace",
        ],
    ),
    allow_with(CapabilitySet::SYS_RAWIO, &["iopl", "ioperm"]),
    allow_with(
        CapabilitySet::SYS_TIME,
        &["settimeofday", "stime", "clock_settime", "clock_settime64"],
    ),
    allow_with(CapabilitySet::SYS_TTY_CONFIG, &["vhangup"]),
    allow_with(
        CapabilitySet::SYS_NICE,
        &[
            "get_mempolicy",
            "mbind",
            "set_mempolicy",
            "set_mempolicy_home_node",
        ],
    ),
    allow_with(CapabilitySet::SYSLOG, &["syslog"]),
    allow_with(CapabilitySet::BPF, &["bpf"]),
    allow_with(CapabilitySet::PERFMON, &["perf_event_open"]),
];

/// What every command may call.
#[rustfmt::skip]
const ALWAYS: &[&str] = &[
    "accept", "accept4", "access", "adjtimex", "alarm", "bind", "brk", "cachestat", "capget", "capset", "chdir",
    "chmod", "chown", "chown32", "clock_adjtime", "clock_adjtime64", "clock_getres", "clock_getres_time64",
    "clock_gettime", "clock_gettime64", "clock_nanosleep", "clock_nanosleep_time64", "close", "close_range", "connect",
    "copy_file_range", "creat", "dup", "dup2", "dup3", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old",
    "epoll_pwait", "epoll_pwait2", "epoll_wait", "epoll_wait_old", "eventfd", "eventfd2", "execve", "execveat", "exit",
    "exit_group", "faccessat", "faccessat2", "fadvise64", "fadvise64_64", "fallocate", "fanotify_mark", "fchdir",
    "fchmod", "fchmodat", "fchmodat2", "fchown", "fchown32", "fchownat", "fcntl", "fcntl64", "fdatasync", "fgetxattr",
    "flistxattr", "flock", "fork", "fremovexattr", "fsetxattr", "fstat", "fstat64", "fstatat64", "fstatfs", "fstatfs64",
    "fsync", "ftruncate", "ftruncate64", "futex", "futex_requeue", "futex_time64", "futex_wait", "futex_waitv",
    "futex_wake", "futimesat", "getcpu", "getcwd", "getdents", "getdents64", "getegid", "getegid32", "geteuid",
    "geteuid32", "getgid", "getgid32", "getgroups", "getgroups32", "getitimer", "getpeername", "getpgid", "getpgrp",
    "getpid", "getppid", "getpriority", "getrandom", "getresgid", "getresgid32", "getresuid", "getresuid32",
    "getrlimit", "get_robust_list", "getrusage", "getsid", "getsockname", "getsockopt", "get_thread_area", "gettid",
    "gettimeofday", "getuid", "getuid32", "getxattr", "getxattrat", "inotify_add_watch", "inotify_init",
    "inotify_init1", "inotify_rm_watch", "io_cancel", "ioctl", "io_destroy", "io_getevents", "io_pgetevents",
    "io_pgetevents_time64", "ioprio_get", "ioprio_set", "io_setup", "io_submit", "ipc", "kill", "landlock_add_rule",
    "landlock_create_ruleset", "landlock_restrict_self", "lchown", "lchown32", "lgetxattr", "link", "linkat", "listen",
    "listmount", "listxattr", "listxattrat", "llistxattr", "_llseek", "lremovexattr", "lseek", "lsetxattr", "lstat",
    "lstat64", "madvise", "map_shadow_stack", "membarrier", "memfd_create", "memfd_secret", "mincore", "mkdir",
    "mkdirat", "mknod", "mknodat", "mlock", "mlock2", "mlockall", "mmap", "mmap2", "mprotect", "mq_getsetattr",
    "mq_notify", "mq_open", "mq_timedreceive", "mq_timedreceive_time64", "mq_timedsend", "mq_timedsend_time64",
    "mq_unlink", "mremap", "mseal", "msgctl", "msgget", "msgrcv", "msgsnd", "msync", "munlock", "munlockall", "munmap",
    "name_to_handle_at", "nanosleep", "newfstatat", "_newselect", "open", "openat", "openat2", "pause", "pidfd_open",
    "pidfd_send_signal", "pipe", "pipe2", "pkey_alloc", "pkey_free", "pkey_mprotect", "poll", "ppoll", "ppoll_time64",
    "prctl", "pread64", "preadv", "preadv2", "prlimit64", "process_mrelease", "pselect6", "pselect6_time64", "pwrite64",
    "pwritev", "pwritev2", "read", "readahead", "readlink", "readlinkat", "readv", "recv", "recvfrom", "recvmmsg",
    "recvmmsg_time64", "recvmsg", "remap_file_pages", "removexattr", "removexattrat", "rename", "renameat", "renameat2",
    "restart_syscall", "riscv_hwprobe", "rmdir", "rseq", "rt_sigaction", "rt_sigpending", "rt_sigprocmask",
    "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "rt_sigtimedwait_time64",
    "rt_tgsigqueueinfo", "sched_getaffinity", "sched_getattr", "sched_getparam", "sched_get_priority_max",
    "sched_get_priority_min", "sched_getscheduler", "sched_rr_get_interval", "sched_rr_get_interval_time64",
    "sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler", "sched_yield", "seccomp", "select",
    "semctl", "semget", "semop", "semtimedop", "semtimedop_time64", "send", "sendfile", "sendfile64", "sendmmsg",
    "sendmsg", "sendto", "setfsgid", "setfsgid32", "setfsuid", "setfsuid32", "setgid", "setgid32", "setgroups",
    "setgroups32", "setitimer", "setpgid", "setpriority", "setregid", "setregid32", "setresgid", "setresgid32",
    "setresuid", "setresuid32", "setreuid", "setreuid32", "setrlimit", "set_robust_list", "setsid", "setsockopt",
    "set_thread_area", "set_tid_address", "setuid", "setuid32", "setxattr", "setxattrat", "shmat", "shmctl", "shmdt",
    "shmget", "shutdown", "sigaltstack", "signalfd", "signalfd4", "sigprocmask", "sigreturn", "socketcall",
    "socketpair", "splice", "stat", "stat64", "statfs", "statfs64", "statmount", "statx", "symlink", "symlinkat",
    "sync", "sync_file_range", "syncfs", "sysinfo", "tee", "tgkill", "time", "timer_create", "timer_delete",
    "timer_getoverrun", "timer_gettime", "timer_gettime64", "timer_settime", "timer_settime64", "timerfd_create",
    "timerfd_gettime", "timerfd_gettime64", "timerfd_settime", "timerfd_settime64", "times", "tkill", "truncate",
    "truncate64", "ugetrlimit", "umask", "uname", "unlink", "unlinkat", "uretprobe", "utime", "utimensat",
    "utimensat_time64", "utimes", "vfork", "vmsplice", "wait4", "waitid", "waitpid", "write", "writev",
];
