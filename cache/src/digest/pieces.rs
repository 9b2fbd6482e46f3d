//! BLAKE3 of a large file by all CPUs: of pieces that are subtrees of its hash tree, which are merged in the end.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use blake3::hazmat::{
    ChainingValue, HasherExt as _, Mode, left_subtree_len, merge_subtrees_non_root,
    merge_subtrees_root,
};

use super::READ_BUFFER;

/// The smallest piece, in bytes: a power of two, and worth more than the start of a thread.
const PIECE: u64 = 8 << 20;

/// Pieces of a file at most, for what is kept of them.
const MOST_PIECES: u64 = 4096;

/// More threads than this wait for memory, not for the CPU.
const MOST_THREADS: usize = 8;

/// The digest of the first `size` bytes; none when the file is small or has fewer, or when threads cannot be had.
pub(super) fn hash(file: &File, size: u64) -> io::Result<Option<[u8; 32]>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    if size < 2 * PIECE || threads == 1 {
        return Ok(None);
    }
    let piece = PIECE.max((size / MOST_PIECES).next_power_of_two());
    in_pieces(file, size, piece, threads.min(MOST_THREADS))
}

/// `piece` is a power of two, of at least a chunk of 1,024 bytes, and there are two or more.
fn in_pieces(file: &File, size: u64, piece: u64, threads: usize) -> io::Result<Option<[u8; 32]>> {
    let Some(values) = values(file, size, piece, threads)? else {
        return Ok(None);
    };
    let left = left_subtree_len(size);
    let (left, right) = values.split_at(usize::try_from(left / piece).expect("is a few pieces"));
    let root = merge_subtrees_root(&merge(left, piece), &merge(right, piece), Mode::Hash);
    Ok(Some(*root.as_bytes()))
}

/// The chaining values of all pieces, in order.
fn values(
    file: &File,
    size: u64,
    piece: u64,
    threads: usize,
) -> io::Result<Option<Vec<ChainingValue>>> {
    let next = AtomicU64::new(0);
    let found = Mutex::new(Vec::new());
    let work = || -> io::Result<bool> {
        let mut buffer = vec![0; READ_BUFFER];
        loop {
            let start = next.fetch_add(piece, Ordering::Relaxed);
            if start >= size {
                return Ok(true);
            }
            let Some(value) = value(file, start, piece.min(size - start), &mut buffer)? else {
                // Nobody needs the others.
                next.store(size, Ordering::Relaxed);
                return Ok(false);
            };
            let mut found = found
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            found.push((start, value));
        }
    };
    let is_whole = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads)
            .map_while(|_| std::thread::Builder::new().spawn_scoped(scope, work).ok())
            .collect();
        let mut results = vec![work()];
        results.extend(others.into_iter().map(|other| {
            other
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        }));
        results
            .into_iter()
            .try_fold(true, |all, result| Ok::<_, io::Error>(all & result?))
    })?;
    let mut found = found
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    found.sort_unstable_by_key(|(start, _)| *start);
    Ok(is_whole.then(|| found.into_iter().map(|(_, value)| value).collect()))
}

/// None when the file has ended meanwhile.
fn value(
    file: &File,
    start: u64,
    length: u64,
    buffer: &mut [u8],
) -> io::Result<Option<ChainingValue>> {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(start);
    let mut done = 0;
    while done < length {
        let most = buffer
            .len()
            .min(usize::try_from(length - done).unwrap_or(usize::MAX));
        match file.read_at(&mut buffer[..most], start + done) {
            Ok(0) => return Ok(None),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                done += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Some(hasher.finalize_non_root()))
}

/// What pieces that follow one another are together. A tree is full on its left side.
fn merge(values: &[ChainingValue], piece: u64) -> ChainingValue {
    if let [value] = values {
        return *value;
    }
    let left = left_subtree_len(values.len() as u64 * piece) / piece;
    let (left, right) = values.split_at(usize::try_from(left).expect("is less than there are"));
    merge_subtrees_non_root(&merge(left, piece), &merge(right, piece), Mode::Hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_the_digest_of_the_whole() {
        let bytes: Vec<u8> = (0..=250).cycle().take(70_000).collect();
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        std::fs::write(&path, &bytes).unwrap();
        let file = File::open(&path).unwrap();
        for piece in [1024, 2048, 8192] {
            for size in (piece + 1..20 * piece + 2)
                .step_by(511)
                .take_while(|&size| size <= 70_000)
            {
                for threads in [1, 3] {
                    let found = in_pieces(&file, size, piece, threads).unwrap();
                    let wanted = blake3::hash(&bytes[..usize::try_from(size).unwrap()]);
                    assert_eq!(
                        found,
                        Some(*wanted.as_bytes()),
                        "{size} in pieces of {piece}"
                    );
                }
            }
        }
        assert_eq!(
            in_pieces(&file, 70_001, 1024, 2).unwrap(),
            None,
            "the file is shorter"
        );
    }

    #[test]
    fn a_large_file_is_hashed_like_a_small_one() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        let bytes: Vec<u8> = (0..=250).cycle().take(20_000_001).collect();
        std::fs::write(&path, &bytes).unwrap();
        let found = super::super::ContentDigest::of_file(&File::open(&path).unwrap()).unwrap();
        let wanted = super::super::ContentDigest::of_bytes(&bytes);
        assert_eq!(found, (wanted, 20_000_001));
    }
}
