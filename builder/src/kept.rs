//! What is written down of a failed step, so that `rbuild shell` shows again what its command saw.
//!
//! That is the job as the runner was given it, with paths from the store's root, or below `part/` for directories that were
//! the lease's own and are kept with it. Secrets are not in it, nor is the value of any variable that may hold one: files of
//! secrets, agents and such variables are written down by their names, and have to be given again.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use rbuild_cache::{CacheMountId, Chain, KeptError, KeptId, NewKept, Sharing, SnapshotId};
use rbuild_runner::job::{Access, RunJob, SandboxMountKind};
use serde::{Deserialize, Serialize};

use crate::build::Workspace;
use crate::event::StepId;

/// Begins a path of a directory that is kept with the step.
const PART: &str = "part";

/// Why nothing could be kept of a failed step.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeepError {
    /// The store.
    #[error(transparent)]
    Kept(#[from] KeptError),
    /// A path is not one that can be written down.
    #[error("cannot write down what the step was given")]
    Encode(#[from] serde_json::Error),
}

/// What is needed to see a failed step's file system as its command did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Description {
    /// As it was run, but without secrets.
    pub(crate) job: RunJob,
    /// Where the job's mounts are to be had again, one for each.
    pub(crate) again: Vec<Again>,
    /// Variables that hold secrets: name, and the secret's id.
    pub(crate) secret_variables: Vec<(String, String)>,
    /// Variables whose values may be nobody else's business: addresses of proxies, and what is called like a password.
    pub(crate) left_out: Vec<String>,
    /// `/etc/hosts` leads to this machine.
    pub(crate) leads_to_host: bool,
}

/// Where a mount is to be had again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Again {
    /// In the store, or with what is kept.
    Stored,
    /// A cache mount.
    Cache {
        identity: String,
        title: String,
        sharing: KeptSharing,
    },
    /// A file with a secret.
    Secret { id: String },
    /// An ssh agent.
    Agent {
        id: String,
        uid: u32,
        gid: u32,
        mode: u32,
    },
}

/// [`Sharing`], as it is written down.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum KeptSharing {
    Shared,
    Private,
    Locked,
}

impl Again {
    /// A cache mount that is had by this.
    pub(crate) fn cache(id: &CacheMountId, sharing: Sharing) -> Self {
        Self::Cache {
            identity: id.identity.clone(),
            title: id.title.clone(),
            sharing: match sharing {
                Sharing::Shared => KeptSharing::Shared,
                Sharing::Private => KeptSharing::Private,
                Sharing::Locked => KeptSharing::Locked,
            },
        }
    }
}

impl From<KeptSharing> for Sharing {
    fn from(sharing: KeptSharing) -> Self {
        match sharing {
            KeptSharing::Shared => Self::Shared,
            KeptSharing::Private => Self::Private,
            KeptSharing::Locked => Self::Locked,
        }
    }
}

impl Description {
    /// Of a job that is about to run. `environment` is that of the Dockerfile and the image.
    pub(crate) fn new(
        job: &RunJob,
        environment: Vec<(Vec<u8>, Vec<u8>)>,
        again: Vec<Again>,
    ) -> Self {
        let mut job = job.clone();
        for (mount, again) in job.mounts.iter_mut().zip(&again) {
            if let (SandboxMountKind::File { content, .. }, Again::Secret { .. }) =
                (&mut mount.kind, again)
            {
                content.clear();
            }
        }
        let may_be_kept = |(name, _): &(Vec<u8>, Vec<u8>)| {
            !crate::explain::parts::is_sensitive(&String::from_utf8_lossy(name))
        };
        let (kept, left_out): (Vec<_>, Vec<_>) = environment.into_iter().partition(may_be_kept);
        job.environment = kept;
        Self {
            job,
            again,
            secret_variables: Vec::new(),
            left_out: (left_out.into_iter())
                .map(|(name, _)| String::from_utf8_lossy(&name).into_owned())
                .collect(),
            leads_to_host: false,
        }
    }

    /// Every path of the job that has to be had again.
    fn paths_mut(&mut self) -> Vec<&mut PathBuf> {
        let root = &mut self.job.root;
        let mut paths: Vec<&mut PathBuf> = root.lowers.iter_mut().collect();
        paths.push(&mut root.scratch);
        for (mount, again) in self.job.mounts.iter_mut().zip(&self.again) {
            if !matches!(again, Again::Stored) {
                continue;
            }
            let access = match &mut mount.kind {
                SandboxMountKind::Directory { root, access, .. } => {
                    paths.push(root);
                    access
                }
                SandboxMountKind::Chain { lowers, access, .. } => {
                    paths.extend(lowers);
                    access
                }
                SandboxMountKind::Tmpfs { .. } | SandboxMountKind::File { .. } => continue,
            };
            if let Access::Discarded(upper) = access {
                paths.push(upper);
            }
        }
        paths
    }

    /// Turns paths of a lease and of a store into such that mean the same later. Gives the lease's directories that they
    /// lead into.
    fn put_away(&mut self, lease: &Path, store: &Path) -> BTreeSet<PathBuf> {
        let mut parts = BTreeSet::new();
        for path in self.paths_mut() {
            if let Ok(rest) = path.strip_prefix(lease) {
                if let Some(Component::Normal(first)) = rest.components().next() {
                    parts.insert(lease.join(first));
                }
                *path = Path::new(PART).join(rest);
            } else if let Ok(rest) = path.strip_prefix(store) {
                *path = rest.to_owned();
            }
        }
        parts
    }

    /// Reads what [`keep`] wrote: paths are those of today. None when another version of rbuild wrote it.
    pub(crate) fn read(bytes: &[u8], kept: &Path, store: &Path) -> Option<Self> {
        let mut description: Self = serde_json::from_slice(bytes).ok()?;
        for path in description.paths_mut() {
            if path.as_os_str().is_empty() {
                continue;
            }
            *path = match path.strip_prefix(PART) {
                Ok(rest) => kept.join(rest),
                Err(_) => store.join(&path),
            };
        }
        Some(description)
    }

    /// Says that the command was never begun: then its root holds mount points of the sandbox at most.
    pub(crate) fn has_not_run(&mut self) {
        self.job.root.scratch = PathBuf::new();
    }

    /// Snapshots of a store that it needs. Of one that was read.
    pub(crate) fn snapshots_in(&self, store: &Path) -> BTreeSet<SnapshotId> {
        let mut own = self.clone();
        for path in own.paths_mut() {
            if let Ok(rest) = path.strip_prefix(store) {
                *path = rest.to_owned();
            }
        }
        own.snapshots()
    }

    fn snapshots(&mut self) -> BTreeSet<SnapshotId> {
        let name = |path: &mut PathBuf| {
            let inside = path.strip_prefix("snapshots").ok()?;
            SnapshotId::parse(inside.to_str()?)
        };
        self.paths_mut().into_iter().filter_map(name).collect()
    }
}

/// Keeps what a failed step left, unless the history does not know of it; gives whether it does. Blocks.
///
/// The lease's directories that the job used are gone afterwards.
pub(crate) fn keep(
    workspace: &Workspace,
    step: StepId,
    chain: &Chain,
    mut description: Description,
) -> Result<bool, KeepError> {
    let Some(recorder) = &workspace.recorder else {
        return Ok(false);
    };
    let lease = (workspace.lease.dir().map_err(KeptError::from)?).to_owned();
    let parts = description.put_away(&lease, workspace.store.root());
    let mut snapshots = description.snapshots();
    snapshots.extend(chain.iter().map(|layer| layer.snapshot.clone()));
    workspace.lease.keep(&NewKept {
        id: id(recorder.id(), step),
        title: &recorder.spelt(step),
        snapshots: &snapshots,
        description: &serde_json::to_vec(&description)?,
        parts: &parts.into_iter().collect::<Vec<_>>(),
    })?;
    Ok(true)
}

/// What is kept of a step is found by this.
pub(crate) fn id(build: &str, step: StepId) -> KeptId {
    KeptId {
        build: build.to_owned(),
        step: step.0 + 1,
    }
}
