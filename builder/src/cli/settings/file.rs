//! One `rbuild.toml`: read, bounded, and checked against the command line's own flags.

use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, Command};
use rbuild_frontend::suggest;
use toml::de::{DeTable, DeValue};

use super::{Scope, Setting, SettingsFileError as Error};

/// Bytes of a file that are read; real ones have a few lines.
const MAX_SIZE: u64 = 256 * 1024;

/// Keys that stand above the tables, for all verbs.
pub(super) const GLOBAL_KEYS: [&str; 5] = [
    "root",
    "log-level",
    "cache-max-used",
    "isolation",
    "ignore-chown-errors",
];

/// What the file of a project may say: whoever wrote a repository must not decide what is allowed on the machine that builds
/// it, where its output goes or what an image is called.
const PROJECT_KEYS: [&str; 7] = [
    "annotation",
    "build-arg",
    "budget",
    "label",
    "platform",
    "severity",
    "target",
];

/// Flags that are no settings.
const NEVER: [&str; 5] = ["help", "version", "config", "root", "log-level"];

/// Reads a file; none when there is none.
pub(super) fn read(
    path: &Path,
    scope: Scope,
    command: &Command,
) -> Result<Option<Vec<Setting>>, Error> {
    let failed = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    // A project's file is read through no link: it would be another's file whose text ends in a message.
    let metadata = if scope == Scope::Project {
        std::fs::symlink_metadata(path)
    } else {
        std::fs::metadata(path)
    };
    match metadata {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) if scope == Scope::Project => return Ok(None),
        Ok(_) => return Err(failed(std::io::ErrorKind::InvalidInput.into())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && scope != Scope::Given => {
            return Ok(None);
        }
        // A directory of another user's home: nothing there is meant for us.
        Err(error)
            if scope != Scope::Given
                && matches!(
                    error.kind(),
                    std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::NotADirectory
                ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(failed(error)),
    }
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut text = String::new();
    file.take(MAX_SIZE + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if text.len() as u64 > MAX_SIZE {
        return Err(Error::TooLarge {
            path: path.to_owned(),
            limit: MAX_SIZE,
        });
    }
    let file = File {
        path,
        text: &text,
        scope,
        command,
    };
    file.settings().map(Some)
}

struct File<'a> {
    path: &'a Path,
    text: &'a str,
    scope: Scope,
    command: &'a Command,
}

impl File<'_> {
    fn settings(&self) -> Result<Vec<Setting>, Error> {
        let table = DeTable::parse(self.text).map_err(|error| Error::Syntax {
            path: self.path.to_owned(),
            line: self.line(error.span().unwrap_or_default()),
            message: error.message().to_owned(),
        })?;
        let mut settings = Vec::new();
        for (key, value) in table.get_ref() {
            let name = key.get_ref().as_ref();
            let line = self.line(key.span());
            if let DeValue::Table(keys) = value.get_ref() {
                let verb = self.verb(name, line)?;
                for (key, value) in keys {
                    let line = self.line(key.span());
                    let name = key.get_ref().as_ref();
                    settings.push(self.of_verb(verb, name, value.get_ref(), line)?);
                }
            } else {
                settings.push(self.of_all(name, value.get_ref(), line)?);
            }
        }
        settings.sort_by_key(|setting| setting.line);
        Ok(settings)
    }

    fn line(&self, span: Range<usize>) -> usize {
        let before = self.text.get(..span.start).unwrap_or_default();
        1 + before.matches('\n').count()
    }

    fn verb(&self, name: &str, line: usize) -> Result<&Command, Error> {
        self.command.find_subcommand(name).ok_or_else(|| {
            let verbs = self.command.get_subcommands().map(Command::get_name);
            self.unknown(name, line, "table", verbs)
        })
    }

    fn unknown<'k>(
        &self,
        name: &str,
        line: usize,
        what: &'static str,
        known: impl Iterator<Item = &'k str>,
    ) -> Error {
        Error::Unknown {
            path: self.path.to_owned(),
            line,
            what,
            name: name.to_owned(),
            meant: suggest::closest(name, known).map(str::to_owned),
        }
    }

    /// A key above the tables.
    fn of_all(&self, name: &str, value: &DeValue<'_>, line: usize) -> Result<Setting, Error> {
        if !GLOBAL_KEYS.contains(&name) {
            let build = self.command.find_subcommand("build");
            let is_flag = build.is_some_and(|build| {
                build
                    .get_arguments()
                    .any(|arg| arg.get_long() == Some(name))
            });
            if is_flag {
                return Err(Error::NoTable {
                    path: self.path.to_owned(),
                    line,
                    name: name.to_owned(),
                });
            }
            let tables = self.command.get_subcommands().map(Command::get_name);
            return Err(self.unknown(name, line, "key", GLOBAL_KEYS.into_iter().chain(tables)));
        }
        self.refuse_to_project("", name, line)?;
        let text = scalar(value)
            .ok_or_else(|| self.wrong(name, line, "a text, a number or true or false"))?;
        Ok(self.setting("", name, vec![text], line))
    }

    fn of_verb(
        &self,
        verb: &Command,
        name: &str,
        value: &DeValue<'_>,
        line: usize,
    ) -> Result<Setting, Error> {
        let flags = || {
            verb.get_arguments()
                .filter(|arg| arg.get_long().is_some_and(|long| !NEVER.contains(&long)))
        };
        let flag = flags()
            .find(|arg| arg.get_long() == Some(name))
            .ok_or_else(|| self.unknown(name, line, "key", flags().filter_map(Arg::get_long)))?;
        self.refuse_to_project(verb.get_name(), name, line)?;
        let values = match (flag.get_action(), value) {
            (ArgAction::SetTrue, DeValue::Boolean(given)) => vec![given.to_string()],
            (ArgAction::SetTrue, _) => return Err(self.wrong(name, line, "true or false")),
            (ArgAction::Append, DeValue::Array(values)) => {
                let values = values.iter().map(|value| scalar(value.get_ref()));
                let values: Option<Vec<String>> = values.collect();
                values.ok_or_else(|| self.wrong(name, line, "a list of texts"))?
            }
            (ArgAction::Append, DeValue::Table(values)) => {
                let pair = |(key, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
                    Some(format!("{}={}", key.get_ref(), scalar(value.get_ref())?))
                };
                let values: Option<Vec<String>> = values.iter().map(pair).collect();
                values.ok_or_else(|| self.wrong(name, line, "a table of texts"))?
            }
            (_, value) => {
                vec![scalar(value).ok_or_else(|| self.wrong(name, line, "a text or a number"))?]
            }
        };
        Ok(self.setting(verb.get_name(), name, values, line))
    }

    fn refuse_to_project(&self, verb: &str, name: &str, line: usize) -> Result<(), Error> {
        if self.scope != Scope::Project || !verb.is_empty() && PROJECT_KEYS.contains(&name) {
            return Ok(());
        }
        Err(Error::NotForProjects {
            path: self.path.to_owned(),
            line,
            name: name.to_owned(),
        })
    }

    fn wrong(&self, name: &str, line: usize, wanted: &'static str) -> Error {
        Error::Value {
            path: self.path.to_owned(),
            line,
            name: name.to_owned(),
            wanted,
        }
    }

    fn setting(&self, verb: &str, name: &str, values: Vec<String>, line: usize) -> Setting {
        Setting {
            verb: verb.to_owned(),
            name: name.to_owned(),
            values,
            file: PathBuf::from(self.path),
            line,
        }
    }
}

/// A value that is one word of a command line.
fn scalar(value: &DeValue<'_>) -> Option<String> {
    Some(match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => return None,
    })
}
