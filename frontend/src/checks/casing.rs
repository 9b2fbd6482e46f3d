//! `ConsistentInstructionCasing`: which case most instruction words have is known at the end only.

use super::text::{is_lower, is_upper, warning};
use crate::ast::{self, Node};
use crate::diagnostic::{Diagnostic, Edit};
use crate::keyword::Keyword;
use crate::source::Source;

/// How the instruction words so far are cased. What stands before the first FROM has no vote.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Casing {
    has_stage: bool,
    /// All words.
    count: usize,
    /// Words without upper case.
    lower: usize,
    /// Words without lower case.
    upper: usize,
}

impl Casing {
    /// Counts the next instruction's word.
    pub(super) fn count(&mut self, node: &Node<'_>) {
        self.has_stage |= node.keyword == Keyword::From;
        if self.has_stage {
            self.count += 1;
            let word = &*node.word.text;
            // What most files are made of.
            if !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_uppercase()) {
                self.upper += 1;
            } else {
                self.lower += usize::from(is_lower(word));
                self.upper += usize::from(is_upper(word));
            }
        }
    }

    /// Whether a FROM was among them.
    pub(super) fn has_stage(&self) -> bool {
        self.has_stage
    }

    /// A warning for each word that is not cased like most.
    pub(super) fn warnings(&self, source: &Source) -> Vec<Diagnostic> {
        let wants_lower = self.lower > self.upper;
        let mut warnings = Vec::new();
        if self.count == self.lower.max(self.upper) {
            return warnings;
        }
        let mut has_stage = false;
        // What is wrong with the file has been told when it was read first.
        let _ = ast::read(source, &mut |node| {
            has_stage |= node.keyword == Keyword::From;
            let word = &*node.word.text;
            let is_odd = !(if wants_lower {
                is_lower(word)
            } else {
                is_upper(word)
            });
            if has_stage && is_odd {
                warnings.push(odd_case(node, source.text(), wants_lower));
            }
        });
        warnings
    }
}

fn odd_case(node: &Node<'_>, text: &str, wants_lower: bool) -> Diagnostic {
    let word = &*node.word.text;
    let span = node.word.span;
    let (wanted, cased) = if wants_lower {
        ("lower", word.to_lowercase())
    } else {
        ("upper", word.to_uppercase())
    };
    let message = format!("`{word}` is not in {wanted} case like most instructions here");
    let mut casing = warning("ConsistentInstructionCasing", span, message);
    if text.get(span.start..span.end) == Some(word) {
        casing.edits.push(Edit { span, text: cased });
    }
    casing.within(node.lines)
}
