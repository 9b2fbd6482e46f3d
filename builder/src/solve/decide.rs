//! Which steps a build needs, and which of them the cache already has: a pure decision over the graph.
//!
//! A step's record may be taken by its definition key only when no ancestor runs in this build. So a record that
//! was found is given up again when something it stands on turns out to be missing: no build ever mixes an old
//! child with a new parent.

use std::collections::{BTreeMap, BTreeSet};

use rbuild_cache::{Chain, KeyPart, StepRecord};
use rbuild_frontend::graph::{Graph, Operation, StepIndex};

use super::dependencies;

/// What becomes of one needed step.
#[derive(Clone, Debug)]
pub(crate) enum Fate {
    /// Its record was found by the definition key.
    Hit(Box<StepRecord>),
    /// A base image.
    Image,
    /// It has to be looked up by its result key, and run if that misses.
    Miss,
}

/// The fates of all needed steps.
#[derive(Debug)]
pub(crate) struct Decision {
    needed: BTreeMap<StepIndex, Fate>,
    /// Of all steps, those that a hit makes unneeded too.
    records: Vec<Option<StepRecord>>,
}

impl Decision {
    /// Needed steps in topological order.
    pub(crate) fn needed(&self) -> impl Iterator<Item = (StepIndex, Fate)> + '_ {
        self.needed
            .iter()
            .map(|(index, fate)| (*index, fate.clone()))
    }

    /// The record that was found for a step.
    pub(crate) fn record_of(&self, index: StepIndex) -> Option<&StepRecord> {
        self.records[index.0].as_ref()
    }

    /// Whether the step, or something that stands on it, came from the cache.
    pub(crate) fn is_cached(&self, index: StepIndex) -> bool {
        matches!(self.needed.get(&index), None | Some(Fate::Hit(_)))
    }
}

/// Name of the key part that holds what the dependency at `position` had left.
fn part_name(position: usize) -> String {
    format!("stands-on-{position}")
}

/// What a record says of the results that its step stood on, in the order of [`dependencies`]. Base images are in the
/// definition key already.
pub(super) fn stands_on<'chain>(
    graph: &Graph,
    index: StepIndex,
    chain_of: impl Fn(StepIndex) -> &'chain Chain,
) -> Vec<KeyPart> {
    dependencies(graph, index)
        .into_iter()
        .enumerate()
        .filter(|(_, dependency)| !is_image(graph, *dependency))
        .map(|(position, dependency)| {
            KeyPart::new(
                part_name(position),
                chain_of(dependency).content_chain().to_string(),
            )
        })
        .collect()
}

fn is_image(graph: &Graph, index: StepIndex) -> bool {
    matches!(graph.steps[index.0].operation, Operation::Image(_))
}

/// Records that stand on the newest results of their ancestors, by step.
///
/// A step may have been run again since, by a build that did not look at what stands on it: a record made of its older
/// result is not taken, or one image could hold both. An ancestor without a record (pruned) is no obstacle.
fn consistent_records(
    graph: &Graph,
    mut lookup: impl FnMut(StepIndex) -> Option<StepRecord>,
) -> Vec<Option<StepRecord>> {
    /// What is known of a step.
    enum Known {
        Nothing,
        Outdated,
        Newest(StepRecord),
    }
    let mut known: Vec<Known> = Vec::with_capacity(graph.steps.len());
    for index in (0..graph.steps.len()).map(StepIndex) {
        let record = if is_image(graph, index) {
            None
        } else {
            lookup(index)
        };
        let Some(record) = record else {
            known.push(Known::Nothing);
            continue;
        };
        let fits = |(position, dependency): (usize, StepIndex)| match &known[dependency.0] {
            Known::Nothing => true,
            Known::Outdated => false,
            Known::Newest(below) => {
                let left = below.chain.content_chain().to_string();
                let name = part_name(position);
                record
                    .parts
                    .iter()
                    .any(|part| part.name == name && part.value == left)
            }
        };
        let is_newest = dependencies(graph, index).into_iter().enumerate().all(fits);
        known.push(if is_newest {
            Known::Newest(record)
        } else {
            Known::Outdated
        });
    }
    let records = known.into_iter().map(|known| match known {
        Known::Newest(record) => Some(record),
        Known::Nothing | Known::Outdated => None,
    });
    records.collect()
}

/// Decides for `target`; `lookup` finds a record by a step's definition key and is asked once a step.
pub(crate) fn decide(
    graph: &Graph,
    target: StepIndex,
    lookup: impl FnMut(StepIndex) -> Option<StepRecord>,
) -> Decision {
    let records = consistent_records(graph, lookup);
    let mut refused: BTreeSet<StepIndex> = forced(graph);
    loop {
        let mut needed = BTreeMap::new();
        let mut open = vec![target];
        while let Some(index) = open.pop() {
            if needed.contains_key(&index) {
                continue;
            }
            let fate = match &records[index.0] {
                _ if is_image(graph, index) => Fate::Image,
                Some(record) if !refused.contains(&index) => Fate::Hit(Box::new(record.clone())),
                _ => Fate::Miss,
            };
            if matches!(fate, Fate::Miss) {
                open.extend(dependencies(graph, index));
            }
            needed.insert(index, fate);
        }
        let given_up: Vec<StepIndex> = stand_on(graph, &missing(&needed))
            .into_iter()
            .filter(|index| matches!(needed.get(index), Some(Fate::Hit(_))))
            .collect();
        if given_up.is_empty() {
            return Decision { needed, records };
        }
        refused.extend(given_up);
    }
}

fn missing(needed: &BTreeMap<StepIndex, Fate>) -> BTreeSet<StepIndex> {
    needed
        .iter()
        .filter(|(_, fate)| matches!(fate, Fate::Miss))
        .map(|(index, _)| *index)
        .collect()
}

/// Steps that must not be taken by definition key: told to ignore the cache, or standing on one that is.
fn forced(graph: &Graph) -> BTreeSet<StepIndex> {
    let told = (0..graph.steps.len())
        .map(StepIndex)
        .filter(|index| graph.steps[index.0].ignores_cache)
        .collect::<BTreeSet<_>>();
    let mut all = stand_on(graph, &told);
    all.extend(told);
    all
}

/// Every step with an ancestor in `below`.
fn stand_on(graph: &Graph, below: &BTreeSet<StepIndex>) -> BTreeSet<StepIndex> {
    let mut above = BTreeSet::new();
    for index in (0..graph.steps.len()).map(StepIndex) {
        let touches =
            |dependency: &StepIndex| below.contains(dependency) || above.contains(dependency);
        if dependencies(graph, index).iter().any(touches) {
            above.insert(index);
        }
    }
    above
}
