//! Verbs that take archives in, or write them.

use std::path::PathBuf;

use clap::Args;

use super::RegistryArgs;

/// `rbuild load`
#[derive(Args, Debug)]
pub(crate) struct LoadArgs {
    /// The archive, or a directory with an OCI layout [default: stdin]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Of images for several platforms, the one for this [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
    /// Print only the image ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `rbuild import`
#[derive(Args, Debug)]
pub(crate) struct ImportArgs {
    /// The tar archive, compressed or not; `-` is stdin
    #[arg(value_name = "FILE|-")]
    pub(crate) file: PathBuf,
    /// Name the image in the store
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) name: Option<String>,
    /// An instruction for the config, such as `CMD ["sh"]` or `ENV A=1`
    #[arg(short, long, value_name = "INSTRUCTION")]
    pub(crate) change: Vec<String>,
    /// What the files run on [default: this machine]
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
}

/// `rbuild copy`
#[derive(Args, Debug)]
pub(crate) struct CopyArgs {
    /// NAME of a registry, store:NAME, oci:DIR[:TAG], oci-archive:FILE[:NAME] or docker-archive:FILE[:NAME]
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
    /// The same
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,
    /// Only this platform [default: all, where there is room for them]
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
    #[command(flatten)]
    pub(crate) registries: RegistryArgs,
    /// Print only the digest
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `rbuild export`
#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    /// Name or id of an image in the store
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// The file; without it the archive goes to stdout
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}
