//! The digest of what a walk meets.

use rbuild_cache::{ContentDigest, FilesDigest, SelectionDigest};

use super::pattern_walk::{Met, Visit};
use crate::convert;
use crate::tree::{TreeEntry, TreeEntryKind};

/// What is true of every walk: a listing has distinct names, in byte order.
const IN_ORDER: &str = "a walk meets the names of a directory in byte order";

/// Digests a walk.
pub(super) struct Digesting<'read, 'digests> {
    selection: SelectionDigest,
    /// Contents to be used in place of what the tree says.
    contents: Option<&'read mut dyn Iterator<Item = &'digests [u8; 32]>>,
}

impl<'read, 'digests> Digesting<'read, 'digests> {
    pub(super) fn new() -> Self {
        Self {
            selection: SelectionDigest::new(),
            contents: None,
        }
    }

    /// Takes the contents of regular files from elsewhere.
    pub(super) fn of_contents(
        contents: &'read mut dyn Iterator<Item = &'digests [u8; 32]>,
    ) -> Self {
        Self {
            selection: SelectionDigest::new(),
            contents: Some(contents),
        }
    }

    pub(super) fn finish(self) -> ContentDigest {
        self.selection.finish()
    }
}

impl Visit for Digesting<'_, '_> {
    fn enter(&mut self, met: Met<'_>) {
        let entry = convert::selection_entry(met.name(), met.entry, None);
        self.selection.enter(&entry).expect(IN_ORDER);
    }

    fn leave(&mut self) {
        self.selection.leave();
    }

    fn take(&mut self, met: Met<'_>) {
        let is_file = matches!(met.entry.kind, TreeEntryKind::File(_));
        let digest = match &mut self.contents {
            Some(contents) if is_file => contents.next().copied().map(ContentDigest),
            _ => met.digest,
        };
        let entry = convert::selection_entry(met.name(), met.entry, digest);
        self.selection.add(&entry).expect(IN_ORDER);
    }

    fn take_files(&mut self, digest: ContentDigest) -> bool {
        if self.contents.is_some() {
            return false;
        }
        self.selection.set_files(digest);
        true
    }
}

/// Digest of a lone entry, whatever its name.
pub(super) fn of_item(entry: TreeEntry, digest: Option<ContentDigest>) -> ContentDigest {
    let mut files = FilesDigest::new();
    let entry = convert::selection_entry(b"", entry, digest);
    files.add(&entry).expect("one entry is in order");
    files.finish()
}
