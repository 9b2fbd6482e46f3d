//! What each layer of an image adds, changes and hides.
//!
//! Bytes that an upper layer replaces or deletes are shipped all the same: they are called *wasted*, and belong to the
//! layer that hides them, because its instruction is the one to change.

use std::collections::BTreeMap;
use std::ops::Bound;

use oci_spec::image::Digest;
use rbuild_cache::{Chain, ContentDigest, Entry, EntryKind, LayerError, Store};
use rbuild_frontend::image_config::ImageConfig;

use crate::images::{Images, ImagesError};

/// An image, layer by layer.
#[derive(Clone, Debug)]
pub struct ImageLayers {
    /// Digest of the config.
    pub image_id: Digest,
    /// Lowest first.
    pub layers: Vec<LayerView>,
}

/// One layer.
#[derive(Clone, Debug)]
pub struct LayerView {
    /// Digest of its uncompressed tar.
    pub diff_id: Digest,
    /// The instruction that made it, by the image's history; empty when that says nothing.
    pub created_by: String,
    /// Bytes of its uncompressed tar.
    pub size: u64,
    /// What it does to the layers below, in byte order of the paths.
    pub changes: Vec<Change>,
}

impl LayerView {
    /// How many changes are of this kind.
    pub fn count(&self, kind: ChangeKind) -> usize {
        let is_it = |change: &&Change| change.kind == kind;
        self.changes.iter().filter(is_it).count()
    }

    /// Bytes of lower layers that it hides.
    pub fn wasted(&self) -> u64 {
        self.changes.iter().map(|change| change.hidden).sum()
    }
}

/// What a layer does to one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Relative to the root; bytes, since image paths are not UTF-8.
    pub path: Vec<u8>,
    /// What is done.
    pub kind: ChangeKind,
    /// Bytes of the file in this layer.
    pub size: u64,
    /// Bytes of lower layers that nobody sees any more.
    pub hidden: u64,
}

/// What a layer does to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// It was not there.
    Added,
    /// It has other content, or is something else now.
    Changed,
    /// Its owner, mode or attributes were set; the content is below already and stored once more.
    Metadata,
    /// It is gone.
    Removed,
}

/// Why an image's layers can't be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayersError {
    /// The image.
    #[error(transparent)]
    Image(#[from] ImagesError),
    /// The store.
    #[error("cannot read what layer {diff_id} has")]
    Layer {
        /// Which.
        diff_id: Digest,
        /// Why.
        #[source]
        source: Box<LayerError>,
    },
}

/// What the layers below have under a path.
#[derive(Clone, Copy)]
enum Below {
    Directory,
    File(u64, ContentDigest),
    Other,
}

/// The merged view of the layers so far.
#[derive(Default)]
struct View(BTreeMap<Vec<u8>, Below>);

impl View {
    /// Removes everything beneath `path`; gives the bytes that were seen there.
    fn empty(&mut self, path: &[u8]) -> u64 {
        let mut start = path.to_vec();
        if !start.is_empty() {
            start.push(b'/');
        }
        let range = (Bound::Excluded(start.clone()), Bound::Unbounded);
        let beneath: Vec<Vec<u8>> = self
            .0
            .range(range)
            .map(|(path, _)| path)
            .take_while(|path| path.starts_with(&start))
            .cloned()
            .collect();
        beneath.iter().map(|path| self.take(path)).sum()
    }

    fn take(&mut self, path: &[u8]) -> u64 {
        match self.0.remove(path) {
            Some(Below::File(size, _)) => size,
            _ => 0,
        }
    }

    /// Puts an entry on top and says what that changes; none for a directory that was one before.
    fn apply(&mut self, entry: &Entry) -> Option<Change> {
        let path = entry.path.as_slice();
        let was = self.0.get(path).copied();
        let change = |kind, size, hidden| {
            Some(Change {
                path: path.to_vec(),
                kind,
                size,
                hidden,
            })
        };
        let over = match was {
            Some(_) => ChangeKind::Changed,
            None => ChangeKind::Added,
        };
        match &entry.kind {
            EntryKind::Whiteout => {
                was?;
                let hidden = self.empty(path) + self.take(path);
                change(ChangeKind::Removed, 0, hidden)
            }
            EntryKind::Directory { is_opaque } => {
                let hidden = match was {
                    Some(Below::Directory) if *is_opaque => self.empty(path),
                    Some(Below::Directory) | None => 0,
                    Some(Below::File(..) | Below::Other) => self.take(path),
                };
                self.0.insert(path.to_vec(), Below::Directory);
                match was {
                    Some(Below::Directory) if hidden == 0 => None,
                    _ => change(over, 0, hidden),
                }
            }
            EntryKind::File { size, digest } => {
                let hidden = self.empty(path) + self.take(path);
                self.0.insert(path.to_vec(), Below::File(*size, *digest));
                let is_same = matches!(was, Some(Below::File(_, below)) if below == *digest);
                let kind = if is_same { ChangeKind::Metadata } else { over };
                change(kind, *size, hidden)
            }
            _ => {
                let hidden = self.empty(path) + self.take(path);
                self.0.insert(path.to_vec(), Below::Other);
                change(over, 0, hidden)
            }
        }
    }

    fn apply_layer(&mut self, entries: &[Entry]) -> Vec<Change> {
        // Deletions first: a layer may delete a name and make it again.
        let is_whiteout = |entry: &&Entry| entry.kind == EntryKind::Whiteout;
        let (gone, there): (Vec<&Entry>, Vec<&Entry>) = entries.iter().partition(is_whiteout);
        let mut changes: Vec<Change> = gone
            .into_iter()
            .chain(there)
            .filter(|entry| !entry.path.is_empty())
            .filter_map(|entry| self.apply(entry))
            .collect();
        changes.sort_by(|one, other| one.path.cmp(&other.path));
        changes
    }
}

/// The layers of an image of the store, by name or id. Blocks.
pub fn layers_of(images: &Images, store: &Store, name: &str) -> Result<ImageLayers, LayersError> {
    let (record, config) = images.find(name)?;
    let made_by = instructions(&config);
    let mut view = View::default();
    let mut layers = Vec::new();
    for (index, layer) in record.chain.iter().enumerate() {
        let diff_id = layer.diff_id.as_digest().clone();
        let entries = store
            .entries(&layer.snapshot)
            .map_err(|source| LayersError::Layer {
                diff_id: diff_id.clone(),
                source: Box::new(source),
            })?;
        layers.push(LayerView {
            diff_id,
            created_by: made_by.get(index).cloned().unwrap_or_default(),
            size: layer.tar_size,
            changes: view.apply_layer(&entries),
        });
    }
    Ok(ImageLayers {
        image_id: record.config_digest,
        layers,
    })
}

/// The instruction of each layer, by the history.
pub(crate) fn instructions(config: &ImageConfig) -> Vec<String> {
    let with_layer = config.history.iter().filter(|entry| !entry.empty_layer);
    with_layer.map(|entry| entry.created_by.clone()).collect()
}

/// The largest of an image's layers from `first` on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LargestLayer {
    /// The instruction that made it.
    pub created_by: String,
    /// Bytes of its uncompressed tar.
    pub size: u64,
    /// Its largest file, and that one's bytes.
    pub file: Option<(Vec<u8>, u64)>,
}

/// The largest layer from `first` on; none when there is none.
pub(crate) fn largest(
    store: &Store,
    config: &ImageConfig,
    chain: &Chain,
    first: usize,
) -> Option<LargestLayer> {
    let layers = chain.iter().enumerate().skip(first);
    let (index, layer) = layers.max_by_key(|(_, layer)| layer.tar_size)?;
    // What can't be read now was read a moment ago; the build is worth more than a line about it.
    let entries = store.entries(&layer.snapshot).ok();
    let files = entries.iter().flat_map(|entries| entries.iter());
    let file = files
        .filter_map(|entry| match entry.kind {
            EntryKind::File { size, .. } => Some((entry.path.clone(), size)),
            _ => None,
        })
        .max_by_key(|(_, size)| *size);
    Some(LargestLayer {
        created_by: instructions(config).get(index).cloned().unwrap_or_default(),
        size: layer.tar_size,
        file,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: EntryKind) -> Entry {
        Entry {
            path: path.into(),
            kind,
            mode: 0o644,
            uid: 0,
            gid: 0,
            xattrs: Vec::new(),
            mtime: (0, 0),
        }
    }

    fn file(path: &str, size: u64, content: u8) -> Entry {
        let digest = ContentDigest([content; 32]);
        entry(path, EntryKind::File { size, digest })
    }

    fn directory(path: &str, is_opaque: bool) -> Entry {
        entry(path, EntryKind::Directory { is_opaque })
    }

    fn show(changes: &[Change]) -> Vec<String> {
        let line = |change: &Change| {
            let path = String::from_utf8_lossy(&change.path);
            format!("{:?} {path} {} {}", change.kind, change.size, change.hidden)
        };
        changes.iter().map(line).collect()
    }

    #[test]
    fn layers_add_change_and_hide() {
        let mut view = View::default();
        let first = [
            directory("etc", false),
            file("etc/a", 10, 1),
            file("etc/b", 20, 2),
            directory("var", false),
            directory("var/cache", false),
            file("var/cache/x", 100, 3),
            file("var/cache.txt", 5, 3),
        ];
        assert_eq!(
            show(&view.apply_layer(&first)),
            [
                "Added etc 0 0",
                "Added etc/a 10 0",
                "Added etc/b 20 0",
                "Added var 0 0",
                "Added var/cache 0 0",
                "Added var/cache.txt 5 0",
                "Added var/cache/x 100 0",
            ]
        );
        let second = [
            directory("", false),
            directory("etc", false),
            file("etc/a", 11, 4),
            file("etc/b", 20, 2),
            directory("var", false),
            entry("var/cache", EntryKind::Whiteout),
            entry("nothing", EntryKind::Whiteout),
        ];
        assert_eq!(
            show(&view.apply_layer(&second)),
            [
                "Changed etc/a 11 10",
                "Metadata etc/b 20 20",
                "Removed var/cache 0 100",
            ]
        );
        let third = [
            directory("etc", true),
            entry(
                "var",
                EntryKind::Symlink {
                    target: b"etc".to_vec(),
                },
            ),
        ];
        assert_eq!(
            show(&view.apply_layer(&third)),
            ["Changed etc 0 31", "Changed var 0 5"]
        );
        // What is gone is not counted again.
        assert_eq!(
            show(&view.apply_layer(&[entry("etc", EntryKind::Whiteout)])),
            ["Removed etc 0 0"]
        );
    }

    #[test]
    fn a_name_that_is_deleted_and_made_again_is_both() {
        let mut view = View::default();
        view.apply_layer(&[directory("d", false), file("d/x", 7, 1)]);
        let changes = view.apply_layer(&[
            directory("d", false),
            file("d/y", 1, 2),
            entry("d", EntryKind::Whiteout),
        ]);
        assert_eq!(
            show(&changes),
            ["Removed d 0 7", "Added d 0 0", "Added d/y 1 0"]
        );
    }
}
