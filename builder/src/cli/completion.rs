//! `rbuild completion`: scripts for shells, and the words that they ask for while a line is typed.
//!
//! ```text
//! shell ──`rbuild __complete SHELL …`──▶ answer ──▶ clap_complete's engine over cli::command()
//!                                                     └─ values: the store, the Dockerfile (read only, never made)
//! ```
//! bash, zsh and fish ask; other shells get a script that knows the flags alone.

mod candidates;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::ValueEnum;
use clap::builder::ValueHint;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};

use super::request::Variables;
use super::settings::Settings;
use super::typed;
use candidates::Surroundings;

/// The word that scripts ask with; no verb, so that no help speaks of it.
const ASK: &str = "__complete";

/// Characters at which bash begins a new word, as far as they stand in values of ours.
const BASH_BREAKS: [char; 2] = ['=', ':'];

/// Which shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompletionShell {
    /// Put `source <(rbuild completion bash)` into ~/.bashrc
    Bash,
    /// Put `source <(rbuild completion zsh)` into ~/.zshrc, behind `compinit`
    Zsh,
    /// Write it to ~/.config/fish/completions/rbuild.fish
    Fish,
    /// Flags only
    Elvish,
    /// Flags only
    Powershell,
}

/// The script for a shell.
pub(super) fn script(shell: CompletionShell) -> String {
    let other = match shell {
        CompletionShell::Bash => return include_str!("completion/rbuild.bash").to_owned(),
        CompletionShell::Zsh => return include_str!("completion/rbuild.zsh").to_owned(),
        CompletionShell::Fish => return include_str!("completion/rbuild.fish").to_owned(),
        CompletionShell::Elvish => clap_complete::Shell::Elvish,
        CompletionShell::Powershell => clap_complete::Shell::PowerShell,
    };
    let mut text = Vec::new();
    clap_complete::generate(other, &mut super::command(), "rbuild", &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// What a script asks, if one does: lines of `VALUE`, or `VALUE<tab>MEANING`. `typed` is `rbuild __complete SHELL WORD…`, where the
/// last word is the one that is completed; of bash it is the line up to the cursor.
pub(super) fn answer(typed: &[OsString], variables: &Variables) -> Option<String> {
    if typed.get(1).is_none_or(|word| word != ASK) {
        return None;
    }
    let shell = typed.get(2).and_then(|word| word.to_str());
    let is_bash = shell == Some("bash");
    let words = if is_bash {
        let line = typed.get(3).and_then(|line| line.to_str()).unwrap_or("");
        split(line)
    } else {
        typed.get(3..).unwrap_or_default().to_vec()
    };
    let current = words.last().cloned().unwrap_or_default();
    let found = candidates(words, variables);
    // bash replaces what stands behind the last break.
    let kept = current.to_str().filter(|_| is_bash).map_or(0, |word| {
        word.rfind(BASH_BREAKS).map_or(0, |position| position + 1)
    });
    let line = |candidate: &CompletionCandidate| {
        let value = candidate.get_value().to_str()?.get(kept..)?.to_owned();
        let help = candidate.get_help().filter(|_| !is_bash);
        let help = help.and_then(|help| first_line(&help.to_string()));
        // A shell reads lines.
        (!value.contains(['\n', '\t'])).then(|| match help {
            Some(help) => format!("{value}\t{help}"),
            None => value,
        })
    };
    let lines: Vec<String> = found.iter().filter_map(line).collect();
    Some(lines.join("\n"))
}

fn first_line(text: &str) -> Option<String> {
    let line = text.lines().next()?.replace('\t', " ");
    (!line.is_empty()).then_some(line)
}

/// The words of an unfinished line; the last is the one at the cursor, and may be empty.
pub(super) fn split(line: &str) -> Vec<OsString> {
    let mut words = vec![String::new()];
    let (mut quote, mut is_escaped) = (None, false);
    for letter in line.chars() {
        let word = words.last_mut();
        let Some(word) = word else { break };
        match (quote, letter) {
            _ if is_escaped => {
                word.push(letter);
                is_escaped = false;
            }
            (Some(open), letter) if letter == open => quote = None,
            (None, '\'' | '"') => quote = Some(letter),
            (None | Some('"'), '\\') => is_escaped = true,
            (None, ' ' | '\t') if !word.is_empty() => words.push(String::new()),
            (None, ' ' | '\t') => {}
            (_, letter) => word.push(letter),
        }
    }
    words.into_iter().map(OsString::from).collect()
}

/// What may stand where the last of these words stands; `words[0]` is the program.
fn candidates(mut words: Vec<OsString>, variables: &Variables) -> Vec<CompletionCandidate> {
    let command = super::command();
    let Some(current) = words.pop().filter(|_| !words.is_empty()) else {
        return Vec::new();
    };
    // `rbuild -t x .` is short for `rbuild build -t x .`; the first word may still become a verb.
    if words.len() > 1 || current.to_str().is_some_and(|word| word.starts_with('-')) {
        let mut all = words;
        all.push(current.clone());
        words = typed::normalise(&command, all);
        // A switch that is typed with its value is another word now, or none.
        if words.last() != Some(&current) {
            return Vec::new();
        }
        words.pop();
    }
    let surroundings = Surroundings {
        root: root(&words, variables),
        words: words.clone(),
    };
    let index = words.len();
    let is_flag = |text: &OsStr| text.as_encoded_bytes().starts_with(b"-");
    let wants_flags = is_flag(&current);
    words.push(current);
    let mut command = with_values(command, &surroundings);
    let here = std::env::current_dir().ok();
    let found = clap_complete::engine::complete(&mut command, words, index, here.as_deref());
    let mut found = found.unwrap_or_default();
    found.retain(|candidate| !candidate.is_hide_set());
    // Where a value may stand, flags are for those who begin one.
    if !wants_flags
        && found
            .iter()
            .any(|candidate| !is_flag(candidate.get_value()))
    {
        found.retain(|candidate| !is_flag(candidate.get_value()));
    }
    found
}

/// Where the store is: from the words, the environment or a configuration file.
fn root(words: &[OsString], variables: &Variables) -> PathBuf {
    let words: Vec<&OsStr> = words.iter().map(OsString::as_os_str).collect();
    if let Some(root) = candidates::value_of(&words, &["--root"]) {
        return PathBuf::from(root);
    }
    let command = super::command();
    let matches = command.clone().try_get_matches_from(["rbuild", "version"]);
    let settings = matches
        .ok()
        .and_then(|matches| Settings::read(&command, &matches, variables).ok());
    let said = settings.map(|settings| settings.words("", &BTreeSet::new(), variables));
    let said = said.unwrap_or_default();
    let said: Vec<&OsStr> = said.iter().map(OsString::as_os_str).collect();
    let root = candidates::value_of(&said, &["--root"]);
    root.map_or_else(rbuild::EngineOptions::default_root, PathBuf::from)
}

/// Lets the values of arguments be found, by what they are called in the help.
fn with_values(command: clap::Command, surroundings: &Surroundings) -> clap::Command {
    command
        .mut_args(|arg| {
            // Flags that are only answered are for those who type them.
            let is_answer = arg.is_hide_short_help_set();
            let arg = if is_answer { arg.hide(true) } else { arg };
            let name = arg.get_value_names().and_then(|names| names.first());
            let Some(name) = name.map(ToString::to_string) else {
                return arg;
            };
            if name == "CONTEXT" {
                return arg.value_hint(ValueHint::DirPath);
            }
            if !candidates::are_known(&name) {
                return arg;
            }
            let surroundings = surroundings.clone();
            arg.add(ArgValueCompleter::new(move |typed: &OsStr| {
                candidates::of(&name, typed, &surroundings)
            }))
        })
        .mut_subcommands(|verb| with_values(verb, surroundings))
}

#[cfg(test)]
mod tests;
