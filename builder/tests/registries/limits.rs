//! Registries that count requests: a build goes on with what is here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rbuild::manifest::{digest_of, media};

use super::double::{Double, Reply, TinyImage};
use super::home::Home;
use super::place::{Member, layer_tar};

#[tokio::test(flavor = "multi_thread")]
async fn too_many_requests_never_fail_a_build_that_could_go_on() {
    let Some(home) = Home::new() else { return };
    let layer = layer_tar(&[Member::File("file", 0o644, 0, b"content")]);
    let image = TinyImage::new(layer, "amd64", false);
    let digest = digest_of(image.manifest.as_bytes()).to_string();
    let is_busy = Arc::new(AtomicBool::new(false));
    let busy = Arc::clone(&is_busy);
    let double = Double::start(move |seen, _| {
        if busy.load(Ordering::Relaxed) {
            return Reply::new(429, "").with("retry-after", "3600");
        }
        if seen.path.contains("/manifests/") {
            Reply::manifest(media::OCI_MANIFEST, image.manifest.clone())
        } else if seen.path.ends_with(digest_of(&image.layer).as_ref()) {
            Reply::ok(image.layer.clone())
        } else {
            Reply::ok(image.config.clone())
        }
    })
    .await;
    let base = double.name("a/b:1");
    home.write(
        "context/Dockerfile",
        &format!("FROM {base}\nCOPY file /new\n"),
    );
    let context = home.path("context");
    let context = context.to_str().expect("UTF-8").to_owned();
    let build = |content: &str, arguments: &[&str]| {
        home.write("context/file", content);
        let all = [&["build", "--progress=plain"], arguments, &[&context]].concat();
        home.try_rbuild(&all)
    };
    let (done, log) = build("one", &[]);
    assert!(done, "{log}");
    is_busy.store(true, Ordering::Relaxed);

    // Nothing is asked of it.
    let before = double.seen().len();
    let (done, log) = build("two", &[]);
    assert!(done, "{log}");
    assert_eq!(double.seen().len(), before);
    // It is asked, and says no: what is here serves, and that is said.
    let (done, log) = build("three", &["--pull"]);
    assert!(done, "{log}");
    assert!(double.seen().len() > before);
    assert!(log.contains("too many requests"), "{log}");
    assert!(log.contains(&digest), "{log}");
    // The image itself was asked for.
    let (done, log) = home.try_rbuild(&["pull", &base]);
    assert!(!done && log.contains("too many requests"), "{log}");
    assert!(log.contains("3600 seconds"), "{log}");
    // Nothing is here.
    let other = double.name("a/other:1");
    home.write(
        "context/Dockerfile",
        &format!("FROM {other}\nCOPY file /new\n"),
    );
    let (done, log) = build("four", &[]);
    assert!(!done && log.contains("too many requests"), "{log}");
}
