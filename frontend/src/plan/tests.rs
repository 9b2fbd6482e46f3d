//! Small files and the graphs they make.

mod agreement;
mod refusals;

use std::collections::BTreeMap;

use super::*;
use crate::graph::{
    CopySource, ImageReference, Input, MountKind, NamedContext, Operation, PlannedHistory, Step,
    StepIndex, Unpack,
};
use crate::image_config::HistoryEntry;
use crate::instructions::parse;
use crate::source::Source;

/// A file, its options and the images it may ask for.
struct Case {
    text: String,
    options: PlanOptions,
    images: Vec<(&'static str, ImageConfig)>,
}

impl Case {
    fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            options: PlanOptions::default(),
            images: Vec::new(),
        }
    }

    fn with(mut self, change: impl FnOnce(&mut PlanOptions)) -> Self {
        change(&mut self.options);
        self
    }

    fn arg(self, name: &str, value: &str) -> Self {
        self.with(|options| {
            options.build_args.insert(name.to_owned(), value.to_owned());
        })
    }

    fn context(self, name: &str, context: NamedContext) -> Self {
        self.with(|options| {
            options.named_contexts.insert(name.to_owned(), context);
        })
    }

    fn image(mut self, name: &'static str, change: impl FnOnce(&mut ImageConfig)) -> Self {
        let mut config = base();
        change(&mut config);
        self.images.push((name, config));
        self
    }

    fn plan(&self) -> Result<Graph, Errors> {
        let program = parse(&Source::new("Dockerfile", self.text.as_bytes()))?;
        let mut images = BTreeMap::new();
        loop {
            match plan(&program, &self.options, &images)? {
                Planned::Ready(graph) => return Ok(*graph),
                Planned::Needs(requests) => {
                    for request in requests {
                        let named =
                            |name: &str| request.reference == ImageReference::Name(name.to_owned());
                        let own = self.images.iter().find(|(name, _)| named(name));
                        let config = own.map_or_else(base, |(_, config)| config.clone());
                        images.insert(request, ResolvedImage { config });
                    }
                }
            }
        }
    }

    fn graph(&self) -> Graph {
        self.plan()
            .unwrap_or_else(|error| panic!("{}: {error:?}", self.text))
    }

    /// Code of the error, the text it points at, and its help.
    fn error(&self) -> (&'static str, String, String) {
        let error = self.plan().expect_err(&self.text);
        let error = error.first();
        let place = self.text[error.span.start..error.span.end].to_owned();
        (error.code, place, error.help.clone().unwrap_or_default())
    }
}

fn base() -> ImageConfig {
    let mut config = ImageConfig::default().with_platform(&Platform::default());
    config.config.env = vec!["PATH=/bin".to_owned()];
    config
        .with_diff_ids(vec!["sha256:1".to_owned()])
        .with_history(vec![HistoryEntry {
            created_by: "base".to_owned(),
            ..HistoryEntry::default()
        }])
}

/// One line for each step.
fn dump(graph: &Graph) -> Vec<String> {
    let line = |(index, step): (usize, &Step)| {
        let parent = step
            .parent
            .map_or_else(|| "-".to_owned(), |parent| parent.0.to_string());
        let name = step.stage_name.clone().unwrap_or_default();
        format!(
            "{index}<{parent} [{name} {}/{}] {}",
            step.number, step.of, step.title
        )
    };
    graph.steps.iter().enumerate().map(line).collect()
}

fn history(graph: &Graph) -> Vec<&str> {
    graph
        .history
        .iter()
        .map(|entry| match entry {
            PlannedHistory::Inherited(entry) | PlannedHistory::New { entry, .. } => {
                entry.created_by.as_str()
            }
        })
        .collect()
}

fn run_of(graph: &Graph, index: usize) -> &crate::graph::Run {
    match &graph.steps[index].operation {
        Operation::Run(run) => run,
        other => panic!("not a RUN: {other:?}"),
    }
}

fn copy_of(graph: &Graph, index: usize) -> &crate::graph::Copy {
    match &graph.steps[index].operation {
        Operation::Copy(copy) => copy,
        other => panic!("not a COPY: {other:?}"),
    }
}

#[test]
fn only_what_the_target_needs_is_planned() {
    let case = Case::new(
        "FROM golang AS build\nWORKDIR /src\nRUN make\nFROM debian AS unused\nRUN false\n\
         FROM debian\nCOPY --from=build /src/app /\nCOPY --from=busybox /bin/sh /\nENV A=1\nCMD [\"app\"]\n",
    );
    let graph = case.graph();
    assert_eq!(
        dump(&graph),
        [
            "0<- [build 1/3] FROM golang",
            "1<0 [build 2/3] WORKDIR /src",
            "2<1 [build 3/3] RUN make",
            "3<- [ 1/4] FROM debian",
            "4<3 [ 2/4] COPY --from=build /src/app /",
            "5<- [ 3/4] FROM busybox",
            "6<4 [ 4/4] COPY --from=busybox /bin/sh /",
        ]
    );
    assert_eq!(graph.target, Some(StepIndex(6)));
    assert_eq!(copy_of(&graph, 4).from, Input::Step(StepIndex(2)));
    assert_eq!(
        history(&graph),
        [
            "base",
            "COPY /src/app / # buildkit",
            "COPY /bin/sh / # buildkit",
            "ENV A=1",
            "CMD [\"app\"]",
        ]
    );
    assert_eq!(graph.image.config.cmd, ["app"]);
    let steps = graph.history.iter().filter_map(|entry| match entry {
        PlannedHistory::New { step, .. } => *step,
        PlannedHistory::Inherited(_) => None,
    });
    assert_eq!(steps.collect::<Vec<_>>(), [StepIndex(4), StepIndex(6)]);
}

#[test]
fn scratch_without_layers_has_no_step() {
    let graph = Case::new("FROM scratch\nWORKDIR /\nLABEL a=b\n").graph();
    assert_eq!((graph.steps.len(), graph.target), (0, None));
    assert_eq!(history(&graph), ["WORKDIR /", "LABEL a=b"]);
    assert_eq!(graph.image.config.working_dir, "/");
}

#[test]
fn an_image_is_taken_once() {
    let graph =
        Case::new("FROM debian AS a\nFROM docker.io/library/debian:latest\nCOPY --from=a /x /\n")
            .graph();
    assert_eq!(dump(&graph).len(), 2);
    assert_eq!(copy_of(&graph, 1).from, Input::Step(StepIndex(0)));
}

#[test]
fn args_have_scopes() {
    let text = "ARG V=1\nARG TAG=$V.2\nFROM base:$TAG\nARG V\nARG D=$V-x E\nENV V=env\nRUN a\nARG V=again\nRUN b\n";
    let graph = Case::new(text).arg("D", "$literal").graph();
    assert_eq!(graph.steps[0].title, "FROM base:1.2");
    assert_eq!(
        history(&graph)[1..],
        [
            "ARG V=1",
            "ARG D=$literal E",
            "ENV V=env",
            "RUN |3 V=env D=$literal E= /bin/sh -c a # buildkit",
            "ARG V=again",
            "RUN |3 V=again D=$literal E= /bin/sh -c b # buildkit",
        ]
    );
    let environment = &run_of(&graph, 2).environment;
    assert!(environment.contains(&("V".to_owned(), "again".to_owned())));
    assert_eq!(graph.image.config.env, ["PATH=/bin", "V=env"]);
}

#[test]
fn proxies_are_passed_on_without_a_trace() {
    let graph = Case::new("FROM a\nRUN x\n").arg("http_proxy", "p").graph();
    let pair = |name: &str| (name.to_owned(), "p".to_owned());
    assert_eq!(
        run_of(&graph, 1).proxy_environment,
        [pair("HTTP_PROXY"), pair("http_proxy")]
    );
    assert_eq!(history(&graph)[1], "RUN /bin/sh -c x # buildkit");
}

#[test]
fn triggers_fire_where_an_image_is_used() {
    let text = "FROM tools AS tools\nFROM onbuild AS app\nRUN own\n";
    let case = Case::new(text).image("onbuild", |config| {
        config.config.on_build = vec!["COPY --from=tools /t /t".to_owned(), "ENV A=1".to_owned()];
    });
    let graph = case.graph();
    assert_eq!(
        dump(&graph),
        [
            "0<- [tools 1/1] FROM tools",
            "1<- [app 1/3] FROM onbuild",
            "2<1 [app 2/3] ONBUILD COPY --from=tools /t /t",
            "3<2 [app 3/3] RUN own",
        ]
    );
    assert!(graph.image.config.on_build.is_empty());
    let graph = Case::new("FROM a AS b\nONBUILD RUN x\nFROM b\nFROM b\nRUN y\n").graph();
    assert_eq!(
        history(&graph)[1..],
        ["RUN /bin/sh -c x # buildkit", "RUN /bin/sh -c y # buildkit"]
    );
}

#[test]
fn named_contexts_replace() {
    let files = Case::new("FROM src\nCOPY --from=src /a /b\n")
        .context("src", NamedContext::Files)
        .graph();
    assert_eq!(
        copy_of(&files, 0).from,
        Input::NamedContext("src".to_owned())
    );
    assert_eq!(
        (copy_of(&files, 0).destination.as_str(), files.history.len()),
        ("/", 2)
    );
    let stage = Case::new("FROM a AS b\nRUN dropped\nFROM b\nRUN kept\n")
        .context(
            "b",
            NamedContext::Image(ImageReference::Name("other".to_owned())),
        )
        .graph();
    assert_eq!(
        dump(&stage),
        ["0<- [b 1/1] FROM other", "1<0 [ 1/1] RUN kept"]
    );
    let empty = Case::new("FROM a\nRUN x\n")
        .context("a", NamedContext::Scratch)
        .graph();
    assert_eq!(empty.steps[0].parent, None);
}

#[test]
fn heredocs_become_files_and_commands() {
    let text = "FROM a\nENV N=1\nCOPY <<A <<'B' /d/\n$N\nA\n$N\nB\nRUN <<E\n#!/x\ny\nE\nRUN <<E\nz\nE\nRUN cat <<E > f\nw\nE\n";
    let graph = Case::new(text).graph();
    let inline = copy_of(&graph, 1)
        .sources
        .iter()
        .map(|source| match source {
            CopySource::Inline(file) => (file.name.as_str(), file.content.as_str()),
            other => panic!("{other:?}"),
        });
    assert_eq!(inline.collect::<Vec<_>>(), [("A", "1\n"), ("B", "$N\n")]);
    assert_eq!(run_of(&graph, 2).argv, ["/bin/sh", "-c", "/dev/pipes/E"]);
    assert_eq!(run_of(&graph, 2).scripts[0].content, "#!/x\ny\n");
    assert_eq!(run_of(&graph, 3).argv[2], "z\n");
    assert_eq!(run_of(&graph, 4).argv[2], "cat <<E > f\nw\nE");
    assert_eq!(graph.steps[2].title, "RUN <<E (#!/x...)");
}

#[test]
fn mounts_get_defaults() {
    let text = "FROM a\nWORKDIR /w\nRUN --mount=type=secret,id=k --mount=type=cache,target=c --mount=target=/b,ro=false \
                --mount=type=ssh --mount=type=tmpfs,target=/t,size=1k x\n";
    let graph = Case::new(text).arg("BUILDKIT_CACHE_MOUNT_NS", "ns").graph();
    let run = run_of(&graph, 2);
    let targets: Vec<&str> = run
        .mounts
        .iter()
        .map(|mount| mount.target.as_str())
        .collect();
    assert_eq!(
        targets,
        [
            "/b",
            "/run/buildkit/ssh_agent.0",
            "/run/secrets/k",
            "/t",
            "/w/c"
        ]
    );
    assert!(
        matches!(&run.mounts[4].kind, MountKind::Cache { id, mode: 0o755, .. } if id == "ns/c")
    );
    assert!(matches!(
        &run.mounts[0].kind,
        MountKind::Bind {
            from: Input::Context,
            is_read_only: false,
            ..
        }
    ));
    assert!(matches!(
        &run.mounts[3].kind,
        MountKind::Tmpfs {
            size: Some(1024),
            ..
        }
    ));
    assert_eq!(
        run.environment.last().map(|(name, _)| name.as_str()),
        Some("SSH_AUTH_SOCK")
    );
}

#[test]
fn adds_are_told_apart() {
    let digest = format!("sha256:{}", "0".repeat(64));
    let text = format!(
        "FROM a\nADD x https://h/f https://h/r.git#v1 github.com/a/b /d/\nADD --checksum={digest} --unpack=true http://h/f .\n"
    );
    let graph = Case::new(&text).graph();
    let copy = copy_of(&graph, 1);
    assert!(matches!(copy.sources[0], CopySource::Path(_)));
    assert!(matches!(
        copy.sources[1],
        CopySource::Url { checksum: None, .. }
    ));
    assert!(matches!(copy.sources[2], CopySource::Git { .. }));
    assert!(matches!(copy.sources[3], CopySource::Path(_)));
    assert_eq!(
        (copy.unpack, copy_of(&graph, 2).unpack),
        (Unpack::Local, Unpack::Always)
    );
    assert_eq!(copy_of(&graph, 2).destination, "/");
}

#[test]
fn caches_can_be_refused() {
    let text = "FROM a AS b\nWORKDIR /w\nRUN x\nFROM b\nRUN y\n";
    let flags = |case: Case| {
        case.graph()
            .steps
            .iter()
            .map(|step| step.ignores_cache)
            .collect::<Vec<_>>()
    };
    let filtered = Case::new(text).with(|options| options.ignores_cache_of = vec!["B".to_owned()]);
    assert_eq!(flags(filtered), [false, false, true, false]);
    let all = Case::new(text).with(|options| options.ignores_cache = true);
    assert_eq!(flags(all), [false, true, true, true]);
}

#[test]
fn platforms_are_followed() {
    let text = "FROM --platform=$BUILDPLATFORM a AS b\nARG TARGETARCH\nRUN $TARGETARCH\nFROM c\nCOPY --from=b /x /\n";
    let graph = Case::new(text)
        .with(|options| options.target_platform = Some(Platform::new("linux", "arm64", "v8")))
        .image("c", |config| config.architecture = "arm64".to_owned())
        .graph();
    let platforms: Vec<String> = graph
        .steps
        .iter()
        .map(|step| step.platform.to_string())
        .collect();
    assert_eq!(
        platforms,
        ["linux/amd64", "linux/amd64", "linux/arm64", "linux/arm64"]
    );
    assert_eq!(graph.steps[1].title, "RUN arm64");
    assert_eq!(graph.platform.to_string(), "linux/arm64");
    assert_eq!(graph.warnings, []);
}
