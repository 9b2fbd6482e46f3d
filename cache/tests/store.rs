//! One process and one store: what is put in comes out, and damage is noticed.

mod common;

use std::io::{Read, Write};

use common::{Fixture, commit_blob, commit_layer, file, key, record};
use rbuild_cache::{
    BlobError, Chain, ImageError, ImageRecord, LayerError, Lookup, OriginalBlob, PackParameters,
    PackedBlob, RemovedImage, Resolution, SnapshotId, Store, StoreError,
};

#[test]
fn blob_comes_back() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let info = commit_blob(&store, b"hello");
    assert_eq!(
        info.digest.to_string(),
        "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    );
    assert_eq!(info.size, 5);
    assert!(store.has_blob(&info.digest));
    assert_eq!(store.read_blob(&info.digest, 5).unwrap(), b"hello");
    assert!(matches!(
        store.read_blob(&info.digest, 4),
        Err(BlobError::TooLarge {
            size: 5,
            limit: 4,
            ..
        })
    ));
    assert_eq!(
        commit_blob(&store, b"hello"),
        info,
        "the same bytes twice are one blob"
    );
}

#[test]
fn blob_with_a_wrong_digest_is_not_committed() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let expected = commit_blob(&store, b"expected").digest;
    let lease = store.lease().unwrap();
    let mut writer = lease.blob_writer().unwrap();
    writer.write_all(b"something else").unwrap();
    let error = writer.commit(Some(&expected)).unwrap_err();
    let BlobError::WrongDigest { actual, .. } = error else {
        panic!("{error}")
    };
    assert!(!store.has_blob(&actual));
    assert_eq!(
        std::fs::read_dir(lease.dir().unwrap()).unwrap().count(),
        0,
        "no temporary file stays"
    );
}

#[test]
fn damaged_blob_is_noticed_and_replaced() {
    for (case, damage) in [
        ("truncated", b"hel".as_slice()),
        ("longer", b"hello!".as_slice()),
        ("flipped", b"hellO".as_slice()),
    ] {
        let fixture = Fixture::new();
        let store = fixture.open();
        let digest = commit_blob(&store, b"hello").digest;
        std::fs::write(store.blob_path(&digest), damage).unwrap();
        let error = store
            .open_blob(&digest)
            .unwrap()
            .read_to_end(&mut Vec::new())
            .unwrap_err();
        assert_eq!(
            error.kind(),
            std::io::ErrorKind::InvalidData,
            "{case}: {error}"
        );
        // Who reads it has the store forget it, so that it is fetched or made anew.
        assert!(
            matches!(
                store.read_blob(&digest, 100),
                Err(BlobError::Missing { .. })
            ),
            "{case}"
        );
        assert!(!store.has_blob(&digest), "{case}");
        commit_blob(&store, b"hello");
        assert_eq!(store.read_blob(&digest, 100).unwrap(), b"hello", "{case}");
    }
}

#[test]
fn snapshot_is_committed_once_and_the_first_wins() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let first = commit_layer(&store, 'a', &[file("etc/passwd", b"root")]);
    let path = store.snapshot_path(&first.snapshot);
    std::fs::write(path.join("mark"), "first").unwrap();
    let second = commit_layer(&store, 'a', &[file("etc/passwd", b"root")]);
    assert_eq!(first, second);
    assert!(path.join("mark").exists());
    assert_eq!(store.layer(&first.snapshot).unwrap(), Some(first.clone()));
    assert_eq!(
        store.layer_by_diff_id(&first.diff_id).unwrap(),
        Some(first.clone())
    );
    assert_eq!(
        store.entries(&first.snapshot).unwrap()[1],
        file("etc/passwd", b"root")
    );
    store.check_snapshot(&first.snapshot).unwrap();
}

#[test]
fn snapshot_without_a_row_is_replaced() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let id = SnapshotId::of_layer(&common::diff_id('a'));
    let path = store.snapshot_path(&id);
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("half"), "").unwrap();
    assert_eq!(
        store.layer(&id).unwrap(),
        None,
        "what a crash left is no layer"
    );
    commit_layer(&store, 'a', &[file("f", b"x")]);
    assert!(!path.join("half").exists());
    assert!(path.join("f").exists());
}

#[test]
fn damaged_snapshot_is_named() {
    type Damage = fn(&std::path::Path);
    let cases: [(&str, Damage); 3] = [
        ("is missing", |path| std::fs::remove_file(path).unwrap()),
        ("has another size", |path| std::fs::write(path, "").unwrap()),
        ("has another type", |path| {
            std::fs::remove_file(path).unwrap();
            std::fs::create_dir(path).unwrap();
        }),
    ];
    for (expected, damage) in cases {
        let fixture = Fixture::new();
        let store = fixture.open();
        let layer = commit_layer(&store, 'a', &[file("f", b"content")]);
        damage(&store.snapshot_path(&layer.snapshot).join("f"));
        match store.check_snapshot(&layer.snapshot) {
            Err(LayerError::DamagedSnapshot { damage, path, .. }) => {
                assert_eq!(damage, expected);
                assert!(path.ends_with("f"));
            }
            other => panic!("{expected}: {other:?}"),
        }
    }
}

#[test]
fn record_is_found_under_both_keys_and_the_newest_wins() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let layer = commit_layer(&store, 'a', &[file("f", b"1")]);
    let old = record("RUN make", Chain::from_iter(vec![layer.clone()]));
    store.record(&[key(1), key(2)], &old).unwrap();
    assert_eq!(store.lookup(&key(1)).unwrap(), Some(old.clone()));
    assert_eq!(store.lookup(&key(2)).unwrap(), Some(old.clone()));
    assert_eq!(store.lookup(&key(3)).unwrap(), None);
    let new = record(
        "RUN make",
        Chain::from_iter(vec![layer, commit_layer(&store, 'b', &[])]),
    );
    store.record(&[key(1), key(3)], &new).unwrap();
    assert_eq!(store.lookup(&key(1)).unwrap(), Some(new.clone()));
    assert_eq!(
        store.lookup(&key(2)).unwrap(),
        Some(old),
        "the old result stays under the key that is its own"
    );
}

#[test]
fn record_whose_snapshot_is_missing_is_forgotten() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let chain = Chain::from_iter(vec![
        commit_layer(&store, 'a', &[]),
        commit_layer(&store, 'b', &[]),
    ]);
    store
        .record(&[key(1), key(2)], &record("COPY", chain.clone()))
        .unwrap();
    let lower = store.snapshot_path(&chain.layers()[0].snapshot);
    std::fs::rename(&lower, lower.with_extension("away")).unwrap();
    assert_eq!(store.lookup(&key(1)).unwrap(), None);
    std::fs::rename(lower.with_extension("away"), &lower).unwrap();
    assert_eq!(
        store.lookup(&key(2)).unwrap(),
        None,
        "forgotten under all its keys"
    );
}

#[test]
fn lease_holds_only_what_is_there() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let chain = Chain::from_iter(vec![commit_layer(&store, 'a', &[])]);
    let lease = store.lease().unwrap();
    lease.hold(&chain).unwrap();
    let listed = std::fs::read_to_string(lease.dir().unwrap().with_extension("lock")).unwrap();
    assert_eq!(listed, format!("snapshot {}\n", chain.layers()[0].snapshot));
    std::fs::remove_dir_all(store.snapshot_path(&chain.layers()[0].snapshot)).unwrap();
    assert!(lease.hold(&chain).is_err());
    let dir = lease.dir().unwrap().to_owned();
    drop(lease);
    assert!(!dir.exists() && !dir.with_extension("lock").exists());
}

#[test]
fn many_steps_are_looked_up_as_one_by_one() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let layers = ['a', 'b', 'c'].map(|name| commit_layer(&store, name, &[]));
    for count in 1..=3_u8 {
        let chain: Chain = layers[..usize::from(count)].iter().cloned().collect();
        store.record(&[key(count)], &record("RUN", chain)).unwrap();
    }
    let keys = [key(3), key(9), key(1), key(2)];
    let look_up = || {
        let lease = store.lease().unwrap();
        let found = lease.look_up_all(&keys).unwrap();
        let listed = std::fs::read_to_string(lease.dir().unwrap().with_extension("lock")).unwrap();
        (found, listed.lines().count())
    };
    let (found, held) = look_up();
    for (key, found) in keys.iter().zip(found) {
        assert_eq!(found, store.look_up(key).unwrap());
    }
    assert_eq!(held, 3);
    // The middle one goes: what stands on it is lost and forgotten, the lowest is a hit still.
    std::fs::remove_dir_all(store.snapshot_path(&layers[1].snapshot)).unwrap();
    let lost = Lookup::Lost(layers[1].snapshot.clone());
    let (found, held) = look_up();
    assert_eq!(found[0], lost);
    assert_eq!(found[1], Lookup::Nothing);
    assert!(matches!(&found[2], Lookup::Found(record) if record.chain.layers() == [&layers[0]]));
    assert_eq!(found[3], lost);
    assert_eq!(held, 1);
    let (found, _) = look_up();
    assert_eq!((&found[0], &found[3]), (&Lookup::Nothing, &Lookup::Nothing));
}

#[test]
fn hits_write_nothing() {
    let fixture = Fixture::new();
    {
        let store = fixture.open();
        let chain = Chain::from_iter(vec![commit_layer(&store, 'a', &[])]);
        store
            .record(&[key(1)], &record("RUN", chain.clone()))
            .unwrap();
        store
            .put_image(&["a"], &image(&fixture, &store, chain))
            .unwrap();
        store.sync().unwrap();
    }
    let before = fixture.listing();
    {
        let store = fixture.open();
        let found = store.lookup(&key(1)).unwrap().unwrap();
        let known = store.image("a").unwrap().unwrap();
        assert_eq!(known.chain, found.chain);
        let again = ImageRecord {
            created: known.created + 1,
            ..known
        };
        store.put_image(&["a"], &again).unwrap();
        let _lease = store.lease().unwrap();
        store.sync().unwrap();
    }
    assert_eq!(
        fixture.listing(),
        before,
        "names, sizes and times of everything but SQLite's shared memory"
    );
}

#[test]
fn foreign_directory_is_refused() {
    let fixture = Fixture::new();
    std::fs::create_dir(fixture.root()).unwrap();
    std::fs::write(fixture.root().join("thesis.tex"), "").unwrap();
    assert!(matches!(
        Store::open(&fixture.root()),
        Err(StoreError::NotAStore { .. })
    ));
    assert_eq!(std::fs::read_dir(fixture.root()).unwrap().count(), 1);
}

#[test]
fn removed_directories_are_made_again_and_what_was_in_them_is_a_miss() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let digest = commit_blob(&store, b"x").digest;
    let layer = commit_layer(&store, 'a', &[file("f", b"x")]);
    store
        .record(&[key(1)], &record("RUN", Chain::from_iter(vec![layer])))
        .unwrap();
    drop(store);
    for name in [
        "blobs",
        "snapshots",
        "mounts",
        "statcache",
        "work",
        "locks",
        "logs",
    ] {
        std::fs::remove_dir_all(fixture.root().join(name)).unwrap();
    }
    let store = fixture.open();
    assert!(!store.has_blob(&digest));
    assert!(store.lookup(&key(1)).unwrap().is_none());
    assert_eq!(commit_blob(&store, b"x").digest, digest);
    assert_eq!(store.read_blob(&digest, 10).unwrap(), b"x");
}

#[test]
fn lost_or_damaged_database_is_named_and_none_is_made_in_its_place() {
    let fixture = Fixture::new();
    let store = fixture.open();
    commit_blob(&store, b"x");
    store.sync().unwrap();
    drop(store);
    let database = fixture.root().join("db.sqlite");
    std::fs::write(&database, vec![0x55; 8192]).unwrap();
    let refused = || Store::open(&fixture.root()).unwrap_err().to_string();
    let told = format!("the store's database `{}` is damaged", database.display());
    assert_eq!(refused(), told);
    for name in ["db.sqlite", "db.sqlite-wal", "db.sqlite-shm"] {
        let _ = std::fs::remove_file(fixture.root().join(name));
    }
    // A new one would forget all that the store holds, names of images too.
    assert_eq!(refused(), told);
    assert!(!database.exists());
}

fn image(_fixture: &Fixture, store: &Store, chain: Chain) -> ImageRecord {
    ImageRecord {
        config_digest: commit_blob(
            store,
            format!("config of {} layers", chain.len()).as_bytes(),
        )
        .digest,
        manifest_digest: None,
        chain,
        created: 1_700_000_000,
        size: 4096,
        platform: "linux/amd64".to_owned(),
        base: None,
    }
}

#[test]
fn images_are_found_by_tag_and_id() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let first = image(
        &fixture,
        &store,
        Chain::from_iter(vec![commit_layer(&store, 'a', &[])]),
    );
    let second = image(&fixture, &store, Chain::empty());
    store.put_image(&["one:latest", "one:2"], &first).unwrap();
    store.put_image(&[], &second).unwrap();
    let id = first.config_digest.to_string();
    for name in ["one:latest", "one:2", &id, &id[7..], &id[7..19]] {
        assert_eq!(store.image(name).unwrap().as_ref(), Some(&first), "{name}");
    }
    for name in ["one", "", &id[7..9], "sha256:", "zzzz"] {
        assert_eq!(store.image(name).unwrap(), None, "{name}");
    }
    let names: Vec<_> = store
        .images()
        .unwrap()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(
        names,
        [
            Some("one:2".to_owned()),
            Some("one:latest".to_owned()),
            None
        ]
    );

    store.tag("other", "one:2").unwrap();
    assert!(matches!(
        store.tag("other", "nothing"),
        Err(ImageError::Unknown { .. })
    ));
    assert!(store.untag("other").unwrap() && !store.untag("other").unwrap());
    assert!(matches!(
        store.remove_image(&id),
        Err(ImageError::SeveralTags { .. })
    ));
    assert!(matches!(
        store.remove_image("one:2").unwrap(),
        RemovedImage::Untagged { .. }
    ));
    assert!(matches!(
        store.remove_image("one:latest").unwrap(),
        RemovedImage::Removed { .. }
    ));
    assert_eq!(store.image(&id).unwrap(), None);
}

#[test]
fn image_with_a_missing_layer_is_not_put() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let chain = Chain::from_iter(vec![commit_layer(&store, 'a', &[])]);
    let image = image(&fixture, &store, chain.clone());
    std::fs::remove_dir_all(store.snapshot_path(&chain.layers()[0].snapshot)).unwrap();
    assert!(matches!(
        store.put_image(&["x"], &image),
        Err(ImageError::Incomplete { .. })
    ));
    assert_eq!(store.image("x").unwrap(), None);
}

#[test]
fn packed_blobs_and_originals_are_remembered() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let diff_id = common::diff_id('a');
    let blob = commit_blob(&store, b"gzip");
    let packed = PackedBlob {
        digest: blob.digest.clone(),
        size: 4,
        diff_id: diff_id.clone(),
    };
    let parameters = PackParameters {
        clamp: None,
        compression: "gzip:6".to_owned(),
        encoder: 1,
    };
    store.record_packed(&diff_id, &parameters, &packed).unwrap();
    assert_eq!(store.packed(&diff_id, &parameters).unwrap(), Some(packed));
    for other in [
        PackParameters {
            clamp: Some(0),
            ..parameters.clone()
        },
        PackParameters {
            compression: "gzip:9".to_owned(),
            ..parameters.clone()
        },
        PackParameters {
            encoder: 2,
            ..parameters.clone()
        },
    ] {
        assert_eq!(store.packed(&diff_id, &other).unwrap(), None, "{other:?}");
    }
    std::fs::remove_file(store.blob_path(&blob.digest)).unwrap();
    assert_eq!(
        store.packed(&diff_id, &parameters).unwrap(),
        None,
        "the blob is gone"
    );

    let original = |location: &str| OriginalBlob {
        digest: blob.digest.clone(),
        size: 4,
        media_type: "application/vnd.oci.image.layer.v1.tar+gzip".to_owned(),
        locations: vec![location.to_owned()],
    };
    store
        .record_original(&diff_id, &original("docker.io/library/a"))
        .unwrap();
    store
        .record_original(&diff_id, &original("ghcr.io/b"))
        .unwrap();
    store
        .record_original(&diff_id, &original("ghcr.io/b"))
        .unwrap();
    assert_eq!(
        store.original(&diff_id).unwrap().unwrap().locations,
        ["ghcr.io/b", "docker.io/library/a"]
    );
}

#[test]
fn references_are_remembered() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let resolution = Resolution {
        manifest_digest: common::diff_id('c').0,
        resolved: 5,
        descriptor: "{}".to_owned(),
    };
    store
        .remember_reference("docker.io/library/debian:12 linux/amd64", &resolution)
        .unwrap();
    assert_eq!(
        store
            .reference("docker.io/library/debian:12 linux/amd64")
            .unwrap(),
        Some(resolution)
    );
    assert_eq!(
        store
            .reference("docker.io/library/debian:12 linux/arm64")
            .unwrap(),
        None
    );
}
