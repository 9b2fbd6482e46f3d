//! The same words on both sides of a crate border: the runner's entries are the cache's entries.

use std::str::FromStr;

use oci_spec::image::Digest;
use rbuild_cache::{ContentDigest, Entry, EntryKind};
use rbuild_runner::job::{LayerEntry, LayerEntryKind};

use crate::error::StepError;
use crate::tree::{TreeEntry, TreeEntryKind};

/// The runner's digest text.
pub(crate) fn digest(text: &str) -> Result<Digest, StepError> {
    Digest::from_str(text)
        .map_err(|_| StepError::Internal("the runner returned something that is no digest"))
}

/// An entry of a layer.
pub(crate) fn entry(entry: LayerEntry) -> Entry {
    Entry {
        path: entry.path,
        kind: entry_kind(entry.kind),
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        xattrs: entry.xattrs,
        mtime: (entry.mtime, entry.mtime_nanos),
    }
}

fn entry_kind(kind: LayerEntryKind) -> EntryKind {
    match kind {
        LayerEntryKind::Directory { is_opaque } => EntryKind::Directory { is_opaque },
        LayerEntryKind::File { size, digest } => EntryKind::File {
            size,
            digest: ContentDigest(digest),
        },
        LayerEntryKind::HardLink { target } => EntryKind::HardLink { target },
        LayerEntryKind::Symlink { target } => EntryKind::Symlink { target },
        LayerEntryKind::CharDevice { major, minor } => EntryKind::CharDevice { major, minor },
        LayerEntryKind::BlockDevice { major, minor } => EntryKind::BlockDevice { major, minor },
        LayerEntryKind::Fifo => EntryKind::Fifo,
        LayerEntryKind::Whiteout => EntryKind::Whiteout,
    }
}

/// A selected entry as the cache digests it, by any path; the time never counts.
pub(crate) fn selection_entry(
    path: &[u8],
    entry: TreeEntry,
    digest: Option<ContentDigest>,
) -> Entry {
    let kind = match entry.kind {
        TreeEntryKind::Directory => EntryKind::Directory { is_opaque: false },
        TreeEntryKind::File(size) => EntryKind::File {
            size,
            digest: digest.unwrap_or(ContentDigest([0; 32])),
        },
        TreeEntryKind::Symlink(target) => EntryKind::Symlink { target },
        TreeEntryKind::CharDevice(major, minor) => EntryKind::CharDevice { major, minor },
        TreeEntryKind::BlockDevice(major, minor) => EntryKind::BlockDevice { major, minor },
        TreeEntryKind::Fifo | TreeEntryKind::Socket => EntryKind::Fifo,
    };
    Entry {
        path: path.to_vec(),
        kind,
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        xattrs: entry.xattrs,
        mtime: (0, 0),
    }
}
