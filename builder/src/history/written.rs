//! What a build is of, and how its steps are written: what later builds recognise both by.

use rbuild_frontend::graph::{Graph, Operation, Step, StepIndex};
use rbuild_frontend::source::Source;

use super::BuildSummary;
use crate::explain::parts;
use crate::options::BuildOptions;
use crate::solve::dependencies;

/// What is known at a build's beginning.
pub(super) fn summary_of(options: &BuildOptions, dockerfile: &str) -> BuildSummary {
    use crate::options::ContextSource;
    let platforms = if options.platforms.is_empty() {
        vec![crate::build::this_machine().to_string()]
    } else {
        options.platforms.iter().map(ToString::to_string).collect()
    };
    BuildSummary {
        context: match &options.context {
            ContextSource::Directory(path) => super::absolute(path),
            ContextSource::Stdin => "-".to_owned(),
            ContextSource::Url(url) => parts::without_password(url),
        },
        dockerfile: dockerfile.to_owned(),
        target: options.target.clone(),
        platforms,
        // As they will be when the image has them.
        names: (options.tags.iter())
            .map(|tag| crate::images::full_name(tag).unwrap_or_else(|_| tag.clone()))
            .collect(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..BuildSummary::default()
    }
}

/// What builds of the same thing share: context, Dockerfile, target, platforms.
pub(super) fn line_of(summary: &BuildSummary, options: &BuildOptions) -> String {
    let target = options.target.as_deref().unwrap_or_default();
    let words = [
        summary.context.as_str(),
        &summary.dockerfile,
        target,
        &summary.platforms.join(","),
    ];
    words.join("\n")
}

/// How a step is written in its Dockerfile.
pub(crate) struct Written {
    pub(super) stage_key: String,
    pub(super) is_image: bool,
    pub(super) spelt: String,
    pub(super) needs: Vec<usize>,
}

impl Written {
    /// All steps of a build, in the order of their ids.
    pub(crate) fn all(graphs: &[Graph], source: &Source) -> Vec<Self> {
        let mut all = Vec::new();
        for graph in graphs {
            let first = all.len();
            for (index, step) in graph.steps.iter().enumerate() {
                let needs = dependencies(graph, StepIndex(index)).into_iter();
                let needs = needs.map(|need| first + need.0).collect();
                all.push(Self {
                    needs,
                    ..Self::of(step, source)
                });
            }
        }
        all
    }

    fn of(step: &Step, source: &Source) -> Self {
        let number = || step.stage.0.to_string();
        Self {
            stage_key: step.stage_name.clone().unwrap_or_else(number),
            is_image: matches!(step.operation, Operation::Image(_)),
            spelt: spelt(step, source),
            needs: Vec::new(),
        }
    }
}

/// The instruction in one line, without the bodies of its heredocs. That of a trigger stands in another Dockerfile.
fn spelt(step: &Step, source: &Source) -> String {
    let text = source.text().get(step.span.start..step.span.end);
    let mut words: Vec<&str> = Vec::new();
    for line in text.unwrap_or_default().lines() {
        let continued = line.trim_end().strip_suffix(['\\', '`']);
        words.extend(continued.unwrap_or(line).split_whitespace());
        if continued.is_none() {
            break;
        }
    }
    let keyword = |text: &str| text.split(' ').next().map(str::to_ascii_uppercase);
    let spelt = words.join(" ");
    if keyword(&spelt) == keyword(&step.title) {
        spelt
    } else {
        step.title.lines().next().unwrap_or_default().to_owned()
    }
}
