//! The ids of the user namespace that this process is in, and what was refused because of them.
//!
//! Process-wide, as the namespace is: set once by the spawner's server when it enters one, inherited by its workers. Outside
//! of one of ours nothing is known and everything is tried.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::io::Errno;

use crate::error::JobError;
use crate::isolation::{IdMaps, IdSource, count};

static MAPS: OnceLock<IdMaps> = OnceLock::new();

/// The owner that a chown was refused for: uid and gid in one word, since both are 32 bits.
static REFUSED: AtomicU64 = AtomicU64::new(NOTHING);
/// A device node was refused.
static IS_DEVICE_REFUSED: AtomicBool = AtomicBool::new(false);
/// -1 as uid and gid: "leave as they are", which is never refused.
const NOTHING: u64 = u64::MAX;

/// Says in which user namespace this process and its children are.
pub(crate) fn enter(maps: IdMaps) {
    // The server enters one at most.
    let _ = MAPS.set(maps);
}

/// The maps of our user namespace, if we are in one.
pub(crate) fn maps() -> Option<&'static IdMaps> {
    MAPS.get()
}

/// False for a group that is known not to exist here.
pub(crate) fn has_gid(gid: u32) -> bool {
    maps().is_none_or(|maps| maps.has_gid(gid))
}

/// True when nobody in this user namespace may change groups: what one with a single id had to give up, ours or the one
/// around us. What the kernel does not tell of is taken for allowed, and fails where it is not.
pub(crate) fn groups_are_fixed() -> bool {
    maps().map_or_else(
        || std::fs::read("/proc/self/setgroups").is_ok_and(|text| text.starts_with(b"deny")),
        IdMaps::is_single,
    )
}

/// True when the caller's own id is all there is, and owners that can't be set are to be left out.
pub(crate) fn ignores_owners() -> bool {
    maps().is_some_and(|maps| maps.is_single() && maps.ignores_chown_errors)
}

/// Judges a chown: the kernel's answer to an id that is not mapped is EINVAL. It is left out where that was asked for;
/// elsewhere it is remembered, so that the job's error can say what to do.
pub(crate) fn judge_chown(result: Result<(), Errno>, uid: u32, gid: u32) -> Result<(), Errno> {
    if result == Err(Errno::INVAL) {
        if ignores_owners() {
            return Ok(());
        }
        REFUSED.store(u64::from(uid) << 32 | u64::from(gid), Ordering::Relaxed);
    }
    result
}

/// Notes that a device node was refused.
pub(crate) fn note_device() {
    IS_DEVICE_REFUSED.store(true, Ordering::Relaxed);
}

/// Adds to an error what to do about the owner or the device node that was refused, if that is what ended the job.
pub(crate) fn explain(error: JobError) -> JobError {
    let refused = REFUSED.load(Ordering::Relaxed);
    match error.errno.map(Errno::from_raw_os_error) {
        _ if error.help.is_some() => error,
        Some(Errno::INVAL) if refused != NOTHING => {
            let help = why_unmapped(&format!("{}:{}", refused >> 32, refused & 0xffff_ffff));
            error.with_help(help)
        }
        Some(Errno::PERM) if IS_DEVICE_REFUSED.load(Ordering::Relaxed) => error.with_help(
            "the kernel lets only root of the whole machine make device nodes: leave them out, or build as root",
        ),
        _ => error,
    }
}

/// Why an id can't be used, and the way out.
pub(crate) fn why_unmapped(id: &str) -> String {
    match maps() {
        None => format!(
            "the ids {id} are not mapped into the user namespace that rbuild runs in: start rbuild outside of it, or give it more ids"
        ),
        Some(maps) => match &maps.source {
            IdSource::Single { because, remedy } => format!(
                "the owner {id} can't be set: without subordinate ids everything belongs to you ({because}); {remedy}; \
                 or give everything to one owner with `--ignore-chown-errors`"
            ),
            IdSource::Granted { .. } => format!(
                "the owner {id} can't be set: there are {} user ids and {} group ids here; grant more in `/etc/subuid` and \
                 `/etc/subgid`",
                count(&maps.uids),
                count(&maps.gids)
            ),
            IdSource::Own => {
                format!("the owner {id} can't be set: this container's own user namespace lacks it")
            }
        },
    }
}
