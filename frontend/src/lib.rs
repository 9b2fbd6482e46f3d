//! The Dockerfile language: text → AST with spans → typed instructions → a graph of steps and an image config.
//!
//! Pure: no file, network, clock or process; the same input always gives the same graph.

#![forbid(unsafe_code)]

pub mod diagnostic;
pub mod instruction;
pub mod source;
