//! Debian's docker-registry on a loopback port, and skopeo to read what was pushed to it.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::place::Place;
use crate::processes::run;
use crate::tree::Tree;
use crate::{Result, archive, ensure};

/// How long the server may take to listen on a busy machine.
const STARTS: Duration = Duration::from_mins(1);

/// A running registry; ended when dropped.
pub(crate) struct RealRegistry {
    server: Child,
    address: String,
}

impl RealRegistry {
    pub(crate) fn start(place: &Place) -> Result<Self> {
        // Given back at once: the server takes it a moment later.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = place.path("registry.yml");
        std::fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
                 http: {{addr: '127.0.0.1:{port}'}}\n",
                place.directory("registry")?.display()
            ),
        )?;
        let server = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("Debian's docker-registry is needed: {error}"))?;
        let registry = Self {
            server,
            address: format!("localhost:{port}"),
        };
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            ensure!(start.elapsed() < STARTS, "docker-registry does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(registry)
    }

    /// A name in it.
    pub(crate) fn name(&self, repository: &str) -> String {
        format!("{}/{repository}", self.address)
    }

    /// What an image shows, fetched to `file`.
    pub(crate) fn read(&self, repository: &str, file: &Path) -> Result<Tree> {
        match std::fs::remove_file(file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        run(Command::new("skopeo")
            .args([
                "--insecure-policy",
                "copy",
                "--quiet",
                "--src-tls-verify=false",
            ])
            .arg(format!("docker://{}", self.name(repository)))
            .arg(format!("oci-archive:{}", file.display())))?;
        archive::read(file)
    }
}

impl Drop for RealRegistry {
    fn drop(&mut self) {
        // It may have ended by itself; nothing depends on how.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
