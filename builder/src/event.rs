//! What a build says while it runs: data for the terminal, the plain log, JSON and reports.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rbuild_frontend::diagnostic::Diagnostic;
use rbuild_frontend::source::Source;

use crate::explain::Reason;
use crate::timestamp::Timestamp;

/// A moment by RFC 3339, in UTC; 1970 for what lies before it.
pub fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    let since = since.unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    Timestamp::new(seconds, since.subsec_nanos()).to_rfc3339()
}

/// Receives events; called from several threads.
pub type EventSink = Arc<dyn Fn(Event) + Send + Sync>;

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The build is in the history from now on. Sent first, where the history can be written.
    Recorded {
        /// Its id.
        build: String,
    },
    /// The plan is known.
    Planned {
        /// All steps that the target needs; [`StepId`]s are positions in this list.
        steps: Vec<StepDescription>,
    },
    /// A build check fired.
    Warning {
        /// What it says.
        diagnostic: Diagnostic,
        /// The Dockerfile.
        source: Source,
    },
    /// Something to know once per build (network mode, isolation).
    Notice(String),
    /// A step's work begins (not sent for cached steps).
    Started(StepId),
    /// Why a step's work begins. Sent behind [`Event::Started`].
    Explained {
        /// Which step.
        step: StepId,
        /// Most telling first; never empty.
        reasons: Vec<Reason>,
    },
    /// Bytes of a step's output, as written by the command.
    Output {
        /// Which step.
        step: StepId,
        /// stdout or stderr.
        stream: Stream,
        /// Not necessarily whole lines.
        bytes: Vec<u8>,
    },
    /// A step has its result.
    Finished {
        /// Which step.
        step: StepId,
        /// How.
        outcome: StepOutcome,
        /// From `Started` to now.
        duration: Duration,
    },
    /// A step failed, and what it left is kept: `rbuild shell` opens it. Sent before its [`Event::Finished`].
    Kept {
        /// Which step.
        step: StepId,
    },
    /// Work that is not a step: a pull, an export.
    TaskStarted {
        /// Number of the task, unique in the build.
        task: usize,
        /// `pulling debian:12`, `exporting to oci archive`.
        title: String,
    },
    /// A task's bytes.
    TaskProgress {
        /// Which task.
        task: usize,
        /// Bytes done.
        done: u64,
        /// Bytes in all, when known.
        total: Option<u64>,
    },
    /// A task is over.
    TaskFinished {
        /// Which task.
        task: usize,
        /// How long it took.
        duration: Duration,
        /// What there is to say of it (`sha256:…`), or the error.
        result: Result<String, String>,
    },
}

/// Position of a step in [`Event::Planned`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StepId(pub usize);

/// A step for people.
#[derive(Clone, Debug)]
pub struct StepDescription {
    /// Stage name, or `stage-N` when there are several stages; empty when there is one.
    pub stage: String,
    /// Position in the stage, from 1.
    pub number: usize,
    /// Steps in the stage.
    pub of: usize,
    /// `RUN make`
    pub title: String,
    /// Platform, when several are built.
    pub platform: Option<String>,
    /// Lines of the Dockerfile.
    pub lines: (usize, usize),
}

/// Which of the command's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// stdout
    Stdout,
    /// stderr
    Stderr,
}

/// How a step ended.
#[derive(Clone, Debug)]
pub enum StepOutcome {
    /// A record was used.
    Cached,
    /// It was done now.
    Done,
    /// It failed; the build's error says why.
    Failed,
    /// It was stopped because the build ended.
    Cancelled,
}
