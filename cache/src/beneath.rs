//! Looking at files beneath a directory by paths that nobody vouches for.
//!
//! An entry table comes from an image: a path in it, or a symlink that stands in the snapshot by now, must not lead this
//! process out of the snapshot. No symlink is followed, and every part of a path is opened in the one before it.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat};
use rustix::io::Errno;

/// A directory, and the one beneath it that was looked into last: entry tables are in order, so mostly the next too.
#[derive(Debug)]
pub(crate) struct Beneath {
    root: OwnedFd,
    last: Option<(Vec<u8>, OwnedFd)>,
}

/// Enough to go on from, without reading anything.
const DIRECTORY: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

impl Beneath {
    /// Opens the directory.
    pub(crate) fn open(root: &Path) -> Result<Self, Errno> {
        Ok(Self {
            root: rustix::fs::openat(CWD, root, DIRECTORY, Mode::empty())?,
            last: None,
        })
    }

    /// What is at `path`, which is relative; the empty one is the directory itself. A `..`, or a symlink on the way, is an
    /// error.
    pub(crate) fn stat(&mut self, path: &[u8]) -> Result<Stat, Errno> {
        let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&path[..0], path),
        };
        if name == b".." {
            return Err(Errno::XDEV);
        }
        if name.is_empty() {
            return rustix::fs::fstat(&self.root);
        }
        let is_known = matches!(&self.last, Some((known, _)) if known == parent);
        if !is_known {
            self.last = Some((parent.to_vec(), self.directory(parent)?));
        }
        let directory = self.last.as_ref().map_or(&self.root, |(_, fd)| fd);
        rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    fn directory(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let mut at = rustix::fs::openat(&self.root, ".", DIRECTORY, Mode::empty())?;
        for part in path.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => return Err(Errno::XDEV),
                part => at = rustix::fs::openat(&at, part, DIRECTORY, Mode::empty())?,
            }
        }
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leads_out() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(root.join("a/b/file"), "four").unwrap();
        std::fs::write(dir.path().join("outside"), "secret").unwrap();
        std::os::unix::fs::symlink("..", root.join("up")).unwrap();
        std::os::unix::fs::symlink("b", root.join("a/link")).unwrap();
        let mut beneath = Beneath::open(&root).unwrap();
        assert_eq!(beneath.stat(b"a/b/file").unwrap().st_size, 4);
        assert_eq!(beneath.stat(b"a/b/file").unwrap().st_size, 4);
        assert!(beneath.stat(b"").is_ok());
        for path in [
            "../outside",
            "..",
            "a/../../outside",
            "up/outside",
            "a/link/file",
            "a/b/file/x",
            "missing",
        ] {
            assert!(beneath.stat(path.as_bytes()).is_err(), "{path}");
        }
        assert!(beneath.stat(b"a/link").is_ok(), "the link itself");
    }
}
