//! What a build is asked to do: what was meant, not what was typed. The CLI converts its flags into these once.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rbuild_frontend::graph::Network;
use rbuild_frontend::platform::Platform;
use rbuild_frontend::reference::Reference;
use rbuild_runner::job::Limits;

use crate::registry::RegistrySettings;

/// Stands for the address of this machine in [`BuildOptions::extra_hosts`]. Only with it may a step in a private network reach
/// what listens here.
pub const HOST_GATEWAY: &str = "host-gateway";

/// Everything one build is told.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// The main build context.
    pub context: ContextSource,
    /// `--context-subdir`: the directory of an archive or repository that is the context.
    pub context_subdirectory: Option<String>,
    /// `-f`; none looks for `Dockerfile`, `dockerfile`, then `Containerfile` in the context.
    pub dockerfile: Option<DockerfileSource>,
    /// `-t`, as typed.
    pub tags: Vec<String>,
    /// `--target`
    pub target: Option<String>,
    /// `--platform`; empty when none was given.
    pub platforms: Vec<Platform>,
    /// `--build-arg`, with values resolved from the environment where only a name was given.
    pub build_args: BTreeMap<String, String>,
    /// `--label`
    pub labels: Vec<(String, String)>,
    /// `--annotation`
    pub annotations: Vec<(String, String)>,
    /// `--build-context`, spec as typed.
    pub named_contexts: BTreeMap<String, String>,
    /// `--secret`
    pub secrets: BTreeMap<String, SecretSource>,
    /// `--ssh`: id and socket or key path. Git uses `default`.
    pub ssh: BTreeMap<String, PathBuf>,
    /// `--no-cache`
    pub ignores_cache: bool,
    /// `--no-cache-filter`
    pub ignores_cache_of: Vec<String>,
    /// `--cache-from`, tried in order.
    pub cache_from: Vec<CacheSource>,
    /// `--cache-to`
    pub cache_to: Vec<CacheTarget>,
    /// `--pull`
    pub pull: PullPolicy,
    /// Credentials, mirrors and certificates: `--authfile`, `--creds`, `--tls-verify`, `--cert-dir` above the
    /// machine's files.
    pub registries: RegistrySettings,
    /// `--network`
    pub network: Network,
    /// `--add-host`: name and address, or [`HOST_GATEWAY`].
    pub extra_hosts: Vec<(String, String)>,
    /// `--shm-size` in bytes.
    pub shm_size: Option<u64>,
    /// `--ulimit`: name, soft, hard.
    pub ulimits: Vec<(String, u64, u64)>,
    /// `--memory` and its like, for each step by itself.
    pub limits: Limits,
    /// `--allow`
    pub entitlements: Vec<Entitlement>,
    /// `--output`; empty keeps the image in the local store only.
    pub outputs: Vec<Output>,
    /// `--output type=cacheonly`: where there is no other output, no image is kept either. Steps are done and recorded.
    pub is_cache_only: bool,
    /// `--no-stat-cache`: hash every context file.
    pub no_stat_cache: bool,
    /// `SOURCE_DATE_EPOCH`, seconds. The build arg of that name goes first, and may also be `context`, a named context or
    /// a stage.
    pub source_date_epoch: Option<i64>,
    /// `--budget`: an image that is larger is not exported, and the build fails.
    pub budget: ImageBudget,
    /// Steps that may run at once; none is the number of CPUs.
    pub max_parallelism: Option<usize>,
    /// What becomes of what a failed `RUN` step leaves.
    pub failed_steps: FailedSteps,
}

/// What becomes of what a failed `RUN` step leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailedSteps {
    /// It is thrown away.
    #[default]
    Discarded,
    /// It is kept in the store for some time, to be looked at with [`Engine::shell`](crate::Engine::shell).
    Kept,
}

impl BuildOptions {
    /// Whether anything is made of the steps' results.
    pub(crate) fn wants_image(&self) -> bool {
        !self.is_cache_only || !self.outputs.is_empty()
    }
}

/// What an image may weigh. Sizes are bytes of uncompressed layer tars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageBudget {
    /// `size=`: all layers.
    pub size: Option<u64>,
    /// `added=`: the layers above the base image's.
    pub added: Option<u64>,
    /// `layers=`: their number.
    pub layers: Option<u64>,
}

/// A cache that results are looked up in: `--cache-from`.
#[derive(Clone, Debug)]
pub struct CacheSource {
    /// As typed, for messages.
    pub text: String,
    /// Where it is.
    pub kind: CacheKind,
}

/// A cache that results are kept in: `--cache-to`.
#[derive(Clone, Debug)]
pub struct CacheTarget {
    /// As typed, for messages.
    pub text: String,
    /// Where it is.
    pub kind: CacheKind,
    /// `mode=`
    pub mode: CacheMode,
    /// `compression=` of layers made here.
    pub compression: OutputCompression,
    /// `compression-level=`
    pub compression_level: Option<i32>,
}

/// `type=` of a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheKind {
    /// `type=local`: a directory.
    Directory(PathBuf),
    /// `type=registry`: below a tag of a registry.
    Registry(Reference),
    /// `type=inline`: below the names that the image is pushed to.
    Inline,
    /// A type that this version does not have: told of, and left out.
    Unknown(String),
}

/// `mode=` of a cache that results are kept in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheMode {
    /// Steps whose layers are the image's.
    #[default]
    Min,
    /// All steps.
    Max,
}

/// Where the main context comes from.
#[derive(Clone, Debug)]
pub enum ContextSource {
    /// A directory on this machine.
    Directory(PathBuf),
    /// A tar archive, compressed or not, or a lone Dockerfile, read from stdin.
    Stdin,
    /// A git repository, or the http(s) address of a tar archive or of a lone Dockerfile.
    Url(String),
}

impl Default for ContextSource {
    fn default() -> Self {
        Self::Directory(PathBuf::from("."))
    }
}

/// Where the Dockerfile comes from.
#[derive(Clone, Debug)]
pub enum DockerfileSource {
    /// A path, relative to the working directory if it exists there, else to the context. With a context that is
    /// fetched, a relative path is one in the context.
    Path(PathBuf),
    /// An http(s) address.
    Url(String),
    /// `-f -`
    Stdin,
    /// The text itself (library users).
    Text(String),
}

/// Where a secret's value is.
#[derive(Clone, Debug)]
pub enum SecretSource {
    /// In a file.
    File(PathBuf),
    /// In an environment variable.
    Environment(String),
}

/// When base images are looked up in their registry again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// Only when the store does not have them.
    #[default]
    Missing,
    /// Always. Where the registry answers that there were too many requests, what it answered before serves.
    Always,
    /// Always, or it is an error: an image that was asked for itself.
    Newest,
    /// Never.
    Never,
}

/// What a build may do beyond the default sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entitlement {
    /// `network.host`
    NetworkHost,
    /// `security.insecure`
    SecurityInsecure,
}

/// One `--output`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// What is written.
    pub kind: OutputKind,
    /// Where to; none is stdout where that makes sense.
    pub destination: Option<PathBuf>,
    /// `rewrite-timestamp=true`
    pub rewrites_timestamps: bool,
    /// `compression=`
    pub compression: OutputCompression,
    /// `compression-level=`
    pub compression_level: Option<i32>,
    /// `force-compression=true`: layers of the base are compressed in the same way.
    pub forces_compression: bool,
    /// `oci-mediatypes=`
    pub media_types: MediaTypes,
    /// `push=true`, `type=registry` or `--push`: the image goes to the registries of its names, too.
    pub pushes: bool,
    /// `annotation.K=V`
    pub annotations: Vec<(String, String)>,
    /// `name=`: image names, as typed.
    pub names: Vec<String>,
    /// The engine of [`OutputKind::Engine`]; none is the first that is installed.
    pub engine: Option<LocalEngine>,
}

impl Output {
    /// An output of this kind with nothing else said.
    pub fn of_kind(kind: OutputKind) -> Self {
        Self {
            kind,
            destination: None,
            rewrites_timestamps: false,
            compression: OutputCompression::default(),
            compression_level: None,
            forces_compression: false,
            media_types: MediaTypes::Oci,
            pushes: false,
            annotations: Vec::new(),
            names: Vec::new(),
            engine: None,
        }
    }
}

/// `type=` of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputKind {
    /// An OCI layout in a tar archive.
    Oci,
    /// An OCI layout as a directory (`type=oci,tar=false`).
    OciDirectory,
    /// What `docker save` writes, with the files of an OCI layout in it.
    Docker,
    /// The same as a directory (`type=docker,tar=false`).
    DockerDirectory,
    /// A tag in the local store.
    Image,
    /// The root file system as a directory.
    Local,
    /// The root file system as a tar archive.
    Tar,
    /// An image of an engine of this machine: `--load`, `type=docker` without `dest`.
    Engine,
}

impl OutputKind {
    /// Whether it writes files, or to standard output; others give the image to who keeps images.
    pub fn writes_out(self) -> bool {
        !matches!(self, Self::Image | Self::Engine)
    }
}

/// Who else keeps images on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalEngine {
    /// podman, and what shares its storage.
    Podman,
    /// docker
    Docker,
    /// containerd, through `ctr`.
    Containerd,
}

/// Whose media types documents and layers get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MediaTypes {
    /// OCI's.
    #[default]
    Oci,
    /// Docker's, of schema 2.
    Docker,
}

/// `compression=` of an output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputCompression {
    /// gzip
    #[default]
    Gzip,
    /// zstd
    Zstd,
    /// none
    Uncompressed,
}
