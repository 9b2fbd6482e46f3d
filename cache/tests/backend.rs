//! The directory backend by itself, and what is believed of a record.

mod common;

use common::{diff_id, key};
use rbuild_cache::{
    BackendError, CacheBackend, CachedLayer, CachedStep, Chain, ContentDigest, DirectoryBackend,
    KeyPart, Layer, SnapshotId,
};

fn step(name: char) -> CachedStep {
    CachedStep {
        title: "RUN make".into(),
        created: 1,
        cost_us: 2,
        parts: vec![KeyPart::new("user", "a")],
        layers: vec![CachedLayer {
            diff_id: diff_id(name).0,
            content: ContentDigest([1; 32]).to_string(),
            tar_size: 10,
            created: 3,
            created_nanos: 4,
            blob: diff_id('b').0,
            size: 5,
            media_type: "application/vnd.oci.image.layer.v1.tar+gzip".into(),
            origins: None,
        }],
    }
}

#[test]
fn what_is_published_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("deep/cache");
    assert!(matches!(
        DirectoryBackend::open(&root),
        Err(BackendError::Missing { .. })
    ));
    let writer = DirectoryBackend::create(&root).unwrap();
    writer.publish(&[key(1), key(2)], &step('a')).unwrap();
    let reader = DirectoryBackend::open(&root).unwrap();
    assert_eq!(reader.lookup(&key(1)).unwrap(), Some(step('a')));
    assert_eq!(reader.lookup(&key(2)).unwrap(), Some(step('a')));
    assert_eq!(reader.lookup(&key(3)).unwrap(), None);
    writer.publish(&[key(2)], &step('c')).unwrap();
    assert_eq!(
        reader.lookup(&key(2)).unwrap(),
        Some(step('c')),
        "the newest wins"
    );
    let digest = diff_id('b').0;
    assert!(!reader.has_blob(&digest, 5).unwrap());
    writer.publish_blob(&digest, &mut &b"bytes"[..]).unwrap();
    assert!(reader.has_blob(&digest, 5).unwrap());
    assert!(!reader.has_blob(&digest, 6).unwrap());
    let mut bytes = Vec::new();
    reader.fetch(&digest, 3, &mut bytes).unwrap();
    assert_eq!(bytes, b"byt", "no more than was asked for");
    assert!(matches!(
        reader.fetch(&diff_id('d').0, 5, &mut bytes),
        Err(BackendError::MissingBlob { .. })
    ));
}

#[test]
fn several_may_make_a_cache_at_once() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..200 {
        let place = dir.path().join(round.to_string());
        let start = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for name in ['a', 'b', 'c', 'd'] {
                let (place, start) = (&place, &start);
                scope.spawn(move || {
                    let step = step(name);
                    start.wait();
                    let cache = DirectoryBackend::create(place).unwrap();
                    for layer in &step.layers {
                        cache.publish_blob(&layer.blob, &mut &b"x"[..]).unwrap();
                    }
                    cache.publish(&[key(name as u8)], &step).unwrap();
                });
            }
        });
        let cache = DirectoryBackend::open(&place).unwrap();
        for name in ['a', 'b', 'c', 'd'] {
            assert_eq!(cache.lookup(&key(name as u8)).unwrap(), Some(step(name)));
        }
    }
    // Somebody died before the mark had its name.
    let place = dir.path().join("died");
    std::fs::create_dir(&place).unwrap();
    std::fs::write(place.join("new-00"), "{").unwrap();
    DirectoryBackend::create(&place).unwrap();
    DirectoryBackend::open(&place).unwrap();
}

#[test]
fn what_no_cache_put_there_is_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let backend = DirectoryBackend::create(directory.path()).unwrap();
    backend.publish(&[key(1)], &step('a')).unwrap();
    let path = |number: u8| {
        let key = key(number).to_string();
        directory.path().join("keys").join(&key[..2]).join(key)
    };
    let is_damaged = |number| {
        matches!(
            backend.lookup(&key(number)),
            Err(BackendError::Damaged { .. })
        )
    };
    // A record under another key than its own.
    std::fs::create_dir_all(path(2).parent().unwrap()).unwrap();
    std::fs::copy(path(1), path(2)).unwrap();
    assert!(is_damaged(2));
    // A fifo would be waited for.
    std::fs::remove_file(path(2)).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path(2),
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    assert!(is_damaged(2));
    std::fs::remove_file(path(2)).unwrap();
    std::os::unix::fs::symlink(path(1), path(2)).unwrap();
    assert!(matches!(
        backend.lookup(&key(2)),
        Err(BackendError::Read { .. })
    ));
    std::fs::write(
        directory.path().join("rbuild-cache.json"),
        "{\"version\":2}",
    )
    .unwrap();
    assert!(matches!(
        DirectoryBackend::open(directory.path()),
        Err(BackendError::Format { .. })
    ));
}

#[test]
fn a_record_is_believed_as_far_as_its_layers_are_right() {
    let layer = |name, content: u8| Layer {
        snapshot: SnapshotId::of_layer(&diff_id(name)),
        diff_id: diff_id(name),
        content: ContentDigest([content; 32]),
        tar_size: 10,
        created: 77,
        created_nanos: 78,
    };
    let fetched = step('a')
        .fetched(&Chain::from_iter(vec![layer('a', 1)]))
        .unwrap();
    assert_eq!(
        (
            fetched.chain.layers()[0].created,
            fetched.chain.layers()[0].created_nanos
        ),
        (3, 4)
    );
    for (name, chain) in [
        ("another layer", vec![layer('c', 1)]),
        ("other content", vec![layer('a', 2)]),
        ("too few", vec![]),
        ("too many", vec![layer('a', 1), layer('a', 1)]),
    ] {
        assert_eq!(step('a').fetched(&Chain::from_iter(chain)), None, "{name}");
    }
    let mut odd = step('a');
    odd.layers[0].content = "no digest".into();
    assert_eq!(odd.unfetched(), None);
    let many = CachedStep {
        layers: vec![step('a').layers[0].clone(); 5000],
        ..step('a')
    };
    assert_eq!(many.unfetched(), None);
}
