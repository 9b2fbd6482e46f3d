//! Git repositories behind TLS and behind ssh: real servers on loopback, with a certificate and keys of the test's own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::servers::Repository;
use super::support::{Build, Place, tool};

/// A server that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A place with a repository `app.git`.
struct Forge {
    place: Place,
    app: Repository,
}

impl Forge {
    fn new() -> Self {
        let place = Place::new();
        let app = Repository::new(place.path().join("repositories/app.git"));
        app.file("Dockerfile", "FROM scratch\nCOPY . /all/\n")
            .file("f", "one")
            .file("dir/g", "g")
            .commit();
        Self { place, app }
    }

    /// Builds from the repository in each way there is: as the context, by ADD, as a named context.
    fn builds_every_way(&self, url: &str, prepare: impl Fn(Build<'_>) -> Build<'_>) {
        let built = prepare(self.place.build_context(url)).ok();
        assert_eq!(built.image.text("all/f"), "one");
        let added = format!("FROM scratch\nADD {url}#main:dir /added/\n");
        let built = prepare(self.place.build(&added)).ok();
        assert_eq!(built.image.text("added/g"), "g");
        let named = format!("--build-context=src={url}");
        let copied = self
            .place
            .build("FROM scratch\nCOPY --from=src f /copied\n")
            .arg(&named);
        assert_eq!(prepare(copied).ok().image.text("copied"), "one");
    }
}

/// The first line that a server says.
fn first_line(stream: impl std::io::Read) -> String {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line.trim().to_owned()
}

/// An authority of the test's own, and a certificate for `localhost` that it signed, with its key.
struct Certificates {
    authority: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Certificates {
    fn make(directory: &Path) -> Self {
        let path = |name: &str| directory.join(name);
        let made = Self {
            authority: path("authority.pem"),
            certificate: path("certificate.pem"),
            key: path("certificate.key"),
        };
        let signing_key = path("authority.key");
        let request = |certificate: &Path, key: &Path, words: &[&str]| {
            let always = [
                "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            ];
            let written = [
                "-keyout",
                key.to_str().unwrap(),
                "-out",
                certificate.to_str().unwrap(),
            ];
            tool("openssl", [&always, words, &written].concat());
        };
        request(
            &made.authority,
            &signing_key,
            &["-subj", "/CN=authority of a test"],
        );
        let signed = [
            "-CA",
            made.authority.to_str().unwrap(),
            "-CAkey",
            signing_key.to_str().unwrap(),
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ];
        request(&made.certificate, &made.key, &signed);
        made
    }
}

#[test]
fn a_repository_is_reached_by_https() {
    let forge = Forge::new();
    let Certificates {
        authority,
        certificate,
        key,
    } = Certificates::make(forge.place.path());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/build/git_https.py");
    let mut child = Command::new("python3")
        .arg(script)
        .arg(forge.place.path().join("repositories"))
        .args([&certificate, &key])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let port = first_line(child.stdout.take().unwrap());
    let _server = Server(child);
    let url = format!("https://localhost:{port}/app.git");
    // Nobody signed this certificate.
    let (_, log) = forge.place.build_context(&url).err();
    for words in ["certificate", "`--ca-cert FILE`"] {
        assert!(log.contains(words), "{words}: {log}");
    }
    let flag = format!("--ca-cert={}", authority.display());
    forge.builds_every_way(&url, |build| build.arg(&flag));
    // The same of a file that is added by its address.
    let file = format!("FROM scratch\nADD {url}/HEAD /head\n");
    let (_, log) = forge.place.build(&file).err();
    assert!(log.contains("`--ca-cert FILE`"), "{log}");
    let added = forge.place.build(&file).arg(&flag).ok();
    assert!(added.image.text("head").starts_with("ref: "));
    let authority = authority.to_str().unwrap();
    forge.builds_every_way(&url, |build| build.env("GIT_SSL_CAINFO", authority));
    // What is added is trusted beside what the caller's own variable says.
    let other = forge.place.path().join("other");
    fs::create_dir(&other).unwrap();
    let other = Certificates::make(&other).authority;
    let flag = format!("--ca-cert={}", other.display());
    forge.builds_every_way(&url, |build| {
        build.arg(&flag).env("GIT_SSL_CAINFO", authority)
    });
    let (_, log) = forge.place.build_context(&url).arg(&flag).err();
    assert!(log.contains("certificate"), "not by another's: {log}");
    // A file that is to say who is trusted and can't be read is no reason to trust others.
    let build = forge.place.build_context(&url).arg(&flag);
    let (_, log) = build.env("GIT_SSL_CAINFO", "/does/not/exist").err();
    for words in ["/does/not/exist", "No such file"] {
        assert!(log.contains(words), "{words}: {log}");
    }
}

/// An ssh server of Debian's with keys of its own, and how to get in.
struct SshServer {
    _server: Server,
    port: u16,
    /// The key that it lets in.
    key: PathBuf,
}

impl SshServer {
    fn start(directory: &Path) -> Self {
        let path = |name: &str| directory.join(name);
        for name in ["host_key", "key", "other_key"] {
            let file = path(name);
            let words = [
                "-q",
                "-t",
                "ed25519",
                "-N",
                "",
                "-f",
                file.to_str().unwrap(),
            ];
            tool("ssh-keygen", words);
        }
        // What a service manager makes for it: without, it does not start.
        fs::create_dir_all("/run/sshd").unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nPermitRootLogin yes\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\nPidFile none\n",
            path("host_key").display(),
            path("key.pub").display(),
        );
        fs::write(path("sshd_config"), config).unwrap();
        let mut child = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(path("sshd_config"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("openssh-server is not installed: {error}"));
        let words = first_line(child.stderr.as_mut().unwrap());
        assert!(words.contains("listening"), "{words}");
        Self {
            _server: Server(child),
            port,
            key: path("key"),
        }
    }
}

#[test]
fn a_repository_is_reached_by_ssh() {
    let forge = Forge::new();
    let server = SshServer::start(forge.place.path());
    let repository = forge.app.path().display();
    let url = format!("ssh://root@127.0.0.1:{}{repository}", server.port);
    let with_key =
        |name: &str| format!("--ssh=default={}", forge.place.path().join(name).display());
    // Neither without a key nor with any.
    let without = |build: Build<'_>| build.env("SSH_AUTH_SOCK", "").err().1;
    let log = without(forge.place.build_context(&url));
    assert!(log.contains("the build was given no key"), "{log}");
    let log = without(forge.place.build_context(&url).arg(&with_key("other_key")));
    assert!(log.contains("Permission denied"), "{log}");
    forge.builds_every_way(&url, |build| build.arg(&with_key("key")));
    // The key's path is the user's, wherever git runs.
    let relative = forge.place.build_context(&url).arg("--ssh=default=key");
    let directory = forge.place.path();
    let output = relative.command().current_dir(directory).output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    // The same by an agent that holds the key.
    let socket = forge.place.path().join("agent");
    let agent = Command::new("ssh-agent")
        .args(["-D", "-a"])
        .arg(&socket)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut agent = Server(agent);
    // It says where it listens once it does.
    let words = first_line(agent.0.stdout.take().unwrap());
    assert!(words.contains("SSH_AUTH_SOCK"), "{words}");
    let added = Command::new("ssh-add")
        .arg("-q")
        .arg(&server.key)
        .env("SSH_AUTH_SOCK", &socket)
        .status()
        .unwrap();
    assert!(added.success());
    let given = format!("--ssh=default={}", socket.display());
    let built = forge
        .place
        .build_context(format!("{url}#main"))
        .arg(&given)
        .ok();
    assert_eq!(built.image.text("all/dir/g"), "g");
}
