//! Archives of images into the store: from a file, a directory or standard input, compressed or not.
//!
//! A plain file is read where it lies. Everything else is written to the lease's directory first, decompressed: an archive
//! has its list of images at its end, and is read in no order.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci_spec::image::Digest;
use rbuild_cache::Lease;
use rbuild_frontend::platform::Platform;
use tokio_util::sync::CancellationToken;

use super::TransferError;
use crate::blocking;
use crate::build::this_machine;
use crate::context::Patient;
use crate::engine::Engine;
use crate::event::EventSink;
use crate::images::full_name;
use crate::layout::Layout;
use crate::registry::RegistrySettings;

/// Bytes of an archive that are written out, decompressed: more than any image, less than what a few kilobytes of compressed
/// zeros can claim.
pub(super) const MAX_ARCHIVE: u64 = 256 << 30;

/// Bytes that are read at a time.
const BUFFER: usize = 256 << 10;

/// An image that was taken in.
#[derive(Clone, Debug)]
pub struct LoadedImage {
    /// Its full names; none for one without.
    pub names: Vec<String>,
    /// Its id.
    pub id: Digest,
}

impl Engine {
    /// Takes all images of an archive or layout into the store; of those for several platforms the one for `platform`, or for
    /// this machine. No path is standard input.
    pub async fn load(
        &self,
        path: Option<&Path>,
        platform: Option<Platform>,
        events: EventSink,
    ) -> Result<Vec<LoadedImage>, TransferError> {
        let (sources, lease) = self.sources(&RegistrySettings::none(), events)?;
        let platform = platform.unwrap_or_else(this_machine);
        let layout = Arc::new(open(path, &lease).await?);
        let archive = Arc::clone(&layout);
        let images = blocking::run(move || archive.images(&platform)).await?;
        let mut loaded = Vec::new();
        for image in images {
            let base = sources.archived(&layout, &image, &lease).await?;
            let chain = sources.chain(&base, &lease).await?;
            let mut names: Vec<String> = Vec::new();
            for text in &image.names {
                let name = full_name(text)?;
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            self.keep(&base, chain, names.clone()).await?;
            loaded.push(LoadedImage {
                names,
                id: base.config_digest,
            });
        }
        self.end(lease).await?;
        Ok(loaded)
    }
}

/// Opens an archive or a layout directory.
pub(super) async fn open(path: Option<&Path>, lease: &Lease) -> Result<Layout, TransferError> {
    let cancel = CancellationToken::new();
    // Who stops waiting for this future stops the reading of standard input, too.
    let _ends_with_us = cancel.clone().drop_guard();
    let (path, lease) = (path.map(Path::to_owned), lease.clone());
    blocking::run(move || open_blocking(path.as_deref(), &lease, &cancel)).await
}

fn open_blocking(
    path: Option<&Path>,
    lease: &Lease,
    cancel: &CancellationToken,
) -> Result<Layout, TransferError> {
    let Some(path) = path else {
        let shown = Path::new("-");
        let file = spool(shown, Patient { cancel }, lease)?;
        return Ok(Layout::of_archive(shown, file)?);
    };
    let read = |source| TransferError::Read {
        path: path.to_owned(),
        source,
    };
    if path.is_dir() {
        return Ok(Layout::open(path)?);
    }
    let mut file = File::open(path).map_err(read)?;
    let mut start = [0; 6];
    let is_regular = file.metadata().map_err(read)?.is_file();
    if !is_regular {
        let spooled = spool(path, file, lease)?;
        return Ok(Layout::of_archive(path, spooled)?);
    }
    let length = file.read(&mut start).map_err(read)?;
    io::Seek::rewind(&mut file).map_err(read)?;
    if is_compressed(&start[..length]) {
        file = spool(path, file, lease)?;
    }
    Ok(Layout::of_archive(path, file)?)
}

fn is_compressed(start: &[u8]) -> bool {
    matches!(
        start,
        [0x1f, 0x8b, ..]
            | [0x28, 0xb5, 0x2f, 0xfd, ..]
            | [0xfd, b'7', b'z', b'X', b'Z', 0]
            | [b'B', b'Z', b'h', ..]
    )
}

/// Writes what `input` holds, decompressed, to a file of the lease's.
pub(super) fn spool(
    shown: &Path,
    input: impl Read + Send,
    lease: &Lease,
) -> Result<File, TransferError> {
    let directory = lease
        .scratch("archive")
        .map_err(|error| TransferError::Store(Box::new(error)))?;
    let path = directory.join("archive");
    spool_to(shown, input, &path)?;
    File::open(&path).map_err(|source| TransferError::Spool { path, source })
}

/// The same, to a path that does not exist yet.
pub(super) fn spool_to(
    shown: &Path,
    input: impl Read + Send,
    path: &Path,
) -> Result<(), TransferError> {
    let read = |source| TransferError::Read {
        path: shown.to_owned(),
        source,
    };
    let write = |source| TransferError::Spool {
        path: PathBuf::from(path),
        source,
    };
    let input = BufReader::with_capacity(BUFFER, input);
    let mut content = rbuild_runner::decompress::reader(input).map_err(read)?;
    let mut file = File::create_new(path).map_err(write)?;
    let mut buffer = vec![0; BUFFER];
    let mut left = MAX_ARCHIVE;
    loop {
        let count = match content.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(read(error)),
        };
        left = left
            .checked_sub(count as u64)
            .ok_or_else(|| TransferError::TooLarge {
                path: shown.to_owned(),
                limit: MAX_ARCHIVE,
            })?;
        file.write_all(&buffer[..count]).map_err(write)?;
    }
}
