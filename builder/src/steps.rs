//! The work of single steps: jobs for the runner, made from planned steps.

mod authorities;
mod cache_mounts;
mod copy;
mod files;
pub(crate) mod mounts;
mod output;
mod run;
mod seal;
pub(crate) mod ssh;

use std::collections::BTreeMap;
use std::sync::Arc;

use rbuild_cache::Chain;
use rbuild_frontend::graph::{Operation, StepIndex};

use crate::error::StepError;
use crate::solve::{Made, Reading, Solver};

pub(crate) use copy::copy_to_root;
pub(crate) use run::CancelHandle;
pub(crate) use seal::commit as commit_layer;

/// Everything one step needs to be done.
pub(crate) struct StepJob {
    pub(crate) solver: Arc<Solver>,
    pub(crate) index: StepIndex,
    /// What it starts from.
    pub(crate) parent: Chain,
    /// What it reads, resolved, in the order of its sources or mounts.
    pub(crate) readings: Vec<Reading>,
    /// Results of the steps it depends on.
    pub(crate) chains: BTreeMap<StepIndex, Chain>,
}

impl StepJob {
    pub(crate) fn operation(&self) -> &Operation {
        &self.solver.graph.steps[self.index.0].operation
    }

    /// Does the work and commits the layer. Blocks; `cancel` ends a command from outside.
    pub(crate) fn carry_out(&self, cancel: &CancelHandle) -> Result<Made, StepError> {
        match self.operation() {
            Operation::Run(_) => run::run(self, cancel),
            Operation::Copy(_) | Operation::Workdir { .. } => files::change(self),
            Operation::Image(_) => Err(StepError::Internal("an image step has no work of its own")),
        }
    }
}
