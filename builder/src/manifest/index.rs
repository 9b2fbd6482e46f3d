//! Entries of an index: images and their platforms.

use oci_spec::image::Descriptor;
use rbuild_frontend::platform::Platform;

use super::{is_index, is_manifest, media_type};

/// True for a manifest that says something about another one (provenance, SBOM) and is no image.
pub fn is_attestation(descriptor: &Descriptor) -> bool {
    let is_reference = descriptor
        .annotations()
        .as_ref()
        .is_some_and(|map| map.contains_key("vnd.docker.reference.type"));
    let is_unknown = descriptor.platform().as_ref().is_some_and(|platform| {
        platform.os().to_string() == "unknown" && platform.architecture().to_string() == "unknown"
    });
    is_reference || is_unknown
}

/// The images among the entries of an index, with the platform that each states. Attestations and descriptors of
/// unknown kinds are left out.
pub fn images_of(entries: &[Descriptor]) -> impl Iterator<Item = (&Descriptor, Option<Platform>)> {
    entries
        .iter()
        .filter(|descriptor| !is_attestation(descriptor))
        .filter_map(|descriptor| {
            let media_type = media_type(descriptor);
            (is_index(&media_type) || is_manifest(&media_type))
                .then(|| (descriptor, platform_of(descriptor)))
        })
}

/// The platform that a descriptor states.
pub fn platform_of(descriptor: &Descriptor) -> Option<Platform> {
    let stated = descriptor.platform().as_ref()?;
    let platform = Platform::new(
        &stated.os().to_string(),
        &stated.architecture().to_string(),
        stated.variant().as_deref().unwrap_or_default(),
    );
    Some(platform.with_os_version(stated.os_version().as_deref().unwrap_or_default()))
}

/// Picks the entry of an index that suits `wanted` best. Nested indexes and entries without a platform are taken when
/// no entry suits by its platform.
pub fn choose<'a>(entries: &'a [Descriptor], wanted: &Platform) -> Option<&'a Descriptor> {
    let (mut stated, mut unstated) = (Vec::new(), Vec::new());
    for (descriptor, platform) in images_of(entries) {
        match platform {
            Some(platform) => stated.push((descriptor, platform)),
            None => unstated.push(descriptor),
        }
    }
    match wanted.choose(stated.iter().map(|(_, platform)| platform)) {
        Some(position) => Some(stated[position].0),
        None => unstated.first().copied(),
    }
}

/// The platforms that an index has, for a message.
pub fn platforms_of(entries: &[Descriptor]) -> String {
    let names: Vec<String> = images_of(entries)
        .filter_map(|(_, platform)| platform)
        .map(|platform| platform.to_string())
        .collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}
