//! Images in and out: layouts, registries, the store, exports; judged by skopeo, umoci and a real registry.

#[path = "../support/double.rs"]
mod double;
#[path = "../support/place.rs"]
mod place;
#[path = "../support/registry.rs"]
mod registry;

mod registries;
mod store;

use std::fs;
use std::path::Path;

use place::{Layout, Member, Place, describe, layer_tar, run};
use rbuild::export::ExportOptions;
use rbuild::image::{BuiltImage, assemble};
use rbuild::manifest::digest_of;
use rbuild::options::{Output, OutputKind, PullPolicy};
use rbuild::pull::{PullError, ResolvedBase};
use rbuild_frontend::graph::{ImageReference, PlannedHistory};
use rbuild_frontend::platform::Platform;

fn layout_reference(path: &Path, tag: Option<&str>) -> ImageReference {
    let path = path.to_str().expect("UTF-8").to_owned();
    ImageReference::Layout {
        path,
        tag: tag.map(str::to_owned),
        digest: None,
    }
}

fn output(kind: OutputKind, destination: &Path) -> Output {
    Output {
        destination: Some(destination.to_owned()),
        ..Output::of_kind(kind)
    }
}

/// An image of three layers, pulled from a layout into the store.
async fn pulled_image(place: &Place) -> BuiltImage {
    let mut layout = Layout::new(place.path("layout"));
    let image = layout.image(&three_layers(), "amd64");
    layout.tag(image, None);
    let reference = layout_reference(&layout.path, None);
    let base = resolve(place, &reference, PullPolicy::Missing).await;
    image_of(place, &base.expect("base")).await
}

/// A base with nothing on top, as an image.
async fn image_of(place: &Place, base: &ResolvedBase) -> BuiltImage {
    let chain = place
        .sources
        .chain(base, &place.lease)
        .await
        .expect("a chain");
    let history: Vec<PlannedHistory> = base
        .config
        .history
        .iter()
        .cloned()
        .map(PlannedHistory::Inherited)
        .collect();
    let built = assemble(base.config.clone(), &history, chain, None);
    assert_eq!(built.base_layers, built.chain.len());
    built
}

async fn resolve(
    place: &Place,
    reference: &ImageReference,
    policy: PullPolicy,
) -> Result<ResolvedBase, PullError> {
    place
        .sources
        .resolve(reference, &Platform::default(), policy, &place.lease)
        .await
}

fn three_layers() -> Vec<Vec<u8>> {
    use Member::{Directory, File, HardLink, Symlink};
    vec![
        layer_tar(&[
            Directory("bin/", 0o755, 0),
            File("bin/tool", 0o4755, 0, b"tool"),
            HardLink("bin/same", "bin/tool"),
            Directory("home/", 0o755, 0),
            Directory("home/app/", 0o700, 1000),
            File("home/app/notes", 0o600, 1000, b"notes"),
            Symlink("notes", "home/app/notes"),
        ]),
        layer_tar(&[
            Directory("home/", 0o755, 0),
            Directory("home/app/", 0o700, 1000),
            File("home/app/.wh.notes", 0o644, 0, b""),
            File("home/app/more", 0o644, 1000, b"more"),
        ]),
        layer_tar(&[
            Directory("bin/", 0o711, 0),
            File("bin/.wh..wh..opq", 0o644, 0, b""),
            File("bin/new", 0o755, 0, b"new"),
        ]),
    ]
}

/// Layers as jib, Bazel and kaniko write them: without parents, and with links into lower layers.
fn leaning_layers() -> Vec<Vec<u8>> {
    use Member::{Directory, File, HardLink};
    vec![
        layer_tar(&[
            Directory("opt/", 0o750, 7),
            Directory("opt/deep/", 0o701, 8),
            File("opt/deep/low", 0o640, 9, b"low"),
        ]),
        layer_tar(&[
            File("opt/deep/implied", 0o600, 5, b"implied"),
            HardLink("opt/deep/linked", "opt/deep/low"),
            File("fresh/from/nothing", 0o644, 0, b"fresh"),
        ]),
        layer_tar(&[File("opt/deep/again", 0o600, 5, b"again")]),
    ]
}

async fn agrees_with_umoci(place: &Place, layers: &[Vec<u8>]) {
    let mut layout = Layout::new(place.path("layout"));
    let image = layout.image(layers, "amd64");
    layout.tag(image, Some("latest"));
    let base = resolve(
        place,
        &layout_reference(&layout.path, Some("latest")),
        PullPolicy::Missing,
    )
    .await
    .expect("base");
    let built = image_of(place, &base).await;
    let (ours, archive) = (place.path("ours"), place.path("root.tar"));
    let exported = place
        .exporter()
        .export(
            &[built],
            &output(OutputKind::Tar, &archive),
            &ExportOptions::default(),
            &place.lease,
        )
        .await
        .expect("a tar");
    assert_eq!(exported.descriptor, None);
    fs::create_dir(&ours).expect("mkdir");
    let (to, from) = (
        ours.to_str().expect("UTF-8"),
        archive.to_str().expect("UTF-8"),
    );
    run(&[
        "tar",
        "-x",
        "--numeric-owner",
        "--same-owner",
        "-p",
        "-C",
        to,
        "-f",
        from,
    ]);
    let bundle = place.path("bundle");
    let image = format!("{}:latest", layout.path.display());
    run(&[
        "umoci",
        "unpack",
        "--image",
        &image,
        bundle.to_str().expect("UTF-8"),
    ]);
    assert_eq!(describe(&ours), describe(&bundle.join("rootfs")));
}

#[tokio::test]
async fn whiteouts_and_compressions_agree_with_umoci() {
    let Some(place) = Place::new() else { return };
    agrees_with_umoci(&place, &three_layers()).await;
    assert!(!place.path("ours/home/app/notes").exists());
}

#[tokio::test]
async fn leaning_layers_agree_with_umoci() {
    let Some(place) = Place::new() else { return };
    agrees_with_umoci(&place, &leaning_layers()).await;
}

#[tokio::test]
async fn an_exported_image_is_the_pulled_one_blob_for_blob() {
    let Some(place) = Place::new() else { return };
    let mut layout = Layout::new(place.path("layout"));
    let image = layout.image(&three_layers(), "amd64");
    layout.tag(image, None);
    let base = resolve(
        &place,
        &layout_reference(&layout.path, None),
        PullPolicy::Missing,
    )
    .await
    .expect("base");
    let built = image_of(&place, &base).await;
    let (archive, again) = (place.path("out/image.tar"), place.path("again.tar"));
    let options = ExportOptions {
        has_index: false,
        tags: vec!["app:1".to_owned()],
        annotations: vec![("org.example.a".to_owned(), "b".to_owned())],
        source_date_epoch: None,
    };
    let exporter = place.exporter();
    let images = [built];
    let told = exporter
        .export(
            &images,
            &output(OutputKind::Oci, &archive),
            &options,
            &place.lease,
        )
        .await
        .expect("archive");
    assert_eq!(told.names, ["docker.io/library/app:1"]);
    exporter
        .export(
            &images,
            &output(OutputKind::Oci, &again),
            &options,
            &place.lease,
        )
        .await
        .expect("again");
    assert!(
        fs::read(&archive).expect("bytes") == fs::read(&again).expect("bytes"),
        "same bytes every time"
    );
    let source = format!("oci-archive:{}:1", archive.display());
    let shown: serde_json::Value =
        serde_json::from_str(&run(&["skopeo", "inspect", "--raw", &source])).expect("JSON");
    assert_eq!(shown["annotations"]["org.example.a"], "b");
    let original: serde_json::Value = serde_json::from_slice(
        &fs::read(
            layout
                .path
                .join("blobs/sha256")
                .join(base.manifest_digest.as_ref().expect("known").digest()),
        )
        .expect("manifest"),
    )
    .expect("JSON");
    assert_eq!(
        shown["layers"], original["layers"],
        "layers are shipped as they came"
    );
    let copy = format!("oci:{}:1", place.path("copy").display());
    run(&["skopeo", "copy", &source, &copy]);
    let (image, bundle) = (
        copy.trim_start_matches("oci:").to_owned(),
        place.path("bundle"),
    );
    run(&[
        "umoci",
        "unpack",
        "--image",
        &image,
        bundle.to_str().expect("UTF-8"),
    ]);
    assert!(bundle.join("rootfs/bin/new").exists() && !bundle.join("rootfs/bin/tool").exists());
    // The same as a directory, twice: the second adds nothing and keeps other tags.
    let directory = place.path("dir");
    for tag in ["1", "2", "1"] {
        let options = ExportOptions {
            has_index: false,
            tags: vec![format!("app:{tag}")],
            ..ExportOptions::default()
        };
        exporter
            .export(
                &images,
                &output(OutputKind::OciDirectory, &directory),
                &options,
                &place.lease,
            )
            .await
            .expect("dir");
        run(&[
            "skopeo",
            "inspect",
            &format!("oci:{}:{tag}", directory.display()),
        ]);
    }
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(directory.join("index.json")).expect("index"))
            .expect("JSON");
    assert_eq!(index["manifests"].as_array().map(Vec::len), Some(2));
    // And back in, from the archive, as a base.
    let base = resolve(
        &place,
        &layout_reference(&archive, Some("1")),
        PullPolicy::Missing,
    )
    .await
    .expect("archive as base");
    assert_eq!(image_of(&place, &base).await.chain, images[0].chain);
}

#[tokio::test]
async fn an_index_gives_the_platform_that_was_asked_for() {
    let Some(place) = Place::new() else { return };
    let mut layout = Layout::new(place.path("layout"));
    let layers = &three_layers()[..1];
    let images = [layout.image(layers, "amd64"), layout.image(layers, "arm64")];
    let index = layout.index(&images);
    layout.tag(index, Some("multi"));
    layout.tag(images[1].clone(), Some("lone"));
    for (tag, wanted, found) in [
        ("multi", "linux/arm64", "arm64"),
        ("multi", "linux/amd64", "amd64"),
        ("lone", "linux/amd64", "arm64"),
    ] {
        let reference = layout_reference(&layout.path, Some(tag));
        let platform: Platform = wanted.parse().expect("a platform");
        let base = place
            .sources
            .resolve(&reference, &platform, PullPolicy::Missing, &place.lease)
            .await
            .expect(tag);
        assert_eq!(base.config.architecture, found, "{tag} for {wanted}");
    }
    let s390x: Platform = "linux/s390x".parse().expect("a platform");
    let reference = layout_reference(&layout.path, Some("multi"));
    let error = place
        .sources
        .resolve(&reference, &s390x, PullPolicy::Missing, &place.lease)
        .await
        .expect_err("none");
    assert!(
        error.to_string().contains("linux/s390x")
            && error.to_string().contains("linux/amd64, linux/arm64"),
        "{error}"
    );
    let error = resolve(
        &place,
        &layout_reference(&layout.path, Some("x")),
        PullPolicy::Missing,
    )
    .await
    .expect_err("no tag");
    assert!(
        error
            .help()
            .is_some_and(|help| help.contains("multi, lone")),
        "{error}"
    );
}

/// Does something bad to a layout whose first layer is given.
type Break = fn(&Path, &[Vec<u8>]);

#[tokio::test]
async fn broken_layouts_are_named_and_leave_the_store_alone() {
    let Some(place) = Place::new() else { return };
    let layers = three_layers();
    let blob = |layer: &[u8]| format!("blobs/sha256/{}", digest_of(layer).digest());
    let flip: Break = |path, layers| {
        let file = path.join(format!("blobs/sha256/{}", digest_of(&layers[0]).digest()));
        let mut bytes = fs::read(&file).expect("a blob");
        bytes[600] ^= 1;
        fs::write(&file, bytes).expect("write");
    };
    let cut: Break = |path, layers| {
        let file = path.join(format!("blobs/sha256/{}", digest_of(&layers[0]).digest()));
        fs::write(&file, &layers[0][..100]).expect("write");
    };
    let lose: Break = |path, layers| {
        fs::remove_file(path.join(format!("blobs/sha256/{}", digest_of(&layers[0]).digest())))
            .expect("remove");
    };
    let link: Break = |path, layers| {
        let file = path.join(format!("blobs/sha256/{}", digest_of(&layers[0]).digest()));
        fs::remove_file(&file).expect("remove");
        std::os::unix::fs::symlink("/etc/passwd", &file).expect("link");
    };
    let index: Break = |path, _| fs::write(path.join("index.json"), "{").expect("write");
    let rows: [(&str, Break, &str); 5] = [
        ("flipped bit", flip, "cannot keep layer"),
        ("cut short", cut, "has 100 bytes, its descriptor says"),
        ("lost", lose, "cannot read `blobs/sha256/"),
        ("symlink out", link, "cannot read `blobs/sha256/"),
        ("bad index", index, "`index.json` in `"),
    ];
    for (name, break_it, expected) in rows {
        let mut layout = Layout::new(place.path(&name.replace(' ', "-")));
        let image = layout.image(&layers[..1], "amd64");
        layout.tag(image, None);
        break_it(&layout.path, &layers);
        let reference = layout_reference(&layout.path, None);
        let outcome = match resolve(&place, &reference, PullPolicy::Missing).await {
            Ok(base) => place.sources.chain(&base, &place.lease).await.map(drop),
            Err(error) => Err(error),
        };
        let error = outcome.expect_err(name);
        assert!(error.to_string().contains(expected), "{name}: {error}");
        assert!(
            !place.sources.store.has_blob(&digest_of(&layers[0])),
            "{name}: {}",
            blob(&layers[0])
        );
    }
    // The same store takes the good one.
    let mut layout = Layout::new(place.path("good"));
    layout.has_zstd = true;
    let image = layout.image(&layers, "amd64");
    layout.tag(image, None);
    let base = resolve(
        &place,
        &layout_reference(&layout.path, None),
        PullPolicy::Missing,
    )
    .await
    .expect("base");
    assert_eq!(
        place
            .sources
            .chain(&base, &place.lease)
            .await
            .expect("a chain")
            .len(),
        3
    );
}

fn place_chain(error: &(dyn std::error::Error + 'static)) -> String {
    let texts = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string);
    texts.collect::<Vec<_>>().join(" | ")
}
