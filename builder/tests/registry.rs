//! The registry client against registries that misbehave in every way we know of.

#[path = "support/double.rs"]
mod double;

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use double::{Body, Double, Reply, Seen};
use oci_spec::image::Digest;
use rbuild::manifest::{Document, digest_of, media};
use rbuild::registry::{
    BlobUpload, ClientOptions, FetchedManifest, OnBytes, RegistryClient, RegistryError, Uploaded,
};
use rbuild_frontend::reference::Reference;

const EMPTY_INDEX: &str =
    r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;

fn options() -> ClientOptions {
    ClientOptions {
        attempts: 3,
        first_pause: Duration::from_millis(1),
        longest_pause: Duration::from_secs(2),
        read_timeout: Duration::from_millis(300),
        ..ClientOptions::default()
    }
}

fn client() -> RegistryClient {
    RegistryClient::new(options())
}

async fn manifest(double: &Double, rest: &str) -> Result<FetchedManifest, RegistryError> {
    let reference = Reference::parse(&double.name(rest)).expect("a name");
    client().manifest(&reference).await
}

async fn blob(
    double: &Double,
    client: &RegistryClient,
    digest: &Digest,
    size: usize,
) -> Result<Vec<u8>, RegistryError> {
    let reference = Reference::parse(&double.name("a/b")).expect("a name");
    let heard = AtomicU64::new(0);
    let hear = |bytes| _ = heard.fetch_add(bytes, Ordering::Relaxed);
    let bytes = client
        .download(&reference, digest, size as u64, Vec::new(), &hear)
        .await?;
    assert_eq!(
        heard.into_inner(),
        bytes.len() as u64,
        "every byte is told once"
    );
    Ok(bytes)
}

fn chain_of(error: &(dyn std::error::Error + 'static)) -> String {
    let texts = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string);
    texts.collect::<Vec<_>>().join(" | ")
}

type Handler = Box<dyn Fn(&Seen, usize) -> Reply + Send + Sync>;

#[tokio::test]
async fn manifests_that_lie_are_named() {
    let other = digest_of(b"something else");
    let by_digest = format!("a/b@{other}");
    let stated = other.to_string();
    let rows: Vec<(&str, &str, Handler, &str, usize)> = vec![
        (
            "wrong digest",
            &by_digest,
            Box::new(|_, _| Reply::manifest(media::OCI_INDEX, EMPTY_INDEX)),
            "does not have the digest",
            1,
        ),
        (
            "digest header differs",
            "a/b:1",
            Box::new(move |_, _| {
                Reply::manifest(media::OCI_INDEX, EMPTY_INDEX)
                    .with("docker-content-digest", stated.clone())
            }),
            "does not have the digest",
            1,
        ),
        (
            "a web page",
            "a/b:1",
            Box::new(|_, _| Reply::manifest("text/html", "<html>login")),
            "not a manifest but `text/html` starting with `<html>login`",
            1,
        ),
        (
            "wrong content type",
            "a/b:1",
            Box::new(|_, _| Reply::manifest("image/png", EMPTY_INDEX)),
            "announced as `image/png`",
            1,
        ),
        (
            "schema 1",
            "a/b:1",
            Box::new(|_, _| {
                Reply::manifest(
                    "application/vnd.docker.distribution.manifest.v1+prettyjws",
                    r#"{"schemaVersion":1}"#,
                )
            }),
            "schema 1",
            1,
        ),
        (
            "unknown schema",
            "a/b:1",
            Box::new(|_, _| Reply::ok(r#"{"schemaVersion":7,"manifests":[]}"#)),
            "schema version 7",
            1,
        ),
        (
            "endless",
            "a/b:1",
            Box::new(|_, _| Reply {
                status: 200,
                headers: vec![],
                body: Body::Endless,
            }),
            "more than the 4194304 bytes",
            1,
        ),
        (
            "cut off",
            "a/b:1",
            Box::new(|_, _| Reply {
                status: 200,
                headers: vec![],
                body: Body::CutOff {
                    bytes: b"{".to_vec(),
                    length: 100,
                },
            }),
            "broke off",
            3,
        ),
        (
            "silent",
            "a/b:1",
            Box::new(|_, _| Reply {
                status: 200,
                headers: vec![],
                body: Body::Silent,
            }),
            "broke off after 0 bytes",
            3,
        ),
        (
            "not there",
            "a/b:1",
            Box::new(|_, _| Reply::new(404, "")),
            "was not found in the registry",
            1,
        ),
        (
            "always broken",
            "a/b:1",
            Box::new(|_, _| Reply::new(503, "")),
            "answered 503",
            3,
        ),
        (
            "its own words",
            "a/b:1",
            Box::new(|_, _| {
                Reply::new(
                    400,
                    r#"{"errors":[{"code":"X","message":"no\u001b[31m such thing"}]}"#,
                )
            }),
            "answered 400 Bad Request: no [31m such thing",
            1,
        ),
        (
            "wait an hour",
            "a/b:1",
            Box::new(|_, _| Reply::new(429, "").with("retry-after", "3600")),
            "too many requests",
            1,
        ),
        (
            "basic auth",
            "a/b:1",
            Box::new(|_, _| Reply::new(401, "").with("www-authenticate", "Basic realm=\"x\"")),
            "cannot give: `Basic realm=\"x\"`",
            1,
        ),
        (
            "redirect loop",
            "a/b:1",
            Box::new(|seen, _| Reply::new(307, "").with("location", seen.path.clone())),
            "too many redirects in a row",
            6,
        ),
    ];
    for (name, rest, handler, expected, requests) in rows {
        let double = Double::start(handler).await;
        let error = manifest(&double, rest).await.expect_err(name);
        let told = chain_of(&error);
        assert!(told.contains(expected), "{name}: {told}");
        assert!(
            told.contains("127.0.0.1"),
            "{name} names the registry: {told}"
        );
        assert_eq!(double.seen().len(), requests, "{name}");
    }
}

#[tokio::test]
async fn passing_trouble_is_waited_out() {
    let double = Double::start(
        |seen, before| match (seen.path.rsplit('/').next(), before) {
            (Some("busy"), 0) => Reply::new(429, "").with("retry-after", "1"),
            (Some("ill"), 0) => Reply::new(500, "oops"),
            (Some("ill"), 1) => Reply {
                status: 200,
                headers: vec![],
                body: Body::CutOff {
                    bytes: vec![],
                    length: 9,
                },
            },
            _ => Reply::manifest(media::OCI_INDEX, EMPTY_INDEX),
        },
    )
    .await;
    let started = std::time::Instant::now();
    for tag in ["busy", "ill"] {
        let fetched = manifest(&double, &format!("a/b:{tag}")).await.expect(tag);
        assert!(matches!(fetched.document, Document::Index(_)));
        assert_eq!(fetched.digest, digest_of(EMPTY_INDEX.as_bytes()));
    }
    assert!(
        started.elapsed() >= Duration::from_secs(1),
        "Retry-After was obeyed"
    );
}

#[tokio::test]
async fn nobody_there_is_said_with_help() {
    let reference = Reference::parse("127.0.0.1:1/a").expect("a name");
    let error = client()
        .manifest(&reference)
        .await
        .expect_err("nobody listens on port 1");
    assert!(
        error
            .to_string()
            .contains("cannot reach `http://127.0.0.1:1/v2/a/manifests/latest`"),
        "{error}"
    );
    assert!(error.help().is_some_and(|help| help.contains("proxy")));
}

#[tokio::test]
async fn one_token_serves_all_and_is_renewed_when_refused() {
    let content = vec![7_u8; 10_000];
    let digest = digest_of(&content);
    let tokens = Double::start(|seen, before| {
        assert!(
            seen.query.contains("scope=repository%3Aa%2Fb%3Apull"),
            "{}",
            seen.query
        );
        Reply::ok(format!(r#"{{"token":"t{before}","expires_in":60}}"#))
    })
    .await;
    let port = tokens.port;
    // Tokens are `t0`, `t1`, …; `t0` is refused after a while.
    let front = {
        let served = content.clone();
        Double::start(move |seen, before| {
            let is_good = match seen.authorization.as_deref() {
                Some("Bearer t0") => before < 8,
                Some("Bearer t1") => true,
                _ => false,
            };
            if is_good {
                Reply::ok(served.clone())
            } else {
                let challenge =
                    format!(r#"Bearer realm="http://127.0.0.1:{port}/token",service="double""#);
                Reply::new(401, "").with("www-authenticate", challenge)
            }
        })
        .await
    };
    let client = client();
    let first = futures_util::future::join_all(
        (0..4).map(|_| blob(&front, &client, &digest, content.len())),
    )
    .await;
    assert!(
        first
            .iter()
            .all(|bytes| bytes.as_ref().is_ok_and(|bytes| *bytes == content))
    );
    assert_eq!(tokens.count("/token"), 1, "four downloads, one token");
    for _ in 0..4 {
        assert_eq!(
            blob(&front, &client, &digest, content.len())
                .await
                .expect("a blob"),
            content
        );
    }
    assert_eq!(
        tokens.count("/token"),
        2,
        "the refused token was renewed once"
    );
}

#[tokio::test]
async fn a_redirect_to_another_port_does_not_carry_the_token() {
    let content = b"layer".to_vec();
    let digest = digest_of(&content);
    let storage = {
        let content = content.clone();
        Double::start(move |seen, _| match seen.path.as_str() {
            "/token" => Reply::ok(r#"{"access_token":"secret"}"#),
            _ => Reply::ok(content.clone()),
        })
        .await
    };
    let port = storage.port;
    let front = Double::start(move |seen, _| match seen.authorization.as_deref() {
        Some("Bearer secret") => {
            Reply::new(307, "").with("location", format!("http://127.0.0.1:{port}/signed?key=1"))
        }
        _ => Reply::new(401, "").with(
            "www-authenticate",
            format!(r#"Bearer realm="http://127.0.0.1:{port}/token",service="s""#),
        ),
    })
    .await;
    assert_eq!(
        blob(&front, &client(), &digest, content.len())
            .await
            .expect("a blob"),
        content
    );
    let signed: Vec<Seen> = storage
        .seen()
        .into_iter()
        .filter(|seen| seen.path == "/signed")
        .collect();
    assert_eq!(signed.len(), 1);
    assert_eq!(
        signed[0].authorization, None,
        "the token stays with the registry"
    );
}

#[tokio::test]
async fn broken_downloads_go_on_where_they_stopped() {
    let content: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    let digest = digest_of(&content);
    for (name, knows_ranges) in [("with ranges", true), ("without", false)] {
        let served = content.clone();
        let double = Double::start(move |seen, before| {
            if before == 0 {
                let bytes = served[..300_000].to_vec();
                return Reply {
                    status: 200,
                    headers: vec![],
                    body: Body::CutOff {
                        bytes,
                        length: served.len(),
                    },
                };
            }
            match seen.range.as_deref().and_then(|range| {
                range
                    .strip_prefix("bytes=")?
                    .strip_suffix('-')?
                    .parse()
                    .ok()
            }) {
                Some(from) if knows_ranges => {
                    let from: usize = from;
                    let range = format!("bytes {from}-{}/{}", served.len() - 1, served.len());
                    Reply::new(206, served[from..].to_vec()).with("content-range", range)
                }
                _ => Reply::ok(served.clone()),
            }
        })
        .await;
        let bytes = blob(&double, &client(), &digest, content.len())
            .await
            .expect(name);
        assert!(bytes == content, "{name}");
        assert!(
            double.seen()[1].range.is_some(),
            "{name}: the rest was asked for"
        );
    }
}

#[tokio::test]
async fn blobs_of_the_wrong_size_are_refused() {
    type Row = (&'static str, fn() -> Reply, &'static str);
    let digest = digest_of(b"whatever");
    let rows: Vec<Row> = vec![
        (
            "longer, announced",
            || Reply::ok(vec![0; 101]),
            "more than the 100 bytes",
        ),
        (
            "endless",
            || Reply {
                status: 200,
                headers: vec![],
                body: Body::Endless,
            },
            "more than the 100 bytes",
        ),
        (
            "shorter",
            || Reply::ok(vec![0; 99]),
            "sent 99 bytes where 100 were announced",
        ),
        (
            "not there",
            || Reply::new(404, ""),
            "though a manifest names it",
        ),
    ];
    for (name, reply, expected) in rows {
        let double = Double::start(move |_, _| reply()).await;
        let error = blob(&double, &client(), &digest, 100)
            .await
            .expect_err(name);
        assert!(error.to_string().contains(expected), "{name}: {error}");
    }
}

/// What goes wrong with an upload, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Nothing,
    AlreadyThere,
    MountWorks,
    MountGoesOn,
    MountDenied,
    MountForbidden,
    MountUnknown,
    BusyPost,
    IllPost,
    HangUpInChunk,
    MisplacedChunk,
    LostSession,
    NoChunks,
    SaysTooMuch,
    WrongDigest,
    AlwaysIll,
    LeadsNowhere,
}

/// A registry with one upload, and what it has of it.
fn uploading(trouble: Trouble, content: Vec<u8>, received: Arc<Mutex<Vec<u8>>>) -> Handler {
    let has_troubled = AtomicBool::new(false);
    Box::new(move |seen, _| {
        let mut received = received.lock().expect("no panic");
        let is_first =
            |wanted: Trouble| trouble == wanted && !has_troubled.swap(true, Ordering::Relaxed);
        let accepted = |status, received: &[u8]| {
            Reply::new(status, "")
                .with("location", "/v2/a/b/blobs/uploads/session?_state=secret")
                .with("range", format!("0-{}", received.len().saturating_sub(1)))
        };
        match (seen.method.as_str(), seen.query.contains("mount=")) {
            ("HEAD", _) if trouble == Trouble::AlreadyThere => Reply::ok(""),
            ("HEAD", _) => Reply::new(404, ""),
            ("POST", true) => match trouble {
                Trouble::MountWorks => Reply::new(201, ""),
                Trouble::MountDenied => Reply::new(401, ""),
                Trouble::MountForbidden => Reply::new(403, ""),
                Trouble::MountUnknown
                | Trouble::BusyPost
                | Trouble::IllPost
                | Trouble::AlwaysIll
                | Trouble::LeadsNowhere => Reply::new(404, ""),
                _ => accepted(202, &received),
            },
            ("POST", false) if is_first(Trouble::BusyPost) => {
                Reply::new(429, "").with("retry-after", "1")
            }
            ("POST", false) if is_first(Trouble::IllPost) => Reply::new(503, ""),
            ("POST", false) if trouble == Trouble::AlwaysIll => Reply::new(500, ""),
            ("POST", false) if trouble == Trouble::LeadsNowhere => {
                Reply::new(202, "").with("location", "ftp://elsewhere/")
            }
            ("POST", false) => {
                received.clear();
                accepted(202, &received)
            }
            ("PATCH", _) => {
                if is_first(Trouble::HangUpInChunk) {
                    // Half of it arrived, and nobody says so.
                    received.extend(&seen.body[..seen.body.len() / 2]);
                    return Reply {
                        status: 202,
                        headers: vec![],
                        body: Body::HangUp,
                    };
                }
                if trouble == Trouble::NoChunks {
                    return Reply::new(405, "");
                }
                if is_first(Trouble::LostSession) {
                    return Reply::new(500, "");
                }
                if is_first(Trouble::MisplacedChunk) {
                    return Reply::new(416, "");
                }
                let range = seen
                    .content_range
                    .as_deref()
                    .expect("a chunk says where it belongs");
                let expected = format!(
                    "{}-{}",
                    received.len(),
                    received.len() + seen.body.len() - 1
                );
                assert_eq!(range, expected);
                received.extend(&seen.body);
                match trouble {
                    Trouble::SaysTooMuch => Reply::new(202, "").with("range", "0-999999999"),
                    _ => accepted(202, &received),
                }
            }
            ("GET", _) if trouble == Trouble::LostSession => Reply::new(404, ""),
            ("GET", _) => accepted(204, &received),
            ("PUT", _) => {
                assert!(seen.query.contains("digest=sha256"), "{}", seen.query);
                assert!(seen.query.contains("_state=secret"), "{}", seen.query);
                received.extend(&seen.body);
                if trouble == Trouble::WrongDigest || *received != content {
                    let words = r#"{"errors":[{"code":"DIGEST_INVALID","message":"not that"}]}"#;
                    return Reply::new(400, words);
                }
                Reply::new(201, "")
            }
            other => panic!("{other:?}"),
        }
    })
}

#[tokio::test]
async fn uploads_get_there_or_say_why() {
    let content: Vec<u8> = (0..50_000_u32).flat_map(u32::to_le_bytes).collect();
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("blob");
    std::fs::write(&path, &content).expect("written");
    let blob = BlobUpload {
        digest: digest_of(&content),
        size: content.len() as u64,
        path,
        mount_from: vec!["c/d".to_owned()],
    };
    let whole = content.len() as u64;
    let rows: [(Trouble, u64, Result<Uploaded, &str>, usize); 24] = [
        (Trouble::Nothing, whole, Ok(Uploaded::Sent), 3),
        (Trouble::Nothing, 60_000, Ok(Uploaded::Sent), 7),
        (Trouble::AlreadyThere, whole, Ok(Uploaded::Present), 1),
        (Trouble::MountWorks, whole, Ok(Uploaded::Mounted), 2),
        (Trouble::MountGoesOn, whole, Ok(Uploaded::Sent), 3),
        (Trouble::MountDenied, whole, Ok(Uploaded::Sent), 4),
        (Trouble::MountForbidden, whole, Ok(Uploaded::Sent), 4),
        (Trouble::MountUnknown, whole, Ok(Uploaded::Sent), 4),
        (Trouble::BusyPost, whole, Ok(Uploaded::Sent), 6),
        (Trouble::IllPost, 60_000, Ok(Uploaded::Sent), 10),
        (Trouble::HangUpInChunk, 60_000, Ok(Uploaded::Sent), 8),
        (Trouble::HangUpInChunk, 199_999, Ok(Uploaded::Sent), 6),
        (Trouble::MisplacedChunk, 60_000, Ok(Uploaded::Sent), 9),
        (Trouble::LostSession, 60_000, Ok(Uploaded::Sent), 10),
        (Trouble::NoChunks, 60_000, Ok(Uploaded::Sent), 5),
        (
            Trouble::SaysTooMuch,
            60_000,
            Err("more bytes than were sent"),
            3,
        ),
        (
            Trouble::WrongDigest,
            whole,
            Err("400 Bad Request: not that"),
            3,
        ),
        (
            Trouble::WrongDigest,
            60_000,
            Err("400 Bad Request: not that"),
            7,
        ),
        (Trouble::MisplacedChunk, 100_000, Ok(Uploaded::Sent), 7),
        (Trouble::LostSession, 100_000, Ok(Uploaded::Sent), 8),
        (Trouble::NoChunks, 1_000, Ok(Uploaded::Sent), 5),
        (Trouble::MountWorks, 1_000, Ok(Uploaded::Mounted), 2),
        (Trouble::AlwaysIll, whole, Err("answered 500"), 7),
        (Trouble::LeadsNowhere, whole, Err("names no address"), 3),
    ];
    for (trouble, chunk_size, expected, requests) in rows {
        let received: Arc<Mutex<Vec<u8>>> = Arc::default();
        let handler = uploading(trouble, content.clone(), Arc::clone(&received));
        let double = Double::start(handler).await;
        let options = ClientOptions {
            chunk_size,
            read_timeout: Duration::from_secs(30), // requests are counted: a busy machine must not add some
            ..options()
        };
        let client = RegistryClient::new(options);
        let reference = Reference::parse(&double.name("a/b:1")).expect("a name");
        let told = Arc::new(AtomicU64::new(0));
        let own = Arc::clone(&told);
        let hear: OnBytes = Arc::new(move |bytes| _ = own.fetch_add(bytes, Ordering::Relaxed));
        let outcome = client.upload(&reference, &blob, &hear).await;
        match (outcome, expected) {
            (Ok(outcome), Ok(expected)) => {
                assert_eq!(outcome, expected, "{trouble:?}");
                if outcome == Uploaded::Sent {
                    assert!(
                        *received.lock().expect("no panic") == content,
                        "{trouble:?}"
                    );
                    assert_eq!(
                        told.load(Ordering::Relaxed),
                        whole,
                        "{trouble:?}: each byte is told once"
                    );
                }
            }
            (Err(error), Err(expected)) => {
                let text = chain_of(&error);
                assert!(text.contains(expected), "{trouble:?}: {text}");
                assert!(
                    !text.contains("secret"),
                    "{trouble:?} shows the session: {text}"
                );
            }
            (outcome, _) => panic!("{trouble:?}: {outcome:?}"),
        }
        assert_eq!(
            double.seen().len(),
            requests,
            "{trouble:?} with chunks of {chunk_size}"
        );
    }
}

#[tokio::test]
async fn a_slow_line_is_no_error() {
    let content: Vec<u8> = (0..50).collect();
    let digest = digest_of(&content);
    let served = content.clone();
    let double = Double::start(move |_, _| Reply {
        status: 200,
        headers: vec![],
        body: Body::Drip(served.clone()),
    })
    .await;
    let bytes = blob(&double, &client(), &digest, content.len()).await;
    assert_eq!(bytes.expect("a blob, byte by byte"), content);
    assert_eq!(double.seen().len(), 1, "in one request");
}

/// A soak: pushes and pulls with one request in ten failing in some way, and nothing may be lost.
///
/// The full size: `RBUILD_SOAK=500 cargo nextest run -p rbuild --test registry soak --no-capture`. A failure is
/// repeated with the seed that was printed: `RBUILD_SEED=…`.
#[tokio::test]
async fn soak() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let rounds = number("RBUILD_SOAK").unwrap_or(40);
    let seed = number("RBUILD_SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |since| u64::from(since.subsec_nanos())) | 1
    });
    // Shown when the test fails, and with --no-capture.
    let said = writeln!(
        std::io::stderr(),
        "soak: {rounds} rounds, RBUILD_SEED={seed}"
    );
    said.expect("stderr is open");
    let state = AtomicU64::new(seed);
    // xorshift: the order of requests is fixed, one after the other, so a seed repeats a run.
    let random = move || {
        let mut value = state.load(Ordering::Relaxed);
        value ^= value << 13;
        value ^= value >> 7;
        value ^= value << 17;
        state.store(value, Ordering::Relaxed);
        value
    };
    let blobs: Arc<Mutex<HashMap<String, Vec<u8>>>> = Arc::default();
    let upload: Mutex<Vec<u8>> = Mutex::default();
    let held = Arc::clone(&blobs);
    let double = Double::start(move |seen, _| {
        let dice = random() % 30;
        if dice == 0 {
            return Reply::new(503, "");
        }
        if dice == 1 && seen.method != "PATCH" {
            return Reply {
                status: 200,
                headers: vec![],
                body: Body::HangUp,
            };
        }
        let mut upload = upload.lock().expect("no panic");
        let mut blobs = held.lock().expect("no panic");
        let digest = seen.path.rsplit('/').next().unwrap_or_default();
        let session = |status, length: usize| {
            Reply::new(status, "")
                .with("location", "/v2/a/b/blobs/uploads/session")
                .with("range", format!("0-{}", length.saturating_sub(1)))
        };
        match seen.method.as_str() {
            "HEAD" if blobs.contains_key(digest) => Reply::ok(""),
            "HEAD" => Reply::new(404, ""),
            "POST" => {
                upload.clear();
                session(202, 0)
            }
            "PATCH" => {
                let cut = if dice == 2 {
                    seen.body.len() / 3
                } else {
                    seen.body.len()
                };
                upload.extend(&seen.body[..cut]);
                if dice == 2 {
                    return Reply {
                        status: 202,
                        headers: vec![],
                        body: Body::HangUp,
                    };
                }
                session(202, upload.len())
            }
            "GET" if seen.path.contains("/uploads/") => session(204, upload.len()),
            "PUT" => {
                upload.extend(&seen.body);
                let digest = digest_of(&upload);
                if !seen.query.contains(digest.digest()) {
                    return Reply::new(400, "");
                }
                blobs.insert(digest.to_string(), upload.clone());
                Reply::new(201, "")
            }
            _ => match blobs.get(digest) {
                None => Reply::new(404, ""),
                Some(content) => {
                    let from: usize = seen
                        .range
                        .as_deref()
                        .and_then(|range| {
                            range
                                .strip_prefix("bytes=")?
                                .strip_suffix('-')?
                                .parse()
                                .ok()
                        })
                        .unwrap_or(0);
                    let rest = content[from..].to_vec();
                    let range = format!("bytes {from}-{}/{}", content.len() - 1, content.len());
                    let status = if from > 0 { 206 } else { 200 };
                    let body = if dice == 2 {
                        Body::CutOff {
                            length: rest.len(),
                            bytes: rest[..rest.len() / 2].to_vec(),
                        }
                    } else {
                        Body::Full(rest)
                    };
                    Reply {
                        status,
                        headers: vec![("content-range", range)],
                        body,
                    }
                }
            },
        }
    })
    .await;
    let options = ClientOptions {
        attempts: 8,
        chunk_size: 30_000,
        read_timeout: Duration::from_secs(30),
        ..options()
    };
    let client = RegistryClient::new(options);
    let reference = Reference::parse(&double.name("a/b:1")).expect("a name");
    let directory = tempfile::tempdir().expect("a directory");
    let hear: OnBytes = Arc::new(|_| ());
    for round in 0..rounds {
        let content = round
            .to_le_bytes()
            .repeat(usize::try_from(1 + round * 977 % 12_000).expect("small"));
        let path = directory.path().join("blob");
        std::fs::write(&path, &content).expect("written");
        let upload = BlobUpload {
            digest: digest_of(&content),
            size: content.len() as u64,
            path,
            mount_from: Vec::new(),
        };
        let pushed = client.upload(&reference, &upload, &hear).await;
        pushed.unwrap_or_else(|error| panic!("round {round}: {}", chain_of(&error)));
        let pulled = client
            .download(&reference, &upload.digest, upload.size, Vec::new(), &|_| ())
            .await
            .unwrap_or_else(|error| panic!("round {round}: {}", chain_of(&error)));
        assert!(pulled == content, "round {round}");
    }
    let lost = rounds - blobs.lock().expect("no panic").len() as u64;
    assert_eq!(lost, 0);
}
