//! Where there can be no overlay: a root file system that is a plain directory, and layers found by comparing.
//!
//! ```text
//! scratch/root        the chain of snapshots, merged; the job changes it in place
//! scratch/upper       what changed, as an overlay would have left it: what is new or other, whiteouts, opaque directories
//! <lease>/roots/<id>  the root after a layer was made of it, where the next step of the same chain finds it
//! ```
//!
//! Merging copies the whole chain, so one root is kept along it: who needs the chain that a root stands for takes it by a
//! rename, and it never goes back when the job fails. Two that want the same one at once don't get in each other's way: the
//! second merges anew.
//!
//! A file counts as changed when its type, inode, mode, owner, size, time or ctime differs from what it was before
//! the job. The job begins only when the file system's clock has moved on, so that no change keeps a ctime. An overlay would
//! show the same but for two things: a file with several names that is written to changes under all of them, and
//! inodes stay what they are. A directory that was removed and made anew is told by its birth.

mod compare;
mod merge;
mod provided;

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use self::compare::{Changes, Table};
pub(crate) use self::provided::Provided;
use crate::copy::DIRECTORY;
use crate::error::{JobError, JobErrorKind};
use crate::job::OverlaySpec;
use crate::overlay;
use crate::root::{self, FileError, open_root};
use crate::sandbox::mount_point::{self, Stubs};

/// Name of the working root in a scratch directory.
pub(crate) const ROOT: &str = "root";

/// Where roots wait for the next step, in the lease's directory.
const WAITING: &str = "roots";

/// A root that a job changes.
#[derive(Debug)]
pub(crate) struct WorkingRoot {
    spec: OverlaySpec,
    root: OwnedFd,
    before: Table,
}

impl WorkingRoot {
    /// Takes the root that stands for the chain, or merges it.
    pub(crate) fn take(spec: &OverlaySpec) -> Result<Self, JobError> {
        let path = spec.scratch.join(ROOT);
        if !take_waiting(&spec.lowers, &spec.scratch, &path)? {
            overlay::make_directory(&path)?;
            merge::merge(&spec.lowers, &path).map_err(|error| failed(&error))?;
        }
        let root = open_root(&path).map_err(|error| failed(&error))?;
        Ok(Self {
            spec: spec.clone(),
            root,
            before: Table::default(),
        })
    }

    /// Remembers what is there; whatever changes from now on is a part of the layer.
    pub(crate) fn begin(&mut self) -> Result<(), JobError> {
        self.before = Table::read(self.root.as_fd()).map_err(|error| failed(&error))?;
        compare::wait_for_the_clock(&self.spec.scratch, self.before.newest)
            .map_err(|errno| failed_at("cannot read the clock of", &self.spec.scratch, errno))
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> PathBuf {
        self.spec.scratch.join(ROOT)
    }

    /// The root directory, readable.
    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.root
    }

    /// Writes what changed into `scratch/upper`, but for what stands at the paths of `provided`, and for directories that only
    /// had a mount point of `stubs` in them for a while.
    pub(crate) fn compare(
        &self,
        provided: &BTreeSet<Vec<u8>>,
        stubs: &Stubs,
    ) -> Result<(), JobError> {
        overlay::prepare_upper(&self.spec)?;
        let upper = self.spec.scratch.join(overlay::UPPER);
        let upper = open_root(&upper).map_err(|error| failed(&error))?;
        let after = Table::read_again(self.root.as_fd(), &self.before);
        let after = after.map_err(|error| failed(&error))?;
        let as_before = self.directories_as_before(stubs)?;
        let changes = Changes::between(&self.before, &after, provided, &as_before);
        changes
            .write_out(self.root.as_fd(), upper.as_fd())
            .map_err(|error| failed(&error))
    }

    /// Directories that mount points were made in, and that are what they were: making and removing an entry leaves its mark
    /// on the ctime alone, which no layer has.
    fn directories_as_before(&self, stubs: &Stubs) -> Result<BTreeSet<Vec<u8>>, JobError> {
        let mut found = BTreeSet::new();
        for touched in &stubs.touched {
            let is_as_before = || -> Result<bool, Errno> {
                match root::open_beneath(self.root.as_fd(), &touched.path, DIRECTORY) {
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(false),
                    directory => Ok(mount_point::metadata(directory?.as_fd())? == touched.metadata),
                }
            };
            let path = || FileError::at("read", &touched.path);
            if is_as_before().map_err(|errno| failed(&path()(errno)))? {
                found.insert(touched.path.clone());
            }
        }
        Ok(found)
    }

    /// Leaves the root to the step that stands on the layer that was made of it.
    pub(crate) fn leave(self, diff_id: &str) {
        let Some(next) = self.next_chain(diff_id) else {
            return;
        };
        let Some(place) = waiting(&next, &self.spec.scratch) else {
            return;
        };
        // What can't be left is merged again.
        let left = place.parent().map_or(Ok(()), std::fs::create_dir_all);
        let left = left.and_then(|()| std::fs::rename(self.spec.scratch.join(ROOT), &place));
        if let Err(error) = left {
            tracing::debug!(%error, "the next step merges its root anew");
        }
    }

    /// The chain with the new layer, as a caller names it: without a lower layer that is the same.
    fn next_chain(&self, diff_id: &str) -> Option<Vec<PathBuf>> {
        let (_, digits) = diff_id.split_once(':')?;
        // ROOT/work/<lease>/<scratch>
        let store = self.spec.scratch.ancestors().nth(3)?;
        let new = store.join("snapshots").join(digits);
        let lowers = self.spec.lowers.iter().filter(|lower| **lower != new);
        Some(lowers.cloned().chain([new.clone()]).collect())
    }
}

/// Merges a chain into a directory that no layer is made of; its root.
pub(crate) fn merge_aside(lowers: &[PathBuf], scratch: &Path) -> Result<OwnedFd, JobError> {
    let path = scratch.join(overlay::MERGED);
    overlay::make_directory(&path)?;
    merge::merge(lowers, &path).map_err(|error| failed(&error))?;
    open_root(&path).map_err(|error| failed(&error))
}

/// Where a root waits that stands for a chain.
fn waiting(lowers: &[PathBuf], scratch: &Path) -> Option<PathBuf> {
    let mut hasher = blake3::Hasher::new();
    for lower in lowers {
        hasher.update(lower.as_os_str().as_encoded_bytes());
        hasher.update(&[0]);
    }
    let name = hasher.finalize().to_hex();
    Some(scratch.parent()?.join(WAITING).join(name.as_str()))
}

/// Moves a waiting root to `path`; false when there is none.
fn take_waiting(lowers: &[PathBuf], scratch: &Path, path: &Path) -> Result<bool, JobError> {
    let Some(place) = waiting(lowers, scratch) else {
        return Ok(false);
    };
    match rustix::fs::rename(&place, path) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(failed_at("cannot take", &place, errno)),
    }
}

/// Opens a directory of a lease as a place.
fn open_place(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

fn failed(error: &(dyn std::error::Error + 'static)) -> JobError {
    JobError::from_error(JobErrorKind::Files, error)
}

fn failed_at(what: &str, path: &Path, errno: Errno) -> JobError {
    JobError::from_errno(JobErrorKind::Files, what, errno).at(path.as_os_str().as_encoded_bytes())
}
