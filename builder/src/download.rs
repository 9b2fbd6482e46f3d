//! Files of http(s) addresses: `ADD`, build contexts, named contexts.
//!
//! A file becomes a layer of the store that holds nothing else, recorded under its address with the server's `ETag`,
//! and under its checksum. With `--checksum` the key needs no request, and a file that the store has is not fetched
//! again. Otherwise the server is asked in every build; it sends the file only when its `ETag` is another one. What
//! breaks off or does not fit the checksum never gets as far as the store.

mod date;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use futures_util::StreamExt;
use rbuild_cache::{ContentDigest, KeyEncoder, KeyPart, StepKey};
use rbuild_frontend::git_reference::percent_decode;
use rbuild_runner::job::SourceRoot;
use reqwest::header::{self, HeaderMap, HeaderValue};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt;

use crate::build::Workspace;
use crate::error::StepError;
use crate::fetch::{self, Fetched, Record};
use crate::git::redacted;
use crate::keys::InputKey;
use crate::registry::{self, SettingsError};

/// How long a server may say nothing.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);

/// How long it may take to reach one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Largest file that is fetched: what an archive may hold.
const MAX_SIZE: u64 = rbuild_runner::archive::MAX_CONTENT;

/// Name of the file in its layer: also what the reference calls the only file of a context that is no archive.
pub(crate) const FILE_NAME: &str = "context";

/// Mode of the file, as the reference has it.
const FILE_MODE: u32 = 0o600;

/// Raised when what is made of an address changes.
const KEY_VERSION: u32 = 1;

/// Facts of a record.
const ETAG: &str = "etag";
const MODIFIED: &str = "last-modified";
const SHA256: &str = "sha256";

/// Why a URL could not be had. Addresses in it hold no credentials.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// No answer, or a broken one.
    #[error("cannot download `{url}`")]
    Request {
        /// The address.
        url: String,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// A file of `--ca-cert` is none.
    #[error(transparent)]
    Authority(SettingsError),
    /// The server said no.
    #[error("cannot download `{url}`: the server answered {status}")]
    Status {
        /// The address.
        url: String,
        /// Its answer.
        status: reqwest::StatusCode,
    },
    /// More than anybody needs.
    #[error("`{url}` is larger than {limit} bytes")]
    TooLarge {
        /// The address.
        url: String,
        /// The limit.
        limit: u64,
    },
    /// The content is not what `--checksum` promises.
    #[error("`{url}` has the digest `{found}`, but `--checksum` says `{expected}`")]
    Checksum {
        /// The address.
        url: String,
        /// What the Dockerfile says.
        expected: String,
        /// What came.
        found: String,
    },
    /// The file could not be kept.
    #[error("cannot keep the download in `{path}`")]
    Write {
        /// Where.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl DownloadError {
    /// The way out, where one is known.
    pub fn help(&self) -> Option<String> {
        let host = |url: &str| {
            let url = reqwest::Url::parse(url).ok()?;
            url.host_str().map(str::to_owned)
        };
        match self {
            Self::Status { url, status } if matches!(status.as_u16(), 401 | 403) => Some(format!(
                "if it is private, give a token: `--secret id=HTTP_AUTH_TOKEN_{},env=VARIABLE`",
                host(url)?
            )),
            Self::Status { status, .. } if status.as_u16() == 404 => {
                Some("open the address in a browser: the file may have moved".to_owned())
            }
            Self::Request { source, .. } if is_about_certificates(source) => Some(
                "this machine does not trust the server's certificate; if its authority is your own, give that: `--ca-cert FILE`"
                    .to_owned(),
            ),
            Self::Request { .. } => Some(
                "check the address, the network and the proxy variables (HTTPS_PROXY, NO_PROXY)".to_owned(),
            ),
            Self::Checksum { .. } => Some(
                "if the change is wanted, put the new digest into the Dockerfile; else find out who changed the file"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// A client tells only in words why there is no connection.
fn is_about_certificates(error: &reqwest::Error) -> bool {
    let error: &dyn std::error::Error = error;
    std::iter::successors(Some(error), |error| error.source())
        .any(|error| error.to_string().contains("certificate"))
}

/// A file at an address, as far as a key needs to know it.
#[derive(Clone, Debug)]
pub(crate) struct UrlSource {
    url: String,
    name: String,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    /// `--checksum`: nothing was asked yet.
    Pinned(String),
    /// The server was asked in this build.
    Fetched(Fetched),
}

impl UrlSource {
    /// Name that the image's file gets in a destination directory.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Name, content and time; a server that changes none of them causes no rebuild, and neither does another address
    /// of the same file. The time of a file that is known by its checksum is not asked.
    pub(crate) fn input_key(&self) -> InputKey {
        let mut key = KeyEncoder::new("download", KEY_VERSION);
        key.text("name", &self.name);
        match &self.state {
            State::Pinned(checksum) => key.text("pinned", checksum),
            State::Fetched(fetched) => key
                .text("content", fetched.fact(SHA256).unwrap_or_default())
                .text("modified", fetched.fact(MODIFIED).unwrap_or_default()),
        };
        InputKey::Content(ContentDigest(key.finish().0))
    }
}

/// What the server said of the time of a file, seconds since the epoch.
pub(crate) fn last_modified(fetched: &Fetched) -> Option<i64> {
    fetched.fact(MODIFIED)?.parse().ok()
}

/// What the server says, or else the time of the newest member of an archive. Blocks.
pub(crate) fn time_of(workspace: &Workspace, fetched: &Fetched) -> Result<Option<i64>, StepError> {
    if let Some(time) = last_modified(fetched) {
        return Ok(Some(time));
    }
    let path = host_path(workspace, fetched)?;
    let file =
        std::fs::File::open(&path).map_err(|source| DownloadError::Write { path, source })?;
    Ok(rbuild_runner::archive::newest_file(&file))
}

/// The file's digest.
pub(crate) fn content_digest(
    workspace: &Workspace,
    fetched: &Fetched,
) -> Result<ContentDigest, StepError> {
    let path = host_path(workspace, fetched)?;
    let write = |source| DownloadError::Write {
        path: path.clone(),
        source,
    };
    let file = std::fs::File::open(&path).map_err(write)?;
    let (digest, _) = ContentDigest::of_file(&file).map_err(write)?;
    Ok(digest)
}

/// Where the file lies in the store.
pub(crate) fn host_path(workspace: &Workspace, fetched: &Fetched) -> Result<PathBuf, StepError> {
    let directories = fetched.chain().snapshot_paths(&workspace.store);
    let directory = directories
        .first()
        .ok_or(StepError::Internal("a download without a layer"))?;
    Ok(directory.join(FILE_NAME))
}

/// Asks for `url`, unless its `checksum` (`sha256:…`) is known: then the key is known too.
pub(crate) async fn resolve(
    workspace: &Arc<Workspace>,
    url: &str,
    checksum: Option<&str>,
) -> Result<UrlSource, StepError> {
    let state = match checksum {
        Some(checksum) => State::Pinned(checksum.to_owned()),
        None => State::Fetched(ask(workspace, url, None).await?),
    };
    Ok(UrlSource {
        url: url.to_owned(),
        name: file_name(url),
        state,
    })
}

/// The file itself.
pub(crate) async fn fetch(
    workspace: &Arc<Workspace>,
    source: &UrlSource,
) -> Result<Fetched, StepError> {
    let checksum = match &source.state {
        State::Fetched(fetched) => return Ok(fetched.clone()),
        State::Pinned(checksum) => checksum,
    };
    match recorded(workspace, content_key(checksum), &source.url).await? {
        Some(known) => Ok(known),
        None => ask(workspace, &source.url, Some(checksum)).await,
    }
}

fn url_key(url: &str) -> StepKey {
    let mut key = KeyEncoder::new("download-url", KEY_VERSION);
    key.text("url", url);
    key.finish()
}

fn content_key(sha256: &str) -> StepKey {
    let mut key = KeyEncoder::new("download-content", KEY_VERSION);
    key.text("sha256", sha256);
    key.finish()
}

async fn recorded(
    workspace: &Arc<Workspace>,
    key: StepKey,
    url: &str,
) -> Result<Option<Fetched>, StepError> {
    let (inner, title) = (Arc::clone(workspace), redacted(url));
    workspace
        .blocking(move || Fetched::recorded(&inner, &key, title))
        .await
}

/// Downloads the file, or finds that the one in the store is the server's.
async fn ask(
    workspace: &Arc<Workspace>,
    url: &str,
    checksum: Option<&str>,
) -> Result<Fetched, StepError> {
    let known = match checksum {
        // What an address had before says nothing of a file that is known by its checksum.
        Some(_) => None,
        None => recorded(workspace, url_key(url), url).await?,
    };
    let known = known.filter(|known| known.fact(ETAG).is_some());
    let shown = redacted(url);
    let failed = |source: reqwest::Error| DownloadError::Request {
        url: shown.clone(),
        // The address in it may hold credentials.
        source: source.without_url(),
    };
    let client = reqwest::Client::builder()
        .user_agent(concat!("rbuild/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(IDLE_TIMEOUT);
    let authorities = workspace.options.registries.authorities();
    let client = registry::trust_also(client, authorities)
        .map_err(DownloadError::Authority)?
        .build()
        .map_err(failed)?;
    let mut request = client.get(url).headers(authorization(workspace, url)?);
    let known_etag = known.as_ref().and_then(|known| known.fact(ETAG));
    if let Some(value) = known_etag.and_then(|etag| HeaderValue::from_str(etag).ok()) {
        request = request.header(header::IF_NONE_MATCH, value);
    }
    let answer = request.send().await.map_err(failed)?;
    let etag = text_of(answer.headers(), header::ETAG);
    // Some servers know an ETag and yet send the file: their answer need not be read.
    let is_same = answer.status() == reqwest::StatusCode::NOT_MODIFIED
        || (answer.status() == reqwest::StatusCode::OK
            && etag.is_some()
            && etag.as_deref() == known_etag);
    if is_same && let Some(known) = known {
        return Ok(known);
    }
    // Part of a file was not asked for, and is none.
    if !answer.status().is_success() || answer.status() == reqwest::StatusCode::PARTIAL_CONTENT {
        return Err(DownloadError::Status {
            url: shown,
            status: answer.status(),
        }
        .into());
    }
    let modified = text_of(answer.headers(), header::LAST_MODIFIED)
        .as_deref()
        .and_then(date::parse_http_date);
    let directory = workspace.scratch("download")?;
    let task = workspace.images.tasks.start(format!("downloading {shown}"));
    if let Some(length) = answer.content_length() {
        task.expect(length);
    }
    let path = directory.join(FILE_NAME);
    let written = write(answer, &path, &shown, &task).await;
    task.finish(&written, Clone::clone);
    let sha256 = written?;
    if let Some(expected) = checksum.filter(|expected| **expected != sha256) {
        return Err(DownloadError::Checksum {
            url: shown,
            expected: expected.to_owned(),
            found: sha256,
        }
        .into());
    }
    let mut facts = vec![KeyPart::new(SHA256, &sha256)];
    facts.extend(etag.map(|etag| KeyPart::new(ETAG, etag)));
    facts.extend(modified.map(|time| KeyPart::new(MODIFIED, time.to_string())));
    let record = Record {
        title: format!("download {shown}"),
        facts,
    };
    let keys = [url_key(url), content_key(&sha256)];
    let inner = Arc::clone(workspace);
    workspace
        .blocking(move || {
            set_attributes(&path, modified.unwrap_or(0))?;
            let name = FILE_NAME.as_bytes().to_vec();
            let operation = fetch::one_file(name.clone(), name, false);
            let sources = vec![SourceRoot::Directory(directory.clone())];
            let layer = fetch::make_layer(&inner, sources, vec![operation])?;
            // The lease would keep a second copy until the build ends.
            let _ = std::fs::remove_dir_all(&directory);
            Fetched::record(&inner, &keys, layer, record, shown)
        })
        .await
}

/// Writes the body to a file; the digest of what was written.
async fn write(
    answer: reqwest::Response,
    path: &Path,
    shown: &str,
    task: &crate::tasks::Task,
) -> Result<String, DownloadError> {
    let failed = |source| DownloadError::Write {
        path: path.to_owned(),
        source,
    };
    let mut file = tokio::fs::File::create(path).await.map_err(failed)?;
    let mut sha256 = Sha256::new();
    let mut size = 0;
    let mut stream = answer.bytes_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|source| DownloadError::Request {
            url: shown.to_owned(),
            source: source.without_url(),
        })?;
        size += chunk.len() as u64;
        if size > MAX_SIZE {
            return Err(DownloadError::TooLarge {
                url: shown.to_owned(),
                limit: MAX_SIZE,
            });
        }
        sha256.update(&chunk);
        file.write_all(&chunk).await.map_err(failed)?;
        task.advance(chunk.len() as u64);
    }
    file.flush().await.map_err(failed)?;
    Ok(format!("sha256:{}", hex(&sha256.finalize())))
}

fn set_attributes(path: &Path, seconds: i64) -> Result<(), DownloadError> {
    use std::os::unix::fs::PermissionsExt;
    let time = UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let times = std::fs::FileTimes::new()
        .set_modified(time)
        .set_accessed(time);
    let set = || {
        let file = std::fs::File::options().write(true).open(path)?;
        file.set_permissions(std::fs::Permissions::from_mode(FILE_MODE))?;
        file.set_times(times)
    };
    set().map_err(|source| DownloadError::Write {
        path: path.to_owned(),
        source,
    })
}

/// `HTTP_AUTH_HEADER_<host>` and `HTTP_AUTH_TOKEN_<host>`, as in the reference. A redirect to another host loses them.
fn authorization(workspace: &Workspace, url: &str) -> Result<HeaderMap, StepError> {
    let mut headers = HeaderMap::new();
    let host = reqwest::Url::parse(url)
        .ok()
        .and_then(|url| url.host_str().map(str::to_owned))
        .unwrap_or_default();
    let header = crate::secret::read_text(
        &workspace.options.secrets,
        &format!("HTTP_AUTH_HEADER_{host}"),
    )?;
    let value = match header {
        Some(header) => Some(header),
        None => crate::secret::read_text(
            &workspace.options.secrets,
            &format!("HTTP_AUTH_TOKEN_{host}"),
        )?
        .map(|token| format!("Bearer {token}")),
    };
    if let Some(mut value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
    }
    Ok(headers)
}

fn text_of(headers: &HeaderMap, name: header::HeaderName) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Last element of the address's path, decoded; where it was redirected to does not count.
fn file_name(url: &str) -> String {
    let path = reqwest::Url::parse(url)
        .map(|url| percent_decode(url.path()))
        .unwrap_or_default();
    path.split('/')
        .rfind(|name| !name.is_empty())
        .filter(|name| !matches!(*name, "." | "..") && !name.contains('\0'))
        .unwrap_or("__unnamed__")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_path() {
        for (url, expected) in [
            ("http://a/b/c.tar?x=1", "c.tar"),
            ("http://a/b/", "b"),
            ("http://a/b%20c", "b c"),
            ("http://a/x%2Fy", "y"),
            ("http://a/x/%2e%2e%2f", "__unnamed__"),
            ("http://a/", "__unnamed__"),
            ("http://a", "__unnamed__"),
        ] {
            assert_eq!(file_name(url), expected, "{url}");
        }
    }
}
