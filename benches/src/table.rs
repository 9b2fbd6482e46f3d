//! What was measured, as Markdown for people and JSON for programs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::Result;
use crate::measure::Times;

/// All rows, and the machine they are from.
#[derive(Debug, Serialize)]
pub(crate) struct Table {
    machine: String,
    load_at_start: String,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    work: &'static str,
    /// Of both values.
    unit: &'static str,
    rbuild: f64,
    yardstick: &'static str,
    yardstick_value: f64,
    ratio: f64,
    goal: f64,
    runs: usize,
    /// What other builders take for the same.
    peers: Vec<Peer>,
}

/// What another builder takes, in the unit of its row.
#[derive(Debug, Serialize)]
struct Peer {
    name: String,
    value: f64,
    /// How many times as much as rbuild.
    ratio: f64,
}

impl Table {
    /// A table without rows.
    pub(crate) fn start() -> Self {
        let system = rustix::system::uname();
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu
            .lines()
            .find_map(|line| line.strip_prefix("model name"))
            .map_or("unknown CPU", |rest| {
                rest.trim_start_matches(['\t', ' ', ':'])
            });
        let cpus = std::thread::available_parallelism().map_or(0, usize::from);
        let kernel = system.release().to_string_lossy();
        Self {
            machine: format!("{cpus} × {model}, Linux {kernel}"),
            load_at_start: load(),
            rows: Vec::new(),
        }
    }

    /// Adds a row of times and shows it.
    pub(crate) fn add(
        &mut self,
        work: &'static str,
        times: &Times,
        yardstick: &'static str,
        against: &Times,
        goal: f64,
    ) {
        self.add_of_many(work, times, 1, yardstick, against, goal);
    }

    /// Adds a row whose times are each of `count` equal things.
    pub(crate) fn add_of_many(
        &mut self,
        work: &'static str,
        times: &Times,
        count: u32,
        yardstick: &'static str,
        against: &Times,
        goal: f64,
    ) {
        let [rbuild, value] = [times.median() / count, against.median()].map(milliseconds);
        let measured = Measured {
            unit: "ms",
            rbuild,
            yardstick: value,
            runs: times.count(),
        };
        self.push(work, &measured, yardstick, goal);
    }

    /// Adds a row of memory or of files, in bytes.
    pub(crate) fn add_bytes(
        &mut self,
        work: &'static str,
        bytes: u64,
        yardstick: &'static str,
        against: u64,
        goal: f64,
    ) {
        let measured = Measured {
            unit: "MB",
            rbuild: megabytes(bytes),
            yardstick: megabytes(against),
            runs: 1,
        };
        self.push(work, &measured, yardstick, goal);
    }

    /// Adds a row of requests to a server.
    pub(crate) fn add_requests(
        &mut self,
        work: &'static str,
        requests: u32,
        yardstick: &'static str,
        against: u32,
        goal: f64,
    ) {
        let measured = Measured {
            unit: "requests",
            rbuild: f64::from(requests),
            yardstick: f64::from(against),
            runs: 1,
        };
        self.push(work, &measured, yardstick, goal);
    }

    fn push(
        &mut self,
        work: &'static str,
        measured: &Measured,
        yardstick: &'static str,
        goal: f64,
    ) {
        let row = Row {
            work,
            unit: measured.unit,
            rbuild: measured.rbuild,
            yardstick,
            yardstick_value: measured.yardstick,
            ratio: measured.rbuild / measured.yardstick,
            goal,
            runs: measured.runs,
            peers: Vec::new(),
        };
        print(&line(&row));
        self.rows.push(row);
    }

    /// Adds to the last row, one of times, what another builder takes for each of `count` equal things.
    pub(crate) fn beside(&mut self, name: &str, times: &Times, count: u32) {
        let Some(row) = self.rows.last_mut() else {
            return;
        };
        let value = milliseconds(times.median() / count);
        let peer = Peer {
            name: name.to_owned(),
            value,
            ratio: value / row.rbuild,
        };
        print(&format!("|   beside it: {}", told(&peer, row.unit)));
        row.peers.push(peer);
    }

    /// Writes `results.md` and `results.json`.
    pub(crate) fn write(&self, directory: &Path) -> Result<()> {
        fs::create_dir_all(directory)?;
        let mut text = format!(
            "{}. Load at the start {}, at the end {}. Medians.\n\n\
             | work | rbuild | yardstick | it takes | ratio | goal | runs | other builders (times rbuild) |\n\
             |---|---|---|---|---|---|---|---|\n",
            self.machine,
            self.load_at_start,
            load(),
        );
        for row in &self.rows {
            let _ = writeln!(text, "{}", line(row)); // writing to a String cannot fail
        }
        fs::write(directory.join("results.md"), text)?;
        fs::write(
            directory.join("results.json"),
            serde_json::to_string_pretty(self)?,
        )?;
        Ok(())
    }
}

/// What a row is made of.
struct Measured {
    unit: &'static str,
    rbuild: f64,
    yardstick: f64,
    runs: usize,
}

fn told(peer: &Peer, unit: &str) -> String {
    format!("{} {:.2} {unit} ({:.1})", peer.name, peer.value, peer.ratio)
}

fn line(row: &Row) -> String {
    let peers: Vec<_> = row.peers.iter().map(|peer| told(peer, row.unit)).collect();
    format!(
        "| {} | {:.2} {unit} | {} | {:.2} {unit} | {:.2} | {:.2} | {} | {} |",
        row.work,
        row.rbuild,
        row.yardstick,
        row.yardstick_value,
        row.ratio,
        row.goal,
        row.runs,
        peers.join(", "),
        unit = row.unit,
    )
}

fn megabytes(bytes: u64) -> f64 {
    // In whole kilobytes: more is not known, and no digit is lost.
    f64::from(u32::try_from(bytes / 1000).unwrap_or(u32::MAX)) / 1000.0
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// Says how far it is.
#[expect(clippy::print_stdout, reason = "it is a program")]
pub(crate) fn print(text: &str) {
    println!("{text}");
}

/// Says what went wrong.
#[expect(clippy::print_stderr, reason = "it is a program")]
pub(crate) fn complain(error: &dyn std::error::Error) {
    eprintln!("error: {error}");
}
