//! Checking and mending a store: every kind of damage is found, named and healed, and nothing that is whole is touched.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod common;

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Fixture, commit_blob, directory, file, key, record};
use rbuild_cache::{
    Chain, DamageKind, Dependant, DiffId, Entry, ExamineError, ExamineSnapshot, Examined,
    FsckError, FsckReport, Healing, ImageRecord, Layer, LayerRecord, LeftoverKind, OriginalBlob,
    PackParameters, PackedBlob, PruneOptions, RemoveTreeHere, SnapshotId, Store, fsck,
    is_damaged_store,
};

/// Reads a tree of directories and files with plain names, as the layer tests make them. What stands in for a tar is a
/// list of paths and contents.
#[derive(Debug)]
struct Reader;

impl ExamineSnapshot for Reader {
    fn examine(&self, root: &Path) -> Result<Examined, ExamineError> {
        let unreadable = |error: std::io::Error| ExamineError::Unreadable {
            reason: error.to_string(),
        };
        let (mut waiting, mut entries, mut tar) = (vec![root.to_owned()], Vec::new(), Vec::new());
        while let Some(path) = waiting.pop() {
            let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes();
            let name = std::str::from_utf8(name).unwrap();
            if path.is_dir() {
                for entry in std::fs::read_dir(&path).map_err(unreadable)? {
                    waiting.push(entry.map_err(unreadable)?.path());
                }
                entries.push((name.to_owned(), directory(name)));
            } else {
                let content = std::fs::read(&path).map_err(unreadable)?;
                entries.push((name.to_owned(), file(name, &content)));
                tar.push((name.to_owned(), content));
            }
        }
        entries.sort_by(|one, other| one.0.cmp(&other.0));
        tar.sort();
        let bytes: Vec<u8> = (tar.into_iter())
            .flat_map(|(name, content)| [name.as_bytes(), b"\0", &content, b"\0"].concat())
            .collect();
        let entries = entries.into_iter().map(|(_, entry)| entry).collect();
        Ok(Examined {
            diff_id: DiffId(sha256(&bytes)),
            tar_size: bytes.len() as u64,
            entries,
        })
    }
}

fn sha256(bytes: &[u8]) -> oci_spec::image::Digest {
    use sha2::Digest as _;
    use std::fmt::Write as _;
    let mut text = "sha256:".to_owned();
    for byte in sha2::Sha256::digest(bytes) {
        write!(text, "{byte:02x}").unwrap();
    }
    text.parse().unwrap()
}

fn check(root: &Path) -> FsckReport {
    fsck(root, Arc::new(RemoveTreeHere), &Reader, false).unwrap()
}

fn repair(root: &Path) -> FsckReport {
    fsck(root, Arc::new(RemoveTreeHere), &Reader, true).unwrap()
}

/// Commits a layer of these files; pulled ones have a diff_id that no packing gives.
fn commit(store: &Store, files: &[(&str, &str)], is_pulled: bool) -> Layer {
    let lease = store.lease().unwrap();
    let dir = lease.scratch("layer").unwrap();
    for (path, content) in files {
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let mut examined = Reader.examine(&dir).unwrap();
    if is_pulled {
        examined.diff_id = DiffId(sha256(format!("{files:?}").as_bytes()));
    }
    let record = LayerRecord {
        diff_id: examined.diff_id.clone(),
        tar_size: examined.tar_size,
        created: 1_700_000_000,
        created_nanos: 5,
        entries: examined.entries,
        implied: Vec::new(),
    };
    let id = SnapshotId::of_layer(&record.diff_id);
    lease.commit_snapshot(&dir, &record, &id).unwrap()
}

/// What the tests damage: an image of a pulled layer and two steps, with blobs.
struct Sample {
    fixture: Fixture,
    base: Layer,
    first: Layer,
    second: Layer,
    config: oci_spec::image::Digest,
    packed: oci_spec::image::Digest,
}

const NAME: &str = "docker.io/library/app:latest";

impl Sample {
    fn new() -> Self {
        let fixture = Fixture::new();
        let store = fixture.open();
        let base = commit(&store, &[("bin/sh", "shell"), ("etc/passwd", "root")], true);
        let original = OriginalBlob {
            digest: commit_blob(&store, b"pulled").digest,
            size: 6,
            media_type: "application/vnd.oci.image.layer.v1.tar+gzip".to_owned(),
            locations: vec!["docker.io/library/debian".to_owned()],
        };
        store.record_original(&base.diff_id, &original).unwrap();
        let first = commit(&store, &[("one", "1")], false);
        let second = commit(&store, &[("two/deep", "22")], false);
        let mut chain = Chain::from_iter(vec![base.clone(), first.clone()]);
        store
            .record(&[key(1)], &record("RUN one", chain.clone()))
            .unwrap();
        chain = chain.with(second.clone());
        store
            .record(&[key(2), key(3)], &record("RUN two", chain.clone()))
            .unwrap();
        let diff_ids: Vec<String> = chain.diff_ids().iter().map(ToString::to_string).collect();
        let config = serde_json::json!({
            "os": "linux", "architecture": "amd64", "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = commit_blob(&store, config.to_string().as_bytes()).digest;
        let packed = commit_blob(&store, b"packed").digest;
        let parameters = PackParameters {
            clamp: None,
            compression: "gzip:6".to_owned(),
            encoder: 1,
        };
        let blob = PackedBlob {
            digest: packed.clone(),
            size: 6,
            diff_id: first.diff_id.clone(),
        };
        store
            .record_packed(&first.diff_id, &parameters, &blob)
            .unwrap();
        let image = ImageRecord {
            config_digest: config.clone(),
            manifest_digest: None,
            chain,
            created: 1,
            size: 3,
            platform: "linux/amd64".to_owned(),
            base: None,
        };
        store.put_image(&[NAME], &image).unwrap();
        Self {
            fixture,
            base,
            first,
            second,
            config,
            packed,
        }
    }

    fn root(&self) -> PathBuf {
        self.fixture.root()
    }

    fn snapshot(&self, layer: &Layer) -> PathBuf {
        self.root().join("snapshots").join(layer.snapshot.as_str())
    }

    fn blob(&self, digest: &oci_spec::image::Digest) -> PathBuf {
        self.root().join("blobs/sha256").join(digest.digest())
    }

    /// Runs SQL on the database, behind rbuild's back.
    fn sql(&self, sql: &str) {
        let database = rusqlite::Connection::open(self.root().join("db.sqlite")).unwrap();
        database.execute_batch(sql).unwrap();
    }

    /// What is in the store is right; what is not is a miss.
    fn is_right(&self) {
        let store = self.fixture.open();
        for (key, length) in [(key(1), 2), (key(2), 3), (key(3), 3)] {
            if let Some(found) = store.lookup(&key).unwrap() {
                let chain = [&self.base, &self.first, &self.second];
                let ids: Vec<_> = chain[..length].iter().map(|layer| &layer.diff_id).collect();
                let found: Vec<_> = found.chain.iter().map(|layer| &layer.diff_id).collect();
                assert_eq!(found, ids);
            }
        }
        for layer in [&self.base, &self.first, &self.second] {
            if let Some(found) = store.layer(&layer.snapshot).unwrap() {
                assert_eq!(
                    (&found.diff_id, found.content),
                    (&layer.diff_id, layer.content)
                );
                // How large the tar of a pulled layer was has no second witness; nothing depends on it.
                let is_pulled = layer.diff_id == self.base.diff_id;
                assert!(is_pulled || found.tar_size == layer.tar_size);
                store.check_snapshot(&layer.snapshot).unwrap();
            }
        }
        for (name, image) in store.images().unwrap() {
            assert_eq!(image.config_digest, self.config, "{name:?}");
            assert_eq!(image.chain.len(), 3);
            store.read_blob(&self.config, 10_000).unwrap();
        }
        if store.has_blob(&self.packed) {
            assert_eq!(store.read_blob(&self.packed, 10).unwrap(), b"packed");
        }
    }
}

fn only(report: &FsckReport) -> (DamageKind, String, String, Healing) {
    assert_eq!(report.damages.len(), 1, "{report:#?}");
    let damage = &report.damages[0];
    let problems: Vec<String> = damage.problems.iter().map(ToString::to_string).collect();
    (
        damage.kind,
        damage.id.clone(),
        problems.join("; "),
        damage.healing.clone(),
    )
}

#[test]
fn a_sound_store_is_whole_and_stays_as_it_is() {
    let sample = Sample::new();
    let before = sample.fixture.listing();
    let report = check(&sample.root());
    assert!(
        report.damages.is_empty() && report.leftovers.is_empty(),
        "{report:#?}"
    );
    let checked = report.checked;
    let counts = (
        checked.snapshots,
        checked.blobs,
        checked.images,
        checked.steps,
    );
    assert_eq!(counts, (3, 3, 1, 2));
    assert_eq!(sample.fixture.listing(), before, "a check writes nothing");
    let report = repair(&sample.root());
    assert!(report.is_whole() && report.damages.is_empty());
    let store = sample.fixture.open();
    for number in 1..=3 {
        assert!(store.lookup(&key(number)).unwrap().is_some());
    }
    assert!(store.image(NAME).unwrap().is_some());
}

type Spoil = fn(&Sample);

#[test]
fn every_damage_is_found_named_and_healed() {
    let rows: Vec<(&str, Spoil, DamageKind, &str, Healing)> = vec![
        (
            "a flipped bit in a pulled layer",
            |sample| std::fs::write(sample.snapshot(&sample.base).join("bin/sh"), "sheln").unwrap(),
            DamageKind::Snapshot,
            "`bin/sh` holds other bytes",
            Healing::Pull(vec!["docker.io/library/debian".to_owned()]),
        ),
        (
            "a cut file",
            |sample| std::fs::write(sample.snapshot(&sample.first).join("one"), "").unwrap(),
            DamageKind::Snapshot,
            "`one` has another size",
            Healing::Run,
        ),
        (
            "a missing file",
            |sample| {
                std::fs::remove_file(sample.snapshot(&sample.second).join("two/deep")).unwrap();
            },
            DamageKind::Snapshot,
            "`two/deep` is missing",
            Healing::Run,
        ),
        (
            "a file too many",
            |sample| std::fs::write(sample.snapshot(&sample.second).join("three"), "").unwrap(),
            DamageKind::Snapshot,
            "`three` is not part of the layer",
            Healing::Run,
        ),
        (
            "a missing snapshot",
            |sample| std::fs::remove_dir_all(sample.snapshot(&sample.second)).unwrap(),
            DamageKind::Snapshot,
            "is missing",
            Healing::Run,
        ),
        (
            "a cut blob",
            |sample| std::fs::write(sample.blob(&sample.packed), "pack").unwrap(),
            DamageKind::Blob,
            "has 4 bytes, not 6",
            Healing::Pack,
        ),
        (
            "a missing config",
            |sample| std::fs::remove_file(sample.blob(&sample.config)).unwrap(),
            DamageKind::Blob,
            "is missing",
            Healing::Build,
        ),
        (
            "a blob's size in its row",
            |sample| sample.sql("UPDATE blob SET size = 7 WHERE size = 6"),
            DamageKind::Blob,
            "its row in `db.sqlite` is damaged: size",
            Healing::Mended,
        ),
        (
            "an entry table of a layer that proves itself",
            |sample| {
                let name = sample.first.snapshot.as_str();
                sample.sql(&format!(
                    "UPDATE layer_entries SET entries = x'00' WHERE snapshot = '{name}'"
                ));
            },
            DamageKind::Snapshot,
            "its entry table in `db.sqlite` is damaged",
            Healing::Mended,
        ),
        (
            "an entry table of a pulled layer",
            |sample| {
                let name = sample.base.snapshot.as_str();
                sample.sql(&format!(
                    "UPDATE layer_entries SET entries = x'00' WHERE snapshot = '{name}'"
                ));
            },
            DamageKind::Snapshot,
            "its entry table in `db.sqlite` is damaged",
            Healing::Pull(vec!["docker.io/library/debian".to_owned()]),
        ),
        (
            "a content digest",
            |sample| {
                let name = sample.base.snapshot.as_str();
                sample.sql(&format!(
                    "UPDATE layer SET content = zeroblob(32) WHERE snapshot = '{name}'"
                ));
            },
            DamageKind::Snapshot,
            "its row in `db.sqlite` is damaged: content digest",
            Healing::Mended,
        ),
        (
            "a name of nothing",
            |sample| sample.sql("INSERT INTO tag VALUES ('docker.io/library/x:y', 'sha256:00')"),
            DamageKind::Tag,
            "needs image `sha256:00`, which is missing or damaged",
            Healing::Build,
        ),
        (
            "a step whose parts are none",
            |sample| sample.sql("UPDATE step_record SET parts = 'x' WHERE title = 'RUN one'"),
            DamageKind::Step,
            "its row in `db.sqlite` is damaged: what its key is made of",
            Healing::Run,
        ),
        (
            "a packed layer's size",
            |sample| sample.sql("UPDATE packed SET size = 5"),
            DamageKind::Note,
            "its row in `db.sqlite` is damaged: size",
            Healing::Pack,
        ),
        (
            "a directory of the store",
            |sample| std::fs::remove_dir(sample.root().join("mounts")).unwrap(),
            DamageKind::Layout,
            "is missing",
            Healing::Mended,
        ),
        (
            "a file in the place of a directory",
            |sample| {
                std::fs::remove_dir(sample.root().join("statcache")).unwrap();
                std::fs::write(sample.root().join("statcache"), "x").unwrap();
            },
            DamageKind::Layout,
            "is not a directory",
            Healing::Mended,
        ),
        (
            "a blob that nobody can read to its end",
            |sample| {
                std::fs::remove_file(sample.blob(&sample.packed)).unwrap();
                let made = std::process::Command::new("mkfifo")
                    .arg(sample.blob(&sample.packed))
                    .status();
                assert!(made.unwrap().success());
            },
            DamageKind::Blob,
            "cannot be read: it is no regular file",
            Healing::Pack,
        ),
        (
            "the version",
            |sample| std::fs::write(sample.root().join("VERSION"), "x").unwrap(),
            DamageKind::Layout,
            "does not hold the store's format",
            Healing::Mended,
        ),
    ];
    for (case, spoil, kind, problem, healing) in rows {
        let sample = Sample::new();
        spoil(&sample);
        let report = check(&sample.root());
        assert!(!report.is_whole(), "{case}");
        let damage = &report.damages[0];
        let problems: Vec<String> = damage.problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            (damage.kind, problems.join("; ").as_str()),
            (kind, problem),
            "{case}"
        );
        assert_eq!(damage.healing, healing, "{case}");
        if kind == DamageKind::Snapshot {
            let image = Dependant::Image(NAME.to_owned());
            assert!(damage.needed_by.contains(&image), "{case}: {damage:?}");
        }
        let is_image_lost = match kind {
            DamageKind::Snapshot => healing != Healing::Mended,
            DamageKind::Blob => healing == Healing::Build,
            _ => false,
        };
        let images = report
            .damages
            .iter()
            .filter(|damage| damage.kind == DamageKind::Image);
        assert_eq!(images.count(), usize::from(is_image_lost), "{case}");
        let repaired = repair(&sample.root());
        assert!(repaired.is_whole(), "{case}: {repaired:#?}");
        assert_eq!(repaired.damages.len(), report.damages.len(), "{case}");
        let again = check(&sample.root());
        assert!(
            again.damages.is_empty() && again.leftovers.is_empty(),
            "{case}: {again:#?}"
        );
        sample.is_right();
        let has_image = sample.fixture.open().image(NAME).unwrap().is_some();
        assert_eq!(has_image, !is_image_lost, "{case}");
    }
}

#[test]
fn what_a_crash_leaves_is_no_damage_and_goes() {
    let sample = Sample::new();
    let root = sample.root();
    let orphan = root.join("snapshots").join("c".repeat(64));
    let work = root.join("work/0123456789abcdef01234567");
    for path in [&orphan, &work, &root.join("mounts/ab")] {
        std::fs::create_dir(path).unwrap();
    }
    for name in ["blobs/sha256/dd", "locks/step-ee", "work/ff.lock", "mine"] {
        std::fs::write(root.join(name), "x").unwrap();
    }
    // Of no image with a name.
    std::fs::remove_file(sample.blob(&sample.packed)).unwrap();
    sample.sql("INSERT INTO cache_mount (directory, id, created) VALUES ('00', 'x', 1)");
    let kinds = |report: &FsckReport| -> Vec<LeftoverKind> {
        report
            .leftovers
            .iter()
            .map(|leftover| leftover.kind)
            .collect()
    };
    let expected = [
        (LeftoverKind::Orphan, 3),
        (LeftoverKind::Lock, 1),
        (LeftoverKind::Foreign, 1),
        (LeftoverKind::Work, 2),
        (LeftoverKind::Gone, 2),
    ];
    let report = check(&root);
    assert!(report.is_whole());
    for (kind, count) in expected {
        let found = kinds(&report).into_iter().filter(|found| *found == kind);
        assert_eq!(found.count(), count, "{kind:?}: {report:#?}");
    }
    assert_eq!(report.leftovers.len(), 9);
    let report = repair(&root);
    let stays: Vec<_> = (report.leftovers.iter())
        .filter(|leftover| !leftover.is_removed)
        .map(|leftover| leftover.path.clone())
        .collect();
    assert_eq!(stays, [root.join("mine")]);
    assert_eq!(kinds(&check(&root)), [LeftoverKind::Foreign]);
    assert!(!orphan.exists() && !work.exists() && root.join("mine").exists());
}

#[test]
fn what_another_boot_left_unsynced_is_not_damage() {
    let sample = Sample::new();
    sample.sql(&format!(
        "INSERT INTO unsynced (boot, kind, name) VALUES ('other', 0, '{}')",
        sample.second.snapshot
    ));
    let path = sample.snapshot(&sample.second);
    std::fs::write(path.join("two/deep"), "").unwrap();
    let report = check(&sample.root());
    assert!(report.is_whole(), "{report:#?}");
    assert_eq!(report.leftovers[0].kind, LeftoverKind::Unsynced);
    // A repair looks at it: what is whole need not go.
    std::fs::write(path.join("two/deep"), "22").unwrap();
    assert!(repair(&sample.root()).is_whole());
    assert!(sample.fixture.open().lookup(&key(2)).unwrap().is_some());
}

#[test]
fn a_lost_database_is_told_of_and_made_anew_from_the_disk() {
    for (case, spoil) in [
        (
            "missing",
            (|path| std::fs::remove_file(path).unwrap()) as fn(&Path),
        ),
        ("empty", |path| std::fs::write(path, "").unwrap()),
        ("something else", |path| {
            std::fs::write(path, "x".repeat(5000)).unwrap();
        }),
    ] {
        let sample = Sample::new();
        let root = sample.root();
        spoil(&root.join("db.sqlite"));
        for suffix in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(root.join(format!("db.sqlite{suffix}")));
        }
        let error = Store::open(&root).unwrap_err();
        let chain = std::iter::successors(
            Some(&error as &(dyn std::error::Error + 'static)),
            |&error| error.source(),
        );
        assert!(chain.into_iter().any(is_damaged_store), "{case}: {error:?}");
        let report = check(&root);
        assert_eq!(only(&report).0, DamageKind::Database, "{case}");
        assert_eq!(report.damages[0].problems.len(), 1, "{case}: {report:#?}");
        assert_eq!(report.recovered.snapshots, 2, "{case}: what proves itself");
        assert_eq!(report.recovered.blobs, 3, "{case}");
        assert!(Store::open(&root).is_err(), "{case}: a check mends nothing");
        assert!(repair(&root).is_whole(), "{case}");
        assert!(check(&root).damages.is_empty(), "{case}");
        sample.is_right();
        let store = sample.fixture.open();
        assert!(store.layer(&sample.first.snapshot).unwrap().is_some());
        assert!(store.layer(&sample.base.snapshot).unwrap().is_none());
        assert!(store.has_blob(&sample.packed));
    }
}

#[test]
fn an_image_comes_back_by_its_name_and_its_config() {
    let sample = Sample::new();
    sample.sql("PRAGMA wal_checkpoint(TRUNCATE)");
    let database = rusqlite::Connection::open(sample.root().join("db.sqlite")).unwrap();
    let page = |table: &str| -> u64 {
        let sql = "SELECT rootpage FROM sqlite_master WHERE name = ?";
        let page: i64 = database.query_row(sql, [table], |row| row.get(0)).unwrap();
        (page - 1).cast_unsigned()
    };
    let pages = [page("image"), page("layer"), page("build_line")];
    drop(database);
    let path = sample.root().join("db.sqlite");
    let mut bytes = std::fs::read(&path).unwrap();
    for page in pages {
        let start = usize::try_from(page * 4096).unwrap();
        bytes[start..start + 4096].fill(0xa5);
    }
    std::fs::write(&path, bytes).unwrap();
    let report = repair(&sample.root());
    assert_eq!(only(&report).0, DamageKind::Database);
    assert_eq!(report.recovered.images, 1);
    assert_eq!(report.recovered.snapshots, 3, "entry tables were left");
    let store = sample.fixture.open();
    let image = store.image(NAME).unwrap().unwrap();
    assert_eq!(image.platform, "linux/amd64");
    let layers: Vec<_> = image.chain.iter().map(|layer| &layer.snapshot).collect();
    let expected = [&sample.base, &sample.first, &sample.second].map(|layer| &layer.snapshot);
    assert_eq!(layers, expected);
    assert!(
        store.lookup(&key(1)).unwrap().is_some(),
        "the tables of steps were sound"
    );
    sample.is_right();
}

/// Numbers that are the same in each run.
fn numbers() -> impl FnMut(usize) -> usize {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    }
}

#[test]
fn flipped_and_cut_databases_never_give_a_wrong_answer() {
    let sample = Sample::new();
    sample.sql("PRAGMA wal_checkpoint(TRUNCATE)");
    let path = sample.root().join("db.sqlite");
    let sound = std::fs::read(&path).unwrap();
    let pristine = tempfile::tempdir().unwrap();
    copy(&sample.root(), pristine.path());
    let mut number = numbers();
    for round in 0..24 {
        std::fs::remove_dir_all(sample.root()).unwrap();
        copy(pristine.path(), &sample.root());
        let mut bytes = sound.clone();
        let told = if round % 6 == 5 {
            bytes.truncate(number(sound.len()));
            format!("cut to {}", bytes.len())
        } else {
            // Half of them in what is used of pages, which begin and end with it.
            let at = match round % 2 {
                0 => number(sound.len()),
                _ => number(sound.len() / 4096) * 4096 + (4096 - 64 + number(128)) % 4096,
            };
            let bit = number(8);
            bytes[at] ^= 1 << bit;
            format!("bit {bit} of byte {at}")
        };
        std::fs::write(&path, &bytes).unwrap();
        // Opened first: it refuses, or what it says is right.
        if let Ok(store) = Store::open(&sample.root()) {
            for number in 1..=3 {
                if let Ok(Some(found)) = store.lookup(&key(number)) {
                    let length = if number == 1 { 2 } else { 3 };
                    assert_eq!(found.chain.len(), length, "{told}: key {number}");
                }
            }
        }
        let found = check(&sample.root());
        let repaired = repair(&sample.root());
        assert!(repaired.is_whole(), "{told}: {repaired:#?}");
        assert_eq!(
            found.damages.is_empty(),
            repaired.damages.is_empty(),
            "{told}"
        );
        let again = check(&sample.root());
        assert!(
            again.damages.is_empty(),
            "{told}: {again:#?}\n{repaired:#?}"
        );
        sample.is_right();
    }
}

fn copy(from: &Path, to: &Path) {
    let done = std::process::Command::new("cp")
        .args(["-a", "-T"])
        .args([from, to])
        .status();
    assert!(done.unwrap().success());
}

#[test]
fn a_repair_wants_the_store_alone_and_a_check_does_not() {
    let sample = Sample::new();
    let store = sample.fixture.open();
    assert!(check(&sample.root()).is_whole());
    let error = fsck(&sample.root(), Arc::new(RemoveTreeHere), &Reader, true).unwrap_err();
    assert!(matches!(error, FsckError::Busy { .. }), "{error}");
    drop(store);
    assert!(repair(&sample.root()).is_whole());
    let missing = sample.root().join("missing");
    let error = fsck(&missing, Arc::new(RemoveTreeHere), &Reader, false).unwrap_err();
    assert!(matches!(error, FsckError::NoStore { .. }), "{error}");
    assert!(!missing.exists());
}

#[test]
fn a_check_meanwhile_takes_nothing_for_damage() {
    let sample = Sample::new();
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (sample, is_done) = (&sample, &is_done);
            scope.spawn(move || {
                let mut number = 0;
                while !is_done.load(Ordering::Relaxed) {
                    let store = sample.fixture.open();
                    number += 1;
                    let content = format!("{thread} {number}");
                    let layer = commit(&store, &[("f", &content)], false);
                    commit_blob(&store, content.as_bytes());
                    let chain = Chain::from_iter(vec![layer.clone()]);
                    store.record(&[key(9)], &record("RUN", chain)).unwrap();
                    if number % 3 == 0 {
                        let lease = store.lease().unwrap();
                        lease.discard_snapshot(&layer.snapshot).unwrap();
                    }
                    if number % 4 == 0 {
                        store.prune(&PruneOptions::default()).unwrap();
                    }
                }
            });
        }
        let checked = std::panic::catch_unwind(|| {
            for _ in 0..30 {
                let report = check(&sample.root());
                assert!(report.damages.is_empty(), "{report:#?}");
                let orphans = (report.leftovers.iter())
                    .filter(|leftover| leftover.kind == LeftoverKind::Orphan);
                assert_eq!(orphans.count(), 0, "{report:#?}");
            }
        });
        is_done.store(true, Ordering::Relaxed);
        checked.unwrap();
    });
}

#[test]
fn a_pulled_layer_goes_with_the_note_of_where_it_came_from() {
    let sample = Sample::new();
    sample.sql("UPDATE original SET locations = '[1'");
    let kinds = |report: &FsckReport| -> Vec<DamageKind> {
        (report.damages.iter()).map(|damage| damage.kind).collect()
    };
    let expected = [DamageKind::Snapshot, DamageKind::Image, DamageKind::Note];
    let found = check(&sample.root());
    assert_eq!(kinds(&found), expected, "{found:#?}");
    assert_eq!(found.damages[0].id, sample.base.snapshot.as_str());
    assert_eq!(kinds(&repair(&sample.root())), expected);
    assert!(check(&sample.root()).damages.is_empty());
    sample.is_right();
}

#[test]
fn what_is_left_of_an_image_without_a_name_is_no_damage_and_goes() {
    let sample = Sample::new();
    sample.sql("DELETE FROM tag; UPDATE image SET id = replace(id, 'sha256', 'cha256')");
    let report = check(&sample.root());
    assert!(report.is_whole(), "{report:#?}");
    let kinds: Vec<_> = report
        .leftovers
        .iter()
        .map(|leftover| leftover.kind)
        .collect();
    assert_eq!(kinds, [LeftoverKind::Gone]);
    assert!(repair(&sample.root()).leftovers[0].is_removed);
    assert!(sample.fixture.open().images().unwrap().is_empty());
    assert!(check(&sample.root()).leftovers.is_empty());
}

#[test]
fn a_read_only_disk_is_not_taken_for_damage() {
    let sample = Sample::new();
    let place = tempfile::tempdir().unwrap();
    let mount = |words: &[&str]| {
        let mut command = std::process::Command::new("mount");
        let status = command.args(words).arg(place.path()).status();
        status.is_ok_and(|status| status.success())
    };
    let root = sample.root();
    if !mount(&["--bind", root.to_str().unwrap()]) || !mount(&["-o", "remount,bind,ro"]) {
        println!("skipped: cannot bind a directory");
        assert!(std::env::var_os("RBUILD_TESTS_MUST_RUN").is_none());
        return;
    }
    let results =
        [false, true].map(|repairs| fsck(place.path(), Arc::new(RemoveTreeHere), &Reader, repairs));
    let status = std::process::Command::new("umount")
        .arg(place.path())
        .status();
    assert!(status.unwrap().success());
    for result in results {
        let error = result.unwrap_err();
        assert!(matches!(error, FsckError::ReadOnly { .. }), "{error}");
    }
}

#[test]
fn a_store_without_its_version_is_not_one_yet() {
    let sample = Sample::new();
    std::fs::remove_file(sample.root().join("VERSION")).unwrap();
    let error = fsck(&sample.root(), Arc::new(RemoveTreeHere), &Reader, true).unwrap_err();
    assert!(matches!(error, FsckError::Unfinished { .. }), "{error}");
    sample.is_right();
    assert!(check(&sample.root()).damages.is_empty());
}

#[test]
fn entries_of_the_sample_are_what_the_reader_reads() {
    let sample = Sample::new();
    let store = sample.fixture.open();
    let examined = Reader.examine(&sample.snapshot(&sample.first)).unwrap();
    let entries: Vec<Entry> = store.entries(&sample.first.snapshot).unwrap().to_vec();
    assert_eq!(entries, examined.entries);
}
