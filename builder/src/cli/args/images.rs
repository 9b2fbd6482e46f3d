//! Verbs about the images of the store.

use clap::Args;

/// `rbuild images`
#[derive(Args, Debug)]
pub(crate) struct ImagesArgs {
    /// Only image ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Full ids
    #[arg(long)]
    pub(crate) no_trunc: bool,
}

/// `rbuild inspect`
#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    /// Name or id of an image in the store
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// A path such as .Config.Env[0], a template such as {{.Id}}, or json
    #[arg(short, long, value_name = "FORMAT", conflicts_with_all = ["config", "manifest"])]
    pub(crate) format: Option<String>,
    /// Print the config as it is, byte for byte
    #[arg(long)]
    pub(crate) config: bool,
    /// Print the manifest as it is, byte for byte
    #[arg(long, visible_alias = "raw", conflicts_with = "config")]
    pub(crate) manifest: bool,
}

/// `rbuild history`
#[derive(Args, Debug)]
pub(crate) struct HistoryArgs {
    /// Name or id of an image in the store
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Whole commands
    #[arg(long)]
    pub(crate) no_trunc: bool,
}

/// `rbuild tag`
#[derive(Args, Debug)]
pub(crate) struct TagArgs {
    /// Name or id of an image in the store
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// The new name
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) name: String,
}

/// `rbuild rmi`
#[derive(Args, Debug)]
pub(crate) struct RmiArgs {
    /// Names to remove
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
}
