//! A snapshot's entry table against what its directory holds now.
//!
//! Times are left out: they decide nothing that a step reads from a layer that was pulled, and of a layer that was made
//! here the diff_id tells. Which of a file's names comes first is a matter of order and not of content.

use std::collections::{BTreeMap, HashMap};

use super::{Problem, SnapshotLimits};
use crate::digest::ContentDigest;
use crate::entry::{Entry, EntryKind, EntryTable};

/// Differences that are told one by one.
const MOST_TOLD: usize = 3;

/// How the directory differs from the table; empty when it does not.
pub(super) fn differences(
    table: &EntryTable,
    found: &[Entry],
    limits: SnapshotLimits,
) -> Vec<Problem> {
    let (recorded, found) = (Tree::of(&table.entries), Tree::of(found));
    let mut differences = Vec::new();
    for (path, entry) in &recorded.entries {
        let what = match found.entries.get(path) {
            None if limits.lacks_privileged && is_device(entry) => None,
            None => Some("is missing"),
            Some(other) => difference(entry, other, limits)
                .or_else(|| recorded.differs_in_content(&found, path)),
        };
        differences.extend(what.map(|what| (*path, what)));
    }
    let is_known = |path: &[u8]| {
        recorded.entries.contains_key(path) || table.implied.iter().any(|known| known == path)
    };
    for path in found.entries.keys().filter(|path| !is_known(path)) {
        differences.push((path, "is not part of the layer"));
    }
    let count = differences.len();
    let mut told: Vec<Problem> = (differences.into_iter().take(MOST_TOLD))
        .map(|(path, what)| Problem::Entry {
            path: path.escape_ascii().to_string(),
            what,
        })
        .collect();
    if count > MOST_TOLD {
        told.push(Problem::More {
            count: count - MOST_TOLD,
        });
    }
    told
}

/// Entries by path, and the files behind their names.
struct Tree<'a> {
    entries: BTreeMap<&'a [u8], &'a Entry>,
    /// All names of a file that has several, by each of them.
    names: HashMap<&'a [u8], Vec<&'a [u8]>>,
}

impl<'a> Tree<'a> {
    fn of(entries: &'a [Entry]) -> Self {
        let mut linked: BTreeMap<&[u8], Vec<&[u8]>> = BTreeMap::new();
        for entry in entries {
            if let EntryKind::HardLink { target } = &entry.kind {
                let names = linked.entry(target).or_insert_with(|| vec![target]);
                names.push(&entry.path);
            }
        }
        let mut names = HashMap::new();
        for mut group in linked.into_values() {
            group.sort_unstable();
            for name in &group {
                names.insert(*name, group.clone());
            }
        }
        let entries = entries.iter().map(|entry| (entry.path.as_slice(), entry));
        Self {
            entries: entries.collect(),
            names,
        }
    }

    /// Size and content of the file at a path, by whichever name they are recorded.
    fn content(&self, path: &[u8]) -> Option<(u64, ContentDigest)> {
        let entry = self.entries.get(path)?;
        match &entry.kind {
            EntryKind::File { size, digest } => Some((*size, *digest)),
            EntryKind::HardLink { target } => match self.entries.get(target.as_slice())?.kind {
                EntryKind::File { size, digest } => Some((size, digest)),
                _ => None,
            },
            _ => None,
        }
    }

    fn differs_in_content(&self, other: &Self, path: &[u8]) -> Option<&'static str> {
        match (self.content(path), other.content(path)) {
            (Some((size, _)), Some((found, _))) if size != found => Some("has another size"),
            (Some((_, digest)), Some((_, found))) if digest != found => Some("holds other bytes"),
            _ if self.names.get(path) != other.names.get(path) => {
                Some("shares its file with other names")
            }
            _ => None,
        }
    }
}

fn is_device(entry: &Entry) -> bool {
    matches!(
        entry.kind,
        EntryKind::CharDevice { .. } | EntryKind::BlockDevice { .. }
    )
}

fn is_file(entry: &Entry) -> bool {
    matches!(
        entry.kind,
        EntryKind::File { .. } | EntryKind::HardLink { .. }
    )
}

/// How one entry differs, contents of files apart.
fn difference(recorded: &Entry, found: &Entry, limits: SnapshotLimits) -> Option<&'static str> {
    match (&recorded.kind, &found.kind) {
        (EntryKind::Whiteout, EntryKind::Whiteout) => return None,
        _ if is_file(recorded) && is_file(found) => {}
        (EntryKind::Directory { is_opaque: one }, EntryKind::Directory { is_opaque: other })
            if one != other =>
        {
            return Some("hides what is below it, or does not any more");
        }
        (EntryKind::Symlink { target: one }, EntryKind::Symlink { target: other })
            if one != other =>
        {
            return Some("points elsewhere");
        }
        (one, other) if std::mem::discriminant(one) != std::mem::discriminant(other) => {
            return Some("has another type");
        }
        (one, other) if is_device(recorded) && one != other => {
            return Some("has other device numbers");
        }
        _ => {}
    }
    let is_symlink = matches!(recorded.kind, EntryKind::Symlink { .. });
    if !is_symlink && recorded.mode != found.mode {
        return Some("has another mode");
    }
    if !limits.lacks_owners && (recorded.uid, recorded.gid) != (found.uid, found.gid) {
        return Some("has another owner");
    }
    if attributes(recorded, limits) != attributes(found, limits) {
        return Some("has other extended attributes");
    }
    None
}

fn attributes(entry: &Entry, limits: SnapshotLimits) -> BTreeMap<&[u8], &[u8]> {
    let is_kept = |name: &[u8]| !(limits.lacks_privileged && name.starts_with(b"trusted."));
    (entry.xattrs.iter())
        .filter(|(name, _)| is_kept(name))
        .map(|(name, value)| (name.as_slice(), value.as_slice()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: EntryKind) -> Entry {
        Entry {
            path: path.into(),
            kind,
            mode: 0o755,
            uid: 0,
            gid: 0,
            xattrs: vec![(b"user.a".to_vec(), b"1".to_vec())],
            mtime: (1, 1),
        }
    }

    fn file(path: &str, content: &str) -> Entry {
        let digest = ContentDigest::of_bytes(content.as_bytes());
        let size = content.len() as u64;
        entry(path, EntryKind::File { size, digest })
    }

    fn link(path: &str, target: &str) -> Entry {
        let target = target.into();
        entry(path, EntryKind::HardLink { target })
    }

    fn directory(path: &str) -> Entry {
        entry(path, EntryKind::Directory { is_opaque: false })
    }

    fn symlink(path: &str, target: &str) -> Entry {
        let target = target.into();
        entry(path, EntryKind::Symlink { target })
    }

    fn device(path: &str, minor: u32) -> Entry {
        entry(path, EntryKind::CharDevice { major: 1, minor })
    }

    fn told(recorded: Vec<Entry>, found: &[Entry], limits: SnapshotLimits) -> Vec<String> {
        let table = EntryTable {
            entries: recorded,
            implied: vec![b"implied".to_vec()],
        };
        let differences = differences(&table, found, limits);
        differences.iter().map(ToString::to_string).collect()
    }

    /// A case: what was recorded, what is found, what is told.
    type Row = (
        &'static str,
        Vec<Entry>,
        Vec<Entry>,
        &'static [&'static str],
    );

    #[test]
    fn every_difference_is_told_and_nothing_else() {
        let change = |change: fn(&mut Entry)| {
            let mut entry = file("f", "one");
            change(&mut entry);
            entry
        };
        let whole = SnapshotLimits::default();
        let rows: Vec<Row> = vec![
            ("equal", vec![file("f", "one")], vec![file("f", "one")], &[]),
            (
                "bytes",
                vec![file("f", "one")],
                vec![file("f", "two")],
                &["`f` holds other bytes"],
            ),
            (
                "size",
                vec![file("f", "one")],
                vec![file("f", "on")],
                &["`f` has another size"],
            ),
            (
                "missing",
                vec![file("f", "one")],
                vec![],
                &["`f` is missing"],
            ),
            (
                "too many",
                vec![],
                vec![file("f", "one")],
                &["`f` is not part of the layer"],
            ),
            ("implied", vec![], vec![directory("implied")], &[]),
            (
                "type",
                vec![file("f", "one")],
                vec![directory("f")],
                &["`f` has another type"],
            ),
            (
                "time",
                vec![file("f", "one")],
                vec![change(|entry| entry.mtime = (9, 9))],
                &[],
            ),
            (
                "mode",
                vec![file("f", "one")],
                vec![change(|entry| entry.mode = 0)],
                &["`f` has another mode"],
            ),
            (
                "owner",
                vec![file("f", "one")],
                vec![change(|entry| entry.gid = 1)],
                &["`f` has another owner"],
            ),
            (
                "attributes",
                vec![file("f", "one")],
                vec![change(|entry| entry.xattrs.clear())],
                &["`f` has other extended attributes"],
            ),
            (
                "target",
                vec![symlink("s", "a")],
                vec![symlink("s", "b")],
                &["`s` points elsewhere"],
            ),
            (
                "order of names",
                vec![file("a", "one"), link("b", "a")],
                vec![file("b", "one"), link("a", "b")],
                &[],
            ),
            (
                "a link became a copy",
                vec![file("a", "one"), link("b", "a")],
                vec![file("a", "one"), file("b", "one")],
                &[
                    "`a` shares its file with other names",
                    "`b` shares its file with other names",
                ],
            ),
            (
                "a linked file",
                vec![file("a", "one"), link("b", "a")],
                vec![file("a", "two"), link("b", "a")],
                &["`a` holds other bytes", "`b` holds other bytes"],
            ),
            (
                "opaque",
                vec![directory("d")],
                vec![entry("d", EntryKind::Directory { is_opaque: true })],
                &["`d` hides what is below it, or does not any more"],
            ),
            (
                "numbers",
                vec![device("n", 3)],
                vec![device("n", 5)],
                &["`n` has other device numbers"],
            ),
            ("device", vec![device("n", 3)], vec![], &["`n` is missing"]),
            (
                "many",
                (0..9)
                    .map(|number| file(&format!("f{number}"), "one"))
                    .collect(),
                vec![],
                &[
                    "`f0` is missing",
                    "`f1` is missing",
                    "`f2` is missing",
                    "and 6 more",
                ],
            ),
            (
                "a hostile name",
                vec![file("a\n\u{1b}", "")],
                vec![],
                &["`a\\n\\x1b` is missing"],
            ),
        ];
        for (case, recorded, found, expected) in rows {
            assert_eq!(told(recorded, &found, whole), expected, "{case}");
        }
    }

    #[test]
    fn what_could_not_be_made_is_not_missed() {
        let limits = SnapshotLimits {
            lacks_privileged: true,
            lacks_owners: true,
        };
        let mut recorded = file("f", "one");
        recorded.xattrs.push((b"trusted.x".to_vec(), Vec::new()));
        recorded.uid = 1000;
        assert!(told(vec![device("n", 3), recorded], &[file("f", "one")], limits).is_empty());
    }
}
