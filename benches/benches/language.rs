//! Reading Dockerfiles beside `parse-dockerfile`, and planning a long one.
//!
//! The files are those of the corpus (`$RBUILD_CORPUS`, by default `../shared/corpus`), or our own samples without it.
//! `parse-dockerfile` only cuts a file into instructions; ours checks every instruction, flag and word too, and notes
//! where build checks may fire. The two take turns at each file, and the best round of each counts: a file takes
//! microseconds, so that on a busy machine some rounds are not disturbed.
#![expect(clippy::print_stdout, reason = "what it measures is what it is for")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rbuild_frontend::graph::PlanOptions;
use rbuild_frontend::instructions;
use rbuild_frontend::source::Source;

/// Rounds of each file, and of planning; the best counts.
const ROUNDS: usize = 30;

fn files() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let corpus = std::env::var_os("RBUILD_CORPUS")
        .map_or_else(|| root.join("../shared/corpus"), PathBuf::from);
    if let Ok(rows) = std::fs::read_to_string(corpus.join("parser/cases.jsonl")) {
        let rows = rows
            .lines()
            .map(|row| serde_json::from_str(row).expect("a row"));
        let texts =
            rows.filter_map(|row: serde_json::Value| row["dockerfile"].as_str().map(str::to_owned));
        return texts.collect();
    }
    let samples = std::fs::read_dir(root.join("testdata/dockerfiles")).expect("our samples");
    samples
        .map(|entry| std::fs::read_to_string(entry.expect("an entry").path()).expect("a sample"))
        .collect()
}

fn time(mut work: impl FnMut()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// 1,000 instructions in 50 stages.
fn long_file() -> String {
    let mut text = String::new();
    for stage in 0..50 {
        let _ = writeln!(
            text,
            "FROM scratch AS s{stage}\nARG VERSION={stage}\nENV PATH=/bin:/opt/$VERSION A=${{VERSION:-x}}"
        );
        for step in 0..15 {
            let _ = writeln!(
                text,
                "RUN --mount=type=cache,target=/c set -e; \\\n  echo \"$A {step}\" && make -j4"
            );
        }
        let from = match stage {
            0 => String::new(),
            _ => format!("--from=s{} ", stage - 1),
        };
        let _ = writeln!(
            text,
            "COPY {from}--chown=1:1 a b* /dst/\nLABEL l{stage}=\"$VERSION\""
        );
    }
    text
}

fn main() {
    let files = files();
    let bytes: usize = files.iter().map(String::len).sum();
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    let (mut ours, mut theirs) = (Duration::ZERO, Duration::ZERO);
    for text in &files {
        let (mut our_best, mut their_best) = (Duration::MAX, Duration::MAX);
        for _ in 0..ROUNDS {
            our_best = our_best.min(time(|| {
                let source = Source::new("Dockerfile", text.as_bytes());
                let _ = black_box(instructions::parse(&source));
            }));
            // A file is bytes: who takes a text only has to have them checked first.
            their_best = their_best.min(time(|| {
                let text = std::str::from_utf8(text.as_bytes()).expect("UTF-8");
                let _ = black_box(parse_dockerfile::parse(text));
            }));
        }
        ours += our_best;
        theirs += their_best;
    }
    let speed = |time: Duration| f64::from(bytes) / time.as_secs_f64() / 1e6;
    println!(
        "{} files, {bytes} bytes: rbuild {:.1} MB/s, parse-dockerfile {:.1} MB/s, ratio {:.2} (goal 0.50)",
        files.len(),
        speed(ours),
        speed(theirs),
        theirs.as_secs_f64() / ours.as_secs_f64()
    );
    let source = Source::new("Dockerfile", long_file().as_bytes());
    let program = instructions::parse(&source).expect("a Dockerfile without errors");
    let count: usize = program
        .stages
        .iter()
        .map(|stage| stage.instructions.len() + 1)
        .sum();
    let options = PlanOptions::default();
    let plan = (0..ROUNDS)
        .map(|_| {
            time(|| {
                let planned = rbuild_frontend::plan(&program, &options, &BTreeMap::new());
                let _ = black_box(planned);
            })
        })
        .min()
        .unwrap_or_default();
    println!(
        "planning {count} instructions: {:.2} ms (goal 5 ms)",
        plan.as_secs_f64() * 1e3
    );
}
