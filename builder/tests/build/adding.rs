//! `ADD` of URLs.

use super::servers::{Page, WebServer};
use super::support::Place;

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    use std::fmt::Write;
    let mut text = "sha256:".to_owned();
    for byte in Sha256::digest(bytes) {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}

#[test]
fn a_file_has_the_server_s_time_and_the_address_s_name() {
    let place = Place::new();
    let server = WebServer::start();
    let page = Page::new("x").header("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT");
    server.put(
        "/a/name%20x",
        page.clone()
            .header("Content-Disposition", "attachment; filename=other"),
    );
    server.put("/", Page::new("y"));
    let dockerfile = format!(
        "FROM scratch\nADD {} {} /d/\nADD --chmod=755 --chown=7:8 {} /e\n",
        server.url("/a/name%20x?q=1#f"),
        server.url("/"),
        server.url("/")
    );
    let built = place.build(&dockerfile).ok();
    let entry = built.image.entry("d/name x").unwrap();
    assert_eq!(
        (entry.mode, entry.uid, entry.mtime),
        (0o600, 0, 784_111_777)
    );
    let entry = built.image.entry("d/__unnamed__").unwrap();
    assert_eq!((entry.content.as_slice(), entry.mtime), (&b"y"[..], 0));
    let entry = built.image.entry("e").unwrap();
    assert_eq!((entry.mode, entry.uid, entry.gid), (0o755, 7, 8));
}

#[test]
fn a_file_is_sent_again_only_when_it_changed() {
    let place = Place::new();
    let server = WebServer::start();
    let put = |content: &str, etag: &str| {
        server.put("/f", Page::new(content).header("ETag", etag));
    };
    let dockerfile = format!("FROM scratch\nADD {} /\n", server.url("/f"));
    let prepare = || place.build(&dockerfile).ok();
    put("one", "\"1\"");
    prepare();
    prepare().expect(&[("ADD http", true)]);
    assert_eq!(server.sent(), ["/f"]);
    // Another ETag, the same content: nothing runs.
    put("one", "\"2\"");
    prepare().expect(&[("ADD http", true)]);
    put("two", "\"3\"");
    let built = prepare();
    built.expect(&[("ADD http", false)]);
    assert_eq!(built.image.text("f"), "two");
    assert_eq!(server.sent().len(), 3);
    assert_eq!(server.requests(), 4);
}

#[test]
fn a_checksum_needs_no_request_when_the_step_is_cached() {
    let place = Place::new();
    let server = WebServer::start();
    server.put("/f", Page::new("content"));
    let add = |checksum: &str, destination: &str| {
        let url = server.url("/f");
        place.build(&format!(
            "FROM scratch\nADD --checksum={checksum} {url} {destination}\n"
        ))
    };
    let right = sha256(b"content");
    assert_eq!(add(&right, "/f").ok().image.text("f"), "content");
    assert_eq!(server.requests(), 1);
    add(&right, "/f").ok().expect(&[("ADD", true)]);
    // Another step of the same file has it from the store.
    assert_eq!(add(&right, "/g").ok().image.text("g"), "content");
    assert_eq!(server.requests(), 1);
    let (code, log) = add(&sha256(b"other"), "/f").err();
    assert_eq!(code, 1);
    assert!(log.contains(&format!("has the digest `{right}`")), "{log}");
}

#[test]
fn part_of_a_file_is_never_used() {
    let place = Place::new();
    let server = WebServer::start();
    let cut = Page {
        length: Some(100),
        ..Page::new("only this")
    };
    server.put("/cut", cut.header("ETag", "\"1\""));
    let part = Page {
        status: Some("206 Partial Content"),
        ..Page::new("part")
    };
    server.put("/part", part);
    for (path, expected) in [
        ("/cut", "cannot download"),
        ("/part", "the server answered 206"),
    ] {
        let dockerfile = format!("FROM scratch\nADD {} /\n", server.url(path));
        let (code, log) = place.build(&dockerfile).err();
        assert_eq!(code, 1);
        assert!(log.contains(expected), "{log}");
    }
    server.put("/cut", Page::new("whole").header("ETag", "\"1\""));
    let dockerfile = format!("FROM scratch\nADD {} /\n", server.url("/cut"));
    assert_eq!(place.build(&dockerfile).ok().image.text("cut"), "whole");
}

#[test]
fn an_archive_is_unpacked_when_it_is_asked_for() {
    let place = Place::new();
    let server = WebServer::start();
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(1);
    header.set_mode(0o600);
    header.set_uid(5);
    header.set_gid(6);
    builder.append_data(&mut header, "in/f", &b"f"[..]).unwrap();
    server.put("/a.tar", Page::new(builder.into_inner().unwrap()));
    let url = server.url("/a.tar");
    let built = place
        .build(&format!(
            "FROM scratch\nADD {url} /packed/\nADD --unpack=true {url} /unpacked/\n"
        ))
        .ok();
    assert!(built.image.entry("packed/a.tar").is_some());
    let entry = built.image.entry("unpacked/in/f").unwrap();
    assert_eq!((entry.uid, entry.gid), (5, 6));
    assert_eq!(server.requests(), 1, "an address is asked once a build");
}

#[test]
fn a_private_file_gets_its_host_s_token() {
    let place = Place::new();
    let server = WebServer::start();
    let private = Page {
        authorization: Some("Bearer secret".to_owned()),
        ..Page::new("private")
    };
    server.put("/f", private);
    let dockerfile = format!("FROM scratch\nADD {} /\n", server.url("/f"));
    let (_, log) = place.build(&dockerfile).err();
    assert!(
        log.contains("--secret id=HTTP_AUTH_TOKEN_127.0.0.1"),
        "{log}"
    );
    let token = place.path().join("token");
    std::fs::write(&token, "secret\n").unwrap();
    let secret = format!(
        "--secret=id=HTTP_AUTH_TOKEN_127.0.0.1,src={}",
        token.display()
    );
    let built = place.build(&dockerfile).arg(&secret).ok();
    assert_eq!(built.image.text("f"), "private");
}
