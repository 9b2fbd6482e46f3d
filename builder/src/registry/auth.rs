//! Challenges and tokens: what a registry asks for with a 401, and the anonymous token that answers it.
//!
//! One token per (registry, scope), asked for once however many transfers want it. Tokens are never logged.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::Url;
use serde::Deserialize;
use tokio::sync::OnceCell;

/// A bearer token; prints as `***`.
#[derive(Clone)]
pub(super) struct Token(String);

impl Token {
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
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

    /// The URL that gives the token. `scope` stands in when the challenge has none.
    pub(super) fn token_url(&self, scope: &str) -> Option<Url> {
        let mut url = Url::parse(&self.realm).ok()?;
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = &self.service {
                query.append_pair("service", service);
            }
            query.append_pair("scope", self.scope.as_deref().unwrap_or(scope));
        }
        Some(url)
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
}

/// Takes the token out of an answer.
pub(super) fn token_of(body: &[u8]) -> Option<Token> {
    let answer: TokenAnswer = serde_json::from_slice(body).ok()?;
    let text = answer.token.or(answer.access_token)?;
    // It goes into a header: nothing but visible ASCII.
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())).then_some(Token(text))
}

/// A token that is there, or on its way: those who want it wait on the same cell.
pub(super) type TokenCell = Arc<OnceCell<Token>>;

/// Tokens by registry and scope.
#[derive(Debug, Default)]
pub(super) struct TokenCache {
    /// Held only to look up or replace a cell, never while one is filled.
    cells: Mutex<HashMap<(String, String), TokenCell>>,
}

impl TokenCache {
    /// The cell for a scope, made empty when there is none. `stale` is the cell whose token was refused: it is replaced,
    /// unless another transfer did so already.
    pub(super) fn cell(&self, registry: &str, scope: &str, stale: Option<&TokenCell>) -> TokenCell {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        let cell = cells
            .entry((registry.to_owned(), scope.to_owned()))
            .or_default();
        if stale.is_some_and(|stale| Arc::ptr_eq(stale, cell)) {
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
        assert_eq!(
            challenge.token_url("unused").expect("a URL").as_str(),
            "https://auth.example/token?service=r.example&scope=repository%3Aa%2Fb%3Apull%2Cpush"
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
        assert_eq!(
            (token.reveal(), format!("{token:?}").as_str()),
            ("abc", "***")
        );
        assert!(token_of(br#"{"token":"a\nb"}"#).is_none());
        assert!(token_of(b"<html>").is_none());
    }

    #[test]
    fn a_refused_token_is_replaced_once() {
        let cache = TokenCache::default();
        let first = cache.cell("r", "s", None);
        let second = cache.cell("r", "s", Some(&first));
        assert!(!Arc::ptr_eq(&first, &second));
        assert!(Arc::ptr_eq(&second, &cache.cell("r", "s", Some(&first))));
    }
}
