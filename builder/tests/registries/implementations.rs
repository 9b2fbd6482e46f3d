//! A second implementation: `container-registry`, written for Docker's and podman's pushes and knowing no others.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::home::{Home, has_program};
use super::place::run;

/// How long the server may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(20);

const PASSWORD: &str = "open-sesame";

struct Second {
    server: Child,
    address: String,
}

impl Second {
    fn start(home: &Home) -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let address = format!("localhost:{port}");
        let server = Command::new("container-registry")
            .args([
                "--bind",
                &format!("127.0.0.1:{port}"),
                "--password",
                PASSWORD,
            ])
            .arg("--storage")
            .arg(home.path("second"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it was found");
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < START_TIMEOUT, "it did not start");
            std::thread::yield_now();
        }
        Self { server, address }
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        // It may have ended by itself; nothing depends on how.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Bytes that do not compress, the same each time.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let words = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    });
    words.flat_map(u64::to_le_bytes).take(length).collect()
}

#[test]
fn a_second_implementation_takes_and_gives_images() {
    let Some(home) = Home::new() else { return };
    let comes_from = "cargo install container-registry --features bin";
    if !has_program("container-registry", comes_from) {
        return;
    }
    let registry = Second::start(&home);
    let credentials = format!("anyone:{PASSWORD}");
    // One layer is more than a chunk, which this registry would not put together rightly.
    fs::write(home.path("context/large"), noise(40 << 20)).expect("written");
    home.write("context/file", "small");
    home.write(
        "context/Dockerfile",
        "FROM scratch\nCOPY large /large\nCOPY file /file\n",
    );
    let name = format!("{}/team/app:1", registry.address);
    let context = home.path("context");
    let context = context.to_str().expect("UTF-8");
    home.rbuild(&["build", "-t", &name, context]);
    let (done, log) = home.try_rbuild(&["push", &name]);
    assert!(!done && log.contains("rbuild login"), "{log}");
    let uncompressed = [
        "push",
        "--compression=uncompressed",
        "--creds",
        &credentials,
    ];
    let pushed = home.rbuild(&[&uncompressed[..], &[&name]].concat());
    let digest = pushed.trim().rsplit(' ').next().expect("a digest");
    let again = home.rbuild(&[&uncompressed[..], &[&name]].concat());
    assert_eq!(again, pushed);

    // What we pushed is what another client gets.
    let layout = format!("oci:{}:1", home.path("taken").display());
    let docker = format!("docker://{name}");
    let login = ["--src-tls-verify=false", "--src-creds", &credentials];
    let copy = ["skopeo", "copy", "--quiet", "--preserve-digests"];
    run(&[&copy[..], &login, &[&docker, &layout]].concat());
    let taken = run(&["skopeo", "inspect", "--format", "{{.Digest}}", &layout]);
    assert_eq!(taken.trim(), digest);

    // And what another client pushes is what we get.
    let other = format!("{}/team/other:1", registry.address);
    let login = ["--dest-tls-verify=false", "--dest-creds", &credentials];
    let docker = format!("docker://{other}");
    run(&[&copy[..], &login, &[&layout, &docker]].concat());
    let (done, log) = home.elsewhere(&["pull", "--creds", &credentials, &other]);
    assert!(done, "{log}");
    let file = home.path("root.tar");
    let file = file.to_str().expect("UTF-8");
    home.rbuild(&["pull", "--creds", &credentials, &other]);
    home.rbuild(&["export", "-o", file, &other]);
    let listed = run(&["tar", "tf", file]);
    assert_eq!(listed.lines().collect::<Vec<_>>(), ["./", "file", "large"]);
}
