//! Registries that are no good: every way of failing or lying is a row of one table, pulled through into a store.
//!
//! What uploads meet is in `uploads_get_there_or_say_why` and the soak in `soak`, both in `registry.rs`.

#[path = "support/double.rs"]
mod double;
#[path = "support/place.rs"]
mod place;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use double::{Body, Double, Reply, Seen, TinyImage};
use place::{Member, Place, layer_tar};
use rbuild::manifest::{digest_of, media};
use rbuild::options::PullPolicy;
use rbuild::pull::PullError;
use rbuild::registry::{ClientOptions, RegistryClient};
use rbuild_frontend::graph::ImageReference;
use rbuild_frontend::platform::Platform;

/// Tries of a request.
const ATTEMPTS: u32 = 3;

/// What a registry answers instead of what it should; none where it behaves.
type Trouble = fn(&Seen, usize, &TinyImage, u16) -> Option<Reply>;

struct Row {
    name: &'static str,
    trouble: Trouble,
    /// The image, or a part of what is said.
    expected: Result<(), &'static str>,
}

const fn works(name: &'static str, trouble: Trouble) -> Row {
    Row {
        name,
        trouble,
        expected: Ok(()),
    }
}

const fn fails(name: &'static str, trouble: Trouble, words: &'static str) -> Row {
    Row {
        name,
        trouble,
        expected: Err(words),
    }
}

/// An answer of status 200 whose body is odd.
#[expect(clippy::unnecessary_wraps, reason = "rows are options")]
fn body(body: Body) -> Option<Reply> {
    Some(Reply {
        status: 200,
        headers: vec![],
        body,
    })
}

fn is_manifest(seen: &Seen) -> bool {
    seen.path.contains("/manifests/")
}

fn is_layer(seen: &Seen, image: &TinyImage) -> bool {
    seen.path.ends_with(digest_of(&image.layer).as_ref())
}

fn is_config(seen: &Seen, image: &TinyImage) -> bool {
    seen.path
        .ends_with(digest_of(image.config.as_bytes()).as_ref())
}

/// A challenge that leads to `/token` of the same double.
fn challenge(port: u16) -> Reply {
    let realm = format!(r#"Bearer realm="http://127.0.0.1:{port}/token",service="double""#);
    Reply::new(401, "").with("www-authenticate", realm)
}

/// What a good registry answers.
fn good(seen: &Seen, image: &TinyImage) -> Reply {
    if is_manifest(seen) {
        Reply::manifest(media::OCI_MANIFEST, image.manifest.clone())
    } else if is_config(seen, image) {
        Reply::ok(image.config.clone())
    } else if is_layer(seen, image) {
        let from = seen.range.as_deref().and_then(|range| {
            range
                .strip_prefix("bytes=")?
                .strip_suffix('-')?
                .parse()
                .ok()
        });
        match from {
            Some(from) => {
                let from: usize = from;
                let (last, all) = (image.layer.len() - 1, image.layer.len());
                Reply::new(206, &image.layer[from..])
                    .with("content-range", format!("bytes {from}-{last}/{all}"))
            }
            None => Reply::ok(image.layer.clone()),
        }
    } else {
        Reply::ok("")
    }
}

fn rows() -> Vec<Row> {
    let mut rows = connections();
    rows.extend(lies());
    rows.extend(statuses());
    rows.extend(redirects_and_tokens());
    rows
}

fn connections() -> Vec<Row> {
    vec![
        works("a good registry", |_, _, _, _| None),
        works("hangs up once before the manifest", |seen, before, _, _| {
            (is_manifest(seen) && before == 0).then(|| body(Body::HangUp))?
        }),
        fails(
            "hangs up always",
            |seen, _, _, _| is_manifest(seen).then(|| body(Body::HangUp))?,
            "cannot reach",
        ),
        works(
            "cuts the layer off, and goes on with Range",
            |seen, before, image, _| {
                (is_layer(seen, image) && before == 0).then(|| {
                    body(Body::CutOff {
                        bytes: image.layer[..1000].to_vec(),
                        length: image.layer.len(),
                    })
                })?
            },
        ),
        works(
            "cuts the layer off, and knows no Range",
            |seen, before, image, _| {
                is_layer(seen, image).then(|| match before {
                    0 => body(Body::CutOff {
                        bytes: image.layer[..1000].to_vec(),
                        length: image.layer.len(),
                    }),
                    _ => Some(Reply::ok(image.layer.clone())),
                })?
            },
        ),
        fails(
            "cuts the layer off always, without a byte more",
            |seen, before, image, _| {
                is_layer(seen, image).then(|| {
                    let sent = if before == 0 { 1000 } else { 0 };
                    body(Body::CutOff {
                        bytes: image.layer[..sent].to_vec(),
                        length: image.layer.len(),
                    })
                })?
            },
            "broke off",
        ),
        works("drips the config", |seen, _, image, _| {
            is_config(seen, image).then(|| body(Body::Drip(image.config.clone().into_bytes())))?
        }),
        fails(
            "never sends the manifest it began",
            |seen, _, _, _| is_manifest(seen).then(|| body(Body::Silent))?,
            "",
        ),
        fails(
            "never sends the layer it began",
            |seen, _, image, _| is_layer(seen, image).then(|| body(Body::Silent))?,
            "broke off",
        ),
    ]
}

fn lies() -> Vec<Row> {
    vec![
        fails(
            "an endless manifest",
            |seen, _, _, _| is_manifest(seen).then(|| body(Body::Endless))?,
            "more than",
        ),
        fails(
            "an endless layer",
            |seen, _, image, _| is_layer(seen, image).then(|| body(Body::Endless))?,
            "more than",
        ),
        fails(
            "a layer that is longer",
            |seen, _, image, _| {
                is_layer(seen, image).then(|| Reply::ok([&image.layer[..], b"x"].concat()))
            },
            "more than",
        ),
        fails(
            "a layer that is shorter",
            |seen, _, image, _| {
                is_layer(seen, image).then(|| Reply::ok(&image.layer[..image.layer.len() - 1]))
            },
            "were announced",
        ),
        fails(
            "a layer of other bytes",
            |seen, _, image, _| {
                is_layer(seen, image).then(|| Reply::ok(vec![0; image.layer.len()]))
            },
            "digest",
        ),
        fails(
            "a config of other bytes",
            |seen, _, image, _| {
                is_config(seen, image).then(|| Reply::ok(vec![b' '; image.config.len()]))
            },
            "digest",
        ),
        fails(
            "a manifest that is not what its header says",
            |seen, _, image, _| {
                is_manifest(seen).then(|| {
                    Reply::manifest(media::OCI_MANIFEST, image.manifest.clone())
                        .with("docker-content-digest", digest_of(b"other").to_string())
                })
            },
            "digest",
        ),
        fails(
            "a range that was not asked for",
            |seen, before, image, _| {
                is_layer(seen, image).then(|| match before {
                    0 => body(Body::CutOff {
                        bytes: image.layer[..1000].to_vec(),
                        length: image.layer.len(),
                    }),
                    _ => Some(
                        Reply::new(206, &image.layer[1500..])
                            .with("content-range", "bytes 1500-2047/2048"),
                    ),
                })?
            },
            "a range that was not asked for",
        ),
        fails(
            "a page for a manifest",
            |seen, _, _, _| is_manifest(seen).then(|| Reply::ok("<html>welcome</html>")),
            "manifest",
        ),
    ]
}

fn statuses() -> Vec<Row> {
    vec![
        works("429 once, with a second to wait", |seen, before, _, _| {
            (is_manifest(seen) && before == 0).then(|| Reply::new(429, "").with("retry-after", "1"))
        }),
        fails(
            "429 always",
            |seen, _, _, _| is_manifest(seen).then(|| Reply::new(429, "")),
            "too many requests",
        ),
        fails(
            "429 for an hour",
            |seen, _, _, _| {
                is_manifest(seen).then(|| Reply::new(429, "").with("retry-after", "3600"))
            },
            "too many requests",
        ),
        works("503 once for each", |_, before, _, _| {
            (before == 0).then(|| Reply::new(503, ""))
        }),
        fails(
            "503 always for the layer",
            |seen, _, image, _| is_layer(seen, image).then(|| Reply::new(503, "")),
            "503",
        ),
        fails(
            "404 for the manifest",
            |seen, _, _, _| is_manifest(seen).then(|| Reply::new(404, "")),
            "not",
        ),
        fails(
            "404 for the layer",
            |seen, _, image, _| is_layer(seen, image).then(|| Reply::new(404, "")),
            "though a manifest names it",
        ),
        fails(
            "403",
            |seen, _, _, _| is_manifest(seen).then(|| Reply::new(403, "")),
            "denied",
        ),
        fails(
            "401 without a challenge",
            |seen, _, _, _| is_manifest(seen).then(|| Reply::new(401, "")),
            "does not say which",
        ),
    ]
}

fn redirects_and_tokens() -> Vec<Row> {
    vec![
        works("a redirect", |seen, before, image, port| {
            (is_layer(seen, image) && before == 0).then(|| {
                let to = format!("http://127.0.0.1:{port}{}", seen.path);
                Reply::new(307, "").with("location", to)
            })
        }),
        fails(
            "a redirect loop",
            |seen, _, image, port| {
                is_layer(seen, image).then(|| {
                    let to = format!("http://127.0.0.1:{port}{}", seen.path);
                    Reply::new(307, "").with("location", to)
                })
            },
            "does not follow",
        ),
        fails(
            "a redirect to nowhere",
            |seen, _, image, _| is_layer(seen, image).then(|| Reply::new(307, "")),
            "does not follow",
        ),
        fails(
            "a redirect to a file",
            |seen, _, image, _| {
                is_layer(seen, image)
                    .then(|| Reply::new(307, "").with("location", "file:///etc/passwd"))
            },
            "does not follow",
        ),
        works(
            "401 without a word, and the challenge at the door",
            |seen, _, _, port| match seen.path.as_str() {
                "/token" => Some(Reply::ok(r#"{"token":"t"}"#)),
                "/v2/" => Some(challenge(port)),
                _ => seen.authorization.is_none().then(|| Reply::new(401, "")),
            },
        ),
        works(
            "a token that ends after each request",
            |seen, before, _, port| {
                if seen.path == "/token" {
                    return Some(Reply::ok(format!(
                        r#"{{"token":"t{before}","expires_in":60}}"#
                    )));
                }
                // Every other request of a path finds its token refused.
                (seen.authorization.is_none() || before % 2 == 0).then(|| challenge(port))
            },
        ),
        fails(
            "tokens that are always refused",
            |seen, _, _, port| match seen.path.as_str() {
                "/token" => Some(Reply::ok(r#"{"token":"t"}"#)),
                _ => Some(challenge(port)),
            },
            "denied",
        ),
        fails(
            "a token server that is ill",
            |seen, _, _, port| match seen.path.as_str() {
                "/token" => Some(Reply::new(500, "")),
                _ => Some(challenge(port)),
            },
            "500",
        ),
        fails(
            "a token server that gives no token",
            |seen, _, _, port| match seen.path.as_str() {
                "/token" => Some(Reply::ok("{}")),
                _ => Some(challenge(port)),
            },
            "token",
        ),
        fails(
            "a token server without end",
            |seen, _, _, port| match seen.path.as_str() {
                "/token" => body(Body::Endless),
                _ => Some(challenge(port)),
            },
            "",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_of_failing_is_waited_out_or_named() {
    for row in rows() {
        let Some(mut place) = Place::new() else {
            return;
        };
        place.sources.client = RegistryClient::new(ClientOptions {
            attempts: ATTEMPTS,
            first_pause: Duration::from_millis(1),
            longest_pause: Duration::from_secs(2),
            read_timeout: Duration::from_millis(300),
            ..ClientOptions::default()
        });
        let layer = layer_tar(&[Member::File("file", 0o644, 0, b"content")]);
        let image = Arc::new(TinyImage::new(layer, "amd64", false));
        let served = Arc::clone(&image);
        let port = Arc::new(std::sync::OnceLock::new());
        let own = Arc::clone(&port);
        let trouble = row.trouble;
        let double = Double::start(move |seen, before| {
            let port = *own.get().expect("set before the first request");
            trouble(seen, before, &served, port).unwrap_or_else(|| good(seen, &served))
        })
        .await;
        port.set(double.port).expect("set once");
        let pulled = pull(&place, &double.name("a/b:1")).await;
        match (&pulled, row.expected) {
            (Ok(content), Ok(())) => assert_eq!(content, "content", "{}", row.name),
            (Err(error), Err(words)) => {
                let text = chain_of(error);
                assert!(text.contains(words), "{}: {text}", row.name);
            }
            _ => panic!("{}: {pulled:?}", row.name),
        }
        // Nobody is asked without end: the manifest, the config and the layer, a token for each, and as many tries.
        let asked = double.seen().len();
        assert!(
            asked <= 6 * (ATTEMPTS as usize + 1),
            "{}: {asked}",
            row.name
        );
        if row.expected.is_err() {
            let snapshots = place.sources.store.root().join("snapshots");
            let count = fs::read_dir(snapshots).map_or(0, Iterator::count);
            assert_eq!(count, 0, "{}: nothing of it is kept", row.name);
        }
    }
}

/// Pulls all of an image; gives the content of its file.
async fn pull(place: &Place, name: &str) -> Result<String, PullError> {
    let reference = ImageReference::Name(name.to_owned());
    let platform = Platform::new("linux", "amd64", "");
    let sources = &place.sources;
    let base = sources
        .resolve(&reference, &platform, PullPolicy::Missing, &place.lease)
        .await?;
    let chain = sources.chain(&base, &place.lease).await?;
    let path = chain.snapshot_paths(&sources.store).remove(0).join("file");
    Ok(fs::read_to_string(path).expect("the layer's file"))
}

fn chain_of(error: &(dyn std::error::Error + 'static)) -> String {
    let texts = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string);
    texts.collect::<Vec<_>>().join(" | ")
}
