//! Progress as lines in a CI system's folding groups: one group a step, so that a log can be read at a glance.
//!
//! Groups can't be nested or mixed. Of steps that run at the same time one is shown as it goes; what the others write
//! waits until that one is done, or until it is too much to keep: then their group comes next and the first one's is
//! continued later. Nothing is left out.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rbuild::event::{Event, StepOutcome};

use super::console::View;
use super::plain::Plain;
use super::terminal::Size;

/// Bytes of a step's text that wait for another step's end.
const MOST_HELD: usize = 256 * 1024;

/// Whose log it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CiSystem {
    /// GitHub Actions, and what follows it (Forgejo, Gitea): `::group::`
    GitHub,
    /// GitLab CI: `section_start`
    GitLab,
}

impl CiSystem {
    /// The one that says so in the environment.
    pub(crate) fn of_environment() -> Option<Self> {
        let is_true = |name| std::env::var_os(name).is_some_and(|value| value == "true");
        if is_true("GITHUB_ACTIONS") {
            Some(Self::GitHub)
        } else if is_true("GITLAB_CI") {
            Some(Self::GitLab)
        } else {
            None
        }
    }
}

/// Progress in groups.
#[derive(Debug)]
pub(crate) struct Grouped {
    system: CiSystem,
    plain: Plain,
    /// Since the epoch, when the build began.
    began: Duration,
    open: Option<usize>,
    /// Steps whose groups are not over, by the order of their starts.
    order: Vec<usize>,
    sections: BTreeMap<usize, Section>,
    /// What belongs to no step and waits for the end of a group.
    between: String,
}

#[derive(Debug, Default)]
struct Section {
    title: String,
    /// Not written yet.
    text: String,
    is_over: bool,
    /// How often a group was opened for it.
    groups: usize,
}

impl Grouped {
    /// Groups around the lines of `plain`.
    pub(crate) fn new(system: CiSystem, plain: Plain) -> Self {
        let began = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            system,
            plain,
            began: began.unwrap_or_default(),
            open: None,
            order: Vec::new(),
            sections: BTreeMap::new(),
            between: String::new(),
        }
    }

    fn begin(&self, step: usize, section: &Section, at: Duration) -> String {
        let more = if section.groups > 0 {
            " (continued)"
        } else {
            ""
        };
        let title = format!("{}{more}", section.title);
        match self.system {
            CiSystem::GitHub => format!("::group::{title}\n"),
            CiSystem::GitLab => {
                let seconds = (self.began + at).as_secs();
                let name = section_name(step, section.groups);
                format!("\x1b[0Ksection_start:{seconds}:{name}\r\x1b[0K{title}\n")
            }
        }
    }

    fn end_group(&self, step: usize, section: &Section, at: Duration) -> String {
        match self.system {
            CiSystem::GitHub => "::endgroup::\n".to_owned(),
            CiSystem::GitLab => {
                let seconds = (self.began + at).as_secs();
                let name = section_name(step, section.groups - 1);
                format!("\x1b[0Ksection_end:{seconds}:{name}\r\x1b[0K\n")
            }
        }
    }

    fn take(&mut self, step: usize, text: &str, is_end: bool) {
        if !self.sections.contains_key(&step) {
            self.order.push(step);
        }
        let section = self.sections.entry(step).or_default();
        let mut rest = text;
        if section.title.is_empty()
            && let Some((title, behind)) = text.split_once('\n')
        {
            title.clone_into(&mut section.title);
            rest = behind;
        }
        section.text.push_str(rest);
        section.is_over |= is_end;
    }

    /// What can be written now.
    fn flush(&mut self, at: Duration) -> String {
        let mut text = String::new();
        loop {
            let Some(step) = self.open else {
                text += &std::mem::take(&mut self.between);
                let Some(&next) = self.order.first() else {
                    return text;
                };
                text += &self.open_group(next, at);
                continue;
            };
            let Some(section) = self.sections.get_mut(&step) else {
                self.open = None;
                continue;
            };
            text += &std::mem::take(&mut section.text);
            if section.is_over {
                text += &self.close_group(at);
                self.sections.remove(&step);
                self.order.retain(|&other| other != step);
                continue;
            }
            let is_full = |other: &usize| {
                let section = self.sections.get(other);
                section.is_some_and(|section| section.text.len() > MOST_HELD)
            };
            let Some(full) = self.order.iter().copied().find(is_full) else {
                return text;
            };
            text += &self.close_group(at);
            text += &self.open_group(full, at);
        }
    }

    fn open_group(&mut self, step: usize, at: Duration) -> String {
        let mut text = String::new();
        if let Some(section) = self.sections.get(&step) {
            let _ = text.write_str(&self.begin(step, section, at));
        }
        if let Some(section) = self.sections.get_mut(&step) {
            section.groups += 1;
        }
        self.open = Some(step);
        text
    }

    fn close_group(&mut self, at: Duration) -> String {
        let Some(step) = self.open.take() else {
            return String::new();
        };
        let section = self.sections.get(&step);
        section.map_or_else(String::new, |section| self.end_group(step, section, at))
    }
}

fn section_name(step: usize, group: usize) -> String {
    format!("rbuild_step_{step}_{group}")
}

impl View for Grouped {
    fn show(&mut self, at: Duration, event: &Event) -> String {
        let text = self.plain.show(at, event);
        let (step, is_end) = match event {
            Event::Started(step) | Event::Explained { step, .. } | Event::Output { step, .. } => {
                (Some(step.0), false)
            }
            Event::Finished {
                outcome: StepOutcome::Cached,
                step,
                ..
            } if !self.sections.contains_key(&step.0) => (None, false),
            Event::Finished { step, .. } => (Some(step.0), true),
            _ => (None, false),
        };
        match step {
            Some(step) => self.take(step, &text, is_end),
            None => self.between.push_str(&text),
        }
        self.flush(at)
    }

    fn end(&mut self, _size: Size) -> String {
        // Steps that did not end were cut off with the build; what they wrote is worth having.
        for section in self.sections.values_mut() {
            section.is_over = true;
        }
        self.flush(Duration::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use rbuild::event::{StepDescription, StepId, Stream};

    use super::*;
    use crate::ui::terminal::Terminal;

    fn started(step: usize) -> Event {
        Event::Started(StepId(step))
    }

    fn output(step: usize, text: &str) -> Event {
        Event::Output {
            step: StepId(step),
            stream: Stream::Stdout,
            bytes: text.as_bytes().to_vec(),
        }
    }

    fn finished(step: usize, outcome: StepOutcome) -> Event {
        Event::Finished {
            step: StepId(step),
            outcome,
            duration: Duration::from_secs(1),
        }
    }

    fn planned() -> Event {
        let step = |number: usize, title: &str| StepDescription {
            stage: String::new(),
            number,
            of: 3,
            title: title.into(),
            platform: None,
            lines: (number, number),
        };
        Event::Planned {
            steps: vec![step(1, "FROM a"), step(2, "RUN b"), step(3, "RUN c")],
        }
    }

    fn log(system: CiSystem, events: &[Event]) -> String {
        let mut view = Grouped::new(system, Plain::new(Terminal::default()));
        view.began = Duration::from_secs(1_000);
        let mut text: String = events
            .iter()
            .map(|event| view.show(Duration::ZERO, event))
            .collect();
        text += &view.end(Size {
            columns: 80,
            rows: 24,
        });
        text
    }

    #[test]
    fn steps_that_run_together_have_a_group_each() {
        let events = vec![
            planned(),
            finished(0, StepOutcome::Cached),
            started(1),
            started(2),
            output(2, "c\n"),
            output(1, "::error::b\n"),
            Event::Notice("something".into()),
            finished(2, StepOutcome::Done),
            finished(1, StepOutcome::Done),
        ];
        insta::assert_snapshot!(log(CiSystem::GitHub, &events), @r"
        [1/3] CACHED FROM a
        ::group::[2/3] RUN b
        [2/3] 0.00 ::error::b
        [2/3] DONE 1.0s
        ::endgroup::
        note: something
        ::group::[3/3] RUN c
        [3/3] 0.00 c
        [3/3] DONE 1.0s
        ::endgroup::
        ");
    }

    #[test]
    fn a_step_that_floods_does_not_wait() {
        let line = format!("{}\n", "x".repeat(MOST_HELD));
        let events = vec![
            planned(),
            started(1),
            started(2),
            output(2, &line),
            output(1, "b\n"),
            finished(2, StepOutcome::Done),
        ];
        let text = log(CiSystem::GitHub, &events).replace(line.trim_end(), "FLOOD");
        insta::assert_snapshot!(text, @r"
        ::group::[2/3] RUN b
        ::endgroup::
        ::group::[3/3] RUN c
        [3/3] 0.00 FLOOD
        [3/3] DONE 1.0s
        ::endgroup::
        ::group::[2/3] RUN b (continued)
        [2/3] 0.00 b
        ::endgroup::
        ");
    }

    #[test]
    fn gitlab_has_sections() {
        let events = vec![
            planned(),
            started(1),
            output(1, "b\n"),
            finished(1, StepOutcome::Failed),
        ];
        let text = log(CiSystem::GitLab, &events)
            .replace('\x1b', "ESC")
            .replace('\r', "CR");
        insta::assert_snapshot!(text, @r"
        ESC[0Ksection_start:1000:rbuild_step_1_0CRESC[0K[2/3] RUN b
        [2/3] 0.00 b
        [2/3] FAILED after 1.0s
        ESC[0Ksection_end:1000:rbuild_step_1_0CRESC[0K
        ");
    }
}
