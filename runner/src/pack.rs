//! Packs a snapshot directory as a layer blob: tar, compression and digests in one pass, and proof that the snapshot
//! still is what its `diff_id` says.

use std::io::{self, Write};
use std::os::fd::AsFd;

use sha2::{Digest, Sha256};

use crate::job::{Compression, PackJob, PackOutcome};
use crate::layer_tar::{self, LayerTarError, View};
use crate::root::{FileError, open_root};
use crate::{gzip, sha256};

/// More threads than this do not help: the tar is produced by one.
const MAX_THREADS: usize = 16;

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
        layer_tar::write(directory.as_fd(), View::Snapshot, None, &mut proof)?;
        check(job, sha256::text(proof.hasher))?;
    }
    let mut packed = Hashed::new(out);
    let tar = |out: &mut dyn Write| -> Result<String, PackError> {
        let mut hashed = Hashed::new(out);
        layer_tar::write(directory.as_fd(), View::Snapshot, job.clamp, &mut hashed)?;
        Ok(sha256::text(hashed.hasher))
    };
    let diff_id = match job.compression {
        Compression::None => tar(&mut packed)?,
        Compression::Gzip { level } => gzip::compress(level, threads, &mut packed, tar)?,
        Compression::Zstd { level } => {
            let mut encoder = zstd::stream::write::Encoder::new(&mut packed, level)?;
            // Always the multi-threaded format: with 0 workers other bytes come out.
            encoder.multithread(u32::try_from(threads).expect("is bounded"))?;
            encoder.include_checksum(true)?;
            let diff_id = tar(&mut encoder)?;
            encoder.finish()?;
            diff_id
        }
    };
    packed.flush()?;
    if job.clamp.is_none() {
        check(job, diff_id.clone())?;
    }
    Ok(PackOutcome {
        digest: sha256::text(packed.hasher),
        size: packed.size,
        diff_id,
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
    hasher: Sha256,
    size: u64,
}

impl<W: Write> Hashed<W> {
    fn new(out: W) -> Self {
        Self {
            out,
            hasher: Sha256::new(),
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
