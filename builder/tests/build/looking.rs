//! Checks, outlines and targets of Dockerfiles that have to be fetched or unpacked first.

use std::fs;
use std::process::Output;

use super::servers::{GitServer, Page, Repository, WebServer};
use super::support::{Place, tool};

const DOCKERFILE: &str = "# base is where it begins\nFROM scratch as base\nARG A=1\nFROM base\n";

/// Standard output of `rbuild` with these words, and its exit code.
fn look(place: &Place, arguments: &[&str], stdin: &[u8]) -> (Option<i32>, String) {
    let path = place.path().join("stdin");
    fs::write(&path, stdin).unwrap();
    let mut command = place.rbuild();
    command
        .args(arguments)
        .stdin(fs::File::open(&path).unwrap());
    let Output { status, stdout, .. } = command.output().unwrap();
    (status.code(), String::from_utf8_lossy(&stdout).into_owned())
}

#[test]
fn every_kind_of_context_can_be_looked_at() {
    let place = Place::new();
    let app = Repository::new(place.path().join("repositories/app.git"));
    app.file("Dockerfile", "FROM scratch\n")
        .file("dir/Dockerfile", DOCKERFILE)
        .commit();
    let server = GitServer::start(&place.path().join("repositories"));
    let repository = server.url("app.git");
    place.file("dir/Dockerfile", DOCKERFILE);
    let archive = place.path().join("context.tar.gz");
    let directory = place.context().join("dir");
    let words = [
        "-czf",
        archive.to_str().unwrap(),
        "-C",
        directory.to_str().unwrap(),
        ".",
    ];
    tool("tar", words);
    let archive = fs::read(&archive).unwrap();
    let web = WebServer::start();
    web.put("/context", Page::new(archive.clone()));
    web.put("/lone", Page::new(DOCKERFILE));
    let (packed, lone) = (web.url("/context"), web.url("/lone"));
    let inner = format!("{repository}#:dir");
    let context = place.context();
    let context = context.to_str().unwrap();
    for (words, stdin, name) in [
        (&[inner.as_str()][..], &b""[..], "Dockerfile"),
        (
            &["-f", "dir/Dockerfile", &repository],
            b"",
            "dir/Dockerfile",
        ),
        (&[&packed], b"", "Dockerfile"),
        (&[&lone], b"", &lone),
        (&["-f", &lone, context], b"", &lone),
        (&["-"], DOCKERFILE.as_bytes(), "<stdin>"),
        (&["-f", "-", &repository], DOCKERFILE.as_bytes(), "<stdin>"),
        (&["-"], &archive, "Dockerfile"),
    ] {
        let arguments = [&["check"], words].concat();
        let (code, found) = look(&place, &arguments, stdin);
        assert_eq!(code, Some(1), "{words:?}: {found}");
        assert!(found.contains("[FromAsCasing]"), "{words:?}: {found}");
        let at = format!("--> {name}:2:14");
        assert!(found.contains(&at), "{words:?}: {found}");
    }
    let (code, found) = look(&place, &["check", &repository], b"");
    assert_eq!((code, found.as_str()), (Some(0), "no problems found\n"));
    let (code, found) = look(&place, &["--call=targets", &inner], b"");
    assert!(
        code == Some(0) && found.contains("where it begins"),
        "{found}"
    );
    let (code, found) = look(&place, &["--call=outline", "--target=base", "-"], &archive);
    assert!(code == Some(0) && found.contains('A'), "{found}");
    let (code, found) = look(&place, &["check", "--diff", &packed], b"");
    assert!(
        code == Some(1) && found.contains("+FROM scratch AS base"),
        "{found}"
    );
    // Looking is no build.
    let (code, listed) = look(&place, &["builds", "--format", "json"], b"");
    assert!(
        code == Some(0) && !listed.contains("Dockerfile"),
        "{listed}"
    );
}
