//! `docs/cli.md`, made from clap's definitions and the table of answered flags, so that it can't fall behind.
//!
//! `RBUILD_UPDATE_DOCS=1 cargo test -p rbuild reference` writes it anew.

use std::fmt::Write as _;
use std::path::Path;

use clap::{Arg, Command};

use super::flags::{Answer, TABLE};

const HEAD: &str = "# Command line\n\n\
    Made from the code by `RBUILD_UPDATE_DOCS=1 cargo test -p rbuild reference`; a test keeps it current.\n\n\
    `rbuild -t NAME .` is short for `rbuild build -t NAME .`. Switches take a value too (`--no-cache=true`), and of a flag\n\
    that is not a list the last one wins, as with docker.\n";

const TAIL: &str = "\n## Exit codes\n\n\
    | code | meaning |\n|---|---|\n\
    | 0 | built |\n\
    | 1 | the build or a check failed |\n\
    | 2 | bad usage, or a Dockerfile that does not parse |\n\
    | 130, 143 | interrupted (Ctrl-C), terminated; a second signal ends rbuild at once |\n\
    | any, 125, 126, 127 | `rbuild run`: the command's code; rbuild failed; the command can't be run; it is not there |\n\n\
    ## Environment\n\n\
    | variable | meaning |\n|---|---|\n\
    | `RBUILD_CONFIG` | a file to read instead of the machine's and the user's `rbuild.toml`, when `--config` is not given ([configuration](configuration.md)) |\n\
    | `RBUILD_ROOT` | the store, when `--root` is not given |\n\
    | `RBUILD_CACHE_MAX_USED` | most that the store may take, such as `20GB`, or `unlimited`; default: a tenth of the disk, less while not a twentieth of it is free, but never less than 2 GB |\n\
    | `RBUILD_ISOLATION`, `RBUILD_IGNORE_CHOWN_ERRORS` | `--isolation`, `--ignore-chown-errors`, when they are not given; the latter is `true` or `false` |\n\
    | `RBUILD_LOG`, `RUST_LOG` | log filter in `tracing` syntax, when `--log-level` is not given |\n\
    | `BUILDKIT_PROGRESS` | `--progress`, when it is not given |\n\
    | `DOCKER_DEFAULT_PLATFORM` | `--platform`, when it is not given |\n\
    | `SOURCE_DATE_EPOCH` | time of the image and of its build argument, when that is not given |\n\
    | `SSH_AUTH_SOCK` | the agent of `--ssh default` |\n\
    | `NO_COLOR`, `TERM=dumb` | no colours |\n";

fn reference(command: &Command) -> String {
    let mut text = HEAD.to_owned();
    let globals: Vec<&Arg> = command
        .get_arguments()
        .filter(|arg| arg.is_global_set())
        .collect();
    push_flags(&mut text, "\n## Global options\n", &globals);
    for verb in command.get_subcommands() {
        push_verb(&mut text, "rbuild", verb);
    }
    text + TAIL
}

/// A verb, and those below it.
fn push_verb(text: &mut String, parent: &str, verb: &Command) {
    let about = verb
        .get_about()
        .map(ToString::to_string)
        .unwrap_or_default();
    let usage = verb.get_positionals().map(|arg| {
        let name = arg
            .get_value_names()
            .and_then(<[_]>::first)
            .map_or("", |name| name.as_str())
            .to_uppercase();
        if arg.is_required_set() {
            format!(" {name}")
        } else {
            format!(" [{name}]")
        }
    });
    let usage: String = usage.collect();
    let name = format!("{parent} {}", verb.get_name());
    let _ = write!(
        text,
        "\n## {name}\n\n{about}\n\n`{name} [OPTIONS]{usage}`\n"
    );
    let mut headings: Vec<&str> = Vec::new();
    for arg in verb.get_opts_and_switches() {
        let heading = arg.get_help_heading().unwrap_or("");
        if !headings.contains(&heading) && !TABLE.iter().any(|row| Some(row.name) == arg.get_long())
        {
            headings.push(heading);
        }
    }
    for heading in headings {
        let in_heading = |arg: &&Arg| arg.get_help_heading().unwrap_or("") == heading;
        let args: Vec<&Arg> = verb.get_opts_and_switches().filter(in_heading).collect();
        let title = if heading.is_empty() {
            "\n".to_owned()
        } else {
            format!("\n### {heading}\n")
        };
        push_flags(text, &title, &args);
    }
    if verb.get_name() == "build" {
        push_table(text);
    }
    // clap's own `help` has every verb below it again.
    if verb.get_name() == "help" {
        return;
    }
    for below in verb
        .get_subcommands()
        .filter(|below| below.get_name() != "help")
    {
        push_verb(text, &name, below);
    }
}

trait OptionsAndSwitches {
    /// Every flag, without positionals and clap's own help.
    fn get_opts_and_switches(&self) -> impl Iterator<Item = &Arg>;
}

impl OptionsAndSwitches for Command {
    fn get_opts_and_switches(&self) -> impl Iterator<Item = &Arg> {
        self.get_arguments()
            .filter(|arg| !arg.is_positional() && !arg.is_global_set() && arg.get_id() != "help")
    }
}

fn push_flags(text: &mut String, title: &str, args: &[&Arg]) {
    let _ = write!(text, "{title}\n| flag | meaning |\n|---|---|\n");
    for arg in args {
        let value = match arg.get_value_names() {
            Some(names) if arg.get_action().takes_values() => format!(" {}", names[0]),
            _ => String::new(),
        };
        let help = arg
            .get_long_help()
            .or_else(|| arg.get_help())
            .map(ToString::to_string)
            .unwrap_or_default();
        let flag = format!(
            "{}--{}{value}",
            short(arg.get_short()),
            arg.get_long().unwrap_or("")
        );
        let _ = writeln!(
            text,
            "| `{}` | {} |",
            flag.replace('|', "\\|"),
            help.replace("\n\n", " ").replace('|', "\\|")
        );
    }
}

fn short(letter: Option<char>) -> String {
    letter
        .map(|letter| format!("-{letter}, "))
        .unwrap_or_default()
}

fn push_table(text: &mut String) {
    text.push_str("\n### Flags of docker build that are answered\n\n| flag | what happens | instead |\n|---|---|---|\n");
    for row in TABLE {
        let flag = format!(
            "--{}{}",
            row.name,
            if row.has_value { " VALUE" } else { "" }
        );
        let _ = match &row.answer {
            Answer::NoEffect(why) => writeln!(text, "| `{flag}` | no effect: {why} | |"),
            Answer::Refused {
                reason,
                instead,
                unless,
            } => {
                let except = if unless.is_empty() {
                    String::new()
                } else {
                    format!(" (except `{}`)", unless[0])
                };
                writeln!(text, "| `{flag}` | refused{except}: {reason} | {instead} |")
            }
        };
    }
}

#[test]
fn the_reference_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
    let mut command = super::command();
    command.build();
    let text = reference(&command);
    if std::env::var_os("RBUILD_UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == text,
        "docs/cli.md is not what the code says; RBUILD_UPDATE_DOCS=1 cargo test -p rbuild reference"
    );
}

/// What `code` spans of the documentation call a command has verbs and flags that exist.
#[test]
fn commands_that_are_named_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut pages = vec![root.join("README.md")];
    let docs = std::fs::read_dir(root.join("docs")).unwrap();
    let paths = docs.map(|entry| entry.unwrap().path());
    pages.extend(paths.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    let mut command = super::command();
    command.build();
    let mut named = 0;
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for line in text.lines() {
            let spans = line.split('`').skip(1).step_by(2);
            for span in spans.filter_map(|span| span.strip_prefix("rbuild ")) {
                if let Some(what) = what_is_unknown(&command, span) {
                    panic!("{}: `rbuild {span}`: {what} is not there", page.display());
                }
                named += 1;
            }
        }
    }
    assert!(named >= 80, "{named} commands");
}

/// A flag of these words that is none. Values and placeholders are not looked at.
fn what_is_unknown(command: &Command, words: &str) -> Option<String> {
    let mut verb = command;
    let typed = words.split_whitespace();
    let mut typed = typed
        .map(|word| word.trim_matches(|c| "[]…|,".contains(c)))
        .peekable();
    while let Some(below) = typed.peek().and_then(|word| verb.find_subcommand(word)) {
        verb = below;
        typed.next();
    }
    if std::ptr::eq(verb, command) {
        verb = command.find_subcommand("build")?;
    }
    let mut typed = typed.filter(|word| word.len() > 1 && word.starts_with('-'));
    typed
        .find(|word| {
            let name = word.split(['=', '|']).next().unwrap_or(word);
            let is_flag = |arg: &Arg| match name.strip_prefix("--") {
                Some(long) => arg.get_long() == Some(long),
                None => arg.get_short() == name.chars().nth(1),
            };
            let is_count = name[1..].parse::<u32>().is_ok();
            !is_count
                && !verb.get_arguments().any(&is_flag)
                && !command.get_arguments().any(is_flag)
        })
        .map(ToOwned::to_owned)
}
