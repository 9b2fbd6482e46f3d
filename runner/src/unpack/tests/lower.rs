//! Layers that lean on lower ones.

use super::*;

fn completed(
    layer: (tempfile::TempDir, UnpackOutcome),
    lowers: &[&tempfile::TempDir],
) -> (PathBuf, Result<Vec<LayerEntry>, UnpackError>) {
    let (directory, outcome) = layer;
    let directory = directory.keep();
    let job = CompleteJob {
        target: directory.join("t"),
        entries: outcome.entries,
        leans_on: outcome.leans_on,
        lowers: lowers.iter().map(|lower| lower.path().join("t")).collect(),
        scratch: directory.clone(),
    };
    let result = complete(&job);
    (directory, result)
}

fn base() -> tempfile::TempDir {
    Layer::default()
        .raw("tmp", b'5', "", 0o1777, b"")
        .raw("usr", b'5', "", 0o711, b"")
        .directory("usr/bin")
        .file("usr/bin/tool", "tool")
        .symlink("bin", "usr/bin")
        .symlink("abs", "/usr/bin")
        .file("file", "")
        .directory("gone")
        .file("gone/f", "")
        .snapshot()
        .0
}

#[test]
fn implied_directories_take_what_lies_below() {
    let lower = base();
    let middle = Layer::default()
        .file(".wh.gone", "")
        .raw("usr", b'5', "", 0o750, b"")
        .snapshot()
        .0;
    let layer = Layer::default()
        .file("tmp/x", "")
        .file("usr/bin/new", "")
        .file("gone/y", "")
        .file("own/z", "")
        .snapshot();
    assert_eq!(layer.1.leans_on.implied_parents.len(), 5);
    let (directory, result) = completed(layer, &[&lower, &middle]);
    assert_eq!(
        summary(&result.unwrap()),
        [
            "gone dir 755",
            "gone/y file 0",
            "own dir 755",
            "own/z file 0",
            "tmp dir 1777",
            "tmp/x file 0",
            "usr dir 750",
            "usr/bin dir 755",
            "usr/bin/new file 0",
        ]
    );
    let meta = directory.join("t/tmp").metadata().unwrap();
    assert_eq!(
        (meta.mode() & 0o7777, meta.mtime()),
        (0o1777, 1_000_000_000)
    );
}

#[test]
fn content_of_a_lower_symlink_lands_where_it_leads() {
    let lower = base();
    let layer = Layer::default()
        .file("bin/one", "1")
        .file("abs/sub/two", "2")
        .file("usr/bin/three", "3")
        .snapshot();
    let (directory, result) = completed(layer, &[&lower]);
    assert_eq!(
        summary(&result.unwrap()),
        [
            "usr dir 711",
            "usr/bin dir 755",
            "usr/bin/one file 1",
            "usr/bin/sub dir 755",
            "usr/bin/sub/two file 1",
            "usr/bin/three file 1"
        ]
    );
    assert!(!directory.join("t/bin").exists());
    assert_eq!(
        std::fs::read(directory.join("t/usr/bin/one")).unwrap(),
        b"1"
    );
    let conflict = Layer::default()
        .file("bin/one", "1")
        .file("usr/bin/one", "2")
        .snapshot();
    assert!(matches!(
        completed(conflict, &[&lower]).1,
        Err(UnpackError::Conflict { .. })
    ));
    let below = Layer::default().file("file/x", "").snapshot();
    assert!(matches!(
        completed(below, &[&lower]).1,
        Err(UnpackError::NotADirectory { .. })
    ));
}

#[test]
fn links_into_lower_layers_bring_their_file() {
    let lower = base();
    let layer = Layer::default()
        .link("a", "usr/bin/tool")
        .link("z", "bin/tool")
        .snapshot();
    assert_eq!(layer.1.leans_on.lower_links.len(), 2);
    let (directory, result) = completed(layer, &[&lower]);
    let entries = result.unwrap();
    assert_eq!(
        summary(&entries),
        [
            "a file 4",
            "usr dir 711",
            "usr/bin dir 755",
            "usr/bin/tool link a",
            "z link a"
        ]
    );
    assert_eq!(directory.join("t/a").metadata().unwrap().nlink(), 3);
    assert_eq!(seal(&directory.join("t")).unwrap().entries, entries);
    for target in ["missing", "usr/bin", "file/x", "gone"] {
        let layer = Layer::default().link("a", target).snapshot();
        assert!(
            matches!(
                completed(layer, &[&lower]).1,
                Err(UnpackError::BadHardLink { .. })
            ),
            "{target}"
        );
    }
}

#[test]
fn an_opaque_root_hides_everything_below() {
    let lower = base();
    let layer = Layer::default()
        .file(".wh..wh..opq", "")
        .file("tmp/x", "")
        .file("file", "new")
        .snapshot();
    assert!(!layer.1.leans_on.is_empty());
    let entries = completed(layer, &[&lower]).1.unwrap();
    assert_eq!(
        summary(&entries),
        [
            "abs gone",
            "bin gone",
            "file file 3",
            "gone gone",
            "tmp opaque",
            "tmp/x file 0",
            "usr gone"
        ]
    );
    assert_eq!(
        entries[4].mode, 0o755,
        "the hidden directory's mode does not shine through"
    );
}

#[test]
fn a_layer_that_stands_alone_needs_nothing() {
    let (_directory, outcome) = Layer::default()
        .directory("./")
        .directory("a")
        .file("a/f", "")
        .link("l", "a/f")
        .snapshot();
    assert_eq!(outcome.leans_on, LeansOn::default());
    assert_eq!(
        summary(&outcome.entries),
        [" dir 755", "a dir 755", "a/f file 0", "l link a/f"]
    );
}

#[test]
fn paths_are_cleaned_as_go_does() {
    for (written, clean) in [
        ("./a//b/", "a/b"),
        ("/a/./b", "a/b"),
        ("a/../b", "b"),
        ("./", ""),
        ("/", ""),
    ] {
        assert_eq!(
            table::clean(written.as_bytes()).unwrap(),
            clean.as_bytes(),
            "{written}"
        );
    }
    assert!(Path::new("/").is_absolute());
}
