//! Layers as blobs: originals of the base, and what was made here, packed once for each way of packing.

use std::fs::File;
use std::io::{self, BufReader, BufWriter};

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use oci_spec::image::Digest;
use rbuild_cache::{
    BlobInfo, BlobWriter, CachedLayer, Chain, DiffId, Layer, Lease, PackParameters, PackedBlob,
};
use rbuild_runner::JobErrorKind;
use rbuild_runner::job::{Compression, PackJob};

use super::document::Descriptor;
use super::{ExportError, Exporter};
use crate::blocking;
use crate::image::BuiltImage;
use crate::manifest::{media, oci_layer_type, parse_digest};
use crate::options::{Output, OutputCompression};
use crate::tasks::{Task, Tasks};

/// Version of the runner's layer writer and compressors, part of what a packed blob is found by: it goes up whenever one
/// of them gives other bytes for the same snapshot.
const ENCODER_VERSION: u32 = 1;

/// Level of gzip when none is asked for: what everyone's layers have.
const GZIP_LEVEL: u32 = 6;

/// Level of zstd when none is asked for: zstd's own default.
const ZSTD_LEVEL: i32 = 3;

/// Layers packed at once. Compression is parallel within a layer already; two hide the gaps between layers.
const PACKED_AT_ONCE: usize = 2;

/// What a pipe between a packing worker and us holds: as much as everybody's may.
const PIPE_SIZE: usize = 1 << 20;

/// A layer ready to be shipped.
#[derive(Clone, Debug)]
pub(super) struct ShippedLayer {
    pub(super) descriptor: Descriptor,
    /// Of what is in the blob: not the image's own where times were rewritten.
    pub(super) diff_id: DiffId,
    /// Repositories and layouts that are known to have the blob.
    pub(super) locations: Vec<String>,
}

/// How layers made here are packed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packing {
    compression: Compression,
    clamp: Option<i64>,
    /// Also what came compressed in another way.
    forces_compression: bool,
}

impl Packing {
    /// What an output asks for. `epoch` is there if times are to be rewritten.
    pub(super) fn of(output: &Output, epoch: Option<i64>) -> Self {
        let level = output.compression_level;
        let compression = match output.compression {
            OutputCompression::Gzip => Compression::Gzip {
                level: level
                    .and_then(|level| u32::try_from(level).ok())
                    .map_or(GZIP_LEVEL, |level| level.clamp(1, 9)),
            },
            OutputCompression::Zstd => Compression::Zstd {
                level: level.map_or(ZSTD_LEVEL, |level| level.clamp(1, 22)),
            },
            OutputCompression::Uncompressed => Compression::None,
        };
        Self {
            compression,
            clamp: epoch,
            forces_compression: output.forces_compression,
        }
    }

    fn media_type(self) -> &'static str {
        match self.compression {
            Compression::None => media::OCI_LAYER,
            Compression::Gzip { .. } => media::OCI_LAYER_GZIP,
            Compression::Zstd { .. } => media::OCI_LAYER_ZSTD,
        }
    }

    fn parameters(self) -> PackParameters {
        let compression = match self.compression {
            Compression::None => "none".to_owned(),
            Compression::Gzip { level } => format!("gzip:{level}"),
            Compression::Zstd { level } => format!("zstd:{level}"),
        };
        PackParameters {
            clamp: self.clamp,
            compression,
            encoder: ENCODER_VERSION,
        }
    }
}

impl Exporter {
    /// Makes all layers of an image present as blobs of the store, lowest first.
    pub(super) async fn ship_layers(
        &self,
        image: &BuiltImage,
        packing: Packing,
        lease: &Lease,
        task: &Task,
    ) -> Result<Vec<ShippedLayer>, ExportError> {
        let layers = image
            .chain
            .iter()
            .enumerate()
            .map(|(position, layer)| async move {
                // A base's layers are someone else's: shipped as they came, never rewritten.
                let is_base = position < image.base_layers;
                let ships_original = is_base || packing.clamp.is_none();
                if ships_original && let Some(shipped) = self.original_layer(layer, lease).await? {
                    let is_as_wanted = shipped.descriptor.media_type == packing.media_type();
                    return if is_as_wanted || !packing.forces_compression {
                        Ok(shipped)
                    } else {
                        self.recompressed_layer(position + 1, layer, &shipped, packing, lease, task)
                            .await
                    };
                }
                let packing = if is_base {
                    Packing {
                        clamp: None,
                        ..packing
                    }
                } else {
                    packing
                };
                self.packed_layer(position + 1, layer, packing, lease, task)
                    .await
            });
        stream::iter(layers)
            .buffered(PACKED_AT_ONCE)
            .try_collect()
            .await
    }

    /// Makes a chain's layers present as blobs for a cache, lowest first: those of pulled images as they came.
    pub(crate) async fn ship_for_cache(
        &self,
        chain: &Chain,
        output: &Output,
        lease: &Lease,
    ) -> Result<Vec<CachedLayer>, ExportError> {
        let packing = Packing::of(output, None);
        let task = Tasks::silent();
        let mut shipped = Vec::with_capacity(chain.len());
        for (position, layer) in chain.iter().enumerate() {
            let original = self.sources.original(&layer.diff_id, lease).await?;
            let (origins, descriptor) = if let Some(original) = original {
                let media_type = oci_layer_type(&original.media_type);
                let descriptor = Descriptor::new(media_type, original.digest, original.size);
                (Some(original.locations), descriptor)
            } else {
                let packed = self.packed_layer(position + 1, layer, packing, lease, &task);
                (None, packed.await?.descriptor)
            };
            shipped.push(CachedLayer {
                diff_id: layer.diff_id.as_digest().clone(),
                content: layer.content.to_string(),
                tar_size: layer.tar_size,
                created: layer.created,
                created_nanos: layer.created_nanos,
                blob: descriptor.digest,
                size: descriptor.size,
                media_type: descriptor.media_type,
                origins,
            });
        }
        Ok(shipped)
    }

    async fn original_layer(
        &self,
        layer: &Layer,
        lease: &Lease,
    ) -> Result<Option<ShippedLayer>, ExportError> {
        let original = self.sources.original(&layer.diff_id, lease).await?;
        Ok(original.map(|original| ShippedLayer {
            descriptor: Descriptor::new(
                oci_layer_type(&original.media_type),
                original.digest,
                original.size,
            ),
            diff_id: layer.diff_id.clone(),
            locations: original.locations,
        }))
    }

    /// A base's layer compressed anew: the same tar, so the same `diff_id`.
    async fn recompressed_layer(
        &self,
        number: usize,
        layer: &Layer,
        shipped: &ShippedLayer,
        packing: Packing,
        lease: &Lease,
        task: &Task,
    ) -> Result<ShippedLayer, ExportError> {
        let packing = Packing {
            clamp: None,
            ..packing
        };
        let mut parameters = packing.parameters();
        parameters.compression.push_str(" of original");
        let (store, diff_id, wanted) = (
            self.sources.store.clone(),
            layer.diff_id.clone(),
            parameters.clone(),
        );
        let own = lease.clone();
        // A blob that was pruned meanwhile is made again.
        let known = blocking::run(move || {
            let Some(packed) = store.packed(&diff_id, &wanted)? else {
                return Ok(None);
            };
            Ok::<_, ExportError>(own.hold_blob(&packed.digest)?.map(|_| packed))
        })
        .await?;
        let packed = if let Some(packed) = known {
            packed
        } else {
            task.expect(layer.tar_size);
            let (own, diff_id, tar_size) = (lease.clone(), layer.diff_id.clone(), layer.tar_size);
            let original = shipped.descriptor.digest.clone();
            let packed = blocking::run(move || {
                let store = own.store();
                let mut blob: BlobWriter = own.blob_writer()?;
                let original = store.open_blob(&original)?;
                let failed = |source| ExportError::Recompress {
                    number,
                    diff_id: diff_id.to_string(),
                    source,
                };
                let outcome = rbuild_runner::pack::recompress(
                    original,
                    diff_id.as_digest().as_ref(),
                    tar_size,
                    packing.compression,
                    &mut blob,
                )
                .map_err(failed)?;
                let digest = parse_digest(&outcome.digest);
                let BlobInfo { digest, size } = blob.commit(digest.as_ref())?;
                let packed = PackedBlob {
                    digest,
                    size,
                    diff_id: diff_id.clone(),
                };
                store.record_packed(&diff_id, &parameters, &packed)?;
                Ok::<_, ExportError>(packed)
            })
            .await?;
            task.advance(layer.tar_size);
            packed
        };
        Ok(ShippedLayer {
            descriptor: Descriptor::new(packing.media_type(), packed.digest, packed.size),
            diff_id: packed.diff_id,
            locations: Vec::new(),
        })
    }

    async fn packed_layer(
        &self,
        number: usize,
        layer: &Layer,
        packing: Packing,
        lease: &Lease,
        task: &Task,
    ) -> Result<ShippedLayer, ExportError> {
        let parameters = packing.parameters();
        let (own, diff_id, wanted) = (lease.clone(), layer.diff_id.clone(), parameters.clone());
        let known = blocking::run(move || {
            let Some(packed) = own.store().packed(&diff_id, &wanted)? else {
                return Ok::<_, ExportError>(None);
            };
            Ok(own.hold_blob(&packed.digest)?.map(|_| packed))
        })
        .await?;
        let packed = if let Some(packed) = known {
            packed
        } else {
            task.expect(layer.tar_size);
            let packed = self.pack(number, layer, packing, lease).await?;
            let (store, diff_id, blob) = (
                self.sources.store.clone(),
                layer.diff_id.clone(),
                packed.clone(),
            );
            blocking::run(move || store.record_packed(&diff_id, &parameters, &blob)).await?;
            task.advance(layer.tar_size);
            packed
        };
        Ok(ShippedLayer {
            descriptor: Descriptor::new(packing.media_type(), packed.digest, packed.size),
            diff_id: packed.diff_id,
            locations: Vec::new(),
        })
    }

    async fn pack(
        &self,
        number: usize,
        layer: &Layer,
        packing: Packing,
        lease: &Lease,
    ) -> Result<PackedBlob, ExportError> {
        let diff_id = layer.diff_id.to_string();
        let job = PackJob {
            snapshot: self.sources.store.snapshot_path(&layer.snapshot),
            diff_id: diff_id.clone(),
            clamp: packing.clamp,
            compression: packing.compression,
        };
        // Through a pipe: the bytes are hashed on this side as well, so what is committed is what was packed.
        let (reader, writer) = io::pipe().map_err(|source| ExportError::Write {
            path: "a pipe".into(),
            source,
        })?;
        // Refused where the user's pipes have used up what they may: then it is 64 KiB, and slower.
        let _ = rustix::pipe::fcntl_setpipe_size(&reader, PIPE_SIZE);
        let own = lease.clone();
        let receive = blocking::run(move || {
            let blob: BlobWriter = own.blob_writer()?;
            let mut reader = reader;
            // It copies in pieces of this size too.
            let mut blob = BufWriter::with_capacity(PIPE_SIZE, blob);
            let copied = io::copy(&mut reader, &mut blob);
            copied
                .and_then(|_| blob.into_inner().map_err(io::IntoInnerError::into_error))
                .map_err(|source| ExportError::Write {
                    path: own.store().root().to_owned(),
                    source,
                })
        });
        let spawner = self.sources.spawner.clone();
        let send = blocking::job(move || spawner.begin_pack(job, writer.into()));
        let (outcome, blob) = tokio::join!(send, receive);
        // A full disk on this side breaks the pipe on the other: then the pipe is only the symptom.
        let blob = blob?;
        let outcome = match outcome {
            Err(source) if source.kind == JobErrorKind::Damaged => {
                let (own, snapshot) = (lease.clone(), layer.snapshot.clone());
                blocking::run(move || own.discard_snapshot(&snapshot)).await?;
                let source = Box::new(source);
                return Err(ExportError::Damaged {
                    number,
                    diff_id,
                    source,
                });
            }
            outcome => outcome.map_err(|source| ExportError::Pack {
                number,
                diff_id: diff_id.clone(),
                source: Box::new(source),
            })?,
        };
        let differs = || ExportError::PackDiffers {
            number,
            diff_id: diff_id.clone(),
        };
        let digest: Digest = parse_digest(&outcome.digest).ok_or_else(differs)?;
        let packed_diff_id = parse_digest(&outcome.diff_id).ok_or_else(differs)?;
        let BlobInfo { digest, size } = blocking::run(move || blob.commit(Some(&digest))).await?;
        if size != outcome.size {
            return Err(differs());
        }
        Ok(PackedBlob {
            digest,
            size,
            diff_id: DiffId(packed_diff_id),
        })
    }
}

/// Opens a blob of the store for copying out; the reader fails if it is damaged.
pub(super) type BlobReader = rbuild_cache::VerifiedReader<BufReader<File>>;
