//! The leases of all processes, as others see them.

use std::path::{Path, PathBuf};

use crate::gc::Holds;
use crate::lock::is_locked;

/// True when a process lives that has a lease.
pub(crate) fn has_live(work: &Path) -> std::io::Result<bool> {
    Ok(!live(work)?.is_empty())
}

/// The lock files of leases whose process lives.
fn live(work: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(work) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut live = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "lock")
            && is_locked(&path)?
        {
            live.push(path);
        }
    }
    Ok(live)
}

/// What the leases that live hold. Under the exclusive `locks/gc`, so that no line is half-written.
pub(crate) fn read_holds(work: &Path) -> std::io::Result<Holds> {
    let mut holds = Holds::default();
    for path in live(work)? {
        let text = match std::fs::read(&path) {
            // Its lease has ended in between, and its holds with it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            text => text?,
        };
        for line in String::from_utf8_lossy(&text).lines() {
            match line.split_once(' ') {
                Some(("snapshot", name)) => drop(holds.snapshots.insert(name.to_owned())),
                Some(("blob", digest)) => drop(holds.blobs.insert(digest.to_owned())),
                Some(("kept", name)) => drop(holds.kept.insert(name.to_owned())),
                // Half a line of a full disk, or a kind that a later rbuild holds: nothing that is removed here.
                _ => {}
            }
        }
    }
    Ok(holds)
}
