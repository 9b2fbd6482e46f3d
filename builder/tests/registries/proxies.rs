//! Proxies: what goes through them, what they are told, and what does not go through them.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::{fs, io, thread};

use super::base64;
use super::home::{Home, told};
use super::registry::{Guard, Registry};

/// A proxy that leads everywhere to one address, whatever it is asked for. Its threads end with the test.
struct Proxy {
    port: u16,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let (log, target) = (Arc::clone(&heard), target.to_owned());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (log, target) = (Arc::clone(&log), target.clone());
                // A client that hangs up ends its own connection only.
                thread::spawn(move || _ = pass_on(stream, &target, &log));
            }
        });
        Self { port, heard }
    }

    /// The heads of the requests so far.
    fn heard(&self) -> Vec<String> {
        self.heard.lock().expect("no panic").clone()
    }
}

fn pass_on(mut client: TcpStream, target: &str, log: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let is_tunnel = text.starts_with("CONNECT ");
    log.lock().expect("no panic").push(text);
    let mut server = TcpStream::connect(target)?;
    if is_tunnel {
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    } else {
        server.write_all(&head)?;
    }
    let (mut from, mut to) = (server.try_clone()?, client.try_clone()?);
    thread::spawn(move || {
        // Either side may hang up.
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
    io::copy(&mut client, &mut server)?;
    server.shutdown(std::net::Shutdown::Write)
}

/// Runs the binary with variables.
fn with_variables(mut command: Command, variables: &[(&str, &str)]) -> (bool, String) {
    command.envs(variables.iter().copied());
    told(&command.output().expect("it runs"))
}

#[test]
fn plain_requests_and_tunnels_go_through_a_proxy() {
    let Some(home) = Home::new() else { return };
    let registry = Registry::start(&home.path("registry"));
    let proxy = Proxy::start(&registry.address);
    let address = format!("http://me:pass-word@127.0.0.1:{}", proxy.port);
    let variables = [("HTTP_PROXY", &*address), ("HTTPS_PROXY", &*address)];
    // A name that nothing resolves: only the proxy knows it.
    let name = "registry.test:5000/team/app:1";
    let (done, log) = home.build("one", &["-t", name]);
    assert!(done, "{log}");
    let push = home.command("root", &["push", "--tls-verify=false", name]);
    let (done, log) = with_variables(push, &variables);
    assert!(done && !log.contains("pass-word"), "{log}");
    let pull = home.command("other", &["pull", "--tls-verify=false", name]);
    let (done, log) = with_variables(pull, &variables);
    assert!(done, "{log}");
    let heard = proxy.heard();
    let login = format!("basic {}", base64("me:pass-word"));
    for head in &heard {
        assert!(
            head.starts_with("CONNECT registry.test:5000 ")
                || head.contains(" http://registry.test:5000/v2/"),
            "{head}"
        );
        let has_login = head.lines().any(|line| {
            let line = line.to_ascii_lowercase();
            line == format!("proxy-authorization: {}", login.to_ascii_lowercase())
        });
        assert!(has_login, "{head}");
    }
    assert!(heard.iter().any(|head| head.starts_with("GET http://")));

    // Not for names that are excepted, and not for this machine.
    let before = proxy.heard().len();
    let excepting = [&variables[..], &[("NO_PROXY", "localhost,.test")]].concat();
    let pull = home.command("third", &["pull", "--tls-verify=false", name]);
    let (done, log) = with_variables(pull, &excepting);
    assert!(!done && log.contains("cannot reach"), "{log}");
    assert!(!log.contains("pass-word"), "{log}");
    let local = format!("{}/team/app:1", registry.address);
    let pull = home.command("third", &["pull", &local]);
    let (done, log) = with_variables(pull, &variables);
    assert!(done, "{log}");
    assert_eq!(proxy.heard().len(), before);
}

#[test]
fn what_is_encrypted_is_not_read_by_a_proxy() {
    let Some(home) = Home::new() else { return };
    let (ca, certificate, key) = home.certificates();
    let guard = Guard {
        tls: Some((&certificate, &key)),
        ..Guard::default()
    };
    let registry = Registry::guarded(&home.path("registry"), &guard);
    let proxy = Proxy::start(&registry.address);
    let address = format!("http://127.0.0.1:{}", proxy.port);
    home.write(
        ".config/containers/certs.d/registry.test/ca.crt",
        &fs::read_to_string(&ca).expect("readable"),
    );
    let name = "registry.test/team/app:1";
    let (done, log) = home.build("one", &["-t", name]);
    assert!(done, "{log}");
    let push = home.command("root", &["push", name]);
    let (done, log) = with_variables(push, &[("HTTPS_PROXY", &address)]);
    assert!(done, "{log}");
    let pull = home.command("other", &["pull", name]);
    let (done, log) = with_variables(pull, &[("all_proxy", &address)]);
    assert!(done, "{log}");
    let heard = proxy.heard();
    assert!(!heard.is_empty());
    for head in &heard {
        assert!(head.starts_with("CONNECT registry.test:443 "), "{head}");
    }

    // A proxy that is not there is what could not be reached.
    let pull = home.command("third", &["pull", name]);
    let (done, log) = with_variables(pull, &[("HTTPS_PROXY", "http://127.0.0.1:1")]);
    assert!(!done && log.contains("through a proxy"), "{log}");
}
