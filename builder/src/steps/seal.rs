//! From what the runner sealed to a layer in the store.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rbuild_cache::{DiffId, Layer, LayerRecord, SnapshotId};
use rbuild_runner::job::SealedLayer;

use crate::build::Workspace;
use crate::convert;
use crate::error::StepError;

/// Moves a sealed upper directory into the store.
pub(crate) fn commit(
    workspace: &Workspace,
    upper: &Path,
    sealed: SealedLayer,
) -> Result<Layer, StepError> {
    let diff_id = DiffId(convert::digest(&sealed.diff_id)?);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let record = LayerRecord {
        diff_id: diff_id.clone(),
        tar_size: sealed.tar_size,
        created: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
        created_nanos: now.subsec_nanos(),
        entries: sealed.entries.into_iter().map(convert::entry).collect(),
        implied: Vec::new(),
    };
    let layer = workspace
        .lease
        .commit_snapshot(upper, &record, &SnapshotId::of_layer(&diff_id))
        .map_err(StepError::store)?;
    workspace.is_fresh(&layer.snapshot);
    // A snapshot that was there already keeps its own time; this step's layer was made now.
    Ok(Layer {
        created: record.created,
        created_nanos: record.created_nanos,
        ..layer
    })
}
