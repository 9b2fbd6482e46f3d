//! Chains of layers: what a step leaves is what it stood on and one layer more.
//!
//! Chains that grew from one another share what they have in common: a build of a thousand steps has a thousand chains.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::db::{DbError, Tables};
use crate::digest::{ChainId, ContentDigest, DiffId};
use crate::layer::{Layer, SnapshotId, is_directory};
use crate::store::Store;

/// BLAKE3 context of [`Chain::content_chain`]. Changing it changes every result key.
const CHAIN_CONTEXT: &str = "rbuild 2026-11-23 content chain v1";

/// Ordered layers, lowest first. Cheap to clone and to put a layer on.
#[derive(Clone, Default)]
pub struct Chain {
    top: Option<Arc<Link>>,
}

struct Link {
    below: Chain,
    layer: Layer,
    /// How many layers there are up to this one.
    height: usize,
    /// See [`Chain::content_chain`].
    content: ContentDigest,
}

impl Chain {
    /// A chain without layers: `FROM scratch`.
    pub fn empty() -> Self {
        Self::default()
    }

    /// The layers, lowest first.
    pub fn layers(&self) -> Vec<&Layer> {
        let mut layers: Vec<&Layer> = self.downwards().map(|link| &link.layer).collect();
        layers.reverse();
        layers
    }

    /// Goes through the layers, lowest first.
    pub fn iter(&self) -> std::vec::IntoIter<&Layer> {
        self.layers().into_iter()
    }

    /// How many layers it has.
    pub fn len(&self) -> usize {
        self.top.as_ref().map_or(0, |link| link.height)
    }

    /// True for one without layers.
    pub fn is_empty(&self) -> bool {
        self.top.is_none()
    }

    /// Bytes of its layers' uncompressed tars.
    pub fn tar_size(&self) -> u64 {
        self.downwards().map(|link| link.layer.tar_size).sum()
    }

    /// The highest layer.
    pub fn top(&self) -> Option<&Layer> {
        self.top.as_ref().map(|link| &link.layer)
    }

    /// This chain with one more layer on top.
    #[must_use]
    pub fn with(&self, layer: Layer) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(CHAIN_CONTEXT);
        hasher
            .update(&self.content_chain().0)
            .update(layer.content.as_bytes());
        let link = Link {
            below: self.clone(),
            layer,
            height: self.len() + 1,
            content: ContentDigest(*hasher.finalize().as_bytes()),
        };
        Self {
            top: Some(Arc::new(link)),
        }
    }

    /// The diff_ids, lowest first.
    pub fn diff_ids(&self) -> Vec<DiffId> {
        self.iter().map(|layer| layer.diff_id.clone()).collect()
    }

    /// The chain_id of the image spec; none for an empty chain, which has none.
    pub fn chain_id(&self) -> Option<ChainId> {
        self.iter().fold(None, |parent: Option<ChainId>, layer| {
            Some(ChainId::extend(parent.as_ref(), &layer.diff_id))
        })
    }

    /// The same fold over content digests: what result keys take for a parent. An empty chain has a fixed value.
    pub fn content_chain(&self) -> ContentDigest {
        if let Some(link) = &self.top {
            return link.content;
        }
        let empty = blake3::Hasher::new_derive_key(CHAIN_CONTEXT).finalize();
        ContentDigest(*empty.as_bytes())
    }

    /// The snapshot directories, lowest first, each once: overlayfs refuses a directory that stands in it twice.
    ///
    /// Of equal layers the highest stays, which changes nothing: it hides or replaces whatever the lower one does.
    pub fn snapshot_paths(&self, store: &Store) -> Vec<PathBuf> {
        let mut seen = HashSet::new();
        let mut paths: Vec<PathBuf> = self
            .downwards()
            .filter(|link| seen.insert(&link.layer.snapshot))
            .map(|link| store.snapshot_path(&link.layer.snapshot))
            .collect();
        paths.reverse();
        paths
    }

    /// The snapshots of all `chains`. What they share is gone through once.
    pub(crate) fn snapshots_of<'chain>(
        chains: impl IntoIterator<Item = &'chain Self>,
    ) -> BTreeSet<&'chain SnapshotId> {
        let mut seen = HashSet::new();
        let mut snapshots = BTreeSet::new();
        for chain in chains {
            let new = |link: &&Link| seen.insert(std::ptr::from_ref::<Link>(link));
            snapshots.extend(
                chain
                    .downwards()
                    .take_while(new)
                    .map(|link| &link.layer.snapshot),
            );
        }
        snapshots
    }

    /// As it stands in the database: a line a layer, `SNAPSHOT SECONDS NANOSECONDS`.
    ///
    /// The time is the chain's own: equal layers share a snapshot, but were made at different times.
    pub(crate) fn to_row(&self) -> String {
        use std::fmt::Write as _;
        let mut row = String::with_capacity(self.len() * 90);
        for layer in self.layers() {
            // Writing to a string can't fail.
            let _ = writeln!(
                row,
                "{} {} {}",
                layer.snapshot, layer.created, layer.created_nanos
            );
        }
        row
    }

    /// From the highest to the lowest.
    fn downwards(&self) -> impl Iterator<Item = &Link> {
        std::iter::successors(self.top.as_deref(), |link| link.below.top.as_deref())
    }
}

impl Drop for Link {
    /// One after the other: a chain may be longer than the stack is deep.
    fn drop(&mut self) {
        let mut below = self.below.top.take();
        while let Some(mut link) = below.and_then(Arc::into_inner) {
            below = link.below.top.take();
        }
    }
}

impl FromIterator<Layer> for Chain {
    fn from_iter<Layers: IntoIterator<Item = Layer>>(layers: Layers) -> Self {
        layers
            .into_iter()
            .fold(Self::empty(), |chain, layer| chain.with(layer))
    }
}

impl<'chain> IntoIterator for &'chain Chain {
    type Item = &'chain Layer;
    type IntoIter = std::vec::IntoIter<&'chain Layer>;

    /// Lowest first.
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Extend<Layer> for Chain {
    fn extend<Layers: IntoIterator<Item = Layer>>(&mut self, layers: Layers) {
        for layer in layers {
            *self = self.with(layer);
        }
    }
}

impl PartialEq for Chain {
    fn eq(&self, other: &Self) -> bool {
        let differ = |(one, two): &(&Link, &Link)| {
            // The same from here downwards.
            !std::ptr::eq::<Link>(*one, *two)
        };
        self.len() == other.len()
            && (self.downwards().zip(other.downwards()))
                .take_while(differ)
                .all(|(one, two)| one.layer == two.layer)
    }
}

impl Eq for Chain {}

impl fmt::Debug for Chain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.layers()).finish()
    }
}

/// What chains were found to hold in one read of the database: most have most of their layers in common.
#[derive(Debug, Default)]
pub(crate) struct Present {
    /// Layers whose directories are there; their times are the layer's own.
    layers: HashMap<String, Layer>,
    /// The row that was read last, and its chain: the next one often begins with it.
    last: (String, Chain),
}

impl Store {
    /// The layers of a chain's row, when all of them are present. What is in `present` was looked for already.
    pub(crate) fn present_chain(
        &self,
        tables: &Tables<'_>,
        row: &str,
        present: &mut Present,
    ) -> Result<Result<Chain, SnapshotId>, DbError> {
        let (mut chain, new) = match row.strip_prefix(present.last.0.as_str()) {
            Some(new) => (present.last.1.clone(), new),
            None => (Chain::empty(), row),
        };
        for line in new.lines() {
            let mut words = line.split(' ');
            let name = words.next().unwrap_or_default();
            let created = words.next().and_then(|word| word.parse().ok());
            let created_nanos = words.next().and_then(|word| word.parse().ok());
            let layer = self.present_layer(tables, name, present)?;
            let (Some(layer), Some(created), Some(created_nanos)) = (layer, created, created_nanos)
            else {
                return Ok(Err(SnapshotId::as_named(name)));
            };
            chain = chain.with(Layer {
                created,
                created_nanos,
                ..layer
            });
        }
        present.last = (row.to_owned(), chain.clone());
        Ok(Ok(chain))
    }

    fn present_layer(
        &self,
        tables: &Tables<'_>,
        name: &str,
        present: &mut Present,
    ) -> Result<Option<Layer>, DbError> {
        if let Some(layer) = present.layers.get(name) {
            return Ok(Some(layer.clone()));
        }
        let layer = tables
            .layer(name)?
            .filter(|layer| is_directory(&self.snapshot_path(&layer.snapshot)));
        if let Some(layer) = &layer {
            present.layers.insert(name.to_owned(), layer.clone());
        }
        Ok(layer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: u8) -> Layer {
        let digest = format!("sha256:{}", format!("{name:02x}").repeat(32));
        let diff_id = DiffId(digest.parse().unwrap());
        Layer {
            snapshot: SnapshotId::of_layer(&diff_id),
            diff_id,
            content: ContentDigest([name; 32]),
            tar_size: 1024,
            created: name.into(),
            created_nanos: 0,
        }
    }

    #[test]
    fn a_chain_is_its_layers_however_it_was_made() {
        let (one, two, three) = (layer(1), layer(2), layer(3));
        let grown = Chain::empty().with(one.clone()).with(two.clone());
        let collected: Chain = [one.clone(), two.clone()].into_iter().collect();
        assert_eq!(grown, collected);
        assert_eq!(grown.layers(), [&one, &two]);
        assert_eq!((grown.len(), grown.top()), (2, Some(&two)));
        assert_eq!(grown.content_chain(), collected.content_chain());
        assert_ne!(grown, grown.with(three.clone()));
        assert_ne!(grown.with(three.clone()), grown.with(one.clone()));
        let reversed: Chain = [two, one].into_iter().collect();
        assert_ne!(grown, reversed);
        assert_ne!(grown.content_chain(), reversed.content_chain());
        assert!(Chain::empty().is_empty() && Chain::empty().top().is_none());
    }

    #[test]
    fn chains_that_share_layers_name_each_snapshot_once() {
        let below: Chain = (1..=3).map(layer).collect();
        let (one, two) = (below.with(layer(4)), below.with(layer(5)).with(layer(4)));
        let snapshots = Chain::snapshots_of([&one, &two, &below]);
        let wanted: Vec<Layer> = (1..=5).map(layer).collect();
        assert_eq!(
            snapshots,
            wanted.iter().map(|layer| &layer.snapshot).collect()
        );
    }

    /// As deep as no stack is.
    #[test]
    fn a_long_chain_is_let_go_layer_by_layer() {
        let chain: Chain = (0..300_000).map(|_| layer(1)).collect();
        let longer = chain.with(layer(2));
        assert_eq!(longer.len(), 300_001);
        drop(chain);
        drop(longer);
    }
}
