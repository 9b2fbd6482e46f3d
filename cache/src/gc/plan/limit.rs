//! How much a store may keep.

use super::Facts;
use crate::gc::PruneOptions;

/// Bytes that the store may take; none when everything that may go goes. As buildx reckons it: the most it may use, less what
/// the disk lacks, but never below what is reserved.
pub(super) fn limit(facts: &Facts<'_>, options: &PruneOptions) -> Option<u64> {
    let PruneOptions {
        max_used_space,
        reserved_space,
        min_free_space,
        ..
    } = *options;
    if max_used_space.is_none() && reserved_space.is_none() && min_free_space.is_none() {
        return None;
    }
    let lacking = min_free_space.map_or(0, |wanted| wanted.saturating_sub(facts.free));
    let enough_free = (lacking > 0).then(|| facts.total.saturating_sub(lacking));
    let most = match (max_used_space, enough_free) {
        (Some(most), Some(enough)) => Some(most.min(enough)),
        (Some(only), None) | (None, Some(only)) => Some(only),
        // Enough is free already, and nothing else limits.
        (None, None) if min_free_space.is_some() => Some(u64::MAX),
        (None, None) => None,
    };
    Some(most.unwrap_or(0).max(reserved_space.unwrap_or(0)))
}
