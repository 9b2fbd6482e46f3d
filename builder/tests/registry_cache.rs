//! Caches in a registry: what one build leaves, a new store takes; writers at once, and registries that fail or lie.

#[path = "support/double.rs"]
mod double;
#[path = "support/home.rs"]
mod home;
#[path = "support/place.rs"]
mod place;
#[path = "support/registry.rs"]
mod registry;

use std::process::{Child, Stdio};

use double::{Body, Double, Reply};
use home::{Home, told};
use registry::Registry;

/// Two stages; the last step but one of the second needs the first.
const STAGES: &str = "FROM scratch AS make\nCOPY file /made\nCOPY more /more\nFROM scratch\nCOPY --from=make /made /out\nCOPY file /file\n";

/// Steps in all.
const STEPS: usize = 4;

fn write_context(home: &Home, name: &str, content: &str) -> String {
    home.write(&format!("{name}/file"), content);
    home.write(&format!("{name}/more"), content);
    home.write(&format!("{name}/Dockerfile"), STAGES);
    let path = home.path(name);
    path.to_str().expect("UTF-8").to_owned()
}

/// Builds in the store `root`.
fn build(home: &Home, root: &str, context: &str, arguments: &[&str]) -> (bool, String) {
    let all = [&["build", "--progress=plain"], arguments, &[context]].concat();
    told(&home.command(root, &all).output().expect("it runs"))
}

fn begin(home: &Home, root: &str, context: &str, arguments: &[&str]) -> Child {
    let all = [&["build", "--progress=plain"], arguments, &[context]].concat();
    home.command(root, &all)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs")
}

fn has_run(log: &str, steps: usize) -> bool {
    let line = format!("steps  {steps} run");
    log.lines().any(|other| other.starts_with(&line))
}

fn id_of(log: &str) -> String {
    let line = log.lines().find(|line| line.starts_with("id "));
    line.unwrap_or_else(|| panic!("{log}")).to_owned()
}

#[test]
fn a_new_store_runs_no_step() {
    let Some(home) = Home::new() else { return };
    let registry = Registry::start(&home.path("registry"));
    let context = write_context(&home, "one", "1");
    for (mode, reference) in [("min", "team/app:min"), ("max", "team/app")] {
        let reference = format!("{}/{reference}", registry.address);
        let to = format!("--cache-to=type=registry,ref={reference},mode={mode}");
        let from = format!("--cache-from=type=registry,ref={reference}");
        let (done, first) = build(&home, mode, &context, &[&to]);
        assert!(done && has_run(&first, STEPS), "{first}");
        assert!(first.contains("exporting cache to"), "{first}");
        let (done, second) = build(&home, &format!("{mode}-2"), &context, &[&from]);
        assert!(done && has_run(&second, 0), "{mode}: {second}");
        assert_eq!(id_of(&first), id_of(&second));
        // It was all there, and says so.
        let (done, third) = build(&home, mode, &context, &[&to]);
        assert!(done && third.contains("nothing new"), "{third}");
        // Another file: steps that min has kept nothing of are done again, those of max are not.
        let short = format!("--cache-from={reference}");
        home.write("one/Dockerfile", &format!("{STAGES}COPY more /most\n"));
        let (done, fourth) = build(&home, &format!("{mode}-3"), &context, &[&short]);
        assert!(done && has_run(&fourth, 1), "{mode}: {fourth}");
        home.write(
            "one/Dockerfile",
            "FROM scratch AS make\nCOPY file /made\nCOPY more /more\n",
        );
        let (done, fifth) = build(&home, &format!("{mode}-4"), &context, &[&short]);
        let expected = if mode == "max" { 0 } else { 2 };
        assert!(done && has_run(&fifth, expected), "{mode}: {fifth}");
        write_context(&home, "one", "1");
    }
}

#[test]
fn a_pushed_image_brings_its_cache_along() {
    let Some(home) = Home::new() else { return };
    let registry = Registry::start(&home.path("registry"));
    let context = write_context(&home, "one", "1");
    let name = format!("{}/app:1", registry.address);
    let (done, log) = build(
        &home,
        "root",
        &context,
        &["-t", &name, "--push", "--cache-to=type=inline"],
    );
    assert!(done && log.contains("exporting cache to"), "{log}");
    let (done, log) = build(&home, "new", &context, &["--cache-from", &name]);
    assert!(done && has_run(&log, 0), "{log}");
    let (done, log) = build(&home, "other", &context, &["--cache-to=type=inline"]);
    assert!(done && log.contains("it is not pushed"), "{log}");
}

#[test]
fn writers_at_once_lose_nothing() {
    let Some(home) = Home::new() else { return };
    let registry = Registry::start(&home.path("registry"));
    let reference = format!("{}/team/shared:cache", registry.address);
    let to = format!("--cache-to=type=registry,ref={reference},mode=max");
    let names: Vec<String> = (0..4).map(|number| format!("writer-{number}")).collect();
    let contexts: Vec<String> = names
        .iter()
        .map(|name| write_context(&home, name, name))
        .collect();
    // Each twice, from stores of their own: the same keys are written at the same time, too.
    let mut builds = Vec::new();
    for (name, context) in names.iter().zip(&contexts) {
        for twin in ["a", "b"] {
            builds.push(begin(&home, &format!("{name}-{twin}"), context, &[&to]));
        }
    }
    for child in builds {
        let (done, log) = told(&child.wait_with_output().expect("it ends"));
        assert!(done && !log.contains("FAILED"), "{log}");
    }
    let from = format!("--cache-from=type=registry,ref={reference}");
    for (name, context) in names.iter().zip(&contexts) {
        let (done, log) = build(&home, &format!("{name}-new"), context, &[&from]);
        assert!(done && has_run(&log, 0), "{name}: {log}");
    }
}

/// What a registry that is no good does, and what is said of it.
type Row = (&'static str, fn() -> Reply, &'static str);

#[tokio::test(flavor = "multi_thread")]
async fn registries_that_fail_or_lie_end_no_build() {
    let Some(home) = Home::new() else { return };
    let context = write_context(&home, "one", "1");
    let rows: [Row; 9] = [
        ("ill", || Reply::new(500, ""), "answered 500"),
        ("denied", || Reply::new(403, ""), "denied"),
        ("no login", || Reply::new(401, ""), "cannot"),
        (
            "busy",
            || Reply::new(429, "").with("retry-after", "600"),
            "too many requests",
        ),
        (
            "hangs up",
            || Reply {
                status: 200,
                headers: vec![],
                body: Body::HangUp,
            },
            "cannot read a record",
        ),
        ("a page", || Reply::ok("<html>hello</html>"), "is damaged"),
        (
            "an image",
            || {
                let image = double::TinyImage::new(b"layer".to_vec(), "amd64", false);
                Reply::manifest("application/vnd.oci.image.manifest.v1+json", image.manifest)
            },
            "is damaged",
        ),
        (
            "a record of something else",
            || {
                let record = r#"{"keys":[],"step":{"title":"x","created":0,"costUs":0,"parts":[],"layers":[]}}"#;
                entry(
                    record,
                    rbuild::manifest::digest_of(record.as_bytes()).as_ref(),
                )
            },
            "is damaged",
        ),
        (
            "a record that is not what its digest says",
            || entry("{}", &format!("sha256:{}", "1".repeat(64))),
            "is damaged",
        ),
    ];
    for (name, reply, expected) in rows {
        let double = Double::start(move |_, _| reply()).await;
        let reference = double.name("a/cache:x");
        let root = name.replace(' ', "-");
        let from = format!("--cache-from=type=registry,ref={reference}");
        let to = format!("--cache-to=type=registry,ref={reference}");
        let (home, context) = (&home, &context);
        let (done, log) =
            tokio::task::block_in_place(|| build(home, &root, context, &[&from, &to]));
        assert!(done && has_run(&log, STEPS), "{name}: {log}");
        assert!(log.contains(expected), "{name}: {log}");
        assert!(log.contains("building without it"), "{name}: {log}");
        assert_eq!(
            log.matches("building without it").count(),
            1,
            "{name}: told once: {log}"
        );
    }
    // Nobody there at all.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let from = format!("--cache-from=type=registry,ref=127.0.0.1:{port}/a/cache");
    let (done, log) = tokio::task::block_in_place(|| build(&home, "nobody", &context, &[&from]));
    assert!(done && log.contains("building without it"), "{log}");
    for kind in ["gha", "s3", "azblob"] {
        let to = format!("--cache-to=type={kind},mode=max");
        let from = format!("--cache-from=type={kind},bucket=x");
        let (done, log) =
            tokio::task::block_in_place(|| build(&home, kind, &context, &[&to, &from]));
        assert!(done && log.contains("are not implemented"), "{log}");
    }
}

/// A cache's manifest with a record that is said to have this digest.
fn entry(record: &str, digest: &str) -> Reply {
    let data = String::from_utf8(place::through(&["base64", "-w0"], record.as_bytes()));
    let body = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.rbuild.cache.record.v1+json","digest":"{digest}","size":{},"data":"{}"}},"layers":[]}}"#,
        record.len(),
        data.expect("ASCII").trim()
    );
    Reply::manifest("application/vnd.oci.image.manifest.v1+json", body)
}

#[test]
fn layers_that_are_gone_or_spoilt_are_made_again() {
    let Some(home) = Home::new() else { return };
    let registry = Registry::start(&home.path("registry"));
    let context = write_context(&home, "one", "1");
    let reference = format!("{}/team/app:cache", registry.address);
    let to = format!("--cache-to=type=registry,ref={reference},mode=max");
    let from = format!("--cache-from=type=registry,ref={reference}");
    let (done, log) = build(&home, "root", &context, &[&to]);
    assert!(done, "{log}");
    // Every blob that is a layer: the same size, other bytes.
    let blobs = home.path("registry/data/docker/registry/v2/blobs/sha256");
    let mut spoilt = 0;
    for directory in std::fs::read_dir(&blobs).expect("readable") {
        for blob in std::fs::read_dir(directory.expect("an entry").path()).expect("readable") {
            let path = blob.expect("an entry").path().join("data");
            let mut bytes = std::fs::read(&path).expect("readable");
            if bytes.starts_with(&[0x1f, 0x8b]) {
                let last = bytes.len() - 5;
                bytes[last] ^= 1;
                std::fs::write(&path, bytes).expect("written");
                spoilt += 1;
            }
        }
    }
    assert!(spoilt >= 3, "{spoilt}");
    let (done, log) = build(&home, "new", &context, &[&from, &to]);
    assert!(done && has_run(&log, STEPS), "{log}");
    assert!(log.contains("building without it"), "{log}");
}
