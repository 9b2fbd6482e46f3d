//! Files of a git repository: `ADD`, build contexts, named contexts.
//!
//! Three steps, as late as possible: [`GitSource`] is what was asked for; [`resolve`] says which commit that is, with
//! one look at the remote's references and none at all when a whole commit is named; [`fetch`] brings the files into
//! the store as one layer, unless the store has them: they are recorded under the commit, so that a build of a pinned
//! commit needs no network.
//!
//! The git program does the work, as in the reference (see [`command`] for how it is kept from doing more). Nothing of
//! a clone is kept: the layer is what later builds want, and garbage collection knows layers.

mod checkout;
mod command;
mod error;
mod resolve;

use std::sync::Arc;

use rbuild_cache::{ContentDigest, KeyEncoder, StepKey};
use rbuild_frontend::git_reference::{GitMtime, GitReference};

use crate::build::Workspace;
use crate::error::StepError;
use crate::fetch::Fetched;
use crate::keys::InputKey;
use command::{Access, Git};
pub use error::GitError;
pub(crate) use resolve::{Resolved, resolve};

/// Raised when what is made of a commit changes: the recorded layers are not found then.
const KEY_VERSION: u32 = 1;

/// Name of the part of a record that holds the commit's time.
const TIME_PART: &str = "commit-time";

/// Part of a repository at a reference.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct GitSource {
    /// Address for git; may hold credentials.
    pub(crate) remote: String,
    /// Branch, tag, commit, `refs/…`; empty is the default branch.
    reference: String,
    /// Expected commit, perhaps shortened; may be empty.
    checksum: String,
    /// Empty is all of it.
    subdirectory: String,
    /// Whether `.git` is part of it.
    pub(crate) keeps_git_dir: bool,
    has_submodules: bool,
    /// Which time files get.
    pub(crate) mtime: GitMtime,
    fetches_by_commit: bool,
}

impl GitSource {
    /// What a parsed reference asks for; refuses what git could misunderstand.
    pub(crate) fn new(reference: &GitReference) -> Result<Self, GitError> {
        let has_scheme = reference.remote.contains("://");
        let remote = if reference.is_ambiguous && !has_scheme {
            format!("https://{}", reference.remote)
        } else {
            reference.remote.clone()
        };
        let host = match remote.split_once("://") {
            Some((_, rest)) => {
                let authority = rest.split('/').next().unwrap_or(rest);
                authority.rsplit('@').next().unwrap_or(authority)
            }
            None => remote.split_once('@').map_or("-", |(_, host)| host),
        };
        if remote.starts_with('-') || host.starts_with('-') || host.is_empty() {
            return Err(GitError::BadRemote {
                remote: redacted(&remote),
            });
        }
        if !reference.reference.is_empty() && !is_name(&reference.reference) {
            return Err(GitError::BadReference {
                reference: reference.reference.clone(),
            });
        }
        Self {
            remote,
            reference: reference.reference.clone(),
            subdirectory: reference.subdirectory.clone(),
            keeps_git_dir: reference.keep_git_dir == Some(true),
            has_submodules: reference.submodules != Some(false),
            mtime: reference.mtime.unwrap_or(GitMtime::Checkout),
            fetches_by_commit: reference.fetches_by_commit,
            checksum: String::new(),
        }
        .with_checksum(&reference.checksum)
    }

    /// The same, expected at a commit.
    pub(crate) fn with_checksum(self, checksum: &str) -> Result<Self, GitError> {
        if !checksum.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(GitError::BadChecksum {
                checksum: checksum.to_owned(),
            });
        }
        Ok(Self {
            checksum: checksum.to_ascii_lowercase(),
            ..self
        })
    }

    /// The address without credentials, and what is wanted of it.
    pub(crate) fn title(&self) -> String {
        let mut title = redacted(&self.remote);
        if !self.reference.is_empty() || !self.subdirectory.is_empty() {
            title.push('#');
            title.push_str(&self.reference);
        }
        if !self.subdirectory.is_empty() {
            title.push(':');
            title.push_str(&self.subdirectory);
        }
        title
    }

    /// Everything that decides about the files, now that the commit is known. With `.git` the remote and the name of
    /// the reference are among the files.
    fn key(&self, resolved: &Resolved) -> StepKey {
        let mut key = KeyEncoder::new("git", KEY_VERSION);
        key.text("commit", resolved.commit(self.keeps_git_dir));
        key.text("subdirectory", &self.subdirectory);
        key.flag("submodules", self.has_submodules);
        key.flag("commit-times", self.mtime == GitMtime::Commit);
        if self.has_git_dir() {
            key.text("remote", &redacted(&self.remote));
            key.text("reference", resolved.name());
        }
        key.finish()
    }

    /// What steps that read the files have in their keys.
    pub(crate) fn input_key(&self, resolved: &Resolved) -> InputKey {
        InputKey::Content(ContentDigest(self.key(resolved).0))
    }

    /// Of a subdirectory `.git` is never part, as in the reference.
    fn has_git_dir(&self) -> bool {
        self.keeps_git_dir && self.subdirectory.is_empty()
    }

    fn is_ssh(&self) -> bool {
        self.remote.starts_with("ssh://") || !self.remote.contains("://")
    }

    /// Git for this repository, in a directory of its own.
    fn git(&self, workspace: &Workspace) -> Result<(Git, std::path::PathBuf), StepError> {
        let mut access = self.access(workspace)?;
        access.authorities = workspace.options.registries.authorities().to_vec();
        let directory = workspace.scratch("git")?;
        let private = workspace.scratch("ssh")?;
        Ok((
            Git::new(&self.remote, &access, &directory, &private)?,
            directory,
        ))
    }

    fn access(&self, workspace: &Workspace) -> Result<Access, StepError> {
        if self.is_ssh() {
            let ssh = workspace.options.ssh.get("default").cloned();
            let Some(ssh) = ssh else {
                return Err(GitError::NoSshKey {
                    remote: redacted(&self.remote),
                }
                .into());
            };
            return Ok(Access {
                ssh: Some(ssh),
                ..Access::default()
            });
        }
        if !self.remote.starts_with("http") {
            return Ok(Access::default());
        }
        let (_, rest) = self.remote.split_once("://").unwrap_or_default();
        let authority = rest.split('/').next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        for (id, is_token) in [
            (format!("GIT_AUTH_HEADER.{host}"), false),
            (format!("GIT_AUTH_TOKEN.{host}"), true),
            ("GIT_AUTH_HEADER".to_owned(), false),
            ("GIT_AUTH_TOKEN".to_owned(), true),
        ] {
            let Some(value) = crate::secret::read_text(&workspace.options.secrets, &id)? else {
                continue;
            };
            let value = if is_token {
                format!(
                    "basic {}",
                    crate::secret::base64(format!("x-access-token:{value}").as_bytes())
                )
            } else {
                value
            };
            return Ok(Access {
                header: Some((self.token_scope(), value)),
                ..Access::default()
            });
        }
        Ok(Access::default())
    }

    /// Addresses that get the token: this repository, but all of GitHub's, whose submodules lie beside it; as in the
    /// reference.
    fn token_scope(&self) -> String {
        ["https://github.com/", "https://www.github.com/"]
            .into_iter()
            .find(|start| self.remote.starts_with(start))
            .map_or_else(|| self.remote.clone(), str::to_owned)
    }
}

/// The files at the resolved commit: one layer of the store.
pub(crate) async fn fetch(
    workspace: &Arc<Workspace>,
    source: &GitSource,
    resolved: &Resolved,
) -> Result<Fetched, StepError> {
    let key = source.key(resolved);
    let title = source.title();
    let recorded = {
        let (workspace, title) = (Arc::clone(workspace), title.clone());
        let inner = Arc::clone(&workspace);
        inner
            .blocking(move || Fetched::recorded(&workspace, &key, title))
            .await?
    };
    if let Some(fetched) = recorded {
        return Ok(fetched);
    }
    let task = workspace.images.tasks.start(format!("fetching {title}"));
    let result = checkout::check_out(workspace, source, resolved, &key).await;
    task.finish(&result, |_| resolved.object.clone());
    result
}

/// The time of the commit, seconds since the epoch.
pub(crate) fn commit_time(fetched: &Fetched) -> Option<i64> {
    fetched.fact(TIME_PART)?.parse().ok()
}

/// The address without the user's name and password.
pub(crate) fn redacted(remote: &str) -> String {
    let Some((scheme, rest)) = remote.split_once("://") else {
        return remote.to_owned();
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((user, host)) if scheme != "ssh" || user.contains(':') => {
            format!("{scheme}://xxxxx@{host}{path}")
        }
        _ => remote.to_owned(),
    }
}

/// A whole commit, in the two hash functions that git has.
fn is_whole_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64)
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// What git allows as a reference's name (git-check-ref-format), so that it is neither option, pattern nor refspec.
fn is_name(text: &str) -> bool {
    let has_bad_byte = text
        .bytes()
        .any(|byte| byte <= b' ' || byte == 0x7f || b"~^:?*[\\".contains(&byte));
    let has_bad_part = ["..", "@{", "//"].iter().any(|part| text.contains(part));
    let has_bad_component = text
        .split('/')
        .any(|part| part.starts_with('.') || part.to_ascii_lowercase().ends_with(".lock"));
    !(text.starts_with('-')
        || text.starts_with('/')
        || text.ends_with('/')
        || text.ends_with('.')
        || text == "@"
        || has_bad_byte
        || has_bad_part
        || has_bad_component)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Result<GitSource, GitError> {
        GitSource::new(&GitReference::parse(text).unwrap().unwrap())
    }

    #[test]
    fn what_git_could_misunderstand_is_refused() {
        for text in [
            "https://h/r.git#-b",
            "https://h/r.git?ref=--upload-pack=x",
            "https://h/r.git?ref=a:refs/heads/b",
            "https://h/r.git?ref=refs/heads/*",
            "https://h/r.git#a..b",
            "https://h/r.git#a b",
            "https://h/r.git#HEAD@{1}",
            "https://h/r.git?checksum=xyz",
            "ssh://-oProxyCommand=x/r",
            "ssh://u@-oProxyCommand=x/r",
            "-oProxyCommand=x@h:r",
            "git@-h:r",
        ] {
            let parsed = GitReference::parse(text);
            if let Ok(Some(reference)) = parsed {
                assert!(GitSource::new(&reference).is_err(), "{text}");
            }
        }
        for text in [
            "https://h/r.git#feature/x_1.2",
            "https://h/r.git#refs/pull/1/head",
            "git@h:r.git#v1",
            "ssh://git@h/r",
        ] {
            assert!(source(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn addresses_are_shown_without_credentials() {
        for (address, expected) in [
            ("https://user:pw@h/r.git", "https://xxxxx@h/r.git"),
            ("https://token@h/r.git", "https://xxxxx@h/r.git"),
            ("https://h/a@b.git", "https://h/a@b.git"),
            ("ssh://git@h/r", "ssh://git@h/r"),
            ("ssh://git:pw@h/r", "ssh://xxxxx@h/r"),
            ("git@h:r", "git@h:r"),
        ] {
            assert_eq!(redacted(address), expected);
        }
    }

    #[test]
    fn a_name_without_a_scheme_is_reached_by_https() {
        assert_eq!(
            source("github.com/a/b").unwrap().remote,
            "https://github.com/a/b"
        );
        assert_eq!(
            source("github.com/a/b").unwrap().token_scope(),
            "https://github.com/"
        );
        assert_eq!(
            source("https://h/b.git").unwrap().token_scope(),
            "https://h/b.git"
        );
    }
}
