//! A finished image: the config that a plan promised, filled in with what the steps made.
//!
//! Pure: no clock and no store, so that an image whose steps all hit keeps its id from build to build.

use oci_spec::image::Digest;
use rbuild_cache::{Chain, DiffId};
use rbuild_frontend::graph::PlannedHistory;
use rbuild_frontend::image_config::{HistoryEntry, ImageConfig};
use rbuild_frontend::platform::Platform;

use crate::manifest;
use crate::timestamp::Timestamp;

/// An image for one platform, complete but for the packing of its layers.
#[derive(Clone, Debug)]
pub struct BuiltImage {
    /// What it runs on.
    pub platform: Platform,
    /// Complete: `diff_ids`, times, history.
    pub config: ImageConfig,
    /// The config as JSON.
    pub config_bytes: Vec<u8>,
    /// Their digest: the image id.
    pub config_digest: Digest,
    /// Its layers, lowest first.
    pub chain: Chain,
    /// How many of them came with the base: those are shipped as they are and never rewritten.
    pub base_layers: usize,
}

impl BuiltImage {
    /// An image of a config that is complete.
    pub fn new(config: ImageConfig, chain: Chain, base_layers: usize) -> Self {
        let config_bytes = config.to_json();
        let config_digest = manifest::digest_of(&config_bytes);
        Self {
            platform: config.platform(),
            config,
            config_bytes,
            config_digest,
            chain,
            base_layers,
        }
    }

    /// An image of the store, with its config's own bytes.
    pub(crate) fn of_store(
        config: ImageConfig,
        config_bytes: Vec<u8>,
        config_digest: Digest,
        chain: Chain,
    ) -> Self {
        Self {
            platform: config.platform(),
            config,
            config_bytes,
            config_digest,
            base_layers: chain.len(),
            chain,
        }
    }

    /// Bytes of the uncompressed tars of the layers above the base's.
    pub(crate) fn added_size(&self) -> u64 {
        let own = self.chain.iter().skip(self.base_layers);
        own.map(|layer| layer.tar_size).sum()
    }

    /// The same with other `diff_ids` for the layers: what rewriting their times does.
    pub(crate) fn with_diff_ids(&self, diff_ids: &[DiffId]) -> Self {
        let texts = diff_ids.iter().map(ToString::to_string).collect();
        Self::new(
            self.config.clone().with_diff_ids(texts),
            self.chain.clone(),
            self.base_layers,
        )
    }
}

/// Completes a planned config: `rootfs.diff_ids`, `created` and the history's times.
///
/// A new entry with a layer has the layer's time; entries without a time take that of the first new layer above them or
/// of the last entry below. With `source_date_epoch` the times of new entries that lie after it become it; what
/// the base said stays. `history` must have one entry with a layer for each layer that the steps added to the
/// base's, in order; layers of the base that it says nothing of get entries of their own.
pub fn assemble(
    config: ImageConfig,
    history: &[PlannedHistory],
    chain: Chain,
    source_date_epoch: Option<i64>,
) -> BuiltImage {
    let new_layers = history
        .iter()
        .filter(|entry| makes_new_layer(entry))
        .count();
    let base_layers = chain.len().saturating_sub(new_layers);
    let entries = fit_base_history(history, base_layers);
    let times = entry_times(&entries, &chain, base_layers, source_date_epoch);
    let mut complete = Vec::with_capacity(entries.len());
    for (planned, time) in entries.into_iter().zip(times) {
        let (mut entry, is_inherited) = match planned {
            PlannedHistory::Inherited(entry) => (entry, true),
            PlannedHistory::New { entry, .. } => (entry, false),
        };
        if !(is_inherited && entry.created.is_some()) {
            entry.created = time.map(Timestamp::to_rfc3339);
        }
        complete.push(entry);
    }
    let last = complete
        .iter()
        .rev()
        .find_map(|entry| Timestamp::parse(entry.created.as_deref()?));
    let created = match (last, source_date_epoch) {
        (last, None) => last,
        (None, Some(epoch)) => Some(Timestamp::new(epoch, 0)),
        (Some(last), Some(epoch)) => Some(last.min(Timestamp::new(epoch, 0))),
    };
    let diff_ids = chain
        .iter()
        .map(|layer| layer.diff_id.to_string())
        .collect();
    let config = config
        .with_created(created.map(Timestamp::to_rfc3339))
        .with_diff_ids(diff_ids)
        .with_history(complete);
    BuiltImage::new(config, chain, base_layers)
}

fn makes_new_layer(entry: &PlannedHistory) -> bool {
    matches!(entry, PlannedHistory::New { entry, .. } if !entry.empty_layer)
}

/// Makes the base's history say as many layers as the base has: tools that write images often leave it out.
fn fit_base_history(history: &[PlannedHistory], base_layers: usize) -> Vec<PlannedHistory> {
    let mut entries = history.to_vec();
    let inherited = entries
        .iter()
        .take_while(|entry| matches!(entry, PlannedHistory::Inherited(_)))
        .count();
    let said = |entry: &PlannedHistory| matches!(entry, PlannedHistory::Inherited(entry) if !entry.empty_layer);
    let stated = entries.iter().filter(|entry| said(entry)).count();
    if stated > base_layers {
        // More layers than there are: which of them are real can't be known. The lowest lose theirs.
        let surplus = entries
            .iter_mut()
            .filter(|entry| said(entry))
            .take(stated - base_layers);
        for entry in surplus {
            if let PlannedHistory::Inherited(entry) = entry {
                entry.empty_layer = true;
            }
        }
    }
    let missing = base_layers.saturating_sub(stated);
    let filler = HistoryEntry {
        comment: "layer of a base image without history".to_owned(),
        ..HistoryEntry::default()
    };
    let fillers = std::iter::repeat_n(PlannedHistory::Inherited(filler), missing);
    entries.splice(inherited..inherited, fillers);
    entries
}

/// A time for each entry, as far as there is one.
fn entry_times(
    entries: &[PlannedHistory],
    chain: &Chain,
    base_layers: usize,
    source_date_epoch: Option<i64>,
) -> Vec<Option<Timestamp>> {
    let mut layers = chain.iter().skip(base_layers);
    let mut times: Vec<Option<Timestamp>> = entries
        .iter()
        .map(|planned| match planned {
            PlannedHistory::Inherited(entry) => Timestamp::parse(entry.created.as_deref()?),
            PlannedHistory::New { .. } if makes_new_layer(planned) => layers
                .next()
                .map(|layer| Timestamp::new(layer.created, layer.created_nanos)),
            PlannedHistory::New { .. } => None,
        })
        .collect();
    // The first new layer's time serves for the entries before it; without one, the last time there is. A time
    // counts as new once an entry without one went before.
    let first_gap = times.iter().position(Option::is_none);
    let after_gap = first_gap.and_then(|gap| times[gap..].iter().find_map(|time| *time));
    let mut current = after_gap.or_else(|| times.iter().rev().find_map(|time| *time));
    let mut has_gap = false;
    for time in &mut times {
        match time {
            Some(known) if has_gap => current = Some(*known),
            Some(_) => {}
            None => {
                has_gap = true;
                *time = current;
            }
        }
    }
    if let Some(epoch) = source_date_epoch {
        let epoch = Timestamp::new(epoch, 0);
        for (planned, time) in entries.iter().zip(&mut times) {
            let is_base =
                matches!(planned, PlannedHistory::Inherited(entry) if entry.created.is_some());
            if !is_base && time.is_none_or(|time| time > epoch) {
                *time = Some(epoch);
            }
        }
    }
    times
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use rbuild_cache::{ContentDigest, Layer, SnapshotId};

    use super::*;

    fn layer(created: i64) -> Layer {
        let diff_id =
            DiffId(Digest::from_str(&format!("sha256:{created:064x}")).expect("a digest"));
        let snapshot = SnapshotId::of_layer(&diff_id);
        let content = ContentDigest([0; 32]);
        Layer {
            diff_id,
            content,
            snapshot,
            tar_size: 0,
            created,
            created_nanos: 0,
        }
    }

    fn inherited(text: &str, created: Option<i64>, empty_layer: bool) -> PlannedHistory {
        let created = created.map(|seconds| Timestamp::new(seconds, 0).to_rfc3339());
        PlannedHistory::Inherited(HistoryEntry {
            created,
            created_by: text.to_owned(),
            empty_layer,
            ..HistoryEntry::default()
        })
    }

    fn new(text: &str, empty_layer: bool) -> PlannedHistory {
        let entry = HistoryEntry {
            created_by: text.to_owned(),
            empty_layer,
            ..HistoryEntry::default()
        };
        PlannedHistory::New { entry, step: None }
    }

    fn times(
        history: &[PlannedHistory],
        layers: &[i64],
        epoch: Option<i64>,
    ) -> (Option<i64>, Vec<Option<i64>>) {
        let chain = layers.iter().map(|created| layer(*created)).collect();
        let image = assemble(ImageConfig::default(), history, chain, epoch);
        let with_layer = image
            .config
            .history
            .iter()
            .filter(|entry| !entry.empty_layer)
            .count();
        assert_eq!(with_layer, layers.len(), "one entry a layer");
        assert_eq!(image.config.rootfs.diff_ids.len(), layers.len());
        let seconds = |text: &Option<String>| Some(Timestamp::parse(text.as_deref()?)?.seconds);
        (
            seconds(&image.config.created),
            image
                .config
                .history
                .iter()
                .map(|entry| seconds(&entry.created))
                .collect(),
        )
    }

    #[test]
    fn times_are_filled_as_the_reference_does() {
        let base = inherited("base", Some(100), false);
        #[expect(clippy::type_complexity, reason = "a table")]
        let rows: &[(
            &str,
            Vec<PlannedHistory>,
            &[i64],
            Option<i64>,
            Option<i64>,
            Vec<Option<i64>>,
        )] = &[
            (
                "only metadata on a base",
                vec![base.clone(), new("ENV", true)],
                &[7],
                None,
                Some(100),
                vec![Some(100); 2],
            ),
            (
                "metadata before the first new layer takes its time",
                vec![
                    base.clone(),
                    new("ENV", true),
                    new("RUN", false),
                    new("CMD", true),
                ],
                &[7, 500],
                None,
                Some(500),
                vec![Some(100), Some(500), Some(500), Some(500)],
            ),
            (
                "metadata between layers takes the time below",
                vec![new("RUN", false), new("ENV", true), new("RUN", false)],
                &[500, 600],
                None,
                Some(600),
                vec![Some(500), Some(600), Some(600)],
            ),
            (
                "the epoch clamps what is new only",
                vec![base.clone(), new("RUN", false), new("CMD", true)],
                &[7, 500],
                Some(50),
                Some(50),
                vec![Some(100), Some(50), Some(50)],
            ),
            (
                "scratch with an epoch",
                vec![new("CMD", true)],
                &[],
                Some(50),
                Some(50),
                vec![Some(50)],
            ),
            (
                "scratch without",
                vec![new("CMD", true)],
                &[],
                None,
                None,
                vec![None],
            ),
            (
                "a base without history",
                vec![new("RUN", false)],
                &[7, 500],
                None,
                Some(500),
                vec![Some(500); 2],
            ),
            (
                "a base with too much history",
                vec![base.clone(), base.clone(), new("RUN", false)],
                &[7, 500],
                None,
                Some(500),
                vec![Some(100), Some(100), Some(500)],
            ),
        ];
        for (name, history, layers, epoch, created, expected) in rows {
            assert_eq!(
                times(history, layers, *epoch),
                (*created, expected.clone()),
                "{name}"
            );
        }
    }
}
