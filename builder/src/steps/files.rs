//! Steps that change files without running anything: `COPY`, `ADD`, `WORKDIR`.

use rbuild_cache::Chain;
use rbuild_frontend::graph::Operation;
use rbuild_runner::job::{FileJob, FileOperation, OverlaySpec};

use super::{StepJob, copy, seal};
use crate::error::StepError;
use crate::event::Event;
use crate::solve::Made;

/// Runs the step's file job and commits its layer. Blocks.
pub(super) fn change(job: &StepJob) -> Result<Made, StepError> {
    check_owner(job)?;
    let workspace = &job.solver.workspace;
    let scratch = workspace.scratch("files")?;
    let mut plan = match job.operation() {
        Operation::Workdir { path, owner } => copy::CopyPlan::of(FileOperation::MakeDirectory {
            path: path.clone().into_bytes(),
            owner: owner.clone().into_bytes(),
            mtime: workspace.source_date_epoch(),
        }),
        Operation::Copy(copy) => copy::plan(job, copy)?,
        Operation::Run(_) | Operation::Image(_) => {
            return Err(StepError::Internal("not a step that changes files"));
        }
    };
    let is_linked = matches!(job.operation(), Operation::Copy(copy) if copy.is_linked);
    let below = if is_linked {
        Chain::default()
    } else {
        job.parent.clone()
    };
    let root = OverlaySpec {
        lowers: below.snapshot_paths(&workspace.store),
        scratch: scratch.clone(),
    };
    let request = FileJob {
        root,
        sources: plan.sources.clone(),
        operations: std::mem::take(&mut plan.operations),
    };
    let outcome = workspace.change_files(request)?;
    if matches!(job.operation(), Operation::Copy(_)) {
        for name in &outcome.unknown_owners {
            workspace.emit(Event::Notice(format!(
                "`{}`: the image has no `{name}`, and root is taken for it (for a group: the user's own); make it in an earlier RUN, or give a number",
                job.solver.graph.steps[job.index.0].title
            )));
        }
    }
    let inputs = plan.inputs_if_changed(&outcome.copied)?;
    let layer = seal::commit(workspace, &scratch.join("upper"), outcome.layer)?;
    Ok(Made { layer, inputs })
}

/// Refuses a name as the owner of what an empty root gets: nothing says which number it is, and root would be a guess.
fn check_owner(job: &StepJob) -> Result<(), StepError> {
    let (owner, is_linked) = match job.operation() {
        Operation::Workdir { owner, .. } => (owner.as_str(), false),
        Operation::Copy(copy) => (copy.owner.as_deref().unwrap_or_default(), copy.is_linked),
        Operation::Run(_) | Operation::Image(_) => return Ok(()),
    };
    let is_known = |name: &str| {
        name.is_empty() || name == "root" || name.bytes().all(|byte| byte.is_ascii_digit())
    };
    let has_root = job.solver.graph.steps[job.index.0].parent.is_some() && !is_linked;
    if has_root || owner.splitn(2, ':').all(is_known) {
        return Ok(());
    }
    Err(StepError::NobodyKnown {
        owner: owner.to_owned(),
        is_linked,
    })
}
