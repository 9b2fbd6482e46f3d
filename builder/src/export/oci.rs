//! OCI layouts and Docker archives: a tar archive or a directory.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use rbuild_cache::{Lease, Store};
use rbuild_frontend::reference::Reference;

use super::contents::{Assembled, Blob, Contents, ImageParts};
use super::document::{Descriptor, Index};
use super::layers::BlobReader;
use super::sink::Sink;
use super::{ExportError, ExportOptions, Exported, Exporter};
use crate::blocking;
use crate::image::BuiltImage;
use crate::layout::{CONTAINERD_NAME, REF_NAME};
use crate::manifest;
use crate::options::{Output, OutputKind};
use crate::tasks::Task;

pub(super) const LAYOUT_FILE: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// What an archive or directory holds beside the blobs.
#[derive(Debug)]
struct Written {
    contents: Contents,
    /// Entries of `index.json`.
    entries: Vec<Descriptor>,
    /// `manifest.json`, for those who read Docker archives.
    docker: Option<Vec<u8>>,
}

/// One entry of a Docker archive's `manifest.json`.
#[derive(serde::Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

impl Exporter {
    pub(super) async fn export_layout(
        &self,
        images: &[BuiltImage],
        output: &Output,
        options: &ExportOptions,
        names: Vec<String>,
        lease: &Lease,
        task: &Task,
    ) -> Result<Exported, ExportError> {
        let is_docker = is_docker(output.kind);
        if is_docker && images.len() > 1 {
            return Err(ExportError::SeveralPlatforms {
                count: images.len(),
            });
        }
        let assembled = self.assemble(images, output, options, lease, task).await?;
        let exported = Exported {
            descriptor: Some(assembled.descriptor()),
            config_digest: assembled.config_digest(),
            names: names.clone(),
        };
        self.write_assembled(vec![(assembled, names)], output)
            .await?;
        Ok(exported)
    }

    /// Writes images, each with its names, into one archive or directory.
    pub(super) async fn write_assembled(
        &self,
        images: Vec<(Assembled, Vec<String>)>,
        output: &Output,
    ) -> Result<(), ExportError> {
        let written = Written::of(images, output.kind);
        let (store, output) = (self.sources.store.clone(), output.clone());
        blocking::run(move || write_layout(&store, &written, &output)).await
    }

    /// Writes an archive of this kind into a pipe, and closes it.
    pub(super) async fn write_to_pipe(
        &self,
        images: Vec<(Assembled, Vec<String>)>,
        kind: OutputKind,
        pipe: io::PipeWriter,
    ) -> Result<(), ExportError> {
        let written = Written::of(images, kind);
        let store = self.sources.store.clone();
        blocking::run(move || {
            let mut writer = BufWriter::with_capacity(1 << 20, pipe);
            let done = write_tar(&store, &written, &mut writer)
                .and_then(|()| writer.flush().map_err(TarError::Write));
            done.map_err(|error| match error {
                TarError::Blob(error) => error.into(),
                TarError::Write(source) => ExportError::Write {
                    path: "a pipe".into(),
                    source,
                },
            })
        })
        .await
    }
}

impl Written {
    fn of(images: Vec<(Assembled, Vec<String>)>, kind: OutputKind) -> Self {
        let mut written = Written {
            contents: Contents::default(),
            entries: Vec::new(),
            docker: None,
        };
        let mut docker: Vec<DockerEntry> = Vec::new();
        for (assembled, names) in images {
            written.entries.extend(entries_for(&assembled.top, &names));
            let mut names = Some(names);
            for parts in &assembled.contents.images {
                // The first platform has the names: there is no way to say more.
                let entry = docker_entry(parts, names.take().unwrap_or_default());
                match docker.iter_mut().find(|known| known.config == entry.config) {
                    Some(known) => known.repo_tags.extend(entry.repo_tags),
                    None => docker.push(entry),
                }
            }
            written.contents.add(assembled.contents);
        }
        if is_docker(kind) {
            let text =
                serde_json::to_vec(&docker).expect("lists of strings can be written as JSON");
            written.docker = Some(text);
        }
        written
    }
}

fn is_docker(kind: OutputKind) -> bool {
    matches!(kind, OutputKind::Docker | OutputKind::DockerDirectory)
}

/// What `manifest.json` says of one image. Names are as `docker save` writes them: without `docker.io/library/`.
fn docker_entry(parts: &ImageParts, names: Vec<String>) -> DockerEntry {
    let path = |descriptor: &Descriptor| format!("blobs/sha256/{}", descriptor.digest.digest());
    let familiar =
        |name: String| Reference::parse(&name).map_or(name, |reference| reference.familiar());
    DockerEntry {
        config: path(&parts.config),
        repo_tags: names.into_iter().map(familiar).collect(),
        layers: parts.layers.iter().map(path).collect(),
    }
}

/// Entries of `index.json`: one for each name, or one without.
fn entries_for(top: &Descriptor, names: &[String]) -> Vec<Descriptor> {
    if names.is_empty() {
        return vec![top.clone()];
    }
    let entry_for = |name: &String| {
        let tag = Reference::parse(name)
            .ok()
            .and_then(|reference| reference.tag);
        let mut annotations = BTreeMap::from([(CONTAINERD_NAME.to_owned(), name.clone())]);
        annotations.extend(tag.map(|tag| (REF_NAME.to_owned(), tag)));
        top.clone().with_annotations(annotations)
    };
    names.iter().map(entry_for).collect()
}

fn write_layout(store: &Store, written: &Written, output: &Output) -> Result<(), ExportError> {
    let is_directory = matches!(
        output.kind,
        OutputKind::OciDirectory | OutputKind::DockerDirectory
    );
    match &output.destination {
        Some(path) if is_directory => write_directory(store, written, path),
        None if is_directory => Err(ExportError::NoDestination),
        destination => write_archive(store, written, destination.as_deref()),
    }
}

fn write_archive(
    store: &Store,
    contents: &Written,
    destination: Option<&Path>,
) -> Result<(), ExportError> {
    let mut sink = Sink::open(destination)?;
    let mut writer = BufWriter::with_capacity(1 << 20, &mut sink);
    let written = write_tar(store, contents, &mut writer)
        .and_then(|()| writer.flush().map_err(TarError::Write));
    drop(writer);
    match written {
        Ok(()) => sink.finish(),
        Err(TarError::Write(source)) => Err(sink.failed(source)),
        Err(TarError::Blob(error)) => Err(error.into()),
    }
}

enum TarError {
    Write(io::Error),
    Blob(rbuild_cache::BlobError),
}

fn write_tar(store: &Store, written: &Written, writer: &mut dyn Write) -> Result<(), TarError> {
    let mut tar = tar::Builder::new(writer);
    for directory in ["blobs/", "blobs/sha256/"] {
        append(
            &mut tar,
            directory,
            tar::EntryType::Directory,
            0,
            &mut io::empty(),
        )?;
    }
    for (hex, blob) in &written.contents.blobs {
        let name = format!("blobs/sha256/{hex}");
        match blob {
            Blob::Bytes(bytes) => append_file(&mut tar, &name, bytes)?,
            Blob::Stored { digest, size, .. } => {
                let mut reader: BlobReader = store.open_blob(digest).map_err(TarError::Blob)?;
                append(&mut tar, &name, tar::EntryType::Regular, *size, &mut reader)?;
            }
        }
    }
    append_file(
        &mut tar,
        "index.json",
        &Index::new(written.entries.clone(), BTreeMap::new()).to_json(),
    )?;
    if let Some(docker) = &written.docker {
        append_file(&mut tar, "manifest.json", docker)?;
    }
    append_file(&mut tar, "oci-layout", LAYOUT_FILE)?;
    tar.finish().map_err(TarError::Write)
}

fn append_file<W: Write>(
    tar: &mut tar::Builder<W>,
    name: &str,
    bytes: &[u8],
) -> Result<(), TarError> {
    append(
        tar,
        name,
        tar::EntryType::Regular,
        bytes.len() as u64,
        &mut &*bytes,
    )
}

fn append<W: Write>(
    tar: &mut tar::Builder<W>,
    name: &str,
    kind: tar::EntryType,
    size: u64,
    reader: &mut dyn io::Read,
) -> Result<(), TarError> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_path(name).map_err(TarError::Write)?;
    header.set_cksum();
    // A blob that is shorter than its row says makes the reader fail, so no archive with a hole is finished.
    tar.append(&header, reader).map_err(TarError::Write)
}

fn write_directory(store: &Store, written: &Written, path: &Path) -> Result<(), ExportError> {
    let blobs = path.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(|source| ExportError::Write {
        path: blobs.clone(),
        source,
    })?;
    for (hex, blob) in &written.contents.blobs {
        let target = blobs.join(hex);
        let size = blob.size();
        if fs::symlink_metadata(&target)
            .is_ok_and(|present| present.is_file() && present.len() == size)
        {
            continue;
        }
        match blob {
            Blob::Bytes(bytes) => write_whole(&target, &mut bytes.as_slice())?,
            Blob::Stored { digest, .. } => write_whole(&target, &mut store.open_blob(digest)?)?,
        }
    }
    if let Some(docker) = &written.docker {
        write_whole(&path.join("manifest.json"), &mut docker.as_slice())?;
    }
    write_whole(&path.join("oci-layout"), &mut &*LAYOUT_FILE)?;
    let index = merged_index(&path.join("index.json"), &written.entries)?;
    write_whole(&path.join("index.json"), &mut index.to_json().as_slice())
}

fn write_whole(target: &Path, reader: &mut dyn io::Read) -> Result<(), ExportError> {
    let mut sink = Sink::open(Some(target))?;
    let mut writer = BufWriter::with_capacity(1 << 20, &mut sink);
    match io::copy(reader, &mut writer).and_then(|_| writer.flush()) {
        Ok(()) => {
            drop(writer);
            sink.finish()
        }
        Err(source) => {
            // What it holds would be written to what is given up.
            drop(writer.into_parts());
            Err(sink.failed(source))
        }
    }
}

/// The index of a layout that is there already, with our entries in place of those of the same name.
fn merged_index(path: &PathBuf, entries: &[Descriptor]) -> Result<Index, ExportError> {
    let mut index = match File::open(path) {
        Ok(file) => serde_json::from_reader(io::Read::take(file, manifest::MAX_DOCUMENT)).map_err(
            |source| ExportError::ForeignIndex {
                path: path.clone(),
                source,
            },
        )?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Index::new(Vec::new(), BTreeMap::new())
        }
        Err(source) => {
            return Err(ExportError::Write {
                path: path.clone(),
                source,
            });
        }
    };
    let name = |entry: &Descriptor| {
        let annotations = &entry.annotations;
        annotations
            .get(CONTAINERD_NAME)
            .or_else(|| annotations.get(REF_NAME))
            .cloned()
    };
    for entry in entries {
        index
            .manifests
            .retain(|present| name(present) != name(entry));
        index.manifests.push(entry.clone());
    }
    Ok(index)
}
