//! When each step ran and each transfer was made, as bars on one scale, with what they used.

use std::fmt::Write as _;
use std::time::Duration;

use rbuild::history::{BuildDetail, StepNote, StepState};

use crate::ui::graph::{escape, state_word};
use crate::ui::units;

/// A bar is never thinner than so many thousandths: it must be seen.
const THINNEST: u64 = 4;

/// One line.
struct Row {
    name: String,
    state: &'static str,
    /// When everything that it needs was there; the same as `started` when it had to wait for nothing.
    ready: u64,
    started: u64,
    took: u64,
    cpu: Option<u64>,
    memory: Option<u64>,
    bytes: Option<u64>,
}

impl Row {
    fn of_step(step: &StepNote, steps: &[StepNote]) -> Self {
        let started = step.started.unwrap_or(0);
        let needed = step.needs.iter().filter_map(|&index| steps.get(index));
        let ready = needed
            .map(end_of)
            .max()
            .map_or(started, |end| end.min(started));
        Self {
            name: format!(
                "{} <code>{}</code>",
                escape(&step.label()),
                escape(step.title.lines().next().unwrap_or_default())
            ),
            state: state_word(step.state),
            ready,
            started,
            took: step.duration.unwrap_or(0),
            cpu: step.cpu,
            memory: step.peak_memory,
            bytes: step.layer_size.filter(|_| !step.is_image),
        }
    }

    fn end(&self) -> u64 {
        self.started + self.took
    }
}

/// Milliseconds since the build began at which a step had its result; one that was cached had it from the start.
fn end_of(step: &StepNote) -> u64 {
    step.started.unwrap_or(0) + step.duration.unwrap_or(0)
}

/// Steps that took time and transfers, in the order of their starts; cached ones took none.
pub(super) fn html(detail: &BuildDetail) -> String {
    let steps = &detail.steps;
    let has_run = |step: &&StepNote| step.started.is_some() && step.state != StepState::Cached;
    let ran = steps.iter().filter(has_run);
    let mut rows: Vec<Row> = ran.map(|step| Row::of_step(step, steps)).collect();
    let has_steps = !rows.is_empty();
    rows.extend(detail.tasks.iter().map(|task| Row {
        name: escape(&task.title),
        state: if task.error.is_some() {
            "failed"
        } else {
            "task"
        },
        ready: task.started,
        started: task.started,
        took: task.duration.unwrap_or(0),
        cpu: None,
        memory: None,
        bytes: Some(task.bytes).filter(|&bytes| bytes > 0),
    }));
    rows.sort_by_key(|row| row.started);
    let mut text = String::new();
    if !has_steps {
        text.push_str("<p class=\"quiet\">Every step was taken from the cache.</p>\n");
    }
    if rows.is_empty() {
        return text;
    }
    let whole = rows.iter().map(Row::end).max().unwrap_or(0).max(1);
    text.push_str(
        "<ol class=\"timeline\">\n<li class=\"head\"><span class=\"name\"></span><span></span><span>Time</span>\
         <span title=\"of its processes\">CPU</span><span title=\"most at a time\">Memory</span>\
         <span title=\"of its layer, or moved\">Bytes</span></li>\n",
    );
    for row in &rows {
        push_row(&mut text, row, whole);
    }
    let _ = writeln!(
        text,
        "</ol>\n<p class=\"quiet\">The whole width is {}. Pale: ready, but waiting for its turn.</p>",
        time(whole)
    );
    text
}

fn push_row(text: &mut String, row: &Row, whole: u64) {
    let _ = write!(
        text,
        "<li><span class=\"name\">{}</span><span class=\"track\">",
        row.name
    );
    if row.ready < row.started {
        push_bar(text, "waiting", row.ready, row.started - row.ready, whole);
    }
    push_bar(text, row.state, row.started, row.took, whole);
    text.push_str("</span>");
    for number in [
        time(row.took),
        row.cpu.map(time).unwrap_or_default(),
        row.memory.map(units::bytes).unwrap_or_default(),
        row.bytes.map(units::bytes).unwrap_or_default(),
    ] {
        let _ = write!(text, "<span class=\"numbers\">{number}</span>");
    }
    text.push_str("</li>\n");
}

fn push_bar(text: &mut String, class: &str, started: u64, took: u64, whole: u64) {
    let width = (took * 1000 / whole).max(THINNEST);
    let left = (started * 1000 / whole).min(1000 - width.min(1000));
    let _ = write!(
        text,
        "<span class=\"span {class}\" style=\"left:{}.{}%;width:{}.{}%\"></span>",
        left / 10,
        left % 10,
        width / 10,
        width % 10,
    );
}

fn time(milliseconds: u64) -> String {
    units::duration(Duration::from_millis(milliseconds))
}
