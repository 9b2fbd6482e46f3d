//! Files that appear whole or not at all, and standard output.

use std::fs::{File, Permissions};
use std::io::{self, IsTerminal as _, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::ExportError;

/// Where a single file goes.
#[derive(Debug)]
pub(super) enum Sink {
    /// A temporary file beside the destination, renamed when it is whole.
    New { file: NamedTempFile, path: PathBuf },
    /// Something that can't be replaced: a device, a fifo.
    Existing { file: File, path: PathBuf },
    /// Standard output.
    Stdout(File),
}

impl Sink {
    /// Opens a destination; none is standard output.
    pub(super) fn open(destination: Option<&Path>) -> Result<Self, ExportError> {
        let Some(path) = destination.filter(|path| *path != Path::new("-")) else {
            let stdout = io::stdout();
            if stdout.is_terminal() {
                return Err(ExportError::Terminal);
            }
            let owned = stdout
                .as_fd()
                .try_clone_to_owned()
                .map_err(ExportError::Stdout)?;
            return Ok(Self::Stdout(owned.into()));
        };
        let failed = |source| ExportError::Write {
            path: path.to_owned(),
            source,
        };
        // A symlink stays and its target is replaced.
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => return Err(ExportError::IsDirectory { path }),
            Ok(metadata) if !metadata.is_file() => {
                let file = File::options().write(true).open(&path).map_err(failed)?;
                return Ok(Self::Existing { file, path });
            }
            _ => {}
        }
        let directory = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.map_or_else(|| PathBuf::from("."), Path::to_owned);
        std::fs::create_dir_all(&directory).map_err(failed)?;
        let file = tempfile::Builder::new()
            .prefix(".rbuild-")
            .permissions(Permissions::from_mode(0o666)) // less the umask, as for any new file
            .tempfile_in(&directory)
            .map_err(failed)?;
        Ok(Self::New { file, path })
    }

    /// A descriptor of its own for a job to write to.
    pub(super) fn descriptor(&self) -> Result<OwnedFd, ExportError> {
        let file = match self {
            Self::New { file, .. } => file.as_file(),
            Self::Existing { file, .. } | Self::Stdout(file) => file,
        };
        file.as_fd()
            .try_clone_to_owned()
            .map_err(|source| self.failed(source))
    }

    /// Puts the finished file in its place.
    pub(super) fn finish(mut self) -> Result<(), ExportError> {
        if let Err(source) = self.flush() {
            return Err(self.failed(source));
        }
        if let Self::New { file, path } = self {
            file.persist(&path).map_err(|error| ExportError::Write {
                path,
                source: error.error,
            })?;
        }
        Ok(())
    }

    /// The error of a write that failed.
    pub(super) fn failed(&self, source: io::Error) -> ExportError {
        match self {
            Self::New { path, .. } | Self::Existing { path, .. } => ExportError::Write {
                path: path.clone(),
                source,
            },
            Self::Stdout(_) => ExportError::Stdout(source),
        }
    }
}

impl Write for Sink {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::New { file, .. } => file.write(buffer),
            Self::Existing { file, .. } | Self::Stdout(file) => file.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::New { file, .. } => file.flush(),
            Self::Existing { file, .. } | Self::Stdout(file) => file.flush(),
        }
    }
}
