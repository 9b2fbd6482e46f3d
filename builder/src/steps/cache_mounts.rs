//! `RUN --mount=type=cache`: a directory of the store, prepared once when it is fresh.

use std::collections::BTreeMap;

use rbuild_cache::{CacheMountGuard, CacheMountId};
use rbuild_frontend::graph::{Input, MountKind, Run, Sharing};
use rbuild_runner::job::{Access, AttributesJob, MoveJob, SandboxMountKind};

use super::{StepJob, copy, mounts};
use crate::error::StepError;
use crate::kept::Again;
use crate::solve::Reading;

/// The cache mounts of one step, held while it runs.
#[derive(Debug, Default)]
pub(super) struct CacheMounts {
    /// By identity: a step that names one twice holds it once.
    guards: BTreeMap<String, CacheMountGuard>,
    /// Identity of the mount at each position.
    identities: BTreeMap<usize, String>,
    /// How each is had, by identity.
    again: BTreeMap<String, Again>,
}

impl CacheMounts {
    /// What the mount at `position` shows.
    pub(super) fn mount(&self, position: usize, is_read_only: bool) -> SandboxMountKind {
        let guard = &self.guards[&self.identities[&position]];
        let access = if is_read_only {
            Access::ReadOnly
        } else {
            Access::Shared
        };
        SandboxMountKind::Directory {
            root: guard.path().to_owned(),
            source: Vec::new(),
            access,
        }
    }

    /// How the mount at `position` is had again.
    pub(super) fn again(&self, position: usize) -> Again {
        self.again[&self.identities[&position]].clone()
    }
}

/// Takes all cache mounts of a step, in the order of their identities, so that two steps never wait for one another.
pub(super) fn prepare(job: &StepJob, run: &Run) -> Result<CacheMounts, StepError> {
    let workspace = &job.solver.workspace;
    let mut mounts = CacheMounts::default();
    let mut wanted: BTreeMap<String, (usize, rbuild_cache::Sharing)> = BTreeMap::new();
    for (position, mount) in run.mounts.iter().enumerate() {
        let MountKind::Cache {
            id,
            sharing,
            from,
            source,
            uid,
            gid,
            mode,
            ..
        } = &mount.kind
        else {
            continue;
        };
        let identity = identity(
            id,
            from,
            source,
            &job.readings[position],
            (*uid, *gid, *mode),
        );
        let entry = wanted
            .entry(identity.clone())
            .or_insert((position, rbuild_cache::Sharing::Shared));
        entry.1 = stronger(entry.1, *sharing);
        mounts.identities.insert(position, identity);
    }
    for (identity, (position, sharing)) in wanted {
        let MountKind::Cache { id, .. } = &run.mounts[position].kind else {
            continue;
        };
        let name = CacheMountId {
            identity: identity.clone(),
            // Behind the empty prefix, which nobody typed.
            title: id.strip_prefix('/').unwrap_or(id).to_owned(),
        };
        mounts
            .again
            .insert(identity.clone(), Again::cache(&name, sharing));
        let is_cancelled = || workspace.cancel.is_cancelled();
        let guard = workspace
            .store
            .lock_cache_mount(&name, sharing, is_cancelled);
        let mut guard = guard
            .map_err(StepError::store)?
            .ok_or(StepError::Cancelled)?;
        if guard.is_new() {
            fill_new(
                job,
                &run.mounts[position].kind,
                &job.readings[position],
                &guard,
            )?;
            guard.mark_prepared().map_err(StepError::store)?;
        }
        mounts.guards.insert(identity, guard);
    }
    Ok(mounts)
}

fn stronger(held: rbuild_cache::Sharing, asked: Sharing) -> rbuild_cache::Sharing {
    match (held, asked) {
        (rbuild_cache::Sharing::Locked, _) | (_, Sharing::Locked) => rbuild_cache::Sharing::Locked,
        (rbuild_cache::Sharing::Private, _) | (_, Sharing::Private) => {
            rbuild_cache::Sharing::Private
        }
        (rbuild_cache::Sharing::Shared, Sharing::Shared) => rbuild_cache::Sharing::Shared,
    }
}

fn fill_new(
    job: &StepJob,
    kind: &MountKind,
    reading: &Reading,
    guard: &CacheMountGuard,
) -> Result<(), StepError> {
    match kind {
        MountKind::Cache {
            from: Input::Empty,
            uid,
            gid,
            mode,
            ..
        } => give_attributes(job, guard, *uid, *gid, *mode),
        MountKind::Cache { from, .. } => fill(job, from, reading, guard),
        _ => Err(StepError::Internal("not a cache mount")),
    }
}

/// The directory's identity: the id, and what its first content is made of when that is given.
fn identity(
    id: &str,
    from: &Input,
    source: &str,
    reading: &Reading,
    attributes: (u32, u32, u32),
) -> String {
    let mut key = rbuild_cache::KeyEncoder::new("cache-mount", 1);
    key.text("id", id);
    if let Reading::Context(found) = reading {
        key.text("source", source);
        key.bytes("content", &crate::select::digest(found).0);
    } else if *from == Input::Empty {
        let (uid, gid, mode) = attributes;
        key.number("uid", u64::from(uid));
        key.number("gid", u64::from(gid));
        key.number("mode", u64::from(mode));
    }
    key.finish().to_string()
}

fn give_attributes(
    job: &StepJob,
    guard: &CacheMountGuard,
    uid: u32,
    gid: u32,
    mode: u32,
) -> Result<(), StepError> {
    let path = guard.path().to_owned();
    let attributes = AttributesJob {
        path,
        uid,
        gid,
        mode,
    };
    let spawner = &job.solver.workspace.spawner;
    spawner.set_attributes(attributes).map_err(StepError::Job)
}

/// Copies the first content in, through an overlay-less root whose upper directory becomes the mount's content.
fn fill(
    job: &StepJob,
    from: &Input,
    reading: &Reading,
    guard: &CacheMountGuard,
) -> Result<(), StepError> {
    let Reading::Context(found) = reading else {
        return Err(StepError::Internal(
            "a cache mount's first content was not selected",
        ));
    };
    let content = mounts::mirror(job, from, found)?;
    let content = content.join(String::from_utf8_lossy(copy::MIRROR_NAME).as_ref());
    let into = guard.path().to_owned();
    let spawner = &job.solver.workspace.spawner;
    let moved = spawner.move_tree(MoveJob::Content {
        from: content,
        into,
    });
    moved.map_err(StepError::Job)
}
