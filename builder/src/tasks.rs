//! Work that is not a step, as events: pulls and exports.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use crate::event::{Event, EventSink};

/// Numbers the tasks of one build and sends their events. Cheap to clone.
#[derive(Clone)]
pub struct Tasks {
    sink: EventSink,
    next: Arc<AtomicUsize>,
}

impl fmt::Debug for Tasks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Tasks")
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl Tasks {
    /// Tasks of a build whose events go to `sink`.
    pub fn new(sink: EventSink) -> Self {
        Self {
            sink,
            next: Arc::default(),
        }
    }

    /// Begins a task. One that is dropped without [`Task::finish`] ends as cancelled.
    pub fn start(&self, title: impl Into<String>) -> Task {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (self.sink)(Event::TaskStarted {
            task: number,
            title: title.into(),
        });
        Task {
            sink: Arc::clone(&self.sink),
            number,
            started: Instant::now(),
            done: AtomicU64::new(0),
            total: AtomicU64::new(0),
            is_open: true,
        }
    }

    /// A task that nobody hears of: part of another.
    pub(crate) fn silent() -> Task {
        Task {
            sink: Arc::new(|_| ()),
            number: 0,
            started: Instant::now(),
            done: AtomicU64::new(0),
            total: AtomicU64::new(0),
            is_open: false,
        }
    }

    /// Says something that is to be known once per build.
    pub fn notice(&self, text: impl Into<String>) {
        (self.sink)(Event::Notice(text.into()));
    }
}

/// One running task.
pub struct Task {
    sink: EventSink,
    number: usize,
    started: Instant,
    done: AtomicU64,
    total: AtomicU64,
    is_open: bool,
}

impl fmt::Debug for Task {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Task")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl Task {
    /// Says how many bytes more there are to do.
    pub fn expect(&self, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
        self.advance(0);
    }

    /// Says that bytes were done.
    pub fn advance(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let total = self.total.load(Ordering::Relaxed);
        (self.sink)(Event::TaskProgress {
            task: self.number,
            done,
            total: (total > 0).then_some(total),
        });
    }

    /// Ends the task; an error is told with its cause.
    pub fn finish<T, E: std::error::Error>(
        mut self,
        result: &Result<T, E>,
        summary: impl FnOnce(&T) -> String,
    ) {
        let result = match result {
            Ok(value) => Ok(summary(value)),
            Err(error) => Err(error.to_string()),
        };
        self.end(result);
    }

    fn end(&mut self, result: Result<String, String>) {
        self.is_open = false;
        (self.sink)(Event::TaskFinished {
            task: self.number,
            duration: self.started.elapsed(),
            result,
        });
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if self.is_open {
            self.end(Err("cancelled".to_owned()));
        }
    }
}
