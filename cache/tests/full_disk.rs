//! A full disk: every error names a path, and the store goes on working.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod common;

use std::error::Error;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{commit_blob, commit_layer, diff_id, file, key, record};
use rbuild_cache::{
    BlobError, BuildProgress, BuildStatus, CacheMountId, Chain, DbError, ImageRecord, LayerRecord,
    PruneOptions, Sharing, SnapshotId, Store, is_full_disk,
};

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
        self.fill_but(0)
    }

    /// Takes all space but this many pages.
    fn fill_but(&self, pages: u64) -> PathBuf {
        let path = self.dir.path().join("ballast");
        let mut ballast = std::fs::File::create(&path).unwrap();
        while ballast.write_all(&[0; 4096]).is_ok() {}
        let length = ballast.metadata().unwrap().len();
        ballast.set_len(length - pages * 4096).unwrap();
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

/// All that a build commits; `mark` tells one from another.
fn commit_everything(root: &Path, mark: char) -> Result<(), Box<dyn Error>> {
    let store = Store::open(root)?;
    let lease = store.lease()?;
    let mut writer = lease.blob_writer()?;
    writer.write_all(format!("config {mark}").as_bytes())?;
    let config = writer.commit(None)?.digest;
    let directory = lease.scratch("layer")?;
    std::fs::write(directory.join("f"), [mark as u8; 3000])?;
    let entries = vec![common::directory(""), file("f", &[mark as u8; 3000])];
    let record_of_layer = LayerRecord {
        diff_id: diff_id(mark),
        tar_size: 1024,
        created: 1,
        created_nanos: 0,
        entries,
        implied: Vec::new(),
    };
    let id = SnapshotId::of_layer(&record_of_layer.diff_id);
    let chain = Chain::from_iter(vec![lease.commit_snapshot(
        &directory,
        &record_of_layer,
        &id,
    )?]);
    // Such a long one that the database has to grow.
    let title = "x".repeat(16_000);
    store.record(&[key(mark as u8)], &record(&title, chain.clone()))?;
    let mount = CacheMountId::plain("cache");
    let mut guard = store
        .lock_cache_mount(&mount, Sharing::Shared, || false)?
        .ok_or("cancelled")?;
    guard.mark_prepared()?;
    drop(guard);
    let build = store.new_build(&lease, "line")?;
    store.add_build(&build, BuildStatus::Running, &BuildProgress::default())?;
    store.update_build(&build.id, BuildStatus::Done, &BuildProgress::default())?;
    let image = ImageRecord {
        config_digest: config,
        manifest_digest: None,
        chain,
        created: 1,
        size: 3000,
        platform: "linux/amd64".to_owned(),
        base: None,
    };
    // Syncs all of it.
    Ok(store.put_image(&[&format!("app:{mark}")], &image)?)
}

/// The image of a mark is there with all that it needs.
fn is_whole(store: &Store, mark: char) {
    let image = store.image(&format!("app:{mark}")).unwrap().unwrap();
    for layer in image.chain.layers() {
        store.check_snapshot(&layer.snapshot).unwrap();
        let content = std::fs::read(store.snapshot_path(&layer.snapshot).join("f")).unwrap();
        assert_eq!(content, [mark as u8; 3000]);
    }
    let config = store.read_blob(&image.config_digest, 100).unwrap();
    assert_eq!(config, format!("config {mark}").as_bytes());
    let found = store.lookup(&key(mark as u8)).unwrap().unwrap();
    assert_eq!(found.chain, image.chain);
}

#[test]
fn a_disk_may_be_full_at_every_step_of_a_commit_and_pruning_frees_it() {
    let Some(disk) = SmallDisk::mount() else {
        println!("skipped: cannot mount a tmpfs");
        assert!(std::env::var_os("RBUILD_TESTS_MUST_RUN").is_none());
        return;
    };
    let (mut failed, mut pages) = (0, 0);
    loop {
        let root = disk.root();
        if root.exists() {
            std::fs::remove_dir_all(&root).unwrap();
        }
        commit_everything(&root, 'a').unwrap();
        let spare = commit_layer(
            &Store::open(&root).unwrap(),
            'c',
            &[file("f", &vec![0; 150_000])],
        );
        let ballast = disk.fill_but(pages);
        let result = commit_everything(&root, 'b');
        if let Err(error) = &result {
            failed += 1;
            let chain =
                std::iter::successors(Some(error.as_ref() as &dyn Error), |&error| error.source());
            assert!(
                chain.into_iter().any(is_full_disk),
                "{pages} pages left: {error:?}"
            );
            // What the test wrote itself names nothing.
            let is_own = (error.downcast_ref::<io::Error>())
                .is_some_and(|error| error.raw_os_error().is_some());
            assert!(
                is_own || is_below(error.as_ref(), &root),
                "{pages} pages left: {error}"
            );
        }
        // Full still: what is there can be read, and pruning makes room.
        let store =
            Store::open(&root).unwrap_or_else(|error| panic!("{pages} pages left: {error:?}"));
        is_whole(&store, 'a');
        assert_eq!(
            store.image("app:b").unwrap().is_some(),
            result.is_ok(),
            "{pages} pages left: who was told of a failure has what was there before"
        );
        let before = rustix::fs::statvfs(disk.dir.path()).unwrap().f_bfree;
        let pruned = store.prune(&PruneOptions::default());
        let pruned = pruned.unwrap_or_else(|error| panic!("{pages} pages left: {error:?}"));
        assert!(
            pruned
                .items
                .iter()
                .any(|item| item.id == spare.snapshot.as_str())
        );
        let after = rustix::fs::statvfs(disk.dir.path()).unwrap().f_bfree;
        assert!(
            after > before,
            "{pages} pages left: {after} blocks are free, {before} were"
        );
        is_whole(&store, 'a');
        drop(store);
        std::fs::remove_file(ballast).unwrap();
        commit_everything(&root, 'b').unwrap();
        let store = Store::open(&root).unwrap();
        is_whole(&store, 'a');
        is_whole(&store, 'b');
        assert_eq!(std::fs::read_dir(root.join("work")).unwrap().count(), 0);
        if result.is_ok() {
            break;
        }
        pages += 1;
    }
    assert!(failed > 5, "only {failed} ran out of space");
}

#[test]
fn full_disk_names_the_path_and_leaves_the_store_usable() {
    let Some(disk) = SmallDisk::mount() else {
        println!("skipped: cannot mount a tmpfs");
        return;
    };
    let store = Store::open(&disk.root()).unwrap();
    let chain = Chain::from_iter(vec![commit_layer(&store, 'a', &[file("f", b"x")])]);
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
