//! Outlines and targets as tables for people.

use rbuild::check::{Needed, Outline, Targets};

use super::super::ansi::clean_line;

pub(super) fn text(outline: &Outline) -> String {
    let mut parts = Vec::new();
    if outline.name.is_some() || outline.description.is_some() {
        let name = outline.name.as_deref().unwrap_or("(default)");
        let mut rows = vec![["TARGET:", name]];
        rows.extend(
            outline
                .description
                .as_deref()
                .map(|words| ["DESCRIPTION:", words]),
        );
        parts.push(columns(rows.iter().map(|row| row.map(str::to_owned))));
    }
    if !outline.arguments.is_empty() {
        let head = ["BUILD ARG", "VALUE", "DESCRIPTION"].map(str::to_owned);
        let rows = outline.arguments.iter().map(|argument| {
            let (value, description) = (argument.value.clone(), argument.description.clone());
            [
                argument.name.clone(),
                value.unwrap_or_default(),
                description.unwrap_or_default(),
            ]
        });
        parts.push(columns(std::iter::once(head).chain(rows)));
    }
    let needed = |title: &str, all: &[Needed]| {
        let head = [title.to_owned(), "REQUIRED".to_owned()];
        let rows = all.iter().map(|needed| {
            let is_required = if needed.is_required { "true" } else { "" };
            [needed.id.clone(), is_required.to_owned()]
        });
        (!all.is_empty()).then(|| columns(std::iter::once(head).chain(rows)))
    };
    parts.extend(needed("SECRET", &outline.secrets));
    parts.extend(needed("SSH", &outline.ssh));
    if !outline.caches.is_empty() {
        let rows = outline.caches.iter().map(|cache| [cache.id.clone()]);
        parts.push(columns(
            std::iter::once(["CACHE MOUNT".to_owned()]).chain(rows),
        ));
    }
    if parts.is_empty() {
        return "nothing can be given to this target\n".to_owned();
    }
    parts.join("\n")
}

pub(super) fn targets(targets: &Targets) -> String {
    let head = ["TARGET", "DESCRIPTION"].map(str::to_owned);
    let count = targets.stages.len();
    let rows = targets.stages.iter().enumerate().map(|(index, stage)| {
        let is_default = index + 1 == count;
        let name = match (&stage.name, is_default) {
            (Some(name), true) => format!("{name} (default)"),
            (Some(name), false) => name.clone(),
            (None, true) => "(default)".to_owned(),
            (None, false) => String::new(),
        };
        [name, stage.description().unwrap_or_default()]
    });
    // A stage without a name can't be a target, the last one excepted.
    columns(std::iter::once(head).chain(rows.filter(|[name, _]| !name.is_empty())))
}

/// Aligned columns with three blanks between.
fn columns<const N: usize>(rows: impl Iterator<Item = [String; N]>) -> String {
    let clean = |cell: String| clean_line(cell.as_bytes(), false);
    let rows: Vec<[String; N]> = rows.map(|row| row.map(clean)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; N] = std::array::from_fn(|column| width(column).unwrap_or(0) + 3);
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths);
        let line = cells.fold(String::new(), |line, (cell, width)| {
            format!("{line}{cell:<width$}")
        });
        format!("{}\n", line.trim_end())
    };
    rows.iter().map(line).collect()
}
