//! Build contexts that are not simply a directory: standard input, archives, addresses, and where the Dockerfile is.

use std::io::Write;
use std::process::Stdio;

use super::servers::{Page, WebServer};
use super::support::{Image, Place};

const DOCKERFILE: &str = "FROM scratch\nCOPY . /all/\n";

/// A tar with files of user 12, and the times that archives have.
fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o640);
        header.set_uid(12);
        header.set_gid(34);
        header.set_mtime(1_000_000_000);
        // Not through the builder, which refuses hostile names.
        let name = path.as_bytes();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Bytes through a compressor.
fn through(command: &[&str], bytes: &[u8]) -> Vec<u8> {
    let mut child = std::process::Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{} is not installed: {error}", command[0]));
    let mut stdin = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let feeder = std::thread::spawn(move || stdin.write_all(&bytes).unwrap());
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    assert!(output.status.success());
    output.stdout
}

#[test]
fn an_archive_on_stdin_is_a_context_however_it_is_compressed() {
    let place = Place::new();
    let plain = archive(&[("Dockerfile", DOCKERFILE), ("dir/f", "content")]);
    for (position, command) in [
        &["cat"][..],
        &["gzip", "-nc"],
        &["bzip2", "-c"],
        &["xz", "-c"],
        &["zstd", "-qc"],
    ]
    .into_iter()
    .enumerate()
    {
        let built = place
            .build_context("-")
            .stdin(through(command, &plain))
            .ok();
        assert_eq!(built.image.text("all/dir/f"), "content", "{command:?}");
        let entry = built.image.entry("all/dir/f").unwrap();
        // Owners, modes and times are the archive's.
        assert_eq!((entry.uid, entry.gid, entry.mode), (12, 34, 0o640));
        assert_eq!(entry.mtime, 1_000_000_000);
        // The same files are the same input, whatever they were wrapped in.
        built.expect(&[("COPY . /all/", position > 0)]);
    }
}

#[test]
fn a_dockerfile_on_stdin_has_an_empty_context() {
    let place = Place::new();
    let built = place
        .build_context("-")
        .stdin("FROM scratch\nLABEL a=b\nCOPY . /all/\n")
        .ok();
    assert_eq!(built.image.config["config"]["Labels"]["a"], "b");
    assert!(built.image.entry("all/Dockerfile").is_none());
    let (_, log) = place
        .build_context("-")
        .stdin("FROM scratch\nCOPY Dockerfile /\n")
        .err();
    assert!(log.contains("`/Dockerfile` not found"), "{log}");
}

#[test]
fn stdin_is_one_thing() {
    let place = Place::new();
    for (arguments, stdin, code, expected) in [
        (&["-f", "-"][..], "FROM scratch\n", 2, "both read stdin"),
        (
            &["-f", "x"],
            "FROM scratch\n",
            1,
            "there are two Dockerfiles",
        ),
        (&[], "", 1, "standard input is empty"),
    ] {
        let mut prepared = place.build_context("-").stdin(stdin);
        for argument in arguments {
            prepared = prepared.arg(argument);
        }
        let (found, log) = prepared.err();
        assert_eq!(found, code, "{log}");
        assert!(log.contains(expected), "{log}");
    }
}

#[test]
fn the_dockerfile_comes_from_stdin_and_the_files_from_elsewhere() {
    let place = Place::new();
    place.file("a.txt", "a");
    let dockerfile = "FROM scratch\nCOPY a.txt /\n";
    let context = place.context();
    let built = place
        .build_context(&context)
        .arg("-f")
        .arg("-")
        .stdin(dockerfile)
        .ok();
    assert_eq!(built.image.text("a.txt"), "a");
    let server = WebServer::start();
    server.put("/c.tar", Page::new(archive(&[("a.txt", "of the archive")])));
    let built = place
        .build_context(server.url("/c.tar"))
        .arg("-f")
        .arg("-")
        .stdin(dockerfile)
        .ok();
    assert_eq!(built.image.text("a.txt"), "of the archive");
}

#[test]
fn a_dockerfile_lies_in_the_context_or_outside_of_it() {
    let place = Place::new();
    let outside = place.path().join("outside.Dockerfile");
    std::fs::write(&outside, "FROM scratch\nLABEL from=outside\nCOPY f /\n").unwrap();
    let inside = "FROM scratch\nLABEL from=inside\nCOPY f /\n";
    place.file("f", "f").file("sub/Dockerfile", inside);
    let tar = archive(&[
        ("f", "f"),
        ("sub/Dockerfile", inside),
        ("sub/lower/dockerfile", inside),
    ]);
    let from = |image: &Image| image.config["config"]["Labels"]["from"].clone();
    let contexts = [place.context().into_os_string(), "-".into()];
    for context in contexts {
        for (file, expected) in [
            (outside.to_str().unwrap(), "outside"),
            ("sub/Dockerfile", "inside"),
        ] {
            let prepared = place.build_context(&context).stdin(tar.clone());
            let built = prepared.arg("-f").arg(file).ok();
            assert_eq!(from(&built.image), expected, "{file}");
        }
        let prepared = place.build_context(&context).stdin(tar.clone());
        let (code, log) = prepared.arg("-f").arg("nowhere").err();
        assert_eq!(code, 1);
        assert!(log.contains("Dockerfile `nowhere` not found"), "{log}");
    }
    let prepared = place.build_context("-").stdin(tar);
    let built = prepared.arg("-f").arg("sub/lower/Dockerfile").ok();
    assert_eq!(from(&built.image), "inside");
}

#[test]
fn other_names_of_the_files_are_known() {
    let place = Place::new();
    place
        .file("Containerfile", DOCKERFILE)
        .file("hidden", "")
        .file("kept", "")
        .file(".containerignore", "hidden\n");
    let context = place.context();
    let built = place.build_context(&context).ok();
    assert!(built.image.entry("all/hidden").is_none());
    assert!(built.image.entry("all/kept").is_some());
    // The usual name goes first, and so does the Dockerfile's own ignore file.
    place.file("Dockerfile", "FROM scratch\nCOPY . /usual/\n");
    place.file("Dockerfile.dockerignore", "kept\n");
    let built = place.build_context(&context).ok();
    assert!(built.image.entry("usual/hidden").is_some());
    assert!(built.image.entry("usual/kept").is_none());
    // An archive has the names, but nothing in it is ignored.
    let tar = archive(&[
        ("Containerfile", DOCKERFILE),
        (".dockerignore", "f\n"),
        ("f", ""),
    ]);
    let built = place.build_context("-").stdin(tar).ok();
    assert!(built.image.entry("all/f").is_some());
}

#[test]
fn an_address_is_an_archive_or_a_dockerfile() {
    let place = Place::new();
    let server = WebServer::start();
    let tar = archive(&[("Dockerfile", DOCKERFILE), ("f", "1")]);
    // What the server calls it does not count.
    let page = Page::new(through(&["gzip", "-nc"], &tar)).header("Content-Type", "text/plain");
    server.put("/context", page.header("ETag", "\"one\""));
    let built = place.build_context(server.url("/context")).ok();
    assert_eq!(built.image.text("all/f"), "1");
    place
        .build_context(server.url("/context"))
        .ok()
        .expect(&[("COPY . /all/", true)]);
    assert_eq!(
        server.sent(),
        ["/context"],
        "the server was asked, and sent it once"
    );
    assert_eq!(server.requests(), 2);
    // The file itself is all that such a context holds.
    server.put("/file", Page::new("FROM scratch\nCOPY . /all/\n"));
    let built = place.build_context(server.url("/file")).ok();
    assert_eq!(
        built.image.text("all/context"),
        "FROM scratch\nCOPY . /all/\n"
    );
    assert_eq!(built.image.entry("all/context").unwrap().mode, 0o600);
    let context = place.context();
    let built = place
        .build_context(&context)
        .arg("-f")
        .arg(&server.url("/file"))
        .ok();
    assert!(built.image.entry("all").is_some());
    let (code, log) = place.build_context(server.url("/none")).err();
    assert_eq!(code, 1);
    assert!(log.contains("the server answered 404 Not Found"), "{log}");
}

#[test]
fn a_directory_of_an_archive_can_be_the_context() {
    let place = Place::new();
    let tar = archive(&[("a/b/Dockerfile", DOCKERFILE), ("a/b/f", "f"), ("a/g", "g")]);
    let prepare = || place.build_context("-").stdin(tar.clone());
    let built = prepare().arg("--context-subdir=a/b").ok();
    assert!(built.image.entry("all/f").is_some());
    assert!(built.image.entry("all/g").is_none());
    let (_, log) = prepare().arg("--context-subdir=nope").err();
    assert!(log.contains("`/nope` not found"), "{log}");
    let context = place.context();
    let (_, log) = place
        .build_context(&context)
        .arg("--context-subdir=a")
        .err();
    assert!(
        log.contains("a subdirectory of it can't be chosen"),
        "{log}"
    );
}

#[test]
fn hostile_archives_are_refused_and_leave_nothing_outside() {
    let place = Place::new();
    let outside = place.path().join("root/escaped");
    let mut tar = archive(&[("Dockerfile", DOCKERFILE), ("../../../../../escaped", "x")]);
    let built = place.build_context("-").stdin(tar.clone()).ok();
    assert!(
        built.image.entry("all/escaped").is_some(),
        "it stays inside"
    );
    assert!(!outside.exists());
    // A symlink to the outside, and the Dockerfile behind it.
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    let target = place.path().join("secret");
    std::fs::write(&target, "FROM scratch\nLABEL secret=1\n").unwrap();
    builder
        .append_link(&mut header, "Dockerfile", &target)
        .unwrap();
    let (code, log) = place
        .build_context("-")
        .stdin(builder.into_inner().unwrap())
        .err();
    assert_eq!(code, 1);
    assert!(log.contains("no Dockerfile in `-`"), "{log}");
    // A header that claims more than any disk has.
    let mut header = tar::Header::new_gnu();
    header.set_path("huge").unwrap();
    header.set_size(1 << 62);
    header.set_cksum();
    tar.truncate(tar.len() - 1024);
    tar.extend_from_slice(header.as_bytes());
    let (code, log) = place.build_context("-").stdin(tar.clone()).err();
    assert_eq!(code, 1);
    assert!(log.contains("more than 16000000 files or 256 GiB"), "{log}");
    // Cut off in the middle.
    let numbers: Vec<String> = (0..20_000).map(|number: u32| number.to_string()).collect();
    let large = numbers.join("\n");
    let tar = archive(&[("Dockerfile", DOCKERFILE), ("large", &large)]);
    let packed = through(&["gzip", "-nc"], &tar);
    let (code, log) = place
        .build_context("-")
        .stdin(&packed[..packed.len() / 2])
        .err();
    assert_eq!(code, 1);
    assert!(log.contains("cannot unpack"), "{log}");
    let (_, log) = place
        .build_context("-")
        .stdin(through(&["gzip", "-nc"], b"no tar"))
        .err();
    assert!(
        log.contains("is compressed, but holds no tar archive"),
        "{log}"
    );
}

#[test]
fn a_named_context_stands_in_for_stages_images_and_sources() {
    let place = Place::new();
    let named = place.path().join("named");
    std::fs::create_dir(&named).unwrap();
    std::fs::write(named.join("f"), "of the directory").unwrap();
    std::fs::write(named.join("hidden"), "").unwrap();
    std::fs::write(named.join(".dockerignore"), "hidden\n").unwrap();
    let server = WebServer::start();
    server.put("/file.tar", Page::new(archive(&[("f", "packed")])));
    let dockerfile = "\
FROM nothing AS files
RUN never run
FROM base AS stage
COPY --from=files f /from-stage
COPY --from=some.host/image:1 f /from-image
COPY --from=web context /from-web
RUN --mount=from=files,target=/m cp /m/f /from-mount && ls /m > /listed
";
    let at = |name: &str| format!("--build-context={name}={}", named.display());
    let built = place
        .build(dockerfile)
        .arg(&at("files"))
        .arg(&at("some.host/image:1"))
        .arg(&format!("--build-context=web={}", server.url("/file.tar")))
        .ok();
    for path in ["from-stage", "from-image", "from-mount"] {
        assert_eq!(built.image.text(path), "of the directory", "{path}");
    }
    assert!(!built.image.text("listed").contains("hidden"));
    // A file is a file, archive or not, as with the reference.
    assert!(built.image.text("from-web").contains("packed"));
    assert!(built.image.text("from-web").len() > 1000);
}

#[test]
fn a_named_context_can_be_for_one_platform() {
    let place = Place::new();
    for name in ["one", "other"] {
        std::fs::create_dir(place.path().join(name)).unwrap();
        std::fs::write(place.path().join(name).join("f"), name).unwrap();
    }
    let at = |name: &str, directory: &str| {
        let path = place.path().join(directory);
        format!("--build-context={name}={}", path.display())
    };
    let built = place
        .build("FROM scratch\nCOPY --from=files f /\n")
        .arg("--platform=linux/arm64")
        .arg(&at("files", "one"))
        .arg(&at("files::linux/arm64", "other"))
        .ok();
    assert_eq!(built.image.text("f"), "other");
}

#[test]
fn the_epoch_is_the_time_of_a_context() {
    let place = Place::new();
    let server = WebServer::start();
    let tar = archive(&[("Dockerfile", DOCKERFILE), ("f", "")]);
    let created = |image: &Image| image.config["created"].clone();
    let prepare = || place.build_context("-").stdin(tar.clone());
    // An archive is as old as its newest file.
    let built = prepare().arg("--build-arg=SOURCE_DATE_EPOCH=context").ok();
    assert_eq!(created(&built.image), "2001-09-09T01:46:40Z");
    let page = Page::new("x").header("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT");
    server.put("/f", page);
    let named = format!("--build-context=src={}", server.url("/f"));
    let built = prepare()
        .arg("--build-arg=SOURCE_DATE_EPOCH=src")
        .arg(&named)
        .ok();
    assert_eq!(created(&built.image), "1994-11-06T08:49:37Z");
    // A stage of one ADD, in the Dockerfile itself; steps see the number.
    let dockerfile = format!(
        "ARG SOURCE_DATE_EPOCH=src\nFROM scratch AS src\nADD {} /\nFROM base\nARG SOURCE_DATE_EPOCH\nRUN echo $SOURCE_DATE_EPOCH > /epoch\n",
        server.url("/f")
    );
    let built = place.build(&dockerfile).ok();
    assert_eq!(created(&built.image), "1994-11-06T08:49:37Z");
    assert_eq!(built.image.text("epoch"), "784111777\n");
    // A directory has no time.
    let built = place
        .build("FROM base\nARG SOURCE_DATE_EPOCH\nRUN echo \"[$SOURCE_DATE_EPOCH]\" > /epoch\n")
        .arg("--build-arg=SOURCE_DATE_EPOCH=context")
        .ok();
    assert_eq!(built.image.text("epoch"), "[]\n");
    let (code, log) = place
        .build("FROM scratch\n")
        .arg("--build-arg=SOURCE_DATE_EPOCH=yesterday")
        .err();
    assert_eq!(code, 2);
    assert!(log.contains("nothing with a time has that name"), "{log}");
}
