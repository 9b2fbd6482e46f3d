//! Formats: a newer store is refused, an older one is brought to this one and keeps what it holds.

#![expect(clippy::unwrap_used, reason = "a test")]

mod common;

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Fixture, commit_blob, commit_layer, file, key, record};
use rbuild_cache::failpoint::MIGRATION_POINTS;
use rbuild_cache::{Chain, FORMAT_VERSION, ImageRecord, Resolution, Store, StoreError};
use rusqlite::Connection;

/// The tables of format 1, as they were. They never change.
const FORMAT_1: &str = include_str!("format/1.sql");

/// Names the store that a child opens.
const ROOT: &str = "RBUILD_CACHE_FORMAT_TEST_ROOT";

/// Makes a store of this format one of format 1: its rows in the tables of then.
fn make_format_1(root: &Path) {
    let database = root.join("db.sqlite");
    let old = root.join("db.sqlite.old");
    let connection = Connection::open(&old).unwrap();
    connection
        .pragma_update(None, "journal_mode", "wal")
        .unwrap();
    connection.execute_batch(FORMAT_1).unwrap();
    connection
        .execute("ATTACH ? AS new", [database.to_str().unwrap()])
        .unwrap();
    let tables: Vec<String> = connection
        .prepare(
            "SELECT name FROM main.sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
        )
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    for table in tables {
        let columns: Vec<String> = connection
            .prepare("SELECT name FROM main.pragma_table_info(?)")
            .unwrap()
            .query_map([&table], |row| row.get(0))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        let columns = columns.join(", ");
        connection
            .execute_batch(&format!(
                "INSERT INTO main.{table} ({columns}) SELECT {columns} FROM new.{table}"
            ))
            .unwrap();
    }
    connection.execute_batch("DETACH new").unwrap();
    drop(connection);
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(root.join(format!("db.sqlite{suffix}")));
    }
    std::fs::rename(&old, &database).unwrap();
    std::fs::write(root.join("VERSION"), "1\n").unwrap();
}

/// A store of format 1 with an image, a record and what they need.
fn format_1_store() -> (Fixture, Chain, ImageRecord) {
    let fixture = Fixture::new();
    let store = fixture.open();
    let layers = [
        commit_layer(&store, 'a', &[file("etc/f", b"x")]),
        commit_layer(&store, 'b', &[file("g", b"yy")]),
    ];
    let chain = layers.iter().cloned().collect::<Chain>();
    let image = ImageRecord {
        config_digest: commit_blob(&store, b"config").digest,
        manifest_digest: None,
        chain: chain.clone(),
        created: 1_700_000_000,
        size: 2048,
        platform: "linux/amd64".to_owned(),
        base: Some("debian:12".to_owned()),
    };
    store
        .record(&[key(1), key(2)], &record("RUN make", chain.clone()))
        .unwrap();
    store.put_image(&["app:latest", "app:1"], &image).unwrap();
    let resolution = Resolution {
        manifest_digest: image.config_digest.clone(),
        resolved: 1_700_000_000,
        descriptor: "{}".to_owned(),
    };
    store
        .remember_reference("debian:12 linux/amd64", &resolution)
        .unwrap();
    store.sync().unwrap();
    drop(store);
    make_format_1(&fixture.root());
    (fixture, chain, image)
}

fn assert_is_whole(store: &Store, chain: &Chain, image: &ImageRecord) {
    for number in [1, 2] {
        let found = store.lookup(&key(number)).unwrap().unwrap();
        assert_eq!(found, record("RUN make", chain.clone()));
    }
    assert_eq!(store.image("app:latest").unwrap().as_ref(), Some(image));
    assert_eq!(store.images().unwrap().len(), 2);
    assert_eq!(
        store.read_blob(&image.config_digest, 100).unwrap(),
        b"config"
    );
    for layer in chain.layers() {
        store.check_snapshot(&layer.snapshot).unwrap();
    }
    let reference = store.reference("debian:12 linux/amd64").unwrap().unwrap();
    assert_eq!(reference.manifest_digest, image.config_digest);
}

fn version_of(fixture: &Fixture) -> String {
    std::fs::read_to_string(fixture.root().join("VERSION")).unwrap()
}

/// Every table and index with its columns, in no particular spelling.
fn schema_of(root: &Path) -> Vec<(String, Vec<String>)> {
    let connection = Connection::open(root.join("db.sqlite")).unwrap();
    let mut statement = connection
        .prepare("SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name")
        .unwrap();
    let names: Vec<String> = statement
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let columns = |name: &String| {
        connection
            .prepare(
                "SELECT name || ' ' || type || ' ' || \"notnull\" || ' ' || ifnull(dflt_value, '')
                 FROM pragma_table_info(?)",
            )
            .unwrap()
            .query_map([name], |row| row.get(0))
            .unwrap()
            .collect::<Result<Vec<String>, _>>()
            .unwrap()
    };
    names
        .iter()
        .map(|name| (name.clone(), columns(name)))
        .collect()
}

#[test]
fn format_1_is_brought_to_this_format_and_keeps_what_it_holds() {
    let (fixture, chain, image) = format_1_store();
    let store = fixture.open();
    assert_eq!(version_of(&fixture), format!("{FORMAT_VERSION}\n"));
    assert_is_whole(&store, &chain, &image);
    // And it goes on from there.
    commit_layer(&store, 'c', &[]);
    store.sync().unwrap();
    drop(store);
    assert_is_whole(&fixture.open(), &chain, &image);

    let new = Fixture::new();
    drop(new.open());
    assert_eq!(
        schema_of(&fixture.root()),
        schema_of(&new.root()),
        "an old store ends as a new one begins"
    );
}

/// The part of a child; nothing in the test run itself.
#[test]
fn open_in_a_child() {
    if let Some(root) = std::env::var_os(ROOT) {
        drop(Store::open(Path::new(&root)).unwrap());
    }
}

#[test]
fn store_is_whole_wherever_a_migrating_process_is_killed() {
    for point in MIGRATION_POINTS {
        let (fixture, chain, image) = format_1_store();
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "open_in_a_child", "--quiet"])
            .env(ROOT, fixture.root())
            .env("RBUILD_DIES_AT", point)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.signal(), Some(9), "nobody came to `{point}`");
        assert_eq!(
            version_of(&fixture),
            format!("{FORMAT_VERSION}\n"),
            "an older rbuild is kept away"
        );
        assert_is_whole(&fixture.open(), &chain, &image);
    }
    // Killed while the version was written.
    let (fixture, chain, image) = format_1_store();
    std::fs::write(fixture.root().join("VERSION.new"), "").unwrap();
    assert_is_whole(&fixture.open(), &chain, &image);
}

#[test]
fn store_of_format_1_in_use_is_not_migrated() {
    let (fixture, chain, image) = format_1_store();
    let lock = std::fs::File::create(fixture.root().join("work/0123456789abcdef01234567.lock"));
    let lock = lock.unwrap();
    lock.lock().unwrap();
    let error = Store::open(&fixture.root()).unwrap_err();
    assert!(matches!(error, StoreError::Busy { .. }), "{error}");
    assert!(error.to_string().contains("an older rbuild is building"));
    assert_eq!(version_of(&fixture), "1\n");
    drop(lock);
    assert_is_whole(&fixture.open(), &chain, &image);
}

#[test]
fn version_decides_whether_a_store_opens() {
    let fixture = Fixture::new();
    drop(fixture.open());
    let version = fixture.root().join("VERSION");
    assert_eq!(version_of(&fixture), format!("{FORMAT_VERSION}\n"));
    let newer = FORMAT_VERSION + 1;
    std::fs::write(&version, format!("{newer}\n")).unwrap();
    let error = Store::open(&fixture.root()).unwrap_err();
    assert!(
        matches!(error, StoreError::Newer { found, known: FORMAT_VERSION, .. } if found == newer)
    );
    assert!(error.to_string().contains("use a newer rbuild"), "{error}");
    for damage in ["", "x", "0", "1.5", "\u{0}\u{0}"] {
        std::fs::write(&version, damage).unwrap();
        assert!(
            matches!(
                Store::open(&fixture.root()),
                Err(StoreError::Version { .. })
            ),
            "{damage:?}"
        );
    }
}
