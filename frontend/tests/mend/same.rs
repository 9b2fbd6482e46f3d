//! What a file means: its graph without the places that its words stand at.

use std::collections::BTreeMap;

use rbuild_frontend::graph::{Graph, PlanOptions, Planned, ResolvedImage};
use rbuild_frontend::image_config::ImageConfig;
use rbuild_frontend::instructions::parse;
use rbuild_frontend::mend::mend;
use rbuild_frontend::plan;
use rbuild_frontend::source::Source;

/// Plans the last stage of a file; none if it is refused. That checks may fail the build is left aside: of a mended file
/// fewer fire.
fn graph(text: &str) -> Option<Graph> {
    let no_checks = ("BUILDKIT_DOCKERFILE_CHECK".to_owned(), String::new());
    let options = PlanOptions {
        build_args: BTreeMap::from([no_checks]),
        ..PlanOptions::default()
    };
    let program = parse(&Source::new("Dockerfile", text.as_bytes())).ok()?;
    let mut images = BTreeMap::new();
    loop {
        match plan(&program, &options, &images).ok()? {
            Planned::Ready(graph) => return Some(*graph),
            Planned::Needs(requests) => {
                for request in requests {
                    let config = ImageConfig::default();
                    images.insert(request, ResolvedImage { config });
                }
            }
        }
    }
}

/// The steps, the image and its history. The author's name may have moved into a label.
fn meaning(graph: &Graph, has_author: bool) -> String {
    let mut image = graph.image.clone();
    image.author.clear();
    image.config.labels.remove(AUTHORS);
    let steps = graph.steps.iter().map(|step| {
        let (stage, parent) = (&step.stage_name, step.parent);
        format!(
            "{stage:?} {parent:?} {:?} {}\n",
            step.operation, step.platform
        )
    });
    let is_author = |entry: &String| entry.contains("MAINTAINER") || entry.contains(AUTHORS);
    let history = graph.history.iter().map(|entry| format!("{entry:?}\n"));
    let history = history.filter(|entry| !has_author || !is_author(entry));
    let (steps, history): (String, String) = (steps.collect(), history.collect());
    format!("{steps}{image:?}\n{history}{:?}", graph.target)
}

const AUTHORS: &str = "org.opencontainers.image.authors";

/// Mends a file, and fails unless it means what it meant and mending it again changes nothing.
pub(crate) fn mend_and_check(text: &str) -> String {
    let mend_once = |text: &str| {
        mend(
            &Source::new("Dockerfile", text.as_bytes()),
            &PlanOptions::default(),
        )
        .text
    };
    let mended = mend_once(text);
    assert_eq!(mend_once(&mended), mended, "mended twice:\n{text}");
    if mended != text {
        let (before, after) = (graph(text), graph(&mended));
        // A file whose last stage can be planned may have one that can't: then nothing was mended.
        let has_author = before
            .as_ref()
            .is_some_and(|graph| !graph.image.author.is_empty());
        let has_author = has_author || text.to_uppercase().contains("MAINTAINER");
        let show = |graph: Option<Graph>| graph.map(|graph| meaning(&graph, has_author));
        assert_eq!(show(before), show(after), "{text}\n--- mended:\n{mended}");
    }
    mended
}
