//! `COPY` and `ADD`: from what was selected to operations for the runner.

use std::path::PathBuf;

use rbuild_cache::Chain;
use rbuild_frontend::chmod::ModeChange;
use rbuild_frontend::graph::{Copy, CopySource, Input, Unpack};
use rbuild_runner::job::{
    CopyOperation, Expected, ExpectedKind, FileOperation, OwnerSpec, SelectedEntry, Selection,
    SourceRoot,
};

use super::StepJob;
use crate::context::ContextTree;
use crate::error::StepError;
use crate::keys::InputKey;
use crate::select::{self, Item, SelectError, Selected, SelectedContent};
use crate::solve::Reading;
use crate::tree::TreeEntryKind;

/// Mode of an inline file.
const INLINE_MODE: u32 = 0o644;

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
        let selected = self.readings.iter().filter_map(selected_of);
        if is_as_selected(selected.flatten(), copied)? {
            return Ok(None);
        }
        if self
            .sources
            .iter()
            .any(|source| matches!(source, SourceRoot::Chain { .. }))
        {
            return Err(StepError::DamagedSnapshot);
        }
        let mut copied = copied.iter();
        let mut inputs = Vec::new();
        for reading in &self.readings {
            let Some(found) = selected_of(reading) else {
                inputs.push(InputKey::Nothing);
                continue;
            };
            let content = select::digest_as_read(found, &mut copied)?;
            inputs.push(match reading {
                Reading::Fetched { key, .. } => key.clone(),
                _ => InputKey::Content(content),
            });
        }
        Ok(Some(inputs))
    }
}

fn selected_of(reading: &Reading) -> Option<&[Selected]> {
    match reading {
        Reading::Context(found) | Reading::Fetched { found, .. } => Some(found),
        _ => None,
    }
}

/// Whether the files that were copied are those that were selected; `copied` as in [`CopyPlan::inputs_if_changed`].
pub(super) fn is_as_selected<'found>(
    found: impl IntoIterator<Item = &'found Selected>,
    copied: &[[u8; 32]],
) -> Result<bool, SelectError> {
    let mut copied = copied.iter();
    let mut is_equal = true;
    for selected in found {
        selected.each_item(|item| {
            if matches!(item.entry.kind, TreeEntryKind::File(_)) {
                let digest = item.digest.as_ref().map(|digest| &digest.0);
                is_equal &= digest == copied.next();
            }
        })?;
    }
    Ok(is_equal && copied.next().is_none())
}

/// Plans a whole instruction.
pub(super) fn plan(job: &StepJob, copy: &Copy) -> Result<CopyPlan, StepError> {
    let mut plan = CopyPlan {
        readings: job.readings.clone(),
        ..CopyPlan::default()
    };
    let mut roots = Roots::default();
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
            (_, Reading::Fetched { chain, found, .. }) => {
                let origin = Origin::Chain(chain.clone());
                let index = roots.add(job, &mut plan.sources, origin)?;
                let unpacks = copy.unpack == Unpack::Always;
                for selected in found {
                    let selection = selection(copy, selected, false)?;
                    plan.operations
                        .push(operation(copy, index, selection, unpacks));
                }
            }
            (_, Reading::Context(found)) => {
                let origin = origin(job, &copy.from)?;
                let is_foreign = matches!(origin, Origin::Directory(_));
                let index = roots.add(job, &mut plan.sources, origin)?;
                let unpacks = copy.unpack != Unpack::Never;
                for selected in found {
                    let selection = selection(copy, selected, is_foreign)?;
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
            // Without the bits above the permissions, as in the reference.
            .map_or(PARENT_MODE, |mode| mode & 0o777),
        unpacks,
    })
}

/// Files of a context are root's, whoever owns them on this machine.
fn selection(copy: &Copy, selected: &Selected, is_foreign: bool) -> Result<Selection, SelectError> {
    let mode_of = |item: &Item| match item.entry.kind {
        TreeEntryKind::Symlink(_) => None,
        _ => changed(
            copy.mode.as_ref(),
            item.entry.mode,
            item.entry.is_directory(),
        ),
    };
    selection_with(selected, is_foreign, mode_of)
}

fn selection_with(
    selected: &Selected,
    is_foreign: bool,
    mode_of: impl Fn(&Item) -> Option<u32>,
) -> Result<Selection, SelectError> {
    let mut entries = Vec::new();
    selected.each_item(|item| {
        entries.push(SelectedEntry {
            expected: Some(expected(&item)),
            mode: mode_of(&item),
            path: item.path,
            ids: is_foreign.then_some((0, 0)),
        });
    })?;
    let path = selected.path.clone();
    Ok(match (&selected.content, entries.pop()) {
        (SelectedContent::File(_), Some(entry)) => Selection::File {
            path,
            name: selected.name.clone(),
            entry,
        },
        (_, last) => Selection::Directory {
            path,
            entries: {
                entries.extend(last);
                entries
            },
            keeps_root_mtime: true,
        },
    })
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A context directory.
    Directory(PathBuf),
    /// Snapshots: what a step left, or what was fetched.
    Chain(Chain),
}

/// Where the files of an input are.
pub(super) fn origin(job: &StepJob, input: &Input) -> Result<Origin, StepError> {
    let contexts = &job.solver.workspace.contexts;
    if let Input::Step(index) = input {
        return Ok(Origin::Chain(job.chains[index].clone()));
    }
    match contexts.of(input).map_err(StepError::Context)? {
        Some(ContextTree::Directory(tree)) => Ok(Origin::Directory(tree.root().to_owned())),
        Some(ContextTree::Fetched(fetched)) => Ok(Origin::Chain(fetched.chain().clone())),
        None => Err(StepError::Internal("files can't come from an empty root")),
    }
}

impl Origin {
    /// The same for the runner.
    pub(super) fn source_root(&self, job: &StepJob) -> Result<SourceRoot, StepError> {
        let workspace = &job.solver.workspace;
        Ok(match self {
            Self::Directory(path) => SourceRoot::Directory(path.clone()),
            Self::Chain(chain) => SourceRoot::Chain {
                lowers: chain.snapshot_paths(&workspace.store),
                scratch: workspace.scratch("source")?,
            },
        })
    }
}

/// Source roots already given to the runner.
#[derive(Default)]
struct Roots(Vec<Origin>);

impl Roots {
    fn add(
        &mut self,
        job: &StepJob,
        sources: &mut Vec<SourceRoot>,
        origin: Origin,
    ) -> Result<usize, StepError> {
        if let Some(known) = self.0.iter().position(|known| *known == origin) {
            return Ok(known);
        }
        sources.push(origin.source_root(job)?);
        self.0.push(origin);
        Ok(sources.len() - 1)
    }
}

/// A selection as a plain copy to the root of a new layer. With `is_foreign` everything is root's.
pub(crate) fn copy_to_root(
    found: &[Selected],
    is_foreign: bool,
) -> Result<Vec<FileOperation>, SelectError> {
    mirror_to(found, is_foreign, b"/")
}

/// A selection as a plain copy to the root of an empty tree: what a bind mount of a context shows.
///
/// With `is_foreign` everything is root's.
pub(super) fn mirror(
    found: &[Selected],
    is_foreign: bool,
) -> Result<Vec<FileOperation>, SelectError> {
    mirror_to(found, is_foreign, &[b"/", MIRROR_NAME].concat())
}

fn mirror_to(
    found: &[Selected],
    is_foreign: bool,
    destination: &[u8],
) -> Result<Vec<FileOperation>, SelectError> {
    let operation = |selected| {
        Ok(FileOperation::Copy(CopyOperation {
            source: 0,
            selection: selection_with(selected, is_foreign, |_| None)?,
            destination: destination.to_vec(),
            owner: None,
            parent_mode: PARENT_MODE,
            unpacks: false,
        }))
    };
    found.iter().map(operation).collect()
}

/// Name of what [`mirror`] makes.
pub(super) const MIRROR_NAME: &[u8] = b"content";
