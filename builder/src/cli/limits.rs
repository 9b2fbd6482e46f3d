//! `--memory`, `--cpus` and their like: what was typed, and what it means.

use clap::Args;
use rbuild_runner::job::Limits;

use super::error::UsageError;
use super::values::parse_size;

/// Smallest limit of memory that Docker takes: less can't hold a process.
const LEAST_MEMORY: u64 = 6 << 20;

/// The limits, which `--resource` names without the dashes.
const FLAGS: [&str; 8] = [
    "--memory",
    "--memory-swap",
    "--cpus",
    "--cpu-shares",
    "--cpuset-cpus",
    "--cpuset-mems",
    "--pids-limit",
    "--cgroup-parent",
];

/// What a command may use of the machine.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Sandbox")]
pub(crate) struct LimitArgs {
    /// Memory that a step may use, such as 512m
    #[arg(short, long, value_name = "SIZE")]
    memory: Option<String>,
    /// Memory and swap together; -1 is no limit
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// CPUs that a step may use, such as 1.5
    #[arg(long, value_name = "N")]
    cpus: Option<String>,
    /// Weight of a step against other processes; 1024 is one share
    #[arg(short = 'c', long, value_name = "N")]
    cpu_shares: Option<u64>,
    /// Microseconds of CPU time in each --cpu-period
    #[arg(long, value_name = "N", hide = true)]
    cpu_quota: Option<u64>,
    /// The period of --cpu-quota in microseconds
    #[arg(long, value_name = "N", hide = true)]
    cpu_period: Option<u64>,
    /// CPUs that a step may run on, such as 0-2,7
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes that a step may use
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Processes and threads that a step may have at a time; -1 is no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// The cgroup below which those of steps are made
    #[arg(long, value_name = "PATH")]
    cgroup_parent: Option<String>,
}

/// buildx's `--resource`.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Sandbox")]
pub(crate) struct ResourceArgs {
    /// Limits as a list: memory=512m,cpus=1.5,pids-limit=100
    #[arg(long, value_name = "NAME=VALUE,…")]
    resource: Vec<String>,
}

impl LimitArgs {
    /// What was meant.
    pub(crate) fn limits(&self) -> Result<Limits, UsageError> {
        let mut limits = Limits::default();
        let words = [
            ("memory", &self.memory),
            ("memory-swap", &self.memory_swap),
            ("cpus", &self.cpus),
            ("cpuset-cpus", &self.cpuset_cpus),
            ("cpuset-mems", &self.cpuset_mems),
            ("cgroup-parent", &self.cgroup_parent),
        ];
        for (name, text) in words {
            if let Some(text) = text {
                set(&mut limits, name, text)?;
            }
        }
        let numbers = [("cpu-shares", self.cpu_shares.map(|n| n.to_string()))];
        for (name, text) in numbers {
            if let Some(text) = text {
                set(&mut limits, name, &text)?;
            }
        }
        if let Some(quota) = self.cpu_quota {
            let period = self.cpu_period.unwrap_or(100_000).max(1);
            limits.cpu_thousandths = Some((quota.saturating_mul(1000) / period).max(1));
        }
        if let Some(pids) = self.pids_limit {
            set(&mut limits, "pids-limit", &pids.to_string())?;
        }
        check(limits)
    }
}

impl ResourceArgs {
    /// Sets what is listed on top of `limits`.
    pub(crate) fn add_to(&self, mut limits: Limits) -> Result<Limits, UsageError> {
        for pair in self.resource.iter().flat_map(|list| list.split(',')) {
            let (name, value) = pair.split_once('=').ok_or_else(|| {
                UsageError::value("--resource", pair, "it is not NAME=VALUE")
                    .with_help("for example `memory=512m,cpus=1.5`")
            })?;
            set(&mut limits, name.trim(), value.trim())?;
        }
        check(limits)
    }
}

/// What can only be said of several together.
fn check(limits: Limits) -> Result<Limits, UsageError> {
    if let Some(both) = limits.memory_swap {
        let shown = both.to_string();
        match limits.memory {
            None => {
                let error =
                    UsageError::value("--memory-swap", shown, "it needs `--memory` beside it");
                return Err(error.with_help("it is the limit of memory and swap together"));
            }
            Some(memory) if both < memory => {
                return Err(UsageError::value(
                    "--memory-swap",
                    shown,
                    "it is less than `--memory`, which it includes",
                ));
            }
            Some(_) => {}
        }
    }
    Ok(limits)
}

fn set(limits: &mut Limits, name: &str, text: &str) -> Result<(), UsageError> {
    let flag = FLAGS.iter().find(|flag| &flag[2..] == name);
    let Some(&flag) = flag else {
        let error = UsageError::value("--resource", name, "there is no such limit");
        return Err(error.with_help(format!(
            "limits are {}",
            FLAGS.map(|flag| &flag[2..]).join(", ")
        )));
    };
    let wrong = |reason: &str, example: &str| {
        UsageError::value(flag, text, reason).with_help(format!("for example `{example}`"))
    };
    match name {
        "memory" => {
            let size = parse_size(text).ok_or_else(|| wrong("it is not a size", "512m"))?;
            if size < LEAST_MEMORY {
                return Err(wrong("no process fits into less than 6 MiB", "512m"));
            }
            limits.memory = Some(size);
        }
        "memory-swap" => {
            limits.memory_swap = Some(match text {
                "-1" => u64::MAX,
                text => {
                    parse_size(text).ok_or_else(|| wrong("it is neither a size nor -1", "1g"))?
                }
            });
        }
        "cpus" => {
            let thousandths = thousandths(text).filter(|&number| number >= 10);
            let number = thousandths.ok_or_else(|| wrong("it is not a number of CPUs", "1.5"))?;
            limits.cpu_thousandths = Some(number);
        }
        "cpu-shares" => {
            let shares = text
                .parse()
                .ok()
                .filter(|number| (2..=262_144).contains(number));
            let wrong = || wrong("it is not a number from 2 to 262144", "512");
            limits.cpu_shares = Some(shares.ok_or_else(wrong)?);
        }
        "cpuset-cpus" | "cpuset-mems" => {
            let is_list = text.split(',').all(|range| {
                let mut ends = range.splitn(2, '-');
                ends.all(|end| !end.is_empty() && end.bytes().all(|byte| byte.is_ascii_digit()))
            });
            if !is_list {
                return Err(wrong("it is not a list of numbers and ranges", "0-2,7"));
            }
            let list = Some(text.to_owned());
            if name == "cpuset-cpus" {
                limits.cpuset_cpus = list;
            } else {
                limits.cpuset_mems = list;
            }
        }
        "pids-limit" => {
            limits.pids = match text.parse::<i64>() {
                Ok(-1 | 0) => None,
                Ok(number) if number > 0 => Some(number.unsigned_abs()),
                _ => return Err(wrong("it is neither a number nor -1", "100")),
            };
        }
        _ => {
            let has_dots = text.split('/').any(|part| part == "..");
            if has_dots || text.trim_matches('/').is_empty() {
                return Err(wrong(
                    "it is not a path below the root of the cgroups",
                    "/builds",
                ));
            }
            limits.parent = Some(text.to_owned());
        }
    }
    Ok(())
}

/// `1.5` as 1500.
fn thousandths(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000".chars()).take(3).collect();
    let whole: u64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    whole.checked_mul(1000)?.checked_add(digits.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_say_what_flags_say() {
        let resources = ResourceArgs {
            resource: vec![
                "memory=64m,cpus=0.25".into(),
                "pids-limit=9,cpu-shares=2".into(),
            ],
        };
        let limits = resources.add_to(Limits::default()).unwrap();
        let flags = LimitArgs {
            memory: Some("64m".into()),
            cpus: Some(".25".into()),
            cpu_shares: Some(2),
            pids_limit: Some(9),
            ..LimitArgs::default()
        };
        assert_eq!(flags.limits().unwrap(), limits);
        assert_eq!(limits.memory, Some(64 << 20));
        assert_eq!(limits.cpu_thousandths, Some(250));
        let quota = LimitArgs {
            cpu_quota: Some(50_000),
            ..LimitArgs::default()
        };
        assert_eq!(quota.limits().unwrap().cpu_thousandths, Some(500));
    }

    #[test]
    fn what_can_be_no_limit_is_refused() {
        for (pair, reason) in [
            ("memory=1k", "6 MiB"),
            ("memory=much", "not a size"),
            ("memory-swap=1g", "needs `--memory`"),
            ("cpus=0", "not a number of CPUs"),
            ("cpus=1e3", "not a number of CPUs"),
            ("cpu-shares=1", "2 to 262144"),
            ("cpuset-cpus=0-", "not a list"),
            ("cpuset-cpus=0\n1", "not a list"),
            ("pids-limit=-2", "neither"),
            ("cgroup-parent=/a/../..", "not a path"),
            ("gpus=1", "no such limit"),
            ("memory", "not NAME=VALUE"),
        ] {
            let resources = ResourceArgs {
                resource: vec![pair.into()],
            };
            let error = resources.add_to(Limits::default()).unwrap_err().to_string();
            assert!(error.contains(reason), "{pair}: {error}");
        }
        let both = ResourceArgs {
            resource: vec!["memory=1g,memory-swap=512m".into()],
        };
        assert!(both.add_to(Limits::default()).is_err());
    }
}
