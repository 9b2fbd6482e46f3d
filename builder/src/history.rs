//! Past builds as people and programs read them.
//!
//! The store keeps a summary and a detail for each build and does not look into them; their form is here, as JSON whose
//! fields are only ever added. `recorder` writes them while a build runs.

mod earlier;
mod origins;
pub(crate) mod recorder;
mod written;

use std::path::PathBuf;

use rbuild_cache::{
    Build, BuildStatus, HistoryDropped, HistoryError, KeyPart, StepLogError, StepLogReader, Store,
};
use serde::{Deserialize, Serialize};

pub(crate) use self::origins::Origins;
pub(crate) use self::written::Written;
use crate::explain::{Reason, parts};

/// Why a past build can't be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PastError {
    /// No such build.
    #[error("no build `{text}` in the history")]
    UnknownBuild {
        /// As given.
        text: String,
    },
    /// There are none.
    #[error("there is no build in the history yet")]
    Empty,
    /// No build made an image of this name.
    #[error("no build in the history has the name `{name}`")]
    UnknownName {
        /// As given.
        name: String,
    },
    /// No such step.
    #[error("build `{build}` has no step `{text}`")]
    UnknownStep {
        /// Its id.
        build: String,
        /// As given.
        text: String,
    },
    /// Every step that it came to has a result.
    #[error("no step of build `{build}` failed")]
    NoFailedStep {
        /// Its id.
        build: String,
    },
    /// Several steps are meant.
    #[error("`{text}` means more than one step of build `{build}`")]
    AmbiguousStep {
        /// Its id.
        build: String,
        /// As given.
        text: String,
    },
    /// The build runs still.
    #[error("build `{build}` is running")]
    Running {
        /// Its id.
        build: String,
    },
    /// The store.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The store.
    #[error(transparent)]
    Log(#[from] StepLogError),
}

impl PastError {
    /// The way out, where one is known.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::UnknownBuild { .. } | Self::UnknownName { .. } => {
                Some("`rbuild builds` lists what there is".to_owned())
            }
            Self::History(HistoryError::Ambiguous { .. }) => {
                Some("give more letters of the id".to_owned())
            }
            Self::UnknownStep { build, .. } | Self::AmbiguousStep { build, .. } => Some(format!(
                "`rbuild builds show {build}` numbers its steps; `STAGE/2` and a part of the instruction do, too"
            )),
            Self::NoFailedStep { build } => Some(format!(
                "name a step: `rbuild builds show {build}` numbers them"
            )),
            Self::Running { .. } => Some("end it first".to_owned()),
            _ => None,
        }
    }
}

/// What is listed of a build.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BuildSummary {
    /// Directory or URL.
    pub context: String,
    /// Path of the Dockerfile.
    pub dockerfile: String,
    /// `--target`
    pub target: Option<String>,
    /// `--platform`, or this machine's.
    pub platforms: Vec<String>,
    /// Names that were asked for, or were given.
    pub names: Vec<String>,
    /// Steps in all.
    pub steps: usize,
    /// Steps that were done.
    pub done: usize,
    /// Steps that were taken from the cache.
    pub cached: usize,
    /// Milliseconds; none while it runs, or when its process died.
    #[serde(rename = "duration_ms")]
    pub duration: Option<u64>,
    /// Image id of the first platform.
    pub image_id: Option<String>,
    /// Version of rbuild.
    pub version: String,
}

/// What became of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepState {
    /// The build did not come to it.
    #[default]
    Pending,
    /// It runs, or did when the build ended.
    Running,
    /// Taken from the cache.
    Cached,
    /// Done.
    Done,
    /// Failed.
    Failed,
    /// Stopped because the build ended.
    Cancelled,
}

/// One step of a past build.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StepNote {
    /// Stage name, or `stage-N`; empty when there is one stage.
    pub stage: String,
    /// What the stage is recognised by: its name, or its number.
    pub stage_key: String,
    /// Position in the stage, from 1.
    pub number: usize,
    /// Steps in the stage.
    pub of: usize,
    /// `RUN make`, variables expanded where that helps.
    pub title: String,
    /// The same as it is spelt in the Dockerfile, in one line.
    pub spelt: String,
    /// Whether it only takes an image's layers.
    pub is_image: bool,
    /// Steps whose results it needs: its parent first.
    pub needs: Vec<usize>,
    /// Platform, when several were built.
    pub platform: Option<String>,
    /// Lines of the Dockerfile.
    pub lines: (usize, usize),
    /// What became of it.
    pub state: StepState,
    /// When it began: milliseconds since the build began.
    #[serde(rename = "started_ms")]
    pub started: Option<u64>,
    /// How long it took, in milliseconds.
    #[serde(rename = "duration_ms")]
    pub duration: Option<u64>,
    /// CPU time of its command, in milliseconds.
    #[serde(rename = "cpu_ms")]
    pub cpu: Option<u64>,
    /// Most memory in use at a time: of all its processes when memory was limited, else of the largest one. In bytes.
    pub peak_memory: Option<u64>,
    /// Why it ran.
    pub reasons: Vec<Reason>,
    /// What its key was made of.
    pub parts: Vec<KeyPart>,
    /// diff_id of its layer.
    pub layer: Option<String>,
    /// Size of its layer's tar.
    pub layer_size: Option<u64>,
    /// Name of its log, or of the run's that made its record.
    pub log: Option<String>,
}

impl StepNote {
    /// `[build 2/5]`, as the progress shows it.
    pub fn label(&self) -> String {
        let place = format!("{}/{}", self.number, self.of);
        let words = [
            self.platform.as_deref().unwrap_or_default(),
            &self.stage,
            &place,
        ];
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        format!("[{}]", words.join(" "))
    }

    /// The build that its log is of.
    pub fn ran_in(&self) -> Option<&str> {
        self.log.as_deref()?.split('-').next()
    }

    /// The parts of its key that mean something to a person.
    pub fn shown_parts(&self) -> impl Iterator<Item = &KeyPart> {
        self.parts
            .iter()
            .filter(|part| parts::PartName::parse(&part.name) != parts::PartName::Bookkeeping)
    }
}

/// Work of a past build that is no step: a pull, an export, a push.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskNote {
    /// `pulling debian:12`, `exporting to oci archive`.
    pub title: String,
    /// When it began: milliseconds since the build began.
    #[serde(rename = "started_ms")]
    pub started: u64,
    /// How long it took, in milliseconds; none when the build ended before.
    #[serde(rename = "duration_ms")]
    pub duration: Option<u64>,
    /// Bytes that were moved.
    pub bytes: u64,
    /// Why it failed.
    pub error: Option<String>,
}

/// What is kept of a build beside its summary.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BuildDetail {
    /// All steps, in the order of [`StepId`](crate::event::StepId).
    pub steps: Vec<StepNote>,
    /// Work that is no step, in the order of its start.
    pub tasks: Vec<TaskNote>,
    /// Its text; empty when that was very long.
    pub dockerfile: String,
    /// Build checks that fired: `LINE: MESSAGE`.
    pub warnings: Vec<String>,
    /// What was exported, and where to.
    pub outputs: Vec<String>,
    /// Why it failed, with causes, one a line.
    pub error: Option<String>,
    /// Platform of the machine.
    pub machine: String,
    /// Kernel release.
    pub kernel: String,
}

/// A past or running build with what is listed of it.
#[derive(Clone, Debug)]
pub struct PastBuild {
    /// Short, unique in the store.
    pub id: String,
    /// Milliseconds since the epoch.
    pub started: i64,
    /// What became of it.
    pub status: BuildStatus,
    /// The rest.
    pub summary: BuildSummary,
}

impl PastBuild {
    /// When it began, as tables have it: UTC, to the second.
    pub fn started_text(&self) -> String {
        let text = self.started_text_utc();
        let seconds = text.get(.."2001-02-03T04:05:06".len());
        seconds.unwrap_or(&text).replace('T', " ")
    }

    /// When it began, by RFC 3339.
    pub fn started_text_utc(&self) -> String {
        let nanos = u32::try_from(self.started.rem_euclid(1000)).unwrap_or(0) * 1_000_000;
        crate::timestamp::Timestamp::new(self.started.div_euclid(1000), nanos).to_rfc3339()
    }

    fn of(build: Build) -> Self {
        Self {
            id: build.id,
            started: build.started,
            status: build.status,
            // Written by this module; what does not parse was written by a later one, or is damaged.
            summary: serde_json::from_str(&build.summary).unwrap_or_default(),
        }
    }
}

/// The history of a store. Everything here blocks.
#[derive(Clone, Debug)]
pub struct History {
    store: Store,
}

impl History {
    /// The history of this store.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// The newest builds, newest first.
    pub fn list(&self, limit: usize) -> Result<Vec<PastBuild>, PastError> {
        let builds = self.store.builds(limit)?;
        Ok(builds.into_iter().map(PastBuild::of).collect())
    }

    /// The build that a text means: an id or its beginning, `last`, `-1`, `-2`, …
    pub fn find(&self, text: &str) -> Result<PastBuild, PastError> {
        let found = self.store.find_build(text)?.map(PastBuild::of);
        found.ok_or_else(|| match text {
            "last" | "-1" => PastError::Empty,
            _ => PastError::UnknownBuild {
                text: text.to_owned(),
            },
        })
    }

    /// Whether a text means a build.
    pub fn has(&self, text: &str) -> bool {
        !matches!(self.store.find_build(text), Ok(None))
    }

    /// The newest build that gave, or was to give, an image this name.
    pub fn find_by_name(&self, name: &str) -> Result<PastBuild, PastError> {
        let wanted = crate::images::full_name(name).unwrap_or_else(|_| name.to_owned());
        let is_it = |build: &PastBuild| {
            let mut names = build.summary.names.iter();
            names.any(|given| crate::images::full_name(given).is_ok_and(|given| given == wanted))
        };
        let found = self.list(usize::MAX)?.into_iter().find(is_it);
        found.ok_or_else(|| PastError::UnknownName {
            name: name.to_owned(),
        })
    }

    /// Steps, warnings, outputs and the error of a build.
    pub fn detail(&self, id: &str) -> Result<BuildDetail, PastError> {
        let detail = self.store.build_detail(id)?;
        Ok(serde_json::from_slice(&detail).unwrap_or_default())
    }

    /// The log of a step; none when it wrote nothing or the log is not kept any more.
    pub fn log(&self, step: &StepNote) -> Result<Option<StepLogReader>, PastError> {
        match &step.log {
            Some(name) => Ok(self.store.read_step_log(name)?),
            None => Ok(None),
        }
    }

    /// Removes builds that do not run.
    pub fn remove(&self, ids: &[String]) -> Result<HistoryDropped, PastError> {
        Ok(self.store.remove_builds(ids)?)
    }
}

/// The step that failed.
pub fn failed_step(build: &str, steps: &[StepNote]) -> Result<usize, PastError> {
    let failed = steps
        .iter()
        .position(|step| step.state == StepState::Failed);
    failed.ok_or_else(|| PastError::NoFailedStep {
        build: build.to_owned(),
    })
}

/// The step that a text means: its number in the build from 1, `STAGE/NUMBER`, or a part of its instruction.
pub fn find_step(build: &str, steps: &[StepNote], text: &str) -> Result<usize, PastError> {
    let unknown = || PastError::UnknownStep {
        build: build.to_owned(),
        text: text.to_owned(),
    };
    if let Ok(number) = text.parse::<usize>() {
        let is_there = (1..=steps.len()).contains(&number);
        return is_there.then(|| number - 1).ok_or_else(unknown);
    }
    let plain = text.trim_start_matches('[').trim_end_matches(']');
    let in_stage = |step: &StepNote| {
        let place = plain.replace(' ', "/");
        let number = step.number.to_string();
        place == format!("{}/{number}", step.stage)
            || place == format!("{}/{number}/{}", step.stage, step.of)
    };
    let in_title = |step: &StepNote| step.title.to_lowercase().contains(&text.to_lowercase());
    for is_meant in [
        &in_stage as &dyn Fn(&StepNote) -> bool,
        &(|step: &StepNote| step.title == text),
        &in_title,
    ] {
        let found: Vec<usize> = (0..steps.len())
            .filter(|index| is_meant(&steps[*index]))
            .collect();
        match found.as_slice() {
            [] => {}
            [one] => return Ok(*one),
            _ => {
                return Err(PastError::AmbiguousStep {
                    build: build.to_owned(),
                    text: text.to_owned(),
                });
            }
        }
    }
    Err(unknown())
}

/// A path as the history keeps it: absolute, as text.
pub(crate) fn absolute(path: &std::path::Path) -> String {
    let path: PathBuf = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_found_by_what_people_type() {
        let step = |stage: &str, number, title: &str| StepNote {
            stage: stage.into(),
            number,
            of: 2,
            title: title.into(),
            ..StepNote::default()
        };
        let steps = [
            step("build", 1, "FROM debian"),
            step("build", 2, "RUN make"),
            step("final", 1, "FROM scratch"),
            step("final", 2, "RUN make install"),
        ];
        let table = [
            ("2", Ok(1)),
            ("build/2", Ok(1)),
            ("final 2/2", Ok(3)),
            ("[final 2/2]", Ok(3)),
            ("RUN make", Ok(1)),
            ("install", Ok(3)),
            ("Scratch", Ok(2)),
            ("0", Err("build `b` has no step `0`")),
            ("5", Err("build `b` has no step `5`")),
            ("nothing", Err("build `b` has no step `nothing`")),
            ("from", Err("`from` means more than one step of build `b`")),
        ];
        for (text, expected) in table {
            let found = find_step("b", &steps, text).map_err(|error| error.to_string());
            assert_eq!(found, expected.map_err(ToOwned::to_owned), "{text}");
        }
    }
}
