//! Many bytes: into a layer, and out of the store as an archive.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::inputs::Random;
use crate::measure::{Times, run, settle};
use crate::table::Table;
use crate::{Bench, Result, inputs};

/// Half random bytes, which nothing compresses, and half text.
const SIZE: u64 = 2 << 30;

/// The same for `--quick`.
const QUICK_SIZE: u64 = 256 << 20;

/// The levels that both sides are told, the usual ones.
const GZIP_LEVEL: u32 = 6;
const ZSTD_LEVEL: u32 = 3;

/// Files of equal size that the content is in.
const FILES: u64 = 16;

/// An archive that rbuild writes, and the tool that does the same to a tar.
struct Form {
    title: &'static str,
    size_title: &'static str,
    compression: String,
    /// A command of `sh`: from `$0` to `$1`.
    tool: String,
    yardstick: &'static str,
    goal: f64,
}

/// A COPY of it into a new store, then each form of archive.
pub(crate) fn all(bench: &Bench, table: &mut Table) -> Result<()> {
    let place = bench.work.join("content");
    let context = place.join("context");
    let files = context.join("files");
    fs::create_dir_all(&files)?;
    let size = if bench.is_quick { QUICK_SIZE } else { SIZE };
    let mut random = Random::new();
    for number in 0..FILES / 2 {
        inputs::noise(
            &files.join(format!("noise{number}")),
            &mut random,
            size / FILES,
        )?;
        inputs::text(
            &files.join(format!("text{number}")),
            &mut random,
            size / FILES,
        )?;
    }
    inputs::dockerfile(
        &context.join("Dockerfile"),
        ["FROM scratch", "COPY files /"],
    )?;
    copy(bench, table, &place, &context)?;
    archives(bench, table, &place, &context)?;
    // Few files, so this does not make the file system slow for what follows.
    Ok(fs::remove_dir_all(place)?)
}

fn rounds(bench: &Bench) -> usize {
    if bench.is_quick { 2 } else { 5 }
}

/// The larger of `cp` and one pass of sha256 is what no builder can do without.
fn copy(bench: &Bench, table: &mut Table, place: &Path, context: &Path) -> Result<()> {
    let [mut cold, mut least] = [(); 2].map(|()| Times::default());
    for number in 0..rounds(bench) {
        let (store, copied) = (place.join(format!("store{number}")), place.join("cp"));
        settle(place)?;
        cold.take(|| run(&mut bench.build(&store, context)))?;
        fs::remove_dir_all(&store)?;
        settle(place)?;
        let [mut plain, mut hash] = [(); 2].map(|()| Times::default());
        plain.take(|| {
            run(Command::new("cp").arg("-r").arg(context).arg(&copied))?;
            run(Command::new("sync").arg("-f").arg(&copied))
        })?;
        fs::remove_dir_all(&copied)?;
        hash.take(|| hash_all(&context.join("files")))?;
        least.push(plain.median().max(hash.median()));
    }
    table.add(
        if bench.is_quick {
            "COPY of 256 MiB, cold"
        } else {
            "COPY of 2 GiB, cold"
        },
        &cold,
        "the larger of cp -r + sync -f and one thread's sha256",
        &least,
        1.3,
    );
    Ok(())
}

fn hash_all(directory: &Path) -> Result<()> {
    let mut buffer = vec![0; 1 << 20];
    for entry in fs::read_dir(directory)? {
        let (mut file, mut hasher) = (File::open(entry?.path())?, Sha256::new());
        loop {
            let length = file.read(&mut buffer)?;
            if length == 0 {
                break;
            }
            hasher.update(&buffer[..length]);
        }
        std::hint::black_box(hasher.finalize());
    }
    Ok(())
}

fn archives(bench: &Bench, table: &mut Table, place: &Path, context: &Path) -> Result<()> {
    let tar = place.join("layer.tar");
    run(Command::new("tar")
        .arg("-C")
        .arg(context.join("files"))
        .arg("-cf")
        .arg(&tar)
        .arg("."))?;
    let forms = [
        Form {
            title: "type=oci of it, gzip",
            size_title: "its size",
            compression: format!("compression=gzip,compression-level={GZIP_LEVEL}"),
            tool: format!("pigz -{GZIP_LEVEL} -c \"$0\" >\"$1\""),
            yardstick: "pigz of the tar, same level",
            // At least 0.9 of its throughput.
            goal: 1.11,
        },
        Form {
            title: "type=oci of it, zstd",
            size_title: "its size",
            compression: format!("compression=zstd,compression-level={ZSTD_LEVEL}"),
            tool: format!("zstd -{ZSTD_LEVEL} -T0 -q -f \"$0\" -o \"$1\""),
            yardstick: "zstd -T0 of the tar, same level",
            goal: 1.11,
        },
        Form {
            title: "type=oci of it, uncompressed",
            size_title: "its size",
            compression: "compression=uncompressed".to_owned(),
            tool: "cp \"$0\" \"$1\" && sync -f \"$1\"".to_owned(),
            yardstick: "cp + sync -f of the tar",
            goal: 1.11,
        },
    ];
    for form in forms {
        archive(bench, table, place, context, &tar, &form)?;
    }
    Ok(())
}

fn archive(
    bench: &Bench,
    table: &mut Table,
    place: &Path,
    context: &Path,
    tar: &Path,
    form: &Form,
) -> Result<()> {
    let (out, other) = (place.join("out.tar"), place.join("other"));
    let [mut ours, mut theirs] = [(); 2].map(|()| Times::default());
    let mut sizes = [0; 2];
    for number in 0..rounds(bench) {
        // A new store: one that has compressed the layer before need not do it again.
        let store = place.join(format!("archive{number}"));
        run(&mut bench.build(&store, context))?;
        settle(place)?;
        let output = format!("type=oci,dest={},{}", out.display(), form.compression);
        ours.take(|| run(bench.build(&store, context).args(["--output", &output])))?;
        settle(place)?;
        theirs.take(|| {
            run(Command::new("sh")
                .args(["-c", &form.tool])
                .arg(tar)
                .arg(&other))
        })?;
        sizes = [fs::metadata(&out)?.len(), fs::metadata(&other)?.len()];
        for path in [&out, &other] {
            fs::remove_file(path)?;
        }
        fs::remove_dir_all(&store)?;
    }
    table.add(form.title, &ours, form.yardstick, &theirs, form.goal);
    table.add_bytes(form.size_title, sizes[0], "that", sizes[1], 1.02);
    Ok(())
}

/// On a file system that shares blocks, nothing is written but names.
pub(crate) fn reflink(bench: &Bench, table: &mut Table) -> Result<()> {
    let place = bench.work.join("reflink");
    fs::create_dir_all(place.join("xfs"))?;
    let image = place.join("image");
    File::create(&image)?.set_len(4 << 30)?;
    run(Command::new("mkfs.xfs")
        .args(["-q", "-m", "reflink=1"])
        .arg(&image))?;
    run(Command::new("mount")
        .args(["-o", "loop"])
        .arg(&image)
        .arg(place.join("xfs")))?;
    let mounted = Mounted(place.join("xfs"));
    let (context, store) = (mounted.0.join("context"), mounted.0.join("store"));
    fs::create_dir_all(context.join("files"))?;
    let mut random = Random::new();
    let size = QUICK_SIZE;
    inputs::noise(&context.join("files/noise"), &mut random, size)?;
    inputs::dockerfile(
        &context.join("Dockerfile"),
        ["FROM scratch", "COPY files /"],
    )?;
    settle(&mounted.0)?;
    let before = used(&mounted.0)?;
    let [mut copy, mut plain] = [(); 2].map(|()| Times::default());
    copy.take(|| run(&mut bench.build(&store, &context)))?;
    settle(&mounted.0)?;
    let written = used(&mounted.0)?.saturating_sub(before);
    plain.take(|| {
        run(Command::new("cp")
            .args(["-r", "--reflink=never"])
            .arg(&context)
            .arg(mounted.0.join("cp")))?;
        run(Command::new("sync").arg("-f").arg(&mounted.0))
    })?;
    table.add_bytes(
        "written by COPY of 256 MiB on xfs",
        written,
        "the files",
        size,
        0.05,
    );
    table.add(
        "COPY of 256 MiB on xfs",
        &copy,
        "cp -r without sharing + sync -f",
        &plain,
        1.0,
    );
    Ok(())
}

/// A mount that ends with this value.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        // What writes back late may hold it for a moment.
        for _ in 0..50 {
            if run(Command::new("umount").arg(&self.0)).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn used(path: &Path) -> Result<u64> {
    let status = rustix::fs::statvfs(path)?;
    Ok((status.f_blocks - status.f_bfree) * status.f_frsize)
}
