//! `ADD http(s)://…`: one file, downloaded into the build's lease before its step's key is made.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use rbuild_cache::ContentDigest;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt;

use crate::build::Workspace;
use crate::keys::InputKey;

/// How long a server may say nothing.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);

/// Name of the file in its directory of the lease.
const FILE_NAME: &str = "download";

/// Why a URL could not be had.
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
    /// The server said no.
    #[error("cannot download `{url}`: the server answered {status}")]
    Status {
        /// The address.
        url: String,
        /// Its answer.
        status: reqwest::StatusCode,
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
    /// The file could not be written.
    #[error("cannot write `{path}`")]
    Write {
        /// Where.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The lease gave no directory.
    #[error("cannot store the download of `{url}`")]
    Scratch {
        /// The address.
        url: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A file that was downloaded in this build.
#[derive(Clone, Debug)]
pub(crate) struct Download {
    directory: PathBuf,
    name: String,
    digest: ContentDigest,
    mtime: i64,
}

impl Download {
    /// Directory that holds nothing but the file.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Name of the file in that directory.
    pub(crate) fn file_name() -> Vec<u8> {
        FILE_NAME.into()
    }

    /// Name that the image's file gets in a destination directory.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Name, time and content; a server that changes none of them causes no rebuild.
    pub(crate) fn input_key(&self) -> InputKey {
        let text = format!("{}\0{}\0", self.name, self.mtime);
        InputKey::Content(ContentDigest::of_bytes(
            &[text.as_bytes(), &self.digest.0].concat(),
        ))
    }
}

/// Downloads `url`, checking it against `checksum` (`sha256:…`).
pub(crate) async fn fetch(
    workspace: &Arc<Workspace>,
    url: &str,
    checksum: Option<&str>,
) -> Result<Download, DownloadError> {
    let failed = |source| DownloadError::Request {
        url: url.to_owned(),
        source,
    };
    let client = reqwest::Client::builder()
        .read_timeout(IDLE_TIMEOUT)
        .build()
        .map_err(failed)?;
    let answer = client.get(url).send().await.map_err(failed)?;
    if !answer.status().is_success() {
        return Err(DownloadError::Status {
            url: url.to_owned(),
            status: answer.status(),
        });
    }
    let mtime = answer
        .headers()
        .get(reqwest::header::LAST_MODIFIED)
        .and_then(|value| value.to_str().ok())
        .and_then(parse_http_date)
        .unwrap_or(0);
    let name = file_name(&answer.url().clone());
    let directory = workspace
        .scratch("download")
        .map_err(|source| DownloadError::Scratch {
            url: url.to_owned(),
            source: Box::new(source),
        })?;
    let path = directory.join(FILE_NAME);
    let write_failed = |source| DownloadError::Write {
        path: path.clone(),
        source,
    };
    let mut file = tokio::fs::File::create(&path).await.map_err(write_failed)?;
    let mut sha256 = Sha256::new();
    let mut stream = answer.bytes_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(failed)?;
        sha256.update(&chunk);
        file.write_all(&chunk).await.map_err(write_failed)?;
    }
    file.flush().await.map_err(write_failed)?;
    let file = file.into_std().await;
    let time = UNIX_EPOCH + Duration::from_secs(u64::try_from(mtime).unwrap_or(0));
    file.set_times(
        std::fs::FileTimes::new()
            .set_modified(time)
            .set_accessed(SystemTime::now()),
    )
    .map_err(write_failed)?;
    if let Some(expected) = checksum {
        let found = format!("sha256:{}", hex(&sha256.finalize()));
        if found != expected {
            return Err(DownloadError::Checksum {
                url: url.to_owned(),
                expected: expected.to_owned(),
                found,
            });
        }
    }
    let digest = {
        let path = path.clone();
        workspace
            .blocking(move || std::fs::File::open(&path).and_then(ContentDigest::of_reader))
            .await
    };
    let (digest, _) = digest.map_err(write_failed)?;
    Ok(Download {
        directory,
        name,
        digest,
        mtime,
    })
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Last element of the URL's path.
fn file_name(url: &reqwest::Url) -> String {
    url.path_segments()
        .and_then(|mut segments| segments.next_back().map(str::to_owned))
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "__unnamed__".to_owned())
}

/// Seconds since the epoch of an IMF-fixdate (RFC 9110, 5.6.7), the only form that servers still send.
fn parse_http_date(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (_, rest) = text.split_once(", ")?;
    let mut words = rest.split([' ', ':']);
    let day: i64 = words.next()?.parse().ok()?;
    let month_name = words.next()?;
    let month = i64::try_from(MONTHS.iter().position(|name| *name == month_name)?).ok()? + 1;
    let year: i64 = words
        .next()?
        .parse()
        .ok()
        .filter(|year| (1970..10_000).contains(year))?;
    let mut number = || words.next()?.parse::<i64>().ok();
    let (hour, minute, second) = (number()?, number()?, number()?);
    // Days since the epoch of a civil date, counting years from March so that the leap day is the last.
    let (shifted_year, shifted_month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let days = shifted_year * 365 + shifted_year / 4 - shifted_year / 100
        + shifted_year / 400
        + day_of_year
        - 719_468;
    Some(days * 86_400 + hour * 3_600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_dates() {
        for (text, expected) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Sat, 29 Feb 2020 23:59:59 GMT", Some(1_583_020_799)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", None),
            ("", None),
        ] {
            assert_eq!(parse_http_date(text), expected, "{text}");
        }
    }

    #[test]
    fn names_come_from_the_path() {
        for (url, expected) in [
            ("http://a/b/c.tar?x=1", "c.tar"),
            ("http://a/", "__unnamed__"),
            ("http://a", "__unnamed__"),
        ] {
            assert_eq!(
                file_name(&reqwest::Url::parse(url).unwrap()),
                expected,
                "{url}"
            );
        }
    }
}
