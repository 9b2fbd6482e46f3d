//! Images for several platforms: an index, steps on the build platform once, and commands of another machine.

#[path = "support/home.rs"]
mod home;
#[path = "support/place.rs"]
mod place;
#[path = "support/registry.rs"]
mod registry;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use home::{Home, told};
use place::run;

const WORDS: &[u8] = b"hello from arm64\n";

/// A program for arm64 that prints [`WORDS`]: write(1, words, length), exit(0).
fn write_program(path: &Path) {
    let length = u32::try_from(WORDS.len()).expect("short");
    let code: [u32; 8] = [
        0xd280_0020,                 // mov x0, #1
        0x1000_00e1,                 // adr x1, words
        0xd280_0002 | (length << 5), // mov x2, #length
        0xd280_0808,                 // mov x8, #64 (write)
        0xd400_0001,                 // svc #0
        0xd280_0000,                 // mov x0, #0
        0xd280_0ba8,                 // mov x8, #93 (exit)
        0xd400_0001,                 // svc #0
    ];
    let base: u64 = 0x40_0000;
    let (header, program_header) = (64_u64, 56_u64);
    let start = header + program_header;
    let size = start + 32 + WORDS.len() as u64;
    let mut bytes: Vec<u8> = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0];
    bytes.extend([0; 8]);
    for half in [2_u16, 183] {
        bytes.extend(half.to_le_bytes()); // executable, AArch64
    }
    bytes.extend(1_u32.to_le_bytes());
    for word in [base + start, header, 0] {
        bytes.extend(word.to_le_bytes()); // entry, program headers, no sections
    }
    bytes.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 0, 0, 0] {
        bytes.extend(half.to_le_bytes());
    }
    for word in [1_u32, 5] {
        bytes.extend(word.to_le_bytes()); // loaded, readable and executable
    }
    for word in [0, base, base, size, size, 0x1_0000] {
        bytes.extend(word.to_le_bytes());
    }
    for instruction in code {
        bytes.extend(instruction.to_le_bytes());
    }
    bytes.extend(WORDS);
    fs::write(path, bytes).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("executable");
}

/// False, with a word why, where foreign programs can't be run.
fn has_qemu() -> bool {
    let is_there = std::process::Command::new("qemu-aarch64-static")
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success());
    assert!(
        is_there || std::env::var_os("RBUILD_TESTS_MUST_RUN").is_none(),
        "qemu-user-static is missing"
    );
    is_there
}

/// Kernels before 6.7 have no `binfmt_misc` in user namespaces.
fn has_own_binfmt() -> bool {
    let script = "d=$(mktemp -d) && mount -t binfmt_misc none $d";
    let tried = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .output();
    tried.is_ok_and(|output| output.status.success())
}

#[test]
fn commands_of_another_machine_run_and_say_why_when_they_cannot() {
    let Some(home) = Home::new() else { return };
    let context = home.path("context");
    write_program(&context.join("hello"));
    home.write(
        "context/Dockerfile",
        "FROM scratch\nCOPY hello /hello\nRUN [\"/hello\"]\nCMD [\"/hello\"]\n",
    );
    let context = context.to_str().expect("UTF-8");
    let build = |isolation: &str, root: &str, path: Option<&str>| {
        let arguments = [
            "build",
            "--progress=plain",
            "--platform=linux/arm64",
            "--isolation",
            isolation,
            "-t",
            "arm:1",
            context,
        ];
        let mut command = home.command(root, &arguments);
        if let Some(path) = path {
            command.env("PATH", path);
        }
        told(&command.output().expect("it runs"))
    };
    let has_handlers = fs::read_dir("/proc/sys/fs/binfmt_misc").is_ok_and(|mut entries| {
        entries.any(|entry| {
            entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("qemu-"))
        })
    });
    if !has_handlers {
        for isolation in ["namespaces", "userns"] {
            let (done, log) = build(isolation, "none", Some("/nonexistent"));
            assert!(!done && log.contains("linux/arm64"), "{log}");
            assert!(log.contains("qemu-aarch64-static"), "the way out: {log}");
        }
    }
    if !has_qemu() || !(has_handlers || has_own_binfmt()) {
        return;
    }
    let (done, log) = build("userns", "root", None);
    let words = String::from_utf8_lossy(WORDS).into_owned();
    assert!(done && log.contains(words.trim()), "{log}");
    let ran = home
        .command("root", &["run", "--isolation", "userns", "arm:1"])
        .output()
        .expect("it runs");
    assert_eq!(
        String::from_utf8_lossy(&ran.stdout),
        words,
        "{}",
        told(&ran).1
    );
    let platform = home.rbuild(&["inspect", "-f", "{{.Os}}/{{.Architecture}}", "arm:1"]);
    assert_eq!(platform, "linux/arm64\n");
    if !has_handlers {
        let left = run(&["sh", "-c", "ls /proc/sys/fs/binfmt_misc"]);
        assert!(
            !left.contains("qemu"),
            "nothing of the machine is changed: {left}"
        );
    }
}

#[test]
fn steps_on_the_build_platform_run_once_for_all_targets() {
    let Some(home) = Home::new() else { return };
    // Not scratch, which has the target's platform by the reference, too.
    let (done, log) = home.build("base", &["-t", "base:1"]);
    assert!(done, "{log}");
    home.write(
        "context/Dockerfile",
        "FROM --platform=$BUILDPLATFORM base:1 AS make\nCOPY file /made\nFROM scratch\nARG TARGETARCH\nCOPY --from=make /made /out-$TARGETARCH\n",
    );
    let archive = home.path("a.tar");
    let output = format!("type=oci,dest={}", archive.display());
    let context = home.path("context");
    let log = home.try_rbuild(&[
        "build",
        "--progress=plain",
        "--platform=linux/amd64,linux/arm64",
        "-o",
        &output,
        context.to_str().expect("UTF-8"),
    ]);
    assert!(log.0, "{}", log.1);
    let times = |words: &str| log.1.lines().filter(|line| line.ends_with(words)).count();
    assert_eq!(times("CACHED COPY file /made"), 1, "{}", log.1);
    assert_eq!(times("COPY file /made"), 2, "{}", log.1);
    let source = format!("oci-archive:{}", archive.display());
    for platform in ["amd64", "arm64"] {
        let found = run(&[
            "skopeo",
            "inspect",
            "--override-arch",
            platform,
            "--format",
            "{{.Architecture}}",
            &source,
        ]);
        assert_eq!(found.trim(), platform);
    }
}
