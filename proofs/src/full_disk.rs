//! A full disk at every point of a build: the space that is left grows step by step, so that the point where it ends moves
//! through the whole build. Each time: an error that names the path, nothing lost, a store that goes on working.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;

use crate::base::{self, Workload};
use crate::disk::{self, Mounted};
use crate::place::Place;
use crate::random::Random;
use crate::verify::{build_is_right, check_by_fsck, check_tidy, check_whole};
use crate::{Result, ensure, processes};

/// Size of the file systems.
const KIB: u64 = 24 * 1024;

pub(crate) fn prove(place: &Place, random: &mut Random, is_full: bool) -> Result<String> {
    let mut told = Vec::new();
    // With blocks of 1 KiB a page of memory spans several: one that is mapped may lack some, and touching it kills.
    for block in ["1024", "4096"] {
        let image = place.path(&format!("{block}.image"));
        disk::make(&image, KIB, &["mkfs.ext4", "-q", "-m", "0", "-b", block])?;
        let mounted = Mounted::new(&image, &place.path(block), "loop")?;
        let step = if is_full { 16 } else { 640 };
        let (failed, rounds) = on_disk(place, mounted.path(), block, step, random)
            .map_err(|error| format!("blocks of {block}: {error}"))?;
        told.push(format!(
            "{failed} of {rounds} builds ran out of space on blocks of {block}"
        ));
        mounted.unmount()?;
    }
    Ok(told.join(", "))
}

/// Builds with more and more space until a build succeeds in it; how many failed, of how many.
fn on_disk(
    place: &Place,
    disk: &Path,
    name: &str,
    step: u64,
    random: &mut Random,
) -> Result<(usize, usize)> {
    let base = place.path(&format!("base-{name}"));
    base::write_base(&base, &random.bytes(150_000))?;
    let mut workload = Workload::new(place.path(&format!("context-{name}")), &base, random)?;
    let root = disk.join("store");
    let ballast = disk.join("ballast");
    let (mut failed, mut rounds, mut left) = (0, 0, 0);
    // An empty store first, then one with an image that must not be lost.
    for starts_with_image in [false, true] {
        left = random.below(usize::try_from(step)?) as u64;
        loop {
            if root.exists() {
                fs::remove_dir_all(&root)?;
            }
            if starts_with_image {
                build_is_right(place, &root, &workload)?;
            }
            fill(disk, &ballast, left)?;
            rounds += 1;
            let before = Expected::of(&workload);
            workload.change(random)?;
            let output = processes::output(&mut workload.command(place, &root))?;
            let is_done = output.status.success();
            if !is_done {
                failed += 1;
                let text = String::from_utf8_lossy(&output.stderr).into_owned();
                check_error(output.status, &text, disk)
                    .map_err(|error| format!("{left} KiB left: {error}"))?;
                if starts_with_image {
                    before.is_still_right(&root).map_err(|error| {
                        format!("{left} KiB left: the image before was lost: {error}")
                    })?;
                }
                if root.join("VERSION").exists() {
                    check_by_fsck(place, &root)
                        .map_err(|error| format!("{left} KiB left: {error}"))?;
                    // On a full disk still: it is what a user does about it.
                    let pruned =
                        processes::output(place.rbuild(&root).args(["prune", "-a", "-f"]))?;
                    ensure!(
                        pruned.status.success(),
                        "{left} KiB left: prune ended with {}:\n{}",
                        pruned.status,
                        String::from_utf8_lossy(&pruned.stderr)
                    );
                }
            }
            fs::remove_file(&ballast)?;
            check_whole(&root)?;
            check_by_fsck(place, &root)?;
            build_is_right(place, &root, &workload)
                .map_err(|error| format!("with space again: {error}"))?;
            check_tidy(&root)?;
            if is_done {
                break;
            }
            left += step;
        }
    }
    ensure!(
        failed > 2,
        "only {failed} builds ran out of space (the last had {left} KiB): this proves little"
    );
    Ok((failed, rounds))
}

/// What an image has to hold while the workload moves on.
struct Expected(crate::tree::Tree);

impl Expected {
    fn of(workload: &Workload) -> Self {
        Self(workload.expected())
    }

    fn is_still_right(&self, root: &Path) -> Result<()> {
        let store = rbuild_cache::Store::open(root)?;
        let image = store.image(base::IMAGE)?.ok_or("no image")?;
        match crate::tree::lacks(&self.0, &crate::tree::of_chain(&store, &image.chain)?) {
            Some(wrong) => Err(wrong.into()),
            None => Ok(()),
        }
    }
}

/// Takes all space but `left` KiB.
fn fill(disk: &Path, ballast: &Path, left: u64) -> Result<()> {
    let space = rustix::fs::statvfs(disk)?;
    let free = space.f_bavail * space.f_frsize / 1024;
    let file = File::create(ballast)?;
    let mut take = free.saturating_sub(left) * 1024;
    // The blocks of the ballast's own extents come out of the same space.
    while take > 0
        && rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, take).is_err()
    {
        take = take.saturating_sub(4096);
    }
    Ok(file.sync_all()?)
}

/// The build failed as it should: by itself, with an error that says what is full.
fn check_error(status: std::process::ExitStatus, text: &str, disk: &Path) -> Result<()> {
    ensure!(
        status.signal().is_none(),
        "killed by a signal: {status}\n{text}"
    );
    ensure!(status.code() == Some(1), "ended with {status}\n{text}");
    let lower = text.to_lowercase();
    ensure!(
        lower.contains("no space left")
            || lower.contains("disk is full")
            || lower.contains("disk full"),
        "the error does not say that the disk is full:\n{text}"
    );
    let error = lower
        .find("\nerror")
        .map_or(lower.as_str(), |at| &lower[at..]);
    ensure!(
        error.contains(&disk.display().to_string().to_lowercase()),
        "the error names no path on the disk:\n{text}"
    );
    Ok(())
}
