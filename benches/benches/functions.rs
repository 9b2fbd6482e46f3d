//! Single functions, through the crates' public interfaces.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::hint::black_box;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rbuild_cache::KeyEncoder;
use rbuild_frontend::graph::{PlanOptions, Planned};
use rbuild_frontend::ignore_file::IgnoreFile;
use rbuild_frontend::instruction::Program;
use rbuild_frontend::instructions;
use rbuild_frontend::source::Source;
use rbuild_runner::job::{Compression, PackJob};

/// A Dockerfile of 1,000 steps in 50 stages.
fn dockerfile() -> Source {
    let mut text = String::new();
    for stage in 0..50 {
        let _ = writeln!(
            text,
            "FROM scratch AS s{stage}\nARG VERSION={stage}\nENV PATH=/bin:/opt/$VERSION A=${{VERSION:-x}}"
        );
        for step in 0..16 {
            let _ = writeln!(
                text,
                "RUN --mount=type=cache,target=/c set -e; \\\n  echo \"$A {step}\" && make -j4"
            );
        }
        let from = if stage == 0 {
            String::new()
        } else {
            format!("--from=s{} ", stage - 1)
        };
        let _ = writeln!(
            text,
            "COPY {from}--chown=1:1 a b* /dst/\nLABEL l{stage}=\"$VERSION\""
        );
    }
    Source::new("Dockerfile", text.as_bytes())
}

fn parsed(source: &Source) -> Program {
    instructions::parse(source).expect("a Dockerfile without errors")
}

fn frontend(criterion: &mut Criterion) {
    let source = dockerfile();
    criterion.bench_function("parse 1,000 instructions", |bencher| {
        bencher.iter(|| parsed(black_box(&source)));
    });
    let program = parsed(&source);
    let options = PlanOptions::default();
    criterion.bench_function("plan 1,000 instructions", |bencher| {
        bencher.iter(|| {
            let planned = rbuild_frontend::plan(&program, &options, &BTreeMap::new());
            assert!(
                matches!(planned, Ok(Planned::Ready(_))),
                "scratch needs no image"
            );
        });
    });
    let file = b"**/*.o\nnode_modules\ntarget\n!target/keep\ndocs/**/*.md\n*.log\nsrc/*/gen*\n";
    let matcher = IgnoreFile::parse(file)
        .expect("lines")
        .matcher()
        .expect("patterns");
    let paths: Vec<String> = (0..10_000)
        .map(|number| format!("src/m{}/d{}/f{number}.rs", number % 97, number % 13))
        .collect();
    criterion.bench_function(".dockerignore on 10,000 paths", |bencher| {
        bencher.iter(|| {
            paths
                .iter()
                .filter(|path| matcher.matches(path.as_bytes()))
                .count()
        });
    });
}

fn keys(criterion: &mut Criterion) {
    let environment: Vec<String> = (0..30)
        .map(|number| format!("VARIABLE_{number}=value"))
        .collect();
    criterion.bench_function("key of a RUN step", |bencher| {
        bencher.iter(|| {
            KeyEncoder::new("step", 1)
                .list("argv", ["/bin/sh", "-c", "make -j4 && make install"])
                .list("env", &environment)
                .text("cwd", "/src")
                .text("user", "")
                .flag("insecure", false)
                .finish()
        });
    });
}

fn layers(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let upper = directory.path().join("upper");
    fs::create_dir_all(upper.join("etc/app")).expect("mkdir");
    for number in 0..20 {
        fs::write(upper.join(format!("etc/app/{number}")), [b'x'; 1000]).expect("write");
    }
    criterion.bench_function("seal 20 small files", |bencher| {
        bencher.iter(|| rbuild_runner::seal::seal(&upper).expect("seal"));
    });
    gzip(criterion, directory.path());
}

/// 64 MiB as a layer, through the packer, against one thread of the same deflate.
fn gzip(criterion: &mut Criterion, directory: &Path) {
    let snapshot = directory.join("snapshot");
    fs::create_dir(&snapshot).expect("mkdir");
    let text: Vec<u8> = (0_u32..)
        .flat_map(|number| format!("{:x} ", number.wrapping_mul(2_654_435_761)).into_bytes())
        .take(64 << 20)
        .collect();
    fs::write(snapshot.join("text"), &text).expect("write");
    let sealed = rbuild_runner::seal::seal(&snapshot).expect("seal");
    let job = PackJob {
        snapshot,
        diff_id: sealed.diff_id,
        clamp: None,
        compression: Compression::Gzip { level: 6 },
    };
    let mut group = criterion.benchmark_group("gzip -6 of 64 MiB");
    group
        .throughput(Throughput::Bytes(64 << 20))
        .sample_size(10);
    group.measurement_time(Duration::from_secs(20));
    let null = || {
        File::options()
            .write(true)
            .open("/dev/null")
            .expect("/dev/null")
    };
    group.bench_function("packed, all CPUs", |bencher| {
        bencher.iter_batched(
            null,
            |out| rbuild_runner::pack::pack(&job, out).expect("pack"),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("one thread", |bencher| {
        bencher.iter(|| {
            let mut encoder = flate2::write::GzEncoder::new(null(), flate2::Compression::new(6));
            encoder.write_all(&text).expect("compress");
            encoder.finish().expect("compress")
        });
    });
    group.finish();
}

criterion_group!(benches, frontend, keys, layers);
criterion_main!(benches);
