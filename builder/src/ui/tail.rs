//! The last lines of every step's output, kept for the error that may follow.

use std::collections::{BTreeMap, VecDeque};

use rbuild::event::{Event, StepId};

/// Lines of a failed step that are repeated beside its error: enough for a compiler's message, less than a screen.
const LINES: usize = 20;

/// Bytes kept of one line: what is repeated is for people.
const LINE_BYTES: usize = 4096;

/// The ends of all steps' outputs.
#[derive(Debug, Default)]
pub(crate) struct Tails(BTreeMap<StepId, Tail>);

#[derive(Debug, Default)]
struct Tail {
    lines: VecDeque<Vec<u8>>,
    /// The last of `lines` has no end yet.
    is_partial: bool,
}

impl Tails {
    /// Takes in what a command wrote.
    pub(crate) fn keep(&mut self, event: &Event) {
        let Event::Output { step, bytes, .. } = event else {
            return;
        };
        let tail = self.0.entry(*step).or_default();
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (text, has_end) = piece
                .strip_suffix(b"\n")
                .map_or((piece, false), |text| (text, true));
            if !tail.is_partial {
                tail.lines.push_back(Vec::new());
            }
            if let Some(line) = tail.lines.back_mut() {
                let room = LINE_BYTES.saturating_sub(line.len());
                line.extend_from_slice(&text[..text.len().min(room)]);
            }
            tail.is_partial = !has_end;
            if tail.lines.len() > LINES {
                tail.lines.pop_front();
            }
        }
    }

    /// The last lines of a step.
    pub(crate) fn of(&self, step: StepId) -> Vec<Vec<u8>> {
        self.0
            .get(&step)
            .map(|tail| tail.lines.iter().cloned().collect())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use rbuild::event::Stream;

    use super::*;

    #[test]
    fn the_end_is_kept() {
        let mut tails = Tails::default();
        let mut write = |text: String| {
            tails.keep(&Event::Output {
                step: StepId(1),
                stream: Stream::Stdout,
                bytes: text.into_bytes(),
            });
        };
        (0..50).for_each(|line| write(format!("line {line}\n")));
        write("par".to_owned());
        write("tial\n\nlast".to_owned());
        let lines = tails.of(StepId(1));
        let text: Vec<_> = lines
            .iter()
            .map(|line| String::from_utf8_lossy(line))
            .collect();
        assert_eq!(text.len(), LINES);
        assert_eq!(text[LINES - 4..], ["line 49", "partial", "", "last"]);
        assert!(tails.of(StepId(2)).is_empty());
    }
}
