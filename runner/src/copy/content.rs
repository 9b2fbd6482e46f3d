//! Copying the bytes of a file that somebody may be writing to.
//!
//! What comes out is what the file held at one moment: a reader that was overtaken by a writer has a mixture that never
//! was. The kernel tells of writes by ctime, so the same ctime before and after says that there were none, unless the
//! first is so young that a write in the same tick of the clock left it as it was. Then the file is read once more, and
//! twice the same bytes say the same.

use std::fs::File;
use std::io::{self, Read, Seek, Write};

use rustix::fs::SeekFrom;
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use super::CopyError;
use crate::aside::Aside;
use crate::metadata::{FileKind, Metadata};
use crate::root::{FileError, errno};

/// How often a file that is being written to is read before that is an error.
const ATTEMPTS: u32 = 5;

/// Longer than the longest tick of the clock that ctimes are taken from, in nanoseconds.
const TICK: i128 = 20_000_000;

/// What is read at once.
const BUFFER: usize = 256 * 1024;

/// Files that take less than this on the disk are written: sharing a block or two saves nothing.
const WORTH_SHARING: u64 = 64 * 1024;

/// Copies contents, one file after the other.
#[derive(Default)]
pub(super) struct Copier {
    buffer: Vec<u8>,
    /// The file system has refused to share blocks.
    shares_nothing: bool,
}

impl Copier {
    /// Copies all of `reader` to `writer`, which is empty, and gives the BLAKE3 of what was written. Blocks are shared where the file
    /// system can do that, and holes stay holes.
    pub(super) fn copy(
        &mut self,
        reader: &mut File,
        writer: &mut File,
        shown: &[u8],
    ) -> Result<[u8; 32], CopyError> {
        self.buffer.resize(BUFFER, 0);
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                let mut start_over = || {
                    reader.rewind()?;
                    writer.rewind()?;
                    writer.set_len(0)
                };
                start_over().map_err(|error| FileError::at("write", shown)(errno(&error)))?;
            }
            let before = stat(reader, shown)?;
            let is_young = is_young(&before);
            let digest = self.copy_once(reader, writer, &before, shown)?;
            if stat(reader, shown)? != before {
                continue;
            }
            if is_young {
                reader
                    .rewind()
                    .map_err(|error| FileError::at("read", shown)(errno(&error)))?;
                if pump(reader, None, &mut self.buffer, shown)? != digest {
                    continue;
                }
            }
            return Ok(digest);
        }
        Err(CopyError::Changed { path: shown.into() })
    }

    fn copy_once(
        &mut self,
        reader: &mut File,
        writer: &mut File,
        metadata: &Metadata,
        shown: &[u8],
    ) -> Result<[u8; 32], CopyError> {
        if !self.shares_nothing && metadata.allocated >= WORTH_SHARING {
            match rustix::fs::ioctl_ficlone(&*writer, &*reader) {
                // What was shared is what is read now, or the file has changed, and then its ctime says so.
                Ok(()) => return pump(reader, None, &mut self.buffer, shown),
                Err(_) => self.shares_nothing = true,
            }
        }
        if metadata.allocated < metadata.size {
            return pump_with_holes(reader, writer, &mut self.buffer, shown);
        }
        pump(reader, Some(writer), &mut self.buffer, shown)
    }
}

fn stat(file: &File, shown: &[u8]) -> Result<Metadata, CopyError> {
    let metadata = Metadata::of_fd(file).map_err(FileError::at("stat", shown))?;
    if metadata.kind != FileKind::File {
        return Err(FileError::at("open", shown)(rustix::io::Errno::STALE).into());
    }
    Ok(metadata)
}

fn is_young(metadata: &Metadata) -> bool {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    let ctime = nanos(metadata.ctime.seconds, metadata.ctime.nanos.into());
    ctime + TICK > nanos(now.tv_sec, now.tv_nsec)
}

/// Reads to the end, writing where there is something to write to.
fn pump(
    reader: &mut File,
    mut writer: Option<&mut File>,
    buffer: &mut [u8],
    shown: &[u8],
) -> Result<[u8; 32], CopyError> {
    let mut hasher = Aside::blake3();
    loop {
        let length = reader
            .read(buffer)
            .map_err(|error| FileError::at("read", shown)(errno(&error)))?;
        if length == 0 {
            return Ok(*hasher.finish().finalize().as_bytes());
        }
        hasher.update(&buffer[..length]);
        if let Some(writer) = &mut writer {
            writer
                .write_all(&buffer[..length])
                .map_err(|error| FileError::at("write", shown)(errno(&error)))?;
        }
    }
}

/// The same for a file that takes less on the disk than it is long.
fn pump_with_holes(
    reader: &mut File,
    writer: &mut File,
    buffer: &mut [u8],
    shown: &[u8],
) -> Result<[u8; 32], CopyError> {
    let failed = |what| move |error: std::io::Error| FileError::at(what, shown)(errno(&error));
    let size = reader.metadata().map_err(failed("stat"))?.len();
    let mut hasher = blake3::Hasher::new();
    let mut at = 0;
    while at < size {
        let data = match rustix::fs::seek(&*reader, SeekFrom::Data(at)) {
            Ok(data) => data.min(size),
            // A hole up to the end.
            Err(Errno::NXIO) => size,
            // The file system knows of no holes.
            Err(_) => at,
        };
        hash_zeros(&mut hasher, data - at);
        let end = match rustix::fs::seek(&*reader, SeekFrom::Hole(data)) {
            Ok(end) => end.clamp(data, size),
            Err(_) => size,
        };
        reader
            .seek(io::SeekFrom::Start(data))
            .map_err(failed("read"))?;
        writer
            .seek(io::SeekFrom::Start(data))
            .map_err(failed("write"))?;
        let mut left = end - data;
        while left > 0 {
            let most = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let length = reader.read(&mut buffer[..most]).map_err(failed("read"))?;
            if length == 0 {
                // Cut meanwhile, as its ctime says.
                break;
            }
            hasher.update(&buffer[..length]);
            writer
                .write_all(&buffer[..length])
                .map_err(failed("write"))?;
            left -= length as u64;
        }
        at = end;
    }
    writer.set_len(size).map_err(failed("write"))?;
    Ok(*hasher.finalize().as_bytes())
}

fn hash_zeros(hasher: &mut blake3::Hasher, mut count: u64) {
    static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
    while count > 0 {
        let part = usize::try_from(count)
            .unwrap_or(usize::MAX)
            .min(ZEROS.len());
        hasher.update(&ZEROS[..part]);
        count -= part as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const BLOCK: usize = 4096;
    const BLOCKS: usize = 512;

    /// The writer goes up through the file, generation after generation. What it can look like is a generation up to a
    /// block, and the one before from there on.
    #[test]
    fn a_file_that_is_written_to_is_never_copied_as_a_mixture() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("source");
        std::fs::write(&path, vec![0; BLOCK * BLOCKS]).unwrap();
        let is_over = AtomicBool::new(false);
        let (mut copies, mut refusals) = (0, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let file = File::options().write(true).open(&path).unwrap();
                let mut generation = 0_u8;
                while !is_over.load(Ordering::Relaxed) {
                    generation = generation.wrapping_add(1);
                    for block in 0..BLOCKS {
                        let offset = (block * BLOCK) as u64;
                        file.write_all_at(&[generation; BLOCK], offset).unwrap();
                    }
                    std::thread::sleep(std::time::Duration::from_millis(generation.into()) / 20);
                }
            });
            for _ in 0..60 {
                let target = place.path().join("target");
                let mut reader = File::open(&path).unwrap();
                let mut writer = File::create(&target).unwrap();
                match Copier::default().copy(&mut reader, &mut writer, b"source") {
                    Ok(digest) => {
                        copies += 1;
                        let bytes = std::fs::read(&target).unwrap();
                        assert_eq!(digest, *blake3::hash(&bytes).as_bytes());
                        let mut seen: Vec<u8> = bytes;
                        seen.dedup();
                        assert!(
                            seen.len() == 1
                                || seen.len() == 2 && seen[0] == seen[1].wrapping_add(1),
                            "a mixture: {seen:?}"
                        );
                    }
                    Err(CopyError::Changed { .. }) => refusals += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            is_over.store(true, Ordering::Relaxed);
        });
        assert_eq!(copies + refusals, 60);
    }
}
