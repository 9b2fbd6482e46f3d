//! The plan of a build: a graph of steps and the image config that the instructions make.
//!
//! Pure data, made by [`crate::plan()`]. Steps stand in topological order: whatever a step needs has a smaller
//! index. Paths are absolute inside the image unless said otherwise, `/`-separated.

use std::collections::BTreeMap;

use crate::diagnostic::Diagnostic;
use crate::image_config::{HistoryEntry, ImageConfig};
use crate::platform::Platform;
use crate::source::{Lines, Span};

/// Index of a step in [`Graph::steps`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StepIndex(pub usize);

/// Index of a stage in file order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StageIndex(pub usize);

/// The plan for one target and one platform.
#[derive(Clone, Debug)]
pub struct Graph {
    /// Only what the target needs; parents before children.
    pub steps: Vec<Step>,
    /// The step whose root file system is the image's; none for `FROM scratch` without a layer.
    pub target: Option<StepIndex>,
    /// The image's config, without `rootfs.diff_ids`, `created` and `history`: those are known after the build.
    pub image: ImageConfig,
    /// History of the whole image, the base's entries first.
    pub history: Vec<PlannedHistory>,
    /// Platform that the image is for.
    pub platform: Platform,
    /// The build arguments that it can be given, in file order.
    pub arguments: Vec<BuildArgument>,
    /// Build checks that fired, text-level ones included.
    pub warnings: Vec<Diagnostic>,
}

/// One line of the image's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlannedHistory {
    /// Taken over from the base unchanged.
    Inherited(HistoryEntry),
    /// Made by an instruction; with `step`, its layer is that step's.
    New {
        /// Entry without `created`.
        entry: HistoryEntry,
        /// The step that makes the layer; none for an entry with `empty_layer`.
        step: Option<StepIndex>,
    },
}

/// One node of the graph.
#[derive(Clone, Debug)]
pub struct Step {
    /// The stage it belongs to; for an image used by `--from` or a mount, the stage that uses it first.
    pub stage: StageIndex,
    /// That stage's name, if it has one.
    pub stage_name: Option<String>,
    /// Position in the stage for display, counted from 1 (`[build 2/5]`).
    pub number: usize,
    /// Steps of the stage for display.
    pub of: usize,
    /// The step whose root file system this one starts from; none starts from an empty root.
    pub parent: Option<StepIndex>,
    /// What to do.
    pub operation: Operation,
    /// The instruction for people, variables expanded where that helps.
    pub title: String,
    /// Where it stands in the Dockerfile.
    pub span: Span,
    /// Its lines.
    pub lines: Lines,
    /// Platform of the stage.
    pub platform: Platform,
    /// `--no-cache` or `--no-cache-filter` applies: run it even if a record exists.
    pub ignores_cache: bool,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Takes an image's layers.
    Image(ImageReference),
    /// Runs a command.
    Run(Box<Run>),
    /// Copies files in.
    Copy(Box<Copy>),
    /// Makes the working directory: missing parents 0755, owned by `owner`; existing ones stay as they are.
    Workdir {
        /// Cleaned absolute path.
        path: String,
        /// Current `USER` as written, looked up in the image; empty is root.
        owner: String,
    },
}

/// An image that a build starts from or copies from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ImageReference {
    /// A name as the user wrote it after expansion (`debian:12`, `localhost:5000/a@sha256:…`), parsed and known
    /// to be valid. The builder looks in the local store and in registries.
    Name(String),
    /// `oci-layout://PATH[:TAG][@DIGEST]`: a directory or an archive on this machine.
    Layout {
        /// Path as given.
        path: String,
        /// Tag; `latest` when neither tag nor digest was given.
        tag: Option<String>,
        /// Digest of a manifest or index.
        digest: Option<String>,
    },
}

/// Where files are read from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The root file system that a step leaves.
    Step(StepIndex),
    /// The main build context, with its ignore file.
    Context,
    /// A named context that is a directory, git repository or URL, as the builder was given it.
    NamedContext(String),
    /// An empty root: `scratch`.
    Empty,
}

/// A `RUN` step. Everything in it but `proxy_environment`, cache ids and secret values is part of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Command with the shell prefix already in front.
    pub argv: Vec<String>,
    /// Files put on a read-only tmpfs at `/dev/pipes`, mode 0755: a `RUN <<EOF` whose body starts with `#!`.
    pub scripts: Vec<InlineFile>,
    /// Environment in order, names unique. Build args with a value are in it; PATH always is.
    pub environment: Vec<(String, String)>,
    /// Proxy variables: given to the command unless `environment` has the name; never part of the key.
    pub proxy_environment: Vec<(String, String)>,
    /// Working directory, created 0755 when missing.
    pub working_directory: String,
    /// `USER` text; empty is root.
    pub user: String,
    /// `--network`, or the build's.
    pub network: Network,
    /// `--security`
    pub security: Security,
    /// Sorted by target.
    pub mounts: Vec<Mount>,
    /// Host name inside, normally `buildkitsandbox`.
    pub hostname: String,
    /// `--device`
    pub devices: Vec<Device>,
}

/// A device that a `RUN` step asks for by its name in the Container Device Interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// `vendor.example/class=name`
    pub name: String,
    /// True: the step can't do without it.
    pub is_required: bool,
}

/// Which network a `RUN` step sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Network {
    /// The builder's default.
    #[default]
    Default,
    /// Loopback only.
    None,
    /// The host's, which needs `--allow network.host`.
    Host,
}

/// How tightly a `RUN` step is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Security {
    /// The default sandbox.
    #[default]
    Sandbox,
    /// All capabilities and devices, which needs `--allow security.insecure`.
    Insecure,
}

/// A file whose content stands in the Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InlineFile {
    /// File name without a directory.
    pub name: String,
    /// Content.
    pub content: String,
}

/// One `RUN --mount`, expanded and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Absolute path inside; for a secret that is only an environment variable, empty.
    pub target: String,
    /// What is mounted.
    pub kind: MountKind,
}

/// The types of `RUN --mount`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// Files from elsewhere; writes are visible to the command and thrown away.
    Bind {
        /// Where from.
        from: Input,
        /// Path in it, absolute.
        source: String,
        /// False with `rw`.
        is_read_only: bool,
    },
    /// A directory that stays across builds.
    Cache {
        /// Identity: the namespace prefix and the id.
        id: String,
        /// How concurrent use is handled.
        sharing: Sharing,
        /// Mounted read-only.
        is_read_only: bool,
        /// Initial content, and the path in it.
        from: Input,
        /// Path in `from`, absolute.
        source: String,
        /// Owner of a fresh directory.
        uid: u32,
        /// Group of a fresh directory.
        gid: u32,
        /// Mode of a fresh directory.
        mode: u32,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// Limit in bytes; none is unlimited.
        size: Option<u64>,
        /// Mounted read-only.
        is_read_only: bool,
    },
    /// A secret's value, as a file, a variable or both.
    Secret {
        /// Which secret.
        id: String,
        /// Environment variable to set.
        environment: Option<String>,
        /// True: the build fails when the secret was not given.
        is_required: bool,
        /// Owner of the file.
        uid: u32,
        /// Group of the file.
        gid: u32,
        /// Mode of the file.
        mode: u32,
    },
    /// A socket of an ssh agent.
    Ssh {
        /// Which agent.
        id: String,
        /// True: the build fails when the agent was not given.
        is_required: bool,
        /// Owner of the socket.
        uid: u32,
        /// Group of the socket.
        gid: u32,
        /// Mode of the socket.
        mode: u32,
    },
}

/// `sharing=` of a cache mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Sharing {
    /// Used by several at once.
    #[default]
    Shared,
    /// A new one if the existing one is busy.
    Private,
    /// The second waits.
    Locked,
}

/// A `COPY` or `ADD` step; also the content of a directory used as a base (`FROM named-context`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// `COPY` or `ADD`: for messages; the differences are in the fields.
    pub instruction: &'static str,
    /// Where [`CopySource::Path`] sources are resolved.
    pub from: Input,
    /// In order of application.
    pub sources: Vec<CopySource>,
    /// Absolute; a trailing `/` means "a directory".
    pub destination: String,
    /// `--chown user[:group]`, expanded; none keeps the source's owner (root for a context).
    pub owner: Option<String>,
    /// `--chmod`, parsed.
    pub mode: Option<crate::chmod::ModeChange>,
    /// `--link` in effect: made on an empty root and stacked on top.
    pub is_linked: bool,
    /// `--parents`
    pub keeps_parents: bool,
    /// `--exclude` patterns.
    pub exclude: Vec<String>,
    /// Whether archives are unpacked.
    pub unpack: Unpack,
}

/// Whether a source archive is unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unpack {
    /// `COPY`, and `ADD --unpack=false`.
    Never,
    /// `ADD`: local archives only.
    Local,
    /// `ADD --unpack=true`: URLs too.
    Always,
}

/// One source of a [`struct@Copy`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopySource {
    /// A path or wildcard in [`Copy::from`], as expanded.
    Path(String),
    /// An inline file, mode 0644.
    Inline(InlineFile),
    /// `ADD http(s)://…`
    Url {
        /// The address.
        url: String,
        /// Expected digest (`sha256:…`).
        checksum: Option<String>,
    },
    /// `ADD` of a git repository.
    Git {
        /// The reference as expanded.
        reference: String,
        /// Expected commit.
        checksum: Option<String>,
        /// Keep `.git`; none when the flag was not given.
        keep_git_dir: Option<bool>,
    },
}

/// A build argument that the target can be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildArgument {
    /// Its name.
    pub name: String,
    /// Its value in this build; none if it has none.
    pub value: Option<String>,
    /// The comment above its ARG, if that begins with its name; without the name.
    pub description: Option<String>,
    /// The lines of its ARG.
    pub lines: Lines,
}

/// What a named context (`--build-context name=spec`) is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedContext {
    /// `docker-image://…` or `oci-layout://…`.
    Image(ImageReference),
    /// `docker-image://scratch`
    Scratch,
    /// A directory, git repository or URL that the builder reads by the context's name.
    Files,
}

/// What the planner is told from outside.
#[derive(Clone, Debug, Default)]
pub struct PlanOptions {
    /// `--target`; none is the last stage.
    pub target: Option<String>,
    /// `--build-arg`, values as given.
    pub build_args: BTreeMap<String, String>,
    /// Seconds that [`crate::plan::source_date_epoch`] turned out to mean; none where it means no time.
    pub source_date_epoch: Option<i64>,
    /// Platform of this machine.
    pub build_platform: Platform,
    /// The platform asked for with `--platform`; none when the user gave none.
    pub target_platform: Option<Platform>,
    /// `--label`, applied last.
    pub labels: Vec<(String, String)>,
    /// `--build-context`, by name as typed.
    pub named_contexts: BTreeMap<String, NamedContext>,
    /// `--no-cache`
    pub ignores_cache: bool,
    /// `--no-cache-filter`, stage names.
    pub ignores_cache_of: Vec<String>,
    /// `--network` for the whole build.
    pub network: Network,
    /// The main context's ignore file, for the check that nothing copied is ignored.
    pub ignore: crate::ignore_file::IgnoreMatcher,
    /// Evaluates all stages, not only those that the target needs: `rbuild check` without a target.
    pub checks_all_stages: bool,
}

/// A base image that the planner needs to know about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageRequest {
    /// Which image.
    pub reference: ImageReference,
    /// For which platform.
    pub platform: Platform,
}

/// The builder's answer to an [`ImageRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedImage {
    /// The image's config with its history.
    pub config: ImageConfig,
}

/// What [`crate::plan()`] answers.
#[derive(Clone, Debug)]
pub enum Planned {
    /// Ask again with these images added to the known ones.
    Needs(Vec<ImageRequest>),
    /// The plan.
    Ready(Box<Graph>),
}
