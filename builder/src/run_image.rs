//! `rbuild run IMAGE [CMD]`: a look at what was built, in the sandbox of RUN steps; nothing is kept.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use rbuild_cache::{LayerError, Lease};
use rbuild_frontend::image_config::ImageConfig;
use rbuild_runner::job::{
    CommandStatus, Confinement, Limits, Network, OverlaySpec, ProvidedFile, RunJob,
};
use rbuild_runner::{JobError, JobErrorKind, Stdio};
use tokio_util::sync::CancellationToken;

use crate::blocking;
use crate::engine::Engine;
use crate::error::BuildError;
use crate::images::{Images, ImagesError};

/// Exit codes of a shell for a command killed by a signal start here.
const SIGNAL_BASE: i32 = 128;

/// Size of `/dev/shm`: Docker's default.
const SHM_SIZE: u64 = 64 << 20;

/// Why an image could not be run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The image is not there or can't be read.
    #[error(transparent)]
    Image(#[from] ImagesError),
    /// Neither the image nor the caller names a command.
    #[error("no command to run: the image `{image}` has neither an entrypoint nor a command")]
    NoCommand {
        /// As named.
        image: String,
    },
    /// The isolation that was asked for can't be had.
    #[error(transparent)]
    Isolation(Box<BuildError>),
    /// A layer of it is damaged, and was taken out of the store.
    #[error("the image `{image}` is damaged: build or pull it again")]
    Damaged {
        /// As named.
        image: String,
        /// How.
        #[source]
        source: Box<LayerError>,
    },
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
}

impl RunError {
    /// 125 for ours, 126 for a command that can't be executed, 127 for one that is not there.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Job { source, .. } if source.kind == JobErrorKind::CommandNotFound => 127,
            Self::Job { source, .. }
                if matches!(
                    source.kind,
                    JobErrorKind::CommandPermissionDenied | JobErrorKind::CommandFormat
                ) =>
            {
                126
            }
            _ => 125,
        }
    }
}

impl Engine {
    /// Runs a command in an image with the caller's standard streams; gives its exit code.
    pub async fn run(
        &self,
        name: &str,
        argv: &[OsString],
        cancel: CancellationToken,
    ) -> Result<u8, RunError> {
        let (engine, image, argv) = (self.clone(), name.to_owned(), argv.to_vec());
        let prepared = blocking::run(move || engine.prepare_run(&image, &argv)).await?;
        let (job, stdio, title) = (prepared.job, prepared.stdio, prepared.title);
        let spawner = self.spawner().clone();
        let outcome = blocking::job_until(&cancel, move || spawner.run(job, stdio))
            .await
            .map_err(|source| RunError::Job {
                command: title,
                source,
            })?;
        // What it ran on is let go of only now.
        let lease = prepared.lease;
        blocking::run(move || drop(lease)).await;
        let code = match outcome.status {
            CommandStatus::Exited(code) => code,
            CommandStatus::Signaled(signal) => SIGNAL_BASE + signal,
            CommandStatus::Cancelled => 130,
        };
        Ok(u8::try_from(code).unwrap_or(u8::MAX))
    }

    /// Looks the image up and holds its layers. Blocks.
    fn prepare_run(&self, name: &str, argv: &[OsString]) -> Result<Prepared, RunError> {
        let (record, config) = Images::new(self.store().clone()).find(name)?;
        self.rung()
            .map_err(|error| RunError::Isolation(Box::new(error)))?;
        let command = command(&config, argv);
        let Some(first) = command.first() else {
            return Err(RunError::NoCommand {
                image: name.to_owned(),
            });
        };
        let title = String::from_utf8_lossy(first).into_owned();
        let lease = self.store().lease().map_err(store_failed)?;
        lease.hold(&record.chain).map_err(store_failed)?;
        for layer in record.chain.layers() {
            lease.verify_snapshot(&layer.snapshot).map_err(|source| {
                if matches!(source, LayerError::Db(_)) {
                    return store_failed(source);
                }
                RunError::Damaged {
                    image: name.to_owned(),
                    source: Box::new(source),
                }
            })?;
        }
        let scratch = lease.scratch("run").map_err(store_failed)?;
        let root = OverlaySpec {
            lowers: record.chain.snapshot_paths(self.store()),
            scratch,
        };
        Ok(Prepared {
            job: job(&config, root, command),
            stdio: own_streams().map_err(RunError::Streams)?,
            title,
            lease,
        })
    }
}

/// A command that is ready to go, and what it stands on.
struct Prepared {
    job: RunJob,
    stdio: Stdio,
    /// The command, for messages.
    title: String,
    lease: Lease,
}

fn store_failed(error: impl std::error::Error + Send + Sync + 'static) -> RunError {
    RunError::Store(Box::new(error))
}

/// The image's entrypoint with the caller's command, or the image's when there is none.
fn command(config: &ImageConfig, argv: &[OsString]) -> Vec<Vec<u8>> {
    let container = &config.config;
    let own: Vec<Vec<u8>> = argv.iter().map(|word| word.clone().into_vec()).collect();
    let entrypoint = container
        .entrypoint
        .iter()
        .map(|word| word.clone().into_bytes());
    let default = container.cmd.iter().map(|word| word.clone().into_bytes());
    if own.is_empty() {
        entrypoint.chain(default).collect()
    } else {
        entrypoint.chain(own).collect()
    }
}

fn job(config: &ImageConfig, root: OverlaySpec, argv: Vec<Vec<u8>>) -> RunJob {
    const HOSTNAME: &str = "rbuild";
    let container = &config.config;
    let directory = if container.working_dir.is_empty() {
        "/"
    } else {
        &container.working_dir
    };
    let file = |target: &str, content: Vec<u8>| ProvidedFile {
        target: target.into(),
        content,
        mode: 0o644,
        uid: 0,
        gid: 0,
    };
    RunJob {
        root,
        argv,
        environment: config
            .config
            .variables()
            .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
            .collect(),
        working_directory: directory.into(),
        user: container.user.clone().into_bytes(),
        hostname: HOSTNAME.into(),
        files: vec![
            file(
                "/etc/hosts",
                format!("127.0.0.1\tlocalhost {HOSTNAME}\n::1\tlocalhost\n").into_bytes(),
            ),
            // A machine without a resolver still runs images: only names stay unknown.
            file(
                "/etc/resolv.conf",
                std::fs::read("/etc/resolv.conf").unwrap_or_default(),
            ),
        ],
        mounts: Vec::new(),
        network: Network::Host,
        confinement: Confinement::Default,
        shm_size: SHM_SIZE,
        rlimits: Vec::new(),
        limits: Limits::default(),
        makes_layer: false,
    }
}

fn own_streams() -> std::io::Result<Stdio> {
    let copy =
        |fd: std::os::fd::BorrowedFd<'_>| -> std::io::Result<OwnedFd> { fd.try_clone_to_owned() };
    Ok(Stdio {
        stdin: copy(std::io::stdin().as_fd())?,
        stdout: copy(std::io::stdout().as_fd())?,
        stderr: copy(std::io::stderr().as_fd())?,
    })
}
