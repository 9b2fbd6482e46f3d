//! Why steps run: what changed is named, and nothing else.

use crate::support::{Build, Built, Place};

const APP: &str = "FROM base\nARG VERSION=1.2\nENV MODE=fast\nCOPY app /app\nRUN echo $VERSION > /version\nCOPY c /c\n";

fn place() -> Place {
    let place = Place::new();
    place
        .file("app/main.py", "1")
        .file("app/util.py", "1")
        .file("c", "1");
    place
}

/// What a build says of why the step with this title ran; empty when it says nothing.
fn reason<'log>(built: &'log Built, title: &str) -> &'log str {
    let line = built.log.lines().find(|line| line.contains(title));
    let line = line.unwrap_or_else(|| panic!("no step `{title}` in:\n{}", built.log));
    let label = &line[..=line.find(']').unwrap()];
    let start = format!("{label} runs again: ");
    let mut reasons = built
        .log
        .lines()
        .filter_map(|line| line.strip_prefix(&start));
    reasons.next().unwrap_or_default()
}

fn expect(asked: Build<'_>, expected: &[(&str, &str)]) -> Built {
    let built = asked.ok();
    for (title, words) in expected {
        assert_eq!(
            &reason(&built, title),
            words,
            "`{title}` in:\n{}",
            built.log
        );
    }
    built
}

#[test]
fn what_changed_is_named() {
    let place = place();
    // In a first build everything is new, which is no news.
    expect(place.build(APP), &[("COPY app", ""), ("RUN echo", "")]);
    place.file("app/main.py", "2");
    expect(
        place.build(APP),
        &[
            ("COPY app", "file app/main.py (content)"),
            ("RUN echo", "parent step [2/4] gave another result"),
        ],
    );
    place.mode("app/util.py", 0o755).file("app/new.py", "1");
    expect(
        place.build(APP),
        &[(
            "COPY app",
            "file app/new.py (added), file app/util.py (mode)",
        )],
    );
    expect(
        place.build(APP).arg("--build-arg=VERSION=1.3"),
        &[
            ("COPY app", ""),
            ("RUN echo", "build arg VERSION 1.2 → 1.3"),
        ],
    );
    let edited = APP.replace("RUN echo $VERSION >", "RUN echo version $VERSION >");
    expect(
        place.build(&edited).arg("--build-arg=VERSION=1.3"),
        &[(
            "RUN echo",
            "instruction changed: RUN echo $VERSION > /version → RUN echo version $VERSION > /version",
        )],
    );
    let slow = edited.replace("MODE=fast", "MODE=slow");
    expect(
        place.build(&slow).arg("--build-arg=VERSION=1.3"),
        &[("RUN echo", "variable MODE fast → slow")],
    );
    let user = slow.replace("RUN echo", "USER app\nRUN echo");
    let user = user.replace("> /version", "> /tmp/version");
    expect(
        place.build(&user).arg("--build-arg=VERSION=1.3"),
        &[(
            "RUN echo",
            "instruction changed: RUN echo version $VERSION > /version → RUN echo version $VERSION > /tmp/version, user app (new)",
        )],
    );
}

#[test]
fn a_step_is_found_again_where_it_moved_to() {
    let place = place();
    place
        .build("FROM base\nRUN true 1\nCOPY c /c\nRUN true 2\n")
        .ok();
    place.file("c", "2");
    let built = place
        .build("FROM base\nRUN true new\nRUN true 1\nCOPY c /c\nRUN true 2\n")
        .ok();
    assert_eq!(reason(&built, "RUN true new"), "");
    assert_eq!(
        reason(&built, "RUN true 1"),
        "parent step [2/5] gave another result"
    );
    assert_eq!(
        reason(&built, "COPY c"),
        "file c (content), parent step [3/5] gave another result"
    );
    assert_eq!(
        reason(&built, "RUN true 2"),
        "parent step [4/5] gave another result"
    );
}

#[test]
fn being_told_so_and_a_lost_record_are_reasons() {
    let place = place();
    place.build(APP).ok();
    let built = place.build(APP).arg("--no-cache").ok();
    assert_eq!(reason(&built, "COPY app"), "--no-cache");
    let database = place.path().join("root/db.sqlite");
    let forget = |sql: &str| {
        rusqlite::Connection::open(&database)
            .unwrap()
            .execute_batch(sql)
            .unwrap();
    };
    forget("DELETE FROM step_key; DELETE FROM step_record");
    let built = place.build(APP).ok();
    assert_eq!(reason(&built, "COPY app"), "its record was pruned");
    place.build("FROM base\nRUN false\n").err();
    let (_, log) = place.build("FROM base\nRUN false\n").err();
    assert!(
        log.contains("runs again: it failed in the build before"),
        "{log}"
    );
}

#[test]
fn a_damaged_layer_is_a_reason() {
    let place = place();
    place.file("c", "long enough to be cut");
    place.build("FROM base\nCOPY c /c\nRUN cat /c\n").ok();
    for entry in std::fs::read_dir(place.path().join("root/snapshots")).unwrap() {
        let path = entry.unwrap().path().join("c");
        if path.exists() {
            std::fs::write(path, "cut").unwrap();
        }
    }
    // It is found when a step is to run on it, and taken out of the store.
    let changed = "FROM base\nCOPY c /c\nRUN cat /c /c\n";
    let (_, log) = place.build(changed).err();
    assert!(log.contains("is damaged"), "{log}");
    let built = place.build(changed).ok();
    assert_eq!(
        reason(&built, "COPY c"),
        "a layer of its result was damaged and taken out of the store"
    );
}

#[test]
fn a_base_that_moved_is_named_by_its_digests() {
    let place = place();
    let dockerfile = "FROM base\nRUN cat /data/one\n";
    place.build(dockerfile).ok();
    let base = place.path().join("base");
    std::fs::remove_dir_all(&base).unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    let busybox = std::fs::read("/bin/busybox").unwrap();
    for (path, mode, content) in [
        ("bin/busybox", 0o755, busybox.as_slice()),
        ("data/one", 0o644, b"other"),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        tar.append_data(&mut header, path, content).unwrap();
    }
    for applet in ["sh", "cat"] {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        tar.append_link(&mut header, format!("bin/{applet}"), "busybox")
            .unwrap();
    }
    let layer = tar.into_inner().unwrap();
    crate::support::write_layout(&base, &[layer], &serde_json::json!({"Env": ["PATH=/bin"]}));
    let built = place.build(dockerfile).ok();
    let words = reason(&built, "RUN cat");
    assert!(
        words.starts_with("base image oci-layout://")
            && words.matches("sha256:").count() == 2
            && words.contains(" → "),
        "{words}"
    );
}

#[test]
fn many_files_are_counted() {
    let place = place();
    let dockerfile = "FROM base\nCOPY . /src\n";
    place.build(dockerfile).ok();
    for number in 0..230 {
        place.file(&format!("many/{number:03}"), "1");
    }
    let built = place.build(dockerfile).ok();
    // 230 files and their directory.
    assert_eq!(
        reason(&built, "COPY . /src"),
        "file many (added), file many/000 (added), file many/001 (added), and 228 more"
    );
    let output = place.rbuild().args(["explain", "2"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("      and 211 more files\n"), "{text}");
}

#[test]
fn a_result_of_another_stage_is_compared_by_its_files() {
    let place = place();
    let dockerfile =
        "FROM base AS make\nCOPY c /in\nRUN cp /in /out\nFROM base\nCOPY --from=make /out /out\n";
    place.build(dockerfile).ok();
    place.file("c", "2");
    expect(
        place.build(dockerfile),
        &[("COPY --from=make", "file out (content)")],
    );
}

#[test]
fn programs_read_reasons_too() {
    let place = place();
    place.build(APP).ok();
    place.file("app/main.py", "2");
    let output = (place.build(APP).command())
        .args(["--progress", "rawjson"])
        .output()
        .unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    let explained: Vec<serde_json::Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|event: &serde_json::Value| event["event"] == "explained")
        .collect();
    assert_eq!(
        explained[0]["reasons"],
        serde_json::json!([{
            "kind": "file", "path": "app/main.py", "change": "content", "text": "file app/main.py (content)",
        }])
    );
    let output = (place.rbuild())
        .args(["explain", "--format", "json", "last", "COPY app"])
        .output()
        .unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["steps"][0]["reasons"], explained[0]["reasons"]);
    assert_eq!(json["steps"][0]["state"], "done");
    let parts = json["steps"][0]["parts"].as_array().unwrap();
    assert!(
        parts
            .iter()
            .any(|part| part["name"] == "destination" && part["value"] == "/app")
    );
}

/// The whole store is searched: database, logs, everything.
#[test]
fn values_of_secrets_are_nowhere_in_the_store() {
    const SECRET: &str = "Zx9-never-to-be-seen-42";
    const ARGUMENT: &str = "Qw7-an-argument-like-a-secret";
    let place = place();
    std::fs::write(place.path().join("secret"), SECRET).unwrap();
    let dockerfile = "FROM base\nARG NPM_TOKEN\nRUN --mount=type=secret,id=one --mount=type=secret,id=two,env=TWO stat -c %s /run/secrets/one\nRUN true\n";
    let build = |change: &str| {
        let dockerfile = dockerfile.replace("RUN true", change);
        let file = format!(
            "--secret=id=one,src={}",
            place.path().join("secret").display()
        );
        let mut command = place
            .build(&dockerfile)
            .arg(&file)
            .arg("--secret=id=two,env=TWO")
            .command();
        let output = command
            .env("TWO", SECRET)
            .arg(format!("--build-arg=NPM_TOKEN={ARGUMENT}{change}"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    build("RUN true");
    let log = build("RUN true 2");
    assert!(
        log.contains("runs again: build arg NPM_TOKEN (its value is not shown)"),
        "{log}"
    );
    let output = place.rbuild().args(["explain", "2"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains(ARGUMENT), "{text}");
    let root = place.path().join("root");
    let grep = |text: &str| {
        let found = std::process::Command::new("grep")
            .args(["-r", "-l", "-a", "-F", text])
            .arg(&root)
            .output()
            .unwrap();
        String::from_utf8(found.stdout).unwrap()
    };
    assert_eq!(grep(SECRET), "");
    // Details are compressed: what is in them is looked for through the program.
    let output = (place.rbuild())
        .args(["builds", "show", "--format", "json"])
        .output()
        .unwrap();
    let detail = String::from_utf8(output.stdout).unwrap();
    assert!(
        !detail.contains(SECRET) && !detail.contains(ARGUMENT),
        "{detail}"
    );
    assert!(detail.contains("mount /run/secrets/one"), "{detail}");
}
