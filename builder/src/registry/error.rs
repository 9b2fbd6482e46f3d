//! What can go wrong between us and a registry: the object, the reason, and what to do.

use std::time::Duration;

use oci_spec::image::Digest;
use reqwest::StatusCode;

use super::settings::SettingsError;
use crate::manifest::ManifestError;

/// What the network did, in the words that say something: the HTTP library's errors are wrapped in several that do not.
#[derive(Debug)]
pub struct NetworkError(reqwest::Error);

impl NetworkError {
    /// Takes the URL off, which would otherwise be printed twice.
    pub(super) fn new(error: reqwest::Error) -> Self {
        Self(error.without_url())
    }

    fn texts(&self) -> impl Iterator<Item = String> {
        let first: &(dyn std::error::Error + 'static) = &self.0;
        std::iter::successors(Some(first), |error| error.source()).map(ToString::to_string)
    }

    /// Whether one of the errors has these words. There is no other way to tell them apart.
    fn says(&self, words: &str) -> bool {
        self.texts().any(|text| text.contains(words))
    }
}

impl std::fmt::Display for NetworkError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const WRAPPINGS: [&str; 7] = [
            "error sending request",
            "client error (",
            "dns error",
            "error resolving DNS",
            "tcp connect error",
            "request or response body error",
            "error decoding response body",
        ];
        let all: Vec<String> = self.texts().collect();
        let is_telling = |text: &&String| !WRAPPINGS.iter().any(|words| text.starts_with(words));
        let mut telling: Vec<&str> = all
            .iter()
            .filter(is_telling)
            .map(|text| {
                // The resolver prints its own structures.
                if text.contains("no records found for Query") {
                    "no address was found for the name"
                } else {
                    text
                }
            })
            .collect();
        telling.dedup();
        if telling.is_empty() {
            telling.extend(all.last().map(String::as_str));
        }
        formatter.write_str(&telling.join(": "))
    }
}

impl std::error::Error for NetworkError {}

/// A registry request that did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The HTTP client can't be set up (no TLS trust store, for example).
    #[error("cannot set up the HTTP client")]
    Client(#[source] reqwest::Error),
    /// The machine's configuration of registries.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// An address or a position that a registry names and that is not believed.
    #[error("`{url}` leads to where rbuild does not follow: {reason}")]
    Redirect {
        /// What was requested.
        url: String,
        /// Why not.
        reason: &'static str,
    },
    /// A name that makes no URL.
    #[error("`{url}` is not a URL that can be requested")]
    Url {
        /// As made from the reference.
        url: String,
    },
    /// No answer: refused, unresolvable, reset, timed out, TLS.
    #[error("cannot reach `{url}`")]
    Unreachable {
        /// What was requested.
        url: String,
        /// Why.
        #[source]
        source: NetworkError,
        /// True when the server speaks plain HTTP where HTTPS was tried, as far as that can be told.
        is_tls: bool,
    },
    /// The connection broke in the middle of an answer, again and again.
    #[error("the answer of `{url}` broke off after {received} bytes")]
    BrokenOff {
        /// What was requested.
        url: String,
        /// Bytes that had come.
        received: u64,
        /// Why.
        #[source]
        source: Option<NetworkError>,
    },
    /// 404 for a manifest.
    #[error("image `{reference}` was not found in the registry")]
    NotFound {
        /// Full name.
        reference: String,
    },
    /// 404 for a blob that a manifest names.
    #[error("`{url}` was not found, though a manifest names it")]
    BlobNotFound {
        /// What was requested.
        url: String,
    },
    /// 401 or 403 after all that we have was shown.
    #[error("access to `{url}` was denied{detail}")]
    Denied {
        /// What was requested.
        url: String,
        /// The registry's own words, with `: ` in front.
        detail: String,
    },
    /// A challenge that can't be answered, for lack of credentials or of the way that it asks for.
    #[error("`{url}` asks for authentication that rbuild cannot give: {challenge}")]
    Challenge {
        /// What was requested.
        url: String,
        /// `WWW-Authenticate` between backticks, or that there is none.
        challenge: String,
    },
    /// The token server's answer has no token.
    #[error("the token server `{url}` gave no usable token")]
    Token {
        /// Where the token was asked.
        url: String,
    },
    /// 429, and the wait it asks for is too long or was in vain.
    #[error("`{url}` answers that there were too many requests")]
    TooManyRequests {
        /// What was requested.
        url: String,
        /// `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// Any other status.
    #[error("`{url}` answered {status}{detail}")]
    Status {
        /// What was requested.
        url: String,
        /// Its status.
        status: StatusCode,
        /// `Retry-After`.
        retry_after: Option<Duration>,
        /// The registry's own words, with `: ` in front.
        detail: String,
    },
    /// A registry that takes part of an upload and miscounts it.
    #[error("`{url}` says that it has {told} bytes of an upload of which {sent} were sent")]
    Miscounted {
        /// Where they were sent.
        url: String,
        /// By the registry.
        told: u64,
        /// By us.
        sent: u64,
    },
    /// More bytes than allowed or announced.
    #[error("`{url}` sends more than the {limit} bytes that were expected")]
    TooLarge {
        /// What was requested.
        url: String,
        /// What was expected.
        limit: u64,
    },
    /// A complete answer with fewer bytes than announced.
    #[error("`{url}` sent {actual} bytes where {expected} were announced")]
    TooShort {
        /// What was requested.
        url: String,
        /// By the descriptor.
        expected: u64,
        /// What came.
        actual: u64,
    },
    /// Content that is not what its digest says.
    #[error(
        "`{url}` does not have the digest it should have: expected `{expected}`, got `{actual}`"
    )]
    WrongDigest {
        /// What was requested.
        url: String,
        /// From the reference, descriptor or header.
        expected: Digest,
        /// Of the bytes.
        actual: Digest,
    },
    /// A manifest that is none, or of a kind that is not supported.
    #[error("`{url}` did not give a usable manifest")]
    Manifest {
        /// What was requested.
        url: String,
        /// Why.
        #[source]
        source: ManifestError,
    },
    /// Reading what is to be sent.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// A blob of the store.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Writing what came.
    #[error("cannot store what `{url}` sends")]
    Store {
        /// What was requested.
        url: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl RegistryError {
    /// Whether the same request may succeed a little later.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::BrokenOff { .. }
            | Self::TooShort { .. }
            | Self::TooManyRequests { .. } => true,
            Self::Status { status, .. } => matches!(status.as_u16(), 408 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }

    /// Whether the registry has nothing against the request but that there were too many.
    pub fn is_rate_limit(&self) -> bool {
        matches!(self, Self::TooManyRequests { .. })
    }

    /// What the user can do about it.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Unreachable { source, .. } if source.says("tunnel") => Some(
                "the way leads through a proxy (HTTPS_PROXY, ALL_PROXY): check that it runs and lets this name pass; \
                 names in NO_PROXY go without one"
                    .to_owned(),
            ),
            Self::Unreachable { source, .. } if source.says("dns error") => Some(
                "the name has no address: check its spelling and the network; where only a proxy leads out, set HTTPS_PROXY"
                    .to_owned(),
            ),
            Self::Unreachable { is_tls: true, .. } => Some(
                "registries are spoken to over HTTPS unless they are on this machine (localhost); \
                 check the name, the port and the certificate"
                    .to_owned(),
            ),
            Self::Unreachable { .. } | Self::BrokenOff { .. } | Self::TooShort { .. } => {
                Some("check the name, the network and the proxy variables (HTTPS_PROXY, NO_PROXY)".to_owned())
            }
            Self::NotFound { .. } => Some(
                "check the spelling and the tag; a name without a registry is looked up on docker.io".to_owned(),
            ),
            Self::Denied { url, .. } | Self::Challenge { url, .. } => Some(denied_help(url)),
            Self::Settings(source) => source.help(),
            Self::TooManyRequests { retry_after, .. } => Some(match retry_after {
                Some(wait) => format!("the registry asks to wait {} seconds", wait.as_secs()),
                None => "try again later, or use a mirror".to_owned(),
            }),
            Self::WrongDigest { .. } | Self::TooLarge { .. } | Self::Manifest { .. } => Some(
                "the registry or something in between (a proxy, a login page) answers wrongly; nothing was kept"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// What to do about a refusal: log in, or look who one is.
fn denied_help(url: &str) -> String {
    let host = reqwest::Url::parse(url)
        .ok()
        .map(|url| super::host::authority_of(&url))
        .unwrap_or_default();
    let registry = match host.as_str() {
        "registry-1.docker.io" | "auth.docker.io" => "docker.io",
        other => other,
    };
    format!(
        "the name may be misspelt or need a login: `rbuild login {registry}`; `rbuild info {registry}` says whose \
         credentials are used"
    )
}
