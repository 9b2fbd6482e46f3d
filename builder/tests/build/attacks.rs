//! Dockerfiles and images that want more than a build may have; each is shown to work where the guard is taken away, or granted.

use std::fs;
use std::os::unix::fs::symlink;

use crate::support::{Place, busybox_layer, write_layout};

/// Privileges are what the caller granted, whatever the Dockerfile says.
#[test]
fn a_step_that_frees_itself() {
    let dockerfile = "FROM base\nRUN --security=insecure cat /proc/self/status > /status\n";
    let place = Place::new();
    let granted = place
        .build(dockerfile)
        .arg("--allow=security.insecure")
        .ok();
    let status = granted.image.text("status");
    assert!(!status.contains("a80425fb"), "the attack: {status}");
    let (code, log) = Place::new().build(dockerfile).err();
    assert_eq!(code, 1);
    assert!(log.contains("--allow security.insecure"), "{log}");
    // What was done with the grant is no hit for a build without it.
    let (_, log) = place.build(dockerfile).err();
    assert!(log.contains("--allow security.insecure"), "{log}");
}

#[test]
fn a_cache_mount_named_by_a_path() {
    let place = Place::new();
    let outside = place.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let id = "../../outside";
    // As it was done: the id is a path below the directory of cache mounts.
    fs::create_dir_all(place.path().join("root/mounts")).unwrap();
    let naively = place.path().join("root/mounts").join(id);
    assert_eq!(
        naively.canonicalize().unwrap(),
        outside.canonicalize().unwrap()
    );
    fs::remove_dir_all(place.path().join("root")).unwrap();
    for id in [id, "/../../outside", outside.to_str().unwrap()] {
        let run = format!("FROM base\nRUN --mount=type=cache,id={id},target=/c touch /c/mark\n");
        place.build(&run).ok();
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{id}");
    }
}

/// The source of a cache mount is a path in it, and another step may have made that a link.
#[test]
fn a_source_that_is_a_link() {
    let place = Place::new();
    fs::write(place.path().join("secret"), "canary").unwrap();
    let secret = place.path().join("secret");
    let make = format!(
        "ln -sfn {} /c/link; ln -sfn {} /c/file",
        place.path().display(),
        secret.display()
    );
    let image = format!(
        "FROM base AS evil\nRUN --mount=type=cache,id=x,target=/c {make}\nRUN ln -s {0} /link && ln -s {0} /root-link\n",
        place.path().display()
    );
    for mount in [
        "type=cache,id=x,source=link,target=/m",
        "type=bind,from=evil,source=/link,target=/m",
        "type=bind,from=evil,source=/root-link/secret,target=/m",
    ] {
        let dockerfile = format!(
            "{image}FROM base\nRUN --mount={mount} cat /m /m/secret; true\nCOPY --from=evil /etc/passwd /x\n"
        );
        // Nothing is there inside, so the step may fail; what is outside is not seen.
        let output = place.build(&dockerfile).command().output().unwrap();
        let log = [output.stdout, output.stderr].concat();
        let log = String::from_utf8_lossy(&log);
        assert!(!log.contains("canary"), "{mount}: {log}");
    }
    let naively = place.path().join("link");
    symlink(&secret, &naively).unwrap();
    assert_eq!(fs::read_to_string(naively).unwrap(), "canary", "the attack");
}

/// Options of mount(8) are none of `RUN --mount`'s.
#[test]
fn a_mount_option_of_ones_own() {
    for option in [
        "bind-propagation=shared",
        "bind-propagation=dev,suid",
        "relabel=shared",
        "z",
        "U",
        "z=true",
    ] {
        let dockerfile = format!("FROM base\nRUN --mount=type=bind,{option},target=/m true\n");
        let (_, log) = Place::new().build(&dockerfile).err();
        let name = option.split(['=', ',']).next().unwrap_or_default();
        let refusal = format!("there is no mount option `{name}`");
        assert!(log.contains(&refusal), "{option}: {log}");
    }
}

/// A host's file by an absolute source, or one that climbs: all are beneath the context.
#[test]
fn a_mount_of_the_hosts_files() {
    let place = Place::new();
    fs::write(place.path().join("secret"), "canary").unwrap();
    place.file("a", "");
    for source in [
        "/etc/hostname",
        "../secret",
        "../../../../../../../../etc/hostname",
    ] {
        let dockerfile =
            format!("FROM base\nRUN --mount=type=bind,source={source},target=/m cat /m\n");
        let (_, log) = place.build(&dockerfile).err();
        assert!(!log.contains("canary"), "{source}: {log}");
    }
}

/// What an image says of itself is data: labels, volumes, stop signals and commands of a base run nothing while building.
#[test]
fn an_image_that_wants_to_be_run() {
    let place = Place::new();
    let base = place.path().join("base");
    let layers = [busybox_layer()];
    let container = serde_json::json!({
        "Env": ["PATH=/bin", "LD_PRELOAD=/evil.so", "BASH_ENV=/evil"],
        "Entrypoint": ["/bin/sh", "-c", "echo entered"],
        "Volumes": {"/../../..": {}, "/etc": {}},
        "Healthcheck": {"Test": ["CMD-SHELL", "echo healthy"]},
        "Labels": {"containerd.io/restart.loguri": "binary:///bin/sh"},
        "User": "0:0",
    });
    write_layout(&base, &layers, &container);
    let built = place.build("FROM base\nRUN echo run\n").ok();
    for word in ["entered", "healthy"] {
        assert!(!built.log.contains(word), "{}", built.log);
    }
}

/// A variable of an image that has a name and no value, or a pattern, is not filled from the caller's own variables.
#[test]
fn an_image_that_asks_for_the_callers_variables() {
    let place = Place::new();
    let container = serde_json::json!({
        "Env": ["PATH=/bin", "RBUILD_TEST_CANARY", "RBUILD_TEST_*", "*"],
    });
    write_layout(&place.path().join("base"), &[busybox_layer()], &container);
    let dockerfile = "FROM base\nRUN echo seen; env; env > /seen\nENV COPY=${RBUILD_TEST_CANARY}\n";
    let variable = "RBUILD_TEST_CANARY";
    let built = place.build(dockerfile).env(variable, "a canary").ok();
    assert!(built.log.contains("seen"), "{}", built.log);
    assert!(!built.log.contains("a canary"), "{}", built.log);
    assert!(!built.image.text("seen").contains("a canary"));
    // Taken by the caller's own word alone.
    let given = place
        .build("FROM base\nARG RBUILD_TEST_CANARY\nRUN env > /seen\n")
        .arg("--build-arg=RBUILD_TEST_CANARY")
        .env(variable, "a canary")
        .ok();
    assert!(given.image.text("seen").contains("a canary"));
}
