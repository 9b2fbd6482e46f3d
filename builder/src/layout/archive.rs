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
    /// Name of a symbolic or hard link → the name of another member. Only [`Archive::open_linked`] follows them.
    links: HashMap<String, String>,
}

/// Why an archive is not readable as one.
#[derive(Debug)]
pub(super) enum ArchiveError {
    NotTar(&'static str),
    Io(io::Error),
}

impl ArchiveError {
    /// What is no error of the kernel is one of the content.
    fn of_reading(error: io::Error) -> Self {
        if error.raw_os_error().is_some() {
            Self::Io(error)
        } else {
            Self::NotTar("it is no tar archive, or was cut short")
        }
    }

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
        let mut links = HashMap::new();
        let mut archive = tar::Archive::new(&file);
        for entry in archive.entries_with_seek().map_err(ArchiveError::Io)? {
            let entry = entry.map_err(ArchiveError::of_reading)?;
            let kind = entry.header().entry_type();
            let is_link = kind.is_symlink() || kind.is_hard_link();
            if !kind.is_file() && !is_link {
                continue;
            }
            if files.len() + links.len() >= MAX_FILES {
                return Err(ArchiveError::NotTar("it has more files than any layout"));
            }
            let name = entry.path_bytes();
            let Ok(name) = std::str::from_utf8(&name) else {
                continue;
            };
            let name = name.strip_prefix("./").unwrap_or(name).to_owned();
            if is_link {
                let target = entry.link_name_bytes();
                let target = target
                    .as_deref()
                    .and_then(|text| std::str::from_utf8(text).ok());
                let from = if kind.is_symlink() { name.as_str() } else { "" };
                if let Some(target) = target.and_then(|target| beside(from, target)) {
                    links.insert(name, target);
                }
                continue;
            }
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
            links,
        })
    }

    /// The same as [`Archive::open_file`] for a name that may be a link to another member.
    pub(super) fn open_linked(&self, name: &str, most: usize) -> io::Result<Section> {
        let mut name = name.strip_prefix("./").unwrap_or(name);
        for _ in 0..most {
            match self.links.get(name) {
                Some(target) if !self.files.contains_key(name) => name = target,
                _ => break,
            }
        }
        self.open_file(name)
    }

    pub(super) fn open_file(&self, name: &str) -> io::Result<Section> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, "it is not in the archive");
        let &(position, size) = self.files.get(name).ok_or_else(missing)?;
        Ok(Section {
            file: Arc::clone(&self.file),
            position,
            left: size,
        })
    }
}

/// The member that a link names: the target is relative to the link's directory. None when it leads out of the archive.
fn beside(link: &str, target: &str) -> Option<String> {
    let directory = link.rsplit_once('/').map_or("", |(directory, _)| directory);
    let mut parts: Vec<&str> = Vec::new();
    for part in directory.split('/').chain(target.split('/')) {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop()?,
            part => parts.push(part),
        }
    }
    Some(parts.join("/")).filter(|_| !target.starts_with('/'))
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
