//! When each step ran, as bars on one scale.

use std::fmt::Write as _;
use std::time::Duration;

use rbuild::history::{StepNote, StepState};

use crate::ui::graph::{escape, state_word};
use crate::ui::units;

/// A bar is never thinner than so many thousandths: it must be seen.
const THINNEST: u64 = 4;

/// Steps that took time, in the order of their starts; cached ones took none.
pub(super) fn html(steps: &[StepNote]) -> String {
    let has_run = |step: &&StepNote| step.started.is_some() && step.state != StepState::Cached;
    let mut ran: Vec<&StepNote> = steps.iter().filter(has_run).collect();
    ran.sort_by_key(|step| step.started);
    let end = |step: &&StepNote| step.started.unwrap_or(0) + step.duration.unwrap_or(0);
    let whole = ran.iter().map(end).max().unwrap_or(0).max(1);
    if ran.is_empty() {
        return "<p class=\"quiet\">Every step was taken from the cache.</p>\n".to_owned();
    }
    let mut text = String::from("<ol class=\"timeline\">\n");
    for step in ran {
        let started = step.started.unwrap_or(0);
        let took = step.duration.unwrap_or(0);
        let width = (took * 1000 / whole).max(THINNEST);
        let left = (started * 1000 / whole).min(1000 - width.min(1000));
        let time = units::duration(Duration::from_millis(took));
        let _ = writeln!(
            text,
            "<li><span class=\"name\">{} <code>{}</code></span><span class=\"track\">\
             <span class=\"span {}\" style=\"left:{}.{}%;width:{}.{}%\"></span></span><span class=\"numbers\">{time}</span></li>",
            escape(&step.label()),
            escape(step.title.lines().next().unwrap_or_default()),
            state_word(step.state),
            left / 10,
            left % 10,
            width / 10,
            width % 10,
        );
    }
    let _ = writeln!(
        text,
        "</ol>\n<p class=\"quiet\">The whole width is {}.</p>",
        units::duration(Duration::from_millis(whole))
    );
    text
}
