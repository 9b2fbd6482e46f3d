//! What a sandbox provides, where it can't be mounted: put in place for the time of a command, and taken away again.
//!
//! What was there waits aside and comes back as the same inode. A directory that something was made in gets its time back.
//! The comparison is made while everything is in place, and passes over it: see [`Provided::paths`].

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use super::open_place;
use crate::copy::DIRECTORY;
use crate::error::{JobError, JobErrorKind};
use crate::job::ProvidedFile;
use crate::metadata::{self, FileKind, Metadata, Time};
use crate::node::{self, Attributes};
use crate::root::{self, Last};

/// Devices that every command may count on: name, major and minor.
const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// Where what was there waits, in the scratch directory.
const ASIDE: &str = "aside";

/// Things that were put in place.
#[derive(Debug)]
pub(crate) struct Provided {
    aside: OwnedFd,
    /// In the order in which they were put there.
    placed: Vec<Placed>,
}

#[derive(Debug)]
struct Placed {
    /// In the root, links followed.
    path: Vec<u8>,
    directory: OwnedFd,
    /// Time of the directory before.
    time: Time,
    is_directory: bool,
    /// Under which name what was there waits; none when nothing was.
    waiting: Option<String>,
}

impl Placed {
    fn name(&self) -> &[u8] {
        split(&self.path).1
    }
}

impl Provided {
    /// Puts files and devices into the root.
    pub(crate) fn place(
        root: &OwnedFd,
        scratch: &Path,
        files: &[ProvidedFile],
    ) -> Result<Self, JobError> {
        let aside = scratch.join(ASIDE);
        crate::overlay::make_directory(&aside)?;
        let mut provided = Self {
            aside: open_place(&aside).map_err(|errno| failed(b"", errno))?,
            placed: Vec::new(),
        };
        for (name, major, minor) in DEVICES {
            let path = format!("dev/{name}");
            provided
                .device(root, path.as_bytes(), (major, minor))
                .map_err(|errno| failed(path.as_bytes(), errno))?;
        }
        for file in files {
            provided
                .file(root, file)
                .map_err(|errno| failed(&file.target, errno))?;
        }
        for placed in provided.placed.iter().rev() {
            metadata::set_time(&placed.directory, placed.time)
                .map_err(|errno| failed(&placed.path, errno))?;
        }
        Ok(provided)
    }

    /// What was put in place, directories that were made for it too.
    pub(crate) fn paths(&self) -> BTreeSet<Vec<u8>> {
        self.placed
            .iter()
            .map(|placed| placed.path.clone())
            .collect()
    }

    /// A device; where none may be made, `null` is a file that takes everything, and the others are left out.
    fn device(&mut self, root: &OwnedFd, path: &[u8], numbers: (u32, u32)) -> Result<(), Errno> {
        let (directory, name) = self.make_room(root, path)?;
        let made = rustix::fs::mknodat(
            &directory,
            &name[..],
            FileType::CharacterDevice,
            Mode::from(0o666),
            rustix::fs::makedev(numbers.0, numbers.1),
        );
        match made {
            Ok(()) => {}
            Err(Errno::PERM) if numbers == (1, 3) => {
                drop(node::create_file(directory.as_fd(), &name)?);
            }
            Err(Errno::PERM) => return Ok(()),
            Err(errno) => return Err(errno),
        }
        metadata::set_mode_at(directory.as_fd(), &name, 0o666)
    }

    fn file(&mut self, root: &OwnedFd, file: &ProvidedFile) -> Result<(), Errno> {
        let path = file.target.strip_prefix(b"/").unwrap_or(&file.target);
        let (directory, name) = self.make_room(root, path)?;
        let mut made = node::create_file(directory.as_fd(), &name)?;
        std::io::Write::write_all(&mut made, &file.content).map_err(|error| root::errno(&error))?;
        node::set(
            made.as_fd(),
            &Attributes {
                mode: file.mode,
                uid: file.uid,
                gid: file.gid,
                mtime: None,
                xattrs: &[],
            },
        )
    }

    /// Makes missing directories, and moves what is at the path aside.
    fn make_room(&mut self, root: &OwnedFd, path: &[u8]) -> Result<(OwnedFd, Vec<u8>), Errno> {
        let (parent, name) = split(path);
        let mut directory = rustix::io::dup(root)?;
        let mut at = Vec::new();
        for step in parent
            .split(|byte| *byte == b'/')
            .filter(|step| !step.is_empty())
        {
            let next = join(&at, step);
            // Links are followed as the command would: `/etc` of some images is one.
            let found = root::locate(root.as_fd(), &next, Last::Follow)
                .map(|located| located.path().as_bytes().to_vec())
                .and_then(|path| Ok((root::open_beneath(root.as_fd(), &path, DIRECTORY)?, path)));
            (directory, at) = match found {
                Ok(found) => found,
                Err(Errno::NOENT) => {
                    self.note(&directory, next.clone(), true)?;
                    node::create_directory_with(directory.as_fd(), step, 0o755, (0, 0))?;
                    (node::open_directory(directory.as_fd(), step)?, next)
                }
                Err(errno) => return Err(errno),
            };
        }
        self.note(&directory, join(&at, name), false)?;
        Ok((directory, name.to_vec()))
    }

    /// Notes that something is made at `path` in `directory`, and moves what is there aside.
    fn note(
        &mut self,
        directory: &OwnedFd,
        path: Vec<u8>,
        is_directory: bool,
    ) -> Result<(), Errno> {
        let time = Metadata::of_fd(directory)?.mtime;
        let number = self.placed.len().to_string();
        let name = split(&path).1;
        let waiting = match rustix::fs::renameat(directory, name, &self.aside, number.as_bytes()) {
            Ok(()) => Some(number),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(errno),
        };
        self.placed.push(Placed {
            path,
            directory: rustix::io::dup(directory)?,
            time,
            is_directory,
            waiting,
        });
        Ok(())
    }

    /// Takes everything away again, newest first, whatever the command made of it, and puts back what was there.
    pub(crate) fn undo(mut self) -> Result<(), JobError> {
        while let Some(placed) = self.placed.pop() {
            placed
                .undo(&self.aside)
                .map_err(|errno| failed(&placed.path, errno))?;
        }
        Ok(())
    }
}

impl Placed {
    fn undo(&self, aside: &OwnedFd) -> Result<(), Errno> {
        let directory = Metadata::of_fd(&self.directory)?;
        if directory.links == 0 {
            return Ok(()); // the command removed it, with all that was in it
        }
        let is_one = Metadata::of_name(self.directory.as_fd(), self.name())
            .is_ok_and(|metadata| metadata.kind == FileKind::Directory);
        if self.is_directory && is_one {
            // One that the command put something into is the command's by now.
            match rustix::fs::unlinkat(&self.directory, self.name(), AtFlags::REMOVEDIR) {
                Ok(()) => {}
                Err(Errno::NOTEMPTY | Errno::EXIST) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        } else {
            node::remove_all(self.directory.as_fd(), self.name())?;
        }
        if let Some(waiting) = &self.waiting {
            rustix::fs::renameat(aside, waiting.as_bytes(), &self.directory, self.name())?;
        }
        // What the command changed in it is told by its time.
        metadata::set_time(&self.directory, directory.mtime)
    }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() {
        name.to_vec()
    } else {
        [directory, b"/", name].concat()
    }
}

fn failed(path: &[u8], errno: Errno) -> JobError {
    JobError::from_errno(JobErrorKind::Sandbox, "cannot provide", errno).at(path)
}
