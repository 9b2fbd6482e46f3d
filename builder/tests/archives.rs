//! `load`, `import`, `export`: archives that others wrote or that lie, and root file systems.

#[path = "support/home.rs"]
mod home;
#[path = "support/place.rs"]
mod place;
#[path = "support/registry.rs"]
mod registry;

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use home::{Home, told};
use place::run;

/// Runs with a file as standard input in a store that has nothing but what an earlier call put there.
fn piped(home: &Home, root: &str, arguments: &[&str], input: &Path) -> (bool, String) {
    let output = home
        .command(root, arguments)
        .stdin(Stdio::from(File::open(input).expect("readable")))
        .output()
        .expect("it runs");
    told(&output)
}

/// What `images` says in a store: names and ids.
fn images(home: &Home, root: &str) -> Vec<(String, String)> {
    let output = home.command(root, &["images", "--no-trunc"]).output();
    let output = output.expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut found: Vec<(String, String)> = text
        .lines()
        .skip(1)
        .map(|line| {
            let mut words = line.split_whitespace();
            let word = |word: Option<&str>| word.unwrap_or_default().to_owned();
            (word(words.next()), word(words.next()))
        })
        .collect();
    found.sort();
    found
}

fn two_images(home: &Home) -> Vec<(String, String)> {
    let (done, log) = home.build("one", &["-t", "app:1", "-t", "localhost/other:x"]);
    assert!(done, "{log}");
    let (done, log) = home.build("two", &["-t", "app:2"]);
    assert!(done, "{log}");
    images(home, "root")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn archives_of_all_kinds_are_loaded() {
    let Some(home) = Home::new() else { return };
    let built = two_images(&home);
    assert_eq!(built.len(), 3, "{built:?}");
    for form in ["docker-archive", "oci-archive"] {
        let archive = home.path(form);
        let names = ["app:1", "localhost/other:x", "app:2"];
        let arguments = ["save", "--format", form, "-o", text(&archive)];
        home.rbuild(&[&arguments[..], &names].concat());
        let gzip = PathBuf::from(format!("{}.gz", text(&archive)));
        let zstd = PathBuf::from(format!("{}.zst", text(&archive)));
        run(&[
            "sh",
            "-c",
            &format!("gzip -c {} > {}", text(&archive), text(&gzip)),
        ]);
        run(&["zstd", "-q", text(&archive), "-o", text(&zstd)]);
        for (number, (input, is_piped)) in [
            (&archive, false),
            (&archive, true),
            (&gzip, false),
            (&gzip, true),
            (&zstd, true),
        ]
        .into_iter()
        .enumerate()
        {
            let root = format!("{form}-{number}");
            let (done, log) = if is_piped {
                piped(&home, &root, &["load"], input)
            } else {
                let load = home.command(&root, &["load", "-i", text(input)]).output();
                told(&load.expect("it runs"))
            };
            assert!(done && log.contains("app:2 sha256:"), "{root}: {log}");
            assert_eq!(images(&home, &root), built, "{root}");
        }
    }
}

#[test]
fn what_others_write_is_loaded_and_given_on_as_it_came() {
    let Some(home) = Home::new() else { return };
    let built = two_images(&home);
    let layout = home.path("layout");
    home.rbuild(&["save", "--format", "oci-dir", "-o", text(&layout), "app:1"]);
    let archive = home.path("by-skopeo.tar");
    let source = format!("oci:{}:1", text(&layout));
    let target = format!("docker-archive:{}:localhost/by/skopeo:1", text(&archive));
    run(&["skopeo", "copy", "-q", &source, &target]);
    let load = home.command("docker", &["load", "-q", "-i", text(&archive)]);
    let (done, log) = told(&{ load }.output().expect("it runs"));
    let id = built
        .iter()
        .find(|(name, _)| name == "app:1")
        .map(|(_, id)| id.clone())
        .expect("built");
    assert!(done && log.trim() == id, "{log}");
    assert_eq!(
        images(&home, "docker"),
        [("localhost/by/skopeo:1".to_owned(), id)]
    );
    // The archive may go: its layers are the store's now, also those that were compressed by someone else.
    fs::remove_file(&archive).expect("removed");
    let again = home.path("again.tar");
    let save = home
        .command(
            "docker",
            &["save", "-o", text(&again), "localhost/by/skopeo:1"],
        )
        .output();
    let (done, log) = told(&save.expect("it runs"));
    assert!(done, "{log}");
    let layout = home.path("unpacked");
    let source = format!("docker-archive:{}", text(&again));
    let target = format!("oci:{}:1", text(&layout));
    run(&["skopeo", "copy", "-q", &source, &target]);
}

/// Changes one byte in the middle of a file of the archive, and writes the archive again.
fn with_spoilt(archive: &Path, target: &Path, is_victim: impl Fn(&str, &[u8]) -> bool) {
    let mut tar = tar::Archive::new(File::open(archive).expect("readable"));
    let mut written = tar::Builder::new(File::create(target).expect("writable"));
    let mut victims = 0;
    for entry in tar.entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        let name = entry.path().expect("a path").display().to_string();
        let mut header = entry.header().clone();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("readable");
        if is_victim(&name, &content) {
            victims += 1;
            let middle = content.len() / 2;
            content[middle] ^= 1;
        }
        written
            .append_data(&mut header, name, content.as_slice())
            .expect("written");
    }
    written.finish().expect("written");
    assert_ne!(victims, 0);
}

#[test]
fn archives_that_lie_leave_nothing() {
    let Some(home) = Home::new() else { return };
    two_images(&home);
    let whole = home.path("whole.tar");
    let arguments = ["save", "--compression", "uncompressed", "-o"];
    home.rbuild(&[&arguments[..], &[text(&whole), "app:1"]].concat());
    let bytes = fs::read(&whole).expect("readable");
    let is_blob = |name: &str| name.starts_with("blobs/sha256/") && name.len() > 20;
    let is_json = |content: &[u8]| content.starts_with(b"{");
    let layer = home.path("layer.tar");
    with_spoilt(&whole, &layer, |name, content| {
        is_blob(name) && !is_json(content)
    });
    let document = home.path("document.tar");
    with_spoilt(&whole, &document, |name, content| {
        is_blob(name) && is_json(content)
    });
    let index = home.path("index.tar");
    with_spoilt(&whole, &index, |name, _| name == "index.json");
    let short = home.path("short.tar");
    fs::write(&short, &bytes[..bytes.len() / 2]).expect("written");
    let squeezed = home.path("squeezed");
    run(&["zstd", "-q", text(&whole), "-o", text(&squeezed)]);
    let half = fs::read(&squeezed).expect("readable");
    let cut = home.path("cut.zst");
    fs::write(&cut, &half[..half.len() / 2]).expect("written");
    let empty = home.write("empty", "");
    let words = home.write("words", "this is no archive");
    // The same without its layout: judged by the list that Docker reads.
    let docker = home.path("docker.tar");
    let mut tar = tar::Builder::new(File::create(&docker).expect("writable"));
    let config = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:1111111111111111111111111111111111111111111111111111111111111111"]}}"#;
    for (name, content) in [
        ("l.tar", "not what its diff_id says"),
        ("c.json", config),
        (
            "manifest.json",
            r#"[{"Config":"c.json","RepoTags":["a:1"],"Layers":["l.tar"]}]"#,
        ),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, content.as_bytes())
            .expect("written");
    }
    tar.finish().expect("written");
    for (path, expected) in [
        (&layer, "digest"),
        (&document, "digest"),
        (&index, ""),
        (&short, ""),
        (&cut, "cannot read `"),
        (&empty, "is empty"),
        (&words, "no tar archive"),
        (&docker, "digest"),
    ] {
        let name = path.file_name().expect("a name").to_string_lossy();
        for is_piped in [false, true] {
            let (done, log) = if is_piped {
                piped(&home, "liars", &["load"], path)
            } else {
                let load = home.command("liars", &["load", "-i", text(path)]).output();
                told(&load.expect("it runs"))
            };
            assert!(!done && log.contains(expected), "{name}: {log}");
            assert!(!log.contains("panicked"), "{name}: {log}");
        }
    }
    assert!(images(&home, "liars").is_empty());
    let left = fs::read_dir(home.path("liars/work"))
        .expect("readable")
        .count();
    assert_eq!(left, 0, "nothing is left in work/");
}

#[test]
fn a_root_file_system_goes_in_and_comes_out() {
    let Some(home) = Home::new() else { return };
    let tree = home.path("tree");
    fs::create_dir_all(tree.join("bin")).expect("made");
    fs::copy("/bin/busybox", tree.join("bin/sh")).expect("busybox-static is installed");
    fs::write(tree.join("file"), "content\n").expect("written");
    run(&["chown", "12:34", text(&tree.join("file"))]);
    let tar = home.path("root.tar");
    run(&["tar", "-C", text(&tree), "-cf", text(&tar), "."]);
    let packed = home.path("root.tar.xz");
    run(&[
        "sh",
        "-c",
        &format!("xz -c {} > {}", text(&tar), text(&packed)),
    ]);

    let changes = [
        "-c",
        "CMD [\"/bin/sh\", \"-c\", \"cat /file\"]",
        "-c",
        "ENV A=1 B=two",
        "-c",
        "WORKDIR /work",
    ];
    let from_file = home.rbuild(&[&["import"], &changes[..], &[text(&tar), "base:1"]].concat());
    let (done, log) = piped(
        &home,
        "root",
        &[&["import"], &changes[..], &["-", "base:2"]].concat(),
        &packed,
    );
    assert!(done, "{log}");
    let config = home.rbuild(&["inspect", "base:1"]);
    for words in ["\"A=1\"", "\"B=two\"", "\"WorkingDir\": \"/work\""] {
        assert!(config.contains(words), "{words}: {config}");
    }
    assert!(from_file.starts_with("sha256:"), "{from_file}");
    assert_eq!(home.rbuild(&["run", "base:1"]), "content\n");
    assert_eq!(home.rbuild(&["run", "base:2"]), "content\n");

    let exported = home.path("out.tar");
    home.rbuild(&["export", "-o", text(&exported), "base:1"]);
    let listed = run(&["tar", "--numeric-owner", "-tvf", text(&exported)]);
    let line = listed
        .lines()
        .find(|line| line.ends_with(" file"))
        .unwrap_or_else(|| panic!("{listed}"));
    assert!(line.contains("12/34"), "{listed}");
    assert!(
        listed.contains("work/") && listed.contains("bin/sh"),
        "{listed}"
    );

    for (arguments, expected) in [
        (
            vec!["import", "-c", "RUN true", text(&tar)],
            "cannot be a change",
        ),
        (
            vec!["import", "-c", "CMD [\"a\"", "--", "/etc/passwd"],
            "not a tar archive",
        ),
        (
            vec!["import", "-c", "HEALTHCHECK what", text(&tar)],
            "health check",
        ),
        (vec!["import", "/nonexistent"], "cannot read `/nonexistent`"),
        (vec!["export", "nothing:1"], "no image `nothing:1`"),
    ] {
        let (done, log) = home.try_rbuild(&arguments);
        assert!(!done && log.contains(expected), "{arguments:?}: {log}");
    }
    let words = home.write("not-a-tar", "a word\n");
    let (done, log) = piped(&home, "root", &["import", "-"], &words);
    assert!(!done && log.contains("`-` is not a tar archive"), "{log}");
}
