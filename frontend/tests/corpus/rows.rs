//! Reading tables and collecting what differs.

use std::collections::HashMap;
use std::fmt::Debug;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::on_purpose;

/// Differences shown in full before only the number counts.
const SHOWN: usize = 8;

/// Our own inputs, in the same layout: they are always there.
pub(crate) fn own_root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../testdata/corpus")
}

/// The large corpus's folder.
pub(crate) fn root() -> PathBuf {
    std::env::var_os("RBUILD_CORPUS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus"),
        PathBuf::from,
    )
}

/// Says something that is seen even when the test passes: the harness swallows what `eprintln!` writes.
pub(crate) fn notice(words: &str) {
    writeln!(std::io::stderr(), "{words}").expect("standard error is open");
}

/// Rows of a table in JSON lines: our own, and those of the large corpus. Where that has none, a notice says so.
pub(crate) fn rows(table: &str) -> Vec<Value> {
    let mut rows = rows_of(&own_root(), table);
    rows.extend(rows_of(&root(), table));
    rows
}

/// Rows of a table in one folder; none, with a notice, when it is not there. Any other failure to read it fails.
pub(crate) fn rows_of(root: &Path, table: &str) -> Vec<Value> {
    let path = root.join(table);
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let lines = text.lines().filter(|line| !line.trim().is_empty());
            lines.map(|line| parse(table, line)).collect()
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && root != own_root() => {
            notice(&format!("skipped: no corpus table at {}", path.display()));
            Vec::new()
        }
        Err(error) => panic!("{}: {error}", path.display()),
    }
}

/// The files of `parser/cases.jsonl` by id.
pub(crate) fn dockerfiles() -> HashMap<String, String> {
    let owned = |row: &Value, field| text(row, field).to_owned();
    rows("parser/cases.jsonl")
        .iter()
        .map(|row| (owned(row, "id"), owned(row, "dockerfile")))
        .collect()
}

/// The file that a row of another table is about.
pub(crate) fn dockerfile_of<'a>(files: &'a HashMap<String, String>, row: &Value) -> &'a str {
    let id = text(row, "id");
    files
        .get(id)
        .unwrap_or_else(|| panic!("parser/cases.jsonl has no row {id}"))
}

fn parse(table: &str, line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{table}: {error}: {line}"))
}

/// A field that is a string; empty when it is absent.
pub(crate) fn text<'a>(row: &'a Value, field: &str) -> &'a str {
    row[field].as_str().unwrap_or_default()
}

/// What a table's comparison found.
#[derive(Debug)]
pub(crate) struct Report {
    table: &'static str,
    count: usize,
    differing: usize,
    shown: String,
}

impl Report {
    pub(crate) fn new(table: &'static str) -> Self {
        Self {
            table,
            count: 0,
            differing: 0,
            shown: String::new(),
        }
    }

    /// Compares a row about a file, which may differ on purpose.
    pub(crate) fn compare_file<T: Debug + PartialEq>(
        &mut self,
        (dockerfile, row): (&str, &Value),
        expected: &T,
        found: &T,
    ) {
        let is_told = expected != found
            && on_purpose::differs(dockerfile, text(row, "error"), String::new()).is_ok();
        if is_told {
            self.count += 1;
        } else {
            self.compare(dockerfile, expected, found);
        }
    }

    /// Compares one row.
    pub(crate) fn compare<T: Debug + PartialEq>(&mut self, input: &str, expected: &T, found: &T) {
        self.count += 1;
        if expected == found {
            return;
        }
        self.differing += 1;
        if self.differing <= SHOWN {
            let one =
                format!("\ninput:    {input:?}\nexpected: {expected:?}\nfound:    {found:?}\n");
            self.shown.push_str(&one);
        }
    }

    /// Fails when anything differed.
    pub(crate) fn finish(self) {
        let Self {
            table,
            count,
            differing,
            shown,
        } = self;
        notice(&format!(
            "{table}: {} of {count} rows agree",
            count - differing
        ));
        assert_eq!(
            differing, 0,
            "{table}: {differing} of {count} rows differ\n{shown}"
        );
    }
}

/// Asks `check` about every row and fails with the first few that differ.
pub(crate) fn check_all(table: &str, check: impl Fn(&Value) -> Result<(), String>) {
    check_each(
        table,
        &rows(table.split(" (").next().unwrap_or(table)),
        check,
    );
}

/// The same about these rows.
pub(crate) fn check_each(
    table: &str,
    rows: &[Value],
    check: impl Fn(&Value) -> Result<(), String>,
) {
    let failures: Vec<String> = rows.iter().filter_map(|row| check(row).err()).collect();
    let count = rows.len();
    notice(&format!(
        "{table}: {} of {count} rows agree",
        count - failures.len()
    ));
    let shown: Vec<&str> = failures.iter().take(SHOWN).map(String::as_str).collect();
    assert!(
        failures.is_empty(),
        "{table}: {} of {count} rows differ\n{}",
        failures.len(),
        shown.join("\n")
    );
}
