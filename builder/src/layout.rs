//! OCI image layouts on this machine: a directory, or the same in a tar archive.
//!
//! A layout is a stranger's: names in it are only ever looked for under `index.json` and `blobs/sha256/<hex>`, resolved
//! inside the directory, and nothing is returned before its digest was checked (documents) or without a reader that
//! checks it (layers). Everything here blocks.

mod archive;
mod directory;
mod docker;
mod images;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use oci_spec::image::{Descriptor, Digest, ImageIndex, ImageManifest};
use rbuild_frontend::platform::Platform;

use self::archive::Archive;
use self::directory::Directory;
use self::docker::DockerArchive;
pub use self::images::ArchivedImage;
use crate::manifest::{self, Document, MAX_DOCUMENT, ManifestError};

/// Annotation that names an entry of `index.json`.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// containerd's annotation for the full name.
pub const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// Indexes in indexes; real ones have two levels.
const MAX_NESTING: usize = 4;

/// An open layout.
#[derive(Debug)]
pub struct Layout {
    /// As given, for messages.
    path: PathBuf,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Directory(Directory),
    Archive(Archive),
    /// What `docker save` writes; only [`Layout::of_archive`] takes it.
    Docker(Box<DockerArchive>),
}

/// The image that a name in a layout stands for, on one platform.
#[derive(Clone, Debug)]
pub struct LayoutImage {
    /// Its manifest.
    pub manifest: ImageManifest,
    /// The manifest's bytes.
    pub manifest_bytes: Vec<u8>,
    /// The manifest's digest.
    pub manifest_digest: Digest,
    /// Its config's bytes.
    pub config_bytes: Vec<u8>,
    /// True if the platform was chosen from an index that states it; false for a lone manifest, which is taken as
    /// it is.
    pub is_chosen: bool,
}

/// Why a layout can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// The path can't be opened.
    #[error("cannot open the OCI layout `{}`", path.display())]
    Open {
        /// As given.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is something else.
    #[error(
        "{} is neither an OCI layout nor an archive of images: {reason}",
        place_of(path)
    )]
    NotALayout {
        /// As given.
        path: PathBuf,
        /// What is missing or there instead.
        reason: &'static str,
    },
    /// A file of the layout can't be read.
    #[error("cannot read `{name}` in `{}`", path.display())]
    Read {
        /// As given.
        path: PathBuf,
        /// Name below it.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A blob whose content is not what its name says.
    #[error("blob `{digest}` of the OCI layout `{}` is corrupt: its content has digest `{actual}`", path.display())]
    WrongDigest {
        /// As given.
        path: PathBuf,
        /// Its name.
        digest: Digest,
        /// What it is.
        actual: Digest,
    },
    /// A blob whose size is not what its descriptor says.
    #[error("blob `{digest}` of the OCI layout `{}` has {actual} bytes, its descriptor says {expected}", path.display())]
    WrongSize {
        /// As given.
        path: PathBuf,
        /// Its name.
        digest: Digest,
        /// By the descriptor.
        expected: u64,
        /// On disk.
        actual: u64,
    },
    /// A document that can't be used.
    #[error("`{name}` in `{}` is not usable", path.display())]
    Document {
        /// As given.
        path: PathBuf,
        /// `index.json` or a digest.
        name: String,
        /// Why.
        #[source]
        source: ManifestError,
    },
    /// No entry has the name.
    #[error("no image `{wanted}` in {}", place_of(path))]
    NoSuchImage {
        /// As given.
        path: PathBuf,
        /// Tag or digest.
        wanted: String,
        /// Tags that are there.
        tags: Vec<String>,
    },
    /// Nothing says which of them is meant.
    #[error("{} has {count} images, and none of them is named", place_of(path))]
    Unnamed {
        /// As given.
        path: PathBuf,
        /// How many there are.
        count: usize,
        /// Tags that are there.
        tags: Vec<String>,
    },
    /// No entry for the platform.
    #[error(
        "no image for {platform} in {}, which has: {available}",
        place_of(path)
    )]
    NoSuchPlatform {
        /// As given.
        path: PathBuf,
        /// Wanted.
        platform: String,
        /// What is there.
        available: String,
    },
    /// Indexes nested without end.
    #[error("indexes of the OCI layout `{}` are nested more than {MAX_NESTING} deep", path.display())]
    Nesting {
        /// As given.
        path: PathBuf,
    },
}

impl LayoutError {
    /// What the user can do about it.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::NoSuchImage { tags, .. } | Self::Unnamed { tags, .. } if !tags.is_empty() => {
                Some(format!("it has: {}", tags.join(", ")))
            }
            Self::NoSuchImage { .. } | Self::Unnamed { count: 1.., .. } => Some(
                "its images have no names; FROM and named contexts take one by its digest, `oci-layout://PATH@sha256:…`"
                    .to_owned(),
            ),
            Self::WrongDigest { .. } | Self::WrongSize { .. } => Some(
                "the layout was changed or cut short after it was written; write it again"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// A path for people.
fn place_of(path: &Path) -> String {
    if path == Path::new("-") {
        "stdin".to_owned()
    } else {
        format!("`{}`", path.display())
    }
}

impl Layout {
    /// Opens a layout directory or archive.
    pub fn open(path: &Path) -> Result<Self, LayoutError> {
        let opened = |source| LayoutError::Open {
            path: path.to_owned(),
            source,
        };
        let metadata = std::fs::metadata(path).map_err(opened)?;
        let kind = if metadata.is_dir() {
            Kind::Directory(Directory::open(path).map_err(opened)?)
        } else if metadata.is_file() {
            let file = File::open(path).map_err(opened)?;
            Kind::Archive(Archive::open(file).map_err(|error| error.into_layout_error(path))?)
        } else {
            let reason = "it is neither a directory nor a file";
            return Err(LayoutError::NotALayout {
                path: path.to_owned(),
                reason,
            });
        };
        let layout = Self {
            path: path.to_owned(),
            kind,
        };
        if layout.open_file("index.json").is_err() {
            let reason = if layout.open_file("manifest.json").is_ok() {
                "it is a Docker archive (`docker save`), which `rbuild load` takes in"
            } else {
                "it has no `index.json`"
            };
            return Err(LayoutError::NotALayout {
                path: path.to_owned(),
                reason,
            });
        }
        Ok(layout)
    }

    /// Path as given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a blob; the size is that of the file. The reader does not check the digest: the caller's writer does.
    pub fn open_blob(&self, digest: &Digest) -> Result<(Box<dyn Read + Send>, u64), LayoutError> {
        manifest::check_digest(digest)
            .map_err(|source| self.document_error(digest.as_ref(), source))?;
        let name = format!("blobs/sha256/{}", digest.digest());
        self.open_file(&name).map_err(|source| LayoutError::Read {
            path: self.path.clone(),
            name,
            source,
        })
    }

    /// Opens a layer blob and checks its size against its descriptor.
    pub fn open_layer(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, LayoutError> {
        let (reader, actual) = self.open_blob(descriptor.digest())?;
        if actual == descriptor.size() {
            return Ok(reader);
        }
        Err(LayoutError::WrongSize {
            path: self.path.clone(),
            digest: descriptor.digest().clone(),
            expected: descriptor.size(),
            actual,
        })
    }

    /// Finds an image by tag or digest and picks the platform.
    ///
    /// `latest` also finds the only entry of a layout, whatever its name: that is how layouts without tags are used.
    pub fn image(
        &self,
        tag: Option<&str>,
        digest: Option<&Digest>,
        platform: &Platform,
    ) -> Result<LayoutImage, LayoutError> {
        let mut candidates = match digest {
            Some(digest) => {
                let (bytes, document) = self.parsed(digest, None)?;
                match document {
                    Document::Manifest(manifest) => {
                        return self.finish(*manifest, bytes, digest.clone(), false);
                    }
                    Document::Index(index) => index.manifests().clone(),
                }
            }
            None => self.tagged(tag.unwrap_or("latest"))?,
        };
        let mut is_chosen = digest.is_some();
        for _ in 0..MAX_NESTING {
            let chosen = match candidates.as_slice() {
                [only] if !is_chosen => only,
                several => {
                    is_chosen = true;
                    manifest::choose(several, platform).ok_or_else(|| {
                        LayoutError::NoSuchPlatform {
                            path: self.path.clone(),
                            platform: platform.to_string(),
                            available: manifest::platforms_of(several),
                        }
                    })?
                }
            };
            let digest = chosen.digest().clone();
            let (bytes, document) = self.parsed(&digest, Some(chosen))?;
            match document {
                Document::Manifest(manifest) => {
                    return self.finish(*manifest, bytes, digest, is_chosen);
                }
                Document::Index(index) => {
                    candidates.clone_from(index.manifests());
                    is_chosen = true;
                }
            }
        }
        Err(LayoutError::Nesting {
            path: self.path.clone(),
        })
    }

    fn finish(
        &self,
        manifest: ImageManifest,
        manifest_bytes: Vec<u8>,
        manifest_digest: Digest,
        is_chosen: bool,
    ) -> Result<LayoutImage, LayoutError> {
        let config_bytes =
            self.document(manifest.config().digest(), Some(manifest.config().size()))?;
        Ok(LayoutImage {
            manifest,
            manifest_bytes,
            manifest_digest,
            config_bytes,
            is_chosen,
        })
    }

    /// Entries of `index.json`.
    fn entries(&self) -> Result<Vec<Descriptor>, LayoutError> {
        let read = |source| LayoutError::Read {
            path: self.path.clone(),
            name: "index.json".to_owned(),
            source,
        };
        let (reader, _) = self.open_file("index.json").map_err(read)?;
        let bytes = read_limited(reader).map_err(read)?;
        let index: ImageIndex = serde_json::from_slice(&bytes).map_err(|source| {
            self.document_error(
                "index.json",
                ManifestError::Malformed {
                    what: "image index",
                    source,
                },
            )
        })?;
        Ok(index.manifests().clone())
    }

    /// Entries of `index.json` with a tag.
    fn tagged(&self, tag: &str) -> Result<Vec<Descriptor>, LayoutError> {
        let entries = self.entries()?;
        let found: Vec<Descriptor> = entries
            .iter()
            .filter(|entry| has_tag(entry, tag))
            .cloned()
            .collect();
        if !found.is_empty() {
            return Ok(found);
        }
        let images: Vec<Descriptor> = manifest::images_of(&entries)
            .map(|(entry, _)| entry.clone())
            .collect();
        if tag == "latest"
            && (images.len() == 1 || images.iter().all(|entry| name_of(entry).is_none()))
            && !images.is_empty()
        {
            return Ok(images);
        }
        let tags = entries
            .iter()
            .filter_map(name_of)
            .map(str::to_owned)
            .collect();
        Err(LayoutError::NoSuchImage {
            path: self.path.clone(),
            wanted: tag.to_owned(),
            tags,
        })
    }

    fn parsed(
        &self,
        digest: &Digest,
        descriptor: Option<&Descriptor>,
    ) -> Result<(Vec<u8>, Document), LayoutError> {
        let bytes = self.document(digest, descriptor.map(Descriptor::size))?;
        let announced = descriptor.map(manifest::media_type);
        let document = manifest::parse_document(&bytes, announced.as_deref())
            .map_err(|source| self.document_error(digest.as_ref(), source))?;
        Ok((bytes, document))
    }

    /// Reads a small blob whole and checks it.
    pub(crate) fn document(
        &self,
        digest: &Digest,
        expected: Option<u64>,
    ) -> Result<Vec<u8>, LayoutError> {
        let (reader, actual) = self.open_blob(digest)?;
        if actual > MAX_DOCUMENT {
            return Err(
                self.document_error(digest.as_ref(), ManifestError::TooLarge { size: actual })
            );
        }
        if let Some(expected) = expected.filter(|expected| *expected != actual) {
            let digest = digest.clone();
            return Err(LayoutError::WrongSize {
                path: self.path.clone(),
                digest,
                expected,
                actual,
            });
        }
        let bytes = read_limited(reader).map_err(|source| LayoutError::Read {
            path: self.path.clone(),
            name: digest.to_string(),
            source,
        })?;
        let actual = manifest::digest_of(&bytes);
        if actual == *digest {
            Ok(bytes)
        } else {
            Err(LayoutError::WrongDigest {
                path: self.path.clone(),
                digest: digest.clone(),
                actual,
            })
        }
    }

    fn document_error(&self, name: &str, source: ManifestError) -> LayoutError {
        LayoutError::Document {
            path: self.path.clone(),
            name: name.to_owned(),
            source,
        }
    }

    fn open_file(&self, name: &str) -> io::Result<(Box<dyn Read + Send>, u64)> {
        match &self.kind {
            Kind::Directory(directory) => {
                let (file, size) = directory.open_file(name)?;
                Ok((Box::new(file), size))
            }
            Kind::Archive(archive) => {
                let section = archive.open_file(name)?;
                let size = section.size();
                Ok((Box::new(section), size))
            }
            Kind::Docker(docker) => {
                let section = docker.open_file(name)?;
                let size = section.size();
                Ok((Box::new(section), size))
            }
        }
    }
}

/// The name that an entry of `index.json` has.
fn name_of(entry: &Descriptor) -> Option<&str> {
    let annotations = entry.annotations().as_ref()?;
    annotations
        .get(REF_NAME)
        .or_else(|| annotations.get(CONTAINERD_NAME))
        .map(String::as_str)
}

/// Whether an entry has a tag: `ref.name` is a tag by the specification, and a full name in what some tools write.
fn has_tag(entry: &Descriptor, tag: &str) -> bool {
    name_of(entry).is_some_and(|name| {
        name == tag
            || name
                .rsplit_once(':')
                .is_some_and(|(_, last)| last == tag && !last.contains('/'))
    })
}

/// Reads a document, with an end to patience.
fn read_limited(reader: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_DOCUMENT {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "larger than any index or manifest",
        ));
    }
    Ok(bytes)
}
