//! Which file of a cgroup holds which limit. Pure.

use super::Version;
use crate::job::Limits;

/// One file to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Setting {
    /// This value.
    Value { file: &'static str, value: String },
    /// The same, where the kernel has the file.
    OptionalValue { file: &'static str, value: String },
    /// What the cgroup above has: a new cgroup of v1 has no memory nodes and no CPUs, and takes no processes then.
    FromParent { file: &'static str },
}

/// Length of the period that a share of CPU time is for; the kernel's default.
const PERIOD_US: u64 = 100_000;

/// What the limits are in the files of these controllers, in the order in which the kernel takes them.
pub(super) fn of(limits: &Limits, version: Version, controllers: &[&str]) -> Vec<Setting> {
    let mut settings = Vec::new();
    let has = |controller| controllers.contains(&controller);
    if has("cpuset") {
        cpuset(limits, version, &mut settings);
    }
    if has("cpu") {
        cpu(limits, version, &mut settings);
    }
    if has("memory") {
        memory(limits, version, &mut settings);
    }
    if has("pids")
        && let Some(pids) = limits.pids
    {
        settings.push(value("pids.max", &pids));
    }
    settings
}

fn cpuset(limits: &Limits, version: Version, settings: &mut Vec<Setting>) {
    let wanted = [
        ("cpuset.cpus", &limits.cpuset_cpus),
        ("cpuset.mems", &limits.cpuset_mems),
    ];
    for (file, limit) in wanted {
        match limit {
            Some(list) => settings.push(value(file, list)),
            None if version == Version::One => settings.push(Setting::FromParent { file }),
            None => {}
        }
    }
}

fn cpu(limits: &Limits, version: Version, settings: &mut Vec<Setting>) {
    if let Some(thousandths) = limits.cpu_thousandths {
        let quota = thousandths.saturating_mul(PERIOD_US / 1000);
        match version {
            Version::One => {
                settings.push(value("cpu.cfs_period_us", &PERIOD_US));
                settings.push(value("cpu.cfs_quota_us", &quota));
            }
            Version::Two => settings.push(value("cpu.max", &format!("{quota} {PERIOD_US}"))),
        }
    }
    if let Some(shares) = limits.cpu_shares {
        settings.push(match version {
            Version::One => value("cpu.shares", &shares),
            Version::Two => value("cpu.weight", &weight(shares)),
        });
    }
}

/// Shares (2 to 262144) as a weight (1 to 10000), as container runtimes translate them.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

fn memory(limits: &Limits, version: Version, settings: &mut Vec<Setting>) {
    if let Some(memory) = limits.memory {
        let file = match version {
            Version::One => "memory.limit_in_bytes",
            Version::Two => "memory.max",
        };
        settings.push(value(file, &memory));
    }
    let Some(both) = limits.memory_swap else {
        return;
    };
    let unlimited = both == u64::MAX;
    let (file, value) = match version {
        Version::One if unlimited => ("memory.memsw.limit_in_bytes", "-1".to_owned()),
        Version::One => ("memory.memsw.limit_in_bytes", both.to_string()),
        Version::Two if unlimited => ("memory.swap.max", "max".to_owned()),
        // v2 counts swap by itself.
        Version::Two => {
            let swap = both.saturating_sub(limits.memory.unwrap_or(0));
            ("memory.swap.max", swap.to_string())
        }
    };
    settings.push(Setting::OptionalValue { file, value });
}

fn value(file: &'static str, value: &impl ToString) -> Setting {
    Setting::Value {
        file,
        value: value.to_string(),
    }
}
