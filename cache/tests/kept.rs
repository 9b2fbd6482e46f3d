//! What failed steps left: it stays with what it stands on, goes first, and survives kills but not power cuts.

#![expect(clippy::unwrap_used, reason = "a test")]

mod common;

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use common::{Fixture, commit_layer, file, key, record};
use rbuild_cache::failpoint::KEEPING_POINTS;
use rbuild_cache::{
    BuildProgress, BuildStatus, Chain, DamageKind, ExamineError, ExamineSnapshot, Examined, Kept,
    KeptId, KeptLimits, Kind, Layer, LeftoverKind, NewKept, PruneOptions, RemoveTreeHere, Store,
    fsck,
};

/// Names the store that a child keeps something in.
const ROOT: &str = "RBUILD_CACHE_KEPT_TEST_ROOT";

fn id(build: &str) -> KeptId {
    KeptId {
        build: build.to_owned(),
        step: 2,
    }
}

/// Keeps 9,000 bytes of a step that stood on these layers, as a build does whose process then ends.
fn keep(store: &Store, build: &str, layers: &[&Layer]) {
    let lease = store.lease().unwrap();
    let part = lease.scratch("run").unwrap();
    std::fs::create_dir(part.join("upper")).unwrap();
    std::fs::write(part.join("upper/half-done"), vec![1; 9000]).unwrap();
    let snapshots: BTreeSet<_> = layers.iter().map(|layer| layer.snapshot.clone()).collect();
    let new = NewKept {
        id: id(build),
        title: "RUN make",
        snapshots: &snapshots,
        description: b"how to see it again",
        parts: std::slice::from_ref(&part),
    };
    lease.keep(&new).unwrap();
    assert!(!part.exists(), "it was moved");
}

fn find(store: &Store, build: &str) -> Option<Kept> {
    store.lease().unwrap().hold_kept(&id(build)).unwrap()
}

/// The only file in what is kept.
fn content(kept: &Kept) -> Vec<u8> {
    let mut parts = std::fs::read_dir(&kept.path).unwrap();
    let part = parts.next().unwrap().unwrap().path();
    std::fs::read(part.join("upper/half-done")).unwrap()
}

/// A store with a step's layer, on which a step of build `b` failed.
fn furnished() -> (Fixture, Layer) {
    let fixture = Fixture::new();
    let store = fixture.open();
    let layer = commit_layer(&store, 'a', &[file("base", b"base")]);
    store
        .record(
            &[key(1)],
            &record("RUN base", Chain::from_iter(vec![layer.clone()])),
        )
        .unwrap();
    keep(&store, "b", &[&layer]);
    store.sync().unwrap();
    (fixture, layer)
}

fn everything() -> PruneOptions {
    PruneOptions::default()
}

#[test]
fn another_process_finds_it_as_it_was() {
    let (fixture, _) = furnished();
    let store = fixture.open();
    let kept = find(&store, "b").unwrap();
    assert_eq!(kept.title, "RUN make");
    assert_eq!(kept.description, b"how to see it again");
    assert_eq!(content(&kept), vec![1; 9000]);
    assert!(find(&store, "c").is_none());
    assert!(store.has_kept(&id("b")).unwrap());
    // The same step of the same build once more: the newer one stays.
    let layer = commit_layer(&store, 'b', &[]);
    keep(&store, "b", &[&layer]);
    assert_eq!(content(&find(&store, "b").unwrap()), vec![1; 9000]);
}

#[test]
fn who_looks_at_it_keeps_it_and_its_layers() {
    let (fixture, layer) = furnished();
    let store = fixture.open();
    let lease = store.lease().unwrap();
    lease.hold_kept(&id("b")).unwrap().unwrap();
    assert!(store.prune(&everything()).unwrap().items.is_empty());
    assert_eq!(store.drop_kept(KeptLimits { count: 0, age: 0 }).unwrap(), 0);
    store.check_snapshot(&layer.snapshot).unwrap();
    drop(lease);
    let gone = store.prune(&everything()).unwrap().items;
    let kinds: Vec<Kind> = gone.iter().map(|item| item.kind).collect();
    assert_eq!(kinds, [Kind::Kept, Kind::Step], "{gone:?}");
    assert!(gone[0].bytes >= 9000, "{gone:?}");
    assert_eq!(gone[0].title, "RUN make");
    assert!(find(&store, "b").is_none());
    assert_eq!(
        std::fs::read_dir(fixture.root().join("kept"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn its_layers_stay_with_it() {
    let (fixture, layer) = furnished();
    let store = fixture.open();
    let only_steps = PruneOptions {
        kinds: BTreeSet::from([Kind::Step]),
        ..everything()
    };
    assert!(store.prune(&only_steps).unwrap().items.is_empty());
    store.check_snapshot(&layer.snapshot).unwrap();
    // It is worth least: with a limit it goes, and the step stays.
    let total = store.disk_use().unwrap().total;
    let limited = |limit| PruneOptions {
        max_used_space: Some(limit),
        ..everything()
    };
    let first = (0..total).rev().step_by(1000);
    let mut first = first.map(limited).filter(|options| {
        let planned = store.plan_prune(options).unwrap().items;
        !planned.is_empty()
    });
    let gone = store.prune(&first.next().unwrap()).unwrap().items;
    assert_eq!(gone.len(), 1, "{gone:?}");
    assert_eq!(gone[0].kind, Kind::Kept);
    store.check_snapshot(&layer.snapshot).unwrap();
}

#[test]
fn filters_name_it() {
    let (fixture, _) = furnished();
    let store = fixture.open();
    for (changed, goes) in [
        (
            PruneOptions {
                unused_for: Some(Duration::from_hours(1)),
                ..everything()
            },
            false,
        ),
        (
            PruneOptions {
                ids: vec!["c-2".to_owned()],
                ..everything()
            },
            false,
        ),
        (
            PruneOptions {
                ids: vec!["b-".to_owned()],
                ..everything()
            },
            true,
        ),
    ] {
        let planned = store.plan_prune(&changed).unwrap().items;
        let kinds: Vec<Kind> = planned.iter().map(|item| item.kind).collect();
        assert_eq!(
            kinds.contains(&Kind::Kept),
            goes,
            "{changed:?}: {planned:?}"
        );
    }
}

#[test]
fn it_counts_in_what_the_store_takes() {
    let (fixture, _) = furnished();
    let store = fixture.open();
    let used = store.disk_use().unwrap();
    let kind = used.kinds.iter().find(|kind| kind.kind == Kind::Kept);
    let kind = kind.unwrap();
    assert_eq!(kind.count, 1);
    assert!(
        kind.bytes >= 9000 && kind.reclaimable == kind.bytes,
        "{kind:?}"
    );
    let item = used.items.iter().find(|item| item.kind == Kind::Kept);
    let item = item.unwrap();
    assert_eq!((item.id.as_str(), item.title.as_str()), ("b-2", "RUN make"));
    assert!(item.is_reclaimable && !item.is_in_use);
    let sum: u64 = used.kinds.iter().map(|kind| kind.bytes).sum();
    assert_eq!(sum, used.total);
}

#[test]
fn too_many_and_too_old_ones_go() {
    let (fixture, layer) = furnished();
    let store = fixture.open();
    let limits = KeptLimits::default();
    assert_eq!(store.drop_kept(limits).unwrap(), 0);
    for number in 1..=limits.count {
        keep(&store, &format!("n{number}"), &[&layer]);
    }
    assert_eq!(store.drop_kept(limits).unwrap(), 1);
    let two = KeptLimits { count: 2, ..limits };
    assert_eq!(store.drop_kept(two).unwrap(), limits.count - 2);
    let none = KeptLimits { age: -1, ..limits };
    assert_eq!(store.drop_kept(none).unwrap(), 2);
}

#[test]
fn it_goes_with_its_build() {
    let (fixture, layer) = furnished();
    let store = fixture.open();
    let lease = store.lease().unwrap();
    let build = store.new_build(&lease, "line").unwrap();
    let progress = BuildProgress::default();
    store
        .add_build(&build, BuildStatus::Failed, &progress)
        .unwrap();
    keep(&store, &build.id, &[&layer]);
    store
        .remove_builds(std::slice::from_ref(&build.id))
        .unwrap();
    assert!(find(&store, &build.id).is_none());
    assert!(find(&store, "b").is_some(), "that of another build stays");
}

#[test]
fn a_power_cut_may_take_it_and_leaves_nothing_half() {
    let (fixture, layer) = furnished();
    let store = fixture.open();
    keep(&store, "c", &[&layer]);
    drop(store);
    let remover = Arc::new(RemoveTreeHere);
    let store = Store::open_in_boot(&fixture.root(), remover, "another boot".to_owned()).unwrap();
    assert!(find(&store, "c").is_none(), "it was not synced");
    assert!(find(&store, "b").is_some(), "it was");
    assert_eq!(
        std::fs::read_dir(fixture.root().join("kept"))
            .unwrap()
            .count(),
        1
    );
}

/// The part of a child; nothing in the test run itself.
#[test]
fn keep_in_a_child() {
    if let Some(root) = std::env::var_os(ROOT) {
        let store = Store::open(Path::new(&root)).unwrap();
        let layer = commit_layer(&store, 'a', &[file("base", b"base")]);
        keep(&store, "c", &[&layer]);
    }
}

#[test]
fn it_is_whole_or_not_there_wherever_a_keeping_process_is_killed() {
    for (point, is_there) in KEEPING_POINTS.iter().zip([false, true]) {
        let (fixture, _) = furnished();
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "keep_in_a_child", "--quiet"])
            .env(ROOT, fixture.root())
            .env("RBUILD_DIES_AT", point)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.signal(), Some(9), "nobody came to `{point}`");
        let store = fixture.open();
        assert_eq!(find(&store, "c").is_some(), is_there, "{point}");
        assert!(find(&store, "b").is_some());
        drop(store);
        let orphans = check(&fixture.root(), false);
        let expected: &[_] = if is_there {
            &[]
        } else {
            &[LeftoverKind::Orphan]
        };
        assert_eq!(orphans, expected, "{point}");
        fixture.open().prune(&everything()).unwrap();
        assert_eq!(
            std::fs::read_dir(fixture.root().join("kept"))
                .unwrap()
                .count(),
            0
        );
    }
}

/// Takes every snapshot for what its row says: these tests are about what is kept.
#[derive(Debug)]
struct Trusting;

impl ExamineSnapshot for Trusting {
    fn examine(&self, path: &Path) -> Result<Examined, ExamineError> {
        let name = path
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .chars()
            .next()
            .unwrap();
        Ok(Examined {
            diff_id: common::diff_id(name),
            tar_size: 1024,
            entries: vec![common::directory(""), file("base", b"base")],
        })
    }
}

/// What lies about; nothing is damaged.
fn check(root: &Path, repairs: bool) -> Vec<LeftoverKind> {
    let report = fsck(root, Arc::new(RemoveTreeHere), &Trusting, repairs).unwrap();
    let damages = report.damages.iter();
    let kinds: Vec<DamageKind> = damages.map(|damage| damage.kind).collect();
    assert_eq!(kinds, [], "{:?}", report.damages);
    let leftovers = report.leftovers.iter();
    leftovers.map(|leftover| leftover.kind).collect()
}

#[test]
fn a_check_knows_what_is_kept() {
    let (fixture, layer) = furnished();
    let root = fixture.root();
    assert_eq!(check(&root, false), []);
    // Without its directory, and without a layer.
    std::fs::remove_dir_all(root.join("kept/b-2")).unwrap();
    assert_eq!(check(&root, false), [LeftoverKind::Gone]);
    keep(&fixture.open(), "c", &[&layer]);
    std::fs::remove_dir_all(root.join("snapshots").join(layer.snapshot.as_str())).unwrap();
    let gone = [LeftoverKind::Gone; 3];
    assert_eq!(check(&root, false), gone, "both of them, and the layer");
    assert_eq!(check(&root, true), gone);
    assert_eq!(check(&root, false), []);
    assert!(find(&fixture.open(), "c").is_none());
    assert_eq!(std::fs::read_dir(root.join("kept")).unwrap().count(), 0);
}
