//! What a registry's answers say of an upload: which way it takes one, where it goes on, how far it got.

use reqwest::header::{LOCATION, RANGE};
use reqwest::{Response, StatusCode, Url};

use super::RegistryError;
use super::answer::{header, without_query};

/// How the bytes of an upload go over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// In the request that ends the upload.
    Whole,
    /// In several requests that say where each part belongs, so that each can be sent again.
    Chunks,
    /// In one request without a range before the one that ends the upload: Docker's way, which all registries know.
    Stream,
}

impl Way {
    /// Another way to try, where an error says that the registry does not know this one.
    pub(super) fn after(self, error: &RegistryError) -> Option<Self> {
        let status = match error {
            RegistryError::Status { status, .. } => status.as_u16(),
            RegistryError::Miscounted { .. } => 0,
            _ => return None,
        };
        match (self, status) {
            (Self::Chunks, 405 | 415 | 501) => Some(Self::Whole),
            // Some say 500 to what they have not learned.
            (Self::Whole, 405 | 411 | 415 | 500 | 501) | (Self::Chunks, 0) => Some(Self::Stream),
            _ => None,
        }
    }
}

/// Where an upload goes on: `Location`, which may be relative, or the same address again.
pub(super) fn next_address(current: &str, response: &Response) -> Result<String, RegistryError> {
    let wrong = |reason| RegistryError::Redirect {
        url: without_query(current),
        reason,
    };
    let Some(location) = header(response.headers(), LOCATION.as_str()) else {
        return if response.status() == StatusCode::ACCEPTED && current.ends_with("/uploads/") {
            Err(wrong("it names no address for the upload"))
        } else {
            Ok(current.to_owned())
        };
    };
    let base = Url::parse(current).map_err(|_| wrong("it names no address for the upload"))?;
    let next = base
        .join(&location)
        .ok()
        .filter(|next| matches!(next.scheme(), "http" | "https"))
        .ok_or_else(|| wrong("it names no address for the upload"))?;
    if base.scheme() == "https" && next.scheme() != "https" {
        return Err(wrong("the upload would go on at an unencrypted address"));
    }
    Ok(next.into())
}

/// How many bytes of an upload a registry has: `Range: 0-99` is 100. `0-0` is what the usual server says of none.
pub(super) fn received(response: &Response) -> Option<u64> {
    let range = header(response.headers(), RANGE.as_str())?;
    let range = range.trim();
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    let last: u64 = range.strip_prefix("0-")?.parse().ok()?;
    Some(if last == 0 { 0 } else { last.saturating_add(1) })
}

pub(super) fn miscounted(session: &str, told: u64, sent: u64) -> RegistryError {
    RegistryError::Miscounted {
        url: without_query(session),
        told,
        sent,
    }
}
