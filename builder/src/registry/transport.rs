//! One attempt of one request: the connection, the challenge and its token, and what the status means.

use std::time::Duration;

use oci_spec::image::Digest;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, RANGE, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::redirect::Policy;
use reqwest::{Response, StatusCode, Url};

use super::auth::{BearerChallenge, Token, TokenCell, token_of};
use super::{
    ClientOptions, LARGEST_ANSWER, RegistryClient, RegistryError, Repository, is_loopback,
};
use crate::manifest;

/// Redirects in a row; registries need one or two.
const MAX_REDIRECTS: usize = 5;

/// Token answers are a few KiB.
const LARGEST_TOKEN_ANSWER: u64 = 1 << 20;

/// How much of an error's body is read for its message.
const LARGEST_ERROR_ANSWER: u64 = 8 << 10;

/// Makes the HTTP client. Redirects: reqwest drops `Authorization` when scheme, host or port change (a test holds it
/// to that); a step down from HTTPS to HTTP is refused here.
fn http_client(
    options: &ClientOptions,
    is_proxied: bool,
) -> Result<reqwest::Client, RegistryError> {
    let redirects = Policy::custom(|attempt| {
        let was_secure = attempt
            .previous()
            .last()
            .is_some_and(|url| url.scheme() == "https");
        if attempt.previous().len() > MAX_REDIRECTS {
            attempt.error("too many redirects")
        } else if was_secure && attempt.url().scheme() != "https" {
            attempt.error("a redirect leads from HTTPS to an unencrypted address")
        } else {
            attempt.follow()
        }
    });
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("rbuild/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(options.connect_timeout)
        .read_timeout(options.read_timeout)
        .referer(false)
        .redirect(redirects);
    if !is_proxied {
        builder = builder.no_proxy();
    }
    builder.build().map_err(RegistryError::Client)
}

/// A bounded answer with what its headers state.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) bytes: Vec<u8>,
    pub(super) content_type: Option<String>,
    pub(super) stated_digest: Option<Digest>,
}

impl RegistryClient {
    /// One GET, read whole.
    pub(super) async fn get_bounded(
        &self,
        repository: &Repository,
        url: &str,
        accept: Option<&'static str>,
    ) -> Result<Answer, RegistryError> {
        let response = self.get(repository, url, accept, 0).await?;
        let content_type = header(response.headers(), CONTENT_TYPE.as_str());
        let stated_digest = header(response.headers(), "docker-content-digest")
            .and_then(|text| manifest::parse_digest(&text));
        let bytes = read_bounded(response, url, LARGEST_ANSWER).await?;
        Ok(Answer {
            bytes,
            content_type,
            stated_digest,
        })
    }

    /// One GET, answering a challenge if there is one. The response has a success status.
    pub(super) async fn get(
        &self,
        repository: &Repository,
        url: &str,
        accept: Option<&'static str>,
        from: u64,
    ) -> Result<Response, RegistryError> {
        let scope = repository.pull_scope();
        let cell = self.shared.tokens.cell(&repository.registry, &scope, None);
        let first = self.send(url, accept, from, cell.get()).await?;
        if first.status() != StatusCode::UNAUTHORIZED {
            return check_status(first, url).await;
        }
        let token = self
            .answer_challenge(repository, url, &first, &scope, &cell)
            .await?;
        let second = self.send(url, accept, from, Some(&token)).await?;
        check_status(second, url).await
    }

    async fn send(
        &self,
        url: &str,
        accept: Option<&'static str>,
        from: u64,
        token: Option<&Token>,
    ) -> Result<Response, RegistryError> {
        let parsed = Url::parse(url).map_err(|_| RegistryError::Url {
            url: url.to_owned(),
        })?;
        let is_local = parsed.host_str().is_some_and(is_loopback);
        let cell = if is_local {
            &self.shared.direct
        } else {
            &self.shared.proxied
        };
        let client = cell
            .get_or_try_init(async || http_client(&self.shared.options, !is_local))
            .await?;
        let is_tls = parsed.scheme() == "https";
        let mut request = client.get(parsed);
        if let Some(accept) = accept {
            request = request.header(ACCEPT, accept);
        }
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        if let Some(token) = token {
            request = request.bearer_auth(token.reveal());
        }
        tracing::trace!(url, from, "GET");
        request
            .send()
            .await
            .map_err(|source| RegistryError::Unreachable {
                url: url.to_owned(),
                is_tls: is_tls && source.is_connect(),
                source: source.without_url(),
            })
    }

    /// Fetches the anonymous token that a 401 asks for.
    async fn answer_challenge(
        &self,
        repository: &Repository,
        url: &str,
        refusal: &Response,
        scope: &str,
        refused: &TokenCell,
    ) -> Result<Token, RegistryError> {
        let challenges: Vec<&str> = refusal
            .headers()
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        let unanswerable = || RegistryError::Challenge {
            url: url.to_owned(),
            challenge: printable(&challenges.join(", "), 200),
        };
        let challenge = challenges
            .iter()
            .find_map(|text| BearerChallenge::parse(text))
            .ok_or_else(unanswerable)?;
        let token_url = challenge.token_url(scope).ok_or_else(unanswerable)?;
        // A token in the clear could be read on the way; only this machine's own registry may do that.
        let is_local = is_loopback(token_url.host_str().unwrap_or_default());
        if token_url.scheme() != "https" && !is_local {
            return Err(unanswerable());
        }
        // The refused cell is replaced only if it held a token: an empty one is what we are about to fill.
        let stale = refused.initialized().then_some(refused);
        let cell = self.shared.tokens.cell(&repository.registry, scope, stale);
        cell.get_or_try_init(|| self.fetch_token(token_url.as_str()))
            .await
            .cloned()
    }

    async fn fetch_token(&self, url: &str) -> Result<Token, RegistryError> {
        let response = self.send(url, None, 0, None).await?;
        let response = check_status(response, url).await?;
        let body = read_bounded(response, url, LARGEST_TOKEN_ANSWER).await?;
        token_of(&body).ok_or_else(|| RegistryError::Token {
            url: url.to_owned(),
        })
    }
}

/// Turns a status that is no success into its error.
async fn check_status(response: Response, url: &str) -> Result<Response, RegistryError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let url = url.to_owned();
    Err(match status {
        StatusCode::NOT_FOUND => RegistryError::BlobNotFound { url },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => RegistryError::Denied {
            detail: detail(response, &url).await,
            url,
        },
        StatusCode::TOO_MANY_REQUESTS => {
            let retry_after = header(response.headers(), RETRY_AFTER.as_str());
            // The other form, a date, needs the server's clock to be right; the back-off serves instead.
            let retry_after = retry_after
                .and_then(|text| text.trim().parse().ok())
                .map(Duration::from_secs);
            RegistryError::TooManyRequests { url, retry_after }
        }
        _ => RegistryError::Status {
            status,
            detail: detail(response, &url).await,
            url,
        },
    })
}

/// Reads a body that must not be longer than `limit`.
async fn read_bounded(
    mut response: Response,
    url: &str,
    limit: u64,
) -> Result<Vec<u8>, RegistryError> {
    let too_large = || RegistryError::TooLarge {
        url: url.to_owned(),
        limit,
    };
    if response
        .content_length()
        .is_some_and(|length| length > limit)
    {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    loop {
        let chunk = response
            .chunk()
            .await
            .map_err(|source| RegistryError::BrokenOff {
                url: url.to_owned(),
                received: bytes.len() as u64,
                source: Some(source.without_url()),
            })?;
        let Some(chunk) = chunk else { return Ok(bytes) };
        if (bytes.len() + chunk.len()) as u64 > limit {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
}

/// The registry's own words in an error answer: `{"errors":[{"code":…,"message":…}]}`.
async fn detail(response: Response, url: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<Item>,
    }
    #[derive(serde::Deserialize)]
    struct Item {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let Ok(body) = read_bounded(response, url, LARGEST_ERROR_ANSWER).await else {
        return String::new();
    };
    let Ok(answer) = serde_json::from_slice::<Errors>(&body) else {
        return String::new();
    };
    match answer.errors.first() {
        Some(item) if !item.message.is_empty() => format!(": {}", printable(&item.message, 200)),
        Some(item) if !item.code.is_empty() => format!(": {}", printable(&item.code, 200)),
        _ => String::new(),
    }
}

/// A stranger's text made fit for a terminal.
fn printable(text: &str, longest: usize) -> String {
    text.chars()
        .map(|character| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        })
        .take(longest)
        .collect()
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned)
}
