//! Carrying out a plan.

use std::collections::{HashMap, HashSet};
use std::fs::DirEntry;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::grave::Grave;
use super::plan::{Facts, Plan, plan};
use super::{GcError, Holds, PruneOptions, Pruned};
use crate::cache_mount::mount_lock_name;
use crate::db::{Inventory, Sizes, Tables};
use crate::failpoint::reach;
use crate::lease::read_holds;
use crate::lock::{LockFile, StandingLock};
use crate::remove::Counted;
use crate::store::{DATABASE, Store, StoreInner, now};

/// Times that rows are tried to be deleted again once files have made room for it.
const TRIES: u32 = 3;

impl Store {
    /// Removes what nothing needs, least regretted first; see [`PruneOptions`].
    ///
    /// Builds may run meanwhile: what they hold stays, and they wait no longer than the moving of directories takes.
    pub fn prune(&self, options: &PruneOptions) -> Result<Pruned, GcError> {
        self.inner.measure_unknown()?;
        let mut tries = 0;
        let mut before = Pruned::default();
        let mut order = Order::RowsFirst;
        loop {
            tries += 1;
            let grave = Grave::open(self)?;
            let swept = self.sweep(options, &grave, order);
            reach("prune-swept");
            grave.empty();
            match swept {
                // Nothing could be written before the files were gone.
                Err(GcError::Db(error)) if error.is_full() && tries < TRIES => {
                    before = grave.taken_so_far(before);
                    order = Order::FilesFirst;
                    // What was tried is in the log, and takes room.
                    self.inner.empty_log();
                }
                // What was to go is gone. Its rows go when there is room for that.
                Err(GcError::Db(error)) if error.is_full() && !before.items.is_empty() => {
                    tracing::debug!(%error, "rows of what was pruned stay for now");
                    before.freed = before.items.iter().map(|item| item.bytes).sum();
                    self.inner.shrink_database(false);
                    reach("prune-done");
                    return Ok(before);
                }
                Err(error) => return Err(error),
                Ok(mut pruned) => {
                    if !before.items.is_empty() {
                        let seen: HashSet<_> =
                            before.items.iter().map(|item| item.id.clone()).collect();
                        pruned.items.retain(|item| !seen.contains(&item.id));
                        pruned.items.splice(0..0, before.items);
                        pruned.freed = pruned.items.iter().map(|item| item.bytes).sum();
                    }
                    self.inner.shrink_database(pruned.items.is_empty());
                    reach("prune-done");
                    return Ok(pruned);
                }
            }
        }
    }

    /// What [`prune`](Self::prune) would remove now. Changes nothing.
    pub fn plan_prune(&self, options: &PruneOptions) -> Result<Pruned, GcError> {
        let holds = self.inner.holds()?;
        let plan = self.inner.db.read(|tables| {
            self.inner
                .plan(tables, &holds, options)
                .map(|(plan, _)| plan)
        })?;
        Ok(pruned(plan))
    }

    fn sweep(
        &self,
        options: &PruneOptions,
        grave: &Grave,
        order: Order,
    ) -> Result<Pruned, GcError> {
        let inner = &self.inner;
        let _gc = StandingLock::exclusive(&inner.gc_lock())?;
        let holds = inner.holds()?;
        let (plan, inventory, mounts) = inner.db.write(|tables| {
            let (mut plan, inventory) = inner.plan(tables, &holds, options)?;
            let mounts = inner.lock_mounts(&mut plan)?;
            if order == Order::FilesFirst {
                grave.note(&plan);
            }
            inner.add_rows_without_files(&inventory, &mut plan)?;
            if order == Order::FilesFirst {
                inner.move_away(&plan, &inventory, grave)?;
            }
            delete_rows(tables, &plan, &inventory)?;
            Ok::<_, GcError>((plan, inventory, mounts))
        })?;
        reach("prune-rows");
        if order == Order::RowsFirst {
            inner.move_away(&plan, &inventory, grave)?;
        }
        reach("prune-moved");
        drop(mounts);
        inner.remove_dead_locks(&plan, &inventory)?;
        Ok(pruned(plan))
    }
}

/// What goes first. Nobody sees the moment in between: all of it is under the exclusive `locks/gc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// A kill leaves files without rows: never read, and removed by the next pruning.
    RowsFirst,
    /// For a full disk, where rows can't be deleted before files make room. A kill leaves rows without files.
    FilesFirst,
}

fn pruned(plan: Plan) -> Pruned {
    Pruned {
        freed: plan.items.iter().map(|item| item.bytes).sum(),
        items: plan.items,
    }
}

fn delete_rows(tables: &Tables<'_>, plan: &Plan, inventory: &Inventory) -> Result<(), GcError> {
    for id in &plan.records {
        tables.remove_record(*id)?;
    }
    for id in &plan.images {
        for name in tables.tags_of(id)? {
            tables.remove_tag(&name)?;
        }
        tables.remove_image(id)?;
    }
    for snapshot in &plan.snapshots {
        tables.remove_layer(snapshot)?;
    }
    let blobs: HashSet<&String> = plan.blobs.iter().collect();
    for digest in &plan.blobs {
        tables.remove_blob(digest)?;
        tables.remove_packed(digest)?;
    }
    for (key, manifest) in &inventory.references {
        if blobs.contains(manifest) {
            tables.remove_reference(key)?;
        }
    }
    // Where a layer came from is of no use without the layer and its blob.
    let gone: HashSet<&String> = plan.snapshots.iter().collect();
    let stays: HashSet<&String> = (inventory.layers.iter())
        .filter(|layer| !gone.contains(&layer.snapshot))
        .map(|layer| &layer.diff_id)
        .collect();
    let kept_blobs: HashSet<&String> = (inventory.blobs.iter())
        .map(|blob| &blob.digest)
        .filter(|digest| !blobs.contains(digest))
        .collect();
    for (diff_id, digest, _) in &inventory.originals {
        if !stays.contains(diff_id) && !kept_blobs.contains(digest) {
            tables.remove_original(diff_id)?;
        }
    }
    for mount in &plan.mounts {
        tables.remove_cache_mount(mount)?;
    }
    for name in &plan.kept {
        tables.remove_kept(name)?;
    }
    Ok(())
}

impl StoreInner {
    /// What must not go. Under the exclusive `locks/gc`, but for reports.
    pub(crate) fn holds(&self) -> Result<Holds, GcError> {
        let mut holds = read_holds(&self.work).map_err(|source| GcError::Read {
            path: self.work.clone(),
            source,
        })?;
        for mount in self.db.read(|tables| tables.mounts())? {
            let lock = self.locks.join(mount_lock_name(&mount.directory));
            let is_used = crate::lock::is_locked_shared(&lock)
                .map_err(|source| GcError::Read { path: lock, source })?;
            if is_used {
                holds.mounts.insert(mount.directory);
            }
        }
        Ok(holds)
    }

    /// Decides what goes, of what the tables and the directories hold now.
    pub(super) fn plan(
        &self,
        tables: &Tables<'_>,
        holds: &Holds,
        options: &PruneOptions,
    ) -> Result<(Plan, Inventory), GcError> {
        let inventory = tables.inventory()?;
        let present = names_in(&self.snapshots)?;
        let stat_caches = self.stat_caches()?;
        let total = tables.known_size()?
            + stat_caches.iter().map(|(_, bytes, _)| bytes).sum::<u64>()
            + self.database_size();
        let free = rustix::fs::statvfs(&self.root).map_err(|errno| GcError::Read {
            path: self.root.clone(),
            source: errno.into(),
        })?;
        let facts = Facts {
            inventory: &inventory,
            holds,
            present: &present,
            stat_caches: &stat_caches,
            now: now(),
            total,
            free: free.f_bavail.saturating_mul(free.f_frsize),
        };
        let plan = plan(&facts, options);
        Ok((plan, inventory))
    }

    /// Stat caches: name, bytes, time of the last save.
    pub(super) fn stat_caches(&self) -> Result<Vec<(String, u64, i64)>, GcError> {
        let mut caches = Vec::new();
        for entry in entries_of(&self.stat_caches)? {
            let Ok(metadata) = entry.metadata() else {
                continue; // replaced meanwhile
            };
            let saved = metadata
                .modified()
                .ok()
                .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
                .map_or(0, |time| time.as_secs().cast_signed());
            let name = entry.file_name().to_string_lossy().into_owned();
            caches.push((name, crate::remove::allocated(&metadata), saved));
        }
        Ok(caches)
    }

    /// Bytes of the database and its log.
    pub(super) fn database_size(&self) -> u64 {
        ["", "-wal", "-shm"]
            .iter()
            .filter_map(|suffix| {
                std::fs::symlink_metadata(self.root.join(format!("{DATABASE}{suffix}"))).ok()
            })
            .map(|metadata| metadata.len())
            .sum()
    }

    /// Measures layers and kept file systems of unknown size, and all cache mounts, whose sizes change.
    pub(crate) fn measure_unknown(&self) -> Result<(), GcError> {
        let inventory = self.db.read(|tables| tables.inventory())?;
        let snapshots: Vec<String> = (inventory.layers.iter())
            .filter(|layer| layer.disk.is_none())
            .map(|layer| layer.snapshot.clone())
            .collect();
        let mounts: Vec<String> = (inventory.mounts.iter())
            .map(|mount| mount.directory.clone())
            .collect();
        let kept: Vec<String> = (inventory.kept.iter())
            .filter(|row| row.disk.is_none())
            .map(|row| row.name.clone())
            .collect();
        let snapshots = self.measure(&self.snapshots, snapshots)?;
        let kept = self.measure(&self.kept, kept)?;
        let mut mounts = self.measure(&self.mounts, mounts)?;
        let known: HashMap<&String, Option<u64>> = (inventory.mounts.iter())
            .map(|mount| (&mount.directory, mount.disk))
            .collect();
        mounts.retain(|(name, bytes)| known.get(name) != Some(&Some(*bytes)));
        let sizes = Sizes {
            snapshots,
            mounts,
            kept,
        };
        if sizes.is_empty() {
            return Ok(());
        }
        match self.db.write(|tables| tables.put_sizes(&sizes)) {
            // What is pruned for may be just this room.
            Err(error) if !error.is_full() => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// What directories of one parent take.
    pub(super) fn measure(
        &self,
        parent: &Path,
        names: Vec<String>,
    ) -> Result<Vec<(String, u64)>, GcError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let paths: Vec<PathBuf> = names.iter().map(|name| parent.join(name)).collect();
        let sizes = self
            .remover
            .measure_trees(&paths)
            .map_err(|source| GcError::Measure {
                path: parent.to_owned(),
                source,
            })?;
        let bytes = sizes.iter().map(|size| Counted::default().add(size));
        Ok(names.into_iter().zip(bytes).collect())
    }

    /// Takes the locks of the cache mounts that are to go; those that somebody uses by now stay.
    fn lock_mounts(&self, plan: &mut Plan) -> Result<Vec<StandingLock>, GcError> {
        let mut locks = Vec::new();
        let mut busy = HashSet::new();
        for mount in &plan.mounts {
            match StandingLock::try_exclusive(&self.locks.join(mount_lock_name(mount)))? {
                Some(lock) => locks.push(lock),
                None => {
                    busy.insert(mount.clone());
                }
            }
        }
        plan.mounts.retain(|mount| !busy.contains(mount));
        plan.items.retain(|item| !busy.contains(&item.id));
        Ok(locks)
    }

    /// Rows whose files a kill or a full disk took first count as missing, and go with the rest.
    fn add_rows_without_files(
        &self,
        inventory: &Inventory,
        plan: &mut Plan,
    ) -> Result<(), GcError> {
        let (snapshots, blobs) = (names_in(&self.snapshots)?, names_in(&self.blobs)?);
        let gone = (inventory.layers.iter())
            .map(|layer| &layer.snapshot)
            .filter(|name| !snapshots.contains(*name));
        plan.snapshots.extend(gone.cloned());
        let gone = (inventory.blobs.iter())
            .map(|blob| &blob.digest)
            .filter(|digest| !blobs.contains(digest.trim_start_matches("sha256:")));
        plan.blobs.extend(gone.cloned());
        let kept = names_in(&self.kept)?;
        let gone = (inventory.kept.iter())
            .map(|row| &row.name)
            .filter(|name| !kept.contains(*name));
        plan.kept.extend(gone.cloned());
        Ok(())
    }

    /// Takes out of view what goes, and what no row names.
    fn move_away(&self, plan: &Plan, inventory: &Inventory, grave: &Grave) -> Result<(), GcError> {
        let (snapshots, mounts) = (&self.snapshots, &self.mounts);
        let named = (inventory.kept.iter())
            .filter(|row| plan.kept.contains(&row.name) && row.has_plain_name());
        let trees = (plan.snapshots.iter().map(|name| snapshots.join(name)))
            .chain(plan.mounts.iter().map(|name| mounts.join(name)))
            .chain(named.map(|row| self.kept.join(&row.name)));
        for path in trees {
            grave.take_tree(&path)?;
        }
        for digest in &plan.blobs {
            grave.take_file(&self.blobs.join(digest.trim_start_matches("sha256:")))?;
        }
        for name in &plan.stat_caches {
            grave.take_file(&self.stat_caches.join(name))?;
        }
        self.move_orphans(inventory, grave)
    }

    /// Files without rows: what a crash left between the two, or what a lost database knew.
    fn move_orphans(&self, inventory: &Inventory, grave: &Grave) -> Result<(), GcError> {
        let layers: HashSet<&str> = (inventory.layers.iter())
            .map(|layer| layer.snapshot.as_str())
            .collect();
        for name in names_in(&self.snapshots)? {
            if !layers.contains(name.as_str()) {
                grave.take_tree(&self.snapshots.join(name))?;
            }
        }
        let blobs: HashSet<&str> = (inventory.blobs.iter())
            .map(|blob| blob.digest.trim_start_matches("sha256:"))
            .collect();
        for name in names_in(&self.blobs)? {
            if !blobs.contains(name.as_str()) {
                grave.take_file(&self.blobs.join(name))?;
            }
        }
        let kept: HashSet<&str> = (inventory.kept.iter())
            .map(|row| row.name.as_str())
            .collect();
        for name in names_in(&self.kept)? {
            if !kept.contains(name.as_str()) {
                grave.take_tree(&self.kept.join(name))?;
            }
        }
        let mounts: HashSet<&str> = (inventory.mounts.iter())
            .map(|mount| mount.directory.as_str())
            .collect();
        for name in names_in(&self.mounts)? {
            if !mounts.contains(name.as_str()) {
                // One that a step is preparing has no row yet, but that step has its lock.
                let lock = StandingLock::try_exclusive(&self.locks.join(mount_lock_name(&name)))?;
                if lock.is_some() {
                    grave.take_tree(&self.mounts.join(name))?;
                }
            }
        }
        Ok(())
    }

    /// Lock files of steps that nobody runs, and of cache mounts that are not there.
    fn remove_dead_locks(&self, plan: &Plan, inventory: &Inventory) -> Result<(), GcError> {
        let mounts: HashSet<String> = (inventory.mounts.iter())
            .filter(|mount| !plan.mounts.contains(&mount.directory))
            .map(|mount| mount_lock_name(&mount.directory))
            .collect();
        for name in names_in(&self.locks)? {
            let path = self.locks.join(&name);
            if name.starts_with("step-") {
                // Dropping it removes the file.
                drop(LockFile::try_inherit(&path)?);
            } else if name.starts_with("mount-") && !mounts.contains(&name) {
                StandingLock::remove_dead(&path)?;
            }
        }
        Ok(())
    }

    /// Gives the room of deleted rows back to the disk. What does not work now works the next time.
    fn shrink_database(&self, is_unchanged: bool) {
        if is_unchanged {
            return;
        }
        self.empty_log();
        if let Err(error) = self.db.shrink() {
            tracing::debug!(%error, "the database stays as large as it is");
        }
        // Also where there was no room to shrink in.
        self.empty_log();
    }

    fn empty_log(&self) {
        if let Err(error) = self.db.make_durable() {
            tracing::debug!(%error, "the database's log stays as large as it is");
        }
    }
}

fn entries_of(path: &Path) -> Result<Vec<DirEntry>, GcError> {
    std::fs::read_dir(path)
        .and_then(Iterator::collect)
        .map_err(|source| GcError::Read {
            path: path.to_owned(),
            source,
        })
}

fn names_in(path: &Path) -> Result<HashSet<String>, GcError> {
    let name = |entry: DirEntry| entry.file_name().to_string_lossy().into_owned();
    Ok(entries_of(path)?.into_iter().map(name).collect())
}
