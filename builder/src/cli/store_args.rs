//! What was typed after the verbs that look after the store. Doc comments here are the help text.

use clap::{Args, Subcommand, ValueEnum};

/// How a report is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table
    #[default]
    Table,
    /// One JSON document
    Json,
}

/// `rbuild du`
#[derive(Args, Debug)]
pub(crate) struct DuArgs {
    /// Everything one by one
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// How it is written
    #[arg(
        long,
        value_name = "table|json",
        hide_possible_values = true,
        default_value = "table",
        hide_default_value = true
    )]
    pub(crate) format: Format,
}

/// `rbuild prune`
#[derive(Args, Debug)]
pub(crate) struct PruneArgs {
    /// Images with names, too, unless a running build uses them
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Go on until the store takes at most this much, such as 10GB
    #[arg(long, visible_alias = "keep-storage", value_name = "SIZE")]
    pub(crate) max_used_space: Option<String>,
    /// Leave the store at least this much, whatever the other limits say
    #[arg(long, value_name = "SIZE")]
    pub(crate) reserved_space: Option<String>,
    /// Go on until this much of the disk is free
    #[arg(long, value_name = "SIZE")]
    pub(crate) min_free_space: Option<String>,
    /// Only what fits: until=24h (not used for so long), type=image|step|cache-mount|blob|stat-cache, id=PREFIX
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) filter: Vec<String>,
    /// Say what would go, and remove nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Ask nothing
    #[arg(short, long)]
    pub(crate) force: bool,
    /// How it is written
    #[arg(
        long,
        value_name = "table|json",
        hide_possible_values = true,
        default_value = "table",
        hide_default_value = true
    )]
    pub(crate) format: Format,
}

/// `rbuild fsck`
#[derive(Args, Debug)]
pub(crate) struct FsckArgs {
    /// Mend it: write anew what can be, remove what is damaged; needs the store for itself
    #[arg(long)]
    pub(crate) repair: bool,
    /// How it is written
    #[arg(
        long,
        value_name = "text|json",
        hide_possible_values = true,
        default_value = "text",
        hide_default_value = true
    )]
    pub(crate) format: FsckFormat,
}

/// How what `rbuild fsck` found is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum FsckFormat {
    /// For people
    #[default]
    Text,
    /// One JSON document
    Json,
}

/// `rbuild cache`
#[derive(Debug, Subcommand)]
pub(crate) enum CacheVerb {
    /// List cache mounts
    #[command(visible_alias = "du")]
    Ls {
        /// How it is written
        #[arg(
            long,
            value_name = "table|json",
            hide_possible_values = true,
            default_value = "table",
            hide_default_value = true
        )]
        format: Format,
    },
    /// Remove cache mounts by their id in the Dockerfile, or by what `ls` shows
    Rm {
        /// Which
        #[arg(value_name = "ID", required = true)]
        ids: Vec<String>,
    },
}
