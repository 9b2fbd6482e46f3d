//! A store in a temporary directory and the smallest things to put in it.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "every test binary uses its own part"
)]

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rbuild_cache::{
    BlobInfo, Chain, ContentDigest, DiffId, Entry, EntryKind, Layer, LayerRecord, SnapshotId,
    StepKey, StepRecord, Store,
};

/// A directory for one store; gone when dropped.
pub(crate) struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    pub(crate) fn open(&self) -> Store {
        Store::open(&self.root()).unwrap()
    }

    /// Path, size, inode and modification time of everything in the store. Opening a WAL database touches its
    /// shared memory, which is no data, and its directory when that is made anew.
    pub(crate) fn listing(&self) -> BTreeMap<PathBuf, (u64, u64, i64, i64)> {
        let mut listing = BTreeMap::new();
        list(&self.root(), &mut listing);
        listing
    }
}

fn list(path: &Path, listing: &mut BTreeMap<PathBuf, (u64, u64, i64, i64)>) {
    let metadata = std::fs::symlink_metadata(path).unwrap();
    if path
        .extension()
        .is_some_and(|extension| extension == "sqlite-shm")
    {
        return;
    }
    listing.insert(
        path.to_owned(),
        (
            metadata.len(),
            metadata.ino(),
            metadata.mtime(),
            metadata.mtime_nsec(),
        ),
    );
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            list(&entry.unwrap().path(), listing);
        }
    }
}

/// Commits a blob.
pub(crate) fn commit_blob(store: &Store, content: &[u8]) -> BlobInfo {
    let mut writer = store.lease().unwrap().blob_writer().unwrap();
    writer.write_all(content).unwrap();
    writer.commit(None).unwrap()
}

/// Commits a layer named after one hex digit; its files have their path's length as content where none is given.
pub(crate) fn commit_layer(store: &Store, name: char, files: &[Entry]) -> Layer {
    let lease = store.lease().unwrap();
    let dir = lease.scratch("layer").unwrap();
    let mut entries = vec![directory("")];
    for entry in files {
        let path = dir.join(std::ffi::OsStr::from_bytes(&entry.path));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        if let EntryKind::File { size, .. } = entry.kind {
            std::fs::write(path, vec![b'x'; size.try_into().unwrap()]).unwrap();
        }
        entries.push(entry.clone());
    }
    let record = LayerRecord {
        diff_id: diff_id(name),
        tar_size: 1024,
        created: 1_700_000_000,
        created_nanos: 5,
        entries,
        implied: Vec::new(),
    };
    lease
        .commit_snapshot(&dir, &record, &SnapshotId::of_layer(&record.diff_id))
        .unwrap()
}

pub(crate) fn diff_id(fill: char) -> DiffId {
    DiffId(
        format!("sha256:{}", String::from(fill).repeat(64))
            .parse()
            .unwrap(),
    )
}

pub(crate) fn directory(path: &str) -> Entry {
    Entry {
        path: path.into(),
        kind: EntryKind::Directory { is_opaque: false },
        mode: 0o755,
        uid: 0,
        gid: 0,
        xattrs: Vec::new(),
        mtime: (1_700_000_000, 7),
    }
}

pub(crate) fn file(path: &str, content: &[u8]) -> Entry {
    let digest = ContentDigest::of_bytes(content);
    Entry {
        kind: EntryKind::File {
            size: content.len() as u64,
            digest,
        },
        mode: 0o644,
        ..directory(path)
    }
}

pub(crate) fn key(number: u8) -> StepKey {
    StepKey([number; 32])
}

pub(crate) fn record(title: &str, chain: Chain) -> StepRecord {
    StepRecord {
        chain,
        parts: Vec::new(),
        title: title.to_owned(),
        created: 1_700_000_000,
        cost_us: 42,
    }
}
