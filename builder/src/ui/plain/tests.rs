//! What a log reads like.

use rbuild::event::StepId;

use super::*;

fn step(stage: &str, number: usize, of: usize, title: &str) -> StepDescription {
    StepDescription {
        stage: stage.into(),
        number,
        of,
        title: title.into(),
        platform: None,
        lines: (number, number),
    }
}

fn output(step: usize, stream: Stream, text: &str) -> Event {
    Event::Output {
        step: StepId(step),
        stream,
        bytes: text.as_bytes().to_vec(),
    }
}

fn finished(step: usize, outcome: StepOutcome, milliseconds: u64) -> Event {
    Event::Finished {
        step: StepId(step),
        outcome,
        duration: Duration::from_millis(milliseconds),
    }
}

/// The log of events, each with its milliseconds.
fn log(terminal: Terminal, events: Vec<(u64, Event)>) -> String {
    let mut plain = Plain::new(terminal);
    events
        .into_iter()
        .map(|(at, event)| plain.show(Duration::from_millis(at), &event))
        .collect()
}

fn planned() -> Event {
    let platform = Some("linux/arm64".to_owned());
    Event::Planned {
        steps: vec![
            step("build", 1, 3, "FROM debian:12"),
            step("build", 2, 3, "RUN make"),
            step("build", 3, 3, "RUN <<EOF\nset -e\nEOF"),
            StepDescription {
                platform,
                ..step("", 1, 1, "COPY --from=build /app /app")
            },
        ],
    }
}

#[test]
fn a_build() {
    let events = vec![
        (
            0,
            Event::TaskStarted {
                task: 1,
                title: "pulling debian:12".into(),
            },
        ),
        (0, planned()),
        (
            500,
            Event::TaskProgress {
                task: 1,
                done: 1_000,
                total: Some(30_100_000),
            },
        ),
        (
            2_100,
            Event::TaskProgress {
                task: 1,
                done: 12_300_000,
                total: Some(30_100_000),
            },
        ),
        (
            2_200,
            Event::TaskProgress {
                task: 1,
                done: 30_100_000,
                total: Some(30_100_000),
            },
        ),
        (
            2_300,
            Event::TaskFinished {
                task: 1,
                duration: Duration::from_millis(2_300),
                result: Ok("sha256:abc".into()),
            },
        ),
        (2_300, finished(0, StepOutcome::Cached, 0)),
        (2_400, Event::Started(StepId(1))),
        (2_610, output(1, Stream::Stdout, "cc -c main.c\ncc -o a")),
        (2_650, Event::Started(StepId(2))),
        (2_660, output(2, Stream::Stdout, "hello\n\n")),
        (
            2_700,
            output(1, Stream::Stderr, "\x1b[33mwarning\x1b[0m: odd\n"),
        ),
        (2_800, output(1, Stream::Stdout, "pp main.o\nlast")),
        (3_600, finished(1, StepOutcome::Done, 1_200)),
        (3_600, finished(2, StepOutcome::Cancelled, 950)),
        (3_700, Event::Notice("RUN uses the host's network".into())),
        (3_700, finished(3, StepOutcome::Failed, 62_000)),
        (
            4_000,
            Event::TaskStarted {
                task: 2,
                title: "exporting to oci archive".into(),
            },
        ),
        (
            4_100,
            Event::TaskFinished {
                task: 2,
                duration: Duration::from_millis(100),
                result: Err("no space left".into()),
            },
        ),
    ];
    insta::assert_snapshot!(log(Terminal::default(), events), @r"
    pulling debian:12
    pulling debian:12: 12.3 MB of 30.1 MB (40 %)
    pulling debian:12: DONE 2.3s, 30.1 MB, sha256:abc
    [build 1/3] CACHED FROM debian:12
    [build 2/3] RUN make
    [build 2/3] 0.21 cc -c main.c
    [build 3/3] RUN <<EOF
    [build 3/3] 0.01 hello
    [build 3/3] 0.01
    [build 2/3] 0.30 warning: odd
    [build 2/3] 0.40 cc -o app main.o
    [build 2/3] 1.20 last
    [build 2/3] DONE 1.2s
    [build 3/3] CANCELLED after 1.0s
    note: RUN uses the host's network
    [linux/arm64 1/1] COPY --from=build /app /app
    [linux/arm64 1/1] FAILED after 1m 02s
    exporting to oci archive
    exporting to oci archive: FAILED after 0.1s: no space left
    ");
}

#[test]
fn colours_are_for_terminals() {
    let events = || {
        vec![
            (0, planned()),
            (0, Event::Started(StepId(1))),
            (10, output(1, Stream::Stdout, "\x1b[31mred\n")),
        ]
    };
    let plain = log(Terminal::default(), events());
    assert!(!plain.contains('\x1b'), "{plain:?}");
    let coloured = log(
        Terminal {
            has_colours: true,
            columns: None,
        },
        events(),
    );
    assert!(coloured.contains("\x1b[31mred\x1b[0m\n"), "{coloured:?}");
}

#[test]
fn a_line_without_an_end_is_not_kept_for_ever() {
    let long = "x".repeat(LONGEST_LINE);
    let text = log(
        Terminal::default(),
        vec![(0, planned()), (0, output(1, Stream::Stdout, &long))],
    );
    assert!(text.contains(&long));
}

#[test]
fn events_of_unknown_steps_do_no_harm() {
    let text = log(
        Terminal::default(),
        vec![
            (0, output(7, Stream::Stdout, "x\n")),
            (0, finished(7, StepOutcome::Done, 1)),
        ],
    );
    assert_eq!(text, "[?] DONE 0.0s\n");
}
