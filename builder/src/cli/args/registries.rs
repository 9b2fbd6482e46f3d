//! Flags and verbs that are about registries.

use std::path::PathBuf;

use clap::Args;
use rbuild::registry::Authority;

use crate::cli::error::UsageError;

/// How registries are spoken to: above what the machine's files say.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Registries")]
pub(crate) struct RegistryArgs {
    /// Read credentials from this file only [env: REGISTRY_AUTH_FILE]
    #[arg(long, value_name = "FILE")]
    pub(crate) authfile: Option<PathBuf>,
    /// Who we are at every registry; other users of the machine can see it
    #[arg(long, value_name = "USER:PASSWORD")]
    pub(crate) creds: Option<String>,
    /// Insist on valid certificates, or with =false do without and take plain HTTP
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) tls_verify: Option<String>,
    /// Certificates: *.crt of authorities, *.cert and *.key of our own
    #[arg(long, value_name = "DIR")]
    pub(crate) cert_dir: Option<PathBuf>,
    /// Trust the authorities in this file (PEM) too: here, and in RUN steps
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_cert: Vec<PathBuf>,
}

impl RegistryArgs {
    /// What `--ca-cert` names, read.
    pub(crate) fn authorities(&self) -> Result<Vec<Authority>, UsageError> {
        let read = |path: &PathBuf| {
            let wrong =
                |reason: String| UsageError::value("--ca-cert", path.display().to_string(), reason);
            let authority = Authority::read(path).map_err(|error| wrong(error.to_string()))?;
            Ok(authority)
        };
        self.ca_cert.iter().map(read).collect()
    }
}

/// `rbuild pull`
#[derive(Args, Debug)]
pub(crate) struct PullArgs {
    /// Names of images
    #[arg(value_name = "NAME[:TAG]", required = true)]
    pub(crate) images: Vec<String>,
    /// The platform, such as linux/arm64 [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
    #[command(flatten)]
    pub(crate) registries: RegistryArgs,
    /// Print only the image ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `rbuild push`
#[derive(Args, Debug)]
pub(crate) struct PushArgs {
    /// Names of images in the store
    #[arg(value_name = "NAME[:TAG]", required = true)]
    pub(crate) images: Vec<String>,
    /// Every tag of each repository
    #[arg(short, long)]
    pub(crate) all_tags: bool,
    /// How layers made here are compressed [default: gzip]
    #[arg(long, value_name = "gzip|zstd|uncompressed")]
    pub(crate) compression: Option<String>,
    #[command(flatten)]
    pub(crate) registries: RegistryArgs,
    /// Print only the digests
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `rbuild save`
#[derive(Args, Debug)]
pub(crate) struct SaveArgs {
    /// Names or ids of images in the store
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
    /// The file; without it the archive goes to stdout
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// What is written [default: docker-archive]
    #[arg(long, value_name = "docker-archive|oci-archive|oci-dir")]
    pub(crate) format: Option<String>,
    /// How layers made here are compressed [default: gzip]
    #[arg(long, value_name = "gzip|zstd|uncompressed")]
    pub(crate) compression: Option<String>,
}

/// `rbuild login`
#[derive(Args, Debug)]
pub(crate) struct LoginArgs {
    /// The registry, such as ghcr.io [default: docker.io]
    #[arg(value_name = "REGISTRY")]
    pub(crate) registry: Option<String>,
    /// The user
    #[arg(short, long, value_name = "USER")]
    pub(crate) username: Option<String>,
    /// Read the password from stdin
    #[arg(long)]
    pub(crate) password_stdin: bool,
    /// The password; other users of the machine can see it
    #[arg(
        short,
        long,
        value_name = "PASSWORD",
        conflicts_with = "password_stdin"
    )]
    pub(crate) password: Option<String>,
    #[command(flatten)]
    pub(crate) registries: RegistryArgs,
}

/// `rbuild logout`
#[derive(Args, Debug)]
pub(crate) struct LogoutArgs {
    /// The registry, such as ghcr.io [default: docker.io]
    #[arg(value_name = "REGISTRY")]
    pub(crate) registry: Option<String>,
    /// The file that credentials are taken out of [env: REGISTRY_AUTH_FILE]
    #[arg(long, value_name = "FILE")]
    pub(crate) authfile: Option<PathBuf>,
}

/// `rbuild info`
#[derive(Args, Debug)]
pub(crate) struct InfoArgs {
    /// A registry or image name
    #[arg(value_name = "REGISTRY|NAME")]
    pub(crate) registry: Option<String>,
    #[command(flatten)]
    pub(crate) registries: RegistryArgs,
}
