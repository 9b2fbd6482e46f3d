//! A full disk: every error names a path, and the store goes on working.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod common;

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{commit_blob, commit_layer, file, key, record};
use rbuild_cache::{BlobError, Chain, DbError, Store};

/// A file system of a megabyte.
struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    /// None where this process may not mount.
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(dir.path())
            .output()
            .ok()?;
        mounted.status.success().then_some(Self { dir })
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// Takes all space that is left.
    fn fill(&self) -> PathBuf {
        let path = self.dir.path().join("ballast");
        let mut ballast = std::fs::File::create(&path).unwrap();
        while ballast.write_all(&[0; 4096]).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let done = Command::new("umount")
            .arg("-l")
            .arg(self.dir.path())
            .status();
        assert!(done.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

fn is_below(error: &(dyn std::error::Error + 'static), root: &Path) -> bool {
    error.to_string().contains(root.to_str().unwrap())
}

#[test]
fn full_disk_names_the_path_and_leaves_the_store_usable() {
    let Some(disk) = SmallDisk::mount() else {
        println!("skipped: cannot mount a tmpfs");
        return;
    };
    let store = Store::open(&disk.root()).unwrap();
    let chain = Chain(vec![commit_layer(&store, 'a', &[file("f", b"x")])]);
    store
        .record(&[key(1)], &record("RUN", chain.clone()))
        .unwrap();
    let blob = commit_blob(&store, b"small").digest;
    store.sync().unwrap();

    // A blob that does not fit.
    let lease = store.lease().unwrap();
    let mut writer = lease.blob_writer().unwrap();
    let error = io::copy(&mut io::repeat(7).take(2 << 20), &mut writer).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    let error = error.downcast::<BlobError>().unwrap();
    assert!(is_below(&error, &disk.root()), "{error}");
    drop(writer);
    drop(lease);

    // A record that does not fit.
    let ballast = disk.fill();
    let mut big = record("RUN", chain.clone());
    big.title = "x".repeat(200_000);
    let error = store.record(&[key(2)], &big).unwrap_err();
    assert!(
        matches!(error, DbError::Full { .. } | DbError::Failed { .. }),
        "{error}"
    );
    assert!(is_below(&error, &disk.root()), "{error}");
    assert_eq!(store.lookup(&key(2)).unwrap(), None);
    assert_eq!(
        store.lookup(&key(1)).unwrap().unwrap().chain,
        chain,
        "what is there is still read"
    );
    drop(store);

    // With space again, all is as before.
    std::fs::remove_file(ballast).unwrap();
    let store = Store::open(&disk.root()).unwrap();
    assert_eq!(store.lookup(&key(1)).unwrap().unwrap().chain, chain);
    assert_eq!(store.read_blob(&blob, 100).unwrap(), b"small");
    store.record(&[key(2)], &record("RUN", chain)).unwrap();
    assert!(store.lookup(&key(2)).unwrap().is_some());
    store.sync().unwrap();
}
