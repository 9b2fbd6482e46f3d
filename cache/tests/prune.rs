//! Pruning a real store: what stays, what goes, what a kill leaves, and that nobody who builds meanwhile loses anything.

#![expect(clippy::unwrap_used, reason = "a test")]

mod common;

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Fixture, commit_blob, commit_layer, file, key, record};
use rbuild_cache::failpoint::PRUNE_POINTS;
use rbuild_cache::{
    CacheMountId, Chain, ImageRecord, Kind, MountRemoveError, PruneOptions, Sharing, Store,
};

/// Names the store that a child prunes.
const ROOT: &str = "RBUILD_CACHE_PRUNE_TEST_ROOT";

fn image(store: &Store, chain: Chain, config: &[u8]) -> ImageRecord {
    ImageRecord {
        config_digest: commit_blob(store, config).digest,
        manifest_digest: None,
        chain,
        created: 1_700_000_000,
        size: 4096,
        platform: "linux/amd64".to_owned(),
        base: None,
    }
}

fn use_mount(store: &Store, id: &str) -> rbuild_cache::CacheMountGuard {
    let id = CacheMountId::plain(id);
    let mut guard = store
        .lock_cache_mount(&id, Sharing::Locked, || false)
        .unwrap()
        .unwrap();
    guard.mark_prepared().unwrap();
    guard
}

/// A tagged image of layers a and b (steps 1 and 2), and what nothing needs: step 3 on a, a blob, an untagged image, a cache
/// mount, a snapshot and a blob without rows, a dead lock.
fn furnished() -> (Fixture, ImageRecord) {
    let fixture = Fixture::new();
    let store = fixture.open();
    let a = commit_layer(&store, 'a', &[file("base", b"base")]);
    let b = commit_layer(&store, 'b', &[file("app", b"app")]);
    let c = commit_layer(&store, 'c', &[file("test", &[0; 9000])]);
    let base = Chain::from_iter(vec![a.clone()]);
    let tagged = base.with(b);
    store
        .record(&[key(1)], &record("RUN base", base.clone()))
        .unwrap();
    store
        .record(&[key(2)], &record("RUN app", tagged.clone()))
        .unwrap();
    store
        .record(&[key(3)], &record("RUN test", base.with(c.clone())))
        .unwrap();
    let image_of_tag = image(&store, tagged, b"tagged");
    store.put_image(&["app:latest"], &image_of_tag).unwrap();
    let loose = image(&store, base.with(c), b"untagged");
    store.put_image(&[], &loose).unwrap();
    commit_blob(&store, &vec![7; 50_000]);
    let mount = use_mount(&store, "/root/.cargo");
    std::fs::write(mount.path().join("registry"), vec![0; 20_000]).unwrap();
    drop(mount);
    let root = fixture.root();
    std::fs::create_dir(root.join("snapshots").join("d".repeat(64))).unwrap();
    std::fs::write(root.join("blobs/sha256").join("e".repeat(64)), "x").unwrap();
    std::fs::write(root.join("locks/step-dead"), "").unwrap();
    store.sync().unwrap();
    (fixture, image_of_tag)
}

fn count(root: &Path, directory: &str) -> usize {
    std::fs::read_dir(root.join(directory)).unwrap().count()
}

/// The image with a name and its steps are as they were; all else is gone.
fn assert_is_pruned(fixture: &Fixture, store: &Store, image: &ImageRecord) {
    assert_eq!(store.image("app:latest").unwrap().as_ref(), Some(image));
    assert_eq!(store.images().unwrap().len(), 1);
    assert_eq!(
        store.read_blob(&image.config_digest, 100).unwrap(),
        b"tagged"
    );
    for layer in image.chain.layers() {
        store.check_snapshot(&layer.snapshot).unwrap();
    }
    assert!(store.lookup(&key(1)).unwrap().is_some());
    assert!(store.lookup(&key(2)).unwrap().is_some());
    assert!(store.lookup(&key(3)).unwrap().is_none());
    let root = fixture.root();
    let left = ["snapshots", "blobs/sha256", "mounts", "work", "locks"]
        .map(|directory| count(&root, directory));
    assert_eq!(left, [2, 1, 0, 0, 1], "of locks, only that of pruning");
}

#[test]
fn what_nothing_needs_goes_and_what_a_name_needs_stays() {
    let (fixture, image) = furnished();
    let store = fixture.open();
    let before = fixture.listing();
    let planned = store.plan_prune(&PruneOptions::default()).unwrap();
    assert_eq!(fixture.listing(), before, "a plan changes nothing");

    let pruned = store.prune(&PruneOptions::default()).unwrap();
    let names = |items: &[rbuild_cache::PrunedItem]| {
        let mut names: Vec<_> = (items.iter())
            .map(|item| (item.kind, item.title.clone()))
            .collect();
        names.sort();
        names
    };
    assert_eq!(
        names(&pruned.items),
        [
            (Kind::Image, String::new()),
            (Kind::Step, "RUN test".to_owned()),
            (Kind::CacheMount, "/root/.cargo".to_owned()),
            (Kind::Blob, "a config or manifest".to_owned()),
        ]
    );
    assert_eq!(names(&planned.items), names(&pruned.items));
    assert_eq!(
        pruned.freed,
        pruned.items.iter().map(|item| item.bytes).sum::<u64>()
    );
    assert!(pruned.freed > 79_000, "{}", pruned.freed);
    assert_is_pruned(&fixture, &store, &image);
    assert!(
        store
            .prune(&PruneOptions::default())
            .unwrap()
            .items
            .is_empty()
    );

    let everything = PruneOptions {
        includes_tagged: true,
        ..PruneOptions::default()
    };
    store.prune(&everything).unwrap();
    assert!(store.images().unwrap().is_empty());
    assert_eq!(count(&fixture.root(), "snapshots"), 0);
    assert_eq!(count(&fixture.root(), "blobs/sha256"), 0);
}

#[test]
fn what_another_process_holds_stays() {
    let (fixture, image) = furnished();
    let (building, pruning) = (fixture.open(), fixture.open());
    let lease = building.lease().unwrap();
    let found = lease.lookup(&key(3)).unwrap().unwrap();
    let blob = commit_blob(&building, &vec![7; 50_000]).digest;
    assert_eq!(lease.hold_blob(&blob).unwrap(), Some(50_000));
    let mount = use_mount(&building, "/root/.cargo");
    let everything = PruneOptions {
        includes_tagged: true,
        ..PruneOptions::default()
    };
    pruning.prune(&everything).unwrap();
    assert!(building.image("app:latest").unwrap().is_none());
    assert!(building.lookup(&key(3)).unwrap().is_some());
    for layer in found.chain.layers() {
        building.check_snapshot(&layer.snapshot).unwrap();
    }
    assert!(building.has_blob(&blob));
    assert!(mount.path().join("registry").exists());
    assert_eq!(
        building.images().unwrap().len(),
        1,
        "the untagged one is in use"
    );
    assert!(image.chain.len() > 1);
    drop((lease, mount));
    pruning.prune(&everything).unwrap();
    assert_eq!(count(&fixture.root(), "snapshots"), 0);
    assert!(!building.has_blob(&blob));
}

/// The part of a child; nothing in the test run itself.
#[test]
fn prune_in_a_child() {
    if let Some(root) = std::env::var_os(ROOT) {
        let store = Store::open(Path::new(&root)).unwrap();
        store.prune(&PruneOptions::default()).unwrap();
    }
}

#[test]
fn store_is_whole_wherever_a_pruning_process_is_killed() {
    for point in PRUNE_POINTS {
        let (fixture, image) = furnished();
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "prune_in_a_child", "--quiet"])
            .env(ROOT, fixture.root())
            .env("RBUILD_DIES_AT", point)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.signal(), Some(9), "nobody came to `{point}`");
        let store = fixture.open();
        assert_eq!(
            store.image("app:latest").unwrap().as_ref(),
            Some(&image),
            "{point}"
        );
        // What lost its files is a miss, and made anew where somebody wants it.
        assert_eq!(store.lookup(&key(3)).unwrap(), None, "{point}");
        store.prune(&PruneOptions::default()).unwrap();
        assert_is_pruned(&fixture, &store, &image);
    }
}

#[test]
fn rows_without_files_go_too() {
    let (fixture, image) = furnished();
    let root = fixture.root();
    for entry in std::fs::read_dir(root.join("snapshots")).unwrap() {
        let path = entry.unwrap().path();
        let is_needed = (image.chain.iter()).any(|layer| path.ends_with(layer.snapshot.as_str()));
        if !is_needed {
            std::fs::remove_dir_all(path).unwrap();
        }
    }
    let store = fixture.open();
    store.prune(&PruneOptions::default()).unwrap();
    assert_is_pruned(&fixture, &store, &image);
    drop(store);
    let tables = rusqlite::Connection::open(root.join("db.sqlite")).unwrap();
    for (table, expected) in [("layer", 2), ("layer_entries", 2), ("blob", 1)] {
        let sql = format!("SELECT count(*) FROM {table}");
        let count: i64 = tables.query_row(&sql, [], |row| row.get(0)).unwrap();
        assert_eq!(count, expected, "{table}");
    }
}

#[test]
fn builds_lose_nothing_while_others_prune() {
    let fixture = Fixture::new();
    drop(fixture.open());
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let store = fixture.open();
                let everything = PruneOptions {
                    includes_tagged: true,
                    ..PruneOptions::default()
                };
                while !is_over.load(Ordering::Relaxed) {
                    store.prune(&everything).unwrap();
                }
            });
        }
        let builders: Vec<_> = (0..3_u8)
            .map(|builder| {
                let fixture = &fixture;
                scope.spawn(move || {
                    let store = fixture.open();
                    for round in 0..25 {
                        build(&store, builder, round);
                    }
                })
            })
            .collect();
        let results: Vec<_> = (builders.into_iter())
            .map(std::thread::ScopedJoinHandle::join)
            .collect();
        is_over.store(true, Ordering::Relaxed);
        for result in results {
            result.unwrap();
        }
    });
    let store = fixture.open();
    let everything = PruneOptions {
        includes_tagged: true,
        ..PruneOptions::default()
    };
    store.prune(&everything).unwrap();
    for directory in ["snapshots", "blobs/sha256", "work", "mounts"] {
        assert_eq!(count(&fixture.root(), directory), 0, "{directory}");
    }
}

/// A build of three steps that others do too, as the solver goes about it.
fn build(store: &Store, builder: u8, round: u8) {
    let lease = store.lease().unwrap();
    let mut chain = Chain::empty();
    for (number, name) in ['a', 'b', 'c'].into_iter().enumerate() {
        let step = key(u8::try_from(number).unwrap());
        let _lock = store.step_lock(&step).unwrap();
        if let Some(found) = lease.lookup(&step).unwrap() {
            chain = found.chain;
        } else {
            let dir = lease.scratch("step").unwrap();
            std::fs::write(dir.join("file"), "xxxxx").unwrap();
            let layer_record = rbuild_cache::LayerRecord {
                diff_id: common::diff_id(name),
                tar_size: 1,
                created: 1_700_000_000,
                created_nanos: 0,
                entries: vec![common::directory(""), file("file", b"xxxxx")],
                implied: Vec::new(),
            };
            let id = rbuild_cache::SnapshotId::of_layer(&layer_record.diff_id);
            chain = chain.with(lease.commit_snapshot(&dir, &layer_record, &id).unwrap());
            store
                .record(&[step], &record("RUN", chain.clone()))
                .unwrap();
        }
        for layer in chain.layers() {
            store.check_snapshot(&layer.snapshot).unwrap();
        }
    }
    let mut writer = lease.blob_writer().unwrap();
    std::io::Write::write_all(&mut writer, &[builder, round]).unwrap();
    let config = writer.commit(None).unwrap().digest;
    let image = ImageRecord {
        config_digest: config.clone(),
        manifest_digest: None,
        chain,
        created: 1,
        size: 1,
        platform: "linux/amd64".to_owned(),
        base: None,
    };
    store
        .put_image(&[&format!("app:{builder}")], &image)
        .unwrap();
    assert_eq!(store.read_blob(&config, 10).unwrap(), [builder, round]);
    let found = store.image(config.as_ref()).unwrap().unwrap();
    assert_eq!(found.chain.len(), 3);
}

#[test]
fn cache_mounts_go_one_by_one_and_not_while_they_are_used() {
    let fixture = Fixture::new();
    let store = fixture.open();
    drop(use_mount(&store, "/root/.cargo"));
    let used = use_mount(&store, "/var/cache/apt");
    std::fs::write(used.path().join("lists"), vec![0; 40_000]).unwrap();
    let mounts = store.cache_mounts().unwrap();
    let seen: Vec<_> = (mounts.iter())
        .map(|mount| (mount.title.as_str(), mount.is_in_use, mount.bytes > 40_000))
        .collect();
    assert_eq!(
        seen,
        [
            ("/root/.cargo", false, false),
            ("/var/cache/apt", true, true)
        ]
    );
    let error = fixture
        .open()
        .remove_cache_mount("/var/cache/apt")
        .unwrap_err();
    assert!(matches!(error, MountRemoveError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("/var/cache/apt"), "{error}");
    assert!(matches!(
        store.remove_cache_mount("/nowhere"),
        Err(MountRemoveError::Unknown { .. })
    ));
    let directory = &mounts[0].directory;
    assert_eq!(store.remove_cache_mount(&directory[..8]).unwrap().len(), 1);
    drop(used);
    store.remove_cache_mount("/var/cache/apt").unwrap();
    assert!(store.cache_mounts().unwrap().is_empty());
    for directory in ["mounts", "locks", "work"] {
        assert_eq!(count(&fixture.root(), directory), 0, "{directory}");
    }
}

#[test]
fn sizes_add_up_to_what_du_says() {
    let (fixture, _) = furnished();
    let store = fixture.open();
    // A sparse file, a hard link within a snapshot, and one across two.
    let snapshots = fixture.root().join("snapshots");
    let (a, b) = (
        snapshots.join("a".repeat(64)),
        snapshots.join("b".repeat(64)),
    );
    let sparse = std::fs::File::create(a.join("sparse")).unwrap();
    sparse.set_len(100 << 20).unwrap();
    std::fs::write(a.join("large"), vec![1; 1 << 20]).unwrap();
    std::fs::hard_link(a.join("large"), a.join("within")).unwrap();
    std::fs::hard_link(a.join("large"), b.join("across")).unwrap();
    store.disk_use().unwrap(); // it notes sizes, and so changes the database once
    let used = store.disk_use().unwrap();
    let output = Command::new("du")
        .args(["-sx", "--block-size=1"])
        .arg(fixture.root())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let du: u64 = text.split_whitespace().next().unwrap().parse().unwrap();
    let difference = used.total.abs_diff(du);
    assert!(
        difference * 50 <= du,
        "{} is not within 2 % of {du}",
        used.total
    );
    assert_eq!(
        used.kinds.iter().map(|kind| kind.bytes).sum::<u64>(),
        used.total
    );
    let of = |kind: Kind| used.kinds.iter().find(|found| found.kind == kind).unwrap();
    assert_eq!(of(Kind::Image).count, 2);
    assert_eq!(of(Kind::Step).count, 3);
    assert_eq!(of(Kind::CacheMount).reclaimable, of(Kind::CacheMount).bytes);
    assert!(
        of(Kind::Image).bytes < 3 << 20,
        "holes and links count once"
    );
}
