use std::path::Path;

use super::hierarchy::Hierarchies;
use super::settings::{self, Setting};
use super::*;

fn limits() -> Limits {
    Limits {
        memory: Some(64 << 20),
        memory_swap: Some(96 << 20),
        cpu_thousandths: Some(1500),
        cpu_shares: Some(1024),
        cpuset_cpus: Some("0-1".into()),
        pids: Some(50),
        ..Limits::default()
    }
}

fn shown(version: Version) -> Vec<String> {
    let all = ["memory", "cpu", "cpuset", "pids"];
    let settings = settings::of(&limits(), version, &all);
    let show = |setting: &Setting| match setting {
        Setting::Value { file, value } => format!("{file} {value}"),
        Setting::OptionalValue { file, value } => format!("({file}) {value}"),
        Setting::FromParent { file } => format!("{file} as above"),
    };
    settings.iter().map(show).collect()
}

#[test]
fn limits_have_their_files_in_both_versions() {
    assert_eq!(
        shown(Version::One),
        [
            "cpuset.cpus 0-1",
            "cpuset.mems as above",
            "cpu.cfs_period_us 100000",
            "cpu.cfs_quota_us 150000",
            "cpu.shares 1024",
            "memory.limit_in_bytes 67108864",
            "(memory.memsw.limit_in_bytes) 100663296",
            "pids.max 50",
        ]
    );
    assert_eq!(
        shown(Version::Two),
        [
            "cpuset.cpus 0-1",
            "cpu.max 150000 100000",
            "cpu.weight 39",
            "memory.max 67108864",
            "(memory.swap.max) 33554432",
            "pids.max 50",
        ]
    );
    let unlimited = Limits {
        memory: Some(64 << 20),
        memory_swap: Some(u64::MAX),
        ..Limits::default()
    };
    for (version, value) in [(Version::One, "-1"), (Version::Two, "max")] {
        let settings = settings::of(&unlimited, version, &["memory"]);
        assert!(matches!(&settings[1], Setting::OptionalValue { value: set, .. } if set == value));
    }
}

const HYBRID: &str = "24 1 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
25 24 0:23 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct
26 24 0:24 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
27 24 0:25 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

/// The parents, as text.
fn parents(found: &Hierarchies, limits: &Limits) -> Vec<String> {
    let parents = found.parents(limits).expect("all controllers");
    let show = |(controller, version, path): &(&str, Version, PathBuf)| {
        format!("{controller} {version:?} {}", path.display())
    };
    parents.iter().map(show).collect()
}

#[test]
fn the_own_cgroup_is_found_on_v1() {
    let own = "3:cpu,cpuacct:/a/b\n2:memory:/user\n0::/scope\n";
    let found = Hierarchies::parse(HYBRID, own);
    let both = Limits {
        memory: Some(1),
        cpu_shares: Some(2),
        ..Limits::default()
    };
    assert_eq!(
        parents(&found, &both),
        [
            "memory One /sys/fs/cgroup/memory/user",
            "cpu One /sys/fs/cgroup/cpu/a/b"
        ]
    );
    let elsewhere = Limits {
        parent: Some("/builds".into()),
        ..both
    };
    assert_eq!(
        parents(&found, &elsewhere)[0],
        "memory One /sys/fs/cgroup/memory/builds"
    );
    let pids = Limits {
        pids: Some(1),
        ..Limits::default()
    };
    let error = found.parents(&pids).expect_err("no such controller");
    assert!(error.to_string().contains("`pids`"), "{error}");
}

/// In a container, a part of the hierarchy is mounted.
#[test]
fn a_part_of_a_hierarchy_is_mounted_in_a_container() {
    let info = "30 1 0:24 /docker/x /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
    let memory = Limits {
        memory: Some(1),
        ..Limits::default()
    };
    let found = Hierarchies::parse(info, "2:memory:/docker/x/y\n");
    assert_eq!(
        parents(&found, &memory),
        ["memory One /sys/fs/cgroup/memory/y"]
    );
    let outside = Hierarchies::parse(info, "2:memory:/other\n");
    assert!(outside.parents(&memory).is_err());
}

/// A directory stands in for the mounted hierarchy: what is read and written are files.
#[test]
fn v2_is_used_beside_the_own_cgroup_when_it_hands_down() {
    let top = tempfile::tempdir().expect("tempdir");
    let slice = top.path().join("user.slice");
    fs::create_dir_all(slice.join("own.scope")).expect("mkdir");
    let info = format!(
        "30 1 0:24 / {} rw,relatime - cgroup2 cgroup2 rw\n",
        top.path().display()
    );
    let found = Hierarchies::parse(&info, "0::/user.slice/own.scope\n");
    let memory = Limits {
        memory: Some(64 << 20),
        ..Limits::default()
    };
    let error = found.parents(&memory).expect_err("nothing is handed down");
    let help = error.help.as_deref().expect("a way out");
    assert!(
        help.contains("Delegate=yes") && help.contains("user.slice"),
        "{help}"
    );
    fs::write(slice.join("cgroup.subtree_control"), "cpu memory pids\n").expect("write");
    let place = found.parents(&memory).expect("handed down");
    assert_eq!(place, [("memory", Version::Two, slice.clone())]);
    // The kernel makes the files of a cgroup; here they are made by hand.
    let made = Place::make(&slice, Version::Two, "memory").expect("a directory");
    for (file, content) in [
        ("memory.max", "max\n"),
        ("memory.peak", "4096\n"),
        ("memory.events", "low 0\nmax 7\noom 1\noom_kill 3\n"),
        ("cgroup.procs", ""),
    ] {
        fs::write(made.path.join(file), content).expect("write");
    }
    let path = made.path.clone();
    let cgroup = Cgroup { places: vec![made] };
    for setting in settings::of(&memory, Version::Two, &["memory"]) {
        cgroup.places[0].set(&setting).expect("set");
    }
    cgroup.enter().expect("enter");
    assert_eq!(read(&path, "memory.max"), "67108864");
    assert_eq!(read(&path, "cgroup.procs"), "0");
    let report = cgroup.report().expect("memory");
    assert_eq!((report.peak, report.kills), (Some(4096), 3));
}

fn read(path: &Path, file: &str) -> String {
    fs::read_to_string(path.join(file)).expect("read")
}

#[test]
fn what_killed_processes_left_is_removed_and_what_is_used_stays() {
    let parent = tempfile::tempdir().expect("tempdir");
    let abandoned = parent.path().join("rbuild-1-1");
    let foreign = parent.path().join("other");
    for path in [&abandoned, &foreign] {
        fs::create_dir(path).expect("mkdir");
    }
    let used = Place::make(parent.path(), Version::One, "pids").expect("make");
    let second = Place::make(parent.path(), Version::One, "pids").expect("make");
    assert!(!abandoned.exists());
    assert!(foreign.exists() && used.path.exists() && second.path.exists());
}
