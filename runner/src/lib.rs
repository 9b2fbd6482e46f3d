//! Everything of rbuild that only Linux can do: sandboxes, overlay mounts, safe file operations, layer tars.
//!
//! Callers describe work as plain data ([`job`]) and hand it to a [`Spawner`], a small process that does it. Nothing
//! in this crate knows Dockerfiles, cache keys or registries.
//!
//! | to read first | for |
//! |---|---|
//! | [`job`] | what can be asked, and what is answered |
//! | [`Spawner`] | the process that does it, and what cancelling and dying mean |
//! | `sandbox` | how a `RUN` step's sandbox is made; see also `docs/sandbox.md` |
//! | [`root`], [`walk`] | the only ways to files that nobody vouches for |
//! | [`seal`], [`pack`], [`unpack`], [`copy`] | layers |
//! | [`isolation`] | as root, in a user namespace, with which ids; and why not better |
//! | `overlay` | how a chain of snapshots becomes a root file system |
//! | `sys` | all unsafe code of the project |
//!
//! Files that nobody vouches for are reached only through [`root`] (path resolution beneath a directory fd) and
//! [`walk`]; a step's upper directory becomes a layer in [`seal`], a snapshot a blob in [`pack`], a blob a snapshot in
//! [`unpack`]; [`copy`] is `COPY`, `ADD` and `WORKDIR`.

#[cfg(test)]
extern crate self as rbuild_runner;

pub mod archive;
mod aside;
#[cfg(test)]
mod attacks;
mod cgroup;
mod container_path;
pub mod copy;
pub mod decompress;
mod emulation;
mod error;
pub mod export;
mod files;
#[cfg(feature = "floor")]
pub mod floor;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod gzip;
mod ids;
pub mod isolation;
pub mod job;
pub mod layer_root;
mod layer_tar;
pub mod measure;
mod metadata;
mod mounts;
mod network;
mod node;
mod overlay;
mod owner;
pub mod pack;
pub mod root;
mod sandbox;
pub mod seal;
mod sha256;
mod spawner;
mod sys;
mod tar_reader;
mod tar_writer;
pub mod unpack;
mod users;
pub mod walk;
mod working_root;
mod xattr;

pub use crate::container_path::ContainerPath;
pub use crate::error::{JobError, JobErrorKind};
pub use crate::metadata::{FileKind, Metadata, Time};
pub use crate::mounts::{MountApi, Roots};
pub use crate::root::FileError;
pub use crate::spawner::{
    Canceller, JobHandle, PrivateNetwork, RunHandle, Spawner, SpawnerOptions, Stdio,
};
pub use crate::xattr::Xattr;
