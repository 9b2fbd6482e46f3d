//! What a terminal shows, by an emulator of one.

use rbuild::event::{StepId, Stream};

use super::*;

/// A terminal with a live view on it.
struct Place {
    live: Live,
    terminal: vt100::Parser,
    size: Size,
}

impl Place {
    fn new(columns: u16, rows: u16) -> Self {
        Self {
            live: Live::new(Terminal::default()),
            terminal: vt100::Parser::new(rows, columns, 1_000),
            size: Size {
                columns: columns.into(),
                rows: rows.into(),
            },
        }
    }

    fn write(&mut self, text: &str) {
        // What a terminal's line discipline does.
        self.terminal.process(text.replace('\n', "\r\n").as_bytes());
    }

    fn events(&mut self, at: u64, events: impl IntoIterator<Item = Event>) {
        for event in events {
            let text = self.live.show(Duration::from_millis(at), &event);
            self.write(&text);
        }
    }

    /// The screen after the view was drawn.
    fn drawn(&mut self, at: u64) -> String {
        let text = self.live.tick(Duration::from_millis(at), self.size);
        self.write(&text);
        self.screen()
    }

    fn ended(&mut self) -> String {
        let text = self.live.end(self.size);
        self.write(&text);
        self.screen()
    }

    fn screen(&self) -> String {
        let rows = self.terminal.screen().rows(0, u16::MAX);
        let rows: Vec<String> = rows.map(|row| row.trim_end().to_owned()).collect();
        rows.join("\n").trim_end().to_owned()
    }

    fn resize(&mut self, columns: u16, rows: u16) {
        self.terminal.screen_mut().set_size(rows, columns);
        self.size = Size {
            columns: columns.into(),
            rows: rows.into(),
        };
    }
}

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

fn planned() -> Event {
    Event::Planned {
        steps: vec![
            step("build", 1, 4, "FROM debian:12"),
            step("build", 2, 4, "COPY . /src"),
            step("build", 3, 4, "RUN make"),
            step("build", 4, 4, "RUN make test"),
            step("final", 1, 2, "FROM scratch"),
            step("final", 2, 2, "COPY --from=build /app /app"),
        ],
    }
}

fn output(step: usize, text: &str) -> Event {
    Event::Output {
        step: StepId(step),
        stream: Stream::Stdout,
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

fn started(step: usize) -> Event {
    Event::Started(StepId(step))
}

#[test]
fn a_build_is_followed() {
    let mut place = Place::new(80, 12);
    let task = Event::TaskStarted {
        task: 1,
        title: "pulling debian:12".into(),
    };
    let progress = |done| Event::TaskProgress {
        task: 1,
        done,
        total: Some(48_000_000),
    };
    place.events(0, [task, progress(1)]);
    place.events(1_000, [progress(12_000_000)]);
    insta::assert_snapshot!(place.drawn(1_000), @r"
    pulling debian:12  [=====>              ]  25 % of 48.0 MB  12.0 MB/s      1.0s
    preparing                                                                  1.0s
    ");
    let pulled = Event::TaskFinished {
        task: 1,
        duration: Duration::from_secs(2),
        result: Ok(String::new()),
    };
    let cached = |step| finished(step, StepOutcome::Cached, 0);
    place.events(2_000, [pulled, planned(), cached(0), cached(1), cached(4)]);
    let reasons = vec![Reason::FirstBuild];
    let explained = Event::Explained {
        step: StepId(2),
        reasons,
    };
    place.events(
        2_000,
        [started(2), explained, output(2, "cc -c a.c\ncc -c b.c\ncc")],
    );
    insta::assert_snapshot!(place.drawn(5_500), @r"
    pulling debian:12: DONE 2.0s, 12.0 MB
    [build 3/4] RUN make                                                       3.5s
        cc -c a.c
        cc -c b.c
        cc
    3/6 steps, 3 cached, 1 running                                             5.5s
    ");
    insta::assert_snapshot!(place.drawn(5_600), @r"
    pulling debian:12: DONE 2.0s, 12.0 MB
    [build 1-2/4] CACHED 2 steps
    [final 1/2] CACHED FROM scratch
    [build 3/4] RUN make                                                       3.6s
        cc -c a.c
        cc -c b.c
        cc
    3/6 steps, 3 cached, 1 running                                             5.6s
    ");
    place.events(6_000, [finished(2, StepOutcome::Done, 4_000), started(3)]);
    place.events(6_500, [finished(3, StepOutcome::Failed, 500)]);
    insta::assert_snapshot!(place.ended(), @r"
    pulling debian:12: DONE 2.0s, 12.0 MB
    [build 1-2/4] CACHED 2 steps
    [final 1/2] CACHED FROM scratch
    [build 3/4] RUN make  4.0s
    [build 4/4] RUN make test  FAILED after 0.5s
    ");
}

#[test]
fn more_runs_than_there_are_rows() {
    let mut place = Place::new(40, 6);
    place.events(0, [planned()]);
    place.events(0, (0..6).map(started));
    place.events(0, (0..6).map(|step| output(step, "line\nline\n")));
    insta::assert_snapshot!(place.drawn(100), @r"
    [build 1/4] FROM debian:12         0.1s
    [build 2/4] COPY . /src            0.1s
    [build 3/4] RUN make               0.1s
    and 3 more
    0/6 steps, 6 running               0.1s
    ");
}

#[test]
fn narrow_and_tiny_terminals_are_not_broken() {
    for (columns, rows) in [(1, 1), (2, 2), (5, 3), (11, 4), (20, 2), (500, 200)] {
        let mut place = Place::new(columns, rows);
        place.events(0, [planned()]);
        place.events(0, (0..6).map(started));
        place.events(
            0,
            (0..6).map(|step| output(step, "a line of some length 日本語\n")),
        );
        for at in 1..50 {
            place.drawn(at * 100);
        }
        let shown = place.drawn(5_100);
        assert!(
            shown.lines().count() <= usize::from(rows),
            "{columns}x{rows}: {shown}"
        );
        assert_eq!(place.ended(), "", "{columns}x{rows}");
    }
}

#[test]
fn a_resized_terminal_keeps_no_rests() {
    let mut place = Place::new(80, 20);
    place.events(0, [planned(), started(2), output(2, &"x".repeat(200))]);
    place.drawn(100);
    for (columns, rows) in [(100, 20), (120, 40), (119, 10)] {
        place.resize(columns, rows);
        let shown = place.drawn(200);
        assert_eq!(
            shown.matches("RUN make").count(),
            1,
            "{columns}x{rows}:\n{shown}"
        );
    }
    assert_eq!(place.ended(), "");
}

#[test]
fn what_others_write_stands_above() {
    let mut place = Place::new(40, 10);
    place.events(0, [planned(), started(2)]);
    place.drawn(100);
    let cleared = place.live.clear(place.size);
    place.write(&cleared);
    place.write("WARN something odd\n");
    insta::assert_snapshot!(place.drawn(200), @r"
    WARN something odd
    [build 3/4] RUN make               0.2s
    0/6 steps, 1 running               0.2s
    ");
}

#[test]
fn an_idle_view_writes_nothing() {
    let mut place = Place::new(40, 10);
    place.events(0, [planned()]);
    place.drawn(100);
    let text = place.live.tick(Duration::from_millis(200), place.size);
    assert_eq!(text, "");
}
