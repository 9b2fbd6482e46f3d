//! The `rbuild` binary: a command line in front of the library's public interface.

#![forbid(unsafe_code)]

mod cli;
mod ui;

use std::process::ExitCode;

fn main() -> ExitCode {
    let typed: Vec<_> = std::env::args_os().collect();
    cli::run(&typed)
}
