//! What all parts of one build share.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rbuild_cache::{Chain, ChainId, DiffId, LayerError, Lease, SnapshotId, Store};
use rbuild_frontend::graph::{Graph, ImageReference, ImageRequest, Operation, StepIndex};
use rbuild_frontend::platform::Platform;
use rbuild_runner::isolation::{self, IdSource, Rung};
use rbuild_runner::job::{FileJob, FileOutcome};
use rbuild_runner::{JobErrorKind, Spawner};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::hosts;
use super::network::{LentNetwork, Networks, Recipe};
use crate::context::{self, Contexts, LocalDockerfile};
use crate::download::{self, UrlSource};
use crate::engine::Engine;
use crate::error::{BuildError, StepError};
use crate::event::{Event, EventSink};
use crate::git::{self, GitSource};
use crate::history::recorder::Recorder;
use crate::keys::{BaseId, Settings};
use crate::options::BuildOptions;
use crate::pull::{ImageSources, PullError, ResolvedBase};
use crate::registry::{ClientOptions, RegistryClient};
use crate::remote::{Caches, Remote};
use crate::tasks::Tasks;
use crate::tree::layered::LayeredTree;

/// Steps at once, for each CPU: steps often wait for the network or the disk.
const STEPS_PER_CPU: usize = 2;

/// Fewest steps at once when nothing else is asked for.
const MIN_PARALLELISM: usize = 4;

/// What was asked of servers in one build.
#[derive(Debug, Default)]
struct Sources {
    commits: HashMap<GitSource, git::Resolved>,
    files: HashMap<(String, Option<String>), UrlSource>,
}

/// One build's store, lease, spawner, contexts and settings.
pub(crate) struct Workspace {
    pub(crate) store: Store,
    pub(crate) lease: Lease,
    pub(crate) spawner: Spawner,
    pub(crate) contexts: Contexts,
    pub(crate) options: BuildOptions,
    pub(crate) events: EventSink,
    /// Hears all events before the listener; none when the history can't be written.
    pub(crate) recorder: Option<Arc<Recorder>>,
    pub(crate) cancel: CancellationToken,
    /// Blocking work in flight: waited for before a build ends.
    pub(crate) tasks: TaskTracker,
    /// Set when the Dockerfile is known, which may say what `SOURCE_DATE_EPOCH` is.
    settings: OnceLock<Settings>,
    /// Private networks of RUN steps.
    networks: Arc<Networks>,
    /// Where steps are done.
    rung: Rung,
    /// Set when what `RUN` steps share with the surrounding container was told.
    has_told_ground: OnceLock<()>,
    /// What `/etc/resolv.conf` holds in a RUN step.
    pub(crate) resolv_conf: Vec<u8>,
    pub(crate) images: ImageSources,
    pub(crate) caches: Caches,
    /// Base images that were looked up in this build: a tag means one image in one build.
    resolved: Mutex<BTreeMap<ImageRequest, Arc<ResolvedBase>>>,
    /// What references and addresses were in this build: a branch means one commit in one build. Held for single
    /// insertions only.
    sources: Mutex<Sources>,
    /// Snapshots that were looked at in this build. Held for single insertions only.
    checked: Mutex<HashSet<SnapshotId>>,
    /// Merged views of chains, made when a key needs one.
    trees: Mutex<HashMap<ChainId, Arc<LayeredTree>>>,
}

impl std::fmt::Debug for Workspace {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Options hold secrets' places, never their values; still nothing of them belongs in a log.
        formatter
            .debug_struct("Workspace")
            .field("store", &self.store.root())
            .finish_non_exhaustive()
    }
}

impl Workspace {
    pub(super) fn new(
        engine: &Engine,
        options: BuildOptions,
        dockerfile: Option<&LocalDockerfile>,
        events: EventSink,
        cancel: CancellationToken,
    ) -> Result<Self, BuildError> {
        let mut workspace = Self::open(engine, options, events, cancel)?;
        // The last that could fail has not: from here on there is a build to tell of.
        let options = &workspace.options;
        let dockerfile = context::dockerfile_name(options, dockerfile);
        workspace.recorder =
            Recorder::begin(&workspace.store, &workspace.lease, options, &dockerfile);
        if let Some(recorder) = &workspace.recorder {
            (workspace.events)(Event::Recorded {
                build: recorder.id().to_owned(),
            });
            workspace.events = recorder.sink(workspace.events);
        }
        let events = &workspace.events;
        workspace.caches = Caches::open(
            &options.cache_from,
            &options.cache_to,
            Arc::clone(events),
            Remote::of(options, &workspace.store, &workspace.cancel),
        );
        workspace.images.tasks = Tasks::new(Arc::clone(events));
        Ok(workspace)
    }

    /// For who fetches a context to look at its Dockerfile: nothing is recorded, and nobody listens.
    pub(crate) fn for_a_look(engine: &Engine, options: BuildOptions) -> Result<Self, BuildError> {
        Self::open(engine, options, Arc::new(|_| {}), CancellationToken::new())
    }

    fn open(
        engine: &Engine,
        options: BuildOptions,
        events: EventSink,
        cancel: CancellationToken,
    ) -> Result<Self, BuildError> {
        let store = engine.store().clone();
        let spawner = engine.spawner().clone();
        let lease = store.lease().map_err(BuildError::store)?;
        let contexts = Contexts::new(&options, store.clone())?;
        let images = ImageSources {
            store: store.clone(),
            spawner: spawner.clone(),
            client: RegistryClient::with_settings(
                ClientOptions::default(),
                options.registries.clone(),
            ),
            tasks: Tasks::new(Arc::clone(&events)),
        };
        let remote = Remote::of(&options, &store, &cancel);
        Ok(Self {
            settings: OnceLock::new(),
            store,
            lease,
            spawner,
            contexts,
            options,
            caches: Caches::open(&[], &[], Arc::clone(&events), remote),
            events,
            recorder: None,
            cancel,
            tasks: TaskTracker::new(),
            networks: Arc::default(),
            rung: engine.rung()?.clone(),
            has_told_ground: OnceLock::new(),
            // A machine without a resolver still builds: only names stay unknown.
            resolv_conf: std::fs::read("/etc/resolv.conf").unwrap_or_default(),
            images,
            resolved: Mutex::default(),
            sources: Mutex::default(),
            checked: Mutex::default(),
            trees: Mutex::default(),
        })
    }

    /// Says what `SOURCE_DATE_EPOCH` is, in seconds; once, before anything is planned.
    pub(super) fn set_source_date_epoch(&self, seconds: Option<i64>) {
        let is_first = self
            .settings
            .set(Settings::of(&self.options, seconds))
            .is_ok();
        debug_assert!(is_first, "there is one Dockerfile in a build");
    }

    /// `SOURCE_DATE_EPOCH` in seconds.
    pub(crate) fn source_date_epoch(&self) -> Option<i64> {
        self.settings().source_date_epoch
    }

    /// What steps see of the build.
    pub(crate) fn settings(&self) -> &Settings {
        self.settings
            .get_or_init(|| Settings::of(&self.options, self.options.source_date_epoch))
    }

    /// Sends an event.
    pub(crate) fn emit(&self, event: Event) {
        (self.events)(event);
    }

    /// Looks, once a build, whether a chain's snapshots still hold the files that were recorded of them. A damaged one is
    /// taken out of the store, so that the next build makes or pulls it anew. Blocks.
    ///
    /// Types and sizes only: flipped bits in a file are found when a layer is packed.
    pub(crate) fn check_chain(&self, chain: &Chain) -> Result<(), StepError> {
        for layer in chain {
            // Mostly it was: a build of many steps comes here with one layer more each time.
            if self.lock_checked().contains(&layer.snapshot) {
                continue;
            }
            self.is_fresh(&layer.snapshot);
            match self.lease.verify_snapshot(&layer.snapshot) {
                Err(LayerError::Db(error)) => return Err(StepError::store(error)),
                verified => verified.map_err(|error| StepError::Damaged {
                    diff_id: layer.diff_id.to_string(),
                    source: Box::new(error),
                })?,
            }
        }
        Ok(())
    }

    /// Says that a snapshot needs no check, or no further one: it was made in this build, or is being looked at.
    pub(crate) fn is_fresh(&self, snapshot: &SnapshotId) {
        self.lock_checked().insert(snapshot.clone());
    }

    fn lock_checked(&self) -> std::sync::MutexGuard<'_, HashSet<SnapshotId>> {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs blocking work off the async threads.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        match self.tasks.spawn_blocking(work).await {
            Ok(value) => value,
            Err(failure) => std::panic::resume_unwind(failure.into_panic()),
        }
    }

    /// Drops the work when the build is cancelled: what waits for the network ends at once, and a job whose future is
    /// dropped is cancelled.
    pub(crate) async fn unless_cancelled<T>(
        &self,
        work: impl Future<Output = Result<T, BuildError>>,
    ) -> Result<T, BuildError> {
        match self.cancel.run_until_cancelled(work).await {
            Some(result) if !self.cancel.is_cancelled() => result,
            _ => Err(BuildError::Interrupted),
        }
    }

    /// Changes files beneath a root, unless the build is cancelled before that is done. Blocks.
    pub(crate) fn change_files(&self, request: FileJob) -> Result<FileOutcome, StepError> {
        let handle = self.spawner.begin_files(request).map_err(StepError::Job)?;
        let (canceller, token) = (handle.canceller(), self.cancel.clone());
        let watcher = tokio::spawn(async move {
            token.cancelled().await;
            canceller.cancel();
        });
        let outcome = handle.wait();
        watcher.abort();
        outcome.map_err(|error| match error.kind {
            JobErrorKind::Cancelled => StepError::Cancelled,
            _ => StepError::Job(error),
        })
    }

    /// How many steps may run at once.
    pub(crate) fn max_parallelism(&self) -> usize {
        self.options.max_parallelism.unwrap_or_else(|| {
            let cpus = std::thread::available_parallelism().map_or(1, usize::from);
            (cpus * STEPS_PER_CPU).max(MIN_PARALLELISM)
        })
    }

    /// A fresh empty directory of the lease.
    pub(crate) fn scratch(&self, name: &str) -> Result<PathBuf, StepError> {
        self.lease.scratch(name).map_err(StepError::store)
    }

    /// Keeps a chain's snapshots until the build ends.
    pub(crate) fn hold(&self, chain: &Chain) -> Result<(), BuildError> {
        self.lease.hold(chain).map_err(BuildError::store)
    }

    /// Looks a base image up, once a build.
    pub(crate) async fn resolve(
        &self,
        request: &ImageRequest,
    ) -> Result<Arc<ResolvedBase>, PullError> {
        let known = self.lock_resolved().get(request).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let base = Arc::new(
            self.images
                .resolve(
                    &request.reference,
                    &request.platform,
                    self.options.pull,
                    &self.lease,
                )
                .await?,
        );
        self.lock_resolved()
            .insert(request.clone(), Arc::clone(&base));
        Ok(base)
    }

    /// The commit that a git source means, asked once a build.
    pub(crate) async fn commit_of(&self, source: &GitSource) -> Result<git::Resolved, StepError> {
        let known = self.lock_sources().commits.get(source).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let resolved = git::resolve(self, source).await?;
        let mut sources = self.lock_sources();
        let resolved = sources.commits.entry(source.clone()).or_insert(resolved);
        Ok(resolved.clone())
    }

    /// The file at an address, asked once a build.
    pub(crate) async fn file_at(
        self: &Arc<Self>,
        url: &str,
        checksum: Option<&str>,
    ) -> Result<UrlSource, StepError> {
        let address = (url.to_owned(), checksum.map(str::to_owned));
        let known = self.lock_sources().files.get(&address).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let file = download::resolve(self, url, checksum).await?;
        let mut sources = self.lock_sources();
        Ok(sources.files.entry(address).or_insert(file).clone())
    }

    fn lock_sources(&self) -> std::sync::MutexGuard<'_, Sources> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a base image has `ONBUILD` triggers: instructions that are not in the Dockerfile.
    pub(super) fn has_triggers(&self) -> bool {
        let resolved = self.lock_resolved();
        resolved
            .values()
            .any(|base| !base.config.config.on_build.is_empty())
    }

    /// Says which rung of isolation was taken, unless it is the strongest.
    pub(super) fn tell_isolation(&self) {
        let maps = match &self.rung {
            Rung::Namespaces => return,
            Rung::Userns(maps) => maps,
            Rung::Chroot { because, remedy } => {
                self.emit(Event::Notice(chroot_words(because, remedy)));
                return;
            }
        };
        let text = match &maps.source {
            IdSource::Single { because, remedy } if maps.ignores_chown_errors => format!(
                "isolation: userns with a single id ({because}): all owners are left out, as `--ignore-chown-errors` asks; {remedy}"
            ),
            IdSource::Single { because, remedy } => format!(
                "isolation: userns with a single id ({because}): steps that need another owner fail; {remedy}"
            ),
            IdSource::Granted { .. } | IdSource::Own => {
                format!("isolation: userns with {} user ids", maps.counts().0)
            }
        };
        self.emit(Event::Notice(text));
    }

    /// Says once a build, before the first command runs, what it would see of the surroundings. Blocks.
    pub(crate) fn tell_ground(&self) -> Result<(), StepError> {
        let has_questions = match &self.rung {
            Rung::Namespaces => self.spawner.doubts_overlays(),
            Rung::Userns(_) => true,
            Rung::Chroot { .. } => false,
        };
        if !has_questions || self.has_told_ground.set(()).is_err() {
            return Ok(());
        }
        let ground = self.spawner.describe().map_err(StepError::Job)?;
        if !ground.has_overlays {
            let doubt = isolation::overlay_doubt(self.store.root());
            let (place, remedy) =
                doubt.unwrap_or(("a file system without overlays", "`--root DIR`"));
            self.emit(Event::Notice(format!(
                "the store is on {place}: steps work on copies of their root file systems instead, made once along a chain; \
                 for speed, {remedy}"
            )));
        }
        if !ground.has_own_proc {
            self.emit(Event::Notice(
                "RUN steps see the processes of this container: parts of its /proc are covered, so there can be no new one; \
                 `rbuild info` says what to do"
                    .to_owned(),
            ));
        }
        if !ground.has_own_hostname {
            self.emit(Event::Notice(
                "RUN steps keep this container's host name: its seccomp filter refuses another"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    /// A private network for one RUN step; none where there can be none, which is told once. Blocks.
    pub(crate) fn private_network(&self) -> Result<Option<LentNetwork>, StepError> {
        if matches!(self.rung, Rung::Chroot { .. }) {
            return Ok(None); // the step says so itself
        }
        let directory = self.lease.dir().map_err(StepError::store)?;
        let name = directory.file_name().unwrap_or_default().to_string_lossy();
        let recipe = Recipe {
            spawner: &self.spawner,
            resolv_conf: &self.resolv_conf,
            leads_to_host: hosts::lead_to_host(&self.options.extra_hosts),
            name: &name,
        };
        let tell = |text| self.emit(Event::Notice(text));
        Ok(self.networks.take(&recipe, tell))
    }

    fn lock_resolved(
        &self,
    ) -> std::sync::MutexGuard<'_, BTreeMap<ImageRequest, Arc<ResolvedBase>>> {
        self.resolved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The layers of a base image, in the store.
    pub(crate) async fn image_chain(
        &self,
        reference: &ImageReference,
        platform: &Platform,
    ) -> Result<Chain, StepError> {
        let request = ImageRequest {
            reference: reference.clone(),
            platform: platform.clone(),
        };
        let found = async {
            let base = self.resolve(&request).await?;
            self.images.chain(&base, &self.lease).await
        };
        match self.cancel.run_until_cancelled(found).await {
            Some(result) => result.map_err(|error| StepError::Image(Box::new(error))),
            None => Err(StepError::Cancelled),
        }
    }

    /// Looks up every image that the graph takes layers from: the planner asks only for those whose config it needs.
    pub(crate) async fn resolve_images(&self, graph: &Graph) -> Result<(), BuildError> {
        for (index, step) in graph.steps.iter().enumerate() {
            let Operation::Image(reference) = &step.operation else {
                continue;
            };
            let request = ImageRequest {
                reference: reference.clone(),
                platform: step.platform.clone(),
            };
            self.resolve(&request).await.map_err(|error| {
                BuildError::step(graph, StepIndex(index), StepError::Image(Box::new(error)))
            })?;
        }
        Ok(())
    }

    /// What an image step's layers are called in definition keys: the chain id of its config's diff_ids, known without
    /// its layers. None for other steps.
    pub(crate) fn base_id(
        &self,
        graph: &Graph,
        index: StepIndex,
    ) -> Result<Option<BaseId>, StepError> {
        let step = &graph.steps[index.0];
        let Operation::Image(reference) = &step.operation else {
            return Ok(None);
        };
        let request = ImageRequest {
            reference: reference.clone(),
            platform: step.platform.clone(),
        };
        let resolved = self.lock_resolved();
        let base = resolved
            .get(&request)
            .ok_or(StepError::Internal("an image was not looked up"))?;
        let mut chain: Option<ChainId> = None;
        for diff_id in &base.config.rootfs.diff_ids {
            let diff_id = DiffId(crate::convert::digest(diff_id)?);
            chain = Some(ChainId::extend(chain.as_ref(), &diff_id));
        }
        Ok(Some(BaseId::of(chain.as_ref())))
    }

    /// An image step's image for people: its name, and the digest of its manifest, or of its config if it has none.
    /// None for other steps.
    pub(crate) fn base_name(&self, graph: &Graph, index: StepIndex) -> Option<(String, String)> {
        let step = &graph.steps[index.0];
        let Operation::Image(reference) = &step.operation else {
            return None;
        };
        let request = ImageRequest {
            reference: reference.clone(),
            platform: step.platform.clone(),
        };
        let resolved = self.lock_resolved();
        let base = resolved.get(&request)?;
        let digest = base.manifest_digest.as_ref().unwrap_or(&base.config_digest);
        Some((super::plan::name(reference), digest.to_string()))
    }

    /// The merged view of a chain.
    pub(crate) fn layered_tree(
        &self,
        chain: &Chain,
        title: impl FnOnce() -> String,
    ) -> Result<Arc<LayeredTree>, StepError> {
        let Some(id) = chain.chain_id() else {
            return Ok(Arc::new(LayeredTree::load(&self.store, chain, title())?));
        };
        let mut trees = self.trees.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tree) = trees.get(&id) {
            return Ok(Arc::clone(tree));
        }
        let tree = Arc::new(LayeredTree::load(&self.store, chain, title())?);
        trees.insert(id, Arc::clone(&tree));
        Ok(tree)
    }
}

fn chroot_words(because: &str, remedy: &str) -> String {
    let more = match remedy {
        "" => String::new(),
        remedy => format!("; for more: {remedy}"),
    };
    format!(
        "isolation: chroot ({because}): steps share this container's processes, network and host name, and have no mounts{more}"
    )
}
