//! `rbuild.toml`: what need not be typed.
//!
//! A file has a table for each verb, whose keys are the verb's flags, and a few keys for all verbs. What it says stands in
//! for flags that were not typed and variables that are not set; it means exactly what the typed flag would mean, because it
//! is put into the command line before that is read.
//!
//! Read in this order, each before the next: `/etc/rbuild/rbuild.toml`, `$XDG_CONFIG_HOME/rbuild/rbuild.toml` (both replaced
//! by `--config` or `RBUILD_CONFIG`), and `rbuild.toml` in the build context, which may say little.

mod file;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{ArgMatches, Command};

use super::request::Variables;

/// The name of all these files.
const NAME: &str = "rbuild.toml";

/// Variables that say the same as a flag or key, and more loudly than a file.
const VARIABLES: [(&str, &str, &[&str]); 7] = [
    ("", "root", &["RBUILD_ROOT"]),
    ("", "log-level", &["RBUILD_LOG", "RUST_LOG"]),
    ("", "cache-max-used", &["RBUILD_CACHE_MAX_USED"]),
    ("", "isolation", &["RBUILD_ISOLATION"]),
    ("", "ignore-chown-errors", &["RBUILD_IGNORE_CHOWN_ERRORS"]),
    ("build", "progress", &["BUILDKIT_PROGRESS"]),
    ("build", "platform", &["DOCKER_DEFAULT_PLATFORM"]),
];

/// Whose file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The machine's.
    System,
    /// The user's.
    User,
    /// Named by `--config`.
    Given,
    /// That of what is built.
    Project,
}

/// A file that can't be used. All of them end with exit code 2.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsFileError {
    /// It is there and can't be read.
    #[error("cannot read the configuration `{path}`")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is larger than any real one.
    #[error("the configuration `{path}` is larger than {limit} bytes")]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// It is no TOML.
    #[error("{path}:{line}: {message}")]
    Syntax {
        /// Which.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// The parser's words.
        message: String,
    },
    /// A key that nothing is known by.
    #[error("{path}:{line}: there is no {what} `{name}`")]
    Unknown {
        /// Which file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// `key` or `table`
        what: &'static str,
        /// As written.
        name: String,
        /// What was probably meant.
        meant: Option<String>,
    },
    /// A flag of a verb that stands outside of its table.
    #[error("{path}:{line}: `{name}` stands outside of the table of its verb")]
    NoTable {
        /// Which file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// As written.
        name: String,
    },
    /// A project that decides what is the user's to decide.
    #[error("{path}:{line}: a project may not set `{name}`")]
    NotForProjects {
        /// Which file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// As written.
        name: String,
    },
    /// A value of the wrong kind.
    #[error("{path}:{line}: `{name}` is {wanted}")]
    Value {
        /// Which file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// The key.
        name: String,
        /// What it takes.
        wanted: &'static str,
    },
}

impl SettingsFileError {
    /// The way out.
    pub(crate) fn help(&self) -> Option<String> {
        match self {
            Self::Unknown { meant: Some(meant), .. } => Some(format!("did you mean `{meant}`?")),
            Self::Unknown { what: "table", .. } => {
                Some("tables are named like verbs, such as `[build]`".to_owned())
            }
            Self::Unknown { .. } => {
                Some("keys are a verb's flags without the dashes: `rbuild build --help`".to_owned())
            }
            Self::NoTable { .. } => Some("put it below a line `[build]`".to_owned()),
            Self::NotForProjects { .. } => Some(
                "it is for the user to decide: type it, or set it in `~/.config/rbuild/rbuild.toml`".to_owned(),
            ),
            Self::Read { .. } | Self::TooLarge { .. } | Self::Syntax { .. } | Self::Value { .. } => None,
        }
    }
}

/// One line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// Its table; empty for what is for all verbs.
    pub(crate) verb: String,
    /// The key: a flag without its dashes.
    pub(crate) name: String,
    /// Its values as they would be typed.
    pub(crate) values: Vec<String>,
    /// Where it stands.
    pub(crate) file: PathBuf,
    /// From 1.
    pub(crate) line: usize,
}

impl Setting {
    fn key(&self) -> (&str, &str) {
        (&self.verb, &self.name)
    }

    /// The variable that is heard instead, if one is set.
    fn overruled_by(&self, variables: &Variables) -> Option<&'static str> {
        let row = VARIABLES.iter().find(|row| (row.0, row.1) == self.key())?;
        let is_set = |name: &&&str| variables.get(**name).is_some_and(|text| !text.is_empty());
        row.2.iter().find(is_set).copied()
    }

    fn words(&self) -> impl Iterator<Item = OsString> + '_ {
        self.values.iter().filter_map(|value| match value.as_str() {
            "true" => Some(format!("--{}", self.name).into()),
            "false" => None,
            value => Some(format!("--{}={value}", self.name).into()),
        })
    }
}

/// All files, and what they say.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    /// Looked for, in the order in which they are read; true where there is one.
    pub(crate) files: Vec<(PathBuf, bool)>,
    /// Later ones win.
    said: Vec<Setting>,
    /// Everything that is set, its value and where it comes from, for `rbuild info`.
    pub(crate) described: Vec<[String; 3]>,
}

impl Settings {
    /// Reads the files that a command line leads to.
    pub(crate) fn read(
        command: &Command,
        matches: &ArgMatches,
        variables: &Variables,
    ) -> Result<Self, SettingsFileError> {
        let mut settings = Self::default();
        for (path, scope) in places(matches, variables) {
            let said = file::read(&path, scope, command)?;
            settings.files.push((path, said.is_some()));
            settings.said.extend(said.unwrap_or_default());
        }
        // Before a file stands in for a variable.
        settings.described = settings.describe(variables);
        Ok(settings)
    }

    /// What counts: of several lines for one key the last.
    pub(crate) fn in_force(&self) -> impl Iterator<Item = &Setting> {
        self.said.iter().enumerate().filter_map(|(index, setting)| {
            let later = &self.said[index + 1..];
            let is_last = !later.iter().any(|other| other.key() == setting.key());
            is_last.then_some(setting)
        })
    }

    /// The words that are missing on a command line, to stand behind its verb. `typed` are the flags that it has, whose
    /// values count alone.
    pub(crate) fn words(
        &self,
        verb: &str,
        typed: &BTreeSet<String>,
        variables: &Variables,
    ) -> Vec<OsString> {
        self.in_force()
            .filter(|setting| {
                let is_word = setting.verb == verb
                    || setting.verb.is_empty()
                        && matches!(setting.name.as_str(), "root" | "log-level");
                is_word
                    && !typed.contains(&setting.name)
                    && setting.overruled_by(variables).is_none()
            })
            .flat_map(Setting::words)
            .collect()
    }

    /// Stands in for variables that are not set.
    pub(crate) fn fill(&self, variables: &mut Variables) {
        for setting in self.in_force().filter(|setting| setting.verb.is_empty()) {
            let row = VARIABLES.iter().find(|row| (row.0, row.1) == setting.key());
            let (Some(row), Some(value)) = (row, setting.values.first()) else {
                continue;
            };
            if setting.overruled_by(variables).is_none() && setting.name != "log-level" {
                variables.insert(row.2[0].to_owned(), value.clone());
            }
        }
    }

    /// The line that a value of a flag comes from.
    pub(crate) fn origin(&self, flag: &str, value: &str) -> Option<String> {
        let name = flag.trim_start_matches('-');
        let setting = self.in_force().find(|setting| {
            setting.name == name && setting.values.iter().any(|said| said == value)
        })?;
        Some(format!("{}:{}", setting.file.display(), setting.line))
    }

    fn describe(&self, variables: &Variables) -> Vec<[String; 3]> {
        let describe = |setting: &Setting| {
            let key = if setting.verb.is_empty() {
                setting.name.clone()
            } else {
                format!("{}.{}", setting.verb, setting.name)
            };
            let place = format!("{}:{}", setting.file.display(), setting.line);
            let origin = match setting.overruled_by(variables) {
                Some(variable) => format!("{place}, but {variable} is set"),
                None => place,
            };
            [key, setting.values.join(", "), origin]
        };
        self.in_force().map(describe).collect()
    }
}

/// Flags that were typed, without their dashes.
pub(crate) fn typed_flags(
    command: &Command,
    matches: &ArgMatches,
    typed: &[OsString],
) -> BTreeSet<String> {
    let spelt = typed.iter().filter_map(|word| {
        let name = word.to_str()?.strip_prefix("--")?;
        Some(name.split('=').next().unwrap_or(name).to_owned())
    });
    let mut flags: BTreeSet<String> = spelt.collect();
    // `-f` is `--file`.
    if let Some((verb, matches)) = matches.subcommand()
        && let Some(verb) = command.find_subcommand(verb)
    {
        let is_typed =
            |id: &str| matches.value_source(id) == Some(clap::parser::ValueSource::CommandLine);
        let given = verb.get_arguments().filter(|arg| {
            matches.try_contains_id(arg.get_id().as_str()).is_ok()
                && is_typed(arg.get_id().as_str())
        });
        flags.extend(given.filter_map(|arg| arg.get_long().map(str::to_owned)));
    }
    flags
}

/// The files that may say something, in the order in which they are read.
fn places(matches: &ArgMatches, variables: &Variables) -> Vec<(PathBuf, Scope)> {
    let variable = |name: &str| variables.get(name).filter(|text| !text.is_empty());
    let verb = matches.subcommand();
    let given = matches.try_get_one::<PathBuf>("config").ok().flatten();
    let given = given
        .cloned()
        .or_else(|| variable("RBUILD_CONFIG").map(PathBuf::from));
    let mut places = Vec::new();
    if let Some(path) = given {
        places.push((path, Scope::Given));
    } else {
        places.push((Path::new("/etc/rbuild").join(NAME), Scope::System));
        let home = variable("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| {
            let home = variable("HOME")?;
            Some(Path::new(home).join(".config"))
        });
        places.extend(home.map(|home| (home.join("rbuild").join(NAME), Scope::User)));
    }
    let project = match verb {
        Some(("build" | "check" | "graph", matches)) => {
            let context = matches.try_get_one::<OsString>("context").ok().flatten();
            context.map(PathBuf::from).filter(|path| path.is_dir())
        }
        Some(("info", _)) => Some(PathBuf::from(".")),
        _ => None,
    };
    places.extend(project.map(|directory| (directory.join(NAME), Scope::Project)));
    places
}
