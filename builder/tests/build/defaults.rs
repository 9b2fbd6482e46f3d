//! What a step may do by default, beside what Debian's podman gives a container in the same minute on the same machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::contained::podman_run;
use crate::support::Place;

/// What a command sees of its own limits.
const LOOK: &str = "grep ^Cap /proc/self/status; echo umask $(umask); \
    for file in /dev/*; do echo dev $file; done; cat /proc/self/mountinfo";

/// Docker's, and not podman's: raw sockets, device nodes (which nothing here lets open) and the audit log.
const BEYOND_PODMAN: [&str; 3] = ["AUDIT_WRITE", "MKNOD", "NET_RAW"];

/// What [`LOOK`] printed.
#[derive(Debug)]
struct Seen {
    /// Masks of capabilities by name.
    capabilities: BTreeMap<String, u64>,
    umask: String,
    devices: BTreeSet<String>,
    /// Mount points with their options, and whether something else is shown there.
    mounts: BTreeMap<String, (BTreeSet<String>, bool)>,
}

impl Seen {
    fn read(text: &str) -> Self {
        let mut seen = Self {
            capabilities: BTreeMap::new(),
            umask: String::new(),
            devices: BTreeSet::new(),
            mounts: BTreeMap::new(),
        };
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                [name, mask] if name.starts_with("Cap") => {
                    let mask = u64::from_str_radix(mask, 16).unwrap();
                    seen.capabilities.insert((*name).to_owned(), mask);
                }
                ["umask", umask] => (*umask).clone_into(&mut seen.umask),
                ["dev", path] => {
                    seen.devices.insert((*path).to_owned());
                }
                [_, _, _, root, point, options, rest @ ..] if rest.contains(&"-") => {
                    // A directory is covered by an empty tmpfs, a file by the null device.
                    let kind = rest[rest.iter().position(|word| *word == "-").unwrap() + 1];
                    let is_cover = kind == "tmpfs" || root.ends_with("/null");
                    let options = options.split(',').map(ToOwned::to_owned).collect();
                    seen.mounts.insert((*point).to_owned(), (options, is_cover));
                }
                _ => {}
            }
        }
        assert_eq!(seen.capabilities.len(), 5, "{text}");
        seen
    }
}

fn in_podman(place: &Place, root: &Path, options: &[String]) -> Seen {
    let mut command = podman_run(&place.path().join("podman"));
    command.args(["--network", "none"]);
    let output = command
        .args(options)
        .arg("--rootfs")
        .arg(root)
        .args(["/bin/sh", "-c", LOOK])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    Seen::read(&String::from_utf8_lossy(&output.stdout))
}

#[test]
fn a_step_may_do_what_dockers_containers_may_and_sees_no_more_than_podmans() {
    let place = Place::new();
    let root = place.path().join("rootfs");
    let dockerfile = format!(
        "FROM base AS root\nRUN mkdir -p /proc /sys /dev /run\nFROM root AS look\nRUN ({LOOK}) > /seen\n"
    );
    let dest = format!("--output={}", root.display());
    place
        .build(&dockerfile)
        .arg("--target=root")
        .arg(&dest)
        .ok();
    let out = place.path().join("out");
    place
        .build(&dockerfile)
        .arg(&format!("--output={}", out.display()))
        .ok();
    let ours = Seen::read(&fs::read_to_string(out.join("seen")).unwrap());

    let plain = in_podman(&place, &root, &[]);
    let added: Vec<String> = BEYOND_PODMAN
        .iter()
        .map(|name| format!("--cap-add={name}"))
        .collect();
    let as_docker = in_podman(&place, &root, &added);
    assert_eq!(ours.capabilities, as_docker.capabilities);
    for (name, mask) in &plain.capabilities {
        assert_eq!(mask & !ours.capabilities[name], 0, "{name} of podman's");
    }
    assert_eq!(ours.umask, plain.umask);
    let missing: Vec<&String> = ours.devices.difference(&plain.devices).collect();
    assert_eq!(missing, [""; 0], "devices that podman does not have");

    let is_ours = |point: &&String| {
        let is_cgroup = point.starts_with("/sys/fs/cgroup");
        ["/proc", "/sys", "/dev"]
            .iter()
            .any(|top| point.starts_with(top))
            && !is_cgroup
    };
    let mut compared = 0;
    for point in plain.mounts.keys().filter(is_ours) {
        let (options, is_cover) = &plain.mounts[point];
        let Some((own_options, is_own_cover)) = ours.mounts.get(point) else {
            panic!("podman covers `{point}`, and we don't: {ours:?}");
        };
        assert_eq!(is_cover, is_own_cover, "{point}");
        for option in ["ro", "nosuid", "nodev", "noexec"] {
            let is_weaker = options.contains(option) && !own_options.contains(option);
            assert!(
                !is_weaker || *is_cover,
                "`{point}` is {option} with podman: {own_options:?}"
            );
        }
        compared += 1;
    }
    assert!(compared > 10, "{plain:?}");
}
