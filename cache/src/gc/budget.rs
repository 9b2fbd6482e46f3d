//! The automatic budget: what a store may take without anybody pruning it.

use super::{GcError, PruneOptions, Pruned};
use crate::store::Store;

/// Share of the disk that a store may take when nobody says otherwise: a tenth, as much as a cache may cost without being
/// in the way. BuildKit takes ten percent, too.
const DEFAULT_SHARE: u64 = 10;

/// What a store may take at least, however small or full of others' data the disk is: below that a budget would cost more
/// than it saves.
const DEFAULT_LEAST: u64 = 2_000_000_000;

/// Share of the disk that stays free, as far as that can be had from the store.
const FREE_SHARE: u64 = 20;

/// From this share of the budget on cache mounts are measured: their sizes are known from the last time only.
const MEASURED_FROM: (u64, u64) = (4, 5);

/// Most bytes that a store may take; applied after a build that added something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Budget {
    /// A tenth of the disk, and a twentieth of the disk stays free; 2 GB may always be taken.
    #[default]
    Share,
    /// So many bytes.
    Bytes(u64),
    /// Nothing is removed by itself.
    Unlimited,
}

impl Store {
    /// Prunes to the budget, if the store has grown beyond it. Nothing that an image with a name or a lease needs goes.
    ///
    /// Costs a few sums over the database as long as the store is well within it: nothing is walked.
    pub fn keep_within(&self, budget: Budget) -> Result<Option<Pruned>, GcError> {
        let inner = &self.inner;
        let disk = rustix::fs::statvfs(&inner.root).map_err(|errno| GcError::Read {
            path: inner.root.clone(),
            source: errno.into(),
        })?;
        let (all, free) = (
            disk.f_blocks.saturating_mul(disk.f_frsize),
            disk.f_bavail.saturating_mul(disk.f_frsize),
        );
        let (most, least_free, reserved) = match budget {
            Budget::Unlimited => return Ok(None),
            Budget::Bytes(bytes) => (bytes, None, None),
            Budget::Share => (
                (all / DEFAULT_SHARE).max(DEFAULT_LEAST),
                Some(all / FREE_SHARE),
                Some(DEFAULT_LEAST),
            ),
        };
        let known = inner.db.read(|tables| tables.known_size())? + inner.database_size();
        let is_near = known.saturating_mul(MEASURED_FROM.1) >= most.saturating_mul(MEASURED_FROM.0);
        let is_crowded = least_free.is_some_and(|least| free < least);
        if !is_near && !is_crowded {
            return Ok(None);
        }
        inner.measure_unknown()?;
        let known = inner.db.read(|tables| tables.known_size())? + inner.database_size();
        if known <= most && (!is_crowded || reserved.is_some_and(|reserved| known <= reserved)) {
            return Ok(None);
        }
        let options = PruneOptions {
            max_used_space: Some(most),
            min_free_space: least_free,
            reserved_space: reserved,
            ..PruneOptions::default()
        };
        let pruned = self.prune(&options)?;
        Ok((!pruned.items.is_empty()).then_some(pruned))
    }
}
