//! A clock that was set back.
//!
//! Then a file can change and get the very ctime again that was recorded of it, and nothing that `stat` says differs.
//! Setting the machine's clock would disturb everything else on it, so the same situation is made from the other side:
//! the file system is taken offline and `debugfs` gives the changed file the ctime it had (what the kernel's clock would
//! have done), and the header of the stat cache gets the time of saving that a clock so far ahead would have put there.
//! Every byte that rbuild sees is what it would see after a real step of the clock.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::disk::{self, Mounted};
use crate::place::Place;
use crate::processes::run;
use crate::random::Random;
use crate::stale::Builder;
use crate::{Result, ensure};

/// Where the header of a stat cache has its times: see docs/store-format.md.
const SAVED: std::ops::Range<usize> = 8..16;
const OFFSET: std::ops::Range<usize> = 20..28;

/// Length of its checksum.
const CHECKSUM: usize = 32;

/// Sets the clock back `rounds` times between two builds.
pub(super) fn prove(place: &Place, random: &mut Random, rounds: usize) -> Result<String> {
    let image = place.path("clock.image");
    disk::make(&image, 16 * 1024, &["mkfs.ext4", "-q", "-I", "256"])?;
    let at = place.path("clock");
    let store = place.path("clock-store");
    for round in 0..rounds {
        // By how much: a second, an hour, a reboot's worth.
        let seconds = *random.pick(&[2, 60, 3600, 86_400 * 365]);
        let mounted = Mounted::new(&image, &at, "loop")?;
        let file = at.join("file");
        fs::write(&file, random.bytes(512))?;
        let before = fs::metadata(&file)?;
        std::thread::sleep(Duration::from_millis(30));
        let builder = Builder::new(&store, &at, "FROM scratch\nCOPY file /\n".to_owned())?;
        builder.build()?;
        let cache = only_file(&store.join("statcache"))?;
        // The clock goes back, the file changes when it shows that time again.
        fs::write(&file, random.bytes(512))?;
        mounted.unmount()?;
        // A device that still lets go has the file's old blocks, and the next mount would take it.
        disk::wait_for_loop_devices(&image)?;
        give_time(&image, &before)?;
        let is_set_back = round % 2 == 0;
        if is_set_back {
            set_header(&cache, seconds)?;
        }
        let mounted = Mounted::new(&image, &at, "loop")?;
        let after = fs::metadata(&file)?;
        ensure!(
            (
                after.ino(),
                after.ctime(),
                after.ctime_nsec(),
                after.mtime(),
                after.mtime_nsec()
            ) == (
                before.ino(),
                before.ctime(),
                before.ctime_nsec(),
                before.mtime(),
                before.mtime_nsec()
            ),
            "the file's times could not be made the same: this proves nothing"
        );
        builder.build()?;
        let is_right = fs::read(&file)? == copied(&builder)?;
        // The other rounds show that the trap is one: with a clock that ran on, the kernel would have lied.
        ensure!(
            is_right == is_set_back,
            "the clock {} by {seconds} s, and the copy is {}",
            if is_set_back {
                "was set back"
            } else {
                "ran on"
            },
            if is_right { "right" } else { "stale" }
        );
        drop(builder);
        mounted.unmount()?;
        fs::remove_file(cache)?;
    }
    Ok(format!(
        "a clock set back {} times: 0 wrong",
        rounds.div_ceil(2)
    ))
}

fn copied(builder: &Builder) -> Result<Vec<u8>> {
    let store = builder.engine.store();
    let image = store
        .image(crate::base::IMAGE)?
        .ok_or("the image is not in the store")?;
    let snapshots = image.chain.snapshot_paths(store);
    Ok(fs::read(snapshots.last().ok_or("no layer")?.join("file"))?)
}

fn only_file(directory: &Path) -> Result<std::path::PathBuf> {
    let entry = fs::read_dir(directory)?
        .next()
        .ok_or("no stat cache was written")??;
    Ok(entry.path())
}

/// Writes a file's times into the unmounted file system.
fn give_time(image: &Path, times: &fs::Metadata) -> Result<()> {
    // debugfs takes `@0x…` as seconds; nanoseconds and the epoch's upper bits share a field of their own.
    let set = |field: &str, seconds: i64, nanos: i64| {
        let extra = (nanos << 2) | ((seconds >> 32) & 3);
        format!(
            "sif file {field} @{:#x}\nsif file {field}_extra {extra:#x}\n",
            seconds & 0xffff_ffff
        )
    };
    let commands = set("ctime", times.ctime(), times.ctime_nsec())
        + &set("mtime", times.mtime(), times.mtime_nsec());
    let script = image.with_extension("debugfs");
    fs::write(&script, commands)?;
    run(Command::new("debugfs")
        .args(["-w", "-f"])
        .arg(script)
        .arg(image))
    .map(drop)
}

/// Makes a stat cache say that it was saved when the clock was `seconds` ahead of now.
fn set_header(cache: &Path, seconds: i64) -> Result<()> {
    let mut bytes = fs::read(cache)?;
    let body = bytes.len() - CHECKSUM;
    let mut add = |range: std::ops::Range<usize>, much: i64| -> Result<()> {
        let field: &mut [u8] = &mut bytes[range];
        let value = i64::from_le_bytes(<[u8; 8]>::try_from(&*field)?) + much;
        field.copy_from_slice(&value.to_le_bytes());
        Ok(())
    };
    add(SAVED, seconds)?;
    add(OFFSET, seconds * 1_000_000_000)?;
    let checksum = *blake3::hash(&bytes[..body]).as_bytes();
    bytes[body..].copy_from_slice(&checksum);
    Ok(fs::write(cache, bytes)?)
}
