//! What a shell hands over, brought into the form that clap reads: the default verb put in, and switches with a
//! value (`--no-cache=true`, as Go's flag parser takes them) turned into plain ones.

use std::ffi::{OsStr, OsString};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Command};
use rbuild_frontend::suggest;

use super::error::UsageError;

/// Global flags that take a value: their value is no verb.
const GLOBAL_WITH_VALUE: &[&str] = &["--root", "--config", "--log-level"];

/// What is wrong with a command line, where clap's own words would be about its grammar.
pub(super) fn explain(error: &clap::Error, typed: &[OsString]) -> Option<UsageError> {
    let said = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(" "),
        _ => String::new(),
    };
    let first = first_word_after_globals(typed);
    let typed: Vec<_> = typed.iter().map(|word| word.to_string_lossy()).collect();
    match error.kind() {
        ErrorKind::MissingRequiredArgument if said(ContextKind::InvalidArg) == "<CONTEXT>" => {
            Some(UsageError::NoContext {
                typed: std::iter::once("rbuild")
                    .chain(typed.iter().skip(1).map(AsRef::as_ref))
                    .collect::<Vec<_>>()
                    .join(" "),
            })
        }
        ErrorKind::UnknownArgument => {
            let word = said(ContextKind::InvalidArg);
            if word.starts_with('-') && word != "-" {
                return None;
            }
            let first = typed.get(first?)?;
            let command = super::command();
            let verbs: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
            if verbs.contains(&first.as_ref()) && first != "build" {
                return None;
            }
            Some(match suggest::closest(first, verbs) {
                Some(meant) if meant != first => UsageError::Verb {
                    word: first.clone().into_owned(),
                    meant: meant.to_owned(),
                },
                _ => UsageError::TooMany { word },
            })
        }
        _ => None,
    }
}

/// Puts words behind the verb of a normal form.
pub(super) fn with_words(words: Vec<OsString>, more: Vec<OsString>) -> Vec<OsString> {
    let verb = first_word_after_globals(&words).map_or(words.len(), |index| index + 1);
    let mut words = words;
    words.splice(verb..verb, more);
    words
}

/// Normal form of a command line; `typed[0]` is the program.
pub(crate) fn normalise(command: &Command, typed: Vec<OsString>) -> Vec<OsString> {
    let mut words = typed;
    let Some(first) = first_word_after_globals(&words) else {
        return words;
    };
    let is_verb = words[first].to_str().is_some_and(|word| {
        word == "help"
            || matches!(word, "-h" | "--help" | "-V" | "--version")
            || command
                .get_subcommands()
                .any(|verb| verb.get_name_and_visible_aliases().contains(&word))
    });
    if !is_verb {
        words.insert(first, "build".into());
    }
    if words[first] == "build"
        && let Some(build) = command.find_subcommand("build")
    {
        plain_switches(build, &mut words, first + 1);
    }
    words
}

fn first_word_after_globals(words: &[OsString]) -> Option<usize> {
    let mut index = 1;
    while let Some(word) = words.get(index).and_then(|word| word.to_str()) {
        if GLOBAL_WITH_VALUE.contains(&word) {
            index += 2;
        } else if GLOBAL_WITH_VALUE.iter().any(|flag| {
            word.strip_prefix(flag)
                .is_some_and(|rest| rest.starts_with('='))
        }) {
            index += 1;
        } else {
            break;
        }
    }
    (index < words.len()).then_some(index)
}

/// Turns `--switch=true` into `--switch`; `--switch=false` takes itself and every earlier `--switch` away.
fn plain_switches(build: &Command, words: &mut Vec<OsString>, from: usize) {
    let is_switch = |name: &str| {
        build.get_arguments().any(|arg| {
            arg.get_long() == Some(name) && matches!(arg.get_action(), ArgAction::SetTrue)
        })
    };
    let mut index = from;
    while index < words.len() && words[index] != "--" {
        let switch = words[index].to_str().and_then(|word| {
            let (name, value) = word.strip_prefix("--")?.split_once('=')?;
            is_switch(name).then(|| (OsString::from(format!("--{name}")), parse_switch(value)))
        });
        match switch {
            Some((name, Some(true))) => words[index] = name,
            Some((name, Some(false))) => {
                words.remove(index);
                let mut position = 0;
                words.retain(|word: &OsString| {
                    position += 1;
                    let is_earlier = position > from && position <= index;
                    !(is_earlier && word.as_os_str() == OsStr::new(&name))
                });
                index = from;
                continue;
            }
            _ => {}
        }
        index += 1;
    }
}

/// A truth value as Go's `strconv.ParseBool` reads it.
pub(crate) fn parse_switch(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::args::Cli;

    #[test]
    fn command_lines_are_brought_into_form() {
        let table = [
            ("the verb is put in", "-t x .", "build -t x ."),
            ("a lone context", ".", "build ."),
            (
                "behind the root",
                "--root /r -t x .",
                "--root /r build -t x .",
            ),
            ("behind the root with =", "--root=/r .", "--root=/r build ."),
            (
                "the root behind",
                "-t x --root /r .",
                "build -t x --root /r .",
            ),
            ("a verb stays", "--root /r images", "--root /r images"),
            ("an alias is a verb", "ls", "ls"),
            ("help stays", "--help", "--help"),
            (
                "a true switch",
                "build --no-cache=true --rm=1 .",
                "build --no-cache --rm .",
            ),
            ("a false switch", "--push --push=false .", "build ."),
            (
                "the last one wins",
                "--no-cache=false --no-cache .",
                "build --no-cache .",
            ),
            (
                "nonsense is left to clap",
                "--no-cache=maybe .",
                "build --no-cache=maybe .",
            ),
            (
                "values of other flags stay",
                "--provenance=false --pull=true .",
                "build --provenance=false --pull=true .",
            ),
            (
                "commands of run stay",
                "run x --no-cache=true",
                "run x --no-cache=true",
            ),
        ];
        for (name, typed, expected) in table {
            let words = std::iter::once("rbuild")
                .chain(typed.split(' '))
                .map(OsString::from)
                .collect();
            let normal = normalise(&Cli::command(), words);
            let normal: Vec<_> = normal[1..]
                .iter()
                .map(|word| word.to_string_lossy())
                .collect();
            assert_eq!(normal.join(" "), expected, "{name}");
        }
    }
}
