//! Builds an image without the command line: `cargo run -p rbuild --example build_image -- CONTEXT NAME`.
//!
//! Uses the public interface only, as another build tool would.

use std::path::PathBuf;
use std::sync::Arc;

use rbuild::event::{Event, StepOutcome};
use rbuild::options::{BuildOptions, ContextSource};
use rbuild::{Engine, EngineOptions};
use tokio_util::sync::CancellationToken;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // First of all, before any thread exists: this forks the process that sets up sandboxes.
    rbuild::init()?;
    let mut arguments = std::env::args().skip(1);
    let (Some(context), Some(name)) = (arguments.next(), arguments.next()) else {
        return Err("usage: build_image CONTEXT NAME".into());
    };
    let options = BuildOptions {
        context: ContextSource::Directory(PathBuf::from(context)),
        tags: vec![name],
        ..BuildOptions::default()
    };
    let engine = Engine::open(&EngineOptions::new(EngineOptions::default_root()))?;
    let runtime = tokio::runtime::Runtime::new()?;
    let outcome = runtime.block_on(engine.build(
        &options,
        Arc::new(|event| show(&event)),
        CancellationToken::new(),
    ))?;
    write(&format!(
        "{} in {} layers",
        outcome.image_id, outcome.images[0].layers
    ));
    Ok(())
}

/// A caller decides what to make of the events; this one tells of the steps that were really done.
fn show(event: &Event) {
    if let Event::Finished {
        step,
        outcome: StepOutcome::Done,
        duration,
    } = event
    {
        write(&format!("step {} took {duration:.1?}", step.0 + 1));
    }
}

#[expect(clippy::print_stdout, reason = "an example prints")]
fn write(line: &str) {
    println!("{line}");
}
