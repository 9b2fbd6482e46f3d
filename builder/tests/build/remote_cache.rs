//! Caches outside the store: what one build leaves, another takes; what is broken is told of and left out.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Built, Place, write_base};

const STAGES: &str = "FROM base AS make\nCOPY c /c\nRUN cat /c > /out; echo more > /big\nFROM base\nCOPY --from=make /out /out\nRUN cat /out > /copy\n";
const STEPS: [&str; 4] = [
    "COPY c /c",
    "RUN cat /c",
    "COPY --from=make",
    "RUN cat /out",
];

fn place() -> Place {
    let place = Place::new();
    place.file("c", "1");
    place
}

fn cache(place: &Place) -> PathBuf {
    place.path().join("cache")
}

fn to(place: &Place, options: &str) -> String {
    format!(
        "--cache-to=type=local,dest={}{options}",
        cache(place).display()
    )
}

fn from(place: &Place) -> String {
    format!("--cache-from=type=local,src={}", cache(place).display())
}

fn forget_store(place: &Place) {
    fs::remove_dir_all(place.path().join("root")).unwrap();
}

fn count(path: &Path) -> usize {
    fs::read_dir(path).unwrap().count()
}

/// All regular files below a directory.
fn files(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn all(built: &Built, is_cached: bool) {
    built.expect(&STEPS.map(|step| (step, is_cached)));
}

#[test]
fn a_new_store_takes_everything_from_a_cache_and_fetches_what_it_needs() {
    for (options, compression) in [("", "mode=min"), (",mode=max,compression=zstd", "mode=max")] {
        let place = place();
        let first = place.build(STAGES).arg(&to(&place, options)).ok();
        all(&first, false);
        assert!(first.log.contains("exporting cache to"), "{}", first.log);
        forget_store(&place);
        let second = place.build(STAGES).arg(&from(&place)).ok();
        all(&second, true);
        assert_eq!(first.image.config, second.image.config, "{compression}");
        // The base and the image's two layers: nothing of the other stage was fetched.
        assert_eq!(
            count(&place.path().join("root/snapshots")),
            3,
            "{compression}"
        );
        // From here on the store has it all.
        fs::remove_dir_all(cache(&place)).unwrap();
        all(&place.build(STAGES).ok(), true);
    }
}

#[test]
fn a_changed_step_is_done_on_layers_from_the_cache() {
    let place = place();
    place.build(STAGES).arg(&to(&place, ",mode=max")).ok();
    forget_store(&place);
    let changed = STAGES.replace("RUN cat /out > /copy", "RUN cat /out /out > /copy");
    let built = place.build(&changed).arg(&from(&place)).ok();
    built.expect(&[
        ("COPY c /c", true),
        ("RUN cat /c", true),
        ("COPY --from=make", true),
        ("RUN cat /out", false),
    ]);
    assert_eq!(built.image.text("copy"), "11");
    // An early step that leaves the same: what stands on it is found by its result.
    forget_store(&place);
    let spelt = STAGES.replace("echo more", "echo 'more'");
    let built = place.build(&spelt).arg(&from(&place)).ok();
    built.expect(&[
        ("COPY c /c", true),
        ("RUN cat /c", false),
        ("COPY --from=make", true),
        ("RUN cat /out", true),
    ]);
}

#[test]
fn an_all_cached_build_fills_a_cache_too() {
    let place = place();
    place.build(STAGES).ok();
    let built = place.build(STAGES).arg(&to(&place, ",mode=max")).ok();
    all(&built, true);
    let blobs = count(&cache(&place).join("blobs/sha256"));
    let built = place.build(STAGES).arg(&to(&place, ",mode=max")).ok();
    assert!(built.log.contains("nothing new"), "{}", built.log);
    assert_eq!(count(&cache(&place).join("blobs/sha256")), blobs);
    forget_store(&place);
    all(&place.build(STAGES).arg(&from(&place)).ok(), true);
}

#[test]
fn a_build_that_wants_no_image_fetches_nothing_for_a_hit() {
    let place = place();
    place.build(STAGES).arg(&to(&place, "")).ok();
    let wants_nothing = || {
        let mut command = place.rbuild();
        command
            .args(["build", "--progress", "plain", "--output=type=cacheonly"])
            .args(["-t=unkept", &from(&place)])
            .arg("-f")
            .arg(place.path().join("Dockerfile"))
            .arg(format!(
                "--build-context=base=oci-layout://{}",
                place.path().join("base").display()
            ))
            .arg(place.context());
        let output = command.output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{log}");
        assert!(log.contains("keeps no image"), "{log}");
        let images = place.rbuild().args(["images", "-q"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&images.stdout), "", "{log}");
        log
    };
    forget_store(&place);
    let log = wants_nothing();
    for directory in ["snapshots", "blobs/sha256"] {
        let path = place.path().join("root").join(directory);
        assert_eq!(count(&path), 0, "{directory}:\n{log}");
    }
    // The layers that a step runs on are fetched all the same.
    let changed = STAGES.replace("> /copy", ">> /copy");
    fs::write(place.path().join("Dockerfile"), changed).unwrap();
    let log = wants_nothing();
    assert_eq!(count(&place.path().join("root/snapshots")), 3, "{log}");
}

#[test]
fn a_linked_copy_is_taken_from_a_cache_whatever_is_below() {
    let dockerfile = |below: &str| {
        format!("FROM base\nRUN echo {below} > /below\nCOPY --link c /c\nRUN cat /c > /top\n")
    };
    for is_cached in [false, true] {
        let place = place();
        if is_cached {
            place.build(&dockerfile("one")).ok();
        }
        let first = place.build(&dockerfile("one")).arg(&to(&place, "")).ok();
        first.expect(&[("COPY --link", is_cached)]);
        forget_store(&place);
        let built = place.build(&dockerfile("two")).arg(&from(&place)).ok();
        built.expect(&[
            ("RUN echo two", false),
            ("COPY --link", true),
            ("RUN cat", false),
        ]);
        assert_eq!(built.image.text("below"), "two\n");
        assert_eq!(built.image.text("top"), "1");
        // From here on the store has it.
        fs::remove_dir_all(cache(&place)).unwrap();
        let built = place.build(&dockerfile("three")).ok();
        built.expect(&[("RUN echo three", false), ("COPY --link", true)]);
    }
}

/// Something that happens to a file.
type Damage<'a> = &'a dyn Fn(&mut Vec<u8>);

/// Every file of the cache is broken, in several ways.
#[test]
fn a_broken_cache_is_told_of_and_left_out() {
    let place = place();
    let first = place.build(STAGES).arg(&to(&place, ",mode=max")).ok();
    let whole = cache(&place);
    let kept = place.path().join("kept");
    fs::rename(&whole, &kept).unwrap();
    let flip = |bytes: &mut Vec<u8>| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    };
    let halve = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2);
    let garble = |bytes: &mut Vec<u8>| *bytes = vec![0xff; 100];
    let empty = |bytes: &mut Vec<u8>| bytes.clear();
    let damages: [(&str, Damage<'_>); 4] = [
        ("flip", &flip),
        ("halve", &halve),
        ("garble", &garble),
        ("empty", &empty),
    ];
    for part in ["keys", "blobs", "rbuild-cache.json"] {
        for (name, damage) in damages {
            for file in files(&kept) {
                let relative = file.strip_prefix(&kept).unwrap();
                let mut bytes = fs::read(&file).unwrap();
                if relative.starts_with(part) {
                    damage(&mut bytes);
                }
                let target = whole.join(relative);
                fs::create_dir_all(target.parent().unwrap()).unwrap();
                fs::write(target, bytes).unwrap();
            }
            forget_store(&place);
            let built = place.build(STAGES).arg(&from(&place)).ok();
            all(&built, false);
            assert!(
                built.log.contains("the cache `"),
                "{part} {name}:\n{}",
                built.log
            );
            assert!(built.log.contains("building without it"), "{}", built.log);
            assert_eq!(
                built.image.text("copy"),
                first.image.text("copy"),
                "{part} {name}"
            );
            // Nothing of it is believed later.
            all(&place.build(STAGES).ok(), true);
            fs::remove_dir_all(&whole).unwrap();
        }
    }
}

#[test]
fn a_broken_cache_is_made_whole_by_the_next_build_that_writes_to_it() {
    let place = place();
    place.build(STAGES).arg(&to(&place, ",mode=max")).ok();
    for blob in files(&cache(&place).join("blobs")) {
        // Of the same size: only who reads it sees the damage.
        let mut bytes = fs::read(&blob).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(blob, bytes).unwrap();
    }
    forget_store(&place);
    let built = (place
        .build(STAGES)
        .arg(&from(&place))
        .arg(&to(&place, ",mode=max")))
    .ok();
    all(&built, false);
    assert_eq!(
        built.log.matches("cannot use the cache").count(),
        1,
        "{}",
        built.log
    );
    forget_store(&place);
    all(&place.build(STAGES).arg(&from(&place)).ok(), true);
}

/// A record that is whole and names layers that exist, but says something else of them.
#[test]
fn a_lying_cache_is_not_believed() {
    let place = place();
    place.build(STAGES).arg(&to(&place, ",mode=max")).ok();
    for path in files(&cache(&place).join("keys")) {
        let text = fs::read_to_string(&path).unwrap();
        let (_, json) = text.split_once('\n').unwrap();
        let mut entry: serde_json::Value = serde_json::from_str(json).unwrap();
        for layer in entry["step"]["layers"].as_array_mut().unwrap() {
            layer["content"] = "0".repeat(64).into();
        }
        let json = entry.to_string();
        let checksum = blake3::hash(json.as_bytes()).to_hex();
        fs::write(path, format!("{checksum}\n{json}")).unwrap();
    }
    forget_store(&place);
    let built = place.build(STAGES).arg(&from(&place)).ok();
    assert!(
        built
            .log
            .contains("its layers are not what its record says"),
        "{}",
        built.log
    );
    assert_eq!(built.image.text("copy"), "1");
}

#[test]
fn writers_at_once_lose_nothing() {
    let places: Vec<Place> = (0..3).map(|_| place()).collect();
    let shared = cache(&places[0]);
    let dockerfile = |number: usize| {
        format!("FROM base\nCOPY c /c\nRUN echo {number} > /number\nRUN cat /number > /n\n")
    };
    let target = to(&places[0], ",mode=max");
    let children: Vec<_> = places
        .iter()
        .enumerate()
        .map(|(number, place)| {
            let mut command = place.build(&dockerfile(number)).arg(&target).command();
            command.stderr(std::process::Stdio::null());
            command.spawn().unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let reader = place();
    let source = format!("--cache-from=type=local,src={}", shared.display());
    for number in 0..3 {
        let built = reader.build(&dockerfile(number)).arg(&source).ok();
        built.expect(&[
            ("COPY c /c", true),
            ("RUN echo", true),
            ("RUN cat /number", true),
        ]);
    }
    let leftovers = files(&shared)
        .into_iter()
        .filter(|file| file.to_string_lossy().contains("/new-"));
    assert_eq!(leftovers.count(), 0);
}

#[test]
fn caches_that_cannot_be_used_are_told_of_after_the_result_is_out() {
    let place = place();
    let file = place.path().join("a-file");
    fs::write(&file, "").unwrap();
    let built = place
        .build(STAGES)
        .arg(&format!(
            "--cache-to=type=local,dest={}/below",
            file.display()
        ))
        .arg("--cache-to=type=gha,mode=max")
        .arg("--cache-from=type=gha")
        .arg("--cache-from=127.0.0.1:1/user/app:cache")
        .arg(&format!(
            "--cache-from=type=local,src={}/none",
            place.path().display()
        ))
        .ok();
    for words in [
        "a-file/below: FAILED",
        "cannot use the cache `type=gha`: caches of type `gha` are not implemented, only `local`",
        "cannot read a record of the cache `127.0.0.1:1/user/app:cache`",
        "there is no cache in",
    ] {
        assert!(built.log.contains(words), "{words} in:\n{}", built.log);
    }
    let exported = built.log.find("exporting to an OCI archive: DONE").unwrap();
    assert!(exported < built.log.find("exporting cache").unwrap());
    // What is no cache is not written into.
    let other = place.path().join("other");
    write_base(&other);
    let built = place
        .build(STAGES)
        .arg(&format!("--cache-to=type=local,dest={}", other.display()))
        .ok();
    assert!(
        built.log.contains("is not a cache of this format"),
        "{}",
        built.log
    );
    assert!(!other.join("keys").exists());
    let (code, log) = place.build(STAGES).arg("--cache-to=type=local").err();
    assert_eq!(code, 2, "{log}");
}

/// A base with a hard link into a lower layer can't be packed anew: its own blobs are kept.
#[test]
fn a_base_that_leans_on_lower_layers_comes_from_the_cache_as_it_was() {
    let place = place();
    let mut layer = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_size(1);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_000_000_000);
    // Its parents are not in the layer.
    layer
        .append_data(&mut header, "usr/lib/deep/x", &b"x"[..])
        .unwrap();
    let layer = layer.into_inner().unwrap();
    let base = place.path().join("base");
    let blobs = base.join("blobs/sha256");
    let busybox = files(&blobs)
        .into_iter()
        .map(|file| fs::read(file).unwrap())
        .max_by_key(Vec::len)
        .unwrap();
    fs::remove_dir_all(&base).unwrap();
    crate::support::write_layout(
        &base,
        &[busybox, layer],
        &serde_json::json!({"Env": ["PATH=/bin"]}),
    );
    let dockerfile = "FROM base\nRUN cat /usr/lib/deep/x > /y\n";
    let first = place.build(dockerfile).arg(&to(&place, "")).ok();
    forget_store(&place);
    let second = place.build(dockerfile).arg(&from(&place)).ok();
    second.expect(&[("RUN cat", true)]);
    assert_eq!(first.image.config, second.image.config);
    assert_eq!(second.image.text("y"), "x");
}
