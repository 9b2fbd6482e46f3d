//! Packs a snapshot directory as a layer blob: tar, compression and digests in one pass, and proof that the snapshot
//! still is what its `diff_id` says.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use sha2::Sha256;

use crate::aside::Aside;
use crate::job::{Compression, PackJob, PackOutcome};
use crate::layer_tar::{self, Digests, LayerTarError, View};
use crate::root::{FileError, open_root};
use crate::{decompress, gzip, sha256};

/// More threads than this do not help: the tar is produced by one.
const MAX_THREADS: usize = 16;

/// Bytes read at a time from a compressed blob.
const READ_BUFFER: usize = 256 << 10;

/// Why a snapshot could not be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The snapshot can't be opened.
    #[error(transparent)]
    File(#[from] FileError),
    /// The snapshot can't be written as a layer.
    #[error(transparent)]
    Layer(#[from] LayerTarError),
    /// The output can't be written.
    #[error("cannot write the packed layer")]
    Write(#[from] io::Error),
    /// The snapshot is damaged: it is not what was once sealed.
    #[error(
        "the snapshot of layer `{expected}` is damaged: its files now have the diff_id `{found}`"
    )]
    Corrupt {
        /// What it was.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A blob that does not hold the layer that it should.
    #[error("the blob of layer `{expected}` holds another tar, with the diff_id `{found}`")]
    OtherTar {
        /// What it should hold.
        expected: String,
        /// What it holds.
        found: String,
    },
}

/// Writes the snapshot's layer to `out`. On an error what was written is of no use.
///
/// With a clamp the tar differs from the recorded one where a time is later; then the recorded `diff_id` is computed
/// beside it, in the same pass.
pub fn pack(job: &PackJob, out: impl Write + Send) -> Result<PackOutcome, PackError> {
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(MAX_THREADS);
    pack_with(job, out, threads)
}

fn pack_with(
    job: &PackJob,
    out: impl Write + Send,
    threads: usize,
) -> Result<PackOutcome, PackError> {
    let directory = open_root(&job.snapshot)?;
    if job.clamp.is_some() {
        // Two tars of one tree: the clamped one goes out, the true one is proof. Reading twice costs a second pass
        // over cached files and only where `rewrite-timestamp` is asked for.
        let mut proof = Hashed::new(io::sink());
        layer_tar::write(
            directory.as_fd(),
            View::Snapshot,
            None,
            Digests::LeftOut,
            &mut proof,
        )?;
        check(job, sha256::text(proof.hasher.finish()))?;
    }
    if job.compression == Compression::None {
        return write_plain(job, directory.as_fd(), out);
    }
    let mut packed = Hashed::new(out);
    let tar = |out: &mut dyn Write| -> Result<String, PackError> {
        let mut hashed = Hashed::new(out);
        layer_tar::write(
            directory.as_fd(),
            View::Snapshot,
            job.clamp,
            Digests::LeftOut,
            &mut hashed,
        )?;
        Ok(sha256::text(hashed.hasher.finish()))
    };
    let diff_id = compress(job.compression, threads, &mut packed, tar)?;
    packed.flush()?;
    if job.clamp.is_none() {
        check(job, diff_id.clone())?;
    }
    Ok(PackOutcome {
        digest: sha256::text(packed.hasher.finish()),
        size: packed.size,
        diff_id,
    })
}

/// Without compression the blob is the tar: one digest is both.
fn write_plain(
    job: &PackJob,
    directory: BorrowedFd<'_>,
    out: impl Write,
) -> Result<PackOutcome, PackError> {
    let mut packed = Hashed::new(out);
    layer_tar::write(
        directory,
        View::Snapshot,
        job.clamp,
        Digests::LeftOut,
        &mut packed,
    )?;
    packed.flush()?;
    let size = packed.size;
    let digest = sha256::text(packed.hasher.finish());
    if job.clamp.is_none() {
        check(job, digest.clone())?;
    }
    Ok(PackOutcome {
        diff_id: digest.clone(),
        digest,
        size,
    })
}

/// Compresses what `produce` writes; the bytes do not depend on the number of threads.
fn compress<T, E: From<io::Error>>(
    compression: Compression,
    threads: usize,
    out: &mut (dyn Write + Send),
    produce: impl FnOnce(&mut dyn Write) -> Result<T, E>,
) -> Result<T, E> {
    match compression {
        Compression::None => produce(out),
        Compression::Gzip { level } => gzip::compress(level, threads, out, produce),
        Compression::Zstd { level } => {
            let mut encoder = zstd::stream::write::Encoder::new(out, level)?;
            // Always the multi-threaded format: with 0 workers other bytes come out.
            encoder.multithread(u32::try_from(threads).expect("is bounded"))?;
            encoder.include_checksum(true)?;
            let value = produce(&mut encoder)?;
            encoder.finish()?;
            Ok(value)
        }
    }
}

/// Compresses a layer blob in another way: the same tar, proven by its `diff_id`. `tar_size` is its length; a blob that
/// holds more is not read further. Blocks; needs no privilege.
pub fn recompress(
    blob: impl Read + Send,
    diff_id: &str,
    tar_size: u64,
    compression: Compression,
    out: impl Write + Send,
) -> Result<PackOutcome, PackError> {
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(MAX_THREADS);
    let tar = decompress::reader(io::BufReader::with_capacity(READ_BUFFER, blob))?;
    let mut packed = Hashed::new(out);
    let copy = |out: &mut dyn Write| -> Result<String, PackError> {
        let mut hashed = Hashed::new(out);
        io::copy(&mut tar.take(tar_size.saturating_add(1)), &mut hashed)?;
        Ok(sha256::text(hashed.hasher.finish()))
    };
    let found = compress(compression, threads, &mut packed, copy)?;
    if found != diff_id {
        return Err(PackError::OtherTar {
            expected: diff_id.to_owned(),
            found,
        });
    }
    packed.flush()?;
    Ok(PackOutcome {
        digest: sha256::text(packed.hasher.finish()),
        size: packed.size,
        diff_id: found,
    })
}

fn check(job: &PackJob, found: String) -> Result<(), PackError> {
    if found == job.diff_id {
        return Ok(());
    }
    Err(PackError::Corrupt {
        expected: job.diff_id.clone(),
        found,
    })
}

/// Hashes and counts what passes.
struct Hashed<W> {
    out: W,
    hasher: Aside<Sha256>,
    size: u64,
}

impl<W: Write> Hashed<W> {
    fn new(out: W) -> Self {
        Self {
            out,
            hasher: Aside::sha256(),
            size: 0,
        }
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.out.write(bytes)?;
        self.hasher.update(&bytes[..length]);
        self.size += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests;
