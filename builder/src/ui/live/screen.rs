//! What is where on the screen, and how it gets there.

use std::time::Duration;

use super::window;
use super::{Live, Step, Task};
use crate::ui::fit::{fit, width};
use crate::ui::terminal::{Size, Style, Terminal};
use crate::ui::units;

/// Where rates and bars have room: narrower terminals show titles and times.
const COLUMNS_FOR_BARS: usize = 60;
/// Columns of a transfer's bar.
const BAR: usize = 20;

/// What is drawn at the bottom of the terminal now.
#[derive(Debug, Default)]
pub(super) struct Screen {
    /// Columns of each line.
    drawn: Vec<usize>,
}

impl Screen {
    /// Replaces what is drawn: `above` scrolls away, `lines` are drawn below it. The cursor stays in the first column
    /// below the last line, so that whatever comes instead of us begins a line.
    pub(super) fn draw(&mut self, above: &str, lines: &[String], size: Size) -> String {
        if self.drawn.is_empty() && lines.is_empty() {
            return above.to_owned();
        }
        // A terminal that became narrower has broken our lines; what scrolled out of it can't be reached.
        let rows: usize = self
            .drawn
            .iter()
            .map(|&columns| columns.div_ceil(size.columns).max(1))
            .sum();
        let rows = rows.min(size.rows.saturating_sub(1));
        // Between these two, terminals that know them show nothing half-drawn (DEC private mode 2026).
        let mut text = String::from("\x1b[?2026h\r");
        if rows > 0 {
            text = format!("{text}\x1b[{rows}A");
        }
        for line in above.lines().chain(lines.iter().map(String::as_str)) {
            // Written first and cleared behind: nothing flickers.
            text += line;
            text += "\x1b[K\n";
        }
        text += "\x1b[J\x1b[?2026l";
        self.drawn = lines.iter().map(|line| width(line)).collect();
        text
    }
}

/// The lines of what runs now, none wider than the terminal, not more than it has rows.
pub(super) fn lines(live: &Live, at: Duration, size: Size) -> Vec<String> {
    // One column stays free: a full line would break on some terminals.
    let columns = size.columns.saturating_sub(1);
    // The summary and the cursor's line.
    let room = size.rows.saturating_sub(2).max(1);
    let mut lines = Vec::new();
    let heads = live.running.len() + live.tasks.len();
    let (mut left, mut hidden) = (room, heads.saturating_sub(room));
    if hidden > 0 {
        // A line tells of those that have none.
        left = room - 1;
        hidden = heads - left;
    }
    let windows = left.saturating_sub(heads) / live.running.len().max(1);
    for task in live.tasks.values().take(left) {
        lines.push(task_line(live.terminal, task, at, columns));
    }
    for &index in live.running.iter().take(left - lines.len()) {
        let step = &live.steps[index];
        lines.push(step_line(live.terminal, step, at, columns));
        lines.extend(step_window(live.terminal, step, windows, columns));
    }
    if hidden > 0 {
        lines.push(fit(&format!("and {hidden} more"), columns));
    }
    lines.push(summary(live, at, columns));
    lines
}

/// A text, and a time at the right.
fn with_time(terminal: Terminal, text: &str, time: Duration, columns: usize) -> String {
    let time = units::duration(time);
    let room = columns.saturating_sub(time.len() + 1);
    let text = fit(text, room);
    let gap = room.saturating_sub(width(&text)) + 1;
    let line = format!(
        "{text}{}{}",
        " ".repeat(gap),
        terminal.paint(Style::Dim, &time)
    );
    // A terminal too narrow even for the time.
    fit(&line, columns)
}

fn step_line(terminal: Terminal, step: &Step, at: Duration, columns: usize) -> String {
    let text = format!(
        "{} {}",
        terminal.paint(Style::Blue, &step.label),
        terminal.paint(Style::Bold, &step.title)
    );
    with_time(terminal, &text, at.saturating_sub(step.started), columns)
}

/// Why the step runs, and the last lines of its output, in at most `rows` rows.
fn step_window(terminal: Terminal, step: &Step, rows: usize, columns: usize) -> Vec<String> {
    let rows = rows.min(window::LINES);
    if rows == 0 {
        return Vec::new();
    }
    let reasons = (!step.reasons.is_empty()).then_some(step.reasons.as_str());
    let output = step.window.last(rows - usize::from(reasons.is_some()));
    let line = |text: &str| terminal.paint(Style::Dim, &fit(&format!("    {text}"), columns));
    reasons.into_iter().chain(output).map(line).collect()
}

fn task_line(terminal: Terminal, task: &Task, at: Duration, columns: usize) -> String {
    let mut text = terminal.paint(Style::Blue, &task.title);
    let since = at.saturating_sub(task.started);
    if task.done > 0 {
        let amount = match task.total.filter(|&total| total > 0) {
            Some(total) => progress(task.done, total, columns),
            None => format!("  {}", units::bytes(task.done)),
        };
        text.push_str(&amount);
        let rate = task.rate.per_second(at, task.done);
        if let Some(rate) = rate.filter(|_| columns >= COLUMNS_FOR_BARS) {
            text = format!("{text}  {}/s", units::bytes(rate));
        }
    }
    with_time(terminal, &text, since, columns)
}

/// `  [=====>    ]  45 % of 48.0 MB`
fn progress(done: u64, total: u64, columns: usize) -> String {
    let percent = (u128::from(done) * 100 / u128::from(total)).min(100);
    let amount = format!("{percent:>3} % of {}", units::bytes(total));
    if columns < COLUMNS_FOR_BARS {
        return format!(" {amount}");
    }
    let full = usize::try_from(percent).unwrap_or(100) * BAR / 100;
    let bar: String = (0..BAR)
        .map(|column| match column {
            _ if column < full => '=',
            _ if column == full => '>',
            _ => ' ',
        })
        .collect();
    format!("  [{bar}] {amount}")
}

fn summary(live: &Live, at: Duration, columns: usize) -> String {
    let mut words = vec![format!("{}/{} steps", live.finished, live.steps.len())];
    if live.steps.is_empty() {
        words = vec!["preparing".to_owned()];
    }
    if live.cached > 0 {
        words.push(format!("{} cached", live.cached));
    }
    if !live.running.is_empty() {
        words.push(format!("{} running", live.running.len()));
    }
    with_time(live.terminal, &words.join(", "), at, columns)
}
