//! `rbuild run IMAGE [CMD]`: a look at what was built, in the sandbox of RUN steps; nothing is kept.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;

use rbuild_cache::{LayerError, Lease};
use rbuild_frontend::image_config::ImageConfig;
use rbuild_runner::job::{
    Access, Confinement, Limits, Network, OverlaySpec, ProvidedFile, RunJob, SandboxMount,
    SandboxMountKind,
};
use rbuild_runner::{JobError, PrivateNetwork};
use tokio_util::sync::CancellationToken;

use crate::attached::{self, AttachedError};
use crate::blocking;
use crate::build::{hosts, resolver};
use crate::engine::Engine;
use crate::error::BuildError;
use crate::images::{Images, ImagesError};

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
    /// There can be no private network.
    #[error(transparent)]
    Network(Box<JobError>),
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
            Self::Job { source, .. } => attached::exit_code_of(source),
            _ => 125,
        }
    }
}

/// Which network an image is run in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunNetwork {
    /// One of its own with a way out, but none to this machine.
    #[default]
    Private,
    /// This machine's.
    Host,
    /// Only a loopback.
    None,
}

/// A file or directory of this machine, seen inside.
#[derive(Clone, Debug)]
pub struct RunVolume {
    /// Absolute, without links.
    pub host: PathBuf,
    /// Absolute path inside.
    pub target: String,
    /// Not to be written.
    pub is_read_only: bool,
}

/// How an image is run.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// In place of the image's command.
    pub command: Vec<OsString>,
    /// In place of the image's entrypoint, and of its command.
    pub entrypoint: Option<String>,
    /// On top of the image's variables.
    pub environment: Vec<(String, String)>,
    /// Seen inside.
    pub volumes: Vec<RunVolume>,
    /// In place of the image's working directory.
    pub working_directory: Option<String>,
    /// In place of the image's user.
    pub user: Option<String>,
    /// Its network.
    pub network: RunNetwork,
    /// TCP ports of this machine that lead inside: here, and inside. Only into a private network.
    pub ports: Vec<(u16, u16)>,
    /// Lines for `/etc/hosts`: name and address.
    pub extra_hosts: Vec<(String, String)>,
    /// Limits.
    pub limits: Limits,
    /// A terminal of its own, carried to and from ours.
    pub has_terminal: bool,
}

impl Engine {
    /// Runs a command in an image with the caller's standard streams; gives its exit code.
    pub async fn run(
        &self,
        name: &str,
        options: &RunOptions,
        cancel: CancellationToken,
    ) -> Result<u8, RunError> {
        let (engine, image, asked) = (self.clone(), name.to_owned(), options.clone());
        let prepared = blocking::run(move || engine.prepare_run(&image, &asked)).await?;
        let (job, network, title) = (prepared.job, prepared.network, prepared.title);
        let ended = attached::run(self, job, network, options.has_terminal, &cancel).await;
        // What it ran on is let go of only now.
        let (lease, network) = (prepared.lease, prepared.kept);
        blocking::run(move || drop((lease, network))).await;
        ended.map_err(|error| match error {
            AttachedError::Streams(error) => RunError::Streams(error),
            AttachedError::Job(source) => RunError::Job {
                command: title,
                source,
            },
        })
    }

    /// Looks the image up and holds its layers. Blocks.
    fn prepare_run(&self, name: &str, options: &RunOptions) -> Result<Prepared, RunError> {
        let (record, config) = Images::new(self.store().clone()).find(name)?;
        self.rung()
            .map_err(|error| RunError::Isolation(Box::new(error)))?;
        let command = command(&config, options);
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
        let (network, resolv_conf) = self.network_of_run(options, &lease)?;
        let kind = match options.network {
            RunNetwork::Private if network.is_some() => Network::Private,
            RunNetwork::Host => Network::Host,
            RunNetwork::Private | RunNetwork::None => Network::None,
        };
        let job = job(&config, root, command, options, (kind, resolv_conf));
        Ok(Prepared {
            job,
            kept: network.clone(),
            network,
            title,
            lease,
        })
    }
}

impl Engine {
    /// The private network, if one was asked for and can be had, and `/etc/resolv.conf`. Blocks.
    fn network_of_run(
        &self,
        options: &RunOptions,
        lease: &Lease,
    ) -> Result<(Option<Arc<PrivateNetwork>>, Vec<u8>), RunError> {
        // A machine without a resolver still runs images: only names stay unknown.
        let host = std::fs::read("/etc/resolv.conf").unwrap_or_default();
        if options.network != RunNetwork::Private {
            return Ok((None, host));
        }
        let inside = resolver::inside(&host);
        let name = attached::name_of(lease).map_err(store_failed)?;
        let leads_to_host = hosts::lead_to_host(&options.extra_hosts);
        match attached::open_network(self, &name, leads_to_host, &options.ports) {
            Ok(network) => Ok((Some(Arc::new(network)), inside.text)),
            // Nothing can be led into what is not there.
            Err(error) if !options.ports.is_empty() => Err(RunError::Network(Box::new(error))),
            Err(error) => {
                let help = error.help.clone().unwrap_or_default();
                tracing::warn!("there is no network but a loopback: {error}; {help}");
                Ok((None, inside.text))
            }
        }
    }
}

/// A command that is ready to go, and what it stands on.
struct Prepared {
    job: RunJob,
    network: Option<Arc<PrivateNetwork>>,
    /// The same, until the command has ended.
    kept: Option<Arc<PrivateNetwork>>,
    /// The command, for messages.
    title: String,
    lease: Lease,
}

fn store_failed(error: impl std::error::Error + Send + Sync + 'static) -> RunError {
    RunError::Store(Box::new(error))
}

/// The image's entrypoint with the caller's command, or the image's when there is none. Another entrypoint takes the image's
/// command away too, as with docker.
fn command(config: &ImageConfig, options: &RunOptions) -> Vec<Vec<u8>> {
    let container = &config.config;
    let own = || options.command.iter().map(|word| word.clone().into_vec());
    let bytes = |words: &[String]| -> Vec<Vec<u8>> {
        words.iter().map(|word| word.clone().into_bytes()).collect()
    };
    let mut words = match &options.entrypoint {
        Some(program) if program.is_empty() => Vec::new(),
        Some(program) => vec![program.clone().into_bytes()],
        None => bytes(&container.entrypoint),
    };
    if options.command.is_empty() && options.entrypoint.is_none() {
        words.extend(bytes(&container.cmd));
    }
    words.extend(own());
    words
}

fn environment(config: &ImageConfig, options: &RunOptions) -> Vec<(Vec<u8>, Vec<u8>)> {
    let pair = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
    let is_replaced = |name: &str| options.environment.iter().any(|(other, _)| other == name);
    let mut variables: Vec<_> = config
        .config
        .variables()
        .filter(|(name, _)| !is_replaced(name))
        .map(|(name, value)| pair(name, value))
        .collect();
    variables.extend(
        options
            .environment
            .iter()
            .map(|(name, value)| pair(name, value)),
    );
    if options.has_terminal && !variables.iter().any(|(name, _)| name == b"TERM") {
        variables.push(pair("TERM", "xterm"));
    }
    variables
}

fn mount(volume: &RunVolume) -> SandboxMount {
    // A file is found in its directory.
    let (root, source) = match (
        volume.host.is_dir(),
        volume.host.parent(),
        volume.host.file_name(),
    ) {
        (false, Some(parent), Some(name)) => (parent.to_owned(), name.as_encoded_bytes().to_vec()),
        _ => (volume.host.clone(), Vec::new()),
    };
    SandboxMount {
        target: volume.target.clone().into_bytes(),
        kind: SandboxMountKind::Directory {
            root,
            source,
            access: if volume.is_read_only {
                Access::ReadOnly
            } else {
                Access::Shared
            },
        },
    }
}

fn job(
    config: &ImageConfig,
    root: OverlaySpec,
    argv: Vec<Vec<u8>>,
    options: &RunOptions,
    (network, resolv_conf): (Network, Vec<u8>),
) -> RunJob {
    const HOSTNAME: &str = "rbuild";
    let container = &config.config;
    let of_image = Some(&container.working_dir).filter(|directory| !directory.is_empty());
    let directory = options.working_directory.as_ref().or(of_image);
    let file = |target: &str, content: Vec<u8>| ProvidedFile {
        target: target.into(),
        content,
        mode: 0o644,
        uid: 0,
        gid: 0,
    };
    let hosts = hosts::text(HOSTNAME, &options.extra_hosts, network);
    RunJob {
        root,
        argv,
        environment: environment(config, options),
        working_directory: directory.map_or("/", String::as_str).into(),
        user: options
            .user
            .as_ref()
            .unwrap_or(&container.user)
            .clone()
            .into_bytes(),
        hostname: HOSTNAME.into(),
        files: vec![
            file("/etc/hosts", hosts),
            file("/etc/resolv.conf", resolv_conf),
        ],
        mounts: options.volumes.iter().map(mount).collect(),
        network,
        confinement: Confinement::Default,
        shm_size: SHM_SIZE,
        rlimits: Vec::new(),
        limits: options.limits.clone(),
        makes_layer: false,
    }
}
