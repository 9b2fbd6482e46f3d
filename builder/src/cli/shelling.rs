//! `rbuild shell`, and what `--on-failure` does with a step that failed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use rbuild::event::StepId;
use rbuild::history::{self, History};
use rbuild::options::{BuildOptions, FailedSteps};
use rbuild::{Engine, EngineOptions, ShellError, ShellOptions};

use super::args::{GlobalArgs, IsolationArgs};
use super::commands::{self, open_engine};
use super::error::UsageError;
use super::failure::Failure;
use super::past;
use super::request::{self, Variables};
use super::signals::Interrupt;
use crate::ui;

/// Exit code when not the command failed but we: as of `rbuild run`.
const SHELL_FAILED: u8 = 125;

/// `rbuild shell`
#[derive(Args, Debug)]
pub(crate) struct ShellArgs {
    /// Id of a build or its beginning, `last`, -1, -2, …; without it the last build
    #[arg(value_name = "BUILD", allow_negative_numbers = true)]
    build: Option<String>,
    /// Number of a step, STAGE/NUMBER, or a part of its instruction; without it the one that failed
    #[arg(value_name = "STEP")]
    step: Option<String>,
    /// A command instead of a shell
    #[arg(value_name = "COMMAND", last = true)]
    command: Vec<OsString>,
    /// User and group instead of the step's, names of the image or numbers
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// A variable on top of the step's: NAME=VALUE, or NAME with the value that it has here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// A secret of the step, as for `rbuild build`: their values are never kept
    #[arg(long, value_name = "id=ID[,src=FILE|,env=VAR]")]
    secret: Vec<String>,
    /// An ssh agent or key of the step, as for `rbuild build`
    #[arg(long, value_name = "default|ID[=PATH]")]
    ssh: Vec<String>,
    #[command(flatten)]
    isolation: IsolationArgs,
}

impl ShellArgs {
    fn options(&self, variables: &Variables) -> Result<ShellOptions, UsageError> {
        let mut options = ShellOptions {
            command: self.command.clone(),
            user: self.user.clone(),
            values: variables.clone(),
            has_terminal: ui::is_terminal(),
            ..ShellOptions::default()
        };
        for text in &self.env {
            match text.split_once('=') {
                Some((name, value)) => {
                    let pair = (name.to_owned(), value.to_owned());
                    options.environment.push(pair);
                }
                // As `rbuild run` does: what is not set here is left out.
                None => (options.environment).extend(
                    variables
                        .get(text)
                        .map(|value| (text.clone(), value.clone())),
                ),
            }
        }
        for text in &self.secret {
            let (id, source) = request::secret(text, variables)?;
            options.secrets.insert(id, source);
        }
        for text in &self.ssh {
            let (id, path) = request::ssh(text, variables)?;
            options.ssh.insert(id, path);
        }
        Ok(options)
    }
}

/// `rbuild shell`
pub(super) fn shell(
    args: &ShellArgs,
    global: &GlobalArgs,
    variables: &Variables,
) -> Result<ExitCode, Failure> {
    let open = || {
        let options = args.options(variables)?;
        let engine = open_engine(global, &args.isolation, variables)?;
        let (build, step) = chosen(args, &engine)?;
        Ok::<_, Failure>((engine, build, step, options))
    };
    let (engine, build, step, options) =
        open().map_err(|failure| failure.with_exit_code(SHELL_FAILED))?;
    enter(&engine, &build, step, &options)
}

/// The build and the step that are meant.
fn chosen(args: &ShellArgs, engine: &Engine) -> Result<(String, usize), Failure> {
    let history = History::new(engine.store().clone());
    // One word is a build if it means one, else a step of the last build.
    let (build, step) = match (&args.build, &args.step) {
        (Some(word), None) if !history.has(word) && !word.starts_with('-') => {
            ("last", Some(word.as_str()))
        }
        (build, step) => (build.as_deref().unwrap_or("last"), step.as_deref()),
    };
    let build = history.find(build).map_err(past::failed)?;
    let detail = history.detail(&build.id).map_err(past::failed)?;
    let step = match step {
        Some(text) => history::find_step(&build.id, &detail.steps, text),
        None => history::failed_step(&build.id, &detail.steps),
    };
    Ok((build.id, step.map_err(past::failed)?))
}

fn enter(
    engine: &Engine,
    build: &str,
    step: usize,
    options: &ShellOptions,
) -> Result<ExitCode, Failure> {
    let failed = |failure: Failure| failure.with_exit_code(SHELL_FAILED);
    let runtime = commands::runtime().map_err(failed)?;
    let code = runtime.block_on(async {
        let interrupt = Interrupt::listen(|| ()).map_err(|error| failed(Failure::new(error)))?;
        let token = interrupt.token.clone();
        let ended = engine.shell(
            build,
            step,
            options,
            |words| ui::print_notice(&words),
            token,
        );
        ended.await.map_err(of_shell)
    });
    code.map(ExitCode::from)
}

fn of_shell(error: ShellError) -> Failure {
    let (exit_code, help) = (error.exit_code(), error.help());
    let failure = match error {
        ShellError::Isolation(error) => Failure::of_build(*error, |_| Vec::new()),
        error => Failure::with_help(error, help),
    };
    failure.with_exit_code(exit_code)
}

/// `--on-failure`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OnFailure {
    /// Keep what a failed step left where somebody sits at a terminal.
    #[default]
    Auto,
    /// Keep it.
    Keep,
    /// Keep it, and open a shell in it.
    Shell,
    /// Throw it away.
    Discard,
}

impl OnFailure {
    pub(super) fn parse(text: Option<&str>) -> Result<Self, UsageError> {
        match text {
            None | Some("" | "auto") => Ok(Self::Auto),
            Some("keep") => Ok(Self::Keep),
            Some("shell") => Ok(Self::Shell),
            Some("discard") => Ok(Self::Discard),
            Some(other) => {
                let reason = "it is one of auto, keep, shell, discard";
                Err(UsageError::value("--on-failure", other, reason))
            }
        }
    }

    /// Whether a failed step is kept.
    pub(super) fn failed_steps(self) -> FailedSteps {
        match self {
            Self::Auto if !ui::is_terminal() => FailedSteps::Discarded,
            Self::Discard => FailedSteps::Discarded,
            Self::Auto | Self::Keep | Self::Shell => FailedSteps::Kept,
        }
    }
}

/// The command that opens what was kept of a step.
pub(super) fn command(global: &GlobalArgs, build: &str, step: StepId) -> String {
    let root = global.root.as_deref();
    let root = root.filter(|root| *root != EngineOptions::default_root());
    let root = root.map_or_else(String::new, |root| format!("--root {} ", quoted(root)));
    format!("rbuild {root}shell {build} {}", step.0 + 1)
}

fn quoted(path: &Path) -> String {
    let text = std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
    let text = text.to_string_lossy();
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+:@".contains(letter);
    if text.chars().all(is_plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// Opens a shell in what a step left that has just failed, with the secrets that the build was given.
pub(super) fn enter_failed(
    engine: &Engine,
    build: &str,
    step: StepId,
    options: &BuildOptions,
    variables: &Variables,
) -> Result<ExitCode, Failure> {
    let mut values: BTreeMap<String, String> = variables.clone();
    values.extend(options.build_args.clone());
    let options = ShellOptions {
        values,
        secrets: options.secrets.clone(),
        ssh: options.ssh.clone(),
        has_terminal: true,
        ..ShellOptions::default()
    };
    enter(engine, build, step.0, &options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_leads_to_the_same_store() {
        let global = |root: Option<&str>| GlobalArgs {
            root: root.map(PathBuf::from),
            config: None,
            log_level: None,
        };
        let command = |root| command(&global(root), "k3xyz", StepId(3));
        assert_eq!(command(None), "rbuild shell k3xyz 4");
        assert_eq!(command(Some("/s/t")), "rbuild --root /s/t shell k3xyz 4");
        assert_eq!(
            command(Some("/a b/it's")),
            r"rbuild --root '/a b/it'\''s' shell k3xyz 4"
        );
    }
}
