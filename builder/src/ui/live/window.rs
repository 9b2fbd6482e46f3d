//! What a running step wrote last, and how fast a transfer goes.

use std::collections::VecDeque;
use std::time::Duration;

use rbuild::event::Stream;

use crate::ui::ansi::clean_line;

/// Lines kept of a running step: more are never shown at once.
pub(super) const LINES: usize = 8;

/// Bytes kept of a line without an end: more than the widest terminal shows.
const PARTIAL: usize = 4096;

/// The last lines of a step's output, ready to be shown.
#[derive(Debug, Default)]
pub(super) struct Window {
    lines: VecDeque<String>,
    /// Beginnings of lines of stdout and stderr, and the same as text.
    partial: [Vec<u8>; 2],
    shown: [String; 2],
}

impl Window {
    pub(super) fn write(&mut self, stream: Stream, bytes: &[u8], keeps_colours: bool) {
        let stream = stream as usize;
        let mut pieces = bytes.split(|&byte| byte == b'\n');
        let last = pieces.next_back().unwrap_or_default();
        let whole: Vec<&[u8]> = pieces.collect();
        // Lines that would be pushed out at once are not made into text: a flood costs little.
        let skipped = whole.len().saturating_sub(LINES);
        for (index, line) in whole.iter().enumerate() {
            let mut start = std::mem::take(&mut self.partial[stream]);
            if index < skipped {
                continue;
            }
            extend(&mut start, line);
            self.lines.push_back(clean_line(&start, keeps_colours));
            if self.lines.len() > LINES {
                self.lines.pop_front();
            }
        }
        extend(&mut self.partial[stream], last);
        self.shown[stream] = clean_line(&self.partial[stream], keeps_colours);
    }

    /// The last `count` lines, unfinished ones included.
    pub(super) fn last(&self, count: usize) -> Vec<&str> {
        let whole = self.lines.iter().chain(&self.shown);
        let lines: Vec<&str> = whole
            .map(String::as_str)
            .filter(|line| !line.is_empty())
            .collect();
        lines[lines.len().saturating_sub(count)..].to_vec()
    }
}

/// Appends, and keeps what is visible: what follows the last carriage return, and not more than a screen has room for.
fn extend(line: &mut Vec<u8>, bytes: &[u8]) {
    line.extend_from_slice(bytes);
    let end = line.len() - usize::from(line.last() == Some(&b'\r'));
    if let Some(position) = line[..end].iter().rposition(|&byte| byte == b'\r') {
        line.drain(..=position);
    }
    line.truncate(PARTIAL);
}

/// Bytes per second over the last moments.
#[derive(Debug, Default)]
pub(super) struct Rate {
    samples: VecDeque<(Duration, u64)>,
}

/// A rate is that of the last so many seconds: it follows what happens and does not jump.
const SPAN: Duration = Duration::from_secs(3);
/// Samples are at least so far apart, which bounds their number.
const APART: Duration = Duration::from_millis(100);

impl Rate {
    pub(super) fn add(&mut self, at: Duration, done: u64) {
        if self
            .samples
            .back()
            .is_some_and(|(last, _)| at < *last + APART)
        {
            return;
        }
        self.samples.push_back((at, done));
        while self.samples.len() > 2 && self.samples[1].0 + SPAN < at {
            self.samples.pop_front();
        }
    }

    /// Bytes per second; none before there is something to go by.
    pub(super) fn per_second(&self, at: Duration, done: u64) -> Option<u64> {
        let (first_at, first_done) = self.samples.front()?;
        let span = at.saturating_sub(*first_at).as_millis();
        if span < 500 {
            return None;
        }
        let bytes = u128::from(done.saturating_sub(*first_done)) * 1000 / span;
        u64::try_from(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name, what is written, what is shown.
    type Row = (
        &'static str,
        &'static [(Stream, &'static str)],
        &'static [&'static str],
    );

    fn after(writes: &[(Stream, &str)]) -> Vec<String> {
        let mut window = Window::default();
        for (stream, text) in writes {
            window.write(*stream, text.as_bytes(), false);
        }
        window.last(3).into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn the_last_lines_are_shown() {
        use Stream::{Stderr, Stdout};
        let table: &[Row] = &[
            ("nothing", &[], &[]),
            ("lines", &[(Stdout, "a\nb\nc\nd\n")], &["b", "c", "d"]),
            (
                "pieces",
                &[(Stdout, "a\nb"), (Stdout, "b\nc")],
                &["a", "bb", "c"],
            ),
            (
                "both streams",
                &[(Stdout, "out"), (Stderr, "err")],
                &["out", "err"],
            ),
            (
                "empty lines take no room",
                &[(Stdout, "a\n\n\nb\n")],
                &["a", "b"],
            ),
            (
                "a progress bar",
                &[(Stdout, "1%\r2%"), (Stdout, "\r3%")],
                &["3%"],
            ),
            (
                "a return before an end",
                &[(Stdout, "a\r"), (Stdout, "\nb\r\n")],
                &["a", "b"],
            ),
        ];
        for (name, writes, expected) in table {
            assert_eq!(after(writes), *expected, "{name}");
        }
        let flood = "x".repeat(1_000_000);
        assert_eq!(after(&[(Stdout, &flood)])[0].len(), PARTIAL);
        let many: Vec<String> = (0..100_000).map(|line| line.to_string()).collect();
        let many = many.join("\n") + "\n";
        assert_eq!(after(&[(Stdout, &many)]), ["99997", "99998", "99999"]);
    }

    #[test]
    fn rates_follow_the_last_seconds() {
        let mut rate = Rate::default();
        let at = Duration::from_millis;
        assert_eq!(rate.per_second(at(1_000), 5), None);
        for second in 0..10 {
            rate.add(at(second * 1_000), second * 1_000);
        }
        assert_eq!(rate.per_second(at(9_000), 9_000), Some(1_000));
        (10..20).for_each(|second| rate.add(at(second * 1_000), 9_000));
        assert_eq!(rate.per_second(at(20_000), 9_000), Some(0));
        assert!(rate.samples.len() < 10);
    }
}
