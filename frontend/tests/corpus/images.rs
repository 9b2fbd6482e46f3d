//! Whole files: the image config and history that a file makes, or that it is refused.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rbuild_frontend::diagnostic::Errors;
use rbuild_frontend::graph::{Graph, PlanOptions, Planned, PlannedHistory, ResolvedImage};
use rbuild_frontend::image_config::ImageConfig;
use rbuild_frontend::source::{Lines, Source};
use rbuild_frontend::{instructions, plan};
use serde_json::{Value, json};

use super::rows::{check_all, rows};

/// What every external base was for the reference.
fn base() -> ImageConfig {
    let diff_id = format!("sha256:{}", "1".repeat(64));
    serde_json::from_value(json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Env": ["PATH=/bin:/usr/bin", "BASE=1"],
            "Cmd": ["basecmd"],
            "Entrypoint": ["baseep"],
            "WorkingDir": "/base",
            "User": "baseuser",
            "Labels": {"baselabel": "1"},
            "ExposedPorts": {"1/tcp": {}},
            "Volumes": {"/basevol": {}},
        },
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created_by": "base"}],
    }))
    .unwrap()
}

fn plan_all(text: &str, options: &PlanOptions) -> Result<Graph, Errors> {
    let program = instructions::parse(&Source::new("Dockerfile", text.as_bytes()))?;
    let mut images = BTreeMap::new();
    loop {
        match plan(&program, options, &images)? {
            Planned::Ready(graph) => return Ok(*graph),
            Planned::Needs(requests) => {
                assert!(!requests.is_empty());
                for request in requests {
                    assert!(
                        images
                            .insert(request, ResolvedImage { config: base() })
                            .is_none(),
                        "asked twice"
                    );
                }
            }
        }
    }
}

/// Texts of the files by id.
fn texts() -> HashMap<String, String> {
    let cases = rows("parser/cases.jsonl").unwrap_or_default();
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    cases
        .iter()
        .map(|row| (text(row, "id"), text(row, "dockerfile")))
        .collect()
}

fn document(graph: Graph) -> Value {
    let mut image = graph.image;
    image.history = graph
        .history
        .into_iter()
        .map(|entry| match entry {
            PlannedHistory::Inherited(entry) | PlannedHistory::New { entry, .. } => entry,
        })
        .collect();
    serde_json::to_value(image).unwrap()
}

#[test]
fn configs() {
    let texts = texts();
    check_all("parser/image-config.jsonl", |row| {
        let id = row["id"].as_str().unwrap();
        let ours = plan_all(&texts[id], &PlanOptions::default());
        let show = |words: String| Err(format!("{id}: {words}\n--- {}", texts[id]));
        match (ours, row["error"].as_str()) {
            (Ok(_), Some(error)) => show(format!("accepted, but: {error}")),
            (Err(error), None) => show(format!("refused: {error}")),
            (Err(_), Some(_)) => Ok(()),
            (Ok(graph), None) => {
                let mut ours = document(graph);
                let mut theirs = row["image"].clone();
                // Known after the build.
                ours["rootfs"] = Value::Null;
                theirs["rootfs"] = Value::Null;
                if ours == theirs {
                    Ok(())
                } else {
                    show(format!("\n  ours: {ours}\n  want: {theirs}"))
                }
            }
        }
    });
}

/// The reference's canned base made this one fire by itself, so the table leaves it out.
const LEFT_OUT: &str = "InvalidBaseImagePlatform";

#[test]
fn checks() {
    let texts = texts();
    check_all("parser/image-config.jsonl", |row| {
        let id = row["id"].as_str().unwrap();
        let Some(theirs) = row["lint"].as_array() else {
            return Ok(());
        };
        if row["error"].is_string() || !row["all_stages_error"].is_null() {
            return Ok(());
        }
        let source = Source::new("Dockerfile", texts[id].as_bytes());
        let options = PlanOptions {
            checks_all_stages: true,
            ..PlanOptions::default()
        };
        let graph = plan_all(&texts[id], &options).map_err(|errors| format!("{id}: {errors}"))?;
        let lines = |lines: Lines| (lines.first..=lines.last).collect::<Vec<_>>();
        let ours: BTreeSet<(String, Vec<usize>)> = graph
            .warnings
            .iter()
            .map(|warning| {
                let place = warning
                    .instruction_lines
                    .unwrap_or_else(|| source.lines(warning.span));
                (warning.code.to_owned(), lines(place))
            })
            .filter(|(rule, _)| rule != LEFT_OUT)
            .collect();
        let theirs: BTreeSet<(String, Vec<usize>)> = theirs
            .iter()
            .map(|warning| {
                let lines = warning["lines"].as_array().into_iter().flatten();
                let lines = lines
                    .filter_map(|line| usize::try_from(line.as_u64()?).ok())
                    .collect();
                (
                    warning["rule"].as_str().unwrap_or_default().to_owned(),
                    lines,
                )
            })
            .collect();
        let extra: Vec<_> = ours.difference(&theirs).collect();
        let missing: Vec<_> = theirs.difference(&ours).collect();
        if extra.is_empty() && missing.is_empty() {
            Ok(())
        } else {
            Err(format!("{id}: extra {extra:?}, missing {missing:?}\n"))
        }
    });
}
