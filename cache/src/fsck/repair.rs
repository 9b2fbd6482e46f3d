//! Mending: each damage by itself, so that a kill leaves some mended and the others as they were.

use std::path::Path;

use super::FsckError;
use super::report::{Cure, DamageKind, FsckReport, LeftoverKind, Problem};
use crate::db::{DbError, Tables};
use crate::entry::decode_table;
use crate::failpoint::reach;
use crate::kept::is_plain_name;
use crate::layer::is_directory;
use crate::open::{make_directory, write_version};
use crate::store::{Store, now};
use crate::usage::estimate_disk;

/// Makes what is missing of the store's own files, so that the rest of it can be opened.
pub(super) fn layout(root: &Path, report: &mut FsckReport) -> Result<(), FsckError> {
    for damage in &mut report.damages {
        if damage.problems.contains(&Problem::Version) {
            write_version(root)?;
        } else if damage.kind == DamageKind::Layout {
            if damage.problems.contains(&Problem::NoDirectory) {
                let removed = std::fs::remove_file(&damage.path);
                removed.map_err(|source| FsckError::Repair {
                    path: damage.path.clone(),
                    source,
                })?;
            }
            make_directory(&damage.path, true)?;
        }
        damage.is_repaired = true;
    }
    Ok(())
}

/// Does what the report says. The caller has the store alone.
pub(super) fn repair(store: &Store, report: &mut FsckReport) -> Result<(), FsckError> {
    for damage in &mut report.damages {
        cure(store, &damage.cure)?;
        damage.is_repaired = true;
        reach("fsck-cured");
    }
    for row in &report.gone {
        cure(store, row)?;
    }
    let inner = &store.inner;
    // All of it has been read: what another boot left unsynced is whole, or went.
    inner.sync_verified()?;
    store.clean_up()?;
    remove_orphans(store, report)?;
    for leftover in &mut report.leftovers {
        let stays = std::fs::symlink_metadata(&leftover.path).is_ok();
        let is_row = matches!(leftover.kind, LeftoverKind::Unsynced | LeftoverKind::Gone);
        leftover.is_removed = is_row || !stays;
    }
    Ok(inner.make_durable()?)
}

fn cure(store: &Store, cure: &Cure) -> Result<(), FsckError> {
    match cure {
        Cure::Done => Ok(()),
        Cure::DropSnapshot(id) => Ok(store.lease()?.discard_snapshot(id)?),
        Cure::DropBlob(digest) => store
            .forget_blob(digest)
            .map_err(|error| FsckError::Blob(Box::new(error))),
        Cure::DropKept(name) => drop_kept(store, name),
        cure => Ok(store.inner.db.write(|tables| write(tables, cure))?),
    }
}

fn write(tables: &Tables<'_>, cure: &Cure) -> Result<(), DbError> {
    match cure {
        Cure::Done | Cure::DropSnapshot(_) | Cure::DropBlob(_) | Cure::DropKept(_) => Ok(()),
        Cure::DropLayerRow(name) => tables.remove_layer(name),
        Cure::WriteLayer(layer, table) => {
            let disk = decode_table(table).map_or(0, |table| estimate_disk(&table.entries));
            tables.put_layer(layer, table, now(), disk)
        }
        Cure::DropBlobRow(digest) => tables.remove_blob(digest),
        Cure::WriteBlob(digest, size) => tables.put_blob(digest.as_ref(), *size, now()),
        Cure::DropImage(id) => {
            for name in tables.tags_of(id)? {
                tables.remove_tag(&name)?;
            }
            tables.remove_image(id)
        }
        Cure::DropTag(name) => tables.remove_tag(name).map(drop),
        Cure::DropRecord(id) => tables.remove_record(*id),
        Cure::DropReference(key) => tables.remove_reference(key),
        Cure::DropPacked(packed) => tables.remove_one_packed(packed),
        Cure::DropOriginal(diff_id) => tables.remove_original(diff_id),
        Cure::DropMount(directory) => tables.remove_cache_mount(directory),
    }
}

/// Its row, and its directory if it has one.
fn drop_kept(store: &Store, name: &str) -> Result<(), FsckError> {
    let inner = &store.inner;
    inner.db.write(|tables| tables.remove_kept(name))?;
    let path = inner.kept.join(name);
    // A name that was damaged leads nowhere that is ours.
    if is_plain_name(name) && is_directory(&path) {
        let lease = store.lease()?;
        let place = lease.scratch("kept")?.join(name);
        let moved = inner.remover.move_tree(&path, &place);
        moved.map_err(|source| FsckError::Repair { path, source })?;
    }
    Ok(())
}

/// Moves them into a lease's directory, which is removed with the lease.
fn remove_orphans(store: &Store, report: &FsckReport) -> Result<(), FsckError> {
    let orphans = (report.leftovers.iter())
        .filter(|leftover| leftover.kind == LeftoverKind::Orphan)
        .map(|leftover| &leftover.path);
    let mut lease = None;
    for (number, path) in orphans.enumerate() {
        if lease.is_none() {
            let own = store.lease()?;
            lease = Some((own.scratch("orphans")?, own));
        }
        let Some((place, _)) = &lease else { break };
        let moved = store
            .inner
            .remover
            .move_tree(path, &place.join(number.to_string()));
        moved.map_err(|source| FsckError::Repair {
            path: path.clone(),
            source,
        })?;
    }
    Ok(())
}
