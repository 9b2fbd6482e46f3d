//! What a command may use of the machine.

use serde::{Deserialize, Serialize};

/// Limits of a command and all that comes from it, by cgroups. Without any, no cgroup is made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Memory and swap together in bytes, at least `memory`; `u64::MAX` is no limit.
    pub memory_swap: Option<u64>,
    /// Thousandths of a CPU.
    pub cpu_thousandths: Option<u64>,
    /// Weight against others, 1024 by default, 2 to 262144.
    pub cpu_shares: Option<u64>,
    /// CPUs that may be used, such as `0-2,7`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes that may be used.
    pub cpuset_mems: Option<String>,
    /// Processes and threads at a time.
    pub pids: Option<u64>,
    /// The cgroup below which the command's is made, from the root of each hierarchy; none is the caller's own.
    pub parent: Option<String>,
}

impl Limits {
    /// True when nothing is limited.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What a command's memory cgroup counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryReport {
    /// Most that was in use at a time, in bytes; none where the kernel does not keep it (cgroup v2 before Linux 5.19).
    pub peak: Option<u64>,
    /// How many processes were killed because the limit was reached.
    pub kills: u64,
}
