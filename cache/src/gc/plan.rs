//! What goes: a pure decision over what the store holds, who needs it, and the limits.
//!
//! Kept file systems are decided on first, see [`kept`]. Everything else is a *unit* that stands on at most one other: the chains of records and images are a forest, one unit for
//! each distinct beginning of a chain; an image stands on the last layer of its chain; cache mounts, blobs and stat
//! caches stand alone. A unit is *needed* when it is in use, tagged, or not asked for, or when something needed stands on
//! it. Of the rest the least regretted goes first: what it would cost to have it again (in seconds, as measured for
//! steps, as guessed for what is fetched), less the longer it was not used, a byte that it frees.

mod choose;
mod kept;
mod limit;

use std::collections::{HashMap, HashSet};

use super::{Holds, Kind, PruneOptions, PrunedItem};
use crate::db::{BlobUse, ImageUse, Inventory, LayerUse};

/// Bytes a second at which pulled layers, documents and the contents of cache mounts are guessed to come back.
const FETCHED_PER_SECOND: f64 = 10e6;

/// Bytes a second at which a layer is packed again.
const PACKED_PER_SECOND: f64 = 40e6;

/// Seconds that fetching anything takes at least.
const ROUND_TRIP: f64 = 0.5;

/// Seconds that reading the files of a context again is guessed to take.
const CONTEXT_READ: f64 = 1.0;

/// How much more than its layers an image with a name is worth: somebody gave it that name.
const NAMED: f64 = 10.0;

/// Everything that a plan is made of.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub(super) inventory: &'a Inventory,
    pub(super) holds: &'a Holds,
    /// Names under `snapshots/`.
    pub(super) present: &'a HashSet<String>,
    /// Stat caches: name, bytes, when it was saved.
    pub(super) stat_caches: &'a [(String, u64, i64)],
    /// Seconds since the epoch.
    pub(super) now: i64,
    /// Bytes that the whole store takes.
    pub(super) total: u64,
    /// Bytes that are free on its disk.
    pub(super) free: u64,
}

/// What is to be removed.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) items: Vec<PrunedItem>,
    pub(super) snapshots: Vec<String>,
    pub(super) records: Vec<i64>,
    pub(super) images: Vec<String>,
    pub(super) blobs: Vec<String>,
    pub(super) mounts: Vec<String>,
    pub(super) stat_caches: Vec<String>,
    pub(super) kept: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
enum Thing {
    /// The beginning of a chain that ends with the layer at this position.
    Chain(usize),
    /// The beginning of a chain that names a layer, here or below, which is not there.
    Broken,
    Image(usize),
    Mount(usize),
    Blob(usize),
    StatCache(usize),
}

struct Unit {
    thing: Thing,
    parent: Option<usize>,
    regret: f64,
    size: f64,
    used: i64,
    is_needed: bool,
    /// Step records whose chain this is, by position.
    records: Vec<usize>,
}

/// Decides what goes.
pub(super) fn plan(facts: &Facts<'_>, options: &PruneOptions) -> Plan {
    let kept = kept::choose(facts, options);
    let mut holds = facts.holds.clone();
    holds.snapshots.extend(kept.needed);
    let rest = Facts {
        holds: &holds,
        total: facts.total.saturating_sub(kept.freed),
        free: facts.free.saturating_add(kept.freed),
        ..*facts
    };
    let mut plan = plan_rest(&rest, options);
    plan.items.splice(0..0, kept.items);
    plan.kept = kept.names;
    plan
}

fn plan_rest(facts: &Facts<'_>, options: &PruneOptions) -> Plan {
    let mut planner = Planner::new(facts, options);
    planner.add_chains();
    planner.add_images();
    planner.add_flat();
    planner.weigh_chains();
    planner.mark_needed();
    planner.choose()
}

struct Planner<'a> {
    facts: &'a Facts<'a>,
    options: &'a PruneOptions,
    units: Vec<Unit>,
    /// Layers that are there, by snapshot.
    layers: HashMap<&'a str, usize>,
    /// The unit of a chain's beginning: parent and snapshot.
    chains: HashMap<(Option<usize>, &'a str), usize>,
    /// diff_ids of layers that came from elsewhere.
    pulled: HashSet<&'a str>,
    /// How many units of chains a layer is in.
    shares: Vec<u32>,
    /// How many images that are not removed yet need a blob.
    image_blobs: HashMap<&'a str, u32>,
}

impl<'a> Planner<'a> {
    fn new(facts: &'a Facts<'a>, options: &'a PruneOptions) -> Self {
        let inventory = facts.inventory;
        Self {
            facts,
            options,
            units: Vec::new(),
            layers: inventory
                .layers
                .iter()
                .enumerate()
                .filter(|(_, layer)| facts.present.contains(&layer.snapshot))
                .map(|(position, layer)| (layer.snapshot.as_str(), position))
                .collect(),
            chains: HashMap::new(),
            pulled: inventory
                .originals
                .iter()
                .map(|(diff_id, _, _)| diff_id.as_str())
                .collect(),
            shares: vec![0; inventory.layers.len()],
            image_blobs: HashMap::new(),
        }
    }

    fn layer(&self, position: usize) -> &'a LayerUse {
        &self.facts.inventory.layers[position]
    }

    /// How much of a cost counts still, after so long.
    fn recency(&self, used: i64) -> f64 {
        let hours = self.facts.now.saturating_sub(used).max(0) / 3600;
        #[expect(clippy::cast_precision_loss, reason = "a weight")]
        let hours = hours as f64;
        1.0 / (1.0 + hours)
    }

    fn push(&mut self, thing: Thing, parent: Option<usize>, size: u64, used: i64) -> usize {
        self.units.push(Unit {
            thing,
            parent,
            regret: 0.0,
            size: real(size),
            used,
            is_needed: false,
            records: Vec::new(),
        });
        self.units.len() - 1
    }

    /// The unit of a whole chain, with units for all its beginnings. None for an empty one.
    fn chain(&mut self, chain: &'a [String]) -> Option<usize> {
        let mut at = None;
        for snapshot in chain {
            let key = (at, snapshot.as_str());
            let known = self.chains.get(&key).copied();
            let unit = known.unwrap_or_else(|| self.extend(at, snapshot));
            self.chains.insert(key, unit);
            at = Some(unit);
        }
        at
    }

    /// A unit for a chain with one more layer.
    fn extend(&mut self, below: Option<usize>, snapshot: &str) -> usize {
        let is_whole = below.is_none_or(|below| !matches!(self.units[below].thing, Thing::Broken));
        match self.layers.get(snapshot) {
            Some(&layer) if is_whole => {
                self.shares[layer] += 1;
                let used = self.layer(layer).used;
                self.push(Thing::Chain(layer), below, 0, used)
            }
            _ => self.push(Thing::Broken, below, 0, 0),
        }
    }

    fn add_chains(&mut self) {
        let inventory = self.facts.inventory;
        for (position, record) in inventory.records.iter().enumerate() {
            // A record of an empty chain (a step that left nothing on nothing) takes no room.
            let Some(unit) = self.chain(&record.chain) else {
                continue;
            };
            self.units[unit].records.push(position);
            #[expect(clippy::cast_precision_loss, reason = "a weight")]
            let seconds = record.cost_us as f64 / 1e6;
            self.units[unit].regret += seconds * self.recency(self.units[unit].used);
        }
        for image in &inventory.images {
            self.chain(&image.chain);
        }
        // What no record and no image names: a pull whose build failed, a step that was run again.
        for (position, layer) in inventory.layers.iter().enumerate() {
            if self.shares[position] == 0 && self.layers.contains_key(layer.snapshot.as_str()) {
                self.chain(std::slice::from_ref(&layer.snapshot));
            }
        }
    }

    fn add_images(&mut self) {
        for (position, image) in self.facts.inventory.images.iter().enumerate() {
            let parent = self.chain(&image.chain);
            let used = parent.map_or(image.created, |unit| {
                self.units[unit].used.max(image.created)
            });
            let mut size = 0;
            for digest in image_blobs(image) {
                let count = self.image_blobs.entry(digest).or_default();
                *count += 1;
                size += self.blob(digest).map_or(0, |blob| blob.size);
            }
            let unit = self.push(Thing::Image(position), parent, size, used);
            if !image.tags.is_empty() {
                let layers: f64 = (image.chain.iter())
                    .filter_map(|name| self.layers.get(name.as_str()))
                    .map(|layer| real(self.layer(*layer).disk.unwrap_or(0)))
                    .sum();
                self.units[unit].regret =
                    NAMED * (ROUND_TRIP + layers / FETCHED_PER_SECOND) * self.recency(used);
            }
        }
    }

    fn blob(&self, digest: &str) -> Option<&'a BlobUse> {
        let blobs = &self.facts.inventory.blobs;
        blobs.iter().find(|blob| blob.digest == digest)
    }

    fn add_flat(&mut self) {
        let inventory = self.facts.inventory;
        for (position, mount) in inventory.mounts.iter().enumerate() {
            let size = mount.disk.unwrap_or(0);
            let unit = self.push(Thing::Mount(position), None, size, mount.used);
            self.units[unit].regret =
                (ROUND_TRIP + real(size) / FETCHED_PER_SECOND) * self.recency(mount.used);
        }
        let packed: HashMap<&str, &str> = inventory
            .packed
            .iter()
            .map(|(diff_id, digest)| (digest.as_str(), diff_id.as_str()))
            .collect();
        let layers: HashSet<&str> = (self.layers.values())
            .map(|layer| self.layer(*layer).diff_id.as_str())
            .collect();
        for (position, blob) in inventory.blobs.iter().enumerate() {
            if self.image_blobs.contains_key(blob.digest.as_str()) {
                continue;
            }
            let seconds = match packed.get(blob.digest.as_str()) {
                // Of a layer that is gone: nothing will ask for it again.
                Some(diff_id) if !layers.contains(diff_id) => 0.0,
                Some(_) => real(blob.size) / PACKED_PER_SECOND,
                None => ROUND_TRIP + real(blob.size) / FETCHED_PER_SECOND,
            };
            let unit = self.push(Thing::Blob(position), None, blob.size, blob.used);
            self.units[unit].regret = seconds * self.recency(blob.used);
        }
        for (position, (_, size, saved)) in self.facts.stat_caches.iter().enumerate() {
            let unit = self.push(Thing::StatCache(position), None, *size, *saved);
            self.units[unit].regret = CONTEXT_READ * self.recency(*saved);
        }
    }

    /// Shares the size of a layer, and the cost of fetching it again, between the chains that it is in.
    fn weigh_chains(&mut self) {
        for position in 0..self.units.len() {
            let Thing::Chain(layer) = self.units[position].thing else {
                continue;
            };
            let recency = self.recency(self.units[position].used);
            let share = f64::from(self.shares[layer].max(1));
            let layer = self.layer(layer);
            let size = real(layer.disk.unwrap_or(0)) / share;
            self.units[position].size = size;
            if self.pulled.contains(layer.diff_id.as_str()) {
                self.units[position].regret += (ROUND_TRIP + size / FETCHED_PER_SECOND) * recency;
            }
        }
    }

    fn mark_needed(&mut self) {
        let needed: Vec<bool> = (self.units.iter())
            .map(|unit| self.is_needed(unit))
            .collect();
        // Children come after their parents.
        for (position, is_needed) in needed.into_iter().enumerate().rev() {
            self.units[position].is_needed |= is_needed;
            if self.units[position].is_needed
                && let Some(parent) = self.units[position].parent
            {
                self.units[parent].is_needed = true;
            }
        }
        self.keep_what_takes_no_room();
    }

    /// A chain of layers that stay anyway: forgetting its records would free nothing.
    fn keep_what_takes_no_room(&mut self) {
        let kept: HashSet<usize> = (self.units.iter())
            .filter(|unit| unit.is_needed)
            .filter_map(|unit| match unit.thing {
                Thing::Chain(layer) => Some(layer),
                _ => None,
            })
            .collect();
        for position in 0..self.units.len() {
            let Unit { thing, parent, .. } = self.units[position];
            let stands = parent.is_none_or(|parent| self.units[parent].is_needed);
            if let Thing::Chain(layer) = thing
                && stands
                && kept.contains(&layer)
            {
                self.units[position].is_needed = true;
            }
        }
    }

    fn is_needed(&self, unit: &Unit) -> bool {
        let (facts, options) = (self.facts, self.options);
        if matches!(unit.thing, Thing::Broken) {
            return false;
        }
        let (kind, id) = self.name(unit);
        let is_asked_for = (options.kinds.is_empty() || options.kinds.contains(&kind))
            && (options.ids.is_empty() || options.ids.iter().any(|wanted| matches_id(id, wanted)));
        let is_recent = options.unused_for.is_some_and(|time| {
            let time = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
            facts.now.saturating_sub(unit.used) < time
        });
        let is_held = match unit.thing {
            Thing::Chain(_) => {
                // What is left of an image with a name that lost a layer stands in no whole chain.
                let is_left = unit.parent.is_none() && self.is_in_named_image(id);
                facts.holds.snapshots.contains(id) || is_left
            }
            Thing::Image(position) => {
                let image = &facts.inventory.images[position];
                let top = image.chain.last();
                let is_used = top.is_some_and(|top| facts.holds.snapshots.contains(top))
                    || image_blobs(image).any(|digest| facts.holds.blobs.contains(digest));
                is_used || !(options.includes_tagged || image.tags.is_empty())
            }
            Thing::Mount(_) => facts.holds.mounts.contains(id),
            Thing::Blob(_) => facts.holds.blobs.contains(id) || self.is_only_copy(id),
            Thing::StatCache(_) | Thing::Broken => false,
        };
        !is_asked_for || is_recent || is_held
    }

    fn is_in_named_image(&self, snapshot: &str) -> bool {
        !self.options.includes_tagged
            && (self.facts.inventory.images.iter())
                .filter(|image| !image.tags.is_empty())
                .any(|image| image.chain.iter().any(|name| name == snapshot))
    }

    /// A pulled layer's blob that can't be fetched from a registry again, of an image with a name.
    fn is_only_copy(&self, digest: &str) -> bool {
        let inventory = self.facts.inventory;
        let stays = |image: &&ImageUse| !self.options.includes_tagged && !image.tags.is_empty();
        let is_in = |diff_id: &str, image: &ImageUse| {
            image.chain.iter().any(|name| {
                let layer = self.layers.get(name.as_str());
                layer.is_some_and(|layer| self.layer(*layer).diff_id == diff_id)
            })
        };
        inventory
            .originals
            .iter()
            .any(|(diff_id, blob, locations)| {
                let locations: Vec<String> = serde_json::from_str(locations).unwrap_or_default();
                blob == digest
                    && !locations.iter().any(|place| !place.contains("://"))
                    && (inventory.images.iter().filter(stays)).any(|image| is_in(diff_id, image))
            })
    }

    /// The kind of a unit, and what it is called by.
    fn name(&self, unit: &Unit) -> (Kind, &'a str) {
        let inventory = self.facts.inventory;
        match unit.thing {
            Thing::Chain(layer) => (Kind::Step, &self.layer(layer).snapshot),
            Thing::Broken => (Kind::Step, ""),
            Thing::Image(position) => (Kind::Image, &inventory.images[position].id),
            Thing::Mount(position) => (Kind::CacheMount, &inventory.mounts[position].directory),
            Thing::Blob(position) => (Kind::Blob, &inventory.blobs[position].digest),
            Thing::StatCache(position) => (Kind::StatCache, &self.facts.stat_caches[position].0),
        }
    }
}

/// Blobs that go with an image.
fn image_blobs(image: &ImageUse) -> impl Iterator<Item = &str> {
    std::iter::once(image.id.as_str()).chain(image.manifest.as_deref())
}

fn matches_id(id: &str, wanted: &str) -> bool {
    let wanted = wanted.strip_prefix("sha256:").unwrap_or(wanted);
    !wanted.is_empty() && id.strip_prefix("sha256:").unwrap_or(id).starts_with(wanted)
}

#[expect(clippy::cast_precision_loss, reason = "a weight")]
fn real(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests;
