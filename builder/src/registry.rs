//! A registry client: OCI distribution and Docker registry v2, pulling only for now.
//!
//! ```text
//! RegistryClient ── manifest()  GET /v2/<name>/manifests/<tag|digest>   bounded, digest checked
//!        │       ── document()  GET /v2/<name>/blobs/<digest>           bounded, digest checked (configs)
//!        │       ── download()  GET /v2/<name>/blobs/<digest>           streamed, resumed, size checked
//!        ├─ transport: one attempt: request, challenge, token, status → error
//!        └─ retry: transient errors again, with back-off and Retry-After
//! ```
//!
//! Nothing that a registry says is believed: sizes are limits, digests are recomputed, redirects never carry our
//! token to another host and never lead from HTTPS to HTTP. Requests are anonymous; configuration, credentials,
//! mirrors and pushes join here later (they change `endpoint`, the token request and add methods, nothing else).

mod auth;
mod download;
mod error;
mod transport;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use oci_spec::image::Digest;
use rbuild_frontend::reference::Reference;
use tokio::sync::{OnceCell, Semaphore};

pub use self::error::RegistryError;
use crate::manifest::{self, Document, MAX_DOCUMENT};

/// How patient and how greedy a client is.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Until a connection stands.
    pub connect_timeout: Duration,
    /// Without a byte in an answer. A slow line is no error, a silent one is.
    pub read_timeout: Duration,
    /// Tries of one request in all.
    pub attempts: u32,
    /// Pause before the second try; doubles each time.
    pub first_pause: Duration,
    /// Longest pause, also when `Retry-After` asks for more: then the request fails at once.
    pub longest_pause: Duration,
    /// Layer downloads at once. Four fill a fast line; registries start to refuse at about thirty.
    pub parallel_downloads: usize,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(30),
            attempts: 5,
            first_pause: Duration::from_millis(250),
            longest_pause: Duration::from_secs(30),
            parallel_downloads: 4,
        }
    }
}

/// Speaks to registries. Cheap to clone; clones share connections and tokens.
#[derive(Clone, Debug)]
pub struct RegistryClient {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: ClientOptions,
    /// For registries on this machine, which no proxy can reach. Made when first needed: reading the machine's
    /// certificates costs more than a whole cached build.
    direct: OnceCell<reqwest::Client>,
    /// For all others; obeys the proxy variables. As lazy.
    proxied: OnceCell<reqwest::Client>,
    tokens: auth::TokenCache,
    downloads: Semaphore,
}

/// A manifest or index as a registry gave it.
#[derive(Clone, Debug)]
pub struct FetchedManifest {
    /// The document's own bytes.
    pub bytes: Vec<u8>,
    /// Their digest.
    pub digest: Digest,
    /// What it is.
    pub document: Document,
}

/// One repository of one registry, with the address to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// Registry as in the reference, the key for tokens.
    registry: String,
    /// `library/debian`
    name: String,
    /// `https://registry-1.docker.io`
    endpoint: String,
}

impl Repository {
    /// The repository that a reference names.
    pub fn of(reference: &Reference) -> Self {
        let registry = reference.registry.as_str();
        let host = if registry == "docker.io" {
            "registry-1.docker.io"
        } else {
            registry
        };
        let scheme = if is_loopback(host) { "http" } else { "https" };
        Self {
            registry: registry.to_owned(),
            name: reference.repository.clone(),
            endpoint: format!("{scheme}://{host}"),
        }
    }

    fn url(&self, kind: &str, selector: &str) -> String {
        format!("{}/v2/{}/{kind}/{selector}", self.endpoint, self.name)
    }

    /// What a pull token is asked for.
    fn pull_scope(&self) -> String {
        format!("repository:{}:pull", self.name)
    }
}

/// True for `localhost`, `127.0.0.0/8` and `[::1]`, with or without a port: there plain HTTP is safe, and usual.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name == "localhost"
        || name == "::1"
        || name
            .parse::<Ipv4Addr>()
            .is_ok_and(|address| address.is_loopback())
}

impl RegistryClient {
    /// Makes a client; costs nothing until it is used.
    pub fn new(options: ClientOptions) -> Self {
        let downloads = Semaphore::new(options.parallel_downloads.max(1));
        let shared = Shared {
            options,
            direct: OnceCell::new(),
            proxied: OnceCell::new(),
            tokens: auth::TokenCache::default(),
            downloads,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Fetches the manifest or index that a reference's digest or, without one, its tag names.
    pub async fn manifest(&self, reference: &Reference) -> Result<FetchedManifest, RegistryError> {
        let repository = Repository::of(reference);
        let selector = reference
            .digest
            .as_deref()
            .or(reference.tag.as_deref())
            .unwrap_or("latest");
        let url = repository.url("manifests", selector);
        let expected = reference.digest.as_deref().and_then(manifest::parse_digest);
        let answer = self
            .retrying(|| self.get_bounded(&repository, &url, Some(manifest::media::ACCEPT)))
            .await;
        let answer = answer.map_err(|error| match error {
            RegistryError::BlobNotFound { .. } => RegistryError::NotFound {
                reference: reference.to_string(),
            },
            other => other,
        })?;
        let actual = manifest::digest_of(&answer.bytes);
        // A tag's digest header is checked too: a broken proxy shows itself there.
        if let Some(expected) = expected
            .or(answer.stated_digest)
            .filter(|expected| *expected != actual)
        {
            return Err(RegistryError::WrongDigest {
                url,
                expected,
                actual,
            });
        }
        let document = manifest::parse_document(&answer.bytes, answer.content_type.as_deref())
            .map_err(|source| RegistryError::Manifest { url, source })?;
        Ok(FetchedManifest {
            bytes: answer.bytes,
            digest: actual,
            document,
        })
    }

    /// Fetches a small blob whole: an image config.
    pub async fn document(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Vec<u8>, RegistryError> {
        let url = repository.url("blobs", digest.as_ref());
        let answer = self
            .retrying(|| self.get_bounded(repository, &url, None))
            .await?;
        let actual = manifest::digest_of(&answer.bytes);
        if actual == *digest {
            Ok(answer.bytes)
        } else {
            Err(RegistryError::WrongDigest {
                url,
                expected: digest.clone(),
                actual,
            })
        }
    }

    /// Carries out a request until it succeeds, fails for good, or the tries are used up.
    async fn retrying<T, Attempt>(&self, attempt: impl Fn() -> Attempt) -> Result<T, RegistryError>
    where
        Attempt: Future<Output = Result<T, RegistryError>>,
    {
        let mut failures = 0;
        loop {
            match attempt().await {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    failures += 1;
                    match self.pause_after(&error, failures) {
                        Some(pause) => tokio::time::sleep(pause).await,
                        None => return Err(error),
                    }
                }
            }
        }
    }

    /// How long to wait before the next try; none when there is none.
    fn pause_after(&self, error: &RegistryError, failures: u32) -> Option<Duration> {
        let options = &self.shared.options;
        if failures >= options.attempts || !error.is_transient() {
            return None;
        }
        let back_off = options
            .first_pause
            .saturating_mul(1 << (failures - 1).min(10))
            .min(options.longest_pause);
        let pause = match error {
            RegistryError::TooManyRequests {
                retry_after: Some(asked),
                ..
            } => back_off.max(*asked),
            _ => back_off,
        };
        tracing::debug!(%error, ?pause, failures, "registry request failed");
        (pause <= options.longest_pause).then_some(pause)
    }
}

/// The largest answer that is read into memory.
const LARGEST_ANSWER: u64 = MAX_DOCUMENT;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_spoken_to_in_the_clear() {
        let rows = [
            ("debian:12", "https://registry-1.docker.io"),
            ("localhost:5000/a", "http://localhost:5000"),
            ("127.0.0.1:5000/a", "http://127.0.0.1:5000"),
            ("127.9.9.9:1/a", "http://127.9.9.9:1"),
            ("[::1]:5000/a", "http://[::1]:5000"),
            ("ghcr.io/a/b", "https://ghcr.io"),
            ("10.0.0.1:5000/a", "https://10.0.0.1:5000"),
            ("localhost.example.com/a", "https://localhost.example.com"),
        ];
        for (name, endpoint) in rows {
            let reference: Reference = name.parse().expect(name);
            assert_eq!(Repository::of(&reference).endpoint, endpoint, "{name}");
        }
    }
}
