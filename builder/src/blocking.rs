//! The bridge between tokio and everything that blocks: files, hashing, the store, jobs of the spawner.

use std::pin::pin;

use rbuild_runner::{Canceller, JobError, JobHandle};
use tokio_util::sync::CancellationToken;

/// Runs a blocking function on tokio's blocking pool. A panic in it goes on here.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// As [`job`], and the job is also cancelled when `cancel` is; it is waited for all the same, so that nothing of it runs
/// any more afterwards.
pub(crate) async fn job_until<T: Send + 'static>(
    cancel: &CancellationToken,
    begin: impl FnOnce() -> Result<JobHandle<T>, JobError> + Send + 'static,
) -> Result<T, JobError> {
    let handle = run(begin).await?;
    let guard = CancelOnDrop(handle.canceller());
    let mut waiting = pin!(run(move || handle.wait()));
    let outcome = tokio::select! {
        outcome = &mut waiting => outcome,
        () = cancel.cancelled() => {
            guard.0.cancel();
            waiting.await
        }
    };
    drop(guard); // too late to cancel anything
    outcome
}

/// Begins a job of the spawner and waits for it. Dropping the future cancels the job.
pub(crate) async fn job<T: Send + 'static>(
    begin: impl FnOnce() -> Result<JobHandle<T>, JobError> + Send + 'static,
) -> Result<T, JobError> {
    let handle = run(begin).await?;
    let guard = CancelOnDrop(handle.canceller());
    let outcome = run(move || handle.wait()).await;
    drop(guard); // too late to cancel anything
    outcome
}

struct CancelOnDrop(Canceller);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
