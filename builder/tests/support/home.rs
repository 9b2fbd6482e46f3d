//! A home, a store and a context of one's own for tests of the binary, with nothing of the machine's configuration.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::place::run;
use crate::registry::LOGIN;

/// A home, a store and a context of one's own.
pub(crate) struct Home {
    directory: TempDir,
}

impl Home {
    /// None, with a word why, where tests can't do what they need.
    pub(crate) fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            assert!(
                std::env::var_os("CI").is_none()
                    && std::env::var_os("RBUILD_TESTS_MUST_RUN").is_none(),
                "registry tests need root"
            );
            return None;
        }
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir(directory.path().join("context")).expect("made");
        Some(Self { directory })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(&path, text).expect("written");
        path
    }

    /// The binary with this home and the store `root`; nothing of the machine's configuration is seen.
    pub(crate) fn command(&self, root: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rbuild"));
        command
            .arg("--root")
            .arg(self.path(root))
            .args(arguments)
            .env_clear()
            .env(
                "PATH",
                format!(
                    "{}:{}",
                    self.path("bin").display(),
                    std::env::var("PATH").unwrap_or_default()
                ),
            )
            .env("HOME", self.directory.path())
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn try_rbuild(&self, arguments: &[&str]) -> (bool, String) {
        told(&self.command("root", arguments).output().expect("it runs"))
    }

    /// Runs it, and expects it to work; stdout.
    pub(crate) fn rbuild(&self, arguments: &[&str]) -> String {
        let output = self.command("root", arguments).output().expect("it runs");
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            told(&output).1
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The same with a store that has nothing.
    pub(crate) fn elsewhere(&self, arguments: &[&str]) -> (bool, String) {
        static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        told(
            &self
                .command(&format!("other-{number}"), arguments)
                .output()
                .expect("it runs"),
        )
    }

    pub(crate) fn login(&self, registry: &str, password: &str) -> (bool, String) {
        let mut child = self
            .command(
                "root",
                &["login", "-u", LOGIN.0, "--password-stdin", registry],
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        let mut stdin = child.stdin.take().expect("piped");
        writeln!(stdin, "{password}").expect("it reads");
        drop(stdin);
        told(&child.wait_with_output().expect("it ends"))
    }

    /// Builds an image with one file.
    pub(crate) fn build(&self, content: &str, arguments: &[&str]) -> (bool, String) {
        self.write("context/file", content);
        self.write("context/Dockerfile", "FROM scratch\nCOPY file /file\n");
        let directory = self.path("context");
        let mut all = vec!["build", "--progress=plain"];
        all.extend(arguments);
        all.push(directory.to_str().expect("UTF-8"));
        self.try_rbuild(&all)
    }

    /// An authority, and a certificate of it for `localhost` and `registry.test`: both and the key.
    pub(crate) fn certificates(&self) -> (PathBuf, PathBuf, PathBuf) {
        let [authority, signer, certificate, key, request, extensions] = [
            "ca.pem",
            "ca.key",
            "server.pem",
            "server.key",
            "server.csr",
            "server.ext",
        ]
        .map(|name| self.path(name));
        fs::write(
            &extensions,
            "subjectAltName=DNS:localhost,IP:127.0.0.1,DNS:registry.test\n",
        )
        .expect("written");
        let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let (trusted, signed_with) = (text(&authority), text(&signer));
        run(&[
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=test authority",
            "-keyout",
            &signed_with,
            "-out",
            &trusted,
        ]);
        run(&[
            "openssl",
            "req",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=localhost",
            "-keyout",
            &text(&key),
            "-out",
            &text(&request),
        ]);
        run(&[
            "openssl",
            "x509",
            "-req",
            "-days",
            "2",
            "-in",
            &text(&request),
            "-CA",
            &trusted,
            "-CAkey",
            &signed_with,
            "-CAcreateserial",
            "-extfile",
            &text(&extensions),
            "-out",
            &text(&certificate),
        ]);
        (authority, certificate, key)
    }
}

pub(crate) fn told(output: &Output) -> (bool, String) {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text += &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

/// Whether a program that a test needs is there; where tests must run it is an error that it is not.
pub(crate) fn has_program(program: &str, comes_from: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
    assert!(
        is_there || std::env::var_os("RBUILD_TESTS_MUST_RUN").is_none(),
        "`{program}` is missing: {comes_from}"
    );
    if !is_there {
        // Shown with --no-capture.
        let said = writeln!(std::io::stderr(), "skipped: no `{program}`: {comes_from}");
        said.expect("stderr is open");
    }
    is_there
}
