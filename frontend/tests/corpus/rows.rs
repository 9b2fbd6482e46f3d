//! Reading tables and collecting what differs.

use std::fmt::Debug;
use std::path::PathBuf;

use serde_json::Value;

/// Differences shown in full before only the number counts.
const SHOWN: usize = 8;

/// The corpus's folder.
pub(crate) fn root() -> PathBuf {
    std::env::var_os("RBUILD_CORPUS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus"),
        PathBuf::from,
    )
}

/// Rows of a table in JSON lines; none, with a notice, when the corpus is not here.
pub(crate) fn rows(table: &str) -> Option<Vec<Value>> {
    let path = root().join(table);
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(text.lines().map(|line| parse(table, line)).collect()),
        Err(error) => {
            eprintln!("skipped: no corpus table at {}: {error}", path.display());
            None
        }
    }
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
        eprintln!("{table}: {} of {count} rows agree", count - differing);
        assert_eq!(
            differing, 0,
            "{table}: {differing} of {count} rows differ\n{shown}"
        );
        assert_ne!(count, 0, "{table} is empty");
    }
}

/// Asks `check` about every row and fails with the first few that differ.
pub(crate) fn check_all(table: &str, check: impl Fn(&Value) -> Result<(), String>) {
    let Some(rows) = rows(table) else { return };
    let failures: Vec<String> = rows.iter().filter_map(|row| check(row).err()).collect();
    let count = rows.len();
    eprintln!("{table}: {} of {count} rows agree", count - failures.len());
    let shown: Vec<&str> = failures.iter().take(SHOWN).map(String::as_str).collect();
    assert!(
        failures.is_empty(),
        "{table}: {} of {count} rows differ\n{}",
        failures.len(),
        shown.join("\n")
    );
    assert_ne!(count, 0, "{table} is empty");
}
