//! Attacks that worked on builders and runtimes before us, tried on the code that is guarded against them and, in the same test,
//! on a copy of it without the guard: a test that could not fail would prove nothing. `docs/security.md` is the table.
//!
//! | module | what attacks | the copy without the guard |
//! |---|---|---|
//! | `archives` | layers and archives | [`naive::unpack`] |
//! | `paths` | trees with links in them | joined paths |
//! | `races` | a process that exchanges directories and links meanwhile | check first, act later |
//! | `sandbox` | commands | [`crate::sandbox::weak`] |

mod archives;
mod naive;
mod paths;
mod races;
mod sandbox;

#[path = "../tests/common/mod.rs"]
mod common;
