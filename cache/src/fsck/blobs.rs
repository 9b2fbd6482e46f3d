//! Blobs: read whole, against their digests.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;

use oci_spec::image::Digest;
use rustix::fs::OFlags;
use sha2::{Digest as _, Sha256};

use super::FsckError;
use super::check::{Check, for_each, identity};
use super::report::{Cure, Damage, DamageKind, Healing, Problem};
use crate::digest::sha256_digest;

/// One read.
const BUFFER: usize = 256 << 10;

/// What was found of one blob.
#[derive(Default)]
struct Verdict {
    problem: Option<(Problem, Cure)>,
    size: u64,
}

impl Check<'_> {
    /// Reads all blobs.
    pub(super) fn blobs(&mut self) -> Result<(), FsckError> {
        let mut blobs = (self.store.inner.db).read(|tables| tables.raw_blobs())?;
        blobs.retain(|(digest, _)| !self.lost.contains(digest));
        let verdicts = for_each(&blobs, |(digest, size)| self.judge_blob(digest, *size))?;
        for ((digest, _), verdict) in blobs.iter().zip(verdicts) {
            self.report.checked.blobs += 1;
            self.report.checked.blob_bytes += verdict.size;
            let Some((problem, cure)) = verdict.problem else {
                continue;
            };
            let path = (self.store.inner.blobs).join(digest.trim_start_matches("sha256:"));
            let row = || Cure::DropBlobRow(digest.clone());
            if problem == Problem::Missing && self.is_let_go(digest, &path, row) {
                continue;
            }
            let healing = match cure {
                Cure::WriteBlob(..) => Healing::Mended,
                _ => self.healing_of_blob(digest),
            };
            self.add(Damage {
                kind: DamageKind::Blob,
                id: digest.clone(),
                path,
                problems: vec![problem],
                needed_by: self.users_of_blob(digest),
                healing,
                is_repaired: false,
                cure,
            });
        }
        Ok(())
    }

    fn judge_blob(&self, name: &str, size: i64) -> Result<Verdict, FsckError> {
        let bad_row = |what| Verdict {
            problem: Some((Problem::Row { what }, Cure::DropBlobRow(name.to_owned()))),
            size: 0,
        };
        let is_ours = |digest: &Digest| self.store.blob_path(digest).ends_with(digest.digest());
        let Some(digest) = name.parse().ok().filter(is_ours) else {
            return Ok(bad_row("its digest"));
        };
        let path = self.store.blob_path(&digest);
        let before = identity(&path);
        let drop = || Cure::DropBlob(digest.clone());
        let (problem, actual) = match hash(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                (Some((Problem::Missing, drop())), 0)
            }
            Err(error) => {
                let reason = error.to_string();
                (Some((Problem::Unreadable { reason }, drop())), 0)
            }
            Ok((found, actual)) if found != digest => {
                let problem = match u64::try_from(size) {
                    Ok(expected) if expected != actual => Problem::Size { expected, actual },
                    _ => Problem::Digest { actual: found },
                };
                (Some((problem, drop())), actual)
            }
            Ok((_, actual)) if u64::try_from(size) != Ok(actual) => {
                let cure = Cure::WriteBlob(digest.clone(), actual);
                (Some((Problem::Row { what: "size" }, cure)), actual)
            }
            Ok((_, actual)) => (None, actual),
        };
        let is_so = problem.is_none()
            || self.confirm(|| {
                let row = (self.store.inner.db).read(|tables| tables.blob_size(name))?;
                Ok(row.is_some() && identity(&path) == before)
            })?;
        Ok(Verdict {
            problem: problem.filter(|_| is_so),
            size: actual,
        })
    }
}

/// Digest and size of a regular file. Nobody is waited for who might write into a fifo.
pub(super) fn hash(path: &std::path::Path) -> io::Result<(Digest, u64)> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let (mut hasher, mut size) = (Sha256::new(), 0);
    let mut buffer = vec![0; BUFFER];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((sha256_digest(hasher), size)),
            Ok(length) => {
                hasher.update(&buffer[..length]);
                size += length as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
