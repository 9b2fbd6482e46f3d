//! Where images go: the local store, an OCI layout, a root file system.
//!
//! | output | what is written | when it counts |
//! |---|---|---|
//! | `type=image` | a tag in the store | in one transaction |
//! | `type=image,push=true` | the same, and the registries of its names | tag by tag, after all that they name |
//! | `type=docker` | what `docker save` writes, with a layout's files | renamed into place when it is whole |
//! | `type=oci` | a layout in a tar archive | renamed into place when it is whole |
//! | `type=oci,tar=false` | a layout directory | `index.json` is written last |
//! | `--load`, `type=docker` without `dest` | an image of podman, docker or containerd | when the engine says so |
//! | `type=tar` | the merged root file system as a tar | renamed into place when it is whole |
//! | `type=local` | the merged root file system as files | as it goes |
//!
//! The bytes of an OCI export depend on the image and the output's options alone: no clock, no random names, files in
//! a fixed order. Layers of the base are shipped as the blobs they came as; layers made here are packed once and found
//! again by the store. What fails leaves no finished archive.

mod annotations;
mod contents;
mod copy;
mod document;
mod engine;
mod error;
mod layers;
mod oci;
mod push;
mod root;
mod sink;

use std::sync::Arc;

use oci_spec::image::Digest;
use rbuild_cache::Lease;
use rbuild_frontend::reference::Reference;

pub use self::annotations::{AnnotationError, Annotations};
pub use self::engine::EngineError;
pub use self::error::ExportError;
pub use self::push::PushCounts;
use crate::image::BuiltImage;
use crate::images::Images;
use crate::options::{LocalEngine, Output, OutputKind};
use crate::pull::ImageSources;
use crate::tasks::Task;

/// Writes images out. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Exporter {
    /// Store, spawner, events, and the way back to blobs that were never kept.
    pub sources: ImageSources,
}

/// What an export needs to know beside the image and the output.
#[derive(Clone, Debug, Default)]
pub struct ExportOptions {
    /// `-t`: names of the image, as typed, beside those of the output.
    pub tags: Vec<String>,
    /// `--annotation`, beside those of the output.
    pub annotations: Vec<(String, String)>,
    /// `SOURCE_DATE_EPOCH`, for `rewrite-timestamp`.
    pub source_date_epoch: Option<i64>,
    /// An index even over a single image.
    pub has_index: bool,
}

/// What was written.
#[derive(Clone, Debug, Default)]
pub struct Exported {
    /// Digest, size and media type of the manifest, or of the index over several; none where nothing was packed.
    pub descriptor: Option<ExportedDescriptor>,
    /// Digest of the config that was shipped: differs from the image's own when its times were rewritten.
    pub config_digest: Option<Digest>,
    /// Full names that the image got.
    pub names: Vec<String>,
}

/// What an index would say of the export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportedDescriptor {
    /// Manifest or index, OCI's or Docker's.
    pub media_type: String,
    /// Digest.
    pub digest: Digest,
    /// Size in bytes.
    pub size: u64,
}

impl Exporter {
    /// Writes the images of one build, one for each platform, to one output.
    pub async fn export(
        &self,
        images: &[BuiltImage],
        output: &Output,
        options: &ExportOptions,
        lease: &Lease,
    ) -> Result<Exported, ExportError> {
        let names = full_names(output, options)?;
        let mut output = output.clone();
        let title = match output.kind {
            OutputKind::Image => {
                let store = Images::new(self.sources.store.clone());
                let kept = store.add(images, names.clone(), &[], lease).await?;
                return if output.pushes {
                    self.push_built(images, &output, options, names, lease)
                        .await
                } else {
                    Ok(kept)
                };
            }
            OutputKind::Oci => "exporting to an OCI archive",
            OutputKind::OciDirectory => "exporting to an OCI layout",
            OutputKind::Docker => "exporting to a Docker archive",
            OutputKind::DockerDirectory => "exporting to a directory for Docker",
            OutputKind::Local => "exporting files",
            OutputKind::Tar => "exporting a tar of the root file system",
            OutputKind::Engine => {
                let engine = output.engine.or_else(LocalEngine::find);
                output.engine = Some(engine.ok_or(ExportError::NoEngine)?);
                output.engine.map_or("", LocalEngine::title)
            }
        };
        let output = &output;
        let task = self.sources.tasks.start(title);
        let exported = match output.kind {
            OutputKind::Local | OutputKind::Tar => self.export_root(images, output, lease).await,
            OutputKind::Engine => {
                self.hand_over(images, output, options, names, lease, &task)
                    .await
            }
            _ => {
                self.export_layout(images, output, options, names, lease, &task)
                    .await
            }
        };
        task.finish(&exported, digest_of);
        exported
    }

    /// Pushes an image of the store under names, with the manifest it has if there is one.
    pub(crate) async fn push_stored(
        &self,
        image: &BuiltImage,
        manifest_digest: Option<&Digest>,
        output: &Output,
        names: Vec<String>,
        lease: &Lease,
    ) -> Result<(Exported, PushCounts), ExportError> {
        let task = Arc::new(self.sources.tasks.start(push_title(&names)));
        let pushed = async {
            let assembled = self
                .assemble_image(image, manifest_digest, output, lease, &task)
                .await?;
            let counts = self.push(&assembled, &names, &task).await?;
            let exported = Exported {
                descriptor: Some(assembled.descriptor()),
                config_digest: assembled.config_digest(),
                names,
            };
            Ok((exported, counts))
        };
        let pushed = pushed.await;
        finish(task, &pushed, |(exported, _)| digest_of(exported));
        pushed
    }

    /// Writes images of the store, each with its manifest's digest and names, into one archive or directory.
    pub(crate) async fn save_stored(
        &self,
        images: Vec<(BuiltImage, Option<Digest>, Vec<String>)>,
        output: &Output,
        lease: &Lease,
    ) -> Result<(), ExportError> {
        let title = match images.len() {
            1 => "saving an image".to_owned(),
            count => format!("saving {count} images"),
        };
        let task = self.sources.tasks.start(title);
        let saved = async {
            let mut assembled = Vec::with_capacity(images.len());
            for (image, manifest_digest, names) in images {
                let found = self
                    .assemble_image(&image, manifest_digest.as_ref(), output, lease, &task)
                    .await?;
                assembled.push((found, names));
            }
            self.write_assembled(assembled, output).await
        };
        let saved = saved.await;
        task.finish(&saved, |()| String::new());
        saved
    }

    /// Copies an image of the store to a registry or into an archive or layout.
    pub(crate) async fn copy_stored(
        &self,
        image: &BuiltImage,
        manifest_digest: Option<&Digest>,
        output: &Output,
        names: Vec<String>,
        lease: &Lease,
    ) -> Result<Exported, ExportError> {
        let task = Arc::new(self.sources.tasks.start("copying an image"));
        let copied = async {
            let assembled = self
                .assemble_image(image, manifest_digest, output, lease, &task)
                .await?;
            self.deliver(assembled, output, names, lease, &task).await
        };
        let copied = copied.await;
        finish(task, &copied, digest_of);
        copied
    }

    /// What is shipped of an image of the store; its manifest is noted there.
    async fn assemble_image(
        &self,
        image: &BuiltImage,
        manifest_digest: Option<&Digest>,
        output: &Output,
        lease: &Lease,
        task: &Task,
    ) -> Result<contents::Assembled, ExportError> {
        let is_plain = *output
            == Output {
                destination: output.destination.clone(),
                ..Output::of_kind(output.kind)
            };
        if is_plain
            && let Some(digest) = manifest_digest
            && let Some(known) = self.assemble_stored(image, digest, lease, task).await?
        {
            // Also where the manifest is known: its config may lie there under another lease's eyes only.
            self.keep_documents(&known.contents, lease).await?;
            return Ok(known);
        }
        let options = ExportOptions::default();
        let made = self
            .assemble(std::slice::from_ref(image), output, &options, lease, task)
            .await?;
        let manifests = self.keep_documents(&made.contents, lease).await?;
        let store = Images::new(self.sources.store.clone());
        let image = std::slice::from_ref(image);
        store.add(image, Vec::new(), &manifests, lease).await?;
        Ok(made)
    }

    /// Packs images, notes their manifests in the store, and pushes them.
    async fn push_built(
        &self,
        images: &[BuiltImage],
        output: &Output,
        options: &ExportOptions,
        names: Vec<String>,
        lease: &Lease,
    ) -> Result<Exported, ExportError> {
        if names.is_empty() {
            return Err(ExportError::NoName);
        }
        let task = Arc::new(self.sources.tasks.start(push_title(&names)));
        let pushed = async {
            let assembled = self.assemble(images, output, options, lease, &task).await?;
            let manifests = self.keep_documents(&assembled.contents, lease).await?;
            let store = Images::new(self.sources.store.clone());
            store.add(images, names.clone(), &manifests, lease).await?;
            self.push(&assembled, &names, &task).await?;
            Ok(Exported {
                descriptor: Some(assembled.descriptor()),
                config_digest: assembled.config_digest(),
                names: names.clone(),
            })
        };
        let pushed = pushed.await;
        finish(task, &pushed, digest_of);
        pushed
    }
}

/// `pushing app:1 and 2 more`
fn push_title(names: &[String]) -> String {
    let familiar = |name: &String| {
        Reference::parse(name).map_or_else(|_| name.clone(), |reference| reference.familiar())
    };
    match names {
        [] => "pushing".to_owned(),
        [only] => format!("pushing {}", familiar(only)),
        [first, rest @ ..] => format!("pushing {} and {} more", familiar(first), rest.len()),
    }
}

/// Ends a task that transfers shared; all of them are over.
fn finish<T, E: std::error::Error>(
    task: Arc<Task>,
    result: &Result<T, E>,
    summary: impl FnOnce(&T) -> String,
) {
    if let Some(task) = Arc::into_inner(task) {
        task.finish(result, summary);
    }
}

fn digest_of(exported: &Exported) -> String {
    exported
        .descriptor
        .as_ref()
        .map(|descriptor| descriptor.digest.to_string())
        .unwrap_or_default()
}

/// All names that the image is to have, full and each once.
fn full_names(output: &Output, options: &ExportOptions) -> Result<Vec<String>, ExportError> {
    let mut names = Vec::new();
    for text in options.tags.iter().chain(&output.names) {
        let name = crate::images::full_name(text)?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}
