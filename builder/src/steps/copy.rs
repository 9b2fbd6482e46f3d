//! `COPY` and `ADD`: from what was selected to operations for the runner.

use std::collections::BTreeMap;

use rbuild_cache::ContentDigest;
use rbuild_frontend::chmod::ModeChange;
use rbuild_frontend::graph::{Copy, CopySource, Input, StepIndex, Unpack};
use rbuild_runner::job::{
    CopyOperation, Expected, ExpectedKind, FileOperation, OwnerSpec, SelectedEntry, Selection,
    SourceRoot,
};

use super::StepJob;
use crate::download::Download;
use crate::error::StepError;
use crate::keys::InputKey;
use crate::select::{self, Item, Selected, SelectedContent};
use crate::solve::Reading;
use crate::tree::TreeEntryKind;

/// Mode of an inline file.
const INLINE_MODE: u32 = 0o644;

/// Mode of a downloaded file.
const DOWNLOAD_MODE: u32 = 0o600;

/// Mode of directories that are made on the way to the destination.
const PARENT_MODE: u32 = 0o755;

/// What the runner is asked, and what it will have read.
#[derive(Debug, Default)]
pub(super) struct CopyPlan {
    pub(super) sources: Vec<SourceRoot>,
    pub(super) operations: Vec<FileOperation>,
    readings: Vec<Reading>,
}

impl CopyPlan {
    pub(super) fn of(operation: FileOperation) -> Self {
        Self {
            operations: vec![operation],
            ..Self::default()
        }
    }

    /// The inputs as they were really read, if that differs from what the key was made of.
    ///
    /// `copied` holds the digests of all regular files in the order of the operations.
    ///
    /// Files of a context may change while a build reads them. What a step left may not: a difference there is damage.
    pub(super) fn inputs_if_changed(
        &self,
        copied: &[[u8; 32]],
    ) -> Result<Option<Vec<InputKey>>, StepError> {
        let mut digests = copied.iter();
        let mut is_changed = false;
        let mut inputs = Vec::new();
        for reading in &self.readings {
            let Reading::Context(found) = reading else {
                inputs.push(match reading {
                    Reading::Download(download) => {
                        digests.next();
                        download.input_key()
                    }
                    _ => InputKey::Nothing,
                });
                continue;
            };
            let mut found = found.clone();
            for item in found.iter_mut().flat_map(items_mut) {
                if !matches!(item.entry.kind, TreeEntryKind::File(_)) {
                    continue;
                }
                let Some(read) = digests.next() else { continue };
                if item.digest != Some(ContentDigest(*read)) {
                    is_changed = true;
                    item.digest = Some(ContentDigest(*read));
                }
            }
            inputs.push(InputKey::Content(select::digest(&found)));
        }
        if is_changed
            && self
                .sources
                .iter()
                .any(|source| matches!(source, SourceRoot::Chain { .. }))
        {
            return Err(StepError::DamagedSnapshot);
        }
        Ok(is_changed.then_some(inputs))
    }
}

/// Whether the files that were copied are those that were selected; `copied` as in [`CopyPlan::inputs_if_changed`].
pub(super) fn is_as_selected(found: &[Selected], copied: &[[u8; 32]]) -> bool {
    let items = found.iter().flat_map(|selected| match &selected.content {
        SelectedContent::File(item) => std::slice::from_ref(item),
        SelectedContent::Directory(items) => items.as_slice(),
    });
    let files = items.filter(|item| matches!(item.entry.kind, TreeEntryKind::File(_)));
    files
        .map(|item| item.digest.as_ref().map(|digest| &digest.0))
        .eq(copied.iter().map(Some))
}

fn items_mut(selected: &mut Selected) -> &mut [Item] {
    match &mut selected.content {
        SelectedContent::File(item) => std::slice::from_mut(item),
        SelectedContent::Directory(items) => items,
    }
}

/// Plans a whole instruction.
pub(super) fn plan(job: &StepJob, copy: &Copy) -> Result<CopyPlan, StepError> {
    let mut plan = CopyPlan {
        readings: job.readings.clone(),
        ..CopyPlan::default()
    };
    let mut roots = Roots::default();
    let is_foreign = matches!(copy.from, Input::Context | Input::NamedContext(_));
    for (source, reading) in copy.sources.iter().zip(&job.readings) {
        match (source, reading) {
            (CopySource::Inline(file), _) => {
                let selection = Selection::Inline {
                    name: file.name.clone().into_bytes(),
                    content: file.content.clone().into_bytes(),
                    mode: changed(copy.mode.as_ref(), INLINE_MODE, false).unwrap_or(INLINE_MODE),
                    mtime: None,
                };
                plan.operations.push(operation(copy, 0, selection, false));
            }
            (_, Reading::Download(download)) => {
                let index = roots.add(
                    job,
                    &mut plan.sources,
                    Origin::Directory(download.directory().to_owned()),
                )?;
                let mode =
                    changed(copy.mode.as_ref(), DOWNLOAD_MODE, false).or(Some(DOWNLOAD_MODE));
                let entry = SelectedEntry {
                    path: Vec::new(),
                    mode,
                    ids: Some((0, 0)),
                    expected: None,
                };
                let name = download.name().as_bytes().to_vec();
                let selection = Selection::File {
                    path: Download::file_name(),
                    name,
                    entry,
                };
                let unpacks = copy.unpack == Unpack::Always;
                plan.operations
                    .push(operation(copy, index, selection, unpacks));
            }
            (_, Reading::Context(found)) => {
                let index = roots.add(job, &mut plan.sources, origin(job, copy)?)?;
                let unpacks = copy.unpack != Unpack::Never;
                for selected in found {
                    let selection = selection(copy, selected, is_foreign);
                    plan.operations
                        .push(operation(copy, index, selection, unpacks));
                }
            }
            _ => {}
        }
    }
    Ok(plan)
}

fn operation(copy: &Copy, source: usize, selection: Selection, unpacks: bool) -> FileOperation {
    FileOperation::Copy(CopyOperation {
        source,
        selection,
        destination: copy.destination.clone().into_bytes(),
        owner: copy
            .owner
            .as_ref()
            .map(|owner| OwnerSpec::Lookup(owner.clone().into_bytes())),
        parent_mode: copy
            .mode
            .as_ref()
            .and_then(ModeChange::octal)
            .unwrap_or(PARENT_MODE),
        unpacks,
    })
}

/// Files of a context are root's, whoever owns them on this machine.
fn selection(copy: &Copy, selected: &Selected, is_foreign: bool) -> Selection {
    let entry = |item: &Item| SelectedEntry {
        expected: Some(expected(item)),
        path: item.path.clone(),
        mode: match item.entry.kind {
            TreeEntryKind::Symlink(_) => None,
            _ => changed(
                copy.mode.as_ref(),
                item.entry.mode,
                item.entry.is_directory(),
            ),
        },
        ids: is_foreign.then_some((0, 0)),
    };
    match &selected.content {
        SelectedContent::File(item) => Selection::File {
            path: selected.path.clone(),
            name: selected.name.clone(),
            entry: entry(item),
        },
        SelectedContent::Directory(items) => Selection::Directory {
            path: selected.path.clone(),
            entries: items.iter().map(entry).collect(),
            keeps_root_mtime: true,
        },
    }
}

fn expected(item: &Item) -> Expected {
    let kind = match &item.entry.kind {
        TreeEntryKind::Directory => ExpectedKind::Directory,
        TreeEntryKind::File(_) => ExpectedKind::File,
        TreeEntryKind::Symlink(target) => ExpectedKind::Symlink(target.clone()),
        _ => ExpectedKind::Special,
    };
    Expected {
        mode: item.entry.mode,
        kind,
    }
}

fn changed(change: Option<&ModeChange>, mode: u32, is_directory: bool) -> Option<u32> {
    change.map(|change| change.apply(mode, is_directory))
}

/// Where a source's files lie on this machine.
enum Origin {
    Directory(std::path::PathBuf),
    Step(StepIndex),
}

fn origin(job: &StepJob, copy: &Copy) -> Result<Origin, StepError> {
    let contexts = &job.solver.workspace.contexts;
    match &copy.from {
        Input::Context => Ok(Origin::Directory(
            contexts
                .main()
                .map_err(StepError::Context)?
                .root()
                .to_owned(),
        )),
        Input::NamedContext(name) => Ok(Origin::Directory(
            contexts
                .named(name)
                .map_err(StepError::Context)?
                .root()
                .to_owned(),
        )),
        Input::Step(index) => Ok(Origin::Step(*index)),
        Input::Empty => Err(StepError::Internal("files can't come from an empty root")),
    }
}

/// Source roots already given to the runner.
#[derive(Default)]
struct Roots {
    of_steps: BTreeMap<StepIndex, usize>,
    of_directories: BTreeMap<std::path::PathBuf, usize>,
}

impl Roots {
    fn add(
        &mut self,
        job: &StepJob,
        sources: &mut Vec<SourceRoot>,
        origin: Origin,
    ) -> Result<usize, StepError> {
        let next = sources.len();
        let index = match &origin {
            Origin::Directory(path) => *self.of_directories.entry(path.clone()).or_insert(next),
            Origin::Step(step) => *self.of_steps.entry(*step).or_insert(next),
        };
        if index < next {
            return Ok(index);
        }
        let workspace = &job.solver.workspace;
        sources.push(match origin {
            Origin::Directory(path) => SourceRoot::Directory(path),
            Origin::Step(step) => SourceRoot::Chain {
                lowers: job.chains[&step].snapshot_paths(&workspace.store),
                scratch: workspace.scratch("source")?,
            },
        });
        Ok(index)
    }
}

/// A selection as a plain copy to the root of an empty tree: what a bind mount of a context shows.
///
/// With `is_foreign` everything is root's.
pub(super) fn mirror(found: &[Selected], is_foreign: bool) -> Vec<FileOperation> {
    let keep = |item: &Item| SelectedEntry {
        expected: Some(expected(item)),
        path: item.path.clone(),
        mode: None,
        ids: is_foreign.then_some((0, 0)),
    };
    found
        .iter()
        .map(|selected| {
            let selection = match &selected.content {
                SelectedContent::File(item) => Selection::File {
                    path: selected.path.clone(),
                    name: selected.name.clone(),
                    entry: keep(item),
                },
                SelectedContent::Directory(items) => Selection::Directory {
                    path: selected.path.clone(),
                    entries: items.iter().map(keep).collect(),
                    keeps_root_mtime: true,
                },
            };
            FileOperation::Copy(CopyOperation {
                source: 0,
                selection,
                destination: [b"/", MIRROR_NAME].concat(),
                owner: None,
                parent_mode: PARENT_MODE,
                unpacks: false,
            })
        })
        .collect()
}

/// Name of what [`mirror`] makes.
pub(super) const MIRROR_NAME: &[u8] = b"content";
