//! Which stages the target needs, and which instructions each of them runs: ONBUILD triggers fire here.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::table::{FromKind, FromName, Origin, StageHead, StageTable};
use crate::ast::MAX_INSTRUCTIONS;
use crate::csv;
use crate::diagnostic::Found;
use crate::graph::ImageRequest;
use crate::instruction::{Instruction, InstructionKind};
use crate::instructions::{has_variable, parse_trigger};
use crate::platform::Platform;

/// An instruction of a stage, or of its base.
#[derive(Clone, Debug)]
pub(super) struct StageInstruction<'a> {
    pub(super) instruction: Cow<'a, Instruction>,
    /// It came with the base.
    pub(super) is_trigger: bool,
}

/// The reached stages with their instructions.
pub(super) struct Reach<'a> {
    stages: Vec<Option<Vec<StageInstruction<'a>>>>,
}

impl<'a> Reach<'a> {
    /// Follows bases and sources from the target; the list is of images that have to be known first.
    pub(super) fn from_target(
        table: &StageTable<'a>,
        target: usize,
        found: &mut Found,
    ) -> (Self, Vec<ImageRequest>) {
        let mut reach = Self {
            stages: (0..table.heads.len()).map(|_| None).collect(),
        };
        let mut unknown = BTreeSet::new();
        let mut open = vec![target];
        let mut fired = 0;
        if table.inputs.options.checks_all_stages {
            open.extend((0..table.heads.len()).rev());
        }
        while let Some(index) = open.pop() {
            if reach.stages[index].is_some() {
                continue;
            }
            let head = &table.heads[index];
            let mut instructions = fired_triggers(table, head, &mut unknown, found);
            fired += instructions.len();
            if fired > MAX_INSTRUCTIONS {
                let message = format!("more than {MAX_INSTRUCTIONS} ONBUILD triggers fire");
                let error = super::error("too-many-instructions", head.stage.base_span, message)
                    .within(head.stage.lines)
                    .with_help("build on this base in fewer stages");
                found.0.push(error);
                break;
            }
            if !head.is_replaced {
                let own = head.stage.instructions.iter();
                instructions.extend(own.map(|own| StageInstruction {
                    instruction: Cow::Borrowed(own),
                    is_trigger: false,
                }));
            }
            if let Origin::Stage(base) = head.base {
                open.push(base);
            }
            for planned in &instructions {
                for from in sources_of(&planned.instruction) {
                    match table.origin(&planned.instruction, from.as_name()) {
                        Ok(Origin::Stage(source)) => open.push(source),
                        Err(error) if planned.is_trigger => found.0.push(error),
                        // Errors of the file's own instructions have been reported.
                        Ok(_) | Err(_) => {}
                    }
                }
            }
            reach.stages[index] = Some(instructions);
        }
        (reach, unknown.into_iter().collect())
    }

    /// Reached stages in file order.
    pub(super) fn stages(&self) -> impl Iterator<Item = (usize, &[StageInstruction<'a>])> {
        let stages = self.stages.iter().enumerate();
        stages.filter_map(|(index, instructions)| Some((index, instructions.as_deref()?)))
    }
}

/// The triggers that a stage's base carries, parsed.
fn fired_triggers<'a>(
    table: &StageTable<'a>,
    head: &StageHead<'a>,
    unknown: &mut BTreeSet<ImageRequest>,
    found: &mut Found,
) -> Vec<StageInstruction<'a>> {
    let texts: Vec<&str> = match &head.base {
        Origin::Stage(base) => {
            let own = table.heads[*base].stage.instructions.iter();
            let counted = own.filter(|_| !table.heads[*base].is_replaced);
            counted
                .filter_map(|instruction| match &instruction.kind {
                    InstructionKind::Onbuild(text) => Some(text.as_str()),
                    _ => None,
                })
                .collect()
        }
        Origin::Image(_) => {
            let Some(request) = image_request(table, head) else {
                return Vec::new();
            };
            let Some(image) = table.inputs.images.get(&request) else {
                unknown.insert(request);
                return Vec::new();
            };
            if head.is_replaced {
                // The image takes the place of the stage's result: nothing is built on it here.
                return Vec::new();
            }
            image
                .config
                .config
                .on_build
                .iter()
                .map(String::as_str)
                .collect()
        }
        Origin::Scratch | Origin::Files(_) | Origin::Unknown => Vec::new(),
    };
    let fired = texts.into_iter().filter_map(|text| {
        let trigger = parse_trigger(text, head.stage.span, head.stage.lines);
        found.or_default(trigger.map(|instruction| {
            Some(StageInstruction {
                instruction: Cow::Owned(instruction),
                is_trigger: true,
            })
        }))
    });
    fired.collect()
}

/// What has to be asked about a stage's base image.
pub(super) fn image_request(table: &StageTable<'_>, head: &StageHead<'_>) -> Option<ImageRequest> {
    let Origin::Image(reference) = &head.base else {
        return None;
    };
    let platform: &Platform = head
        .platform
        .as_ref()
        .unwrap_or_else(|| table.inputs.target_platform());
    Some(ImageRequest {
        reference: reference.clone(),
        platform: platform.clone(),
    })
}

/// A name out of an instruction; mounts hold theirs in a CSV record.
#[derive(Clone, Debug)]
pub(super) struct OwnedFromName {
    name: String,
    kind: FromKind,
}

impl OwnedFromName {
    pub(super) fn as_name(&self) -> FromName<'_> {
        FromName {
            name: &self.name,
            kind: self.kind,
        }
    }
}

/// Names after `--from=` of a COPY and `from=` of a RUN's mounts.
pub(super) fn sources_of(instruction: &Instruction) -> Vec<OwnedFromName> {
    let named = |name: String, kind| (!name.is_empty()).then_some(OwnedFromName { name, kind });
    match &instruction.kind {
        InstructionKind::Copy(copy) => copy
            .from
            .iter()
            .filter_map(|name| named(name.to_string(), FromKind::Copy))
            .collect(),
        InstructionKind::Run(run) => run
            .mounts
            .iter()
            .filter_map(|mount| named(mount_source(&mount.text)?, FromKind::Mount))
            .collect(),
        _ => Vec::new(),
    }
}

/// The last `from=` of a mount, unless it is in error for holding a variable.
pub(super) fn mount_source(mount: &str) -> Option<String> {
    // Most have none.
    let mut letters = mount.as_bytes().windows("from".len());
    if !letters.any(|letters| letters.eq_ignore_ascii_case(b"from")) {
        return None;
    }
    let fields = csv::fields(mount).ok()?;
    let mut values = fields.iter().filter_map(|field| field.text.split_once('='));
    let from = values.rfind(|(key, _)| key.eq_ignore_ascii_case("from"));
    let from = from.filter(|(_, value)| !has_variable(value));
    from.map(|(_, value)| value.to_owned())
}
