//! What the store takes, and what was pruned: tables for people, JSON for scripts.

use rbuild::maintenance::{CacheMountUse, DiskUse, ItemUse, Kind, Pruned};
use serde_json::{Value, json};

use super::table::table;
use super::{ansi, units, write_stdout};

/// Characters of an id in a table.
const SHORT_ID: usize = 12;
/// Characters of a title in a table.
const SHORT_TITLE: usize = 60;

/// `rbuild du`
pub(crate) fn print_use(used: &DiskUse, is_verbose: bool) {
    if is_verbose {
        for kind in Kind::PRUNABLE {
            print_items(kind, used);
        }
    }
    let row = |kind: &rbuild::maintenance::KindUse| {
        let share = match (kind.reclaimable, kind.bytes) {
            (0, _) => "-".to_owned(),
            (part, all) => format!(
                "{} ({}%)",
                units::bytes(part),
                u128::from(part) * 100 / u128::from(all.max(1))
            ),
        };
        vec![
            plural(kind.kind).to_owned(),
            kind.count.to_string(),
            units::bytes(kind.bytes),
            share,
        ]
    };
    let reclaimable: u64 = used.kinds.iter().map(|kind| kind.reclaimable).sum();
    let total = vec![
        "Total".to_owned(),
        String::new(),
        units::bytes(used.total),
        units::bytes(reclaimable),
    ];
    write_stdout(&table(
        &["TYPE", "COUNT", "SIZE", "RECLAIMABLE"],
        used.kinds.iter().map(row).chain([total]),
    ));
}

fn print_items(kind: Kind, used: &DiskUse) {
    let mut items: Vec<&ItemUse> = used.items.iter().filter(|item| item.kind == kind).collect();
    if items.is_empty() {
        return;
    }
    items.sort_by(|one, other| other.bytes.cmp(&one.bytes).then(one.id.cmp(&other.id)));
    let row = |item: &&ItemUse| {
        let state = match item {
            ItemUse {
                is_in_use: true, ..
            } => "in use",
            ItemUse {
                is_reclaimable: true,
                ..
            } => "reclaimable",
            _ => "needed",
        };
        vec![
            short_id(&item.id),
            units::bytes(item.bytes),
            units::bytes(item.shared),
            ago(item.age()),
            state.to_owned(),
            short_title(&item.title),
        ]
    };
    let head = ["ID", "SIZE", "SHARED", "USED", "STATE", "WHAT"];
    write_stdout(&format!(
        "{}\n{}\n",
        plural(kind),
        table(&head, items.iter().map(row))
    ));
}

/// `rbuild du --format json`
pub(crate) fn use_as_json(used: &DiskUse, is_verbose: bool) -> Value {
    let kinds: Vec<Value> = (used.kinds.iter())
        .map(|kind| {
            json!({
                "type": kind.kind.name(),
                "count": kind.count,
                "size": kind.bytes,
                "reclaimable": kind.reclaimable,
            })
        })
        .collect();
    let mut report = json!({ "total": used.total, "types": kinds });
    if is_verbose {
        let item = |item: &ItemUse| {
            json!({
                "type": item.kind.name(),
                "id": item.id,
                "title": item.title,
                "size": item.bytes,
                "shared": item.shared,
                "last_used": item.used,
                "in_use": item.is_in_use,
                "reclaimable": item.is_reclaimable,
            })
        };
        report["items"] = used.items.iter().map(item).collect();
    }
    report
}

/// `rbuild prune`
pub(crate) fn print_pruned(pruned: &Pruned, is_dry: bool) {
    if pruned.items.is_empty() {
        let words = if is_dry {
            "nothing would be removed"
        } else {
            "nothing to remove"
        };
        return write_stdout(&format!("{words}\n"));
    }
    let row = |item: &rbuild::maintenance::PrunedItem| {
        vec![
            short_id(&item.id),
            item.kind.name().to_owned(),
            units::bytes(item.bytes),
            short_title(&item.title),
        ]
    };
    let rows = pruned.items.iter().map(row);
    let words = if is_dry { "Would free" } else { "Total freed" };
    write_stdout(&format!(
        "{}\n{words}: {}\n",
        table(&["ID", "TYPE", "SIZE", "WHAT"], rows),
        units::bytes(pruned.freed)
    ));
}

/// `rbuild prune --format json`
pub(crate) fn pruned_as_json(pruned: &Pruned) -> Value {
    let items: Vec<Value> = (pruned.items.iter())
        .map(|item| {
            json!({
                "type": item.kind.name(),
                "id": item.id,
                "title": item.title,
                "size": item.bytes,
                "last_used": item.used,
            })
        })
        .collect();
    json!({ "freed": pruned.freed, "items": items })
}

/// `rbuild cache ls`
pub(crate) fn print_mounts(mounts: &[CacheMountUse]) {
    let row = |mount: &CacheMountUse| {
        vec![
            short_title(&mount.title),
            short_id(&mount.directory),
            units::bytes(mount.bytes),
            ago(mount.age()),
            if mount.is_in_use { "in use" } else { "-" }.to_owned(),
        ]
    };
    write_stdout(&table(
        &["ID", "DIRECTORY", "SIZE", "USED", "STATE"],
        mounts.iter().map(row),
    ));
}

/// `rbuild cache ls --format json`
pub(crate) fn mounts_as_json(mounts: &[CacheMountUse]) -> Value {
    let mount = |mount: &CacheMountUse| {
        json!({
            "id": mount.title,
            "directory": mount.directory,
            "size": mount.bytes,
            "created": mount.created,
            "last_used": mount.used,
            "in_use": mount.is_in_use,
        })
    };
    mounts.iter().map(mount).collect()
}

/// A line of `rbuild cache rm`
pub(crate) fn print_removed_mount(mount: &CacheMountUse) {
    write_stdout(&format!(
        "removed {} ({}), {}\n",
        safe(&mount.title),
        short_id(&mount.directory),
        units::bytes(mount.bytes)
    ));
}

fn plural(kind: Kind) -> &'static str {
    match kind {
        Kind::Image => "Images",
        Kind::Step => "Steps",
        Kind::CacheMount => "Cache mounts",
        Kind::Kept => "Failed steps",
        Kind::Blob => "Blobs",
        Kind::StatCache => "Stat caches",
        Kind::History => "Build logs",
        Kind::Work => "Work",
        Kind::Database => "Database",
        Kind::Other => "Other",
    }
}

fn short_id(id: &str) -> String {
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    let digits = digits.strip_prefix("chain-").unwrap_or(digits);
    if digits.len() <= SHORT_ID {
        return digits.to_owned();
    }
    // A private cache mount's number stands behind its digits, and is all that tells it from its siblings.
    let number = digits.rsplit_once('-').map_or("", |(_, number)| number);
    let short: String = digits.chars().take(SHORT_ID).collect();
    match number {
        "" => short,
        number => format!("{short}-{number}"),
    }
}

pub(super) fn short_title(title: &str) -> String {
    let line = safe(title);
    if line.chars().count() <= SHORT_TITLE {
        return line;
    }
    line.chars().take(SHORT_TITLE - 1).chain(['…']).collect()
}

/// In one line, and unable to move the cursor: titles come from Dockerfiles.
pub(super) fn safe(title: &str) -> String {
    let line = title.split_whitespace().collect::<Vec<_>>().join(" ");
    ansi::clean_line(line.as_bytes(), false)
}

/// `just now`, `5 hours ago`, `3 days ago`: uses are noted once an hour.
fn ago(seconds: u64) -> String {
    let (number, unit) = match seconds {
        0..7200 => return "just now".to_owned(),
        7200..172_800 => (seconds / 3600, "hours"),
        _ => (seconds / 86_400, "days"),
    };
    format!("{number} {unit} ago")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_short_and_still_tell_private_mounts_apart() {
        for (id, expected) in [
            ("sha256:0123456789abcdef", "0123456789ab"),
            ("chain-0123456789abcdef", "0123456789ab"),
            ("0123456789abcdef0123", "0123456789ab"),
            ("0123456789abcdef0123-2", "0123456789ab-2"),
        ] {
            assert_eq!(short_id(id), expected, "{id}");
        }
    }

    #[test]
    fn ages_are_as_coarse_as_they_are_noted() {
        for (seconds, expected) in [
            (0, "just now"),
            (7199, "just now"),
            (7200, "2 hours ago"),
            (172_800, "2 days ago"),
        ] {
            assert_eq!(ago(seconds), expected);
        }
    }

    #[test]
    fn titles_are_one_safe_line() {
        assert_eq!(short_title("RUN a \\\n  b"), "RUN a \\ b");
        assert_eq!(short_title(&"x".repeat(100)).chars().count(), SHORT_TITLE);
        assert!(!short_title("RUN \u{1b}[2J").contains('\u{1b}'));
    }
}
