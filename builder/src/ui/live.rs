//! Progress on a terminal: what runs is drawn again and again at the bottom, what is done scrolls away above it.
//!
//! ```text
//! [build 1-3/6] CACHED 3 steps
//! [build 4/6] RUN make  12.3s                     done: written once, scrolls away
//! [build 5/6] RUN make test               3.1s    running, with the last lines of its output
//!     test parser ... ok
//! pulling debian:12  [=====>     ]  45 % of 48.0 MB  12.1 MB/s  2.0s
//! 4/9 steps, 3 cached, 1 running  15.6s
//! ```
//!
//! Pure: [`Screen`] decides what is where; the console's clock asks for it ten times a second and writes it.

mod screen;
mod window;

use std::collections::BTreeMap;
use std::time::Duration;

use rbuild::event::{Event, StepDescription, StepOutcome};
use rbuild::explain::{self, Reason};

use self::screen::Screen;
use self::window::{Rate, Window};
use super::ansi::clean_line;
use super::console::View;
use super::fit::{fit, width};
use super::plain::{label, task_words};
use super::terminal::{Size, Style, Terminal};
use super::units;

/// Reasons for a step to run that are shown; `rbuild explain` has all of them.
const REASONS: usize = 3;

/// The live view of one build.
#[derive(Debug, Default)]
pub(crate) struct Live {
    terminal: Terminal,
    steps: Vec<Step>,
    /// Positions in `steps`, in the order of their starts.
    running: Vec<usize>,
    tasks: BTreeMap<usize, Task>,
    /// Cached steps since the last line that stays: one line tells of all.
    folded: Vec<usize>,
    /// How many they were when last drawn: when none has joined since, they are told of.
    folded_before: usize,
    finished: usize,
    cached: usize,
    /// Lines that stay and were not written yet.
    above: Vec<Kept>,
    screen: Screen,
    /// Something is to be drawn that was not.
    has_news: bool,
}

#[derive(Debug, Default)]
struct Step {
    stage: String,
    platform: Option<String>,
    number: usize,
    of: usize,
    label: String,
    title: String,
    /// Why it runs; empty when that is no news.
    reasons: String,
    started: Duration,
    window: Window,
}

#[derive(Debug)]
struct Task {
    title: String,
    started: Duration,
    done: u64,
    total: Option<u64>,
    rate: Rate,
}

/// A line that stays.
#[derive(Debug)]
struct Kept {
    /// Cut where the terminal ends, so that a long command takes one row; none for lines that are worth more.
    head: Option<String>,
    rest: String,
}

impl Live {
    /// A view for this terminal.
    pub(crate) fn new(terminal: Terminal) -> Self {
        Self {
            terminal,
            ..Self::default()
        }
    }

    fn keep(&mut self, head: Option<String>, rest: String) {
        self.fold();
        self.above.push(Kept { head, rest });
    }

    /// Tells of the cached steps since the last line: neighbours of a stage together.
    fn fold(&mut self) {
        let mut cached = std::mem::take(&mut self.folded);
        self.folded_before = 0;
        cached.sort_unstable();
        let is_next = |&first: &usize, &second: &usize| {
            let (first, second) = (&self.steps[first], &self.steps[second]);
            (&first.stage, &first.platform, first.number + 1)
                == (&second.stage, &second.platform, second.number)
        };
        let lines: Vec<Kept> = cached
            .chunk_by(is_next)
            .map(|group| self.cached_line(group))
            .collect();
        self.above.extend(lines);
    }

    fn cached_line(&self, group: &[usize]) -> Kept {
        let (first, last) = (&self.steps[group[0]], &self.steps[group[group.len() - 1]]);
        let (label, words) = if group.len() == 1 {
            (first.label.clone(), first.title.clone())
        } else {
            let range = format!("{}-{}/{}]", first.number, last.number, first.of);
            let place = format!("{}/{}]", first.number, first.of);
            let label = first.label.replace(&place, &range);
            (label, format!("{} steps", group.len()))
        };
        let head = format!(
            "{} {} {words}",
            self.terminal.paint(Style::Blue, &label),
            self.terminal.paint(Style::Green, "CACHED"),
        );
        Kept {
            head: Some(head),
            rest: String::new(),
        }
    }

    /// What stays and was not written yet, as text.
    fn take_above(&mut self, size: Size) -> String {
        let line = |kept: Kept| {
            let head = kept.head.unwrap_or_default();
            let room = size.columns.saturating_sub(width(&kept.rest) + 1);
            format!("{}{}\n", fit(&head, room), kept.rest)
        };
        self.above.drain(..).map(line).collect()
    }

    fn explained(&mut self, step: usize, reasons: &[Reason]) {
        // That a step runs because the one before it did is plain to see.
        let is_news = |reason: &Reason| {
            !matches!(
                reason,
                Reason::FirstBuild | Reason::NewStep | Reason::Parent { .. }
            )
        };
        if !reasons.iter().any(is_news) {
            return;
        }
        if let Some(step) = self.steps.get_mut(step) {
            let words = explain::in_one_line(reasons, REASONS);
            step.reasons = clean_line(format!("runs again: {words}").as_bytes(), false);
        }
    }

    fn finish(&mut self, index: usize, outcome: &StepOutcome, duration: Duration) {
        self.running.retain(|&running| running != index);
        let Some(step) = self.steps.get_mut(index) else {
            return;
        };
        step.window = Window::default();
        self.finished += 1;
        if let StepOutcome::Cached = outcome {
            self.cached += 1;
            self.folded.push(index);
            return;
        }
        let terminal = self.terminal;
        let head = format!(
            "{} {}",
            terminal.paint(Style::Blue, &step.label),
            terminal.paint(Style::Bold, &step.title)
        );
        let time = units::duration(duration);
        let words = match outcome {
            StepOutcome::Failed => format!("{} after {time}", terminal.paint(Style::Red, "FAILED")),
            StepOutcome::Cancelled => format!("CANCELLED after {time}"),
            StepOutcome::Done | StepOutcome::Cached => terminal.paint(Style::Green, &time),
        };
        let reasons = std::mem::take(&mut step.reasons);
        self.keep(Some(head), format!("  {words}"));
        if !reasons.is_empty() {
            self.keep(None, terminal.paint(Style::Dim, &format!("    {reasons}")));
        }
    }

    fn task_finished(&mut self, task: usize, duration: Duration, result: &Result<String, String>) {
        if let Some(task) = self.tasks.remove(&task) {
            let words = task_words(self.terminal, duration, task.done, result);
            let title = self
                .terminal
                .paint(Style::Blue, &format!("{}:", task.title));
            self.keep(None, format!("{title} {words}"));
        }
    }

    fn planned(&mut self, steps: &[StepDescription]) {
        let step = |step: &StepDescription| Step {
            stage: step.stage.clone(),
            platform: step.platform.clone(),
            number: step.number,
            of: step.of,
            label: label(step),
            // A heredoc's title may have several lines; the first tells which it is.
            title: clean_line(step.title.lines().next().unwrap_or("").as_bytes(), false),
            ..Step::default()
        };
        self.steps = steps.iter().map(step).collect();
    }

    fn take(&mut self, at: Duration, event: &Event) {
        match event {
            Event::Planned { steps } => self.planned(steps),
            // Warnings are shown once, at the end.
            Event::Recorded { .. } | Event::Warning { .. } | Event::Kept { .. } => {}
            Event::Notice(words) => {
                let note = self.terminal.paint(Style::Cyan, "note:");
                self.keep(None, format!("{note} {words}"));
            }
            Event::Started(id) => {
                if let Some(step) = self.steps.get_mut(id.0) {
                    step.started = at;
                    self.running.push(id.0);
                }
            }
            Event::Explained { step, reasons } => self.explained(step.0, reasons),
            Event::Output {
                step,
                stream,
                bytes,
            } => {
                if let Some(step) = self.steps.get_mut(step.0) {
                    step.window.write(*stream, bytes, self.terminal.has_colours);
                }
            }
            Event::Finished {
                step,
                outcome,
                duration,
            } => self.finish(step.0, outcome, *duration),
            Event::TaskStarted { task, title } => {
                let state = Task {
                    title: clean_line(title.as_bytes(), false),
                    started: at,
                    done: 0,
                    total: None,
                    rate: Rate::default(),
                };
                self.tasks.insert(*task, state);
            }
            Event::TaskProgress { task, done, total } => {
                if let Some(state) = self.tasks.get_mut(task) {
                    (state.done, state.total) = (*done, *total);
                    state.rate.add(at, *done);
                }
            }
            Event::TaskFinished {
                task,
                duration,
                result,
            } => self.task_finished(*task, *duration, result),
        }
    }
}

impl View for Live {
    fn show(&mut self, at: Duration, event: &Event) -> String {
        self.take(at, event);
        self.has_news = true;
        String::new()
    }

    fn tick(&mut self, at: Duration, size: Size) -> String {
        // Times go on while something runs; else there is nothing to draw anew.
        let moves = !self.running.is_empty() || !self.tasks.is_empty() || !self.folded.is_empty();
        if !self.has_news && !moves {
            return String::new();
        }
        self.has_news = false;
        let lines = screen::lines(self, at, size);
        if self.folded.len() == self.folded_before {
            self.fold();
        }
        self.folded_before = self.folded.len();
        let above = self.take_above(size);
        self.screen.draw(&above, &lines, size)
    }

    fn clear(&mut self, size: Size) -> String {
        self.has_news = true;
        self.screen.draw("", &[], size)
    }

    fn end(&mut self, size: Size) -> String {
        self.fold();
        let above = self.take_above(size);
        self.screen.draw(&above, &[], size)
    }
}

#[cfg(test)]
mod tests;
