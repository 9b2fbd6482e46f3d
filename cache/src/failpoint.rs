//! Named moments of a commit, at which the proofs kill the process.
//!
//! In a debug build, `RBUILD_DIES_AT=NAME` (or `NAME:N`, the N-th time) ends the process with SIGKILL when it gets there:
//! no destructor runs, no buffer is written. A release build holds none of this.

/// Every point, in the order in which a first build comes past them.
pub const POINTS: &[&str] = &[
    "store-directories",
    "store-database",
    "store-version",
    "blob-before-rename",
    "blob-renamed",
    "blob-committed",
    "snapshot-held",
    "snapshot-renamed",
    "snapshot-rows",
    "snapshot-committed",
    "record-before",
    "record-committed",
    "lease-removed",
    "stat-cache-written",
    "stat-cache-renamed",
    "sync-before",
    "sync-done",
    "sync-noted",
    "image-committed",
    "checkpoint-done",
    "dead-lease-removed",
    "damaged-removed",
    "mount-prepared",
];

/// Points that a store of an older format comes past when it is opened.
pub const MIGRATION_POINTS: &[&str] = &["migration-announced", "migration-step", "migration-done"];

/// Points that pruning comes past.
pub const PRUNE_POINTS: &[&str] = &["prune-rows", "prune-moved", "prune-swept", "prune-done"];

/// Points that the keeping of a failed step's file system comes past.
pub const KEEPING_POINTS: &[&str] = &["kept-moved", "kept-committed"];

/// Points that a repair comes past.
pub const REPAIR_POINTS: &[&str] = &["fsck-cured", "fsck-database"];

fn is_known(point: &str) -> bool {
    [
        POINTS,
        MIGRATION_POINTS,
        PRUNE_POINTS,
        KEEPING_POINTS,
        REPAIR_POINTS,
    ]
    .iter()
    .any(|points| points.contains(&point))
}

/// Says that the process has come to `point`.
#[inline]
pub fn reach(point: &'static str) {
    debug_assert!(is_known(point), "`{point}` is in no list");
    #[cfg(debug_assertions)]
    armed::reach(point);
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    /// Names the point, and after a colon how often it has to be reached.
    const VARIABLE: &str = "RBUILD_DIES_AT";

    struct Order {
        point: String,
        /// Times left.
        left: AtomicU32,
    }

    pub(super) fn reach(point: &str) {
        static ORDER: OnceLock<Option<Order>> = OnceLock::new();
        let order = ORDER.get_or_init(|| {
            let text = std::env::var(VARIABLE).ok()?;
            let (point, times) = text.split_once(':').unwrap_or((&text, "1"));
            Some(Order {
                point: point.to_owned(),
                left: AtomicU32::new(times.parse().unwrap_or(1)),
            })
        });
        if let Some(order) = order
            && order.point == point
            && order.left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            // It can't fail: the process is our own. Should it ever, the proof notices that nobody died.
            let _ = kill_process(getpid(), Signal::KILL);
        }
    }
}
