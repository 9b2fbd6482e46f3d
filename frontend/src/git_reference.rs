//! References to git repositories: `https://host/a/b.git#branch:subdir`, `git@host:a/b.git?tag=v1`.
//!
//! What counts as one: `git://` and `ssh://` addresses, `user@host:path`, `http(s)://` addresses whose path ends
//! in `.git`, and for the main build context only `github.com/…`. After `#` stands `ref:subdirectory`; the query
//! can say the same by name, and more.

mod address;

use crate::path;

/// A parsed git reference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitReference {
    /// Address to give to git, without query and fragment.
    pub remote: String,
    /// Last element of the address without `.git`.
    pub short_name: String,
    /// Branch, tag or commit; empty is the remote's default branch.
    pub reference: String,
    /// Commit that has to be found; may be shortened.
    pub checksum: String,
    /// Directory in the repository; empty is all of it.
    pub subdirectory: String,
    /// `github.com/…` without a scheme: a path of a COPY or ADD could look the same.
    pub is_ambiguous: bool,
    /// `http://` or `git://`.
    pub is_unencrypted: bool,
    /// `keep-git-dir`, if given.
    pub keep_git_dir: Option<bool>,
    /// `submodules`, if given; fetched by default.
    pub submodules: Option<bool>,
    /// `mtime`, if given.
    pub mtime: Option<GitMtime>,
    /// `fetch-by-commit`: fetch the checksum without asking what the reference points to.
    pub fetches_by_commit: bool,
}

/// Which modification time files get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GitMtime {
    /// Time of the checkout.
    Checkout,
    /// Time of the commit.
    Commit,
}

/// What is wrong with a text that is a git reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GitReferenceError {
    /// `?foo=1`
    #[error("a git reference has no query key `{key}`")]
    UnknownKey {
        /// The key.
        key: String,
    },
    /// `?ref=`
    #[error("`{key}` in a git reference needs a value")]
    NoValue {
        /// The key.
        key: String,
    },
    /// `?ref=a&ref=b`
    #[error("`{key}` is given more than once in a git reference")]
    Repeated {
        /// The key.
        key: String,
    },
    /// `?mtime=x`
    #[error("`{value}` is not a value for `{key}` in a git reference")]
    Value {
        /// The key.
        key: String,
        /// The value.
        value: String,
    },
    /// The same thing said twice in different ways.
    #[error("a git reference names two different {what}: `{first}` and `{second}`")]
    Conflict {
        /// `references` or `directories`.
        what: &'static str,
        /// One.
        first: String,
        /// The other.
        second: String,
    },
}

impl GitReferenceError {
    /// The query key that was probably meant.
    pub(crate) fn suggestion(&self) -> Option<&'static str> {
        const KEYS: [&str; 10] = [
            "ref",
            "tag",
            "branch",
            "subdir",
            "commit",
            "checksum",
            "keep-git-dir",
            "submodules",
            "mtime",
            "fetch-by-commit",
        ];
        match self {
            Self::UnknownKey { key } => crate::suggest::closest(key, KEYS),
            _ => None,
        }
    }
}

/// Names and values behind `?`.
type Query = Vec<(String, String)>;

impl GitReference {
    /// Reads a git reference; none if the text is something else, such as a path.
    pub fn parse(text: &str) -> Result<Option<Self>, GitReferenceError> {
        let Some((mut parsed, query, fragment)) = Self::parse_remote(text) else {
            return Ok(None);
        };
        let (reference, subdirectory) = fragment.split_once(':').unwrap_or((&fragment, ""));
        reference.clone_into(&mut parsed.reference);
        path::clean(&format!("/{subdirectory}"))[1..].clone_into(&mut parsed.subdirectory);
        let last = parsed.remote.rsplit('/').next().unwrap_or_default();
        last.strip_suffix(".git")
            .unwrap_or(last)
            .clone_into(&mut parsed.short_name);
        parsed.read_query(&query)?;
        Ok(Some(parsed))
    }

    /// Splits off query and fragment, and judges by the rest whether it is git.
    fn parse_remote(text: &str) -> Option<(Self, Query, String)> {
        if text.starts_with("./") || text.starts_with("../") {
            return None;
        }
        let scheme = text.split_once("://").map(|(scheme, _)| scheme);
        let scheme = scheme.filter(|scheme| {
            !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric())
        });
        if let Some(written) = scheme {
            let scheme = written.to_ascii_lowercase();
            if !matches!(scheme.as_str(), "http" | "https" | "git" | "ssh") {
                return None;
            }
            let (address, query, fragment) =
                address::parse(&scheme, &text[written.len() + ":".len()..])?;
            if matches!(scheme.as_str(), "http" | "https") && !address.path.ends_with(b".git") {
                return None;
            }
            let parsed = Self {
                is_unencrypted: matches!(scheme.as_str(), "http" | "git"),
                remote: address.text,
                ..Self::default()
            };
            return Some((parsed, query, fragment));
        }
        if text.starts_with("github.com/") {
            let (address, query, fragment) = address::parse("https", text)?;
            let parsed = Self {
                is_ambiguous: true,
                remote: address.text["https://".len()..].to_owned(),
                ..Self::default()
            };
            return Some((parsed, query, fragment));
        }
        let (before, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (remote, query) = before.split_once('?').unwrap_or((before, ""));
        let (query, is_whole) = address::split_query(query);
        let parsed = Self {
            remote: remote.to_owned(),
            ..Self::default()
        };
        (is_scp_style(remote) && is_whole && !text.contains('\n'))
            .then(|| (parsed, query, fragment.to_owned()))
    }

    fn read_query(&mut self, query: &[(String, String)]) -> Result<(), GitReferenceError> {
        let mut tag = None;
        let mut branch = None;
        for (position, (key, value)) in query.iter().enumerate() {
            if query[..position].iter().any(|(earlier, _)| earlier == key) {
                return Err(GitReferenceError::Repeated { key: key.clone() });
            }
            let is_switch = matches!(
                key.as_str(),
                "submodules" | "keep-git-dir" | "fetch-by-commit"
            );
            if value.is_empty() && !is_switch {
                return Err(GitReferenceError::NoValue { key: key.clone() });
            }
            let wrong_value = || GitReferenceError::Value {
                key: key.clone(),
                value: value.clone(),
            };
            match key.as_str() {
                "ref" => agree("references", &mut self.reference, value)?,
                "subdir" => agree("directories", &mut self.subdirectory, value)?,
                "tag" => tag = Some(with_prefix("refs/tags/", value)),
                "branch" => branch = Some(with_prefix("refs/heads/", value)),
                "checksum" | "commit" => self.checksum.clone_from(value),
                "keep-git-dir" => {
                    self.keep_git_dir = Some(parse_switch(value).ok_or_else(wrong_value)?);
                }
                "submodules" => {
                    self.submodules = Some(parse_switch(value).ok_or_else(wrong_value)?);
                }
                "fetch-by-commit" => {
                    self.fetches_by_commit = parse_switch(value).ok_or_else(wrong_value)?;
                }
                "mtime" if value == "checkout" => self.mtime = Some(GitMtime::Checkout),
                "mtime" if value == "commit" => self.mtime = Some(GitMtime::Commit),
                "mtime" => return Err(wrong_value()),
                _ => return Err(GitReferenceError::UnknownKey { key: key.clone() }),
            }
        }
        if let (Some(tag), Some(branch)) = (&tag, &branch) {
            let (first, second) = (tag.clone(), branch.clone());
            return Err(GitReferenceError::Conflict {
                what: "references",
                first,
                second,
            });
        }
        tag.or(branch).map_or(Ok(()), |full| {
            agree("references", &mut self.reference, &full)
        })
    }
}

/// `user@host:path`
fn is_scp_style(text: &str) -> bool {
    let Some((user, rest)) = text.split_once('@') else {
        return false;
    };
    let Some((host, _)) = rest.split_once(':') else {
        return false;
    };
    let consists_of = |part: &str, extra: &[u8]| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || extra.contains(&byte))
    };
    consists_of(user, b"-_") && consists_of(host, b"-.")
}

fn agree(what: &'static str, current: &mut String, value: &str) -> Result<(), GitReferenceError> {
    if !current.is_empty() && current != value {
        let (first, second) = (current.clone(), value.to_owned());
        return Err(GitReferenceError::Conflict {
            what,
            first,
            second,
        });
    }
    value.clone_into(current);
    Ok(())
}

fn with_prefix(prefix: &str, value: &str) -> String {
    if value.starts_with(prefix) {
        value.to_owned()
    } else {
        format!("{prefix}{value}")
    }
}

/// Go's spellings of a boolean; no value is true.
fn parse_switch(value: &str) -> Option<bool> {
    match value {
        "" => Some(true),
        value => crate::boolean::parse(value),
    }
}

/// Replaces `%41` by `A`; what is no escape stays.
pub fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digit = |offset: usize| {
            bytes
                .get(at + offset)
                .and_then(|byte| char::from(*byte).to_digit(16))
        };
        match (bytes[at], digit(1), digit(2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(u8::try_from(high * 16 + low).unwrap_or_default());
                at += 3;
            }
            (byte, _, _) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_taken_apart() {
        let parse = |text| GitReference::parse(text).unwrap().unwrap();
        let https = parse("HTTPS://user:pw@host/a/b.git#refs/tags/v1:/x/../y");
        assert_eq!(https.remote, "https://user:pw@host/a/b.git");
        assert_eq!(
            (https.short_name.as_str(), https.reference.as_str()),
            ("b", "refs/tags/v1")
        );
        assert_eq!(https.subdirectory, "y");
        let scp = parse("git@host:a/b?tag=v1&submodules=0&keep-git-dir&mtime=commit");
        assert_eq!(
            (scp.remote.as_str(), scp.reference.as_str()),
            ("git@host:a/b", "refs/tags/v1")
        );
        assert_eq!(
            (scp.submodules, scp.keep_git_dir, scp.mtime),
            (Some(false), Some(true), Some(GitMtime::Commit))
        );
        assert!(parse("github.com/a/b").is_ambiguous);
        assert!(parse("git://host/a").is_unencrypted);
    }

    #[test]
    fn addresses_are_written_as_git_wants_them() {
        for (text, remote) in [
            (
                "https://u@ser:p%2fw@h/r.git",
                "https://u%40ser:p%2Fw@h/r.git",
            ),
            ("https://h/a b/é.git", "https://h/a%20b/%C3%A9.git"),
            ("https://h/a%20b'[1].git", "https://h/a%20b'[1].git"),
            ("https://h/r.git?", "https://h/r.git?"),
            ("ssh://é@h:22/~/r", ""),
            ("ssh://[::1]:22/~/r", "ssh://[::1]:22/~/r"),
            ("git://hé/r", "git://h%C3%A9/r"),
            ("github.com/a/é", "github.com/a/%C3%A9"),
        ] {
            let parsed = GitReference::parse(text).unwrap();
            assert_eq!(parsed.unwrap_or_default().remote, remote, "{text}");
        }
    }

    #[test]
    fn other_texts_are_not_git() {
        for text in [
            "",
            "a",
            "./a.git",
            "https://host/a",
            "https://host/a.git/",
            "ftp://h/a.git",
            "host:path",
            "/a.git",
            "https://host/%/a.git",
            "ssh://host:port/a",
            "https://a:b:1/a.git",
            "ssh://h\\t@host/a",
            "ssh://ho st/a",
            "git@host:a?ref=%",
            "github.com/a/b?ref=a#%",
            "git://host/\ta",
        ] {
            assert_eq!(GitReference::parse(text), Ok(None), "{text}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        for query in [
            "ref=",
            "ref=a&ref=b",
            "foo=1",
            "mtime=x",
            "tag=a&branch=b",
            "ref=a#b",
            "subdir=a#:b",
            "submodules=x",
        ] {
            assert!(
                GitReference::parse(&format!("https://h/r.git?{query}")).is_err(),
                "{query}"
            );
        }
        assert!(GitReference::parse("https://h/r.git?ref=a&subdir=b#a:b").is_ok());
    }
}
