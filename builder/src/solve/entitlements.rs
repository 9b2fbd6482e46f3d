//! What a step may do beyond the default sandbox is the caller's to grant, not the Dockerfile's. Looked at before anything is
//! taken from the cache or done: a result that was made with a grant is no result for who did not give it.

use std::collections::BTreeSet;

use rbuild_frontend::graph::{Graph, Network, Operation, Run, Security, StepIndex};

use super::dependencies;
use crate::error::{BuildError, StepError};
use crate::options::{BuildOptions, Entitlement};

/// Refuses the first step, by its place in the file, that the target needs and that wants more than was granted.
pub(super) fn check(
    graph: &Graph,
    options: &BuildOptions,
    target: StepIndex,
) -> Result<(), BuildError> {
    let (mut needed, mut left) = (BTreeSet::new(), vec![target]);
    while let Some(index) = left.pop() {
        if needed.insert(index) {
            left.extend(dependencies(graph, index));
        }
    }
    for index in needed {
        if let Operation::Run(run) = &graph.steps[index.0].operation {
            check_run(options, run).map_err(|error| BuildError::step(graph, index, error))?;
        }
    }
    Ok(())
}

fn check_run(options: &BuildOptions, run: &Run) -> Result<(), StepError> {
    let granted = &options.entitlements;
    // `--network host` on the command line grants it for that build.
    let has_host = granted.contains(&Entitlement::NetworkHost) || options.network == Network::Host;
    if run.network == Network::Host && !has_host {
        return Err(StepError::NotAllowed {
            what: "RUN --network=host",
            entitlement: "network.host",
        });
    }
    if run.security == Security::Insecure && !granted.contains(&Entitlement::SecurityInsecure) {
        return Err(StepError::NotAllowed {
            what: "RUN --security=insecure",
            entitlement: "security.insecure",
        });
    }
    Ok(())
}
