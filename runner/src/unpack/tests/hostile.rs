//! Layers that try to get out, or to be two things at once.

use super::*;

type Case = (&'static str, Layer, fn(&UnpackError) -> bool);

#[test]
fn what_must_be_refused_is_refused() {
    let long = "x".repeat(2 * 1024 * 1024);
    let cases: Vec<Case> = vec![
        ("dot dot", Layer::default().file("../x", ""), |e| {
            matches!(e, UnpackError::Escape { .. })
        }),
        (
            "dot dot inside",
            Layer::default().file("a/../../x", ""),
            |e| matches!(e, UnpackError::Escape { .. }),
        ),
        (
            "dot dot link",
            Layer::default().link("x", "../../etc/passwd"),
            |e| matches!(e, UnpackError::Escape { .. }),
        ),
        (
            "below a file",
            Layer::default().file("f", "").file("f/x", ""),
            |e| matches!(e, UnpackError::NotADirectory { .. }),
        ),
        (
            "loop",
            Layer::default()
                .symlink("a", "b")
                .symlink("b", "a")
                .file("a/x", ""),
            |e| matches!(e, UnpackError::LinkLoop { .. }),
        ),
        (
            "link to a directory",
            Layer::default().directory("d").link("x", "d"),
            |e| matches!(e, UnpackError::BadHardLink { .. }),
        ),
        ("link to itself", Layer::default().link("x", "./x"), |e| {
            matches!(e, UnpackError::BadHardLink { .. })
        }),
        (
            "link to a deletion",
            Layer::default().file(".wh.f", "").link("x", "f"),
            |e| matches!(e, UnpackError::BadHardLink { .. }),
        ),
        (
            "deletion of nothing",
            Layer::default().file(".wh.", ""),
            |e| matches!(e, UnpackError::BadWhiteout { .. }),
        ),
        (
            "deletion of dot dot",
            Layer::default().file("a/.wh...", ""),
            |e| matches!(e, UnpackError::BadWhiteout { .. }),
        ),
        (
            "below a deletion",
            Layer::default().file("a/.wh.b/c", ""),
            |e| matches!(e, UnpackError::BadWhiteout { .. }),
        ),
        (
            "overlay whiteout",
            Layer::default().raw("x", b'3', "0:0", 0, b""),
            |e| matches!(e, UnpackError::WhiteoutDevice { .. }),
        ),
        ("root as a file", Layer::default().file(".", ""), |e| {
            matches!(e, UnpackError::BadRoot)
        }),
        (
            "long PAX",
            Layer::default().pax(&[("comment", &long)]).file("x", ""),
            |e| matches!(e, UnpackError::Tar(TarError::Malformed { .. })),
        ),
        (
            "zero in a name",
            Layer::default().pax(&[("path", "a\0b")]).file("x", ""),
            |e| matches!(e, UnpackError::Tar(TarError::Malformed { .. })),
        ),
        (
            "PAX without entry",
            Layer::default().pax(&[("path", "a")]),
            |e| matches!(e, UnpackError::Tar(TarError::Malformed { .. })),
        ),
        (
            "unknown type",
            Layer::default().raw("x", b'Q', "", 0, b""),
            |e| matches!(e, UnpackError::Tar(TarError::Malformed { .. })),
        ),
        (
            "size beyond the end",
            Layer::default()
                .pax(&[("size", "99999999")])
                .file("x", "abc"),
            |e| matches!(e, UnpackError::Tar(TarError::Truncated { .. })),
        ),
        (
            "holes without end",
            Layer::default()
                .pax(&[
                    ("GNU.sparse.map", "0,0"),
                    ("GNU.sparse.size", "9000000000000000000"),
                ])
                .file("x", ""),
            |e| matches!(e, UnpackError::Tar(TarError::Malformed { .. })),
        ),
    ];
    for (name, layer, is_expected) in cases {
        let (directory, result) = layer.unpack();
        let error = result.expect_err(name);
        assert!(is_expected(&error), "{name}: {error:?}");
        let outside: Vec<_> = std::fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(outside.len(), 2, "{name} left {outside:?}");
    }
}

#[test]
fn links_of_the_layer_lead_inside_it() {
    let (directory, outcome) = Layer::default()
        .symlink("abs", "/real")
        .directory("d")
        .symlink("d/up", "../../../real")
        .file("abs/one", "1")
        .file("d/up/two", "2")
        .symlink("etc", "/etc2")
        .file("etc/passwd", "mine")
        .file("/absolute", "a")
        .link("hard", "abs/one")
        .snapshot();
    let names: Vec<String> = summary(&outcome.entries);
    assert_eq!(
        names,
        [
            "abs -> /real",
            "absolute file 1",
            "d dir 755",
            "d/up -> ../../../real",
            "etc -> /etc2",
            "etc2 dir 755",
            "etc2/passwd file 4",
            "hard file 1",
            "real dir 755",
            "real/one link hard",
            "real/two file 1",
        ]
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>(),
        "the host's own directories are out of reach"
    );
    assert_eq!(
        outcome.leans_on.implied_parents,
        [b"etc2".to_vec(), b"real".to_vec()]
    );
    assert_eq!(
        std::fs::read(directory.path().join("t/real/two")).unwrap(),
        b"2"
    );
}

#[test]
fn later_entries_win_and_marks_are_for_lower_layers() {
    let (directory, outcome) = Layer::default()
        .file("dup", "first")
        .file("dup", "second!")
        .directory("was-dir")
        .file("was-dir/x", "")
        .file("was-dir", "now file")
        .file("was-file", "")
        .directory("was-file")
        .file("was-file/y", "")
        .file("kept", "here")
        .file(".wh.kept", "")
        .file(".wh.again", "")
        .directory("again")
        .directory("full")
        .file("full/a", "")
        .file(".wh.full", "")
        .directory("opq")
        .file("opq/.wh..wh..opq", "")
        .file(".wh.gone", "")
        .file(".wh.deep", "")
        .file("deep/in/f", "")
        .file(".wh..wh.plnk", "")
        .snapshot();
    assert_eq!(
        summary(&outcome.entries),
        [
            "again opaque",
            "deep opaque",
            "deep/in dir 755",
            "deep/in/f file 0",
            "dup file 7",
            "full opaque",
            "full/a file 0",
            "gone gone",
            "kept file 4",
            "opq opaque",
            "was-dir file 8",
            "was-file dir 755",
            "was-file/y file 0",
        ]
    );
    assert_eq!(
        outcome.leans_on.implied_parents,
        [b"deep".to_vec(), b"deep/in".to_vec()]
    );
    let target = directory.path().join("t");
    let gone = target.join("gone").symlink_metadata().unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let sealed = seal(&target).unwrap();
    assert_eq!(
        summary(&sealed.entries),
        summary(&outcome.entries),
        "what was unpacked is what is sealed again"
    );
}

#[test]
fn overlay_attributes_are_never_taken_for_ours() {
    let (directory, outcome) = Layer::default()
        .pax(&[
            ("SCHILY.xattr.user.overlay.opaque", "y"),
            ("SCHILY.xattr.security.selinux", "label"),
        ])
        .directory("d")
        .snapshot();
    assert_eq!(
        outcome.entries[0].xattrs,
        [(b"user.overlay.opaque".to_vec(), b"y".to_vec())]
    );
    assert_eq!(summary(&outcome.entries), ["d dir 755"], "not opaque");
    assert_eq!(
        seal(&directory.path().join("t")).unwrap().entries,
        outcome.entries
    );
}

#[test]
fn the_whole_stream_is_the_diff_id() {
    let mut tar = Layer::default().file("f", "x").bytes();
    tar.extend_from_slice(&[0; 4096]);
    tar.extend_from_slice(b"trailing");
    let diff_id = crate::sha256::text(Sha256::new_with_prefix(&tar));
    let outcome = unpack_blob(&tar, &diff_id).1.unwrap();
    assert_eq!(outcome.tar_size, tar.len() as u64);
    tar.push(b'!');
    assert!(matches!(
        unpack_blob(&tar, &diff_id).1,
        Err(UnpackError::DiffId { .. })
    ));
    let cut = &tar[..700];
    assert!(matches!(
        unpack_blob(cut, &diff_id).1,
        Err(UnpackError::Tar(TarError::Truncated { .. }))
    ));
    assert!(matches!(
        unpack_blob(b"no tar at all".repeat(100).as_slice(), &diff_id).1,
        Err(UnpackError::Tar(_))
    ));
    assert!(unpack_blob(b"\x1f\x8b\x08\0broken", &diff_id).1.is_err());
}

#[test]
fn sparse_files_have_their_holes() {
    let map = "2\n1024\n5\n4096\n3\n";
    let mut content = map.as_bytes().to_vec();
    content.resize(512, 0);
    content.extend_from_slice(b"helloend");
    let pax = [
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.name", "sparse"),
        ("GNU.sparse.realsize", "5000"),
    ];
    let (directory, outcome) = Layer::default()
        .pax(&pax)
        .raw("GNUSparse/x", b'0', "", 0o644, &content)
        .snapshot();
    let mut expected = vec![0; 5000];
    expected[1024..1029].copy_from_slice(b"hello");
    expected[4096..4099].copy_from_slice(b"end");
    assert_eq!(
        std::fs::read(directory.path().join("t/sparse")).unwrap(),
        expected
    );
    let digest = *blake3::hash(&expected).as_bytes();
    assert_eq!(
        outcome.entries[0].kind,
        LayerEntryKind::File { size: 5000, digest }
    );
}
