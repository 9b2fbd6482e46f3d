//! Where events become lines on stderr: one view, one lock, one writer.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rbuild::BuildOutcome;
use rbuild::event::{Event, EventSink, StepId};

use super::grouped::{CiSystem, Grouped};
use super::live::Live;
use super::plain::Plain;
use super::rawjson::{self, RawJson};
use super::summary::{Story, render};
use super::tail::Tails;
use super::terminal::{Size, Terminal};
use super::{diagnostic, print_line, report, write_stderr};
use crate::cli::ProgressMode;

/// Turns events into text; never writes.
pub(crate) trait View: Send {
    /// What to write for an event, `at` after the build began.
    fn show(&mut self, at: Duration, event: &Event) -> String;

    /// What to write as time goes on.
    fn tick(&mut self, _at: Duration, _size: Size) -> String {
        String::new()
    }

    /// What to write before something else writes a line.
    fn clear(&mut self, _size: Size) -> String {
        String::new()
    }

    /// What to write when there is no more progress.
    fn end(&mut self, _size: Size) -> String {
        String::new()
    }
}

/// How often a live view is drawn.
const FRAME: Duration = Duration::from_millis(100);

/// The console whose view is drawn on the terminal, for those who write and do not know it.
static LIVE: Mutex<Weak<Mutex<State>>> = Mutex::new(Weak::new());

/// Writes whole lines to stderr, above a live view if there is one.
pub(super) fn write_above(lines: &str) {
    let live = LIVE
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .upgrade();
    match live {
        Some(state) => {
            let mut state = lock(&state);
            let cleared = state.clear();
            write_stderr(&(cleared + lines));
        }
        None => write_stderr(lines),
    }
}

/// Shows nothing.
struct Quiet;

impl View for Quiet {
    fn show(&mut self, _at: Duration, _event: &Event) -> String {
        String::new()
    }
}

/// What a build is shown on. Cheap to clone; all clones show the same build.
#[derive(Clone)]
pub(crate) struct Console {
    mode: ProgressMode,
    terminal: Terminal,
    started: Instant,
    /// Taken for one event at a time, and while its text is written: lines come in the order of events.
    state: Arc<Mutex<State>>,
}

struct State {
    view: Box<dyn View>,
    /// The view is drawn again and again.
    is_live: bool,
    tails: Tails,
    story: Story,
    /// Id of the build in the history.
    build_id: Option<String>,
    /// Failed steps that are kept.
    kept: BTreeSet<StepId>,
    /// Rendered warnings in order, and the same to know which came already.
    warnings: Vec<String>,
    known_warnings: BTreeSet<String>,
    /// The same for GitHub, if it reads this.
    annotations: String,
}

impl Console {
    /// A console that looks at stderr for what it can show.
    pub(crate) fn new(mode: ProgressMode) -> Self {
        let terminal = Terminal::of_stderr();
        let is_live =
            matches!(mode, ProgressMode::Auto | ProgressMode::Tty) && Size::of_stderr().is_some();
        let view: Box<dyn View> = match mode {
            ProgressMode::Quiet => Box::new(Quiet),
            ProgressMode::RawJson => Box::new(RawJson::default()),
            ProgressMode::Auto | ProgressMode::Tty if is_live => Box::new(Live::new(terminal)),
            ProgressMode::Auto | ProgressMode::Tty | ProgressMode::Plain => {
                let plain = Plain::new(terminal);
                match CiSystem::of_environment().filter(|_| mode == ProgressMode::Auto) {
                    Some(system) => Box::new(Grouped::new(system, plain)),
                    None => Box::new(plain),
                }
            }
        };
        let state = State {
            view,
            is_live,
            tails: Tails::default(),
            story: Story::default(),
            build_id: None,
            kept: BTreeSet::new(),
            warnings: Vec::new(),
            known_warnings: BTreeSet::new(),
            annotations: String::new(),
        };
        let console = Self {
            mode,
            terminal,
            started: Instant::now(),
            state: Arc::new(Mutex::new(state)),
        };
        if is_live {
            console.start_clock();
        } else if mode == ProgressMode::Tty {
            console
                .notice("stderr is no terminal that can be drawn on: progress is shown as lines");
        }
        console
    }

    /// Draws the view until progress ends or the last clone is gone.
    fn start_clock(&self) {
        let (state, started) = (Arc::downgrade(&self.state), self.started);
        LIVE.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone_from(&state);
        let draw = move || {
            while let Some(state) = state.upgrade() {
                let mut state = lock(&state);
                if !state.is_live {
                    break;
                }
                if let Some(size) = Size::of_stderr() {
                    let text = state.view.tick(started.elapsed(), size);
                    write_stderr(&text);
                }
                drop(state);
                thread::sleep(FRAME);
            }
        };
        // Without a thread only the end is drawn: the build is worth more than its log.
        let _ = thread::Builder::new()
            .name("progress".to_owned())
            .spawn(draw);
    }

    /// For the engine.
    pub(crate) fn sink(&self) -> EventSink {
        let console = self.clone();
        Arc::new(move |event| console.show(&event))
    }

    /// Something to know now.
    pub(crate) fn notice(&self, words: &str) {
        self.show(&Event::Notice(words.to_owned()));
    }

    fn show(&self, event: &Event) {
        let mut state = self.lock();
        state.tails.keep(event);
        state.story.keep(event);
        if let Event::Recorded { build } = event {
            state.build_id = Some(build.clone());
        }
        if let Event::Kept { step } = event {
            state.kept.insert(*step);
        }
        if let Event::Warning { diagnostic, source } = event {
            let text = diagnostic::render(diagnostic, source, self.terminal);
            if state.known_warnings.insert(text.clone()) {
                state.warnings.push(text);
                if CiSystem::of_environment() == Some(CiSystem::GitHub) {
                    state.annotations +=
                        &report::github::annotation(diagnostic, source, source.name());
                }
            }
        }
        // Taken under the lock: times never go backwards.
        let text = state.view.show(self.started.elapsed(), event);
        if !text.is_empty() {
            write_stderr(&text);
        }
    }

    /// Ends the progress; each warning is printed once, here, where it is not scrolled away.
    pub(crate) fn finish_progress(&self) {
        let mut state = self.lock();
        let text = state.end();
        write_stderr(&text);
        drop(state);
        if matches!(self.mode, ProgressMode::Quiet | ProgressMode::RawJson) {
            return;
        }
        let mut state = self.lock();
        let mut warnings = std::mem::take(&mut state.warnings);
        let annotations = std::mem::take(&mut state.annotations);
        drop(state);
        if warnings.is_empty() {
            return;
        }
        let more = warnings.len().saturating_sub(diagnostic::MOST_SHOWN);
        warnings.truncate(diagnostic::MOST_SHOWN);
        if more > 0 {
            warnings.push(format!("and {more} more: `rbuild check` lists them all\n"));
        }
        write_stderr(&format!("\n{}\n{annotations}", warnings.join("\n")));
    }

    /// Id of the build in the history, once it is there.
    pub(crate) fn build_id(&self) -> Option<String> {
        self.lock().build_id.clone()
    }

    /// Whether what a failed step left is kept.
    pub(crate) fn is_kept(&self, step: StepId) -> bool {
        self.lock().kept.contains(&step)
    }

    /// The last lines of a step's output.
    pub(crate) fn last_lines(&self, step: StepId) -> Vec<Vec<u8>> {
        self.lock().tails.of(step)
    }

    /// Says what was built: on stderr for people, or the ids on stdout for `--quiet`.
    pub(crate) fn print_summary(&self, outcome: &BuildOutcome) {
        match self.mode {
            ProgressMode::Quiet => outcome
                .images
                .iter()
                .for_each(|image| print_line(image.image_id.as_ref())),
            ProgressMode::RawJson => write_stderr(&rawjson::built(outcome, self.started.elapsed())),
            ProgressMode::Auto | ProgressMode::Tty | ProgressMode::Plain => {
                let story = std::mem::take(&mut self.lock().story);
                let took = self.started.elapsed();
                write_stderr(&render(outcome, &story, took, self.terminal));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    /// Takes a live view off the terminal until it is drawn again.
    fn clear(&mut self) -> String {
        match Size::of_stderr() {
            Some(size) if self.is_live => self.view.clear(size),
            _ => String::new(),
        }
    }

    /// The last of the progress; a live view is off the terminal for good.
    fn end(&mut self) -> String {
        self.is_live = false;
        // A terminal that is gone needs no rows moved.
        let size = Size::of_stderr().unwrap_or(Size {
            columns: 80,
            rows: 24,
        });
        self.view.end(size)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // A view that panicked has said so already; what is left of it can still show lines.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
