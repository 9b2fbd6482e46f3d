//! How much room trees take on their disk, whatever they hold: names are bytes, depth costs neither stack nor
//! descriptors, no symlink is followed, and what another process removes meanwhile is not counted.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::job::{LinkedFile, TreeSize};
use crate::metadata::{FileKind, Metadata};
use crate::root::FileError;
use crate::walk::{self, Filter};

/// Measures each of `paths` by itself, the top included. One that is not there has no size.
pub fn measure(paths: &[PathBuf]) -> Result<Vec<TreeSize>, FileError> {
    paths.iter().map(|path| measure_one(path)).collect()
}

fn measure_one(path: &Path) -> Result<TreeSize, FileError> {
    let mut size = TreeSize::default();
    let top = match rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Metadata::from(&stat),
        Err(Errno::NOENT) => return Ok(size),
        Err(errno) => return Err(FileError::at_host("stat", path)(errno)),
    };
    add(&mut size, &top);
    if top.kind != FileKind::Directory {
        return Ok(size);
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match rustix::fs::open(path, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(size),
        directory => directory.map_err(FileError::at_host("open", path))?,
    };
    let walked = walk::walk(
        directory.as_fd(),
        |_, _| Filter::Take,
        |entry| {
            // As `du -x`: what is mounted here is not part of this disk.
            if entry.metadata.device == top.device {
                add(&mut size, &entry.metadata);
            }
            Ok::<_, FileError>(())
        },
    );
    match walked {
        // A directory in use was moved while the walk was deep in it: the rest is counted another time.
        Err(error) if matches!(error.source, Errno::NOENT | Errno::STALE) => Ok(size),
        walked => walked.map(|()| size),
    }
}

fn add(size: &mut TreeSize, metadata: &Metadata) {
    size.files += 1;
    if metadata.links > 1 && metadata.kind != FileKind::Directory {
        size.linked.push(LinkedFile {
            device: metadata.device,
            inode: metadata.inode,
            bytes: metadata.allocated,
        });
    } else {
        size.bytes += metadata.allocated;
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, SeekFrom, Write as _};
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    /// What `du -sx` says.
    fn du(path: &Path) -> u64 {
        let output = std::process::Command::new("du")
            .args(["-sx", "--block-size=1"])
            .arg(path)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        text.split_whitespace().next().unwrap().parse().unwrap()
    }

    #[test]
    fn sizes_are_those_of_du_with_holes_links_and_hostile_names() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::write(root.join("plain"), vec![1; 100_000]).unwrap();
        let mut sparse = std::fs::File::create(root.join("sparse")).unwrap();
        sparse.seek(SeekFrom::Start(50 << 20)).unwrap();
        sparse.write_all(b"end").unwrap();
        std::fs::hard_link(root.join("plain"), root.join("linked")).unwrap();
        std::os::unix::fs::symlink("/", root.join("root")).unwrap();
        let hostile = std::ffi::OsStr::from_bytes(b"\xff\n\x1b[2J; rm -rf");
        std::fs::create_dir(root.join(hostile)).unwrap();
        std::fs::write(root.join(hostile).join("x"), "x").unwrap();
        let mut deep = root.join("deep");
        for _ in 0..300 {
            std::fs::create_dir(&deep).unwrap();
            deep.push("directory");
        }
        sparse.sync_all().unwrap();
        let sizes = measure(&[root.to_owned(), root.join("missing"), root.join("plain")]).unwrap();
        let linked: u64 = sizes[0].linked.iter().map(|file| file.bytes).sum();
        assert_eq!(sizes[0].linked.len(), 2);
        assert_eq!(sizes[0].bytes + linked / 2, du(root));
        assert_eq!(sizes[1], TreeSize::default());
        let plain = std::fs::metadata(root.join("plain")).unwrap();
        assert_eq!(sizes[2].linked[0].bytes, plain.blocks() * 512);
    }
}
