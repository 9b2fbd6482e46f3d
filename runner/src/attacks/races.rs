//! A process that exchanges a directory for a link, again and again, while the path is used: what checks first and acts later
//! is led out sooner or later.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, RenameFlags, renameat_with};

use crate::root;
use crate::sandbox::mount_point::{self, PointKind, Stubs};

/// How often ours is tried.
const TRIES: usize = 20_000;
/// How long the copy without the guard may take to be led out; it takes some milliseconds.
const PATIENCE: Duration = Duration::from_mins(1);

struct Race {
    directory: tempfile::TempDir,
}

impl Race {
    fn new() -> Self {
        let race = Self {
            directory: tempfile::tempdir().expect("tempdir"),
        };
        fs::create_dir_all(race.root().join("d/sub")).expect("mkdir");
        fs::create_dir_all(race.outside().join("sub")).expect("mkdir");
        fs::write(race.root().join("d/f"), "inside").expect("write");
        fs::write(race.outside().join("f"), "outside").expect("write");
        symlink(race.outside(), race.root().join("evil")).expect("link");
        race
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    fn outside(&self) -> PathBuf {
        self.directory.path().join("outside")
    }

    /// Runs `body` while `root/d` and the link to outside change places.
    fn run<T>(&self, body: impl FnOnce(&Path) -> T) -> T {
        let root = self.root();
        let (one, other) = (root.join("d"), root.join("evil"));
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    // Fails while one of them is missing.
                    let _ = renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE);
                }
            });
            let stop = Stop(&is_over);
            let result = body(&root);
            drop(stop);
            result
        })
    }
}

/// Ends the attacker also when an assertion fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Tries until it works.
fn until_led_out(mut attempt: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if attempt() {
            return true;
        }
    }
    false
}

fn is_inside(root: &Path, path: &Path) -> bool {
    fs::canonicalize(path).is_ok_and(|path| path.starts_with(root))
}

#[test]
fn reading_a_file() {
    let race = Race::new();
    race.run(|root| {
        let path = root.join("d/f");
        let naively =
            || is_inside(root, &path) && fs::read(&path).is_ok_and(|content| content == b"outside");
        assert!(until_led_out(naively), "the attack does not work");
        let opened = root::open_root(root).expect("root");
        for _ in 0..TRIES {
            let content = root::read_small_file(opened.as_fd(), b"d/f", 100).unwrap_or(None);
            assert_ne!(content.as_deref(), Some(&b"outside"[..]));
        }
    });
}

#[test]
fn reading_a_file_of_a_walked_tree() {
    let race = Race::new();
    race.run(|root| {
        let path = root.join("d/f");
        let naively = || {
            let is_link = fs::symlink_metadata(root.join("d")).is_ok_and(|data| data.is_symlink());
            !is_link && fs::read(&path).is_ok_and(|content| content == b"outside")
        };
        assert!(until_led_out(naively), "the attack does not work");
        let opened = root::open_root(root).expect("root");
        for _ in 0..TRIES {
            let Ok(file) = root::open_beneath(opened.as_fd(), b"d/f", OFlags::RDONLY) else {
                continue;
            };
            let mut content = [0; 7];
            let length = rustix::io::read(&file, &mut content).expect("read");
            assert_eq!(&content[..length], b"inside");
        }
    });
}

#[test]
fn making_directories() {
    let race = Race::new();
    let trace = race.outside().join("sub/new");
    race.run(|root| {
        let naively = || {
            if is_inside(root, &root.join("d/sub")) {
                let _ = fs::create_dir_all(root.join("d/sub/new/deep"));
            }
            trace.exists()
        };
        assert!(until_led_out(naively), "the attack does not work");
        fs::remove_dir_all(&trace).expect("cleared");
        let opened = root::open_root(root).expect("root");
        for number in 0..TRIES / 20 {
            let path = format!("d/sub/new/{number}");
            let mut make = |parent: std::os::fd::BorrowedFd<'_>, name: &[u8]| {
                rustix::fs::mkdirat(parent, name, Mode::RWXU)
            };
            // It may fail, as things vanish; it must not lead out.
            let _ = root::make_directories(opened.as_fd(), path.as_bytes(), &mut make);
        }
    });
    assert!(!trace.exists());
}

/// A cache mount is shared with other steps that run at the same time.
#[test]
fn making_a_mount_point() {
    let race = Race::new();
    let trace = race.outside().join("sub/new");
    race.run(|root| {
        let naively = || {
            if is_inside(root, &root.join("d/sub")) {
                let _ = fs::create_dir_all(root.join("d/sub/new"));
            }
            trace.exists()
        };
        assert!(until_led_out(naively), "the attack does not work");
        fs::remove_dir(&trace).expect("cleared");
        let opened = root::open_root(root).expect("root");
        for number in 0..TRIES / 20 {
            let path = format!("/d/sub/new/{number}");
            let mut made = Stubs::default();
            let kind = PointKind::Directory;
            let _ = mount_point::open(opened.as_fd(), path.as_bytes(), kind, &mut made);
        }
    });
    assert!(!trace.exists());
}

#[test]
fn finding_the_source_of_a_mount() {
    let race = Race::new();
    race.run(|root| {
        let path = root.join("d/sub");
        let inode = |path: &Path| {
            use std::os::unix::fs::MetadataExt;
            fs::metadata(path).map(|data| data.ino()).ok()
        };
        let outside = inode(&race.outside().join("sub"));
        let naively = || is_inside(root, &path) && inode(&path) == outside;
        assert!(until_led_out(naively), "the attack does not work");
        let opened = root::open_root(root).expect("root");
        for _ in 0..TRIES {
            if let Ok(source) = mount_point::look_up(opened.as_fd(), b"d/sub") {
                let found = rustix::fs::fstat(source).expect("stat").st_ino;
                assert_ne!(Some(found), outside);
            }
        }
    });
}

#[test]
fn removing_a_tree() {
    let race = Race::new();
    let fill = |directory: &Path| {
        for number in 0..50 {
            fs::write(directory.join(format!("n{number}")), "").expect("write");
        }
    };
    let left = |directory: &Path| fs::read_dir(directory).expect("list").count();
    fill(&race.outside().join("sub"));
    let before = left(&race.outside().join("sub"));
    race.run(|root| {
        let naively = || {
            let path = root.join("d/sub");
            if is_inside(root, &path) {
                for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
                    let _ = fs::remove_file(entry.path());
                }
            }
            left(&race.outside().join("sub")) < before
        };
        assert!(until_led_out(naively), "the attack does not work");
        fill(&race.outside().join("sub"));
        let opened = root::open_root(root).expect("root");
        for _ in 0..TRIES / 20 {
            let mut make = |parent: std::os::fd::BorrowedFd<'_>, name: &[u8]| {
                rustix::fs::mkdirat(parent, name, Mode::RWXU)
            };
            let _ = root::make_directories(opened.as_fd(), b"d/sub/deep", &mut make);
            let _ = symlink(race.outside(), root.join("evil"));
            for name in [b"d".as_slice(), b"evil"] {
                let _ = crate::node::remove_all(opened.as_fd(), name);
            }
        }
    });
    assert_eq!(left(&race.outside().join("sub")), before);
}
