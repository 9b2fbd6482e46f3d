//! `copy` between all kinds of places, `inspect --format`, and `history`.

#[path = "support/home.rs"]
mod home;
#[path = "support/place.rs"]
mod place;
#[path = "support/registry.rs"]
mod registry;

use home::Home;
use place::run;
use registry::Registry;

/// Digest and kind of what a name or layout stands for, as skopeo reads it.
fn raw(source: &str) -> String {
    let text = run(&["skopeo", "inspect", "--raw", "--tls-verify=false", source]);
    rbuild::manifest::digest_of(text.as_bytes()).to_string()
}

/// The digest that a copy ends with.
fn copy(home: &Home, root: &str, arguments: &[&str]) -> String {
    let all = [&["copy", "-q"], arguments].concat();
    let (done, log) = home::told(&home.command(root, &all).output().expect("it runs"));
    assert!(done, "{arguments:?}: {log}");
    log.lines().last().unwrap_or_default().to_owned()
}

#[test]
fn copies_keep_every_byte_wherever_they_go() {
    let Some(home) = Home::new() else { return };
    let registry = Registry::start(&home.path("registry"));
    let at = |rest: &str| format!("{}/{rest}", registry.address);
    let first = at("team/app:1");
    let platforms = "--platform=linux/amd64,linux/arm64";
    let (done, log) = home.build("one", &["-t", &first, "--push", platforms]);
    assert!(done, "{log}");
    let digest = raw(&format!("docker://{first}"));
    let path = |name: &str| home.path(name).to_str().expect("UTF-8").to_owned();
    // A round through everything that has room for an index.
    let layout = format!("oci:{}:two", path("layout"));
    let archive = format!("oci-archive:{}:three", path("archive.tar"));
    let rounds = [
        (first.clone(), at("other/app:2")),
        (format!("docker://{}", at("other/app:2")), layout.clone()),
        (layout.clone(), archive.clone()),
        (archive, at("third/app:3")),
    ];
    for (number, (source, target)) in rounds.iter().enumerate() {
        let root = format!("round-{number}");
        assert_eq!(copy(&home, &root, &[source, target]), digest, "{source}");
    }
    for name in ["other/app:2", "third/app:3"] {
        assert_eq!(raw(&format!("docker://{}", at(name))), digest, "{name}");
        let pulled = ["skopeo", "copy", "-q", "--all", "--src-tls-verify=false"];
        let source = format!("docker://{}", at(name));
        let target = format!("oci:{}:x", path(&name.replace(['/', ':'], "-")));
        run(&[&pulled[..], &[&source, &target]].concat());
    }
    assert_eq!(raw(&layout), digest);

    // One platform, through what has room for one.
    let one = copy(
        &home,
        "one",
        &[&first, &at("one:1"), "--platform=linux/arm64"],
    );
    assert_ne!(one, digest);
    let docker = format!("docker-archive:{}:app:9", path("docker.tar"));
    copy(&home, "one", &[&first, &docker]);
    copy(&home, "two", &[&docker, "store:mine:1"]);
    copy(&home, "two", &["store:mine:1", "store:mine:2"]);
    let pushed = copy(&home, "two", &["store:mine:2", &at("mine:2")]);
    assert_eq!(raw(&format!("docker://{}", at("mine:2"))), pushed);
    let back = copy(&home, "three", &[&at("mine:2"), "store:mine:3"]);
    assert_eq!(back, pushed);
    let from_archive = copy(&home, "four", &[&docker, &at("mine:4")]);
    assert_eq!(
        from_archive, pushed,
        "the same image gets the same manifest"
    );

    for (arguments, expected) in [
        (vec!["copy", "what://x", "store:a"], "is no place"),
        (vec!["copy", &first, "oci:"], "the path is missing"),
        (vec!["copy", &at("team/app:none"), "store:a"], "not found"),
        (
            vec!["copy", "oci:/nonexistent:x", "store:a"],
            "/nonexistent",
        ),
        (
            vec!["copy", &first, "store:a", "--platform=linux/s390x"],
            "linux/s390x",
        ),
    ] {
        let (done, log) = home.try_rbuild(&arguments);
        assert!(
            !done && log.to_lowercase().contains(expected),
            "{arguments:?}: {log}"
        );
    }
}

#[test]
fn what_is_known_of_an_image_is_printed_as_asked() {
    let Some(home) = Home::new() else { return };
    let (done, log) = home.build("one", &["-t", "app:1", "-t", "app:2", "--label", "a.b=c"]);
    assert!(done, "{log}");
    let id = home.rbuild(&["inspect", "-f", "{{.Id}}", "app:1"]);
    assert!(id.starts_with("sha256:") && id.len() == 72, "{id}");
    for (format, expected) in [
        ("{{json .RepoTags}}", "[\"app:1\",\"app:2\"]\n"),
        ("{{index .Config.Labels \"a.b\"}}", "c\n"),
        (".Config.Labels[\"a.b\"]", "c\n"),
        ("{{range .RepoTags}}{{println .}}{{end}}", "app:1\napp:2\n"),
        ("{{len .RootFS.Layers}}", "1\n"),
    ] {
        assert_eq!(
            home.rbuild(&["inspect", "--format", format, "app:1"]),
            expected
        );
    }
    let config = home.rbuild(&["inspect", "--config", "app:1"]);
    let digest = rbuild::manifest::digest_of(config.as_bytes());
    assert_eq!(digest.to_string(), id.trim(), "byte for byte");
    let (done, log) = home.try_rbuild(&["inspect", "--raw", "app:1"]);
    assert!(!done && log.contains("has no manifest yet"), "{log}");
    let archive = home.path("a.tar");
    home.rbuild(&["save", "-o", archive.to_str().expect("UTF-8"), "app:1"]);
    let manifest = home.rbuild(&["inspect", "--raw", "app:1"]);
    let digest = home.rbuild(&["inspect", "-f", ".ManifestDigest", "app:1"]);
    let actual = rbuild::manifest::digest_of(manifest.as_bytes());
    assert_eq!(actual.to_string(), digest.trim());
    for (format, expected) in [("{{.Id", "without"), (".None.At.All", "nothing at")] {
        let (done, log) = home.try_rbuild(&["inspect", "-f", format, "app:1"]);
        assert!(!done && log.contains(expected), "{log}");
    }
    let history = home.rbuild(&["history", "app:1"]);
    let line = history
        .lines()
        .find(|line| line.contains("COPY"))
        .expect("a step");
    assert!(history.starts_with("CREATED"), "{history}");
    let build = home.rbuild(&["builds"]);
    let build = build
        .lines()
        .nth(1)
        .and_then(|line| line.split_whitespace().next());
    let origin = format!("build {}", build.expect("a build"));
    assert!(line.contains(&origin) && line.contains('s'), "{history}");
    // Elsewhere it came with an archive.
    let load = ["load", "-i", archive.to_str().expect("UTF-8")];
    let other = home.command("other", &load).output().expect("it runs");
    assert!(other.status.success());
    let history = home.command("other", &["history", "app:1"]).output();
    let history = home::told(&history.expect("it runs")).1;
    assert!(history.contains("an archive"), "{history}");
}
