//! The network of RUN steps, in a world made for the test: a "host" and, beyond a cable, another machine with a resolver and a
//! server. Nothing leaves the machine, and all of it ends with the test.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::support::Place;

/// Makes the world in namespaces of its own, then runs its arguments there, and says what is left of networks in the end.
const WORLD: &str = r#"
ip link set lo up
unshare --net sleep 600 & world=$!
until [ "$(readlink /proc/$world/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.01; done
ip link add near type veth peer name far
ip link set far netns $world
beyond() { nsenter --target $world --net "$@"; }
beyond ip link set lo up
beyond ip addr add 198.51.100.1/24 dev far
beyond ip addr add 2001:db8::1/64 dev far nodad
beyond ip link set far up
ip addr add 198.51.100.2/24 dev near
ip addr add 2001:db8::2/64 dev near nodad
ip link set near up
ip route add default via 198.51.100.1
ip route add default via 2001:db8::1
printf "$RESOLV_CONF" > "$PLACE/resolv.conf"
mount --bind "$PLACE/resolv.conf" /etc/resolv.conf
# Forwarding is a matter of each network namespace, and off in new ones.
eval "$BEFORE"
beyond python3 "$PLACE/server.py" far "$PLACE/far-ready" &
python3 "$PLACE/server.py" near "$PLACE/near-ready" &
until [ -e "$PLACE/far-ready" ] && [ -e "$PLACE/near-ready" ]; do sleep 0.01; done
code=0; "$@" || code=$?
left() { { ip -o link | grep -o ' rb[0-9a-f]*-[0-9]*'; nft list tables | grep rbuild; cat /proc/[0-9]*/comm | grep pasta; } 2>/dev/null || true; }
# The kernel takes a moment to clean a network namespace up.
for _ in $(seq 500); do [ -n "$(left)" ] || break; sleep 0.01; done
left | sed 's/^/left: /'
exit $code
"#;

/// The host forwards.
const FORWARDING: &str =
    "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding\n";

/// There is no pasta.
const NO_PASTA: &str =
    "touch \"$PLACE/nothing\"; mount --bind \"$PLACE/nothing\" \"$(command -v pasta)\"\n";

/// Of a Linux machine as distributions set it up, for users.
const USERS_TUN: &str = "mknod \"$PLACE/tun\" c 10 200; chmod 666 \"$PLACE/tun\"; mount --bind \"$PLACE/tun\" /dev/net/tun\n";

/// `far`: answers every name and greets. `near`: the host's own services, on every address it has.
const SERVER: &str = r#"
import socket, struct, sys, threading
kind, ready = sys.argv[1:]
def greet(family, address, text):
    s = socket.socket(family); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.bind(address); s.listen()
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
    greet(socket.AF_INET6, ("::", 7006), b"hello by six\n")
else:
    greet(socket.AF_INET, ("0.0.0.0", 7001), b"host's own service\n"); greet(socket.AF_INET6, ("::", 7001), b"host's own service\n")
    greet(socket.AF_INET, ("127.0.0.1", 7002), b"host's loopback\n"); resolve("127.0.0.1")
    greet(socket.AF_UNIX, "\0rbuild-test-near", b"host's own service\n")
open(ready, "w").close(); threading.Event().wait()
"#;

/// Asks every address that could lead to the host. Bounded: Debian 12's pasta now and then loses the end of a connection.
const PROBE: &str = "FROM base\nRUN ip addr; cat /etc/resolv.conf; timeout 5 nc -w 3 198.51.100.1 7000 </dev/null; \
    timeout 5 nc -w 3 2001:db8::1 7006 </dev/null; timeout 9 nslookup some.example; \
    for a in 127.0.0.1 ::1 198.51.100.2 2001:db8::2 169.254.1.1; do timeout 3 nc -w 1 $a 7001 </dev/null; done; \
    grep -c rbuild-test-near /proc/net/unix; true\n";

/// The world, and what is done in it.
struct World<'place> {
    place: &'place Place,
    before: String,
    resolv_conf: &'static str,
    /// Run by an ordinary user.
    is_users: bool,
}

impl<'place> World<'place> {
    fn new(place: &'place Place) -> Self {
        Self {
            place,
            before: String::new(),
            resolv_conf: "nameserver 198.51.100.1\n",
            is_users: false,
        }
    }

    fn before(mut self, text: &str) -> Self {
        self.before.push_str(text);
        self
    }

    fn resolv_conf(mut self, text: &'static str) -> Self {
        self.resolv_conf = text;
        self
    }

    fn users(mut self) -> Self {
        self.is_users = true;
        self
    }

    /// The exit code of these words, and all that was printed.
    fn run<I: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = I>) -> (Option<i32>, String) {
        let path = self.place.path();
        fs::write(path.join("server.py"), SERVER).unwrap();
        let mut command = Command::new("unshare");
        command.args([
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ]);
        command.args(["sh", "-euc", WORLD, "world"]);
        if self.is_users {
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
            command.args([
                "setpriv",
                "--reuid=21000",
                "--regid=21001",
                "--clear-groups",
                "--",
            ]);
        }
        let output = command
            .args(words)
            .env("PLACE", path)
            .env("BEFORE", &self.before)
            .env("RESOLV_CONF", self.resolv_conf)
            .output()
            .unwrap();
        let bytes = [output.stdout.as_slice(), &output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    /// Builds and gives what was printed; it has to leave nothing.
    fn build(&self, dockerfile: &str, arguments: &[&str]) -> String {
        let mut build = self.place.build(dockerfile);
        for argument in arguments {
            build = build.arg(argument);
        }
        let build = build.command();
        let words = std::iter::once(build.get_program()).chain(build.get_args());
        let words: Vec<OsString> = words.map(ToOwned::to_owned).collect();
        let (code, log) = if self.is_users {
            // The binary may lie where the user can't go.
            let copy = self.place.path().join("rbuild");
            fs::copy(&words[0], &copy).unwrap();
            self.run(std::iter::once(copy.as_os_str()).chain(words[1..].iter().map(AsRef::as_ref)))
        } else {
            self.run(&words)
        };
        assert_eq!(code, Some(0), "{log}");
        assert!(!log.contains("left: "), "{log}");
        log
    }
}

#[track_caller]
fn assert_leads_out_only(log: &str) {
    for words in ["hello from afar", "hello by six", "203.0.113.5"] {
        assert!(log.contains(words), "{words}: {log}");
    }
    assert!(!log.contains("host's own service"), "{log}");
    let has_no_abstract_socket = log.lines().any(|line| line.ends_with(" 0"));
    assert!(has_no_abstract_socket, "abstract sockets: {log}");
}

/// By a veth pair of the host's, where that forwards.
#[test]
fn a_cable_leads_out_and_not_to_the_host() {
    let place = Place::new();
    let log = World::new(&place)
        .before(FORWARDING)
        .before(NO_PASTA)
        .build(PROBE, &[]);
    assert_leads_out_only(&log);
    assert!(log.contains("inet 10.213."), "{log}");
}

/// By pasta, where it does not: nothing of the host's is changed for a build.
#[test]
fn pasta_leads_out_and_not_to_the_host() {
    // Below a user namespace it is told that its uid is root's there.
    for arguments in [&[][..], &["--isolation=userns"]] {
        let place = Place::new();
        let log = World::new(&place).build(PROBE, arguments);
        assert_leads_out_only(&log);
        assert!(!log.contains("inet 10.213."), "{log}");
    }
}

/// A resolver that listens on the host's loopback only is asked all the same.
#[test]
fn names_are_known_by_a_resolver_on_the_hosts_loopback() {
    let place = Place::new();
    let world = World::new(&place)
        .before(FORWARDING)
        .resolv_conf("nameserver 127.0.0.1\n");
    assert_leads_out_only(&world.build(PROBE, &[]));
}

#[test]
fn an_ordinary_user_has_a_private_network_too() {
    let place = Place::new();
    let world = World::new(&place)
        .before(FORWARDING)
        .before(USERS_TUN)
        .users();
    let log = world.build(PROBE, &["--ignore-chown-errors"]);
    assert_leads_out_only(&log);
}

#[test]
fn the_hosts_network_is_had_by_who_asks_for_it() {
    let place = Place::new();
    let world = World::new(&place).resolv_conf("nameserver 127.0.0.1\n");
    let log = world.build(PROBE, &["--network=host"]);
    for words in ["hello from afar", "hello by six", "203.0.113.5"] {
        assert!(log.contains(words), "{words}: {log}");
    }
    assert!(log.contains("host's own service"), "the attack: {log}");
}

#[test]
fn none_is_nothing_but_a_loopback() {
    let place = Place::new();
    let world = World::new(&place).before(FORWARDING);
    let log = world.build(PROBE, &["--network=none"]);
    for words in [
        "hello from",
        "203.0.113.5",
        "host's own service",
        "eth0:",
        "near:",
    ] {
        assert!(!log.contains(words), "{words}: {log}");
    }
    assert!(log.contains("inet 127.0.0.1/8"), "{log}");
}

/// Without a way out a step is not given more than was asked for, and the user is told what is in the way.
#[test]
fn what_is_in_the_way_is_told_and_the_hosts_network_never_given_instead() {
    let dropping = "nft add table ip filter; nft add chain ip filter FORWARD '{ type filter hook forward priority 0; policy drop; }'\n";
    let read_only = "mount --bind -o ro /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys\n";
    let off = "forwarding is off (`net.ipv4.ip_forward`)";
    let legacy = |rules: &str| format!("{FORWARDING}{rules}\n");
    let rows: [(String, &[&str]); 6] = [
        (String::new(), &[off, "`sysctl net.ipv4.ip_forward=1`"]),
        (read_only.to_owned(), &[off, "/proc/sys is read-only here"]),
        (
            format!("{FORWARDING}{dropping}"),
            &["drops what is forwarded (nft table `ip filter`, chain `FORWARD`)"],
        ),
        // What the nft program does not list.
        (
            legacy("iptables-legacy -P FORWARD DROP"),
            &["drops what is forwarded (iptables-legacy, table `filter`, chain `FORWARD`)"],
        ),
        (
            legacy("ip6tables-legacy -t mangle -P FORWARD DROP"),
            &["drops what is forwarded (ip6tables-legacy, table `mangle`, chain `FORWARD`)"],
        ),
        (
            legacy(
                "iptables-legacy -A FORWARD -s 192.0.2.1 -j ACCEPT; iptables-legacy -A FORWARD -j REJECT",
            ),
            &["drops what is forwarded (iptables-legacy, table `filter`, chain `FORWARD`)"],
        ),
    ];
    for (before, expected) in rows {
        let place = Place::new();
        let log = World::new(&place)
            .before(NO_PASTA)
            .before(&before)
            .build(PROBE, &[]);
        let all = [
            "RUN steps have no network but their own loopback",
            "`pasta` is not installed",
            "--network host",
        ];
        for words in all.iter().chain(expected) {
            assert!(log.contains(words), "{words}: {log}");
        }
        for words in ["hello from afar", "host's own service"] {
            assert!(!log.contains(words), "{words}: {log}");
        }
    }
}

/// A firewall of iptables-legacy that lets through is in nobody's way.
#[test]
fn a_firewall_that_accepts_is_not_in_the_way() {
    let place = Place::new();
    let rules = "iptables-legacy -P FORWARD ACCEPT; iptables-legacy -A FORWARD -d 192.0.2.1 -j DROP; ip6tables-legacy -P FORWARD ACCEPT\n";
    let log = World::new(&place)
        .before(FORWARDING)
        .before(rules)
        .before(NO_PASTA)
        .build(PROBE, &[]);
    assert_leads_out_only(&log);
    assert!(log.contains("inet 10.213."), "{log}");
}

/// Steps that run at the same time don't meet: what one listens on is not in the other's way.
#[test]
fn steps_at_the_same_time_have_networks_of_their_own() {
    let meet = |own: &str, other: &str| {
        format!(
            "RUN --mount=type=cache,target=/m touch /m/{own}; until [ -e /m/{other} ]; do sleep 0.01; done; \
             ls -l /proc/self/ns/net | tr '>' '\\n' | tail -1 > /{own}\n"
        )
    };
    let dockerfile = format!(
        "FROM base AS a\n{}FROM base AS b\n{}FROM scratch\nCOPY --from=a /one /\nCOPY --from=b /two /\n",
        meet("one", "two"),
        meet("two", "one")
    );
    let place = Place::new();
    let out = place.path().join("out");
    let world = World::new(&place).before(FORWARDING);
    world.build(
        &dockerfile,
        &["-j2", &format!("--output={}", out.display())],
    );
    let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
    assert!(read("one").contains("net:["), "{}", read("one"));
    assert_ne!(read("one"), read("two"));
}

/// After a SIGKILL nothing is left: no interface, no table, no process.
#[test]
fn a_killed_build_leaves_no_network() {
    const KILL: &str = r#"
"$@" > "$PLACE/log" 2>&1 & build=$!
until grep -q "step is up" "$PLACE/log"; do sleep 0.01; done
echo "before: $(ip -o link | grep -c ' rb') $(nft list tables | grep -c rbuild)"
kill -9 $build
"#;
    let place = Place::new();
    let build = place
        .build("FROM base\nRUN echo step is up; sleep 600\n")
        .command();
    let words: Vec<&OsStr> = std::iter::once(build.get_program())
        .chain(build.get_args())
        .collect();
    let (_, log) = World::new(&place).before(FORWARDING).run(
        ["sh", "-euc", KILL, "kill"]
            .map(OsStr::new)
            .iter()
            .chain(&words),
    );
    assert!(log.contains("before: 1 1"), "{log}");
    assert!(!log.contains("left: "), "{log}");
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
    let root = place.path().join("root");
    let words = ["sh", "-euc", ASK, env!("CARGO_BIN_EXE_rbuild")].map(OsStr::new);
    let (_, log) = World::new(&place).run(words.into_iter().chain([root.as_os_str()]));
    assert!(log.contains("got served from inside"), "{log}");
    assert!(!log.contains("left: pasta"), "{log}");
}

/// Only who asks for it by name reaches this machine: what listens on all its addresses, and by a cable nothing that listens on
/// its loopback alone. How often is not asked: Debian 12's pasta now and then gives the end of a connection many times.
#[test]
fn the_host_is_reached_by_its_name_when_that_was_asked_for() {
    const ASK: &str = "FROM base\nRUN for port in 7001 7002; do timeout 5 nc -w 2 me $port </dev/null; done; true\n";
    for (before, by_loopback) in [(FORWARDING, false), ("", true)] {
        let place = Place::new();
        let world = World::new(&place).before(before);
        let log = world.build(ASK, &["--add-host=me:host-gateway"]);
        assert!(log.contains("host's own service"), "{before}: {log}");
        assert_eq!(
            log.contains("host's loopback"),
            by_loopback,
            "{before}: {log}"
        );
    }
}
