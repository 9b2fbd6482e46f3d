//! What decides about the rungs, read once from the kernel and from `/etc`.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::thread::{CapabilitySet, UnshareFlags, capabilities, capability_is_in_bounding_set};

use super::subids::{self, Grant};
use crate::job::CommandStatus;
use crate::mounts;
use crate::sys::process::{self, Namespaces};

/// The facts. A file that can't be read is as good as empty: what it would have said is then not known to forbid anything.
#[derive(Clone, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, each read from its own place"
)]
pub(super) struct Machine {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Of the caller, as `/etc/passwd` has it.
    pub(super) name: Option<String>,
    /// Effective capabilities, as bits.
    pub(super) capabilities: u64,
    pub(super) has_no_new_privileges: bool,
    /// A seccomp filter is on this process.
    pub(super) has_seccomp_filter: bool,
    pub(super) uid_map: String,
    pub(super) gid_map: String,
    pub(super) subuids: Vec<Grant>,
    pub(super) subgids: Vec<Grant>,
    pub(super) newuidmap: Helper,
    pub(super) newgidmap: Helper,
    /// The first id behind everything that the two files grant to anybody.
    pub(super) free_id: u32,
    /// `kernel.unprivileged_userns_clone` is there, and 0 (Debian's kernels before 11, hardened ones).
    pub(super) sysctl_forbids_userns: bool,
    /// `user.max_user_namespaces` is 0.
    pub(super) limit_forbids_userns: bool,
    /// A user namespace with mounts of its own was tried, and refused.
    pub(super) is_refused_userns: bool,
    /// `kernel.apparmor_restrict_unprivileged_userns` is 1 (Ubuntu since 23.10).
    pub(super) apparmor_restricts_userns: bool,
}

/// A program that needs to be set-user-ID root, or to have file capabilities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Helper {
    #[default]
    Missing,
    /// There, but without the privilege.
    Powerless(PathBuf),
    Usable(PathBuf),
}

impl Machine {
    pub(super) fn read() -> Self {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let is = |path: &str, value: &str| text(path).trim() == value;
        let (uid, gid) = (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        );
        let status = text("/proc/self/status");
        let name = name_of(&text("/etc/passwd"), uid);
        let has_seccomp_filter = field(&status, "Seccomp:") == "2";
        let (users, groups) = (text("/etc/subuid"), text("/etc/subgid"));
        Self {
            uid,
            gid,
            capabilities: capabilities(None).map_or(0, |sets| sets.effective.bits()),
            has_no_new_privileges: field(&status, "NoNewPrivs:") == "1",
            has_seccomp_filter,
            // Filters of containers say nothing of themselves. Nobody else is asked: it takes a process.
            is_refused_userns: has_seccomp_filter
                && uid == 0
                && !has_administration()
                && is_refused_userns(),
            uid_map: text("/proc/self/uid_map"),
            gid_map: text("/proc/self/gid_map"),
            subuids: subids::parse(&users, name.as_deref(), uid),
            subgids: subids::parse(&groups, name.as_deref(), uid),
            free_id: subids::end(&users).max(subids::end(&groups)),
            newuidmap: find("newuidmap"),
            newgidmap: find("newgidmap"),
            sysctl_forbids_userns: is("/proc/sys/kernel/unprivileged_userns_clone", "0"),
            limit_forbids_userns: is("/proc/sys/user/max_user_namespaces", "0"),
            apparmor_restricts_userns: is(
                "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
                "1",
            ),
            name,
        }
    }

    /// We may give a user namespace all ids that we have. To map 0, the kernel wants `CAP_SETFCAP` too (since 5.12).
    pub(super) fn may_map_own(&self) -> bool {
        let needed = CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::SETFCAP;
        self.uid == 0 && self.has(needed)
    }

    /// All of `needed` are effective.
    pub(super) fn has(&self, needed: CapabilitySet) -> bool {
        CapabilitySet::from_bits_retain(self.capabilities).contains(needed)
    }
}

/// A program that is set-user-ID root may have `CAP_SYS_ADMIN`. What can't be asked is taken for a yes.
pub(super) fn may_gain_administration() -> bool {
    capability_is_in_bounding_set(CapabilitySet::SYS_ADMIN).unwrap_or(true)
}

fn has_administration() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// Tries a user namespace, and mounts in it, in a process that ends with them.
fn is_refused_userns() -> bool {
    let attempt = || {
        let made = process::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS)
            .and_then(|()| mounts::make_private().map_err(|error| error.source));
        u8::from(made.is_err())
    };
    let child = process::clone_process(Namespaces::NOTHING, attempt);
    let ended = child.and_then(|child| process::wait_for(child.pid));
    // Without a process to ask, the first job will see.
    matches!(ended, Ok((CommandStatus::Exited(1), _)))
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap_or_default()
        .trim()
}

fn name_of(passwd: &str, uid: u32) -> Option<String> {
    let number = uid.to_string();
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?);
        (id == number).then(|| name.to_owned())
    })
}

/// Looks where such programs are, whatever `PATH` says: it is the caller's, but this one runs as root.
fn find(name: &str) -> Helper {
    const PLACES: [&str; 4] = ["/usr/bin", "/bin", "/usr/local/bin", "/run/wrappers/bin"];
    let mut found = Helper::Missing;
    for place in PLACES {
        let path = Path::new(place).join(name);
        let Ok(metadata) = std::fs::metadata(&path) else {
            continue;
        };
        let is_setuid = metadata.permissions().mode() & 0o4000 != 0 && metadata.uid() == 0;
        let has_capabilities =
            rustix::fs::getxattr(&path, "security.capability", &mut [0_u8; 64]).is_ok();
        if is_setuid || has_capabilities {
            return Helper::Usable(path);
        }
        // The first one is what the others often lead to.
        if found == Helper::Missing {
            found = Helper::Powerless(path);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_proc_and_passwd() {
        let status = "Name:\tx\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        assert_eq!(field(status, "NoNewPrivs:"), "1");
        assert_eq!(field(status, "Seccomp:"), "2");
        assert_eq!(field(status, "CapEff:"), "");
        let passwd = "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\nbroken\n";
        assert_eq!(name_of(passwd, 1000).as_deref(), Some("ann"));
        assert_eq!(name_of(passwd, 7), None);
    }
}
