//! What is fetched from elsewhere: URLs, git repositories, archives.
//!
//! Whatever comes in becomes one layer of the store, recorded under what is known of it before it is fetched (a commit,
//! a checksum, an `ETag`). So it is read like the root of a stage, its keys come from its entry table, owners and
//! times are its own, it can't change while a build reads it, and garbage collection treats it like every other layer.

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rbuild_cache::{
    Chain, ContentDigest, EntryKind, KeyEncoder, KeyPart, Layer, StepKey, StepRecord,
};
use rbuild_runner::job::{
    CopyOperation, FileJob, FileOperation, OverlaySpec, SelectedEntry, Selection, SourceRoot,
};

use crate::build::Workspace;
use crate::download::{self, UrlSource};
use crate::error::StepError;
use crate::git::{self, GitSource};
use crate::keys::InputKey;
use crate::select::{self, Request, Selected};
use crate::tree::SourceTree;
use crate::tree::layered::LayeredTree;

/// Raised when what is made of an archive changes.
const KEY_VERSION: u32 = 1;

/// Something that an `ADD` names by its address, as far as a key needs to know it.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// A file.
    Url(UrlSource),
    /// A repository at a commit.
    Git(GitSource, git::Resolved),
}

impl Source {
    /// What a step that reads it has in its key.
    pub(crate) fn input_key(&self) -> InputKey {
        match self {
            Self::Url(url) => url.input_key(),
            Self::Git(source, resolved) => source.input_key(resolved),
        }
    }

    /// Fetches it, unless the store has it.
    pub(crate) async fn fetch(&self, workspace: &Arc<Workspace>) -> Result<Fetched, StepError> {
        match self {
            Self::Url(url) => download::fetch(workspace, url).await,
            Self::Git(source, resolved) => git::fetch(workspace, source, resolved).await,
        }
    }

    /// The commit's time, or the file's, in seconds since the epoch; not every server says one.
    pub(crate) async fn time(&self, workspace: &Arc<Workspace>) -> Result<Option<i64>, StepError> {
        let fetched = self.fetch(workspace).await?;
        match self {
            Self::Git(..) => Ok(git::commit_time(&fetched)),
            Self::Url(_) => {
                let inner = Arc::clone(workspace);
                workspace
                    .blocking(move || download::time_of(&inner, &fetched))
                    .await
            }
        }
    }

    /// What an `ADD` of it copies.
    pub(crate) fn select(
        &self,
        fetched: &Fetched,
        exclude: &[String],
    ) -> Result<Vec<Selected>, StepError> {
        let (source, name) = match self {
            Self::Url(url) => (download::FILE_NAME, Some(url.name())),
            Self::Git(..) => ("/", None),
        };
        let request = Request {
            source,
            keeps_parents: false,
            exclude,
        };
        let mut found = select::select(&fetched.shared_tree(), &request)?;
        if let (Some(name), [file]) = (name, &mut found[..]) {
            file.name = name.as_bytes().to_vec();
        }
        Ok(found)
    }
}

/// Fetched files: one layer of the store, held by the build.
#[derive(Clone, Debug)]
pub(crate) struct Fetched {
    chain: Chain,
    pub(crate) tree: Arc<LayeredTree>,
    facts: Vec<KeyPart>,
}

/// What a record says besides the files.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// For people who look at the store.
    pub(crate) title: String,
    /// What was learnt while fetching.
    pub(crate) facts: Vec<KeyPart>,
}

impl Fetched {
    /// What an earlier build recorded under `key`, if its files are still whole. `title` is what messages call the
    /// tree. Blocks.
    pub(crate) fn recorded(
        workspace: &Workspace,
        key: &StepKey,
        title: String,
    ) -> Result<Option<Self>, StepError> {
        let Some(record) = workspace.lease.lookup(key).map_err(StepError::store)? else {
            return Ok(None);
        };
        // A damaged one is taken out of the store by the check, and fetched again.
        if workspace.check_chain(&record.chain).is_err() {
            return Ok(None);
        }
        Self::of(workspace, record, title).map(Some)
    }

    /// Records a new layer under `keys`. Blocks.
    pub(crate) fn record(
        workspace: &Workspace,
        keys: &[StepKey],
        layer: Layer,
        record: Record,
        title: String,
    ) -> Result<Self, StepError> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let record = StepRecord {
            chain: Chain::empty().with(layer),
            parts: record.facts,
            title: record.title,
            created: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
            cost_us: 0,
        };
        workspace
            .store
            .record(keys, &record)
            .map_err(StepError::store)?;
        Self::of(workspace, record, title)
    }

    fn of(workspace: &Workspace, record: StepRecord, title: String) -> Result<Self, StepError> {
        let tree = LayeredTree::load(&workspace.store, &record.chain, title)?;
        Ok(Self {
            chain: record.chain,
            tree: Arc::new(tree),
            facts: record.parts,
        })
    }

    /// Its files, for selections.
    pub(crate) fn shared_tree(&self) -> Arc<dyn SourceTree> {
        Arc::clone(&self.tree) as Arc<dyn SourceTree>
    }

    /// The layer, as a chain of its own.
    pub(crate) fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Something that was learnt while fetching.
    pub(crate) fn fact(&self, name: &str) -> Option<&str> {
        let fact = self.facts.iter().find(|fact| fact.name == name)?;
        Some(&fact.value)
    }

    /// The newest modification time of a regular file, seconds since the epoch. Blocks.
    pub(crate) fn newest_file(&self, workspace: &Workspace) -> Result<Option<i64>, StepError> {
        let mut newest = None;
        for layer in &self.chain {
            let entries = workspace
                .store
                .entries(&layer.snapshot)
                .map_err(StepError::store)?;
            let files = entries
                .iter()
                .filter(|entry| matches!(entry.kind, EntryKind::File { .. }));
            newest = newest.max(files.map(|entry| entry.mtime.0).max());
        }
        Ok(newest)
    }

    /// Only what is below a directory of it, as a layer of its own. Blocks.
    pub(crate) fn beneath(
        &self,
        workspace: &Workspace,
        directory: &str,
        title: String,
    ) -> Result<Self, StepError> {
        let mut key = KeyEncoder::new("subdirectory", KEY_VERSION);
        key.bytes("of", &self.chain.content_chain().0);
        key.text("directory", &select::clean(directory));
        let key = key.finish();
        if let Some(known) = Self::recorded(workspace, &key, title.clone())? {
            return Ok(known);
        }
        let request = Request {
            source: directory,
            keeps_parents: false,
            exclude: &[],
        };
        let found = select::select(&self.shared_tree(), &request)?;
        let source = SourceRoot::Chain {
            lowers: self.chain.snapshot_paths(&workspace.store),
            scratch: workspace.scratch("source")?,
        };
        let layer = make_layer(
            workspace,
            vec![source],
            crate::steps::copy_to_root(&found, false)?,
        )?;
        let record = Record {
            title: format!("{title}: {directory}"),
            facts: self.facts.clone(),
        };
        Self::record(workspace, &[key], layer, record, title)
    }
}

/// An archive that lies somewhere, unpacked: plain or compressed, found out by its content.
pub(crate) struct Archive<'a> {
    /// Where the file is, for the runner.
    pub(crate) source: SourceRoot,
    /// Its path there.
    pub(crate) path: &'a Path,
    /// Digest of its bytes.
    pub(crate) digest: ContentDigest,
}

impl Archive<'_> {
    /// Unpacks it into a layer, unless the store has that. Blocks.
    pub(crate) fn unpack(self, workspace: &Workspace, title: String) -> Result<Fetched, StepError> {
        use std::os::unix::ffi::OsStrExt;
        let mut key = KeyEncoder::new("archive", KEY_VERSION);
        key.bytes("digest", &self.digest.0);
        let key = key.finish();
        if let Some(known) = Fetched::recorded(workspace, &key, title.clone())? {
            return Ok(known);
        }
        let path = self.path.as_os_str().as_bytes().to_vec();
        let operation = one_file(path.clone(), path, true);
        let layer = make_layer(workspace, vec![self.source], vec![operation])?;
        let record = Record {
            title: format!("archive: {title}"),
            facts: Vec::new(),
        };
        Fetched::record(workspace, &[key], layer, record, title)
    }
}

/// Copies or unpacks one file to the root of a new layer, as root's.
pub(crate) fn one_file(path: Vec<u8>, name: Vec<u8>, unpacks: bool) -> FileOperation {
    FileOperation::Copy(CopyOperation {
        source: 0,
        selection: Selection::File {
            path,
            name,
            entry: SelectedEntry {
                path: Vec::new(),
                mode: None,
                ids: Some((0, 0)),
                expected: None,
            },
        },
        destination: b"/".to_vec(),
        owner: None,
        parent_mode: 0o755,
        unpacks,
    })
}

/// Makes a layer that stands on nothing. Blocks.
pub(crate) fn make_layer(
    workspace: &Workspace,
    sources: Vec<SourceRoot>,
    operations: Vec<FileOperation>,
) -> Result<Layer, StepError> {
    let scratch = workspace.scratch("fetched")?;
    let request = FileJob {
        root: OverlaySpec {
            lowers: Vec::new(),
            scratch: scratch.clone(),
        },
        sources,
        operations,
    };
    let outcome = workspace.change_files(request)?;
    crate::steps::commit_layer(workspace, &scratch.join("upper"), outcome.layer)
}
