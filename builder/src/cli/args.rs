//! What was typed: the command line as clap sees it, and nothing of what it means.
//!
//! Flags of `docker build` that have no effect here or that are refused stand in [`super::flags`], as rows of a table.
//! Meaning is given once, in [`super::request`]. Doc comments here are the help text.

#![expect(
    clippy::doc_markdown,
    reason = "help text is read on a terminal, not as Markdown"
)]

mod archives;
mod images;
mod past;
mod registries;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::limits::{LimitArgs, ResourceArgs};
use super::running::RunArgs;
use super::shelling::ShellArgs;

use super::completion::CompletionShell;
use super::flags::TabledFlags;
use super::store_args::{CacheVerb, DuArgs, FsckArgs, PruneArgs};
pub(crate) use archives::{CopyArgs, ExportArgs, ImportArgs, LoadArgs};
pub(crate) use images::{HistoryArgs, ImagesArgs, InspectArgs, RmiArgs, TagArgs};
pub(crate) use past::{
    BuildsArgs, BuildsVerb, ExplainArgs, GraphArgs, GraphFormat, LayersArgs, LogsArgs, ReportArgs,
};
pub(crate) use registries::{
    InfoArgs, LoginArgs, LogoutArgs, PullArgs, PushArgs, RegistryArgs, SaveArgs,
};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "rbuild",
    version,
    about = "Builds OCI images from Dockerfiles, without a daemon",
    long_about = "Builds OCI images from Dockerfiles, without a daemon.\n\n`rbuild -t NAME .` is short for `rbuild build -t NAME .`.",
    args_override_self = true,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = "Examples:\n  rbuild -t app .                              build ./Dockerfile, name the result `app`\n  rbuild -o type=oci,dest=app.tar .            write an OCI archive\n  rbuild run app                               run it"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Flags that may stand before or after the verb.
#[derive(Args, Clone, Debug)]
pub(crate) struct GlobalArgs {
    /// Where images, layers and step records are kept [env: RBUILD_ROOT]
    ///
    /// Default: /var/lib/rbuild as root, else $XDG_DATA_HOME/rbuild or ~/.local/share/rbuild.
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        help_heading = "Global options"
    )]
    pub(crate) root: Option<PathBuf>,
    /// Configuration, instead of the machine's and the user's rbuild.toml; stands before the verb [env: RBUILD_CONFIG]
    #[arg(long, value_name = "FILE", help_heading = "Global options")]
    pub(crate) config: Option<PathBuf>,
    /// What rbuild says about itself on stderr [env: RBUILD_LOG] [default: warn]
    #[arg(
        long,
        global = true,
        hide_possible_values = true,
        value_name = "off|error|warn|info|debug|trace",
        help_heading = "Global options"
    )]
    pub(crate) log_level: Option<LogLevel>,
}

/// `--log-level`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    /// Nothing
    Off,
    /// Only what ends the build
    Error,
    /// What needs attention (default)
    Warn,
    /// One line a step
    Info,
    /// Decisions
    Debug,
    /// Everything
    Trace,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Build an image (the default verb)
    Build(Box<BuildArgs>),
    /// Look for mistakes in a Dockerfile, and mend those that are mechanical
    Check(Box<CheckArgs>),
    /// Run a command in an image
    Run(Box<RunArgs>),
    /// Open a shell in what a step left, one that failed above all
    Shell(Box<ShellArgs>),
    /// List the images of the store
    #[command(visible_alias = "ls")]
    Images(ImagesArgs),
    /// Print what the store knows of an image, its config or its manifest
    Inspect(InspectArgs),
    /// Print how an image was made, newest line first
    History(HistoryArgs),
    /// Print what each layer of an image adds, changes and wastes
    Layers(LayersArgs),
    /// Say why the steps of a build ran, or did not
    Explain(ExplainArgs),
    /// List, show and remove past builds
    Builds(BuildsArgs),
    /// Print what the steps of a build wrote
    Logs(LogsArgs),
    /// Write a build as an HTML page: timeline, logs, decisions, layers, cost of each line
    Report(ReportArgs),
    /// Draw the steps of a Dockerfile, or of a past build, and what needs what
    Graph(Box<GraphArgs>),
    /// Give an image another name
    Tag(TagArgs),
    /// Remove names; layers that nothing else uses become prunable
    Rmi(RmiArgs),
    /// Show what the store takes on its disk
    Du(DuArgs),
    /// Remove what nothing needs: steps, cache mounts, blobs, images without a name
    Prune(PruneArgs),
    /// Look at single cache mounts, and remove them
    #[command(subcommand)]
    Cache(CacheVerb),
    /// Check that the store is whole, and mend it: 0 it is whole (or is now), 1 it is not
    Fsck(FsckArgs),
    /// Fetch images from registries into the store
    Pull(PullArgs),
    /// Send images of the store to their registries
    Push(PushArgs),
    /// Write images into an archive that docker, podman and skopeo read
    Save(SaveArgs),
    /// Copy an image between registries, the store, layouts and archives
    Copy(CopyArgs),
    /// Take the images of an archive into the store: what save, docker, podman and skopeo write
    Load(LoadArgs),
    /// Make an image of a root file system in a tar archive
    Import(ImportArgs),
    /// Write an image's root file system as a tar archive
    Export(ExportArgs),
    /// Keep a user and password for a registry, once it has taken them
    Login(LoginArgs),
    /// Forget the user and password for a registry
    Logout(LogoutArgs),
    /// Print where things are, or which file decides what for a registry or image name
    Info(InfoArgs),
    /// Print the version
    Version,
    /// Print a completion script for a shell
    Completion {
        /// Which shell
        shell: CompletionShell,
    },
    /// Write manual pages
    Man {
        /// Directory for a page of each verb; without it the page of rbuild itself is printed
        #[arg(value_name = "DIR")]
        directory: Option<PathBuf>,
    },
}

/// `rbuild build`
#[derive(Args, Debug)]
pub(crate) struct BuildArgs {
    /// A directory, `-` (a tar archive or a Dockerfile on stdin), a git URL or the URL of a tar archive or Dockerfile
    #[arg(value_name = "CONTEXT")]
    pub(crate) context: OsString,
    #[command(flatten)]
    pub(crate) input: InputArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
    #[command(flatten)]
    pub(crate) registries: RegistryArgs,
    #[command(flatten)]
    pub(crate) sandbox: SandboxArgs,
    #[command(flatten)]
    pub(crate) display: DisplayArgs,
    #[command(flatten)]
    pub(crate) tabled: TabledFlags,
}

/// What is built.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Input")]
pub(crate) struct InputArgs {
    /// The Dockerfile: a path, a URL, or `-` for stdin [default: CONTEXT/Dockerfile, then CONTEXT/Containerfile]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Stop at this stage [default: the last one]
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// Platforms to build for, such as linux/arm64 [env: DOCKER_DEFAULT_PLATFORM]
    #[arg(long, value_name = "PLATFORM[,…]")]
    pub(crate) platform: Vec<String>,
    /// A build argument; without a value it is taken from the environment, if it is there
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(crate) build_arg: Vec<String>,
    /// A further context: NAME=DIR, docker-image://REF, oci-layout://DIR[:TAG], a git URL or the URL of a file
    #[arg(long, value_name = "NAME=SPEC")]
    pub(crate) build_context: Vec<String>,
    /// The directory of an archive or repository that is the context
    #[arg(long, value_name = "DIR")]
    pub(crate) context_subdir: Option<String>,
    /// A secret for `RUN --mount=type=secret`, git or http: id=ID,src=FILE or id=ID,env=VARIABLE
    #[arg(long, value_name = "id=ID[,src=FILE|,env=VAR]")]
    pub(crate) secret: Vec<String>,
    /// An agent socket or key for `RUN --mount=type=ssh` and git; `default` is $SSH_AUTH_SOCK
    #[arg(long, value_name = "default|ID[=PATH]")]
    pub(crate) ssh: Vec<String>,
}

/// Where the result goes.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// Name the image in the store
    #[arg(short, long, value_name = "NAME[:TAG]")]
    pub(crate) tag: Vec<String>,
    /// Push the image to the registries of its names, as soon as it is built
    #[arg(long)]
    pub(crate) push: bool,
    /// Give the image to podman, docker or containerd; without a word to the first that is installed
    #[arg(long, value_name = "ENGINE", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) load: Option<String>,
    /// Write the result: DIR, `-` (a tar on stdout), or type=oci|docker|local|tar|image|registry,dest=PATH,…
    #[arg(short, long, value_name = "DEST", allow_hyphen_values = true)]
    pub(crate) output: Vec<String>,
    /// Time of the image and of all its files, in seconds since 1970, so that equal builds give equal digests
    ///
    /// Sets SOURCE_DATE_EPOCH, and rewrite-timestamp=true for every output.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timestamp: Option<i64>,
    /// A label of the image config
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub(crate) label: Vec<String>,
    /// An annotation of the manifest
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) annotation: Vec<String>,
    /// Fail if the image is larger: size=200MB,added=50MB,layers=20
    #[arg(long, value_name = "LIMITS")]
    pub(crate) budget: Option<String>,
    /// Write the image id to a file
    #[arg(long, value_name = "FILE")]
    pub(crate) iidfile: Option<PathBuf>,
    /// Write an HTML page about the build to a file
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Write digests and names to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
}

/// What is done again.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Cache")]
pub(crate) struct CacheArgs {
    /// Run every step again
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Run the steps of these stages again
    #[arg(long, value_name = "STAGE[,…]", value_delimiter = ',')]
    pub(crate) no_cache_filter: Vec<String>,
    /// Take results of steps from a cache: type=local,src=DIR, type=registry,ref=NAME
    #[arg(long, value_name = "type=TYPE,…")]
    pub(crate) cache_from: Vec<String>,
    /// Keep results of steps in a cache: type=local,dest=DIR, type=registry,ref=NAME, type=inline;
    /// mode=min|max, compression=…
    #[arg(long, value_name = "type=TYPE,…")]
    pub(crate) cache_to: Vec<String>,
    /// Look up base images in their registry again; a bare --pull means always
    #[arg(long, value_name = "always|missing|never", num_args = 0..=1, require_equals = true, default_missing_value = "always")]
    pub(crate) pull: Option<String>,
    /// Read every context file instead of trusting unchanged times and inodes
    #[arg(long)]
    pub(crate) no_stat_cache: bool,
}

/// What steps may use.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Sandbox")]
pub(crate) struct SandboxArgs {
    /// Network of RUN steps: default (a private one), host or none
    #[arg(long, value_name = "MODE")]
    pub(crate) network: Option<String>,
    /// A line for /etc/hosts of RUN steps; the address may be host-gateway
    #[arg(long, value_name = "HOST:ADDRESS")]
    pub(crate) add_host: Vec<String>,
    /// A resource limit of RUN steps, such as nofile=1024:2048
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub(crate) ulimit: Vec<String>,
    /// Size of /dev/shm, such as 16m
    #[arg(long, value_name = "SIZE")]
    pub(crate) shm_size: Option<String>,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    #[command(flatten)]
    pub(crate) resources: ResourceArgs,
    /// Permit more than the default sandbox: network.host, security.insecure
    #[arg(long, value_name = "ENTITLEMENT")]
    pub(crate) allow: Vec<String>,
    /// A failed step's files: keep (for `rbuild shell`), shell (at once), discard; auto keeps them on a terminal
    #[arg(long, value_name = "MODE")]
    pub(crate) on_failure: Option<String>,
    /// Steps that may run at once [default: number of CPUs]
    #[arg(short, long, value_name = "N")]
    pub(crate) jobs: Option<usize>,
    #[command(flatten)]
    pub(crate) isolation: IsolationArgs,
}

/// How strongly commands are held.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Sandbox")]
pub(crate) struct IsolationArgs {
    /// How commands are isolated: auto (the strongest to be had), namespaces, userns or chroot [env: RBUILD_ISOLATION]
    ///
    /// namespaces: with root's own privileges. userns: below a user namespace, as root or as an ordinary user. chroot: for
    /// containers that allow neither; commands share the container's processes and network.
    /// `rbuild info` says which can be had here, and why not more.
    #[arg(long, value_name = "MODE")]
    pub(crate) isolation: Option<String>,
    /// Without subordinate ids: leave out owners that can't be set [env: RBUILD_IGNORE_CHOWN_ERRORS]
    #[arg(long)]
    pub(crate) ignore_chown_errors: bool,
}

/// What is shown.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Display")]
pub(crate) struct DisplayArgs {
    /// How progress is shown [env: BUILDKIT_PROGRESS] [default: auto]
    #[arg(long, value_name = "auto|tty|plain|quiet|rawjson")]
    pub(crate) progress: Option<String>,
    /// Print only the image id
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Don't build: run the build checks; same as --call check
    #[arg(long)]
    pub(crate) check: bool,
    /// Don't build: print what checks find, what the target can be given, or the stages
    #[arg(long, value_name = "check|outline|targets[,format=json]")]
    pub(crate) call: Option<String>,
    /// How --check and --call print; sarif and github are for findings
    #[arg(long, value_name = "text|json|sarif|github")]
    pub(crate) format: Option<String>,
    /// Same as --log-level debug
    #[arg(short = 'D', long)]
    pub(crate) debug: bool,
}

/// `rbuild check`
#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// The build context, as for `rbuild build`
    #[arg(value_name = "CONTEXT", default_value = ".")]
    pub(crate) context: OsString,
    #[command(flatten)]
    pub(crate) input: InputArgs,
    /// How findings are printed [default: text]
    #[arg(long, value_name = "text|json|sarif|github", help_heading = "Findings")]
    pub(crate) format: Option<String>,
    /// Exit with 1 only if something of this severity is found [default: warning]
    #[arg(long, value_name = "warning|error", help_heading = "Findings")]
    pub(crate) severity: Option<String>,
    /// Mend what is mechanical: show the changes, write them, then list what is left
    #[arg(long, help_heading = "Findings")]
    pub(crate) fix: bool,
    /// Show what --fix would change, write nothing; exit with 1 if that is anything
    #[arg(long, visible_alias = "dry-run", help_heading = "Findings")]
    pub(crate) diff: bool,
    /// Explain the code of a message, with an example
    #[arg(long, value_name = "CODE", help_heading = "Findings")]
    pub(crate) explain: Option<String>,
    /// Where base images are looked up: `never` asks no registry
    #[arg(long, value_name = "always|missing|never", num_args = 0..=1, require_equals = true, default_missing_value = "always", help_heading = "Findings")]
    pub(crate) pull: Option<String>,
}

/// `--format`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListFormat {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
}
