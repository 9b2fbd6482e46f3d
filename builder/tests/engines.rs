//! Images handed to engines of this machine: podman, containerd and docker, each with a storage of its own.

#[path = "support/home.rs"]
mod home;
#[path = "support/place.rs"]
mod place;
#[path = "support/registry.rs"]
mod registry;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use home::{Home, has_program};
use place::run;

/// Writes a script that stands first in the home's PATH; where it lies.
fn script(home: &Home, name: &str, text: &str) -> String {
    let path = home.write(&format!("bin/{name}"), &format!("#!/bin/sh\n{text}\n"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    text_of(&path)
}

fn text_of(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

/// A daemon in namespaces of its own, ended with the test, and all its processes with it.
struct Daemon {
    process: Child,
}

impl Daemon {
    /// Starts one and waits until it says `ready`. What it said before it gave up is the reason.
    fn start(namespaces: &[&str], command: &[&str], ready: &str) -> Self {
        let mut process = Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(namespaces)
            .args(command)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("unshare is there");
        let mut lines = BufReader::new(process.stderr.take().expect("piped")).lines();
        let mut said = Vec::new();
        loop {
            match lines.next() {
                Some(Ok(line)) if line.contains(ready) => break,
                Some(Ok(line)) => said.push(line),
                _ => panic!("{command:?} does not run here:\n{}", said.join("\n")),
            }
        }
        // It must not wait for us to read what it says.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Self { process }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself; nothing depends on how.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A context with a layer of three megabytes below that of `file`.
fn write_context(home: &Home, content: &str) -> String {
    fs::write(home.path("context/large"), vec![b'x'; 3_000_000]).expect("written");
    home.write("context/file", content);
    home.write(
        "context/Dockerfile",
        "FROM scratch\nCOPY large /large\nCOPY file /file\nCMD [\"/none\"]\n",
    );
    text_of(&home.path("context"))
}

#[test]
fn containerd_gets_the_blobs_that_it_lacks() {
    let Some(home) = Home::new() else { return };
    if !has_program("containerd", "Debian's containerd") {
        return;
    }
    let place = home.path("containerd");
    let (place, socket) = (place.display(), home.path("containerd.sock"));
    let socket = socket.display();
    let config = home.write(
        "containerd.toml",
        &format!(
            "version = 2\nroot = '{place}/root'\nstate = '{place}/state'\n\
             disabled_plugins = ['io.containerd.grpc.v1.cri']\n[grpc]\naddress = '{socket}'\n"
        ),
    );
    let config = text_of(&config);
    let ready = "successfully booted";
    let _daemon = Daemon::start(&[], &["containerd", "--config", &config], ready);
    // What is imported is kept, so that it can be weighed.
    let stream = text_of(&home.path("stream"));
    let ctr = script(
        &home,
        "ctr",
        &format!(
            "ctr='/usr/bin/ctr --address {socket}'\ncase \"$1 $2\" in\n\
             'images import') cat > {stream}; exec $ctr images import - < {stream} ;;\nesac\nexec $ctr \"$@\""
        ),
    );
    let sent = || fs::metadata(&stream).expect("an import").len();
    let load = |content: &str, tag: &str| {
        let context = write_context(&home, content);
        let (done, log) = home.try_rbuild(&["build", "-t", tag, "--load=containerd", &context]);
        assert!(done && log.contains("loading into containerd"), "{log}");
    };
    load("one", "localhost/app:1");
    assert!(sent() > 3_000_000, "{}", sent());
    load("two", "localhost/app:2");
    assert!(sent() < 100_000, "only what is new: {}", sent());
    load("two", "app:3");
    assert!(sent() < 100_000, "only documents: {}", sent());
    let listed = run(&[&ctr, "images", "ls", "-q"]);
    let names = [
        "docker.io/library/app:3",
        "localhost/app:1",
        "localhost/app:2",
    ];
    assert_eq!(listed.lines().collect::<Vec<_>>(), names);
    let target = home.path("mounted");
    fs::create_dir(&target).expect("made");
    let target = text_of(&target);
    run(&[&ctr, "images", "mount", "docker.io/library/app:3", &target]);
    let content = fs::read_to_string(format!("{target}/file"));
    let size = fs::metadata(format!("{target}/large")).map(|metadata| metadata.len());
    run(&["umount", &target]);
    assert_eq!(content.expect("the file"), "two");
    assert_eq!(size.expect("the large file"), 3_000_000);
}

#[test]
fn docker_takes_what_is_loaded_and_saved() {
    let Some(home) = Home::new() else { return };
    if !has_program("dockerd", "Debian's docker.io") {
        return;
    }
    let place = text_of(&home.path("docker"));
    let socket = format!("unix://{}", home.path("docker.sock").display());
    let config = text_of(&home.write("docker.json", "{}"));
    // A private /run, for it writes there whatever it is told; no network at all.
    let start = format!(
        "mount -t tmpfs none /run && exec dockerd --bridge=none --iptables=false --ip6tables=false \
         --config-file {config} --data-root {place}/root --exec-root {place}/exec --pidfile {place}/pid -H {socket}"
    );
    let _daemon = Daemon::start(&["--net"], &["sh", "-c", &start], "API listen on");
    let docker = script(
        &home,
        "docker",
        &format!("exec /usr/bin/docker -H {socket} \"$@\""),
    );
    let docker = |arguments: &[&str]| run(&[&[&*docker], arguments].concat());
    let id_of = |name: &str| {
        let id = docker(&["image", "inspect", "--format", "{{.Id}}", name]);
        id.trim().to_owned()
    };
    let context = write_context(&home, "one");
    let load = ["--load=docker", &context];
    let names = ["build", "-t", "app:1", "-t", "localhost:5000/team/app:1"];
    home.rbuild(&[&names[..], &load].concat());
    let id = home.rbuild(&["inspect", "-f", "{{.Id}}", "app:1"]);
    let id = id.trim();
    assert_eq!(id_of("app:1"), id);
    assert_eq!(id_of("localhost:5000/team/app:1"), id);
    home.rbuild(&[&["build", "-t", "app:2"][..], &load].concat());
    assert_eq!(id_of("app:2"), id);

    // Archives, both ways.
    let archive = text_of(&home.path("app.tar"));
    let output = format!("type=docker,dest={archive},name=app:3");
    home.rbuild(&["build", "-o", &output, &context]);
    let loaded = docker(&["load", "--input", &archive]);
    assert_eq!(loaded.trim(), "Loaded image: app:3");
    assert_eq!(id_of("app:3"), id);
    fs::remove_file(&archive).expect("there");
    home.rbuild(&["tag", "app:1", "app:4"]);
    home.rbuild(&["save", "-o", &archive, "app:4"]);
    docker(&["load", "--input", &archive]);
    assert_eq!(id_of("app:4"), id);
    docker(&["save", "--output", &archive, "app:1", "app:2"]);
    let (done, log) = home.elsewhere(&["load", "-i", &archive]);
    assert!(
        done && log.contains(&format!("library/app:2 {id}")),
        "{log}"
    );

    // The files are there.
    let container = docker(&["create", "app:4"]);
    let files = text_of(&home.path("files.tar"));
    docker(&["export", "--output", &files, container.trim()]);
    assert_eq!(run(&["tar", "xOf", &files, "file"]), "one");
}

/// A podman with a storage of its own, first in the home's PATH; what it was called with is noted.
fn podman(home: &Home) -> String {
    let storage = home.path("podman");
    let storage = storage.display();
    script(
        home,
        "podman",
        &format!(
            "echo \"$@\" >> {storage}.calls\nexec /usr/bin/podman --root {storage}/root --runroot {storage}/run --storage-driver vfs \"$@\""
        ),
    )
}

#[test]
fn podman_gets_what_it_lacks() {
    let Some(home) = Home::new() else { return };
    let podman = podman(&home);
    let calls = || fs::read_to_string(home.path("podman.calls")).unwrap_or_default();
    let (done, log) = home.build("one", &["-t", "localhost/app:1", "-t", "other:2", "--load"]);
    assert!(done, "{log}");
    let id = home.rbuild(&["inspect", "-f", "{{.Id}}", "localhost/app:1"]);
    let id = id.trim().trim_start_matches("sha256:");
    for name in ["localhost/app:1", "docker.io/library/other:2"] {
        let found = run(&[&podman, "image", "inspect", "--format", "{{.Id}}", name]);
        assert_eq!(found.trim(), id, "{name}");
    }
    let mounted = run(&[&podman, "image", "mount", id]);
    let content = fs::read_to_string(format!("{}/file", mounted.trim())).expect("the file");
    assert_eq!(content, "one");
    run(&[&podman, "image", "unmount", id]);
    // Again: it has the image, and only hears of a name.
    let before = calls().lines().count();
    let (done, log) = home.build("one", &["-t", "localhost/app:3", "--load=podman"]);
    assert!(done, "{log}");
    let now = calls();
    let new: Vec<&str> = now.lines().skip(before).collect();
    assert_eq!(new.len(), 2, "{new:?}");
    assert!(
        new[0].starts_with("image exists") && new[1].starts_with("tag "),
        "{new:?}"
    );
    run(&[&podman, "image", "exists", "localhost/app:3"]);
    // Several outputs in one build, one of them the engine.
    let archive = home.path("a.tar");
    let output = format!("type=oci,dest={}", archive.display());
    let (done, log) = home.build(
        "two",
        &["-t", "localhost/app:4", "-o", &output, "-o", "type=docker"],
    );
    assert!(done && archive.is_file(), "{log}");
    run(&[&podman, "image", "exists", "localhost/app:4"]);
    // One that fails says why.
    script(
        &home,
        "podman",
        "[ \"$1\" = image ] && exit 1\necho Error: no room at all >&2\nexit 125",
    );
    let (done, log) = home.build("three", &["-t", "localhost/app:5", "--load"]);
    assert!(
        !done && log.contains("`podman` did not take the image"),
        "{log}"
    );
    assert!(log.contains("no room at all"), "{log}");
}

#[test]
fn docker_gets_an_archive_unless_it_has_the_image() {
    let Some(home) = Home::new() else { return };
    // A stand-in: the real one needs a daemon. It keeps what it is sent.
    let taken = home.path("taken.tar");
    script(
        &home,
        "docker",
        &format!(
            "case $1 in\nimage) test -e {0} ;;\nload) cat > {0} ;;\ntag) echo \"$3\" >> {0}.tags ;;\nesac",
            taken.display()
        ),
    );
    let (done, log) = home.build("one", &["-t", "localhost/app:1", "--load=docker"]);
    assert!(done, "{log}");
    let archive = format!("docker-archive:{}", taken.display());
    let tags = run(&["skopeo", "inspect", "--format", "{{.Digest}}", &archive]);
    assert!(tags.starts_with("sha256:"), "{tags}");
    let (done, log) = home.build("one", &["-t", "localhost/app:2", "--load=docker"]);
    assert!(done, "{log}");
    let tags = fs::read_to_string(home.path("taken.tar.tags")).expect("a tag");
    assert_eq!(tags, "localhost/app:2\n");
}
