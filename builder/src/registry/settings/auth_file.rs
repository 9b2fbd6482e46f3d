//! Credential files: Docker's `config.json` and podman's `auth.json`, which have one form.
//!
//! What a file says is read by pure code; writing keeps every key that we do not know, replaces the file in one step
//! and leaves it readable to its owner alone.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::helper::{HUB_KEY, TOKEN_USER};
use super::{Credentials, SettingsError};
use crate::registry::secret::Secret;

/// A credential file is a few KiB.
const LARGEST_FILE: u64 = 1 << 20;

/// What a file says of credentials.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct AuthFile {
    auths: BTreeMap<String, Entry>,
    creds_store: String,
    cred_helpers: BTreeMap<String, String>,
}

/// One of `auths`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

/// Reads a file; none when there is none.
pub(super) fn read(path: &Path) -> Result<Option<AuthFile>, SettingsError> {
    let Some(bytes) = read_bytes(path)? else {
        return Ok(None);
    };
    if bytes.trim_ascii().is_empty() {
        return Ok(Some(AuthFile::default()));
    }
    // The parser's words are left out: they could quote a password.
    let parsed = serde_json::from_slice(&bytes);
    parsed
        .map(Some)
        .map_err(|error| SettingsError::Credentials {
            path: path.to_owned(),
            reason: format!("line {} is not what a credential file holds", error.line()),
        })
}

fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>, SettingsError> {
    let unreadable = |source| SettingsError::Read {
        path: path.to_owned(),
        source,
    };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        Err(source) => return Err(unreadable(source)),
    };
    let mut bytes = Vec::new();
    file.take(LARGEST_FILE)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    Ok(Some(bytes))
}

impl AuthFile {
    /// The helper for a registry, and whether it is for this registry in particular.
    pub(super) fn helper(&self, registry: &str) -> Option<(&str, bool)> {
        let own = self
            .cred_helpers
            .iter()
            .find(|(key, _)| bare_key(key) == registry);
        match own {
            Some((_, helper)) => Some((helper, true)),
            None if self.creds_store.is_empty() => None,
            None => Some((&self.creds_store, false)),
        }
    }

    /// What `auths` holds for a repository: the longest key that covers it, as podman has them.
    pub(super) fn credentials(
        &self,
        registry: &str,
        repository: &str,
        path: &Path,
    ) -> Result<Option<Credentials>, SettingsError> {
        let full = format!("{registry}/{repository}");
        let covers = |key: &str| {
            full.strip_prefix(key)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let mut found: Vec<(String, &Entry)> = self
            .auths
            .iter()
            .map(|(key, entry)| (bare_key(key), entry))
            .filter(|(key, _)| !key.is_empty() && covers(key))
            .collect();
        found.sort_by_key(|(key, _)| std::cmp::Reverse(key.len()));
        for (key, entry) in found {
            let wrong = |reason: &str| SettingsError::Credentials {
                path: path.to_owned(),
                reason: format!("the entry for `{key}` {reason}"),
            };
            // Docker leaves an empty entry where a helper keeps the password.
            if let Some(credentials) = entry.credentials().map_err(wrong)? {
                return Ok(Some(credentials));
            }
        }
        Ok(None)
    }
}

impl Entry {
    fn credentials(&self) -> Result<Option<Credentials>, &'static str> {
        if !self.registrytoken.is_empty() {
            return Ok(Some(Credentials::RegistryToken(Secret::new(
                &*self.registrytoken,
            ))));
        }
        if !self.identitytoken.is_empty() {
            return Ok(Some(Credentials::IdentityToken(Secret::new(
                &*self.identitytoken,
            ))));
        }
        if !self.auth.is_empty() {
            let decoded = STANDARD
                .decode(self.auth.trim())
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .ok_or("is not valid base64")?;
            let (username, password) = decoded.split_once(':').ok_or("has no password")?;
            return Ok(Some(of_user(
                username.to_owned(),
                // Some tools pad the text with zero bytes.
                Secret::new(password.trim_end_matches('\0')),
            )));
        }
        Ok((!self.username.is_empty())
            .then(|| of_user(self.username.clone(), Secret::new(&*self.password))))
    }
}

/// A user and a secret, which is an identity token when the user says so.
pub(super) fn of_user(username: String, secret: Secret) -> Credentials {
    if username == TOKEN_USER {
        Credentials::IdentityToken(secret)
    } else {
        Credentials::Basic {
            username,
            password: secret,
        }
    }
}

/// A key of a file as a registry, or a registry and a path: `https://index.docker.io/v1/` is `docker.io`.
fn bare_key(key: &str) -> String {
    let key = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key)
        .trim_end_matches('/');
    let key = key
        .strip_suffix("/v1")
        .or_else(|| key.strip_suffix("/v2"))
        .unwrap_or(key);
    let (host, path) = key
        .split_once('/')
        .map_or((key, ""), |(host, path)| (host, path));
    let host = match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    };
    if path.is_empty() {
        host.to_owned()
    } else {
        format!("{host}/{path}")
    }
}

/// The key that new entries get: Docker's own for its hub.
pub(super) fn key_for(registry: &str) -> &str {
    if registry == "docker.io" {
        HUB_KEY
    } else {
        registry
    }
}

/// Puts a user and a password into a file, which is made when it is missing.
pub(super) fn add(
    path: &Path,
    registry: &str,
    username: &str,
    password: &Secret,
) -> Result<(), SettingsError> {
    let mut document = read_document(path)?;
    let auths = auths_of(&mut document, path)?;
    auths.retain(|key, _| bare_key(key) != registry);
    let auth = STANDARD.encode(format!("{username}:{}", password.reveal()));
    auths.insert(
        key_for(registry).to_owned(),
        Value::Object(Map::from_iter([("auth".to_owned(), Value::String(auth))])),
    );
    write(path, &document)
}

/// Takes a registry out of a file; true when it was there. Nothing is written otherwise.
pub(super) fn remove(path: &Path, registry: &str) -> Result<bool, SettingsError> {
    let mut document = read_document(path)?;
    let auths = auths_of(&mut document, path)?;
    let before = auths.len();
    auths.retain(|key, _| bare_key(key) != registry);
    if auths.len() == before {
        return Ok(false);
    }
    write(path, &document).map(|()| true)
}

fn read_document(path: &Path) -> Result<Map<String, Value>, SettingsError> {
    let bytes = read_bytes(path)?.unwrap_or_default();
    if bytes.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_slice(&bytes).map_err(|error| SettingsError::Credentials {
        path: path.to_owned(),
        reason: format!("line {} is not what a credential file holds", error.line()),
    })
}

fn auths_of<'a>(
    document: &'a mut Map<String, Value>,
    path: &Path,
) -> Result<&'a mut Map<String, Value>, SettingsError> {
    document
        .entry("auths")
        .or_insert_with(|| Value::Object(Map::new()))
        .as_object_mut()
        .ok_or_else(|| SettingsError::Credentials {
            path: path.to_owned(),
            reason: "its `auths` is not an object".to_owned(),
        })
}

fn write(path: &Path, document: &Map<String, Value>) -> Result<(), SettingsError> {
    // A symlink stays and its target is replaced.
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let failed = |source| SettingsError::Write {
        path: path.clone(),
        source,
    };
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."));
    if !directory.exists() {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(directory).map_err(failed)?;
    }
    let mut file = tempfile::Builder::new()
        .prefix(".rbuild-")
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(directory)
        .map_err(failed)?;
    let mut text = serde_json::to_vec_pretty(document)
        .expect("an object with string keys can be written as JSON");
    text.push(b'\n');
    file.write_all(&text).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(&path).map_err(|error| failed(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{
        "auths": {
            "https://index.docker.io/v1/": { "auth": "YWxpY2U6aHViOnB3" },
            "ghcr.io": { "auth": "Ym9iOmdo" },
            "ghcr.io/team": { "username": "carol", "password": "team" },
            "quay.io": {},
            "http://plain.local:5000/v2/": { "identitytoken": "idt" },
            "token.local": { "registrytoken": "rt" },
            "broken.local": { "auth": "%%" }
        },
        "credHelpers": { "ecr.local": "ecr" },
        "HttpHeaders": { "X": "y" }
    }"#;

    fn shown(file: &AuthFile, name: &str) -> String {
        let (registry, repository) = name.split_once('/').expect("a name");
        match file.credentials(registry, repository, Path::new("/f")) {
            Ok(None) => "none".to_owned(),
            Ok(Some(Credentials::Basic { username, password })) => {
                format!("{username} {}", password.reveal())
            }
            Ok(Some(Credentials::IdentityToken(token))) => format!("identity {}", token.reveal()),
            Ok(Some(Credentials::RegistryToken(token))) => format!("registry {}", token.reveal()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_longest_key_counts() {
        let file: AuthFile = serde_json::from_str(TEXT).expect("valid");
        let rows = [
            ("docker.io/library/debian", "alice hub:pw"),
            ("ghcr.io/other/app", "bob gh"),
            ("ghcr.io/team/app", "carol team"),
            ("ghcr.io/teams/app", "bob gh"),
            ("quay.io/a/b", "none"),
            ("plain.local:5000/a", "identity idt"),
            ("token.local/a", "registry rt"),
            ("elsewhere.io/a", "none"),
            (
                "broken.local/a",
                "`/f` can't be used: the entry for `broken.local` is not valid base64",
            ),
        ];
        for (name, expected) in rows {
            assert_eq!(shown(&file, name), expected, "{name}");
        }
        assert_eq!(file.helper("ecr.local"), Some(("ecr", true)));
        assert_eq!(file.helper("ghcr.io"), None);
    }

    #[test]
    fn writing_keeps_what_it_does_not_know() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("sub/config.json");
        add(&path, "docker.io", "eve", &Secret::new("p:w")).expect("written");
        let text = std::fs::read_to_string(&path).expect("readable");
        assert!(text.contains(HUB_KEY), "{text}");
        std::fs::write(&path, TEXT).expect("written");
        add(&path, "ghcr.io", "dave", &Secret::new("new")).expect("written");
        let mode = std::fs::metadata(&path)
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let file = read(&path).expect("readable").expect("there");
        assert_eq!(shown(&file, "ghcr.io/x"), "dave new");
        assert_eq!(shown(&file, "ghcr.io/team/x"), "carol team");
        assert_eq!(shown(&file, "docker.io/library/x"), "alice hub:pw");
        let text = std::fs::read_to_string(&path).expect("readable");
        assert!(text.contains("HttpHeaders"), "{text}");
        assert!(remove(&path, "ghcr.io").expect("removed"));
        assert!(!remove(&path, "ghcr.io").expect("nothing to do"));
        assert_eq!(
            std::fs::read_dir(path.parent().expect("a parent"))
                .expect("readable")
                .count(),
            1,
            "no temporary file stays"
        );
    }

    #[test]
    fn a_broken_file_is_named_without_its_content() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("config.json");
        std::fs::write(&path, "{\"auths\": {\"x\": {\"auth\": hunter2}}}").expect("written");
        let error = read(&path).err().expect("not JSON");
        let told = format!("{error} {error:?}");
        assert!(
            told.contains("config.json") && !told.contains("hunter2"),
            "{told}"
        );
        assert!(read(Path::new("/nonexistent/x")).expect("fine").is_none());
    }
}
