//! How much a plan may take: the limit that keeps a small hostile file from filling the memory.
//!
//! A few lines can ask for more than any machine has (`ENV B=$A$A$A…`, a line for each letter), and every RUN carries
//! all variables and names all ARGs in the history. So whatever instructions make is counted as it is made.

use crate::diagnostic::Diagnostic;
use crate::source::{Lines, Span};

/// Bytes of expanded words, environments, histories and ports in one plan. The largest of the field's files stay below
/// a hundredth of it.
const MAX_BYTES: usize = 256 << 20;

/// What a text or an entry of a list costs beside its bytes.
pub(super) const ENTRY: usize = 48;

/// The code of the error that it is spent. It ends the planning.
pub(super) const SPENT: &str = "plan-too-large";

/// What is left.
#[derive(Debug)]
pub(super) struct Budget {
    left: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { left: MAX_BYTES }
    }
}

impl Budget {
    /// Takes some bytes for what stands at a place.
    pub(super) fn take(
        &mut self,
        bytes: usize,
        span: Span,
        lines: Lines,
    ) -> Result<(), Diagnostic> {
        let Some(left) = self.left.checked_sub(bytes) else {
            let message = format!(
                "with this instruction the plan takes more than {} MiB",
                MAX_BYTES >> 20
            );
            return Err(super::error(SPENT, span, message)
                .within(lines)
                .with_help("variables, ARGs and ports of a stage are repeated in each RUN and in the history: use fewer or shorter ones"));
        };
        self.left = left;
        Ok(())
    }
}
