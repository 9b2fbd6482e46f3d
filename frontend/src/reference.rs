//! Names of images: `debian`, `ghcr.io/a/b:1`, `localhost:5000/x@sha256:…`.
//!
//! The grammar is the distribution project's. Short names are filled up as Docker does: no registry means
//! `docker.io`, and no namespace there means `library`.

use std::fmt;
use std::str::FromStr;

/// Registry of names that do not say one.
const DEFAULT_REGISTRY: &str = "docker.io";
/// Namespace of the official images there.
const OFFICIAL_NAMESPACE: &str = "library/";
/// Longest repository name, from the distribution specification's reference implementation.
const MAX_REPOSITORY: usize = 255;
/// Bytes of all parts together, with room to spare: what is longer is not looked at.
const MOST_BYTES: usize = 4096;
/// Longest tag, likewise.
const MAX_TAG: usize = 128;

/// A valid image name with all parts that the short form leaves out, except the tag.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    /// Host and port.
    pub registry: String,
    /// Path within the registry, lower case.
    pub repository: String,
    /// Tag, if one was given.
    pub tag: Option<String>,
    /// Digest, if one was given.
    pub digest: Option<String>,
}

/// Why a text is no image name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Nothing there.
    #[error("an image name can't be empty")]
    Empty,
    /// `Debian`.
    #[error("image name `{repository}` has upper-case letters")]
    UpperCase {
        /// The repository part.
        repository: String,
    },
    /// It looks like the id of an image.
    #[error("`{text}` is an image id, not a name")]
    Id {
        /// What was given.
        text: String,
    },
    /// Something of the grammar.
    #[error("`{text}` is not an image name: its {part} is not valid")]
    Part {
        /// What was given.
        text: String,
        /// `registry`, `repository`, `tag` or `digest`.
        part: &'static str,
    },
}

impl Reference {
    /// Reads a name and fills up what a short one leaves out.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let error = |part| ReferenceError::Part {
            text: text.to_owned(),
            part,
        };
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if text.len() > MOST_BYTES {
            return Err(error("length"));
        }
        if text.len() == 64 && text.bytes().all(is_lower_hex) {
            return Err(ReferenceError::Id {
                text: text.to_owned(),
            });
        }
        let (registry, rest) = split_registry(text);
        let (named, digest) = match rest.split_once('@') {
            Some((named, digest)) => (named, Some(digest)),
            None => (rest, None),
        };
        let (repository, tag) = match named.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (named, None),
        };
        if repository.chars().any(char::is_uppercase) {
            return Err(ReferenceError::UpperCase {
                repository: repository.to_owned(),
            });
        }
        let is_short = registry == DEFAULT_REGISTRY && !repository.contains('/');
        let repository = format!(
            "{}{repository}",
            if is_short { OFFICIAL_NAMESPACE } else { "" }
        );
        if !is_registry(registry) {
            return Err(error("registry"));
        }
        if repository.len() > MAX_REPOSITORY || !repository.split('/').all(is_path_component) {
            return Err(error("repository"));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(error("tag"));
        }
        if digest.is_some_and(|digest| !is_digest(digest)) {
            return Err(error("digest"));
        }
        let owned = |part: Option<&str>| part.map(str::to_owned);
        Ok(Self {
            registry: registry.to_owned(),
            repository,
            tag: owned(tag),
            digest: owned(digest),
        })
    }

    /// The same with the tag `latest` if it has neither tag nor digest.
    #[must_use]
    pub fn with_default_tag(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".to_owned());
        }
        self
    }

    /// Registry and repository: `docker.io/library/debian`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The short name as people write it: `debian:12`.
    pub fn familiar(&self) -> String {
        let mut short = match self.registry.as_str() {
            DEFAULT_REGISTRY => match self.repository.strip_prefix(OFFICIAL_NAMESPACE) {
                Some(name) if !name.contains('/') => name.to_owned(),
                _ => self.repository.clone(),
            },
            _ => self.name(),
        };
        self.push_ends(&mut short);
        short
    }

    fn push_ends(&self, text: &mut String) {
        for (mark, part) in [(':', &self.tag), ('@', &self.digest)] {
            if let Some(part) = part {
                text.push(mark);
                text.push_str(part);
            }
        }
    }
}

impl fmt::Display for Reference {
    /// The full name: `docker.io/library/debian:12`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.name();
        self.push_ends(&mut text);
        formatter.write_str(&text)
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// The first part is a registry if it could not be a namespace: a dot, a port, an upper-case letter, `localhost`.
fn split_registry(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.chars().any(char::is_uppercase) =>
        {
            (
                if first == "index.docker.io" {
                    DEFAULT_REGISTRY
                } else {
                    first
                },
                rest,
            )
        }
        _ => (DEFAULT_REGISTRY, text),
    }
}

fn is_lower_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

fn is_registry(registry: &str) -> bool {
    let (host, port) = match registry
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        Some((address, port)) => {
            if address.is_empty()
                || !address
                    .bytes()
                    .all(|byte| byte.is_ascii_hexdigit() || byte == b':')
            {
                return false;
            }
            (
                None,
                port.strip_prefix(':')
                    .or(if port.is_empty() { None } else { Some("x") }),
            )
        }
        None => match registry.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(registry), None),
        },
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    host.is_none_or(|host| host.split('.').all(is_label))
        && port
            .is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Lower-case words joined by `.`, `_`, `__` or any number of `-`.
fn is_path_component(component: &str) -> bool {
    let is_word_byte = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut separator = String::new();
    let mut is_after_word = false;
    for byte in component.bytes() {
        if is_word_byte(byte) {
            let is_joint = matches!(separator.as_str(), "" | "." | "_" | "__")
                || separator.bytes().all(|b| b == b'-');
            if !is_joint || !is_after_word && !separator.is_empty() {
                return false;
            }
            separator.clear();
            is_after_word = true;
        } else if b"._-".contains(&byte) {
            separator.push(char::from(byte));
        } else {
            return false;
        }
    }
    is_after_word && separator.is_empty()
}

fn is_tag(tag: &str) -> bool {
    tag.len() <= MAX_TAG
        && !tag.is_empty()
        && !tag.starts_with(['.', '-'])
        && tag
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// `algorithm:hex`; the known algorithms have a fixed length.
pub(crate) fn is_digest(digest: &str) -> bool {
    let Some((algorithm, hex)) = digest.split_once(':') else {
        return false;
    };
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return false,
    };
    hex.len() == length && hex.bytes().all(is_lower_hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filled_up() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let with_digest = format!("a/b@{digest}");
        for (text, full, short) in [
            ("debian", "docker.io/library/debian", "debian"),
            ("debian:12", "docker.io/library/debian:12", "debian:12"),
            ("a/b", "docker.io/a/b", "a/b"),
            ("index.docker.io/a/b", "docker.io/a/b", "a/b"),
            ("docker.io/debian", "docker.io/library/debian", "debian"),
            ("localhost/a", "localhost/a", "localhost/a"),
            (
                "localhost:5000/a:b",
                "localhost:5000/a:b",
                "localhost:5000/a:b",
            ),
            ("[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a"),
            (
                "ghcr.io/a/b__c/d--e",
                "ghcr.io/a/b__c/d--e",
                "ghcr.io/a/b__c/d--e",
            ),
            ("Host/a", "Host/a", "Host/a"),
            (
                &with_digest,
                &format!("docker.io/a/b@{digest}"),
                &with_digest,
            ),
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!(
                (
                    reference.to_string().as_str(),
                    reference.familiar().as_str()
                ),
                (full, short),
                "{text}"
            );
            assert_eq!(Reference::parse(full).unwrap(), reference);
        }
        assert_eq!(
            Reference::parse("a").unwrap().with_default_tag().familiar(),
            "a:latest"
        );
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "Debian",
            "a/B",
            "a:",
            "a:-x",
            "a b",
            "a//b",
            "/a",
            "a/",
            "a@sha256:1",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a._b",
            "http://a/b",
            "ho_st.x/a",
            "a:b:c",
            "a@",
            "é",
            "localhost:/a",
            "[::1]x/a",
        ] {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
        assert!(matches!(
            Reference::parse(&"a1".repeat(32)),
            Err(ReferenceError::Id { .. })
        ));
    }
}
