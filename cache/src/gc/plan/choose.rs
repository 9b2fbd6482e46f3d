//! From units and limits to a plan: the least regretted first, until the store is small enough.

use super::limit::limit;
use super::{Plan, Planner, Thing, image_blobs};
use crate::gc::order::{Weight, keep_order};
use crate::gc::{PrunedItem, STAT_CACHE_TITLE};

impl Planner<'_> {
    pub(super) fn choose(mut self) -> Plan {
        let weights: Vec<Weight> = (self.units.iter())
            .map(|unit| Weight {
                regret: unit.regret,
                size: unit.size,
                parent: unit.parent,
            })
            .collect();
        let mut plan = Plan::default();
        let mut left: Vec<u32> = self.shares.clone();
        let limit = limit(self.facts, self.options);
        let mut total = self.facts.total;
        let order = keep_order(&weights);
        // What names a layer that is gone is of no use, however much room there is.
        let (broken, order): (Vec<usize>, Vec<usize>) = (order.into_iter().rev())
            .partition(|unit| matches!(self.units[*unit].thing, Thing::Broken));
        for position in broken {
            self.take(position, &mut left, &mut plan);
        }
        for position in order {
            if limit.is_some_and(|limit| total <= limit) {
                break;
            }
            if !self.units[position].is_needed {
                let freed = self.take(position, &mut left, &mut plan);
                total = total.saturating_sub(freed);
            }
        }
        plan
    }

    /// Adds a unit to the plan; the bytes that are free because of it.
    fn take(&mut self, position: usize, left: &mut [u32], plan: &mut Plan) -> u64 {
        let inventory = self.facts.inventory;
        let unit = &self.units[position];
        let (kind, id) = self.name(unit);
        let (used, thing) = (unit.used, unit.thing);
        let records: Vec<usize> = unit.records.clone();
        plan.records
            .extend(records.iter().map(|record| inventory.records[*record].id));
        let mut title = String::new();
        let mut bytes = 0;
        match thing {
            Thing::Broken => return 0,
            Thing::Chain(layer) => {
                left[layer] -= 1;
                let newest = records
                    .iter()
                    .max_by_key(|record| inventory.records[**record].id);
                title = newest.map_or_else(
                    || self.title_of_layer(layer).to_owned(),
                    |record| inventory.records[*record].title.clone(),
                );
                // The same layer in another chain stays.
                if left[layer] == 0 && !self.facts.holds.snapshots.contains(id) {
                    bytes = self.layer(layer).disk.unwrap_or(0);
                    plan.snapshots.push(id.to_owned());
                }
            }
            Thing::Image(position) => {
                let image = &inventory.images[position];
                title = image.tags.join(", ");
                for digest in image_blobs(image) {
                    let needed_by = self.image_blobs.entry(digest).or_default();
                    *needed_by = needed_by.saturating_sub(1);
                    if *needed_by == 0 && !self.facts.holds.blobs.contains(digest) {
                        plan.blobs.push(digest.to_owned());
                        bytes += self.blob(digest).map_or(0, |blob| blob.size);
                    }
                }
                plan.images.push(id.to_owned());
            }
            Thing::Mount(position) => {
                let mount = &inventory.mounts[position];
                title.clone_from(&mount.title);
                bytes = mount.disk.unwrap_or(0);
                plan.mounts.push(id.to_owned());
            }
            Thing::Blob(position) => {
                bytes = inventory.blobs[position].size;
                title = inventory.title_of_blob(id);
                plan.blobs.push(id.to_owned());
            }
            Thing::StatCache(position) => {
                bytes = self.facts.stat_caches[position].1;
                STAT_CACHE_TITLE.clone_into(&mut title);
                plan.stat_caches.push(id.to_owned());
            }
        }
        plan.items.push(PrunedItem {
            kind,
            id: id.to_owned(),
            title,
            bytes,
            used,
        });
        bytes
    }

    fn title_of_layer(&self, layer: usize) -> &'static str {
        if self.pulled.contains(self.layer(layer).diff_id.as_str()) {
            "a layer that was pulled"
        } else {
            "a layer of no step"
        }
    }
}
