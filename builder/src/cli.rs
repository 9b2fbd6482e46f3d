//! The command line: what was typed, turned once into what is meant, then carried out through the library.
//!
//! ```text
//! argv ──typed──▶ clap ──args──▶ request (BuildOptions) ──commands──▶ rbuild::Engine
//! ```
//! Nothing here prints: words for people go through [`crate::ui`].

mod args;
mod cache;
mod call;
mod checking;
mod commands;
mod completion;
mod drawing;
mod error;
mod examples;
mod failure;
mod flags;
mod format;
mod isolation;
mod limits;
mod manual;
mod output;
mod past;
#[cfg(test)]
mod reference;
mod request;
mod result_files;
mod running;
mod settings;
mod shelling;
mod signals;
mod store_args;
mod store_verbs;
mod typed;
mod values;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

pub(crate) use call::Format;
pub(crate) use failure::{Failure, NoArchiveOnTerminal, Words};
pub(crate) use request::ProgressMode;
use request::Variables;
use settings::Settings;

/// clap's definition of the whole command line.
pub(crate) fn command() -> clap::Command {
    examples::add(args::Cli::command())
}

/// Says what went wrong; the exit code goes with it.
pub(crate) fn fail(failure: &Failure) -> ExitCode {
    crate::ui::error::print(failure);
    ExitCode::from(failure.exit_code)
}

/// Reads the command line and does what it says.
pub(crate) fn run(typed: &[OsString]) -> ExitCode {
    // A variable that is not UTF-8 can't be a build arg of a Dockerfile, which is text.
    let variables: Variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    if let Some(lines) = completion::answer(typed, &variables) {
        crate::ui::print_line(&lines);
        return ExitCode::SUCCESS;
    }
    let mut command = command();
    let words = typed::normalise(&command, typed.to_vec());
    let verb_was_typed = words.len() == typed.len() || typed.iter().any(|word| word == "build");
    let parsed = command.try_get_matches_from_mut(words.clone());
    let configured = parsed.and_then(|matches| {
        let settings = match Settings::read(&command, &matches, &variables) {
            Ok(settings) => settings,
            Err(error) => return Ok(Err(error)),
        };
        let flags = settings::typed_flags(&command, &matches, typed);
        let verb = matches.subcommand_name().unwrap_or_default();
        let more = settings.words(verb, &flags, &variables);
        let matches = if more.is_empty() {
            matches
        } else {
            command.try_get_matches_from_mut(typed::with_words(words, more))?
        };
        Ok(Ok((args::Cli::from_arg_matches(&matches)?, settings)))
    });
    match configured {
        Ok(Ok((cli, settings))) => commands::carry_out(cli, &settings, variables, verb_was_typed),
        Ok(Err(error)) => fail(&error.into()),
        Err(error) => {
            if let Some(better) = typed::explain(&error, typed) {
                return fail(&better.into());
            }
            // Help and version are errors to clap. When stderr is closed there is nobody left to tell.
            let _ = error.print();
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
        }
    }
}
