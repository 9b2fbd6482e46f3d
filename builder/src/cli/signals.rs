//! Ctrl-C and SIGTERM: the first ends the build in good order, the second ends the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit code after SIGINT: 128 and the signal's number, as shells have it.
const INTERRUPTED: u8 = 130;
/// Exit code after SIGTERM.
const TERMINATED: u8 = 143;

/// Cancels the build on the first signal and remembers which it was.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt {
    /// Cancelled by the first signal.
    pub(crate) token: CancellationToken,
    /// 0 until a signal came; then the exit code it asks for.
    exit_code: Arc<AtomicU8>,
}

impl Interrupt {
    /// Starts to listen. Has to be called inside a runtime; `notice` is called once, after the first signal.
    pub(crate) fn listen(notice: impl FnOnce() + Send + 'static) -> std::io::Result<Self> {
        let interrupt = Self::default();
        let (mut interrupts, mut terminations) = (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        );
        let listener = interrupt.clone();
        tokio::spawn(async move {
            let mut next = async || {
                tokio::select! {
                    _ = interrupts.recv() => INTERRUPTED,
                    _ = terminations.recv() => TERMINATED,
                }
            };
            let first = next().await;
            listener.exit_code.store(first, Ordering::SeqCst);
            listener.token.cancel();
            notice();
            let second = next().await;
            exit_now(second);
        });
        Ok(interrupt)
    }

    /// The exit code that a signal asked for, if one came.
    pub(crate) fn exit_code(&self) -> Option<u8> {
        Some(self.exit_code.load(Ordering::SeqCst)).filter(|&code| code != 0)
    }
}

#[expect(
    clippy::exit,
    reason = "a second Ctrl-C asks for exactly this: no cleaning up, the next build does it"
)]
fn exit_now(code: u8) {
    std::process::exit(i32::from(code));
}
