use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::*;
use crate::job::SelectedEntry;
use crate::root::open_root;

/// A root to change and a source to copy from.
struct Roots {
    _directory: tempfile::TempDir,
    root: std::path::PathBuf,
    source: std::path::PathBuf,
}

fn roots() -> Roots {
    let directory = tempfile::tempdir().unwrap();
    let (root, source) = (
        directory.path().join("root"),
        directory.path().join("source"),
    );
    std::fs::create_dir(&root).unwrap();
    std::fs::create_dir(&source).unwrap();
    Roots {
        root,
        source,
        _directory: directory,
    }
}

impl Roots {
    fn source(self, name: &str, content: &str) -> Self {
        let path = self.source.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        self
    }

    fn apply(&self, operation: FileOperation) -> Result<Vec<[u8; 32]>, CopyError> {
        let (root, source) = (
            open_root(&self.root).unwrap(),
            open_root(&self.source).unwrap(),
        );
        apply(root.as_fd(), &[source], &[operation]).map(|applied| applied.copied)
    }

    fn file(&self, path: &str, destination: &str) -> Result<Vec<[u8; 32]>, CopyError> {
        self.apply(FileOperation::Copy(file(path, destination)))
    }

    fn directory(
        &self,
        path: &str,
        entries: &[&str],
        destination: &str,
    ) -> Result<Vec<[u8; 32]>, CopyError> {
        self.apply(FileOperation::Copy(directory(path, entries, destination)))
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.root.join(path)).unwrap()
    }
}

fn entry(path: &str) -> SelectedEntry {
    SelectedEntry {
        path: path.into(),
        mode: None,
        ids: Some((0, 0)),
        expected: None,
    }
}

fn operation(selection: Selection, destination: &str) -> CopyOperation {
    let destination = destination.into();
    CopyOperation {
        source: 0,
        selection,
        destination,
        owner: None,
        parent_mode: 0o755,
        unpacks: false,
    }
}

fn file(path: &str, destination: &str) -> CopyOperation {
    let name = Path::new(path)
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .into();
    operation(
        Selection::File {
            path: path.into(),
            name,
            entry: entry(""),
        },
        destination,
    )
}

fn directory(path: &str, entries: &[&str], destination: &str) -> CopyOperation {
    let entries = entries.iter().map(|path| entry(path)).collect();
    operation(
        Selection::Directory {
            path: path.into(),
            entries,
            keeps_root_mtime: true,
        },
        destination,
    )
}

#[test]
fn files_go_where_the_destination_says() {
    for (destination, result) in [
        ("/new", "new"),
        ("/a/b/new", "a/b/new"),
        ("/a/b/", "a/b/f"),
        ("/a/.", "a/f"),
        ("/have", "have/f"),
        ("/to-have", "have/f"),
        ("/to-have/in", "have/in"),
        ("/to-missing", "missing"),
        ("/to-missing/", "missing/f"),
        ("/to-file", "file"),
        ("/escape/x", "x"),
        ("/../../x", "x"),
        ("/", "f"),
        ("/p//q/./r/../s", "p/q/s"),
    ] {
        let roots = roots().source("d/f", "content");
        std::fs::create_dir(roots.root.join("have")).unwrap();
        std::fs::write(roots.root.join("file"), "old").unwrap();
        symlink("/have", roots.root.join("to-have")).unwrap();
        symlink("missing", roots.root.join("to-missing")).unwrap();
        symlink("file", roots.root.join("to-file")).unwrap();
        symlink("../../../../..", roots.root.join("escape")).unwrap();
        let copied = roots
            .file("d/f", destination)
            .unwrap_or_else(|error| panic!("{destination}: {error:?}"));
        assert_eq!(roots.read(result), "content", "{destination}");
        assert_eq!(copied, [*blake3::hash(b"content").as_bytes()]);
    }
}

#[test]
fn what_is_in_the_way_is_replaced_or_an_error() {
    let roots = roots().source("d/x", "new").source("d/sub/y", "new");
    let at = |name: &str| roots.root.join(name);
    std::fs::create_dir_all(at("t/x/in")).unwrap();
    let error = roots
        .directory("d", &["sub", "sub/y", "x"], "/t")
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot replace to directory `/t/x` with file"
    );
    symlink("/elsewhere", at("t2")).unwrap();
    std::fs::create_dir(at("elsewhere")).unwrap();
    symlink("/precious", at("elsewhere/x")).unwrap();
    std::fs::write(at("precious"), "keep").unwrap();
    roots.directory("d", &["x"], "/t2").unwrap();
    assert_eq!(
        (roots.read("elsewhere/x"), roots.read("precious")),
        ("new".into(), "keep".into())
    );
    symlink("/elsewhere", at("elsewhere/sub")).unwrap();
    let error = roots.directory("d", &["sub"], "/t2").unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot copy to non-directory: `/elsewhere/sub`"
    );
    for error in [
        roots.directory("d", &[], "/precious"),
        roots.file("d/x", "/precious/y"),
        roots.file("d/x", "/precious/"),
    ] {
        assert!(matches!(error, Err(CopyError::NotADirectory { .. })));
    }
}

#[test]
fn directories_take_over_metadata_and_times() {
    let roots = roots().source("d/sub/f", "1").source("d/g", "2");
    std::fs::hard_link(roots.source.join("d/g"), roots.source.join("d/sub/g2")).unwrap();
    symlink("/nowhere", roots.source.join("d/link")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        roots.source.join("d/fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    std::fs::set_permissions(
        roots.source.join("d/sub"),
        std::fs::Permissions::from_mode(0o2711),
    )
    .unwrap();
    std::fs::set_permissions(
        roots.source.join("d/g"),
        std::fs::Permissions::from_mode(0o4755),
    )
    .unwrap();
    let (old, root_time) = (
        Time {
            seconds: 168_498_305,
            nanos: 7,
        },
        Time {
            seconds: 1_000_000_000,
            nanos: 0,
        },
    );
    let source = open_root(&roots.source).unwrap();
    for (path, time) in [
        ("d/sub", old),
        ("d/g", old),
        ("d/link", old),
        ("d", root_time),
    ] {
        metadata::set_time_at(source.as_fd(), path.as_bytes(), time).unwrap();
    }
    std::fs::create_dir_all(roots.root.join("t/sub")).unwrap();
    std::fs::set_permissions(roots.root.join("t"), std::fs::Permissions::from_mode(0o700)).unwrap();
    let mut operation = directory("d", &["fifo", "g", "link", "sub", "sub/f", "sub/g2"], "/t");
    operation.owner = Some(OwnerSpec::Ids(7, 8));
    let copied = roots.apply(FileOperation::Copy(operation)).unwrap();
    assert_eq!(copied.len(), 3, "a second name counts as a file");
    let stat = |path: &str| roots.root.join(path).symlink_metadata().unwrap();
    assert_eq!(stat("t/sub").mode() & 0o7777, 0o2711);
    assert_eq!(
        stat("t").mode() & 0o7777,
        0o700,
        "the destination itself keeps its mode"
    );
    assert_eq!(
        (stat("t").uid(), stat("t/sub").uid(), stat("t/g").gid()),
        (0, 7, 8)
    );
    assert_eq!(
        stat("t/g").mode() & 0o7777,
        0o4755,
        "setuid survives the change of owner"
    );
    assert_eq!(stat("t/g").ino(), stat("t/sub/g2").ino());
    assert!(stat("t/fifo").file_type().is_fifo());
    assert_eq!(
        std::fs::read_link(roots.root.join("t/link")).unwrap(),
        Path::new("/nowhere")
    );
    for (path, seconds) in [
        ("t/sub", 168_498_305),
        ("t/g", 168_498_305),
        ("t/link", 168_498_305),
        ("t", 1_000_000_000),
    ] {
        assert_eq!(stat(path).mtime(), seconds, "{path}");
    }
    assert_eq!(stat("t/sub").mtime_nsec(), 7);
}

#[test]
fn attributes_follow_files_of_stages_not_of_contexts() {
    let roots = roots().source("f", "");
    let path = roots.source.join("f");
    rustix::fs::setxattr(&path, "user.note", b"x", rustix::fs::XattrFlags::empty()).unwrap();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    rustix::fs::setxattr(
        &path,
        "security.capability",
        &capability,
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    let mut stage = file("f", "/stage");
    stage.owner = Some(OwnerSpec::Ids(5, 5));
    let Selection::File { entry, .. } = &mut stage.selection else {
        unreachable!()
    };
    entry.ids = None;
    roots.apply(FileOperation::Copy(stage)).unwrap();
    roots.file("f", "/context").unwrap();
    let root = open_root(&roots.root).unwrap();
    let names = |name: &[u8]| {
        crate::xattr::list_at(root.as_fd(), name)
            .unwrap()
            .into_iter()
            .map(|(name, _)| name)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(b"stage"),
        [b"security.capability".to_vec(), b"user.note".to_vec()]
    );
    assert!(names(b"context").is_empty());
}

#[test]
fn working_directories_are_made_where_links_lead() {
    let roots = roots();
    std::fs::create_dir_all(roots.root.join("inside")).unwrap();
    symlink("../../../../inside", roots.root.join("up")).unwrap();
    std::fs::write(roots.root.join("file"), "").unwrap();
    let make = |path: &str, owner: &str| {
        roots.apply(FileOperation::MakeDirectory {
            path: path.into(),
            owner: owner.into(),
            mtime: None,
        })
    };
    make("/up/one/two", "5:6").unwrap();
    make("/up", "9").unwrap();
    let stat = |path: &str| roots.root.join(path).metadata().unwrap();
    assert_eq!(
        (
            stat("inside/one/two").uid(),
            stat("inside/one").gid(),
            stat("inside").uid()
        ),
        (5, 6, 0)
    );
    assert_eq!(stat("inside/one").mode() & 0o7777, 0o755);
    assert!(matches!(
        make("/file/x", ""),
        Err(CopyError::NoWorkingDirectory { .. })
    ));
    assert!(matches!(
        make("/file", ""),
        Err(CopyError::NoWorkingDirectory { .. })
    ));
}

#[test]
fn inline_files_are_written() {
    let roots = roots();
    let selection = Selection::Inline {
        name: b"here".to_vec(),
        content: b"text".to_vec(),
        mode: 0o640,
        mtime: Some(5),
    };
    let copied = roots
        .apply(FileOperation::Copy(operation(selection, "/d/")))
        .unwrap();
    assert!(copied.is_empty());
    let stat = roots.root.join("d/here").metadata().unwrap();
    assert_eq!(
        (
            stat.mode() & 0o7777,
            stat.mtime(),
            roots.read("d/here").as_str()
        ),
        (0o640, 5, "text")
    );
}

mod archives {
    use super::*;
    use crate::unpack::tests::Layer;

    fn add(roots: &Roots, tar: &[u8], destination: &str) -> Result<Vec<[u8; 32]>, CopyError> {
        std::fs::write(roots.source.join("t.tar"), tar).unwrap();
        let mut operation = file("t.tar", destination);
        operation.unpacks = true;
        roots.apply(FileOperation::Copy(operation))
    }

    #[test]
    fn members_stay_below_the_destination() {
        let roots = roots();
        for directory in ["real", "dst/real"] {
            std::fs::create_dir_all(roots.root.join(directory)).unwrap();
        }
        let tar = Layer::default()
            .symlink("lnk", "/real")
            .file("lnk/f", "through")
            .directory("in")
            .symlink("in/up", "../../real")
            .file("in/up/g", "up")
            .symlink("rel", "in")
            .file("rel/h", "rel")
            .file("../../evil", "evil")
            .file("/abs", "abs")
            .link("hard", "lnk/f")
            .bytes();
        let copied = add(&roots, &tar, "/dst").unwrap();
        assert_eq!(
            copied,
            [*blake3::hash(&tar).as_bytes()],
            "the archive is the file that was read"
        );
        for (path, content) in [
            ("dst/real/f", "through"),
            ("dst/real/g", "up"),
            ("dst/in/h", "rel"),
            ("dst/evil", "evil"),
            ("dst/abs", "abs"),
            ("dst/hard", "through"),
        ] {
            assert_eq!(roots.read(path), content);
        }
        assert!(
            std::fs::read_dir(roots.root.join("real"))
                .unwrap()
                .next()
                .is_none()
        );
    }

    #[test]
    fn of_members_attributes_capabilities_are_kept() {
        let roots = roots();
        let capability = "\u{1}\0\0\u{2}\0\u{4}\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        let tar = Layer::default()
            .pax(&[
                ("SCHILY.xattr.user.note", "dropped"),
                ("SCHILY.xattr.user.overlay.opaque", "y"),
                ("SCHILY.xattr.security.capability", capability),
                ("SCHILY.xattr.security.selinux", "label"),
                ("SCHILY.xattr.trusted.x", "secret"),
            ])
            .file("f", "content")
            .bytes();
        add(&roots, &tar, "/dst").unwrap();
        let file = std::fs::File::open(roots.root.join("dst/f")).unwrap();
        let found = crate::xattr::list(file.as_fd()).unwrap();
        let names: Vec<&[u8]> = found.iter().map(|(name, _)| name.as_slice()).collect();
        assert_eq!(names, [b"security.capability"]);
    }

    #[test]
    fn what_is_in_the_way_of_members_is_removed() {
        let roots = roots();
        std::fs::create_dir_all(roots.root.join("o/d/keep")).unwrap();
        std::fs::create_dir_all(roots.root.join("o/full/of/things")).unwrap();
        std::fs::write(roots.root.join("o/tolink"), "x").unwrap();
        symlink("/o/d", roots.root.join("o/todir")).unwrap();
        let tar = Layer::default()
            .file("full", "now file")
            .raw("d", b'5', "", 0o711, b"")
            .symlink("tolink", "f")
            .directory("todir")
            .file("todir/own", "")
            .file("dup", "first")
            .file("dup", "second")
            .bytes();
        add(&roots, &tar, "/o/").unwrap();
        assert_eq!(
            (roots.read("o/full"), roots.read("o/dup")),
            ("now file".into(), "second".into())
        );
        assert!(roots.root.join("o/d/keep").is_dir() && !roots.root.join("o/d/own").exists());
        assert_eq!(
            roots.root.join("o/d").metadata().unwrap().mode() & 0o7777,
            0o711
        );
        assert_eq!(
            roots.root.join("o/d").metadata().unwrap().mtime(),
            1_000_000_000
        );
    }

    #[test]
    fn what_is_no_archive_is_copied() {
        for content in [
            &b""[..],
            b"text",
            b"\x1f\x8b\x08broken",
            &[0; 2048],
            &[b'x'; 4096],
        ] {
            let roots = roots();
            assert_eq!(add(&roots, content, "/h/").unwrap().len(), 1);
            assert_eq!(std::fs::read(roots.root.join("h/t.tar")).unwrap(), content);
        }
        let roots = roots();
        let mut cut = Layer::default().file("f", "content").bytes();
        cut.truncate(600);
        assert!(
            matches!(add(&roots, &cut, "/h/"), Err(CopyError::Archive { .. })),
            "it began well"
        );
    }

    #[test]
    fn compressed_archives_are_unpacked() {
        use std::io::Write;
        let tar = Layer::default().file("f", "content").bytes();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&tar).unwrap();
        for bytes in [zstd::encode_all(&tar[..], 1).unwrap(), xz.finish().unwrap()] {
            let roots = roots();
            add(&roots, &bytes, "/h").unwrap();
            assert_eq!(roots.read("h/f"), "content");
        }
    }
}
