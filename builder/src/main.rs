//! The `rbuild` binary: a command line in front of the library's public interface.

#![forbid(unsafe_code)]

mod cli;
mod ui;

use std::process::ExitCode;

fn main() -> ExitCode {
    // First, before any thread exists: the spawner is forked here.
    let started = rbuild::init();
    let typed: Vec<_> = std::env::args_os().collect();
    match started {
        Ok(()) => cli::run(&typed),
        Err(error) => cli::fail(&cli::Failure::new(error)),
    }
}
