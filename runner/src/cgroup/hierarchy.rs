//! Which cgroup hierarchies there are, and where in them this process is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::Version;
use crate::error::{JobError, JobErrorKind};
use crate::job::Limits;

/// Mounted hierarchies, and this process's directory in each.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Hierarchies {
    /// By controller.
    one: BTreeMap<String, Mounted>,
    two: Option<Mounted>,
}

/// A hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mounted {
    top: PathBuf,
    own: PathBuf,
}

impl Hierarchies {
    pub(super) fn of_this_process() -> Result<Self, JobError> {
        let read = |path: &str| {
            fs::read_to_string(path).map_err(|error| {
                let message = format!("cannot read `{path}` to find the cgroups");
                JobError::new(JobErrorKind::Limit, message).caused_by(&error)
            })
        };
        Ok(Self::parse(
            &read("/proc/self/mountinfo")?,
            &read("/proc/self/cgroup")?,
        ))
    }

    /// From the contents of mountinfo and cgroup, see `cgroups(7)` and `proc_pid_mountinfo(5)`.
    pub(super) fn parse(mountinfo: &str, cgroup: &str) -> Self {
        let own = |wanted: &dyn Fn(&str, &str) -> bool| {
            cgroup.lines().find_map(|line| {
                let mut fields = line.splitn(3, ':');
                let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
                wanted(id, controllers).then(|| path.to_owned())
            })
        };
        let mut found = Self::default();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let left: Vec<&str> = left.split(' ').collect();
            let right: Vec<&str> = right.split(' ').collect();
            let (Some(root), Some(top), Some(kind)) = (left.get(3), left.get(4), right.first())
            else {
                continue;
            };
            let place = |path: Option<String>| {
                let path = path?;
                // In a container only a part of the hierarchy may be mounted.
                let below = Path::new(&path).strip_prefix(root).ok()?;
                let top = PathBuf::from(top);
                let own = top.join(below);
                Some(Mounted { top, own })
            };
            match *kind {
                "cgroup2" => {
                    let mounted =
                        place(own(&|id, controllers| id == "0" && controllers.is_empty()));
                    found.two = found.two.or(mounted);
                }
                "cgroup" => {
                    let options = right.get(2).copied().unwrap_or_default();
                    for controller in ["memory", "cpu", "cpuset", "pids"] {
                        let has = |list: &str| list.split(',').any(|name| name == controller);
                        if has(options)
                            && let Some(mounted) = place(own(&|_, controllers| has(controllers)))
                        {
                            found.one.entry(controller.to_owned()).or_insert(mounted);
                        }
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// For each controller that the limits need: the directory that theirs is made in.
    pub(super) fn parents(
        &self,
        limits: &Limits,
    ) -> Result<Vec<(&'static str, Version, PathBuf)>, JobError> {
        let needed = [
            (
                "memory",
                limits.memory.is_some() || limits.memory_swap.is_some(),
            ),
            (
                "cpu",
                limits.cpu_thousandths.is_some() || limits.cpu_shares.is_some(),
            ),
            (
                "cpuset",
                limits.cpuset_cpus.is_some() || limits.cpuset_mems.is_some(),
            ),
            ("pids", limits.pids.is_some()),
        ];
        let parent = limits.parent.as_deref();
        let mut parents = Vec::new();
        for (controller, _) in needed.iter().filter(|(_, is_needed)| *is_needed) {
            let found = match (self.one.get(*controller), &self.two) {
                (Some(mounted), _) => Some((
                    *controller,
                    Version::One,
                    mounted.place(parent, Version::One),
                )),
                (None, Some(mounted)) if mounted.hands_down(parent, controller) => Some((
                    *controller,
                    Version::Two,
                    mounted.place(parent, Version::Two),
                )),
                _ => None,
            };
            parents.push(found.ok_or_else(|| self.missing(parent, controller))?);
        }
        // A parent alone limits by what is set on it.
        if parents.is_empty() {
            parents.extend(self.one.iter().filter_map(|(name, mounted)| {
                let controller = needed.iter().find(|(known, _)| known == name)?.0;
                Some((
                    controller,
                    Version::One,
                    mounted.place(parent, Version::One),
                ))
            }));
            if let Some(mounted) = self.two.as_ref().filter(|_| parents.is_empty()) {
                parents.push(("memory", Version::Two, mounted.place(parent, Version::Two)));
            }
        }
        Ok(parents)
    }

    fn missing(&self, parent: Option<&str>, controller: &str) -> JobError {
        let message = format!(
            "this machine has no cgroup controller `{controller}` for the limits of a step"
        );
        let error = JobError::new(JobErrorKind::Limit, message);
        match &self.two {
            Some(mounted) => error.with_help(format!(
                "`{}` does not hand it down; as an ordinary user: `systemd-run --user --scope -p Delegate=yes rbuild …`",
                mounted.place(parent, Version::Two).display()
            )),
            None => error.with_help("no cgroup file system is mounted below /sys/fs/cgroup"),
        }
    }
}

impl Mounted {
    /// Where the command's cgroup is made.
    fn place(&self, parent: Option<&str>, version: Version) -> PathBuf {
        match (parent, version) {
            (Some(parent), _) => self.top.join(parent.trim_start_matches('/')),
            (None, Version::One) => self.own.clone(),
            // A cgroup with processes in it hands nothing down, except for the root.
            (None, Version::Two) if self.own == self.top => self.own.clone(),
            (None, Version::Two) => self.own.parent().unwrap_or(&self.top).to_owned(),
        }
    }

    /// One that is not there is not asked: making something in it fails, and says so.
    fn hands_down(&self, parent: Option<&str>, controller: &str) -> bool {
        let place = self.place(parent, Version::Two);
        if parent.is_some() && !place.exists() {
            return true;
        }
        let text = fs::read_to_string(place.join("cgroup.subtree_control")).unwrap_or_default();
        text.split_whitespace().any(|name| name == controller)
    }
}
