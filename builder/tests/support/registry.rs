//! Debian's docker-registry on a free loopback port, ended with the test.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::fmt::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long the server may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) struct Registry {
    server: Child,
    pub address: String,
}

/// The user of [`HTPASSWD`], and the password.
pub(crate) const LOGIN: (&str, &str) = ("alice", "s3cret-Passw0rd");

/// What keeps a registry from being open to all.
#[derive(Default)]
pub(crate) struct Guard<'a> {
    /// Certificate and key of the server.
    pub tls: Option<(&'a Path, &'a Path)>,
    /// A file for basic authentication.
    pub htpasswd: Option<&'a Path>,
    /// Token server and the certificate that its tokens are signed with.
    pub token: Option<(&'a str, &'a Path)>,
}

impl Registry {
    /// Starts one that keeps its blobs in `storage`.
    pub(crate) fn start(storage: &Path) -> Self {
        Self::guarded(storage, &Guard::default())
    }

    /// Starts one with a guard.
    pub(crate) fn guarded(storage: &Path, guard: &Guard<'_>) -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .expect("a free port")
            .local_addr()
            .expect("a free port")
            .port();
        let address = format!("localhost:{port}");
        let config = storage.join("config.yml");
        std::fs::create_dir_all(storage).expect("a directory");
        let mut text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}/data}}}}\nhttp:\n  addr: 127.0.0.1:{port}\n",
            storage.display()
        );
        if let Some((certificate, key)) = guard.tls {
            // Writing to a string can't fail.
            let _ = writeln!(
                text,
                "  tls: {{certificate: {}, key: {}}}",
                certificate.display(),
                key.display()
            );
        }
        if let Some(file) = guard.htpasswd {
            // Writing to a string can't fail.
            let _ = writeln!(
                text,
                "auth: {{htpasswd: {{realm: test, path: {}}}}}",
                file.display()
            );
        }
        if let Some((realm, bundle)) = guard.token {
            // Writing to a string can't fail.
            let _ = writeln!(
                text,
                "auth: {{token: {{realm: '{realm}', service: registry, issuer: issuer, rootcertbundle: {}}}}}",
                bundle.display()
            );
        }
        std::fs::write(&config, text).expect("its configuration");
        let server = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Debian's docker-registry is installed");
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(
                start.elapsed() < START_TIMEOUT,
                "the registry did not start"
            );
            std::thread::yield_now();
        }
        Self { server, address }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself; nothing depends on how.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
