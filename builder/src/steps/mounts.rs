//! `RUN --mount`: what each mount shows, made ready on this machine.

use rbuild_frontend::graph::{Input, Mount, MountKind, Run};
use rbuild_runner::job::{Access, FileJob, OverlaySpec, SandboxMount, SandboxMountKind};

use super::copy::Origin;
use super::{StepJob, cache_mounts, copy, ssh};
use crate::error::StepError;
use crate::kept::Again;
use crate::select::Selected;
use crate::solve::Reading;

/// Tells a command where its ssh agent listens.
pub(crate) const SSH_VARIABLE: &str = "SSH_AUTH_SOCK";

/// The mounts of one step, ready for the sandbox.
#[derive(Debug, Default)]
pub(super) struct PreparedMounts {
    pub(super) mounts: Vec<SandboxMount>,
    /// How each of them is had again.
    pub(super) again: Vec<Again>,
    /// Variables that secrets and agents set.
    pub(super) environment: Vec<(Vec<u8>, Vec<u8>)>,
    /// Variables that hold secrets: name and id.
    pub(super) secret_variables: Vec<(String, String)>,
    /// Held while the command runs.
    pub(super) caches: cache_mounts::CacheMounts,
    /// Forwarded while the command runs.
    pub(super) agents: Vec<ssh::Forwarded>,
}

/// Prepares all mounts of a step.
pub(super) fn prepare(job: &StepJob, run: &Run) -> Result<PreparedMounts, StepError> {
    let caches = cache_mounts::prepare(job, run)?;
    let mut prepared = PreparedMounts::default();
    for (position, mount) in run.mounts.iter().enumerate() {
        let kind = match &mount.kind {
            MountKind::Cache { is_read_only, .. } => Some(caches.mount(position, *is_read_only)),
            _ => one(job, run, mount, &job.readings[position], &mut prepared)?,
        };
        if let Some(kind) = kind {
            let target = mount.target.clone().into_bytes();
            prepared.mounts.push(SandboxMount { target, kind });
            prepared.again.push(match &mount.kind {
                MountKind::Cache { .. } => caches.again(position),
                MountKind::Secret { id, .. } => Again::Secret { id: id.clone() },
                MountKind::Ssh {
                    id, uid, gid, mode, ..
                } => Again::Agent {
                    id: id.clone(),
                    uid: *uid,
                    gid: *gid,
                    mode: *mode,
                },
                MountKind::Bind { .. } | MountKind::Tmpfs { .. } => Again::Stored,
            });
        }
    }
    prepared.caches = caches;
    Ok(prepared)
}

fn one(
    job: &StepJob,
    run: &Run,
    mount: &Mount,
    reading: &Reading,
    prepared: &mut PreparedMounts,
) -> Result<Option<SandboxMountKind>, StepError> {
    match &mount.kind {
        MountKind::Bind {
            from,
            source,
            is_read_only,
        } => bind(job, from, source, *is_read_only, reading).map(Some),
        MountKind::Cache { .. } => Err(StepError::Internal("cache mounts are prepared together")),
        MountKind::Tmpfs { size, is_read_only } => Ok(Some(SandboxMountKind::Tmpfs {
            size: *size,
            is_read_only: *is_read_only,
        })),
        MountKind::Secret {
            id,
            environment,
            is_required,
            uid,
            gid,
            mode,
        } => {
            let value = crate::secret::read(&job.solver.workspace.options.secrets, id)?;
            if value.is_none() && *is_required {
                return Err(StepError::SecretMissing { id: id.clone() });
            }
            if let Some(name) = environment {
                let value = value.clone().unwrap_or_default();
                prepared
                    .environment
                    .push((name.clone().into_bytes(), value));
                prepared.secret_variables.push((name.clone(), id.clone()));
            }
            let has_file = !mount.target.is_empty();
            Ok(value
                .filter(|_| has_file)
                .map(|content| SandboxMountKind::File {
                    content,
                    mode: *mode,
                    uid: *uid,
                    gid: *gid,
                }))
        }
        MountKind::Ssh {
            id,
            is_required,
            uid,
            gid,
            mode,
        } => {
            let owner = ssh::Owner {
                uid: *uid,
                gid: *gid,
                mode: *mode,
            };
            ssh(job, run, mount, (id, *is_required), owner, prepared)
        }
    }
}

fn ssh(
    job: &StepJob,
    run: &Run,
    mount: &Mount,
    (id, is_required): (&str, bool),
    owner: ssh::Owner,
    prepared: &mut PreparedMounts,
) -> Result<Option<SandboxMountKind>, StepError> {
    let workspace = &job.solver.workspace;
    let Some(given) = workspace.options.ssh.get(id) else {
        if is_required {
            return Err(StepError::SshMissing { id: id.to_owned() });
        }
        return Ok(None);
    };
    let forwarded = ssh::Forwarded::begin(workspace.scratch("ssh")?, id, given, owner)?;
    let is_known = run.environment.iter().any(|(name, _)| name == SSH_VARIABLE)
        || prepared
            .environment
            .iter()
            .any(|(name, _)| name == SSH_VARIABLE.as_bytes());
    if !is_known {
        prepared
            .environment
            .push((SSH_VARIABLE.into(), mount.target.clone().into_bytes()));
    }
    let kind = forwarded.mount();
    prepared.agents.push(forwarded);
    Ok(Some(kind))
}

fn bind(
    job: &StepJob,
    from: &Input,
    source: &str,
    is_read_only: bool,
    reading: &Reading,
) -> Result<SandboxMountKind, StepError> {
    let workspace = &job.solver.workspace;
    let access = if is_read_only {
        Access::ReadOnly
    } else {
        Access::Discarded(workspace.scratch("bind")?)
    };
    if *from == Input::Empty {
        return Ok(SandboxMountKind::Directory {
            root: workspace.scratch("bind")?,
            source: Vec::new(),
            access,
        });
    }
    if let Origin::Chain(chain) = copy::origin(job, from)? {
        return Ok(SandboxMountKind::Chain {
            lowers: chain.snapshot_paths(&workspace.store),
            source: source.trim_start_matches('/').into(),
            access,
            scratch: workspace.scratch("bind")?,
        });
    }
    let Reading::Context(found) = reading else {
        return Err(StepError::Internal("a context mount was not selected"));
    };
    Ok(SandboxMountKind::Directory {
        root: mirror(job, from, found)?,
        source: copy::MIRROR_NAME.to_vec(),
        access,
    })
}

/// Copies what was selected from a context into a directory of the lease: a mount then shows exactly what the key
/// was made of, without ignored files and with root as the owner.
pub(super) fn mirror(
    job: &StepJob,
    from: &Input,
    found: &[Selected],
) -> Result<std::path::PathBuf, StepError> {
    let workspace = &job.solver.workspace;
    let scratch = workspace.scratch("mirror")?;
    let origin = copy::origin(job, from)?;
    let is_foreign = matches!(origin, Origin::Directory(_));
    let request = FileJob {
        root: OverlaySpec {
            lowers: Vec::new(),
            scratch: scratch.clone(),
        },
        sources: vec![origin.source_root(job)?],
        operations: copy::mirror(found, is_foreign)?,
    };
    let outcome = workspace.change_files(request)?;
    if !copy::is_as_selected(found, &outcome.copied)? {
        // Files of a context may change while a build reads them; what lies in the store may not.
        return Err(if is_foreign {
            StepError::ContextChanged
        } else {
            StepError::DamagedSnapshot
        });
    }
    Ok(scratch.join("upper"))
}
