//! Earlier builds of the same thing, and what they say of why a step runs now.

use rbuild_cache::{
    Build, BuildStatus, ContentDigest, HistoryError, KeyPart, LayerLoss, SnapshotId, Store,
};

use super::{BuildDetail, BuildSummary, StepNote, StepState};
use crate::event::StepId;
use crate::explain::Reason;
use crate::explain::align::{Place, align};
use crate::explain::compare::compare;

/// Earlier builds that are looked through for a step: those before the newest count only if it never came to the step.
const EARLIER_BUILDS: usize = 10;

/// Builds that are searched for one of the same name when there is none of the same context.
const BUILDS_BY_NAME: usize = 50;

/// Earlier builds to compare with, newest first.
#[derive(Debug, Default)]
pub(super) struct Earlier(Vec<EarlierBuild>);

#[derive(Debug)]
struct EarlierBuild {
    status: BuildStatus,
    version: String,
    steps: Vec<StepNote>,
    /// For each step of this build, the same step of that one.
    matches: Vec<Option<usize>>,
}

impl EarlierBuild {
    /// What a step was then, if the build came to it.
    fn step(&self, step: StepId) -> Option<&StepNote> {
        let position = (*self.matches.get(step.0)?)?;
        Some(&self.steps[position]).filter(|note| !note.parts.is_empty())
    }
}

impl Earlier {
    /// Builds of the same line; without any, those that made an image of the same name.
    pub(super) fn read(
        store: &Store,
        own_id: &str,
        line: &str,
        places: &[Place],
        names: &[String],
    ) -> Result<Self, HistoryError> {
        let is_other = |build: &Build| build.id != own_id;
        let mut builds = store.builds_of_line(line, EARLIER_BUILDS + 1)?;
        builds.retain(is_other);
        if builds.is_empty() && !names.is_empty() {
            builds = store.builds(BUILDS_BY_NAME)?;
            builds.retain(|build| {
                let has_name = summary(build).names.iter().any(|name| {
                    let full = |name: &str| crate::images::full_name(name).ok();
                    names.iter().any(|own| full(own) == full(name))
                });
                is_other(build) && has_name
            });
            builds.truncate(EARLIER_BUILDS);
        }
        let mut earlier = Vec::new();
        for build in builds {
            let detail = store.build_detail(&build.id)?;
            let detail: BuildDetail = serde_json::from_slice(&detail).unwrap_or_default();
            let then: Vec<Place> = detail.steps.iter().map(place).collect();
            earlier.push(EarlierBuild {
                status: build.status,
                version: summary(&build).version,
                matches: align(places, &then),
                steps: detail.steps,
            });
        }
        Ok(Self(earlier))
    }

    /// Why a step with these parts runs. `lost` is a snapshot of its record that is not there.
    pub(super) fn reasons(
        &self,
        store: &Store,
        step: StepId,
        now: &[KeyPart],
        lost: Option<&SnapshotId>,
    ) -> Vec<Reason> {
        if self.0.is_empty() {
            return vec![Reason::FirstBuild];
        }
        let found = self
            .0
            .iter()
            .find_map(|build| Some((build, build.step(step)?)));
        let Some((build, then)) = found else {
            return vec![Reason::NewStep];
        };
        // Without a list no files are named; nothing else depends on it.
        let lists = |digest: &ContentDigest| store.file_list(digest).ok().flatten();
        let reasons = compare(now, &then.parts, &lists);
        if !reasons.is_empty() {
            return reasons;
        }
        let known = lost.and_then(|snapshot| store.layer_loss(snapshot).ok().flatten());
        vec![without_change(build, then, known)]
    }
}

/// Nothing is another: why there is no record.
fn without_change(build: &EarlierBuild, then: &StepNote, loss: Option<LayerLoss>) -> Reason {
    let version = env!("CARGO_PKG_VERSION");
    match (then.state, loss) {
        (_, Some(LayerLoss::Damaged)) => Reason::DamagedLayer,
        (_, Some(LayerLoss::PowerCut)) => Reason::PowerCut,
        (StepState::Failed, _) => Reason::FailedBefore,
        (StepState::Cancelled, _) => Reason::UnfinishedBefore,
        (StepState::Running, _) if build.status != BuildStatus::Running => Reason::UnfinishedBefore,
        _ if build.version != version => Reason::OtherVersion {
            before: build.version.clone(),
            after: version.to_owned(),
        },
        _ => Reason::Pruned,
    }
}

fn summary(build: &Build) -> BuildSummary {
    serde_json::from_str(&build.summary).unwrap_or_default()
}

/// What a step is recognised by.
pub(super) fn place(note: &StepNote) -> Place {
    Place {
        platform: note.platform.clone().unwrap_or_default(),
        stage: note.stage_key.clone(),
        title: note.spelt.clone(),
    }
}
