//! The steps of a Dockerfile and what needs what, without building it.

use rbuild_frontend::graph::{Graph, Planned, StepIndex};
use rbuild_frontend::plan;

use super::{Bases, File, parse, refused};
use crate::build::descriptions;
use crate::engine::Engine;
use crate::error::BuildError;
use crate::event::StepDescription;
use crate::options::BuildOptions;
use crate::solve::dependencies;

/// A step that a build would have.
#[derive(Clone, Debug)]
pub struct PlannedStep {
    /// What it is.
    pub description: StepDescription,
    /// Positions of the steps whose results it needs: its parent first.
    pub needs: Vec<usize>,
    /// Whether a build would take its result from the cache, or not need it because something above is cached. False as well where
    /// nobody looked.
    pub is_cached: bool,
}

/// The steps that a build would have, for all platforms that the options name. Images that can't be asked for count as empty.
///
/// # Errors
/// The Dockerfile can't be read or built.
pub async fn graph(
    engine: Option<&Engine>,
    options: &BuildOptions,
) -> Result<Vec<PlannedStep>, BuildError> {
    let file = File::read(engine, options).await?;
    let program = parse(&file.source)?;
    let mut bases = Bases::new(engine, options)?;
    let mut graphs: Vec<Graph> = Vec::new();
    for plan_options in file.plan_options(options)? {
        let graph = loop {
            let planned = plan(&program, &plan_options, &bases.known);
            match planned.map_err(|errors| refused(errors, &file.source))? {
                Planned::Ready(graph) => break graph,
                Planned::Needs(requests) => {
                    if !bases.look_up(&requests).await {
                        bases.take_for_empty(requests);
                    }
                }
            }
        };
        graphs.push(*graph);
    }
    Ok(planned_steps(&graphs))
}

/// The steps of all graphs, in one list; none is known to be cached.
pub(crate) fn planned_steps(graphs: &[Graph]) -> Vec<PlannedStep> {
    let mut needs = Vec::new();
    for graph in graphs {
        let first = needs.len();
        needs.extend((0..graph.steps.len()).map(|index| {
            let needed = dependencies(graph, StepIndex(index)).into_iter();
            needed.map(|need| first + need.0).collect::<Vec<usize>>()
        }));
    }
    let steps = descriptions(graphs).into_iter().zip(needs);
    let step = |(description, needs)| PlannedStep {
        description,
        needs,
        is_cached: false,
    };
    steps.map(step).collect()
}
