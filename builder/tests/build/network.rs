//! The network of RUN steps, in a world made for the test: a "host" and, beyond a cable, another machine with a resolver and a
//! server. Nothing leaves the machine, and all of it ends with the test.

use std::fs;
use std::process::{Command, Output};

use crate::support::Place;

/// Makes the world in namespaces of its own, then runs its arguments there, and says whether a pasta is left.
const WORLD: &str = r#"
ip link set lo up
unshare --net sleep 600 & world=$!
until [ "$(readlink /proc/$world/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.01; done
ip link add near type veth peer name far
ip link set far netns $world
beyond() { nsenter --target $world --net "$@"; }
beyond ip link set lo up
beyond ip addr add 198.51.100.1/24 dev far
beyond ip link set far up
ip addr add 198.51.100.2/24 dev near
ip link set near up
ip route add default via 198.51.100.1
printf "$RESOLV_CONF" > "$PLACE/resolv.conf"
mount --bind "$PLACE/resolv.conf" /etc/resolv.conf
beyond python3 "$PLACE/server.py" far "$PLACE/far-ready" &
python3 "$PLACE/server.py" near "$PLACE/near-ready" &
until [ -e "$PLACE/far-ready" ] && [ -e "$PLACE/near-ready" ]; do sleep 0.01; done
code=0; "$@" || code=$?
for name in $(cat /proc/[0-9]*/comm 2>/dev/null); do case $name in pasta*) echo "left: $name" ;; esac; done
exit $code
"#;

/// `far`: answers every name and greets. `near`: the host's own services, on every address it has.
const SERVER: &str = r#"
import socket, struct, sys, threading
kind, ready = sys.argv[1:]
def greet(family, address, text):
    s = socket.socket(family); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(address); s.listen()
    def serve():
        while True:
            c, _ = s.accept(); c.sendall(text); c.close()
    threading.Thread(target=serve, daemon=True).start()
def resolve(address):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind((address, 53))
    def serve():
        while True:
            q, who = s.recvfrom(512)
            end = q.index(b"\0", 12) + 5
            is_a = q[end - 4:end - 2] == b"\0\1"
            answer = b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4" + bytes([203, 0, 113, 5]) if is_a else b""
            s.sendto(q[:2] + b"\x81\x80\0\1" + (b"\0\1" if is_a else b"\0\0") + b"\0\0\0\0" + q[12:end] + answer, who)
    threading.Thread(target=serve, daemon=True).start()
if kind == "far":
    greet(socket.AF_INET, ("0.0.0.0", 7000), b"hello from afar\n"); resolve("198.51.100.1")
else:
    for a in ("127.0.0.1", "198.51.100.2"): greet(socket.AF_INET, (a, 7001), b"host's own service\n")
    greet(socket.AF_INET6, ("::1", 7001), b"host's own service\n"); resolve("127.0.0.1")
    greet(socket.AF_UNIX, "\0rbuild-test-near", b"host's own service\n")
open(ready, "w").close(); threading.Event().wait()
"#;

/// Asks every address that could lead to the host. Bounded: Debian 12's pasta now and then loses the end of a connection.
const PROBE: &str = "FROM base\nRUN ip addr; cat /etc/resolv.conf; timeout 5 nc -w 3 198.51.100.1 7000 </dev/null; \
    timeout 9 nslookup some.example; \
    for a in 127.0.0.1 ::1 198.51.100.1 198.51.100.2 169.254.1.1 10.0.2.2; do timeout 3 nc -w 1 $a 7001 </dev/null; done; \
    grep -c rbuild-test-near /proc/net/unix; true\n";

fn build_in_world(
    place: &Place,
    dockerfile: &str,
    resolv_conf: &str,
    arguments: &[&str],
) -> Output {
    fs::write(place.path().join("server.py"), SERVER).unwrap();
    let mut build = place.build(dockerfile);
    for argument in arguments {
        build = build.arg(argument);
    }
    let build = build.command();
    let mut command = Command::new("unshare");
    command
        .args([
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ])
        .args(["sh", "-euc", WORLD, "world"])
        .arg(build.get_program())
        .args(build.get_args())
        .env("PLACE", place.path())
        .env("RESOLV_CONF", resolv_conf);
    command.output().unwrap()
}

fn log(output: &Output) -> String {
    let bytes = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn a_private_network_leads_out_and_not_to_the_host() {
    for resolv_conf in ["nameserver 198.51.100.1\n", "nameserver 127.0.0.1\n"] {
        let place = Place::new();
        let output = build_in_world(&place, PROBE, resolv_conf, &[]);
        let log = log(&output);
        assert!(output.status.success(), "{log}");
        assert!(log.contains("hello from afar"), "{log}");
        assert!(
            log.contains("203.0.113.5"),
            "names, by {resolv_conf}: {log}"
        );
        assert!(!log.contains("host's own service"), "{log}");
        assert!(!log.contains("left: pasta"), "{log}");
        assert!(
            log.lines().any(|line| line.ends_with(" 0")),
            "abstract sockets: {log}"
        );
    }
}

#[test]
fn the_hosts_network_is_had_by_who_asks_for_it() {
    let place = Place::new();
    let output = build_in_world(&place, PROBE, "nameserver 127.0.0.1\n", &["--network=host"]);
    let log = log(&output);
    assert!(log.contains("hello from afar"), "{log}");
    assert!(log.contains("203.0.113.5"), "{log}");
    assert!(log.contains("host's own service"), "the attack: {log}");
}

#[test]
fn none_is_nothing_but_a_loopback() {
    let place = Place::new();
    let output = build_in_world(
        &place,
        PROBE,
        "nameserver 198.51.100.1\n",
        &["--network=none"],
    );
    let log = log(&output);
    for words in [
        "hello from afar",
        "203.0.113.5",
        "host's own service",
        "eth0",
        "near:",
    ] {
        assert!(!log.contains(words), "{words}: {log}");
    }
    assert!(log.contains("inet 127.0.0.1/8"), "{log}");
}

/// Without pasta a step is not given more than was asked for, and the user is told what to do.
#[test]
fn what_cannot_be_had_is_told_and_never_the_hosts() {
    let place = Place::new();
    fs::write(place.path().join("nothing"), "").unwrap();
    let script = format!(
        "mount --bind '{}' \"$(command -v pasta)\"; {WORLD}",
        place.path().join("nothing").display()
    );
    fs::write(place.path().join("server.py"), SERVER).unwrap();
    let build = place.build(PROBE).command();
    let mut command = Command::new("unshare");
    command
        .args([
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ])
        .args(["sh", "-euc", &script, "world"])
        .arg(build.get_program())
        .args(build.get_args())
        .env("PLACE", place.path())
        .env("RESOLV_CONF", "nameserver 198.51.100.1\n");
    let output = command.output().unwrap();
    let log = log(&output);
    assert!(output.status.success(), "{log}");
    for words in [
        "RUN steps have no network but their own loopback",
        "`pasta` is not installed",
        "--network host",
    ] {
        assert!(log.contains(words), "{words}: {log}");
    }
    for words in ["hello from afar", "host's own service"] {
        assert!(!log.contains(words), "{words}: {log}");
    }
}

/// A port of the host leads inside only when it was published.
#[test]
fn a_published_port_leads_inside() {
    const ASK: &str = r#"
"$0" --root "$1" run -p 7500:80 app sh -c 'echo served from inside | timeout 9 nc -l -p 80' &
python3 - <<'END'
import socket, time
for _ in range(2000):
    try:
        s = socket.create_connection(("127.0.0.1", 7500), 5); text = s.recv(100)
        if text: print("got", text.decode()); break
    except OSError: pass
    time.sleep(0.01)
END
wait $!
"#;
    let place = Place::new();
    place.build("FROM base\n").arg("--tag=app").ok();
    fs::write(place.path().join("server.py"), SERVER).unwrap();
    let mut command = Command::new("unshare");
    command
        .args([
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ])
        .args(["sh", "-euc", WORLD, "world", "sh", "-euc", ASK])
        .arg(env!("CARGO_BIN_EXE_rbuild"))
        .arg(place.path().join("root"))
        .env("PLACE", place.path())
        .env("RESOLV_CONF", "nameserver 198.51.100.1\n");
    let output = command.output().unwrap();
    let log = log(&output);
    assert!(log.contains("got served from inside"), "{log}");
    assert!(!log.contains("left: pasta"), "{log}");
}
