//! How strongly jobs are held, and with which ids: the ladder.
//!
//! | rung | needs | gives |
//! |---|---|---|
//! | [`Rung::Namespaces`] | root with `CAP_SYS_ADMIN` | namespaces of their own for each command |
//! | [`Rung::Userns`] | user namespaces | the same below a user namespace of the spawner's |
//! | [`Rung::Chroot`] | root with `CAP_SYS_CHROOT` | a root directory of its own for each command, and no more |
//!
//! The seam for one that needs less still (a command that is kept in its root by watching its system calls) is [`Rung`]:
//! the server gets it with the first job, and [`MountApi::Nothing`](crate::MountApi) is how it works without mounts.
//!
//! [`decide`] looks and changes nothing; it costs a few small files. What it decided is given to
//! [`Spawner::isolate`](crate::Spawner::isolate), and entered when the first job arrives: a build that only finds results
//! in the cache pays for none of it. A rung that then turns out to be refused is an error, never a weaker rung.
//!
//! Inside a user namespace the caller is id 0; the subordinate ids that `/etc/subuid` and `/etc/subgid` grant follow, from 1 on.
//! Without such a grant there is that one id ([`IdSource::Single`]).

mod advice;
mod machine;
mod subids;
pub(crate) mod survey;

use std::path::Path;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use self::machine::Machine;
use crate::error::{JobError, JobErrorKind};

pub use self::advice::{Finding, Survey};

/// What is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// The strongest rung that this process may have.
    #[default]
    Auto,
    /// Namespaces, made with the caller's own privileges.
    Namespaces,
    /// Namespaces below a user namespace.
    Userns,
    /// A chroot.
    Chroot,
}

/// One run of ids: `inside` to `inside + count - 1` are `outside` and so on in the namespace around.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// First id in the user namespace.
    pub inside: u32,
    /// First id outside it.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// Where the ids of a user namespace come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IdSource {
    /// Written with our own `CAP_SETUID` and `CAP_SETGID`: all ids that we have ourselves.
    Own,
    /// Granted by `/etc/subuid` and `/etc/subgid`, written by these programs.
    Granted {
        /// Path of `newuidmap`.
        newuidmap: String,
        /// Path of `newgidmap`.
        newgidmap: String,
    },
    /// Only the caller's own id.
    Single {
        /// Why there are no more.
        because: String,
        /// What to do about it.
        remedy: String,
    },
}

/// The ids of a user namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMaps {
    /// Users.
    pub uids: Vec<IdRange>,
    /// Groups.
    pub gids: Vec<IdRange>,
    /// Who grants them.
    pub source: IdSource,
    /// An owner that can't be set is left out, instead of failing the step.
    pub ignores_chown_errors: bool,
}

impl IdMaps {
    /// True when the caller's own id is all there is.
    pub fn is_single(&self) -> bool {
        matches!(self.source, IdSource::Single { .. })
    }

    pub(crate) fn has_gid(&self, gid: u32) -> bool {
        self.gids
            .iter()
            .any(|range| gid >= range.inside && gid - range.inside < range.count)
    }

    /// How many user ids and group ids there are.
    pub fn counts(&self) -> (u64, u64) {
        (count(&self.uids), count(&self.gids))
    }
}

/// Number of ids in these ranges.
pub(crate) fn count(ranges: &[IdRange]) -> u64 {
    ranges.iter().map(|range| u64::from(range.count)).sum()
}

/// A rung of the ladder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rung {
    /// Namespaces with the caller's own privileges.
    Namespaces,
    /// Namespaces below a user namespace with these ids.
    Userns(IdMaps),
    /// A chroot, without namespaces and mounts.
    Chroot {
        /// Why not more.
        because: String,
        /// What to do about it.
        remedy: String,
    },
}

impl Rung {
    /// As `--isolation` spells it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Userns(_) => "userns",
            Self::Chroot { .. } => "chroot",
        }
    }
}

/// What jobs stand on, told by a worker that stands there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ground {
    /// A command gets a `/proc` of its own; otherwise it sees the caller's.
    pub has_own_proc: bool,
    /// A command gets the host name that was asked for; otherwise it has the caller's.
    pub has_own_hostname: bool,
    /// Steps work on overlays; otherwise on copies of their roots, since the store's file system refuses overlays.
    pub has_overlays: bool,
}

/// Chooses the rung.
///
/// `ignores_chown_errors` only has a meaning where the caller's own id is all there is.
///
/// # Errors
/// The rung that was asked for can't be had; or, for [`Isolation::Auto`], none can. With the reason and the way out.
pub fn decide(isolation: Isolation, ignores_chown_errors: bool) -> Result<Rung, JobError> {
    Machine::read().decide(isolation, ignores_chown_errors)
}

/// Whether the caller's own id is all that jobs would have; cheap enough for every start.
pub fn has_single_id(isolation: Isolation) -> bool {
    matches!(decide(isolation, false), Ok(Rung::Userns(maps)) if maps.is_single())
}

impl Machine {
    fn decide(&self, isolation: Isolation, ignores_chown_errors: bool) -> Result<Rung, JobError> {
        let namespaces = self.why_no_namespaces();
        match (isolation, namespaces) {
            (Isolation::Auto | Isolation::Namespaces, None) => Ok(Rung::Namespaces),
            (Isolation::Namespaces, Some(finding)) => Err(refused("namespaces", finding)),
            (Isolation::Chroot, _) => match self.why_no_chroot() {
                None => Ok(Rung::Chroot {
                    because: "asked for".to_owned(),
                    remedy: String::new(),
                }),
                Some(finding) => Err(refused("chroot", finding)),
            },
            (Isolation::Auto | Isolation::Userns, _) => match self.why_no_userns() {
                None => Ok(Rung::Userns(self.id_maps(ignores_chown_errors))),
                Some(finding) if isolation == Isolation::Auto && self.why_no_chroot().is_none() => {
                    Ok(Rung::Chroot {
                        because: finding.because,
                        remedy: finding.remedy,
                    })
                }
                Some(finding) => Err(refused("userns", finding)),
            },
        }
    }

    fn id_maps(&self, ignores_chown_errors: bool) -> IdMaps {
        let single = |finding: Finding| IdMaps {
            uids: vec![subids::only(self.uid)],
            gids: vec![subids::only(self.gid)],
            source: IdSource::Single {
                because: finding.because,
                remedy: finding.remedy,
            },
            ignores_chown_errors,
        };
        if self.may_map_own() {
            return IdMaps {
                uids: subids::identity(&self.uid_map),
                gids: subids::identity(&self.gid_map),
                source: IdSource::Own,
                ignores_chown_errors,
            };
        }
        match self.granted() {
            Ok(helpers) => IdMaps {
                uids: subids::map(self.uid, &self.subuids),
                gids: subids::map(self.gid, &self.subgids),
                source: IdSource::Granted {
                    newuidmap: helpers.0,
                    newgidmap: helpers.1,
                },
                ignores_chown_errors,
            },
            Err(finding) => single(finding),
        }
    }
}

/// Why a store in this directory may have no overlays, and what to do about it; from its file system's type alone.
pub fn overlay_doubt(store: &Path) -> Option<(&'static str, &'static str)> {
    survey::store_file_system(store)
}

/// Adds why the kernel refused a user namespace.
pub(crate) fn explain_refusal(error: JobError, errno: Errno) -> JobError {
    explained(error, Machine::read().why_refused(errno))
}

/// Adds why a mount was refused in a user namespace.
pub(crate) fn explain_mounts(error: JobError, errno: Errno) -> JobError {
    explained(error, advice::mounts_refused(&Machine::read(), errno))
}

/// What to do when one of the programs that map ids was refused.
pub(crate) fn why_helper_failed(program: &str) -> String {
    // Debian's, set-user-ID root, stays root, to whom the namespace does not belong: it needs more than to set ids.
    if machine::may_gain_administration() {
        return "see that it is set-user-ID root and that `/etc/subuid` and `/etc/subgid` grant what `rbuild info` lists"
            .to_owned();
    }
    let capability = if program.ends_with("newgidmap") {
        "cap_setgid"
    } else {
        "cap_setuid"
    };
    format!(
        "in a container without CAP_SYS_ADMIN it needs a file capability instead of its set-user-ID bit: \
         `chmod u-s {program} && setcap {capability}=ep {program}` when the container's image is made (and `cap_setgid` for \
         newgidmap); or leave `/etc/subuid` empty there, to build with one id"
    )
}

fn explained(mut error: JobError, finding: Finding) -> JobError {
    error.message = format!("{}: {}", error.message, finding.because);
    error.path = None;
    error.help = Some(finding.remedy);
    error
}

fn refused(rung: &str, finding: Finding) -> JobError {
    JobError::new(
        JobErrorKind::MissingPrivilege,
        format!(
            "the isolation `{rung}` can't be had here: {}",
            finding.because
        ),
    )
    .with_help(finding.remedy)
}

#[cfg(test)]
mod tests;
