//! Flipped bits and truncated files: found as docs/store-format.md says, named, healed by building or pulling again.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::base::{self, Workload};
use crate::place::Place;
use crate::random::Random;
use crate::verify::{check_tidy, check_whole, image_is_right, is_right};
use crate::{Result, archive, ensure, processes};

/// What is damaged, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    BlobFlip,
    BlobCut,
    SnapshotFlip,
    SnapshotCut,
    SnapshotLost,
    DatabaseFlip,
    DatabaseCut,
}

const ALL: [Damage; 7] = [
    Damage::BlobFlip,
    Damage::BlobCut,
    Damage::SnapshotFlip,
    Damage::SnapshotCut,
    Damage::SnapshotLost,
    Damage::DatabaseFlip,
    Damage::DatabaseCut,
];

/// What was seen.
#[derive(Debug, Default)]
struct Tally {
    found_by_fsck: usize,
    /// The build before healed it, or the byte means nothing.
    healed_or_idle: usize,
    refused: usize,
}

pub(crate) fn prove(place: &Place, random: &mut Random, is_full: bool) -> Result<String> {
    let rounds = if is_full { 400 } else { 21 };
    let base = place.path("base");
    base::write_base(&base, &random.bytes(200_000))?;
    let mut workload = Workload::new(place.path("context"), &base, random)?;
    let pristine = place.path("pristine");
    // Exported, so that the store holds packed blobs too.
    let archive = place.path("out.tar");
    let export = format!("--output=type=oci,dest={}", archive.display());
    processes::run(workload.command(place, &pristine).arg(&export))?;
    let mut tally = Tally::default();
    for number in 0..rounds {
        let damage = ALL[number % ALL.len()];
        let root = place.path("store");
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        processes::run(
            std::process::Command::new("cp")
                .arg("-a")
                .args([&pristine, &root]),
        )?;
        let (victim, told) = spoil(&root, damage, random)?;
        one(
            place,
            &root,
            damage,
            &victim,
            &mut workload,
            random,
            &mut tally,
        )
        .map_err(|error| format!("round {number}, {damage:?}, {told}: {error}"))?;
    }
    Ok(format!(
        "{rounds} damages: {} found and named by fsck, {} healed by a build before or in bytes of the database that mean nothing; every build after them right \
        ({} refused first, with what to do)",
        tally.found_by_fsck, tally.healed_or_idle, tally.refused
    ))
}

/// After a damage: fsck finds and names it, repairs it, and what is built then is right.
fn one(
    place: &Place,
    root: &Path,
    damage: Damage,
    victim: &Path,
    workload: &mut Workload,
    random: &mut Random,
    tally: &mut Tally,
) -> Result<()> {
    let is_database = matches!(damage, Damage::DatabaseFlip | Damage::DatabaseCut);
    let builds_first = random.chance(50);
    if builds_first {
        // A build comes first: it must not ship what is damaged. It may refuse, and say what.
        let shipped = place.path("shipped.tar");
        let export = format!("--output=type=oci,dest={}", shipped.display());
        let output = processes::output(workload.command(place, root).arg(export))?;
        if output.status.success() {
            is_right(&archive::read(&shipped)?, workload)
                .map_err(|error| format!("what was shipped is wrong: {error}"))?;
        } else {
            tally.refused += 1;
            check_told(&output, victim, is_database)?;
        }
    }
    let found = processes::output(place.rbuild(root).arg("fsck"))?;
    ensure!(
        found.status.signal().is_none(),
        "fsck was killed: {}",
        found.status
    );
    if found.status.success() {
        // A page of the database may be unused; every other byte belongs to something.
        ensure!(
            is_database || builds_first,
            "fsck does not find it:\n{}",
            text(&found)
        );
        tally.healed_or_idle += 1;
    } else {
        tally.found_by_fsck += 1;
        check_told(&found, victim, is_database)?;
        let repaired = processes::output(place.rbuild(root).args(["fsck", "--repair"]))?;
        ensure!(
            repaired.status.signal().is_none(),
            "fsck --repair was killed: {}",
            repaired.status
        );
        let again = processes::output(place.rbuild(root).arg("fsck"))?;
        ensure!(
            again.status.success(),
            "fsck finds damage after --repair:\n{}\n--repair had said:\n{}",
            text(&again),
            text(&repaired)
        );
    }
    check_whole(root)?;
    processes::run(&mut workload.command(place, root))?;
    image_is_right(root, workload)?;
    check_tidy(root)
}

/// The message names what is damaged.
fn check_told(output: &Output, victim: &Path, is_database: bool) -> Result<()> {
    let text = text(output);
    ensure!(
        output.status.signal().is_none(),
        "killed: {}\n{text}",
        output.status
    );
    let parts: Vec<_> = victim
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    // A blob's digest, a snapshot's name or the database.
    let name = parts
        .iter()
        .rev()
        .find(|part| part.len() >= 64 || part.starts_with("db.sqlite"))
        .ok_or("the victim has no name")?;
    let name = name.trim_start_matches("chain-");
    let is_named = text.contains(name) || (is_database && text.contains("db.sqlite"));
    ensure!(
        is_named || text.contains(&parts[parts.len() - 1]),
        "the message does not name `{}`:\n{text}",
        victim.display()
    );
    Ok(())
}

fn text(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    text
}

/// Damages a random file; which, and how.
fn spoil(root: &Path, damage: Damage, random: &mut Random) -> Result<(PathBuf, String)> {
    let victim = match damage {
        Damage::BlobFlip | Damage::BlobCut => pick(&root.join("blobs"), random)?,
        Damage::SnapshotFlip | Damage::SnapshotCut | Damage::SnapshotLost => {
            pick(&root.join("snapshots"), random)?
        }
        Damage::DatabaseFlip | Damage::DatabaseCut => root.join("db.sqlite"),
    };
    let size = fs::metadata(&victim)?.len();
    let at = random.below(usize::try_from(size)?) as u64;
    let shown = victim.strip_prefix(root)?.display().to_string();
    let told = match damage {
        Damage::BlobFlip | Damage::SnapshotFlip | Damage::DatabaseFlip => {
            let file = fs::OpenOptions::new()
                .read(true)
                .write(true)
                .open(&victim)?;
            let mut byte = [0];
            file.read_exact_at(&mut byte, at)?;
            byte[0] ^= 1 << random.below(8);
            file.write_all_at(&byte, at)?;
            format!("a bit of byte {at} of {shown}")
        }
        Damage::BlobCut | Damage::SnapshotCut | Damage::DatabaseCut => {
            fs::OpenOptions::new()
                .write(true)
                .open(&victim)?
                .set_len(at)?;
            format!("{shown} cut to {at} of {size} bytes")
        }
        Damage::SnapshotLost => {
            fs::remove_file(&victim)?;
            format!("{shown} lost")
        }
    };
    Ok((victim, told))
}

/// A regular file that is not empty.
fn pick(root: &Path, random: &mut Random) -> Result<PathBuf> {
    let (mut files, mut waiting) = (Vec::new(), vec![root.to_owned()]);
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                waiting.push(entry.path());
            } else if metadata.is_file() && metadata.len() > 0 {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    ensure!(
        !files.is_empty(),
        "nothing to damage beneath {}",
        root.display()
    );
    Ok(random.pick(&files).clone())
}
