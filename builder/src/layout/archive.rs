//! A layout in a tar archive, read in place: one pass finds where each file lies, nothing is unpacked.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::LayoutError;

/// Files that one archive may have; a layout has three a layer at most.
const MAX_FILES: usize = 100_000;

#[derive(Debug)]
pub(super) struct Archive {
    file: Arc<File>,
    /// Name (without `./`) → position and size of its content.
    files: HashMap<String, (u64, u64)>,
}

/// Why an archive is not readable as one.
#[derive(Debug)]
pub(super) enum ArchiveError {
    NotTar(&'static str),
    Io(io::Error),
}

impl ArchiveError {
    pub(super) fn into_layout_error(self, path: &Path) -> LayoutError {
        let path = path.to_owned();
        match self {
            Self::NotTar(reason) => LayoutError::NotALayout { path, reason },
            Self::Io(source) => LayoutError::Open { path, source },
        }
    }
}

impl Archive {
    pub(super) fn open(file: File) -> Result<Self, ArchiveError> {
        let mut start = [0; 6];
        let length = file.read_at(&mut start, 0).map_err(ArchiveError::Io)?;
        match &start[..length] {
            [0x1f, 0x8b, ..]
            | [0x28, 0xb5, 0x2f, 0xfd, ..]
            | [0xfd, b'7', b'z', ..]
            | [b'B', b'Z', b'h', ..] => {
                return Err(ArchiveError::NotTar(
                    "it is compressed; decompress the archive first",
                ));
            }
            [] => return Err(ArchiveError::NotTar("it is empty")),
            _ => {}
        }
        let mut files = HashMap::new();
        let mut archive = tar::Archive::new(&file);
        for entry in archive.entries_with_seek().map_err(ArchiveError::Io)? {
            let entry = entry.map_err(ArchiveError::Io)?;
            if !entry.header().entry_type().is_file() {
                continue; // links are never followed, so they need no place in the table
            }
            if files.len() >= MAX_FILES {
                return Err(ArchiveError::NotTar("it has more files than any layout"));
            }
            let name = entry.path_bytes();
            let Ok(name) = std::str::from_utf8(&name) else {
                continue;
            };
            let name = name.strip_prefix("./").unwrap_or(name).to_owned();
            // Of two files with one name the last counts, as when unpacking.
            files.insert(name, (entry.raw_file_position(), entry.size()));
        }
        if files.is_empty() {
            return Err(ArchiveError::NotTar(
                "it is not a tar archive, or one without files",
            ));
        }
        Ok(Self {
            file: Arc::new(file),
            files,
        })
    }

    pub(super) fn open_file(&self, name: &str) -> io::Result<Section> {
        let &(position, size) = self.files.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Section {
            file: Arc::clone(&self.file),
            position,
            left: size,
        })
    }
}

/// Part of a file.
#[derive(Debug)]
pub(super) struct Section {
    file: Arc<File>,
    position: u64,
    left: u64,
}

impl Section {
    pub(super) fn size(&self) -> u64 {
        self.left
    }
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let count = self.file.read_at(&mut buffer[..most], self.position)?;
        if count == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the archive is cut short",
            ));
        }
        self.position += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}
