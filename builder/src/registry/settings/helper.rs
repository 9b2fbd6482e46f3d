//! Credential helpers: programs named `docker-credential-NAME` that keep passwords in a keychain.
//!
//! `get`, `store` and `erase` are the verbs; the server or a JSON object goes in on stdin, JSON or an error text comes out.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::SettingsError;
use crate::registry::secret::Secret;

/// A helper may ask its user for a passphrase; longer than this nobody is there to answer.
const PATIENCE: Duration = Duration::from_mins(1);

/// No helper says more than this.
const LONGEST_ANSWER: u64 = 1 << 20;

/// The server name that Docker uses for its hub, in files and helpers.
pub(super) const HUB_KEY: &str = "https://index.docker.io/v1/";

/// The username with which a helper says that the secret is an identity token.
pub(super) const TOKEN_USER: &str = "<token>";

/// What a helper knows of a server.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Entry<'a> {
    #[serde(rename = "ServerURL", default)]
    server_url: std::borrow::Cow<'a, str>,
    username: std::borrow::Cow<'a, str>,
    secret: std::borrow::Cow<'a, str>,
}

/// Asks a helper for a server's user and secret; none when it has none.
pub(super) async fn get(
    helper: &str,
    server: &str,
) -> Result<Option<(String, Secret)>, SettingsError> {
    let output = call(helper, "get", server.as_bytes()).await?;
    let failed = |reason: String| SettingsError::Helper {
        program: program(helper),
        verb: "get",
        reason,
    };
    if !output.is_success {
        // The protocol has no code for "none": all helpers share these words.
        let words = output.words();
        return if words.contains("credentials not found") || words.contains("no credentials") {
            Ok(None)
        } else {
            Err(failed(words))
        };
    }
    let entry: Entry<'_> = serde_json::from_slice(&output.stdout)
        .map_err(|_| failed("its answer is not what a helper answers".to_owned()))?;
    if entry.secret.is_empty() {
        return Ok(None);
    }
    Ok(Some((
        entry.username.into_owned(),
        Secret::new(entry.secret),
    )))
}

/// Hands a user and a password to a helper.
pub(super) async fn store(
    helper: &str,
    server: &str,
    username: &str,
    secret: &Secret,
) -> Result<(), SettingsError> {
    let entry = Entry {
        server_url: server.into(),
        username: username.into(),
        secret: secret.reveal().into(),
    };
    let input = serde_json::to_vec(&entry).unwrap_or_default(); // strings only: always JSON
    let output = call(helper, "store", &input).await?;
    output.expect_success(helper, "store")
}

/// Has a helper forget a server; true when it knew it.
pub(super) async fn erase(helper: &str, server: &str) -> Result<bool, SettingsError> {
    if get(helper, server).await?.is_none() {
        return Ok(false);
    }
    let output = call(helper, "erase", server.as_bytes()).await?;
    output.expect_success(helper, "erase").map(|()| true)
}

struct Output {
    is_success: bool,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Output {
    /// What the helper says of its failure: some print it to stdout. Never called on an answer that holds a secret.
    fn words(&self) -> String {
        let text = if self.stdout.trim_ascii().is_empty() {
            &self.stderr
        } else {
            &self.stdout
        };
        let text = String::from_utf8_lossy(text);
        let line = text.trim().lines().next().unwrap_or_default();
        if line.is_empty() {
            return "it gives no reason".to_owned();
        }
        line.chars()
            .map(|character| {
                if character.is_control() {
                    ' '
                } else {
                    character
                }
            })
            .take(200)
            .collect()
    }

    fn expect_success(&self, helper: &str, verb: &'static str) -> Result<(), SettingsError> {
        if self.is_success {
            return Ok(());
        }
        Err(SettingsError::Helper {
            program: program(helper),
            verb,
            reason: self.words(),
        })
    }
}

fn program(helper: &str) -> String {
    format!("docker-credential-{helper}")
}

async fn call(helper: &str, verb: &'static str, input: &[u8]) -> Result<Output, SettingsError> {
    let failed = |reason: String| SettingsError::Helper {
        program: program(helper),
        verb,
        reason,
    };
    // The name comes from a file: it must not lead out of PATH.
    if helper.is_empty() || helper.contains(['/', '\0']) {
        return Err(failed("that is not the name of a helper".to_owned()));
    }
    let started = Command::new(program(helper))
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(SettingsError::NoHelper {
                program: program(helper),
            });
        }
        Err(error) => return Err(failed(error.to_string())),
    };
    let (mut stdin, stdout, stderr) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let talk = async {
        let write = async {
            if let Some(stdin) = &mut stdin {
                stdin.write_all(input).await?;
            }
            drop(stdin.take());
            Ok::<_, io::Error>(())
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let read_out = async {
            match stdout {
                Some(stdout) => stdout.take(LONGEST_ANSWER).read_to_end(&mut out).await,
                None => Ok(0),
            }
        };
        let read_err = async {
            match stderr {
                Some(stderr) => stderr.take(LONGEST_ANSWER).read_to_end(&mut err).await,
                None => Ok(0),
            }
        };
        let (written, read, heard) = tokio::join!(write, read_out, read_err);
        let status = child.wait().await?;
        // A helper that does not read its input and answers all the same is fine.
        written.or_else(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Ok(()),
            _ => Err(error),
        })?;
        read?;
        heard?;
        Ok::<_, io::Error>(Output {
            is_success: status.success(),
            stdout: out,
            stderr: err,
        })
    };
    match tokio::time::timeout(PATIENCE, talk).await {
        Ok(Ok(output)) => Ok(output),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!(
            "it did not answer within {} seconds",
            PATIENCE.as_secs()
        ))),
    }
}
