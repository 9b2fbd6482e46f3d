//! RUN: what the command sees, and what its layer holds.

use crate::support::Place;

fn run(dockerfile: &str) -> crate::support::Built {
    Place::new().build(dockerfile).ok()
}

#[test]
fn shell_and_exec_form_environment_user_and_directory() {
    let image = run(
        "FROM base\nENV GREETING=hello\nWORKDIR /made/here\nRUN echo $GREETING > a; pwd >> a\n\
         RUN [\"sh\", \"-c\", \"echo exec > /b\"]\nUSER app\nRUN id -u > /tmp/u; id -g >> /tmp/u; id -G >> /tmp/u; echo $HOME >> /tmp/u\n\
         USER 7:8\nRUN id -u > /tmp/n; id -g >> /tmp/n\nSHELL [\"/bin/sh\", \"-exc\"]\nRUN echo shell > /tmp/s\n",
    )
    .image;
    assert_eq!(image.text("made/here/a"), "hello\n/made/here\n");
    assert_eq!(image.text("b"), "exec\n");
    assert_eq!(image.text("tmp/u"), "1000\n1001\n1001 1002\n/home/app\n");
    assert_eq!(image.text("tmp/n"), "7\n8\n");
    assert_eq!(image.text("tmp/s"), "shell\n");
}

#[test]
fn deletions_replacements_and_links_are_in_the_layer() {
    let image = run(
        "FROM base\nRUN rm /data/one && mv /data/two /data/three && ln /data/three /data/four && ln -s three /data/five\n\
         RUN rm -r /data && mkdir /data && echo new > /data/new\n",
    )
    .image;
    let first: Vec<&str> = image.layers[1]
        .iter()
        .map(|entry| entry.path.as_str())
        .collect();
    assert!(
        first.contains(&"data/.wh.one") && first.contains(&"data/.wh.two"),
        "{first:?}"
    );
    let link = image.layers[1]
        .iter()
        .find(|entry| entry.path == "data/three" || entry.path == "data/four");
    assert!(link.is_some());
    let hard = image.layers[1]
        .iter()
        .filter(|entry| entry.kind == tar::EntryType::Link)
        .count();
    assert_eq!(hard, 1, "{first:?}");
    let second: Vec<&str> = image.layers[2]
        .iter()
        .map(|entry| entry.path.as_str())
        .collect();
    assert!(
        second.contains(&"data/.wh..wh..opq") || second.contains(&"data/.wh.three"),
        "{second:?}"
    );
    assert!(second.contains(&"data/new"), "{second:?}");
}

#[test]
fn times_and_link_targets_are_kept() {
    let image = run(
        "FROM base\nRUN echo x > /old && touch -d @981173106 /old && ln -s ../any/where /link\n",
    )
    .image;
    assert_eq!(image.entry("old").unwrap().mtime, 981_173_106);
    assert_eq!(
        image.entry("link").unwrap().link.as_deref(),
        Some("../any/where")
    );
}

#[test]
fn a_command_that_changes_nothing_leaves_an_empty_layer() {
    let image = run("FROM base\nRUN true\n").image;
    assert_eq!(image.layers[1].len(), 0);
    assert_eq!(
        image.diff_ids()[1],
        "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
    );
}

#[test]
fn what_the_sandbox_provides_stays_out_of_the_layer() {
    let image = run("FROM base\nRUN cat /etc/hosts /etc/resolv.conf /proc/self/status > /dev/null; ls /dev/null /dev/shm\n").image;
    let paths: Vec<&str> = image.layers[1]
        .iter()
        .map(|entry| entry.path.as_str())
        .collect();
    assert!(paths.is_empty(), "{paths:?}");
}

#[test]
fn mounts_show_files_and_leave_nothing() {
    let place = Place::new();
    place.file("conf", "from context").file("token", "t0k3n");
    let dockerfile = "FROM base AS other\nRUN echo stage > /made\nFROM base\n\
        RUN --mount=type=bind,source=conf,target=/c --mount=type=bind,from=other,source=/made,target=/m \
        --mount=type=cache,target=/cache --mount=type=tmpfs,target=/t --mount=type=secret,id=token \
        --mount=type=secret,id=token,env=TOKEN \
        cat /c /m /run/secrets/token > /out; echo $TOKEN >> /out; echo kept >> /cache/file; echo x > /t/x\n\
        RUN --mount=type=cache,target=/cache cat /cache/file > /cached\n";
    let token = format!(
        "--secret=id=token,src={}",
        place.context().join("token").display()
    );
    let built = place.build(dockerfile).arg(&token).ok();
    assert_eq!(built.image.text("out"), "from contextstage\nt0k3nt0k3n\n");
    assert_eq!(built.image.text("cached"), "kept\n");
    for path in ["c", "m", "cache", "t", "run/secrets", "run"] {
        assert!(
            built.image.entry(path).is_none(),
            "{path} must not be in the layer"
        );
    }
    assert!(!built.log.contains("t0k3n"), "{}", built.log);
    let again = place.build(dockerfile).arg(&token).ok();
    again.expect(&[("RUN --mount=type=bind", true)]);
    // A secret's value is not part of the key.
    place.file("token", "other");
    place
        .build(dockerfile)
        .arg(&token)
        .ok()
        .expect(&[("RUN --mount=type=bind", true)]);
}

#[test]
fn the_network_can_be_cut_off() {
    let image = run("FROM base\nRUN --network=none cat /proc/net/dev > /net\n").image;
    let devices: Vec<String> = image
        .text("net")
        .lines()
        .skip(2)
        .map(|line| line.trim().split(':').next().unwrap().to_owned())
        .collect();
    assert!(devices.iter().any(|name| name == "lo"), "{devices:?}");
    assert!(
        !devices
            .iter()
            .any(|name| name.starts_with("eth") || name.starts_with("ens")),
        "{devices:?}"
    );
}

#[test]
fn independent_stages_run_at_the_same_time() {
    // Each stage waits for the other through a shared cache mount: alone, neither could end.
    let wait = |mine: &str, other: &str| {
        format!(
            "RUN --mount=type=cache,target=/c touch /c/{mine}; i=0; while [ ! -e /c/{other} ] && [ $i -lt 100 ]; do sleep 0.1; i=$((i+1)); done; [ -e /c/{other} ]\n"
        )
    };
    let dockerfile = format!(
        "FROM base AS a\n{}RUN echo a > /a\nFROM base AS b\n{}RUN echo b > /b\nFROM base\nCOPY --from=a /a /a\nCOPY --from=b /b /b\n",
        wait("a", "b"),
        wait("b", "a")
    );
    let image = run(&dockerfile).image;
    assert_eq!(
        (image.text("a"), image.text("b")),
        ("a\n".into(), "b\n".into())
    );
}
