//! What the machine's files and the command line say of registries: credentials, mirrors, certificates.
//!
//! ```text
//! places        which files, from the environment          pure
//! conf          registries.conf and its drop-ins           name ─▶ where it leads
//! auth_file     Docker's config.json, podman's auth.json    repository ─▶ credentials
//! helper        docker-credential-NAME                      server ─▶ credentials
//! certificates  certs.d                                     registry ─▶ authorities, our certificate
//! ```
//!
//! `registries.conf` is read once, when first needed; credentials are looked up each time a registry asks for them, so
//! that a helper whose tokens live for minutes serves a push that takes an hour. The order in which places are
//! looked at is documented in `docs/registries.md`, and [`RegistrySettings::explain`] shows it for one name.

mod auth_file;
mod certificates;
mod conf;
mod explain;
mod helper;
mod login;
mod places;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rbuild_frontend::reference::Reference;

use self::auth_file::of_user;
pub use self::certificates::Authority;
pub(crate) use self::certificates::{CertificateFiles, add_authorities, of_machine};
use self::conf::Conf;
pub(crate) use self::conf::{Route, Source};
pub use self::explain::Decision;
pub use self::login::{LoggedIn, registry_name};
use self::places::Places;
use super::secret::Secret;
use crate::blocking;

/// What the command line says; it goes before all files.
#[derive(Clone, Debug, Default)]
pub struct RegistryFlags {
    /// `--creds USER[:PASSWORD]`
    pub credentials: Option<(String, Secret)>,
    /// `--authfile`
    pub authfile: Option<PathBuf>,
    /// `--tls-verify`
    pub verifies_tls: Option<bool>,
    /// `--cert-dir`
    pub certificates: Option<PathBuf>,
    /// `--ca-cert`
    pub authorities: Vec<Authority>,
}

/// The registry configuration of this machine and this call. Cheap to clone; clones share what was read.
#[derive(Clone, Debug)]
pub struct RegistrySettings {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    flags: RegistryFlags,
    places: Places,
    conf: OnceLock<Conf>,
}

/// How a registry is shown who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// A user and a password.
    Basic { username: String, password: Secret },
    /// A refresh token, exchanged for access tokens.
    IdentityToken(Secret),
    /// An access token as it is.
    RegistryToken(Secret),
}

/// Credentials with where they come from.
#[derive(Clone, Debug)]
pub(crate) struct FoundCredentials {
    pub(crate) credentials: Credentials,
    /// For people: a flag, a file, a helper.
    pub(crate) source: String,
}

/// Configuration that can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// A file that can't be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file that can't be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A `registries.conf` that says nothing sensible.
    #[error("`{}` can't be used: {reason}", path.display())]
    Conf {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A credential file that is none. The reason never quotes it.
    #[error("`{}` can't be used: {reason}", path.display())]
    Credentials {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A certificate that is none.
    #[error("certificate `{}` can't be used: {reason}", path.display())]
    Certificate {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A registry that the configuration forbids.
    #[error("`{reference}` is blocked: `{}` blocks `{prefix}`", path.display())]
    Blocked {
        /// Full name.
        reference: String,
        /// What is blocked.
        prefix: String,
        /// By which file.
        path: PathBuf,
    },
    /// A helper that is not installed.
    #[error("the credential helper `{program}` is not in PATH")]
    NoHelper {
        /// `docker-credential-NAME`
        program: String,
    },
    /// A helper that failed.
    #[error("the credential helper `{program}` failed to {verb}: {reason}")]
    Helper {
        /// `docker-credential-NAME`
        program: String,
        /// `get`, `store` or `erase`.
        verb: &'static str,
        /// Its words.
        reason: String,
    },
    /// No home directory and no flag.
    #[error("there is no file to keep credentials in: neither HOME nor DOCKER_CONFIG is set")]
    NoFile,
    /// A text that names no registry.
    #[error("`{text}` is not the name of a registry")]
    Registry {
        /// As typed.
        text: String,
    },
}

impl SettingsError {
    /// What the user can do about it.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            Self::NoHelper { .. } => {
                "install it, or take it out of `credsStore` and `credHelpers` in the credential file".to_owned()
            }
            Self::NoFile => "name one with `--authfile`".to_owned(),
            Self::Registry { .. } => "for example `ghcr.io` or `localhost:5000`".to_owned(),
            Self::Blocked { .. } => {
                "use another registry, or ask who administers this machine".to_owned()
            }
            _ => return None,
        })
    }
}

impl Default for RegistrySettings {
    /// What the files of this machine and user say, and no flags.
    fn default() -> Self {
        // A variable that is not UTF-8 names no file that we look at.
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self::of_machine(&variables, RegistryFlags::default())
    }
}

impl RegistrySettings {
    /// Files as the environment names them, below the flags.
    pub fn of_machine(variables: &BTreeMap<String, String>, flags: RegistryFlags) -> Self {
        let uid = rustix::process::getuid().as_raw();
        let places = Places::of(variables, uid, flags.authfile.as_deref());
        Self::new(flags, places)
    }

    /// No files and no flags: anonymous, no mirrors.
    pub fn none() -> Self {
        Self::new(RegistryFlags::default(), Places::default())
    }

    fn new(flags: RegistryFlags, places: Places) -> Self {
        Self {
            shared: Arc::new(Shared {
                flags,
                places,
                conf: OnceLock::new(),
            }),
        }
    }

    /// Where a name leads. Blocks: reads `registries.conf` the first time.
    pub(crate) fn route(&self, reference: &Reference) -> Result<Route, SettingsError> {
        let mut route = self.conf()?.route(reference)?;
        if let Some(verifies) = self.shared.flags.verifies_tls {
            for source in &mut route.sources {
                source.is_insecure = !verifies;
            }
        }
        Ok(route)
    }

    /// What `--tls-verify` says.
    pub fn verifies_tls(&self) -> Option<bool> {
        self.shared.flags.verifies_tls
    }

    /// Where credentials for a registry come from, if there are any.
    pub async fn credentials_place(&self, registry: &str) -> Result<Option<String>, SettingsError> {
        let found = self.credentials(registry, "").await?;
        Ok(found.map(|found| found.source))
    }

    /// True when a flag forbids what is usual for registries on this machine: plain HTTP, any certificate.
    pub(crate) fn insists_on_tls(&self) -> bool {
        self.shared.flags.verifies_tls == Some(true)
    }

    /// The name that an alias gives to a short name as typed, and the file that says so. Blocks.
    pub(crate) fn alias(&self, typed: &str) -> Result<Option<(Reference, PathBuf)>, SettingsError> {
        let name_end = typed.find([':', '@']).unwrap_or(typed.len());
        let (name, rest) = typed.split_at(name_end);
        let Some((full, file)) = self.conf()?.alias(name) else {
            return Ok(None);
        };
        let text = format!("{full}{rest}");
        let parsed = Reference::parse(&text).map_err(|error| SettingsError::Conf {
            path: file.to_owned(),
            reason: format!("its alias `{name}` is no name: {error}"),
        })?;
        Ok(Some((parsed, file.to_owned())))
    }

    fn conf(&self) -> Result<&Conf, SettingsError> {
        if let Some(conf) = self.shared.conf.get() {
            return Ok(conf);
        }
        let conf = read_conf(&self.shared.places)?;
        // Another thread may have been faster; it read the same.
        Ok(self.shared.conf.get_or_init(|| conf))
    }

    /// What is shown to a registry that asks who we are for a repository; none is nobody.
    pub(crate) async fn credentials(
        &self,
        registry: &str,
        repository: &str,
    ) -> Result<Option<FoundCredentials>, SettingsError> {
        if let Some((username, password)) = &self.shared.flags.credentials {
            return Ok(Some(FoundCredentials {
                credentials: of_user(username.clone(), password.clone()),
                source: "--creds".to_owned(),
            }));
        }
        let places = &self.shared.places;
        let paths = match &places.only_credentials {
            Some(only) => std::slice::from_ref(only),
            None => places.credentials.as_slice(),
        };
        for path in paths {
            let own = path.clone();
            let Some(file) = blocking::run(move || auth_file::read(&own)).await? else {
                if places.only_credentials.is_some() {
                    return Err(SettingsError::Read {
                        path: path.clone(),
                        source: io::ErrorKind::NotFound.into(),
                    });
                }
                continue;
            };
            if let Some((helper, _)) = file.helper(registry) {
                let server = auth_file::key_for(registry);
                match helper::get(helper, server).await {
                    Ok(Some((username, secret))) => {
                        return Ok(Some(FoundCredentials {
                            credentials: of_user(username, secret),
                            source: format!(
                                "docker-credential-{helper}, which {} names",
                                path.display()
                            ),
                        }));
                    }
                    Ok(None) => {}
                    // A file that was copied from another machine names helpers that are only there; what is public
                    // can be had without.
                    Err(error @ SettingsError::NoHelper { .. }) => {
                        tracing::warn!(file = %path.display(), %error, "no credentials from this file's helper");
                    }
                    Err(error) => return Err(error),
                }
            }
            if let Some(credentials) = file.credentials(registry, repository, path)? {
                return Ok(Some(FoundCredentials {
                    credentials,
                    source: path.display().to_string(),
                }));
            }
        }
        Ok(None)
    }

    /// Authorities that are trusted everywhere, beside the machine's.
    pub fn authorities(&self) -> &[Authority] {
        &self.shared.flags.authorities
    }

    /// The directory with a registry's certificates, if there is one. Blocks.
    pub(crate) fn certificate_directory(&self, registry: &str) -> Option<PathBuf> {
        self.shared
            .flags
            .certificates
            .clone()
            .or_else(|| certificates::directory_of(&self.shared.places.certificates, registry))
    }

    /// Reads such a directory. Blocks.
    pub(crate) fn certificates(directory: &Path) -> Result<CertificateFiles, SettingsError> {
        certificates::read(directory)
    }
}

/// Reads `registries.conf` and what lies in its drop-in directories.
fn read_conf(places: &Places) -> Result<Conf, SettingsError> {
    let mut conf = Conf::default();
    let mut is_found = false;
    for path in &places.conf {
        if let Some(text) = read_text(path)? {
            conf.add(path, &text)?;
            is_found = true;
            break;
        }
    }
    if let (false, true, Some(path)) = (is_found, places.conf_is_named, places.conf.first()) {
        return Err(SettingsError::Read {
            path: path.clone(),
            source: io::ErrorKind::NotFound.into(),
        });
    }
    for directory in &places.conf_d {
        let Ok(entries) = std::fs::read_dir(directory) else {
            continue; // mostly there is none
        };
        let mut paths: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "conf")
            })
            .collect();
        paths.sort();
        for path in paths {
            if let Some(text) = read_text(&path)? {
                conf.add(&path, &text)?;
            }
        }
    }
    Ok(conf)
}

fn read_text(path: &Path) -> Result<Option<String>, SettingsError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(source) => Err(SettingsError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}
