//! From the parts of a key then and now to reasons.

use std::collections::BTreeMap;

use rbuild_cache::{ContentDigest, KeyPart, ListedFile, ListedKind};

use super::parts::{self, PartName};
use super::{FileChange, Reason};

/// Files that are named for one step; of the others there is the number.
const MOST_FILES: usize = 20;

/// Gives a file list by its digest.
pub(crate) type Lists<'a> = dyn Fn(&ContentDigest) -> Option<Vec<ListedFile>> + 'a;

/// What differs, most telling first; empty when nothing does.
pub(crate) fn compare(now: &[KeyPart], then: &[KeyPart], lists: &Lists<'_>) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let value = |parts: &[KeyPart], name: &str| {
        let part = parts.iter().find(|part| part.name == name);
        part.map(|part| part.value.clone())
    };
    let instruction = (
        value(then, parts::INSTRUCTION),
        value(now, parts::INSTRUCTION),
    );
    let is_edited = instruction.0 != instruction.1;
    if let (true, (Some(before), Some(after))) = (is_edited, instruction) {
        reasons.push(Reason::Instruction { before, after });
    }
    let mut changes: Vec<Reason> = Vec::new();
    let mut below = None;
    for (name, before, after) in differences(now, then) {
        match PartName::parse(name) {
            PartName::Instruction | PartName::BaseImage | PartName::Bookkeeping => {}
            // What an edited line says is seen in the line.
            PartName::Spelt if is_edited => {}
            PartName::Spelt | PartName::Setting => reasons.push(Reason::Setting {
                name: name.to_owned(),
                before: before.map(ToOwned::to_owned),
                after: after.map(ToOwned::to_owned),
            }),
            PartName::Argument(name) => reasons.push(Reason::BuildArgument {
                name: name.to_owned(),
                before: before.map(ToOwned::to_owned),
                after: after.map(ToOwned::to_owned),
            }),
            PartName::Variable(name) => reasons.push(Reason::Environment {
                name: name.to_owned(),
                before: before.map(ToOwned::to_owned),
                after: after.map(ToOwned::to_owned),
            }),
            PartName::Files(source) => match files(before, after, lists) {
                Some(found) => changes.extend(found),
                None if is_edited && (before.is_none() || after.is_none()) => {}
                None => reasons.push(Reason::Files {
                    source: source.to_owned(),
                }),
            },
            PartName::Parent => below = parent(now, then),
        }
    }
    let count = changes.len();
    reasons.extend(changes.into_iter().take(MOST_FILES));
    if count > MOST_FILES {
        reasons.push(Reason::MoreFiles {
            count: count - MOST_FILES,
        });
    }
    // What the step itself reads tells more than what is below it.
    reasons.extend(below);
    reasons
}

/// Parts that are not the same, in the order of `now`, then those that are gone.
fn differences<'part>(
    now: &'part [KeyPart],
    then: &'part [KeyPart],
) -> Vec<(&'part str, Option<&'part str>, Option<&'part str>)> {
    let known: BTreeMap<&str, &str> = then
        .iter()
        .map(|part| (part.name.as_str(), part.value.as_str()))
        .collect();
    let mut found = Vec::new();
    for part in now {
        let before = known.get(part.name.as_str()).copied();
        if before != Some(part.value.as_str()) {
            found.push((part.name.as_str(), before, Some(part.value.as_str())));
        }
    }
    for part in then {
        if !now.iter().any(|other| other.name == part.name) {
            found.push((part.name.as_str(), Some(part.value.as_str()), None));
        }
    }
    found
}

/// The layers below are others: the base's doing if the step stands on it, else a step's.
fn parent(now: &[KeyPart], then: &[KeyPart]) -> Option<Reason> {
    let base = |parts: &[KeyPart]| {
        parts.iter().find_map(|part| {
            let name = part.name.strip_prefix(parts::BASE_IMAGE)?;
            Some((name.to_owned(), part.value.clone()))
        })
    };
    if let (Some((name, after)), Some((earlier, before))) = (base(now), base(then)) {
        let is_renamed = name != earlier;
        return Some(Reason::BaseImage {
            before: if is_renamed { earlier } else { before },
            after: if is_renamed { name.clone() } else { after },
            name,
        });
    }
    let below = now.iter().find(|part| part.name == parts::BELOW)?;
    Some(Reason::Parent {
        step: below.value.clone(),
    })
}

/// How two file lists differ; none when one of them is not known.
fn files(before: Option<&str>, after: Option<&str>, lists: &Lists<'_>) -> Option<Vec<Reason>> {
    let list = |digest: Option<&str>| lists(&parts::parse_digest(digest?)?);
    let (before, after) = (list(before)?, list(after)?);
    let then: BTreeMap<&[u8], &ListedFile> = before
        .iter()
        .map(|file| (file.path.as_slice(), file))
        .collect();
    let now: BTreeMap<&[u8], &ListedFile> = after
        .iter()
        .map(|file| (file.path.as_slice(), file))
        .collect();
    let mut found = Vec::new();
    let paths: std::collections::BTreeSet<&[u8]> = now.keys().chain(then.keys()).copied().collect();
    for path in paths {
        let change = match (then.get(path), now.get(path)) {
            (None, _) => Some(FileChange::Added),
            (_, None) => Some(FileChange::Removed),
            (Some(then), Some(now)) => difference(then, now),
        };
        if let Some(change) = change {
            found.push(Reason::File {
                path: shown(path),
                change,
            });
        }
    }
    Some(found)
}

fn difference(then: &ListedFile, now: &ListedFile) -> Option<FileChange> {
    if then.kind != now.kind {
        return Some(FileChange::Type);
    }
    // A directory has no content of its own.
    if then.content != now.content && now.kind != ListedKind::Directory {
        return Some(FileChange::Content);
    }
    if then.mode != now.mode {
        return Some(FileChange::Mode);
    }
    if then.owner != now.owner {
        return Some(FileChange::Owner);
    }
    (then.attributes != now.attributes).then_some(FileChange::Attributes)
}

/// A path as a person reads it: a name can hold anything but `/` and NUL.
fn shown(path: &[u8]) -> String {
    if path.is_empty() {
        return ".".to_owned();
    }
    let text = String::from_utf8_lossy(path);
    text.chars()
        .map(|letter| {
            if letter.is_control() {
                '\u{fffd}'
            } else {
                letter
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names and values.
    type Pairs = &'static [(&'static str, &'static str)];

    fn parts(text: &[(&str, &str)]) -> Vec<KeyPart> {
        text.iter()
            .map(|(name, value)| KeyPart::new(*name, *value))
            .collect()
    }

    fn texts(now: &[(&str, &str)], then: &[(&str, &str)]) -> Vec<String> {
        let none = |_: &ContentDigest| None;
        let reasons = compare(&parts(now), &parts(then), &none);
        reasons.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_differs_is_named() {
        let table: &[(&str, Pairs, Pairs, &[&str])] = &[
            ("nothing", &[("user", "a")], &[("user", "a")], &[]),
            (
                "an argument",
                &[("build arg V", "2"), ("variable X", "1")],
                &[("build arg V", "1"), ("variable X", "1")],
                &["build arg V 1 → 2"],
            ),
            (
                "an edited line tells all that is spelt in it",
                &[("instruction", "RUN b"), ("command", "b")],
                &[("instruction", "RUN a"), ("command", "a")],
                &["instruction changed: RUN a → RUN b"],
            ),
            (
                "a base of another digest",
                &[("parent", "1"), ("base image d", "sha256:2")],
                &[("parent", "2"), ("base image d", "sha256:1")],
                &["base image d sha256:1 → sha256:2"],
            ),
            (
                "a base that was only packed anew",
                &[("parent", "1"), ("base image d", "sha256:2")],
                &[("parent", "1"), ("base image d", "sha256:1")],
                &[],
            ),
            (
                "another base",
                &[("parent", "1"), ("base image e", "sha256:2")],
                &[("parent", "2"), ("base image d", "sha256:1")],
                &["base image d → e"],
            ),
            (
                "the step below",
                &[("parent", "1"), ("below", "[2/3] RUN x")],
                &[("parent", "2"), ("below", "[2/3] RUN x")],
                &["parent step [2/3] RUN x gave another result"],
            ),
            (
                "files without a list",
                &[(
                    "files src",
                    "1111111111111111111111111111111111111111111111111111111111111111",
                )],
                &[("files src", "2")],
                &["files of src"],
            ),
            (
                "bookkeeping is nobody's business",
                &[("stands-on-0", "1"), ("ran-in", "a-1"), ("below", "x")],
                &[("stands-on-0", "2"), ("ran-in", "b-1"), ("below", "y")],
                &[],
            ),
        ];
        for (name, now, then, expected) in table {
            assert_eq!(&texts(now, then), expected, "{name}");
        }
    }

    #[test]
    fn files_are_named_up_to_a_bound() {
        let file = |name: String, content: u8, mode| ListedFile {
            path: name.into_bytes(),
            kind: ListedKind::File,
            mode,
            owner: (0, 0),
            content: [content; 8],
            attributes: None,
        };
        let (one, two) = ("1".repeat(64), "2".repeat(64));
        let lists = |digest: &ContentDigest| {
            let is_now = digest.to_string() == two;
            let mut files = vec![
                file("same".into(), 1, 0o644),
                file("content".into(), if is_now { 2 } else { 1 }, 0o644),
                file("mode".into(), 1, if is_now { 0o755 } else { 0o644 }),
            ];
            if is_now {
                files.extend((0..30).map(|number| file(format!("new{number:02}"), 1, 0o644)));
            } else {
                files.push(file("old\nname".into(), 1, 0o644));
            }
            Some(files)
        };
        let (now, then) = (parts(&[("files .", &two)]), parts(&[("files .", &one)]));
        let texts: Vec<String> = compare(&now, &then, &lists)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(texts.len(), MOST_FILES + 1);
        assert_eq!(
            texts[..3],
            [
                "file content (content)",
                "file mode (mode)",
                "file new00 (added)"
            ]
        );
        assert_eq!(texts[MOST_FILES], "and 13 more files");
    }
}
