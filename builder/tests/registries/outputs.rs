//! Outputs of builds and archives of the store, as others take them.

use std::fs;

use super::home::{Home, told};
use super::place::run;
use super::registry::Registry;
use super::skopeo_digest;

#[test]
fn archives_and_outputs_are_taken_by_others() {
    let Some(home) = Home::new() else { return };
    let registry = Registry::start(&home.path("registry"));
    let name = format!("{}/app", registry.address);
    let archive = home.path("docker.tar");
    let oci = home.path("oci.tar");
    let docker = format!("type=docker,dest={},name=app:1", archive.display());
    let zstd = format!(
        "type=oci,dest={},compression=zstd,annotation-index.a=b",
        oci.display()
    );
    let push = format!("type=registry,\"name={name}:1,{name}:2\",oci-mediatypes=false");
    let metadata = home.path("metadata.json");
    let (done, log) = home.build(
        "one",
        &[
            "-o",
            &docker,
            "-o",
            &zstd,
            "-o",
            &push,
            "--metadata-file",
            metadata.to_str().expect("UTF-8"),
        ],
    );
    assert!(done, "{log}");
    let shown = |text: &str| run(&["skopeo", "inspect", "--raw", text]);
    let manifest = shown(&format!("docker-archive:{}", archive.display()));
    assert!(manifest.contains("sha256"), "{manifest}");
    let index = shown(&format!("oci-archive:{}", oci.display()));
    assert!(index.contains("\"a\":\"b\""), "{index}");
    let tls = ["--tls-verify=false"];
    assert_eq!(
        skopeo_digest(&format!("{name}:1"), &tls),
        skopeo_digest(&format!("{name}:2"), &tls)
    );
    let raw = run(&[
        "skopeo",
        "inspect",
        "--tls-verify=false",
        "--raw",
        &format!("docker://{name}:1"),
    ]);
    assert!(
        raw.contains("vnd.docker.distribution.manifest.v2+json"),
        "{raw}"
    );
    let metadata: serde_json::Value =
        serde_json::from_slice(&fs::read(metadata).expect("readable")).expect("JSON");
    assert!(
        metadata["image.name"]
            .as_str()
            .is_some_and(|names| names.contains("/app:2")),
        "{metadata}"
    );

    // Saved from the store: several images in one archive, on stdout.
    home.rbuild(&["tag", &format!("{name}:1"), "app:1"]);
    home.rbuild(&["tag", &format!("{name}:1"), "second:x"]);
    let saved = home
        .command("root", &["save", "app:1", "second:x"])
        .output()
        .expect("it runs");
    assert!(saved.status.success(), "{}", told(&saved).1);
    let both = home.path("both.tar");
    fs::write(&both, &saved.stdout).expect("written");
    for tag in ["app:1", "second:x"] {
        let shown = run(&[
            "skopeo",
            "inspect",
            "--config",
            &format!("docker-archive:{}:{tag}", both.display()),
        ]);
        assert!(shown.contains("diff_ids"), "{shown}");
    }
    let storage = home.path("podman");
    let (root, runroot) = (storage.join("root"), storage.join("run"));
    let loaded = run(&[
        "podman",
        "--root",
        root.to_str().expect("UTF-8"),
        "--runroot",
        runroot.to_str().expect("UTF-8"),
        "--storage-driver=vfs",
        "load",
        "-q",
        "-i",
        both.to_str().expect("UTF-8"),
    ]);
    assert!(
        loaded.contains("app:1") && loaded.contains("second:x"),
        "{loaded}"
    );

    // All tags at once, and a base in another compression.
    home.rbuild(&["push", "--all-tags", &name]);
    home.write(
        "context/Dockerfile",
        &format!("FROM {name}:1\nCOPY file /other\n"),
    );
    let forced = home.path("forced");
    let output = format!(
        "type=oci,tar=false,dest={},compression=zstd,force-compression=true",
        forced.display()
    );
    let context = home.path("context");
    let (done, log) = home.elsewhere(&["build", "-o", &output, context.to_str().expect("UTF-8")]);
    assert!(done, "{log}");
    let raw = shown(&format!("oci:{}", forced.display()));
    assert_eq!(raw.matches("tar+zstd").count(), 2, "{raw}");
    run(&[
        "skopeo",
        "copy",
        &format!("oci:{}", forced.display()),
        &format!("dir:{}", home.path("dir").display()),
    ]);
}

#[test]
fn all_tags_of_a_repository_are_pushed_and_nothing_else() {
    let Some(home) = Home::new() else { return };
    let registry = Registry::start(&home.path("registry"));
    let (app, other) = (
        format!("{}/team/app", registry.address),
        format!("{}/team/app-more", registry.address),
    );
    for (content, names) in [("one", ["1", "1.0"]), ("two", ["2", "latest"])] {
        let names = names.map(|tag| format!("{app}:{tag}"));
        let (done, log) = home.build(content, &["-t", &names[0], "-t", &names[1]]);
        assert!(done, "{log}");
    }
    home.rbuild(&["tag", &format!("{app}:1"), &format!("{other}:x")]);
    let told = home.rbuild(&["push", "--all-tags", &app]);
    let tls = "--tls-verify=false";
    let listed = run(&["skopeo", "list-tags", tls, &format!("docker://{app}")]);
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    let tags = ["1", "1.0", "2", "latest"];
    let mut listed: Vec<&str> = listed["Tags"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(serde_json::Value::as_str)
        .collect();
    listed.sort_unstable(); // docker-registry gives them in any order
    assert_eq!(listed, tags);
    for tag in tags {
        let digest = skopeo_digest(&format!("{app}:{tag}"), &[tls]);
        assert!(told.contains(&format!("{app}:{tag} {digest}")), "{told}");
    }
    let (done, log) = home.elsewhere(&["pull", &format!("{other}:x")]);
    assert!(!done && log.contains("not found"), "{log}");
    // A tag says one thing, `--all-tags` another.
    let (done, log) = home.try_rbuild(&["push", "--all-tags", &format!("{app}:1")]);
    assert!(!done && log.contains("--all-tags"), "{log}");
    let (done, log) = home.try_rbuild(&["push", "--all-tags", "nothing/of/this"]);
    assert!(!done && log.contains("nothing/of/this"), "{log}");
}
