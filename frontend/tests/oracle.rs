//! `parse-dockerfile` beside our parser: whether a file is one. Where the two disagree, a row below says why we are
//! right; the answers of the reference itself are in the corpus, when it is there.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use rbuild_frontend::instructions;
use rbuild_frontend::source::Source;
use serde_json::Value;

/// Why the two may disagree about a file: what one of them does, and whether the file is such a one.
type Difference = (&'static str, fn(&str) -> bool);

/// What it takes and we refuse, as the reference does: it checks neither flags nor the arguments of most instructions.
const IT_TAKES: &[&str] = &[
    "blank-name",
    "blank-volume",
    "duplicate-flag",
    "heredoc-destination",
    "invalid-device",
    "invalid-duration",
    "invalid-flag-value",
    "invalid-mount",
    "invalid-retries",
    "invalid-stage-name",
    "invalid-trigger",
    "line-too-long",
    "missing-argument",
    "missing-flag-value",
    "missing-value",
    "not-a-string",
    "repeated-directive",
    "shell-not-json",
    "stray-argument",
    "unknown-flag",
    "unknown-healthcheck",
    "unterminated-heredoc",
    "variable-in-from",
];

/// What it refuses and we take, as the reference does.
const IT_REFUSES: &[Difference] = &[
    ("it wants a FROM, which a file of ARGs lacks", |text| {
        !text.to_lowercase().contains("from ")
    }),
    ("it wants stages to have different names", |text| {
        let mut names = BTreeSet::new();
        let lines = text.lines().map(str::to_lowercase);
        let stages = lines.filter(|line| line.trim_start().starts_with("from "));
        let named: Vec<String> = stages
            .filter_map(|line| Some(line.split_once(" as ")?.1.trim().to_owned()))
            .collect();
        named.into_iter().any(|name| !names.insert(name))
    }),
    ("it ends a here-document otherwise", |text| {
        text.contains("<<")
    }),
    ("it reads escapes at the end of a line otherwise", |text| {
        text.contains("\\\\\n") || text.contains("``\n") || text.trim_end().ends_with('\\')
    }),
    ("it takes what begins like JSON for JSON", |text| {
        text.contains('[')
    }),
];

/// The sample files, and those of the corpus if it is there.
fn files() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(root.join("../testdata/dockerfiles")).expect("our samples") {
        let path = entry.expect("a readable folder").path();
        let text = std::fs::read_to_string(&path).expect("a sample");
        files.push((path.display().to_string(), text));
    }
    let corpus = std::env::var_os("RBUILD_CORPUS")
        .map_or_else(|| root.join("../../shared/corpus"), PathBuf::from);
    if let Ok(rows) = std::fs::read_to_string(corpus.join("parser/cases.jsonl")) {
        for row in rows.lines() {
            let row: Value = serde_json::from_str(row).expect("a row");
            let field = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            files.push((field("name"), field("dockerfile")));
        }
    }
    files
}

#[test]
fn both_parsers_agree_but_for_what_is_listed() {
    let files = files();
    let mut known: BTreeMap<&str, usize> = BTreeMap::new();
    let mut unknown = Vec::new();
    for (name, text) in &files {
        let ours = instructions::parse(&Source::new("Dockerfile", text.as_bytes()));
        let theirs = parse_dockerfile::parse(text);
        let reason = match (&ours, &theirs) {
            (Ok(_), Ok(_)) | (Err(_), Err(_)) => continue,
            (Err(errors), Ok(_)) => {
                let code = errors.first().code;
                IT_TAKES.contains(&code).then_some(code)
            }
            (Ok(_), Err(_)) => {
                let found = IT_REFUSES.iter().find(|(_, is_such)| is_such(text));
                found.map(|(reason, _)| *reason)
            }
        };
        match reason {
            Some(reason) => *known.entry(reason).or_default() += 1,
            None => unknown.push(format!(
                "{name}: ours {:?}, theirs {:?}\n{text}",
                ours.err().map(|errors| errors.to_string()),
                theirs.err().map(|error| error.to_string())
            )),
        }
    }
    let differing: usize = known.values().sum();
    writeln!(
        std::io::stderr(),
        "{} files, {differing} known differences: {known:?}",
        files.len()
    )
    .expect("standard error is open");
    assert!(
        unknown.is_empty(),
        "{}\n{}",
        unknown.len(),
        unknown.join("\n----\n")
    );
    // Our own samples were chosen for being odd: only the field's files tell how good an oracle it is.
    assert!(
        files.len() < 100 || differing * 20 <= files.len(),
        "too many to be an oracle: {known:?}"
    );
}
