//! The merged root file system of an image: as files, or as one tar.

use std::path::{Path, PathBuf};

use rbuild_cache::{LayerError, Lease};
use rbuild_runner::job::{ExportForm, ExportJob};

use super::sink::Sink;
use super::{ExportError, Exported, Exporter};
use crate::blocking;
use crate::image::BuiltImage;
use crate::options::{Output, OutputKind};

impl Exporter {
    pub(super) async fn export_root(
        &self,
        images: &[BuiltImage],
        output: &Output,
        lease: &Lease,
    ) -> Result<Exported, ExportError> {
        if output.kind == OutputKind::Tar {
            match images {
                [only] => {
                    self.export_tar(only, output.destination.clone(), lease)
                        .await?;
                }
                several => {
                    return Err(ExportError::SeveralRoots {
                        count: several.len(),
                    });
                }
            }
        } else {
            let destination = output
                .destination
                .as_deref()
                .ok_or(ExportError::NoDestination)?;
            for image in images {
                let target = match images.len() {
                    1 => destination.to_owned(),
                    _ => destination.join(image.platform.to_string().replace('/', "_")),
                };
                self.export_files(image, &target, lease).await?;
            }
        }
        Ok(Exported::default())
    }

    async fn export_tar(
        &self,
        image: &BuiltImage,
        destination: Option<PathBuf>,
        lease: &Lease,
    ) -> Result<(), ExportError> {
        let shown = destination.as_ref().map_or_else(
            || "standard output".to_owned(),
            |path| path.display().to_string(),
        );
        let (sink, output) = blocking::run(move || {
            let sink = Sink::open(destination.as_deref())?;
            let output = sink.descriptor()?;
            Ok::<_, ExportError>((sink, output))
        })
        .await?;
        let job = self
            .export_job(image, ExportForm::Tar { clamp: None }, lease)
            .await?;
        let spawner = self.sources.spawner.clone();
        let written = blocking::job(move || spawner.begin_export(job, Some(output))).await;
        written.map_err(|source| ExportError::Root {
            destination: shown,
            source: Box::new(source),
        })?;
        blocking::run(move || sink.finish()).await
    }

    async fn export_files(
        &self,
        image: &BuiltImage,
        target: &Path,
        lease: &Lease,
    ) -> Result<(), ExportError> {
        let path = target.to_owned();
        if path.is_file() {
            return Err(ExportError::IsFile { path });
        }
        // The job is done by another process: it needs the path from the root.
        let absolute = blocking::run(move || {
            std::fs::create_dir_all(&path).and_then(|()| std::fs::canonicalize(&path))
        })
        .await
        .map_err(|source| ExportError::Write {
            path: target.to_owned(),
            source,
        })?;
        let job = self
            .export_job(image, ExportForm::Directory(absolute), lease)
            .await?;
        let spawner = self.sources.spawner.clone();
        let written = blocking::job(move || spawner.begin_export(job, None)).await;
        written.map_err(|source| ExportError::Root {
            destination: target.display().to_string(),
            source: Box::new(source),
        })
    }

    async fn export_job(
        &self,
        image: &BuiltImage,
        form: ExportForm,
        lease: &Lease,
    ) -> Result<ExportJob, ExportError> {
        let (own, lowers) = (
            lease.clone(),
            image.chain.snapshot_paths(&self.sources.store),
        );
        let chain = image.chain.clone();
        let scratch = blocking::run(move || {
            for (position, layer) in chain.iter().enumerate() {
                match own.verify_snapshot(&layer.snapshot) {
                    Err(LayerError::Db(error)) => return Err(error.into()),
                    verified => verified.map_err(|error| ExportError::Damaged {
                        number: position + 1,
                        diff_id: layer.diff_id.to_string(),
                        source: Box::new(error),
                    })?,
                }
            }
            Ok::<_, ExportError>(own.scratch("export")?)
        })
        .await?;
        Ok(ExportJob {
            lowers,
            scratch,
            form,
        })
    }
}
