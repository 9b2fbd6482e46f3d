//! Builds of an ordinary user, and each ability taken away in turn.
//!
//! The user exists in a mount namespace of the test's own: the files that name it and grant its ids are bind mounts there.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::support::{Image, Place};

const UID: u32 = 21_000;
const GID: u32 = 21_001;

/// A build by a user who may or may not have subordinate ids, after a shell text took something away.
struct ByUser<'place> {
    place: &'place Place,
    has_range: bool,
    /// Run as root in the test's mount namespace, before the user comes.
    before: String,
    /// Options of setpriv.
    setpriv: Vec<&'static str>,
    arguments: Vec<String>,
    variables: Vec<(&'static str, &'static str)>,
}

impl<'place> ByUser<'place> {
    fn new(place: &'place Place) -> Self {
        Self {
            place,
            has_range: true,
            before: String::new(),
            setpriv: vec!["--reuid=21000", "--regid=21001", "--clear-groups"],
            arguments: Vec::new(),
            variables: Vec::new(),
        }
    }

    fn without_range(mut self) -> Self {
        self.has_range = false;
        self
    }

    fn before(mut self, text: &str) -> Self {
        self.before.push_str(text);
        self.before.push('\n');
        self
    }

    fn setpriv(mut self, option: &'static str) -> Self {
        self.setpriv.push(option);
        self
    }

    fn arg(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    fn variable(mut self, name: &'static str, value: &'static str) -> Self {
        self.variables.push((name, value));
        self
    }

    fn home(&self) -> PathBuf {
        self.place.path().join("home")
    }

    /// `rbuild WORDS` as that user, with the store where it is by default.
    fn rbuild(&self, words: &[String]) -> Output {
        let etc = self.place.path().join("etc");
        for directory in [&etc, &self.home()] {
            fs::create_dir_all(directory).unwrap();
        }
        chown(self.home(), Some(UID), Some(GID)).unwrap();
        fs::set_permissions(self.place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let passwd = fs::read_to_string("/etc/passwd").unwrap();
        let passwd = format!("{passwd}tester:x:{UID}:{GID}::/nowhere:/bin/sh\n");
        let grant = if self.has_range {
            "tester:300000:65536\n"
        } else {
            ""
        };
        for (name, text) in [
            ("passwd", passwd.as_str()),
            ("subuid", grant),
            ("subgid", grant),
        ] {
            fs::write(etc.join(name), text).unwrap();
        }
        // A mount point may be missing: then there is an /etc of the test's own.
        let script = format!(
            "etc=$1 program=$2; shift 2\n\
             for name in passwd subuid subgid; do mount --bind \"$etc/$name\" /etc/$name; done\n\
             cp --remove-destination \"$program\" \"$etc/rbuild\"; chmod 755 \"$etc\" \"$etc/rbuild\"\n{}\n\
             exec setpriv {} -- \"$etc/rbuild\" \"$@\"",
            self.before,
            self.setpriv.join(" ")
        );
        let mut command = Command::new("unshare");
        command
            .args([
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-euc",
                &script,
                "sh",
            ])
            .arg(&etc)
            .arg(env!("CARGO_BIN_EXE_rbuild"))
            .args(words)
            .env("HOME", self.home())
            .env_remove("XDG_DATA_HOME")
            .env_remove("RBUILD_ROOT")
            .env_remove("SOURCE_DATE_EPOCH")
            .envs(self.variables.iter().copied());
        command.output().unwrap()
    }

    fn build(&self, dockerfile: &str) -> (bool, String) {
        let path = self.place.path();
        fs::write(path.join("Dockerfile"), dockerfile).unwrap();
        let out = path.join("home/out.tar");
        let mut words: Vec<String> = ["build", "--progress=plain", "-f"]
            .map(String::from)
            .to_vec();
        words.push(path.join("Dockerfile").display().to_string());
        words.push(format!(
            "--build-context=base=oci-layout://{}",
            path.join("base").display()
        ));
        words.push(format!(
            "--output=type=oci,dest={},rewrite-timestamp=true",
            out.display()
        ));
        words.extend(self.arguments.iter().cloned());
        words.push(self.place.context().display().to_string());
        let output = self.rbuild(&words);
        let log = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (output.status.success(), log.into_owned())
    }

    #[track_caller]
    fn ok(&self, dockerfile: &str) -> (Image, String) {
        let (success, log) = self.build(dockerfile);
        assert!(success, "build failed:\n{log}");
        (Image::read(&self.home().join("out.tar")), log)
    }

    /// Expects a failure that says all of `words`.
    #[track_caller]
    fn fails(&self, dockerfile: &str, words: &[&str]) {
        let (success, log) = self.build(dockerfile);
        assert!(!success, "should have failed:\n{log}");
        for word in words {
            assert!(log.contains(word), "no `{word}` in:\n{log}");
        }
    }

    fn info(&self) -> String {
        let output = self.rbuild(&["info".to_owned()]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

const EPOCH: &str = "--build-arg=SOURCE_DATE_EPOCH=1000000000";

const OWNERS: &str = "FROM base\nCOPY --chown=1000:1001 f /f\n\
    RUN chmod 4711 /f && mkdir -m 2775 /d && touch /d/x && rm -r /data\nADD caps.tar /caps/\n\
    USER app\nRUN echo $HOME > /tmp/home\nUSER root\nRUN --mount=type=cache,target=/c,uid=1000,mode=700 echo cached > /c/f\n\
    RUN --mount=type=cache,target=/c,uid=1000,mode=700 cat /c/f > /from-cache\nRUN chmod 555 /\nRUN mkdir /last\n";

/// A file with a capability, and one of another owner.
fn write_caps(place: &Place) {
    let mut tar = tar::Builder::new(fs::File::create(place.context().join("caps.tar")).unwrap());
    let mut header = tar::Header::new_ustar();
    header.set_size(2);
    header.set_mode(0o755);
    header.set_uid(33);
    header.set_gid(50);
    header.set_mtime(900_000_000);
    // Version 2, effective, CAP_NET_RAW permitted.
    let value: &[u8] = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    tar.append_pax_extensions([("SCHILY.xattr.security.capability", value)])
        .unwrap();
    tar.append_data(&mut header, "ping", &b"x\n"[..]).unwrap();
    tar.finish().unwrap();
}

#[test]
fn a_users_store_is_checked_and_mended_by_that_user() {
    let place = Place::new();
    place.file("f", "content\n");
    write_caps(&place);
    let by_user = ByUser::new(&place).arg("--tag=app");
    by_user.ok(OWNERS);
    let fsck = |words: &[&str]| {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        let output = by_user.rbuild(&words);
        let text =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (output.status.code(), text.into_owned())
    };
    let (code, text) = fsck(&["fsck"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("1 image, "), "{text}");
    // As root, whose ids are others, nothing would be as it was recorded.
    let store = by_user.home().join(".local/share/rbuild");
    let output = place
        .rbuild()
        .arg("fsck")
        .arg("--root")
        .arg(&store)
        .output()
        .unwrap();
    let refused = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{refused}");
    assert!(refused.contains("belongs to the user 21000"), "{refused}");
    let find =
        "find \"$1\" -path '*/snapshots/*' -name ping -exec sh -c 'echo X > \"$1\"' sh {} ';'";
    let spoilt = Command::new("sh")
        .args(["-euc", find, "sh"])
        .arg(&store)
        .status()
        .unwrap();
    assert!(spoilt.success());
    let (code, text) = fsck(&["fsck"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("`caps/ping` has other extended attributes"),
        "{text}"
    );
    let (code, text) = fsck(&["fsck", "--repair"]);
    assert_eq!(code, Some(0), "{text}");
    by_user.ok(OWNERS);
    assert_eq!(fsck(&["fsck"]).0, Some(0));
    // Directories of other ids, and without a right to write, are moved and removed all the same.
    let (code, text) = fsck(&["cache", "rm", "/c"]);
    assert_eq!(code, Some(0), "{text}");
    by_user.ok(&OWNERS.replace("echo cached", "echo again"));
    let (code, text) = fsck(&["prune", "--all", "--force"]);
    assert_eq!(code, Some(0), "{text}");
    for directory in ["snapshots", "mounts", "work"] {
        let left = fs::read_dir(store.join(directory)).unwrap().count();
        assert_eq!(left, 0, "{directory}: {text}");
    }
}

#[test]
fn the_image_is_roots_byte_for_byte() {
    let place = Place::new();
    place.file("f", "content\n");
    write_caps(&place);
    let path = place.path().join("out.tar");
    let as_root = place.build(OWNERS).arg(&format!(
        "--output=type=oci,dest={},rewrite-timestamp=true",
        path.display()
    ));
    as_root.arg(EPOCH).ok();
    let by_user = ByUser::new(&place).arg(EPOCH);
    let (image, log) = by_user.ok(OWNERS);
    assert!(
        log.contains("isolation: userns with 65537 user ids"),
        "{log}"
    );
    assert_eq!(
        image.entry("f").map(|file| (file.uid, file.gid)),
        Some((1000, 1001))
    );
    assert_eq!(image.text("from-cache"), "cached\n");
    let read = |path: PathBuf| fs::read(path).unwrap();
    assert!(
        read(path) == read(by_user.home().join("out.tar")),
        "the archives differ"
    );
    // What only hits enters no user namespace: nothing could.
    let idle = ByUser::new(&place)
        .arg(EPOCH)
        .before("mount --bind /bin/false /usr/bin/newuidmap");
    let (_, log) = idle.ok(OWNERS);
    assert!(log.contains("0 run"), "{log}");
    // And the store can be emptied: nothing is left behind that the user may not touch through rbuild.
    assert_eq!(
        fs::read_dir(by_user.home().join(".local/share/rbuild/work"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn without_a_range_everything_is_the_callers_and_other_owners_are_an_error() {
    let place = Place::new();
    place.file("f", "content\n");
    let user = ByUser::new(&place).without_range();
    let (image, log) = user.ok("FROM scratch\nCOPY f /f\n");
    assert!(
        log.contains("grants no ids to tester") && log.contains("usermod --add-subuids"),
        "{log}"
    );
    assert_eq!(
        image.entry("f").map(|file| (file.uid, file.gid)),
        Some((0, 0))
    );
    user.fails(
        "FROM scratch\nCOPY --chown=7:8 f /f\n",
        &[
            "the owner 7:8 can't be set",
            "usermod --add-subuids",
            "--ignore-chown-errors",
        ],
    );
}

#[test]
fn owners_are_left_out_when_asked_for_and_kept_apart() {
    let place = Place::new();
    place.file("f", "content\n");
    let dockerfile = "FROM base\nCOPY --chown=7:8 f /f\nUSER app\nRUN id -u > /tmp/u\n";
    let ignoring = ByUser::new(&place)
        .without_range()
        .arg("--ignore-chown-errors");
    let (image, log) = ignoring.ok(dockerfile);
    assert!(log.contains("all owners are left out"), "{log}");
    assert_eq!(
        image.entry("f").map(|file| (file.uid, file.gid)),
        Some((0, 0))
    );
    assert_eq!(image.text("tmp/u"), "0\n");
    // With a range, nothing of that is taken for the real thing.
    let (image, log) = ByUser::new(&place)
        .variable("RBUILD_IGNORE_CHOWN_ERRORS", "1")
        .ok(dockerfile);
    assert!(!log.contains("CACHED"), "{log}");
    assert_eq!(
        image.entry("f").map(|file| (file.uid, file.gid)),
        Some((7, 8))
    );
    assert_eq!(image.text("tmp/u"), "1000\n");
}

#[test]
fn what_is_missing_is_named_with_what_to_do() {
    let place = Place::new();
    let rows: [(&str, ByUser<'_>, &[&str]); 4] = [
        (
            "no set-user-ID bit",
            ByUser::new(&place).before("cp /usr/bin/newuidmap \"$etc/n\"; chmod 755 \"$etc/n\"; mount --bind \"$etc/n\" /usr/bin/newuidmap"),
            &["neither set-user-ID root", "chmod u+s /usr/bin/newuidmap"],
        ),
        (
            "no newuidmap",
            ByUser::new(&place).before(
                "mkdir \"$etc/bin\"; for f in /usr/bin/*; do case $f in */new?idmap) ;; *) ln -s \"/proc/self/root/$etc/usr-bin/${f##*/}\" \"$etc/bin/\";; esac; done; \
                 mkdir \"$etc/usr-bin\"; mount --bind /usr/bin \"$etc/usr-bin\"; mount --bind \"$etc/bin\" /usr/bin",
            ),
            &["`newuidmap` is not installed", "apt-get install uidmap"],
        ),
        (
            "no_new_privs",
            ByUser::new(&place).setpriv("--no-new-privs"),
            &["no_new_privs", "--security-opt no-new-privileges"],
        ),
        (
            "no range",
            ByUser::new(&place).without_range(),
            &["grants no ids to tester", "usermod --add-subuids"],
        ),
    ];
    for (name, user, words) in rows {
        let info = user.info();
        for word in words {
            assert!(info.contains(word), "{name}: no `{word}` in:\n{info}");
        }
        assert!(
            info.contains("`--isolation auto` takes: userns"),
            "{name}: {info}"
        );
    }
    let user = ByUser::new(&place).arg("--isolation=namespaces");
    user.fails(
        "FROM base\nRUN true\n",
        &["isolation `namespaces` can't be had here", "uid 21000"],
    );
}

#[test]
fn without_user_namespaces_a_chroot_is_taken_and_the_reason_is_told() {
    let place = Place::new();
    // The limit is this test's own user namespace's: the machine's stays.
    let limit = "exec unshare --user --map-root-user sh -euc 'echo 0 > /proc/sys/user/max_user_namespaces; \
        exec setpriv --bounding-set=-sys_admin -- \"$@\"' sh \"$etc/rbuild\" \"$@\"";
    let user = ByUser::new(&place).before(limit);
    user.fails(
        "FROM base\nRUN true\n",
        // A network of its own is more than it has: that is never given up unasked.
        &["user.max_user_namespaces", "sysctl -w", "--network host"],
    );
    let info = user.info();
    assert!(info.contains("`--isolation auto` takes: chroot"), "{info}");
    let asked = user.arg("--isolation=userns");
    asked.fails(
        "FROM base\nRUN true\n",
        &["isolation `userns` can't be had here"],
    );
}

#[test]
fn root_without_cap_sys_admin_takes_a_user_namespace() {
    let place = Place::new();
    let dockerfile = "FROM base\nRUN chown 5:6 /data && id -u > /u\n";
    let root = |options: &[&'static str]| {
        let mut user = ByUser::new(&place);
        user.setpriv = options.to_vec();
        user
    };
    let (image, log) = root(&["--bounding-set=-sys_admin"]).ok(dockerfile);
    assert!(log.contains("isolation: userns with"), "{log}");
    assert_eq!(
        image.entry("data").map(|data| (data.uid, data.gid)),
        Some((5, 6))
    );
    root(&["--bounding-set=-all"]).fails(dockerfile, &["CAP_SETFCAP", "--user 1000"]);
}

#[test]
fn a_covered_proc_is_shown_as_it_is_and_said_so() {
    let place = Place::new();
    let user = ByUser::new(&place).before("mount -t tmpfs -o ro tmpfs /proc/sys/kernel");
    let (image, log) = user.ok(
        "FROM base\nRUN cat /proc/self/status > /status; ls /proc/sys/kernel > /covered; echo $$ > /pid\n",
    );
    assert!(log.contains("see the processes of this container"), "{log}");
    assert!(
        image.text("status").contains("cat"),
        "/proc/self is the reader's"
    );
    assert_eq!(
        (image.text("covered").as_str(), image.text("pid").as_str()),
        ("", "1\n")
    );
    assert!(user.info().contains("unmask=ALL"));
}

/// A directory of the user's for a store, on an overlay.
const OVER: &str = "mkdir -p \"$etc/l\" \"$etc/u\" \"$etc/w\" \"$HOME/s\"; \
    mount -t overlay -o lowerdir=\"$etc/l\",upperdir=\"$etc/u\",workdir=\"$etc/w\" overlay \"$HOME/s\"; chmod 777 \"$HOME/s\"";

/// The same on a file system without extended attributes.
const RAM: &str = "mkdir -p \"$HOME/s\"; mount -t ramfs ramfs \"$HOME/s\"; chmod 777 \"$HOME/s\"";

/// A store that can't hold what overlays change is worked in by copies, on the same rung; one that can't even hold marks is named.
#[test]
fn a_store_without_overlays_is_worked_in_by_copies() {
    let place = Place::new();
    let user = ByUser::new(&place).before(OVER);
    let root = user.home().join("s/store").display().to_string();
    let user = user.arg(&format!("--root={root}"));
    let (image, log) = user.ok(
        "FROM base\nRUN rm /etc/group && echo x > /x && chown 7:8 /x\nUSER app\nRUN test ! -e /etc/group && id -u > /tmp/who",
    );
    let words = [
        "isolation: userns with 65537 user ids",
        "the store is on overlayfs, which can't hold another overlay's changes: steps work on copies",
        "--root DIR",
    ];
    for word in words {
        assert!(log.contains(word), "no `{word}` in:\n{log}");
    }
    assert!(image.entry("etc/.wh.group").is_some());
    let owner = image.entry("x").map(|entry| (entry.uid, entry.gid));
    assert_eq!(
        (owner, image.text("tmp/who").as_str()),
        (Some((7, 8)), "1000\n")
    );
    let kept = fs::read_dir(place.path().join("etc/u/store")).unwrap();
    let names: Vec<_> = kept.map(|entry| entry.unwrap().file_name()).collect();
    let is_trial = |name: &std::ffi::OsString| name.to_string_lossy().starts_with("probe");
    assert!(
        !names.is_empty() && !names.iter().any(is_trial),
        "{names:?}"
    );
    let place = Place::new();
    let user = ByUser::new(&place).before(RAM);
    let root = user.home().join("s/store").display().to_string();
    let user = user.arg(&format!("--root={root}"));
    user.fails(
        "FROM base\nRUN true\n",
        &["extended attributes", "--root DIR"],
    );
}

/// What can't be done is told once: the end of what was begun is no second error.
#[test]
fn a_helper_that_fails_is_told_of_once() {
    let place = Place::new();
    let before = "cp /bin/false \"$etc/n\"; chmod 4755 \"$etc/n\"; mount --bind \"$etc/n\" /usr/bin/newuidmap";
    let (is_done, log) = ByUser::new(&place)
        .before(before)
        .build("FROM base\nRUN true\n");
    assert!(!is_done, "{log}");
    assert_eq!(log.matches("did not map the ids").count(), 1, "{log}");
    assert!(!log.contains("WARN"), "{log}");
    let work = place.path().join("home/.local/share/rbuild/work");
    assert_eq!(fs::read_dir(work).unwrap().count(), 0, "nothing is left");
}

#[test]
fn a_failed_step_of_other_ids_can_be_entered() {
    let place = Place::new();
    let user = ByUser::new(&place).arg("--on-failure=keep");
    let dockerfile = "FROM base\nRUN mkdir -m 700 /work && chown 1000:1001 /work\nUSER app\nWORKDIR /work\nRUN echo half > made && chmod 400 made && rm -f /tmp/x; false\n";
    user.fails(dockerfile, &["a shell in it: rbuild shell"]);
    let open = |script: &str| {
        let words = ["shell", "last", "--", "sh", "-c", script].map(str::to_owned);
        let output = user.rbuild(&words);
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{output:?}");
        out
    };
    assert_eq!(open("id -u; cat made; rm -f made"), "1000\nhalf\n");
    assert_eq!(open("cat made; stat -c %u:%g /work"), "half\n1000:1001\n");
    let pruned = user.rbuild(&["prune", "-f"].map(str::to_owned));
    let out = String::from_utf8_lossy(&pruned.stdout).into_owned();
    assert!(out.contains("failed-step"), "{pruned:?}");
    let kept = user.home().join(".local/share/rbuild/kept");
    assert_eq!(fs::read_dir(kept).unwrap().count(), 0);
}

/// Root of a container that forbids namespaces and mounts: without the capabilities that they take.
const IN_A_CONTAINER: [&str; 2] = [
    "--bounding-set=-sys_admin,-setfcap",
    "--inh-caps=-sys_admin,-setfcap",
];

#[test]
fn in_a_container_that_forbids_namespaces_auto_takes_a_chroot_and_says_so() {
    let place = Place::new();
    place.file("f", "content");
    let dockerfile = "FROM base AS tools\nRUN echo tool > /tool && chown 7:8 /tool\nFROM base\nARG SOURCE_DATE_EPOCH\nCOPY --chown=app f /f\n\
        RUN rm /data/one && mkdir -p /a/b && echo x > /a/b/c && ln -s c /a/b/l && ln /a/b/c /a/d\nCOPY --from=tools /tool /bin/\nUSER app\nWORKDIR /home/app\n\
        RUN <<EOT\nid -u > /tmp/who\nEOT\n";
    let rooted = ByUser {
        setpriv: vec!["--reuid=0"],
        ..ByUser::new(&place).arg("--network=host").arg(EPOCH)
    };
    let (image, _) = rooted.ok(dockerfile);
    let mut contained = ByUser {
        setpriv: IN_A_CONTAINER.to_vec(),
        ..ByUser::new(&place).arg("--network=host").arg(EPOCH)
    };
    contained.arguments.push("--root".to_owned());
    contained
        .arguments
        .push(place.path().join("home/chroot").display().to_string());
    let (same, log) = contained.ok(dockerfile);
    assert!(
        log.contains("isolation: chroot (this root has no CAP_SETFCAP"),
        "{log}"
    );
    assert_eq!(same.diff_ids(), image.diff_ids(), "{log}");
    // Every step says what it can't have.
    let offline = ByUser {
        setpriv: IN_A_CONTAINER.to_vec(),
        ..ByUser::new(&place)
    };
    offline.fails(
        "FROM base\nRUN true # private\n",
        &["a chroot has no network of its own", "`--network host`"],
    );
}

#[test]
fn in_a_namespace_with_one_id_a_chroot_changes_no_groups() {
    let place = Place::new();
    // As `unshare -r` makes it, without what mounts take.
    let one_id = "chown 0:0 \"$HOME\"; exec unshare --user --map-root-user setpriv \
        --bounding-set=-sys_admin,-setfcap --inh-caps=-sys_admin,-setfcap -- \"$etc/rbuild\" \"$@\"";
    let user = ByUser::new(&place).arg("--network=host").before(one_id);
    let (image, log) = user.ok("FROM base\nRUN id -u > /who; echo $? > /tmp/new\n");
    assert!(log.contains("isolation: chroot"), "{log}");
    assert_eq!(image.text("who"), "0\n");
    user.fails(
        "FROM base\nUSER app\nRUN true\n",
        &[
            "cannot become user `app`",
            "1000:1001 are not mapped",
            "give it more ids",
        ],
    );
}
