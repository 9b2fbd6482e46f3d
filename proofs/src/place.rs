//! A directory for one proof, and the binary that it tries to break.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::report;

/// Where one proof works. It stays when the proof fails.
#[derive(Debug)]
pub(crate) struct Place {
    directory: PathBuf,
    rbuild: PathBuf,
    is_forgotten: bool,
}

impl Place {
    pub(crate) fn new(work: &Path, name: &str, rbuild: &Path) -> Result<Self> {
        fs::create_dir_all(work)?;
        let directory = tempfile::Builder::new()
            .prefix(&format!("{name}."))
            .tempdir_in(work)?
            .keep();
        Ok(Self {
            directory: directory.canonicalize()?,
            rbuild: rbuild.canonicalize()?,
            is_forgotten: false,
        })
    }

    /// A path in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// A new empty directory in it.
    pub(crate) fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// `rbuild --root ROOT …`, undisturbed by the environment.
    pub(crate) fn rbuild(&self, root: &Path) -> Command {
        let mut command = Command::new(&self.rbuild);
        command
            .env_remove("SOURCE_DATE_EPOCH")
            .env_remove("RBUILD_DIES_AT")
            .arg("--root")
            .arg(root);
        command
    }

    /// Says that the proof held: nothing of it is needed any more.
    pub(crate) fn forget(&mut self) {
        self.is_forgotten = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.is_forgotten {
            report::complain(&format!("kept: {}", self.directory.display()));
        } else if let Err(error) = fs::remove_dir_all(&self.directory) {
            report::complain(&format!(
                "cannot remove `{}`: {error}",
                self.directory.display()
            ));
        }
    }
}
