//! How much is asked of one host at once.

use std::sync::Arc;

use futures_util::future::join_all;
use rbuild::manifest::digest_of;
use rbuild::registry::{BlobUpload, ClientOptions, OnBytes, RegistryClient};
use rbuild_frontend::reference::Reference;

use super::double::{Body, Double, Reply};
use super::{blob, options};

/// Transfers that a host gets at once in these tests.
const AT_ONCE: usize = 3;

fn polite_client() -> RegistryClient {
    RegistryClient::new(ClientOptions {
        parallel_transfers: AT_ONCE,
        ..options()
    })
}

#[tokio::test]
async fn a_host_gets_so_many_transfers_at_once_and_no_more() {
    let content = vec![1; 10];
    let digest = digest_of(&content);
    let served = content.clone();
    let drip = move || Reply {
        status: 200,
        headers: vec![],
        body: Body::Drip(served.clone()),
    };
    let (first, second) = (drip.clone(), drip);
    let one = Double::start(move |_, _| first()).await;
    let other = Double::start(move |_, _| second()).await;
    let client = polite_client();
    // Two hosts are two limits, one host is one limit for all clones of the client.
    let all = (0..20).map(|number| {
        let (client, double) = (client.clone(), if number % 2 == 0 { &one } else { &other });
        let (digest, content) = (&digest, &content);
        async move {
            let bytes = blob(double, &client, digest, content.len()).await;
            assert_eq!(bytes.expect("a blob"), *content);
        }
    });
    join_all(all).await;
    for double in [&one, &other] {
        assert_eq!(double.seen().len(), 10);
        assert_eq!(double.most_at_once(), AT_ONCE);
    }
}

#[tokio::test]
async fn uploads_are_counted_with_downloads() {
    let content = vec![2; 10];
    let served = content.clone();
    let double = Double::start(move |seen, _| match seen.method.as_str() {
        "GET" => Reply {
            status: 200,
            headers: vec![],
            body: Body::Drip(served.clone()),
        },
        "HEAD" => Reply::new(404, ""),
        "POST" => Reply::new(202, "").with("location", "/v2/a/b/blobs/uploads/session"),
        _ => Reply::new(201, ""),
    })
    .await;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("blob");
    std::fs::write(&path, &content).expect("written");
    let reference = Reference::parse(&double.name("a/b:1")).expect("a name");
    let client = polite_client();
    let digest = digest_of(&content);
    let upload = BlobUpload {
        digest: digest.clone(),
        size: content.len() as u64,
        path,
        mount_from: Vec::new(),
    };
    let hear: OnBytes = Arc::new(|_| ());
    let both = (0..8).map(|_| async {
        let bytes = blob(&double, &client, &digest, content.len());
        let sent = client.upload(&reference, &upload, &hear);
        let (bytes, sent) = tokio::join!(bytes, sent);
        assert_eq!(bytes.expect("a blob"), content);
        sent.expect("it gets there");
    });
    join_all(both).await;
    assert_eq!(double.most_at_once(), AT_ONCE);
}
