use std::os::unix::fs::symlink;

use super::*;

fn tree() -> (tempfile::TempDir, OwnedFd) {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    std::fs::create_dir_all(at("a/b")).unwrap();
    std::fs::write(at("a/b/f"), "inside").unwrap();
    std::fs::write(at("passwd"), "mine").unwrap();
    for (name, target) in [
        ("abs", "/a/b"),
        ("up", "../../../../a"),
        ("a/rel", "b/f"),
        ("etc", "/etc"),
        ("loop", "loop"),
        ("dangling", "/a/none/x"),
        ("proc", "/proc/self/root"),
        ("a/out", "../../passwd"),
    ] {
        symlink(target, at(name)).unwrap();
    }
    let fd = open_root(directory.path()).unwrap();
    (directory, fd)
}

/// The kernel's resolution and ours by hand give the same.
#[test]
fn both_resolutions_agree_and_stay_inside() {
    let (_directory, root) = tree();
    for (path, expected) in [
        ("a/b/f", Some("a/b/f")),
        ("/a//b/./f", Some("a/b/f")),
        ("abs/f", Some("a/b/f")),
        ("up/b/f", Some("a/b/f")),
        ("a/rel", Some("a/b/f")),
        ("../../a/b/../b/f", Some("a/b/f")),
        ("abs/../../../../passwd", Some("passwd")),
        ("a/out", Some("passwd")),
        ("etc/passwd", None),
        ("loop", None),
        ("dangling", None),
        ("proc/etc/passwd", None),
        ("passwd/x", None),
        ("a/b/f/..", None),
    ] {
        let bytes = path.as_bytes();
        let kernel =
            open(root.as_fd(), bytes, OFlags::PATH).map(|fd| Metadata::of_fd(fd).unwrap().inode);
        let by_hand = by_hand::open(root.as_fd(), bytes, OFlags::PATH, Last::Follow);
        let by_hand = by_hand.map(|fd| Metadata::of_fd(fd).unwrap().inode);
        match expected {
            Some(expected) => {
                let inode = metadata(root.as_fd(), expected.as_bytes()).unwrap().inode;
                assert_eq!(
                    (kernel.unwrap(), by_hand.unwrap()),
                    (inode, inode),
                    "{path}"
                );
                assert_eq!(
                    resolve(root.as_fd(), bytes).unwrap().as_bytes(),
                    expected.as_bytes()
                );
            }
            None => assert_eq!(kernel.unwrap_err().source, by_hand.unwrap_err(), "{path}"),
        }
    }
}

#[test]
fn links_are_kept_when_asked_for() {
    let (_directory, root) = tree();
    assert_eq!(
        metadata(root.as_fd(), b"etc").unwrap().kind,
        FileKind::Symlink
    );
    assert_eq!(
        metadata(root.as_fd(), b"up/rel").unwrap().kind,
        FileKind::Symlink
    );
    assert_eq!(read_link(root.as_fd(), b"up/rel").unwrap(), b"b/f");
    for path in [&b"abs"[..], b"abs/f", b"/passwd"] {
        assert!(
            open_beneath(root.as_fd(), path, OFlags::RDONLY).is_err(),
            "{}",
            path.escape_ascii()
        );
        assert!(by_hand::open_without_links(root.as_fd(), path, OFlags::RDONLY).is_err());
    }
    assert!(open_beneath(root.as_fd(), b"a/b/f", OFlags::RDONLY).is_ok());
    assert_eq!(
        resolve(root.as_fd(), b"abs/missing").unwrap().as_bytes(),
        b"a/b/missing"
    );
}

#[test]
fn small_files_are_read_within_bounds() {
    let (directory, root) = tree();
    let read = |path: &[u8], limit| read_small_file(root.as_fd(), path, limit);
    assert_eq!(read(b"a/rel", 6).unwrap().as_deref(), Some(&b"inside"[..]));
    assert_eq!(read(b"a/rel", 5).unwrap_err().source, Errno::FBIG);
    for path in [&b"missing"[..], b"a", b"loop", b"etc/passwd", b"passwd/x"] {
        assert_eq!(read(path, 100).unwrap(), None, "{}", path.escape_ascii());
    }
    let fifo = directory.path().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        Mode::RUSR,
        0,
    )
    .unwrap();
    assert_eq!(
        read(b"fifo", 100).unwrap(),
        None,
        "does not wait for a writer"
    );
}

#[test]
fn directories_are_made_inside() {
    let (directory, root) = tree();
    let mut names = Vec::new();
    let mut make = |parent: BorrowedFd<'_>, name: &[u8]| {
        names.push(name.to_vec());
        rustix::fs::mkdirat(parent, name, Mode::RWXU)
    };
    let located = make_directories(root.as_fd(), b"/up/../dangling/../new/y", &mut make).unwrap();
    assert_eq!(located.path().as_bytes(), b"a/none/new/y");
    drop(located);
    let located = make_directories(root.as_fd(), b"other/new", &mut make).unwrap();
    assert_eq!(located.path().as_bytes(), b"other/new");
    drop(located);
    assert_eq!(names.len(), 6);
    assert!(directory.path().join("a/none/new/y").is_dir());
}

/// The kernel gives up on `..` while anything is renamed anywhere on the machine, and asks to try again.
#[test]
fn renames_elsewhere_do_not_fail_a_lookup() {
    let (place, root) = tree();
    symlink("a/../a/../a/..", place.path().join("winding")).expect("linked");
    let elsewhere = tempfile::tempdir().expect("a directory");
    let [one, other] = ["one", "other"].map(|name| elsewhere.path().join(name));
    std::fs::write(&one, "").expect("written");
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let failed = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                std::fs::rename(&one, &other).expect("renamed");
                std::fs::rename(&other, &one).expect("renamed");
            }
        });
        let look_up = || crate::sandbox::mount_point::look_up(root.as_fd(), b"winding").err();
        let failed: Vec<Errno> = (0..20_000).filter_map(|_| look_up()).collect();
        is_over.store(true, Ordering::Relaxed);
        failed
    });
    assert_eq!(failed, []);
}
