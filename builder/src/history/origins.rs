//! Where layers came from, as far as past builds and pulls tell.

use std::collections::HashMap;

use rbuild_cache::{DiffId, Store};

use super::{History, StepState};

/// Builds that are looked through, newest first: a table is not worth reading years of them.
const MOST_BUILDS: usize = 200;

/// What the builds of a store say of layers.
#[derive(Debug)]
pub(crate) struct Origins {
    store: Store,
    layers: HashMap<String, (Option<u64>, String)>,
}

impl Origins {
    /// Reads the newest builds. What can't be read tells nothing. Blocks.
    pub(crate) fn read(store: &Store) -> Self {
        let history = History::new(store.clone());
        let mut layers: HashMap<String, (Option<u64>, String)> = HashMap::new();
        for build in history.list(MOST_BUILDS).unwrap_or_default() {
            let Ok(detail) = history.detail(&build.id) else {
                continue;
            };
            for step in detail.steps.into_iter().filter(|step| !step.is_image) {
                let Some(layer) = step.layer.clone() else {
                    continue;
                };
                let is_told = layers
                    .get(&layer)
                    .is_some_and(|(took, origin)| took.is_some() || origin != CACHE);
                if is_told {
                    continue;
                }
                match step.state {
                    StepState::Done => {
                        layers.insert(layer, (step.duration, format!("build {}", build.id)));
                    }
                    // A build that ran it may be looked at later, and knows how long it took.
                    StepState::Cached => {
                        layers
                            .entry(layer)
                            .or_insert_with(|| (None, CACHE.to_owned()));
                    }
                    _ => {}
                }
            }
        }
        Self {
            store: store.clone(),
            layers,
        }
    }

    /// Milliseconds that a layer took, and where it came from.
    pub(crate) fn of(&self, diff_id: &DiffId) -> (Option<u64>, Option<String>) {
        if let Some((took, origin)) = self.layers.get(&diff_id.to_string()) {
            return (*took, Some(origin.clone()));
        }
        let pulled = self.store.original(diff_id).ok().flatten();
        let origin = pulled.map(|original| match original.locations.first() {
            Some(location) => location.clone(),
            None => "an archive".to_owned(),
        });
        (None, origin)
    }
}

/// A layer that no build of this store made.
const CACHE: &str = "a cache";
