//! Pushes and pulls through a registry that fails one request in ten.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rbuild::manifest::{digest_of, media};
use rbuild::registry::{BlobUpload, ClientOptions, OnBytes, RegistryClient};
use rbuild_frontend::reference::Reference;

use super::double::{Body, Double, Reply};
use super::{chain_of, options};

fn is_blob(path: &str) -> bool {
    path.contains("/blobs/sha256:")
}

/// A soak: pushes and pulls with one request in ten failing in some way, and nothing may be lost.
///
/// The full size: `RBUILD_SOAK=500 cargo test -p rbuild --test registry soak -- --nocapture`. A failure is
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
        // One in ten: ill, gone, and gone in the middle.
        let dice = random() % 30;
        let has_middle = seen.method == "PATCH" || (seen.method == "GET" && is_blob(&seen.path));
        match dice {
            0 => return Reply::new(503, "").with("retry-after", "0"),
            1 => {
                return Reply {
                    status: 200,
                    headers: vec![],
                    body: Body::HangUp,
                };
            }
            2 if !has_middle => return Reply::new(502, ""),
            _ => {}
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
            "PUT" if seen.path.contains("/manifests/") => {
                blobs.insert(seen.path.clone(), seen.body.clone());
                Reply::new(201, "")
            }
            "GET" if seen.path.contains("/manifests/") => match blobs.get(&seen.path) {
                Some(bytes) => Reply::manifest(media::OCI_INDEX, bytes.clone()),
                None => Reply::new(404, ""),
            },
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
        let document = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[],"annotations":{{"round":"{round}"}}}}"#,
            media::OCI_INDEX
        );
        let tag = format!("round-{round}");
        client
            .put_manifest(&reference, &tag, media::OCI_INDEX, document.as_bytes())
            .await
            .unwrap_or_else(|error| panic!("round {round}: {}", chain_of(&error)));
        let tagged = Reference::parse(&double.name(&format!("a/b:{tag}"))).expect("a name");
        let fetched = client
            .manifest(&tagged)
            .await
            .unwrap_or_else(|error| panic!("round {round}: {}", chain_of(&error)));
        assert_eq!(fetched.bytes, document.as_bytes(), "round {round}");
        let pulled = client
            .download(&reference, &upload.digest, upload.size, Vec::new(), &|_| ())
            .await
            .unwrap_or_else(|error| panic!("round {round}: {}", chain_of(&error)));
        assert!(pulled == content, "round {round}");
    }
    // Of each round a blob and a manifest.
    let kept = blobs.lock().expect("no panic").len() as u64;
    assert_eq!(kept, 2 * rounds);
    let said = writeln!(
        std::io::stderr(),
        "soak: {rounds} pushes and pulls in {} requests, nothing is lost",
        double.seen().len()
    );
    said.expect("stderr is open");
}
