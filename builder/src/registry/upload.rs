//! Blobs and manifests up: what is there already is not sent, what another repository has is mounted, a large blob goes
//! in chunks and goes on where it stopped.
//!
//! ```text
//! HEAD blob ── 200 ─▶ done
//!   └ 404 ─▶ POST uploads/?mount=… ── 201 ─▶ done
//!               └ 202, or refused and a POST without mount ─▶ small: PUT, whole
//!                                                            large: PATCH, PATCH, …, PUT
//!                                                                     └ broken ─▶ GET: how far? ─▶ PATCH from there
//!                                                            where that is unknown: one PATCH, PUT
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::StreamExt as _;
use oci_spec::image::Digest;
use rbuild_frontend::reference::Reference;
use reqwest::{Method, StatusCode, Url};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use super::answer::{check_status, stated_digest, without_query};
use super::auth::Access;
use super::host::Repository;
use super::session::{Way, miscounted, next_address, received};
use super::transport::{Call, CallBody};
use super::{Place, RegistryClient, RegistryError};

/// Bytes that are read and sent at a time.
const READ_BUFFER: usize = 64 << 10;

/// So many uploads in a row that went over only as a stream mean that the host takes no others. One may be a passing
/// illness.
const STREAMS_ARE_THE_RULE: u32 = 2;

/// A blob to be sent: a file of the store.
#[derive(Clone, Debug)]
pub struct BlobUpload {
    /// Digest.
    pub digest: Digest,
    /// Size in bytes.
    pub size: u64,
    /// Where it lies.
    pub path: PathBuf,
    /// Repositories of the same registry that are known to have it.
    pub mount_from: Vec<String>,
}

/// How a blob got there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uploaded {
    /// It was there.
    Present,
    /// The registry took it from another repository.
    Mounted,
    /// It was sent.
    Sent,
}

/// Hears of bytes on their way.
pub type OnBytes = Arc<dyn Fn(u64) + Send + Sync>;

/// What a POST began.
enum Begun {
    Mounted,
    Session(String),
}

impl RegistryClient {
    /// Where a reference is pushed to: never a mirror.
    pub(super) async fn push_place(&self, reference: &Reference) -> Result<Place, RegistryError> {
        let place = self.places(reference, false).await?.pop();
        place.ok_or_else(|| RegistryError::NotFound {
            reference: reference.to_string(),
        })
    }

    /// Whether the registry has this manifest under this tag (or digest) already.
    pub async fn has_manifest(
        &self,
        reference: &Reference,
        selector: &str,
        digest: &Digest,
    ) -> Result<bool, RegistryError> {
        let place = self.push_place(reference).await?;
        let url = self.url(&place.repository, "manifests", selector).await?;
        let asked = self
            .retrying(place.attempts, || async {
                let mut call = Call::new(Method::HEAD, &url, CallBody::None);
                call.accept = Some(crate::manifest::media::ACCEPT);
                let response = self
                    .execute(&place.repository, &Access::Push, &call)
                    .await?;
                check_status(response, &url).await
            })
            .await;
        match asked {
            Ok(response) => Ok(stated_digest(response.headers()).as_ref() == Some(digest)),
            Err(
                RegistryError::BlobNotFound { .. }
                | RegistryError::Denied { .. }
                | RegistryError::Status { .. },
            ) => Ok(false), // the push itself says what is wrong
            Err(error) => Err(error),
        }
    }

    /// Puts a manifest or index; everything it names must be there.
    pub async fn put_manifest(
        &self,
        reference: &Reference,
        selector: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(), RegistryError> {
        let place = self.push_place(reference).await?;
        let url = self.url(&place.repository, "manifests", selector).await?;
        self.retrying(place.attempts, || async {
            let call = Call::new(Method::PUT, &url, CallBody::Bytes { media_type, bytes });
            let response = self
                .execute(&place.repository, &Access::Push, &call)
                .await?;
            let response = check_status(response, &url).await?;
            let expected = crate::manifest::digest_of(bytes);
            match stated_digest(response.headers()) {
                Some(actual) if actual != expected => Err(RegistryError::WrongDigest {
                    url: url.clone(),
                    expected,
                    actual,
                }),
                _ => Ok(()),
            }
        })
        .await
    }

    /// Whether a reference's repository has a blob.
    pub async fn has_blob(
        &self,
        reference: &Reference,
        digest: &Digest,
    ) -> Result<bool, RegistryError> {
        let place = self.push_place(reference).await?;
        let url = self
            .url(&place.repository, "blobs", digest.as_ref())
            .await?;
        self.retrying(place.attempts, || self.head(&place, &url))
            .await
    }

    async fn head(&self, place: &Place, url: &str) -> Result<bool, RegistryError> {
        let call = Call::new(Method::HEAD, url, CallBody::None);
        let response = self
            .execute(&place.repository, &Access::Push, &call)
            .await?;
        match response.status() {
            // Not allowed to look is not allowed to push either; the POST has a body that says why.
            StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => Ok(false),
            _ => check_status(response, url).await.map(|_| true),
        }
    }

    /// Makes sure that a reference's repository has a blob.
    ///
    /// # Panics
    ///
    /// Never: the semaphore that limits transfers is not closed.
    pub async fn upload(
        &self,
        reference: &Reference,
        blob: &BlobUpload,
        on_bytes: &OnBytes,
    ) -> Result<Uploaded, RegistryError> {
        let place = self.push_place(reference).await?;
        let host = self.host(&place.repository);
        let _permit = host
            .transfers
            .acquire()
            .await
            .expect("the semaphore is never closed");
        let url = self
            .url(&place.repository, "blobs", blob.digest.as_ref())
            .await?;
        let is_there = self
            .retrying(place.attempts, || self.head(&place, &url))
            .await?;
        if is_there {
            return Ok(Uploaded::Present);
        }
        // A retry sends bytes again that were told of already: each is told once.
        let told = Arc::new(AtomicU64::new(0));
        let mut failures = 0;
        loop {
            let outcome = self.upload_once(&place, blob, &told, on_bytes).await;
            let Err(error) = outcome else { return outcome };
            failures += 1;
            match self.pause_after(&error, failures, place.attempts) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(error),
            }
        }
    }

    async fn upload_once(
        &self,
        place: &Place,
        blob: &BlobUpload,
        told: &Arc<AtomicU64>,
        on_bytes: &OnBytes,
    ) -> Result<Uploaded, RegistryError> {
        let part = |from: u64, length, is_chunk| {
            let (told, on_bytes) = (Arc::clone(told), Arc::clone(on_bytes));
            CallBody::File {
                path: blob.path.clone(),
                from,
                length,
                is_chunk,
                on_position: Arc::new(move |end| {
                    let before = told.fetch_max(end, Ordering::Relaxed);
                    if end > before {
                        on_bytes(end - before);
                    }
                }),
            }
        };
        let host = self.host(&place.repository);
        let is_small = blob.size <= self.shared.options.chunk_size.max(1);
        let streams_only = host.streams_in_a_row.load(Ordering::Relaxed) >= STREAMS_ARE_THE_RULE;
        let mut way = match (streams_only, is_small) {
            (true, _) => Way::Stream,
            (false, true) => Way::Whole,
            (false, false) => Way::Chunks,
        };
        loop {
            let session = match self.begin(&place.repository, blob).await? {
                Begun::Mounted => return Ok(Uploaded::Mounted),
                Begun::Session(url) => url,
            };
            let sent = match way {
                Way::Whole => {
                    let body = part(0, blob.size, false);
                    self.finish(place, blob, &session, body).await
                }
                Way::Chunks => self.send_chunks(place, blob, session, &part).await,
                Way::Stream => {
                    let body = part(0, blob.size, false);
                    self.send_stream(place, blob, &session, body).await
                }
            };
            let Err(error) = sent else {
                match way {
                    Way::Stream => host.streams_in_a_row.fetch_add(1, Ordering::Relaxed),
                    _ => host.streams_in_a_row.swap(0, Ordering::Relaxed),
                };
                return Ok(Uploaded::Sent);
            };
            way = match way.after(&error) {
                Some(next) => next,
                None => return Err(error),
            };
            tracing::debug!(%error, ?way, "the registry does not take an upload this way");
        }
    }

    /// Sends a blob in one PATCH that says nothing of a range, as Docker does.
    async fn send_stream(
        &self,
        place: &Place,
        blob: &BlobUpload,
        session: &str,
        body: CallBody<'_>,
    ) -> Result<(), RegistryError> {
        let call = Call::new(Method::PATCH, session, body);
        let response = self
            .execute(&place.repository, &Access::Push, &call)
            .await?;
        let response = check_status(response, session).await?;
        let session = next_address(session, &response)?;
        self.finish(place, blob, &session, CallBody::None).await
    }

    /// Sends a blob in chunks.
    async fn send_chunks<'a>(
        &self,
        place: &Place,
        blob: &BlobUpload,
        session: String,
        part: &(impl Fn(u64, u64, bool) -> CallBody<'a> + Sync),
    ) -> Result<(), RegistryError> {
        let mut session = session;
        let (mut offset, mut furthest, mut failures) = (0, 0, 0);
        while offset < blob.size {
            let length = self.shared.options.chunk_size.min(blob.size - offset);
            let error = {
                let call = Call::new(Method::PATCH, &session, part(offset, length, true));
                let sent = async {
                    let response = self
                        .execute(&place.repository, &Access::Push, &call)
                        .await?;
                    check_status(response, &session).await
                };
                match sent.await {
                    Ok(response) => {
                        let sent = offset + length;
                        let told = received(&response).unwrap_or(sent);
                        session = next_address(&session, &response)?;
                        // Some give the count where the number of the last byte belongs.
                        if told != sent && told != sent + 1 {
                            return Err(miscounted(&session, told, sent));
                        }
                        if sent > furthest {
                            (furthest, failures) = (sent, 0);
                        }
                        offset = sent;
                        continue;
                    }
                    Err(error) => error,
                }
            };
            failures += 1;
            let is_misplaced = matches!(&error, RegistryError::Status { status, .. } if *status == StatusCode::RANGE_NOT_SATISFIABLE);
            let pause = if is_misplaced && failures < place.attempts {
                Some(std::time::Duration::ZERO)
            } else {
                self.pause_after(&error, failures, place.attempts)
            };
            let Some(pause) = pause else {
                return Err(error);
            };
            tokio::time::sleep(pause).await;
            // How much of it arrived only the registry knows. Where it does not even know the upload any more, the
            // caller begins a new one.
            let asked = self
                .retrying(place.attempts, || async {
                    let call = Call::get(&session, None, 0);
                    let response = self
                        .execute(&place.repository, &Access::Push, &call)
                        .await?;
                    check_status(response, &session).await
                })
                .await;
            match asked {
                Ok(response) => {
                    offset = received(&response).unwrap_or(0);
                    session = next_address(&session, &response)?;
                    if offset > blob.size {
                        return Err(miscounted(&session, offset, blob.size));
                    }
                }
                Err(RegistryError::BlobNotFound { url }) => {
                    return Err(RegistryError::BrokenOff {
                        url,
                        received: offset,
                        source: None,
                    });
                }
                Err(error) => return Err(error),
            }
        }
        self.finish(place, blob, &session, CallBody::None).await
    }

    /// Begins an upload, by a mount if some repository has the blob.
    async fn begin(
        &self,
        repository: &Repository,
        blob: &BlobUpload,
    ) -> Result<Begun, RegistryError> {
        let url = self.url(repository, "blobs/uploads", "").await?;
        for from in &blob.mount_from {
            let mount = format!("{url}?mount={}&from={from}", blob.digest);
            let access = Access::Mount { from: from.clone() };
            let call = Call::new(Method::POST, &mount, CallBody::None);
            // No right to read there, or a registry without mounts: then the blob is sent.
            let response = match self.execute(repository, &access, &call).await {
                Ok(response) => response,
                Err(error) if error.is_transient() => return Err(error),
                Err(error) => {
                    tracing::debug!(from, %error, "no mount");
                    continue;
                }
            };
            match response.status() {
                StatusCode::CREATED => return Ok(Begun::Mounted),
                StatusCode::ACCEPTED => {
                    return next_address(&url, &response).map(Begun::Session);
                }
                status => tracing::debug!(from, %status, "no mount"),
            }
        }
        let call = Call::new(Method::POST, &url, CallBody::None);
        let response = self.execute(repository, &Access::Push, &call).await?;
        let response = check_status(response, &url).await?;
        if response.status() == StatusCode::CREATED {
            return Ok(Begun::Mounted); // it has it all the same
        }
        next_address(&url, &response).map(Begun::Session)
    }

    /// Ends an upload, with the whole blob or with nothing more.
    async fn finish(
        &self,
        place: &Place,
        blob: &BlobUpload,
        session: &str,
        body: CallBody<'_>,
    ) -> Result<(), RegistryError> {
        let mut url = Url::parse(session).map_err(|_| RegistryError::Url {
            url: without_query(session),
        })?;
        url.query_pairs_mut()
            .append_pair("digest", blob.digest.as_ref());
        let call = Call::new(Method::PUT, url.as_str(), body);
        let response = self
            .execute(&place.repository, &Access::Push, &call)
            .await?;
        let response = check_status(response, session).await?;
        match stated_digest(response.headers()) {
            Some(actual) if actual != blob.digest => Err(RegistryError::WrongDigest {
                url: without_query(session),
                expected: blob.digest.clone(),
                actual,
            }),
            _ => Ok(()),
        }
    }
}

/// Part of a file as a request's body; `on_position` hears up to which byte it was handed to the network.
pub(super) async fn stream_file(
    path: &Path,
    from: u64,
    length: u64,
    on_position: OnBytes,
) -> io::Result<reqwest::Body> {
    let mut file = tokio::fs::File::open(path).await?;
    file.seek(io::SeekFrom::Start(from)).await?;
    let stream = ReaderStream::with_capacity(file.take(length), READ_BUFFER);
    let mut position = from;
    let stream = stream.inspect(move |chunk| {
        if let Ok(chunk) = chunk {
            position += chunk.len() as u64;
            on_position(position);
        }
    });
    Ok(reqwest::Body::wrap_stream(stream))
}
