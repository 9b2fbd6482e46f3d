//! The one way from a snapshot directory to a layer tar; sealing and packing both go through it, so that a `diff_id` can
//! be proved again at any time.
//!
//! Byte order of paths, parents first. Overlayfs's marks become `.wh.` entries: a `c 0:0` device or an empty file with
//! `user.overlay.whiteout` is a deletion, `user.overlay.opaque=y` an opaque directory; its other attributes are
//! dropped, escaped ones are unescaped, sockets are left out. Files are read once: the same buffer feeds the tar and
//! the file's own BLAKE3.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::fd::BorrowedFd;

use crate::container_path::ContainerPath;
use crate::job::{LayerEntry, LayerEntryKind};
use crate::layer_root;
use crate::metadata::{FileKind, Metadata};
use crate::root::{FileError, errno};
use crate::tar_writer::{TarWriter, WHITEOUT_PREFIX};
use crate::walk::{self, Entry, Filter};
use crate::xattr::{self, Xattr};

/// One read; also large enough for BLAKE3's widest vectors.
const BUFFER: usize = 256 * 1024;

/// Why a snapshot can't be written as a layer.
#[derive(Debug, thiserror::Error)]
pub enum LayerTarError {
    /// A system call failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The name means a deletion in a layer.
    #[error("`{path}` can't be in a layer: names that begin with `.wh.` mark deletions")]
    ReservedName {
        /// Of the file.
        path: ContainerPath,
    },
    /// Overlayfs kept part of the file elsewhere.
    #[error("`{path}` has the overlay attribute `{attribute}`, which refers to another layer")]
    Redirect {
        /// Of the file.
        path: ContainerPath,
        /// Its name.
        attribute: String,
    },
    /// It had another size when it was read.
    #[error("`{path}` changed while it was read")]
    Changed {
        /// Of the file.
        path: ContainerPath,
    },
    /// The tar could not be written.
    #[error("cannot write the layer at `{path}`")]
    Write {
        /// The entry that was being written.
        path: ContainerPath,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// How the tree is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// A snapshot or upper directory with overlayfs's marks.
    Snapshot,
    /// A merged file system: everything is what it looks like, and the root is written too.
    Merged,
}

/// Whether the entries get the digests of their files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Digests {
    Taken,
    /// Of who wants the tar alone: all are zeros.
    LeftOut,
}

/// Writes the tree beneath `directory` as a tar. Returns the entries and the tar's size.
pub(crate) fn write(
    directory: BorrowedFd<'_>,
    view: View,
    clamp: Option<i64>,
    digests: Digests,
    out: impl Write,
) -> Result<(Vec<LayerEntry>, u64), LayerTarError> {
    let mut layer = Layer {
        view,
        clamp,
        digests,
        tar: TarWriter::new(out),
        entries: Vec::new(),
        first_names: HashMap::new(),
        buffer: vec![0; BUFFER],
    };
    layer.root(directory)?;
    walk::walk(directory, |_, _| Filter::Take, |entry| layer.entry(entry))?;
    let size = layer.tar.finish().map_err(|source| LayerTarError::Write {
        path: ContainerPath::default(),
        source,
    })?;
    Ok((layer.entries, size))
}

struct Layer<W> {
    view: View,
    clamp: Option<i64>,
    digests: Digests,
    tar: TarWriter<W>,
    entries: Vec<LayerEntry>,
    /// The name under which an inode with several was written.
    first_names: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
}

impl<W: Write> Layer<W> {
    fn root(&mut self, directory: BorrowedFd<'_>) -> Result<(), LayerTarError> {
        let fail = |errno| FileError::at("read", b"")(errno);
        if self.view == View::Snapshot && !layer_root::has_mark(directory).map_err(fail)? {
            return Ok(());
        }
        let metadata = Metadata::of_fd(directory).map_err(fail)?;
        let (xattrs, own) = self.split(xattr::list(directory).map_err(fail)?);
        let kind = LayerEntryKind::Directory {
            is_opaque: is_opaque(&own),
        };
        self.append(described(b"", kind, &metadata, xattrs))
    }

    fn split(&self, raw: Vec<Xattr>) -> (Vec<Xattr>, Vec<Xattr>) {
        match self.view {
            View::Snapshot => xattr::split(raw),
            View::Merged => (
                raw.into_iter()
                    .filter(|(name, _)| xattr::is_kept(name))
                    .collect(),
                Vec::new(),
            ),
        }
    }

    fn entry(&mut self, entry: &Entry<'_>) -> Result<(), LayerTarError> {
        let metadata = &entry.metadata;
        if metadata.kind == FileKind::Socket {
            return Ok(()); // they mean nothing without their process; every tar program leaves them out
        }
        if self.view == View::Snapshot && metadata.is_whiteout_device() {
            return self.append(whiteout(entry.path()));
        }
        if entry.name().starts_with(WHITEOUT_PREFIX) {
            return Err(LayerTarError::ReservedName {
                path: entry.path().into(),
            });
        }
        let (xattrs, own) = self.split(entry.xattrs()?);
        for (name, _) in &own {
            if matches!(
                name.strip_prefix(xattr::OVERLAY_PREFIX),
                Some(b"redirect" | b"metacopy")
            ) {
                let attribute = String::from_utf8_lossy(name).into_owned();
                return Err(LayerTarError::Redirect {
                    path: entry.path().into(),
                    attribute,
                });
            }
        }
        let kind = match metadata.kind {
            FileKind::Directory => LayerEntryKind::Directory {
                is_opaque: is_opaque(&own),
            },
            FileKind::File => {
                if metadata.size == 0 && own.iter().any(|(name, _)| name == xattr::WHITEOUT) {
                    return self.append(whiteout(entry.path()));
                }
                return self.file(entry, xattrs);
            }
            FileKind::Symlink => LayerEntryKind::Symlink {
                target: entry.read_link()?,
            },
            FileKind::CharDevice => LayerEntryKind::CharDevice {
                major: metadata.numbers.0,
                minor: metadata.numbers.1,
            },
            FileKind::BlockDevice => LayerEntryKind::BlockDevice {
                major: metadata.numbers.0,
                minor: metadata.numbers.1,
            },
            FileKind::Fifo => LayerEntryKind::Fifo,
            FileKind::Socket => unreachable!("sockets returned above"),
        };
        self.append(described(entry.path(), kind, metadata, xattrs))
    }

    fn file(&mut self, entry: &Entry<'_>, xattrs: Vec<Xattr>) -> Result<(), LayerTarError> {
        let metadata = &entry.metadata;
        if metadata.links > 1 {
            if let Some(target) = self.first_names.get(&metadata.identity()) {
                let kind = LayerEntryKind::HardLink {
                    target: target.clone(),
                };
                return self.append(described(entry.path(), kind, metadata, xattrs));
            }
            self.first_names
                .insert(metadata.identity(), entry.path().to_vec());
        }
        let size = metadata.size;
        let kind = LayerEntryKind::File {
            size,
            digest: [0; 32],
        };
        let mut described = described(entry.path(), kind, metadata, xattrs);
        let write = |source| LayerTarError::Write {
            path: entry.path().into(),
            source,
        };
        self.tar.append(&described, self.clamp).map_err(write)?;
        let mut hasher = (self.digests == Digests::Taken).then(blake3::Hasher::new);
        if size > 0 {
            let file = entry.open()?;
            let now = Metadata::of_fd(&file).map_err(FileError::at("stat", entry.path()))?;
            if now.identity() != metadata.identity() {
                return Err(LayerTarError::Changed {
                    path: entry.path().into(),
                });
            }
            let mut file = std::fs::File::from(file).take(size);
            let mut left = size;
            while left > 0 {
                let length = file
                    .read(&mut self.buffer)
                    .map_err(|error| FileError::at("read", entry.path())(errno(&error)))?;
                if length == 0 {
                    return Err(LayerTarError::Changed {
                        path: entry.path().into(),
                    });
                }
                if let Some(hasher) = &mut hasher {
                    hasher.update(&self.buffer[..length]);
                }
                self.tar.write_all(&self.buffer[..length]).map_err(write)?;
                left -= length as u64;
            }
            self.tar.pad(size).map_err(write)?;
        }
        described.kind = LayerEntryKind::File {
            size,
            digest: hasher.map_or([0; 32], |hasher| *hasher.finalize().as_bytes()),
        };
        self.entries.push(described);
        Ok(())
    }

    fn append(&mut self, entry: LayerEntry) -> Result<(), LayerTarError> {
        self.tar
            .append(&entry, self.clamp)
            .map_err(|source| LayerTarError::Write {
                path: (&entry.path).into(),
                source,
            })?;
        self.entries.push(entry);
        Ok(())
    }
}

fn described(
    path: &[u8],
    kind: LayerEntryKind,
    metadata: &Metadata,
    xattrs: Vec<Xattr>,
) -> LayerEntry {
    let mode = if metadata.kind == FileKind::Symlink {
        0o777
    } else {
        metadata.mode
    };
    LayerEntry {
        path: path.to_vec(),
        kind,
        mode,
        uid: metadata.uid,
        gid: metadata.gid,
        mtime: metadata.mtime.seconds,
        mtime_nanos: metadata.mtime.nanos,
        xattrs,
    }
}

/// A deletion has no metadata of its own: overlayfs shares one inode among many, whose times say nothing.
pub(crate) fn whiteout(path: &[u8]) -> LayerEntry {
    LayerEntry {
        path: path.to_vec(),
        kind: LayerEntryKind::Whiteout,
        mode: 0,
        uid: 0,
        gid: 0,
        mtime: 0,
        mtime_nanos: 0,
        xattrs: Vec::new(),
    }
}

/// `x` means that xattr whiteouts are inside, not that the directory is opaque.
fn is_opaque(own: &[Xattr]) -> bool {
    own.iter()
        .any(|(name, value)| name == xattr::OPAQUE && value == b"y")
}
