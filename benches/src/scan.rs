//! What a build costs that has only to see that nothing has changed, and what keeping a step's files costs.

use std::fs;
use std::path::{Path, PathBuf};

use rbuild_cache::{
    Chain, ContentDigest, DiffId, Entry, EntryKind, LayerRecord, SnapshotId, StepKey, StepRecord,
    Store,
};

use crate::builds::walk_in_parallel;
use crate::measure::{Times, peak_memory, run, settle};
use crate::table::Table;
use crate::{Bench, Result, inputs};

/// Files of the step that is committed.
const COMMITTED: usize = 2_000;

/// Bytes in each of them.
const FILE_SIZE: usize = 4096;

/// A context that was built and scanned before: the store, and the directory of its files.
struct Seen {
    store: PathBuf,
    context: PathBuf,
}

impl Seen {
    fn make(bench: &Bench, name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<Self> {
        let place = bench.work.join("scan").join(name);
        let (store, context) = (place.join("store"), place.join("context"));
        fill(&context.join("files"))?;
        inputs::dockerfile(
            &context.join("Dockerfile"),
            ["FROM scratch", "COPY files /"],
        )?;
        let seen = Self { store, context };
        run(&mut bench.build(&seen.store, &seen.context))?;
        // The stat cache trusts no file that is as young as its file system's clock is coarse.
        std::thread::sleep(std::time::Duration::from_millis(50));
        run(&mut bench.build(&seen.store, &seen.context))?;
        Ok(seen)
    }
}

/// Builds of unchanged contexts less that of one file, so that starting, planning and deciding are taken off.
pub(crate) fn contexts(bench: &Bench, table: &mut Table) -> Result<()> {
    let one = Seen::make(bench, "one", |files| inputs::files(files, 1))?;
    let rows = [
        (
            20_000,
            "scan of 20,000 unchanged files",
            "memory of it, above that of one file",
        ),
        (
            100_000,
            "scan of 100,000 unchanged files",
            "memory of that, above that of one file",
        ),
    ];
    for (count, title, memory) in rows {
        let many = Seen::make(bench, &count.to_string(), |files| {
            inputs::files(files, count)
        })?;
        settle(&many.store)?;
        let [mut scan, mut walk] = [(); 2].map(|()| Times::default());
        for _ in 0..if bench.is_quick { 7 } else { 25 } {
            compare(bench, &one, &many, &mut scan, &mut walk)?;
        }
        table.add(title, &scan, "statx of each, on all CPUs", &walk, 1.5);
        add_memory(bench, table, &one, &many, count, memory)?;
    }
    Ok(())
}

/// One build of many files less one of a single file, and a bare walk.
fn compare(
    bench: &Bench,
    one: &Seen,
    many: &Seen,
    scan: &mut Times,
    walk: &mut Times,
) -> Result<()> {
    let [mut with, mut without] = [(); 2].map(|()| Times::default());
    with.take(|| run(&mut bench.build(&many.store, &many.context)))?;
    walk.take(|| walk_in_parallel(&many.context.join("files")))?;
    without.take(|| run(&mut bench.build(&one.store, &one.context)))?;
    scan.push(with.median().saturating_sub(without.median()));
    Ok(())
}

/// A million files. They are empty: what counts is how many there are.
pub(crate) fn million(bench: &Bench, table: &mut Table) -> Result<()> {
    const COUNT: usize = 1_000_000;
    let one = Seen::make(bench, "alone", |files| inputs::files(files, 1))?;
    let many = Seen::make(bench, "million", |files| inputs::empty_files(files, COUNT))?;
    settle(&many.store)?;
    let [mut scan, mut walk] = [(); 2].map(|()| Times::default());
    for _ in 0..if bench.is_quick { 3 } else { 9 } {
        compare(bench, &one, &many, &mut scan, &mut walk)?;
    }
    let title = "scan of 1,000,000 unchanged files";
    table.add(title, &scan, "statx of each, on all CPUs", &walk, 1.5);
    let title = "memory of that, above that of one file";
    add_memory(bench, table, &one, &many, COUNT, title)
}

/// The goal is 200 bytes a file.
fn add_memory(
    bench: &Bench,
    table: &mut Table,
    one: &Seen,
    many: &Seen,
    count: usize,
    title: &'static str,
) -> Result<()> {
    let without = peak_memory(&mut bench.build(&one.store, &one.context))?;
    let with = peak_memory(&mut bench.build(&many.store, &many.context))?;
    let goal = 200 * count as u64;
    let above = with.saturating_sub(without);
    table.add_bytes(title, above, "200 bytes a file", goal, 1.0);
    Ok(())
}

/// What the store adds to a step's files: the move into place, their table, the record.
pub(crate) fn commit(bench: &Bench, table: &mut Table) -> Result<()> {
    let place = bench.work.join("commit");
    fs::create_dir_all(&place)?;
    let store = Store::open(&place.join("store"))?;
    let content = vec![b'x'; FILE_SIZE];
    let [mut write, mut commit] = [(); 2].map(|()| Times::default());
    for round in 0..if bench.is_quick { 9 } else { 40 } {
        let lease = store.lease()?;
        let directory = lease.scratch("step")?;
        write.take(|| {
            for number in 0..COMMITTED {
                fs::write(directory.join(format!("f{number:06}")), &content)?;
            }
            Ok(())
        })?;
        let record = layer(round, &content)?;
        let id = SnapshotId::of_layer(&record.diff_id);
        commit.take(|| {
            let layer = lease.commit_snapshot(&directory, &record, &id)?;
            let step = StepRecord {
                chain: Chain::from_iter(vec![layer]),
                parts: Vec::new(),
                title: "RUN make".to_owned(),
                created: 0,
                cost_us: 1,
            };
            let mut key = [0; 32];
            key[..8].copy_from_slice(&u64::try_from(round)?.to_le_bytes());
            Ok(store.record(&[StepKey(key)], &step)?)
        })?;
    }
    table.add(
        "commit of a step of 2,000 files",
        &commit,
        "writing them",
        &write,
        0.1,
    );
    Ok(())
}

fn layer(round: usize, content: &[u8]) -> Result<LayerRecord> {
    let digest = ContentDigest::of_bytes(content);
    let entries = (0..COMMITTED)
        .map(|number| Entry {
            path: format!("f{number:06}").into_bytes(),
            kind: EntryKind::File {
                size: content.len() as u64,
                digest,
            },
            mode: 0o644,
            uid: 0,
            gid: 0,
            xattrs: Vec::new(),
            mtime: (1_700_000_000, 7),
        })
        .collect();
    Ok(LayerRecord {
        diff_id: DiffId(format!("sha256:{round:064x}").parse()?),
        tar_size: 1024,
        created: 1_700_000_000,
        created_nanos: 0,
        entries,
        implied: Vec::new(),
    })
}
