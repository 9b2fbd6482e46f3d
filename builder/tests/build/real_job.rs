//! The real job: a Debian base out of a registry, packages, a compiled program; then real clients on the result.
//!
//! Slow (minutes): it downloads and installs packages twice. Everything else here is over in seconds.

use std::path::Path;
use std::process::Command;

use crate::support::registry::Registry;
use crate::support::{Place, tool};

#[test]
fn debian_nginx_and_a_compiled_program() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let place = Place::new();
    let directory = place.path();
    let path = |name: &str| directory.join(name).display().to_string();
    tool(
        project.join("testdata/debian-base/make").to_str().unwrap(),
        [path("debian")],
    );
    let registry = Registry::start(&directory.join("registry"));
    let base = format!("{}/debian:12", registry.address);
    tool(
        "skopeo",
        [
            "copy",
            "--dest-tls-verify=false",
            &format!("oci:{}:latest", path("debian")),
            &format!("docker://{base}"),
        ],
    );

    let context = place.context();
    tool(
        "cp",
        [
            "-r",
            project.join("testdata/real-job/hello.c").to_str().unwrap(),
            context.to_str().unwrap(),
        ],
    );
    copy_apt_settings(&context.join("apt"));
    let dockerfile = std::fs::read_to_string(project.join("testdata/real-job/Dockerfile")).unwrap();
    let build = || {
        let build = place
            .build(&dockerfile)
            .arg("--build-arg")
            .arg(&format!("BASE={base}"));
        PROXIES
            .iter()
            .fold(build, |build, name| build.arg("--build-arg").arg(name))
            .ok()
    };
    build();
    let archive = path("out.tar");
    tool("skopeo", ["inspect", &format!("oci-archive:{archive}")]);
    tool(
        "skopeo",
        [
            "copy",
            &format!("oci-archive:{archive}"),
            &format!("oci:{}:built", path("layout")),
        ],
    );
    tool(
        "umoci",
        [
            "unpack",
            "--image",
            &format!("{}:built", path("layout")),
            &path("bundle"),
        ],
    );
    assert!(directory.join("bundle/rootfs/usr/sbin/nginx").exists());

    assert_eq!(
        run_in(&directory.join("bundle"), &["/usr/local/bin/hello"]),
        "hello from a program that another stage compiled\n"
    );
    let version = run_in(
        &directory.join("bundle"),
        &["/bin/sh", "-c", "nginx -v 2>&1 && nginx -t 2>&1"],
    );
    assert!(
        version.contains("nginx version") && version.contains("test is successful"),
        "{version}"
    );

    // The second build runs nothing, and needs no network: the registry is gone.
    drop(registry);
    let again = build();
    assert!(
        !again.log.contains("Reading package lists"),
        "{}",
        again.log
    );
    again.expect(&[
        (
            "RUN apt-get update && apt-get install -y --no-install-recommends nginx",
            true,
        ),
        ("COPY --from=compile", true),
    ]);
}

/// Handed on as build args, with the values that this environment has.
const PROXIES: &[&str] = &["http_proxy", "https_proxy", "no_proxy"];

/// The host's sources and settings, without what needs a key or a program that a minimal base lacks.
fn copy_apt_settings(target: &Path) {
    std::fs::create_dir_all(target.join("sources.list.d")).unwrap();
    std::fs::create_dir_all(target.join("apt.conf.d")).unwrap();
    for directory in ["sources.list.d", "apt.conf.d"] {
        let Ok(entries) = std::fs::read_dir(Path::new("/etc/apt").join(directory)) else {
            continue;
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_wanted = match directory {
                "sources.list.d" => name.starts_with("debian"),
                _ => {
                    std::fs::read_to_string(entry.path()).is_ok_and(|text| text.contains("Acquire"))
                }
            };
            if is_wanted {
                std::fs::copy(entry.path(), target.join(directory).join(&name)).unwrap();
            }
        }
    }
    if let Ok(list) = std::fs::read("/etc/apt/sources.list") {
        std::fs::write(target.join("sources.list"), list).unwrap();
    }
}

/// Runs a command in an unpacked bundle with crun, and gives its output.
fn run_in(bundle: &Path, argv: &[&str]) -> String {
    let config = bundle.join("config.json");
    let mut spec: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    spec["process"]["args"] = serde_json::json!(argv);
    spec["process"]["terminal"] = false.into();
    // umoci's bundles hold almost no capabilities; a server that changes its user needs what engines give by default.
    let capabilities = serde_json::json!([
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_NET_BIND_SERVICE",
        "CAP_SETGID",
        "CAP_SETUID"
    ]);
    for set in [
        "bounding",
        "effective",
        "permitted",
        "inheritable",
        "ambient",
    ] {
        spec["process"]["capabilities"][set] = capabilities.clone();
    }
    spec["linux"]["resources"] = serde_json::json!({});
    std::fs::write(&config, serde_json::to_vec(&spec).unwrap()).unwrap();
    // crun refuses machines with both versions of cgroups mounted: it sees only the first, in a mount namespace of its
    // own. Elsewhere there is nothing to unmount, and that is no error.
    let script = "umount /sys/fs/cgroup/unified 2>/dev/null; exec crun --cgroup-manager=disabled run --bundle \"$1\" \"$2\"";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(bundle)
        .arg(format!("rbuild-test-{}", std::process::id()))
        .output()
        .expect("crun is installed");
    assert!(
        output.status.success(),
        "crun failed: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
