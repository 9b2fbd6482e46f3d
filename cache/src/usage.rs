//! Recency and size: what pruning weighs.
//!
//! That something was used is written when a lease holds it, and only when the last note is older than [`GRAIN`]: a
//! build that only hits, an hour or less after another, writes nothing. It is a hint: one that can't be written (the
//! disk is full) harms nothing, and is not synced.

use std::collections::BTreeSet;

use crate::db::DbError;
use crate::entry::{Entry, EntryKind};
use crate::layer::SnapshotId;
use crate::store::{StoreInner, now};

/// How late, in seconds, a note of the last use may be. Ages are asked for in hours at least.
pub(crate) const GRAIN: i64 = 3600;

/// What most file systems give a file at a time.
pub(crate) const BLOCK: u64 = 4096;

/// Longest symlink text that ext4 keeps in the inode.
const INLINE_SYMLINK: usize = 59;

/// Something with a time of its last use.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Used<'a> {
    /// Snapshots by name.
    Snapshots(&'a BTreeSet<SnapshotId>),
    /// A blob by digest.
    Blob(&'a str),
    /// A cache mount by directory.
    CacheMount(&'a str),
}

impl StoreInner {
    /// Notes that something is used now.
    pub(crate) fn note_use(&self, used: Used<'_>) {
        let now = now();
        let noted = self
            .db
            .read(|tables| tables.has_used_before(used, now - GRAIN))
            .and_then(|is_old| {
                if is_old {
                    self.db.write(|tables| tables.put_used(used, now))?;
                }
                Ok::<_, DbError>(())
            });
        if let Err(error) = noted {
            tracing::debug!(%error, "the time of a use was not noted");
        }
    }
}

/// What a snapshot takes on the disk, as far as its entries tell: holes of sparse files count as data.
pub(crate) fn estimate_disk(entries: &[Entry]) -> u64 {
    let size_of = |entry: &Entry| match &entry.kind {
        EntryKind::File { size, .. } => size.div_ceil(BLOCK).saturating_mul(BLOCK),
        EntryKind::Directory { .. } => BLOCK,
        EntryKind::Symlink { target } if target.len() > INLINE_SYMLINK => BLOCK,
        _ => 0,
    };
    entries
        .iter()
        .fold(BLOCK, |sum, entry| sum.saturating_add(size_of(entry)))
}
