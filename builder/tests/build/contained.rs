//! rbuild itself inside a container of Debian's podman, with what such containers forbid.
//!
//! The containers have the test binary with this machine's libraries, busybox, and no network but the machine's.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Image, Place, tool};

/// `podman run` with a storage of its own, and what machines like this one need.
pub(crate) fn podman_run(storage: &Path) -> Command {
    let mut command = Command::new("podman");
    for (option, directory) in [("--root", "graph"), ("--runroot", "run")] {
        command.arg(option).arg(storage.join(directory));
    }
    // crun does not take machines with both versions of cgroups.
    if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        command.args(["--runtime", "runc"]);
    }
    command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]);
    command.args(["run", "--rm"]);
    // Podman asks for more than the hard limits of some machines.
    for limit in ["nofile=1024:1024", "nproc=1000:1000"] {
        command.args(["--ulimit", limit]);
    }
    command
}

/// Takes from the base image and needs two owners.
const OWNERS: &str = "FROM base\nCOPY --chown=7:8 f /f\nRUN id -u > /who && chown 5:6 /data\nUSER app\nRUN id -u > /tmp/who\n";
/// What maps subordinate ids.
const HELPERS: [&str; 2] = ["newuidmap", "newgidmap"];
/// Everything in it is root's.
const ROOTS: &str = "FROM base\nCOPY f /f\nRUN id -u > /who\n";

/// A container with a volume for the store.
struct Container<'place> {
    place: &'place Place,
    options: Vec<String>,
    /// Whether its root file system is podman's overlay, and the store lies on it.
    is_overlay: bool,
}

impl<'place> Container<'place> {
    fn new(place: &'place Place, options: &[&str]) -> Self {
        place.file("f", "content");
        Self {
            place,
            options: options.iter().map(|&option| option.to_owned()).collect(),
            is_overlay: false,
        }
    }

    fn option(mut self, option: String) -> Self {
        self.options.push(option);
        self
    }

    fn volume(&self) -> PathBuf {
        self.place.path().join("volume")
    }

    /// A root file system with busybox; libraries and the binary are mounted into it.
    fn write_root(&self) -> PathBuf {
        let root = self.place.path().join("container");
        if root.exists() {
            return root;
        }
        for directory in [
            "bin", "etc", "proc", "sys", "dev", "tmp", "run", "root", "lib", "lib64", "usr/lib",
            "usr/bin", "work", "base", "var/lib",
        ] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        symlink("busybox", root.join("bin/sh")).unwrap();
        let passwd = "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/:/bin/sh\n";
        fs::write(root.join("etc/passwd"), passwd).unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\nann:x:1000:\n").unwrap();
        root
    }

    /// Runs `rbuild WORDS` in it; whether that succeeded, and all it said.
    fn rbuild(&self, words: &[&str]) -> (bool, String) {
        let volume = self.volume();
        fs::create_dir_all(&volume).unwrap();
        fs::set_permissions(&volume, fs::Permissions::from_mode(0o777)).unwrap();
        fs::set_permissions(self.place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = podman_run(&self.place.path().join("podman"));
        command.args(["--network", "none"]).args(&self.options);
        let path = |name: &str| self.place.path().join(name).display().to_string();
        for (source, target) in [
            (env!("CARGO_BIN_EXE_rbuild"), "/bin/rbuild"),
            ("/lib", "/lib"),
            ("/lib64", "/lib64"),
            ("/usr/lib", "/usr/lib"),
            (&path("context"), "/work"),
            (&path("base"), "/base"),
        ] {
            if Path::new(source).exists() {
                command.arg(format!("--volume={source}:{target}:ro"));
            }
        }
        command.arg(format!("--volume={}:/volume", volume.display()));
        let root = self.write_root().display().to_string();
        if self.is_overlay {
            command.args(["--rootfs", &format!("{root}:O")]);
        } else {
            command.args(["--env=RBUILD_ROOT=/volume/store", "--rootfs", &root]);
        }
        let output = command
            .arg("/bin/rbuild")
            .args(words)
            .output()
            .expect("Debian's podman is installed");
        let log = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (output.status.success(), log.into_owned())
    }

    /// Builds with `--network host`, that of the container.
    fn build(&self, dockerfile: &str, arguments: &[&str]) -> (bool, String) {
        fs::write(self.place.context().join("Dockerfile"), dockerfile).unwrap();
        let words = [
            "build",
            "--progress=plain",
            "--network=host",
            "--build-context=base=oci-layout:///base",
            "--output=type=oci,dest=/volume/out.tar",
        ];
        let all = [&words, arguments, &["/work"]].concat();
        self.rbuild(&all)
    }

    #[track_caller]
    fn ok(&self, dockerfile: &str, arguments: &[&str]) -> (Image, String) {
        let (is_done, log) = self.build(dockerfile, arguments);
        assert!(is_done, "{:?}:\n{log}", self.options);
        (Image::read(&self.volume().join("out.tar")), log)
    }

    /// Expects a failure that says all of `words`.
    #[track_caller]
    fn fails(&self, dockerfile: &str, words: &[&str]) {
        let (is_done, log) = self.build(dockerfile, &["--no-cache"]);
        assert!(!is_done, "{:?}:\n{log}", self.options);
        self.expect(&log, words);
    }

    #[track_caller]
    fn expect(&self, text: &str, words: &[&str]) {
        for word in words {
            assert!(
                text.contains(word),
                "{:?}: no `{word}` in:\n{text}",
                self.options
            );
        }
    }

    /// What `rbuild info` says has to hold these words.
    #[track_caller]
    fn informs(&self, words: &[&str]) {
        let (is_done, text) = self.rbuild(&["info"]);
        assert!(is_done, "{:?}: {text}", self.options);
        self.expect(&text, words);
    }
}

#[track_caller]
fn has_owners(image: &Image) {
    let owner = |path: &str| image.entry(path).map(|entry| (entry.uid, entry.gid));
    assert_eq!(owner("f"), Some((7, 8)));
    assert_eq!(owner("data"), Some((5, 6)));
    assert_eq!(owner("tmp/who"), Some((1000, 1001)));
    assert_eq!(
        (image.text("who").as_str(), image.text("tmp/who").as_str()),
        ("0\n", "1000\n")
    );
}

#[test]
fn root_of_a_podman_container_builds_with_all_ids_below_a_user_namespace() {
    let rows: [&[&str]; 3] = [
        &[],
        &["--read-only"],
        &["--security-opt", "no-new-privileges"],
    ];
    for options in rows {
        let place = Place::new();
        let container = Container::new(&place, options);
        let (image, log) = container.ok(OWNERS, &[]);
        has_owners(&image);
        container.expect(
            &log,
            &[
                "isolation: userns with ",
                "see the processes of this container",
                "keep this container's host name",
            ],
        );
        container.informs(&[
            "`--isolation auto` takes: userns",
            "no CAP_SYS_ADMIN",
            "--cap-add SYS_ADMIN",
            "unmask=ALL",
        ]);
    }
}

#[test]
fn a_privileged_podman_container_has_namespaces() {
    let place = Place::new();
    let container = Container::new(&place, &["--privileged"]);
    let (image, log) = container.ok(OWNERS, &[]);
    has_owners(&image);
    assert!(!log.contains("isolation:"), "{log}");
    container.informs(&["`--isolation auto` takes: namespaces"]);
}

#[test]
fn an_ordinary_user_of_a_podman_container_has_one_id() {
    let rows: [(&[&str], &str); 3] = [
        (&["--user=1000"], "grants no ids to ann"),
        (&["--user=1000", "--cap-drop=all"], "grants no ids to ann"),
        (
            &["--user=1000", "--security-opt", "no-new-privileges"],
            "grants no ids to ann",
        ),
    ];
    for (options, reason) in rows {
        let place = Place::new();
        let container = Container::new(&place, options);
        container.fails(
            OWNERS,
            &[
                "with a single id",
                reason,
                "the owner 7:8 can't be set",
                "--ignore-chown-errors",
            ],
        );
        let (image, _) = container.ok(ROOTS, &[]);
        assert_eq!(image.text("who"), "0\n");
        container.informs(&["`--isolation auto` takes: userns", reason, "usermod"]);
        // As the user chose: nothing has an owner, and it says so.
        let dockerfile = OWNERS.replace(" && chown 5:6 /data", "");
        let (image, log) = container.ok(&dockerfile, &["--ignore-chown-errors"]);
        assert_eq!(image.entry("f").map(|file| file.uid), Some(0));
        container.expect(&log, &["all owners are left out"]);
    }
}

#[test]
fn subordinate_ids_work_in_a_podman_container_unless_privileges_may_not_grow() {
    let place = Place::new();
    let mut options = vec!["--user=1000".to_owned()];
    let granted = place.path().join("granted");
    fs::write(&granted, "ann:200000:65536\n").unwrap();
    for target in ["/etc/subuid", "/etc/subgid"] {
        options.push(format!("--volume={}:{target}:ro", granted.display()));
    }
    let helper = |name: &str| place.path().join(name);
    for name in HELPERS {
        let installed = Path::new("/usr/bin").join(name);
        fs::copy(installed, helper(name)).expect("Debian's uidmap is installed");
        fs::set_permissions(helper(name), fs::Permissions::from_mode(0o4755)).unwrap();
        options.push(format!(
            "--volume={}:/usr/bin/{name}",
            helper(name).display()
        ));
    }
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let container = Container::new(&place, &options);
    // Debian's helper stays root, who may do nothing here to what is another user's.
    container.fails(
        OWNERS,
        &["`/usr/bin/newuidmap` did not map", "setcap cap_setuid=ep"],
    );
    // As that says: version 2, effective, CAP_SETUID and CAP_SETGID.
    for (name, bits) in HELPERS.iter().zip(["80", "40"]) {
        fs::set_permissions(helper(name), fs::Permissions::from_mode(0o755)).unwrap();
        let value = format!("0x01000002{bits}{}", "0".repeat(30));
        let name = helper(name).display().to_string();
        let words = ["-n", "security.capability", "-v", &value, &name];
        tool("setfattr", words);
    }
    let (image, log) = container.ok(OWNERS, &[]);
    has_owners(&image);
    container.expect(&log, &["isolation: userns with 65537 user ids"]);
    container
        .option("--security-opt=no-new-privileges".to_owned())
        .fails(
            OWNERS,
            &["with a single id", "`no_new_privs` is set", "leave out"],
        );
}

#[test]
fn root_without_capabilities_is_told_to_be_somebody_else() {
    let place = Place::new();
    let container = Container::new(&place, &["--cap-drop=all"]);
    container.fails(
        ROOTS,
        &[
            "cannot build or run anything here",
            "CAP_SETFCAP",
            "--user 1000",
        ],
    );
    container.informs(&[
        "`--isolation auto` finds nothing",
        "CAP_SYS_ADMIN",
        "CAP_SETFCAP",
        "CAP_SYS_CHROOT",
    ]);
}

#[test]
fn a_podman_container_whose_filter_forbids_namespaces_builds_in_a_chroot() {
    let place = Place::new();
    // As Docker's own profile has it: no namespaces and no mounts.
    let profile = place.path().join("profile.json");
    let rules = serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{
            "names": ["mount", "umount2", "unshare", "fsopen", "open_tree", "move_mount", "mount_setattr", "pivot_root", "setns"],
            "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
        }],
    });
    fs::write(&profile, rules.to_string()).unwrap();
    let filter = format!("--security-opt=seccomp={}", profile.display());
    let mut container = Container::new(&place, &[&filter]);
    let (image, log) = container.ok(OWNERS, &[]);
    has_owners(&image);
    let words = [
        "isolation: chroot",
        "a seccomp filter refuses user namespaces",
    ];
    container.expect(&log, &words);
    container.informs(&[
        "`--isolation auto` takes: chroot",
        words[1],
        "seccomp=unconfined",
    ]);
    container.fails(
        "FROM base\nRUN --mount=type=cache,target=/c true\n",
        &["a chroot has no mounts", "`/c`"],
    );
    // Nor does it need a volume.
    container.is_overlay = true;
    let (image, _) = container.ok(OWNERS, &[]);
    has_owners(&image);
}

#[test]
fn a_store_on_the_containers_own_overlay_is_worked_in_by_copies() {
    let place = Place::new();
    let mut container = Container::new(&place, &[]);
    container.is_overlay = true;
    // What is deleted is kept by another mark there.
    let dockerfile = format!(
        "{OWNERS}USER root\nRUN rm /f && rm -r /data && mkdir /data && touch /data/new\n\
         RUN --mount=type=cache,target=/c test ! -e /f && ls /data > /left\n"
    );
    let (image, log) = container.ok(&dockerfile, &[]);
    container.expect(
        &log,
        &[
            "isolation: userns with ",
            "the store is on overlayfs, which can't hold another overlay's changes: steps work on copies",
            "--root DIR",
        ],
    );
    for deleted in [".wh.f", "data/.wh..wh..opq"] {
        assert!(image.entry(deleted).is_some(), "{deleted}");
    }
    assert_eq!(image.text("left"), "new\n");
    container.informs(&[
        "overlayfs, which can't hold",
        "steps work on copies",
        "--root DIR",
    ]);
    for isolation in ["--isolation=chroot", "--isolation=userns"] {
        let (image, _) = container.ok(OWNERS, &[isolation]);
        has_owners(&image);
    }
}
