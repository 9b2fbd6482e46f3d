//! Agents in RUN steps. The client in the image is the host's ssh-add, with the libraries that it names.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::Place;

/// Puts ssh-add and its libraries into the context.
fn put_client(place: &Place) {
    let program = "/usr/bin/ssh-add";
    let output = Command::new("ldd").arg(program).output().unwrap();
    let listed = String::from_utf8(output.stdout).unwrap();
    let libraries = listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    for path in libraries.chain([program]) {
        let to = place.context().join("files").join(&path[1..]);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(path, to).unwrap();
    }
}

/// A key without a passphrase; gives its path.
fn make_key(place: &Place) -> PathBuf {
    let path = place.path().join("key");
    let status = Command::new("ssh-keygen")
        .args([
            "-q",
            "-t",
            "ed25519",
            "-N",
            "",
            "-C",
            "planted-comment",
            "-f",
        ])
        .arg(&path)
        .status();
    assert!(status.unwrap().success());
    path
}

/// An agent of the caller's, ended with the test.
struct Agent(Child, PathBuf);

impl Agent {
    fn with_key(place: &Place, key: &Path) -> Self {
        let socket = place.path().join("s");
        let child = Command::new("ssh-agent")
            .args(["-D", "-a"])
            .arg(&socket)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let agent = Self(child, socket.clone());
        while !socket.exists() {
            std::thread::yield_now();
        }
        let status = Command::new("ssh-add")
            .arg("-q")
            .arg(key)
            .env("SSH_AUTH_SOCK", &socket)
            .status();
        assert!(status.unwrap().success());
        agent
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const DOCKERFILE: &str = "FROM base\nCOPY files /\n\
    RUN --mount=type=ssh /usr/bin/ssh-add -l; ls -ln $SSH_AUTH_SOCK | head -c 10; echo; cat $SSH_AUTH_SOCK || true\n\
    USER app\nRUN --mount=type=ssh,uid=1000,gid=1001,mode=0640 /usr/bin/ssh-add -l && stat -c 'owned %u %g %a' $SSH_AUTH_SOCK\n";

/// How many agents run in a directory of this place.
fn agents_in(place: &Path) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let is_one = |process: &fs::DirEntry| {
        let read = |name: &str| fs::read(process.path().join(name)).unwrap_or_default();
        let directory = fs::read_link(process.path().join("cwd")).unwrap_or_default();
        directory.starts_with(place) && read("comm").starts_with(b"ssh-agent")
    };
    processes.filter(is_one).count()
}

/// Nothing of the private key is in the store or in what was printed.
fn assert_key_stays_outside(place: &Place, key: &Path, log: &str) {
    let text = fs::read_to_string(key).unwrap();
    let secret = text.lines().nth(2).unwrap();
    assert!(secret.len() > 60, "{secret}");
    assert!(!log.contains(secret), "{log}");
    let status = Command::new("grep")
        .args(["-rqF", secret])
        .arg(place.path().join("root"))
        .status();
    assert_eq!(status.unwrap().code(), Some(1), "the key is in the store");
}

#[test]
fn an_agent_is_forwarded_with_the_owner_that_was_said() {
    let place = Place::new();
    put_client(&place);
    let key = make_key(&place);
    let agent = Agent::with_key(&place, &key);
    let flag = format!("--ssh=default={}", agent.1.display());
    let built = place.build(DOCKERFILE).arg(&flag).ok();
    assert_eq!(
        built.log.matches("planted-comment").count(),
        2,
        "{}",
        built.log
    );
    assert!(built.log.contains("owned 1000 1001 640"), "{}", built.log);
    assert_key_stays_outside(&place, &key, &built.log);
}

#[test]
fn a_key_file_gets_an_agent_and_is_never_inside() {
    let place = Place::new();
    put_client(&place);
    let key = make_key(&place);
    let flag = format!("--ssh=default={}", key.display());
    let built = place.build(DOCKERFILE).arg(&flag).ok();
    assert_eq!(
        built.log.matches("planted-comment").count(),
        2,
        "{}",
        built.log
    );
    assert_key_stays_outside(&place, &key, &built.log);
    // It ends by itself soon after what it was started for.
    let start = Instant::now();
    while agents_in(place.path()) > 0 {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "an agent is left"
        );
        std::thread::yield_now();
    }
}

#[test]
fn what_is_no_agent_and_no_key_is_told() {
    let place = Place::new();
    let path = place.path().join("none");
    fs::write(&path, "no key\n").unwrap();
    let dockerfile = "FROM base\nRUN --mount=type=ssh true\n";
    for path in [path.as_path(), "/does/not/exist".as_ref()] {
        let flag = format!("--ssh=default={}", path.display());
        let (code, log) = place.build(dockerfile).arg(&flag).err();
        assert_eq!(code, 1, "{log}");
        assert!(
            log.contains("cannot forward the ssh agent `default`"),
            "{log}"
        );
    }
    let (_, log) = place
        .build("FROM base\nRUN --mount=type=ssh,required true\n")
        .err();
    assert!(log.contains("ssh agent `default` is required"), "{log}");
}
