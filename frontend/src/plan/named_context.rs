//! Named contexts: what `--build-context name=…` puts in the place of a stage, an image or a `--from`.

use std::collections::BTreeMap;

use crate::graph::NamedContext;
use crate::platform::Platform;
use crate::reference::Reference;

/// `--build-context` by normalised name: `docker.io/library/debian:latest` and `debian` are one.
pub(super) struct NamedContexts<'a>(BTreeMap<String, (&'a str, &'a NamedContext)>);

impl<'a> NamedContexts<'a> {
    /// Normalises the names.
    pub(super) fn new(contexts: &'a BTreeMap<String, NamedContext>) -> Self {
        let normal = |name: &str| {
            let (name, platform) = name
                .split_once("::")
                .map_or((name, None), |(name, platform)| (name, Some(platform)));
            let name = normal_context_name(name);
            match platform.map(|text| (text, text.parse::<Platform>())) {
                Some((_, Ok(platform))) => format!("{name}::{platform}"),
                Some((text, Err(_))) => format!("{name}::{text}"),
                None => name,
            }
        };
        Self(
            contexts
                .iter()
                .map(|(name, context)| (normal(name), (name.as_str(), context)))
                .collect(),
        )
    }

    /// The context that stands in for a name; one for the platform wins.
    pub(super) fn get(
        &self,
        name: &str,
        platform: &Platform,
    ) -> Option<(&'a str, &'a NamedContext)> {
        if self.0.is_empty()
            || name.eq_ignore_ascii_case("scratch")
            || name.eq_ignore_ascii_case("context")
        {
            return None;
        }
        let name = normal_context_name(name);
        self.0
            .get(&format!("{name}::{platform}"))
            .or_else(|| self.0.get(&name))
            .copied()
    }
}

fn normal_context_name(name: &str) -> String {
    let Ok(reference) = Reference::parse(name) else {
        return name.to_lowercase();
    };
    let familiar = reference.familiar();
    familiar
        .strip_suffix(":latest")
        .unwrap_or(&familiar)
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised_and_platforms_win() {
        let contexts = BTreeMap::from([
            (
                "docker.io/library/debian:latest".to_owned(),
                NamedContext::Files,
            ),
            ("debian::linux/arm64/v8".to_owned(), NamedContext::Scratch),
            ("Scratch".to_owned(), NamedContext::Files),
        ]);
        let contexts = NamedContexts::new(&contexts);
        let kind = |name: &str, platform: &str| {
            let platform = platform.parse().unwrap_or_default();
            contexts
                .get(name, &platform)
                .map(|(_, context)| context.clone())
        };
        assert_eq!(kind("debian", "linux/amd64"), Some(NamedContext::Files));
        assert_eq!(
            kind("index.docker.io/library/debian", "linux/amd64"),
            Some(NamedContext::Files)
        );
        assert_eq!(kind("debian", "linux/arm64"), Some(NamedContext::Scratch));
        assert_eq!(kind("debian:12", "linux/amd64"), None);
        assert_eq!(kind("scratch", "linux/amd64"), None);
    }
}
