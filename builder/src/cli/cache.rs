//! `--cache-from` and `--cache-to`: which caches, and how.

use std::path::PathBuf;

use rbuild::LONGEST_CACHE_TAG;
use rbuild::options::{CacheKind, CacheMode, CacheSource, CacheTarget, OutputCompression};

use rbuild_frontend::reference::Reference;

use super::error::UsageError;
use super::values::{pairs, split_record};

/// Options that docker knows and that change nothing here.
const WITHOUT_EFFECT: [&str; 5] = [
    "ignore-error",
    "oci-mediatypes",
    "image-manifest",
    "force-compression",
    "tag",
];

/// Reads one `--cache-from`.
pub(crate) fn parse_source(text: &str) -> Result<CacheSource, UsageError> {
    let mut spec = Spec::read("--cache-from", text)?;
    let kind = spec.kind("src")?;
    spec.finish()?;
    Ok(CacheSource {
        text: text.to_owned(),
        kind,
    })
}

/// Reads one `--cache-to`.
pub(crate) fn parse_target(text: &str) -> Result<CacheTarget, UsageError> {
    let mut spec = Spec::read("--cache-to", text)?;
    let kind = spec.kind("dest")?;
    let mode = match spec.take("mode").as_deref() {
        None | Some("min") => CacheMode::Min,
        Some("max") => CacheMode::Max,
        Some(other) => return Err(spec.wrong(format!("`mode` is min or max, not `{other}`"))),
    };
    let compression = match spec.take("compression").as_deref() {
        None | Some("gzip") => OutputCompression::Gzip,
        Some("zstd") => OutputCompression::Zstd,
        Some("uncompressed") => OutputCompression::Uncompressed,
        Some(other) => {
            return Err(spec.wrong(format!(
                "`compression` is gzip, zstd or uncompressed, not `{other}`"
            )));
        }
    };
    let level = spec.take("compression-level");
    let level = level.map(|level| level.parse().map_err(|_| level));
    let compression_level = level
        .transpose()
        .map_err(|level| spec.wrong(format!("`compression-level` is a number, not `{level}`")))?;
    spec.finish()?;
    Ok(CacheTarget {
        text: text.to_owned(),
        kind,
        mode,
        compression,
        compression_level,
    })
}

/// The pairs of one flag, taken out one by one so that what is left over is unknown.
struct Spec<'a> {
    flag: &'static str,
    text: &'a str,
    pairs: Vec<(String, String)>,
    /// Of another type: its options are not ours to judge.
    is_unknown: bool,
}

impl<'a> Spec<'a> {
    fn read(flag: &'static str, text: &'a str) -> Result<Self, UsageError> {
        let fields = split_record(text).map_err(|reason| UsageError::value(flag, text, reason))?;
        // `--cache-from user/app:cache` is an image in a registry.
        let pairs = if let [name] = fields.as_slice()
            && !name.contains('=')
        {
            vec![
                ("type".to_owned(), "registry".to_owned()),
                ("ref".to_owned(), name.clone()),
            ]
        } else {
            pairs(flag, text)?
        };
        Ok(Self {
            flag,
            text,
            pairs,
            is_unknown: false,
        })
    }

    fn wrong(&self, reason: impl Into<String>) -> UsageError {
        UsageError::value(self.flag, self.text, reason)
    }

    fn take(&mut self, key: &str) -> Option<String> {
        let position = self.pairs.iter().rposition(|(name, _)| name == key)?;
        let value = self.pairs.remove(position).1;
        self.pairs.retain(|(name, _)| name != key);
        Some(value)
    }

    fn kind(&mut self, place: &str) -> Result<CacheKind, UsageError> {
        match self.take("type").as_deref() {
            None | Some("") => Err(self
                .wrong("`type=` is missing")
                .with_help(format!("for example `type=local,{place}=DIR`"))),
            Some("local") => match self.take(place).filter(|path| !path.is_empty()) {
                Some(path) => Ok(CacheKind::Directory(PathBuf::from(path))),
                None => Err(self.wrong(format!("`{place}=DIR` is missing"))),
            },
            Some("registry") => match self.take("ref").filter(|name| !name.is_empty()) {
                Some(name) => self.registry(&name),
                None => Err(self.wrong("`ref=NAME` is missing")),
            },
            Some("inline") if place == "dest" => Ok(CacheKind::Inline),
            Some("inline") => Err(self
                .wrong("an inline cache is found by the image's name")
                .with_help("`type=registry,ref=NAME`, with the name that was pushed")),
            Some(other) => {
                self.is_unknown = true;
                Ok(CacheKind::Unknown(other.to_owned()))
            }
        }
    }

    fn registry(&self, name: &str) -> Result<CacheKind, UsageError> {
        let reference = Reference::parse(name)
            .map_err(|error| self.wrong(format!("`{name}` is not an image name: {error}")))?;
        if reference.digest.is_some() {
            return Err(self.wrong("a cache is named by a tag, not by a digest"));
        }
        let reference = reference.with_default_tag();
        if reference
            .tag
            .as_ref()
            .is_some_and(|tag| tag.len() > LONGEST_CACHE_TAG)
        {
            return Err(self.wrong(format!(
                "the tag of a cache has at most {LONGEST_CACHE_TAG} characters"
            )));
        }
        Ok(CacheKind::Registry(reference))
    }

    fn finish(self) -> Result<(), UsageError> {
        let is_odd = |(name, _): &&(String, String)| !WITHOUT_EFFECT.contains(&name.as_str());
        match self.pairs.iter().find(is_odd) {
            Some((name, _)) if !self.is_unknown => {
                Err(self.wrong(format!("`{name}` is not an option")))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_are_read() {
        let table = [
            ("type=local,src=/a", Some("Directory(\"/a\")")),
            ("type=local,src=/a,tag=x", Some("Directory(\"/a\")")),
            ("type=gha,scope=x", Some("Unknown(\"gha\")")),
            (
                "user/app:cache",
                Some(
                    "Registry(Reference { registry: \"docker.io\", repository: \"user/app\", tag: Some(\"cache\"), digest: None })",
                ),
            ),
            (
                "type=registry,ref=localhost:5000/a",
                Some(
                    "Registry(Reference { registry: \"localhost:5000\", repository: \"a\", tag: Some(\"latest\"), digest: None })",
                ),
            ),
            ("type=registry", None),
            ("type=registry,ref=UPPER", None),
            ("type=inline", None),
            ("type=local", None),
            ("src=/a", None),
            ("type=local,src=/a,what=1", None),
        ];
        for (text, expected) in table {
            let kind = parse_source(text)
                .ok()
                .map(|source| format!("{:?}", source.kind));
            assert_eq!(kind.as_deref(), expected, "{text}");
        }
        let target =
            parse_target("type=local,dest=/a,mode=max,compression=zstd,compression-level=9")
                .unwrap();
        assert_eq!(
            (target.mode, target.compression, target.compression_level),
            (CacheMode::Max, OutputCompression::Zstd, Some(9))
        );
        for wrong in [
            "type=local,src=/a",
            "type=local,dest=/a,mode=all",
            "type=local,dest=/a,compression=lzma",
            "type=local,dest=/a,compression-level=best",
        ] {
            assert!(parse_target(wrong).is_err(), "{wrong}");
        }
    }
}
