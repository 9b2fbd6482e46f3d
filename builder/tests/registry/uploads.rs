//! Uploads: every way of taking, refusing and losing one is a row of one table.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rbuild::manifest::digest_of;
use rbuild::registry::{BlobUpload, ClientOptions, OnBytes, RegistryClient, Uploaded};
use rbuild_frontend::reference::Reference;

use super::double::{Body, Double, Reply};
use super::{Handler, chain_of, options};

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
    /// Takes every chunk, and never says that it has one.
    CountsNothing,
    /// Says how many bytes there are where the last one's number belongs.
    CountsByOne,
    /// Loses every other chunk and what came before, for ever.
    GoesBack,
    /// Takes an upload in one PATCH and not otherwise, and says 500 to all else.
    StreamsOnly,
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
                _ => {
                    received.clear();
                    accepted(202, &received)
                }
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
                if trouble == Trouble::GoesBack && !received.is_empty() {
                    received.clear();
                    return Reply::new(500, "");
                }
                if is_first(Trouble::LostSession) {
                    return Reply::new(500, "");
                }
                if is_first(Trouble::MisplacedChunk) {
                    return Reply::new(416, "");
                }
                let (from, to) = (received.len(), received.len() + seen.body.len() - 1);
                match seen.content_range.as_deref() {
                    Some(range) => assert_eq!(range, format!("{from}-{to}")),
                    None => assert_eq!(seen.body, content, "without a range it is everything"),
                }
                received.extend(&seen.body);
                match trouble {
                    Trouble::SaysTooMuch => Reply::new(202, "").with("range", "0-999999999"),
                    Trouble::CountsNothing => Reply::new(202, "").with("range", "0-0"),
                    Trouble::CountsByOne => {
                        Reply::new(202, "").with("range", format!("0-{}", received.len()))
                    }
                    _ => accepted(202, &received),
                }
            }
            ("GET", _) if trouble == Trouble::LostSession => Reply::new(404, ""),
            ("GET", _) => accepted(204, &received),
            ("PUT", _) => {
                assert!(seen.query.contains("digest=sha256"), "{}", seen.query);
                assert!(seen.query.contains("_state=secret"), "{}", seen.query);
                if trouble == Trouble::StreamsOnly && !seen.body.is_empty() {
                    return Reply::new(500, "not supported").with("content-type", "text/plain");
                }
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
    let rows: [(Trouble, u64, Result<Uploaded, &str>, usize); 28] = [
        (Trouble::Nothing, whole, Ok(Uploaded::Sent), 3),
        (Trouble::Nothing, 60_000, Ok(Uploaded::Sent), 7),
        (Trouble::AlreadyThere, whole, Ok(Uploaded::Present), 1),
        (Trouble::MountWorks, whole, Ok(Uploaded::Mounted), 2),
        (Trouble::MountGoesOn, whole, Ok(Uploaded::Sent), 3),
        (Trouble::MountDenied, whole, Ok(Uploaded::Sent), 5),
        (Trouble::MountForbidden, whole, Ok(Uploaded::Sent), 4),
        (Trouble::MountUnknown, whole, Ok(Uploaded::Sent), 4),
        (Trouble::BusyPost, whole, Ok(Uploaded::Sent), 6),
        (Trouble::IllPost, 60_000, Ok(Uploaded::Sent), 10),
        (Trouble::HangUpInChunk, 60_000, Ok(Uploaded::Sent), 8),
        (Trouble::HangUpInChunk, 199_999, Ok(Uploaded::Sent), 6),
        (Trouble::MisplacedChunk, 60_000, Ok(Uploaded::Sent), 9),
        (Trouble::LostSession, 60_000, Ok(Uploaded::Sent), 10),
        (Trouble::NoChunks, 60_000, Ok(Uploaded::Sent), 5),
        // What can't be believed part by part is sent in one piece.
        (Trouble::SaysTooMuch, 60_000, Ok(Uploaded::Sent), 6),
        (Trouble::CountsNothing, 60_000, Ok(Uploaded::Sent), 6),
        (Trouble::CountsByOne, 60_000, Ok(Uploaded::Sent), 7),
        (Trouble::GoesBack, 60_000, Err("answered 500"), 28),
        (Trouble::StreamsOnly, whole, Ok(Uploaded::Sent), 6),
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
async fn a_token_that_ends_in_a_long_push_is_renewed_and_nothing_is_sent_twice() {
    let content: Vec<u8> = (0..50_000_u32).flat_map(u32::to_le_bytes).collect();
    let tokens = Double::start(|_, before| {
        Reply::ok(format!(r#"{{"token":"t{before}","expires_in":300}}"#))
    })
    .await;
    let port = tokens.port;
    let received: Arc<Mutex<Vec<u8>>> = Arc::default();
    let handler = uploading(Trouble::Nothing, content.clone(), Arc::clone(&received));
    let used: Mutex<Vec<String>> = Mutex::default();
    // Each token is good for five requests, then it is over, whatever was promised.
    let double = Double::start(move |seen, before| {
        let mut used = used.lock().expect("no panic");
        let token = seen.authorization.clone().unwrap_or_default();
        let spent = used.iter().filter(|other| **other == token).count();
        if token.is_empty() || spent >= 5 {
            let realm = format!(r#"Bearer realm="http://127.0.0.1:{port}/token",service="double""#);
            return Reply::new(401, "").with("www-authenticate", realm);
        }
        used.push(token);
        handler(seen, before)
    })
    .await;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("blob");
    std::fs::write(&path, &content).expect("written");
    let client = RegistryClient::new(ClientOptions {
        chunk_size: 15_000,
        ..options()
    });
    let reference = Reference::parse(&double.name("a/b:1")).expect("a name");
    let told = Arc::new(AtomicU64::new(0));
    let own = Arc::clone(&told);
    let hear: OnBytes = Arc::new(move |bytes| _ = own.fetch_add(bytes, Ordering::Relaxed));
    let blob = BlobUpload {
        digest: digest_of(&content),
        size: content.len() as u64,
        path,
        mount_from: Vec::new(),
    };
    let outcome = client.upload(&reference, &blob, &hear).await;
    assert_eq!(outcome.expect("it gets there"), Uploaded::Sent);
    assert!(*received.lock().expect("no panic") == content);
    assert_eq!(told.load(Ordering::Relaxed), blob.size);
    // A HEAD, a POST, fourteen chunks and a PUT.
    assert_eq!(tokens.count("/token"), 4, "one for every five requests");
    assert_eq!(double.count("/blobs/"), 17 + 4, "and one refusal for each");
}

#[tokio::test]
async fn an_upload_that_goes_on_elsewhere_takes_no_credentials_along() {
    let content = b"layer".to_vec();
    let storage = Double::start(|seen, _| match seen.path.as_str() {
        "/token" => Reply::ok(r#"{"token":"secret"}"#),
        _ => Reply::new(201, ""),
    })
    .await;
    let port = storage.port;
    let front =
        Double::start(
            move |seen, _| match (seen.authorization.as_deref(), seen.method.as_str()) {
                (Some("Bearer secret"), "HEAD") => Reply::new(404, ""),
                (Some("Bearer secret"), _) => Reply::new(202, "").with(
                    "location",
                    format!("http://127.0.0.1:{port}/bucket?signature=s"),
                ),
                _ => Reply::new(401, "").with(
                    "www-authenticate",
                    format!(r#"Bearer realm="http://127.0.0.1:{port}/token",service="s""#),
                ),
            },
        )
        .await;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("blob");
    std::fs::write(&path, &content).expect("written");
    let reference = Reference::parse(&front.name("a/b:1")).expect("a name");
    let blob = BlobUpload {
        digest: digest_of(&content),
        size: content.len() as u64,
        path,
        mount_from: Vec::new(),
    };
    let hear: OnBytes = Arc::new(|_| ());
    let outcome = RegistryClient::new(options())
        .upload(&reference, &blob, &hear)
        .await;
    assert_eq!(outcome.expect("it gets there"), Uploaded::Sent);
    let there: Vec<_> = storage
        .seen()
        .into_iter()
        .filter(|seen| seen.path == "/bucket")
        .collect();
    assert_eq!(there.len(), 1);
    assert_eq!(there[0].body, content);
    assert!(there[0].query.contains("signature=s"), "{}", there[0].query);
    assert_eq!(
        there[0].authorization, None,
        "the token stays with the registry"
    );
}
