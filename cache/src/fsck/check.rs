//! One check of a store: what was found so far, and who needs what.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use oci_spec::image::Digest;

use super::report::{
    Cure, Damage, DamageKind, Dependant, FsckReport, Healing, Leftover, LeftoverKind,
};
use super::{ExamineSnapshot, FsckError};
use crate::db::{ImageUse, Inventory, Unsynced};
use crate::lock::StandingLock;
use crate::store::Store;

/// Threads that read: more do not help a disk, and hashing seldom needs them.
const MOST_THREADS: usize = 8;

/// Steps that are named for one damaged thing.
const MOST_STEPS: usize = 4;

/// Tells what is kept from snapshots among [`Check::lost`].
pub(super) const LOST_KEPT: &str = "kept/";

/// A check that goes on.
pub(super) struct Check<'a> {
    pub(super) store: &'a Store,
    pub(super) examiner: &'a dyn ExamineSnapshot,
    pub(super) report: FsckReport,
    pub(super) inventory: Inventory,
    /// Names that a power cut may have taken: the next opening drops them. Those of kept file systems behind [`LOST_KEPT`].
    pub(super) lost: HashSet<String>,
    /// Snapshots that can't be used.
    pub(super) bad_snapshots: HashSet<String>,
    /// Blobs that can't be used, by digest.
    pub(super) bad_blobs: HashSet<String>,
}

impl<'a> Check<'a> {
    pub(super) fn new(
        store: &'a Store,
        examiner: &'a dyn ExamineSnapshot,
        report: FsckReport,
    ) -> Self {
        Self {
            store,
            examiner,
            report,
            inventory: Inventory::default(),
            lost: HashSet::new(),
            bad_snapshots: HashSet::new(),
            bad_blobs: HashSet::new(),
        }
    }

    /// Looks at all of it. What a power cut may have taken is left out, unless all of it is looked at to be kept.
    pub(super) fn everything(&mut self, keeps_unsynced: bool) -> Result<(), FsckError> {
        let inner = &self.store.inner;
        if !keeps_unsynced {
            let lost = inner.db.read(|tables| tables.lost(&inner.boot))?;
            self.lost = (lost.into_iter())
                .map(|item| match item {
                    Unsynced::Layer(name) | Unsynced::Blob(name) => name,
                    Unsynced::Kept(name) => format!("{LOST_KEPT}{name}"),
                })
                .collect();
        }
        self.read_inventory()?;
        self.snapshots()?;
        self.blobs()?;
        self.rows()?;
        self.leftovers()?;
        (self.report.damages)
            .sort_by(|one, other| (one.kind, &one.id).cmp(&(other.kind, &other.id)));
        Ok(())
    }

    pub(super) fn read_inventory(&mut self) -> Result<(), FsckError> {
        self.inventory = (self.store.inner.db).read(|tables| tables.inventory())?;
        Ok(())
    }

    /// Calls `is_so` while nobody commits or removes anything: what was found a moment ago is still so, or is not any more.
    pub(super) fn confirm(
        &self,
        is_so: impl FnOnce() -> Result<bool, FsckError>,
    ) -> Result<bool, FsckError> {
        let path = self.store.inner.gc_lock();
        // A store that nothing was ever committed to has no such lock, and making it would be writing.
        let _gc = if path.exists() {
            Some(StandingLock::exclusive(&path)?)
        } else {
            None
        };
        is_so()
    }

    /// Notes a row whose files are gone as left over, unless an image with a name needs them.
    pub(super) fn is_let_go(
        &mut self,
        name: &str,
        path: &Path,
        cure: impl FnOnce() -> Cure,
    ) -> bool {
        let needs =
            |image: &ImageUse| image.id == name || image.chain.iter().any(|layer| layer == name);
        let mut named = (self.inventory.images.iter()).filter(|image| !image.tags.is_empty());
        if named.any(needs) {
            return false;
        }
        self.note_gone(path, cure());
        true
    }

    /// Notes a row as left over.
    pub(super) fn note_gone(&mut self, path: &Path, cure: Cure) {
        self.report.gone.push(cure);
        self.report.leftovers.push(Leftover {
            kind: LeftoverKind::Gone,
            path: path.to_owned(),
            is_removed: false,
        });
    }

    pub(super) fn add(&mut self, damage: Damage) {
        match damage.kind {
            DamageKind::Snapshot if damage.healing != Healing::Mended => {
                self.bad_snapshots.insert(damage.id.clone());
            }
            DamageKind::Blob if damage.healing != Healing::Mended => {
                self.bad_blobs.insert(damage.id.clone());
            }
            _ => {}
        }
        self.report.damages.push(damage);
    }

    /// Images, steps and kept file systems that need a snapshot.
    pub(super) fn users_of_snapshot(&self, name: &str) -> Vec<Dependant> {
        let images = (self.inventory.images.iter())
            .filter(|image| image.chain.iter().any(|layer| layer == name))
            .map(|image| Dependant::Image(title(&image.tags, &image.id)));
        let mut users: Vec<Dependant> = images.collect();
        let steps: HashSet<&str> = (self.inventory.records.iter())
            .filter(|record| record.chain.iter().any(|layer| layer == name))
            .map(|record| record.title.as_str())
            .collect();
        let mut steps: Vec<&str> = steps.into_iter().collect();
        steps.sort_unstable();
        let steps = steps.into_iter().take(MOST_STEPS);
        users.extend(steps.map(|title| Dependant::Step(title.to_owned())));
        let kept = (self.inventory.kept.iter())
            .filter(|row| row.snapshots.iter().any(|layer| layer == name));
        users.extend(kept.map(|row| Dependant::Kept(row.title.clone())));
        users
    }

    /// Where a layer was pulled from; none for one that was made here, or whose note does not say it any more.
    pub(super) fn origin_of(&self, diff_id: &str) -> Option<Vec<String>> {
        let mut origins = self.inventory.originals.iter();
        let (_, digest, locations) = origins.find(|(of, _, _)| of == diff_id)?;
        origin(diff_id, digest, locations)
    }

    /// How the layer of a snapshot comes back.
    pub(super) fn healing_of_snapshot(&self, name: &str, diff_id: &str) -> Healing {
        if let Some(locations) = self.origin_of(diff_id) {
            return Healing::Pull(locations);
        }
        let is_made = (self.inventory.records.iter())
            .any(|record| record.chain.last().is_some_and(|top| top == name));
        if is_made {
            Healing::Run
        } else if (self.users_of_snapshot(name).iter())
            .all(|user| matches!(user, Dependant::Kept(_)))
        {
            Healing::Needless
        } else {
            Healing::Build
        }
    }

    /// Images that need a blob.
    pub(super) fn users_of_blob(&self, digest: &str) -> Vec<Dependant> {
        (self.inventory.images.iter())
            .filter(|image| image.id == digest || image.manifest.as_deref() == Some(digest))
            .map(|image| Dependant::Image(title(&image.tags, &image.id)))
            .collect()
    }

    /// How a blob comes back.
    pub(super) fn healing_of_blob(&self, digest: &str) -> Healing {
        let inventory = &self.inventory;
        if inventory.images.iter().any(|image| image.id == digest) {
            return Healing::Build;
        }
        if inventory.packed.iter().any(|(_, blob)| blob == digest) {
            return Healing::Pack;
        }
        let mut originals = inventory.originals.iter();
        if let Some((_, _, locations)) = originals.find(|(_, blob, _)| blob == digest) {
            return Healing::Pull(serde_json::from_str(locations).unwrap_or_default());
        }
        let mut references = inventory.references.iter();
        match references.find(|(_, manifest)| manifest == digest) {
            Some((reference, _)) => {
                let name = reference.split_whitespace().next().unwrap_or(reference);
                Healing::Pull(vec![name.to_owned()])
            }
            None => Healing::Needless,
        }
    }
}

/// The names of an image, or its id.
pub(super) fn title(names: &[String], id: &str) -> String {
    match names {
        [] => id.to_owned(),
        names => names.join(", "),
    }
}

/// The places in a note of where a layer was pulled from; none if it is not as rbuild writes it.
pub(super) fn origin(diff_id: &str, digest: &str, locations: &str) -> Option<Vec<String>> {
    let is_digest = |text: &str| text.parse::<Digest>().is_ok();
    let places = serde_json::from_str(locations).ok();
    places.filter(|_| is_digest(diff_id) && is_digest(digest))
}

/// What tells a file from another one that took its name.
pub(super) fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Does something for each item, several at once; results in the order of the items, or the first error.
pub(super) fn for_each<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R, FsckError> + Sync,
) -> Result<Vec<R>, FsckError> {
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(MOST_THREADS);
    let next = AtomicUsize::new(0);
    // Taken for a moment after each item; no other lock is taken while it is held.
    let results = Mutex::new(Vec::with_capacity(items.len()));
    std::thread::scope(|scope| {
        for _ in 0..threads.min(items.len()) {
            scope.spawn(|| {
                while let index = next.fetch_add(1, Ordering::Relaxed)
                    && let Some(item) = items.get(index)
                {
                    let result = work(item);
                    let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                    if result.is_err() {
                        next.store(items.len(), Ordering::Relaxed);
                    }
                    results.push((index, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}
