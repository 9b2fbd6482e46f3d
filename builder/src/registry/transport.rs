//! One attempt of one request: the challenge and its answer, and redirects.

use std::path::PathBuf;
use std::sync::Arc;

use oci_spec::image::Digest;
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, LOCATION,
    RANGE, WWW_AUTHENTICATE,
};
use reqwest::{Method, Response, StatusCode, Url};

use super::answer::{
    LONGEST_WORDS, check_status, header, printable, read_bounded, stated_digest, without_query,
};
use super::auth::{Access, Authorization, BearerChallenge, TokenCell, token_of};
use super::error::NetworkError;
use super::host::{Host, Repository, authority_of};
use super::settings::Credentials;
use super::{LARGEST_ANSWER, RegistryClient, RegistryError, is_loopback};

/// Redirects in a row; registries need one or two.
const MAX_REDIRECTS: usize = 5;

/// Token answers are a few KiB.
const LARGEST_TOKEN_ANSWER: u64 = 1 << 20;

/// What token servers are told of us.
const CLIENT_ID: &str = "rbuild";

/// A request that can be made more than once: after a challenge, after a failure.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) url: &'a str,
    pub(super) accept: Option<&'static str>,
    /// First byte that is wanted; 0 asks for all.
    pub(super) from: u64,
    pub(super) body: CallBody<'a>,
}

/// What a request carries.
pub(super) enum CallBody<'a> {
    None,
    /// A document.
    Bytes {
        media_type: &'a str,
        bytes: &'a [u8],
    },
    /// Part of a blob, read as it is sent.
    File {
        path: PathBuf,
        from: u64,
        length: u64,
        /// Whether it is a chunk of an upload, which says where it belongs.
        is_chunk: bool,
        /// Hears up to which byte of the file it was sent, anew for each sending.
        on_position: Arc<dyn Fn(u64) + Send + Sync>,
    },
}

impl std::fmt::Debug for CallBody<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::None => "nothing",
            Self::Bytes { .. } => "a document",
            Self::File { .. } => "a blob",
        })
    }
}

impl<'a> Call<'a> {
    /// A GET from byte `from` on.
    pub(super) fn get(url: &'a str, accept: Option<&'static str>, from: u64) -> Self {
        Self {
            method: Method::GET,
            url,
            accept,
            from,
            body: CallBody::None,
        }
    }

    /// Another request without a range.
    pub(super) fn new(method: Method, url: &'a str, body: CallBody<'a>) -> Self {
        Self {
            method,
            url,
            accept: None,
            from: 0,
            body,
        }
    }

    async fn add_to(
        &self,
        mut request: reqwest::RequestBuilder,
    ) -> Result<reqwest::RequestBuilder, RegistryError> {
        if let Some(accept) = self.accept {
            request = request.header(ACCEPT, accept);
        }
        if self.from > 0 {
            request = request.header(RANGE, format!("bytes={}-", self.from));
        }
        Ok(match &self.body {
            // Some proxies want a length of everything that is not a GET.
            CallBody::None if !matches!(self.method, Method::GET | Method::HEAD) => {
                request.header(CONTENT_LENGTH, 0)
            }
            CallBody::None => request,
            CallBody::Bytes { media_type, bytes } => request
                .header(CONTENT_TYPE, *media_type)
                .body(bytes.to_vec()),
            CallBody::File {
                path,
                from,
                length,
                is_chunk,
                on_position,
            } => {
                let body =
                    super::upload::stream_file(path, *from, *length, Arc::clone(on_position))
                        .await
                        .map_err(|source| RegistryError::Read {
                            path: path.clone(),
                            source,
                        })?;
                let request = request
                    .header(CONTENT_TYPE, "application/octet-stream")
                    .header(CONTENT_LENGTH, *length);
                let request = if *is_chunk {
                    request.header(CONTENT_RANGE, format!("{from}-{}", from + length - 1))
                } else {
                    request
                };
                request.body(body)
            }
        })
    }
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
        let call = Call::get(url, accept, 0);
        let response = self.execute(repository, &Access::Pull, &call).await?;
        let response = check_status(response, url).await?;
        let content_type = header(response.headers(), CONTENT_TYPE.as_str());
        let stated_digest = stated_digest(response.headers());
        let bytes = read_bounded(response, url, LARGEST_ANSWER).await?;
        Ok(Answer {
            bytes,
            content_type,
            stated_digest,
        })
    }

    /// One request, answering a challenge if there is one. The status is the caller's to judge.
    pub(super) async fn execute(
        &self,
        repository: &Repository,
        access: &Access,
        call: &Call<'_>,
    ) -> Result<Response, RegistryError> {
        let host = self.host(repository);
        let token = host.tokens.cell(&repository.name, access, None);
        let first = self.send(&host, repository, call, token.get()).await?;
        if first.status() != StatusCode::UNAUTHORIZED {
            return Ok(first);
        }
        // Rare and large: it does not belong into the future of every request.
        let answer = self.answer_challenge(&host, repository, call.url, &first, access, &token);
        let answer = Box::pin(answer).await?;
        self.send(&host, repository, call, Some(&answer)).await
    }

    /// Sends a request and follows where a GET or HEAD is led. Credentials go to the registry's own host only.
    async fn send(
        &self,
        host: &Host,
        repository: &Repository,
        call: &Call<'_>,
        authorization: Option<&Authorization>,
    ) -> Result<Response, RegistryError> {
        let line = self.line(host, repository).await?;
        let mut url = parse_url(call.url)?;
        // An upload may go on at another host: then it carries its permission in its address.
        let is_own =
            |url: &Url| url.scheme() == line.scheme && authority_of(url) == repository.authority();
        let mut redirects = 0;
        loop {
            let client = if is_own(&url) {
                line.client.clone()
            } else {
                self.client_for(&url).await?
            };
            let mut request = call
                .add_to(client.request(call.method.clone(), url.clone()))
                .await?;
            if let Some(authorization) = authorization.filter(|_| is_own(&url)) {
                request = request.header(AUTHORIZATION, sensitive(authorization, call.url)?);
            }
            tracing::trace!(method = %call.method, url = call.url, from = call.from, redirects, "request");
            let response = request.send().await.map_err(|source| {
                // A blob that can't be read breaks the request: the disk is the cause, not the network.
                RegistryError::Unreachable {
                    url: without_query(call.url),
                    is_tls: line.scheme == "https" && source.is_connect(),
                    source: NetworkError::new(source),
                }
            })?;
            let follows = matches!(call.method, Method::GET | Method::HEAD)
                && matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            if !follows {
                return Ok(response);
            }
            redirects += 1;
            let not_followed = |reason| RegistryError::Redirect {
                url: call.url.to_owned(),
                reason,
            };
            let location = header(response.headers(), LOCATION.as_str());
            let next = location
                .and_then(|location| url.join(&location).ok())
                .filter(|next| matches!(next.scheme(), "http" | "https"))
                .ok_or_else(|| not_followed("it names no address"))?;
            if redirects > MAX_REDIRECTS {
                return Err(not_followed("there are too many redirects in a row"));
            }
            if url.scheme() == "https" && next.scheme() != "https" {
                return Err(not_followed(
                    "it leads from HTTPS to an unencrypted address",
                ));
            }
            url = next;
        }
    }

    /// Finds what a 401 asks for.
    async fn answer_challenge(
        &self,
        host: &Host,
        repository: &Repository,
        url: &str,
        refusal: &Response,
        access: &Access,
        refused: &TokenCell,
    ) -> Result<Authorization, RegistryError> {
        let mut challenges = challenges_of(refusal);
        if challenges.is_empty() {
            // Some say only at the door how they want to be answered.
            let door = format!(
                "{}://{}/v2/",
                self.line(host, repository).await?.scheme,
                repository.authority()
            );
            let answer = self
                .send(host, repository, &Call::get(&door, None, 0), None)
                .await?;
            challenges = challenges_of(&answer);
        }
        let unanswerable = || RegistryError::Challenge {
            url: without_query(url),
            challenge: match challenges.as_slice() {
                [] => "it does not say which".to_owned(),
                all => format!("`{}`", printable(&all.join(", "), LONGEST_WORDS)),
            },
        };
        // The refused cell is replaced only if it held a token: an empty one is what we are about to fill.
        let stale = refused.initialized().then_some(refused);
        let cell = host.tokens.cell(&repository.name, access, stale);
        let bearer = challenges
            .iter()
            .find_map(|text| BearerChallenge::parse(text));
        if let Some(challenge) = bearer {
            let server = challenge.token_server().ok_or_else(unanswerable)?;
            // A password in the clear could be read on the way. Only this machine may see it, and a host that the
            // configuration trusts without TLS.
            let is_local = is_loopback(server.host_str().unwrap_or_default());
            if server.scheme() != "https" && !is_local && !repository.is_insecure {
                return Err(unanswerable());
            }
            let scopes = challenge.scopes(access.scopes(&repository.name));
            return cell
                .get_or_try_init(|| {
                    self.fetch_token(repository, server, challenge.service.as_deref(), &scopes)
                })
                .await
                .cloned();
        }
        let asks_for_basic = challenges.iter().any(|text| {
            text.trim_start()
                .get(..5)
                .is_some_and(|scheme| scheme.eq_ignore_ascii_case("basic"))
        });
        if !asks_for_basic {
            return Err(unanswerable());
        }
        cell.get_or_try_init(async || {
            let found = self
                .shared
                .settings
                .credentials(&repository.registry, &repository.name)
                .await?;
            match found.map(|found| found.credentials) {
                Some(Credentials::Basic { username, password }) => {
                    Ok(Authorization::basic(&username, &password))
                }
                _ => Err(unanswerable()),
            }
        })
        .await
        .cloned()
    }

    /// Asks a token server: anonymously, as a user, or with a refresh token.
    async fn fetch_token(
        &self,
        repository: &Repository,
        mut server: Url,
        service: Option<&str>,
        scopes: &[String],
    ) -> Result<Authorization, RegistryError> {
        let shown = without_query(server.as_str());
        let no_token = || RegistryError::Token { url: shown.clone() };
        let found = self
            .shared
            .settings
            .credentials(&repository.registry, &repository.name)
            .await?;
        let credentials = found.map(|found| found.credentials);
        let client = self.client_for_token(repository, &server).await?;
        let request = match &credentials {
            Some(Credentials::RegistryToken(token)) => {
                return Authorization::bearer(token.reveal(), None).ok_or_else(no_token);
            }
            Some(Credentials::IdentityToken(token)) => {
                let scope = scopes.join(" ");
                let mut form = Url::parse("http://form/").map_err(|_| no_token())?;
                form.query_pairs_mut()
                    .append_pair("grant_type", "refresh_token")
                    .append_pair("service", service.unwrap_or_default())
                    .append_pair("client_id", CLIENT_ID)
                    .append_pair("scope", &scope)
                    .append_pair("refresh_token", token.reveal());
                client
                    .post(server)
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(form.query().unwrap_or_default().to_owned())
            }
            basic => {
                {
                    let mut query = server.query_pairs_mut();
                    if let Some(service) = service {
                        query.append_pair("service", service);
                    }
                    for scope in scopes {
                        query.append_pair("scope", scope);
                    }
                    if let Some(Credentials::Basic { username, .. }) = basic {
                        query.append_pair("account", username);
                        query.append_pair("client_id", CLIENT_ID);
                    }
                }
                let request = client.get(server);
                match basic {
                    Some(Credentials::Basic { username, password }) => {
                        let basic = Authorization::basic(username, password);
                        request.header(AUTHORIZATION, sensitive(&basic, &shown)?)
                    }
                    _ => request,
                }
            }
        };
        let response = request
            .send()
            .await
            .map_err(|source| RegistryError::Unreachable {
                url: shown.clone(),
                is_tls: source.is_connect() && shown.starts_with("https"),
                source: NetworkError::new(source),
            })?;
        let response = check_status(response, &shown).await?;
        let body = read_bounded(response, &shown, LARGEST_TOKEN_ANSWER).await?;
        token_of(&body).ok_or_else(no_token)
    }

    /// The client for a token server. On the registry's own host it is the registry's.
    async fn client_for_token(
        &self,
        repository: &Repository,
        server: &Url,
    ) -> Result<reqwest::Client, RegistryError> {
        if authority_of(server) == repository.authority() {
            let line = self.line(&self.host(repository), repository).await?;
            return Ok(line.client);
        }
        self.client_for(server).await
    }
}

/// What a refusal asks for; there may be several ways.
fn challenges_of(response: &Response) -> Vec<String> {
    let values = response.headers().get_all(WWW_AUTHENTICATE);
    let texts = values.iter().filter_map(|value| value.to_str().ok());
    texts.map(str::to_owned).collect()
}

fn parse_url(url: &str) -> Result<Url, RegistryError> {
    Url::parse(url).map_err(|_| RegistryError::Url {
        url: without_query(url),
    })
}

/// The header, marked so that no HTTP library logs it.
fn sensitive(authorization: &Authorization, url: &str) -> Result<HeaderValue, RegistryError> {
    let mut value =
        HeaderValue::from_str(authorization.header.reveal()).map_err(|_| RegistryError::Token {
            url: without_query(url),
        })?;
    value.set_sensitive(true);
    Ok(value)
}
