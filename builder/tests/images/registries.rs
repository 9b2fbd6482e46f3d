//! Images of registries, real and not.

use rbuild::event::Event;
use rbuild::manifest::{digest_of, media};
use rbuild::options::PullPolicy;
use rbuild_frontend::graph::ImageReference;

use super::double::{Double, Reply, TinyImage};
use super::place::{Layout, Place, run};
use super::registry::Registry;
use super::{place_chain, resolve, three_layers};

#[tokio::test]
async fn a_real_registry_is_pulled_from_once_and_then_not_needed() {
    let Some(place) = Place::new() else { return };
    let mut layout = Layout::new(place.path("layout"));
    let image = layout.image(&three_layers(), "amd64");
    layout.tag(image, Some("latest"));
    let registry = Registry::start(&place.path("registry"));
    let source = format!("oci:{}:latest", layout.path.display());
    for (name, format) in [("oci", "oci"), ("docker", "v2s2")] {
        let target = format!("docker://{}/team/{name}:1", registry.address);
        run(&[
            "skopeo",
            "copy",
            "--dest-tls-verify=false",
            "--format",
            format,
            &source,
            &target,
        ]);
    }
    let name = |rest: &str| ImageReference::Name(format!("{}/team/{rest}", registry.address));
    let base = resolve(&place, &name("oci:1"), PullPolicy::Missing)
        .await
        .expect("resolved");
    let chain = place
        .sources
        .chain(&base, &place.lease)
        .await
        .expect("pulled");
    let docker = resolve(&place, &name("docker:1"), PullPolicy::Missing)
        .await
        .expect("resolved");
    assert_eq!(
        place
            .sources
            .chain(&docker, &place.lease)
            .await
            .expect("pulled"),
        chain,
        "one chain, whatever the manifest"
    );
    let pulls = |place: &Place| {
        let events = place.events.lock().expect("no panic");
        events.iter().filter(|event| matches!(event, Event::TaskStarted { title, .. } if title.starts_with("pulling"))).count()
    };
    assert_eq!(
        pulls(&place),
        1,
        "layers that are here are not pulled again"
    );
    let missing = resolve(&place, &name("oci:2"), PullPolicy::Missing)
        .await
        .expect_err("no such tag");
    assert!(
        place_chain(&missing).contains("was not found in the registry"),
        "{}",
        place_chain(&missing)
    );
    let gone = name("oci:1");
    drop(registry);
    let again = resolve(&place, &gone, PullPolicy::Missing)
        .await
        .expect("remembered");
    assert_eq!(again.config_digest, base.config_digest);
    assert_eq!(
        place
            .sources
            .chain(&again, &place.lease)
            .await
            .expect("here"),
        chain
    );
    let error = resolve(&place, &gone, PullPolicy::Always)
        .await
        .expect_err("the registry is gone");
    assert!(
        place_chain(&error).contains("cannot reach"),
        "{}",
        place_chain(&error)
    );
}

#[tokio::test]
async fn a_registry_with_platforms_and_docker_manifests_serves_layers_that_are_checked() {
    let Some(place) = Place::new() else { return };
    let layer = three_layers().remove(0);
    let (good, foreign) = (
        TinyImage::new(layer.clone(), "amd64", true),
        TinyImage::new(layer.clone(), "arm64", true),
    );
    let entry = |image: &TinyImage, architecture: &str| {
        format!(
            r#"{{"mediaType":"{}","digest":"{}","size":{},"platform":{{"architecture":"{architecture}","os":"linux"}}}}"#,
            media::DOCKER_MANIFEST,
            digest_of(image.manifest.as_bytes()),
            image.manifest.len()
        )
    };
    let unknown = format!(
        r#"{{"mediaType":"{}","digest":"{}","size":3,"platform":{{"architecture":"unknown","os":"unknown"}}}}"#,
        media::OCI_MANIFEST,
        digest_of(b"att")
    );
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{unknown},{},{}]}}"#,
        media::DOCKER_INDEX,
        entry(&foreign, "arm64"),
        entry(&good, "amd64")
    );
    let wrong = {
        let mut wrong = layer.clone();
        wrong[0] ^= 1;
        wrong
    };
    let (manifest, config) = (good.manifest.clone(), good.config.clone());
    let double = Double::start(move |seen, before| {
        let is = |bytes: &[u8]| seen.path.ends_with(digest_of(bytes).digest());
        if seen.path.ends_with("/manifests/1") {
            Reply::manifest(media::DOCKER_INDEX, index.clone())
        } else if is(manifest.as_bytes()) {
            Reply::manifest(media::DOCKER_MANIFEST, manifest.clone())
        } else if is(config.as_bytes()) {
            Reply::ok(config.clone())
        } else if is(&layer) {
            // Right size, wrong bytes, the first time.
            Reply::ok(if before == 0 {
                wrong.clone()
            } else {
                layer.clone()
            })
        } else {
            Reply::new(404, "")
        }
    })
    .await;
    let reference = ImageReference::Name(double.name("a/b:1"));
    let base = resolve(&place, &reference, PullPolicy::Missing)
        .await
        .expect("resolved");
    assert_eq!(base.config.architecture, "amd64");
    assert_eq!(double.count("/blobs/"), 1, "only the config was fetched");
    let error = place
        .sources
        .chain(&base, &place.lease)
        .await
        .expect_err("wrong bytes");
    assert!(
        place_chain(&error).contains("expected"),
        "{}",
        place_chain(&error)
    );
    assert!(!place.sources.store.has_blob(&digest_of(&good.layer)));
    let chain = place
        .sources
        .chain(&base, &place.lease)
        .await
        .expect("right bytes");
    assert_eq!(chain.len(), 1);
    let requests = double.seen().len();
    let base = resolve(&place, &reference, PullPolicy::Missing)
        .await
        .expect("remembered");
    place
        .sources
        .chain(&base, &place.lease)
        .await
        .expect("here");
    assert_eq!(double.seen().len(), requests, "a second build asks nothing");
}
