//! What the checks of the text have to look at once more.
//!
//! Most instructions of most files are fine, and most programs are planned or not without anybody asking for warnings.
//! So while a file is read only the places are noted where a rule may fire; [`super::of_text`] reads those again and
//! says what there is to say.

use super::casing::Casing;
use super::text::{looks_secret, name_of_arg};
use crate::ast::{Arguments, Node};
use crate::diagnostic::Diagnostic;
use crate::instruction::Comments;
use crate::keyword::Keyword;

/// The places noted so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Noted {
    /// `NoEmptyContinuation`
    pub(super) blank_lines: Vec<Diagnostic>,
    /// Instructions that a rule may fire at, and all FROMs.
    pub(super) suspects: Vec<Suspect>,
    pub(super) casing: Casing,
}

/// An instruction to look at again.
#[derive(Clone, Debug)]
pub(super) struct Suspect {
    /// Where it begins in the file.
    pub(super) start: usize,
    /// What stands above it.
    pub(super) comments: Comments,
}

impl Noted {
    /// Looks at the next instruction.
    pub(crate) fn note(&mut self, node: &Node<'_>) {
        self.casing.count(node);
        if self.is_suspect(node) {
            self.suspects.push(Suspect {
                start: node.span.start,
                comments: node.comments.clone(),
            });
        }
    }

    /// The same with the blank lines that were found.
    pub(crate) fn with(self, blank_lines: Vec<Diagnostic>) -> Self {
        Self {
            blank_lines,
            ..self
        }
    }

    fn is_suspect(&self, node: &Node<'_>) -> bool {
        match (node.keyword, &node.arguments) {
            (Keyword::From | Keyword::Maintainer, _) => true,
            (Keyword::Arg, arguments) => {
                let mut words = arguments.words().iter();
                !node.comments.is_empty()
                    || self.casing.has_stage()
                        && words.any(|word| looks_secret(name_of_arg(word).0))
            }
            (Keyword::Env, Arguments::Pairs(pairs)) => {
                let mut pairs = pairs.iter();
                pairs.any(|pair| pair.is_legacy || looks_secret(&pair.name.text))
            }
            (Keyword::Label, Arguments::Pairs(pairs)) => pairs.iter().any(|pair| pair.is_legacy),
            _ => false,
        }
    }
}
