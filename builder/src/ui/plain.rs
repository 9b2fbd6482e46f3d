//! Progress as lines: each begins with its step, so that `grep '^\[build 2/5\]'` has one step's whole story.
//!
//! ```text
//! [build 1/3] CACHED FROM debian:12
//! [build 2/3] RUN make
//! [build 2/3] runs again: file main.c (content)
//! [build 2/3] 0.21 cc -c main.c
//! [build 2/3] DONE 1.2s
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use rbuild::event::{Event, StepDescription, StepOutcome, Stream};
use rbuild::explain::{self, Reason};

use super::ansi::clean_line;
use super::console::View;
use super::terminal::{Style, Terminal};
use super::units;

/// How often a task's bytes are reported. A log that is watched should move, one that is kept should stay short.
const TASK_INTERVAL: Duration = Duration::from_secs(2);

/// Reasons for a step to run that are shown while it runs; `rbuild explain` has all of them.
const REASONS: usize = 3;

/// A line that never ends (a progress bar without line ends) is shown in pieces of about this many bytes.
const LONGEST_LINE: usize = 64 * 1024;

/// Progress as lines.
#[derive(Debug, Default)]
pub(crate) struct Plain {
    terminal: Terminal,
    steps: Vec<Step>,
    tasks: BTreeMap<usize, Task>,
}

#[derive(Debug, Default)]
struct Step {
    /// `[build 2/5]`
    label: String,
    title: String,
    /// None until it was announced.
    started: Option<Duration>,
    /// Beginnings of lines of stdout and stderr.
    partial: [Vec<u8>; 2],
}

#[derive(Debug)]
struct Task {
    title: String,
    done: u64,
    /// When bytes were last reported.
    reported: Duration,
}

impl Plain {
    /// A view for this terminal.
    pub(crate) fn new(terminal: Terminal) -> Self {
        Self {
            terminal,
            ..Self::default()
        }
    }

    fn line(&self, step: usize, words: &str) -> String {
        let label = self
            .steps
            .get(step)
            .map_or("[?]", |step| step.label.as_str());
        format!("{} {words}\n", self.terminal.paint(Style::Blue, label))
    }

    fn announce(&mut self, step: usize, at: Duration) -> String {
        let Some(state) = self
            .steps
            .get_mut(step)
            .filter(|state| state.started.is_none())
        else {
            return String::new();
        };
        state.started = Some(at);
        let title = self.terminal.paint(Style::Bold, &self.steps[step].title);
        self.line(step, &title)
    }

    /// Only what is news: in a first build every step is new.
    fn explained(&self, step: usize, reasons: &[Reason]) -> String {
        if matches!(reasons, [] | [Reason::FirstBuild | Reason::NewStep]) {
            return String::new();
        }
        let words = explain::in_one_line(reasons, REASONS);
        let words = clean_line(format!("runs again: {words}").as_bytes(), false);
        self.line(step, &self.terminal.paint(Style::Dim, &words))
    }

    fn output(&mut self, step: usize, stream: Stream, bytes: &[u8], at: Duration) -> String {
        let mut text = self.announce(step, at);
        let Some(state) = self.steps.get_mut(step) else {
            return text;
        };
        let partial = &mut state.partial[stream as usize];
        partial.extend_from_slice(bytes);
        let end = match partial.iter().rposition(|&byte| byte == b'\n') {
            Some(position) => position + 1,
            None if partial.len() >= LONGEST_LINE => partial.len(),
            None => return text,
        };
        let whole: Vec<u8> = partial.drain(..end).collect();
        for line in whole
            .strip_suffix(b"\n")
            .unwrap_or(&whole)
            .split(|&byte| byte == b'\n')
        {
            text += &self.output_line(step, line, at);
        }
        text
    }

    fn output_line(&self, step: usize, line: &[u8], at: Duration) -> String {
        let since = at.saturating_sub(self.steps[step].started.unwrap_or(at));
        let time = format!("{}.{:02}", since.as_secs(), since.subsec_millis() / 10);
        let text = clean_line(line, self.terminal.has_colours);
        self.line(
            step,
            format!("{} {text}", self.terminal.paint(Style::Dim, &time)).trim_end(),
        )
    }

    fn finished(
        &mut self,
        step: usize,
        outcome: &StepOutcome,
        duration: Duration,
        at: Duration,
    ) -> String {
        let terminal = self.terminal;
        if let StepOutcome::Cached = outcome {
            let title = self.steps.get(step).map_or("", |step| step.title.as_str());
            return self.line(
                step,
                &format!("{} {title}", terminal.paint(Style::Green, "CACHED")),
            );
        }
        let mut text = self.announce(step, at);
        for stream in 0..2 {
            let rest = self
                .steps
                .get_mut(step)
                .map(|state| std::mem::take(&mut state.partial[stream]));
            if let Some(rest) = rest.filter(|rest| !rest.is_empty()) {
                text += &self.output_line(step, &rest, at);
            }
        }
        let time = units::duration(duration);
        let words = match outcome {
            StepOutcome::Failed => format!("{} after {time}", terminal.paint(Style::Red, "FAILED")),
            StepOutcome::Cancelled => format!("CANCELLED after {time}"),
            StepOutcome::Done | StepOutcome::Cached => {
                format!("{} {time}", terminal.paint(Style::Green, "DONE"))
            }
        };
        text + &self.line(step, &words)
    }

    fn task_line(&self, title: &str, words: &str) -> String {
        format!(
            "{} {words}\n",
            self.terminal.paint(Style::Blue, &format!("{title}:"))
        )
    }

    fn task_progress(
        &mut self,
        task: usize,
        done: u64,
        total: Option<u64>,
        at: Duration,
    ) -> String {
        let Some(state) = self.tasks.get_mut(&task) else {
            return String::new();
        };
        state.done = done;
        if at < state.reported + TASK_INTERVAL {
            return String::new();
        }
        state.reported = at;
        let title = state.title.clone();
        let words = match total.filter(|&total| total > 0) {
            Some(total) => {
                let percent = u128::from(done) * 100 / u128::from(total);
                format!(
                    "{} of {} ({percent} %)",
                    units::bytes(done),
                    units::bytes(total)
                )
            }
            None => units::bytes(done),
        };
        self.task_line(&title, &words)
    }

    fn task_finished(
        &mut self,
        task: usize,
        duration: Duration,
        result: &Result<String, String>,
    ) -> String {
        let Some(state) = self.tasks.remove(&task) else {
            return String::new();
        };
        let words = task_words(self.terminal, duration, state.done, result);
        self.task_line(&state.title, &words)
    }
}

/// `DONE 0.2s, 30.1 MB`
pub(super) fn task_words(
    terminal: Terminal,
    duration: Duration,
    done: u64,
    result: &Result<String, String>,
) -> String {
    let time = units::duration(duration);
    // What a dropped task says: the interrupted build's doing, no failure of its own.
    let is_cancelled = result.as_ref().is_err_and(|reason| reason == "cancelled");
    let mut words = match result {
        Err(_) if is_cancelled => format!("CANCELLED after {time}"),
        Ok(_) => format!("{} {time}", terminal.paint(Style::Green, "DONE")),
        Err(_) => format!("{} after {time}", terminal.paint(Style::Red, "FAILED")),
    };
    if done > 0 {
        words = format!("{words}, {}", units::bytes(done));
    }
    match result {
        Ok(detail) if detail.is_empty() => {}
        Err(_) if is_cancelled => {}
        Ok(detail) => words = format!("{words}, {detail}"),
        Err(reason) => words = format!("{words}: {reason}"),
    }
    words
}

/// `[build 2/5]`, `[linux/arm64 build 2/5]`, `[2/5]`
pub(super) fn label(step: &StepDescription) -> String {
    let place = format!("{}/{}", step.number, step.of);
    let words = [step.platform.as_deref().unwrap_or(""), &step.stage, &place];
    let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
    clean_line(format!("[{}]", words.join(" ")).as_bytes(), false)
}

impl View for Plain {
    fn show(&mut self, at: Duration, event: &Event) -> String {
        match event {
            Event::Planned { steps } => {
                let step = |step: &StepDescription| Step {
                    label: label(step),
                    // A heredoc's title may have several lines; the first tells which it is.
                    title: clean_line(step.title.lines().next().unwrap_or("").as_bytes(), false),
                    ..Step::default()
                };
                self.steps = steps.iter().map(step).collect();
                String::new()
            }
            // Warnings are shown once, at the end.
            Event::Recorded { .. } | Event::Warning { .. } | Event::Kept { .. } => String::new(),
            Event::Notice(words) => {
                format!("{} {words}\n", self.terminal.paint(Style::Cyan, "note:"))
            }
            Event::Started(step) => self.announce(step.0, at),
            Event::Explained { step, reasons } => self.explained(step.0, reasons),
            Event::Output {
                step,
                stream,
                bytes,
            } => self.output(step.0, *stream, bytes, at),
            Event::Finished {
                step,
                outcome,
                duration,
            } => self.finished(step.0, outcome, *duration, at),
            Event::TaskStarted { task, title } => {
                let title = clean_line(title.as_bytes(), false);
                self.tasks.insert(
                    *task,
                    Task {
                        title: title.clone(),
                        done: 0,
                        reported: at,
                    },
                );
                format!("{}\n", self.terminal.paint(Style::Blue, &title))
            }
            Event::TaskProgress { task, done, total } => {
                self.task_progress(*task, *done, *total, at)
            }
            Event::TaskFinished {
                task,
                duration,
                result,
            } => self.task_finished(*task, *duration, result),
        }
    }
}

#[cfg(test)]
mod tests;
