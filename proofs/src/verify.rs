//! Looks at a store as a whole, more closely than rbuild does: every byte that a row promises.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rbuild_cache::{ContentDigest, EntryKind, SnapshotId, StepKey, Store, layer_content_digest};
use rusqlite::{Connection, OpenFlags};

use crate::base::{IMAGE, Workload};
use crate::place::Place;
use crate::processes::run;
use crate::{Result, ensure, tree};

/// What a store holds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found {
    pub(crate) layers: usize,
    pub(crate) blobs: usize,
    pub(crate) records: usize,
}

/// Opens the store and checks that all of it is whole: the database, every layer row with every file's bytes, every blob,
/// every record that can be looked up.
pub(crate) fn check_whole(root: &Path) -> Result<Found> {
    let store = Store::open(root)?;
    let database = root.join("db.sqlite");
    let tables = Connection::open_with_flags(&database, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let verdict: String = tables.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    ensure!(verdict == "ok", "the database is damaged: {verdict}");
    let mut found = Found::default();
    for snapshot in column::<String>(&tables, "SELECT snapshot FROM layer")? {
        let id = SnapshotId::parse(&snapshot).ok_or("a layer row names no snapshot")?;
        // A row without its directory counts as missing (docs/store-format.md): a killed prune leaves it. What leans on
        // it is a miss, and images are looked at below.
        if store.snapshot_path(&id).exists() {
            check_layer(&store, &id)?;
            found.layers += 1;
        }
    }
    for digest in column::<String>(&tables, "SELECT digest FROM blob")? {
        let digest = digest.parse()?;
        if store.blob_path(&digest).exists() {
            store.read_blob(&digest, u64::MAX)?;
            found.blobs += 1;
        }
    }
    for key in column::<Vec<u8>>(&tables, "SELECT key FROM step_key")? {
        let key = StepKey(key.try_into().map_err(|_| "a key has another length")?);
        found.records += usize::from(store.lookup(&key)?.is_some());
    }
    for (name, image) in store.images()? {
        for layer in image.chain.layers() {
            ensure!(
                store.snapshot_path(&layer.snapshot).is_dir(),
                "image {name:?} names the snapshot {}, which is not there",
                layer.snapshot
            );
        }
        // One without a name is nobody's, and may be half gone.
        ensure!(
            name.is_none() || store.has_blob(&image.config_digest),
            "image {name:?} has no config blob"
        );
    }
    Ok(found)
}

fn column<T: rusqlite::types::FromSql>(tables: &Connection, query: &str) -> Result<Vec<T>> {
    let mut statement = tables.prepare(query)?;
    let values = statement.query_map([], |row| row.get(0))?;
    Ok(values.collect::<rusqlite::Result<_>>()?)
}

fn check_layer(store: &Store, id: &SnapshotId) -> Result<()> {
    store.check_snapshot(id)?;
    let entries = store.entries(id)?;
    for entry in entries.iter() {
        let EntryKind::File { digest, .. } = &entry.kind else {
            continue;
        };
        let path = store
            .snapshot_path(id)
            .join(std::ffi::OsStr::from_bytes(&entry.path));
        let content = fs::read(&path)
            .map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
        ensure!(
            ContentDigest::of_bytes(&content) == *digest,
            "`{}` holds other bytes than were recorded",
            path.display()
        );
    }
    let layer = store.layer(id)?.ok_or("the layer went away")?;
    ensure!(
        layer.content == layer_content_digest(&entries),
        "layer {id} has another content digest than its entries"
    );
    Ok(())
}

/// `rbuild fsck` finds nothing.
pub(crate) fn check_by_fsck(place: &Place, root: &Path) -> Result<()> {
    run(place.rbuild(root).arg("fsck")).map(drop)
}

/// Checks that nothing of a build is left: no work, no lock of a step, no mount.
pub(crate) fn check_tidy(root: &Path) -> Result<()> {
    let names = |directory: &str| -> Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(root.join(directory))? {
            names.insert(entry?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    };
    let work = names("work")?;
    ensure!(work.is_empty(), "work/ still holds {work:?}");
    let steps: Vec<_> = names("locks")?
        .into_iter()
        .filter(|name| name.starts_with("step-"))
        .collect();
    ensure!(steps.is_empty(), "locks/ still holds {steps:?}");
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let beneath = format!("{}/", root.display());
    let left: Vec<_> = mounts
        .lines()
        .filter(|line| line.contains(&beneath))
        .collect();
    ensure!(left.is_empty(), "still mounted: {left:?}");
    Ok(())
}

/// Builds the workload to its end and compares the image with what it has to be.
pub(crate) fn build_is_right(place: &Place, root: &Path, workload: &Workload) -> Result<()> {
    run(&mut workload.command(place, root))?;
    image_is_right(root, workload)
}

/// Compares the image in the store with what it has to be.
pub(crate) fn image_is_right(root: &Path, workload: &Workload) -> Result<()> {
    let store = Store::open(root)?;
    let image = store.image(IMAGE)?.ok_or("the image is not in the store")?;
    is_right(&tree::of_chain(&store, &image.chain)?, workload)
}

/// Compares what an image shows with what it has to hold.
pub(crate) fn is_right(found: &tree::Tree, workload: &Workload) -> Result<()> {
    if let Some(wrong) = tree::lacks(&workload.expected(), found) {
        return Err(format!("the image is wrong: {wrong}").into());
    }
    ensure!(
        !found.contains_key(Path::new("f0")),
        "the image holds /f0, which a step removed"
    );
    Ok(())
}
