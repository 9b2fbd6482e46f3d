//! Small languages: ignore files, modes, git references.

use std::collections::BTreeSet;
use std::path::Path;

use rbuild_frontend::chmod::ModeChange;
use rbuild_frontend::git_reference::{GitMtime, GitReference};
use rbuild_frontend::ignore_file::{IgnoreFile, IgnoreMatcher, ParentMatch, Verdict};
use serde_json::Value;

use super::rows::{check_all, check_each, notice, own_root, root, rows_of, text};

fn texts(value: &Value) -> Vec<&str> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

fn compare<T: PartialEq + std::fmt::Debug>(
    row: &Value,
    ours: &T,
    theirs: &T,
) -> Result<(), String> {
    if ours == theirs {
        Ok(())
    } else {
        Err(format!("{row}\n  ours: {ours:?}\n  want: {theirs:?}"))
    }
}

#[test]
fn modes() {
    check_all("chmod/chmod.jsonl", |row| {
        let base = u32::from_str_radix(text(row, "base"), 8).unwrap();
        let ours = ModeChange::parse(text(row, "mode"))
            .ok()
            .map(|mode| format!("{:o}", mode.apply(base, row["is_dir"].as_bool().unwrap())));
        compare(row, &ours.as_deref(), &row["result"].as_str())
    });
}

#[test]
fn ignore_matches() {
    check_all("dockerignore/ignore-match.jsonl", |row| {
        let matcher = IgnoreMatcher::new(texts(&row["patterns"]));
        let ours = matcher
            .ok()
            .map(|matcher| matcher.matches(text(row, "path").as_bytes()));
        compare(row, &ours, &row["matches_or_parent"].as_bool())
    });
}

#[test]
fn ignore_files() {
    check_all("dockerignore/ignore-file.jsonl", |row| {
        let ours = IgnoreFile::parse(text(row, "text").as_bytes()).unwrap();
        let ours: Vec<&str> = ours.patterns.iter().map(String::as_str).collect();
        compare(row, &ours, &texts(&row["patterns"]))
    });
}

/// Entries of a corpus's tree, directories with a `/`, in walk order.
fn tree(root: &Path) -> Option<Vec<String>> {
    let layout = std::fs::read_to_string(root.join("dockerignore/ignore-tree-layout.json")).ok()?;
    let layout: Value = serde_json::from_str(&layout).unwrap();
    let mut entries = BTreeSet::new();
    for path in texts(&layout["files"]) {
        entries.insert(path.to_owned());
        entries.extend(
            path.match_indices('/')
                .map(|(end, _)| path[..=end].to_owned()),
        );
    }
    entries.extend(
        texts(&layout["empty_dirs"])
            .iter()
            .map(|path| format!("{path}/")),
    );
    Some(entries.into_iter().collect())
}

fn walk(matcher: &IgnoreMatcher, entries: &[String]) -> BTreeSet<String> {
    let mut kept = BTreeSet::new();
    let mut above: Vec<(&str, ParentMatch)> = Vec::new();
    let mut skipped: Option<&str> = None;
    for entry in entries {
        if skipped.is_some_and(|directory| entry.starts_with(directory)) {
            continue;
        }
        while above
            .last()
            .is_some_and(|(directory, _)| !entry.starts_with(directory))
        {
            above.pop();
        }
        let parent = above
            .last()
            .map(|(_, parent)| parent.clone())
            .unwrap_or_default();
        let (verdict, below) = matcher.judge(entry.trim_end_matches('/').as_bytes(), &parent);
        match verdict {
            Verdict::Kept => {
                kept.extend(above.iter().map(|(directory, _)| (*directory).to_owned()));
                kept.insert(entry.clone());
            }
            Verdict::Ignored {
                may_keep_below: false,
            } if entry.ends_with('/') => skipped = Some(entry),
            Verdict::Ignored { .. } => {}
        }
        if entry.ends_with('/') {
            above.push((entry, below));
        }
    }
    kept
}

#[test]
fn ignore_trees() {
    let own = tree(&own_root()).expect("our own tree");
    walks_agree(&own_root(), &own);
    match tree(&root()) {
        Some(entries) => walks_agree(&root(), &entries),
        None => notice("skipped: no corpus table dockerignore/ignore-tree-layout.json"),
    }
}

fn walks_agree(root: &Path, entries: &[String]) {
    const TABLE: &str = "dockerignore/ignore-tree.jsonl";
    check_each(TABLE, &rows_of(root, TABLE), |row| {
        let patterns = IgnoreFile::parse(text(row, "dockerignore").as_bytes()).unwrap();
        let ours = patterns
            .matcher()
            .ok()
            .map(|matcher| walk(&matcher, entries));
        let theirs = row["error"]
            .is_null()
            .then(|| texts(&row["kept"]).into_iter().map(str::to_owned).collect());
        compare(row, &ours, &theirs)
    });
}

#[test]
fn git_references() {
    check_all("gitref/gitref.jsonl", |row| {
        let ours = GitReference::parse(text(row, "ref"));
        let is_git = !matches!(ours, Ok(None));
        compare(row, &is_git, &row["is_git"].as_bool().unwrap_or_default())?;
        let ours = ours.ok().flatten();
        let parsed = &row["parsed"];
        compare(row, &ours.is_some(), &parsed.is_object())?;
        let Some(ours) = ours else { return Ok(()) };
        let strings = [
            ("Remote", &ours.remote),
            ("ShortName", &ours.short_name),
            ("Ref", &ours.reference),
            ("Checksum", &ours.checksum),
            ("SubDir", &ours.subdirectory),
        ];
        for (key, ours) in strings {
            compare(row, &ours.as_str(), &text(parsed, key))?;
        }
        let mtime = ours.mtime.map_or("", |mtime| match mtime {
            GitMtime::Checkout => "checkout",
            GitMtime::Commit => "commit",
        });
        compare(row, &mtime, &text(parsed, "MTime"))?;
        for (key, ours) in [
            ("IndistinguishableFromLocal", Some(ours.is_ambiguous)),
            ("UnencryptedTCP", Some(ours.is_unencrypted)),
            ("KeepGitDir", ours.keep_git_dir),
            ("Submodules", ours.submodules),
            ("FetchByCommit", Some(ours.fetches_by_commit)),
        ] {
            compare(row, &ours, &parsed[key].as_bool())?;
        }
        Ok(())
    });
}
