//! Jobs below a user namespace: the same results, ids that are missing, what is left of it.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use common::Place;
use rbuild_runner::JobErrorKind;
use rbuild_runner::isolation::{self, IdMaps, IdRange, IdSource, Isolation, Rung};
use rbuild_runner::job::*;

/// All ids, as root in a container maps them.
fn all_ids() -> IdMaps {
    match isolation::decide(Isolation::Userns, false) {
        Ok(Rung::Userns(maps)) => maps,
        other => panic!("{other:?}"),
    }
}

/// Only root's own id, as a user without a grant has only theirs.
fn one_id(ignores_chown_errors: bool) -> IdMaps {
    let root = IdRange {
        inside: 0,
        outside: 0,
        count: 1,
    };
    IdMaps {
        uids: vec![root],
        gids: vec![root],
        source: IdSource::Single {
            because: "this is a test".into(),
            remedy: "do something else".into(),
        },
        ignores_chown_errors,
    }
}

fn in_userns(maps: fn() -> IdMaps) -> Option<Place> {
    common::has_privileges().then(|| Place::in_userns(maps()))?
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

#[test]
fn a_command_leaves_the_same_layer_as_roots() {
    let text = "chown 7:8 /home; mkdir -p /a/b; echo x > /a/b/f; chown 65534:65534 /a/b/f; chmod 4755 /a/b/f; ln -s f /a/b/l; \
        ln /a/b/f /a/g; rm -r /tmp; rm -r /usr; mkdir /usr; touch /usr/new; rm /etc/passwd";
    let layer = |place: Place| {
        let ran = place.run(place.job(text));
        without_times(ran.result.expect("ran").layer.expect("a layer"))
    };
    let (Some(root), Some(user)) = (Place::new(), in_userns(all_ids)) else {
        return;
    };
    let (as_root, in_namespace) = (layer(root), layer(user));
    assert!(as_root.iter().any(|entry| entry.uid == 65_534));
    assert_eq!(as_root, in_namespace);
}

#[test]
fn the_sandbox_is_as_tight_as_roots() {
    let text = "grep -E '^Cap(Prm|Eff|Bnd|Inh|Amb)|^Seccomp:' /proc/self/status; cat /proc/self/uid_map | wc -l; id; echo $$; \
        touch /proc/sys/kernel/domainname; ls /proc/acpi /sys/firmware | wc -l; dd if=/dev/null; unshare -m true; mknod /n c 1 3";
    let (Some(root), Some(user)) = (Place::new(), in_userns(all_ids)) else {
        return;
    };
    let output = |place: Place| {
        let ran = place.run(place.job(text));
        (ran.stdout.clone(), ran.stderr)
    };
    let ((root_out, _), (user_out, user_err)) = (output(root), output(user));
    assert_eq!(root_out, user_out);
    assert!(
        user_err.contains("mknod: /n: Operation not permitted"),
        "{user_err}"
    );
}

#[test]
fn an_id_that_is_missing_is_named_with_the_way_out() {
    let Some(place) = in_userns(|| one_id(false)) else {
        return;
    };
    assert!(place.sh("id").starts_with("uid=0(root) gid=0(root)"));
    let mut job = place.job("true");
    job.user = b"app".to_vec();
    let ran = place.run(job);
    let help = ran.error().help.clone().unwrap_or_default();
    assert!(
        help.contains("1000:1001") && help.contains("do something else"),
        "{help}"
    );

    let owned = |uid| FileJob {
        root: OverlaySpec {
            lowers: vec![place.base()],
            scratch: place.new_directory(),
        },
        sources: Vec::new(),
        operations: vec![FileOperation::Copy(CopyOperation {
            source: 0,
            selection: Selection::Inline {
                name: b"f".to_vec(),
                content: b"x".to_vec(),
                mode: 0o644,
                mtime: None,
            },
            destination: b"/f".to_vec(),
            owner: Some(OwnerSpec::Ids(uid, 0)),
            parent_mode: 0o755,
            unpacks: false,
        })],
    };
    assert!(place.spawner.files(owned(0)).is_ok());
    let error = place.spawner.files(owned(5)).expect_err("5 is not mapped");
    assert!(
        error
            .help
            .unwrap_or_default()
            .contains("--ignore-chown-errors")
    );
}

#[test]
fn missing_owners_are_left_out_when_asked_for() {
    let Some(place) = in_userns(|| one_id(true)) else {
        return;
    };
    let mut job = place.job("id -u; touch /made");
    job.user = b"app".to_vec();
    job.mounts.push(SandboxMount {
        target: b"/secret".to_vec(),
        kind: SandboxMountKind::File {
            content: b"s".to_vec(),
            mode: 0o400,
            uid: 5,
            gid: 5,
        },
    });
    let ran = place.run(job);
    let outcome = ran.result.expect("ran");
    assert_eq!(ran.stdout, "0\n");
    let layer = outcome.layer.expect("a layer");
    assert!(layer.entries.iter().all(|entry| entry.uid == 0));
}

#[test]
fn a_namespace_that_cannot_be_entered_fails_every_job_with_the_reason() {
    if !common::has_privileges() {
        return;
    }
    let broken = IdMaps {
        source: IdSource::Granted {
            newuidmap: "/bin/false".into(),
            newgidmap: "/bin/false".into(),
        },
        ..one_id(false)
    };
    let Some(place) = Place::in_userns(broken) else {
        return;
    };
    for _ in 0..2 {
        let ran = place.run(place.job("true"));
        assert_eq!(ran.error().kind, JobErrorKind::MissingPrivilege);
        assert!(
            ran.error().message.contains("/bin/false"),
            "{:?}",
            ran.error()
        );
    }
    let other = place.spawner.isolate(&Rung::Namespaces);
    assert!(other.is_err(), "a spawner stands on one rung for good");
}

#[test]
fn a_cancelled_command_and_a_dropped_spawner_leave_nothing() {
    let Some(place) = in_userns(all_ids) else {
        return;
    };
    for drops_spawner in [false, true] {
        let text = "for i in 1 2 3; do setsid sleep 7744 & done; echo started; sleep 7744";
        let (handle, stdout, _stderr) = place.start(place.job(text));
        let handle = handle.expect("started");
        let mut stdout = BufReader::new(stdout);
        stdout.read_line(&mut String::new()).expect("started");
        if drops_spawner {
            drop(handle);
        } else {
            handle.cancel();
            let outcome = handle.wait().expect("cancelled");
            assert_eq!(outcome.status, CommandStatus::Cancelled);
        }
        // End of file comes when the last process that holds the pipe has ended.
        stdout.read_to_end(&mut Vec::new()).expect("end");
    }
}

#[test]
fn trees_are_moved_and_prepared_whoever_owns_them() {
    let Some(place) = in_userns(all_ids) else {
        return;
    };
    let (from, into) = (place.new_directory(), place.new_directory());
    fs::create_dir(from.join("d")).expect("mkdir");
    fs::write(from.join("d/f"), "x").expect("write");
    symlink("/etc", from.join("l")).expect("link");
    fs::set_permissions(&from, fs::Permissions::from_mode(0o2750)).expect("chmod");
    let content = |from: &std::path::Path| MoveJob::Content {
        from: from.to_owned(),
        into: into.clone(),
    };
    place.spawner.move_tree(content(&from)).expect("moved");
    assert_eq!(fs::read_to_string(into.join("d/f")).expect("there"), "x");
    assert!(into.join("l").is_symlink());
    assert_eq!(fs::metadata(&into).expect("stat").mode() & 0o7777, 0o2750);
    // What is not there, or no directory, has nothing in it; a symlink is not followed.
    for name in ["missing", "l"] {
        place
            .spawner
            .move_tree(content(&into.join(name)))
            .expect("nothing to do");
    }
    let attributes = AttributesJob {
        path: into.clone(),
        uid: 12,
        gid: 13,
        mode: 0o1700,
    };
    place.spawner.set_attributes(attributes).expect("set");
    let metadata = fs::metadata(&into).expect("stat");
    assert_eq!(
        (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777),
        (12, 13, 0o1700)
    );
    let whole = MoveJob::Whole {
        from: into.clone(),
        to: place.directory.path().join("moved"),
    };
    place.spawner.move_tree(whole).expect("moved");
    assert!(place.directory.path().join("moved/d/f").exists() && !into.exists());
}

#[test]
fn a_survey_changes_nothing_and_the_rung_is_still_free() {
    let Some(place) = Place::new() else { return };
    let store = place.new_directory();
    let survey = place.spawner.survey(&store).expect("survey");
    assert!(
        survey.rungs.iter().all(|(_, outcome)| outcome.is_ok()),
        "{survey:?}"
    );
    let overlay = survey.abilities.iter().find(|(name, _)| name == "overlay");
    assert!(matches!(overlay, Some((_, Ok(_)))), "{survey:?}");
    assert_eq!(fs::read_dir(&store).expect("list").count(), 0);
    place
        .spawner
        .isolate(&Rung::Userns(all_ids()))
        .expect("nothing was chosen");
    let ground = place.spawner.describe().expect("ground");
    assert!(ground.has_own_proc && ground.has_own_hostname);
    assert_eq!(place.sh("echo $$; hostname"), "1\nbuildkitsandbox\n");
}
