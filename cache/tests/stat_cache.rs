//! The stat cache on real files.

#![expect(clippy::unwrap_used, reason = "a test")]

mod common;

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use common::Fixture;
use rbuild_cache::{ContentDigest, FileStat, StatCache};

fn stat(path: &Path) -> FileStat {
    let metadata = std::fs::symlink_metadata(path).unwrap();
    FileStat {
        dev: metadata.dev(),
        ino: metadata.ino(),
        size: metadata.len(),
        mtime: (metadata.mtime(), metadata.mtime_nsec().try_into().unwrap()),
        ctime: (metadata.ctime(), metadata.ctime_nsec().try_into().unwrap()),
    }
}

/// Hashes a file and remembers it, again until it is old enough to be trusted.
fn remember(cache: &StatCache, path: &Path) -> ContentDigest {
    let end = std::time::Instant::now() + Duration::from_secs(5);
    loop {
        let hashing = cache.hashing_starts();
        let seen = stat(path);
        let digest = ContentDigest::of_bytes(&std::fs::read(path).unwrap());
        if cache.remember(&seen, path, hashing, digest) {
            return digest;
        }
        assert!(
            std::time::Instant::now() < end,
            "the file system of {} is not trusted",
            path.display()
        );
        std::thread::yield_now();
    }
}

#[test]
fn digest_survives_until_the_file_changes() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 5] = [
        ("content, with its time restored", |path| {
            let before = std::fs::metadata(path).unwrap().modified().unwrap();
            std::fs::write(path, "two").unwrap();
            std::fs::File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_modified(before)
                .unwrap();
        }),
        ("replaced by a file of the same size and time", |path| {
            let before = std::fs::metadata(path).unwrap().modified().unwrap();
            let other = path.with_extension("new");
            std::fs::write(&other, "two").unwrap();
            std::fs::File::options()
                .write(true)
                .open(&other)
                .unwrap()
                .set_modified(before)
                .unwrap();
            std::fs::rename(other, path).unwrap();
        }),
        ("mode", |path| {
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
                .unwrap();
        }),
        ("hard link", |path| {
            std::fs::hard_link(path, path.with_extension("link")).unwrap();
        }),
        ("time", |path| {
            let file = std::fs::File::options().write(true).open(path).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        }),
    ];
    for (case, change) in changes {
        let fixture = Fixture::new();
        let store = fixture.open();
        let context = tempfile::tempdir().unwrap();
        let path = context.path().join("file");
        std::fs::write(&path, "one").unwrap();
        let cache = StatCache::load(&store, context.path());
        assert_eq!(cache.digest(&stat(&path), &path), None);
        let digest = remember(&cache, &path);
        assert_eq!(
            cache.digest(&stat(&path), &path),
            Some(digest),
            "{case}: before it is saved"
        );
        cache.save().unwrap();

        let cache = StatCache::load(&store, context.path());
        assert_eq!(
            cache.digest(&stat(&path), &path),
            Some(digest),
            "{case}: from the file"
        );
        change(&path);
        assert_eq!(cache.digest(&stat(&path), &path), None, "{case}");
        let elsewhere = tempfile::tempdir().unwrap();
        assert_eq!(
            StatCache::load(&store, elsewhere.path()).digest(&stat(&path), &path),
            None,
            "one cache a context"
        );
    }
}

#[test]
fn file_that_has_just_changed_is_not_remembered() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let context = tempfile::tempdir().unwrap();
    let path = context.path().join("file");
    let cache = StatCache::load(&store, context.path());
    let start = cache.hashing_starts();
    std::fs::write(&path, "one").unwrap();
    assert!(!cache.remember(&stat(&path), &path, start, ContentDigest::of_bytes(b"one")));
    assert_eq!(cache.digest(&stat(&path), &path), None);
}

#[test]
fn file_of_an_unknown_file_system_is_never_remembered() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let cache = StatCache::load(&store, Path::new("/proc"));
    let path = Path::new("/proc/version");
    assert!(!cache.remember(
        &stat(path),
        path,
        cache.hashing_starts(),
        ContentDigest::of_bytes(b"")
    ));
}

#[test]
fn unchanged_cache_is_not_written() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let context = tempfile::tempdir().unwrap();
    let path = context.path().join("file");
    std::fs::write(&path, "one").unwrap();
    let cache = StatCache::load(&store, context.path());
    let digest = remember(&cache, &path);
    cache.save().unwrap();
    let before = fixture.listing();
    let cache = StatCache::load(&store, context.path());
    assert_eq!(cache.digest(&stat(&path), &path), Some(digest));
    cache.save().unwrap();
    assert_eq!(fixture.listing(), before);
}
