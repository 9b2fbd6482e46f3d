//! Jobs on a copy of their root instead of an overlay, in a chroot and in a sandbox: the same layers; and what can't be had in a
//! chroot.

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use common::Place;
use rbuild_runner::isolation::Rung;
use rbuild_runner::job::*;
use rbuild_runner::{JobErrorKind, Roots, SpawnerOptions};

fn in_chroot() -> Option<Place> {
    let place = Place::new()?;
    let rung = Rung::Chroot {
        because: "this is a test".into(),
        remedy: String::new(),
    };
    place.spawner.isolate(&rung).expect("the first rung");
    Some(place)
}

/// A place whose sandboxes stand on copies.
fn in_place() -> Option<Place> {
    Place::with(SpawnerOptions {
        roots: Roots::Copy,
        ..SpawnerOptions::default()
    })
}

/// Both places without overlays, by name.
fn without_overlays() -> Vec<(&'static str, Place)> {
    let both = [("chroot", in_chroot()), ("in place", in_place())];
    let both = both.into_iter();
    both.filter_map(|(name, place)| Some((name, place?)))
        .collect()
}

/// A job in a chroot has the network that is there.
fn job(place: &Place, text: &str) -> RunJob {
    RunJob {
        network: Network::Host,
        ..place.job(text)
    }
}

/// Everything that a layer's bytes depend on, apart from times.
fn without_times(layer: SealedLayer) -> Vec<LayerEntry> {
    let entry = |entry: LayerEntry| LayerEntry {
        mtime: 0,
        mtime_nanos: 0,
        ..entry
    };
    layer.entries.into_iter().map(entry).collect()
}

/// An entry as people read it.
fn line(entry: &LayerEntry) -> String {
    let LayerEntry {
        kind,
        mode,
        uid,
        gid,
        xattrs,
        ..
    } = entry;
    let path = String::from_utf8_lossy(&entry.path);
    format!("{path} {kind:?} {mode:o} {uid}:{gid} {xattrs:?}")
}

/// Runs texts one after another, each on the layers of those before; the layers.
fn layers(place: &Place, texts: &[&str]) -> Vec<String> {
    let mut lowers = vec![place.base()];
    let mut layers = Vec::new();
    for text in texts {
        let mut job = job(place, text);
        job.root.lowers.clone_from(&lowers);
        let ran = place.run(job);
        lowers.push(ran.scratch.join("upper"));
        let said = format!("{text}: {}", ran.stderr);
        let layer = ran.result.expect(&said).layer.expect(&said);
        layers.push(format!("after {text}"));
        layers.extend(without_times(layer).iter().map(line));
    }
    layers
}

#[test]
fn commands_leave_the_same_layers_as_with_mounts() {
    let Some(mounts) = Place::new() else {
        return;
    };
    let texts = [
        "chown 7:8 /home; mkdir -p /a/b/c; echo x > /a/b/f; chown 65534:65534 /a/b/f; chmod 4755 /a/b/f; ln -s f /a/b/l; \
         ln /a/b/f /a/g; rm -r /tmp; rm -r /usr; mkdir /usr; touch /usr/new; rm /etc/passwd; echo > /etc/motd; echo y > /a/b/c/deep",
        "rm -r /a/b; rm /a/g; echo z > /a/g; mkdir /tmp; rm /etc/motd; mkdir -p /etc/motd/inside",
        "true",
        "mkdir /a/b; echo again > /a/b/f; rm -r /etc/motd; echo root > /etc/motd; rm /usr/new; chmod 700 /a",
        "chmod 711 /; mknod /a/fifo p",
        "rm -r /a /usr; ln -s /etc /a; mv /home /house",
    ];
    let expected = layers(&mounts, &texts);
    for (name, place) in without_overlays() {
        let made = layers(&place, &texts);
        for line in &made {
            assert!(
                expected.contains(line),
                "only on a copy ({name}): {line}\n{made:#?}"
            );
        }
        assert_eq!(made, expected, "{name}");
    }
}

/// Mount points that the image lacks are made in the root itself, and no layer shows them.
#[test]
fn what_is_mounted_in_place_leaves_the_same_layers_as_on_an_overlay() {
    let (Some(copies), Some(overlays)) = (in_place(), Place::new()) else {
        return;
    };
    let run = |place: &Place, lowers: Vec<PathBuf>, text: &str| {
        let mut job = place.job(text);
        job.root.lowers = lowers;
        for target in ["/etc/hosts", "/run/secrets/deep/one", "/usr/file"] {
            job.files.push(ProvidedFile {
                target: target.into(),
                content: format!("of {target}\n").into_bytes(),
                mode: 0o644,
                uid: 0,
                gid: 0,
            });
        }
        let other = place.new_directory();
        fs::write(other.join("there"), "there\n").unwrap();
        let chain = |scratch, access| SandboxMountKind::Chain {
            lowers: vec![place.base()],
            source: b"/etc".to_vec(),
            access,
            scratch,
        };
        let kinds = [
            SandboxMountKind::Tmpfs {
                size: None,
                is_read_only: false,
            },
            SandboxMountKind::Directory {
                root: other.clone(),
                source: b"/".to_vec(),
                access: Access::Shared,
            },
            SandboxMountKind::Directory {
                root: other,
                source: b"/".to_vec(),
                access: Access::Discarded(place.new_directory()),
            },
            chain(place.new_directory(), Access::ReadOnly),
            chain(
                place.new_directory(),
                Access::Discarded(place.new_directory()),
            ),
        ];
        let targets = [
            "/mnt/tmpfs",
            "/var/cache",
            "/home/bound",
            "/etc/chain",
            "/kept/copy",
        ];
        job.mounts = std::iter::zip(targets, kinds)
            .map(|(target, kind)| SandboxMount {
                target: target.into(),
                kind,
            })
            .collect();
        job.working_directory = b"/made/for/it".to_vec();
        let ran = place.run(job);
        let said = format!("{text}: {}", ran.stderr);
        let outcome = ran.result.expect(&said);
        let layer = outcome.layer.expect(&said);
        let lines: Vec<String> = without_times(layer).iter().map(line).collect();
        (ran.stdout, lines, ran.scratch.join("upper"))
    };
    let texts = [
        "cat /etc/hosts /run/secrets/deep/one /usr/file /var/cache/there /home/bound/there; ls /etc/chain /kept/copy; pwd; id -u; \
         grep -c . /proc/mounts > /mnt/tmpfs/count; touch /var/cache/mine /home/bound/mine /kept/copy/mine; \
         touch /etc/chain/mine 2>/dev/null || echo refused",
        "echo x > /usr/mine; rm -r /tmp; chmod 711 /home; ls /var 2>/dev/null; ls /run",
        "mkdir -p /var/lib /run/lock; rm -r /usr/mine; echo > /mnt/here; grep -c 'Seccomp:.*2' /proc/self/status; hostname",
    ];
    let all = |place: &Place| {
        let mut lowers = vec![place.base()];
        let mut seen = Vec::new();
        for text in texts {
            let (stdout, lines, upper) = run(place, lowers.clone(), text);
            lowers.push(upper);
            seen.push((stdout, lines));
        }
        seen
    };
    let (made, expected) = (all(&copies), all(&overlays));
    assert!(expected[0].0.contains("refused") && expected[2].0.contains("buildkitsandbox"));
    assert_eq!(made, expected);
}

#[test]
fn what_is_only_touched_is_in_no_layer() {
    let Some(mounts) = Place::new() else {
        return;
    };
    let upper = |place: &Place| {
        let base = place.base();
        fs::create_dir_all(base.join("d/gone")).expect("made");
        let names = [
            "mode", "moved", "written", "timed", "d/gone/f", "marked", "one", "pair",
        ];
        for name in names {
            fs::write(base.join(name), "old\n").expect("written");
        }
        for (name, other) in [("one", "other-name"), ("pair", "pair-too")] {
            fs::hard_link(base.join(name), base.join(other)).expect("linked");
        }
        std::os::unix::fs::symlink("mode", base.join("link")).expect("linked");
        let time = "find \"$1\" -exec touch -h -d @1000000000 {} +";
        let mut command = Command::new("sh");
        let timed = command.args(["-c", time, "sh"]).arg(base).status();
        assert!(timed.expect("sh").success());
        let ran = place.run(job(
            place,
            "chmod 644 /mode; chown -h 0:0 /link /other-name; mv /moved /m && mv /m /moved; ln /pair /third; \
             echo new > /written && touch -r /mode /written; touch /timed; chmod 600 /marked; \
             cp -a /d/gone /kept && rm -r /d/gone && mv /kept /d/gone",
        ));
        assert!(ran.result.is_ok(), "{ran:?}");
        ran.upper()
    };
    let mut expected = upper(&mounts);
    assert_eq!(
        expected,
        [
            "d", "d/gone", "d/gone/f", "marked", "pair", "third", "timed", "written"
        ]
    );
    // The file itself got a third name: an overlay would have taken a copy with two away from the other.
    expected.insert(5, "pair-too".to_owned());
    for (name, place) in without_overlays() {
        assert_eq!(upper(&place), expected, "{name}");
    }
}

#[test]
fn files_are_copied_into_the_same_layers() {
    let Some(mounts) = Place::new() else {
        return;
    };
    let copy = |place: &Place| {
        let source = place.new_directory();
        std::fs::write(source.join("f"), "content").unwrap();
        let root = OverlaySpec {
            lowers: vec![place.base()],
            scratch: place.new_directory(),
        };
        let operations = vec![
            FileOperation::MakeDirectory {
                path: b"/work/deep".to_vec(),
                owner: b"app".to_vec(),
                mtime: None,
            },
            FileOperation::Copy(CopyOperation {
                source: 0,
                selection: Selection::File {
                    path: b"f".to_vec(),
                    name: b"f".to_vec(),
                    entry: SelectedEntry {
                        path: Vec::new(),
                        mode: Some(0o640),
                        ids: Some((0, 0)),
                        expected: None,
                    },
                },
                destination: b"/etc/".to_vec(),
                owner: None,
                parent_mode: 0o755,
                unpacks: false,
            }),
        ];
        let job = FileJob {
            root,
            sources: vec![SourceRoot::Directory(source)],
            operations,
        };
        without_times(
            place
                .spawner
                .begin_files(job)
                .and_then(rbuild_runner::JobHandle::wait)
                .expect("changed")
                .layer,
        )
    };
    let expected = copy(&mounts);
    for (name, place) in without_overlays() {
        assert_eq!(copy(&place), expected, "{name}");
    }
}

#[test]
fn what_is_provided_is_there_and_in_no_layer() {
    let Some(place) = in_chroot() else { return };
    let text = "cat /etc/hosts /run/script; echo lost > /dev/null; rm /etc/hosts; echo mine > /etc/mine; pwd; \
                test -e /dev/urandom && head -c 3 /dev/zero | wc -c";
    let mut job = job(&place, text);
    job.working_directory = b"/made/for/it".to_vec();
    for target in ["/etc/hosts", "/run/script"] {
        job.files.push(ProvidedFile {
            target: target.into(),
            content: format!("of {target}\n").into_bytes(),
            mode: 0o644,
            uid: 0,
            gid: 0,
        });
    }
    let ran = place.run(job);
    assert_eq!(
        ran.stdout, "of /etc/hosts\nof /run/script\n/made/for/it\n3\n",
        "{:?}",
        ran.result
    );
    assert_eq!(
        ran.upper(),
        ["etc", "etc/mine", "made", "made/for", "made/for/it"]
    );
    // What stood there before is there again for the next one.
    let mut job = self::job(&place, "ls / /etc; ls /run /dev || true");
    job.root.lowers.push(ran.scratch.join("upper"));
    let seen = place.run(job).ok();
    for name in ["mine", "passwd"] {
        assert!(seen.contains(name), "{seen}");
    }
    for name in ["script", "hosts"] {
        assert!(!seen.contains(name), "{seen}");
    }
}

#[test]
fn the_root_goes_along_a_chain() {
    for (name, place) in without_overlays() {
        goes_along_a_chain(name, &place);
    }
}

fn goes_along_a_chain(name: &str, place: &Place) {
    // As a store has it: work/<lease>/<scratch>, and snapshots beside it.
    let store = place.directory.path().join("store");
    let lease = store.join("work/lease");
    let snapshots = store.join("snapshots");
    for directory in [&lease, &snapshots] {
        std::fs::create_dir_all(directory).expect("made");
    }
    let step = |number: usize, lowers: &[PathBuf], text: &str| {
        let scratch = lease.join(format!("{number}-run"));
        std::fs::create_dir(&scratch).expect("made");
        let mut job = job(place, text);
        job.root = OverlaySpec {
            lowers: lowers.to_vec(),
            scratch: scratch.clone(),
        };
        let ran = place.run(job);
        let layer = ran.result.expect("it ran").layer;
        layer.map(|layer| {
            let name = layer.diff_id.trim_start_matches("sha256:").to_owned();
            std::fs::rename(scratch.join("upper"), snapshots.join(&name)).expect("moved");
            snapshots.join(name)
        })
    };
    let waiting = || std::fs::read_dir(lease.join("roots")).map_or(0, Iterator::count);
    let mut lowers = vec![place.base()];
    for number in 0..3 {
        let made = step(number, &lowers, &format!("echo {number} >> /log; cat /log"));
        lowers.push(made.expect("a layer"));
        assert_eq!(waiting(), 1, "{name}: one root is kept, and goes along");
    }
    assert_eq!(
        std::fs::read_to_string(lowers[3].join("log")).expect("read"),
        "0\n1\n2\n"
    );
    // One that failed is not given on.
    assert!(step(3, &lowers, "echo spoilt >> /log; false").is_none());
    assert_eq!(waiting(), 0);
    let made = step(4, &lowers, "echo 3 >> /log").expect("a layer");
    assert_eq!(
        std::fs::read_to_string(made.join("log")).expect("read"),
        "0\n1\n2\n3\n"
    );
}

#[test]
fn what_a_command_leaves_running_is_ended() {
    let Some(place) = in_chroot() else { return };
    let text = "(setsid sh -c 'echo > /tmp/up; exec sleep 98765' &) ; while ! test -e /tmp/up; do sleep 0.1; done";
    place.run(job(&place, text)).ok();
    let running = std::process::Command::new("grep")
        .args(["-l", "98765"])
        .args(
            std::fs::read_dir("/proc")
                .unwrap()
                .flatten()
                .map(|entry| entry.path().join("cmdline")),
        )
        .output()
        .unwrap();
    let running = String::from_utf8_lossy(&running.stdout).into_owned();
    let own = format!("/proc/{}/", std::process::id());
    let left: Vec<&str> = running
        .lines()
        .filter(|line| !line.contains(&own) && !line.contains("/self/"))
        .collect();
    let left: Vec<&str> = left
        .into_iter()
        .filter(|line| std::fs::read(line).is_ok_and(|text| text.starts_with(b"sleep")))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_chroot_is_not_left() {
    let Some(place) = in_chroot() else { return };
    let text = "grep CapBnd /proc/self/status 2> /dev/null; mkdir /in && chroot /in /bin/sh -c true; echo $?; \
                mknod /tmp/disk b 8 0; echo $?; ls /..";
    let ran = place.run(job(&place, text));
    let seen = ran.ok();
    let lines: Vec<&str> = seen.lines().collect();
    assert_ne!(lines[0], "0", "{seen}");
    assert_ne!(lines[1], "0", "{seen}");
    assert!(seen.contains("etc") && !seen.contains("boot"), "{seen}");
}

#[test]
fn what_takes_mounts_or_namespaces_is_refused() {
    let Some(place) = in_chroot() else { return };
    let mut with_mount = job(&place, "true");
    with_mount.mounts.push(SandboxMount {
        target: b"/cache".to_vec(),
        kind: SandboxMountKind::Tmpfs {
            size: None,
            is_read_only: false,
        },
    });
    let offline = RunJob {
        network: Network::None,
        ..job(&place, "true")
    };
    for (job, words, help) in [
        (
            with_mount,
            "a chroot has no mounts, and the step wants one at `/cache`",
            "COPY",
        ),
        (
            offline,
            "a chroot has no network of its own",
            "--network host",
        ),
    ] {
        let ran = place.run(job);
        let error = ran.error();
        assert_eq!(error.kind, JobErrorKind::MissingPrivilege);
        assert!(error.to_string().contains(words), "{error}");
        assert!(
            error
                .help
                .as_deref()
                .is_some_and(|text| text.contains(help)),
            "{error:?}"
        );
    }
}
