//! The uncompressed content of a blob, decompressed and hashed by a thread of its own while files are written.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use sha2::{Digest, Sha256};

use crate::{decompress, sha256};

const CHUNK: usize = 256 * 1024;
/// Chunks that may wait: enough to even out large and small files.
const WAITING: usize = 8;

/// Reads the content. [`Self::finish`] gives its digest and size.
pub(super) struct Uncompressed<'scope> {
    chunks: Receiver<io::Result<Vec<u8>>>,
    current: Vec<u8>,
    position: usize,
    worker: ScopedJoinHandle<'scope, (Sha256, u64)>,
}

impl<'scope> Uncompressed<'scope> {
    pub(super) fn start<'env: 'scope>(
        scope: &'scope Scope<'scope, 'env>,
        source: impl BufRead + Send + 'env,
    ) -> Self {
        let (send, chunks) = sync_channel(WAITING);
        let worker = scope.spawn(move || {
            let (mut hasher, mut size) = (Sha256::new(), 0);
            let mut reader = match decompress::reader(source) {
                Ok(reader) => reader,
                Err(error) => {
                    // A receiver that is gone has failed itself.
                    let _ = send.send(Err(error));
                    return (hasher, size);
                }
            };
            loop {
                let mut chunk = Vec::with_capacity(CHUNK);
                let result = reader.by_ref().take(CHUNK as u64).read_to_end(&mut chunk);
                let is_end = matches!(result, Ok(0));
                hasher.update(&chunk);
                size += chunk.len() as u64;
                if is_end || send.send(result.map(|_| chunk)).is_err() {
                    return (hasher, size);
                }
            }
        });
        Self {
            chunks,
            current: Vec::new(),
            position: 0,
            worker,
        }
    }

    /// Reads to the end; digest and size of everything.
    pub(super) fn finish(mut self) -> io::Result<(String, u64)> {
        super::drain(&mut self)?;
        let (hasher, size) = self
            .worker
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((sha256::text(hasher), size))
    }
}

impl Read for Uncompressed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.position == self.current.len() {
            match self.chunks.recv() {
                Ok(chunk) => (self.current, self.position) = (chunk?, 0),
                Err(_) => return Ok(0), // the worker has come to the end
            }
        }
        let length = buffer.len().min(self.current.len() - self.position);
        buffer[..length].copy_from_slice(&self.current[self.position..self.position + length]);
        self.position += length;
        Ok(length)
    }
}
