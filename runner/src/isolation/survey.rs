//! Trying out what a machine allows: `rbuild info`.
//!
//! Each attempt is made in a process of its own that ends with it; nothing stays behind but an emptied directory in the store.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, UnmountFlags, unmount};
use rustix::pipe::{PipeFlags, pipe_with};
use serde::{Deserialize, Serialize};

use super::advice::{self, Finding, Survey};
use super::machine::Machine;
use super::{Ground, IdMaps, IdSource, count};
use crate::error::{JobError, JobErrorKind};
use crate::job::{CommandStatus, OverlaySpec};
use crate::mounts::{self, MountApi, Roots};
use crate::spawner::{protocol, userns};
use crate::sys::process::{Namespaces, clone_process, wait_for};
use crate::{files, network, overlay, sys};

/// What a worker finds where it stands.
pub(crate) fn describe(roots: Roots) -> Ground {
    Ground {
        has_overlays: roots == Roots::Overlay,
        has_own_proc: is_allowed(|| {
            let made = mounts::make_private().and_then(|()| {
                mounts::make_filesystem("proc", &[], MountAttrFlags::MOUNT_ATTR_NOSUID)
            });
            // Before Linux 5.2 there is no way to ask without mounting it somewhere: the first command will see.
            !matches!(made, Err(error) if error.source != Errno::NOSYS)
        }),
        has_own_hostname: is_allowed(|| rustix::system::sethostname(b"probe").is_ok()),
    }
}

/// Asks in namespaces such as a command gets. Where parts of our `/proc` are covered, as in containers, only root of the whole
/// machine may mount one that shows them; and the profiles of containers often refuse to set a host name.
fn is_allowed(attempt: impl FnOnce() -> bool) -> bool {
    clone_process(Namespaces::SANDBOX, || u8::from(!attempt()))
        .and_then(|child| wait_for(child.pid))
        .is_ok_and(|(status, _)| status == CommandStatus::Exited(0))
}

/// What an attempt on a rung found.
#[derive(Debug, Serialize, Deserialize)]
struct Attempt {
    ground: Ground,
    /// Why an overlay on the store's file system can't be mounted.
    overlay: Result<(), JobError>,
}

/// Tries everything; `store` is an existing directory on the file system that is to hold the store.
pub(crate) fn survey(store: &Path) -> Survey {
    let machine = Machine::read();
    let namespaces = match machine.why_no_namespaces() {
        Some(finding) => Err(finding),
        None => try_namespaces(store),
    };
    let maps = machine.id_maps(false);
    let userns = match machine.why_no_userns() {
        Some(finding) => Err(finding),
        None => try_userns(&maps, store),
    };
    let best = namespaces.as_ref().or(userns.as_ref()).ok();
    let mut abilities = Vec::new();
    if let Some(attempt) = best {
        abilities.push(("overlay".to_owned(), overlay_words(attempt, store)));
        abilities.push(("proc".to_owned(), proc_words(attempt)));
        abilities.push(("host name".to_owned(), hostname_words(attempt)));
    }
    let network = network::prospect(namespaces.is_ok());
    let network = network.map_err(|(reason, remedy)| Finding::new(reason, remedy));
    abilities.push(("network".to_owned(), network));
    if machine.uid != 0 {
        abilities.push(("ids".to_owned(), id_words(&maps)));
    }
    Survey {
        rungs: vec![
            (
                "namespaces".to_owned(),
                namespaces.map(|_| "commands run in namespaces, made with root's own privileges".to_owned()),
            ),
            (
                "userns".to_owned(),
                userns.map(|_| {
                    format!(
                        "commands run in namespaces below a user namespace with {} user and {} group ids",
                        count(&maps.uids),
                        count(&maps.gids)
                    )
                }),
            ),
            (
                "chroot".to_owned(),
                match machine.why_no_chroot() {
                    None => Ok("commands run in a root directory of their own, and share the rest with what is around".to_owned()),
                    Some(finding) => Err(finding),
                },
            ),
        ],
        abilities,
    }
}

fn overlay_words(attempt: &Attempt, store: &Path) -> Result<String, Finding> {
    let doubt = store_file_system(store).filter(|_| has_user_xattrs(store));
    match (&attempt.overlay, doubt) {
        (Ok(()), _) => Ok("the store's file system takes overlay mounts".to_owned()),
        (Err(_), Some((place, remedy))) => Err(Finding::new(
            format!(
                "the store is on {place}: steps work on copies of their root file systems, made once along a chain"
            ),
            remedy,
        )),
        (Err(error), None) => Err(Finding::new(
            one_line(error),
            error.help.clone().unwrap_or_default(),
        )),
    }
}

fn proc_words(attempt: &Attempt) -> Result<String, Finding> {
    if attempt.ground.has_own_proc {
        return Ok("commands see their own processes only".to_owned());
    }
    Err(Finding::new(
        "parts of /proc are covered here, so a new one may not be mounted: commands see this container's processes",
        "uncover it: `--security-opt unmask=ALL` (podman), `--security-opt systempaths=unconfined` (Docker), `procMount: Unmasked` (Kubernetes)",
    ))
}

fn hostname_words(attempt: &Attempt) -> Result<String, Finding> {
    if attempt.ground.has_own_hostname {
        return Ok("commands have the host name that was asked for".to_owned());
    }
    Err(Finding::new(
        "setting a host name is refused, so commands keep this container's",
        "in a container, add `--security-opt seccomp=unconfined`, or a profile that allows `sethostname`",
    ))
}

fn id_words(maps: &IdMaps) -> Result<String, Finding> {
    match &maps.source {
        IdSource::Single { because, remedy } => Err(Finding::new(
            format!("there is one id, so everything in images belongs to it: {because}"),
            remedy.clone(),
        )),
        IdSource::Granted { newuidmap, .. } => Ok(format!(
            "{} user and {} group ids, mapped by {newuidmap}",
            count(&maps.uids),
            count(&maps.gids)
        )),
        IdSource::Own => Ok("all that this process has".to_owned()),
    }
}

fn one_line(error: &JobError) -> String {
    let mut text = error.to_string();
    for cause in error.causes() {
        text.push_str(": ");
        text.push_str(cause);
    }
    text
}

fn try_namespaces(store: &Path) -> Result<Attempt, Finding> {
    let (results, teller) = pipe_with(PipeFlags::CLOEXEC).map_err(broken)?;
    let child = clone_process(Namespaces::SANDBOX, || {
        tell(&teller, &attempt(store));
        0
    });
    drop(teller);
    let child = child.map_err(|errno| {
        Finding::new(
            format!("the kernel refuses namespaces ({errno})"),
            mounts::NEEDS_ADMIN,
        )
    })?;
    let told = listen(results);
    // Its result was told; how it ended says nothing more.
    let _ = wait_for(child.pid);
    told.unwrap_or_else(|| Err(broken(Errno::PIPE)))
}

fn try_userns(maps: &IdMaps, store: &Path) -> Result<Attempt, Finding> {
    let (results, teller) = pipe_with(PipeFlags::CLOEXEC).map_err(broken)?;
    let entered = userns::enter(maps, |standing| {
        let attempt = match standing {
            Ok(()) => attempt(store),
            Err(error) => Err(finding(&error)),
        };
        tell(&teller, &attempt);
    });
    drop(teller);
    entered.map_err(|error| finding(&error))?;
    listen(results).unwrap_or_else(|| Err(broken(Errno::PIPE)))
}

fn finding(error: &JobError) -> Finding {
    Finding::new(one_line(error), error.help.clone().unwrap_or_default())
}

fn broken(errno: Errno) -> Finding {
    Finding::new(
        format!("an attempt ended without an answer ({errno})"),
        "the kernel's log may say what killed it",
    )
}

/// In the namespaces of the rung.
fn attempt(store: &Path) -> Result<Attempt, Finding> {
    sys::signal::keep_ended_children();
    mounts::make_private().map_err(|error| {
        let errno = error.source;
        advice::mounts_refused(&Machine::read(), errno)
    })?;
    Ok(Attempt {
        ground: describe(Roots::Overlay),
        overlay: try_overlay(store),
    })
}

/// Without them not even a copy helps: what a layer deletes is kept in them.
fn has_user_xattrs(store: &Path) -> bool {
    let asked = rustix::fs::getxattr(store, "user.overlay.opaque", &mut [0_u8; 8]);
    asked != Err(Errno::OPNOTSUPP)
}

/// Whether steps may work on overlays in this directory.
pub(crate) fn takes_overlays(place: &Path) -> bool {
    is_allowed(|| mounts::make_private().is_ok() && try_overlay(place).is_ok())
}

fn try_overlay(store: &Path) -> Result<(), JobError> {
    // Others may try at the same time, and in a pid namespace every process is number 1.
    let mut number = [0; 8];
    let random = rustix::rand::getrandom(&mut number, rustix::rand::GetRandomFlags::empty());
    random.map_err(|errno| {
        JobError::from_errno(JobErrorKind::Files, "cannot have random numbers", errno)
    })?;
    let place = store.join(format!("probe-{:x}", u64::from_ne_bytes(number)));
    overlay::make_directory(&place)?;
    let (lower, scratch) = (place.join("lower"), place.join("scratch"));
    let mount = || {
        overlay::make_directory(&lower)?;
        overlay::make_directory(&scratch)?;
        let spec = OverlaySpec {
            lowers: vec![lower.clone()],
            scratch: scratch.clone(),
        };
        overlay::mount_writable(&spec, MountAttrFlags::empty(), MountApi::Automatic).map(drop)
    };
    let mounted = mount();
    // Older kernels (before 6.5) mount it at a place, which can't be removed then; newer ones leave nothing to unmount.
    let _ = unmount(scratch.join(overlay::MERGED), UnmountFlags::DETACH);
    let removed = files::remove_tree(&place);
    mounted.and(removed)
}

fn tell(teller: &OwnedFd, attempt: &Result<Attempt, Finding>) {
    // Nobody listens any more only when the survey itself was given up.
    let _ = protocol::write_message(Pipe(teller), attempt);
}

fn listen(results: OwnedFd) -> Option<Result<Attempt, Finding>> {
    protocol::read_message(std::fs::File::from(results))
        .ok()
        .flatten()
}

struct Pipe<'a>(&'a OwnedFd);

impl std::io::Write for Pipe<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(rustix::io::write(self.0, bytes)?)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Why a mounted chain can't be had on this file system, in words that help.
pub(crate) fn explain_overlay(mut error: JobError, scratch: &Path) -> JobError {
    let is_refused = matches!(
        error.kind,
        JobErrorKind::Sandbox | JobErrorKind::MissingPrivilege
    );
    match store_file_system(scratch).filter(|_| is_refused) {
        Some((name, remedy)) => {
            error.message = format!("{}; the store is on {name}", error.message);
            error.with_help(remedy)
        }
        None => error,
    }
}

/// File systems that can't hold the upper directory of an overlay, or not in a user namespace. Costs one look.
pub(crate) fn store_file_system(path: &Path) -> Option<(&'static str, &'static str)> {
    const ELSEWHERE: &str = "put the store on a local disk such as ext4, xfs or btrfs: `--root DIR`; in a container, on a volume \
        or a tmpfs mounted there";
    const OVERLAY: i64 = 0x794c_7630;
    const NFS: i64 = 0x6969;
    const ECRYPTFS: i64 = 0xf15f;
    const CIFS: i64 = 0xff53_4d42;
    const V9FS: i64 = 0x0102_1997;
    const FUSE: i64 = 0x6573_5546;
    const RAMFS: i64 = 0x8584_58f6;
    const TMPFS: i64 = 0x0102_1994;
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
    // its width differs between architectures
    let kind = rustix::fs::statfs(path).ok()?.f_type as i64;
    Some(match kind {
        OVERLAY => (
            "overlayfs, which can't hold another overlay's changes",
            ELSEWHERE,
        ),
        NFS => ("NFS, which overlayfs can't write to", ELSEWHERE),
        CIFS => ("a CIFS share, which overlayfs can't write to", ELSEWHERE),
        V9FS => ("9p, which overlayfs can't write to", ELSEWHERE),
        FUSE => ("FUSE, which overlayfs can't write to", ELSEWHERE),
        ECRYPTFS => ("eCryptfs, which overlayfs can't write to", ELSEWHERE),
        RAMFS => ("ramfs, which has no extended attributes", ELSEWHERE),
        TMPFS => (
            "tmpfs, which has `user.*` extended attributes since Linux 6.6 only",
            ELSEWHERE,
        ),
        _ => return None,
    })
}
