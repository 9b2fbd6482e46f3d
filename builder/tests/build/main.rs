//! Whole builds through the binary: what runs again, what a step leaves, what errors say.
//!
//! They need root and Debian's static busybox, which `.ci/test` installs.

#![expect(clippy::unwrap_used, reason = "in tests an unwrap is an assertion")]

mod support;

mod adding;
mod attacks;
mod authorities;
mod caching;
mod contained;
mod contexts;
mod copying;
mod defaults;
mod documentation;
mod errors;
mod explain;
mod failing;
mod fsck;
mod git;
mod git_remote;
mod history;
mod language;
mod leftovers;
mod limits;
mod looking;
mod network;
mod ordinary_user;
mod real_job;
mod remote_cache;
mod run_verb;
mod running;
mod servers;
mod shell;
mod ssh;
mod store;
mod terminal;
