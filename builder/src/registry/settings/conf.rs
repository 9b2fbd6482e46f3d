//! `registries.conf`, version 2, and its drop-ins: where a name leads. Pure: texts in, routes out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rbuild_frontend::reference::Reference;
use serde::Deserialize;

use super::SettingsError;

/// All files put together.
#[derive(Clone, Debug, Default)]
pub(super) struct Conf {
    /// By prefix; a later file's table takes the place of an earlier one's.
    registries: BTreeMap<String, Registry>,
    /// Short name to full name, and the file that says so.
    aliases: BTreeMap<String, (String, PathBuf)>,
}

#[derive(Clone, Debug)]
struct Registry {
    table: RegistryTable,
    file: PathBuf,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Document {
    registry: Vec<RegistryTable>,
    aliases: BTreeMap<String, String>,
    /// Version 1 of the format has this table.
    registries: Option<toml::Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct RegistryTable {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    mirror: Vec<MirrorTable>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct MirrorTable {
    location: String,
    insecure: bool,
    pull_from_mirror: String,
}

/// Where a name leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// Places to pull from, in order: mirrors first, the registry itself last.
    pub(crate) sources: Vec<Source>,
    /// The file that decided; none where nothing was configured.
    pub(crate) file: Option<PathBuf>,
}

/// One place that has a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// Host and port as in a name, `docker.io` included.
    pub(crate) registry: String,
    /// Path there.
    pub(crate) name: String,
    /// Certificates are not checked and plain HTTP will do.
    pub(crate) is_insecure: bool,
    /// What a mirror is asked for.
    pub(crate) mirror: Option<MirrorUse>,
}

/// Which requests a mirror gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MirrorUse {
    All,
    DigestOnly,
    TagOnly,
}

impl MirrorUse {
    /// Whether a mirror is asked for a manifest that is named by digest, or by tag.
    pub(crate) fn covers(self, has_digest: bool) -> bool {
        match self {
            Self::All => true,
            Self::DigestOnly => has_digest,
            Self::TagOnly => !has_digest,
        }
    }
}

impl Conf {
    /// Adds what a file says; of two tables with one prefix the later counts.
    pub(super) fn add(&mut self, file: &Path, text: &str) -> Result<(), SettingsError> {
        let wrong = |reason: String| SettingsError::Conf {
            path: file.to_owned(),
            reason,
        };
        let document: Document = toml::from_str(text)
            .map_err(|error| wrong(error.message().trim().replace('\n', " ")))?;
        if document.registries.is_some() {
            return Err(wrong(
                "it is in version 1 of the format; version 2 has `[[registry]]` tables".to_owned(),
            ));
        }
        for mut table in document.registry {
            for location in table
                .mirror
                .iter()
                .map(|mirror| &mirror.location)
                .chain([&table.location, &table.prefix])
            {
                if location.contains("://") {
                    return Err(wrong(format!("`{location}` must not have a scheme")));
                }
            }
            trim_slash(&mut table.prefix);
            trim_slash(&mut table.location);
            for mirror in &mut table.mirror {
                trim_slash(&mut mirror.location);
                if mirror.location.is_empty() {
                    return Err(wrong(format!(
                        "a mirror of `{}` has no `location`",
                        table.prefix
                    )));
                }
                if !matches!(
                    mirror.pull_from_mirror.as_str(),
                    "" | "all" | "digest-only" | "tag-only"
                ) {
                    return Err(wrong(format!(
                        "`pull-from-mirror` is one of all, digest-only, tag-only, not `{}`",
                        mirror.pull_from_mirror
                    )));
                }
            }
            if table.prefix.is_empty() {
                table.prefix.clone_from(&table.location);
            }
            if table.prefix.is_empty() {
                return Err(wrong(
                    "a `[[registry]]` has neither `prefix` nor `location`".to_owned(),
                ));
            }
            let file = file.to_owned();
            self.registries
                .insert(table.prefix.clone(), Registry { table, file });
        }
        for (short, full) in document.aliases {
            if full.is_empty() {
                self.aliases.remove(&short); // the format's way to take an alias back
            } else {
                self.aliases.insert(short, (full, file.to_owned()));
            }
        }
        Ok(())
    }

    /// The full name that a short one stands for, and the file that says so.
    pub(super) fn alias(&self, short: &str) -> Option<(&str, &Path)> {
        let (full, file) = self.aliases.get(short)?;
        Some((full, file))
    }

    /// Where a name leads.
    pub(super) fn route(&self, reference: &Reference) -> Result<Route, SettingsError> {
        let full = reference.to_string();
        let found = self
            .registries
            .values()
            .filter_map(|registry| {
                let matched = match_prefix(&full, &registry.table.prefix)?;
                Some((matched, registry))
            })
            .max_by_key(|(_, registry)| registry.table.prefix.len());
        let Some((matched, Registry { table, file })) = found else {
            return Ok(Route {
                sources: vec![Source {
                    registry: reference.registry.clone(),
                    name: reference.repository.clone(),
                    is_insecure: false,
                    mirror: None,
                }],
                file: None,
            });
        };
        if table.blocked {
            return Err(SettingsError::Blocked {
                reference: full,
                prefix: table.prefix.clone(),
                path: file.clone(),
            });
        }
        let name = reference.name();
        let rest = &name[matched.min(name.len())..];
        let at = |location: &str, is_insecure, mirror| {
            let place = format!("{location}{rest}");
            match place.split_once('/') {
                Some((registry, name)) if !registry.is_empty() && !name.is_empty() => Ok(Source {
                    registry: registry.to_owned(),
                    name: name.to_owned(),
                    is_insecure,
                    mirror,
                }),
                _ => Err(SettingsError::Conf {
                    path: file.clone(),
                    reason: format!("`{name}` would become `{place}`, which names no repository"),
                }),
            }
        };
        let mut sources = Vec::new();
        for mirror in &table.mirror {
            let asked_for = match mirror.pull_from_mirror.as_str() {
                "digest-only" => MirrorUse::DigestOnly,
                "tag-only" => MirrorUse::TagOnly,
                _ if table.mirror_by_digest_only => MirrorUse::DigestOnly,
                _ => MirrorUse::All,
            };
            sources.push(at(&mirror.location, mirror.insecure, Some(asked_for))?);
        }
        let own = if table.location.is_empty() {
            &name[..matched.min(name.len())]
        } else {
            table.location.as_str()
        };
        sources.push(at(own, table.insecure, None)?);
        Ok(Route {
            sources,
            file: Some(file.clone()),
        })
    }
}

/// How much of a full name a prefix covers; none when it does not match. `*.example.com` covers the host.
fn match_prefix(full: &str, prefix: &str) -> Option<usize> {
    if let Some(domain) = prefix.strip_prefix("*.") {
        let host_end = full.find('/').unwrap_or(full.len());
        let host = &full[..host_end];
        let bare = host.rsplit_once(':').map_or(host, |(bare, _)| bare);
        let fits = |host: &str| {
            host.strip_suffix(domain)
                .is_some_and(|start| start.len() > 1 && start.ends_with('.'))
        };
        return (fits(host) || fits(bare)).then_some(host_end);
    }
    let rest = full.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with(['/', ':', '@'])).then_some(prefix.len())
}

fn trim_slash(text: &mut String) {
    while text.ends_with('/') {
        text.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        unqualified-search-registries = ["docker.io"]
        [[registry]]
        location = "docker.io"
        mirror-by-digest-only = true
        [[registry.mirror]]
        location = "mirror.local:5000/hub"
        insecure = true
        [[registry.mirror]]
        location = "second.local"
        pull-from-mirror = "tag-only"
        [[registry]]
        prefix = "example.com/team"
        location = "internal.local/mirrored/"
        [[registry]]
        prefix = "example.com/team/secret"
        blocked = true
        [[registry]]
        prefix = "*.corp"
        insecure = true
        [[registry]]
        prefix = "old.local:5000/app:1"
        location = "new.local/app"
        [aliases]
        "tool" = "quay.io/team/tool"
    "#;

    fn conf(texts: &[&str]) -> Result<Conf, SettingsError> {
        let mut conf = Conf::default();
        for (number, text) in texts.iter().enumerate() {
            conf.add(Path::new(&format!("/{number}.conf")), text)?;
        }
        Ok(conf)
    }

    fn shown(conf: &Conf, name: &str) -> String {
        let reference = Reference::parse(name).expect(name).with_default_tag();
        match conf.route(&reference) {
            Err(error) => error.to_string(),
            Ok(route) => {
                let sources: Vec<String> = route
                    .sources
                    .iter()
                    .map(|source| {
                        let insecure = if source.is_insecure { " insecure" } else { "" };
                        let mirror = match source.mirror {
                            None => "",
                            Some(MirrorUse::All) => " mirror",
                            Some(MirrorUse::DigestOnly) => " mirror by digest",
                            Some(MirrorUse::TagOnly) => " mirror by tag",
                        };
                        format!("{}/{}{insecure}{mirror}", source.registry, source.name)
                    })
                    .collect();
                sources.join(", ")
            }
        }
    }

    #[test]
    fn names_lead_where_the_files_say() {
        let conf = conf(&[TEXT]).expect("valid");
        let rows = [
            (
                "debian",
                "mirror.local:5000/hub/library/debian insecure mirror by digest, \
                 second.local/library/debian mirror by tag, docker.io/library/debian",
            ),
            ("example.com/team/app", "internal.local/mirrored/app"),
            ("example.com/teams/app", "example.com/teams/app"),
            (
                "example.com/team/secret/app",
                "`example.com/team/secret/app:latest` is blocked: `/0.conf` blocks `example.com/team/secret`",
            ),
            ("r.corp/app", "r.corp/app insecure"),
            ("a.b.corp:5000/app", "a.b.corp:5000/app insecure"),
            ("corp.example/app", "corp.example/app"),
            ("xcorp.org/app", "xcorp.org/app"),
            ("old.local:5000/app:1", "new.local/app"),
            ("old.local:5000/app:12", "old.local:5000/app"),
            ("ghcr.io/a/b", "ghcr.io/a/b"),
        ];
        for (name, expected) in rows {
            assert_eq!(shown(&conf, name), expected, "{name}");
        }
        assert_eq!(
            conf.alias("tool").map(|(full, _)| full),
            Some("quay.io/team/tool")
        );
        assert_eq!(conf.alias("other"), None);
    }

    #[test]
    fn later_files_replace_tables_and_aliases() {
        let later = "[[registry]]\nlocation=\"docker.io\"\n[aliases]\ntool=\"\"\nx=\"y.io/x\"";
        let conf = conf(&[TEXT, later]).expect("valid");
        assert_eq!(shown(&conf, "debian"), "docker.io/library/debian");
        assert_eq!(conf.alias("tool"), None);
        assert_eq!(conf.alias("x"), Some(("y.io/x", Path::new("/1.conf"))));
    }

    #[test]
    fn wrong_files_say_why() {
        let rows = [
            (
                "[registries.search]\nregistries=[]",
                "version 1 of the format",
            ),
            (
                "[[registry]]\ninsecure=true",
                "neither `prefix` nor `location`",
            ),
            (
                "[[registry]]\nlocation=\"https://x\"",
                "must not have a scheme",
            ),
            (
                "[[registry]]\nlocation=\"x.io\"\n[[registry.mirror]]\n",
                "has no `location`",
            ),
            (
                "[[registry]]\nlocation=\"x.io\"\n[[registry.mirror]]\nlocation=\"y\"\npull-from-mirror=\"no\"",
                "not `no`",
            ),
            ("[[registry]", "/0.conf"),
            ("[[registry]]\nlocation=3", "invalid type"),
        ];
        for (text, expected) in rows {
            let error = conf(&[text]).expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
