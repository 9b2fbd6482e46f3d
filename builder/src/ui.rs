//! What people and their scripts see. The only room that prints.
//!
//! stdout is data (an image id, JSON, tables); stderr is everything else. Views are pure: an event in, text out;
//! [`Console`] writes the text. A closed stdout or stderr ends nothing: the build is worth more than its log.

mod ansi;
pub(crate) mod browse;
mod console;
mod diagnostic;
pub(crate) mod error;
mod fit;
pub(crate) mod fsck;
pub(crate) mod graph;
mod grouped;
pub(crate) mod layers;
mod live;
pub(crate) mod log;
pub(crate) mod page;
pub(crate) mod past;
mod plain;
mod rawjson;
pub(crate) mod report;
mod summary;
mod tail;
mod terminal;
pub(crate) mod units;

pub(crate) mod store;
pub(crate) mod table;

use std::io::{self, IsTerminal, Write};

use rbuild::options::BuildOptions;

pub(crate) use console::Console;

use crate::cli::NoArchiveOnTerminal;

/// Writes to stdout; whoever closed it does not want to know.
fn write_stdout(text: &str) {
    let mut stdout = io::stdout().lock();
    // `rbuild images | head -1` closes the pipe: no error, there is just nobody left to tell.
    let _ = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
}

/// Writes to stderr in one piece, so that lines of several threads stay whole.
fn write_stderr(text: &str) {
    // As above.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// One line of data.
pub(crate) fn print_line(line: &str) {
    write_stdout(&format!("{line}\n"));
}

/// A question on the terminal; anything but yes is no.
pub(crate) fn ask(what: &str) -> bool {
    write_stderr(&format!("{what}\nGo on? [y/N] "));
    let mut answer = String::new();
    // Nobody who can be read has said yes.
    let _ = io::stdin().read_line(&mut answer);
    matches!(answer.trim(), "y" | "Y" | "yes")
}

/// JSON for people and scripts.
pub(crate) fn print_json(value: &serde_json::Value) {
    write_stdout(&format!("{value:#}\n"));
}

/// The same for a verb that writes to a file or to stdout.
pub(crate) fn refuse_terminal(file: Option<&std::path::Path>) -> Result<(), NoArchiveOnTerminal> {
    let is_stdout = file.is_none_or(|path| path == std::path::Path::new("-"));
    if is_stdout && io::stdout().is_terminal() {
        Err(NoArchiveOnTerminal)
    } else {
        Ok(())
    }
}

/// Data as it is.
pub(crate) fn print_bytes(bytes: &[u8]) {
    write_stdout(&String::from_utf8_lossy(bytes));
}

/// Something to know, where no build is shown.
pub(crate) fn print_notice(words: &str) {
    write_stderr(&format!("{words}\n"));
}

/// Whether somebody sits there: they type, and see what is said.
pub(crate) fn is_terminal() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Whether nothing is piped in.
pub(crate) fn is_stdin_terminal() -> bool {
    io::stdin().is_terminal()
}

/// An archive is not for a screen.
pub(crate) fn refuse_archive_on_terminal(
    options: &BuildOptions,
) -> Result<(), NoArchiveOnTerminal> {
    let has_archive = options
        .outputs
        .iter()
        .any(|output| output.destination.is_none() && output.kind.writes_out());
    if has_archive && io::stdout().is_terminal() {
        Err(NoArchiveOnTerminal)
    } else {
        Ok(())
    }
}
