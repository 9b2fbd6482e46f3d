//! Several processes on one store: this test binary runs itself again, with [`ROLE`] saying what to be.

#![expect(clippy::unwrap_used, reason = "a test")]

mod common;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Fixture, commit_blob, commit_layer, file, key, record};
use rbuild_cache::{CacheMountGuard, CacheMountId, Chain, RemoveTreeHere, Sharing, Store};

/// Names the part that a child plays.
const ROLE: &str = "RBUILD_CACHE_TEST_ROLE";
/// The store it plays it on.
const ROOT: &str = "RBUILD_CACHE_TEST_ROOT";

/// A process that plays a part. It prints a line when it is ready, and ends when its input does.
struct Player {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Player {
    fn start(role: &str, root: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "play", "--nocapture", "--quiet"])
            .env(ROLE, role)
            .env(ROOT, root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    /// Waits for a line that starts with `word`, and returns the rest of it.
    fn wait_for(&mut self, word: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(
                self.output.read_line(&mut line).unwrap(),
                0,
                "the child ended before it said `{word}`"
            );
            if let Some(rest) = line
                .split_once("@@")
                .and_then(|(_, said)| said.trim().strip_prefix(word))
            {
                return rest.trim().to_owned();
            }
        }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn finish(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

/// What a child says to its parent.
fn say(text: &str) {
    let mut output = std::io::stdout().lock();
    writeln!(output, "@@{text}").unwrap();
    output.flush().unwrap();
}

/// Waits until the parent closes our input, or kills us.
fn wait_for_parent() {
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

/// The part of a child; nothing in the test run itself.
#[test]
fn play() {
    let Some(role) = std::env::var_os(ROLE) else {
        return;
    };
    let root = PathBuf::from(std::env::var_os(ROOT).unwrap());
    let store = Store::open(&root).unwrap();
    match role.to_str().unwrap() {
        "worker" => {
            let lease = store.lease().unwrap();
            let dir = lease.scratch("step").unwrap();
            std::fs::write(dir.join("half-written"), "x").unwrap();
            let mut blob = lease.blob_writer().unwrap();
            blob.write_all(b"half").unwrap();
            say(&format!("ready {}", lease.dir().unwrap().display()));
            wait_for_parent();
        }
        "locker" => {
            let _lock = store.step_lock(&key(1)).unwrap();
            say("locked");
            wait_for_parent();
        }
        "mounter" => {
            let _guard = mount(&store, "/root/.cargo", Sharing::Locked);
            say("locked");
            wait_for_parent();
        }
        "committer" => commit_many(&store),
        role => panic!("no role is named {role}"),
    }
}

/// What eight processes do at once: the same layers, blobs, records and images in each.
fn commit_many(store: &Store) {
    let mut chain = Chain::empty();
    for (number, name) in ('0'..='9').chain('a'..='f').enumerate() {
        let step = key(u8::try_from(number).unwrap());
        let _lock = store.step_lock(&step).unwrap();
        if let Some(found) = store.lookup(&step).unwrap() {
            assert_eq!(found.chain.len(), number + 1);
            chain = found.chain;
            continue;
        }
        say("ran");
        chain = chain.with(commit_layer(store, name, &[file("a/b", b"content")]));
        commit_blob(store, format!("blob {name}").as_bytes());
        store
            .record(&[step], &record("RUN", chain.clone()))
            .unwrap();
    }
    // And without a lock: the rename decides.
    for number in 0..20 {
        let name = char::from_digit(number % 16, 16).unwrap();
        assert_eq!(
            commit_layer(store, name, &[file("a/b", b"content")]).diff_id,
            common::diff_id(name)
        );
        let blob = commit_blob(store, format!("shared {number}").as_bytes());
        assert!(store.has_blob(&blob.digest));
    }
    store.sync().unwrap();
}

#[test]
fn processes_share_a_store_and_run_each_step_once() {
    let fixture = Fixture::new();
    // Not opened before: they race for making the store as well.
    let players: Vec<_> = (0..4)
        .map(|_| Player::start("committer", &fixture.root()))
        .collect();
    let mut ran = 0;
    for mut player in players {
        drop(player.child.stdin.take());
        ran += (&mut player.output)
            .lines()
            .filter(|line| line.as_ref().unwrap().contains("@@ran"))
            .count();
        assert!(player.child.wait().unwrap().success());
    }
    assert_eq!(ran, 16, "each of 16 steps once");
    let store = fixture.open();
    assert_eq!(store.lookup(&key(15)).unwrap().unwrap().chain.len(), 16);
    for layer in store.lookup(&key(15)).unwrap().unwrap().chain.layers() {
        store.check_snapshot(&layer.snapshot).unwrap();
    }
    for directory in ["work", "locks"] {
        let left: Vec<_> = std::fs::read_dir(fixture.root().join(directory))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .filter(|name| name != "gc")
            .collect();
        assert!(left.is_empty(), "{directory} holds {left:?}");
    }
}

#[test]
fn work_of_a_killed_process_is_cleaned_by_the_next_open() {
    let fixture = Fixture::new();
    let mut player = Player::start("worker", &fixture.root());
    let dir = PathBuf::from(player.wait_for("ready"));
    drop(fixture.open());
    assert!(
        dir.join("0-step/half-written").exists(),
        "the work of a living process is left alone"
    );
    player.kill();
    assert!(dir.exists());
    drop(fixture.open());
    assert!(!dir.exists());
    assert_eq!(
        std::fs::read_dir(fixture.root().join("work"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn store_is_whole_wherever_a_committing_process_is_killed() {
    for kills_after in 1..=12_u32 {
        let fixture = Fixture::new();
        let mut player = Player::start("committer", &fixture.root());
        for _ in 0..kills_after {
            player.wait_for("ran");
        }
        // Somewhere in the commit that follows: the moment differs from round to round.
        let start = Instant::now();
        while start.elapsed() < Duration::from_micros(u64::from(kills_after) * 170) {
            std::hint::spin_loop();
        }
        player.kill();
        let store = fixture.open();
        assert_eq!(
            std::fs::read_dir(fixture.root().join("work"))
                .unwrap()
                .count(),
            0
        );
        let mut found = 0;
        for step in 0..16 {
            let Some(record) = store.lookup(&key(step)).unwrap() else {
                continue;
            };
            found += 1;
            for layer in record.chain.layers() {
                store.check_snapshot(&layer.snapshot).unwrap();
                assert_eq!(store.entries(&layer.snapshot).unwrap().len(), 2);
            }
        }
        assert!(
            found + 1 >= kills_after,
            "at most the running step is lost: {found} of {kills_after}"
        );
        commit_many(&store);
        assert_eq!(
            store.lookup(&key(15)).unwrap().unwrap().chain.len(),
            16,
            "and the next build ends"
        );
    }
}

#[test]
fn work_without_a_lock_file_is_cleaned() {
    let fixture = Fixture::new();
    drop(fixture.open());
    let work = fixture.root().join("work");
    std::fs::create_dir_all(work.join("0011/x")).unwrap();
    std::fs::write(work.join("2233.lock"), "").unwrap();
    drop(fixture.open());
    assert_eq!(std::fs::read_dir(work).unwrap().count(), 0);
}

#[test]
fn step_lock_passes_on_when_its_holder_drops_it_or_dies() {
    for dies in [true, false] {
        let fixture = Fixture::new();
        let store = fixture.open();
        let mut player = Player::start("locker", &fixture.root());
        player.wait_for("locked");
        assert!(store.try_step_lock(&key(1)).unwrap().is_none());
        assert!(
            store.try_step_lock(&key(2)).unwrap().is_some(),
            "another step is free"
        );
        let waiter = std::thread::spawn({
            let store = store.clone();
            move || store.step_lock(&key(1)).unwrap()
        });
        assert!(
            !is_finished_within(&waiter, Duration::from_millis(100)),
            "dies: {dies}"
        );
        if dies {
            player.kill();
        } else {
            player.finish();
        }
        let lock = waiter.join().unwrap();
        assert!(
            store.try_step_lock(&key(1)).unwrap().is_none(),
            "the lock is the waiter's"
        );
        drop(lock);
        assert!(store.try_step_lock(&key(1)).unwrap().is_some());
    }
}

#[test]
fn lock_of_a_killed_process_is_removed_by_the_next_open() {
    let fixture = Fixture::new();
    let mut player = Player::start("locker", &fixture.root());
    player.wait_for("locked");
    let locks = || {
        std::fs::read_dir(fixture.root().join("locks"))
            .unwrap()
            .count()
    };
    drop(fixture.open());
    assert_eq!(locks(), 1, "the lock of a living process is left alone");
    player.kill();
    assert_eq!(locks(), 1);
    drop(fixture.open());
    assert_eq!(locks(), 0);
}

/// Gives a thread that should not end some time to do so.
fn is_finished_within<T>(thread: &std::thread::JoinHandle<T>, time: Duration) -> bool {
    let start = Instant::now();
    while start.elapsed() < time && !thread.is_finished() {
        std::thread::yield_now();
    }
    thread.is_finished()
}

fn mount(store: &Store, id: &str, sharing: Sharing) -> CacheMountGuard {
    store
        .lock_cache_mount(&CacheMountId::plain(id), sharing, || false)
        .unwrap()
        .expect("nobody cancels")
}

#[test]
fn cache_mount_is_shared_private_or_locked() {
    let fixture = Fixture::new();
    let store = fixture.open();
    // The first user has it alone until it is prepared.
    let mut first = mount(&store, "id", Sharing::Shared);
    assert!(first.is_new());
    std::fs::write(first.path().join("half"), "").unwrap();
    assert!(
        store
            .lock_cache_mount(&CacheMountId::plain("id"), Sharing::Shared, || true)
            .unwrap()
            .is_none()
    );
    // One that died while preparing leaves nothing behind.
    drop(first);
    first = mount(&store, "id", Sharing::Shared);
    assert!(first.is_new() && !first.path().join("half").exists());
    first.mark_prepared().unwrap();
    let second = mount(&store, "id", Sharing::Shared);
    assert_eq!(first.path(), second.path());
    assert!(!second.is_new());
    assert!(
        store
            .lock_cache_mount(&CacheMountId::plain("id"), Sharing::Locked, || true)
            .unwrap()
            .is_none()
    );
    let path = first.path().to_owned();
    drop((first, second));

    let one = mount(&store, "id", Sharing::Private);
    let two = mount(&store, "id", Sharing::Private);
    assert_eq!(one.path(), path);
    assert_ne!(one.path(), two.path());
    assert!(two.is_new());
    drop(one);
    assert_eq!(mount(&store, "id", Sharing::Private).path(), path);
    assert_ne!(mount(&store, "other", Sharing::Private).path(), path);
}

#[test]
fn locked_cache_mount_is_free_after_a_crash() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let mut player = Player::start("mounter", &fixture.root());
    player.wait_for("locked");
    let waiter =
        std::thread::spawn(move || mount(&store, "/root/.cargo", Sharing::Shared).is_new());
    assert!(!is_finished_within(&waiter, Duration::from_millis(100)));
    player.kill();
    assert!(waiter.join().unwrap());
}

#[test]
fn unsynced_data_of_another_boot_is_dropped_with_its_files() {
    let fixture = Fixture::new();
    let open = |boot: &str| {
        Store::open_in_boot(&fixture.root(), Arc::new(RemoveTreeHere), boot.to_owned()).unwrap()
    };
    let store = open("monday");
    let kept = Chain::from_iter(vec![commit_layer(&store, 'a', &[file("f", b"1")])]);
    let kept_blob = commit_blob(&store, b"kept").digest;
    store
        .record(&[key(1)], &record("kept", kept.clone()))
        .unwrap();
    store.sync().unwrap();
    let lost = kept.with(commit_layer(&store, 'b', &[file("f", b"2")]));
    let lost_blob = commit_blob(&store, b"lost").digest;
    store
        .record(&[key(2)], &record("lost", lost.clone()))
        .unwrap();

    let same_boot = open("monday");
    assert!(
        same_boot.lookup(&key(2)).unwrap().is_some(),
        "others of this boot use it at once"
    );
    drop((store, same_boot));

    let store = open("tuesday");
    assert_eq!(store.lookup(&key(1)).unwrap().unwrap().chain, kept);
    assert_eq!(store.lookup(&key(2)).unwrap(), None);
    assert!(!store.snapshot_path(&lost.layers()[1].snapshot).exists());
    assert!(store.has_blob(&kept_blob) && !store.has_blob(&lost_blob));
    assert!(!store.blob_path(&lost_blob).exists());
    assert_eq!(
        std::fs::read_dir(fixture.root().join("work"))
            .unwrap()
            .count(),
        0
    );
    commit_layer(&store, 'b', &[file("f", b"2")]);
}

#[test]
fn row_that_another_connection_removed_is_not_remembered() {
    let fixture = Fixture::new();
    let open = |boot: &str| {
        Store::open_in_boot(&fixture.root(), Arc::new(RemoveTreeHere), boot.to_owned()).unwrap()
    };
    let reader = open("monday");
    let chain = Chain::from_iter(vec![commit_layer(&reader, 'a', &[])]);
    reader
        .record(&[key(1)], &record("RUN", chain.clone()))
        .unwrap();
    assert!(reader.lookup(&key(1)).unwrap().is_some());
    let path = reader.snapshot_path(&chain.layers()[0].snapshot);
    drop(open("tuesday"));
    assert!(!path.exists());
    std::fs::create_dir(&path).unwrap();
    assert_eq!(
        reader.lookup(&key(1)).unwrap(),
        None,
        "a directory without a row is no snapshot"
    );
}

#[test]
fn tag_never_points_at_what_was_not_synced() {
    let fixture = Fixture::new();
    let open = |boot: &str| {
        Store::open_in_boot(&fixture.root(), Arc::new(RemoveTreeHere), boot.to_owned()).unwrap()
    };
    let store = open("monday");
    let image = rbuild_cache::ImageRecord {
        config_digest: commit_blob(&store, b"{}").digest,
        manifest_digest: None,
        chain: Chain::from_iter(vec![commit_layer(&store, 'a', &[])]),
        created: 0,
        size: 0,
        platform: "linux/amd64".to_owned(),
        base: None,
    };
    store.put_image(&["x"], &image).unwrap();
    drop(store);
    let store = open("tuesday");
    assert_eq!(store.image("x").unwrap(), Some(image.clone()));
    assert!(store.has_blob(&image.config_digest));
}
