//! Challenges and tokens: what a registry asks for with a 401, and what answers it.
//!
//! One token per (host, repository, access), asked for once however many transfers want it. Tokens are never logged.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use serde::Deserialize;
use tokio::sync::OnceCell;

use super::secret::Secret;

/// What a request is for, and so which scopes its token must have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Access {
    /// `/v2/`: no repository.
    Nothing,
    /// Manifests and blobs of the repository.
    Pull,
    /// The same, and changing them.
    Push,
    /// As `Push`, and reading another repository of the host.
    Mount {
        /// Its name.
        from: String,
    },
}

impl Access {
    /// Scopes as a token server is asked for them.
    pub(super) fn scopes(&self, repository: &str) -> Vec<String> {
        let own = |actions| format!("repository:{repository}:{actions}");
        match self {
            Self::Nothing => Vec::new(),
            Self::Pull => vec![own("pull")],
            Self::Push => vec![own("pull,push")],
            Self::Mount { from } => vec![own("pull,push"), format!("repository:{from}:pull")],
        }
    }
}

/// What goes into `Authorization`, and until when.
#[derive(Clone, Debug)]
pub(super) struct Authorization {
    /// `Bearer …` or `Basic …`
    pub(super) header: Secret,
    /// When it is of no use any more, as far as that was told.
    pub(super) expires: Option<Instant>,
}

impl Authorization {
    /// A user and a password, as HTTP has them.
    pub(super) fn basic(username: &str, password: &Secret) -> Self {
        let text = STANDARD.encode(format!("{username}:{}", password.reveal()));
        Self {
            header: Secret::new(format!("Basic {text}")),
            expires: None,
        }
    }

    /// A token; none when it can't stand in a header.
    pub(super) fn bearer(token: &str, lifetime: Option<Duration>) -> Option<Self> {
        let is_fit = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        is_fit.then(|| Self {
            header: Secret::new(format!("Bearer {token}")),
            // A token that ends while a request is on its way is as good as ended.
            expires: lifetime
                .and_then(|lifetime| Instant::now().checked_add(lifetime.mul_f64(0.9))),
        })
    }

    fn is_over(&self) -> bool {
        self.expires
            .is_some_and(|expires| expires <= Instant::now())
    }
}

/// `WWW-Authenticate: Bearer …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BearerChallenge {
    pub(super) realm: String,
    pub(super) service: Option<String>,
    pub(super) scope: Option<String>,
}

impl BearerChallenge {
    /// Reads a challenge; none for other schemes and for one without a realm.
    pub(super) fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.trim().split_once(char::is_whitespace)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service, mut scope) = (None, None, None);
        for (name, value) in parameters(rest) {
            match name.to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value),
                "service" => service = Some(value),
                "scope" => scope = Some(value),
                _ => {}
            }
        }
        Some(Self {
            realm: realm?,
            service,
            scope,
        })
    }

    /// The token server.
    pub(super) fn token_server(&self) -> Option<Url> {
        Url::parse(&self.realm).ok()
    }

    /// The scopes to ask for: ours, and that of the challenge where it is about something else. Where it is about the
    /// same repository ours goes: some registries answer a push with a challenge that is good for pulling only.
    pub(super) fn scopes(&self, ours: Vec<String>) -> Vec<String> {
        let mut scopes = ours;
        let theirs = self.scope.as_deref().unwrap_or_default();
        for scope in theirs.split(' ').filter(|scope| !scope.is_empty()) {
            let subject = |scope: &str| {
                scope
                    .rsplit_once(':')
                    .map(|(subject, _)| subject.to_owned())
            };
            if !scopes.iter().any(|ours| subject(ours) == subject(scope)) {
                scopes.push(scope.to_owned());
            }
        }
        scopes
    }
}

/// `name="value", name=value`: quoted values may hold commas and escapes.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim().to_owned();
        let mut value = String::new();
        let after = after.trim_start();
        if let Some(quoted) = after.strip_prefix('"') {
            let mut end = quoted.len();
            let mut is_escaped = false;
            for (position, character) in quoted.char_indices() {
                match character {
                    _ if is_escaped => {
                        value.push(character);
                        is_escaped = false;
                    }
                    '\\' => is_escaped = true,
                    '"' => {
                        end = position + 1;
                        break;
                    }
                    _ => value.push(character),
                }
            }
            rest = &quoted[end..];
        } else {
            let end = after.find(',').unwrap_or(after.len());
            after[..end].trim().clone_into(&mut value);
            rest = &after[end..];
        }
        rest = rest.trim_start_matches([',', ' ', '\t']);
        found.push((name, value));
    }
    found
}

/// What a token server answers; both names are in use.
#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// How long a token lives when its server does not say: the token specification's.
const USUAL_LIFETIME: u64 = 60;

/// Takes the token out of an answer.
pub(super) fn token_of(body: &[u8]) -> Option<Authorization> {
    let answer: TokenAnswer = serde_json::from_slice(body).ok()?;
    let text = answer.token.or(answer.access_token)?;
    let seconds = answer.expires_in.filter(|seconds| *seconds > 0);
    Authorization::bearer(
        &text,
        Some(Duration::from_secs(seconds.unwrap_or(USUAL_LIFETIME))),
    )
}

/// A token that is there, or on its way: those who want it wait on the same cell.
pub(super) type TokenCell = Arc<OnceCell<Authorization>>;

/// Tokens of one host, by repository and access.
#[derive(Debug, Default)]
pub(super) struct TokenCache {
    /// Held only to look up or replace a cell, never while one is filled.
    cells: Mutex<HashMap<(String, Access), TokenCell>>,
}

impl TokenCache {
    /// The cell for an access, made empty when there is none or its token is over. `stale` is the cell whose token was
    /// refused: it is replaced, unless another transfer did so already.
    pub(super) fn cell(
        &self,
        repository: &str,
        access: &Access,
        stale: Option<&TokenCell>,
    ) -> TokenCell {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        let cell = cells
            .entry((repository.to_owned(), access.clone()))
            .or_default();
        if stale.is_some_and(|stale| Arc::ptr_eq(stale, cell))
            || cell.get().is_some_and(Authorization::is_over)
        {
            *cell = TokenCell::default();
        }
        Arc::clone(cell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let challenge = BearerChallenge::parse(
            r#"Bearer realm="https://auth.example/token",service="r.example",scope="repository:a/b:pull,push""#,
        )
        .expect("a challenge");
        assert_eq!(challenge.realm, "https://auth.example/token");
        assert_eq!(challenge.scope.as_deref(), Some("repository:a/b:pull,push"));
        let scopes = |access: Access| challenge.scopes(access.scopes("a/b"));
        assert_eq!(scopes(Access::Pull), ["repository:a/b:pull"]);
        assert_eq!(scopes(Access::Nothing), ["repository:a/b:pull,push"]);
        let from = "c/d".to_owned();
        assert_eq!(
            scopes(Access::Mount { from }),
            ["repository:a/b:pull,push", "repository:c/d:pull"]
        );
        for odd in ["Basic realm=\"x\"", "Bearer", "Bearer service=\"x\"", ""] {
            assert_eq!(BearerChallenge::parse(odd), None, "{odd}");
        }
        let bare = BearerChallenge::parse("bearer realm=http://x/t, service=\"a\\\"b\", error")
            .expect("a challenge");
        assert_eq!(
            (bare.realm.as_str(), bare.service.as_deref()),
            ("http://x/t", Some("a\"b"))
        );
    }

    #[test]
    fn tokens_are_taken_by_either_name_and_never_shown() {
        let token = token_of(br#"{"access_token":"abc"}"#).expect("a token");
        assert_eq!(token.header.reveal(), "Bearer abc");
        assert!(!format!("{token:?}").contains("abc"));
        let basic = Authorization::basic("Aladdin", &Secret::new("open sesame"));
        assert_eq!(basic.header.reveal(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert!(token_of(br#"{"token":"a\nb"}"#).is_none());
        assert!(token_of(b"<html>").is_none());
    }

    #[test]
    fn a_refused_token_is_replaced_once() {
        let cache = TokenCache::default();
        let first = cache.cell("r", &Access::Pull, None);
        let second = cache.cell("r", &Access::Pull, Some(&first));
        assert!(!Arc::ptr_eq(&first, &second));
        assert!(Arc::ptr_eq(
            &second,
            &cache.cell("r", &Access::Pull, Some(&first))
        ));
        assert!(!Arc::ptr_eq(&second, &cache.cell("r", &Access::Push, None)));
    }

    #[test]
    fn a_token_that_is_over_is_not_used() {
        let cache = TokenCache::default();
        let cell = cache.cell("r", &Access::Pull, None);
        let ended = Authorization::bearer("t", Some(Duration::ZERO)).expect("a token");
        cell.set(ended).expect("it was empty");
        assert!(!Arc::ptr_eq(&cell, &cache.cell("r", &Access::Pull, None)));
    }
}
