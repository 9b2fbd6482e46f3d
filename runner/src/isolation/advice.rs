//! Why something can't be had, and what to do about it: words only.

use rustix::io::Errno;
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

use super::machine::{Helper, Machine};

/// A reason with its way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Why not.
    pub because: String,
    /// What to do.
    pub remedy: String,
}

impl Finding {
    pub(super) fn new(because: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            because: because.into(),
            remedy: remedy.into(),
        }
    }
}

/// What a machine allows, each tried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey {
    /// The rungs from the strongest down: name, and what it gives or why it can't be had.
    pub rungs: Vec<(String, Result<String, Finding>)>,
    /// Further abilities: name, and what is there or what is missing.
    pub abilities: Vec<(String, Result<String, Finding>)>,
}

/// The ids that are suggested for a user who has none start here, as useradd's do.
pub(super) const FIRST_GRANT: u32 = 100_000;
/// As many as useradd grants: images use ids up to 65534 or so.
pub(super) const GRANT_SIZE: u32 = 65_536;

const IN_A_CONTAINER: &str = "in a container, add `--cap-add SYS_ADMIN --security-opt seccomp=unconfined \
    --security-opt apparmor=unconfined`, or `--privileged`";

impl Machine {
    /// Why commands can't be given namespaces with our own privileges, as far as looking tells.
    pub(super) fn why_no_namespaces(&self) -> Option<Finding> {
        if self.uid != 0 {
            return Some(Finding::new(
                format!(
                    "making namespaces and mounts needs root, and this is uid {}",
                    self.uid
                ),
                "run it as root: `sudo rbuild …`; or let `--isolation auto` take a user namespace",
            ));
        }
        if !self.has(CapabilitySet::SYS_ADMIN) {
            return Some(Finding::new(
                "this root has no CAP_SYS_ADMIN, which namespaces and mounts need",
                IN_A_CONTAINER,
            ));
        }
        None
    }

    /// Why there can be no user namespace, as far as looking tells.
    pub(super) fn why_no_userns(&self) -> Option<Finding> {
        if self.limit_forbids_userns {
            return Some(Finding::new(
                "`user.max_user_namespaces` is 0, which forbids user namespaces",
                "allow them: `sudo sysctl -w user.max_user_namespaces=15000`",
            ));
        }
        if self.sysctl_forbids_userns && !self.has(CapabilitySet::SYS_ADMIN) {
            return Some(Finding::new(
                "`kernel.unprivileged_userns_clone` is 0, which keeps user namespaces for root",
                "allow them: `sudo sysctl -w kernel.unprivileged_userns_clone=1`",
            ));
        }
        if self.is_refused_userns {
            return Some(self.why_refused(Errno::PERM));
        }
        if self.uid == 0 && !self.has(CapabilitySet::SETFCAP) {
            return Some(Finding::new(
                "this root has no CAP_SETFCAP, without which the kernel lets nobody map id 0 into a user namespace",
                "run it as an ordinary user, such as `--user 1000`, or leave root its capabilities (no `--cap-drop=all`)",
            ));
        }
        None
    }

    /// Why there can be no chroot.
    pub(super) fn why_no_chroot(&self) -> Option<Finding> {
        const NEEDED: CapabilitySet = CapabilitySet::SYS_CHROOT
            .union(CapabilitySet::CHOWN)
            .union(CapabilitySet::DAC_OVERRIDE)
            .union(CapabilitySet::FOWNER)
            .union(CapabilitySet::SETUID)
            .union(CapabilitySet::SETGID);
        if self.uid != 0 {
            return Some(Finding::new(
                format!("chroot needs root, and this is uid {}", self.uid),
                "run it as root, or allow user namespaces",
            ));
        }
        if !self.has(NEEDED) {
            return Some(Finding::new(
                "this root lacks one of CAP_SYS_CHROOT, CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_SETUID and CAP_SETGID",
                "in a container, leave root its capabilities (no `--cap-drop`), or add these with `--cap-add`",
            ));
        }
        None
    }

    /// The programs that write the map of granted ids, or why there is only the caller's own id.
    pub(super) fn granted(&self) -> Result<(String, String), Finding> {
        for (file, grants) in [
            ("/etc/subuid", &self.subuids),
            ("/etc/subgid", &self.subgids),
        ] {
            if grants.is_empty() {
                let who = self.who();
                let (first, last) = (self.free_id, self.free_id.saturating_add(GRANT_SIZE - 1));
                return Err(Finding::new(
                    format!("`{file}` grants no ids to {who}"),
                    format!(
                        "grant some: `sudo usermod --add-subuids {first}-{last} --add-subgids {first}-{last} {who}`"
                    ),
                ));
            }
        }
        let helper = |name: &str, helper: &Helper| match helper {
            Helper::Usable(path) => Ok(path.display().to_string()),
            Helper::Missing => Err(Finding::new(
                format!("`{name}` is not installed, which maps the ids that `/etc/subuid` grants"),
                "install it: `sudo apt-get install uidmap` (Debian, Ubuntu), `shadow-utils` (Fedora), `shadow-uidmap` (Alpine)",
            )),
            Helper::Powerless(path) => Err(Finding::new(
                format!(
                    "`{}` is neither set-user-ID root nor has it file capabilities",
                    path.display()
                ),
                format!("restore that: `sudo chmod u+s {}`", path.display()),
            )),
        };
        let helpers = (
            helper("newuidmap", &self.newuidmap)?,
            helper("newgidmap", &self.newgidmap)?,
        );
        if self.has_no_new_privileges {
            return Err(Finding::new(
                "`no_new_privs` is set on this process, so `newuidmap` gets no privilege",
                "start it without: in a container, leave out `--security-opt no-new-privileges`",
            ));
        }
        Ok(helpers)
    }

    fn who(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.uid.to_string())
    }

    /// Why the kernel refused to make a user namespace.
    pub(super) fn why_refused(&self, errno: Errno) -> Finding {
        match errno {
            Errno::NOSPC | Errno::USERS => Finding::new(
                "the limit of user namespaces is reached",
                "raise it: `sudo sysctl -w user.max_user_namespaces=15000`; they nest 32 deep at most",
            ),
            Errno::INVAL | Errno::NOSYS => Finding::new(
                format!("this kernel makes no user namespaces ({errno})"),
                "it needs one built with CONFIG_USER_NS, and a seccomp profile that knows `clone`",
            ),
            _ if self.apparmor_restricts_userns => Finding::new(
                "AppArmor keeps user namespaces from programs without a profile of their own \
                    (`kernel.apparmor_restrict_unprivileged_userns` is 1)",
                "give rbuild a profile with `userns,`, or `sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`",
            ),
            _ if self.has_seccomp_filter => Finding::new(
                format!("a seccomp filter refuses user namespaces ({errno})"),
                "in a container, add `--security-opt seccomp=unconfined`, or a profile that allows `clone` and `unshare` with `CLONE_NEWUSER`",
            ),
            _ => Finding::new(
                format!("the kernel refuses user namespaces ({errno})"),
                "a process in a chroot gets none; a security module may forbid them too",
            ),
        }
    }
}

/// Why a user namespace refused a mount.
pub(super) fn mounts_refused(machine: &Machine, errno: Errno) -> Finding {
    if machine.apparmor_restricts_userns {
        return machine.why_refused(errno);
    }
    let remedy = if machine.has_seccomp_filter {
        "in a container, add `--security-opt seccomp=unconfined`, or a profile that allows `mount`, `fsopen` and their kin"
    } else {
        "a security module such as AppArmor or SELinux may forbid them: in a container, add `--security-opt apparmor=unconfined` or `label=disable`"
    };
    Finding::new(
        format!("mounts are refused in the user namespace ({errno})"),
        remedy,
    )
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    type Change = fn(&mut Machine);

    fn user() -> Machine {
        Machine {
            uid: 1000,
            gid: 1000,
            name: Some("ann".into()),
            subuids: vec![(100_000, 65_536)],
            subgids: vec![(100_000, 65_536)],
            newuidmap: Helper::Usable(PathBuf::from("/usr/bin/newuidmap")),
            newgidmap: Helper::Usable(PathBuf::from("/usr/bin/newgidmap")),
            free_id: 165_536,
            ..Machine::default()
        }
    }

    #[test]
    fn every_missing_grant_has_its_command() {
        let rows: [(&str, Change, &str, &str); 6] = [
            (
                "no subuid",
                |m| m.subuids.clear(),
                "`/etc/subuid` grants no ids to ann",
                "usermod --add-subuids 165536-231071 --add-subgids 165536-231071 ann`",
            ),
            (
                "no subgid",
                |m| m.subgids.clear(),
                "`/etc/subgid` grants no ids to ann",
                "usermod",
            ),
            (
                "no name",
                |m| {
                    m.subuids.clear();
                    m.name = None;
                },
                "to 1000",
                "231071 1000`",
            ),
            (
                "no helper",
                |m| m.newgidmap = Helper::Missing,
                "`newgidmap` is not installed",
                "apt-get install uidmap",
            ),
            (
                "no bit",
                |m| m.newuidmap = Helper::Powerless("/usr/bin/newuidmap".into()),
                "neither set-user-ID",
                "chmod u+s /usr/bin/newuidmap",
            ),
            (
                "no_new_privs",
                |m| m.has_no_new_privileges = true,
                "no_new_privs",
                "no-new-privileges",
            ),
        ];
        for (name, change, because, remedy) in rows {
            let mut machine = user();
            assert!(machine.granted().is_ok());
            change(&mut machine);
            let finding = machine.granted().expect_err(name);
            assert!(finding.because.contains(because), "{name}: {finding:?}");
            assert!(finding.remedy.contains(remedy), "{name}: {finding:?}");
        }
    }

    #[test]
    fn refusals_name_what_refuses() {
        let rows: [(&str, Change, Errno, &str); 5] = [
            ("limit", |_| (), Errno::NOSPC, "max_user_namespaces"),
            ("kernel", |_| (), Errno::INVAL, "CONFIG_USER_NS"),
            (
                "apparmor",
                |m| m.apparmor_restricts_userns = true,
                Errno::PERM,
                "apparmor_restrict_unprivileged_userns=0",
            ),
            (
                "seccomp",
                |m| m.has_seccomp_filter = true,
                Errno::PERM,
                "seccomp=unconfined",
            ),
            ("unknown", |_| (), Errno::PERM, "chroot"),
        ];
        for (name, change, errno, remedy) in rows {
            let mut machine = user();
            change(&mut machine);
            assert!(machine.why_refused(errno).remedy.contains(remedy), "{name}");
        }
        let rows: [(&str, Change, &str); 3] = [
            (
                "sysctl",
                |m| m.sysctl_forbids_userns = true,
                "kernel.unprivileged_userns_clone=1",
            ),
            (
                "limit",
                |m| m.limit_forbids_userns = true,
                "user.max_user_namespaces",
            ),
            ("bare root", |m| m.uid = 0, "--user 1000"),
        ];
        for (name, change, remedy) in rows {
            let mut machine = user();
            assert_eq!(machine.why_no_userns(), None);
            change(&mut machine);
            assert!(
                machine.why_no_userns().expect(name).remedy.contains(remedy),
                "{name}"
            );
        }
    }
}
