//! What can go wrong in a build, as data; the terminal turns it into text.

use std::path::PathBuf;

use rbuild_frontend::diagnostic::Errors;
use rbuild_frontend::graph::{Graph, StepIndex};
use rbuild_frontend::source::{Lines, Source, Span};
use rbuild_runner::job::CommandStatus;
use rbuild_runner::{JobError, JobErrorKind};

use crate::context::ContextError;
use crate::download::DownloadError;
use crate::event::StepId;
use crate::export::ExportError;
use crate::git::GitError;
use crate::pull::PullError;
use crate::select::SelectError;
use crate::tree::TreeError;

type Boxed = Box<dyn std::error::Error + Send + Sync>;

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The Dockerfile can't be built: exit code 2 when it does not even parse.
    #[error("{errors}")]
    Dockerfile {
        /// What is wrong and where.
        errors: Errors,
        /// The text that they point into.
        source_text: Source,
    },
    /// A step failed.
    #[error("{}", .failure.title)]
    Step {
        /// Which step.
        failure: Box<StepFailure>,
        /// Why.
        #[source]
        source: StepError,
    },
    /// The context or Dockerfile can't be used.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// A base image can't be had.
    #[error("cannot use the image `{reference}`")]
    Image {
        /// Name as written.
        reference: String,
        /// Where the Dockerfile names it, and its text.
        place: Option<Box<(Span, Source)>>,
        /// The way out, where one is known.
        help: Option<String>,
        /// The cause.
        #[source]
        source: Boxed,
    },
    /// The isolation that was asked for, or any, can't be had.
    #[error("cannot build or run anything here")]
    Isolation(#[source] JobError),
    /// A tag is no valid image name.
    #[error("`{name}` is not a valid image name")]
    Name {
        /// As typed.
        name: String,
        /// The cause.
        #[source]
        source: Boxed,
    },
    /// The store failed.
    #[error("the store failed")]
    Store(#[source] Boxed),
    /// The disk that holds the store is full.
    #[error("no space left on the disk of the store `{root}`")]
    FullDisk {
        /// The store.
        root: PathBuf,
        /// What failed for it.
        #[source]
        source: Box<BuildError>,
    },
    /// The result could not be written.
    #[error("cannot write the output `{output}`")]
    Export {
        /// Which output.
        output: String,
        /// The cause.
        #[source]
        source: Boxed,
    },
    /// The image is larger than it may be: [`ImageBudget`](crate::options::ImageBudget).
    #[error("the image is over its budget: {}", .exceeded.join(", "))]
    OverBudget {
        /// What is too large: `size is 312.4 MB of 200.0 MB`.
        exceeded: Vec<String>,
        /// The heaviest layers that were made here, as text.
        heaviest: String,
    },
    /// A library user forgot to call [`crate::init`] first.
    #[error("`rbuild::init()` was not called at the start of the program")]
    NotInitialised,
    /// `SOURCE_DATE_EPOCH` is neither a number nor a name of anything.
    #[error("`SOURCE_DATE_EPOCH={text}` is no time, and nothing with a time has that name")]
    UnknownEpoch {
        /// As given.
        text: String,
    },
    /// What `SOURCE_DATE_EPOCH` names can't be asked for its time.
    #[error("cannot find out the time that `SOURCE_DATE_EPOCH={text}` means")]
    SourceDateEpoch {
        /// As given.
        text: String,
        /// The cause.
        #[source]
        source: Box<StepError>,
    },
    /// A build argument that steers the builder has a value that it can't follow.
    #[error("the build arg `{name}={value}` can't be followed: {reason}")]
    Argument {
        /// Which.
        name: &'static str,
        /// As given.
        value: String,
        /// Why.
        reason: &'static str,
    },
    /// Ctrl-C, or the caller cancelled.
    #[error("interrupted")]
    Interrupted,
    /// An option that this version can't honour.
    #[error("{what} is not supported yet")]
    Unsupported {
        /// What was asked for.
        what: String,
    },
}

/// Which step failed, and its place in the Dockerfile.
#[derive(Clone, Debug)]
pub struct StepFailure {
    /// `RUN make`
    pub title: String,
    /// Stage name or number.
    pub stage: String,
    /// Place.
    pub span: Span,
    /// Lines.
    pub lines: Lines,
    /// Position in the build's list of steps, for its log.
    pub step: usize,
    /// The way out, when it takes the whole Dockerfile to know it.
    pub help: Option<String>,
    /// The Dockerfile; set where the failure leaves the solver.
    pub source_text: Option<Source>,
}

/// Why one step failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// The command did not succeed.
    #[error("{}", describe(*.status))]
    Command {
        /// How it ended.
        status: CommandStatus,
        /// The way out, as far as its words and its program tell.
        advice: Option<String>,
    },
    /// A process of the command was killed because of `--memory`.
    #[error("{}, and a process of it was killed because the step may use {}{}", describe(*.status), allowed(*.limit), most(*.peak))]
    OutOfMemory {
        /// How the command ended.
        status: CommandStatus,
        /// `--memory`
        limit: Option<u64>,
        /// Most that was in use at a time, in bytes.
        peak: Option<u64>,
    },
    /// The build ended before the step did.
    #[error("cancelled")]
    Cancelled,
    /// The runner could not do it.
    #[error(transparent)]
    Job(JobError),
    /// Files were not found.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// The file is in the context but hidden.
    #[error(
        "`{path}` is not in the build context: {} leaves it out",
        .by.as_deref().unwrap_or("the ignore file")
    )]
    Ignored {
        /// Path as written.
        path: String,
        /// The pattern that does, and where it stands; none when it is a directory above that is left out.
        by: Option<String>,
    },
    /// A tree could not be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A context can't be used.
    #[error(transparent)]
    Context(ContextError),
    /// A URL could not be had.
    #[error(transparent)]
    Download(#[from] DownloadError),
    /// A git repository could not be had.
    #[error(transparent)]
    Git(#[from] GitError),
    /// A user or group is named where there is no file system to look it up in.
    #[error(
        "`{owner}` can't be looked up: the step starts from an empty root, without /etc/passwd and /etc/group"
    )]
    NobodyKnown {
        /// As given to `--chown` or `USER`.
        owner: String,
        /// It is `--link` that starts from an empty root.
        is_linked: bool,
    },
    /// The build lacks a permission that the step asks for.
    #[error("{what} is not allowed in this build")]
    NotAllowed {
        /// What was asked for.
        what: &'static str,
        /// What `--allow` would grant.
        entitlement: &'static str,
    },
    /// `--device`
    #[error("the step requires the device `{device}`, and a sandbox has no devices of the host")]
    Device {
        /// As written.
        device: String,
    },
    /// A required secret was not given.
    #[error("secret `{id}` is required but was not given")]
    SecretMissing {
        /// Which.
        id: String,
    },
    /// A secret's file can't be read.
    #[error("cannot read secret `{id}` from `{path}`")]
    SecretUnreadable {
        /// Which.
        id: String,
        /// Its file.
        path: std::path::PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A secret is larger than any real one.
    #[error("secret `{id}` is larger than {limit} bytes")]
    SecretTooLarge {
        /// Which.
        id: String,
        /// The limit.
        limit: u64,
    },
    /// A secret that goes into a header is no line of text.
    #[error("secret `{id}` can't be sent to a server: it is not one line of printable ASCII")]
    SecretNotText {
        /// Which.
        id: String,
    },
    /// A required ssh agent was not given.
    #[error("ssh agent `{id}` is required but was not given")]
    SshMissing {
        /// Which.
        id: String,
    },
    /// An ssh agent or key that was given can't be used.
    #[error("cannot forward the ssh agent `{id}`: {action}")]
    SshForward {
        /// Which.
        id: String,
        /// What went wrong.
        action: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A layer in the store does not hold what was recorded of it.
    #[error("a layer in the store is damaged: it does not hold what was recorded of it")]
    DamagedSnapshot,
    /// A layer in the store lacks files, or has others; it has been taken out of the store.
    #[error("the layer {diff_id} in the store is damaged")]
    Damaged {
        /// Which.
        diff_id: String,
        /// What is wrong with it.
        #[source]
        source: Boxed,
    },
    /// What a mount shows is not what the step's key was made of.
    #[error("a file of the build context changed while the build was reading it")]
    ContextChanged,
    /// The base image's layers can't be had.
    #[error("cannot get the image's layers")]
    Image(#[source] Boxed),
    /// A cache mount's directory can't be prepared.
    #[error("cannot prepare the cache mount `{path}`")]
    CacheMount {
        /// Its directory.
        path: std::path::PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A pipe could not be opened.
    #[error("cannot set up the command's output")]
    Pipe(#[source] rustix::io::Errno),
    /// This machine's `/dev/null`, the command's input, could not be opened.
    #[error("cannot open `/dev/null`")]
    NoNull(#[source] rustix::io::Errno),
    /// The store failed.
    #[error("the store failed")]
    Store(#[source] Boxed),
    /// rbuild broke its own rules; please report it.
    #[error("internal error: {0}")]
    Internal(&'static str),
}

fn describe(status: CommandStatus) -> String {
    match status {
        CommandStatus::Exited(code) => format!("the command exited with code {code}"),
        CommandStatus::Signaled(signal) => format!("the command was killed by signal {signal}"),
        CommandStatus::Cancelled => "the command was cancelled".to_owned(),
    }
}

fn allowed(bytes: Option<u64>) -> String {
    bytes.map_or_else(
        || "no more memory".to_owned(),
        |bytes| format!("{} MiB of memory", bytes >> 20),
    )
}

fn most(bytes: Option<u64>) -> String {
    bytes.map_or_else(String::new, |bytes| {
        format!(" (most in use at a time: {} MiB)", bytes >> 20)
    })
}

impl StepError {
    pub(crate) fn store(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Store(Box::new(error))
    }

    /// The way out, where one is known.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::NotAllowed { entitlement, .. } => {
                Some(format!("if you trust this Dockerfile, build with `--allow {entitlement}`"))
            }
            Self::SecretMissing { id } => {
                Some(format!("give it with `--secret id={id},src=FILE` or `--secret id={id},env=VARIABLE`"))
            }
            Self::SshMissing { id } => Some(format!("give it with `--ssh {id}=SOCKET`, or `--ssh {id}=KEYFILE`")),
            Self::Ignored { path, .. } => Some(format!(
                "add a line `!{}` to the ignore file, or copy something else",
                path.trim_start_matches('/')
            )),
            Self::NobodyKnown { is_linked: true, .. } => {
                Some("give numbers such as `--chown=1000:1000`, or leave out `--link`".to_owned())
            }
            Self::NobodyKnown { .. } => Some("give numbers such as `1000:1000`".to_owned()),
            Self::Select(SelectError::NotFound { leads_out: true, .. }) => Some(
                "nothing outside of the build context can be copied: give its directory a name with `--build-context lib=../lib`, and take it with `COPY --from=lib`"
                    .to_owned(),
            ),
            Self::Select(SelectError::NotFound { nearby: Some(nearby), .. }) => Some(format!("did you mean `{nearby}`?")),
            Self::Select(SelectError::NotFound { .. }) => {
                Some("paths are relative to the root of what is copied from; nothing outside it can be used".to_owned())
            }
            Self::NoNull(_) => Some(
                "a step has its devices from the /dev of the machine that rbuild runs on: in a bare root, bind one there".to_owned(),
            ),
            Self::OutOfMemory { .. } => {
                Some("give the steps more with `--memory`, or have this one do less at a time, such as `make -j2`".to_owned())
            }
            Self::Command { advice: Some(advice), .. } => Some(advice.clone()),
            Self::Command { status: CommandStatus::Exited(127), .. } => {
                Some("code 127 usually means that the shell did not find the command in this image".to_owned())
            }
            Self::Command { status: CommandStatus::Signaled(9), .. } => {
                Some("signal 9 often means that the machine ran out of memory".to_owned())
            }
            Self::Command { status: CommandStatus::Exited(code @ 129..=159), .. } => Some(format!(
                "code {code} is 128 and {0}: a process in it was killed by signal {0}{1}",
                code - 128,
                match code - 128 {
                    9 => ", often because the machine ran out of memory",
                    11 => ", an invalid memory access (a fault of the program, or of its emulation)",
                    _ => "",
                }
            )),
            Self::Damaged { .. } => {
                Some("it has been taken out of the store: build again, and it is made or pulled anew".to_owned())
            }
            Self::DamagedSnapshot => Some("build again with `--no-cache`: that makes the layer anew".to_owned()),
            Self::ContextChanged => Some("build again once nothing writes to the context any more".to_owned()),
            Self::Job(error) if error.kind == JobErrorKind::CommandNotFound => Some(
                "nothing in the image has that path; `FROM scratch` begins with nothing at all, not even `/bin/sh`".to_owned(),
            ),
            Self::Job(error) if error.kind == JobErrorKind::CommandFormat && error.help.is_none() => Some(format!(
                "this machine is {}: a program for another one does not run here; build it in a stage `FROM --platform=$BUILDPLATFORM …`",
                crate::build::this_machine()
            )),
            Self::Job(error) if error.kind == JobErrorKind::NoSpace && error.help.is_none() => {
                Some("the store's disk is full: free some space, or put the store elsewhere with `--root`".to_owned())
            }
            Self::Job(error) => error.help.clone(),
            Self::Git(error) => error.help(),
            Self::Context(error) => error.help(),
            Self::Download(error) => error.help(),
            Self::Image(error) => error.downcast_ref::<PullError>().and_then(PullError::help),
            Self::SecretUnreadable { id, .. } => {
                Some(format!("name a file that is there with `--secret id={id},src=FILE`"))
            }
            _ => None,
        }
    }
}

impl BuildError {
    pub(crate) fn step(graph: &Graph, index: StepIndex, source: StepError) -> Self {
        let step = &graph.steps[index.0];
        let stage = step
            .stage_name
            .clone()
            .unwrap_or_else(|| step.stage.0.to_string());
        let failure = StepFailure {
            title: step.title.clone(),
            stage,
            span: step.span,
            lines: step.lines,
            step: index.0,
            help: None,
            source_text: None,
        };
        Self::Step {
            failure: Box::new(failure),
            source,
        }
    }

    /// The step that failed, when one did.
    pub fn failed_step(&self) -> Option<StepId> {
        match self {
            Self::Step { failure, .. } => Some(StepId(failure.step)),
            Self::FullDisk { source, .. } => source.failed_step(),
            _ => None,
        }
    }

    pub(crate) fn store(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Store(Box::new(error))
    }

    /// The same, knowing the Dockerfile that a step's place points into.
    pub(crate) fn with_source(self, text: &Source) -> Self {
        match self {
            Self::Step {
                mut failure,
                source,
            } => {
                failure.source_text = Some(text.clone());
                Self::Step { failure, source }
            }
            other => other,
        }
    }

    /// The process exit code that the design gives to this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Dockerfile { errors, .. }
                if errors.first().phase != rbuild_frontend::diagnostic::Phase::Plan =>
            {
                2
            }
            Self::UnknownEpoch { .. } => 2,
            Self::Interrupted => 130,
            Self::FullDisk { source, .. } => source.exit_code(),
            _ => 1,
        }
    }

    /// The way out, where one is known.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Dockerfile { errors, .. } => errors.first().help.clone(),
            Self::Step { failure, source } => failure.help.clone().or_else(|| source.help()),
            Self::Image { help, .. } => help.clone(),
            Self::FullDisk { root, .. } => Some(format!(
                "the disk of the store `{}` is full: free some space, or put the store elsewhere with `--root`",
                root.display()
            )),
            Self::Export { source, .. } => source.downcast_ref::<ExportError>().and_then(ExportError::help),
            Self::Isolation(error) => error.help.clone(),
            Self::OverBudget { heaviest, .. } => Some(format!(
                "the heaviest layers made here: {heaviest}; without `--budget` the image is kept, and `rbuild layers` shows what is in it"
            )),
            Self::Context(error) => error.help(),
            Self::SourceDateEpoch { source, .. } => source.help(),
            Self::UnknownEpoch { .. } => Some(
                "give seconds since 1970, `context`, the name of a build context, or that of a stage with one ADD of a URL or git repository"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}
