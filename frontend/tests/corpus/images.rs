//! Whole files: the image config and history that a file makes, or that it is refused.

use std::collections::BTreeMap;

use rbuild_frontend::diagnostic::Errors;
use rbuild_frontend::graph::{Graph, PlanOptions, Planned, PlannedHistory, ResolvedImage};
use rbuild_frontend::image_config::ImageConfig;
use rbuild_frontend::source::Source;
use rbuild_frontend::{instructions, plan};
use serde_json::{Value, json};

use super::checks::{fired, recorded};
use super::on_purpose;
use super::rows::{check_all, dockerfile_of, dockerfiles};

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

/// Plans a file with every image that it asks for.
pub(crate) fn plan_all(text: &str, options: &PlanOptions) -> Result<Graph, Errors> {
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

fn differs(text: &str, row: &Value, words: &str) -> Result<(), String> {
    let errors = [&row["error"], &row["all_stages_error"]];
    let error = errors
        .into_iter()
        .find_map(Value::as_str)
        .unwrap_or_default();
    on_purpose::differs(text, error, format!("{}: {words}\n--- {text}", row["id"]))
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
    let texts = dockerfiles();
    check_all("parser/image-config.jsonl", |row| {
        let text = dockerfile_of(&texts, row);
        let ours = plan_all(text, &PlanOptions::default());
        let show = |words: String| differs(text, row, &words);
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

/// With all stages evaluated: refused or not, and each warning as often as the reference has it.
#[test]
fn checks() {
    let texts = dockerfiles();
    check_all("parser/image-config.jsonl (checks)", |row| {
        let text = dockerfile_of(&texts, row);
        let source = Source::new("Dockerfile", text.as_bytes());
        let options = PlanOptions {
            checks_all_stages: true,
            ..PlanOptions::default()
        };
        let show = |words: String| differs(text, row, &words);
        let refusal = [&row["error"], &row["all_stages_error"]]
            .into_iter()
            .find_map(Value::as_str);
        let graph = match (plan_all(text, &options), refusal) {
            (Err(_), Some(_)) => return Ok(()),
            (Ok(_), Some(error)) => return show(format!("accepted, but: {error}")),
            (Err(error), None) => return show(format!("refused: {error}")),
            (Ok(graph), None) => graph,
        };
        let ours = fired(&source, &graph.warnings, |_| true);
        let theirs = recorded(row, |_| true);
        if ours == theirs {
            Ok(())
        } else {
            show(format!("\n  ours: {ours:?}\n  want: {theirs:?}"))
        }
    });
}
