//! Harnesses that try to break the store, each with a printed seed and two sizes.
//!
//! `.ci/proofs` builds and starts it; `docs/proofs.md` says what each one proves and how.

#![forbid(unsafe_code)]

mod archive;
mod base;
mod damage;
mod disk;
mod full_disk;
mod kill;
mod many;
mod place;
mod power;
mod processes;
mod random;
mod real_registry;
mod report;
mod stale;
mod tree;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, ValueEnum};

use crate::place::Place;
use crate::random::Random;

/// Any error: a proof that finds something wrong, or can't do what it needs, stops and says so.
type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Error>;

/// Ends the proof with a message unless a condition holds.
macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err(format!($($text)+).into());
        }
    };
}
pub(crate) use ensure;

/// Proofs that the store survives everything.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to prove; everything without it.
    proofs: Vec<Proof>,
    /// The full size instead of the one for CI.
    #[arg(long)]
    full: bool,
    /// Repeats a run: the seed that it printed.
    #[arg(long, value_parser = parse_seed)]
    seed: Option<u64>,
    /// The rbuild to prove: a debug build, for its named points of commit.
    #[arg(long, value_name = "FILE")]
    rbuild: PathBuf,
    /// Where stores and contexts go. Each proof has a directory of its own there, which stays when it fails.
    #[arg(long, value_name = "DIR")]
    work: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Proof {
    /// No build ever takes a stale or mixed file.
    Stale,
    /// SIGKILL at random moments and at every named point of commit.
    Kill,
    /// Power cuts, with unflushed writes lost and reordered.
    Power,
    /// No space left, at every point of a build.
    FullDisk,
    /// Flipped bits and truncated files.
    Damage,
    /// Many processes on one store.
    Many,
}

fn parse_seed(text: &str) -> std::result::Result<u64, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u64::from_str_radix(digits, 16).map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    // First: the spawner is forked here, before any thread exists.
    if let Err(error) = rbuild::init() {
        report::complain(&error.to_string());
        return ExitCode::FAILURE;
    }
    let arguments = Arguments::parse();
    if !rustix::process::geteuid().is_root() {
        report::complain("skipped: the proofs mount file systems, which needs root");
        let must_run = std::env::var_os("RBUILD_TESTS_MUST_RUN").is_some();
        return ExitCode::from(u8::from(must_run));
    }
    let all = Proof::value_variants();
    let proofs = if arguments.proofs.is_empty() {
        all
    } else {
        &arguments.proofs
    };
    let mut failed = false;
    for &proof in proofs {
        failed |= !carry_out(proof, &arguments);
    }
    ExitCode::from(u8::from(failed))
}

/// Carries one proof out and says how it ended; true when it holds.
fn carry_out(proof: Proof, arguments: &Arguments) -> bool {
    let name = proof
        .to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned());
    let seed = arguments.seed.unwrap_or_else(random::fresh_seed);
    let size = if arguments.full { "full" } else { "CI" };
    report::say(&format!("{name}: {size} size, seed {seed:#018x}"));
    let start = Instant::now();
    let outcome = Place::new(&arguments.work, &name, &arguments.rbuild).and_then(|mut place| {
        let mut random = Random::new(seed);
        let is_full = arguments.full;
        let text = match proof {
            Proof::Stale => stale::prove(&place, &mut random, is_full),
            Proof::Kill => kill::prove(&place, &mut random, is_full),
            Proof::Power => power::prove(&place, &mut random, is_full),
            Proof::FullDisk => full_disk::prove(&place, &mut random, is_full),
            Proof::Damage => damage::prove(&place, &mut random, is_full),
            Proof::Many => many::prove(&place, &mut random, is_full),
        }?;
        place.forget();
        Ok(text)
    });
    let seconds = start.elapsed().as_secs_f64();
    match &outcome {
        Ok(text) => report::say(&format!("{name}: holds. {text}; {seconds:.0} s")),
        Err(error) => report::complain(&format!(
            "{name}: FAILS after {seconds:.0} s: {error}\n  again: .ci/proofs{} --seed {seed:#x} {name}",
            if arguments.full { " --full" } else { "" },
        )),
    }
    outcome.is_ok()
}
