//! Kept file systems: worth least, so decided on first. What the others stand on stays with them.

use std::collections::HashSet;

use super::limit::limit;
use super::{Facts, matches_id};
use crate::db::KeptRow;
use crate::gc::{Kind, PruneOptions, PrunedItem};

/// What goes of them, and what stays because of the others.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    /// Oldest first.
    pub(super) items: Vec<PrunedItem>,
    /// Names of those that go.
    pub(super) names: Vec<String>,
    /// Bytes of those.
    pub(super) freed: u64,
    /// Snapshots that the others stand on.
    pub(super) needed: HashSet<String>,
}

/// Decides on kept file systems: the oldest go first, until the store is small enough.
pub(super) fn choose(facts: &Facts<'_>, options: &PruneOptions) -> Chosen {
    let limit = limit(facts, options);
    let mut chosen = Chosen::default();
    for row in facts.inventory.kept.iter().rev() {
        let left = facts.total.saturating_sub(chosen.freed);
        let is_small_enough = limit.is_some_and(|limit| left <= limit);
        if is_small_enough || is_needed(row, facts, options) {
            chosen.needed.extend(row.snapshots.iter().cloned());
            continue;
        }
        let bytes = row.disk.unwrap_or(0);
        chosen.freed += bytes;
        chosen.names.push(row.name.clone());
        chosen.items.push(PrunedItem {
            kind: Kind::Kept,
            id: row.name.clone(),
            title: row.title.clone(),
            bytes,
            used: row.created,
        });
    }
    chosen
}

fn is_needed(row: &KeptRow, facts: &Facts<'_>, options: &PruneOptions) -> bool {
    let is_asked_for = (options.kinds.is_empty() || options.kinds.contains(&Kind::Kept))
        && (options.ids.is_empty()
            || (options.ids.iter()).any(|wanted| matches_id(&row.name, wanted)));
    let is_recent = options.unused_for.is_some_and(|time| {
        let time = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        facts.now.saturating_sub(row.created) < time
    });
    !is_asked_for || is_recent || facts.holds.kept.contains(&row.name)
}
