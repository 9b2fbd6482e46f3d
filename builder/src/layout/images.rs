//! All images of an archive or layout, for those who take in whole archives: `load`, `copy`.

use std::fs::File;
use std::path::Path;

use oci_spec::image::{Descriptor, Digest};
use rbuild_frontend::platform::Platform;
use rbuild_frontend::reference::Reference;

use super::archive::Archive;
use super::docker::{self, DockerArchive, DockerError};
use super::{CONTAINERD_NAME, Kind, Layout, LayoutError, LayoutImage, REF_NAME};
use crate::manifest;

/// An image of an archive: its documents are verified, its layers not touched.
#[derive(Clone, Debug)]
pub struct ArchivedImage {
    /// The names that the archive gives it, as they stand there.
    pub names: Vec<String>,
    /// Its config.
    pub config_bytes: Vec<u8>,
    /// The config's digest: the image id.
    pub config_digest: Digest,
    /// Digest and bytes of its manifest; Docker's archives have none.
    pub manifest: Option<(Digest, Vec<u8>)>,
    /// Its layers' blobs, lowest first.
    pub layers: Vec<Descriptor>,
}

impl Layout {
    /// Reads an archive of either kind: a layout in a tar, or what `docker save` writes. One that is both counts as a
    /// layout, which knows the manifests. `path` is for messages.
    pub fn of_archive(path: &Path, file: File) -> Result<Self, LayoutError> {
        let archive = Archive::open(file).map_err(|error| error.into_layout_error(path))?;
        let is_layout = archive.open_file("index.json").is_ok();
        let has_list = archive.open_linked(docker::LIST, 1).is_ok();
        let kind = if is_layout {
            Kind::Archive(archive)
        } else if has_list {
            let docker = DockerArchive::read(archive).map_err(|error| error.told_of(path))?;
            Kind::Docker(Box::new(docker))
        } else {
            return Err(LayoutError::NotALayout {
                path: path.to_owned(),
                reason: "it has neither an `index.json` nor a `manifest.json`, so it is no archive of images",
            });
        };
        Ok(Self {
            path: path.to_owned(),
            kind,
        })
    }

    /// The entry of `index.json` with a name or tag; without one the only entry.
    pub(crate) fn entry(&self, wanted: Option<&str>) -> Result<Descriptor, LayoutError> {
        let entries = self.entries()?;
        let is_wanted = |entry: &&Descriptor| {
            wanted.is_none_or(|wanted| super::has_tag(entry, wanted) || names(entry, wanted))
        };
        let mut found: Vec<&Descriptor> = entries.iter().filter(is_wanted).collect();
        // Several names of one image are several entries.
        found.dedup_by(|one, other| one.digest() == other.digest());
        match found.as_slice() {
            [only] => Ok((*only).clone()),
            several => {
                let names = entries.iter().filter_map(super::name_of);
                Err(self.no_such(wanted, several.len(), names))
            }
        }
    }

    /// The image with a name or tag; without one the only image.
    pub(crate) fn pick(
        &self,
        wanted: Option<&str>,
        platform: &Platform,
    ) -> Result<ArchivedImage, LayoutError> {
        if let Kind::Docker(docker) = &self.kind {
            let is_wanted = |image: &&ArchivedImage| {
                wanted.is_none_or(|wanted| {
                    let mut names = image.names.iter();
                    names.any(|name| is_same_name(name, wanted))
                })
            };
            let found: Vec<&ArchivedImage> = docker.images.iter().filter(is_wanted).collect();
            if let [only] = found.as_slice() {
                return Ok((*only).clone());
            }
            let names = docker.images.iter().flat_map(|image| &image.names);
            return Err(self.no_such(wanted, found.len(), names.map(String::as_str)));
        }
        let entry = self.entry(wanted)?;
        let found = self.image(None, Some(entry.digest()), platform)?;
        Ok(archived(found, full_name_of(&entry)))
    }

    fn no_such<'a>(
        &self,
        wanted: Option<&str>,
        count: usize,
        names: impl Iterator<Item = &'a str>,
    ) -> LayoutError {
        let (path, tags) = (self.path.clone(), names.map(str::to_owned).collect());
        match wanted {
            Some(wanted) => LayoutError::NoSuchImage {
                path,
                wanted: wanted.to_owned(),
                tags,
            },
            None => LayoutError::Unnamed { path, count, tags },
        }
    }

    /// All images, those of several platforms for `platform` only.
    pub fn images(&self, platform: &Platform) -> Result<Vec<ArchivedImage>, LayoutError> {
        if let Kind::Docker(docker) = &self.kind {
            return Ok(docker.images.clone());
        }
        let entries = self.entries()?;
        let mut images: Vec<ArchivedImage> = Vec::new();
        for (entry, stated) in manifest::images_of(&entries) {
            if stated.is_some_and(|stated| !platform.accepts(&stated)) {
                continue;
            }
            let found = self.image(None, Some(entry.digest()), platform)?;
            let name = full_name_of(entry);
            match images
                .iter_mut()
                .find(|known| known.config_digest == *found.manifest.config().digest())
            {
                Some(known) => known.names.extend(name),
                None => images.push(archived(found, name)),
            }
        }
        if images.is_empty() {
            return Err(LayoutError::NoSuchPlatform {
                path: self.path.clone(),
                platform: platform.to_string(),
                available: manifest::platforms_of(&entries),
            });
        }
        Ok(images)
    }
}

fn archived(found: LayoutImage, name: Option<String>) -> ArchivedImage {
    ArchivedImage {
        names: name.into_iter().collect(),
        config_digest: found.manifest.config().digest().clone(),
        config_bytes: found.config_bytes,
        layers: found.manifest.layers().clone(),
        manifest: Some((found.manifest_digest, found.manifest_bytes)),
    }
}

/// Whether an entry has this full name.
fn names(entry: &Descriptor, wanted: &str) -> bool {
    full_name_of(entry).is_some_and(|name| is_same_name(&name, wanted))
}

fn is_same_name(one: &str, other: &str) -> bool {
    let full = |text: &str| Reference::parse(text).ok().map(Reference::with_default_tag);
    one == other || full(one).is_some_and(|one| full(other) == Some(one))
}

/// The full name that an entry has. A bare tag, which is what the specification has in mind, names no repository.
fn full_name_of(entry: &Descriptor) -> Option<String> {
    let annotations = entry.annotations().as_ref()?;
    let tag_is_name = |name: &&String| name.contains(['/', ':']);
    let name = annotations
        .get(CONTAINERD_NAME)
        .or_else(|| annotations.get(REF_NAME).filter(tag_is_name))?;
    Reference::parse(name).ok().map(|_| name.clone())
}

impl DockerError {
    fn told_of(self, path: &Path) -> LayoutError {
        let path = path.to_owned();
        match self {
            Self::Read { name, source } => LayoutError::Read { path, name, source },
            Self::Document { name, source } => LayoutError::Document { path, name, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};

    use super::*;

    const CONFIG: &str = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:1111111111111111111111111111111111111111111111111111111111111111"]}}"#;

    /// A tar with files and links (`name -> target`).
    fn archive(members: &[(&str, &str)]) -> Result<Layout, LayoutError> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, content) in members {
            let mut header = tar::Header::new_ustar();
            header.set_mode(0o644);
            if let Some((name, target)) = name.split_once(" -> ") {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                tar.append_link(&mut header, name, target).expect("a link");
            } else {
                header.set_size(content.len() as u64);
                tar.append_data(&mut header, name, content.as_bytes())
                    .expect("a file");
            }
        }
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&tar.into_inner().expect("a tar"))
            .expect("written");
        file.rewind().expect("rewound");
        Layout::of_archive(Path::new("a.tar"), file)
    }

    fn list(layers: &str) -> String {
        format!(r#"[{{"Config":"c.json","RepoTags":["a:1","a:2"],"Layers":[{layers}]}}]"#)
    }

    #[test]
    fn a_docker_archive_is_read_with_its_links() {
        let list = list(r#""one/layer.tar""#);
        let layout = archive(&[
            ("manifest.json", &list),
            ("c.json", CONFIG),
            ("one/layer.tar -> ../two/layer.tar", ""),
            ("two/layer.tar", "not a tar, but nobody looks yet"),
        ])
        .expect("an archive");
        let images = layout
            .images(&Platform::new("linux", "amd64", ""))
            .expect("images");
        assert_eq!(images.len(), 1);
        assert_eq!(images[0].names, ["a:1", "a:2"]);
        assert_eq!(images[0].layers[0].digest().digest(), "1".repeat(64));
        let (_, size) = layout
            .open_blob(images[0].layers[0].digest())
            .expect("found through the link");
        assert_eq!(size, 31);
    }

    #[test]
    fn what_is_wrong_with_an_archive_is_told() {
        type Members<'a> = &'a [(&'a str, &'a str)];
        let one = list(r#""l.tar""#);
        let absolute = list(r#""/etc/passwd""#);
        let up = list(r#""../../etc/passwd""#);
        let huge = "x".repeat(5 << 20);
        let table: [(&str, Members<'_>, &str); 10] = [
            ("nothing", &[("x", "y")], "no archive of images"),
            (
                "no config",
                &[("manifest.json", &one)],
                "cannot read `c.json`",
            ),
            (
                "no layer",
                &[("manifest.json", &one), ("c.json", CONFIG)],
                "cannot read `l.tar`",
            ),
            ("no JSON", &[("manifest.json", "[{")], "is not usable"),
            (
                "config is no JSON",
                &[("manifest.json", &one), ("c.json", "no")],
                "`c.json` in `a.tar` is not usable",
            ),
            (
                "absolute",
                &[("manifest.json", &absolute), ("c.json", CONFIG)],
                "cannot read `/etc/passwd`",
            ),
            (
                "upwards",
                &[("manifest.json", &up), ("c.json", CONFIG)],
                "cannot read `../../etc/passwd`",
            ),
            (
                "a link that leads out",
                &[
                    ("manifest.json", &one),
                    ("c.json", CONFIG),
                    ("l.tar -> ../../etc/passwd", ""),
                ],
                "cannot read `l.tar`",
            ),
            (
                "links in a ring",
                &[
                    ("manifest.json", &one),
                    ("c.json", CONFIG),
                    ("l.tar -> m.tar", ""),
                    ("m.tar -> l.tar", ""),
                ],
                "cannot read `l.tar`",
            ),
            (
                "a huge config",
                &[("manifest.json", &one), ("c.json", &huge)],
                "cannot read `c.json`",
            ),
        ];
        for (name, members, expected) in table {
            let error = archive(members).expect_err(name);
            assert!(error.to_string().contains(expected), "{name}: {error}");
        }
    }
}
