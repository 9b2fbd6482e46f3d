//! A registry client: OCI distribution and Docker registry v2.
//!
//! ```text
//! RegistryClient ── manifest()  GET /v2/<name>/manifests/<tag|digest>   bounded, digest checked
//!        │       ── document()  GET /v2/<name>/blobs/<digest>           bounded, digest checked (configs)
//!        │       ── download()  GET /v2/<name>/blobs/<digest>           streamed, resumed, size checked
//!        │       ── upload()    HEAD, POST, PATCH, PUT of /v2/<name>/blobs/…  streamed, mounted, resumed
//!        │       ── put_manifest()
//!        ├─ settings: where a name leads, who we are there, whom we trust
//!        ├─ host: scheme, TLS, tokens, transfers at once
//!        ├─ transport: one attempt: request, challenge, redirects
//!        ├─ answer: status → error, bodies within bounds
//!        └─ retry: transient errors again, with back-off and Retry-After
//! ```
//!
//! Nothing that a registry says is believed: sizes are limits, digests are recomputed, redirects never carry our
//! credentials to another host and never lead from HTTPS to HTTP.

mod answer;
mod auth;
mod download;
mod error;
mod host;
mod secret;
mod session;
mod settings;
mod transport;
mod upload;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use oci_spec::image::Digest;
use rbuild_frontend::reference::Reference;
use tokio::sync::OnceCell;

use self::auth::Access;
pub use self::error::{NetworkError, RegistryError};
use self::host::{Host, Repository};
pub(crate) use self::host::{is_loopback, trust_also};
pub use self::secret::Secret;
pub use self::settings::{
    Authority, Decision, LoggedIn, RegistryFlags, RegistrySettings, SettingsError, registry_name,
};
pub(crate) use self::settings::{add_authorities, of_machine};
pub use self::upload::{BlobUpload, OnBytes, Uploaded};
use crate::blocking;
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
    /// Tries of a request to a mirror: the next place waits.
    pub mirror_attempts: u32,
    /// Pause before the second try; doubles each time.
    pub first_pause: Duration,
    /// Longest pause, also when `Retry-After` asks for more: then the request fails at once.
    pub longest_pause: Duration,
    /// Blobs that are sent to or fetched from one host at once. Four fill a fast line; registries start to refuse at
    /// about thirty.
    pub parallel_transfers: usize,
    /// Bytes of one request of an upload. Larger blobs are sent in several, each of which can be sent again. Some
    /// registries refuse chunks below 5 MiB, some front servers requests above 100.
    pub chunk_size: u64,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(30),
            attempts: 5,
            mirror_attempts: 2,
            first_pause: Duration::from_millis(250),
            longest_pause: Duration::from_secs(30),
            parallel_transfers: 4,
            chunk_size: 32 << 20,
        }
    }
}

impl ClientOptions {
    /// For what a build can do without: a cache is worth less waiting than an image.
    pub fn of_a_cache() -> Self {
        Self {
            attempts: 3,
            mirror_attempts: 1,
            longest_pause: Duration::from_secs(5),
            ..Self::default()
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
    settings: RegistrySettings,
    usual: OnceCell<reqwest::Client>,
    /// By registry and whether it is insecure. Held only to look up or add.
    hosts: Mutex<HashMap<(String, bool), Arc<Host>>>,
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

/// A place that a name leads to, and how often it is tried.
struct Place {
    repository: Repository,
    attempts: u32,
}

impl RegistryClient {
    /// Makes a client without any configuration: anonymous, no mirrors. Costs nothing until it is used.
    pub fn new(options: ClientOptions) -> Self {
        Self::with_settings(options, RegistrySettings::none())
    }

    /// Makes a client with a configuration; costs nothing until it is used.
    pub fn with_settings(options: ClientOptions, settings: RegistrySettings) -> Self {
        let shared = Shared {
            options,
            settings,
            usual: OnceCell::new(),
            hosts: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The configuration.
    pub(crate) fn settings(&self) -> &RegistrySettings {
        &self.shared.settings
    }

    fn host(&self, repository: &Repository) -> Arc<Host> {
        let mut hosts = self
            .shared
            .hosts
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let key = (repository.registry.clone(), repository.is_insecure);
        let host = hosts
            .entry(key)
            .or_insert_with(|| Arc::new(Host::new(&self.shared.options)));
        Arc::clone(host)
    }

    /// The URL of something of a repository.
    async fn url(
        &self,
        repository: &Repository,
        kind: &str,
        selector: &str,
    ) -> Result<String, RegistryError> {
        let line = self.line(&self.host(repository), repository).await?;
        Ok(format!(
            "{}://{}/v2/{}/{kind}/{selector}",
            line.scheme,
            repository.authority(),
            repository.name
        ))
    }

    /// Where a reference can be pulled from, mirrors first. `has_digest` is what is asked for.
    async fn places(
        &self,
        reference: &Reference,
        has_digest: bool,
    ) -> Result<Vec<Place>, RegistryError> {
        let (settings, reference) = (self.shared.settings.clone(), reference.clone());
        let route = blocking::run(move || settings.route(&reference)).await?;
        let options = &self.shared.options;
        let suits = |source: &&settings::Source| {
            source
                .mirror
                .is_none_or(|asked_for| asked_for.covers(has_digest))
        };
        let place = |source: &settings::Source| Place {
            repository: Repository::of(source),
            attempts: match source.mirror {
                Some(_) => options.mirror_attempts,
                None => options.attempts,
            },
        };
        Ok(route.sources.iter().filter(suits).map(place).collect())
    }

    /// Fetches the manifest or index that a reference's digest or, without one, its tag names.
    pub async fn manifest(&self, reference: &Reference) -> Result<FetchedManifest, RegistryError> {
        let mut places = self
            .places(reference, reference.digest.is_some())
            .await?
            .into_iter()
            .peekable();
        loop {
            let place = places.next().ok_or_else(|| RegistryError::NotFound {
                reference: reference.to_string(),
            })?;
            match self.manifest_at(&place, reference).await {
                Err(error) if places.peek().is_some() => tell_mirror(&place.repository, &error),
                outcome => return outcome,
            }
        }
    }

    async fn manifest_at(
        &self,
        place: &Place,
        reference: &Reference,
    ) -> Result<FetchedManifest, RegistryError> {
        let repository = &place.repository;
        let selector = reference
            .digest
            .as_deref()
            .or(reference.tag.as_deref())
            .unwrap_or("latest");
        let url = self.url(repository, "manifests", selector).await?;
        let expected = reference.digest.as_deref().and_then(manifest::parse_digest);
        let answer = self
            .retrying(place.attempts, || {
                self.get_bounded(repository, &url, Some(manifest::media::ACCEPT))
            })
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

    /// Fetches a manifest of a reference's repository as it is, whatever it describes; none where there is none. Mirrors are
    /// not asked. The media type is an image manifest's.
    pub async fn raw_manifest(
        &self,
        reference: &Reference,
        selector: &str,
    ) -> Result<Option<Vec<u8>>, RegistryError> {
        let place = self.push_place(reference).await?;
        let url = self.url(&place.repository, "manifests", selector).await?;
        let answer = self
            .retrying(place.attempts, || {
                self.get_bounded(&place.repository, &url, Some(manifest::media::ACCEPT))
            })
            .await;
        match answer {
            Ok(answer) => Ok(Some(answer.bytes)),
            Err(RegistryError::BlobNotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Fetches a small blob of a reference's repository whole: an image config.
    pub async fn document(
        &self,
        reference: &Reference,
        digest: &Digest,
    ) -> Result<Vec<u8>, RegistryError> {
        let mut places = self.places(reference, true).await?.into_iter().peekable();
        loop {
            let place = places.next().ok_or_else(|| RegistryError::NotFound {
                reference: reference.to_string(),
            })?;
            match self.document_at(&place, digest).await {
                Err(error) if places.peek().is_some() => tell_mirror(&place.repository, &error),
                outcome => return outcome,
            }
        }
    }

    async fn document_at(&self, place: &Place, digest: &Digest) -> Result<Vec<u8>, RegistryError> {
        let url = self
            .url(&place.repository, "blobs", digest.as_ref())
            .await?;
        let answer = self
            .retrying(place.attempts, || {
                self.get_bounded(&place.repository, &url, None)
            })
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

    /// Shows credentials to a registry, to see whether it takes them. The client's settings must hold them.
    pub async fn check_login(&self, registry: &str) -> Result<(), RegistryError> {
        let reference = Reference {
            registry: registry.to_owned(),
            repository: "x".to_owned(),
            tag: None,
            digest: None,
        };
        let places = self.places(&reference, false).await?;
        let place = places.last().ok_or_else(|| RegistryError::NotFound {
            reference: registry.to_owned(),
        })?;
        let repository = &place.repository;
        let line = self.line(&self.host(repository), repository).await?;
        let url = format!("{}://{}/v2/", line.scheme, repository.authority());
        self.retrying(place.attempts, || async {
            let call = transport::Call::get(&url, None, 0);
            let response = self.execute(repository, &Access::Nothing, &call).await?;
            answer::check_status(response, &url).await.map(drop)
        })
        .await
    }

    /// Carries out a request until it succeeds, fails for good, or the tries are used up.
    async fn retrying<T, Attempt>(
        &self,
        attempts: u32,
        attempt: impl Fn() -> Attempt,
    ) -> Result<T, RegistryError>
    where
        Attempt: Future<Output = Result<T, RegistryError>>,
    {
        let mut failures = 0;
        loop {
            match attempt().await {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    failures += 1;
                    match self.pause_after(&error, failures, attempts) {
                        Some(pause) => tokio::time::sleep(pause).await,
                        None => return Err(error),
                    }
                }
            }
        }
    }

    /// How long to wait before the next try; none when there is none.
    fn pause_after(&self, error: &RegistryError, failures: u32, attempts: u32) -> Option<Duration> {
        let options = &self.shared.options;
        if failures >= attempts || !error.is_transient() {
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
            // One that is ill guesses when it will be well; it may be sooner.
            RegistryError::Status {
                retry_after: Some(asked),
                ..
            } => back_off.max(*asked).min(options.longest_pause),
            _ => back_off,
        };
        tracing::debug!(%error, ?pause, failures, "registry request failed");
        (pause <= options.longest_pause).then_some(pause)
    }
}

/// Notes why a mirror was passed over; the next place may well have what is wanted.
fn tell_mirror(repository: &Repository, error: &RegistryError) {
    tracing::info!(mirror = repository.registry, %error, "the mirror does not help, trying the next place");
}

/// The largest answer that is read into memory.
const LARGEST_ANSWER: u64 = MAX_DOCUMENT;
