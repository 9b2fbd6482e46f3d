//! A registry that serves images slowly, so that kills fall into downloads.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::Result;
use crate::base::{MANIFEST, write_base};
use crate::random::Random;

/// Between two parts of a body.
const PAUSE: Duration = Duration::from_millis(1);

/// Length of a part.
const PART: usize = 32 << 10;

/// Bytes of an image's second layer.
const BALLAST: usize = 512 << 10;

/// Documents by the rest of their path: `manifests/…`, `blobs/…`.
type Documents = Arc<Mutex<HashMap<String, Vec<u8>>>>;

/// A server on a loopback port; it lives as long as the process.
pub(super) struct Registry {
    address: String,
    documents: Documents,
    scratch: std::path::PathBuf,
    count: usize,
}

impl Registry {
    pub(super) fn start(beside: &Path) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = format!("localhost:{}", listener.local_addr()?.port());
        let documents = Documents::default();
        let served = Arc::clone(&documents);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let served = Arc::clone(&served);
                // A client that was killed breaks its connection: nobody's error.
                std::thread::spawn(move || _ = serve(stream, &served));
            }
        });
        Ok(Self {
            address,
            documents,
            scratch: beside.with_file_name("registry"),
            count: 0,
        })
    }

    /// Makes an image that nobody has yet, and gives its name.
    pub(super) fn make_image(&mut self, random: &mut Random) -> Result<String> {
        self.count += 1;
        let layout = self.scratch.join(self.count.to_string());
        write_base(&layout, &random.bytes(BALLAST))?;
        let index: serde_json::Value =
            serde_json::from_slice(&fs::read(layout.join("index.json"))?)?;
        let manifest = index["manifests"][0]["digest"]
            .as_str()
            .ok_or("no manifest")?
            .to_owned();
        let mut documents = self
            .documents
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        documents.clear();
        for entry in fs::read_dir(layout.join("blobs/sha256"))? {
            let entry = entry?;
            let digest = format!("sha256:{}", entry.file_name().to_string_lossy());
            let kind = if digest == manifest {
                "manifests"
            } else {
                "blobs"
            };
            documents.insert(format!("{kind}/{digest}"), fs::read(entry.path())?);
        }
        let tagged = documents[&format!("manifests/{manifest}")].clone();
        documents.insert(format!("manifests/v{}", self.count), tagged);
        drop(documents);
        fs::remove_dir_all(layout)?;
        Ok(format!("{}/base:v{}", self.address, self.count))
    }
}

/// Answers the requests of one connection, HTTP/1.1 as far as GET and HEAD go.
fn serve(stream: TcpStream, documents: &Documents) -> std::io::Result<()> {
    let mut output = stream.try_clone()?;
    let mut input = BufReader::new(stream);
    loop {
        let mut request = String::new();
        if input.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut line = String::new();
        while input.read_line(&mut line)? > 2 {
            line.clear();
        }
        let mut words = request.split_whitespace();
        let is_head = words.next() == Some("HEAD");
        let path = words.next().unwrap_or_default();
        let name = path.strip_prefix("/v2/base/").unwrap_or_default();
        let found = documents
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned();
        let (status, body) = match found {
            Some(body) => ("200 OK", body),
            None if path == "/v2/" => ("200 OK", b"{}".to_vec()),
            None => ("404 Not Found", b"{}".to_vec()),
        };
        let kind = if name.starts_with("manifests/") {
            MANIFEST
        } else {
            "application/octet-stream"
        };
        write!(
            output,
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )?;
        if is_head {
            continue;
        }
        for part in body.chunks(PART) {
            output.write_all(part)?;
            std::thread::sleep(PAUSE);
        }
    }
}
