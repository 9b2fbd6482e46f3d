//! Servers on loopback that tests build from: files by HTTP, repositories by git and by HTTP.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::support::tool;

/// Answers every connection until it is dropped.
struct Listener {
    address: SocketAddr,
    ends: Arc<AtomicBool>,
}

impl Listener {
    fn start(answer: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ends = Arc::new(AtomicBool::new(false));
        let (ended, answer) = (Arc::clone(&ends), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let (stream, answer) = (stream.unwrap(), Arc::clone(&answer));
                std::thread::spawn(move || answer(stream));
            }
        });
        Self { address, ends }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        // Wakes the thread up; it may be gone already.
        let _ = TcpStream::connect(self.address);
    }
}

/// One file of a [`WebServer`].
#[derive(Clone, Default)]
pub(crate) struct Page {
    pub status: Option<&'static str>,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Claims this length.
    pub length: Option<usize>,
    /// Wants this `Authorization`.
    pub authorization: Option<String>,
}

impl Page {
    pub(crate) fn new(body: impl Into<Vec<u8>>) -> Self {
        Self {
            body: body.into(),
            ..Self::default()
        }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

#[derive(Default)]
struct Site {
    pages: BTreeMap<String, Page>,
    /// Below this directory everything is served.
    directory: Option<(PathBuf, Option<String>)>,
    /// Method and path of every request that was answered with a body.
    sent: Vec<String>,
    requests: usize,
}

/// Files by HTTP.
pub(crate) struct WebServer {
    site: Arc<Mutex<Site>>,
    listener: Listener,
}

impl WebServer {
    pub(crate) fn start() -> Self {
        let site: Arc<Mutex<Site>> = Arc::default();
        let served = Arc::clone(&site);
        let listener = Listener::start(move |stream| serve(&stream, &served));
        Self { site, listener }
    }

    pub(crate) fn put(&self, path: &str, page: Page) {
        let mut site = self.site.lock().unwrap();
        site.pages.insert(path.to_owned(), page);
    }

    /// Serves a directory, to those who send this `Authorization`.
    pub(crate) fn directory(&self, directory: &Path, authorization: Option<&str>) {
        let mut site = self.site.lock().unwrap();
        site.directory = Some((directory.to_owned(), authorization.map(str::to_owned)));
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.listener.address)
    }

    pub(crate) fn host(&self) -> String {
        self.listener.address.to_string()
    }

    /// Paths whose body was sent.
    pub(crate) fn sent(&self) -> Vec<String> {
        self.site.lock().unwrap().sent.clone()
    }

    pub(crate) fn requests(&self) -> usize {
        self.site.lock().unwrap().requests
    }
}

fn serve(stream: &TcpStream, site: &Mutex<Site>) {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let target = lines[0].split(' ').nth(1).unwrap_or("/").to_owned();
    let path = target.split('?').next().unwrap_or("/");
    let header = |wanted: &str| {
        lines[1..].iter().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(wanted)
                .then(|| value.trim().to_owned())
        })
    };
    let mut site = site.lock().unwrap();
    site.requests += 1;
    let page = site.pages.get(path).cloned().or_else(|| {
        let (directory, authorization) = site.directory.as_ref()?;
        let body = fs::read(directory.join(path.trim_start_matches('/'))).ok()?;
        Some(Page {
            authorization: authorization.clone(),
            ..Page::new(body)
        })
    });
    let mut page = page.unwrap_or_else(|| Page {
        status: Some("404 Not Found"),
        ..Page::default()
    });
    if page.authorization.is_some() && page.authorization != header("authorization") {
        page = Page {
            status: Some("401 Unauthorized"),
            ..Page::default()
        };
    }
    let etag = page.headers.iter().find(|(name, _)| name == "ETag");
    if let Some((_, etag)) = etag
        && header("if-none-match").as_ref() == Some(etag)
    {
        page.status = Some("304 Not Modified");
        page.body.clear();
    }
    if page.status.is_none() {
        site.sent.push(path.to_owned());
    }
    drop(site);
    let length = page.length.unwrap_or(page.body.len());
    let mut answer = format!(
        "HTTP/1.1 {}\r\nConnection: close\r\nContent-Length: {length}\r\n",
        page.status.unwrap_or("200 OK")
    );
    for (name, value) in &page.headers {
        answer.extend([name, ": ", value, "\r\n"]);
    }
    answer.push_str("\r\n");
    let mut stream = stream;
    // A client that has enough hangs up.
    let _ = stream.write_all(answer.as_bytes());
    let _ = stream.write_all(&page.body);
}

/// A directory of repositories, by git's own protocol.
pub(crate) struct GitServer {
    listener: Listener,
}

impl GitServer {
    pub(crate) fn start(directory: &Path) -> Self {
        let base = format!("--base-path={}", directory.display());
        let listener = Listener::start(move |stream| {
            let input = OwnedFd::from(stream.try_clone().unwrap());
            let mut daemon = Command::new("git")
                .args(["daemon", "--inetd", "--export-all", &base])
                .stdin(Stdio::from(input))
                .stdout(Stdio::from(OwnedFd::from(stream)))
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            daemon.wait().unwrap();
        });
        Self { listener }
    }

    pub(crate) fn url(&self, repository: &str) -> String {
        format!("git://{}/{repository}", self.listener.address)
    }
}

/// A repository with files, in a directory that can be served.
pub(crate) struct Repository {
    path: PathBuf,
}

impl Repository {
    pub(crate) fn new(path: PathBuf) -> Self {
        fs::create_dir_all(&path).unwrap();
        let repository = Self { path };
        repository.git(&["init", "--quiet"]);
        repository
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Git in the repository, with nobody's settings.
    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        let path = self.path.to_str().unwrap();
        let settings = [
            "-C",
            path,
            "-c",
            "user.name=test",
            "-c",
            "user.email=test@example.com",
            "-c",
            "init.defaultBranch=main",
            "-c",
            "safe.directory=*",
            "-c",
            "protocol.file.allow=always",
        ];
        let all = settings.iter().chain(arguments);
        tool("git", all).trim().to_owned()
    }

    pub(crate) fn file(&self, path: &str, content: &str) -> &Self {
        let path = self.path.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    /// Commits everything; its id.
    pub(crate) fn commit(&self) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message=change"]);
        self.git(&["rev-parse", "HEAD"])
    }
}
