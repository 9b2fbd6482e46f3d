//! How cost grows: curves of one build after the other of growing size, as data and as plots.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde::Serialize;

use crate::measure::{peak_memory_of_all, run, settle};
use crate::{Bench, Result, inputs, parallel, plot, table};

/// One growing thing.
#[derive(Debug, Serialize)]
pub(crate) struct Curve {
    /// Its file's name.
    name: &'static str,
    /// What is measured.
    pub(crate) title: &'static str,
    /// What the horizontal axis counts.
    pub(crate) across: &'static str,
    /// The unit of the vertical axis.
    pub(crate) unit: &'static str,
    pub(crate) points: Vec<(u32, f64)>,
}

impl Curve {
    fn new(
        name: &'static str,
        title: &'static str,
        across: &'static str,
        unit: &'static str,
    ) -> Self {
        Self {
            name,
            title,
            across,
            unit,
            points: Vec::new(),
        }
    }

    fn push(&mut self, size: u32, value: f64) {
        table::print(&format!(
            "{}: {size} {}: {value:.3} {}",
            self.title, self.across, self.unit
        ));
        self.points.push((size, value));
    }
}

/// Measures all curves; `scale.json` and a plot of each go to `out`.
pub(crate) fn all(bench: &Bench, out: &Path) -> Result<()> {
    let mut curves = Vec::new();
    curves.extend(steps(bench)?);
    curves.extend(layers(bench)?);
    curves.extend(builds_at_once(bench)?);
    curves.extend(contexts(bench)?);
    curves.extend(sparse(bench)?);
    fs::create_dir_all(out)?;
    for curve in &curves {
        fs::write(out.join(format!("{}.svg", curve.name)), plot::svg(curve))?;
    }
    Ok(fs::write(
        out.join("scale.json"),
        serde_json::to_string_pretty(&curves)?,
    )?)
}

fn seconds(command: &mut Command) -> Result<f64> {
    let start = Instant::now();
    run(command)?;
    Ok(start.elapsed().as_secs_f64())
}

fn megabytes(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes / 1000).unwrap_or(u32::MAX)) / 1000.0
}

/// Dockerfiles of up to 1,000 RUN steps that change nothing.
fn steps(bench: &Bench) -> Result<[Curve; 3]> {
    let place = bench.work.join("scale-steps");
    let mut cold = Curve::new("steps-cold", "RUN steps, nothing cached", "steps", "s");
    let mut warm = Curve::new("steps-cached", "RUN steps, all cached", "steps", "s");
    let mut memory = Curve::new(
        "steps-memory",
        "memory of the build of RUN steps",
        "steps",
        "MB",
    );
    for count in [100, 250, 500, 1000] {
        let context = place.join(format!("context{count}"));
        parallel::steps(&context, usize::try_from(count)?)?;
        let store = place.join(format!("store{count}"));
        settle(&bench.work)?;
        cold.push(count, seconds(&mut bench.build(&store, &context))?);
        settle(&bench.work)?;
        warm.push(count, seconds(&mut bench.build(&store, &context))?);
        let again = place.join(format!("again{count}"));
        let peak = peak_memory_of_all(&mut bench.build(&again, &context))?;
        memory.push(count, megabytes(peak));
    }
    Ok([cold, warm, memory])
}

/// Chains of up to 400 layers; what one more step costs on top of them.
fn layers(bench: &Bench) -> Result<[Curve; 2]> {
    let place = bench.work.join("scale-layers");
    let mut all = Curve::new("layers-cold", "RUN steps of a layer each", "layers", "s");
    let mut next = Curve::new(
        "layers-next",
        "one more RUN on a chain of layers",
        "layers",
        "ms",
    );
    for count in [50, 100, 200, 400] {
        let context = place.join(format!("context{count}"));
        inputs::base(&context)?;
        let mut lines = vec!["FROM scratch".to_owned(), "COPY bin /bin".to_owned()];
        lines.extend((1..count).map(|number| format!("RUN echo {number} >/file{number}")));
        inputs::dockerfile(&context.join("Dockerfile"), &lines)?;
        let store = place.join("store").join(count.to_string());
        settle(&bench.work)?;
        all.push(count, seconds(&mut bench.build(&store, &context))?);
        lines.extend((0..20).map(|number| format!("RUN : {number}")));
        inputs::dockerfile(&context.join("Dockerfile"), &lines)?;
        settle(&bench.work)?;
        let more = seconds(&mut bench.build(&store, &context))?;
        settle(&bench.work)?;
        let cached = seconds(&mut bench.build(&store, &context))?;
        next.push(count, (more - cached) * 1000.0 / 20.0);
    }
    Ok([all, next])
}

/// Up to 100 processes on one store, each with a step of its own and one that all share.
fn builds_at_once(bench: &Bench) -> Result<[Curve; 2]> {
    let place = bench.work.join("scale-builds");
    let mut time = Curve::new("builds-time", "builds at once on one store", "builds", "s");
    let mut memory = Curve::new(
        "builds-memory",
        "memory of builds at once, together",
        "builds",
        "MB",
    );
    for count in [10, 25, 50, 100] {
        let contexts = place.join(format!("contexts{count}"));
        for number in 0..count {
            let context = contexts.join(number.to_string());
            inputs::base(&context)?;
            let lines = [
                "FROM scratch".to_owned(),
                "COPY bin /bin".to_owned(),
                "RUN echo shared >/shared".to_owned(),
                format!("RUN echo {number} >/own"),
            ];
            inputs::dockerfile(&context.join("Dockerfile"), lines)?;
        }
        let script = "for c in \"$1\"/*; do \"$0\" --root \"$2\" build -t \"bench:${c##*/}\" \"$c\" & p=\"$p $!\"; done; for i in $p; do wait $i || exit 1; done";
        let builds = |store: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]).arg(&bench.rbuild);
            command
                .arg(&contexts)
                .arg(place.join(format!("{store}{count}")));
            command
        };
        settle(&bench.work)?;
        time.push(count, seconds(&mut builds("store"))?);
        settle(&bench.work)?;
        memory.push(count, megabytes(peak_memory_of_all(&mut builds("again"))?));
    }
    Ok([time, memory])
}

/// Contexts of up to a million empty files.
fn contexts(bench: &Bench) -> Result<[Curve; 3]> {
    let place = bench.work.join("scale-contexts");
    let mut cold = Curve::new("context-cold", "COPY of empty files, cold", "files", "s");
    let mut warm = Curve::new(
        "context-cached",
        "COPY of empty files, nothing changed",
        "files",
        "s",
    );
    let mut memory = Curve::new(
        "context-memory",
        "memory of COPY, nothing changed",
        "files",
        "MB",
    );
    for count in [100_000, 250_000, 500_000, 1_000_000] {
        let context = place.join(format!("context{count}"));
        inputs::empty_files(&context.join("files"), usize::try_from(count)?)?;
        inputs::dockerfile(
            &context.join("Dockerfile"),
            ["FROM scratch", "COPY files /"],
        )?;
        let store = place.join(format!("store{count}"));
        settle(&bench.work)?;
        cold.push(count, seconds(&mut bench.build(&store, &context))?);
        settle(&bench.work)?;
        run(&mut bench.build(&store, &context))?;
        warm.push(count, seconds(&mut bench.build(&store, &context))?);
        memory.push(
            count,
            megabytes(peak_memory_of_all(&mut bench.build(&store, &context))?),
        );
    }
    Ok([cold, warm, memory])
}

/// Files of zeros that are not on the disk, up to 50 GB. The layer's digest is of all of them.
fn sparse(bench: &Bench) -> Result<[Curve; 1]> {
    let place = bench.work.join("scale-sparse");
    let mut time = Curve::new("sparse", "COPY of a file that is one hole", "GB", "s");
    for size in [5, 10, 25, 50] {
        let context = place.join(format!("context{size}"));
        fs::create_dir_all(&context)?;
        File::create(context.join("hole"))?.set_len(u64::from(size) * 1_000_000_000)?;
        inputs::dockerfile(&context.join("Dockerfile"), ["FROM scratch", "COPY hole /"])?;
        settle(&bench.work)?;
        let store = place.join(format!("store{size}"));
        time.push(size, seconds(&mut bench.build(&store, &context))?);
    }
    Ok([time])
}
