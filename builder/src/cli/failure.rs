//! What a person is told of an error, and the exit code that goes with it.
//!
//! The one place that knows the library's error types: [`crate::ui`] renders a [`Failure`] and knows none of them.

use std::error::Error;

use rbuild::event::StepId;
use rbuild::images::ImagesError;
use rbuild::registry::{RegistryError, SettingsError};
use rbuild::{BuildError, TransferError};
use rbuild_frontend::diagnostic::{Diagnostic, Errors, Phase};
use rbuild_frontend::source::Source;

use super::error::UsageError;
use super::settings::{Settings, SettingsFileError};

/// Exit code for bad usage, and for a Dockerfile that does not parse.
pub(crate) const BAD_USAGE: u8 = 2;
/// Exit code for everything else that fails.
const FAILED: u8 = 1;

/// Something that ends the program.
#[derive(Debug)]
pub(crate) struct Failure {
    /// For the shell.
    pub(crate) exit_code: u8,
    /// For people.
    pub(crate) words: Words,
}

/// What is printed.
#[derive(Debug)]
pub(crate) enum Words {
    /// What is wrong with the Dockerfile.
    Refused {
        /// All of it.
        errors: Errors,
        /// In which text.
        source: Source,
    },
    /// A place in the Dockerfile.
    Place {
        /// What is wrong, and where.
        diagnostic: Box<Diagnostic>,
        /// In which text.
        source: Source,
        /// Rendered with its sources below the place.
        cause: Option<Box<dyn Error>>,
        /// The last lines of the failed step's output; empty where no command ran.
        log: Vec<Vec<u8>>,
        /// The command that opens a shell in what the failed step left, where that is kept.
        shell: Option<String>,
    },
    /// An error with its causes, and the way out.
    Chain {
        /// Rendered with its sources.
        error: Box<dyn Error>,
        /// `help: …`
        help: Option<String>,
    },
    /// A signal ended it; everybody knows why.
    Nothing,
}

impl Failure {
    /// An error without more to say.
    pub(crate) fn new(error: impl Into<Box<dyn Error>>) -> Self {
        let error = error.into();
        let help = help_for(error.as_ref());
        Self {
            exit_code: FAILED,
            words: Words::Chain { error, help },
        }
    }

    /// A configuration that can't be used.
    pub(crate) fn of_settings(error: SettingsError) -> Self {
        let help = error.help();
        Self::with_help(error, help)
    }

    /// A registry that did not do what was asked for.
    pub(crate) fn of_registry(error: RegistryError) -> Self {
        let help = error.help();
        Self::with_help(error, help)
    }

    /// An image that could not be carried.
    pub(crate) fn of_transfer(error: TransferError) -> Self {
        let help = error.help();
        Self::with_help(error, help)
    }

    /// An error whose way out the caller knows.
    pub(crate) fn with_help(error: impl Into<Box<dyn Error>>, help: Option<String>) -> Self {
        let mut failure = Self::new(error);
        if let (Words::Chain { help: known, .. }, Some(_)) = (&mut failure.words, &help) {
            *known = help;
        }
        failure
    }

    /// Says by which command a failed step can be looked at.
    pub(crate) fn set_shell(&mut self, command: String) {
        if let Words::Place { shell, .. } = &mut self.words {
            *shell = Some(command);
        }
    }

    fn set_help(&mut self, better: Option<String>) {
        match &mut self.words {
            Words::Place { diagnostic, .. } => diagnostic.help = better,
            Words::Chain { help, .. } => *help = better,
            Words::Refused { .. } | Words::Nothing => {}
        }
    }

    /// The same with another exit code.
    pub(crate) fn with_exit_code(self, exit_code: u8) -> Self {
        Self { exit_code, ..self }
    }

    /// A build that failed; `log_of` has the last lines of a step's output.
    pub(crate) fn of_build(error: BuildError, log_of: impl Fn(StepId) -> Vec<Vec<u8>>) -> Self {
        let (exit_code, help) = (error.exit_code(), error.help());
        let error = match error {
            // Told at the step's place, with the disk in the help.
            BuildError::FullDisk { source, .. } => {
                let mut failure = Self::of_build(*source, log_of);
                failure.set_help(help);
                return failure;
            }
            error => error,
        };
        let words = match error {
            BuildError::Dockerfile {
                errors,
                source_text: source,
            } => Words::Refused { errors, source },
            BuildError::Step {
                failure,
                source: cause,
            } if failure.source_text.is_some() => {
                let log = log_of(StepId(failure.step));
                let title = failure.title.lines().next().unwrap_or("").to_owned();
                let message = format!("`{title}` failed");
                let mut diagnostic =
                    Diagnostic::error("step-failed", Phase::Plan, failure.span, message);
                diagnostic.help = help.or_else(|| help_for(&cause));
                let source = failure
                    .source_text
                    .unwrap_or_else(|| Source::new("Dockerfile", b""));
                Words::Place {
                    diagnostic: Box::new(diagnostic),
                    source,
                    cause: Some(Box::new(cause)),
                    log,
                    shell: None,
                }
            }
            BuildError::Image {
                reference,
                place: Some(place),
                source: cause,
                ..
            } => {
                let (span, source) = *place;
                let message = format!("cannot use the image `{reference}`");
                let help = help.or_else(|| help_for(cause.as_ref()));
                let mut diagnostic =
                    Diagnostic::error("image-unavailable", Phase::Plan, span, message);
                diagnostic.help = help;
                Words::Place {
                    diagnostic: Box::new(diagnostic),
                    source,
                    cause: Some(cause),
                    log: Vec::new(),
                    shell: None,
                }
            }
            BuildError::Interrupted => Words::Nothing,
            error => Words::Chain {
                help: help.or_else(|| help_for(&error)),
                error: Box::new(error),
            },
        };
        Self { exit_code, words }
    }
}

impl Failure {
    /// The same, knowing which line of a configuration gave the value that is refused.
    pub(crate) fn with_origin(mut self, settings: &Settings) -> Self {
        if let Words::Chain { error, help } = &mut self.words
            && let Some(UsageError::Value { flag, value, .. }) = error.downcast_ref::<UsageError>()
            && let Some(origin) = settings.origin(flag, value)
        {
            let rest = help.take().map(|help| format!("; {help}"));
            *help = Some(format!("it is set in {origin}{}", rest.unwrap_or_default()));
        }
        self
    }
}

impl From<SettingsFileError> for Failure {
    fn from(error: SettingsFileError) -> Self {
        let help = error.help();
        Self {
            exit_code: BAD_USAGE,
            words: Words::Chain {
                error: Box::new(error),
                help,
            },
        }
    }
}

impl From<UsageError> for Failure {
    fn from(error: UsageError) -> Self {
        let help = error.help();
        Self {
            exit_code: BAD_USAGE,
            words: Words::Chain {
                error: Box::new(error),
                help,
            },
        }
    }
}

/// An archive for stdout, and stdout is a screen.
#[derive(Debug, thiserror::Error)]
#[error("the archive for stdout would be written to the terminal")]
pub(crate) struct NoArchiveOnTerminal;

impl From<NoArchiveOnTerminal> for Failure {
    fn from(error: NoArchiveOnTerminal) -> Self {
        let help = Some(
            "redirect it: `rbuild … > image.tar`, or name a file: `dest=image.tar`".to_owned(),
        );
        Self {
            exit_code: BAD_USAGE,
            words: Words::Chain {
                error: Box::new(error),
                help,
            },
        }
    }
}

/// The way out of errors that come from the machine rather than from us, found anywhere in the chain.
fn help_for(error: &(dyn Error + 'static)) -> Option<String> {
    use std::io::ErrorKind;
    if let Some(error) = error.downcast_ref::<ImagesError>() {
        return error.help();
    }
    let mut causes = std::iter::successors(Some(error), |&error| error.source());
    if causes.any(rbuild::maintenance::is_damaged_store) {
        return Some(
            "`rbuild fsck --repair` writes it anew from what is whole, and says what is lost"
                .to_owned(),
        );
    }
    let chain = std::iter::successors(Some(error), |&error| error.source());
    chain
        .filter_map(|error| error.downcast_ref::<std::io::Error>())
        .find_map(|error| {
            Some(match error.kind() {
                ErrorKind::StorageFull => {
                    "free some space, or put the store elsewhere with `--root`".to_owned()
                }
                ErrorKind::PermissionDenied => {
                    "that belongs to another user: be that user, or use what is yours, such as another store with `--root`".to_owned()
                }
                ErrorKind::NotADirectory => {
                    "a part of the path is a file: name a directory, the store's with `--root`".to_owned()
                }
                ErrorKind::ReadOnlyFilesystem => {
                    "put the store on a writable file system with `--root`".to_owned()
                }
                _ => return None,
            })
        })
}
