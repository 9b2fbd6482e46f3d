//! `--annotation [TYPE,…[PLATFORM]:]KEY=VALUE`: which document or descriptor gets which annotation.

use std::collections::BTreeMap;

use rbuild_frontend::platform::{Platform, PlatformError};

/// Annotations sorted by where they go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations {
    entries: Vec<Annotation>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Annotation {
    place: Place,
    /// Only for this platform's manifest.
    platform: Option<Platform>,
    key: String,
    value: String,
}

/// What an annotation is put on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Manifest,
    Index,
    ManifestDescriptor,
    IndexDescriptor,
}

/// Why an annotation can't be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnnotationError {
    /// No such type.
    #[error(
        "annotation `{key}` has type `{found}`, which is none of manifest, index, manifest-descriptor, index-descriptor"
    )]
    Type {
        /// As given.
        key: String,
        /// The word.
        found: String,
    },
    /// A platform that is none.
    #[error("annotation `{key}` is for a platform that is not one")]
    Platform {
        /// As given.
        key: String,
        /// Why.
        #[source]
        source: PlatformError,
    },
    /// Nothing after the prefix.
    #[error("annotation `{key}` has no name")]
    NoName {
        /// As given.
        key: String,
    },
}

impl Annotations {
    /// Reads annotations as they were given; later ones win. The keys of `--output annotation-TYPE.KEY=` have the
    /// same form.
    pub fn parse<'a>(
        given: impl IntoIterator<Item = &'a (String, String)>,
    ) -> Result<Self, AnnotationError> {
        let mut entries = Vec::new();
        for (text, value) in given {
            let (places, platform, key) = parse_key(text)?;
            for place in places {
                let (platform, key, value) = (platform.clone(), key.to_owned(), value.clone());
                entries.push(Annotation {
                    place,
                    platform,
                    key,
                    value,
                });
            }
        }
        Ok(Self { entries })
    }

    /// Those for one place; `platform` is that of the manifest it belongs to.
    pub(super) fn on(&self, place: Place, platform: Option<&Platform>) -> BTreeMap<String, String> {
        let suits = |entry: &&Annotation| {
            entry.place == place
                && (entry.platform.is_none() || entry.platform.as_ref() == platform)
        };
        self.entries
            .iter()
            .filter(suits)
            .map(|entry| (entry.key.clone(), entry.value.clone()))
            .collect()
    }

    /// True when there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// True when something has to go on an index, so that there has to be one.
    pub(super) fn need_index(&self) -> bool {
        self.entries.iter().any(|entry| entry.place == Place::Index)
    }
}

fn parse_key(text: &str) -> Result<(Vec<Place>, Option<Platform>, &str), AnnotationError> {
    // A key may hold a colon itself (`org.example:x`); only words that look like a type make a prefix.
    let starts_with_type = ["manifest", "index"]
        .iter()
        .any(|word| text.starts_with(word));
    let Some((prefix, key)) = text.split_once(':').filter(|_| starts_with_type) else {
        return if text.is_empty() {
            Err(AnnotationError::NoName {
                key: text.to_owned(),
            })
        } else {
            Ok((vec![Place::Manifest], None, text))
        };
    };
    if key.is_empty() {
        return Err(AnnotationError::NoName {
            key: text.to_owned(),
        });
    }
    let (types, platform) = match prefix
        .strip_suffix(']')
        .and_then(|rest| rest.split_once('['))
    {
        Some((types, platform)) => {
            let platform = platform.parse::<Platform>();
            (
                types,
                Some(platform.map_err(|source| AnnotationError::Platform {
                    key: text.to_owned(),
                    source,
                })?),
            )
        }
        None => (prefix, None),
    };
    let places = types.split(',').map(|word| match word {
        "manifest" => Ok(Place::Manifest),
        "index" => Ok(Place::Index),
        "manifest-descriptor" => Ok(Place::ManifestDescriptor),
        "index-descriptor" => Ok(Place::IndexDescriptor),
        _ => Err(AnnotationError::Type {
            key: text.to_owned(),
            found: word.to_owned(),
        }),
    });
    Ok((places.collect::<Result<_, _>>()?, platform, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(keys: &[&str]) -> Result<Annotations, AnnotationError> {
        let given: Vec<(String, String)> = keys
            .iter()
            .map(|key| ((*key).to_owned(), "v".to_owned()))
            .collect();
        Annotations::parse(&given)
    }

    #[test]
    fn each_goes_where_it_says() {
        let annotations = parse(&[
            "plain",
            "index:on.index",
            "manifest,manifest-descriptor:both",
            "manifest[linux/arm64]:arm",
            "a:b",
        ])
        .expect("valid");
        let amd64 = Platform::default();
        let arm64 = Platform::new("linux", "arm64", "v8");
        let keys = |place, platform| {
            annotations
                .on(place, platform)
                .into_keys()
                .collect::<Vec<_>>()
        };
        assert_eq!(
            keys(Place::Manifest, Some(&amd64)),
            ["a:b", "both", "plain"]
        );
        assert_eq!(
            keys(Place::Manifest, Some(&arm64)),
            ["a:b", "arm", "both", "plain"]
        );
        assert_eq!(keys(Place::Index, None), ["on.index"]);
        assert_eq!(keys(Place::ManifestDescriptor, Some(&amd64)), ["both"]);
        assert!(annotations.need_index());
    }

    #[test]
    fn odd_ones_are_refused() {
        for odd in ["manifest,other:k", "manifest[l/i/n/u/x]:k", "index:", ""] {
            assert!(parse(&[odd]).is_err(), "{odd}");
        }
    }
}
