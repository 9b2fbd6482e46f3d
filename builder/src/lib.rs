//! Daemonless image build engine that reads Dockerfiles: the library behind the `rbuild` binary.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use rbuild::{Engine, EngineOptions, options::BuildOptions};
//!
//! rbuild::init()?; // at the top of main, before any thread exists
//! let engine = Engine::open(&EngineOptions::new(EngineOptions::default_root()))?;
//! let options = BuildOptions { tags: vec!["hello".into()], ..BuildOptions::default() };
//! let outcome = engine.build(&options, std::sync::Arc::new(|_| {}), Default::default()).await?;
//! println!("{}", outcome.image_id);
//! # Ok(())
//! # }
//! ```
//!
//! | to read first | for |
//! |---|---|
//! | [`engine`] | the front door |
//! | `build` | the life of one build |
//! | `solve` | what runs, what is taken from the cache |
//! | [`check`] | looking at a Dockerfile without building it |

#![forbid(unsafe_code)]

mod attached;
mod blocking;
mod build;
pub mod check;
mod context;
mod convert;
mod download;
pub mod engine;
pub mod error;
pub mod event;
pub mod explain;
pub mod export;
mod fetch;
mod fsck;
mod full_disk;
mod git;
pub mod history;
pub mod image;
pub mod images;
mod kept;
mod keys;
pub mod layers;
pub mod layout;
pub mod maintenance;
pub mod manifest;
pub mod options;
mod postmortem;
pub mod pull;
pub mod registry;
mod remote;
mod run_image;
mod secret;
mod select;
mod shell;
mod solve;
mod steps;
pub mod tasks;
mod terminal;
mod timestamp;
mod transfer;
mod tree;

pub use build::{BuildOutcome, BuiltPlatform};
pub use context::ContextError;
pub use download::DownloadError;
pub use engine::{Engine, EngineOptions, init, survey};
pub use error::{BuildError, StepError};
pub use git::GitError;
pub use images::{HistoryLine, ImageSummary};
pub use layers::LargestLayer;
pub use rbuild_runner::isolation::{Finding, Isolation, Survey};
pub use remote::LONGEST_CACHE_TAG;
pub use run_image::{RunError, RunNetwork, RunOptions, RunVolume};
pub use select::SelectError;
pub use shell::{ShellError, ShellOptions};
pub use solve::StepCounts;
pub use transfer::{
    Copied, Endpoint, ImportOptions, LoadedImage, PushedImage, SaveForm, TransferError,
};
pub use tree::TreeError;
