//! The Dockerfile language: text → AST with spans → typed instructions → a graph of steps and an image config.
//!
//! Pure: no file, network, clock or process; the same input always gives the same graph.

#![forbid(unsafe_code)]
#![expect(
    clippy::result_large_err,
    reason = "a `Diagnostic` ends the parse: its size costs nothing"
)]

mod arguments;
pub mod ast;
mod boolean;
pub mod checks;
pub mod chmod;
pub mod codes;
pub mod csv;
pub mod diagnostic;
pub mod directive;
mod duration;
mod flags;
pub mod git_reference;
pub mod glob;
pub mod graph;
mod heredoc;
pub mod ignore_file;
pub mod image_config;
pub mod instruction;
pub mod instructions;
mod json;
pub mod keyword;
mod letters;
mod lines;
pub mod mend;
pub mod mount_options;
pub mod path;
pub mod pattern;
pub mod plan;
pub mod platform;
pub mod reference;
pub mod source;
pub mod suggest;
pub mod syntax;
pub mod text;
pub mod word;

pub use plan::plan;
