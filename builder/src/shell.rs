//! `rbuild shell BUILD STEP`: a look at what a step left, in the sandbox that it had. Nothing that is done there is kept.
//!
//! Of a failed step that was kept, the root, the mounts, the variables, the user, the directory, the network and the limits
//! are those of its command. Of a step that was done only the result is in the store: its root is that, variables, user and
//! directory are those that the history knows, and nothing is mounted.

mod reopen;
mod result;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;

use rbuild_cache::{CacheMountGuard, KeptError, LayerError, Lease, SnapshotId};
use rbuild_runner::job::{Network, RunJob};
use rbuild_runner::{JobError, JobErrorKind, PrivateNetwork};
use tokio_util::sync::CancellationToken;

use crate::attached::{self, AttachedError};
use crate::blocking;
use crate::engine::Engine;
use crate::error::{BuildError, StepError};
use crate::event::StepId;
use crate::history::{History, PastError, StepNote};
use crate::options::SecretSource;
use crate::steps::ssh::Forwarded;

/// What is opened when the step itself ran no shell.
const SHELL: &str = "/bin/sh";

/// Why a step's file system can't be looked at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShellError {
    /// The build or the step is not in the history.
    #[error(transparent)]
    Past(#[from] PastError),
    /// It failed, and nothing was kept of it.
    #[error("nothing is kept of the failed step `{step}` of build `{build}`")]
    NotKept {
        /// The build's id.
        build: String,
        /// The step, as it is spelt.
        step: String,
        /// Number in the build of the step that it stood on.
        below: Option<usize>,
    },
    /// It never came to a result, or that is not in the store any more.
    #[error("the store has no result of step `{step}` of build `{build}`")]
    NoResult {
        /// The build's id.
        build: String,
        /// The step, as it is spelt.
        step: String,
    },
    /// It only takes an image's layers.
    #[error("step `{step}` is an image")]
    IsImage {
        /// The step, as it is spelt.
        step: String,
    },
    /// What was written down of it can't be read.
    #[error("what is kept of step `{step}` is damaged, or another version of rbuild kept it")]
    Unreadable {
        /// The step, as it is spelt.
        step: String,
    },
    /// There is no shell in it.
    #[error("there is no `{shell}` in the file system of step `{step}`")]
    NoShell {
        /// What was to be run.
        shell: String,
        /// The step, as it is spelt.
        step: String,
    },
    /// The isolation that was asked for can't be had.
    #[error(transparent)]
    Isolation(Box<BuildError>),
    /// A layer of it is damaged, and was taken out of the store.
    #[error("the file system of step `{step}` is damaged")]
    Damaged {
        /// The step, as it is spelt.
        step: String,
        /// How.
        #[source]
        source: Box<LayerError>,
    },
    /// A secret, an agent or a cache mount can't be had.
    #[error("cannot mount what the step had mounted")]
    Mount(#[source] StepError),
    /// What is kept can't be held.
    #[error(transparent)]
    Kept(#[from] KeptError),
    /// The store failed.
    #[error("the store failed")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The sandbox could not be set up.
    #[error("cannot run `{command}`")]
    Job {
        /// The command.
        command: String,
        /// The cause.
        #[source]
        source: JobError,
    },
    /// Our own stdin, stdout or stderr can't be handed on.
    #[error("cannot hand on the standard streams")]
    Streams(#[source] std::io::Error),
    /// Ctrl-C while a cache mount was waited for.
    #[error("interrupted")]
    Interrupted,
}

impl ShellError {
    /// 125 for ours, 126 for a command that can't be executed, 127 for one that is not there.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NoShell { .. } => 127,
            Self::Job { source, .. } => attached::exit_code_of(source),
            Self::Interrupted => 130,
            _ => 125,
        }
    }

    /// The way out, where one is known.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            Self::Past(error) => return error.help(),
            Self::NotKept { build, below, .. } => {
                let below = below.map(|step| {
                    format!("; `rbuild shell {build} {step}` opens what the step stood on")
                });
                format!(
                    "build again with `--on-failure keep`, which is what a terminal does by itself{}",
                    below.unwrap_or_default()
                )
            }
            Self::NoResult { .. } => {
                "build again: what is in the cache then is what the build ends with".to_owned()
            }
            Self::IsImage { .. } => "`rbuild run IMAGE` runs it".to_owned(),
            Self::Unreadable { .. } => "build again with `--on-failure keep`".to_owned(),
            Self::NoShell { .. } => {
                "name a program that is there: `rbuild shell BUILD STEP -- PROGRAM`; `rbuild layers` lists what an image holds"
                    .to_owned()
            }
            Self::Damaged { .. } => "build again: what is damaged is made anew".to_owned(),
            Self::Mount(error) => return error.help(),
            Self::Job { source, .. } => return source.help.clone(),
            _ => return None,
        })
    }
}

/// How a step's file system is looked at.
#[derive(Clone, Debug, Default)]
pub struct ShellOptions {
    /// A command in place of a shell.
    pub command: Vec<OsString>,
    /// In place of the step's user.
    pub user: Option<String>,
    /// On top of the step's variables.
    pub environment: Vec<(String, String)>,
    /// Where values are found of variables that are not kept: proxies, and what is called like a password.
    pub values: BTreeMap<String, String>,
    /// Secrets by id: their values are not kept.
    pub secrets: BTreeMap<String, SecretSource>,
    /// Agents and keys by id.
    pub ssh: BTreeMap<String, PathBuf>,
    /// A terminal of its own, carried to and from ours.
    pub has_terminal: bool,
}

/// A shell that is ready to be opened, and what it stands on.
struct Prepared {
    job: RunJob,
    network: Option<Arc<PrivateNetwork>>,
    held: Held,
}

/// What must stay while the shell is open; the lease, whose directory the others use, last.
type Held = (Vec<Forwarded>, Vec<CacheMountGuard>, Lease);

/// What is looked at.
struct Asked<'a> {
    build: String,
    step: StepId,
    note: StepNote,
    /// Number in the build of the step that it stood on, unless that is an image.
    below: Option<usize>,
    options: &'a ShellOptions,
    /// Hears what is not as it was.
    tell: &'a (dyn Fn(String) + Sync),
    cancel: &'a CancellationToken,
}

impl Engine {
    /// Opens a shell in what a step of a past build left, with the caller's standard streams; gives its exit code. `tell` hears
    /// what is not as the step's command had it.
    pub async fn shell(
        &self,
        build: &str,
        step: usize,
        options: &ShellOptions,
        tell: impl Fn(String) + Send + Sync + 'static,
        cancel: CancellationToken,
    ) -> Result<u8, ShellError> {
        let (engine, build, asked) = (self.clone(), build.to_owned(), options.clone());
        let token = cancel.clone();
        let prepared = blocking::run(move || {
            let (note, below) = note_of(&engine, &build, step)?;
            let asked = Asked {
                build,
                step: StepId(step),
                note,
                below,
                options: &asked,
                tell: &tell,
                cancel: &token,
            };
            let spelt = asked.note.spelt.clone();
            engine.prepare_shell(&asked).map(|ready| (ready, spelt))
        });
        let (prepared, spelt) = prepared.await?;
        let Prepared { job, network, held } = prepared;
        let program = job.argv.first().cloned().unwrap_or_default();
        let program = String::from_utf8_lossy(&program).into_owned();
        let kept = network.clone();
        let ended = attached::run(self, job, network, options.has_terminal, &cancel).await;
        // What it stands on is let go of only now.
        blocking::run(move || drop((held, kept))).await;
        ended.map_err(|error| match error {
            AttachedError::Streams(error) => ShellError::Streams(error),
            AttachedError::Job(source)
                if source.kind == JobErrorKind::CommandNotFound && options.command.is_empty() =>
            {
                ShellError::NoShell {
                    shell: program,
                    step: spelt,
                }
            }
            AttachedError::Job(source) => ShellError::Job {
                command: program,
                source,
            },
        })
    }

    /// Holds what is to be looked at, and makes a job of it. Blocks.
    fn prepare_shell(&self, asked: &Asked<'_>) -> Result<Prepared, ShellError> {
        self.rung()
            .map_err(|error| ShellError::Isolation(Box::new(error)))?;
        let lease = self.store().lease().map_err(store_failed)?;
        let id = crate::kept::id(&asked.build, asked.step);
        let mut open = match lease.hold_kept(&id)? {
            Some(kept) => reopen::reopen(self, &lease, &kept, asked)?,
            None => result::open(self, &lease, asked)?,
        };
        let options = asked.options;
        let job = &mut open.job;
        if !options.command.is_empty() {
            job.argv = (options.command.iter())
                .map(|word| word.clone().into_vec())
                .collect();
        } else if let Some(shell) = shell_of(&job.argv) {
            job.argv = vec![shell];
        } else {
            job.argv = vec![SHELL.into()];
        }
        if let Some(user) = &options.user {
            job.user = user.clone().into_bytes();
        }
        for (name, value) in &options.environment {
            set(&mut job.environment, name, value.as_bytes());
        }
        let has = |name: &[u8]| job.environment.iter().any(|(known, _)| known == name);
        if options.has_terminal && !has(b"TERM") {
            let ours = std::env::var("TERM").unwrap_or_else(|_| "xterm".to_owned());
            set(&mut job.environment, "TERM", ours.as_bytes());
        }
        job.makes_layer = false;
        let network = self.network_of_shell(job, &lease, open.leads_to_host, asked)?;
        Ok(Prepared {
            job: open.job,
            network,
            held: (open.agents, open.caches, lease),
        })
    }

    /// The private network, if the step had one. Where there can be none now, there is none. Blocks.
    fn network_of_shell(
        &self,
        job: &mut RunJob,
        lease: &Lease,
        leads_to_host: bool,
        asked: &Asked<'_>,
    ) -> Result<Option<Arc<PrivateNetwork>>, ShellError> {
        if job.network != Network::Private {
            return Ok(None);
        }
        let name = attached::name_of(lease).map_err(store_failed)?;
        match attached::open_network(self, &name, leads_to_host, &[]) {
            Ok(network) => Ok(Some(Arc::new(network))),
            Err(error) => {
                let help = error.help.clone().unwrap_or_default();
                (asked.tell)(format!(
                    "there is no network but a loopback: {error}; {help}"
                ));
                job.network = Network::None;
                Ok(None)
            }
        }
    }
}

/// A step's file system, and what is in it.
struct Open {
    job: RunJob,
    leads_to_host: bool,
    caches: Vec<CacheMountGuard>,
    agents: Vec<Forwarded>,
}

/// What the history has of a step, and the number of the one below.
fn note_of(
    engine: &Engine,
    build: &str,
    step: usize,
) -> Result<(StepNote, Option<usize>), ShellError> {
    let history = History::new(engine.store().clone());
    let mut detail = history.detail(build)?;
    if step >= detail.steps.len() {
        return Err(ShellError::Past(PastError::UnknownStep {
            build: build.to_owned(),
            text: (step + 1).to_string(),
        }));
    }
    let parent = detail.steps[step].needs.first().copied();
    let below =
        parent.filter(|parent| (detail.steps.get(*parent)).is_some_and(|step| !step.is_image));
    let note = detail.steps.swap_remove(step);
    Ok((note, below.map(|parent| parent + 1)))
}

impl Asked<'_> {
    /// The value of a variable that is not kept, where it is given; that it is not is told.
    fn value_of(&self, name: &str) -> Option<String> {
        let given = self.options.environment.iter().find(|(own, _)| own == name);
        let value = given
            .map(|(_, value)| value)
            .or_else(|| self.options.values.get(name));
        if value.is_none() {
            (self.tell)(format!(
                "the variable `{name}` is not set: its value is not kept; give it with `-e {name}=…`"
            ));
        }
        value.cloned()
    }
}

/// The shell of a step in shell form.
fn shell_of(argv: &[Vec<u8>]) -> Option<Vec<u8>> {
    let program = argv.first()?;
    let is_shell = argv.len() > 1 && program.ends_with(b"sh");
    is_shell.then(|| program.clone())
}

/// Sets a variable, in the place of one that is there.
fn set(environment: &mut Vec<(Vec<u8>, Vec<u8>)>, name: &str, value: &[u8]) {
    environment.retain(|(known, _)| known != name.as_bytes());
    environment.push((name.into(), value.into()));
}

/// Refuses what is damaged, and takes it out of the store.
fn verify<'a>(
    lease: &Lease,
    snapshots: impl Iterator<Item = &'a SnapshotId>,
    step: &str,
) -> Result<(), ShellError> {
    for snapshot in snapshots {
        lease.verify_snapshot(snapshot).map_err(|source| {
            if matches!(source, LayerError::Db(_)) {
                return store_failed(source);
            }
            ShellError::Damaged {
                step: step.to_owned(),
                source: Box::new(source),
            }
        })?;
    }
    Ok(())
}

fn store_failed(error: impl std::error::Error + Send + Sync + 'static) -> ShellError {
    ShellError::Store(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shell_is_that_of_the_step() {
        let argv = |words: &[&str]| -> Vec<Vec<u8>> {
            words.iter().map(|word| word.as_bytes().to_vec()).collect()
        };
        for (words, shell) in [
            (
                &["/bin/bash", "-o", "pipefail", "-c", "make"][..],
                Some("/bin/bash"),
            ),
            (&["/bin/sh", "-c", "make"], Some("/bin/sh")),
            (&["/busybox/ash", "-c", "true"], Some("/busybox/ash")),
            (&["/bin/install.sh"], None),
            (&["make", "all"], None),
            (&[], None),
        ] {
            let found = shell_of(&argv(words));
            assert_eq!(found.as_deref(), shell.map(str::as_bytes), "{words:?}");
        }
    }
}
