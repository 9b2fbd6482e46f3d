//! The growing list of steps; images are taken once each.

use std::collections::HashMap;

use crate::graph::{ImageReference, Operation, Step, StepIndex};
use crate::platform::Platform;
use crate::reference::Reference;

/// Steps in the order of their making, which is topological.
#[derive(Debug, Default)]
pub(super) struct Steps {
    list: Vec<Step>,
    images: HashMap<(ImageReference, Platform), StepIndex>,
}

impl Steps {
    /// Adds a step.
    pub(super) fn push(&mut self, step: Step) -> StepIndex {
        self.list.push(step);
        StepIndex(self.list.len() - 1)
    }

    /// The step that takes an image; `make` is asked for it the first time only.
    pub(super) fn image(
        &mut self,
        reference: &ImageReference,
        platform: &Platform,
        make: impl FnOnce(Operation) -> Step,
    ) -> StepIndex {
        let key = (full_name(reference), platform.clone());
        if let Some(&step) = self.images.get(&key) {
            return step;
        }
        let step = self.push(make(Operation::Image(reference.clone())));
        self.images.insert(key, step);
        step
    }

    /// All steps.
    pub(super) fn into_list(self) -> Vec<Step> {
        self.list
    }
}

/// `debian` and `docker.io/library/debian:latest` are one image.
fn full_name(reference: &ImageReference) -> ImageReference {
    match reference {
        ImageReference::Name(name) => match Reference::parse(name) {
            Ok(parsed) => ImageReference::Name(parsed.with_default_tag().to_string()),
            Err(_) => reference.clone(),
        },
        ImageReference::Layout { .. } => reference.clone(),
    }
}
