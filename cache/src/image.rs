//! Images and their tags, and what registry references were resolved to.
//!
//! An image is a config (a blob, whose digest is the image id) and a chain. Tags point at images; an image without a
//! tag stays until it is removed. [`Store::put_image`] syncs first, so that no tag ever points at what a power cut
//! could take.

use oci_spec::image::Digest;

use crate::chain::{Chain, Present};
use crate::db::DbError;
use crate::failpoint::reach;
use crate::layer::SnapshotId;
use crate::store::{Store, StoreError};

/// An image of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRecord {
    /// Digest of its config: the image id. The config is a blob of the store.
    pub config_digest: Digest,
    /// Digest of its manifest, once something was packed or pulled.
    pub manifest_digest: Option<Digest>,
    /// Its layers.
    pub chain: Chain,
    /// When the store got it: seconds since the epoch.
    pub created: i64,
    /// Sum of its layers' uncompressed sizes.
    pub size: u64,
    /// Such as `linux/amd64` or `linux/arm/v7`.
    pub platform: String,
    /// What it was built from, such as `debian:12@sha256:…`; none for `scratch` and for pulled images.
    pub base: Option<String>,
}

/// What a registry reference was resolved to, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// Digest of the platform's manifest.
    pub manifest_digest: Digest,
    /// Seconds since the epoch.
    pub resolved: i64,
    /// The descriptor as JSON, as the registry gave it.
    pub descriptor: String,
}

/// What [`Store::remove_image`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemovedImage {
    /// A tag was removed, the image has others.
    Untagged {
        /// The tag.
        name: String,
    },
    /// The image and these tags of it were removed.
    Removed {
        /// Image id.
        id: Digest,
        /// Tags.
        names: Vec<String>,
    },
}

/// Why an image could not be found, put or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// No tag and no id is like that.
    #[error("the store has no image `{name}`")]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// A short id fits several images.
    #[error("image id `{prefix}` fits several images")]
    Ambiguous {
        /// What was asked for.
        prefix: String,
    },
    /// A layer of the image is gone.
    #[error("image `{id}` is incomplete: the store has no snapshot `{snapshot}`")]
    Incomplete {
        /// Image id.
        id: Digest,
        /// The layer's snapshot.
        snapshot: SnapshotId,
    },
    /// An id fits, but the image has several tags.
    #[error("image `{id}` has several tags: {}", names.join(", "))]
    SeveralTags {
        /// Image id.
        id: Digest,
        /// Its tags.
        names: Vec<String>,
    },
    /// What the image needs could not be synced.
    #[error(transparent)]
    Sync(#[from] Box<StoreError>),
    /// The database did not answer.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// An image as it is kept: the chain by snapshot names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageRow {
    pub(crate) id: Digest,
    pub(crate) manifest: Option<Digest>,
    pub(crate) chain: String,
    pub(crate) created: i64,
    pub(crate) size: u64,
    pub(crate) platform: String,
    pub(crate) base: Option<String>,
}

impl Store {
    /// Adds an image and points `names` at it; an image of the same id is replaced.
    ///
    /// Everything committed so far is synced first. When the store says the same already, nothing is written.
    pub fn put_image(&self, names: &[&str], image: &ImageRecord) -> Result<(), ImageError> {
        let row = to_row(image);
        let is_known = self.inner.db.read(|tables| {
            let mut is_known = tables
                .image_row(row.id.as_ref())?
                .is_some_and(|known| is_same(&known, &row));
            for name in names {
                is_known &= tables.tagged(name)?.as_deref() == Some(row.id.as_ref());
            }
            Ok::<_, DbError>(is_known && tables.is_unsynced_empty()?)
        })?;
        if is_known {
            return Ok(());
        }
        self.inner.sync_all().map_err(Box::new)?;
        self.inner.db.write(|tables| {
            // Nobody removes a snapshot while this transaction lasts, so the image is whole once it is there.
            if let Err(snapshot) =
                self.present_chain(tables, &row.chain, &mut Present::default())?
            {
                return Err(ImageError::Incomplete {
                    id: row.id.clone(),
                    snapshot,
                });
            }
            tables.put_image(&row)?;
            for name in names {
                tables.put_tag(name, row.id.as_ref())?;
            }
            Ok(())
        })?;
        reach("image-committed");
        self.inner.make_durable().map_err(Box::new)?;
        Ok(())
    }

    /// The image with a tag, an id (`sha256:…`), or the first digits of one that fit no other.
    pub fn image(&self, name_or_id: &str) -> Result<Option<ImageRecord>, ImageError> {
        self.inner.db.read(|tables| {
            let Some(row) = find(tables, name_or_id)? else {
                return Ok(None);
            };
            match self.present_chain(tables, &row.chain, &mut Present::default())? {
                Ok(chain) => Ok(Some(from_row(row, chain))),
                Err(snapshot) => Err(ImageError::Incomplete {
                    id: row.id,
                    snapshot,
                }),
            }
        })
    }

    /// All images: one with several tags once for each, one without a tag once.
    ///
    /// Incomplete images are left out and reported to the log.
    pub fn images(&self) -> Result<Vec<(Option<String>, ImageRecord)>, ImageError> {
        self.inner.db.read(|tables| {
            let mut images = Vec::new();
            for (name, row) in tables.image_rows()? {
                match self.present_chain(tables, &row.chain, &mut Present::default())? {
                    Ok(chain) => images.push((name, from_row(row, chain))),
                    Err(snapshot) => {
                        tracing::warn!(image = %row.id, %snapshot, "an image is incomplete, and left out: build or pull it again");
                    }
                }
            }
            Ok(images)
        })
    }

    /// Points `name` at an image that is there already, given by tag or id.
    pub fn tag(&self, name: &str, image: &str) -> Result<(), ImageError> {
        self.inner.db.write(|tables| {
            let row = find(tables, image)?.ok_or_else(|| ImageError::Unknown {
                name: image.to_owned(),
            })?;
            tables.put_tag(name, row.id.as_ref())?;
            Ok::<_, ImageError>(())
        })?;
        Ok(self.inner.make_durable().map_err(Box::new)?)
    }

    /// Removes a tag; false when there was none. The image stays.
    pub fn untag(&self, name: &str) -> Result<bool, ImageError> {
        Ok(self.inner.db.write(|tables| tables.remove_tag(name))?)
    }

    /// Removes a tag, and the image when that was its last one; or an image by id, if it has at most one tag.
    ///
    /// Layers and blobs stay for the steps that made them; pruning removes what nothing needs any more.
    pub fn remove_image(&self, name_or_id: &str) -> Result<RemovedImage, ImageError> {
        self.inner.db.write(|tables| {
            let row = find(tables, name_or_id)?.ok_or_else(|| ImageError::Unknown {
                name: name_or_id.to_owned(),
            })?;
            let names = tables.tags_of(row.id.as_ref())?;
            if names.len() > 1 {
                if !tables.remove_tag(name_or_id)? {
                    return Err(ImageError::SeveralTags { id: row.id, names });
                }
                return Ok(RemovedImage::Untagged {
                    name: name_or_id.to_owned(),
                });
            }
            for name in &names {
                tables.remove_tag(name)?;
            }
            tables.remove_image(row.id.as_ref())?;
            Ok(RemovedImage::Removed { id: row.id, names })
        })
    }

    /// What a reference was resolved to last. `key` names the reference and the platform.
    pub fn reference(&self, key: &str) -> Result<Option<Resolution>, DbError> {
        self.inner.db.read(|tables| tables.reference(key))
    }

    /// Remembers what a reference was resolved to.
    pub fn remember_reference(&self, key: &str, resolution: &Resolution) -> Result<(), DbError> {
        self.inner
            .db
            .write(|tables| tables.put_reference(key, resolution))
    }
}

fn find(tables: &crate::db::Tables<'_>, name_or_id: &str) -> Result<Option<ImageRow>, ImageError> {
    if let Some(id) = tables.tagged(name_or_id)? {
        return Ok(tables.image_row(&id)?);
    }
    let prefix = name_or_id.strip_prefix("sha256:").unwrap_or(name_or_id);
    // Below four digits a short id is more likely a typing error than an image.
    if prefix.len() < 4
        || !prefix
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    {
        return Ok(None);
    }
    let mut rows = tables.image_rows_by_prefix(&format!("sha256:{prefix}"))?;
    match rows.len() {
        0 | 1 => Ok(rows.pop()),
        _ => Err(ImageError::Ambiguous {
            prefix: name_or_id.to_owned(),
        }),
    }
}

/// True when nothing that is asked for differs; when the store got it does not count.
fn is_same(known: &ImageRow, wanted: &ImageRow) -> bool {
    ImageRow {
        created: wanted.created,
        ..known.clone()
    } == *wanted
}

fn to_row(image: &ImageRecord) -> ImageRow {
    ImageRow {
        id: image.config_digest.clone(),
        manifest: image.manifest_digest.clone(),
        chain: image.chain.to_row(),
        created: image.created,
        size: image.size,
        platform: image.platform.clone(),
        base: image.base.clone(),
    }
}

fn from_row(row: ImageRow, chain: Chain) -> ImageRecord {
    ImageRecord {
        config_digest: row.id,
        manifest_digest: row.manifest,
        chain,
        created: row.created,
        size: row.size,
        platform: row.platform,
        base: row.base,
    }
}
