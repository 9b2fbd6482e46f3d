//! Where events become lines on stderr: one view, one lock, one writer.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rbuild::BuildOutcome;
use rbuild::event::{Event, EventSink, StepId};

use super::plain::Plain;
use super::rawjson::{self, RawJson};
use super::summary::render;
use super::tail::Tails;
use super::terminal::Terminal;
use super::{diagnostic, print_line, write_stderr};
use crate::cli::ProgressMode;

/// Turns events into text; never writes.
pub(crate) trait View: Send {
    /// What to write for an event, `at` after the build began.
    fn show(&mut self, at: Duration, event: &Event) -> String;
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
    tails: Tails,
    /// Rendered warnings in order, and the same to know which came already.
    warnings: Vec<String>,
    known_warnings: BTreeSet<String>,
}

impl Console {
    /// A console that looks at stderr for what it can show.
    pub(crate) fn new(mode: ProgressMode) -> Self {
        let terminal = Terminal::of_stderr();
        let view: Box<dyn View> = match mode {
            ProgressMode::Quiet => Box::new(Quiet),
            ProgressMode::RawJson => Box::new(RawJson),
            // A live view takes `Tty`, and `Auto` on a terminal, as soon as there is one.
            ProgressMode::Auto | ProgressMode::Tty | ProgressMode::Plain => {
                Box::new(Plain::new(terminal))
            }
        };
        let state = State {
            view,
            tails: Tails::default(),
            warnings: Vec::new(),
            known_warnings: BTreeSet::new(),
        };
        Self {
            mode,
            terminal,
            started: Instant::now(),
            state: Arc::new(Mutex::new(state)),
        }
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
        if let Event::Warning { diagnostic, source } = event {
            let text = diagnostic::render(diagnostic, source, self.terminal);
            if state.known_warnings.insert(text.clone()) {
                state.warnings.push(text);
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
        if matches!(self.mode, ProgressMode::Quiet | ProgressMode::RawJson) {
            return;
        }
        let mut warnings = std::mem::take(&mut self.lock().warnings);
        if warnings.is_empty() {
            return;
        }
        let more = warnings.len().saturating_sub(diagnostic::MOST_SHOWN);
        warnings.truncate(diagnostic::MOST_SHOWN);
        if more > 0 {
            warnings.push(format!("and {more} more: `rbuild check` lists them all\n"));
        }
        write_stderr(&format!("\n{}\n", warnings.join("\n")));
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
                write_stderr(&render(outcome, self.started.elapsed(), self.terminal));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A view that panicked has said so already; what is left of it can still show lines.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
