//! A registry that does what a test tells it to, good or bad, on a loopback port.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its own part"
)]

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::StreamExt as _;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rbuild::manifest::digest_of;
use tokio::net::TcpListener;

/// What a request looked like.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub query: String,
    pub authorization: Option<String>,
    pub range: Option<String>,
    pub content_range: Option<String>,
    /// What it carried.
    pub body: Vec<u8>,
}

/// How a body is sent.
pub enum Body {
    Full(Vec<u8>),
    /// Announces `length` and hangs up after the bytes.
    CutOff {
        bytes: Vec<u8>,
        length: usize,
    },
    /// Never ends and has no length.
    Endless,
    /// Never begins.
    Silent,
    /// No answer at all: the connection is closed.
    HangUp,
    /// A byte now and then.
    Drip(Vec<u8>),
}

pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Body,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Body::Full(body.into()),
        }
    }

    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::new(200, body)
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn manifest(media_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::ok(body).with("content-type", media_type)
    }
}

/// The running double.
pub struct Double {
    pub port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
    load: Arc<Load>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Double {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// How many requests were being answered at once.
#[derive(Default)]
struct Load {
    now: AtomicUsize,
    most: AtomicUsize,
}

/// One request that is being answered: until its body is sent or given up.
struct Underway(Arc<Load>);

impl Underway {
    fn new(load: &Arc<Load>) -> Self {
        let now = load.now.fetch_add(1, Ordering::SeqCst) + 1;
        load.most.fetch_max(now, Ordering::SeqCst);
        Self(Arc::clone(load))
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

impl Double {
    /// Starts a double. The handler gets the request and how many came before it for the same path.
    pub async fn start(handler: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a loopback port");
        let port = listener.local_addr().expect("an address").port();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (handler, log) = (Arc::new(handler), Arc::clone(&seen));
        let load: Arc<Load> = Arc::default();
        let own = Arc::clone(&load);
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (handler, log) = (Arc::clone(&handler), Arc::clone(&log));
                let load = Arc::clone(&own);
                tokio::spawn(async move {
                    let service = service_fn(|request| {
                        let underway = Underway::new(&load);
                        answer(request, Arc::clone(&handler), Arc::clone(&log), underway)
                    });
                    // A client that hangs up, or a body that is cut off on purpose, is part of the tests.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            port,
            seen,
            load,
            server,
        }
    }

    /// `127.0.0.1:PORT/repo:tag`
    pub fn name(&self, rest: &str) -> String {
        format!("127.0.0.1:{}/{rest}", self.port)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no panic in the handler").clone()
    }

    /// The most requests that were being answered at once.
    pub fn most_at_once(&self) -> usize {
        self.load.most.load(Ordering::SeqCst)
    }

    pub fn count(&self, part: &str) -> usize {
        self.seen()
            .iter()
            .filter(|seen| seen.path.contains(part))
            .count()
    }
}

async fn answer(
    request: Request<Incoming>,
    handler: Arc<impl Fn(&Seen, usize) -> Reply>,
    log: Arc<Mutex<Vec<Seen>>>,
    underway: Underway,
) -> Result<Answer, io::Error> {
    let (head, body) = request.into_parts();
    let sent = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let header = |name| {
        head.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    let seen = Seen {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        authorization: header("authorization"),
        range: header("range"),
        content_range: header("content-range"),
        body: sent.to_vec(),
    };
    let before = {
        let mut log = log.lock().expect("no panic in the handler");
        let before = log.iter().filter(|other| other.path == seen.path).count();
        log.push(seen.clone());
        before
    };
    let reply = handler(&seen, before);
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    let body = match reply.body {
        Body::Full(bytes) => Full::new(Bytes::from(bytes))
            .map_err(|never| match never {})
            .boxed_unsync(),
        Body::CutOff { bytes, length } => {
            response = response.header("content-length", length);
            let frames = [
                Ok(Frame::data(Bytes::from(bytes))),
                Err(io::Error::other("cut off")),
            ];
            // The pause lets the bytes leave before the connection is torn down.
            let frames = stream::iter(frames)
                .enumerate()
                .then(|(number, frame)| async move {
                    if number > 0 {
                        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                    }
                    frame
                });
            UnsyncBoxBody::new(StreamBody::new(frames))
        }
        Body::Endless => {
            let frames = stream::repeat_with(|| Ok(Frame::data(Bytes::from(vec![b' '; 64 << 10]))));
            UnsyncBoxBody::new(StreamBody::new(frames))
        }
        Body::HangUp => return Err(io::Error::other("hung up on purpose")),
        Body::Drip(bytes) => {
            let drops = bytes
                .into_iter()
                .map(|byte| Ok(Frame::data(Bytes::from(vec![byte]))));
            let drops = stream::iter(drops).then(|drop| async move {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                drop
            });
            UnsyncBoxBody::new(StreamBody::new(drops))
        }
        Body::Silent => UnsyncBoxBody::new(StreamBody::new(stream::pending::<
            io::Result<Frame<Bytes>>,
        >())),
    };
    let body = body.map_frame(move |frame| {
        let _until_the_end = &underway;
        frame
    });
    Ok(response
        .body(body.boxed_unsync())
        .expect("a valid response"))
}

/// A one-layer image as documents: manifest, config, and the layer that was given.
pub struct TinyImage {
    pub manifest: String,
    pub config: String,
    pub layer: Vec<u8>,
}

impl TinyImage {
    /// An image whose layer is a plain tar.
    pub fn new(layer: Vec<u8>, architecture: &str, is_docker: bool) -> Self {
        let config = format!(
            r#"{{"architecture":"{architecture}","os":"linux","config":{{"Env":["A=1"]}},"rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
            digest_of(&layer)
        );
        let (manifest_type, config_type, layer_type) = if is_docker {
            (
                "application/vnd.docker.distribution.manifest.v2+json",
                "application/vnd.docker.container.image.v1+json",
                "application/vnd.docker.image.rootfs.diff.tar",
            )
        } else {
            (
                "application/vnd.oci.image.manifest.v1+json",
                "application/vnd.oci.image.config.v1+json",
                "application/vnd.oci.image.layer.v1.tar",
            )
        };
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{manifest_type}","config":{{"mediaType":"{config_type}","digest":"{}","size":{}}},"layers":[{{"mediaType":"{layer_type}","digest":"{}","size":{}}}]}}"#,
            digest_of(config.as_bytes()),
            config.len(),
            digest_of(&layer),
            layer.len()
        );
        Self {
            manifest,
            config,
            layer,
        }
    }
}
