//! What an answer says: its status as an error, its body within bounds, its headers as text.

use std::time::Duration;

use oci_spec::image::Digest;
use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, RETRY_AFTER};
use reqwest::{Response, StatusCode};

use super::RegistryError;
use super::error::NetworkError;
use crate::manifest;

/// How much of an error's body is read for its message.
const LARGEST_ERROR_ANSWER: u64 = 8 << 10;

/// How much of a stranger's text is shown.
pub(super) const LONGEST_WORDS: usize = 200;

/// A URL for people: what stands behind the `?` is long, and often a permission.
pub(super) fn without_query(url: &str) -> String {
    url.split('?').next().unwrap_or_default().to_owned()
}

/// `Docker-Content-Digest`
pub(super) fn stated_digest(headers: &HeaderMap) -> Option<Digest> {
    header(headers, "docker-content-digest").and_then(|text| manifest::parse_digest(&text))
}

/// Turns a status that is no success into its error.
pub(super) async fn check_status(response: Response, url: &str) -> Result<Response, RegistryError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let url = without_query(url);
    Err(match status {
        StatusCode::NOT_FOUND => RegistryError::BlobNotFound { url },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => RegistryError::Denied {
            detail: detail(response, &url).await,
            url,
        },
        StatusCode::TOO_MANY_REQUESTS => RegistryError::TooManyRequests {
            retry_after: retry_after(response.headers()),
            url,
        },
        _ => RegistryError::Status {
            status,
            retry_after: retry_after(response.headers()),
            detail: detail(response, &url).await,
            url,
        },
    })
}

/// `Retry-After` (RFC 9110, 10.2.3): seconds, or a date. A date is read by the clock that it was written by, the answer's `Date`; without
/// one the back-off serves instead.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = header(headers, RETRY_AFTER.as_str())?;
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let then = httpdate::parse_http_date(text).ok()?;
    let now = httpdate::parse_http_date(header(headers, DATE.as_str())?.trim()).ok()?;
    // One that has passed asks for no pause.
    Some(then.duration_since(now).unwrap_or_default())
}

/// Reads a body that must not be longer than `limit`.
pub(super) async fn read_bounded(
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
                source: Some(NetworkError::new(source)),
            })?;
        let Some(chunk) = chunk else { return Ok(bytes) };
        if (bytes.len() + chunk.len()) as u64 > limit {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
}

/// The registry's own words in an error answer: `{"errors":[{"code":…,"message":…}]}`, or plain text.
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
    let is_plain = header(response.headers(), CONTENT_TYPE.as_str())
        .is_some_and(|media_type| media_type.starts_with("text/plain"));
    let Ok(body) = read_bounded(response, url, LARGEST_ERROR_ANSWER).await else {
        return String::new();
    };
    let words = match serde_json::from_slice::<Errors>(&body) {
        Ok(answer) => match answer.errors.into_iter().next() {
            Some(item) if !item.message.is_empty() => item.message,
            Some(item) => item.code,
            None => String::new(),
        },
        Err(_) if is_plain => String::from_utf8_lossy(&body).trim().to_owned(),
        Err(_) => String::new(),
    };
    if words.is_empty() {
        words
    } else {
        format!(": {}", printable(&words, LONGEST_WORDS))
    }
}

/// A stranger's text made fit for a terminal.
pub(super) fn printable(text: &str, longest: usize) -> String {
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

pub(super) fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn pauses_are_seconds_or_dates() {
        let date = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        for (text, date, expected) in [
            ("120", None, Some(120)),
            (" 0 ", None, Some(0)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", date, Some(30)),
            ("Sun, 06 Nov 1994 08:49:00 GMT", date, Some(0)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", None, None),
            ("Sun, 06 Nov 1994 08:50:07 GMT", Some("noon"), None),
            ("-1", date, None),
            ("soon", date, None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(text));
            if let Some(date) = date {
                headers.insert(DATE, HeaderValue::from_static(date));
            }
            assert_eq!(
                retry_after(&headers),
                expected.map(Duration::from_secs),
                "{text}"
            );
        }
    }
}
