//! What the disk proves by itself, for a database that could be read in part only.
//!
//! A blob is what its name says when its digest is. A snapshot of a layer that was made here is, when packing gives its
//! diff_id; another one is, when its entry table is left and it holds what that says. A name whose image is lost still
//! holds the image id: its config lists the layers.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use oci_spec::image::Digest;

use super::blobs::hash;
use super::check::{Check, for_each};
use super::compare::differences;
use super::leftover::names_in;
use super::{ExamineError, FsckError};
use crate::chain::Chain;
use crate::db::{Db, RawLayer};
use crate::digest::{ChainId, DiffId};
use crate::entry::{EntryTable, decode_table, encode_table, layer_content_digest};
use crate::image::ImageRow;
use crate::layer::{Layer, SnapshotId};
use crate::store::now;
use crate::usage::estimate_disk;

/// A layer's diff_id, the size of its tar, and its entries.
type Proven = (DiffId, u64, EntryTable);

impl Check<'_> {
    /// Adds rows to the new database.
    pub(super) fn recover(&mut self) -> Result<(), FsckError> {
        self.report.recovered.snapshots = self.recover_snapshots()?;
        self.report.recovered.blobs = self.recover_blobs()?;
        self.report.recovered.images = self.recover_images()?;
        Ok(())
    }

    fn recover_snapshots(&self) -> Result<usize, FsckError> {
        let inner = &self.store.inner;
        let rows = inner.db.read(|tables| tables.raw_layers())?;
        let known: HashMap<&str, &RawLayer> = (rows.iter())
            .map(|row| (row.snapshot.as_str(), row))
            .collect();
        let leaning = self.leaning_layers()?;
        let mut wanted = Vec::new();
        for name in names_in(&inner.snapshots)? {
            let Some(id) = SnapshotId::parse(&name) else {
                continue;
            };
            let table = inner.db.read(|tables| tables.entries(&name))?;
            let table = table.and_then(|table| decode_table(&table));
            if table.is_none() || !known.contains_key(name.as_str()) {
                wanted.push((id, table));
            }
        }
        let proven = for_each(&wanted, |(id, table)| {
            self.prove(id, table.as_ref(), &leaning)
        })?;
        let mut count = 0;
        for ((id, _), proven) in wanted.iter().zip(proven) {
            let Some((diff_id, tar_size, table)) = proven else {
                continue;
            };
            let (created, created_nanos) = match known.get(id.as_str()) {
                Some(row) => (row.created, row.created_nanos),
                None => (time_of(&self.store.snapshot_path(id)), 0),
            };
            let layer = Layer {
                diff_id,
                content: layer_content_digest(&table.entries),
                snapshot: id.clone(),
                tar_size,
                created,
                created_nanos,
            };
            let encoded = encode_table(&table.entries, &table.implied);
            let disk = estimate_disk(&table.entries);
            let put = inner
                .db
                .write(|tables| tables.put_layer(&layer, &encoded, now(), disk));
            put?;
            count += 1;
        }
        Ok(count)
    }

    /// What is proven of a snapshot: it is the tar that its name says, or what an entry table that was left says.
    fn prove(
        &self,
        id: &SnapshotId,
        table: Option<&EntryTable>,
        leaning: &HashMap<SnapshotId, DiffId>,
    ) -> Result<Option<Proven>, FsckError> {
        let path = self.store.snapshot_path(id);
        let examined = match self.examiner.examine(&path) {
            Ok(examined) => examined,
            Err(ExamineError::Unreadable { .. }) => return Ok(None),
            Err(ExamineError::Failed(source)) => return Err(FsckError::Examine { path, source }),
        };
        if SnapshotId::of_layer(&examined.diff_id) == *id {
            let table = EntryTable {
                entries: examined.entries,
                implied: Vec::new(),
            };
            return Ok(Some((examined.diff_id, examined.tar_size, table)));
        }
        let is_as_told = |table: &&EntryTable| {
            differences(table, &examined.entries, self.examiner.limits()).is_empty()
        };
        let Some(table) = table.filter(is_as_told) else {
            return Ok(None);
        };
        let alone = || format!("sha256:{id}").parse().ok().map(DiffId);
        let diff_id = leaning.get(id).cloned().or_else(alone);
        Ok(diff_id.map(|diff_id| (diff_id, examined.tar_size, table.clone())))
    }

    /// Which layer a snapshot that leans on others is of: all configs in the store tell.
    fn leaning_layers(&self) -> Result<HashMap<SnapshotId, DiffId>, FsckError> {
        let mut layers = HashMap::new();
        for name in names_in(&self.store.inner.blobs)? {
            let Ok(digest) = format!("sha256:{name}").parse() else {
                continue;
            };
            let Some(config) = self.read_config(&digest) else {
                continue;
            };
            let mut below: Option<ChainId> = None;
            for diff_id in config.rootfs.diff_ids.into_iter().map(DiffId) {
                let chain_id = ChainId::extend(below.as_ref(), &diff_id);
                layers.insert(SnapshotId::of_chain(&chain_id), diff_id);
                below = Some(chain_id);
            }
        }
        Ok(layers)
    }

    fn recover_blobs(&self) -> Result<usize, FsckError> {
        let inner = &self.store.inner;
        let known = inner.db.read(|tables| tables.raw_blobs())?;
        let mut wanted: Vec<Digest> = Vec::new();
        for name in names_in(&inner.blobs)? {
            let text = format!("sha256:{name}");
            if let Ok(digest) = text.parse()
                && !known.iter().any(|(digest, _)| *digest == text)
            {
                wanted.push(digest);
            }
        }
        let found = for_each(&wanted, |digest| {
            Ok(hash(&self.store.blob_path(digest)).ok())
        })?;
        let mut count = 0;
        for (digest, found) in wanted.iter().zip(found) {
            if let Some((actual, size)) = found
                && actual == *digest
            {
                let put =
                    |db: &Db| db.write(|tables| tables.put_blob(digest.as_ref(), size, now()));
                put(&inner.db)?;
                count += 1;
            }
        }
        Ok(count)
    }

    /// Images of which only the name is left.
    fn recover_images(&mut self) -> Result<usize, FsckError> {
        self.read_inventory()?;
        let db = &self.store.inner.db;
        let tags = db.read(|tables| tables.raw_tags())?;
        let mut count = 0;
        for (_, id) in tags {
            let is_known = self.inventory.images.iter().any(|image| image.id == id);
            if let Ok(digest) = id.parse::<Digest>()
                && !is_known
                && let Some(row) = self.image_of_config(&digest)?
            {
                db.write(|tables| tables.put_image(&row))?;
                count += 1;
            }
        }
        Ok(count)
    }

    /// The image that a config describes, if all of its layers are there.
    fn image_of_config(&self, id: &Digest) -> Result<Option<ImageRow>, FsckError> {
        let is_whole = hash(&self.store.blob_path(id)).is_ok_and(|(actual, _)| actual == *id);
        let Some(config) = self.read_config(id).filter(|_| is_whole) else {
            return Ok(None);
        };
        let mut chain = Chain::empty();
        let mut below: Option<ChainId> = None;
        for diff_id in config.rootfs.diff_ids.into_iter().map(DiffId) {
            let chain_id = ChainId::extend(below.as_ref(), &diff_id);
            let names = [
                SnapshotId::of_layer(&diff_id),
                SnapshotId::of_chain(&chain_id),
            ];
            let layer = self.store.inner.db.read(|tables| {
                let [alone, leaning] = &names;
                match tables.layer(alone.as_str())? {
                    Some(layer) => Ok(Some(layer)),
                    None => tables.layer(leaning.as_str()),
                }
            });
            let layer: Result<_, crate::db::DbError> = layer;
            let Some(layer) = layer? else {
                return Ok(None);
            };
            chain = chain.with(layer);
            below = Some(chain_id);
        }
        let parts = [Some(config.os), Some(config.architecture), config.variant];
        let platform: Vec<String> = parts.into_iter().flatten().collect();
        Ok(Some(ImageRow {
            id: id.clone(),
            manifest: None,
            chain: chain.to_row(),
            created: now(),
            size: chain.tar_size(),
            platform: platform.join("/"),
            base: None,
        }))
    }
}

/// When a directory was last changed: the best that is left of the time when a layer was made.
fn time_of(path: &Path) -> i64 {
    std::fs::symlink_metadata(path).map_or(0, |metadata| metadata.mtime())
}
