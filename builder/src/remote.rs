//! Caches outside the store: where `--cache-from` looks, and what `--cache-to` keeps.
//!
//! Nothing here ends a build. A cache that fails, lies or is damaged is told of once, and the build goes on without what
//! it would have given. Records are looked up when the store has none; layers are fetched only for the records that the
//! build then needs: those of the target, or of steps that others have to be done upon.

mod publish;
mod registry;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use rbuild_cache::{
    CacheBackend, CachedStep, DirectoryBackend, KeyPart, Lease, StepKey, StepRecord, Store,
};
use rbuild_frontend::reference::Reference;
use tokio_util::sync::CancellationToken;

pub use self::registry::LONGEST_TAG as LONGEST_CACHE_TAG;
use self::registry::RegistryBackend;

use crate::event::{Event, EventSink};
use crate::explain::parts;
use crate::options::{BuildOptions, CacheKind, CacheSource, CacheTarget};
use crate::pull::ImageSources;
use crate::registry::{ClientOptions, RegistryClient};

/// The caches of one build.
pub(crate) struct Caches {
    remote: Remote,
    sources: Vec<Arc<dyn CacheBackend>>,
    targets: Vec<CacheTarget>,
    events: EventSink,
    /// What was told of. Held for single insertions only, and so is `broken`.
    warned: Mutex<BTreeSet<String>>,
    /// Titles of caches that gave layers which are not what they should be: nothing is fetched from them any more, and
    /// what they have is written anew.
    broken: Mutex<BTreeSet<String>>,
    /// What there is to publish. Held for single additions only.
    results: Mutex<Vec<KeyedResult>>,
}

/// What caches in registries need.
pub(crate) struct Remote {
    /// Speaks to them, with less patience than for images.
    pub(crate) client: RegistryClient,
    /// Where blobs lie.
    pub(crate) store: Store,
    /// Ends every wait.
    pub(crate) cancel: CancellationToken,
}

impl Remote {
    /// For one build.
    pub(crate) fn of(options: &BuildOptions, store: &Store, cancel: &CancellationToken) -> Self {
        let registries = options.registries.clone();
        Self {
            client: RegistryClient::with_settings(ClientOptions::of_a_cache(), registries),
            store: store.clone(),
            cancel: cancel.clone(),
        }
    }

    fn backend(&self, reference: &Reference) -> RegistryBackend {
        let (client, store) = (self.client.clone(), self.store.clone());
        RegistryBackend::new(reference, client, store, self.cancel.clone())
    }
}

/// A step's result with its keys.
struct KeyedResult {
    keys: Vec<StepKey>,
    record: StepRecord,
    /// Its layer is one of the image's.
    is_in_image: bool,
}

/// A record that was found, its layers not fetched.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    step: CachedStep,
    backend: Arc<dyn CacheBackend>,
}

impl Caches {
    /// Opens the caches to read from. Those that can't be used are told of.
    pub(crate) fn open(
        sources: &[CacheSource],
        targets: &[CacheTarget],
        events: EventSink,
        remote: Remote,
    ) -> Self {
        let mut caches = Self {
            remote,
            sources: Vec::new(),
            targets: targets.to_vec(),
            events,
            warned: Mutex::default(),
            broken: Mutex::default(),
            results: Mutex::default(),
        };
        for source in sources {
            match &source.kind {
                CacheKind::Directory(path) => match DirectoryBackend::open(path) {
                    Ok(backend) => caches.sources.push(Arc::new(backend)),
                    Err(error) => caches.warn(&source.text, "cannot read", &error),
                },
                CacheKind::Registry(reference) => {
                    let backend = caches.remote.backend(reference);
                    caches.sources.push(Arc::new(backend));
                }
                // Where it leads only a push knows: nothing to read from.
                CacheKind::Inline => {}
                CacheKind::Unknown(kind) => caches.unknown(&source.text, kind),
            }
        }
        caches
    }

    /// A record of this key in the first cache that has one; its snapshots are not there. Blocks.
    pub(crate) fn lookup(&self, key: &StepKey) -> Option<(StepRecord, Found)> {
        let usable = self
            .sources
            .iter()
            .filter(|backend| !self.is_broken(&backend.title()));
        usable.into_iter().find_map(|backend| {
            let step = backend.lookup(key).unwrap_or_else(|error| {
                self.warn(&backend.title(), "cannot read a record of", &error);
                None
            })?;
            let record = without_run(step.unfetched()?);
            let backend = Arc::clone(backend);
            Some((record, Found { step, backend }))
        })
    }

    /// Fetches the layers of a record and holds them; none when that fails or they are not what the record says.
    pub(crate) async fn fetch(
        &self,
        found: &Found,
        images: &ImageSources,
        lease: &Lease,
    ) -> Option<StepRecord> {
        let title = found.backend.title();
        match images
            .chain_from_cache(&found.step, &found.backend, lease)
            .await
        {
            Ok(chain) => {
                let record = found.step.fetched(&chain);
                if record.is_none() {
                    self.break_off(&title);
                    self.tell(
                        &title,
                        "cannot use",
                        "its layers are not what its record says",
                    );
                }
                record.map(without_run)
            }
            Err(error) => {
                self.break_off(&title);
                self.warn(&title, "cannot use", &error);
                None
            }
        }
    }

    fn break_off(&self, title: &str) {
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        broken.insert(title.to_owned());
    }

    fn is_broken(&self, title: &str) -> bool {
        let broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        broken.contains(title)
    }

    /// Whether there is any cache to look in.
    pub(crate) fn has_sources(&self) -> bool {
        !self.sources.is_empty()
    }

    /// Whether results are wanted at all.
    pub(crate) fn publishes(&self) -> bool {
        !self.targets.is_empty()
    }

    /// Notes a result for publishing.
    pub(crate) fn note(&self, keys: Vec<StepKey>, record: &StepRecord, is_in_image: bool) {
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        results.push(KeyedResult {
            keys,
            record: without_run(record.clone()),
            is_in_image,
        });
    }

    fn unknown(&self, text: &str, kind: &str) {
        self.tell(
            text,
            "cannot use",
            &format!(
                "caches of type `{kind}` are not implemented, only `local`, `registry` and `inline`"
            ),
        );
    }

    fn warn(&self, title: &str, what: &str, error: &dyn std::error::Error) {
        self.tell(title, what, &words_of(error));
    }

    /// Once for each cache: the build goes on.
    fn tell(&self, title: &str, what: &str, why: &str) {
        let is_new = {
            let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
            warned.insert(format!("{title} {what}"))
        };
        if is_new {
            let words = format!("{what} the cache `{title}`: {why}; building without it");
            (self.events)(Event::Notice(words));
        } else {
            tracing::debug!(cache = title, why, "cache not used");
        }
    }
}

/// An error and its causes in one line.
fn words_of(error: &dyn std::error::Error) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    let mut words: Vec<String> = chain.map(ToString::to_string).collect();
    words.dedup();
    words.join(": ")
}

/// Logs stay in the store that they were written in.
fn without_run(record: StepRecord) -> StepRecord {
    let is_run = |part: &KeyPart| part.name == parts::RAN_IN;
    StepRecord {
        parts: record
            .parts
            .into_iter()
            .filter(|part| !is_run(part))
            .collect(),
        ..record
    }
}
