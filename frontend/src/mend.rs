//! Mending what a build check found: edits of the text that change nothing of what it means.
//!
//! Checks attach [`Edit`]s to their warnings where a machine can tell what to write: casing, `name value` without `=`,
//! blank lines, flags that say nothing. Only the edited places change; all else stays byte for byte. One mend can call
//! for another (an instruction word that changes its case takes `AS` with it), so [`mend`] goes on until nothing is
//! left to do: mending twice is mending once.
//!
//! `MAINTAINER` is the one whose mend moves something: the author's name goes from a field of the image config that
//! few read into the label that replaces it.

use std::collections::BTreeMap;

use crate::diagnostic::{Diagnostic, Edit};
use crate::graph::PlanOptions;
use crate::instructions::parse_partly;
use crate::plan::check;
use crate::source::Source;

/// Mends can call for others; real files need two rounds.
const MAX_ROUNDS: usize = 8;

/// A text after its mends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mended {
    /// The whole text.
    pub text: String,
    /// How often each rule was mended.
    pub count: BTreeMap<&'static str, usize>,
    /// The file has errors: what it means is not known, and nothing was mended.
    pub is_refused: bool,
}

/// Mends all that can be mended of a file's warnings, those that its settings skip excepted.
///
/// A file with errors is left as it is: what it means is not known.
pub fn mend(source: &Source, options: &PlanOptions) -> Mended {
    let options = PlanOptions {
        target: None,
        checks_all_stages: true,
        ..options.clone()
    };
    let mut mended = Mended {
        text: source.text().to_owned(),
        count: BTreeMap::new(),
        is_refused: false,
    };
    for _ in 0..MAX_ROUNDS {
        let source = Source::new(source.name(), mended.text.as_bytes());
        let (program, errors) = parse_partly(&source);
        let checked = check(&program, &options, &BTreeMap::new());
        mended.is_refused = !errors.is_empty() || !checked.errors.is_empty();
        if mended.is_refused || !apply(&mut mended, &checked.warnings) {
            break;
        }
    }
    mended
}

/// Makes the edits of all warnings whose places are still free; false if there are none.
fn apply(mended: &mut Mended, warnings: &[Diagnostic]) -> bool {
    // Edits by the place where they end: what overlaps a place ends behind its start.
    let mut taken: BTreeMap<(usize, usize), &Edit> = BTreeMap::new();
    for warning in warnings.iter().filter(|warning| !warning.edits.is_empty()) {
        let is_free = |edit: &Edit| {
            let next = taken.range((edit.span.start + 1, 0)..).next();
            next.is_none_or(|(_, other)| other.span.start >= edit.span.end)
        };
        if warning.edits.iter().all(is_free) {
            let edits = warning.edits.iter();
            taken.extend(edits.map(|edit| ((edit.span.end, edit.span.start), edit)));
            *mended.count.entry(warning.code).or_default() += 1;
        }
    }
    let (mut text, mut end) = (String::with_capacity(mended.text.len()), 0);
    for edit in taken.values() {
        text.push_str(&mended.text[end..edit.span.start]);
        text.push_str(&edit.text);
        end = edit.span.end;
    }
    text.push_str(&mended.text[end..]);
    mended.text = text;
    !taken.is_empty()
}
