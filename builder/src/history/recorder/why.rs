//! Why steps run, asked while a build is written down: what earlier builds noted is compared with what this one has.

use std::sync::Arc;

use rbuild_cache::{KeyPart, SnapshotId};

use super::{Recorder, lock};
use crate::event::StepId;
use crate::explain::Reason;
use crate::explain::align::Place;
use crate::history::earlier::{self, Earlier};

impl Recorder {
    /// Why a step runs. `lost` is a snapshot of its record that is not there.
    pub(crate) fn explain(
        &self,
        step: StepId,
        now: &[KeyPart],
        no_cache: Option<&str>,
        lost: Option<&SnapshotId>,
    ) -> Vec<Reason> {
        let reasons = self.reasons(step, now, no_cache, lost);
        if let Some(note) = lock(&self.state).detail.steps.get_mut(step.0) {
            note.reasons.clone_from(&reasons);
        }
        reasons
    }

    fn reasons(
        &self,
        step: StepId,
        now: &[KeyPart],
        no_cache: Option<&str>,
        lost: Option<&SnapshotId>,
    ) -> Vec<Reason> {
        if let Some(flag) = no_cache {
            return vec![Reason::NoCache {
                flag: flag.to_owned(),
            }];
        }
        self.earlier().reasons(&self.store, step, now, lost)
    }

    /// Earlier builds of the same line, newest first; without any, those that made an image of the same name.
    fn earlier(&self) -> Arc<Earlier> {
        let mut kept = lock(&self.earlier);
        if let Some(earlier) = kept.as_ref() {
            return Arc::clone(earlier);
        }
        let earlier = Arc::new(self.read_earlier());
        *kept = Some(Arc::clone(&earlier));
        earlier
    }

    fn read_earlier(&self) -> Earlier {
        let (places, names) = {
            let state = lock(&self.state);
            let places: Vec<Place> = state.detail.steps.iter().map(earlier::place).collect();
            (places, state.summary.names.clone())
        };
        Earlier::read(
            &self.store,
            &self.build.id,
            &self.build.line,
            &places,
            &names,
        )
        .unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read earlier builds: why steps run is not known");
            Earlier::default()
        })
    }
}
