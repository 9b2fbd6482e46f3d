//! What a page must have and must never have.

use rbuild::explain::Reason;
use rbuild::history::{BuildSummary, TaskNote};
use rbuild_cache::BuildStatus;

use super::*;

fn step(number: usize, title: &str, state: StepState) -> StepNote {
    StepNote {
        stage: "build".into(),
        number,
        of: 3,
        title: title.into(),
        lines: (number, number),
        state,
        started: Some(number as u64 * 100),
        duration: Some(1_500),
        layer_size: Some(2_000_000),
        needs: number.checked_sub(2).into_iter().collect(),
        ..StepNote::default()
    }
}

fn page_of(steps: Vec<StepNote>, logs: &[StepLog]) -> String {
    let build = PastBuild {
        id: "abc123".into(),
        started: 1_700_000_000_000,
        status: BuildStatus::Failed,
        summary: BuildSummary {
            context: "/src/<app>".into(),
            duration: Some(3_000),
            ..BuildSummary::default()
        },
    };
    let detail = BuildDetail {
        steps,
        dockerfile: "FROM base\nRUN echo \"<b>\" && make\nRUN <<EOF\nx\nEOF\n".into(),
        warnings: vec!["2: a <warning>".into()],
        error: Some("it <failed>".into()),
        ..BuildDetail::default()
    };
    html(&Page {
        build: &build,
        detail: &detail,
        logs,
        layers: None,
    })
}

#[test]
fn nothing_of_a_build_becomes_markup() {
    let evil = "<script>alert(1)</script>\" onload='x'";
    let mut failed = step(2, evil, StepState::Failed);
    failed.reasons = vec![Reason::Files {
        source: evil.into(),
    }];
    let log = StepLog {
        text: format!("{evil}\n\x1b[31mred\x1b[0m\n").into_bytes(),
        missing: 12_000,
    };
    let steps = vec![step(1, "FROM base", StepState::Cached), failed];
    let text = page_of(steps, &[StepLog::default(), log]);
    assert!(
        !text.contains("<script") && !text.contains("onload='"),
        "{text}"
    );
    assert!(!text.contains("<b>") && !text.contains("<app>") && !text.contains("<failed>"));
    assert!(!text.contains('\x1b'));
    // What failed stands open, and where the rest of its log is.
    assert!(text.contains("<details id=\"step-1\" open>"), "{text}");
    assert!(text.contains("rbuild logs abc123 2"), "{text}");
    // Nothing is fetched: no address but the namespace of the drawing.
    assert_eq!(
        text.replace("http://www.w3.org/2000/svg", "")
            .matches("://")
            .count(),
        0
    );
}

#[test]
fn lines_of_the_dockerfile_have_their_cost() {
    let steps = vec![
        step(1, "FROM base", StepState::Cached),
        step(2, "RUN make", StepState::Done),
    ];
    let text = page_of(steps, &[]);
    let row = |line: &str| {
        let row = text
            .lines()
            .find(|row| row.contains(line) && row.starts_with("<tr>"));
        row.unwrap_or_default().to_owned()
    };
    assert!(
        row("FROM base").contains(">cached<"),
        "{}",
        row("FROM base")
    );
    assert!(
        row("&amp;&amp; make").contains(">1.5s<td class=\"number\">2.0 MB<"),
        "{}",
        row("make")
    );
    assert!(text.contains("class=\"span done\""));
}

#[test]
fn the_timeline_tells_what_was_used_and_what_waited() {
    let mut late = step(2, "RUN make", StepState::Done);
    late.needs = vec![0];
    late.started = Some(2_600);
    late.cpu = Some(900);
    late.peak_memory = Some(64_000_000);
    let detail = BuildDetail {
        steps: vec![step(1, "FROM base", StepState::Done), late],
        tasks: vec![TaskNote {
            title: "exporting <x>".into(),
            started: 4_100,
            duration: Some(1_000),
            bytes: 3_000_000,
            error: None,
        }],
        ..BuildDetail::default()
    };
    let text = timeline::html(&detail);
    let row = |words: &str| {
        let row = text.lines().find(|line| line.contains(words));
        row.unwrap_or_default().to_owned()
    };
    let made = row("RUN make");
    // It was ready when its base was, a second before it began.
    assert!(
        made.contains("class=\"span waiting\" style=\"left:31.3%;width:19.6%\""),
        "{made}"
    );
    assert!(
        made.contains(">0.9s<") && made.contains(">64.0 MB<") && made.contains(">2.0 MB<"),
        "{made}"
    );
    let exported = row("exporting &lt;x&gt;");
    assert!(
        exported.contains(">1.0s<") && exported.contains(">3.0 MB<"),
        "{exported}"
    );
    assert!(!row("FROM base").contains("waiting"));
}

#[test]
fn a_build_that_never_planned_has_a_page() {
    let text = page_of(Vec::new(), &[]);
    assert!(text.contains("it &lt;failed&gt;") && !text.contains("id=\"graph\""));
}

#[test]
fn a_long_log_keeps_its_end() {
    let mut log = StepLog {
        text: b"0123456789\n".repeat(MOST_LOG / 11 + 100),
        missing: 0,
    };
    let before = log.text.len();
    log.cut();
    assert!(log.text.len() <= MOST_LOG && log.text.starts_with(b"0123456789\n"));
    assert_eq!(log.missing + log.text.len() as u64, before as u64);
}
