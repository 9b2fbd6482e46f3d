//! `build-cases/index.jsonl`: inputs without recorded answers, but for the line where a build has to fail.

use std::collections::BTreeMap;
use std::path::Path;

use rbuild_frontend::graph::PlanOptions;
use rbuild_frontend::source::Source;
use serde_json::Value;

use super::images::plan_all;
use super::rows::{check_each, root, rows_of};

/// The Dockerfile of a case; none if it was made by code that the corpus does not hold.
fn dockerfile(row: &Value) -> Option<String> {
    if let Some(inline) = row["dockerfile_inline"].as_str() {
        return Some(inline.to_owned());
    }
    let folder = row["context"].as_str().unwrap_or("testdata");
    let name = row["dockerfile"].as_str().unwrap_or("Dockerfile");
    let path = root()
        .join("build-cases")
        .join(folder)
        .join(Path::new(name));
    std::fs::read_to_string(path).ok()
}

/// What ought to build is planned; what ought to fail at a line and fails here already does so at that line.
#[test]
fn plans() {
    const TABLE: &str = "build-cases/index.jsonl";
    check_each(TABLE, &rows_of(&root(), TABLE), |row| {
        let Some(dockerfile) = dockerfile(row) else {
            return match row["dockerfile_known"].as_bool() {
                Some(true) => Err(format!("{}: its Dockerfile is not there", row["name"])),
                _ => Ok(()),
            };
        };
        let pairs = row["build_args"].as_object().into_iter().flatten();
        let build_args: BTreeMap<String, String> = pairs
            .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect();
        let options = PlanOptions {
            build_args,
            ..PlanOptions::default()
        };
        let Err(error) = plan_all(&dockerfile, &options) else {
            return Ok(());
        };
        let Some(line) = row["should_fail_at_line"].as_u64() else {
            let message = &error.first().message;
            if row["failure_regex"].is_null() {
                return Err(format!("{}: {message}\n--- {dockerfile}", row["name"]));
            }
            return Ok(());
        };
        let source = Source::new("Dockerfile", dockerfile.as_bytes());
        let found = source.lines(error.first().span).first as u64;
        if found == line {
            Ok(())
        } else {
            Err(format!("{}: line {found}, not {line}", row["name"]))
        }
    });
}
