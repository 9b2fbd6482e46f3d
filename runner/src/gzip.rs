//! gzip whose bytes do not depend on the number of threads.
//!
//! One member. The content is cut into blocks of [`BLOCK`] bytes; each is deflated on its own, ends with a sync flush
//! (so on a byte border), and the last is followed by an empty final block. Also with one thread, always on this path.
//! Blocks share no window: what that costs in size (about 1 % at 1 MiB) buys independence. **Changing the block size,
//! the header or zlib-rs's version changes the bytes of every layer**; a test pins them.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use flate2::{Compress, Compression, Crc, FlushCompress};

const BLOCK: usize = 1 << 20;

/// Compresses what `produce` writes into `out`.
pub(crate) fn compress<T, E: From<io::Error>>(
    level: u32,
    threads: usize,
    out: &mut (dyn Write + Send),
    produce: impl FnOnce(&mut dyn Write) -> Result<T, E>,
) -> Result<T, E> {
    let threads = threads.max(1);
    let (jobs, waiting) = sync_channel::<Job>(threads);
    let (order, results) = sync_channel::<Receiver<Deflated>>(2 * threads);
    // Held only while one job is taken.
    let waiting = Mutex::new(waiting);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| work(level, &waiting));
        }
        let writer = scope.spawn(move || write_all(out, level, &results));
        let mut blocks = Blocks {
            buffer: Vec::with_capacity(BLOCK),
            jobs,
            order,
        };
        let produced = produce(&mut blocks).and_then(|value| {
            blocks.flush_block()?;
            Ok(value)
        });
        drop(blocks);
        let written = writer
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // The writer's error is the cause of the producer's broken pipe.
        written?;
        produced
    })
}

struct Job {
    content: Vec<u8>,
    answer: SyncSender<Deflated>,
}

struct Deflated {
    bytes: Vec<u8>,
    crc: Crc,
}

/// Cuts what is written into blocks.
struct Blocks {
    buffer: Vec<u8>,
    jobs: SyncSender<Job>,
    order: SyncSender<Receiver<Deflated>>,
}

impl Blocks {
    fn flush_block(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let content = std::mem::replace(&mut self.buffer, Vec::with_capacity(BLOCK));
        let (answer, result) = sync_channel(1);
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        self.order.send(result).map_err(|_| broken())?;
        self.jobs
            .send(Job { content, answer })
            .map_err(|_| broken())
    }
}

impl Write for Blocks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(BLOCK - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..length]);
        if self.buffer.len() == BLOCK {
            self.flush_block()?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn work(level: u32, waiting: &Mutex<Receiver<Job>>) {
    let mut compressor = Compress::new(Compression::new(level.clamp(1, 9)), false);
    loop {
        // Nothing can panic while the lock is held.
        let job = waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .recv();
        let Ok(Job { content, answer }) = job else {
            return;
        };
        let mut crc = Crc::new();
        crc.update(&content);
        // A receiver that is gone has failed to write; it tells the caller itself.
        let _ = answer.send(Deflated {
            bytes: deflate(&mut compressor, &content),
            crc,
        });
    }
}

fn deflate(compressor: &mut Compress, content: &[u8]) -> Vec<u8> {
    compressor.reset();
    let mut bytes = Vec::with_capacity(content.len() / 2 + 1024);
    loop {
        let consumed = usize::try_from(compressor.total_in()).expect("a block fits");
        compressor
            .compress_vec(&content[consumed..], &mut bytes, FlushCompress::Sync)
            .expect("deflate with a sync flush has no way to fail");
        let is_consumed = compressor.total_in() == content.len() as u64;
        // Room left in the output means that the flush is complete.
        if is_consumed && bytes.len() < bytes.capacity() {
            return bytes;
        }
        bytes.reserve(64 * 1024);
    }
}

fn write_all(
    out: &mut (dyn Write + Send),
    level: u32,
    results: &Receiver<Receiver<Deflated>>,
) -> io::Result<()> {
    // No name, no time, "unknown" system; XFL as zlib sets it.
    let extra = match level {
        9.. => 2,
        ..=1 => 4,
        _ => 0,
    };
    out.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, extra, 255])?;
    let mut crc = Crc::new();
    while let Ok(result) = results.recv() {
        let Ok(deflated) = result.recv() else {
            return Err(io::Error::other("a compressing thread ended early"));
        };
        out.write_all(&deflated.bytes)?;
        crc.combine(&deflated.crc);
    }
    out.write_all(&[3, 0])?; // an empty final block
    out.write_all(&crc.sum().to_le_bytes())?;
    out.write_all(&crc.amount().to_le_bytes())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn gzip(level: u32, threads: usize, content: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        compress::<_, io::Error>(level, threads, &mut out, |out| out.write_all(content)).unwrap();
        out
    }

    fn sample(length: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if state >> 31 == 0 {
                b'a'
            } else {
                (state >> 24) as u8
            }
        });
        noise.take(length).collect()
    }

    #[test]
    fn bytes_do_not_depend_on_threads() {
        for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 77] {
            let content = sample(length);
            let one = gzip(6, 1, &content);
            for threads in [2, 3, 8] {
                assert!(
                    gzip(6, threads, &content) == one,
                    "{length} bytes, {threads} threads"
                );
            }
            let mut back = Vec::new();
            flate2::read::GzDecoder::new(&one[..])
                .read_to_end(&mut back)
                .unwrap();
            assert!(back == content, "{length} bytes");
        }
    }

    #[test]
    fn bytes_are_what_they_always_were() {
        let bytes = gzip(6, 2, b"layer layer layer layer\n");
        let header = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff";
        let deflated = b"\xcaI\xacL-R\xc8A'\xb9\x00\x00\x00\x00\xff\xff\x03\x00";
        let trailer = b",\xe1\x08\xef\x18\x00\x00\x00";
        assert_eq!(bytes, [&header[..], deflated, trailer].concat());
        let digest = blake3::hash(&gzip(6, 1, &sample(2 * BLOCK + 5))).to_hex();
        assert_eq!(
            digest.as_str(),
            "e913f91149fc77a15116695b5ea21050b4cf0d26a1d7824b257661077da4887b"
        );
    }

    #[test]
    fn errors_of_both_ends_arrive() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let content = vec![7; 40 * BLOCK];
        let error =
            compress::<_, io::Error>(1, 2, &mut Full, |out| out.write_all(&content)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        let error = compress::<(), io::Error>(1, 2, &mut Vec::new(), |_| {
            Err(io::ErrorKind::NotFound.into())
        });
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
