//! `rbuild info REGISTRY`: which file decided what.

use rbuild_frontend::reference::Reference;

use super::conf::MirrorUse;
use super::login::registry_name;
use super::{Credentials, RegistrySettings, SettingsError};
use crate::blocking;

/// One line of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// `mirror`, `credentials`, …
    pub what: &'static str,
    /// What was decided; never a secret.
    pub value: String,
    /// Which file, flag or rule decided it.
    pub by: String,
}

/// Who decided where no file and no flag did.
const BUILT_IN: &str = "built in";

/// The proxy variables that HTTP clients obey, by scheme.
const PROXY_VARIABLES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

impl RegistrySettings {
    /// What is decided for a registry or an image name, and by what.
    ///
    /// # Errors
    /// A file can't be used, the name is none, or it is blocked.
    pub async fn explain(&self, typed: &str) -> Result<Vec<Decision>, SettingsError> {
        let mut decisions = Vec::new();
        let mut say = |what, value: String, by: String| {
            decisions.push(Decision { what, value, by });
        };
        let is_registry = registry_name(typed)
            .ok()
            .filter(|_| looks_like_registry(typed));
        let settings = self.clone();
        let (text, registry) = (typed.to_owned(), is_registry.clone());
        let (reference, alias) = blocking::run(move || {
            if let Some(registry) = registry {
                return named(&format!("{registry}/x"), &registry).map(|name| (name, None));
            }
            match settings.alias(&text)? {
                Some((reference, file)) => Ok((reference, Some(file))),
                None => named(&text, &text).map(|name| (name, None)),
            }
        })
        .await?;
        if let Some(file) = alias {
            let by = file.display().to_string();
            say("alias", reference.to_string(), by);
        }
        let shown = |place: &str, name: &str| match &is_registry {
            // The repository was made up to ask.
            Some(_) => match name
                .strip_suffix('x')
                .map(|rest| rest.trim_end_matches('/'))
            {
                Some("" | "library") | None => place.to_owned(),
                Some(rest) => format!("{place}/{rest}"),
            },
            None => format!("{place}/{name}"),
        };
        let (settings, wanted) = (self.clone(), reference.clone());
        let route = blocking::run(move || settings.route(&wanted)).await?;
        let file = route
            .file
            .map_or_else(|| BUILT_IN.to_owned(), |file| file.display().to_string());
        for source in &route.sources {
            let what = if source.mirror.is_some() {
                "mirror"
            } else {
                "registry"
            };
            let mut value = shown(&source.registry, &source.name);
            value.push_str(match source.mirror {
                Some(MirrorUse::DigestOnly) => " (by digest only)",
                Some(MirrorUse::TagOnly) => " (by tag only)",
                _ => "",
            });
            say(what, value, file.clone());
        }
        for source in &route.sources {
            let settings = self.clone();
            let registry = source.registry.clone();
            let (directory, is_local) = blocking::run(move || {
                let is_local = crate::registry::is_loopback(&registry);
                (settings.certificate_directory(&registry), is_local)
            })
            .await;
            let flag = self.shared.flags.verifies_tls;
            let (value, by) = match flag {
                Some(true) => ("always verified", "--tls-verify".to_owned()),
                Some(false) => (
                    "not verified, plain HTTP if need be",
                    "--tls-verify".to_owned(),
                ),
                None if source.is_insecure => ("not verified, plain HTTP if need be", file.clone()),
                None if is_local && directory.is_none() => (
                    "not verified, plain HTTP if need be: it is on this machine",
                    BUILT_IN.to_owned(),
                ),
                None => ("verified", BUILT_IN.to_owned()),
            };
            say("tls", format!("{}: {value}", source.registry), by);
            if let Some(directory) = directory {
                let by = match &self.shared.flags.certificates {
                    Some(_) => "--cert-dir".to_owned(),
                    None => directory.display().to_string(),
                };
                say("certificates", source.registry.clone(), by);
            }
            match self.credentials(&source.registry, &source.name).await? {
                None => say(
                    "credentials",
                    format!("{}: none, requests are anonymous", source.registry),
                    BUILT_IN.to_owned(),
                ),
                Some(found) => {
                    let who = match found.credentials {
                        Credentials::Basic { username, .. } => format!("user {username}"),
                        Credentials::IdentityToken(_) => "an identity token".to_owned(),
                        Credentials::RegistryToken(_) => "a registry token".to_owned(),
                    };
                    say(
                        "credentials",
                        format!("{}: {who}", source.registry),
                        found.source,
                    );
                }
            }
        }
        let variable = PROXY_VARIABLES
            .iter()
            .find(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
        if let Some(variable) = variable {
            // The value may hold a password.
            say(
                "proxy",
                "used unless NO_PROXY names the host".to_owned(),
                (*variable).to_owned(),
            );
        }
        Ok(decisions)
    }
}

/// Whether a lone word is a registry rather than an image with a tag: `ghcr.io`, but not `debian:12`.
fn looks_like_registry(typed: &str) -> bool {
    let host = typed.rsplit_once(':').map_or(typed, |(host, _)| host);
    typed.contains("://") || host.contains('.') || host == "localhost" || host.starts_with('[')
}

fn named(text: &str, typed: &str) -> Result<Reference, SettingsError> {
    Reference::parse(text)
        .map(Reference::with_default_tag)
        .map_err(|_| SettingsError::Registry {
            text: typed.to_owned(),
        })
}
