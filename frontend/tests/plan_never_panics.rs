//! Whatever a file says, the planner answers, and its graphs hold together. The same for the small languages.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rbuild_frontend::chmod::ModeChange;
use rbuild_frontend::git_reference::GitReference;
use rbuild_frontend::glob::{Glob, SourcePattern};
use rbuild_frontend::graph::{
    Graph, Input, MountKind, Operation, PlanOptions, Planned, PlannedHistory, ResolvedImage,
    StepIndex,
};
use rbuild_frontend::ignore_file::IgnoreFile;
use rbuild_frontend::image_config::ImageConfig;
use rbuild_frontend::pattern::Pattern;
use rbuild_frontend::platform::Platform;
use rbuild_frontend::reference::Reference;
use rbuild_frontend::source::Source;
use rbuild_frontend::{instructions, path, plan};

/// Lines that reach deep into the planner more often than arbitrary text does.
fn line() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        prop::sample::select(vec![
            "a",
            "b",
            "c",
            "0",
            "1",
            "$A",
            "${A:-b}",
            "/",
            ".",
            "x/../y",
            "80-82/UDP",
            "70000",
            "SIGTERM",
            "https://h/f",
            "https://h/r.git?tag=v",
            "\"q",
            "A=1",
            "B=$A",
            "scratch",
            "é",
            "<<E",
            "[\"x\", \"y\"]",
            "\\",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,6}",
    ];
    let head = prop::sample::select(vec![
        "FROM",
        "FROM --platform=$A",
        "RUN",
        "RUN --mount=type=cache,target=/x,from=a",
        "RUN --mount=from=b",
        "RUN --mount=type=ssh",
        "COPY",
        "COPY --from=a",
        "COPY --from=1",
        "COPY --from=b --link --chmod=u+x",
        "ADD",
        "ADD --checksum=x",
        "ENV",
        "ARG",
        "LABEL",
        "EXPOSE",
        "VOLUME",
        "WORKDIR",
        "USER",
        "CMD",
        "ENTRYPOINT",
        "SHELL",
        "STOPSIGNAL",
        "HEALTHCHECK CMD",
        "MAINTAINER",
        "ONBUILD RUN",
        "ONBUILD COPY --from=a",
        "ONBUILD BOGUS",
        "FROM a AS a\nRUN",
        "FROM a AS b\nENV",
    ]);
    (head, prop::collection::vec(word, 0..4))
        .prop_map(|(head, words)| format!("{head} {}\n", words.join(" ")))
}

fn file() -> impl Strategy<Value = String> {
    prop::collection::vec(line(), 0..10)
        .prop_map(|lines| format!("ARG A=v\nFROM a AS a\n{}", lines.concat()))
}

fn assert_holds_together(graph: &Graph) {
    let is_before =
        |index: usize, step: StepIndex| assert!(step.0 < index, "{step:?} is needed by {index}");
    let check_input = |index: usize, input: &Input| {
        if let Input::Step(step) = input {
            is_before(index, *step);
        }
    };
    for (index, step) in graph.steps.iter().enumerate() {
        step.parent
            .into_iter()
            .for_each(|parent| is_before(index, parent));
        assert!((1..=step.of).contains(&step.number));
        match &step.operation {
            Operation::Copy(copy) => {
                assert!(copy.destination.starts_with('/'));
                check_input(index, &copy.from);
            }
            Operation::Run(run) => {
                assert!(run.working_directory.starts_with('/'));
                for mount in &run.mounts {
                    if let MountKind::Bind { from, .. } | MountKind::Cache { from, .. } =
                        &mount.kind
                    {
                        check_input(index, from);
                    }
                }
            }
            Operation::Workdir { path, .. } => assert!(path.starts_with('/')),
            Operation::Image(_) => {}
        }
    }
    let count = graph.steps.len();
    graph
        .target
        .into_iter()
        .for_each(|target| is_before(count, target));
    for entry in &graph.history {
        if let PlannedHistory::New {
            step: Some(step), ..
        } = entry
        {
            is_before(count, *step);
        }
    }
}

proptest! {
    #[test]
    fn any_file_is_planned_or_refused(text in file(), checks_all_stages in any::<bool>()) {
        let source = Source::new("Dockerfile", text.as_bytes());
        let Ok(program) = instructions::parse(&source) else { return Ok(()) };
        let options = PlanOptions { checks_all_stages, ..PlanOptions::default() };
        let mut config = ImageConfig::default().with_diff_ids(vec!["sha256:1".to_owned()]);
        config.config.on_build = vec!["COPY --from=b x y".to_owned()];
        let mut images = BTreeMap::new();
        loop {
            match plan(&program, &options, &images) {
                Err(errors) => {
                    for error in errors.iter() {
                        prop_assert!(source.text().get(error.span.start..error.span.end).is_some(), "{error:?}");
                    }
                    break;
                }
                Ok(Planned::Ready(graph)) => {
                    assert_holds_together(&graph);
                    break;
                }
                Ok(Planned::Needs(requests)) => {
                    for request in requests {
                        let earlier = images.insert(request, ResolvedImage { config: config.clone() });
                        prop_assert_eq!(earlier, None);
                    }
                }
            }
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
        let _ = Reference::parse(&text).map(|reference| Reference::parse(&reference.to_string()).expect("a full name is a name"));
        if let Ok(platform) = text.parse::<Platform>() {
            prop_assert_eq!(platform.to_string().parse(), Ok(platform));
        }
        let _ = GitReference::parse(&text);
        let _ = ModeChange::parse(&text).map(|mode| mode.apply(0o644, false));
        let _ = SourcePattern::new(&text);
        let _ = IgnoreFile::parse(text.as_bytes()).map(|file| file.matcher().map(|matcher| matcher.matches(b"a/b")));
        prop_assert_eq!(path::clean(&path::clean(&text)), path::clean(&text));
    }

    #[test]
    fn skipped_directories_hold_no_match(pattern in "[ab*?/\\[\\]^-]{0,10}", path in "[ab]{1,2}(/[ab]{1,2}){1,3}") {
        let Ok(pattern) = Pattern::new(&pattern) else { return Ok(()) };
        if pattern.is_match(path.as_bytes()) {
            for (end, _) in path.match_indices('/') {
                prop_assert!(pattern.may_match_below(&path.as_bytes()[..end]), "{} of {path}", &path[..end]);
            }
        }
    }

    #[test]
    fn globs_take_any_name(pattern in "[ab*?\\[\\]^\\\\-]{0,10}", name in prop::collection::vec(any::<u8>(), 0..10)) {
        let _ = Glob::new(&pattern).map(|glob| glob.is_match(&name));
    }
}
