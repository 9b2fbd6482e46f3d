//! Blobs: immutable bytes under their sha256, checked on the way in and on the way out.
//!
//! ```text
//! blobs/sha256/<hex>
//! ```
//!
//! A blob is written to a temporary file of a lease while it is hashed, then renamed into place in the transaction
//! that adds its row. It counts as present when the row is there and the file has the row's size; anything else is
//! the rest of a crash or damage, and the next commit of the same bytes replaces it. Nothing is synced here:
//! [`Store::sync`] does that once.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use oci_spec::image::{Digest, DigestAlgorithm};
use sha2::{Digest as _, Sha256};

use crate::db::{DbError, Unsynced};
use crate::digest::sha256_digest;
use crate::failpoint::reach;
use crate::lease::{Lease, LeaseError};
use crate::lock::StandingLock;
use crate::store::{Store, now};

/// Why a blob could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlobError {
    /// Only sha256 blobs are kept.
    #[error("cannot keep blob `{digest}`: only sha256 is supported")]
    Algorithm {
        /// The digest asked for.
        digest: Digest,
    },
    /// The store does not have it.
    #[error("the store has no blob `{digest}`")]
    Missing {
        /// Its digest.
        digest: Digest,
    },
    /// The bytes are not what they should be.
    #[error("blob has digest `{actual}`, expected `{expected}`")]
    WrongDigest {
        /// What was asked for.
        expected: Digest,
        /// What the bytes have.
        actual: Digest,
    },
    /// It is larger than the caller wants in memory.
    #[error("blob `{digest}` has {size} bytes, more than the limit of {limit}")]
    TooLarge {
        /// Its digest.
        digest: Digest,
        /// Its size.
        size: u64,
        /// The caller's limit.
        limit: u64,
    },
    /// The file could not be made, written or moved.
    #[error("cannot write blob `{path}`")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file could not be read, or is damaged: then the source is a [`VerifyError`].
    #[error("cannot read blob `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The lease has no place to write it.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The database did not answer.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// How bytes differ from what was promised; inside the [`io::Error`] of a [`VerifiedReader`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// They end too early.
    #[error("`{digest}` ends after {actual} of {expected} bytes")]
    Truncated {
        /// The digest promised.
        digest: Digest,
        /// The size promised.
        expected: u64,
        /// Bytes there were.
        actual: u64,
    },
    /// They go on.
    #[error("`{digest}` is longer than {expected} bytes")]
    TooLong {
        /// The digest promised.
        digest: Digest,
        /// The size promised.
        expected: u64,
    },
    /// They are others.
    #[error("bytes have digest `{actual}`, expected `{expected}`")]
    WrongDigest {
        /// The digest promised.
        expected: Digest,
        /// The digest found.
        actual: Digest,
    },
}

/// A blob of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its digest.
    pub digest: Digest,
    /// Its size.
    pub size: u64,
}

/// Bytes read of a blob at once: who copies by [`io::copy`] asks for 8 KiB at a time.
const READ_BUFFER: usize = 256 << 10;

/// Writes a blob; nothing is in the store before [`commit`](Self::commit).
///
/// The errors of its `Write` hold a [`BlobError::Write`] that names the path.
#[derive(Debug)]
pub struct BlobWriter {
    lease: Lease,
    file: File,
    path: PathBuf,
    hasher: Sha256,
    size: u64,
}

impl BlobWriter {
    pub(crate) fn create(lease: Lease, path: PathBuf) -> Result<Self, BlobError> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|source| BlobError::Write {
                path: path.clone(),
                source,
            })?;
        Ok(Self {
            lease,
            file,
            path,
            hasher: Sha256::new(),
            size: 0,
        })
    }

    /// Bytes written so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Puts the blob in the store, if it has the digest expected.
    ///
    /// `Ok` means that the store has the blob, not that this call put it there.
    pub fn commit(self, expected: Option<&Digest>) -> Result<BlobInfo, BlobError> {
        let digest = sha256_digest(self.hasher.clone());
        if let Some(expected) = expected.filter(|expected| **expected != digest) {
            require_sha256(expected)?;
            return Err(BlobError::WrongDigest {
                expected: expected.clone(),
                actual: digest,
            });
        }
        let store = self.lease.store();
        let target = store.blob_path(&digest);
        // Held before it can be seen, or a pruning process might take it first.
        let _gc = StandingLock::shared(&store.inner.gc_lock()).map_err(LeaseError::from)?;
        self.lease.hold_new_blob(&digest)?;
        let is_ours = store.inner.db.write(|tables| {
            if is_present(&target, tables.blob_size(digest.as_ref())?) {
                return Ok::<_, BlobError>(false);
            }
            reach("blob-before-rename");
            std::fs::rename(&self.path, &target).map_err(|source| BlobError::Write {
                path: target.clone(),
                source,
            })?;
            reach("blob-renamed");
            tables.put_blob(digest.as_ref(), self.size, now())?;
            tables.add_unsynced(&store.inner.boot, &Unsynced::Blob(digest.to_string()))?;
            Ok(true)
        })?;
        reach("blob-committed");
        if is_ours {
            store.inner.mark_dirty();
        }
        Ok(BlobInfo {
            digest,
            size: self.size,
        })
    }
}

impl Write for BlobWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.file.write(buffer).map_err(|source| {
            let kind = source.kind();
            io::Error::new(
                kind,
                BlobError::Write {
                    path: self.path.clone(),
                    source,
                },
            )
        })?;
        self.hasher.update(&buffer[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        // Gone already when it was committed; otherwise the lease removes it at the latest.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Yields bytes and fails if they are not those of a digest: early when there are too many, at the end when there
/// are too few or others. Whoever reads to the end needs no check of their own.
#[derive(Debug)]
pub struct VerifiedReader<R> {
    reader: R,
    digest: Digest,
    size: u64,
    seen: u64,
    hasher: Sha256,
    is_verified: bool,
    /// Told when the bytes turn out to be wrong.
    store: Option<Store>,
}

impl<R: Read> VerifiedReader<R> {
    /// Wraps a reader whose bytes should have this digest and size.
    pub fn new(reader: R, digest: &Digest, size: u64) -> Result<Self, BlobError> {
        require_sha256(digest)?;
        Ok(Self {
            reader,
            digest: digest.clone(),
            size,
            seen: 0,
            hasher: Sha256::new(),
            is_verified: false,
            store: None,
        })
    }

    /// The size promised.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// True once the end was reached and the digest was right.
    pub fn is_verified(&self) -> bool {
        self.is_verified
    }

    /// Has the store forget the blob: the next one who needs it fetches it or makes it anew.
    fn invalid(&self, damage: VerifyError) -> io::Error {
        if let Some(store) = &self.store
            && let Err(error) = store.forget_blob(&self.digest)
        {
            tracing::warn!(digest = %self.digest, %error, "a damaged blob could not be forgotten");
        }
        io::Error::new(io::ErrorKind::InvalidData, damage)
    }

    fn finish(&mut self) -> Result<(), VerifyError> {
        if self.seen < self.size {
            let (expected, actual) = (self.size, self.seen);
            return Err(VerifyError::Truncated {
                digest: self.digest.clone(),
                expected,
                actual,
            });
        }
        let actual = sha256_digest(self.hasher.clone());
        if actual != self.digest {
            return Err(VerifyError::WrongDigest {
                expected: self.digest.clone(),
                actual,
            });
        }
        self.is_verified = true;
        Ok(())
    }
}

impl<R: Read> Read for VerifiedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.is_verified {
            return Ok(0);
        }
        let length = self.reader.read(buffer)?;
        if length == 0 {
            self.finish().map_err(|damage| self.invalid(damage))?;
            return Ok(0);
        }
        self.seen += length as u64;
        if self.seen > self.size {
            return Err(self.invalid(VerifyError::TooLong {
                digest: self.digest.clone(),
                expected: self.size,
            }));
        }
        self.hasher.update(&buffer[..length]);
        Ok(length)
    }
}

fn require_sha256(digest: &Digest) -> Result<(), BlobError> {
    match digest.algorithm() {
        DigestAlgorithm::Sha256 => Ok(()),
        _ => Err(BlobError::Algorithm {
            digest: digest.clone(),
        }),
    }
}

/// True when a blob's file agrees with its row.
fn is_present(path: &Path, size: Option<u64>) -> bool {
    size.is_some_and(|size| {
        std::fs::symlink_metadata(path).is_ok_and(|file| file.is_file() && file.len() == size)
    })
}

impl Store {
    /// Where a blob is, if it is there. What reads it without a [`VerifiedReader`] must verify it.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        // A digest of another algorithm is never kept, but its text must not name another place either.
        let is_sha256 = require_sha256(digest).is_ok();
        let name = if is_sha256 {
            digest.digest()
        } else {
            "unsupported"
        };
        self.inner.blobs.join(name)
    }

    /// True when the store has a blob, whole as far as its size tells.
    ///
    /// A database that does not answer counts as no: the commit that follows says why.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.blob_size(digest).is_ok()
    }

    /// Size of a blob that the store has.
    pub fn blob_size(&self, digest: &Digest) -> Result<u64, BlobError> {
        require_sha256(digest)?;
        let size = self
            .inner
            .db
            .read(|tables| tables.blob_size(digest.as_ref()))?;
        match size {
            Some(size) if is_present(&self.blob_path(digest), Some(size)) => Ok(size),
            _ => Err(BlobError::Missing {
                digest: digest.clone(),
            }),
        }
    }

    /// Takes a damaged blob out of the store: it counts as missing, and is fetched or made again by who needs it.
    pub fn forget_blob(&self, digest: &Digest) -> Result<(), BlobError> {
        require_sha256(digest)?;
        let path = self.blob_path(digest);
        // Who checks the store sees it before or after this.
        let _gc = StandingLock::shared(&self.inner.gc_lock()).map_err(LeaseError::from)?;
        // Both in one transaction, or what another process has just put there would go.
        self.inner.db.write(|tables| {
            tables.remove_blob(digest.as_ref())?;
            match std::fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    Err(BlobError::Write { path, source })
                }
                _ => Ok(()),
            }
        })
    }

    /// Opens a blob for reading; its bytes are verified on the way, and a blob that turns out to be damaged is forgotten.
    pub fn open_blob(&self, digest: &Digest) -> Result<VerifiedReader<BufReader<File>>, BlobError> {
        require_sha256(digest)?;
        let size = self
            .inner
            .db
            .read(|tables| tables.blob_size(digest.as_ref()))?;
        let size = size.ok_or_else(|| BlobError::Missing {
            digest: digest.clone(),
        })?;
        let path = self.blob_path(digest);
        match File::open(&path) {
            Ok(file) => {
                let file = BufReader::with_capacity(READ_BUFFER, file);
                let mut reader = VerifiedReader::new(file, digest, size)?;
                reader.store = Some(self.clone());
                Ok(reader)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(BlobError::Missing {
                digest: digest.clone(),
            }),
            Err(source) => Err(BlobError::Read { path, source }),
        }
    }

    /// Reads and verifies a whole blob of at most `limit` bytes.
    pub fn read_blob(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, BlobError> {
        let mut reader = self.open_blob(digest)?;
        let size = reader.size();
        if size > limit {
            return Err(BlobError::TooLarge {
                digest: digest.clone(),
                size,
                limit,
            });
        }
        let mut bytes = Vec::new();
        match reader.read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(source) => Err(BlobError::Read {
                path: self.blob_path(digest),
                source,
            }),
        }
    }
}
