//! The entries of a directory by as many threads as there are CPUs.
//!
//! Directories, links and whatever else is no plain file are made first and in order by the caller's thread. The plain files
//! do not depend on one another, and are most of the work. Files with several names come last, in order again: the first is
//! copied, the others are names of the copy.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::{Done, Transfer, XattrNames};
use crate::copy::{CopyError, split};
use crate::job::{ExpectedKind, SelectedEntry};
use crate::metadata::{FileKind, Metadata};
use crate::root::{self, FileError};

/// Fewer plain files than this are not worth a thread.
const WORTH_THREADS: usize = 64;

/// More threads than this wait for one another in the file system.
const MOST_THREADS: usize = 8;

/// Most files that a thread takes at once: neighbours, which have the same parent.
const MOST_AT_ONCE: usize = 64;

/// A plain file that is left for a thread.
#[derive(Clone, Copy)]
struct Later<'e> {
    entry: &'e SelectedEntry,
    /// Where its digest goes.
    slot: usize,
}

/// What a thread has done.
#[derive(Default)]
struct Share<'e> {
    /// Digests, by slot.
    copied: Vec<(usize, [u8; 32])>,
    /// Passed over.
    linked: Vec<Later<'e>>,
    /// What stopped it, and at which slot.
    failed: Option<(usize, CopyError)>,
}

impl Transfer<'_> {
    /// Copies the entries of a selected directory, which are in byte order of their paths.
    pub(crate) fn all(&mut self, entries: &[SelectedEntry]) -> Result<(), CopyError> {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        self.all_with(entries, threads.min(MOST_THREADS))
    }

    /// The same by this many threads.
    pub(in crate::copy) fn all_with(
        &mut self,
        entries: &[SelectedEntry],
        threads: usize,
    ) -> Result<(), CopyError> {
        if threads == 1 || entries.len() < WORTH_THREADS {
            return entries.iter().try_for_each(|entry| self.beneath(entry));
        }
        let mut later = Vec::new();
        for entry in entries {
            if self.is_file(entry)? {
                let slot = self.copied.len();
                self.copied.push([0; 32]);
                later.push(Later { entry, slot });
            } else {
                self.beneath(entry)?;
            }
        }
        let mut linked = Vec::new();
        let mut failed: Option<(usize, CopyError)> = None;
        for share in self.deal_out(&later, threads) {
            for (slot, digest) in share.copied {
                self.copied[slot] = digest;
            }
            linked.extend(share.linked);
            // Of several errors the one whose path comes first.
            if let Some((slot, error)) = share.failed
                && failed.as_ref().is_none_or(|(first, _)| slot < *first)
            {
                failed = Some((slot, error));
            }
        }
        if let Some((_, error)) = failed {
            return Err(error);
        }
        linked.sort_by_key(|later: &Later<'_>| later.slot);
        for Later { entry, slot } in linked {
            let before = self.copied.len();
            self.beneath(entry)?;
            for digest in self.copied.split_off(before) {
                self.copied[slot] = digest;
            }
        }
        Ok(())
    }

    /// What was selected as a file is looked at by the thread that copies it.
    fn is_file(&self, entry: &SelectedEntry) -> Result<bool, CopyError> {
        if let Some(expected) = &entry.expected {
            return Ok(expected.kind == ExpectedKind::File);
        }
        let (parent, name) = split(&entry.path);
        let look = || {
            let directory = root::open_beneath(self.source, parent, super::DIRECTORY)?;
            Metadata::of_name(directory.as_fd(), name)
        };
        let metadata = look().map_err(FileError::at("stat", &entry.path))?;
        Ok(metadata.kind == FileKind::File)
    }

    fn deal_out<'e>(&self, later: &[Later<'e>], threads: usize) -> Vec<Share<'e>> {
        let job = Job {
            later,
            at_once: (later.len() / (threads * 8)).clamp(1, MOST_AT_ONCE),
            next: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
            source: self.source,
            destination: self.destination,
            base: self.base,
            owner: self.owner,
            names: self.names,
        };
        thread::scope(|scope| {
            // One that can't be had is missed by nobody: this thread works too.
            let others: Vec<_> = (1..threads)
                .filter_map(|_| {
                    thread::Builder::new()
                        .spawn_scoped(scope, || job.work())
                        .ok()
                })
                .collect();
            let mut shares = vec![job.work()];
            for other in others {
                shares.push(
                    other
                        .join()
                        .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                );
            }
            shares
        })
    }
}

/// What all threads share.
struct Job<'t, 'e> {
    later: &'t [Later<'e>],
    at_once: usize,
    /// The first file that nobody has taken.
    next: AtomicUsize,
    is_over: AtomicBool,
    source: BorrowedFd<'t>,
    destination: BorrowedFd<'t>,
    base: &'t [u8],
    owner: Option<(u32, u32)>,
    names: XattrNames,
}

impl<'e> Job<'_, 'e> {
    fn work(&self) -> Share<'e> {
        let mut share = Share::default();
        let mut copied = Vec::new();
        let mut transfer = Transfer {
            names: self.names,
            leaves_links: true,
            ..Transfer::new(
                self.source,
                self.destination,
                self.base,
                self.owner,
                &mut copied,
            )
        };
        while !self.is_over.load(Ordering::Relaxed) {
            let first = self.next.fetch_add(self.at_once, Ordering::Relaxed);
            let taken = self.later.iter().skip(first).take(self.at_once);
            if taken.len() == 0 {
                break;
            }
            for &later in taken {
                match transfer.beneath_or_left(later.entry) {
                    Ok(Done::Copied) => {
                        // It may have become something else, which has no digest.
                        let digest = transfer.copied.pop().unwrap_or_default();
                        share.copied.push((later.slot, digest));
                    }
                    Ok(Done::IsLinked) => share.linked.push(later),
                    Err(error) => {
                        share.failed = Some((later.slot, error));
                        self.is_over.store(true, Ordering::Relaxed);
                        return share;
                    }
                }
            }
        }
        share
    }
}
