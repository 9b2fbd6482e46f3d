//! Rows that name other things: images, names, steps, notes, cache mounts, what was kept of failed steps.

use std::collections::{HashMap, HashSet};

use oci_spec::image::Digest;
use serde::Deserialize;

use super::FsckError;
use super::check::{Check, LOST_KEPT, origin, title};
use super::report::{Cure, Damage, DamageKind, Dependant, Healing, Problem};
use crate::db::{ImageUse, Inventory, MountUse, RawPacked};
use crate::record::KeyPart;
use crate::store::DATABASE;

/// Largest config that is read: registries refuse larger manifests and configs.
const MAX_CONFIG: u64 = 8 << 20;

/// Of an image's config: what its layers are.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Config {
    #[serde(default)]
    pub(super) rootfs: RootFs,
    #[serde(default)]
    pub(super) os: String,
    #[serde(default)]
    pub(super) architecture: String,
    #[serde(default)]
    pub(super) variant: Option<String>,
}

/// `rootfs` of an image's config.
#[derive(Debug, Default, Deserialize)]
pub(super) struct RootFs {
    #[serde(default)]
    pub(super) diff_ids: Vec<Digest>,
}

/// What is looked at.
struct Rows {
    inventory: Inventory,
    tags: Vec<(String, String)>,
    packed: Vec<RawPacked>,
    blobs: Vec<(String, i64)>,
    records: Vec<(i64, String, String)>,
}

impl Check<'_> {
    /// Looks at what rows say of one another, all as of one moment.
    pub(super) fn rows(&mut self) -> Result<(), FsckError> {
        let rows = (self.store.inner.db).read(|tables| {
            Ok::<_, FsckError>(Rows {
                inventory: tables.inventory()?,
                tags: tables.raw_tags()?,
                packed: tables.raw_packed()?,
                blobs: tables.raw_blobs()?,
                records: tables.raw_records()?,
            })
        })?;
        self.inventory = rows.inventory;
        self.report.checked.images = self.inventory.images.len();
        self.report.checked.steps = self.inventory.records.len();
        let mut found = Vec::new();
        self.images(&mut found);
        self.tags(&rows.tags, &mut found);
        self.steps(&rows.records, &mut found);
        self.notes(rows.packed, &rows.blobs, &mut found);
        self.cache_mounts();
        self.kept(&mut found);
        for damage in found {
            self.add(damage);
        }
        Ok(())
    }

    fn tags(&self, tags: &[(String, String)], found: &mut Vec<Damage>) {
        let images: HashSet<&str> = (self.inventory.images.iter())
            .map(|image| image.id.as_str())
            .collect();
        for (name, image) in tags
            .iter()
            .filter(|(_, image)| !images.contains(image.as_str()))
        {
            let problem = Problem::Needs {
                what: "image",
                id: image.clone(),
            };
            let cure = Cure::DropTag(name.clone());
            found.push(self.row(DamageKind::Tag, name, problem, Healing::Build, cure));
        }
    }

    fn steps(&self, records: &[(i64, String, String)], found: &mut Vec<Damage>) {
        for (id, title, parts) in records {
            if serde_json::from_str::<Vec<KeyPart>>(parts).is_err() {
                let problem = Problem::Row {
                    what: "what its key is made of",
                };
                let cure = Cure::DropRecord(*id);
                let mut damage = self.row(DamageKind::Step, title, problem, Healing::Run, cure);
                damage.needed_by = vec![Dependant::Step(title.clone())];
                found.push(damage);
            }
        }
    }

    fn images(&mut self, found: &mut Vec<Damage>) {
        let diff_ids: HashMap<&str, &str> = (self.inventory.layers.iter())
            .map(|layer| (layer.snapshot.as_str(), layer.diff_id.as_str()))
            .collect();
        let mut half_gone = Vec::new();
        for image in &self.inventory.images {
            let Some(problem) = self.judge_image(image, &diff_ids) else {
                continue;
            };
            let cure = Cure::DropImage(image.id.clone());
            // One without a name is nobody's: what is left of it goes with the next pruning.
            if image.tags.is_empty() && matches!(problem, Problem::Needs { .. }) {
                half_gone.push(cure);
                continue;
            }
            let mut damage = self.row(DamageKind::Image, &image.id, problem, Healing::Build, cure);
            damage.needed_by = vec![Dependant::Image(title(&image.tags, &image.id))];
            found.push(damage);
        }
        for cure in half_gone {
            self.note_gone(&self.store.root().join(DATABASE), cure);
        }
    }

    fn judge_image(&self, image: &ImageUse, diff_ids: &HashMap<&str, &str>) -> Option<Problem> {
        let needs = |what, id: &str| {
            Some(Problem::Needs {
                what,
                id: id.to_owned(),
            })
        };
        let is_gone = |name: &&String| {
            !diff_ids.contains_key(name.as_str()) || self.bad_snapshots.contains(name.as_str())
        };
        if image.chain.iter().any(|name| self.lost.contains(name)) || self.lost.contains(&image.id)
        {
            return None; // told as not synced
        }
        if let Some(name) = image.chain.iter().find(is_gone) {
            return needs("snapshot", name);
        }
        let Ok(id) = image.id.parse::<Digest>() else {
            return Some(Problem::Row { what: "its id" });
        };
        let has_row = self
            .inventory
            .blobs
            .iter()
            .any(|blob| blob.digest == image.id);
        if !has_row || self.bad_blobs.contains(&image.id) {
            return needs("config", &image.id);
        }
        let config = self.read_config(&id)?;
        let listed = config.rootfs.diff_ids.iter().map(AsRef::<str>::as_ref);
        let own = image.chain.iter().map(|name| diff_ids[name.as_str()]);
        (!listed.eq(own)).then_some(Problem::OtherLayers)
    }

    /// A config whose bytes have been verified; none when it went away, or is none.
    pub(super) fn read_config(&self, id: &Digest) -> Option<Config> {
        let path = self.store.blob_path(id);
        let size = std::fs::symlink_metadata(&path).ok()?.len();
        if size > MAX_CONFIG {
            return None;
        }
        serde_json::from_slice(&std::fs::read(&path).ok()?).ok()
    }

    /// What is noted of blobs: wrong notes would be shipped.
    fn notes(&self, packed: Vec<RawPacked>, blobs: &[(String, i64)], found: &mut Vec<Damage>) {
        let sizes: HashMap<&str, i64> = (blobs.iter())
            .map(|(digest, size)| (digest.as_str(), *size))
            .collect();
        for row in packed {
            let size = sizes.get(row.digest.as_str());
            let has_size = size.is_none_or(|size| row.size == *size);
            let is_unclamped = row.parameters.ends_with("/-");
            let what = if !is_digest(&row.digest) || !is_digest(&row.packed_diff_id) {
                "a digest"
            } else if !has_size {
                "size"
            } else if is_unclamped && row.packed_diff_id != row.diff_id {
                "diff_id"
            } else {
                continue;
            };
            let name = format!("packed layer {}", row.diff_id);
            let problem = Problem::Row { what };
            let cure = Cure::DropPacked(row);
            found.push(self.row(DamageKind::Note, &name, problem, Healing::Pack, cure));
        }
        for (diff_id, digest, locations) in &self.inventory.originals {
            if origin(diff_id, digest, locations).is_none() {
                let name = format!("origin of layer {diff_id}");
                let problem = Problem::Row {
                    what: "a digest or place",
                };
                let cure = Cure::DropOriginal(diff_id.clone());
                found.push(self.row(DamageKind::Note, &name, problem, Healing::Needless, cure));
            }
        }
        for (reference, manifest) in &self.inventory.references {
            if !is_digest(manifest) {
                let name = format!("reference {reference}");
                let problem = Problem::Row { what: "a digest" };
                let cure = Cure::DropReference(reference.clone());
                found.push(self.row(DamageKind::Note, &name, problem, Healing::Needless, cure));
            }
        }
    }

    /// One without its directory begins empty, as it would have if it had been pruned.
    fn cache_mounts(&mut self) {
        let path_of = |mount: &MountUse| self.store.inner.mounts.join(&mount.directory);
        let gone: Vec<String> = (self.inventory.mounts.iter())
            .filter(|mount| !path_of(mount).is_dir())
            .map(|mount| mount.directory.clone())
            .collect();
        for directory in gone {
            let path = self.store.inner.mounts.join(&directory);
            self.note_gone(&path, Cure::DropMount(directory));
        }
    }

    /// What was kept of failed steps is of no use without its directory, or with one of its layers gone.
    fn kept(&mut self, found: &mut Vec<Damage>) {
        let (kept, snapshots) = (&self.store.inner.kept, &self.store.inner.snapshots);
        let layers: HashSet<&str> = (self.inventory.layers.iter())
            .map(|layer| layer.snapshot.as_str())
            .collect();
        let is_gone = |name: &String| {
            !layers.contains(name.as_str())
                || self.bad_snapshots.contains(name.as_str())
                || !snapshots.join(name).is_dir()
        };
        let mut gone = Vec::new();
        for row in &self.inventory.kept {
            let cure = Cure::DropKept(row.name.clone());
            if self.lost.contains(&format!("{LOST_KEPT}{}", row.name)) {
                continue; // told as not synced
            }
            if !row.has_plain_name() || row.snapshot_ids().is_none() {
                let problem = Problem::Row { what: "a name" };
                let name = format!("failed step {}", row.title);
                found.push(self.row(DamageKind::Note, &name, problem, Healing::Needless, cure));
            } else if !kept.join(&row.name).is_dir() || row.snapshots.iter().any(is_gone) {
                gone.push((kept.join(&row.name), cure));
            }
        }
        for (path, cure) in gone {
            self.note_gone(&path, cure);
        }
    }

    fn row(
        &self,
        kind: DamageKind,
        id: &str,
        problem: Problem,
        healing: Healing,
        cure: Cure,
    ) -> Damage {
        Damage {
            kind,
            id: id.to_owned(),
            path: self.store.root().join(DATABASE),
            problems: vec![problem],
            needed_by: Vec::new(),
            healing,
            is_repaired: false,
            cure,
        }
    }
}

fn is_digest(text: &str) -> bool {
    text.parse::<Digest>().is_ok()
}
