//! Layer blobs down: streamed to a writer on a blocking thread, resumed where a connection broke.

use std::io::Write;

use oci_spec::image::Digest;
use rbuild_frontend::reference::Reference;
use reqwest::StatusCode;
use reqwest::header::CONTENT_RANGE;
use tokio::sync::mpsc;

use super::answer::check_status;
use super::auth::Access;
use super::error::NetworkError;
use super::transport::Call;
use super::{Place, RegistryClient, RegistryError, tell_mirror};

/// Chunks (of 16 KiB or so) between the network and the writer: enough to hide a slow write, bounded so that memory
/// does not grow with the layer.
const CHUNKS_IN_FLIGHT: usize = 64;

impl RegistryClient {
    /// Streams a blob of exactly `size` bytes into `writer` and gives the writer back.
    ///
    /// The digest is the writer's to check (the store's blob writer hashes what it writes), so that bytes are hashed
    /// once. `on_bytes` hears of every chunk. Dropping the future stops the transfer.
    pub async fn download<W: Write + Send + 'static>(
        &self,
        reference: &Reference,
        digest: &Digest,
        size: u64,
        writer: W,
        on_bytes: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<W, RegistryError> {
        let places = self.places(reference, true).await?;
        let (sender, mut receiver) = mpsc::channel(CHUNKS_IN_FLIGHT);
        let write = tokio::task::spawn_blocking(move || {
            let mut sink = writer;
            while let Some(chunk) = receiver.blocking_recv() {
                let chunk: Vec<u8> = chunk;
                sink.write_all(&chunk)?;
            }
            Ok(sink)
        });
        let mut position = 0;
        let mut fetched = Err(RegistryError::NotFound {
            reference: reference.to_string(),
        });
        for (number, place) in places.iter().enumerate() {
            fetched = self
                .download_at(place, digest, size, &mut position, &sender, on_bytes)
                .await;
            match &fetched {
                Err(error) if number + 1 < places.len() => tell_mirror(&place.repository, error),
                _ => break,
            }
        }
        drop(sender);
        let written = write
            .await
            .map_err(std::io::Error::other)
            .and_then(|written| written);
        // A full disk also breaks the transfer: it is the cause, so it comes first.
        let writer = written.map_err(|source| RegistryError::Store {
            url: format!("{}@{digest}", reference.name()),
            source,
        })?;
        fetched.map(|()| writer)
    }

    /// All attempts at one place. What a place before it gave is kept; the digest judges the seam.
    async fn download_at(
        &self,
        place: &Place,
        digest: &Digest,
        size: u64,
        position: &mut u64,
        sender: &mpsc::Sender<Vec<u8>>,
        on_bytes: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), RegistryError> {
        let host = self.host(&place.repository);
        let _permit = host
            .transfers
            .acquire()
            .await
            .expect("the semaphore is never closed");
        let url = self
            .url(&place.repository, "blobs", digest.as_ref())
            .await?;
        let mut failures = 0;
        loop {
            let before = *position;
            let outcome = self
                .stream(place, &url, size, position, sender, on_bytes)
                .await;
            let Err(error) = outcome else { return Ok(()) };
            // A line that breaks every few megabytes still gets there: only failures in vain are counted.
            failures = if *position > before { 1 } else { failures + 1 };
            match self.pause_after(&error, failures, place.attempts) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(error),
            }
        }
    }

    /// One attempt, from `received` on.
    async fn stream(
        &self,
        place: &Place,
        url: &str,
        size: u64,
        received: &mut u64,
        sender: &mpsc::Sender<Vec<u8>>,
        on_bytes: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), RegistryError> {
        if *received == size {
            return Ok(()); // an empty blob, or only the end of the stream was missing
        }
        let call = Call::get(url, None, *received);
        let response = self
            .execute(&place.repository, &Access::Pull, &call)
            .await?;
        let mut response = check_status(response, url).await?;
        // A server without ranges starts over; what we have is skipped. The digest judges the seam.
        let starts_at = if response.status() == StatusCode::PARTIAL_CONTENT {
            let range = response
                .headers()
                .get(CONTENT_RANGE)
                .and_then(|value| value.to_str().ok());
            range_start(range.unwrap_or_default())
                .filter(|start| start <= received)
                .ok_or_else(|| RegistryError::Status {
                    url: url.to_owned(),
                    status: response.status(),
                    retry_after: None,
                    detail: ": a range that was not asked for".to_owned(),
                })?
        } else {
            0
        };
        let too_large = || RegistryError::TooLarge {
            url: url.to_owned(),
            limit: size,
        };
        if response
            .content_length()
            .is_some_and(|length| length.saturating_add(starts_at) > size)
        {
            return Err(too_large());
        }
        let mut position = starts_at;
        loop {
            let chunk = response
                .chunk()
                .await
                .map_err(|source| RegistryError::BrokenOff {
                    url: url.to_owned(),
                    received: *received,
                    source: Some(NetworkError::new(source)),
                })?;
            let Some(chunk) = chunk else { break };
            let end = position + chunk.len() as u64;
            if end > size {
                return Err(too_large());
            }
            if end > *received {
                let known =
                    usize::try_from(received.saturating_sub(position)).unwrap_or(usize::MAX);
                let fresh = chunk[known.min(chunk.len())..].to_vec();
                on_bytes(fresh.len() as u64);
                *received = end;
                if sender.send(fresh).await.is_err() {
                    return Ok(()); // the writer failed and says why itself
                }
            }
            position = end;
        }
        if *received < size {
            return Err(RegistryError::TooShort {
                url: url.to_owned(),
                expected: size,
                actual: *received,
            });
        }
        Ok(())
    }
}

/// `bytes 100-199/200` → 100.
fn range_start(content_range: &str) -> Option<u64> {
    content_range
        .trim()
        .strip_prefix("bytes ")?
        .split_once('-')?
        .0
        .trim()
        .parse()
        .ok()
}
