//! Trees whose links lead out of them, and ids that wrap around.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::naive::join;
use crate::root;
use crate::sandbox::mount_point::{self, PointKind, Stub, Stubs};
use crate::sandbox::stubs;
use crate::users;

/// A root directory and, beside it, a file that nobody inside may reach.
struct Stage {
    directory: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        let stage = Self {
            directory: tempfile::tempdir().expect("tempdir"),
        };
        fs::create_dir_all(stage.root().join("etc")).expect("mkdir");
        fs::create_dir(stage.outside()).expect("mkdir");
        fs::write(stage.outside().join("secret"), "secret").expect("write");
        stage
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    fn outside(&self) -> PathBuf {
        self.directory.path().join("outside")
    }

    fn open(&self) -> std::os::fd::OwnedFd {
        root::open_root(&self.root()).expect("root")
    }
}

fn read_naively(root: &Path, path: &[u8]) -> Option<Vec<u8>> {
    fs::read(join(root, path)).ok()
}

fn read(stage: &Stage, path: &[u8]) -> Option<Vec<u8>> {
    root::read_small_file(stage.open().as_fd(), path, 100).unwrap_or(None)
}

/// `COPY`, the Dockerfile, an ignore file, `subdir` of a repository: all are found by [`root`].
#[test]
fn links_of_every_kind_to_a_file_outside() {
    let stage = Stage::new();
    let (top, outside) = (stage.root(), stage.outside());
    fs::create_dir(top.join("deep")).expect("mkdir");
    for (name, target) in [
        ("absolute", outside.join("secret")),
        ("relative", "../outside/secret".into()),
        ("deep/relative", "../../outside/secret".into()),
        ("directory", outside.clone()),
        ("parent", "..".into()),
        ("twice", "absolute".into()),
        ("magic", format!("/proc/{}/root", std::process::id()).into()),
    ] {
        symlink(target, top.join(name)).expect("link");
    }
    let magic = format!("magic{}/secret", outside.display());
    for path in [
        "absolute",
        "relative",
        "deep/relative",
        "directory/secret",
        "parent/outside/secret",
        "twice",
        "deep/../../outside/secret",
        &magic,
    ] {
        let path = path.as_bytes();
        let naively = read_naively(&top, path);
        assert_eq!(naively.as_deref(), Some(&b"secret"[..]), "the attack");
        assert_eq!(read(&stage, path), None, "{}", path.escape_ascii());
    }
}

#[test]
fn passwd_is_a_link_to_the_hosts() {
    let stage = Stage::new();
    fs::write(stage.outside().join("passwd"), "app:x:4:4::/:\n").expect("write");
    symlink(
        stage.outside().join("passwd"),
        stage.root().join("etc/passwd"),
    )
    .expect("link");
    let naively = read_naively(&stage.root(), b"etc/passwd").expect("the attack");
    assert!(naively.starts_with(b"app:"));
    assert!(users::look_up(stage.open().as_fd(), b"app").is_err());
}

/// A file without end takes the memory of whoever reads it whole.
#[test]
fn passwd_and_group_are_endless() {
    for name in ["etc/passwd", "etc/group"] {
        let stage = Stage::new();
        let line = "app:x:4:app\n".repeat(1 << 20);
        fs::write(stage.root().join(name), &line).expect("write");
        let naively = read_naively(&stage.root(), name.as_bytes()).expect("the attack");
        assert_eq!(naively.len(), line.len());
        let error = users::look_up(stage.open().as_fd(), b"app").expect_err("refused");
        assert!(error.to_string().contains("is larger than"), "{error}");
    }
}

/// Whoever keeps an id in fewer bits than it was written in gives root away.
#[test]
fn ids_that_wrap_around_to_root() {
    fn naively(text: &str) -> u32 {
        let number: u64 = text.parse().expect("digits");
        u32::try_from(number & u64::from(u32::MAX)).expect("32 bits")
    }
    let stage = Stage::new();
    for text in ["4294967296", "8589934592:4294967296"] {
        let first = text.split(':').next().expect("one");
        assert_eq!(naively(first), 0, "the attack");
        assert!(users::look_up(stage.open().as_fd(), text.as_bytes()).is_err());
    }
    let passwd = "app:x:4294967296:4294967296::/:\n";
    fs::write(stage.root().join("etc/passwd"), passwd).expect("write");
    let user = users::look_up(stage.open().as_fd(), b"app");
    assert!(user.is_err(), "a line of passwd: {user:?}");
    // A number that is too large is no name either (CVE-2026-46680).
    let passwd = "4294967296:x:0:0::/:\n";
    fs::write(stage.root().join("etc/passwd"), passwd).expect("write");
    let by_name = |text: &str| passwd.split(':').next() == Some(text);
    let is_root = "4294967296".parse::<u32>().is_err() && by_name("4294967296");
    assert!(is_root, "the attack");
    let user = users::look_up(stage.open().as_fd(), b"4294967296");
    assert!(user.is_err(), "a name of passwd: {user:?}");
}

/// The directory that a command is to be in is made when it is missing (CVE-2026-55686).
#[test]
fn a_working_directory_through_a_link() {
    let stage = Stage::new();
    symlink(stage.outside(), stage.root().join("work")).expect("link");
    fs::create_dir_all(join(&stage.root(), b"work/naively")).expect("mkdir");
    assert!(stage.outside().join("naively").exists(), "the attack");
    mount_point::make_directory(stage.open().as_fd(), b"/work/new/deep").expect("mkdir");
    assert!(!stage.outside().join("new").exists());
    let outside = stage.outside();
    let inside = stage
        .root()
        .join(outside.strip_prefix("/").expect("absolute"));
    assert!(
        inside.join("new/deep").exists(),
        "where the link leads inside"
    );
}

/// `/etc/resolv.conf` and its like are mounted on what the image has there.
#[test]
fn a_provided_file_through_a_link() {
    let stage = Stage::new();
    let target = stage.outside().join("secret");
    symlink(&target, stage.root().join("etc/hosts")).expect("link");
    symlink(stage.outside(), stage.root().join("out")).expect("link");
    fs::write(stage.root().join("etc/hosts"), "ours").expect("naively");
    assert_eq!(fs::read(&target).expect("read"), b"ours", "the attack");
    let mut made = Stubs::default();
    for path in [&b"/etc/hosts"[..], b"/out/new/file"] {
        let point = mount_point::open(stage.open().as_fd(), path, PointKind::File, &mut made);
        let point = point.expect("a mount point inside");
        let found = fs::read_link(crate::mounts::path_of(point.as_fd())).expect("its path");
        assert!(found.starts_with(stage.root()), "{}", found.display());
    }
    assert!(!stage.outside().join("new").exists());
}

/// What was made for a mount is removed when the command, which had the tree in its hands, has ended.
#[test]
fn a_mount_point_is_exchanged_for_a_link_before_it_is_removed() {
    let stage = Stage::new();
    let mark = stage.outside().join("empty");
    fs::write(&mark, "").expect("write");
    symlink(stage.outside(), stage.root().join("dir")).expect("link");
    let stub = Stub {
        path: b"dir/empty".to_vec(),
        is_directory: false,
    };
    let made = Stubs {
        made: vec![stub],
        touched: Vec::new(),
    };
    stubs::remove(&stage.root(), &made).expect("nothing to remove");
    assert!(mark.exists());
    fs::remove_file(join(&stage.root(), &made.made[0].path)).expect("naively");
    assert!(!mark.exists(), "the attack");
}
