//! Entry tables that this process has read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::entry::Entry;
use crate::layer::SnapshotId;

/// Tables kept. A build reads those of the chains it copies from; more than this is not one build.
const LIMIT: usize = 256;

/// Decoded entry tables by snapshot. A snapshot never changes, so neither does its table.
#[derive(Debug, Default)]
pub(crate) struct EntryMemo {
    /// Never held while a table is decoded.
    tables: Mutex<HashMap<SnapshotId, Arc<[Entry]>>>,
}

impl EntryMemo {
    pub(crate) fn lookup(&self, snapshot: &SnapshotId) -> Option<Arc<[Entry]>> {
        self.tables
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(snapshot)
            .cloned()
    }

    pub(crate) fn remember(&self, snapshot: &SnapshotId, table: Arc<[Entry]>) -> Arc<[Entry]> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if tables.len() >= LIMIT {
            tables.clear();
        }
        Arc::clone(tables.entry(snapshot.clone()).or_insert(table))
    }
}
