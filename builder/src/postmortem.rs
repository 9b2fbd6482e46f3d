//! What a failed command's last words, and the program they name, say of the way out.
//!
//! Guesses, and so they stand in the help only: the command's own words and how it ended are told in any case.

mod program;
mod said;

use rbuild_runner::job::CommandStatus;
use rbuild_runner::{JobError, JobErrorKind};

pub(crate) use program::Files;

/// Bytes of a command's output that are looked at: its last.
const TAIL: usize = 8 * 1024;

/// A command that failed, and where.
#[derive(Clone, Copy)]
pub(crate) struct Failed<'a> {
    /// How it ended.
    pub(crate) status: CommandStatus,
    /// The end of what it wrote.
    pub(crate) output: &'a [u8],
    /// What a shell was given, or the last argument of the command.
    pub(crate) script: &'a str,
    /// Its directory.
    pub(crate) working_directory: &'a str,
    /// It had nothing but a loopback.
    pub(crate) is_offline: bool,
    /// What resolved names in it.
    pub(crate) resolv_conf: &'a [u8],
}

impl Failed<'_> {
    /// What to do, where it can be told.
    pub(crate) fn advice(&self, files: &Files) -> Option<String> {
        let text = String::from_utf8_lossy(self.output);
        let lines = text.lines().map(|line| line.trim_end_matches(['\n', '\r']));
        let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
        let of_program = match self.status {
            CommandStatus::Exited(126 | 127) => {
                program::named_in(&lines).and_then(|name| program::advice(name, self, files))
            }
            _ => None,
        };
        of_program.or_else(|| said::advice(self, &lines))
    }
}

/// What keeps a program from starting that no shell was asked to start.
pub(crate) fn of_program(error: &JobError, files: &Files) -> Option<String> {
    let looks = matches!(
        error.kind,
        JobErrorKind::CommandNotFound
            | JobErrorKind::CommandFormat
            | JobErrorKind::CommandPermissionDenied
    );
    let path = error
        .path
        .as_deref()
        .filter(|_| looks && error.help.is_none())?;
    program::of_path(&String::from_utf8_lossy(path), files)
}

/// The end of what a command wrote, gathered while it runs.
#[derive(Default)]
pub(crate) struct Tail(Vec<u8>);

impl Tail {
    /// Adds what came.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        // Cut seldom, so that a flood is not moved for each read.
        if self.0.len() > 4 * TAIL {
            let cut = self.0.len() - TAIL;
            self.0.drain(..cut);
        }
    }

    /// What is kept.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0[self.0.len().saturating_sub(TAIL)..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept_whatever_came_before() {
        let mut tail = Tail::default();
        for number in 0..20_000 {
            tail.push(format!("line {number}\n").as_bytes());
        }
        let kept = tail.bytes();
        assert_eq!(kept.len(), TAIL);
        assert!(kept.ends_with(b"line 19999\n"));
    }
}
