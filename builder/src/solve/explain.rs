//! What the history is told of steps, and asked about them.

use rbuild_cache::{Chain, ContentDigest, KeyPart, StepRecord};
use rbuild_frontend::graph::StepIndex;

use super::inputs::Reading;
use super::{Solver, lock};
use crate::event::Event;
use crate::explain::parts::{self, Below};
use crate::keys::InputKey;

impl Solver {
    /// Steps were taken from the cache: notes their records, and sees to it that the next build can name the files.
    pub(super) fn note_records<'record>(
        &self,
        records: impl Iterator<Item = (StepIndex, &'record StepRecord)> + Clone,
    ) {
        let Some(recorder) = &self.workspace.recorder else {
            return;
        };
        for (index, record) in records.clone() {
            recorder.note_record(self.id(index), record);
        }
        let store = &self.workspace.store;
        let are_kept = |lists: &[ContentDigest]| store.has_file_lists(lists).unwrap_or(true);
        let lists: Vec<ContentDigest> = records
            .clone()
            .flat_map(|(_, record)| lists_of(record))
            .collect();
        if are_kept(&lists) {
            return;
        }
        for (index, record) in records {
            if !are_kept(&lists_of(record)) {
                self.keep_lists(index);
            }
        }
    }

    /// Keeps the lists of a step that were removed with the builds that had them.
    fn keep_lists(&self, index: StepIndex) {
        for reading in &self.prepared[index.0].readings {
            if let Reading::Context(selected) = reading {
                let key = InputKey::Content(crate::select::digest(selected));
                self.keep_list(reading, &key);
            }
        }
    }

    /// The parts of a step's key by name.
    pub(super) fn parts(
        &self,
        index: StepIndex,
        parent: &Chain,
        inputs: &[(Reading, InputKey)],
    ) -> Vec<KeyPart> {
        let Some(recorder) = &self.workspace.recorder else {
            return Vec::new();
        };
        let step = &self.graph.steps[index.0];
        let base = step
            .parent
            .and_then(|parent| self.workspace.base_name(&self.graph, parent));
        let below = Below {
            content: parent.content_chain(),
            step: match (step.parent, &base) {
                (Some(parent), None) => Some(recorder.label_of(self.id(parent))),
                _ => None,
            },
            base,
        };
        let settings = self.workspace.settings();
        let spelt = recorder.spelt(self.id(index));
        let mut parts = parts::of_step(step, &below, inputs, settings, &recorder.arguments());
        parts.insert(0, KeyPart::new(parts::INSTRUCTION, spelt));
        parts
    }

    /// Says why a step is about to run, and keeps what the next build compares with. Blocks.
    pub(super) fn explain(
        &self,
        index: StepIndex,
        now: &[KeyPart],
        inputs: &[(Reading, InputKey)],
    ) {
        let Some(recorder) = &self.workspace.recorder else {
            return;
        };
        let step = self.id(index);
        for (reading, key) in inputs {
            self.keep_list(reading, key);
        }
        recorder.note_parts(step, now);
        let no_cache = match &self.graph.steps[index.0] {
            planned if !planned.ignores_cache => None,
            _ if self.workspace.options.ignores_cache => Some("--no-cache"),
            _ => Some("--no-cache-filter"),
        };
        let lost = lock(&self.lost).get(&index).cloned();
        let reasons = recorder.explain(step, now, no_cache, lost.as_ref());
        self.workspace.emit(Event::Explained { step, reasons });
    }

    fn keep_list(&self, reading: &Reading, key: &InputKey) {
        let Reading::Context(selected) = reading else {
            return;
        };
        let Some(digest) = parts::list_digest(selected, key) else {
            return;
        };
        let store = &self.workspace.store;
        let keep = || -> Result<(), Box<dyn std::error::Error>> {
            if !store.has_file_lists(&[digest])? {
                store.put_file_list(&digest, &parts::listed_entries(selected)?)?;
            }
            Ok(())
        };
        if let Err(error) = keep() {
            tracing::warn!(%error, "the next build can't name the files that changed");
        }
    }
}

/// The file lists that a record names.
fn lists_of(record: &StepRecord) -> Vec<ContentDigest> {
    let list = |part: &KeyPart| {
        let name = parts::PartName::parse(&part.name);
        let is_list = matches!(name, parts::PartName::Files(_));
        parts::parse_digest(&part.value).filter(|_| is_list)
    };
    record.parts.iter().filter_map(list).collect()
}
