//! What media types say.

use oci_spec::image::Descriptor;

use super::media;

/// The OCI media type that stands for a layer's media type (Docker's names are translated).
pub fn oci_layer_type(media_type: &str) -> &'static str {
    match media_type {
        media::OCI_LAYER | media::DOCKER_LAYER => media::OCI_LAYER,
        media::OCI_LAYER_ZSTD | media::DOCKER_LAYER_ZSTD => media::OCI_LAYER_ZSTD,
        _ => media::OCI_LAYER_GZIP,
    }
}

/// Media type of a descriptor as a string.
pub fn media_type(descriptor: &Descriptor) -> String {
    descriptor.media_type().to_string()
}

/// True for both kinds of index.
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, media::OCI_INDEX | media::DOCKER_INDEX)
}

/// True for both kinds of manifest.
pub fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, media::OCI_MANIFEST | media::DOCKER_MANIFEST)
}

/// A media type without parameters.
pub(super) fn essence(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

/// Types that plain file servers give to any JSON or any file: they say nothing.
pub(super) fn is_generic(media_type: &str) -> bool {
    matches!(
        media_type,
        "" | "application/json" | "text/plain" | "application/octet-stream"
    )
}
