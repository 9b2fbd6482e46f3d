//! Copies between any two of registry, store, layout and archive.

use std::path::PathBuf;
use std::sync::Arc;

use oci_spec::image::Digest;
use rbuild_cache::Lease;
use rbuild_frontend::graph::ImageReference;
use rbuild_frontend::platform::Platform;
use rbuild_frontend::reference::Reference;

use super::{TransferError, load};
use crate::blocking;
use crate::build::this_machine;
use crate::engine::Engine;
use crate::event::EventSink;
use crate::export::Exporter;
use crate::images::{Images, full_name};
use crate::layout::{ArchivedImage, Layout};
use crate::options::{Output, OutputKind, PullPolicy};
use crate::pull::{ResolvedBase, WholeSource};
use crate::registry::RegistrySettings;

/// One end of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `docker://NAME` or `NAME`: a registry.
    Registry(String),
    /// `store:NAME`: an image of this store.
    Store(String),
    /// `oci:DIR[:TAG]`: a layout in a directory.
    Layout {
        /// The directory.
        path: PathBuf,
        /// The entry.
        tag: Option<String>,
    },
    /// `oci-archive:FILE[:NAME]`: a layout in a tar.
    OciArchive {
        /// The file.
        path: PathBuf,
        /// The image in it.
        name: Option<String>,
    },
    /// `docker-archive:FILE[:NAME]`: what `docker save` writes.
    DockerArchive {
        /// The file.
        path: PathBuf,
        /// The image in it.
        name: Option<String>,
    },
}

/// What was copied.
#[derive(Clone, Debug)]
pub struct Copied {
    /// Digest of the manifest or index; of the config where the store took an image without a manifest.
    pub digest: Digest,
}

impl Endpoint {
    /// Reads one end as it is typed.
    pub fn parse(text: &str) -> Result<Self, TransferError> {
        let wrong = |reason| TransferError::Endpoint {
            text: text.to_owned(),
            reason,
        };
        let place = |rest: &str| {
            // A tag or name follows the first colon behind the path.
            let (path, name) = match rest.split_once(':') {
                Some((path, name)) => (path, Some(name.to_owned())),
                None => (rest, None),
            };
            if path.is_empty() {
                return Err(wrong("the path is missing"));
            }
            Ok((PathBuf::from(path), name.filter(|name| !name.is_empty())))
        };
        let layout = text
            .strip_prefix("oci-layout://")
            .or_else(|| text.strip_prefix("oci:"));
        if let Some(rest) = layout {
            let (path, tag) = place(rest)?;
            return Ok(Self::Layout { path, tag });
        }
        if let Some(rest) = text.strip_prefix("oci-archive:") {
            let (path, name) = place(rest)?;
            return Ok(Self::OciArchive { path, name });
        }
        if let Some(rest) = text.strip_prefix("docker-archive:") {
            let (path, name) = place(rest)?;
            return Ok(Self::DockerArchive { path, name });
        }
        if let Some(name) = text.strip_prefix("store:") {
            let name = name.trim_start_matches("//");
            if name.is_empty() {
                return Err(wrong("the name is missing"));
            }
            return Ok(Self::Store(name.to_owned()));
        }
        let name = text.strip_prefix("docker://").unwrap_or(text);
        if name.contains("://") {
            return Err(wrong("there is no such kind of place"));
        }
        Reference::parse(name).map_err(|_| wrong("it is no image name"))?;
        Ok(Self::Registry(name.to_owned()))
    }

    /// Whether it has room for one platform only.
    fn takes_one(&self) -> bool {
        matches!(self, Self::Store(_) | Self::DockerArchive { .. })
    }
}

impl Engine {
    /// Copies an image. Between registries, layouts and OCI archives all of it goes, index and signatures' subjects included,
    /// byte for byte; with `platform`, and where there is room for one only, that platform's image.
    pub async fn copy(
        &self,
        source: &Endpoint,
        target: &Endpoint,
        platform: Option<Platform>,
        settings: &RegistrySettings,
        events: EventSink,
    ) -> Result<Copied, TransferError> {
        let (sources, lease) = self.sources(settings, events)?;
        let platform = match platform {
            None if target.takes_one() => Some(this_machine()),
            platform => platform,
        };
        let exporter = Exporter { sources };
        let copied = match target {
            Endpoint::Store(name) => {
                let platform = platform.unwrap_or_else(this_machine);
                self.copy_in(&exporter, source, name, &platform, &lease)
                    .await?
            }
            _ => {
                self.copy_out(&exporter, source, target, platform.as_ref(), &lease)
                    .await?
            }
        };
        self.end(lease).await?;
        Ok(copied)
    }

    /// Into the store, under a name.
    async fn copy_in(
        &self,
        exporter: &Exporter,
        source: &Endpoint,
        name: &str,
        platform: &Platform,
        lease: &Lease,
    ) -> Result<Copied, TransferError> {
        let sources = &exporter.sources;
        let full = full_name(name)?;
        let base: ResolvedBase = match source {
            Endpoint::Store(from) => {
                let (images, from, name) = (
                    Images::new(self.store().clone()),
                    from.clone(),
                    name.to_owned(),
                );
                let record = blocking::run(move || {
                    images.tag(&from, &name)?;
                    images.find(&from).map(|(record, _)| record)
                })
                .await?;
                return Ok(Copied {
                    digest: record.manifest_digest.unwrap_or(record.config_digest),
                });
            }
            Endpoint::Registry(from) => {
                let reference = ImageReference::Name(from.clone());
                sources
                    .resolve(&reference, platform, PullPolicy::Newest, lease)
                    .await?
            }
            Endpoint::Layout { path, tag } => {
                let layout = Arc::new(load::open(Some(path), lease).await?);
                let image = pick(&layout, tag.as_deref(), platform).await?;
                sources.archived(&layout, &image, lease).await?
            }
            Endpoint::OciArchive { path, name } | Endpoint::DockerArchive { path, name } => {
                let layout = Arc::new(load::open(Some(path), lease).await?);
                let image = pick(&layout, name.as_deref(), platform).await?;
                sources.archived(&layout, &image, lease).await?
            }
        };
        let chain = sources.chain(&base, lease).await?;
        self.keep(&base, chain, vec![full]).await?;
        Ok(Copied {
            digest: base.manifest_digest.unwrap_or(base.config_digest),
        })
    }

    /// Out of anywhere, to anywhere but the store.
    async fn copy_out(
        &self,
        exporter: &Exporter,
        source: &Endpoint,
        target: &Endpoint,
        platform: Option<&Platform>,
        lease: &Lease,
    ) -> Result<Copied, TransferError> {
        let (output, names) = written(source, target)?;
        let whole = match source {
            Endpoint::Store(name) => {
                let found = self.stored(name, lease).await?;
                let sent = exporter
                    .copy_stored(
                        &found.image,
                        found.manifest_digest.as_ref(),
                        &output,
                        names,
                        lease,
                    )
                    .await?;
                return Ok(Copied {
                    digest: super::digest_of(&sent, &found.image),
                });
            }
            Endpoint::Registry(name) => {
                let reference = Reference::parse(name).map_err(|_| TransferError::Endpoint {
                    text: name.clone(),
                    reason: "it is no image name",
                })?;
                WholeSource::Registry(reference.with_default_tag())
            }
            Endpoint::Layout { path, tag: name } | Endpoint::OciArchive { path, name } => {
                let layout = Arc::new(load::open(Some(path), lease).await?);
                let (archive, wanted) = (Arc::clone(&layout), name.clone());
                let entry = blocking::run(move || archive.entry(wanted.as_deref())).await?;
                WholeSource::Layout(layout, Box::new(entry))
            }
            // It has no manifest: it goes through the store, which makes one.
            Endpoint::DockerArchive { path, name } => {
                let layout = Arc::new(load::open(Some(path), lease).await?);
                let platform = platform.cloned().unwrap_or_else(this_machine);
                let image = pick(&layout, name.as_deref(), &platform).await?;
                let base = exporter.sources.archived(&layout, &image, lease).await?;
                let chain = exporter.sources.chain(&base, lease).await?;
                let id = base.config_digest.to_string();
                self.keep(&base, chain, Vec::new()).await?;
                let found = self.stored(&id, lease).await?;
                let sent = exporter
                    .copy_stored(&found.image, None, &output, names, lease)
                    .await?;
                return Ok(Copied {
                    digest: super::digest_of(&sent, &found.image),
                });
            }
        };
        let copied = exporter
            .copy_whole(&whole, platform, &output, names, lease)
            .await?;
        let descriptor = copied.descriptor.expect("a copy has a manifest");
        Ok(Copied {
            digest: descriptor.digest,
        })
    }
}

/// The one image of an archive, or that with the name or tag.
async fn pick(
    layout: &Arc<Layout>,
    name: Option<&str>,
    platform: &Platform,
) -> Result<ArchivedImage, TransferError> {
    let (layout, name, platform) = (
        Arc::clone(layout),
        name.map(str::to_owned),
        platform.clone(),
    );
    blocking::run(move || Ok(layout.pick(name.as_deref(), &platform)?)).await
}

/// What is written at the target, and under which full names.
fn written(source: &Endpoint, target: &Endpoint) -> Result<(Output, Vec<String>), TransferError> {
    let to = |kind, path: &PathBuf| Output {
        destination: Some(path.clone()),
        ..Output::of_kind(kind)
    };
    Ok(match target {
        Endpoint::Registry(name) => (Output::of_kind(OutputKind::Image), vec![full_name(name)?]),
        Endpoint::Layout { path, tag } => {
            let names = names_in(source, tag.as_deref())?;
            (to(OutputKind::OciDirectory, path), names)
        }
        Endpoint::OciArchive { path, name } => {
            let names = names_in(source, name.as_deref())?;
            (to(OutputKind::Oci, path), names)
        }
        Endpoint::DockerArchive { path, name } => {
            let names = names_in(source, name.as_deref())?;
            (to(OutputKind::Docker, path), names)
        }
        Endpoint::Store(_) => unreachable!("copies into the store go another way"),
    })
}

/// The name in a layout or archive: the given one, if it is a tag only the source's name with that tag, else the source's.
fn names_in(source: &Endpoint, given: Option<&str>) -> Result<Vec<String>, TransferError> {
    let own = match source {
        Endpoint::Registry(name) | Endpoint::Store(name) => Some(name.as_str()),
        Endpoint::OciArchive { name, .. } | Endpoint::DockerArchive { name, .. } => name.as_deref(),
        Endpoint::Layout { .. } => None,
    };
    let own = own
        .and_then(|name| Reference::parse(name).ok())
        .map(Reference::with_default_tag);
    Ok(match (given, own) {
        (Some(given), _) if given.contains(['/', ':']) => vec![full_name(given)?],
        (Some(tag), Some(own)) => {
            let named = Reference {
                tag: Some(tag.to_owned()),
                digest: None,
                ..own
            };
            vec![full_name(&named.to_string())?]
        }
        (Some(name), None) => vec![full_name(name)?],
        (None, Some(own)) => vec![
            Reference {
                digest: None,
                ..own
            }
            .to_string(),
        ],
        (None, None) => Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_read() {
        let layout = |path: &str, tag: Option<&str>| Endpoint::Layout {
            path: path.into(),
            tag: tag.map(str::to_owned),
        };
        let table = [
            ("debian", Some(Endpoint::Registry("debian".into()))),
            (
                "docker://localhost:5000/a:1",
                Some(Endpoint::Registry("localhost:5000/a:1".into())),
            ),
            ("store:app:1", Some(Endpoint::Store("app:1".into()))),
            ("oci:dir", Some(layout("dir", None))),
            ("oci:/a/dir:1", Some(layout("/a/dir", Some("1")))),
            ("oci-layout:///a/dir:1", Some(layout("/a/dir", Some("1")))),
            (
                "docker-archive:/a.tar:localhost/b:1",
                Some(Endpoint::DockerArchive {
                    path: "/a.tar".into(),
                    name: Some("localhost/b:1".into()),
                }),
            ),
            ("oci:", None),
            ("store:", None),
            ("containers-storage://x", None),
            ("UPPER", None),
        ];
        for (text, expected) in table {
            assert_eq!(Endpoint::parse(text).ok(), expected, "{text}");
        }
    }
}
