//! A cache in a directory: `--cache-to` and `--cache-from` with `type=local`.
//!
//! ```text
//! DIR/rbuild-cache.json      {"version":1}
//! DIR/keys/<2 hex>/<64 hex>  blake3 of the rest in hex, "\n", JSON {keys, step}
//! DIR/blobs/sha256/<hex>     blobs, as in an OCI layout
//! DIR/new-<random>           being written
//! ```
//!
//! Files are written under names of their own and renamed, so any number of writers and readers may use one directory,
//! on any file system that renames atomically. Nothing is locked and nothing synced: a file that a power cut spoiled
//! does not have its digest, and counts as missing. Nothing is ever removed: remove the directory, or files of it that are
//! old, when no build uses it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use oci_spec::image::{Digest, DigestAlgorithm};
use serde::{Deserialize, Serialize};

use super::{BackendError, CacheBackend, CachedStep};
use crate::digest::to_hex;
use crate::key::StepKey;

/// Version of the format.
const VERSION: u32 = 1;

/// The file that says what the directory is.
const MARK: &str = "rbuild-cache.json";

/// What names of files begin with that are being written.
const NEW: &str = "new-";

/// Largest record that is read: parts and layers of one step are kilobytes.
const MAX_RECORD: u64 = 16 << 20;

/// A cache in a directory.
#[derive(Clone, Debug)]
pub struct DirectoryBackend {
    root: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Mark {
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    /// Under which it was written: a file that was moved or copied is none.
    keys: Vec<String>,
    step: CachedStep,
}

impl DirectoryBackend {
    /// Opens a cache for reading.
    pub fn open(root: &Path) -> Result<Self, BackendError> {
        let path = root.join(MARK);
        let mut file = open_regular(&path)?;
        if file.is_none() && is_in_use(root) {
            // Somebody may just have made it one: the mark comes before everything else.
            file = open_regular(&path)?;
            if file.is_none() {
                return Err(BackendError::Format { path });
            }
        }
        let Some(file) = file else {
            return Err(BackendError::Missing {
                path: root.to_owned(),
            });
        };
        let mark: Option<Mark> = serde_json::from_reader(file.take(MAX_RECORD)).ok();
        match mark {
            Some(mark) if mark.version == VERSION => Ok(Self {
                root: root.to_owned(),
            }),
            _ => Err(BackendError::Format { path }),
        }
    }

    /// Opens a cache for writing, and makes it where there is nothing. Several may make it at once.
    pub fn create(root: &Path) -> Result<Self, BackendError> {
        match Self::open(root) {
            Err(BackendError::Missing { .. }) => {}
            result => return result,
        }
        let backend = Self {
            root: root.to_owned(),
        };
        // The mark first: who sees anything else of a cache sees that it is one.
        std::fs::create_dir_all(root).map_err(|source| BackendError::Write {
            path: root.to_owned(),
            source,
        })?;
        let mark = serde_json::to_vec(&Mark { version: VERSION }).unwrap_or_default();
        backend.write(&root.join(MARK), &mut mark.as_slice())?;
        Ok(backend)
    }

    fn record_path(&self, key: &StepKey) -> PathBuf {
        let key = key.to_string();
        self.root.join("keys").join(&key[..2]).join(key)
    }

    /// None for a digest of another algorithm, whose text may be anything.
    fn blob_path(&self, digest: &Digest) -> Option<PathBuf> {
        (*digest.algorithm() == DigestAlgorithm::Sha256)
            .then(|| self.root.join("blobs/sha256").join(digest.digest()))
    }

    /// Writes a file that appears whole or not at all; one of the same name is replaced.
    fn write(&self, path: &Path, bytes: &mut dyn Read) -> Result<(), BackendError> {
        let mut random = [0_u8; 12];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .map_err(BackendError::Random)?;
        let new = self.root.join(format!("{NEW}{}", to_hex(&random)));
        let written = || {
            let mut file = File::create_new(&new)?;
            io::copy(bytes, &mut file)?;
            file.flush()?;
            if let Some(directory) = path.parent() {
                std::fs::create_dir_all(directory)?;
            }
            std::fs::rename(&new, path)
        };
        written_or_removed(written, &new).map_err(|source| BackendError::Write {
            path: path.to_owned(),
            source,
        })
    }
}

fn written_or_removed(write: impl FnOnce() -> io::Result<()>, new: &Path) -> io::Result<()> {
    write().inspect_err(|_| {
        // It is no cache's file yet, and the error that matters is the first.
        let _ = std::fs::remove_file(new);
    })
}

/// True of a directory that holds more than files being written, which is what somebody leaves who died making a cache.
fn is_in_use(path: &Path) -> bool {
    let is_new = |entry: io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| {
            entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(NEW.as_bytes())
        })
    };
    std::fs::read_dir(path).is_ok_and(|mut entries| !entries.all(is_new))
}

/// Opens a regular file. What is a link, a fifo or a device was not put there by a cache.
fn open_regular(path: &Path) -> Result<Option<File>, BackendError> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path);
    let failed = |source| BackendError::Read {
        path: path.to_owned(),
        source,
    };
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed)?,
    };
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(BackendError::Damaged {
            path: path.to_owned(),
        });
    }
    Ok(Some(file))
}

impl CacheBackend for DirectoryBackend {
    fn title(&self) -> String {
        self.root.display().to_string()
    }

    fn lookup(&self, key: &StepKey) -> Result<Option<CachedStep>, BackendError> {
        let path = self.record_path(key);
        let Some(file) = open_regular(&path)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        let read = file.take(MAX_RECORD + 1).read_to_end(&mut bytes);
        read.map_err(|source| BackendError::Read {
            path: path.clone(),
            source,
        })?;
        let parsed = || {
            let end = bytes.iter().position(|&byte| byte == b'\n')?;
            let (checksum, json) = (&bytes[..end], &bytes[end + 1..]);
            let is_whole = checksum == blake3::hash(json).to_hex().as_bytes();
            let entry: Entry = is_whole.then(|| serde_json::from_slice(json).ok())??;
            entry.keys.contains(&key.to_string()).then_some(entry.step)
        };
        match parsed() {
            Some(step) => Ok(Some(step)),
            None => Err(BackendError::Damaged { path }),
        }
    }

    fn fetch(&self, digest: &Digest, size: u64, to: &mut dyn Write) -> Result<(), BackendError> {
        let missing = || BackendError::MissingBlob {
            digest: digest.clone(),
        };
        let path = self.blob_path(digest).ok_or_else(missing)?;
        let file = open_regular(&path)?.ok_or_else(missing)?;
        let mut file = file.take(size);
        let mut buffer = vec![0; 128 << 10];
        loop {
            let count = match file.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(BackendError::Read { path, source }),
            };
            let written = to.write_all(&buffer[..count]);
            written.map_err(|source| BackendError::Receive {
                digest: digest.clone(),
                source,
            })?;
        }
    }

    fn has_blob(&self, digest: &Digest, size: u64) -> Result<bool, BackendError> {
        let Some(path) = self.blob_path(digest) else {
            return Ok(false);
        };
        match std::fs::symlink_metadata(&path) {
            Ok(metadata) => Ok(metadata.is_file() && metadata.len() == size),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(BackendError::Read { path, source }),
        }
    }

    fn publish_blob(&self, digest: &Digest, bytes: &mut dyn Read) -> Result<(), BackendError> {
        let path = self
            .blob_path(digest)
            .ok_or_else(|| BackendError::MissingBlob {
                digest: digest.clone(),
            })?;
        self.write(&path, bytes)
    }

    fn publish(&self, keys: &[StepKey], step: &CachedStep) -> Result<(), BackendError> {
        let entry = Entry {
            keys: keys.iter().map(ToString::to_string).collect(),
            step: step.clone(),
        };
        let json = serde_json::to_vec(&entry).unwrap_or_default();
        let mut bytes = blake3::hash(&json).to_hex().as_bytes().to_vec();
        bytes.push(b'\n');
        bytes.extend_from_slice(&json);
        for key in keys {
            self.write(&self.record_path(key), &mut bytes.as_slice())?;
        }
        Ok(())
    }
}
