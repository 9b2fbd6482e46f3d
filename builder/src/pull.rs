//! Where images come from: the local store, OCI layouts, registries.
//!
//! ```text
//! resolve()  name ─▶ manifest, config, platform      documents only; from the store when it remembers the name
//! chain()    layers ─▶ snapshots                      blobs only for layers that the store has no snapshot of
//! original() layer ─▶ its blob                        for exports: fetched again when it was never kept
//! ```
//!
//! `resolve` never touches a layer: a build whose steps all hit needs nothing else. What it fetched stays in the
//! store under the name and platform, so the next build needs no network (but with `--pull`).

mod blobs;
mod cached;
mod error;
mod layers;
mod whole;

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use oci_spec::image::{Descriptor, Digest, ImageManifest};
use rbuild_cache::{Chain, Lease, Resolution, Store};
use rbuild_frontend::graph::ImageReference;
use rbuild_frontend::image_config::ImageConfig;
use rbuild_frontend::platform::Platform;
use rbuild_frontend::reference::Reference;
use rbuild_runner::Spawner;

pub(crate) use self::blobs::keep_document;
use self::cached::CacheOrigin;
pub use self::error::PullError;
pub(crate) use self::whole::WholeSource;
use crate::blocking;
use crate::layout::{ArchivedImage, Layout};
use crate::manifest::{self, Document, MAX_DOCUMENT, media};
use crate::options::PullPolicy;
use crate::registry::RegistryClient;
use crate::tasks::Tasks;

/// Indexes in indexes that are followed.
const MAX_NESTING: usize = 4;

/// Finds images and makes their layers present. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ImageSources {
    /// Where everything ends up.
    pub store: Store,
    /// Does the unpacking.
    pub spawner: Spawner,
    /// Speaks to registries.
    pub client: RegistryClient,
    /// Hears of pulls.
    pub tasks: Tasks,
}

/// An image that was found, its layers not necessarily.
#[derive(Clone, Debug)]
pub struct ResolvedBase {
    /// The name as people write it, for messages.
    pub name: String,
    /// Its config.
    pub config: ImageConfig,
    /// The config's digest: the image id.
    pub config_digest: Digest,
    /// Digest of its manifest; none for an image built here and never packed.
    pub manifest_digest: Option<Digest>,
    /// The platform that the config names. Not the wanted one when a lone manifest for another was taken.
    pub platform: Platform,
    layers: BaseLayers,
}

/// Where a base's layers are.
#[derive(Clone, Debug)]
enum BaseLayers {
    /// In the store: built or pulled before.
    Present(Chain),
    /// To be had as blobs, in the order of the config's `diff_ids`.
    Blobs {
        descriptors: Vec<Descriptor>,
        origin: Origin,
    },
}

/// Where blobs are fetched from.
#[derive(Clone, Debug)]
enum Origin {
    Registry(Reference),
    Layout(Arc<Layout>),
    /// A layout or archive that is read once and not remembered: what it has is kept in the store.
    Archive(Arc<Layout>),
    Cache(CacheOrigin),
}

impl Origin {
    /// What is done with it, for people.
    fn verb(&self) -> &'static str {
        match self {
            Self::Registry(_) => "pulling",
            Self::Layout(_) | Self::Archive(_) => "reading",
            Self::Cache(_) => "fetching",
        }
    }

    /// The form in which the store remembers it, see [`OriginalBlob::locations`](rbuild_cache::OriginalBlob).
    fn location(&self) -> String {
        match self {
            Self::Registry(reference) => reference.name(),
            Self::Archive(layout) => format!("`{}`", layout.path().display()),
            Self::Layout(layout) => {
                let path =
                    std::path::absolute(layout.path()).unwrap_or_else(|_| layout.path().to_owned());
                format!("{LAYOUT_SCHEME}{}", path.display())
            }
            Self::Cache(cache) => format!("the cache {}", cache.backend.title()),
        }
    }
}

/// Marks a location that is a layout and not a repository.
const LAYOUT_SCHEME: &str = "oci-layout://";

impl ImageSources {
    /// Finds an image: its config and what its layers are.
    ///
    /// A name is looked up among the images of the store first, then among the names that were resolved before, then
    /// in its registry. `Always` and `Newest` ask the registry, unless the name has a digest that the store knows.
    pub async fn resolve(
        &self,
        reference: &ImageReference,
        platform: &Platform,
        policy: PullPolicy,
        lease: &Lease,
    ) -> Result<ResolvedBase, PullError> {
        match reference {
            ImageReference::Name(name) => {
                let reference = Reference::parse(name)
                    .map_err(|source| PullError::Name {
                        name: name.clone(),
                        source,
                    })?
                    .with_default_tag();
                self.resolve_name(name, &reference, platform, policy, lease)
                    .await
            }
            ImageReference::Layout { path, tag, digest } => {
                let (path, tag, digest) = (path.clone(), tag.clone(), digest.clone());
                let platform = platform.clone();
                blocking::run(move || {
                    resolve_layout(&path, tag.as_deref(), digest.as_deref(), &platform)
                })
                .await
            }
        }
    }

    /// An image of an archive that is taken into the store: its documents are kept there.
    pub(crate) async fn archived(
        &self,
        archive: &Arc<Layout>,
        image: &ArchivedImage,
        lease: &Lease,
    ) -> Result<ResolvedBase, PullError> {
        let parts = Parts {
            config_digest: image.config_digest.clone(),
            manifest_digest: image.manifest.as_ref().map(|(digest, _)| digest.clone()),
            descriptors: image.layers.clone(),
        };
        let name = match image.names.first() {
            Some(name) => name.clone(),
            None => image.config_digest.to_string(),
        };
        let origin = Origin::Archive(Arc::clone(archive));
        let base = parts.into_base(name, &image.config_bytes, origin)?;
        let (lease, image) = (lease.clone(), image.clone());
        blocking::run(move || {
            let manifest = image.manifest.as_ref().map(|(_, bytes)| bytes);
            for document in std::iter::once(&image.config_bytes).chain(manifest) {
                blobs::keep_document(&lease, document)?;
            }
            Ok::<_, PullError>(())
        })
        .await?;
        Ok(base)
    }

    async fn resolve_name(
        &self,
        typed: &str,
        reference: &Reference,
        platform: &Platform,
        policy: PullPolicy,
        lease: &Lease,
    ) -> Result<ResolvedBase, PullError> {
        let asks_anyway = matches!(policy, PullPolicy::Always | PullPolicy::Newest);
        if !asks_anyway && let Some(base) = self.stored_image(reference, platform).await? {
            return Ok(base);
        }
        // A short name that the machine's configuration gives a full one leads there, but an image of the store goes first.
        let (settings, text) = (self.client.settings().clone(), typed.to_owned());
        let alias = blocking::run(move || settings.alias(&text)).await?;
        let alias = alias.map(|(reference, _)| reference.with_default_tag());
        let reference = alias.as_ref().unwrap_or(reference);
        // A digest names the same content for ever: asking the registry again could tell nothing new.
        if (!asks_anyway || reference.digest.is_some())
            && let Some(base) = self.remembered(reference, platform, lease).await?
        {
            return Ok(base);
        }
        if policy == PullPolicy::Never {
            return Err(PullError::NotHere {
                reference: reference.to_string(),
            });
        }
        let task = self
            .tasks
            .start(format!("resolving {}", reference.familiar()));
        let found = self.ask_registry(reference, platform, lease).await;
        // It has nothing against the request: what is here serves until it answers again.
        let found = match found {
            Err(error) if policy == PullPolicy::Always && error.is_rate_limit() => {
                match self.already_here(reference, platform, lease).await? {
                    Some(base) => {
                        self.tasks.notice(going_on_without(reference, &base));
                        Ok(base)
                    }
                    None => Err(error),
                }
            }
            other => other,
        };
        task.finish(&found, |base| {
            base.manifest_digest
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default()
        });
        found
    }

    /// An image that was built or tagged here under this name, if it is for the platform.
    async fn stored_image(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Option<ResolvedBase>, PullError> {
        let (store, reference, platform) =
            (self.store.clone(), reference.clone(), platform.clone());
        blocking::run(move || {
            let Some(record) = store.image(&reference.to_string())? else {
                return Ok(None);
            };
            let bytes = store.read_blob(&record.config_digest, MAX_DOCUMENT)?;
            let config = parse_config(&bytes, &reference.familiar())?;
            if !platform.accepts(&config.platform()) {
                return Ok(None);
            }
            Ok(Some(ResolvedBase {
                name: reference.familiar(),
                platform: config.platform(),
                config,
                config_digest: record.config_digest,
                manifest_digest: record.manifest_digest,
                layers: BaseLayers::Present(record.chain),
            }))
        })
        .await
    }

    /// A name that was resolved before, if its documents are still in the store.
    async fn remembered(
        &self,
        reference: &Reference,
        platform: &Platform,
        lease: &Lease,
    ) -> Result<Option<ResolvedBase>, PullError> {
        let (store, lease, reference, key) = (
            self.store.clone(),
            lease.clone(),
            reference.clone(),
            resolution_key(reference, platform),
        );
        blocking::run(move || {
            let Some(resolution) = store.reference(&key)? else {
                return Ok(None);
            };
            let digest = resolution.manifest_digest;
            // A document that was pruned or is damaged is fetched again, which also mends it.
            let Ok(bytes) = store.read_blob(&digest, MAX_DOCUMENT) else {
                return Ok(None);
            };
            let Ok(Document::Manifest(found)) = manifest::parse_document(&bytes, None) else {
                return Ok(None);
            };
            let Ok(config) = store.read_blob(found.config().digest(), MAX_DOCUMENT) else {
                return Ok(None);
            };
            // Used, so that pruning takes others first.
            lease.hold_blob(&digest)?;
            lease.hold_blob(found.config().digest())?;
            let origin = Origin::Registry(reference.clone());
            base_of(reference.familiar(), &found, digest, &config, origin).map(Some)
        })
        .await
    }

    /// What the registry answered before, or else an image of the store.
    async fn already_here(
        &self,
        reference: &Reference,
        platform: &Platform,
        lease: &Lease,
    ) -> Result<Option<ResolvedBase>, PullError> {
        match self.remembered(reference, platform, lease).await? {
            Some(base) => Ok(Some(base)),
            None => self.stored_image(reference, platform).await,
        }
    }

    async fn ask_registry(
        &self,
        reference: &Reference,
        platform: &Platform,
        lease: &Lease,
    ) -> Result<ResolvedBase, PullError> {
        let pull = |source| PullError::Registry {
            reference: reference.to_string(),
            source: Box::new(source),
        };
        let mut fetched = self.client.manifest(reference).await.map_err(pull)?;
        let mut depth = 0;
        let found = loop {
            match fetched.document {
                Document::Manifest(found) => break found,
                Document::Index(index) => {
                    depth += 1;
                    let entries = index.manifests();
                    let chosen =
                        manifest::choose(entries, platform).filter(|_| depth <= MAX_NESTING);
                    let chosen = chosen.ok_or_else(|| PullError::NoSuchPlatform {
                        name: reference.familiar(),
                        platform: platform.to_string(),
                        available: manifest::platforms_of(entries),
                    })?;
                    let digest = Some(chosen.digest().to_string());
                    fetched = self
                        .client
                        .manifest(&Reference {
                            digest,
                            ..reference.clone()
                        })
                        .await
                        .map_err(pull)?;
                }
            }
        };
        let config_digest = found.config().digest();
        let config = self
            .client
            .document(reference, config_digest)
            .await
            .map_err(pull)?;
        let origin = Origin::Registry(reference.clone());
        let base = base_of(
            reference.familiar(),
            &found,
            fetched.digest.clone(),
            &config,
            origin,
        )?;
        let resolution = Resolution {
            descriptor: describe(&found, &fetched.digest, fetched.bytes.len()),
            manifest_digest: fetched.digest,
            resolved: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs().cast_signed()),
        };
        let (store, lease, key) = (
            self.store.clone(),
            lease.clone(),
            resolution_key(reference, platform),
        );
        blocking::run(move || {
            for document in [&fetched.bytes, &config] {
                blobs::keep_document(&lease, document)?;
            }
            store.remember_reference(&key, &resolution)?;
            Ok::<_, PullError>(())
        })
        .await?;
        Ok(base)
    }
}

/// The descriptor of a fetched manifest as JSON.
fn describe(found: &ImageManifest, digest: &Digest, size: usize) -> String {
    let media_type = match found.config().media_type().to_string().as_str() {
        media::DOCKER_CONFIG => media::DOCKER_MANIFEST,
        _ => media::OCI_MANIFEST,
    };
    let descriptor = Descriptor::new(media_type.into(), size as u64, digest.clone());
    serde_json::to_string(&descriptor).unwrap_or_default() // strings and numbers only: always JSON
}

/// What is said when a registry answers that there were too many requests.
fn going_on_without(reference: &Reference, base: &ResolvedBase) -> String {
    let digest = base.manifest_digest.as_ref().unwrap_or(&base.config_digest);
    format!(
        "{} answers that there were too many requests: going on with the {} that is here, {digest}",
        reference.registry,
        reference.familiar(),
    )
}

/// What a resolution is remembered under.
fn resolution_key(reference: &Reference, platform: &Platform) -> String {
    format!("{reference} {platform}")
}

fn resolve_layout(
    path: &str,
    tag: Option<&str>,
    digest: Option<&str>,
    platform: &Platform,
) -> Result<ResolvedBase, PullError> {
    let layout = Layout::open(Path::new(path))?;
    let digest = match digest {
        Some(text) => Some(
            manifest::parse_digest(text).ok_or_else(|| PullError::Digest {
                digest: text.to_owned(),
            })?,
        ),
        None => None,
    };
    let image = layout.image(tag, digest.as_ref(), platform)?;
    let name = match (tag, &digest) {
        (_, Some(digest)) => format!("{LAYOUT_SCHEME}{path}@{digest}"),
        (Some(tag), None) => format!("{LAYOUT_SCHEME}{path}:{tag}"),
        (None, None) => format!("{LAYOUT_SCHEME}{path}"),
    };
    let origin = Origin::Layout(Arc::new(layout));
    base_of(
        name,
        &image.manifest,
        image.manifest_digest,
        &image.config_bytes,
        origin,
    )
}

/// Puts a manifest and its config together and checks that they belong together.
fn base_of(
    name: String,
    found: &ImageManifest,
    manifest_digest: Digest,
    config_bytes: &[u8],
    origin: Origin,
) -> Result<ResolvedBase, PullError> {
    let parts = Parts {
        config_digest: found.config().digest().clone(),
        manifest_digest: Some(manifest_digest),
        descriptors: found.layers().clone(),
    };
    parts.into_base(name, config_bytes, origin)
}

/// What a manifest, or the list of a Docker archive, says of an image.
struct Parts {
    config_digest: Digest,
    manifest_digest: Option<Digest>,
    descriptors: Vec<Descriptor>,
}

impl Parts {
    fn into_base(
        self,
        name: String,
        config_bytes: &[u8],
        origin: Origin,
    ) -> Result<ResolvedBase, PullError> {
        let config = parse_config(config_bytes, &name)?;
        let (layers, diff_ids) = (self.descriptors.len(), config.rootfs.diff_ids.len());
        if layers != diff_ids {
            return Err(PullError::LayerCount {
                name,
                layers,
                diff_ids,
            });
        }
        if let Some(odd) = config
            .rootfs
            .diff_ids
            .iter()
            .find(|text| manifest::parse_digest(text).is_none())
        {
            return Err(PullError::Digest {
                digest: odd.clone(),
            });
        }
        Ok(ResolvedBase {
            name,
            platform: config.platform(),
            config,
            config_digest: self.config_digest,
            manifest_digest: self.manifest_digest,
            layers: BaseLayers::Blobs {
                descriptors: self.descriptors,
                origin,
            },
        })
    }
}

fn parse_config(bytes: &[u8], name: &str) -> Result<ImageConfig, PullError> {
    ImageConfig::from_json(bytes).map_err(|source| PullError::Config {
        name: name.to_owned(),
        source,
    })
}
