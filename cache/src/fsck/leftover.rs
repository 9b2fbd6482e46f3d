//! What crashes left, and what no rbuild put there. None of it is damage.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::FsckError;
use super::check::{Check, LOST_KEPT};
use super::report::{Leftover, LeftoverKind};
use crate::cache_mount::mount_lock_name;
use crate::lock::{is_locked, is_locked_shared};
use crate::open::{DIRECTORIES, NESTED};
use crate::record::STEP_LOCK;
use crate::store::DATABASE;

/// Names at the top of a store that are no directories of [`DIRECTORIES`].
const TOP: [&str; 4] = ["VERSION", "VERSION.new", NESTED, "lost+found"];

impl Check<'_> {
    /// Lists them.
    pub(super) fn leftovers(&mut self) -> Result<(), FsckError> {
        let inner = &self.store.inner;
        let mut found = Vec::new();
        self.report.running = self.works(&mut found)?;
        for name in names_in(&inner.locks)? {
            let path = inner.locks.join(&name);
            if name.starts_with(STEP_LOCK) && !is_locked(&path).map_err(read(&path))? {
                found.push((LeftoverKind::Lock, path));
            }
        }
        for name in &self.lost {
            let path = match (name.strip_prefix("sha256:"), name.strip_prefix(LOST_KEPT)) {
                (Some(digits), _) => inner.blobs.join(digits),
                (None, Some(name)) => inner.kept.join(name),
                (None, None) => inner.snapshots.join(name),
            };
            found.push((LeftoverKind::Unsynced, path));
        }
        // Files come before their rows: only while nobody commits is one without a row left over.
        let mut orphans = Vec::new();
        self.confirm(|| {
            orphans = self.orphans()?;
            Ok(true)
        })?;
        found.extend(orphans.into_iter().map(|path| (LeftoverKind::Orphan, path)));
        for name in names_in(self.store.root())? {
            let is_ours = DIRECTORIES.contains(&name.as_str())
                || TOP.contains(&name.as_str())
                || name.starts_with(DATABASE);
            if !is_ours {
                found.push((LeftoverKind::Foreign, self.store.root().join(name)));
            }
        }
        let leftover = |(kind, path)| Leftover {
            kind,
            path,
            is_removed: false,
        };
        (self.report.leftovers).extend(found.into_iter().map(leftover));
        (self.report.leftovers).sort_by(|one, other| one.path.cmp(&other.path));
        Ok(())
    }

    /// Work of dead processes; how many live.
    fn works(&self, found: &mut Vec<(LeftoverKind, PathBuf)>) -> Result<usize, FsckError> {
        let work = &self.store.inner.work;
        let mut running = 0;
        let names: HashSet<String> = (names_in(work)?.into_iter())
            .map(|name| name.trim_end_matches(".lock").to_owned())
            .collect();
        for name in names {
            let directory = work.join(&name);
            let lock = directory.with_extension("lock");
            if is_locked(&lock).map_err(read(&lock))? {
                running += 1;
            } else if directory.exists() || lock.exists() {
                found.push((LeftoverKind::Work, directory));
            }
        }
        Ok(running)
    }

    /// Snapshots, blobs, cache mounts and kept file systems that no row names.
    pub(super) fn orphans(&self) -> Result<Vec<PathBuf>, FsckError> {
        let inner = &self.store.inner;
        let (layers, blobs, mounts, kept) = inner.db.read(|tables| {
            Ok::<_, FsckError>((
                tables.raw_layers()?,
                tables.raw_blobs()?,
                tables.mounts()?,
                tables.kept()?,
            ))
        })?;
        let kept: HashSet<&str> = kept.iter().map(|row| row.name.as_str()).collect();
        let layers: HashSet<&str> = (layers.iter())
            .map(|layer| layer.snapshot.as_str())
            .collect();
        let blobs: HashSet<&str> = (blobs.iter())
            .map(|(digest, _)| digest.trim_start_matches("sha256:"))
            .collect();
        let mounts: HashSet<&str> = (mounts.iter())
            .map(|mount| mount.directory.as_str())
            .collect();
        let mut orphans = Vec::new();
        for (directory, known) in [
            (&inner.snapshots, &layers),
            (&inner.blobs, &blobs),
            (&inner.mounts, &mounts),
            (&inner.kept, &kept),
        ] {
            let names = names_in(directory)?.into_iter();
            for name in names.filter(|name| !known.contains(name.as_str())) {
                let lock = inner.locks.join(mount_lock_name(&name));
                // A cache mount that is being prepared has no row yet.
                let is_used =
                    directory == &inner.mounts && is_locked_shared(&lock).map_err(read(&lock))?;
                if !is_used {
                    orphans.push(directory.join(name));
                }
            }
        }
        Ok(orphans)
    }
}

fn read(path: &Path) -> impl FnOnce(std::io::Error) -> FsckError {
    move |source| FsckError::Read {
        path: path.to_owned(),
        source,
    }
}

/// Names in a directory; none of one that is missing, or is none, which is told elsewhere.
pub(super) fn names_in(path: &Path) -> Result<Vec<String>, FsckError> {
    let entries = match std::fs::read_dir(path) {
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        entries => entries.map_err(read(path))?,
    };
    entries
        .map(|entry| {
            let entry = entry.map_err(read(path))?;
            Ok(entry.file_name().to_string_lossy().into_owned())
        })
        .collect()
}
