//! Commands that want more than their sandbox.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use super::common::{Place, Ran, has_privileges};
use crate::job::{Access, CommandStatus, Network, RunJob, SandboxMount, SandboxMountKind};
use crate::sandbox::weak::{Attack, Trial};
use crate::{Roots, SpawnerOptions};

fn place(attack: Attack, is_guarded: bool) -> Place {
    let trial = Some(Trial { attack, is_guarded });
    let options = SpawnerOptions {
        trial,
        ..SpawnerOptions::default()
    };
    Place::with(options).expect("privileges were looked for")
}

/// The command has its way without the protection, and not with it.
#[track_caller]
fn attack(attack: Attack, command: impl Fn(&Place) -> RunJob, has_worked: impl Fn(&Ran) -> bool) {
    if !has_privileges() {
        return;
    }
    for is_guarded in [false, true] {
        let place = place(attack, is_guarded);
        let job = command(&place);
        let ran = place.run(job);
        assert_eq!(
            has_worked(&ran),
            !is_guarded,
            "guarded: {is_guarded}, {ran:?}"
        );
    }
}

fn prints(text: &'static str) -> impl Fn(&Ran) -> bool {
    move |ran| ran.stdout.trim() == text
}

#[test]
fn a_device_node_of_the_image() {
    let text = "mknod /n c 1 5; head -c 4 /n | wc -c";
    attack(Attack::Devices, |place| place.job(text), prints("4"));
}

#[test]
fn what_the_kernel_tells_of_the_host() {
    let text = "cat /proc/interrupts /proc/timer_list /proc/keys /sys/firmware/memmap/*/* 2>/dev/null | head -c 1 | wc -c";
    attack(Attack::Masks, |place| place.job(text), prints("1"));
}

#[test]
fn a_setting_of_the_hosts_kernel() {
    // The value that it has anyway.
    let text = "f=/proc/sys/kernel/core_pattern; v=$(cat $f); echo \"$v\" > $f && echo written";
    attack(
        Attack::ReadOnlyPaths,
        |place| place.job(text),
        prints("written"),
    );
}

#[test]
fn a_user_namespace_with_all_capabilities() {
    let text = "unshare -r grep CapEff /proc/self/status | cut -f2";
    let has_all = |ran: &Ran| ran.stdout.contains("ffffffff");
    attack(Attack::SystemCalls, |place| place.job(text), has_all);
}

#[test]
fn a_mount_of_ones_own() {
    let text = "mount -t cgroup2 none /home && echo mounted";
    attack(
        Attack::Capabilities,
        |place| place.job(text),
        prints("mounted"),
    );
}

/// A program that only has inheritable capabilities gains them from a caller that has them too.
#[test]
fn inheritable_capabilities() {
    /// `struct vfs_cap_data`, revision 2, with the effective bit: `CAP_SYS_ADMIN`, inheritable.
    const FILE_CAPABILITIES: [u8; 20] = [
        1, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let command = |place: &Place| {
        let program = place.base().join("bin/busybox-probe");
        fs::copy("/bin/busybox", &program).expect("copy");
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(&program, "security.capability", &FILE_CAPABILITIES, flags)
            .expect("file capabilities");
        let mut job = place.job("/bin/busybox-probe grep CapEff /proc/self/status | cut -f2");
        job.user = b"app".to_vec();
        job
    };
    attack(Attack::Inheritable, command, prints("0000000000200000"));
}

/// The environment of the builder holds its credentials.
#[test]
fn the_environment_of_the_process_outside() {
    let text = "for p in /proc/[0-9]*; do [ $p = /proc/$$ ] || cat $p/environ; done 2>/dev/null | tr '\\0' '\\n' | grep -c ^CARGO_";
    let knows = |ran: &Ran| {
        ran.stdout
            .trim()
            .parse::<u32>()
            .is_ok_and(|count| count > 0)
    };
    attack(Attack::Processes, |place| place.job(text), knows);
}

/// A descriptor that leads out, and a working directory that is reached through it.
#[test]
fn a_descriptor_that_was_left_open() {
    let canary = tempfile::NamedTempFile::new().expect("canary");
    fs::write(canary.path(), "canary").expect("write");
    let path = canary.path().display().to_string();
    let text = format!("cat /proc/self/fd/*{path} 2>/dev/null; true");
    let command = |place: &Place| place.job(&text);
    attack(Attack::Descriptors, command, prints("canary"));
    if !has_privileges() {
        return;
    }
    let place = place(Attack::Descriptors, true);
    for number in 0..32 {
        let mut job = place.job(&format!("cat .{path} 2>/dev/null; true"));
        job.working_directory = format!("/proc/self/fd/{number}").into();
        let ran = place.run(job);
        assert!(!ran.stdout.contains("canary"), "{number}: {ran:?}");
    }
}

/// Puts a program and the libraries that it needs into a root.
fn install(program: &Path, base: &Path, name: &str) {
    let target = base.join(name);
    fs::create_dir_all(target.parent().expect("a directory")).expect("mkdir");
    fs::copy(program, &target).expect("program");
    let list = Command::new("ldd").arg(program).output().expect("ldd");
    for word in String::from_utf8_lossy(&list.stdout).split_whitespace() {
        if let Some(relative) = word.strip_prefix('/') {
            let to = base.join(relative);
            fs::create_dir_all(to.parent().expect("a directory")).expect("mkdir");
            fs::copy(word, to).expect("library");
        }
    }
}

/// The binary that makes the sandbox is run inside, by a path, by a link and by a script, and could be written to by whoever
/// holds on to it.
#[test]
fn our_own_binary() {
    let own = std::env::current_exe().expect("the path of this test");
    for program in ["/proc/self/exe", "/bin/link", "/bin/script"] {
        let command = |place: &Place| {
            install(&own, &place.base(), "unused");
            let bin = place.base().join("bin");
            symlink("/proc/self/exe", bin.join("link")).expect("link");
            fs::write(bin.join("script"), "#!/proc/self/exe\n").expect("script");
            Command::new("chmod")
                .args(["755"])
                .arg(bin.join("script"))
                .status()
                .expect("chmod");
            let mut job = place.job("");
            job.argv = vec![program.into(), b"--list".to_vec(), b"--exact".to_vec()];
            job
        };
        // What it prints when it is asked for the tests in it.
        let has_run = |ran: &Ran| ran.stdout.contains(" tests, ");
        attack(Attack::OwnBinary, command, has_run);
    }
    if let Some(place) = Place::new() {
        assert_eq!(
            place.sh("realpath /proc/1/exe /proc/self/exe"),
            "/bin/busybox\n".repeat(2)
        );
    }
}

/// A command that gives up its group must not gain by it: files that only the group may not read stay closed.
#[test]
fn a_setgid_program_and_a_file_kept_from_the_group() {
    if !has_privileges() {
        return;
    }
    let prepare = |base: &Path| {
        install(Path::new("/bin/cat"), base, "bin/setgid-cat");
        fs::write(base.join("kept"), "kept from group 1001").expect("write");
        for (path, owner, mode) in [
            ("bin/setgid-cat", "0:10", "2755"),
            ("kept", "0:1001", "604"),
        ] {
            for (tool, word) in [("chown", owner), ("chmod", mode)] {
                let mut command = Command::new(tool);
                let status = command.arg(word).arg(base.join(path)).status();
                assert!(status.expect("run").success());
            }
        }
    };
    let place = Place::new().expect("privileges");
    prepare(&place.base());
    // As builders did it: the supplementary groups of /etc/group alone.
    let mut command = Command::new("setpriv");
    command.args(["--reuid=1000", "--regid=1001", "--groups=10"]);
    open_way(place.directory.path());
    let naively = command
        .arg(place.base().join("bin/setgid-cat"))
        .arg(place.base().join("kept"))
        .output()
        .expect("setpriv");
    assert_eq!(
        naively.stdout, b"kept from group 1001",
        "the attack: {naively:?}"
    );
    for user in ["app", "1000:1001"] {
        let mut job = place.job("/bin/setgid-cat /kept");
        job.user = user.into();
        let ran = place.run(job);
        assert!(ran.stdout.is_empty(), "{user}: {ran:?}");
        assert!(ran.stderr.contains("Permission denied"), "{user}: {ran:?}");
    }
}

fn open_way(path: &Path) {
    let status = Command::new("chmod").arg("755").arg(path).status();
    assert!(status.expect("chmod").success());
}

/// The image's own `/proc`, `/sys` and `/dev` are links, so that what is mounted or hidden there is somewhere else.
#[test]
fn proc_sys_and_dev_are_links() {
    let Some(place) = Place::new() else { return };
    for name in ["proc", "sys", "dev"] {
        let path = place.base().join(name);
        fs::remove_dir(&path).expect("rmdir");
        symlink("/tmp", &path).expect("link");
        let ran = place.run(place.job("echo started"));
        let error = ran.error().to_string();
        assert!(
            error.contains("it is a link: `/") && error.contains(name),
            "{error}"
        );
        assert_eq!(ran.stdout, "");
        fs::remove_file(&path).expect("rm");
        fs::create_dir(&path).expect("mkdir");
    }
}

/// Sockets without a file are reachable by all who share the network namespace.
#[test]
fn an_abstract_socket_of_the_host() {
    use std::os::linux::net::SocketAddrExt;
    let Some(place) = Place::new() else { return };
    let name = format!("rbuild-attack-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).expect("name");
    let _listener = std::os::unix::net::UnixListener::bind_addr(&address).expect("listener");
    for (network, is_seen) in [(Network::Host, "1\n"), (Network::None, "0\n")] {
        let mut job = place.job(&format!("grep -c {name} /proc/net/unix; true"));
        job.network = network;
        assert_eq!(place.run(job).stdout, is_seen, "{network:?}");
    }
}

/// A working directory that is a link to one of our descriptors, or nothing that can be entered.
#[test]
fn a_working_directory_outside() {
    let Some(place) = Place::new() else { return };
    for path in [
        "/proc/self/cwd",
        "/proc/1/root/..",
        "/../..",
        "/proc/self/fd/3/../..",
    ] {
        let mut job = place.job("test -d /home && test ! -e /work && pwd");
        job.working_directory = path.into();
        let ran = place.run(job);
        let is_inside = ran.result.is_err() || ran.status() == CommandStatus::Exited(0);
        assert!(is_inside, "{path}: {ran:?}");
    }
}

/// What a command writes to files of the context must not get there (CVE-2025-4953), with an overlay or without.
#[test]
fn writing_to_the_files_of_the_context() {
    if !has_privileges() {
        return;
    }
    for roots in [Roots::Overlay, Roots::Copy] {
        let options = SpawnerOptions {
            roots,
            ..SpawnerOptions::default()
        };
        let place = Place::with(options).expect("privileges were looked for");
        let context = place.new_directory();
        fs::write(context.join("file"), "as it was").expect("write");
        let write = |access| {
            let mut job = place.job("echo changed > /context/file; echo > /context/new");
            job.mounts.push(SandboxMount {
                target: b"/context".to_vec(),
                kind: SandboxMountKind::Directory {
                    root: context.clone(),
                    source: b"/".to_vec(),
                    access,
                },
            });
            assert_eq!(place.run(job).status(), CommandStatus::Exited(0));
            let text = fs::read_to_string(context.join("file")).expect("read");
            (text == "as it was", context.join("new").exists())
        };
        let guarded = write(Access::Discarded(place.new_directory()));
        assert_eq!(guarded, (true, false), "{roots:?}");
        assert_eq!(write(Access::Shared), (false, true), "the attack");
    }
}
