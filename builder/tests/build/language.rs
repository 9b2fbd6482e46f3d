//! What a Dockerfile and its build arguments say that only a whole build shows.

use std::os::unix::fs::symlink;

use crate::support::Place;

fn history(image: &crate::support::Image) -> Vec<&str> {
    let entries = image.config["history"].as_array().unwrap();
    entries
        .iter()
        .map(|entry| entry["created_by"].as_str().unwrap_or_default())
        .collect()
}

#[test]
fn a_directory_can_be_the_base() {
    let place = Place::new();
    place.file("f", "f\n").file("../rootdir/etc/conf", "c\n");
    let context = format!("root={}", place.path().join("rootdir").display());
    let image = place
        .build("FROM root\nCOPY f /f\n")
        .arg("--build-context")
        .arg(&context)
        .ok()
        .image;
    assert_eq!(image.text("etc/conf"), "c\n");
    assert_eq!(image.text("f"), "f\n");
    assert_eq!(
        history(&image),
        ["COPY f /f # buildkit", "[1/2] COPY f /f"],
        "no instruction made the lowest layer: the last layer is told of by its step"
    );
}

#[test]
fn links_in_the_context_are_followed_as_sources_and_kept_inside() {
    let place = Place::new();
    place
        .file("a.txt", "a\n")
        .file("dir/x.txt", "x\n")
        .file("etc/marker", "inside\n")
        .file("tree/plain", "p\n");
    for (target, link) in [
        ("../a.txt", "tree/to-file"),
        ("../dir", "tree/to-dir"),
        ("nowhere", "tree/dangling"),
        ("/etc/passwd", "tree/absolute"),
        ("../../etc/marker", "up"),
        ("nowhere", "dang"),
    ] {
        symlink(target, place.context().join(link)).unwrap();
    }
    let image = place
        .build(
            "FROM base\nCOPY tree /tree\nCOPY tree/to-file /followed\nCOPY tree/to-dir /directory\n\
             COPY tree/to-dir/x.txt /through\nCOPY tr*/to-f* /wild/\nCOPY up /got\n",
        )
        .ok()
        .image;
    for (path, target) in [
        ("tree/to-file", "../a.txt"),
        ("tree/to-dir", "../dir"),
        ("tree/dangling", "nowhere"),
        ("tree/absolute", "/etc/passwd"),
    ] {
        let entry = image.entry(path).unwrap();
        assert_eq!(entry.link.as_deref(), Some(target), "{path}");
    }
    for (path, text) in [
        ("followed", "a\n"),
        ("directory/x.txt", "x\n"),
        ("through", "x\n"),
        ("wild/to-file", "a\n"),
        ("got", "inside\n"),
    ] {
        assert_eq!(image.text(path), text, "{path}");
    }
    let (code, log) = place.build("FROM base\nCOPY dang /x\n").err();
    assert_eq!(code, 1);
    assert!(log.contains("dang"), "{log}");
}

#[test]
fn the_dockerfile_may_be_a_link() {
    let place = Place::new();
    place.file("real.df", "FROM base\nRUN echo via > /via\n");
    symlink("real.df", place.context().join("Dockerfile")).unwrap();
    let out = place.path().join("out.tar");
    let status = place
        .rbuild()
        .arg("build")
        .arg(format!(
            "--build-context=base=oci-layout://{}",
            place.path().join("base").display()
        ))
        .arg(format!("--output=type=oci,dest={}", out.display()))
        .arg(place.context())
        .output()
        .unwrap();
    assert!(status.status.success(), "{status:?}");
    assert_eq!(crate::support::Image::read(&out).text("via"), "via\n");
}

#[test]
fn another_frontend_is_not_fetched_and_the_user_is_told() {
    let place = Place::new();
    let built = place
        .build("# syntax=frontend.example/other:1\nFROM base\nRUN true\n")
        .ok();
    assert!(
        built
            .log
            .contains("`syntax` asks for the frontend `frontend.example/other:1`"),
        "{}",
        built.log
    );
    let built = place
        .build("# syntax=docker/dockerfile:1.9-labs\nFROM base\nRUN true\n")
        .ok();
    assert!(!built.log.contains("frontend"), "{}", built.log);
    // A file that is no Dockerfile at all is refused, and the notice says why it may be so.
    let (code, log) = place
        .build("{\"syntax\": \"frontend.example/json\"}\n")
        .err();
    assert_eq!(code, 2);
    assert!(
        log.contains("frontend.example/json") && log.contains("unknown-instruction"),
        "{log}"
    );
}

#[test]
fn build_arguments_for_the_builder_are_followed() {
    let place = Place::new();
    place
        .build("FROM base\nRUN hostname > /name 2>&1 || cat /proc/sys/kernel/hostname > /name\n")
        .arg("--build-arg=BUILDKIT_MULTI_PLATFORM=1")
        .arg("--build-arg=BUILDKIT_SANDBOX_HOSTNAME=elsewhere")
        .command()
        .output()
        .map(|output| assert!(output.status.success(), "{output:?}"))
        .unwrap();
    let archive = std::fs::File::open(place.path().join("out.tar")).unwrap();
    let mut archive = tar::Archive::new(archive);
    let mut entries = archive.entries().unwrap();
    let index = entries
        .find_map(|entry| {
            let entry = entry.unwrap();
            let is_index = entry.path().unwrap().ends_with("index.json");
            is_index.then(|| serde_json::from_reader::<_, serde_json::Value>(entry).unwrap())
        })
        .unwrap();
    assert_eq!(
        index["manifests"][0]["mediaType"],
        "application/vnd.oci.image.index.v1+json"
    );
    let image = place
        .build("FROM base\nRUN cat /proc/sys/kernel/hostname > /name\n")
        .arg("--build-arg=BUILDKIT_SANDBOX_HOSTNAME=elsewhere")
        .ok()
        .image;
    assert_eq!(image.text("name"), "elsewhere\n");
    let (_, log) = place
        .build("FROM base\n")
        .arg("--build-arg=BUILDKIT_MULTI_PLATFORM=perhaps")
        .err();
    assert!(log.contains("`BUILDKIT_MULTI_PLATFORM=perhaps`"), "{log}");
}

#[test]
fn a_device_is_missed_only_when_it_is_required() {
    let place = Place::new();
    let built = place
        .build("FROM base\nRUN --device=vendor.example/gpu=one echo ran > /ran\n")
        .ok();
    assert_eq!(built.image.text("ran"), "ran\n");
    assert!(
        built
            .log
            .contains("without the device `vendor.example/gpu=one`"),
        "{}",
        built.log
    );
    let (code, log) = place
        .build("FROM base\nRUN --device=vendor.example/gpu=one,required true\n")
        .err();
    assert_eq!(code, 1);
    assert!(
        log.contains("requires the device `vendor.example/gpu=one`"),
        "{log}"
    );
    let (code, log) = place.build("FROM base\nRUN --device=a,b true\n").err();
    assert_eq!(code, 2);
    assert!(log.contains("error[invalid-device]"), "{log}");
}
