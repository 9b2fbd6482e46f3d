//! Mounts of each kind, long chains and reused upper directories.

mod common;

use std::fs;

use common::Place;
use rbuild_runner::job::*;
use rbuild_runner::{JobErrorKind, MountApi, Roots, SpawnerOptions};

/// By the newer calls, by mount(2), and by each without overlays.
fn ways() -> Vec<SpawnerOptions> {
    [Roots::Overlay, Roots::Copy].map(by_both).concat()
}

fn by_both(roots: Roots) -> [SpawnerOptions; 2] {
    [MountApi::Automatic, MountApi::Classic].map(|mount_api| SpawnerOptions { mount_api, roots })
}

fn mount(target: &str, kind: SandboxMountKind) -> SandboxMount {
    SandboxMount {
        target: target.into(),
        kind,
    }
}

#[test]
fn directories() {
    let Some(place) = Place::new() else { return };
    let host = place.new_directory();
    fs::create_dir(host.join("sub")).expect("mkdir");
    fs::write(host.join("sub/file"), "content\n").expect("write");
    std::os::unix::fs::symlink("/sub/file", host.join("link")).expect("link");
    let directory = |source: &str, access| SandboxMountKind::Directory {
        root: host.clone(),
        source: source.into(),
        access,
    };
    let mut job = place.job(
        "cat /ro/sub/file /one /a/b/link; (echo x > /ro/x) 2>&1 | sed 's/.*: //'; echo y >> /discard/file; cat /discard/file; \
         echo z >> /discarded-file; cat /discarded-file; echo shared > /cache/new; rm -r /discard/file",
    );
    job.mounts = vec![
        mount("/ro", directory("", Access::ReadOnly)),
        mount("/one", directory("sub/file", Access::ReadOnly)),
        mount("/a/b/link", directory("link", Access::ReadOnly)),
        mount(
            "/discard",
            directory("sub", Access::Discarded(place.new_directory())),
        ),
        mount(
            "/discarded-file",
            directory("sub/file", Access::Discarded(place.new_directory())),
        ),
        mount("/cache", directory("/", Access::Shared)),
    ];
    let ran = place.run(job);
    let expected = "content\ncontent\ncontent\nRead-only file system\ncontent\ny\ncontent\nz\n";
    assert_eq!(ran.stdout, expected, "{ran:?}");
    assert_eq!(ran.upper(), Vec::<String>::new());
    assert_eq!(
        fs::read_to_string(host.join("sub/file")).expect("kept"),
        "content\n"
    );
    assert_eq!(
        fs::read_to_string(host.join("new")).expect("written"),
        "shared\n"
    );
}

#[test]
fn chains_tmpfs_and_secrets() {
    for way in ways() {
        let Some(place) = Place::with(way) else {
            return;
        };
        let (low, high) = (place.new_directory(), place.new_directory());
        fs::write(low.join("a"), "low").expect("write");
        fs::write(low.join("b"), "gone").expect("write");
        fs::write(high.join("a"), "high").expect("write");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            high.join("b"),
            rustix::fs::FileType::CharacterDevice,
            0.into(),
            0,
        )
        .expect("whiteout");
        let chain = |lowers: &[_], source: &str, access| SandboxMountKind::Chain {
            lowers: lowers.to_vec(),
            source: source.into(),
            access,
            scratch: place.new_directory(),
        };
        let both = [low.clone(), high.clone()];
        let mut job = place.job(
            "ls /both; cat /both/a /file; echo; cat /single/b; echo; (echo > /both/x) 2>&1 | sed 's/.*: //'; echo > /rw/x; ls /rw; \
             df -k /t | grep -c 1024; stat -c %a /t; (echo > /tro/x) 2>&1 | sed 's/.*: //'; stat -c '%a %u %g' /run/secrets/s; \
             cat /run/secrets/s; (echo > /run/secrets/s) 2>&1 | sed 's/.*: //'",
        );
        job.mounts = vec![
            mount("/both", chain(&both, "", Access::ReadOnly)),
            mount("/file", chain(&both, "/a", Access::ReadOnly)),
            mount("/single", chain(&both[..1], "/", Access::ReadOnly)),
            mount(
                "/rw",
                chain(&both, "/", Access::Discarded(place.new_directory())),
            ),
            mount(
                "/t",
                SandboxMountKind::Tmpfs {
                    size: Some(1 << 20),
                    is_read_only: false,
                },
            ),
            mount(
                "/tro",
                SandboxMountKind::Tmpfs {
                    size: None,
                    is_read_only: true,
                },
            ),
            mount(
                "/run/secrets/s",
                SandboxMountKind::File {
                    content: b"secret\n".to_vec(),
                    mode: 0o400,
                    uid: 3,
                    gid: 4,
                },
            ),
        ];
        let ran = place.run(job);
        let expected = "a\nhighhigh\ngone\nRead-only file system\na\nx\n1\n1777\nRead-only file system\n400 3 4\nsecret\n\
            Read-only file system\n";
        assert_eq!(ran.stdout, expected, "{way:?} {ran:?}");
        assert_eq!(ran.upper(), Vec::<String>::new());
        let mut job = place.job("true");
        job.mounts = vec![mount("/x", chain(&both, "/missing", Access::ReadOnly))];
        let ran = place.run(job);
        assert_eq!(
            ran.error().to_string(),
            "cannot find the source of the mount `/missing`"
        );
    }
}

#[test]
fn a_mount_source_cannot_leave_its_root() {
    let Some(place) = Place::new() else { return };
    let host = place.new_directory();
    fs::write(host.join("secret"), "inside\n").expect("write");
    fs::create_dir(host.join("sub")).expect("mkdir");
    std::os::unix::fs::symlink("/etc", host.join("sub/etc")).expect("link");
    for source in [
        "../../etc/passwd",
        "sub/etc/passwd",
        "/sub/../../etc/passwd",
    ] {
        let mut job = place.job("cat /x");
        let kind = SandboxMountKind::Directory {
            root: host.clone(),
            source: source.into(),
            access: Access::ReadOnly,
        };
        job.mounts = vec![mount("/x", kind)];
        assert_eq!(
            place.run(job).error().kind,
            JobErrorKind::Sandbox,
            "{source}"
        );
    }
}

#[test]
fn a_mount_target_cannot_leave_the_root() {
    let Some(place) = Place::new() else { return };
    let outside = place.directory.path().join("outside");
    let up = "../".repeat(20);
    std::os::unix::fs::symlink(
        format!("{up}{}", outside.display()),
        place.base().join("evil"),
    )
    .expect("link");
    let mut job = place.job("ls /evil/ | wc -l");
    job.mounts = vec![mount(
        "/evil/a",
        SandboxMountKind::Tmpfs {
            size: None,
            is_read_only: false,
        },
    )];
    let ran = place.run(job);
    assert_eq!(ran.status(), CommandStatus::Exited(0), "{ran:?}");
    assert!(!outside.exists());
    assert_eq!(ran.upper(), Vec::<String>::new());
}

#[test]
fn long_chains_fold() {
    for way in by_both(Roots::Overlay) {
        let Some(place) = Place::with(way) else {
            return;
        };
        let layers = place.new_directory();
        let mut lowers = vec![place.base()];
        for number in 1..450 {
            let layer = layers.join(number.to_string());
            fs::create_dir(&layer).expect("mkdir");
            fs::write(layer.join(format!("f{number}")), "x").expect("write");
            fs::write(layer.join("same"), number.to_string()).expect("write");
            lowers.push(layer);
        }
        // A whiteout above the fold hides what is in it.
        let top = layers.join("449");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            top.join("f1"),
            rustix::fs::FileType::CharacterDevice,
            0.into(),
            0,
        )
        .expect("whiteout");
        let mut job = place
            .job("ls / | grep -c '^f[0-9]'; cat /same; test -e /f1 || echo hidden; echo > /f2");
        job.root.lowers = lowers.clone();
        let ran = place.run(job);
        assert_eq!(ran.stdout, "448\n449hidden\n", "{way:?} {ran:?}");
        assert_eq!(ran.upper(), ["f2"]);
        let mut job = place.job("true");
        job.root.lowers = [lowers.clone(), lowers].concat();
        let ran = place.run(job);
        assert_eq!(
            ran.error().to_string(),
            "cannot mount a chain of 900 layers: the limit is 799"
        );
    }
}

#[test]
fn an_empty_chain_is_the_upper_directory_alone() {
    for way in by_both(Roots::Overlay) {
        let Some(place) = Place::with(way) else {
            return;
        };
        let mut job = place.job("");
        let upper = job.root.scratch.join("upper");
        fs::create_dir(&upper).expect("mkdir");
        fs::copy("/bin/busybox", upper.join("busybox")).expect("copy");
        job.root.lowers.clear();
        job.argv = ["/busybox", "touch", "/made"].map(Vec::from).to_vec();
        let ran = place.run(job);
        assert_eq!(ran.status(), CommandStatus::Exited(0), "{ran:?}");
        // Like the reference, an image without these three directories has them after its first RUN.
        assert_eq!(ran.upper(), ["busybox", "dev", "made", "proc", "sys"]);
    }
}

#[test]
fn an_upper_directory_is_used_again() {
    for way in ways() {
        let Some(place) = Place::with(way) else {
            return;
        };
        let job = place.job("echo first > /tmp/a; exit 1");
        let mut again = place.job("cat /tmp/a; echo second > /tmp/b");
        again.root.scratch.clone_from(&job.root.scratch);
        assert_eq!(place.run(job).status(), CommandStatus::Exited(1));
        let ran = place.run(again);
        assert_eq!(ran.stdout, "first\n", "{ran:?}");
        assert_eq!(ran.upper(), ["tmp", "tmp/a", "tmp/b"]);
    }
}

#[test]
fn kernel_messages_are_in_the_error() {
    let Some(place) = Place::new() else { return };
    let mut job = place.job("true");
    job.root.lowers.insert(0, place.base().join("etc/passwd"));
    let ran = place.run(job);
    // Older kernels take the options of an overlay by mount(2) only, which says nothing.
    let uname = rustix::system::uname();
    let mut numbers = uname.release().to_str().expect("ASCII").split('.');
    let mut number = || numbers.next().and_then(|number| number.parse::<u32>().ok());
    let says = if (number(), number()) >= (Some(6), Some(5)) {
        "cannot mount overlay: overlay: "
    } else {
        "cannot mount overlay"
    };
    assert!(ran.error().to_string().starts_with(says), "{}", ran.error());
}
