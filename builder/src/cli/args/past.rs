//! What was typed to look at builds and images afterwards: `layers`, `explain`, `builds`, `logs`, `report`, `graph`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{InputArgs, ListFormat};

/// `rbuild layers`
#[derive(Args, Debug)]
pub(crate) struct LayersArgs {
    /// Name or id of an image in the store
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Number of a layer: shows its files as a tree, the heaviest first
    #[arg(value_name = "LAYER")]
    pub(crate) layer: Option<usize>,
    /// Directories of the tree that are opened
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) depth: usize,
    /// How it is printed; without it a terminal shows a tree to walk through
    #[arg(long, value_name = "table|json", hide_possible_values = true)]
    pub(crate) format: Option<ListFormat>,
}

/// `rbuild explain`
#[derive(Args, Debug)]
pub(crate) struct ExplainArgs {
    /// Id of a build or its beginning, `last`, -1, -2, …; without it the last build
    #[arg(value_name = "BUILD", allow_negative_numbers = true)]
    pub(crate) build: Option<String>,
    /// Number of a step, STAGE/NUMBER, or a part of its instruction: tells what its key is made of, too
    #[arg(value_name = "STEP")]
    pub(crate) step: Option<String>,
    /// The last build of an image with this name
    #[arg(short, long, value_name = "NAME[:TAG]")]
    pub(crate) tag: Option<String>,
    /// How it is printed
    #[arg(
        long,
        value_name = "table|json",
        hide_possible_values = true,
        default_value = "table",
        hide_default_value = true
    )]
    pub(crate) format: ListFormat,
}

/// `rbuild builds`
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct BuildsArgs {
    #[command(subcommand)]
    pub(crate) verb: Option<BuildsVerb>,
    /// Builds to list, newest first
    #[arg(short, long, value_name = "N", default_value_t = 20)]
    pub(crate) number: usize,
    /// How they are printed
    #[arg(
        long,
        value_name = "table|json",
        hide_possible_values = true,
        default_value = "table",
        hide_default_value = true
    )]
    pub(crate) format: ListFormat,
}

/// `rbuild builds …`
#[derive(Debug, Subcommand)]
pub(crate) enum BuildsVerb {
    /// Print everything that is known of a build
    Show {
        /// Id of a build or its beginning, `last`, -1, -2, …
        #[arg(
            value_name = "BUILD",
            default_value = "last",
            allow_negative_numbers = true
        )]
        build: String,
        /// How it is printed
        #[arg(
            long,
            value_name = "table|json",
            hide_possible_values = true,
            default_value = "table",
            hide_default_value = true
        )]
        format: ListFormat,
    },
    /// Remove builds from the history, with the logs that no other build refers to
    Rm {
        /// Ids of builds or their beginnings, `last`, -1, -2, …
        #[arg(
            value_name = "BUILD",
            allow_negative_numbers = true,
            required_unless_present = "all",
            conflicts_with = "all"
        )]
        builds: Vec<String>,
        /// All that do not run
        #[arg(long)]
        all: bool,
    },
}

/// `rbuild report`
#[derive(Args, Debug)]
pub(crate) struct ReportArgs {
    /// Id of a build or its beginning, `last`, -1, -2, …
    #[arg(
        value_name = "BUILD",
        default_value = "last",
        allow_negative_numbers = true
    )]
    pub(crate) build: String,
    /// Where to write it; `-` is stdout
    #[arg(short, long, value_name = "FILE", default_value = "report.html")]
    pub(crate) output: PathBuf,
}

/// `rbuild graph`
#[derive(Args, Debug)]
pub(crate) struct GraphArgs {
    /// The build context, as for `rbuild build`
    #[arg(value_name = "CONTEXT", default_value = ".", conflicts_with = "build")]
    pub(crate) context: OsString,
    /// Draw this past build, with what was cached: its id, `last`, -1, -2, …
    #[arg(long, value_name = "BUILD", allow_negative_numbers = true)]
    pub(crate) build: Option<String>,
    #[command(flatten)]
    pub(crate) input: InputArgs,
    /// What is drawn
    #[arg(
        long,
        value_name = "dot|mermaid|svg|json",
        hide_possible_values = true,
        default_value = "mermaid"
    )]
    pub(crate) format: GraphFormat,
}

/// `rbuild graph --format`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GraphFormat {
    /// Graphviz
    Dot,
    /// For Markdown
    Mermaid,
    /// An image
    Svg,
    /// For programs
    Json,
}

/// `rbuild logs`
#[derive(Args, Debug)]
pub(crate) struct LogsArgs {
    /// Id of a build or its beginning, `last`, -1, -2, …; without it the last build
    #[arg(value_name = "BUILD", allow_negative_numbers = true)]
    pub(crate) build: Option<String>,
    /// Number of a step, STAGE/NUMBER, or a part of its instruction; without it all steps
    #[arg(value_name = "STEP")]
    pub(crate) step: Option<String>,
    /// Go on until the build is over
    #[arg(short, long)]
    pub(crate) follow: bool,
}
