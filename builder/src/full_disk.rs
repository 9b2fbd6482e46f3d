//! A full disk, told as such: most errors that it causes name a file of an image, or only the code that a command ended
//! with, and never the disk.

use std::error::Error;
use std::path::Path;

use rbuild_runner::{JobError, JobErrorKind};

use crate::error::{BuildError, StepError};

/// A disk with less than this left is full as far as a command is concerned that just failed.
const NOTHING_LEFT: u64 = 1 << 20;

/// Wraps a build's error in [`BuildError::FullDisk`] where the store's disk caused it.
pub(crate) fn explain(error: BuildError, root: &Path) -> BuildError {
    let is_full = match &error {
        // What is written elsewhere names where.
        BuildError::Export { .. } | BuildError::Context(_) => false,
        BuildError::Step {
            source: StepError::Command { .. },
            ..
        } => free_bytes(root).is_some_and(|free| free < NOTHING_LEFT),
        error => is_caused_by_full_disk(error),
    };
    if is_full {
        BuildError::FullDisk {
            root: root.to_owned(),
            source: Box::new(error),
        }
    } else {
        error
    }
}

/// Bytes that are free on the file system of `path`; none when it does not say.
fn free_bytes(path: &Path) -> Option<u64> {
    let space = rustix::fs::statvfs(path).ok()?;
    Some(space.f_bavail.saturating_mul(space.f_frsize))
}

fn is_caused_by_full_disk(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |&error| error.source()).any(|error| {
        let is_job = find::<JobError>(error)
            .or_else(|| match find::<StepError>(error) {
                Some(StepError::Job(error)) => Some(error),
                _ => None,
            })
            .is_some_and(|error| error.kind == JobErrorKind::NoSpace);
        is_job || rbuild_cache::is_full_disk(error)
    })
}

/// The error as what it is; a boxed source is a type of its own.
fn find<'error, E: Error + 'static>(error: &'error (dyn Error + 'static)) -> Option<&'error E> {
    error
        .downcast_ref::<E>()
        .or_else(|| error.downcast_ref::<Box<E>>().map(AsRef::as_ref))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn only_what_a_full_disk_caused_is_told_as_such() {
        let root = Path::new("/");
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let job = || JobError::new(JobErrorKind::NoSpace, "cannot write `/bin/busybox`");
        for (case, error, is_full) in [
            ("the store", BuildError::store(full()), true),
            ("a job", BuildError::store(job()), true),
            ("a boxed job", BuildError::store(Box::new(job())), true),
            (
                "another error",
                BuildError::store(io::Error::from(io::ErrorKind::NotFound)),
                false,
            ),
            (
                "an output, which may be on another disk",
                BuildError::Export {
                    output: "/other/out.tar".into(),
                    source: Box::new(full()),
                },
                false,
            ),
        ] {
            let explained = explain(error, root);
            assert_eq!(
                matches!(explained, BuildError::FullDisk { .. }),
                is_full,
                "{case}"
            );
        }
    }
}
