//! The end of planning: steps that nothing needs go, the rest are numbered for display.

use std::collections::HashMap;

use crate::graph::{Input, MountKind, Operation, PlannedHistory, StageIndex, Step, StepIndex};

/// Keeps what `target` needs. Indices change; order doesn't.
pub(super) fn prune(
    steps: Vec<Step>,
    target: Option<StepIndex>,
    mut history: Vec<PlannedHistory>,
) -> (Vec<Step>, Option<StepIndex>, Vec<PlannedHistory>) {
    let mut is_needed = vec![false; steps.len()];
    if let Some(target) = target {
        is_needed[target.0] = true;
    }
    // Parents stand before children, so one pass from the end sees every child first.
    for index in (0..steps.len()).rev() {
        if is_needed[index] {
            for needed in needs(&steps[index]) {
                is_needed[needed.0] = true;
            }
        }
    }
    let mut places = vec![None; steps.len()];
    let kept = is_needed
        .iter()
        .enumerate()
        .filter(|(_, is_needed)| **is_needed);
    for (place, (index, _)) in kept.enumerate() {
        places[index] = Some(StepIndex(place));
    }
    let moved = |step: StepIndex| places[step.0].unwrap_or(step);
    let mut steps: Vec<Step> = steps
        .into_iter()
        .zip(&is_needed)
        .filter(|(_, is_needed)| **is_needed)
        .map(|(step, _)| step)
        .collect();
    for step in &mut steps {
        step.parent = step.parent.map(moved);
        for input in inputs_mut(&mut step.operation) {
            if let Input::Step(index) = input {
                *index = moved(*index);
            }
        }
    }
    for entry in &mut history {
        if let PlannedHistory::New {
            step: Some(step), ..
        } = entry
        {
            *step = moved(*step);
        }
    }
    number(&mut steps);
    (steps, target.map(moved), history)
}

fn needs(step: &Step) -> impl Iterator<Item = StepIndex> {
    let inputs = inputs(&step.operation).into_iter();
    let steps = inputs.filter_map(|input| match input {
        Input::Step(index) => Some(*index),
        Input::Context | Input::NamedContext(_) | Input::Empty => None,
    });
    step.parent.into_iter().chain(steps)
}

fn inputs(operation: &Operation) -> Vec<&Input> {
    match operation {
        Operation::Copy(copy) => vec![&copy.from],
        Operation::Run(run) => run
            .mounts
            .iter()
            .filter_map(|mount| match &mount.kind {
                MountKind::Bind { from, .. } | MountKind::Cache { from, .. } => Some(from),
                MountKind::Tmpfs { .. } | MountKind::Secret { .. } | MountKind::Ssh { .. } => None,
            })
            .collect(),
        Operation::Image(_) | Operation::Workdir { .. } => Vec::new(),
    }
}

fn inputs_mut(operation: &mut Operation) -> Vec<&mut Input> {
    match operation {
        Operation::Copy(copy) => vec![&mut copy.from],
        Operation::Run(run) => run
            .mounts
            .iter_mut()
            .filter_map(|mount| match &mut mount.kind {
                MountKind::Bind { from, .. } | MountKind::Cache { from, .. } => Some(from),
                MountKind::Tmpfs { .. } | MountKind::Secret { .. } | MountKind::Ssh { .. } => None,
            })
            .collect(),
        Operation::Image(_) | Operation::Workdir { .. } => Vec::new(),
    }
}

/// Counts the steps of each stage.
fn number(steps: &mut [Step]) {
    let mut counts: HashMap<StageIndex, usize> = HashMap::new();
    for step in &mut *steps {
        let count = counts.entry(step.stage).or_default();
        *count += 1;
        step.number = *count;
    }
    for step in steps {
        step.of = counts.get(&step.stage).copied().unwrap_or_default();
    }
}
