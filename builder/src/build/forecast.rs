//! What a build would take from the cache, found out without building.

use std::sync::Arc;

use super::{Workspace, epoch, plan};
use crate::check::{PlannedStep, planned_steps};
use crate::context;
use crate::engine::Engine;
use crate::error::BuildError;
use crate::options::BuildOptions;
use crate::solve::Solver;

impl Engine {
    /// The steps that a build would have, with what is cached of them. Contexts are read and base images are looked up as a build
    /// does it; nothing is run, fetched into the store or recorded.
    ///
    /// # Errors
    /// What stops a build before its first step.
    pub async fn forecast(&self, options: &BuildOptions) -> Result<Vec<PlannedStep>, BuildError> {
        let local = context::read_local(options)?;
        let workspace = Arc::new(Workspace::for_a_look(self, options.clone())?);
        let source = context::open_main(&workspace, local).await?;
        let program = plan::parse(&source, &workspace.options)?;
        epoch::settle(&workspace, &program).await?;
        let graphs = Box::pin(plan::all_platforms(&workspace, &program, &source)).await?;
        let mut steps = planned_steps(&graphs);
        let mut first = 0;
        for graph in graphs {
            let graph = Arc::new(graph);
            let cached = Solver::forecast(&graph, &workspace).await?;
            for (step, is_cached) in steps[first..].iter_mut().zip(cached) {
                step.is_cached = is_cached;
            }
            first += graph.steps.len();
        }
        workspace.contexts.save_stat_caches();
        Ok(steps)
    }
}
