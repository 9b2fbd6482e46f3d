//! From a resolved image to a chain of snapshots.
//!
//! All layers that are missing are fetched and unpacked at the same time, each by itself. A layer that leans on lower ones
//! (implied parents, hard links into lower layers) is then completed in chain order and kept for that chain only.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use oci_spec::image::Descriptor;
use rbuild_cache::{
    Chain, ChainId, DiffId, Layer, LayerRecord, Lease, OriginalBlob, SnapshotId, Store,
};
use rbuild_runner::job::{CompleteJob, UnpackJob, UnpackOutcome};

use super::{BaseLayers, ImageSources, Origin, PullError, ResolvedBase};
use crate::tasks::Task;
use crate::timestamp::Timestamp;
use crate::{blocking, convert, manifest};

/// Layers that are fetched or unpacked at once; fetching alone has its own, narrower limit in the client.
const LAYERS_AT_ONCE: usize = 6;

/// A layer that lies unpacked in the lease's directory.
#[derive(Debug)]
struct Unpacked {
    target: PathBuf,
    outcome: UnpackOutcome,
}

/// One position of the chain that is being made.
struct Wanted<'a> {
    number: usize,
    diff_id: DiffId,
    chain_id: ChainId,
    descriptor: &'a Descriptor,
}

impl ImageSources {
    /// Makes the layers of an image present and holds them under the lease. Nothing is fetched for layers whose
    /// snapshots are there.
    pub async fn chain(&self, base: &ResolvedBase, lease: &Lease) -> Result<Chain, PullError> {
        let chain = match &base.layers {
            BaseLayers::Present(chain) => chain.clone(),
            BaseLayers::Blobs {
                descriptors,
                origin,
            } => {
                self.chain_of_blobs(base, descriptors, origin, lease)
                    .await?
            }
        };
        let (lease, held) = (lease.clone(), chain.clone());
        blocking::run(move || lease.hold(&held)).await?;
        Ok(chain)
    }

    async fn chain_of_blobs(
        &self,
        base: &ResolvedBase,
        descriptors: &[Descriptor],
        origin: &Origin,
        lease: &Lease,
    ) -> Result<Chain, PullError> {
        let wanted = positions(base, descriptors);
        let present = self.present(&wanted, origin).await?;
        let created = base
            .config
            .created
            .as_deref()
            .and_then(Timestamp::parse)
            .unwrap_or(Timestamp::EPOCH);
        if let Some(chain) = present.iter().cloned().collect::<Option<Chain>>() {
            return Ok(chain);
        }
        let task = Arc::new(self.tasks.start(format!("{} {}", origin.verb(), base.name)));
        let made = async {
            let unpacked = self
                .unpack_missing(base, &wanted, &present, origin, lease, &task)
                .await?;
            self.complete_chain(base, &wanted, present, unpacked, created, lease)
                .await
        };
        let made = made.await;
        if let Some(task) = Arc::into_inner(task) {
            task.finish(&made, |chain| match chain.len() {
                1 => "1 layer".to_owned(),
                count => format!("{count} layers"),
            });
        }
        made
    }

    /// The layers that have a snapshot already, by position. Notes where their blobs can be had.
    async fn present(
        &self,
        wanted: &[Wanted<'_>],
        origin: &Origin,
    ) -> Result<Vec<Option<Layer>>, PullError> {
        let facts: Vec<(DiffId, ChainId, Option<OriginalBlob>)> = wanted
            .iter()
            .map(|wanted| {
                (
                    wanted.diff_id.clone(),
                    wanted.chain_id.clone(),
                    original_of(wanted, origin),
                )
            })
            .collect();
        let store = self.store.clone();
        blocking::run(move || {
            facts
                .into_iter()
                .map(|(diff_id, chain_id, original)| {
                    if let Some(original) = original {
                        note_location(&store, &diff_id, &original)?;
                    }
                    match store.layer_by_diff_id(&diff_id)? {
                        Some(layer) => Ok(Some(layer)),
                        None => Ok(store.layer(&SnapshotId::of_chain(&chain_id))?),
                    }
                })
                .collect()
        })
        .await
    }

    /// Fetches and unpacks what is missing, every layer once however often the chain has it.
    async fn unpack_missing(
        &self,
        base: &ResolvedBase,
        wanted: &[Wanted<'_>],
        present: &[Option<Layer>],
        origin: &Origin,
        lease: &Lease,
        task: &Arc<Task>,
    ) -> Result<HashMap<DiffId, Unpacked>, PullError> {
        let mut missing: HashMap<&DiffId, &Wanted<'_>> = HashMap::new();
        for (wanted, present) in wanted.iter().zip(present) {
            if present.is_none() {
                missing.entry(&wanted.diff_id).or_insert(wanted);
            }
        }
        let mut missing: Vec<&Wanted<'_>> = missing.into_values().collect();
        missing.sort_by_key(|wanted| wanted.number);
        // A loop, not `map`: the compiler can't prove a closure over these borrows general enough for `spawn`.
        let mut made = Vec::with_capacity(missing.len());
        for wanted in missing {
            made.push(self.make_layer(base, wanted, origin, lease, task));
        }
        stream::iter(made)
            .buffer_unordered(LAYERS_AT_ONCE)
            .try_collect()
            .await
    }

    async fn make_layer(
        &self,
        base: &ResolvedBase,
        wanted: &Wanted<'_>,
        origin: &Origin,
        lease: &Lease,
        task: &Arc<Task>,
    ) -> Result<(DiffId, Unpacked), PullError> {
        self.fetch_layer(wanted.descriptor, origin, lease, task)
            .await?;
        let unpacked = self.unpack(base, wanted, lease).await?;
        // Now it is proven that this blob holds this layer.
        let (store, diff_id) = (self.store.clone(), wanted.diff_id.clone());
        if let Some(original) = original_of(wanted, origin) {
            blocking::run(move || store.record_original(&diff_id, &original)).await?;
        }
        Ok((wanted.diff_id.clone(), unpacked))
    }

    async fn unpack(
        &self,
        base: &ResolvedBase,
        wanted: &Wanted<'_>,
        lease: &Lease,
    ) -> Result<Unpacked, PullError> {
        let (own, store, digest) = (
            lease.clone(),
            self.store.clone(),
            wanted.descriptor.digest().clone(),
        );
        let (target, blob) = blocking::run(move || {
            Ok::<_, PullError>((own.scratch("unpack")?, store.blob_path(&digest)))
        })
        .await?;
        let job = UnpackJob {
            blob,
            target: target.clone(),
            diff_id: wanted.diff_id.to_string(),
        };
        let spawner = self.spawner.clone();
        let outcome = blocking::job(move || spawner.begin_unpack(job))
            .await
            .map_err(|source| PullError::Unpack {
                name: base.name.clone(),
                number: wanted.number,
                digest: wanted.descriptor.digest().clone(),
                source: Box::new(source),
            })?;
        Ok(Unpacked { target, outcome })
    }

    /// Commits the unpacked layers in chain order, completing those that lean on lower ones.
    async fn complete_chain(
        &self,
        base: &ResolvedBase,
        wanted: &[Wanted<'_>],
        present: Vec<Option<Layer>>,
        mut unpacked: HashMap<DiffId, Unpacked>,
        created: Timestamp,
        lease: &Lease,
    ) -> Result<Chain, PullError> {
        let mut chain = Chain::empty();
        for (wanted, present) in wanted.iter().zip(present) {
            let layer = match present {
                Some(layer) => layer,
                None => {
                    self.commit(base, wanted, &chain, &mut unpacked, created, lease)
                        .await?
                }
            };
            chain = chain.with(layer);
        }
        Ok(chain)
    }

    async fn commit(
        &self,
        base: &ResolvedBase,
        wanted: &Wanted<'_>,
        below: &Chain,
        unpacked: &mut HashMap<DiffId, Unpacked>,
        created: Timestamp,
        lease: &Lease,
    ) -> Result<Layer, PullError> {
        let Unpacked { target, outcome } = if let Some(unpacked) = unpacked.remove(&wanted.diff_id)
        {
            unpacked
        } else {
            // The chain has this layer a second time: it stands alone and was committed a moment ago, or leans on
            // what is below it, which is not the same as before.
            let (store, diff_id) = (self.store.clone(), wanted.diff_id.clone());
            if let Some(layer) = blocking::run(move || store.layer_by_diff_id(&diff_id)).await? {
                return Ok(layer);
            }
            self.unpack(base, wanted, lease).await?
        };
        let UnpackOutcome {
            tar_size,
            entries,
            leans_on,
        } = outcome;
        let (entries, snapshot) = if leans_on.is_empty() {
            (entries, SnapshotId::of_layer(&wanted.diff_id))
        } else {
            let (own, store) = (lease.clone(), self.store.clone());
            let (target, lowers) = (target.clone(), below.snapshot_paths(&store));
            let (leans_on, spawner) = (leans_on.clone(), self.spawner.clone());
            let scratch = blocking::run(move || own.scratch("complete")).await?;
            let job = CompleteJob {
                target,
                entries,
                leans_on,
                lowers,
                scratch,
            };
            let completed = blocking::run(move || spawner.complete(job)).await;
            let entries = completed.map_err(|source| PullError::Unpack {
                name: base.name.clone(),
                number: wanted.number,
                digest: wanted.descriptor.digest().clone(),
                source: Box::new(source),
            })?;
            (entries, SnapshotId::of_chain(&wanted.chain_id))
        };
        let record = LayerRecord {
            diff_id: wanted.diff_id.clone(),
            tar_size,
            created: created.seconds,
            created_nanos: created.nanos,
            entries: entries.into_iter().map(convert::entry).collect(),
            implied: leans_on.implied_parents,
        };
        let lease = lease.clone();
        Ok(blocking::run(move || lease.commit_snapshot(&target, &record, &snapshot)).await?)
    }
}

/// The positions of the chain, lowest first.
fn positions<'a>(base: &ResolvedBase, descriptors: &'a [Descriptor]) -> Vec<Wanted<'a>> {
    let mut below: Option<ChainId> = None;
    let diff_ids = base
        .config
        .rootfs
        .diff_ids
        .iter()
        .filter_map(|text| manifest::parse_digest(text))
        .map(DiffId);
    diff_ids
        .zip(descriptors)
        .enumerate()
        .map(|(position, (diff_id, descriptor))| {
            let chain_id = ChainId::extend(below.as_ref(), &diff_id);
            below = Some(chain_id.clone());
            Wanted {
                number: position + 1,
                diff_id,
                chain_id,
                descriptor,
            }
        })
        .collect()
}

/// The blob that a layer came as and where more of it are. None for one from a cache that is no pulled image's.
fn original_of(wanted: &Wanted<'_>, origin: &Origin) -> Option<OriginalBlob> {
    if let Origin::Cache(cache) = origin {
        return cache.original(&wanted.diff_id);
    }
    let descriptor = wanted.descriptor;
    Some(OriginalBlob {
        digest: descriptor.digest().clone(),
        size: descriptor.size(),
        media_type: manifest::media_type(descriptor),
        // What is not remembered is kept: a blob without a place to fetch it from again is pruned with its image only.
        locations: match origin {
            Origin::Archive(_) => Vec::new(),
            _ => vec![origin.location()],
        },
    })
}

/// Notes one more place that has a layer's known blob. A blob that is not known yet is not believed here: that it holds
/// this layer is only the manifest's word until it was unpacked. A build that only hits writes nothing.
fn note_location(
    store: &Store,
    diff_id: &DiffId,
    original: &OriginalBlob,
) -> Result<(), PullError> {
    let Some(known) = store.original(diff_id)? else {
        return Ok(());
    };
    let is_new = original
        .locations
        .iter()
        .any(|location| !known.locations.contains(location));
    if known.digest == original.digest && is_new {
        store.record_original(diff_id, original)?;
    }
    Ok(())
}
