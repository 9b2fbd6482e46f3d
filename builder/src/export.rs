//! Where images go: the local store, an OCI layout, a root file system.
//!
//! | output | what is written | when it counts |
//! |---|---|---|
//! | `type=image` | a tag in the store | in one transaction |
//! | `type=oci` | a layout in a tar archive | renamed into place when it is whole |
//! | `type=oci,tar=false` | a layout directory | `index.json` is written last |
//! | `type=tar` | the merged root file system as a tar | renamed into place when it is whole |
//! | `type=local` | the merged root file system as files | as it goes |
//!
//! The bytes of an OCI export depend on the image and the output's options alone: no clock, no random names, files in
//! a fixed order. Layers of the base are shipped as the blobs they came as; layers made here are packed once and found
//! again by the store. What fails leaves no finished archive.

mod annotations;
mod document;
mod error;
mod layers;
mod oci;
mod root;
mod sink;

use oci_spec::image::Digest;
use rbuild_cache::Lease;

pub use self::annotations::{AnnotationError, Annotations};
pub use self::error::ExportError;
use crate::image::BuiltImage;
use crate::images::Images;
use crate::options::{Output, OutputKind};
use crate::pull::ImageSources;

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
    /// OCI manifest or index.
    pub media_type: &'static str,
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
        let title = match output.kind {
            OutputKind::Image => {
                let store = Images::new(self.sources.store.clone());
                return store.add(images, names, lease).await;
            }
            OutputKind::Oci => "exporting to an OCI archive",
            OutputKind::OciDirectory => "exporting to an OCI layout",
            OutputKind::Local => "exporting files",
            OutputKind::Tar => "exporting a tar of the root file system",
        };
        let task = self.sources.tasks.start(title);
        let exported = match output.kind {
            OutputKind::Local | OutputKind::Tar => self.export_root(images, output, lease).await,
            _ => {
                self.export_oci(images, output, options, names, lease, &task)
                    .await
            }
        };
        task.finish(&exported, |exported| {
            exported
                .descriptor
                .as_ref()
                .map(|descriptor| descriptor.digest.to_string())
                .unwrap_or_default()
        });
        exported
    }
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
