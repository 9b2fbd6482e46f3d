//! What time `SOURCE_DATE_EPOCH` means.

use std::sync::Arc;

use rbuild_frontend::graph::Input;
use rbuild_frontend::instruction::Program;
use rbuild_frontend::plan::EpochSource;

use super::{Workspace, plan};
use crate::context;
use crate::error::{BuildError, StepError};

/// Name of the argument.
pub(super) const NAME: &str = "SOURCE_DATE_EPOCH";

/// Finds out the time, where it is not simply a number, and tells the workspace.
pub(super) async fn settle(
    workspace: &Arc<Workspace>,
    program: &Program,
) -> Result<(), BuildError> {
    let options = plan::unsettled_options(workspace, None)?;
    let said = rbuild_frontend::plan::source_date_epoch(program, &options);
    let seconds = match said {
        None => workspace.options.source_date_epoch,
        Some(EpochSource::Seconds(seconds)) => Some(seconds),
        Some(EpochSource::Timeless) => None,
        Some(EpochSource::Unknown(text)) => return Err(BuildError::UnknownEpoch { text }),
        Some(said) => ask(workspace, &said).await.map_err(|source| match source {
            StepError::Cancelled => BuildError::Interrupted,
            source => BuildError::SourceDateEpoch {
                text: describe(&said),
                source: Box::new(source),
            },
        })?,
    };
    workspace.set_source_date_epoch(seconds);
    Ok(())
}

async fn ask(workspace: &Arc<Workspace>, said: &EpochSource) -> Result<Option<i64>, StepError> {
    let input = match said {
        EpochSource::Source(source) => {
            let source = crate::solve::ask(workspace, source).await?;
            return source.time(workspace).await;
        }
        EpochSource::NamedContext(name) => {
            context::fetch_named(workspace, name)
                .await
                .map_err(StepError::Context)?;
            Input::NamedContext(name.clone())
        }
        _ => Input::Context,
    };
    let inner = Arc::clone(workspace);
    workspace
        .blocking(move || inner.contexts.time_of(&inner, &input))
        .await
}

fn describe(said: &EpochSource) -> String {
    match said {
        EpochSource::NamedContext(name) => name.clone(),
        EpochSource::Source(_) => "a stage".to_owned(),
        _ => "context".to_owned(),
    }
}
