//! A host that is spoken to: its scheme, its TLS, its tokens, and how many transfers it gets at once.

use std::net::Ipv4Addr;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use reqwest::Url;
use reqwest::redirect::Policy;
use tokio::sync::{OnceCell, Semaphore};

use super::auth::TokenCache;
use super::settings::{Authority, CertificateFiles, RegistrySettings, SettingsError, Source};
use super::{ClientOptions, RegistryClient, RegistryError};
use crate::blocking;

/// How long a host that may speak plain HTTP is given to answer in TLS.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// One repository of one host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Repository {
    /// Host and port as in names: `docker.io`.
    pub(super) registry: String,
    /// `library/debian`
    pub(super) name: String,
    /// Certificates are not checked and plain HTTP will do, because a file or flag says so.
    pub(super) is_insecure: bool,
}

impl Repository {
    pub(super) fn of(source: &Source) -> Self {
        Self {
            registry: source.registry.clone(),
            name: source.name.clone(),
            is_insecure: source.is_insecure,
        }
    }

    /// Host and port to connect to.
    pub(super) fn authority(&self) -> &str {
        if self.registry == "docker.io" {
            "registry-1.docker.io"
        } else {
            &self.registry
        }
    }
}

/// What is known of a host. Made when it is first spoken to.
#[derive(Debug)]
pub(super) struct Host {
    /// Scheme and client, found out once.
    pub(super) line: OnceCell<Line>,
    pub(super) tokens: TokenCache,
    /// Transfers of blobs, both ways.
    pub(super) transfers: Semaphore,
    /// Uploads in a row that it took as Docker sends them and not otherwise.
    pub(super) streams_in_a_row: AtomicU32,
}

/// How a host is spoken to.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// `https`, or `http` where that is allowed and nothing else is answered.
    pub(super) scheme: &'static str,
    pub(super) client: reqwest::Client,
}

impl Host {
    pub(super) fn new(options: &ClientOptions) -> Self {
        Self {
            line: OnceCell::new(),
            tokens: TokenCache::default(),
            transfers: Semaphore::new(options.parallel_transfers.max(1)),
            streams_in_a_row: AtomicU32::new(0),
        }
    }
}

/// What a client is made of beside the options.
#[derive(Clone, Copy, Debug, Default)]
struct Trust<'a> {
    is_proxied: bool,
    takes_any_certificate: bool,
    files: Option<&'a CertificateFiles>,
    authorities: &'a [Authority],
}

impl RegistryClient {
    /// The line to a repository's host.
    pub(super) async fn line(
        &self,
        host: &Host,
        repository: &Repository,
    ) -> Result<Line, RegistryError> {
        let line = host
            .line
            .get_or_try_init(|| self.open_line(repository))
            .await?;
        Ok(line.clone())
    }

    async fn open_line(&self, repository: &Repository) -> Result<Line, RegistryError> {
        let settings = self.shared.settings.clone();
        let registry = repository.registry.clone();
        let files = blocking::run(move || read_certificates(&settings, &registry)).await?;
        let is_local = is_loopback(repository.authority());
        // As Docker has it: a registry on this machine needs no certificate, unless one was put there for it.
        let is_lenient = repository.is_insecure
            || (is_local && files.is_none() && !self.shared.settings.insists_on_tls());
        let trust = Trust {
            is_proxied: !is_local,
            takes_any_certificate: is_lenient,
            files: files.as_ref(),
            authorities: self.shared.settings.authorities(),
        };
        if !is_lenient {
            let client = if is_local || files.is_some() {
                http_client(&self.shared.options, trust)?
            } else {
                self.usual_client().await?
            };
            return Ok(Line {
                scheme: "https",
                client,
            });
        }
        let client = http_client(&self.shared.options, trust)?;
        let speaks_tls = self.speaks_tls(&client, repository.authority()).await;
        tracing::debug!(
            registry = repository.registry,
            speaks_tls,
            "insecure registry"
        );
        let scheme = if speaks_tls { "https" } else { "http" };
        Ok(Line { scheme, client })
    }

    /// Whether a host answers in TLS at all. No credentials are shown.
    async fn speaks_tls(&self, client: &reqwest::Client, authority: &str) -> bool {
        let url = format!("https://{authority}/v2/");
        let answer = client.get(url).timeout(PROBE_TIMEOUT).send().await;
        answer.is_ok()
    }

    /// For all hosts that nothing is configured for. Made when first needed: reading the machine's certificates costs
    /// more than a whole cached build.
    async fn usual_client(&self) -> Result<reqwest::Client, RegistryError> {
        let trust = Trust {
            is_proxied: true,
            authorities: self.shared.settings.authorities(),
            ..Trust::default()
        };
        let made = self
            .shared
            .usual
            .get_or_try_init(async || http_client(&self.shared.options, trust))
            .await;
        made.cloned()
    }

    /// The client for a host that a redirect, an upload or a challenge leads to: trusted no more than any other, also
    /// when the registry that named it is trusted blindly.
    pub(super) async fn client_for(&self, url: &Url) -> Result<reqwest::Client, RegistryError> {
        let authority = authority_of(url);
        if is_loopback(&authority) {
            let repository = Repository {
                registry: authority,
                name: String::new(),
                is_insecure: false,
            };
            let settings = self.shared.settings.clone();
            let registry = repository.registry.clone();
            let files = blocking::run(move || read_certificates(&settings, &registry)).await?;
            let trust = Trust {
                is_proxied: false,
                takes_any_certificate: files.is_none() && !self.shared.settings.insists_on_tls(),
                files: files.as_ref(),
                authorities: self.shared.settings.authorities(),
            };
            return http_client(&self.shared.options, trust);
        }
        let settings = self.shared.settings.clone();
        match blocking::run(move || read_certificates(&settings, &authority)).await? {
            None => self.usual_client().await,
            files => {
                let trust = Trust {
                    is_proxied: true,
                    takes_any_certificate: false,
                    files: files.as_ref(),
                    authorities: self.shared.settings.authorities(),
                };
                http_client(&self.shared.options, trust)
            }
        }
    }
}

fn read_certificates(
    settings: &RegistrySettings,
    registry: &str,
) -> Result<Option<CertificateFiles>, SettingsError> {
    settings
        .certificate_directory(registry)
        .map(|directory| RegistrySettings::certificates(&directory))
        .transpose()
}

/// Makes an HTTP client. It follows no redirects: [`super::transport`] does, and knows what may be shown to whom.
fn http_client(
    options: &ClientOptions,
    trust: Trust<'_>,
) -> Result<reqwest::Client, RegistryError> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("rbuild/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(options.connect_timeout)
        .read_timeout(options.read_timeout)
        .referer(false)
        .redirect(Policy::none())
        .tls_danger_accept_invalid_certs(trust.takes_any_certificate);
    if !trust.is_proxied {
        builder = builder.no_proxy();
    }
    builder = trust_also(builder, trust.authorities)?;
    if let Some(files) = trust.files {
        let unusable = |path: &std::path::Path| {
            let path = path.to_owned();
            move |error: reqwest::Error| SettingsError::Certificate {
                path,
                reason: cause_of(&error),
            }
        };
        builder = builder.tls_certs_merge(parse_authorities(&files.authorities)?);
        if let Some((path, key)) = &files.client {
            let identity = reqwest::Identity::from_pem(key.pem()).map_err(unusable(path))?;
            builder = builder.identity(identity);
        }
    }
    builder.build().map_err(RegistryError::Client)
}

/// Has a client trust what `--ca-cert` names.
pub(crate) fn trust_also(
    builder: reqwest::ClientBuilder,
    authorities: &[Authority],
) -> Result<reqwest::ClientBuilder, SettingsError> {
    if authorities.is_empty() {
        return Ok(builder);
    }
    let files: Vec<_> = authorities
        .iter()
        .map(|authority| (authority.path.clone(), authority.pem.clone()))
        .collect();
    Ok(builder.tls_certs_merge(parse_authorities(&files)?))
}

fn parse_authorities(
    files: &[(std::path::PathBuf, Vec<u8>)],
) -> Result<Vec<reqwest::Certificate>, SettingsError> {
    let mut authorities = Vec::new();
    for (path, pem) in files {
        let unusable = |reason: String| SettingsError::Certificate {
            path: path.clone(),
            reason,
        };
        let found = reqwest::Certificate::from_pem_bundle(pem)
            .map_err(|error| unusable(cause_of(&error)))?;
        if found.is_empty() {
            return Err(unusable("it holds no certificate in PEM form".to_owned()));
        }
        authorities.extend(found);
    }
    Ok(authorities)
}

/// The innermost words of an error.
fn cause_of(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .last()
        .map_or_else(String::new, ToString::to_string)
}

/// Host and port of a URL as they stand in names; the port is left out where it is the scheme's own.
pub(super) fn authority_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// True for `localhost`, `127.0.0.0/8` and `[::1]`, with or without a port: there plain HTTP is safe, and usual.
pub(crate) fn is_loopback(host: &str) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_may_be_spoken_to_in_the_clear() {
        let rows = [
            ("registry-1.docker.io", false),
            ("localhost:5000", true),
            ("localhost", true),
            ("127.0.0.1:5000", true),
            ("127.9.9.9:1", true),
            ("[::1]:5000", true),
            ("ghcr.io", false),
            ("10.0.0.1:5000", false),
            ("localhost.example.com", false),
        ];
        for (host, expected) in rows {
            assert_eq!(is_loopback(host), expected, "{host}");
        }
    }
}
