//! What the texts mean that name contexts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rbuild_frontend::git_reference::GitReference;
use rbuild_frontend::graph::{ImageReference, NamedContext};

use super::ContextError;
use crate::git::redacted;
use crate::options::BuildOptions;

/// What a `--build-context` spec names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Spec {
    /// `docker-image://…` or `oci-layout://…`
    Image(ImageReference),
    /// `docker-image://scratch`
    Scratch,
    /// A directory of this machine.
    Directory(PathBuf),
    /// Files from elsewhere.
    Remote(Remote),
}

/// Files from elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Remote {
    /// A repository.
    Git(Box<GitReference>),
    /// An http(s) address.
    Url(String),
}

impl Remote {
    /// What an address means; none when it is none.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, ContextError> {
        let git = GitReference::parse(text).map_err(|source| ContextError::GitReference {
            spec: redacted(text),
            source,
        })?;
        if let Some(git) = git {
            return Ok(Some(Self::Git(Box::new(git))));
        }
        let is_url = ["http://", "https://"]
            .iter()
            .any(|start| text.starts_with(start));
        Ok(is_url.then(|| Self::Url(text.to_owned())))
    }
}

/// `--build-context NAME=text`. `github.com/…` without a scheme is a directory here, as in the reference.
pub(super) fn classify(text: &str) -> Result<Spec, ContextError> {
    if let Some(name) = text.strip_prefix("docker-image://") {
        if name == "scratch" {
            return Ok(Spec::Scratch);
        }
        return Ok(Spec::Image(ImageReference::Name(name.to_owned())));
    }
    if let Some(layout) = text.strip_prefix("oci-layout://") {
        return Ok(Spec::Image(layout_reference(layout)));
    }
    Ok(match Remote::parse(text)? {
        Some(Remote::Git(git)) if git.is_ambiguous => Spec::Directory(PathBuf::from(text)),
        Some(remote) => Spec::Remote(remote),
        None => Spec::Directory(Path::new(text.strip_prefix("local:").unwrap_or(text)).to_owned()),
    })
}

/// `PATH[:TAG][@DIGEST]`; a colon that a slash follows is part of the path.
fn layout_reference(text: &str) -> ImageReference {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.to_owned())),
        None => (text, None),
    };
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag.to_owned())),
        _ => (rest, None),
    };
    ImageReference::Layout {
        path: path.to_owned(),
        tag,
        digest,
    }
}

/// The named contexts as the planner knows them.
pub(crate) fn planned_contexts(
    options: &BuildOptions,
) -> Result<BTreeMap<String, NamedContext>, ContextError> {
    options
        .named_contexts
        .iter()
        .map(|(name, spec)| {
            let context = match classify(spec)? {
                Spec::Image(reference) => NamedContext::Image(reference),
                Spec::Scratch => NamedContext::Scratch,
                Spec::Directory(_) | Spec::Remote(_) => NamedContext::Files,
            };
            Ok((name.clone(), context))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_are_told_apart() {
        let layout = |path: &str, tag: Option<&str>, digest: Option<&str>| {
            Spec::Image(ImageReference::Layout {
                path: path.into(),
                tag: tag.map(str::to_owned),
                digest: digest.map(str::to_owned),
            })
        };
        for (text, expected) in [
            ("docker-image://scratch", Spec::Scratch),
            (
                "docker-image://debian:12",
                Spec::Image(ImageReference::Name("debian:12".into())),
            ),
            ("oci-layout:///a/b", layout("/a/b", None, None)),
            ("oci-layout://../a:v1", layout("../a", Some("v1"), None)),
            (
                "oci-layout:///a:5/b@sha256:x",
                layout("/a:5/b", None, Some("sha256:x")),
            ),
            ("../dir", Spec::Directory("../dir".into())),
            ("local:dir", Spec::Directory("dir".into())),
            ("github.com/a/b", Spec::Directory("github.com/a/b".into())),
            (
                "https://h/f.tar",
                Spec::Remote(Remote::Url("https://h/f.tar".into())),
            ),
        ] {
            assert_eq!(classify(text).unwrap(), expected, "{text}");
        }
        for text in [
            "https://h/r.git#v1:dir",
            "git@host:path",
            "ssh://git@host/path",
            "git://host/path",
        ] {
            let spec = classify(text).unwrap();
            assert!(matches!(spec, Spec::Remote(Remote::Git(_))), "{text}");
        }
        assert!(classify("https://h/r.git?nonsense=1").is_err());
    }
}
