//! The registry client against registries that misbehave in every way we know of.

#[path = "../support/double.rs"]
mod double;
mod limits;
mod soak;
mod uploads;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use double::{Body, Double, Reply, Seen};
use oci_spec::image::Digest;
use rbuild::manifest::{Document, digest_of, media};
use rbuild::registry::{ClientOptions, FetchedManifest, RegistryClient, RegistryError};
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
