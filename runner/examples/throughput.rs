//! Prints how fast a tree is sealed, packed and unpacked: `cargo run --release --example throughput DIRECTORY`, as root.
#![expect(clippy::print_stderr, reason = "a measurement is for people")]

use rbuild_runner::job::{Compression, PackJob, UnpackJob};
use rbuild_runner::{pack, seal, unpack};

fn main() {
    let snapshot = std::env::args_os()
        .nth(1)
        .map_or_else(|| "/usr/lib/python3".into(), std::path::PathBuf::from);
    let directory = tempfile::tempdir().expect("a directory");
    let start = std::time::Instant::now();
    let layer = seal::seal(&snapshot).expect("it seals");
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let report = |what: &str, start: std::time::Instant| {
        let seconds = start.elapsed().as_secs_f64();
        let rate = layer.tar_size as f64 / 1e6 / seconds;
        eprintln!(
            "{what}: {} entries, {:.2} s, {rate:.0} MB/s",
            layer.entries.len(),
            seconds
        );
    };
    report("seal", start);
    for compression in [
        Compression::None,
        Compression::Gzip { level: 6 },
        Compression::Gzip { level: 1 },
        Compression::Zstd { level: 3 },
    ] {
        let blob = directory.path().join("blob");
        let out = std::io::BufWriter::new(std::fs::File::create(&blob).expect("a file"));
        let diff_id = layer.diff_id.clone();
        let job = PackJob {
            snapshot: snapshot.clone(),
            diff_id: diff_id.clone(),
            clamp: None,
            compression,
        };
        let start = std::time::Instant::now();
        let outcome = pack::pack(&job, out).expect("it packs");
        report(
            &format!("pack {compression:?} to {} bytes", outcome.size),
            start,
        );
        let target = directory.path().join(format!("unpacked-{}", outcome.size));
        std::fs::create_dir(&target).expect("a directory");
        let start = std::time::Instant::now();
        unpack::unpack(&UnpackJob {
            blob,
            target,
            diff_id,
        })
        .expect("it unpacks");
        report(&format!("unpack {compression:?}"), start);
    }
}
