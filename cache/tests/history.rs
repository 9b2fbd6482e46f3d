//! Past builds: found, told apart from running ones, and removed when there are too many.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Fixture, commit_layer, file};
use rbuild_cache::{
    BuildProgress, BuildStatus, ContentDigest, HistoryError, HistoryLimits, LayerLoss, Lease,
    ListedKind, LogPiece, LogStream, Store,
};

const UNLIMITED: HistoryLimits = HistoryLimits {
    builds: usize::MAX,
    age: i64::MAX,
    log_bytes: u64::MAX,
};

/// A build that has begun.
fn begun(store: &Store, lease: &Lease, line: &str) -> String {
    let build = store.new_build(lease, line).unwrap();
    assert_eq!(store.find_build(&build.id).unwrap(), None);
    let progress = BuildProgress::default();
    let status = BuildStatus::Running;
    store.add_build(&build, status, &progress).unwrap();
    build.id
}

/// A build that is over, with one log of its own and what else it refers to.
fn ended(store: &Store, lease: &Lease, line: &str, other_logs: &[&str], list: &str) -> String {
    let id = begun(store, lease, line);
    let own = format!("{id}-1");
    let mut writer = store.write_step_log(&own).unwrap();
    writer.write(LogStream::Stdout, 0, b"hello\n").unwrap();
    writer.finish().unwrap();
    let progress = BuildProgress {
        summary: format!("summary of {line}"),
        detail: vec![b'd'; 10_000],
        logs: std::iter::once(own)
            .chain(other_logs.iter().map(|log| (*log).to_owned()))
            .collect(),
        lists: vec![list.to_owned()],
    };
    store
        .update_build(&id, BuildStatus::Done, &progress)
        .unwrap();
    id
}

#[test]
fn builds_are_listed_and_found() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let lease = store.lease().unwrap();
    assert_eq!(store.find_build("last").unwrap(), None);
    let first = ended(&store, &lease, "one", &[], "");
    let second = ended(&store, &lease, "two", &[], "");
    let third = ended(&store, &lease, "one", &[], "");
    let ids = |builds: Vec<rbuild_cache::Build>| -> Vec<String> {
        builds.into_iter().map(|build| build.id).collect()
    };
    assert_eq!(
        ids(store.builds(10).unwrap()),
        [third.clone(), second.clone(), first.clone()]
    );
    assert_eq!(ids(store.builds(1).unwrap()), std::slice::from_ref(&third));
    assert_eq!(
        ids(store.builds_of_line("one", 10).unwrap()),
        [third.clone(), first.clone()]
    );
    for (text, expected) in [
        ("last", Some(&third)),
        ("-1", Some(&third)),
        ("-3", Some(&first)),
        ("-4", None),
        ("-0", None),
        (&second[..6], Some(&second)),
        (second.as_str(), Some(&second)),
        ("", None),
        ("*", None),
        ("no such build", None),
    ] {
        let found = store.find_build(text).unwrap().map(|build| build.id);
        assert_eq!(found.as_ref(), expected, "{text}");
    }
    let build = store.find_build("last").unwrap().unwrap();
    assert_eq!(
        (build.status, build.summary.as_str()),
        (BuildStatus::Done, "summary of one")
    );
    assert_eq!(store.build_detail(&third).unwrap(), vec![b'd'; 10_000]);
    // By the pigeonhole principle two of these begin with the same letter.
    for _ in 0..32 {
        ended(&store, &lease, "many", &[], "");
    }
    let is_ambiguous = ('a'..='z').any(|letter| {
        matches!(
            store.find_build(&letter.to_string()),
            Err(HistoryError::Ambiguous { .. })
        )
    });
    assert!(is_ambiguous);
}

#[test]
fn a_build_whose_process_died_was_interrupted() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let lease = store.lease().unwrap();
    let id = begun(&store, &lease, "line");
    let status = || fixture.open().find_build(&id).unwrap().unwrap().status;
    assert_eq!(status(), BuildStatus::Running);
    drop(lease);
    assert_eq!(status(), BuildStatus::Interrupted);
}

#[test]
fn a_log_comes_back_piece_by_piece_and_while_it_grows() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let piece = |stream, at, bytes: &[u8]| LogPiece {
        stream,
        at,
        bytes: bytes.to_vec(),
    };
    let large = vec![7; 3 << 20];
    let mut writer = store.write_step_log("build-1").unwrap();
    writer.write(LogStream::Stdout, 1, b"out\n").unwrap();
    writer.write(LogStream::Stderr, 300, b"err\xff").unwrap();
    writer.flush().unwrap();
    let read = || {
        let mut reader = store.read_step_log("build-1").unwrap().unwrap();
        let mut pieces = Vec::new();
        while let Some(piece) = reader.next_piece().unwrap() {
            pieces.push(piece);
        }
        (pieces, reader.is_whole())
    };
    let first = [
        piece(LogStream::Stdout, 1, b"out\n"),
        piece(LogStream::Stderr, 300, b"err\xff"),
    ];
    assert_eq!(read(), (first.to_vec(), false));
    writer.write(LogStream::Stdout, 70_000, &large).unwrap();
    writer.finish().unwrap();
    let (pieces, is_whole) = read();
    assert!(is_whole);
    assert_eq!(pieces[..2], first);
    let rest: Vec<u8> = pieces[2..]
        .iter()
        .flat_map(|piece| piece.bytes.clone())
        .collect();
    assert!(rest == large, "all bytes come back");
    assert!(store.read_step_log("build-2").unwrap().is_none());
    assert!(store.read_step_log("../db").unwrap().is_none());
}

#[test]
fn a_damaged_log_is_an_error_or_ends_early() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let mut writer = store.write_step_log("b-1").unwrap();
    for number in 0..1000_u64 {
        let line = format!("line {number} {}\n", number * 7919);
        writer
            .write(LogStream::Stdout, number, line.as_bytes())
            .unwrap();
    }
    writer.finish().unwrap();
    let path = fixture.root().join("logs/b-1.zst");
    let whole = std::fs::read(&path).unwrap();
    for position in (0..whole.len()).step_by(97) {
        let mut bytes = whole.clone();
        bytes[position] ^= 0x55;
        std::fs::write(&path, &bytes).unwrap();
        let Ok(Some(mut reader)) = store.read_step_log("b-1") else {
            continue;
        };
        // Whatever it says, it comes to an end and never panics.
        while let Ok(Some(piece)) = reader.next_piece() {
            assert!(piece.bytes.len() <= 1 << 20);
        }
    }
}

#[test]
fn old_builds_go_and_logs_that_are_referred_to_stay() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let lease = store.lease().unwrap();
    let lists: Vec<ContentDigest> = (0..5).map(|byte| ContentDigest([byte; 32])).collect();
    for list in &lists {
        store.put_file_list(list, &[file("a", b"1")]).unwrap();
    }
    let name = |number: usize| lists[number].to_string();
    let oldest = ended(&store, &lease, "line", &[], &name(0));
    let shared = format!("{oldest}-1");
    let others = [
        ended(&store, &lease, "line", &[], &name(1)),
        ended(&store, &lease, "line", &[], &name(2)),
        ended(&store, &lease, "line", &[], &name(3)),
        // Taken from the cache: the log is the oldest build's.
        ended(&store, &lease, "line", &[&shared], &name(4)),
    ];
    let running = begun(&store, &lease, "line");
    let limits = HistoryLimits {
        builds: 3,
        ..UNLIMITED
    };
    let wanted = store.history_to_drop(&limits).unwrap();
    assert_eq!((wanted.builds, wanted.logs), (3, 2));
    assert_eq!(store.history_size().unwrap().logs, 5);
    let dropped = store.drop_history(&limits).unwrap();
    assert_eq!(dropped, wanted, "what is told is what is done");
    let left: Vec<String> = (store.builds(10).unwrap().into_iter())
        .map(|build| build.id)
        .collect();
    assert_eq!(
        left,
        [running.clone(), others[3].clone(), others[2].clone()]
    );
    assert!(store.read_step_log(&shared).unwrap().is_some());
    let gone = format!("{}-1", others[0]);
    assert!(store.read_step_log(&gone).unwrap().is_none());
    let kept: Vec<bool> = lists
        .iter()
        .map(|list| store.has_file_lists(std::slice::from_ref(list)).unwrap())
        .collect();
    assert_eq!(kept, [false, false, false, true, true]);
    let none = HistoryLimits {
        builds: 0,
        ..UNLIMITED
    };
    store.drop_history(&none).unwrap();
    let left = store.builds(10).unwrap();
    assert_eq!(
        (left.len(), &left[0].id),
        (1, &running),
        "a running build stays"
    );
    assert_eq!(store.history_size().unwrap().log_bytes, 0);
}

#[test]
fn logs_are_bounded_in_bytes_and_builds_in_age() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let lease = store.lease().unwrap();
    let old = ended(&store, &lease, "line", &[], "");
    let new = ended(&store, &lease, "line", &[], "");
    let one_log = store.history_size().unwrap().log_bytes / 2;
    let limits = HistoryLimits {
        log_bytes: one_log,
        ..UNLIMITED
    };
    let dropped = store.drop_history(&limits).unwrap();
    assert_eq!((dropped.builds, dropped.log_bytes), (1, one_log));
    assert_eq!(store.find_build(&old).unwrap(), None);
    assert!(store.find_build(&new).unwrap().is_some());
    let limits = HistoryLimits {
        age: -1,
        ..UNLIMITED
    };
    assert_eq!(store.drop_history(&limits).unwrap().builds, 1);
}

#[test]
fn builds_are_removed_by_id() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let lease = store.lease().unwrap();
    let ids = [
        ended(&store, &lease, "line", &[], ""),
        ended(&store, &lease, "line", &[], ""),
        begun(&store, &lease, "line"),
    ];
    let removed = store
        .remove_builds(&[ids[0].clone(), ids[2].clone(), "other".to_owned()])
        .unwrap();
    assert_eq!((removed.builds, removed.logs), (1, 1));
    assert_eq!(store.builds(10).unwrap().len(), 2);
}

#[test]
fn a_file_list_tells_what_a_person_can_change() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let digest = ContentDigest([3; 32]);
    let mut with_attributes = file("b", b"2");
    with_attributes.xattrs = vec![(b"user.x".to_vec(), b"y".to_vec())];
    let entries = [common::directory("a"), file("a/c", b"1"), with_attributes];
    store.put_file_list(&digest, &entries).unwrap();
    let list = store.file_list(&digest).unwrap().unwrap();
    let kinds: Vec<ListedKind> = list.iter().map(|file| file.kind).collect();
    assert_eq!(
        kinds,
        [ListedKind::Directory, ListedKind::File, ListedKind::File]
    );
    assert_eq!(list[1].path, b"a/c");
    assert_eq!(list[1].content, ContentDigest::of_bytes(b"1").0[..8]);
    assert!(list[1].attributes.is_none() && list[2].attributes.is_some());
    assert_eq!(store.file_list(&ContentDigest([4; 32])).unwrap(), None);
}

#[test]
fn it_is_remembered_why_a_layer_is_gone() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let layer = commit_layer(&store, 'a', &[]);
    assert_eq!(store.layer_loss(&layer.snapshot).unwrap(), None);
    let lease = store.lease().unwrap();
    lease.discard_snapshot(&layer.snapshot).unwrap();
    assert_eq!(
        store.layer_loss(&layer.snapshot).unwrap(),
        Some(LayerLoss::Damaged)
    );
    let layer = commit_layer(&store, 'b', &[]);
    drop((lease, store));
    let remover = std::sync::Arc::new(rbuild_cache::RemoveTreeHere);
    let store = Store::open_in_boot(&fixture.root(), remover, "another boot".to_owned()).unwrap();
    assert_eq!(
        store.layer_loss(&layer.snapshot).unwrap(),
        Some(LayerLoss::PowerCut)
    );
}
