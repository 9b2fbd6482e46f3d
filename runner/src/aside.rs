//! Hashing by a thread of its own, beside the one that reads or writes.
//!
//! A layer's bytes are read, copied, packed, and hashed on the way; of a large file the hash takes as long as all the rest. Most
//! steps leave so little that a thread is not worth its start, so there is none before [`WORTH_A_THREAD`] bytes.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use sha2::Digest as _;

/// What is hashed where it is, in bytes; a thread takes over from there on.
const WORTH_A_THREAD: u64 = 4 << 20;

/// Bytes that are handed over at once; also large enough for BLAKE3's widest vectors.
const PIECE: usize = 256 << 10;

/// Pieces there are: one is filled while others wait or are hashed.
const PIECES: usize = 6;

/// What takes bytes one after the other.
pub(crate) trait Update: Send + 'static {
    fn update(&mut self, bytes: &[u8]);
}

impl Update for sha2::Sha256 {
    fn update(&mut self, bytes: &[u8]) {
        sha2::Digest::update(self, bytes);
    }
}

impl Update for blake3::Hasher {
    fn update(&mut self, bytes: &[u8]) {
        self.update(bytes);
    }
}

/// A hasher, here or in its thread.
pub(crate) struct Aside<Hasher> {
    place: Place<Hasher>,
}

enum Place<Hasher> {
    Here {
        hasher: Hasher,
        hashed: u64,
    },
    There(There<Hasher>),
    /// Only while it moves.
    Nowhere,
}

struct There<Hasher> {
    filling: Vec<u8>,
    full: SyncSender<Vec<u8>>,
    empty: Receiver<Vec<u8>>,
    thread: JoinHandle<Hasher>,
}

impl Aside<sha2::Sha256> {
    pub(crate) fn sha256() -> Self {
        Self::new(sha2::Sha256::new())
    }
}

impl Aside<blake3::Hasher> {
    pub(crate) fn blake3() -> Self {
        Self::new(blake3::Hasher::new())
    }
}

impl<Hasher: Update> Aside<Hasher> {
    fn new(hasher: Hasher) -> Self {
        Self {
            place: Place::Here { hasher, hashed: 0 },
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match &mut self.place {
            Place::Here { hasher, hashed } => {
                hasher.update(bytes);
                *hashed += bytes.len() as u64;
                if *hashed >= WORTH_A_THREAD {
                    self.move_away();
                }
            }
            Place::There(there) => there.update(bytes),
            Place::Nowhere => unreachable!("is left as soon as it is entered"),
        }
    }

    /// The hasher, which has had everything.
    pub(crate) fn finish(self) -> Hasher {
        match self.place {
            Place::Here { hasher, .. } => hasher,
            Place::There(there) => there.finish(),
            Place::Nowhere => unreachable!("is left as soon as it is entered"),
        }
    }

    fn move_away(&mut self) {
        if let Place::Here { hasher, .. } = std::mem::replace(&mut self.place, Place::Nowhere) {
            self.place = There::start(hasher);
        }
    }
}

impl<Hasher: Update> There<Hasher> {
    /// The hasher stays here where no thread can be had, or where one more has no CPU to run on.
    fn start(hasher: Hasher) -> Place<Hasher> {
        let here = |hasher| Place::Here { hasher, hashed: 0 };
        if std::thread::available_parallelism().map_or(1, usize::from) == 1 {
            return here(hasher);
        }
        let (full, incoming) = sync_channel::<Vec<u8>>(PIECES);
        let (outgoing, empty) = sync_channel(PIECES);
        for _ in 1..PIECES {
            // There is room for all.
            let _ = outgoing.send(Vec::with_capacity(PIECE));
        }
        // The hasher reaches the thread through a channel, so that it is still here when there is none.
        let (hand_over, take) = sync_channel::<Hasher>(1);
        let work = move || {
            let mut hasher: Hasher = take.recv().expect("is sent right after the start");
            for mut piece in incoming {
                hasher.update(&piece);
                piece.clear();
                // Nobody waits for it at the end.
                let _ = outgoing.send(piece);
            }
            hasher
        };
        let Ok(thread) = std::thread::Builder::new().spawn(work) else {
            return here(hasher);
        };
        // The thread takes it before anything else.
        let _ = hand_over.send(hasher);
        Place::There(Self {
            filling: Vec::with_capacity(PIECE),
            full,
            empty,
            thread,
        })
    }

    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(PIECE - self.filling.len()));
            self.filling.extend_from_slice(now);
            bytes = rest;
            if self.filling.len() == PIECE {
                // One that has ended has panicked, which `finish` tells.
                let next = self.empty.recv().unwrap_or_default();
                let _ = self.full.send(std::mem::replace(&mut self.filling, next));
            }
        }
    }

    fn finish(self) -> Hasher {
        let _ = self.full.send(self.filling);
        drop(self.full);
        self.thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hashed_aside_is_what_is_hashed_at_once() {
        let limit = usize::try_from(WORTH_A_THREAD).unwrap();
        let bytes: Vec<u8> = (0..=250).cycle().take(limit * 3 + 17).collect();
        for length in [0, 1, limit - 1, limit, limit + 1, bytes.len()] {
            for step in [1000, PIECE, PIECE + 1, limit] {
                let (mut sha256, mut blake3) = (Aside::sha256(), Aside::blake3());
                for part in bytes[..length].chunks(step) {
                    sha256.update(part);
                    blake3.update(part);
                }
                let whole = &bytes[..length];
                assert_eq!(sha256.finish().finalize(), sha2::Sha256::digest(whole));
                assert_eq!(blake3.finish().finalize(), blake3::hash(whole));
            }
        }
    }

    #[test]
    fn a_hasher_that_nobody_asks_ends_with_its_owner() {
        let mut hasher = Aside::sha256();
        hasher.update(&vec![1; usize::try_from(WORTH_A_THREAD).unwrap()]);
        hasher.update(&vec![1; PIECE]);
        drop(hasher);
    }
}
