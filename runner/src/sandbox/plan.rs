//! What makes a sandbox, as data: pure code writes the list, a small loop in [`super::setup`] carries it out.

use rustix::mount::MountAttrFlags;

use crate::job::{Confinement, Network, RunJob};

const NODEV: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NODEV;
const NOSUID: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID;
const NOEXEC: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOEXEC;
const READ_ONLY: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY;

/// The list of what is done between clone and exec, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SandboxPlan {
    pub(crate) operations: Vec<SetupOp>,
}

/// One thing to do. Targets are paths inside the new root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SetupOp {
    /// Cut the mount namespace off from the host's.
    StopPropagation,
    /// Take the root of the namespace for the new root: what is mounted there is moved away later.
    OpenOwnRoot,
    /// Move what was mounted ahead in the own root to the same place in the new one.
    MoveIn { target: &'static str },
    /// Mount the chain with its upper directory.
    MountRoot { attributes: MountAttrFlags },
    /// Look up the user, before anything of ours covers the image's files.
    LookUpUser,
    /// Mount a new file system.
    MountFilesystem {
        kind: &'static str,
        target: &'static str,
        options: Vec<(&'static str, Option<String>)>,
        attributes: MountAttrFlags,
        /// Directories made in it at once.
        directories: &'static [&'static str],
        /// Links made in it at once: name and text.
        links: &'static [(&'static str, &'static str)],
    },
    /// Mount the host's `/sys` because a new one was refused... or is not wanted: see [`Self::MountFilesystem`].
    MountSysfs { attributes: MountAttrFlags },
    /// Keep hold of the host's `/dev`, which may be covered from now on.
    OpenDevices,
    /// Show one device of the host's `/dev` under the same name; left out when the host lacks it.
    BindDevice { name: &'static str },
    /// Show all of the host's `/dev` that is not there yet.
    BindAllDevices,
    /// Mount one of the job's mounts, by index.
    MountJob { index: usize },
    /// Put one of the job's provided files in place, by index.
    ProvideFile { index: usize },
    /// Hide a path, when it is there.
    Mask { path: &'static str },
    /// Make a path read-only, when it is there.
    MakeReadOnly { path: &'static str },
    /// Set `lo` up.
    BringLoopbackUp,
    /// Set the host name.
    SetHostname,
    /// Take the working root of a chroot.
    OpenRoot,
    /// Make the new root the only one, and enter the working directory.
    EnterRoot,
    /// The same by chroot.
    ChangeRoot,
    /// `--ulimit`.
    SetLimits,
    /// Let only the system calls of the default profile through; while there is still the right to say so.
    FilterSystemCalls,
    /// The same where there is that right.
    FilterSystemCallsIfPossible,
    /// Keep only Docker's default capabilities.
    LimitCapabilities,
    /// The same, without those that lead out of a chroot.
    LimitCapabilitiesInChroot,
    /// Become the user.
    BecomeUser,
    /// Make all capabilities inheritable, as a careless caller may have.
    #[cfg(test)]
    Inherit,
}

/// As Docker's and containerd's default specs have them.
const MASKED: [&str; 10] = [
    "proc/asound",
    "proc/acpi",
    "proc/interrupts",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/timer_list",
    "proc/timer_stats",
    "proc/sched_debug",
    "proc/scsi",
];
const MASKED_SYS: [&str; 3] = [
    "sys/firmware",
    // Not in Docker's list, but in podman's.
    "sys/dev/block",
    // Not in every kernel's sysfs; newer in Docker's list (CVE-2020-8694).
    "sys/devices/virtual/powercap",
];
const READ_ONLY_PATHS: [&str; 5] = [
    "proc/bus",
    "proc/fs",
    "proc/irq",
    "proc/sys",
    "proc/sysrq-trigger",
];

const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const DEV_DIRECTORIES: [&str; 3] = ["pts", "shm", "mqueue"];
const DEV_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// `/dev/shm` of a sandbox that is made ahead: Docker's default.
const USUAL_SHM_SIZE: u64 = 64 << 20;

impl SandboxPlan {
    /// Plans the sandbox of a job.
    pub(crate) fn new(job: &RunJob) -> Self {
        let is_insecure = is_insecure(job);
        let mut operations = vec![SetupOp::StopPropagation];
        add_root(&mut operations, is_insecure);
        add_processes(&mut operations, is_insecure);
        add_devices(&mut operations, job.shm_size, is_insecure);
        add_end(&mut operations, job);
        Self { operations }
    }

    /// Plans what is the same for all usual jobs: their `/proc` and `/dev`, on those of the namespace they are made in.
    pub(crate) fn ahead() -> Self {
        let mut operations = vec![SetupOp::StopPropagation, SetupOp::OpenOwnRoot];
        add_processes(&mut operations, false);
        add_devices(&mut operations, USUAL_SHM_SIZE, false);
        Self { operations }
    }

    /// Plans what is left to do for a job after [`ahead`](Self::ahead); none when the job is not a usual one.
    pub(crate) fn after_ahead(job: &RunJob) -> Option<Self> {
        // Namespaces and cgroups are entered before anything is made in them.
        let is_usual = job.network != Network::None
            && !is_insecure(job)
            && job.shm_size == USUAL_SHM_SIZE
            && job.limits.is_empty();
        is_usual.then(|| {
            let mut operations = Vec::new();
            add_root(&mut operations, false);
            operations.extend([
                SetupOp::MoveIn { target: "proc" },
                SetupOp::MoveIn { target: "dev" },
            ]);
            add_end(&mut operations, job);
            Self { operations }
        })
    }
}

fn is_insecure(job: &RunJob) -> bool {
    job.confinement == Confinement::Insecure
}

fn add_root(operations: &mut Vec<SetupOp>, is_insecure: bool) {
    // No device cgroup limits what mknod makes (CAP_MKNOD is in Docker's set), so no device node in the image works.
    let attributes = if is_insecure {
        MountAttrFlags::empty()
    } else {
        NODEV
    };
    operations.extend([SetupOp::MountRoot { attributes }, SetupOp::LookUpUser]);
}

fn add_processes(operations: &mut Vec<SetupOp>, is_insecure: bool) {
    operations.push(filesystem("proc", "proc", &[], NOSUID | NODEV | NOEXEC));
    if !is_insecure {
        operations.extend(READ_ONLY_PATHS.map(|path| SetupOp::MakeReadOnly { path }));
        operations.extend(MASKED.map(|path| SetupOp::Mask { path }));
    }
}

/// What depends on the job and its network: `/sys`, its files and mounts, and everything after.
fn add_end(operations: &mut Vec<SetupOp>, job: &RunJob) {
    let is_insecure = is_insecure(job);
    let sys = NOSUID | NODEV | NOEXEC;
    operations.push(SetupOp::MountSysfs {
        attributes: if is_insecure { sys } else { sys | READ_ONLY },
    });
    if !is_insecure {
        operations.extend(MASKED_SYS.map(|path| SetupOp::Mask { path }));
    }
    operations.extend((0..job.files.len()).map(|index| SetupOp::ProvideFile { index }));
    operations.extend((0..job.mounts.len()).map(|index| SetupOp::MountJob { index }));
    if job.network == Network::None {
        operations.push(SetupOp::BringLoopbackUp);
    }
    operations.extend([SetupOp::SetHostname, SetupOp::EnterRoot, SetupOp::SetLimits]);
    if !is_insecure {
        operations.extend([SetupOp::FilterSystemCalls, SetupOp::LimitCapabilities]);
    }
    operations.push(SetupOp::BecomeUser);
}

impl SandboxPlan {
    /// Plans the life of a job's command in a chroot. Where system calls can't be filtered without forbidding `sudo` too, the
    /// surrounding container's filter is all there is.
    pub(crate) fn in_a_chroot(job: &RunJob) -> Self {
        let mut operations = vec![
            SetupOp::OpenRoot,
            SetupOp::LookUpUser,
            SetupOp::ChangeRoot,
            SetupOp::SetLimits,
        ];
        if job.confinement == Confinement::Default {
            operations.extend([
                SetupOp::FilterSystemCallsIfPossible,
                SetupOp::LimitCapabilitiesInChroot,
            ]);
        }
        operations.push(SetupOp::BecomeUser);
        Self { operations }
    }
}

fn add_devices(operations: &mut Vec<SetupOp>, shm_size: u64, is_insecure: bool) {
    operations.push(SetupOp::OpenDevices);
    operations.push(SetupOp::MountFilesystem {
        kind: "tmpfs",
        target: "dev",
        options: vec![
            ("mode", Some("755".into())),
            ("size", Some("65536k".into())),
        ],
        // The nodes in it are bind mounts of the host's, which this does not touch.
        attributes: if is_insecure { NOSUID } else { NOSUID | NODEV },
        directories: &DEV_DIRECTORIES,
        links: &DEV_LINKS,
    });
    operations.extend(DEVICES.map(|name| SetupOp::BindDevice { name }));
    let pts = [
        ("newinstance", None),
        ("ptmxmode", Some("0666")),
        ("mode", Some("0620")),
        ("gid", Some("5")),
    ];
    operations.push(filesystem("devpts", "dev/pts", &pts, NOSUID | NOEXEC));
    let size = shm_size.to_string();
    let shm = [("mode", Some("1777")), ("size", Some(size.as_str()))];
    operations.push(filesystem(
        "tmpfs",
        "dev/shm",
        &shm,
        NOSUID | NODEV | NOEXEC,
    ));
    operations.push(filesystem(
        "mqueue",
        "dev/mqueue",
        &[],
        NOSUID | NODEV | NOEXEC,
    ));
    if is_insecure {
        operations.push(SetupOp::BindAllDevices);
    }
}

fn filesystem(
    kind: &'static str,
    target: &'static str,
    options: &[(&'static str, Option<&str>)],
    attributes: MountAttrFlags,
) -> SetupOp {
    SetupOp::MountFilesystem {
        kind,
        target,
        options: options
            .iter()
            .map(|(name, value)| (*name, value.map(str::to_owned)))
            .collect(),
        attributes,
        directories: &[],
        links: &[],
    }
}
