//! What a command sees and leaves behind.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use common::Place;
use rbuild_runner::job::*;
use rbuild_runner::{JobErrorKind, MountApi, SpawnerOptions};

#[test]
fn exit_codes_and_output() {
    let Some(place) = Place::new() else { return };
    let ran = place.run(place.job("echo out; echo err >&2; exit 3"));
    assert_eq!(ran.status(), CommandStatus::Exited(3), "{ran:?}");
    assert_eq!(
        (ran.stdout.as_str(), ran.stderr.as_str()),
        ("out\n", "err\n")
    );
    assert_eq!(ran.result.expect("outcome").layer, None);
    let killed = place.run(place.job("sh -c 'kill -9 $$'; exit $?"));
    assert_eq!(killed.status(), CommandStatus::Exited(137));
    let done = place.run(place.job("true")).result.expect("outcome");
    assert!(done.layer.is_some());
    assert!(done.usage.max_rss_kib > 0);
}

#[test]
fn environment_home_and_working_directory() {
    let Some(place) = Place::new() else { return };
    let mut job = place.job("pwd; echo $HOME $A; env | wc -l; stat -c '%a %u' /new/dir");
    job.environment.push((b"A".to_vec(), b"x y".to_vec()));
    job.working_directory = b"/new/dir".to_vec();
    let ran = place.run(job);
    assert_eq!(ran.stdout, "/new/dir\n/root x y\n5\n755 0\n", "{ran:?}"); // PATH HOME A and the shell's SHLVL, PWD
    assert_eq!(ran.upper(), ["new", "new/dir"]);
    let mut job = place.job("echo $HOME");
    job.environment.push((b"HOME".to_vec(), b"/mine".to_vec()));
    assert_eq!(place.run(job).ok(), "/mine\n");
}

#[test]
fn users() {
    let Some(place) = Place::new() else { return };
    let text = "id -u; id -g; id -G; echo $HOME; grep -E 'Cap(Eff|Prm|Inh|Amb)' /proc/self/status | cut -f2 | tr '\\n' ' '";
    let none = "0000000000000000 ".repeat(4);
    let full = "0000000000000000 00000000a80425fb 00000000a80425fb 0000000000000000 ";
    for (user, expected) in [
        ("", format!("0\n0\n0\n/root\n{full}")),
        ("app", format!("1000\n1001\n1001 10\n/home/app\n{none}")),
        ("1000", format!("1000\n1001\n1001 10\n/home/app\n{none}")),
        ("7:8", format!("7\n8\n8\n/\n{none}")),
        ("app:wheel", format!("1000\n10\n10\n/home/app\n{none}")),
        ("4242", format!("4242\n0\n0\n/\n{none}")),
    ] {
        let mut job = place.job(text);
        job.user = user.into();
        assert_eq!(place.run(job).ok(), expected, "USER {user}");
    }
    let mut job = place.job("true");
    job.user = b"nobody".to_vec();
    let ran = place.run(job);
    assert_eq!(ran.error().kind, JobErrorKind::UnknownUser);
    assert_eq!(
        ran.error().causes().next(),
        Some("no user is named `nobody` in the image's /etc/passwd")
    );
}

#[test]
fn processes_host_name_and_umask() {
    let Some(place) = Place::new() else { return };
    let text = "echo $$; hostname; umask; set -- /proc/[0-9]*; echo $#; ls -l /proc/self/fd | grep -c pipe; \
        grep -E 'Sig(Blk|Ign)|NoNewPrivs' /proc/self/status | tr -d '\\n'";
    // The command is pid 1, and its shell is all there is. Descriptors: 1 and 2 are ours, ls's 0 is null.
    let expected = "1\nbuildkitsandbox\n0022\n1\n2\n";
    let stdout = place.sh(text);
    assert!(stdout.starts_with(expected), "{stdout}");
    assert!(
        stdout.ends_with("SigBlk:\t0000000000000000SigIgn:\t0000000000000000NoNewPrivs:\t0"),
        "{stdout}"
    );
    assert_eq!(
        place
            .sh("set -- /proc/1/fd/*; echo $#")
            .trim()
            .parse::<u32>(),
        // The three standard ones, and the directory that the shell reads just now.
        Ok(4)
    );
}

#[test]
fn capabilities_are_dockers() {
    let Some(place) = Place::new() else { return };
    assert_eq!(
        place.sh("grep CapBnd /proc/self/status"),
        "CapBnd:\t00000000a80425fb\n"
    );
    let mut job = place.job("grep CapBnd /proc/self/status");
    job.confinement = Confinement::Insecure;
    let own = fs::read_to_string("/proc/self/status").expect("status");
    let own = own
        .lines()
        .find(|line| line.starts_with("CapBnd"))
        .expect("CapBnd")
        .to_owned();
    assert_eq!(place.run(job).ok().trim_end(), own);
}

#[test]
fn system_calls_are_filtered() {
    let Some(place) = Place::new() else { return };
    let mode = "grep -E '^Seccomp(_filters)?:' /proc/self/status | tr -dc '0-9'";
    assert_eq!(place.sh(mode), "21"); // SECCOMP_MODE_FILTER, one filter
    // What a command would leave its sandbox with, were it still in possession of the capabilities.
    let refused = place.sh(
        "unshare -U true 2>&1; unshare -m true 2>&1; mount -t tmpfs x /tmp 2>&1; dmesg 2>&1; true",
    );
    assert_eq!(
        refused.matches("Operation not permitted").count()
            + refused.matches("permission denied").count(),
        4,
        "{refused}"
    );
    let mut job = place.job(mode);
    job.confinement = Confinement::Insecure;
    assert_eq!(place.run(job).ok(), "00");
}

#[test]
fn masked_and_read_only_paths() {
    let Some(place) = Place::new() else { return };
    let text = "cat /proc/keys /proc/timer_list /proc/interrupts | wc -c; \
        ls /proc/acpi /proc/scsi /sys/firmware 2>/dev/null | grep -v : | wc -w; \
        for p in proc/bus proc/fs proc/irq proc/sys proc/sysrq-trigger sys sys/firmware; do \
            test -e /$p && ! grep -q \" /$p ro,\" /proc/self/mountinfo && echo $p is writable; done; \
        (echo x > /proc/sys/kernel/hostname) 2>&1 | sed 's/.*: //'";
    assert_eq!(place.sh(text), "0\n0\nRead-only file system\n");
    let mut job = place.job("wc -c < /proc/timer_list | grep -vx 0 >/dev/null && ls /sys/firmware | wc -l; test -e /dev/kmsg && echo kmsg");
    job.confinement = Confinement::Insecure;
    let open = place.run(job);
    assert!(open.stdout.ends_with("kmsg\n"), "{open:?}");
    assert!(
        !std::path::Path::new("/dev/mqueue").exists(),
        "the host's /dev was changed"
    );
}

#[test]
fn devices() {
    let Some(place) = Place::new() else { return };
    let text = "ls /dev | tr '\\n' ' '; echo; echo x > /dev/null; head -c 2 /dev/zero | wc -c; head -c 3 /dev/urandom | wc -c; \
        echo to-stdout > /dev/stdout; stat -c %a /dev/pts/ptmx /dev/shm; df -k /dev/shm | grep -c 65536; \
        mount | grep -c ' on /dev/mqueue type mqueue'";
    let expected = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero \n\
        2\n3\nto-stdout\n666\n1777\n1\n1\n";
    assert_eq!(place.sh(text), expected);
    // No device node that a step makes, or that an image brings, works.
    assert_eq!(
        place.sh("mknod /x c 1 1 && (cat /x 2>&1 | sed 's/.*: //')"),
        "Permission denied\n"
    );
    assert_eq!(
        place.sh("mknod /dev/x c 1 1 && (cat /dev/x 2>&1 | sed 's/.*: //')"),
        "Permission denied\n"
    );
}

#[test]
fn network_none_has_only_a_loopback_that_is_up() {
    let Some(place) = Place::new() else { return };
    let text = "ls /sys/class/net; ifconfig lo | grep -c 'UP LOOPBACK RUNNING'; cat /proc/net/route | wc -l";
    assert_eq!(place.sh(text), "lo\n1\n1\n");
    let mut job = place.job("ls /sys/class/net");
    job.network = Network::Host;
    let mut own: Vec<_> = fs::read_dir("/sys/class/net")
        .expect("net")
        .map(|entry| {
            entry
                .expect("entry")
                .file_name()
                .into_string()
                .expect("utf-8")
        })
        .collect();
    own.sort();
    assert_eq!(place.run(job).ok().lines().collect::<Vec<_>>(), own);
}

#[test]
fn provided_files_and_stubs_are_not_in_the_layer() {
    let Some(place) = Place::new() else { return };
    let old = filetime(&place, "etc");
    let mut job = place.job(
        "cat /etc/hosts /etc/resolv.conf; /dev/pipes/EOF; touch /tmp/made; stat -c %Y /etc; stat -c '%a %u' /etc/hosts",
    );
    let file = |target: &str, content: &str, mode| ProvidedFile {
        target: target.into(),
        content: content.into(),
        mode,
        uid: 0,
        gid: 0,
    };
    fs::create_dir(place.base().join("run")).expect("mkdir");
    symlink(
        "../run/systemd/resolv.conf",
        place.base().join("etc/resolv.conf"),
    )
    .expect("link");
    set_old_time(&place, "etc");
    job.files = vec![
        file("/etc/hosts", "hosts\n", 0o644),
        file("/etc/resolv.conf", "resolv\n", 0o644),
        file("/dev/pipes/EOF", "#!/bin/sh\necho script\n", 0o755),
    ];
    let ran = place.run(job);
    assert_eq!(
        ran.stdout, "hosts\nresolv\nscript\n1000000000\n644 0\n",
        "{ran:?}"
    );
    assert_eq!(ran.upper(), ["tmp", "tmp/made"]);
    assert_ne!(old, 1_000_000_000);
}

#[test]
fn files_that_the_command_did_not_change_are_not_in_the_layer() {
    let Some(place) = Place::new() else { return };
    fs::create_dir_all(place.base().join("d/gone")).expect("mkdir");
    for name in [
        "mode", "owner", "opened", "moved", "written", "timed", "d/gone/f", "marked",
    ] {
        fs::write(place.base().join(name), "old\n").expect("write");
        fs::set_permissions(place.base().join(name), PermissionsExt::from_mode(0o644))
            .expect("mode");
        set_old_time(&place, name);
    }
    symlink("mode", place.base().join("link")).expect("link");
    let ran = place.run(place.job(
        "chmod 644 /mode; chown 0:0 /owner; chown -h 0:0 /link; : >> /opened; mv /moved /m && mv /m /moved; \
         echo new > /written && touch -r /mode /written; touch /timed; chmod 600 /marked; \
         cp -a /d/gone /kept && rm -r /d/gone && mv /kept /d/gone; cat /mode /opened /d/gone/f",
    ));
    assert_eq!(ran.stdout, "old\nold\nold\n", "{ran:?}");
    // What replaces a directory that was removed hides everything beneath, and stays whole.
    assert_eq!(
        ran.upper(),
        ["d", "d/gone", "d/gone/f", "marked", "timed", "written"]
    );
}

#[test]
fn a_directory_changed_by_the_command_stays_without_our_stubs() {
    let Some(place) = Place::new() else { return };
    set_old_time(&place, "etc");
    let job = |text: &str| {
        let mut job = place.job(text);
        job.files = vec![ProvidedFile {
            target: b"/etc/hosts".to_vec(),
            content: Vec::new(),
            mode: 0o644,
            uid: 0,
            gid: 0,
        }];
        job
    };
    // Changing a file copies its directory up, with the directory's old time.
    let ran = place.run(job("echo x >> /etc/passwd"));
    assert_eq!(ran.upper(), ["etc", "etc/passwd"], "{ran:?}");
    assert_eq!(
        fs::metadata(ran.scratch.join("upper/etc"))
            .expect("etc")
            .mtime(),
        1_000_000_000
    );
    let ran = place.run(job("chmod 700 /etc"));
    assert_eq!(ran.upper(), ["etc"], "{ran:?}");
    let ran = place.run(job("touch /etc/new && rm /etc/new"));
    assert_eq!(ran.upper(), ["etc"], "{ran:?}");
}

#[test]
fn the_root_directory_keeps_its_metadata() {
    let Some(place) = Place::new() else { return };
    let base = place.base();
    rustix::fs::chmod(&base, 0o1751.into()).expect("chmod");
    std::os::unix::fs::chown(&base, Some(5), Some(6)).expect("chown");
    rustix::fs::setxattr(&base, "user.kept", b"v", rustix::fs::XattrFlags::empty())
        .expect("setxattr");
    set_old_time(&place, "");
    let ran = place.run(place.job("stat -c '%a %u %g %Y' /"));
    let upper = ran.scratch.join("upper");
    assert_eq!(fs::metadata(&upper).expect("upper").mtime(), 1_000_000_000);
    assert_eq!(
        rustix::fs::getxattr(&upper, "user.kept", &mut [0_u8; 8]),
        Ok(1)
    );
    assert_eq!(ran.ok(), "1751 5 6 1000000000\n");
}

#[test]
fn why_a_command_does_not_start() {
    let Some(place) = Place::new() else { return };
    fs::write(place.base().join("bin/text"), "no header\n").expect("write");
    fs::write(place.base().join("bin/lost"), "#!/no/such/interpreter\n").expect("write");
    fs::write(place.base().join("bin/plain"), "x").expect("write");
    for name in ["text", "lost"] {
        rustix::fs::chmod(place.base().join("bin").join(name), 0o755.into()).expect("chmod");
    }
    for (name, kind) in [
        ("missing", JobErrorKind::CommandNotFound),
        ("/bin/missing", JobErrorKind::CommandNotFound),
        ("lost", JobErrorKind::CommandNotFound),
        ("plain", JobErrorKind::CommandPermissionDenied),
        ("/etc", JobErrorKind::CommandPermissionDenied),
        ("text", JobErrorKind::CommandFormat),
        ("", JobErrorKind::CommandStart),
    ] {
        let mut job = place.job("");
        job.argv = vec![name.into()];
        let ran = place.run(job);
        assert_eq!(ran.error().kind, kind, "{name}: {}", ran.error());
    }
    let mut job = place.job("true");
    job.working_directory = b"/etc/passwd/x".to_vec();
    assert_eq!(place.run(job).error().kind, JobErrorKind::WorkingDirectory);
}

#[test]
fn limits_are_set_or_refused() {
    let Some(place) = Place::new() else { return };
    let mut job = place.job("ulimit -n; ulimit -Hn");
    job.rlimits = vec![Rlimit {
        name: "nofile".into(),
        soft: 64,
        hard: 128,
    }];
    assert_eq!(place.run(job).ok(), "64\n128\n");
    let mut job = place.job("true");
    job.rlimits = vec![Rlimit {
        name: "nofiles".into(),
        soft: 64,
        hard: 128,
    }];
    assert_eq!(
        place.run(job).error().to_string(),
        "there is no resource limit `nofiles`"
    );
}

#[test]
fn mount_2_gives_the_same_sandbox() {
    let options = SpawnerOptions {
        mount_api: MountApi::Classic,
        ..SpawnerOptions::default()
    };
    let Some(place) = Place::with(options) else {
        return;
    };
    set_old_time(&place, "etc");
    let second = place.new_directory();
    fs::write(second.join("two"), "2").expect("write");
    let mut job = place.job(
        "cat /two /etc/hosts; ls /dev | wc -l; wc -c < /proc/keys; (echo x > /sys/x) 2>&1 | sed 's/.*: //'; \
         (echo x > /etc/hosts) 2>&1 | sed 's/.*: //'; echo > /made; mknod /x c 1 1; (cat /x 2>&1 | sed 's/.*: //')",
    );
    job.root.lowers.push(second);
    job.files = vec![ProvidedFile {
        target: b"/etc/hosts".to_vec(),
        content: b"h\n".to_vec(),
        mode: 0o644,
        uid: 0,
        gid: 0,
    }];
    let ran = place.run(job);
    let expected = "2h\n14\n0\nRead-only file system\nRead-only file system\nPermission denied\n";
    assert_eq!(ran.stdout, expected, "{ran:?}");
    assert_eq!(ran.upper(), ["made", "x"]);
}

fn filetime(place: &Place, path: &str) -> i64 {
    fs::metadata(place.base().join(path)).expect("stat").mtime()
}

fn set_old_time(place: &Place, path: &str) {
    let time = rustix::fs::Timespec {
        tv_sec: 1_000_000_000,
        tv_nsec: 5,
    };
    let times = rustix::fs::Timestamps {
        last_access: time,
        last_modification: time,
    };
    let flags = rustix::fs::AtFlags::empty();
    rustix::fs::utimensat(rustix::fs::CWD, place.base().join(path), &times, flags)
        .expect("utimensat");
}
