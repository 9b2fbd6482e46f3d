//! OCI layouts: a tar archive or a directory.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use oci_spec::image::Digest;
use rbuild_cache::{Lease, Store};
use rbuild_frontend::reference::Reference;

use super::annotations::{Annotations, Place};
use super::document::{Descriptor, Index, manifest_json};
use super::layers::{BlobReader, Packing};
use super::sink::Sink;
use super::{ExportError, ExportOptions, Exported, ExportedDescriptor, Exporter};
use crate::blocking;
use crate::image::BuiltImage;
use crate::layout::{CONTAINERD_NAME, REF_NAME};
use crate::manifest::{self, media};
use crate::options::{Output, OutputKind};
use crate::tasks::Task;

const LAYOUT_FILE: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// Everything that a layout holds.
#[derive(Debug, Default)]
struct Contents {
    /// Blobs by hex digest, which is also their order.
    blobs: BTreeMap<String, Blob>,
    /// Entries of `index.json`.
    entries: Vec<Descriptor>,
}

#[derive(Debug)]
enum Blob {
    /// A document that was made for the export.
    Bytes(Vec<u8>),
    /// A layer in the store.
    Stored { digest: Digest, size: u64 },
}

impl Contents {
    fn add_document(&mut self, media_type: &str, bytes: Vec<u8>) -> Descriptor {
        let descriptor = Descriptor::of(media_type, &bytes);
        self.blobs
            .insert(descriptor.digest.digest().to_owned(), Blob::Bytes(bytes));
        descriptor
    }

    fn add_layer(&mut self, descriptor: &Descriptor) {
        let (digest, size) = (descriptor.digest.clone(), descriptor.size);
        self.blobs
            .insert(digest.digest().to_owned(), Blob::Stored { digest, size });
    }
}

impl Exporter {
    pub(super) async fn export_oci(
        &self,
        images: &[BuiltImage],
        output: &Output,
        options: &ExportOptions,
        names: Vec<String>,
        lease: &Lease,
        task: &Task,
    ) -> Result<Exported, ExportError> {
        if output.rewrites_timestamps && options.source_date_epoch.is_none() {
            self.sources
                .tasks
                .notice("rewrite-timestamp has no effect without SOURCE_DATE_EPOCH");
        }
        let epoch = options
            .source_date_epoch
            .filter(|_| output.rewrites_timestamps);
        let annotations =
            Annotations::parse(options.annotations.iter().chain(&output.annotations))?;
        let packing = Packing::of(output, epoch);
        let mut contents = Contents::default();
        let mut manifests = Vec::with_capacity(images.len());
        let mut config_digest = None;
        for image in images {
            let layers = self.ship_layers(image, packing, lease, task).await?;
            let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id.clone()).collect();
            let config = if diff_ids == image.chain.diff_ids() {
                image.config_bytes.clone()
            } else {
                image.with_diff_ids(&diff_ids).config_bytes
            };
            let layers: Vec<Descriptor> =
                layers.into_iter().map(|layer| layer.descriptor).collect();
            for layer in &layers {
                contents.add_layer(layer);
            }
            let config = contents.add_document(media::OCI_CONFIG, config);
            let on_manifest = annotations.on(Place::Manifest, Some(&image.platform));
            let bytes = manifest_json(&config, &layers, &on_manifest);
            let on_descriptor = annotations.on(Place::ManifestDescriptor, Some(&image.platform));
            let descriptor = contents
                .add_document(media::OCI_MANIFEST, bytes)
                .for_platform(&image.platform)
                .with_annotations(on_descriptor);
            config_digest.get_or_insert(config.digest);
            manifests.push(descriptor);
        }
        let (top, media_type) = match <[Descriptor; 1]>::try_from(manifests) {
            Ok([only]) if !(annotations.need_index() || options.has_index) => {
                (only, media::OCI_MANIFEST)
            }
            manifests => {
                let manifests = manifests.map_or_else(|several| several, Vec::from);
                let bytes = Index::new(manifests, annotations.on(Place::Index, None)).to_json();
                let index = contents.add_document(media::OCI_INDEX, bytes);
                (
                    index.with_annotations(annotations.on(Place::IndexDescriptor, None)),
                    media::OCI_INDEX,
                )
            }
        };
        let descriptor = ExportedDescriptor {
            media_type,
            digest: top.digest.clone(),
            size: top.size,
        };
        contents.entries = entries_for(&top, &names);
        let (store, output) = (self.sources.store.clone(), output.clone());
        blocking::run(move || write_layout(&store, &contents, &output)).await?;
        Ok(Exported {
            descriptor: Some(descriptor),
            config_digest,
            names,
        })
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

fn write_layout(store: &Store, contents: &Contents, output: &Output) -> Result<(), ExportError> {
    match (output.kind, &output.destination) {
        (OutputKind::OciDirectory, Some(path)) => write_directory(store, contents, path),
        (OutputKind::OciDirectory, None) => Err(ExportError::NoDestination),
        (_, destination) => write_archive(store, contents, destination.as_deref()),
    }
}

fn write_archive(
    store: &Store,
    contents: &Contents,
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

fn write_tar(store: &Store, contents: &Contents, writer: &mut dyn Write) -> Result<(), TarError> {
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
    for (hex, blob) in &contents.blobs {
        let name = format!("blobs/sha256/{hex}");
        match blob {
            Blob::Bytes(bytes) => append_file(&mut tar, &name, bytes)?,
            Blob::Stored { digest, size } => {
                let mut reader: BlobReader = store.open_blob(digest).map_err(TarError::Blob)?;
                append(&mut tar, &name, tar::EntryType::Regular, *size, &mut reader)?;
            }
        }
    }
    append_file(
        &mut tar,
        "index.json",
        &Index::new(contents.entries.clone(), BTreeMap::new()).to_json(),
    )?;
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

fn write_directory(store: &Store, contents: &Contents, path: &Path) -> Result<(), ExportError> {
    let blobs = path.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(|source| ExportError::Write {
        path: blobs.clone(),
        source,
    })?;
    for (hex, blob) in &contents.blobs {
        let target = blobs.join(hex);
        let size = match blob {
            Blob::Bytes(bytes) => bytes.len() as u64,
            Blob::Stored { size, .. } => *size,
        };
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
    write_whole(&path.join("oci-layout"), &mut &*LAYOUT_FILE)?;
    let index = merged_index(&path.join("index.json"), &contents.entries)?;
    write_whole(&path.join("index.json"), &mut index.to_json().as_slice())
}

fn write_whole(target: &Path, reader: &mut dyn io::Read) -> Result<(), ExportError> {
    let mut sink = Sink::open(Some(target))?;
    match io::copy(reader, &mut sink) {
        Ok(_) => sink.finish(),
        Err(source) => Err(sink.failed(source)),
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
