//! What the store takes on its disk, by kind.
//!
//! Every file below the root is counted by what the disk gives it, once, however many names it has: the sum is what
//! `du -sx` says.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use super::{GcError, Holds, Kind, PruneOptions, STAT_CACHE_TITLE};
use crate::db::{self, Inventory};
use crate::kept::KEPT;
use crate::remove::Counted;
use crate::step_log::LOGS;
use crate::store::{DATABASE, Store, now};

/// What a store takes.
#[derive(Clone, Debug)]
pub struct DiskUse {
    /// By kind, in the order of [`Kind::ALL`].
    pub kinds: Vec<KindUse>,
    /// One by one: images, steps, cache mounts, failed steps, blobs, stat caches.
    pub items: Vec<ItemUse>,
    /// Bytes of everything.
    pub total: u64,
}

/// What one kind of things takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindUse {
    /// Which.
    pub kind: Kind,
    /// How many there are; of the database, its files.
    pub count: usize,
    /// Bytes on the disk.
    pub bytes: u64,
    /// Bytes of them that pruning would free now, leaving images with names alone.
    pub reclaimable: u64,
}

/// What one thing takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemUse {
    /// What it is.
    pub kind: Kind,
    /// A digest, or the directory of a snapshot, a cache mount or a failed step.
    pub id: String,
    /// What people call it.
    pub title: String,
    /// Bytes on the disk, of an image with all its layers.
    pub bytes: u64,
    /// Bytes of them that something else has, too: layers of several images, or of images and steps.
    pub shared: u64,
    /// Seconds since the epoch, at most an hour late.
    pub used: i64,
    /// A running build has it.
    pub is_in_use: bool,
    /// Pruning would remove it now.
    pub is_reclaimable: bool,
}

/// Sizes of everything below the root, by path from it.
struct Sizes(HashMap<PathBuf, u64>);

impl Sizes {
    fn of(&self, directory: &str, name: &str) -> u64 {
        let path = PathBuf::from(directory).join(name);
        self.0.get(&path).copied().unwrap_or(0)
    }
}

impl Store {
    /// Measures the whole store. Walks every file of it.
    pub fn disk_use(&self) -> Result<DiskUse, GcError> {
        let inner = &self.inner;
        let sizes = self.measure_all()?;
        let holds = inner.holds()?;
        let inventory = inner.db.read(|tables| tables.inventory())?;
        self.note_sizes(&inventory, &sizes)?;
        let pruned = self.plan_prune(&PruneOptions::default())?;
        let goes: HashSet<(Kind, &str)> = (pruned.items.iter())
            .filter(|item| item.bytes > 0 || item.kind == Kind::Image)
            .map(|item| (item.kind, item.id.as_str()))
            .collect();
        let items = items(&inventory, &sizes, &holds, &goes, &inner.stat_caches()?);
        let total = sizes.0.values().sum();
        Ok(DiskUse {
            kinds: kinds(&inventory, &sizes, &items, &goes, total),
            items,
            total,
        })
    }

    /// Measures every directory and file that is one thing.
    fn measure_all(&self) -> Result<Sizes, GcError> {
        let inner = &self.inner;
        let mut parts: Vec<PathBuf> = Vec::new();
        let mut shells = vec![PathBuf::new()];
        for directory in [
            "blobs/sha256",
            "snapshots",
            "mounts",
            "statcache",
            "work",
            "logs",
            "locks",
            KEPT,
        ] {
            shells.push(directory.into());
        }
        shells.push("blobs".into());
        for shell in &shells {
            let path = inner.root.join(shell);
            let listed =
                std::fs::read_dir(&path).map_err(|source| GcError::Read { path, source })?;
            for entry in listed.filter_map(Result::ok) {
                let part = shell.join(entry.file_name());
                if !shells.contains(&part) {
                    parts.push(part);
                }
            }
        }
        let paths: Vec<PathBuf> = parts.iter().map(|part| inner.root.join(part)).collect();
        let measured = inner
            .remover
            .measure_trees(&paths)
            .map_err(|source| GcError::Measure {
                path: inner.root.clone(),
                source,
            })?;
        let mut counted = Counted::default();
        let mut sizes: HashMap<PathBuf, u64> = parts
            .into_iter()
            .zip(measured.iter().map(|size| counted.add(size)))
            .collect();
        for shell in shells {
            let own = std::fs::symlink_metadata(inner.root.join(&shell)).ok();
            sizes.insert(shell, own.map_or(0, |own| crate::remove::allocated(&own)));
        }
        Ok(Sizes(sizes))
    }

    /// What was measured is what pruning reckons with from now on.
    fn note_sizes(&self, inventory: &Inventory, sizes: &Sizes) -> Result<(), GcError> {
        let snapshots: Vec<(String, u64)> = (inventory.layers.iter())
            .map(|layer| (layer, sizes.of("snapshots", &layer.snapshot)))
            .filter(|(layer, bytes)| layer.disk != Some(*bytes) && *bytes > 0)
            .map(|(layer, bytes)| (layer.snapshot.clone(), bytes))
            .collect();
        let mounts: Vec<(String, u64)> = (inventory.mounts.iter())
            .map(|mount| (mount, sizes.of("mounts", &mount.directory)))
            .filter(|(mount, bytes)| mount.disk != Some(*bytes))
            .map(|(mount, bytes)| (mount.directory.clone(), bytes))
            .collect();
        let kept: Vec<(String, u64)> = (inventory.kept.iter())
            .map(|row| (row, sizes.of(KEPT, &row.name)))
            .filter(|(row, bytes)| row.disk != Some(*bytes))
            .map(|(row, bytes)| (row.name.clone(), bytes))
            .collect();
        let measured = db::Sizes {
            snapshots,
            mounts,
            kept,
        };
        if measured.is_empty() {
            return Ok(());
        }
        let noted = (self.inner.db).write(|tables| tables.put_sizes(&measured));
        match noted {
            Err(error) if !error.is_full() => Err(error.into()),
            _ => Ok(()),
        }
    }
}

fn blob_name(digest: &str) -> &str {
    digest.trim_start_matches("sha256:")
}

fn items(
    inventory: &Inventory,
    sizes: &Sizes,
    holds: &Holds,
    goes: &HashSet<(Kind, &str)>,
    stat_caches: &[(String, u64, i64)],
) -> Vec<ItemUse> {
    let mut users: HashMap<&str, usize> = HashMap::new();
    for image in &inventory.images {
        let layers: HashSet<&str> = image.chain.iter().map(String::as_str).collect();
        for name in layers {
            *users.entry(name).or_default() += 1;
        }
    }
    let of_images: HashSet<&str> = users.keys().copied().collect();
    let titles = titles(inventory);
    let mut items = Vec::new();
    for image in &inventory.images {
        let layers: HashSet<&str> = image.chain.iter().map(String::as_str).collect();
        let bytes_of = |name: &&str| sizes.of("snapshots", name);
        let bytes: u64 = layers.iter().map(bytes_of).sum();
        let shared =
            (layers.iter()).filter(|name| users[**name] > 1 || titles.contains_key(**name));
        let used = (inventory.layers.iter())
            .filter(|layer| image.chain.last() == Some(&layer.snapshot))
            .map(|layer| layer.used)
            .fold(image.created, i64::max);
        items.push(ItemUse {
            kind: Kind::Image,
            id: image.id.clone(),
            title: image.tags.join(", "),
            bytes: bytes + sizes.of("blobs/sha256", blob_name(&image.id)),
            shared: shared.map(bytes_of).sum(),
            used,
            is_in_use: (image.chain.last()).is_some_and(|top| holds.snapshots.contains(top)),
            is_reclaimable: goes.contains(&(Kind::Image, image.id.as_str())),
        });
    }
    for layer in &inventory.layers {
        let name = layer.snapshot.as_str();
        let bytes = sizes.of("snapshots", name);
        items.push(ItemUse {
            kind: Kind::Step,
            id: name.to_owned(),
            title: titles.get(name).map_or_else(
                || "a layer that was pulled or stands alone".to_owned(),
                |title| (*title).to_owned(),
            ),
            bytes,
            shared: if of_images.contains(name) { bytes } else { 0 },
            used: layer.used,
            is_in_use: holds.snapshots.contains(name),
            is_reclaimable: goes.contains(&(Kind::Step, name)),
        });
    }
    for mount in &inventory.mounts {
        items.push(ItemUse {
            kind: Kind::CacheMount,
            id: mount.directory.clone(),
            title: mount.title.clone(),
            bytes: sizes.of("mounts", &mount.directory),
            shared: 0,
            used: mount.used,
            is_in_use: holds.mounts.contains(&mount.directory),
            is_reclaimable: goes.contains(&(Kind::CacheMount, mount.directory.as_str())),
        });
    }
    for row in &inventory.kept {
        items.push(ItemUse {
            kind: Kind::Kept,
            id: row.name.clone(),
            title: row.title.clone(),
            bytes: sizes.of(KEPT, &row.name),
            shared: 0,
            used: row.created,
            is_in_use: holds.kept.contains(&row.name),
            is_reclaimable: goes.contains(&(Kind::Kept, row.name.as_str())),
        });
    }
    let of_images: HashSet<&str> = (inventory.images.iter())
        .flat_map(|image| std::iter::once(image.id.as_str()).chain(image.manifest.as_deref()))
        .collect();
    let blobs = inventory.blobs.iter();
    for blob in blobs.filter(|blob| !of_images.contains(blob.digest.as_str())) {
        items.push(ItemUse {
            kind: Kind::Blob,
            id: blob.digest.clone(),
            title: inventory.title_of_blob(&blob.digest),
            bytes: sizes.of("blobs/sha256", blob_name(&blob.digest)),
            shared: 0,
            used: blob.used,
            is_in_use: holds.blobs.contains(&blob.digest),
            is_reclaimable: goes.contains(&(Kind::Blob, blob.digest.as_str())),
        });
    }
    for (name, _, saved) in stat_caches {
        items.push(ItemUse {
            kind: Kind::StatCache,
            id: name.clone(),
            title: STAT_CACHE_TITLE.to_owned(),
            bytes: sizes.of("statcache", name),
            shared: 0,
            used: *saved,
            is_in_use: false,
            is_reclaimable: goes.contains(&(Kind::StatCache, name.as_str())),
        });
    }
    items
}

/// The newest step whose result ends with a snapshot.
fn titles(inventory: &Inventory) -> BTreeMap<&str, &str> {
    let mut titles = BTreeMap::new();
    for record in &inventory.records {
        if let Some(top) = record.chain.last() {
            titles.insert(top.as_str(), record.title.as_str());
        }
    }
    titles
}

fn kinds(
    inventory: &Inventory,
    sizes: &Sizes,
    items: &[ItemUse],
    goes: &HashSet<(Kind, &str)>,
    total: u64,
) -> Vec<KindUse> {
    let of_images: HashSet<&str> = (inventory.images.iter())
        .flat_map(|image| image.chain.iter().map(String::as_str))
        .collect();
    let configs: u64 = (inventory.images.iter())
        .flat_map(|image| std::iter::once(image.id.as_str()).chain(image.manifest.as_deref()))
        .collect::<HashSet<&str>>()
        .into_iter()
        .map(|digest| sizes.of("blobs/sha256", blob_name(digest)))
        .sum();
    let layers = |of_image: bool| -> Vec<(&str, u64)> {
        (inventory.layers.iter())
            .map(|layer| layer.snapshot.as_str())
            .filter(|name| of_images.contains(name) == of_image)
            .map(|name| (name, sizes.of("snapshots", name)))
            .collect()
    };
    let (in_images, in_steps) = (layers(true), layers(false));
    let below = |directory: &str| {
        let inside = sizes.0.iter().filter(|(path, _)| {
            path.parent() == Some(std::path::Path::new(directory)) && !path.as_os_str().is_empty()
        });
        inside.map(|(_, bytes)| *bytes).collect::<Vec<u64>>()
    };
    let database: Vec<u64> = ["", "-wal", "-shm"]
        .iter()
        .map(|suffix| sizes.of("", &format!("{DATABASE}{suffix}")))
        .filter(|bytes| *bytes > 0)
        .collect();
    let sum_of = |kind: Kind| {
        let of_kind = items.iter().filter(|item| item.kind == kind);
        of_kind.map(|item| item.bytes).sum::<u64>()
    };
    let reclaimable = |names: &[(&str, u64)]| {
        let gone = names
            .iter()
            .filter(|(name, _)| goes.contains(&(Kind::Step, *name)));
        gone.map(|(_, bytes)| bytes).sum::<u64>()
    };
    let flat = |kind: Kind| {
        let of_kind = items.iter().filter(move |item| item.kind == kind);
        KindUse {
            kind,
            count: of_kind.clone().count(),
            bytes: sum_of(kind),
            reclaimable: of_kind
                .filter(|item| item.is_reclaimable)
                .map(|item| item.bytes)
                .sum(),
        }
    };
    let sum = |sizes: &[(&str, u64)]| sizes.iter().map(|(_, bytes)| bytes).sum::<u64>();
    let known = vec![
        KindUse {
            kind: Kind::Image,
            count: inventory.images.len(),
            bytes: sum(&in_images) + configs,
            reclaimable: reclaimable(&in_images),
        },
        KindUse {
            kind: Kind::Step,
            count: inventory.records.len(),
            bytes: sum(&in_steps),
            reclaimable: reclaimable(&in_steps),
        },
        flat(Kind::CacheMount),
        flat(Kind::Kept),
        flat(Kind::Blob),
        flat(Kind::StatCache),
        plain(Kind::History, &below(LOGS)),
        plain(Kind::Work, &below("work")),
        plain(Kind::Database, &database),
    ];
    let named: u64 = known.iter().map(|kind| kind.bytes).sum();
    let other = KindUse {
        kind: Kind::Other,
        count: below("locks").len(),
        bytes: total.saturating_sub(named),
        reclaimable: 0,
    };
    known.into_iter().chain([other]).collect()
}

/// What is not pruned.
fn plain(kind: Kind, sizes: &[u64]) -> KindUse {
    KindUse {
        kind,
        count: sizes.len(),
        bytes: sizes.iter().sum(),
        reclaimable: 0,
    }
}

impl ItemUse {
    /// Seconds since it was used.
    pub fn age(&self) -> u64 {
        u64::try_from(now().saturating_sub(self.used)).unwrap_or(0)
    }
}
