//! Power cuts: builds on a disk that logs its writes and flushes, cut at random points with unflushed writes lost.
//!
//! At a cut, what was written before the last flush is on the medium; of the writes since, each sector made it or not, by
//! lot. That covers every order in which a disk may write its cache back. The file system recovers its journal, and the
//! store is opened in what `/proc/sys/kernel/random/boot_id` says is another boot.

mod logged_disk;

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::base::{self, IMAGE, Workload};
use crate::disk::{self, Mounted};
use crate::place::Place;
use crate::processes::run;
use crate::random::Random;
use crate::tree::{self, Tree};
use crate::verify::{check_by_fsck, check_tidy, check_whole};
use crate::{Result, ensure, report};
use logged_disk::{Event, LoggedDisk};

/// Size of the disk.
const KIB: u64 = 96 * 1024;

/// What a device writes whole or not at all.
const SECTOR: usize = 512;

/// ext4 writes its superblock (1 KiB at 1 KiB) outside the journal and can't be mounted with half of it: there a machine would run
/// e2fsck, which is not what is proven here. It is written whole or not at all.
const SECOND_HALF_OF_SUPERBLOCK: usize = 1024 + SECTOR;

/// How a file system is made and mounted.
struct Kind {
    title: &'static str,
    mkfs: &'static [&'static str],
    kib: u64,
    options: &'static str,
}

/// The stricter modes first; the second gives files their length before their data.
const KINDS: [Kind; 3] = [
    Kind {
        title: "ext4",
        mkfs: &[
            "mkfs.ext4",
            "-q",
            "-E",
            "lazy_itable_init=0,lazy_journal_init=0",
        ],
        kib: KIB,
        options: "loop,commit=1",
    },
    Kind {
        title: "ext4 with data=writeback",
        mkfs: &[
            "mkfs.ext4",
            "-q",
            "-b",
            "1024",
            "-E",
            "lazy_itable_init=0,lazy_journal_init=0",
        ],
        kib: KIB,
        options: "loop,commit=1,data=writeback,noauto_da_alloc",
    },
    Kind {
        title: "xfs",
        mkfs: &["mkfs.xfs", "-q"],
        kib: 320 * 1024,
        options: "loop",
    },
];

pub(crate) fn prove(place: &Place, random: &mut Random, is_full: bool) -> Result<String> {
    let mut told = Vec::new();
    for (number, kind) in KINDS.iter().enumerate() {
        if !Path::new("/usr/sbin").join(kind.mkfs[0]).exists() {
            report::say(&format!(
                "power: no {}: {} is not installed",
                kind.title, kind.mkfs[0]
            ));
            continue;
        }
        let (builds, cuts) = if is_full { (6, 150) } else { (2, 6) };
        let recording = record(place, kind, number, builds, random)?;
        let cut = replay(place, kind, &recording, cuts, random)
            .map_err(|error| format!("{}: {error}", kind.title))?;
        told.push(format!("{cut} on {}", kind.title));
    }
    Ok(format!(
        "power cuts: {}: no row points at missing or partial data",
        told.join(", ")
    ))
}

/// What a machine did until its power was cut, at the latest.
struct Recording {
    /// The disk before the first event.
    start: Vec<u8>,
    events: Vec<Event>,
    /// After how many events a build was done, and what its image holds.
    done: Vec<(usize, Tree)>,
    workload: Workload,
}

/// Builds on a logged disk.
fn record(
    place: &Place,
    kind: &Kind,
    number: usize,
    builds: usize,
    random: &mut Random,
) -> Result<Recording> {
    let image = place.path("empty.image");
    disk::make(&image, kind.kib, kind.mkfs)?;
    let start = fs::read(&image)?;
    fs::remove_file(&image)?;
    let base = place.path(&format!("base{number}"));
    base::write_base(&base, &random.bytes(200_000))?;
    let mut workload = Workload::new(place.path(&format!("context{number}")), &base, random)?;
    let logged = LoggedDisk::mount(&place.path("device"), start.clone())?;
    let mounted = Mounted::new(&logged.file(), &place.path("mnt"), kind.options)?;
    let root = mounted.path().join("store");
    let monday = boot(place, "monday")?;
    let mut done = Vec::new();
    for build in 0..builds {
        workload.change(random)?;
        let mut command = workload.command(place, &root);
        if random.chance(50) {
            command.arg(format!(
                "--output=type=oci,dest={}",
                place.path("out.tar").display()
            ));
        }
        let is_over = AtomicBool::new(false);
        let mut others = random.fork();
        let built = std::thread::scope(|scope| {
            // Other programs sync while a build runs: half of it is on the disk then.
            scope.spawn(|| sync_now_and_then(mounted.path(), &mut others, &is_over));
            let built = run(&mut in_boot(&monday, &command));
            is_over.store(true, Ordering::Relaxed);
            built
        });
        built?;
        done.push((logged.length(), workload.expected()));
        if build % 2 == 1 {
            let mut prune = place.rbuild(&root);
            prune.args(["prune", "-f", "--max-used-space", "1kb"]);
            run(&mut in_boot(&monday, &prune))?;
        }
    }
    mounted.unmount()?;
    Ok(Recording {
        start,
        events: logged.unmount()?,
        done,
        workload,
    })
}

fn sync_now_and_then(path: &Path, random: &mut Random, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(5 + random.below(120) as u64));
        if let Ok(directory) = File::open(path) {
            // Whether it works is the file system's business.
            let _ = rustix::fs::syncfs(&directory);
        }
    }
}

/// A file that says which boot this is.
fn boot(place: &Place, day: &str) -> Result<PathBuf> {
    let path = place.path(day);
    fs::write(&path, format!("{day}\n"))?;
    Ok(path)
}

/// The same command where `/proc/sys/kernel/random/boot_id` is the file `boot`.
fn in_boot(boot: &Path, command: &Command) -> Command {
    let mut wrapped = Command::new("unshare");
    wrapped
        .args(["-m", "sh", "-c"])
        .arg(r#"mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@""#)
        .arg(boot)
        .arg(command.get_program())
        .args(command.get_args());
    wrapped
}

/// Cuts the power at `cuts` random points, in ascending order, and looks at what is left each time.
fn replay(
    place: &Place,
    kind: &Kind,
    recording: &Recording,
    cuts: usize,
    random: &mut Random,
) -> Result<usize> {
    let memory = Mounted::of_type("tmpfs", &place.path("memory"), "size=2g")?;
    let mut points: Vec<usize> = (0..cuts)
        .map(|_| 1 + random.below(recording.events.len()))
        .collect();
    points.sort_unstable();
    let mut medium = recording.start.clone();
    let mut flushed = 0;
    for (number, &point) in points.iter().enumerate() {
        let events = &recording.events[..point];
        let last_flush = events
            .iter()
            .rposition(|event| matches!(event, Event::Flush))
            .unwrap_or(0);
        for event in &events[flushed..last_flush.max(flushed)] {
            if let Event::Write { offset, data } = event {
                medium[*offset..*offset + data.len()].copy_from_slice(data);
            }
        }
        flushed = last_flush.max(flushed);
        let mut cut = medium.clone();
        let is_ext4 = kind.mkfs[0] == "mkfs.ext4";
        // From "nothing in the cache made it" to "nearly all did".
        let percent = *random.pick(&[0, 20, 50, 80, 97]);
        for event in &events[flushed..] {
            let Event::Write { offset, data } = event else {
                continue;
            };
            let mut made_it = false;
            for (index, sector) in data.chunks(SECTOR).enumerate() {
                let at = offset + index * SECTOR;
                if !(is_ext4 && at == SECOND_HALF_OF_SUPERBLOCK) {
                    made_it = random.chance(percent);
                }
                if made_it {
                    cut[at..at + sector.len()].copy_from_slice(sector);
                }
            }
        }
        // A file of its own each time: a loop device that has not let go yet would be used again, with what it remembers.
        let image = memory.path().join(format!("disk-{number}"));
        write_sparse(&image, &cut)?;
        look(place, kind, recording, point, &image).map_err(|error| {
            format!(
                "cut after event {point} of {}: {error}",
                recording.events.len()
            )
        })?;
        disk::wait_for_loop_devices(&image)?;
        fs::remove_file(&image)?;
    }
    memory.unmount()?;
    Ok(points.len())
}

/// Starts the machine again.
fn look(
    place: &Place,
    kind: &Kind,
    recording: &Recording,
    point: usize,
    image: &Path,
) -> Result<()> {
    let mounted = Mounted::new(image, &place.path("again"), kind.options)?;
    let root = mounted.path().join("store");
    let tuesday = boot(place, "tuesday")?;
    // What may not have reached the disk is known, and no damage.
    if root.join("VERSION").exists() {
        run(&mut in_boot(&tuesday, place.rbuild(&root).arg("fsck")))?;
    }
    // The first command opens the store as the next day's first build does.
    run(&mut in_boot(&tuesday, place.rbuild(&root).arg("images")))?;
    check_whole(&root)?;
    check_by_fsck(place, &root)?;
    let finished = recording
        .done
        .iter()
        .filter(|(end, _)| *end <= point)
        .count();
    check_tag(&root, recording, finished)?;
    run(&mut in_boot(
        &tuesday,
        &recording.workload.command(place, &root),
    ))?;
    crate::verify::image_is_right(&root, &recording.workload)?;
    check_tidy(&root)?;
    mounted.unmount()
}

/// The tag names what the last finished build made, or what the one that was running did.
fn check_tag(root: &Path, recording: &Recording, finished: usize) -> Result<()> {
    let store = rbuild_cache::Store::open(root)?;
    let image = store.image(IMAGE)?;
    let Some(image) = image else {
        ensure!(finished == 0, "the tag of a finished build is gone");
        return Ok(());
    };
    let found = tree::of_chain(&store, &image.chain)?;
    let candidates = recording
        .done
        .iter()
        .skip(finished.saturating_sub(1))
        .take(2);
    let is_right = candidates
        .into_iter()
        .any(|(_, expected)| tree::lacks(expected, &found).is_none());
    ensure!(
        is_right,
        "the tag names an image that is neither the last nor the one before"
    );
    Ok(())
}

fn write_sparse(path: &Path, bytes: &[u8]) -> Result<()> {
    const PART: usize = 1 << 16;
    let file = File::create(path)?;
    file.set_len(bytes.len() as u64)?;
    for (number, part) in bytes.chunks(PART).enumerate() {
        if part.iter().any(|&byte| byte != 0) {
            file.write_all_at(part, (number * PART) as u64)?;
        }
    }
    Ok(())
}
