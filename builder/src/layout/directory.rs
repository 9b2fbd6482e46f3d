//! A layout in a directory. Names are resolved inside it: a symlink in a layout leads nowhere else.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

#[derive(Debug)]
pub(super) struct Directory {
    root: OwnedFd,
}

impl Directory {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            root: rustix::fs::open(path, flags, Mode::empty())?,
        })
    }

    /// Opens a regular file below the directory.
    pub(super) fn open_file(&self, name: &str) -> io::Result<(File, u64)> {
        // NONBLOCK: a fifo in a blob's place must not hang the build; the file type is checked below.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let opened = match openat2(
            &self.root,
            name,
            flags,
            Mode::empty(),
            ResolveFlags::IN_ROOT,
        ) {
            // Kernels before 5.6: walk by hand and follow no symlink at all.
            Err(Errno::NOSYS) => open_without_links(self.root.as_fd(), name, flags),
            other => other,
        };
        let file = File::from(opened?);
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        Ok((file, metadata.len()))
    }
}

fn open_without_links(
    root: rustix::fd::BorrowedFd<'_>,
    name: &str,
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    let mut parts = name.split('/').peekable();
    let mut directory = rustix::io::dup(root)?;
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return openat(&directory, part, flags | OFlags::NOFOLLOW, Mode::empty());
        }
        let walk = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        directory = openat(&directory, part, walk, Mode::empty())?;
    }
    Err(Errno::NOENT)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_stay_inside_and_odd_files_are_refused() {
        let outside = tempfile::tempdir().expect("a directory");
        std::fs::write(outside.path().join("secret"), "s").expect("a file");
        let inside = tempfile::tempdir().expect("a directory");
        std::fs::write(inside.path().join("index.json"), "{}").expect("a file");
        symlink("index.json", inside.path().join("near")).expect("a link");
        symlink(outside.path().join("secret"), inside.path().join("far")).expect("a link");
        symlink("../../../../../etc/passwd", inside.path().join("up")).expect("a link");
        rustix::fs::mkfifoat(rustix::fs::CWD, inside.path().join("fifo"), Mode::RUSR)
            .expect("a fifo");
        let directory = Directory::open(inside.path()).expect("open");
        assert_eq!(directory.open_file("near").expect("a link inside").1, 2);
        for name in ["far", "up", "fifo", "missing"] {
            assert!(directory.open_file(name).is_err(), "{name}");
        }
        let by_hand = |name| open_without_links(directory.root.as_fd(), name, OFlags::RDONLY);
        assert!(by_hand("index.json").is_ok());
        assert_eq!(by_hand("near").expect_err("a link"), Errno::LOOP);
    }
}
