//! A failed step that was kept, as its command had it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rbuild_cache::{CacheMountGuard, CacheMountId, Kept, Lease};
use rbuild_runner::job::{Access, OverlaySpec, SandboxMount, SandboxMountKind};

use super::{Asked, Open, ShellError, set, store_failed, verify};
use crate::engine::Engine;
use crate::error::StepError;
use crate::kept::{Again, Description, KeptSharing};
use crate::secret;
use crate::steps::mounts::SSH_VARIABLE;
use crate::steps::ssh::{Forwarded, Owner};

/// Where an overlay's changes are, in its scratch directory.
const UPPER: &str = "upper";

/// Where a file is that was mounted to be written to: overlays have directories only.
const FILE: &str = "file";

/// How long a cache mount is waited for before that is told.
const QUIET: Duration = Duration::from_millis(500);

/// Makes a job of what is kept. Blocks.
pub(super) fn reopen(
    engine: &Engine,
    lease: &Lease,
    kept: &Kept,
    asked: &Asked<'_>,
) -> Result<Open, ShellError> {
    let description = Description::read(&kept.description, &kept.path, engine.store().root());
    let Some(description) = description else {
        return Err(ShellError::Unreadable {
            step: kept.title.clone(),
        });
    };
    let snapshots = description.snapshots_in(engine.store().root());
    verify(lease, snapshots.iter(), &kept.title)?;
    let mut job = description.job.clone();
    let upper = job.root.scratch.join(UPPER);
    if upper.is_dir() {
        job.root.lowers.push(upper);
    }
    job.root = OverlaySpec {
        lowers: job.root.lowers,
        scratch: lease.scratch("shell").map_err(store_failed)?,
    };
    for name in &description.left_out {
        if let Some(value) = asked.value_of(name) {
            set(&mut job.environment, name, value.as_bytes());
        }
    }
    let mut opener = Opener {
        lease,
        asked,
        caches: lock_caches(engine, &description, asked)?,
        agents: Vec::new(),
        environment: Vec::new(),
    };
    let mounts = std::mem::take(&mut job.mounts);
    for (mount, again) in mounts.into_iter().zip(&description.again) {
        if let Some(kind) = opener.mount(&mount, again)? {
            let target = mount.target;
            job.mounts.push(SandboxMount { target, kind });
        }
    }
    for (name, id) in &description.secret_variables {
        if let Some(value) = opener.secret(id)? {
            set(&mut job.environment, name, &value);
        }
    }
    for (name, value) in &opener.environment {
        if !job.environment.iter().any(|(known, _)| known == name) {
            job.environment.push((name.clone(), value.clone()));
        }
    }
    Ok(Open {
        job,
        leads_to_host: description.leads_to_host,
        caches: opener.caches.into_values().collect(),
        agents: opener.agents,
    })
}

struct Opener<'a> {
    lease: &'a Lease,
    asked: &'a Asked<'a>,
    /// By identity.
    caches: BTreeMap<String, CacheMountGuard>,
    agents: Vec<Forwarded>,
    /// Variables that agents set.
    environment: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Opener<'_> {
    /// What is mounted again; none when it can't be had without being given.
    fn mount(
        &mut self,
        mount: &SandboxMount,
        again: &Again,
    ) -> Result<Option<SandboxMountKind>, ShellError> {
        Ok(match (again, &mount.kind) {
            (Again::Stored, kind) => Some(self.stored(kind)?),
            (Again::Cache { identity, .. }, SandboxMountKind::Directory { access, .. }) => self
                .caches
                .get(identity)
                .map(|guard| SandboxMountKind::Directory {
                    root: guard.path().to_owned(),
                    source: Vec::new(),
                    access: access.clone(),
                }),
            (Again::Secret { id }, SandboxMountKind::File { mode, uid, gid, .. }) => {
                self.secret(id)?.map(|content| SandboxMountKind::File {
                    content,
                    mode: *mode,
                    uid: *uid,
                    gid: *gid,
                })
            }
            (Again::Agent { id, uid, gid, mode }, _) => {
                let owner = Owner {
                    uid: *uid,
                    gid: *gid,
                    mode: *mode,
                };
                self.agent(id, owner, &mount.target)?
            }
            (Again::Cache { .. } | Again::Secret { .. }, _) => None,
        })
    }

    /// What was written to it is seen, and what is written now is thrown away.
    fn stored(&self, kind: &SandboxMountKind) -> Result<SandboxMountKind, ShellError> {
        let scratch = |name| self.lease.scratch(name).map_err(store_failed);
        Ok(match kind {
            SandboxMountKind::Directory {
                root,
                source,
                access: Access::Discarded(written),
            } => {
                let access = Access::Discarded(scratch("bind")?);
                if written.join(FILE).is_file() {
                    return Ok(SandboxMountKind::Directory {
                        root: written.clone(),
                        source: FILE.into(),
                        access,
                    });
                }
                // A name that rbuild gave, or none.
                let source = root.join(String::from_utf8_lossy(source).as_ref());
                let written = Some(written.join(UPPER)).filter(|upper| upper.is_dir());
                SandboxMountKind::Chain {
                    lowers: std::iter::once(source).chain(written).collect(),
                    source: Vec::new(),
                    access,
                    scratch: scratch("bind")?,
                }
            }
            SandboxMountKind::Chain {
                lowers,
                source,
                access,
                ..
            } => {
                let mut lowers = lowers.clone();
                let access = match access {
                    Access::Discarded(written) => {
                        lowers.extend(Some(written.join(UPPER)).filter(|upper| upper.is_dir()));
                        Access::Discarded(scratch("bind")?)
                    }
                    access => access.clone(),
                };
                SandboxMountKind::Chain {
                    lowers,
                    source: source.clone(),
                    access,
                    scratch: scratch("bind")?,
                }
            }
            kind => kind.clone(),
        })
    }

    fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, ShellError> {
        let value = secret::read(&self.asked.options.secrets, id).map_err(ShellError::Mount)?;
        if value.is_none() {
            (self.asked.tell)(format!(
                "the secret `{id}` is not there: secrets are never kept; give it with `--secret id={id},src=FILE`"
            ));
        }
        Ok(value)
    }

    fn agent(
        &mut self,
        id: &str,
        owner: Owner,
        target: &[u8],
    ) -> Result<Option<SandboxMountKind>, ShellError> {
        let Some(given) = self.asked.options.ssh.get(id) else {
            (self.asked.tell)(format!(
                "the ssh agent `{id}` is not there; give it with `--ssh {id}`"
            ));
            return Ok(None);
        };
        let directory = self.lease.scratch("ssh").map_err(store_failed)?;
        let forwarded = Forwarded::begin(directory, id, given, owner).map_err(ShellError::Mount)?;
        let kind = forwarded.mount();
        self.agents.push(forwarded);
        self.environment.push((SSH_VARIABLE.into(), target.into()));
        Ok(Some(kind))
    }
}

/// Takes all cache mounts, in the order of their identities as steps do, so that nobody waits for one another.
fn lock_caches(
    engine: &Engine,
    description: &Description,
    asked: &Asked<'_>,
) -> Result<BTreeMap<String, CacheMountGuard>, ShellError> {
    let mut wanted: BTreeMap<&String, (&String, KeptSharing)> = BTreeMap::new();
    for again in &description.again {
        if let Again::Cache {
            identity,
            title,
            sharing,
        } = again
        {
            wanted.insert(identity, (title, *sharing));
        }
    }
    let mut guards = BTreeMap::new();
    for (identity, (title, sharing)) in wanted {
        let id = CacheMountId {
            identity: identity.clone(),
            title: title.clone(),
        };
        let (started, has_told) = (Instant::now(), std::cell::Cell::new(false));
        let is_cancelled = || {
            if started.elapsed() > QUIET && !has_told.replace(true) {
                (asked.tell)(format!(
                    "waiting for the cache mount `{title}`, which a running step has for itself"
                ));
            }
            asked.cancel.is_cancelled()
        };
        let guard = engine
            .store()
            .lock_cache_mount(&id, sharing.into(), is_cancelled)
            .map_err(store_failed)?
            .ok_or(ShellError::Interrupted)?;
        if guard.is_new() {
            (asked.tell)(format!(
                "the cache mount `{title}` was removed meanwhile: it is empty"
            ));
        }
        guards.insert(identity.clone(), guard);
    }
    Ok(guards)
}

impl From<StepError> for ShellError {
    fn from(error: StepError) -> Self {
        Self::Mount(error)
    }
}
