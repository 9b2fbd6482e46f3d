//! Recorded answers of the reference builder, compared row by row.
//!
//! Our own tables are in `testdata/corpus`. A larger corpus lies outside the project: in `$RBUILD_CORPUS`, by default in
//! `shared/corpus` beside the project's folder; a notice says when it is not there. One module for each table; deliberate
//! differences are named in the module that meets them, and explained in `docs/differences.md`.

#![expect(clippy::unwrap_used, reason = "in tests an unwrap is an assertion")]

#[path = "corpus/builds.rs"]
mod builds;
#[path = "corpus/checks.rs"]
mod checks;
#[path = "corpus/dump.rs"]
mod dump;
#[path = "corpus/images.rs"]
mod images;
#[path = "corpus/instructions.rs"]
mod instructions;
#[path = "corpus/mends.rs"]
mod mends;
#[path = "corpus/mounts.rs"]
mod mounts;
#[path = "corpus/on_purpose.rs"]
mod on_purpose;
#[path = "corpus/parser.rs"]
mod parser;
#[path = "corpus/rows.rs"]
mod rows;
#[path = "mend/same.rs"]
mod same;
#[path = "corpus/shell.rs"]
mod shell;
#[path = "corpus/tables.rs"]
mod tables;
