//! Keeping and forgetting credentials.

use std::path::PathBuf;

use rbuild_frontend::reference::Reference;

use super::{RegistrySettings, Secret, SettingsError, auth_file, helper};
use crate::blocking;

/// Where credentials went, or were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedIn {
    /// The registry, as in a name.
    pub registry: String,
    /// A file, or a helper that a file names.
    pub place: String,
}

/// Reads what people type for a registry: `ghcr.io`, `https://index.docker.io/v1/`; nothing is Docker's hub.
pub fn registry_name(typed: &str) -> Result<String, SettingsError> {
    let wrong = || SettingsError::Registry {
        text: typed.to_owned(),
    };
    let bare = typed
        .strip_prefix("https://")
        .or_else(|| typed.strip_prefix("http://"))
        .unwrap_or(typed)
        .trim_end_matches('/');
    let host = bare
        .strip_suffix("/v1")
        .or_else(|| bare.strip_suffix("/v2"))
        .unwrap_or(bare);
    if host.is_empty() || matches!(host, "index.docker.io" | "registry-1.docker.io") {
        return if typed.contains("://") && host.is_empty() {
            Err(wrong())
        } else {
            Ok("docker.io".to_owned())
        };
    }
    // A registry is what can stand before a repository.
    match Reference::parse(&format!("{host}/x")) {
        Ok(reference) if reference.registry == host => Ok(host.to_owned()),
        _ => Err(wrong()),
    }
}

impl RegistrySettings {
    /// The file in which `login` keeps credentials: `--authfile`, `REGISTRY_AUTH_FILE`, else Docker's.
    fn login_file(&self) -> Result<PathBuf, SettingsError> {
        self.shared
            .places
            .login
            .clone()
            .ok_or(SettingsError::NoFile)
    }

    /// Keeps credentials, with the helper if the file names one, else in the file itself.
    pub async fn keep_credentials(
        &self,
        registry: &str,
        username: &str,
        password: &Secret,
    ) -> Result<LoggedIn, SettingsError> {
        let path = self.login_file()?;
        let (own, name, user, secret) = (
            path.clone(),
            registry.to_owned(),
            username.to_owned(),
            password.clone(),
        );
        let file = blocking::run(move || auth_file::read(&own)).await?;
        let place = if let Some((helper, _)) = file.as_ref().and_then(|file| file.helper(registry))
        {
            helper::store(helper, auth_file::key_for(registry), username, password).await?;
            format!("docker-credential-{helper}")
        } else {
            let own = path.clone();
            blocking::run(move || auth_file::add(&own, &name, &user, &secret)).await?;
            path.display().to_string()
        };
        Ok(LoggedIn {
            registry: registry.to_owned(),
            place,
        })
    }

    /// Forgets what [`keep_credentials`](Self::keep_credentials) kept; says from where.
    pub async fn forget_credentials(&self, registry: &str) -> Result<Vec<LoggedIn>, SettingsError> {
        let path = self.login_file()?;
        let own = path.clone();
        let Some(file) = blocking::run(move || auth_file::read(&own)).await? else {
            return Ok(Vec::new());
        };
        let mut places = Vec::new();
        if let Some((helper, _)) = file.helper(registry)
            && helper::erase(helper, auth_file::key_for(registry)).await?
        {
            places.push(format!("docker-credential-{helper}"));
        }
        let (own, name) = (path.clone(), registry.to_owned());
        if blocking::run(move || auth_file::remove(&own, &name)).await? {
            places.push(path.display().to_string());
        }
        let of = |place| LoggedIn {
            registry: registry.to_owned(),
            place,
        };
        Ok(places.into_iter().map(of).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_named_as_people_do() {
        let rows = [
            ("", Some("docker.io")),
            ("docker.io", Some("docker.io")),
            ("https://index.docker.io/v1/", Some("docker.io")),
            ("ghcr.io", Some("ghcr.io")),
            ("https://ghcr.io", Some("ghcr.io")),
            ("localhost:5000", Some("localhost:5000")),
            ("localhost", Some("localhost")),
            ("ghcr.io/team", None),
            ("ghcr", None),
            ("https://", None),
            ("a b.io", None),
        ];
        for (typed, expected) in rows {
            assert_eq!(registry_name(typed).ok().as_deref(), expected, "{typed}");
        }
    }
}
