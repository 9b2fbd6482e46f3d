//! Which files are read, and in which order: from environment variables and the user's id. Pure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where the machine's and the user's registry configuration lies. Files that are missing say nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    /// Credential files, the first that knows a registry counts.
    pub(super) credentials: Vec<PathBuf>,
    /// The only credential file that is read, because a flag or variable names it. One that is missing is an error.
    pub(super) only_credentials: Option<PathBuf>,
    /// Where `login` writes.
    pub(super) login: Option<PathBuf>,
    /// `registries.conf`: the first that exists counts.
    pub(super) conf: Vec<PathBuf>,
    /// True when a variable names `conf`, so that it must exist and the drop-in directories are left out.
    pub(super) conf_is_named: bool,
    /// `registries.conf.d`: all count, later files over earlier ones.
    pub(super) conf_d: Vec<PathBuf>,
    /// Directories that hold one directory of certificates for each registry: the first that has one counts.
    pub(super) certificates: Vec<PathBuf>,
}

impl Places {
    /// From the environment of a process; `authfile` is the flag.
    pub(super) fn of(
        variables: &BTreeMap<String, String>,
        uid: u32,
        authfile: Option<&Path>,
    ) -> Self {
        let get = |name: &str| {
            variables
                .get(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let home = get("HOME");
        let docker_is_named = get("DOCKER_CONFIG").is_some();
        let docker = get("DOCKER_CONFIG")
            .or_else(|| home.as_ref().map(|home| home.join(".docker")))
            .map(|directory| directory.join("config.json"));
        let config_home =
            get("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|home| home.join(".config")));
        let containers = config_home.map(|directory| directory.join("containers"));
        // Podman's: root's logins are in /run/containers/0 when there is no session.
        let runtime = get("XDG_RUNTIME_DIR").map_or_else(
            || PathBuf::from(format!("/run/containers/{uid}/auth.json")),
            |directory| directory.join("containers/auth.json"),
        );
        let mut credentials = vec![runtime];
        credentials.extend(containers.as_ref().map(|path| path.join("auth.json")));
        match docker.clone() {
            // Who sets the variable means that file before all others.
            Some(docker) if docker_is_named => credentials.insert(0, docker),
            Some(docker) => credentials.push(docker),
            None => {}
        }
        let only_credentials = authfile
            .map(Path::to_owned)
            .or_else(|| get("REGISTRY_AUTH_FILE"));
        let login = only_credentials.clone().or(docker);
        let named_conf =
            get("CONTAINERS_REGISTRIES_CONF").or_else(|| get("REGISTRIES_CONFIG_PATH"));
        let user = |name: &str| containers.as_ref().map(|path| path.join(name));
        let conf_is_named = named_conf.is_some();
        let conf = named_conf.map_or_else(
            || {
                let system = PathBuf::from("/etc/containers/registries.conf");
                user("registries.conf")
                    .into_iter()
                    .chain([system])
                    .collect()
            },
            |path| vec![path],
        );
        let conf_d = if conf_is_named {
            Vec::new()
        } else {
            let system = PathBuf::from("/etc/containers/registries.conf.d");
            [system]
                .into_iter()
                .chain(user("registries.conf.d"))
                .collect()
        };
        let certificates = user("certs.d")
            .into_iter()
            .chain(["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from))
            .collect();
        Self {
            credentials,
            only_credentials,
            login,
            conf,
            conf_is_named,
            conf_d,
            certificates,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(variables: &[(&str, &str)], authfile: Option<&str>) -> Places {
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Places::of(&variables, 1000, authfile.map(Path::new))
    }

    fn shown(paths: &[PathBuf]) -> String {
        let paths: Vec<String> = paths
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        paths.join(" ")
    }

    #[test]
    fn credentials_are_looked_for_in_order() {
        let plain = places(&[("HOME", "/h")], None);
        assert_eq!(
            shown(&plain.credentials),
            "/run/containers/1000/auth.json /h/.config/containers/auth.json /h/.docker/config.json"
        );
        assert_eq!(
            plain.login.as_deref(),
            Some(Path::new("/h/.docker/config.json"))
        );
        let session = places(
            &[
                ("HOME", "/h"),
                ("XDG_RUNTIME_DIR", "/run/user/1"),
                ("DOCKER_CONFIG", "/d"),
            ],
            None,
        );
        assert_eq!(
            shown(&session.credentials),
            "/d/config.json /run/user/1/containers/auth.json /h/.config/containers/auth.json"
        );
        let variable = places(&[("HOME", "/h"), ("REGISTRY_AUTH_FILE", "/a")], None);
        assert_eq!(variable.only_credentials.as_deref(), Some(Path::new("/a")));
        let flag = places(&[("REGISTRY_AUTH_FILE", "/a")], Some("/b"));
        assert_eq!(flag.only_credentials.as_deref(), Some(Path::new("/b")));
        assert_eq!(flag.login.as_deref(), Some(Path::new("/b")));
    }

    #[test]
    fn configuration_is_looked_for_in_order() {
        let plain = places(&[("HOME", "/h")], None);
        assert_eq!(
            shown(&plain.conf),
            "/h/.config/containers/registries.conf /etc/containers/registries.conf"
        );
        assert_eq!(
            shown(&plain.conf_d),
            "/etc/containers/registries.conf.d /h/.config/containers/registries.conf.d"
        );
        assert_eq!(
            shown(&plain.certificates),
            "/h/.config/containers/certs.d /etc/containers/certs.d /etc/docker/certs.d"
        );
        let named = places(
            &[("HOME", "/h"), ("CONTAINERS_REGISTRIES_CONF", "/c")],
            None,
        );
        assert_eq!(
            (shown(&named.conf), named.conf_d.len()),
            ("/c".to_owned(), 0)
        );
    }
}
