//! Writes a build's history while it runs, and answers why its steps run.
//!
//! Sits between the build and its listener: every event passes through [`Recorder::sink`]. What a step writes goes to
//! its log at once; a timer makes it readable for others. The build's row is written when there is first something to
//! wait for (a step, a download, an export), by the same timer when a step has begun or ended since, and at the build's
//! end: one that only hits writes it once. The row holds all steps, so writing it with each of them would cost the square
//! of their number: a third of the CPU time of a build of a hundred small steps. A history that can't be written is a warning in the log, never the end of a
//! build.

mod why;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rbuild_cache::{
    BuildProgress, BuildStatus, HistoryLimits, KeptLimits, KeyPart, Lease, LogStream, NewBuild,
    StepLogWriter, StepRecord, Store,
};
use rbuild_runner::job::RunOutcome;

use super::earlier::Earlier;
use super::written::{Written, line_of, summary_of};
use super::{BuildDetail, BuildSummary, StepNote, StepState, TaskNote};
use crate::error::BuildError;
use crate::event::{Event, EventSink, StepDescription, StepId, StepOutcome, Stream};
use crate::explain::parts;
use crate::options::{BuildOptions, Output, OutputKind};

/// How often what steps write, and how far they are, is made readable for others; what a killed build loses of it.
const FLUSH_INTERVAL: Duration = Duration::from_millis(250);

/// Of so many builds that only hit, about one looks at what is too much of the past.
const UNTIDIED_BUILDS: i64 = 64;

/// Bytes of a Dockerfile that are kept with its build: what people write is shorter, what machines write nobody reads.
const LONGEST_DOCKERFILE: usize = 256 * 1024;

/// One build's history in the making.
pub(crate) struct Recorder {
    store: Store,
    build: NewBuild,
    started: Instant,
    /// Held while the row is written, so that a later state is never overwritten by an earlier. Taken before `state`.
    row: Mutex<Row>,
    /// Held for single changes: events never wait for the database.
    state: Mutex<State>,
    /// Held while an event's bytes are compressed. Never taken while `state` is held.
    logs: Mutex<BTreeMap<StepId, StepLog>>,
    /// Earlier builds, read when first needed.
    earlier: Mutex<Option<Arc<Earlier>>>,
}

struct StepLog {
    writer: Option<StepLogWriter>,
    started: Instant,
}

#[derive(Default)]
struct State {
    summary: BuildSummary,
    detail: BuildDetail,
    /// Names of all `ARG`s.
    arguments: BTreeSet<String>,
    /// File lists that the steps refer to.
    lists: BTreeSet<String>,
    /// Where a task of the events stands among the detail's.
    tasks: BTreeMap<usize, usize>,
    has_worked: bool,
    /// Steps began or ended since the row was written.
    is_stale: bool,
}

impl State {
    /// All that a row says; from here on it is not stale.
    fn progress(&mut self) -> BuildProgress {
        self.is_stale = false;
        let steps = &self.detail.steps;
        BuildProgress {
            summary: serde_json::to_string(&self.summary).unwrap_or_default(),
            detail: serde_json::to_vec(&self.detail).unwrap_or_default(),
            logs: steps.iter().filter_map(|step| step.log.clone()).collect(),
            lists: self.lists.iter().cloned().collect(),
        }
    }
}

/// The build's row in the history.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Row {
    #[default]
    NotYet,
    Written,
    /// It could not be: there will be none.
    Failed,
}

impl Recorder {
    /// A build begins. None when the history can't be written: then there is none of this build.
    pub(crate) fn begin(
        store: &Store,
        lease: &Lease,
        options: &BuildOptions,
        dockerfile: &str,
    ) -> Option<Arc<Self>> {
        let summary = summary_of(options, dockerfile);
        let line = line_of(&summary, options);
        let build = match store.new_build(lease, &line) {
            Ok(build) => build,
            Err(error) => {
                tracing::warn!(%error, "this build will not be in the history");
                return None;
            }
        };
        let kernel = rustix::system::uname();
        let output = |output: &Output| {
            let to = output.destination.as_deref();
            let to = to.map_or_else(|| "-".to_owned(), super::absolute);
            format!("{:?} {to}", output.kind).to_lowercase()
        };
        let written = options.outputs.iter();
        let written = written.filter(|output| output.kind != OutputKind::Image);
        let state = State {
            summary,
            detail: BuildDetail {
                machine: crate::build::this_machine().to_string(),
                outputs: written.map(output).collect(),
                kernel: kernel.release().to_string_lossy().into_owned(),
                ..BuildDetail::default()
            },
            ..State::default()
        };
        Some(Arc::new(Self {
            store: store.clone(),
            build,
            started: Instant::now(),
            row: Mutex::default(),
            state: Mutex::new(state),
            logs: Mutex::default(),
            earlier: Mutex::default(),
        }))
    }

    /// The build's id.
    pub(crate) fn id(&self) -> &str {
        &self.build.id
    }

    /// What is told of a build, to the history first.
    pub(crate) fn sink(self: &Arc<Self>, next: EventSink) -> EventSink {
        let recorder = Arc::clone(self);
        Arc::new(move |event| {
            recorder.keep(&event);
            next(event);
        })
    }

    /// Makes logs readable from time to time, until the future is dropped.
    pub(crate) async fn flush_now_and_then(self: Arc<Self>) {
        loop {
            tokio::time::sleep(FLUSH_INTERVAL).await;
            let recorder = Arc::clone(&self);
            crate::blocking::run(move || recorder.flush()).await;
        }
    }

    fn flush(&self) {
        for log in lock(&self.logs).values_mut() {
            if let Some(Err(error)) = log.writer.as_mut().map(StepLogWriter::flush) {
                tracing::warn!(%error, "a step's log ends here");
                log.writer = None;
            }
        }
        let mut row = lock(&self.row);
        if *row == Row::Written && lock(&self.state).is_stale {
            self.write(&mut row, BuildStatus::Running);
        }
    }

    /// Names that the Dockerfile declares with `ARG`.
    pub(crate) fn set_arguments(&self, names: BTreeSet<String>) {
        lock(&self.state).arguments = names;
    }

    /// How all steps are written.
    pub(crate) fn set_places(&self, places: impl Iterator<Item = Written>) {
        let mut state = lock(&self.state);
        for (step, written) in state.detail.steps.iter_mut().zip(places) {
            step.stage_key = written.stage_key;
            step.is_image = written.is_image;
            step.spelt = written.spelt;
            step.needs = written.needs;
        }
    }

    /// The text that the steps stand in.
    pub(crate) fn set_dockerfile(&self, text: &str) {
        if text.len() <= LONGEST_DOCKERFILE {
            text.clone_into(&mut lock(&self.state).detail.dockerfile);
        }
    }

    /// A step as the progress shows it: `[build 2/5]`.
    pub(crate) fn label_of(&self, step: StepId) -> String {
        let state = lock(&self.state);
        let note = state.detail.steps.get(step.0);
        note.map(StepNote::label).unwrap_or_default()
    }

    /// A step as it is spelt.
    pub(crate) fn spelt(&self, step: StepId) -> String {
        let state = lock(&self.state);
        let note = state.detail.steps.get(step.0);
        note.map(|note| note.spelt.clone()).unwrap_or_default()
    }

    /// Names that the Dockerfile declares with `ARG`.
    pub(crate) fn arguments(&self) -> BTreeSet<String> {
        lock(&self.state).arguments.clone()
    }

    /// Notes what the record of a step says that was taken from the cache.
    pub(crate) fn note_record(&self, step: StepId, record: &StepRecord) {
        let mut state = lock(&self.state);
        let lists = lists_of(&record.parts);
        state.lists.extend(lists);
        if let Some(note) = state.detail.steps.get_mut(step.0) {
            note.log = log_of(&record.parts);
            note.parts.clone_from(&record.parts);
            note_layer(note, record);
        }
    }

    /// Notes the parts of a step that is to run.
    pub(crate) fn note_parts(&self, step: StepId, parts: &[KeyPart]) {
        let mut state = lock(&self.state);
        let lists = lists_of(parts);
        state.lists.extend(lists);
        if let Some(note) = state.detail.steps.get_mut(step.0) {
            note.parts = parts.to_vec();
        }
    }

    /// Notes the layer that a step left.
    pub(crate) fn note_result(&self, step: StepId, record: &StepRecord) {
        let mut state = lock(&self.state);
        if let Some(note) = state.detail.steps.get_mut(step.0) {
            note_layer(note, record);
        }
    }

    /// Notes what a step's command used.
    pub(crate) fn note_usage(&self, step: StepId, outcome: &RunOutcome) {
        let mut state = lock(&self.state);
        if let Some(note) = state.detail.steps.get_mut(step.0) {
            note.cpu = Some((outcome.usage.user_us + outcome.usage.system_us) / 1000);
            let of_all = outcome.memory.and_then(|memory| memory.peak);
            note.peak_memory = of_all.or(Some(outcome.usage.max_rss_kib << 10));
        }
    }

    /// The name of the log that a step of this build has.
    pub(crate) fn log_name(&self, step: StepId) -> String {
        format!("{}-{}", self.build.id, step.0 + 1)
    }

    fn keep(&self, event: &Event) {
        match event {
            Event::Planned { steps } => {
                let mut state = lock(&self.state);
                state.summary.steps = steps.len();
                state.detail.steps = steps.iter().map(note).collect();
            }
            Event::Warning { diagnostic, source } => {
                let line = source.line_at(diagnostic.span.start);
                let words = format!("{}:{line}: {}", source.name(), diagnostic.message);
                lock(&self.state).detail.warnings.push(words);
            }
            Event::TaskStarted { task, title } => self.task_started(*task, title),
            Event::TaskProgress { task, done, .. } => {
                self.note_task(*task, |note| note.bytes = *done);
            }
            Event::TaskFinished {
                task,
                duration,
                result,
            } => self.note_task(*task, |note| {
                note.duration = Some(milliseconds(*duration));
                note.error = result.as_ref().err().cloned();
            }),
            Event::Started(step) => self.started(*step),
            Event::Output {
                step,
                stream,
                bytes,
            } => self.output(*step, *stream, bytes),
            Event::Finished {
                step,
                outcome,
                duration,
            } => self.finished(*step, outcome, *duration),
            Event::Recorded { .. }
            | Event::Explained { .. }
            | Event::Kept { .. }
            | Event::Notice(_) => {}
        }
    }

    /// From now on others see the build, and that it was killed if it is.
    fn appear(&self) {
        let mut row = lock(&self.row);
        if *row == Row::NotYet {
            self.write(&mut row, BuildStatus::Running);
        }
    }

    fn task_started(&self, task: usize, title: &str) {
        let mut state = lock(&self.state);
        let index = state.detail.tasks.len();
        state.tasks.insert(task, index);
        state.detail.tasks.push(TaskNote {
            title: title.to_owned(),
            started: milliseconds(self.started.elapsed()),
            ..TaskNote::default()
        });
        drop(state);
        self.appear();
    }

    fn note_task(&self, task: usize, change: impl FnOnce(&mut TaskNote)) {
        let mut state = lock(&self.state);
        let index = state.tasks.get(&task).copied();
        if let Some(note) = index.and_then(|index| state.detail.tasks.get_mut(index)) {
            change(note);
        }
    }

    fn started(&self, step: StepId) {
        let mut state = lock(&self.state);
        let since = milliseconds(self.started.elapsed());
        let Some(note) = state.detail.steps.get_mut(step.0) else {
            return;
        };
        note.state = StepState::Running;
        note.started = Some(since);
        let has_log = !note.is_image;
        if has_log {
            note.log = Some(self.log_name(step));
            state.has_worked = true;
        }
        state.is_stale = true;
        drop(state);
        // Before the log is there: one without its build in the history may be removed by anybody.
        self.appear();
        if has_log {
            let log = StepLog {
                writer: None,
                started: Instant::now(),
            };
            lock(&self.logs).insert(step, log);
        }
    }

    /// The log's file is made with its first bytes: most steps write nothing.
    fn output(&self, step: StepId, stream: Stream, bytes: &[u8]) {
        let mut logs = lock(&self.logs);
        let Some(log) = logs.get_mut(&step) else {
            return;
        };
        let at = milliseconds(log.started.elapsed());
        let stream = match stream {
            Stream::Stdout => LogStream::Stdout,
            Stream::Stderr => LogStream::Stderr,
        };
        let written = match &mut log.writer {
            Some(writer) => writer.write(stream, at, bytes),
            none => self
                .store
                .write_step_log(&self.log_name(step))
                .and_then(|writer| none.insert(writer).write(stream, at, bytes)),
        };
        if let Err(error) = written {
            tracing::warn!(%error, "a step's log ends here");
            logs.remove(&step);
        }
    }

    fn finished(&self, step: StepId, outcome: &StepOutcome, duration: Duration) {
        let log = lock(&self.logs).remove(&step);
        if let Some(Err(error)) = log.and_then(|log| log.writer).map(StepLogWriter::finish) {
            tracing::warn!(%error, "a step's log is not whole");
        }
        let mut state = lock(&self.state);
        let Some(note) = state.detail.steps.get_mut(step.0) else {
            return;
        };
        note.state = match outcome {
            StepOutcome::Cached => StepState::Cached,
            StepOutcome::Done => StepState::Done,
            StepOutcome::Failed => StepState::Failed,
            StepOutcome::Cancelled => StepState::Cancelled,
        };
        if matches!(outcome, StepOutcome::Cached) {
            state.summary.cached += 1;
            return;
        }
        note.duration = Some(milliseconds(duration));
        if note.is_image {
            return;
        }
        if matches!(outcome, StepOutcome::Done) {
            state.summary.done += 1;
        }
        state.is_stale = true;
        drop(state);
        self.appear();
    }

    /// Notes how the build ended, and drops what is too much of the past. False when it is not in the history.
    pub(crate) fn end(&self, outcome: Result<&crate::BuildOutcome, &BuildError>) -> bool {
        let mut state = lock(&self.state);
        state.summary.duration = Some(milliseconds(self.started.elapsed()));
        let status = match outcome {
            Ok(outcome) => {
                state.summary.image_id = Some(outcome.image_id.to_string());
                state.summary.names.clone_from(&outcome.tags);
                if let Some(descriptor) = &outcome.descriptor {
                    let words = format!("{} {}", descriptor.media_type, descriptor.digest);
                    state.detail.outputs.push(words);
                }
                // An image that only cached steps stand on is not looked at: nothing is left to be done for it.
                for step in &mut state.detail.steps {
                    if step.is_image && step.state == StepState::Pending {
                        step.state = StepState::Cached;
                    }
                }
                BuildStatus::Done
            }
            Err(BuildError::Interrupted) => BuildStatus::Interrupted,
            Err(error) => {
                state.detail.error = Some(with_causes(error));
                BuildStatus::Failed
            }
        };
        let is_its_turn = self.build.started % UNTIDIED_BUILDS == 0;
        let is_untidy = state.has_worked || is_its_turn;
        drop(state);
        let mut row = lock(&self.row);
        self.write(&mut row, status);
        let is_written = *row == Row::Written;
        drop(row);
        if is_untidy && let Err(error) = self.store.drop_history(&HistoryLimits::default()) {
            tracing::warn!(%error, "cannot remove old builds from the history");
        }
        if is_untidy && let Err(error) = self.store.drop_kept(KeptLimits::default()) {
            tracing::warn!(%error, "cannot remove what is kept of old failed steps");
        }
        is_written
    }

    fn write(&self, row: &mut Row, status: BuildStatus) {
        let progress = lock(&self.state).progress();
        let store = &self.store;
        match row {
            Row::Failed => {}
            Row::Written => {
                if let Err(error) = store.update_build(&self.build.id, status, &progress) {
                    tracing::warn!(%error, "cannot write the build's history");
                }
            }
            Row::NotYet => match store.add_build(&self.build, status, &progress) {
                Ok(()) => *row = Row::Written,
                Err(error) => {
                    *row = Row::Failed;
                    tracing::warn!(%error, "this build will not be in the history");
                }
            },
        }
    }
}

fn note(step: &StepDescription) -> StepNote {
    StepNote {
        stage: step.stage.clone(),
        number: step.number,
        of: step.of,
        title: step.title.lines().next().unwrap_or_default().to_owned(),
        platform: step.platform.clone(),
        lines: step.lines,
        ..StepNote::default()
    }
}

fn note_layer(note: &mut StepNote, record: &StepRecord) {
    if let Some(layer) = record.chain.top() {
        note.layer = Some(layer.diff_id.to_string());
        note.layer_size = Some(layer.tar_size);
    }
}

fn log_of(parts: &[KeyPart]) -> Option<String> {
    let part = parts.iter().find(|part| part.name == parts::RAN_IN)?;
    Some(part.value.clone())
}

fn lists_of(parts: &[KeyPart]) -> Vec<String> {
    let is_list = |part: &&KeyPart| {
        matches!(
            parts::PartName::parse(&part.name),
            parts::PartName::Files(_)
        )
    };
    parts
        .iter()
        .filter(is_list)
        .map(|part| part.value.clone())
        .collect()
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    let mut lines: Vec<String> = chain.map(ToString::to_string).collect();
    lines.dedup();
    lines.join("\n")
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these guard is a note at worst half made, and told of nothing but the past.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
