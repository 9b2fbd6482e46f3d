//! What checking a store found: a paragraph for each damage and one line for the rest, or JSON for scripts.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use rbuild::maintenance::{Damage, DamageKind, Dependant, FsckReport, Healing, Recovered};
use serde_json::{Value, json};

use super::store::{safe, short_title};
use super::{units, write_stderr, write_stdout};

/// `rbuild fsck`
pub(crate) fn print(report: &FsckReport, repairs: bool) {
    write_stdout(&text(report, repairs));
    if !report.is_whole() {
        write_stderr(
            "help: `rbuild fsck --repair` does what is said of each, once no build is running\n",
        );
    }
}

fn text(report: &FsckReport, repairs: bool) -> String {
    let mut text: String = report.damages.iter().map(paragraph).collect();
    // Writing to a string can't fail.
    if report.recovered != Recovered::default() {
        let Recovered {
            snapshots,
            blobs,
            images,
        } = report.recovered;
        let _ = writeln!(
            text,
            "found on the disk, and {} the new database: {}, {}, {}",
            if repairs { "put into" } else { "fit for" },
            count(snapshots, "snapshot"),
            count(blobs, "blob"),
            count(images, "image"),
        );
    }
    let mut kinds: BTreeMap<(&str, bool), usize> = BTreeMap::new();
    for leftover in &report.leftovers {
        *kinds
            .entry((leftover.kind.name(), leftover.is_removed))
            .or_default() += 1;
    }
    for ((name, is_removed), number) in kinds {
        let end = if is_removed { "; removed" } else { "" };
        let _ = writeln!(text, "left over, no damage: {number} × {name}{end}");
    }
    let checked = &report.checked;
    let _ = writeln!(
        text,
        "checked {} ({}), {} ({}), {}, {}: {}",
        count(checked.snapshots, "snapshot"),
        units::bytes(checked.snapshot_bytes),
        count(checked.blobs, "blob"),
        units::bytes(checked.blob_bytes),
        count(checked.images, "image"),
        count(checked.steps, "step"),
        verdict(&report.damages),
    );
    text
}

fn verdict(damages: &[Damage]) -> String {
    let repaired = damages.iter().filter(|damage| damage.is_repaired).count();
    match (damages.len(), repaired) {
        (0, _) => "no damage".to_owned(),
        (all, repaired) if all == repaired => format!("{}, repaired", count(all, "damage")),
        (all, 0) => count(all, "damage"),
        (all, repaired) => format!("{}, {repaired} of them repaired", count(all, "damage")),
    }
}

fn count(number: usize, word: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {word}{plural}")
}

fn paragraph(damage: &Damage) -> String {
    // An image's own name stands where others have what needs them.
    let (title, needed_by) = match (damage.kind, damage.needed_by.as_slice()) {
        (DamageKind::Image, [Dependant::Image(names)]) => {
            (format!("{names} ({})", damage.id), &[][..])
        }
        (_, needed_by) => (damage.id.clone(), needed_by),
    };
    let mut text = format!("{} {}\n", damage.kind.name(), safe(&title));
    // Writing to a string can't fail.
    for problem in &damage.problems {
        let _ = writeln!(text, "  {}", safe(&problem.to_string()));
    }
    if !needed_by.is_empty() {
        let names: Vec<String> = needed_by.iter().map(dependant).collect();
        let _ = writeln!(text, "  needed by {}", names.join(", "));
    }
    let _ = writeln!(text, "  in {}", safe(&damage.path.display().to_string()));
    let word = if damage.is_repaired {
        "repaired"
    } else {
        "repair"
    };
    let how = match damage.kind {
        DamageKind::Database => {
            "a new one of what is whole; images and steps that it lacks have to be built or pulled again"
                .to_owned()
        }
        _ => healing(&damage.healing),
    };
    let _ = writeln!(text, "  {word}: {how}\n");
    text
}

fn dependant(dependant: &Dependant) -> String {
    match dependant {
        Dependant::Image(name) => format!("image {}", safe(name)),
        Dependant::Step(title) => format!("step `{}`", short_title(title)),
        Dependant::Kept(title) => {
            format!("what is kept of the failed step `{}`", short_title(title))
        }
    }
}

fn healing(healing: &Healing) -> String {
    match healing {
        Healing::Mended => "written anew from what is whole".to_owned(),
        Healing::Run => "removed; the next build that needs it runs the step again".to_owned(),
        Healing::Pull(places) if places.is_empty() => {
            "removed; the next build that needs it gets it again".to_owned()
        }
        Healing::Pull(places) => format!(
            "removed; the next build that needs it pulls it again from {}",
            safe(&places.join(" or "))
        ),
        Healing::Pack => "removed; the next export packs it again".to_owned(),
        Healing::Build => "removed; build or pull the image again".to_owned(),
        Healing::Needless => "removed; nothing needs it".to_owned(),
    }
}

/// `rbuild fsck --format json`
pub(crate) fn as_json(report: &FsckReport) -> Value {
    let damages: Vec<Value> = report.damages.iter().map(damage_as_json).collect();
    let leftovers: Vec<Value> = (report.leftovers.iter())
        .map(|leftover| {
            json!({
                "what": leftover.kind.name(),
                "path": leftover.path.display().to_string(),
                "removed": leftover.is_removed,
            })
        })
        .collect();
    let (checked, recovered) = (&report.checked, &report.recovered);
    json!({
        "whole": report.is_whole(),
        "checked": {
            "snapshots": checked.snapshots,
            "snapshot_bytes": checked.snapshot_bytes,
            "blobs": checked.blobs,
            "blob_bytes": checked.blob_bytes,
            "images": checked.images,
            "steps": checked.steps,
        },
        "running": report.running,
        "recovered": {
            "snapshots": recovered.snapshots,
            "blobs": recovered.blobs,
            "images": recovered.images,
        },
        "damages": damages,
        "leftovers": leftovers,
    })
}

fn damage_as_json(damage: &Damage) -> Value {
    let problems: Vec<String> = damage.problems.iter().map(ToString::to_string).collect();
    let needed_by: Vec<Value> = (damage.needed_by.iter())
        .map(|dependant| match dependant {
            Dependant::Image(name) => json!({ "type": "image", "name": name }),
            Dependant::Step(title) => json!({ "type": "step", "name": title }),
            Dependant::Kept(title) => json!({ "type": "failed-step", "name": title }),
        })
        .collect();
    let (healing, from) = match &damage.healing {
        Healing::Mended => ("mended", None),
        Healing::Run => ("run", None),
        Healing::Pull(places) => ("pull", Some(places)),
        Healing::Pack => ("pack", None),
        Healing::Build => ("build", None),
        Healing::Needless => ("needless", None),
    };
    json!({
        "type": damage.kind.name(),
        "id": damage.id,
        "path": damage.path.display().to_string(),
        "problems": problems,
        "needed_by": needed_by,
        "healing": healing,
        "from": from,
        "repaired": damage.is_repaired,
    })
}
