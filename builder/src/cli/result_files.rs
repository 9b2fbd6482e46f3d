//! `--iidfile` and `--metadata-file`: what CI files read after a build.

use std::io;
use std::path::{Path, PathBuf};

use rbuild::BuildOutcome;

use super::failure::Failure;
use super::request::BuildRequest;

/// A file that the command line asked for and that can't be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write `{path}` for `{flag}`")]
struct WriteError {
    flag: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Writes the files that were asked for.
pub(crate) fn write(request: &BuildRequest, outcome: &BuildOutcome) -> Result<(), Failure> {
    if let Some(path) = &request.iidfile {
        // Without a line end, as docker writes it: scripts compare the whole file.
        write_file("--iidfile", path, outcome.image_id.as_ref())?;
    }
    if let Some(path) = &request.metadata_file {
        write_file(
            "--metadata-file",
            path,
            &format!("{:#}\n", outcome.metadata()),
        )?;
    }
    Ok(())
}

fn write_file(flag: &'static str, path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|source| {
        Failure::new(WriteError {
            flag,
            path: path.to_owned(),
            source,
        })
    })
}
