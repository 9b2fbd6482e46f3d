//! Visits the directories of a tree on all CPUs.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Directories that wait before another thread is worth its start.
const WORTH_A_THREAD: usize = 8;

/// Most threads: beyond that, directory locks of the kernel are what is waited for.
const MAX_THREADS: usize = 16;

/// What is left to visit.
#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Vec<u8>>,
    /// Threads that are visiting: each may find more.
    busy: usize,
}

/// Calls `visit` with `top` and with every directory that a visit returns, in no order, each once, from several threads.
pub(super) fn read_ahead(top: &[u8], visit: impl Fn(&[u8]) -> Vec<Vec<u8>> + Sync) {
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(MAX_THREADS);
    // Most contexts are small: looked at before the first thread starts.
    let mut waiting = vec![top.to_vec()];
    while waiting.len() < WORTH_A_THREAD || threads == 1 {
        let Some(directory) = waiting.pop() else {
            return;
        };
        waiting.extend(visit(&directory));
    }
    let queue = Mutex::new(Queue { waiting, busy: 0 });
    let changed = Condvar::new();
    let work = || {
        let mut queue_now = lock(&queue);
        loop {
            if let Some(directory) = queue_now.waiting.pop() {
                queue_now.busy += 1;
                drop(queue_now);
                let busy = Busy {
                    queue: &queue,
                    changed: &changed,
                };
                let found = visit(&directory);
                lock(&queue).waiting.extend(found);
                drop(busy);
                queue_now = lock(&queue);
            } else if queue_now.busy == 0 {
                return;
            } else {
                queue_now = changed
                    .wait(queue_now)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
}

/// A visit; also one that panics comes to an end, so that nobody waits for it.
struct Busy<'queue> {
    queue: &'queue Mutex<Queue>,
    changed: &'queue Condvar,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        lock(self.queue).busy -= 1;
        self.changed.notify_all();
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    // A visit that panicked did so without the lock.
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_directory_is_visited_once() {
        for width in [0, 1, 7, 40] {
            let seen = Mutex::new(Vec::new());
            read_ahead(b"t", |path| {
                seen.lock().unwrap().push(path.to_vec());
                let below = if path.len() < 4 { width } else { 0 };
                (0..below)
                    .map(|number| [path, &[number]].concat())
                    .collect()
            });
            let mut seen = seen.into_inner().unwrap();
            let count = seen.len();
            seen.sort();
            seen.dedup();
            let width = usize::from(width);
            assert_eq!(count, 1 + width + width * width + width.pow(3));
            assert_eq!(seen.len(), count);
        }
    }
}
