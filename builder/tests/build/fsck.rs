//! `rbuild fsck`: damage is named with what needs it, mended, and the next build is right; what builds do that meet it.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use super::support::Place;

const DOCKERFILE: &str = "FROM base\nRUN echo built > /out\nRUN cat /out > /copy\n";

struct Outcome {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn run(place: &Place, arguments: &[&str]) -> Outcome {
    let output = place.rbuild().args(arguments).output().unwrap();
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Builds `app`, exporting only what the arguments say.
fn build(place: &Place, arguments: &[&str]) -> Outcome {
    let dockerfile = place.path().join("Dockerfile");
    fs::write(&dockerfile, DOCKERFILE).unwrap();
    let base = place.path().join("base");
    let base = format!("--build-context=base=oci-layout://{}", base.display());
    let (file, context) = (
        format!("--file={}", dockerfile.display()),
        place.context().display().to_string(),
    );
    let words = ["build", "--quiet", "--tag=app", &base, &file, &context];
    run(place, &[&words, arguments].concat())
}

/// The file of this name in a snapshot of the store.
fn in_snapshots(place: &Place, name: &str) -> PathBuf {
    let mut waiting = vec![place.path().join("root/snapshots")];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().as_bytes() == name.as_bytes() {
                return path;
            }
            if path.is_dir() && !path.is_symlink() {
                waiting.push(path);
            }
        }
    }
    panic!("no snapshot holds {name}");
}

fn snapshot_of(place: &Place, name: &str) -> String {
    let path = in_snapshots(place, name);
    path.parent()
        .unwrap()
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned()
}

#[test]
fn a_flipped_bit_is_named_mended_and_built_again() {
    let place = Place::new();
    place.build(DOCKERFILE).arg("--tag=app").ok();
    let sound = run(&place, &["fsck"]);
    assert_eq!(sound.code, Some(0), "{}{}", sound.stdout, sound.stderr);
    assert!(
        sound.stdout.ends_with("1 image, 2 steps: no damage\n"),
        "{}",
        sound.stdout
    );
    let snapshot = snapshot_of(&place, "out");
    fs::write(in_snapshots(&place, "out"), "builT\n").unwrap();
    let found = run(&place, &["fsck"]);
    assert_eq!(found.code, Some(1));
    for words in [
        format!(
            "snapshot {snapshot}\n  `out` holds other bytes\n  needed by image docker.io/library/app:latest, step `RUN cat /out > /copy`"
        ),
        "repair: removed; the next build that needs it runs the step again".to_owned(),
        "image docker.io/library/app:latest (sha256:".to_owned(),
        ": 2 damages\n".to_owned(),
    ] {
        assert!(found.stdout.contains(&words), "{words}\n{}", found.stdout);
    }
    assert!(
        found.stderr.contains("`rbuild fsck --repair`"),
        "{}",
        found.stderr
    );
    let report = run(&place, &["fsck", "--format", "json"]);
    let report: serde_json::Value = serde_json::from_str(&report.stdout).unwrap();
    assert_eq!(report["whole"], false);
    assert_eq!(report["damages"][0]["id"], snapshot);
    assert_eq!(report["damages"][0]["healing"], "run");
    let repaired = run(&place, &["fsck", "--repair"]);
    assert_eq!(repaired.code, Some(0), "{}", repaired.stderr);
    assert!(
        repaired.stdout.contains("2 damages, repaired"),
        "{}",
        repaired.stdout
    );
    assert_eq!(run(&place, &["fsck"]).code, Some(0));
    let built = place.build(DOCKERFILE).arg("--tag=app").ok();
    assert_eq!(built.image.text("copy"), "built\n");
    assert_eq!(built.image.text("out"), "built\n");
}

#[test]
fn a_damaged_layer_is_never_shipped_and_heals() {
    let place = Place::new();
    let archive = place.path().join("out.tar");
    let (archive, files) = (
        format!("--output=type=oci,dest={}", archive.display()),
        format!(
            "--output=type=local,dest={}",
            place.path().join("files").display()
        ),
    );
    for (case, output, content) in [
        ("a flipped bit, packed", &archive, "builT\n"),
        ("a cut file, packed", &archive, ""),
        ("a cut file, as files", &files, ""),
    ] {
        // Nothing is packed yet.
        assert_eq!(build(&place, &[]).code, Some(0), "{case}");
        fs::write(in_snapshots(&place, "out"), content).unwrap();
        let refused = build(&place, &[output]);
        let text = &refused.stderr;
        assert_eq!(refused.code, Some(1), "{case}: {text}");
        assert!(text.contains("is damaged"), "{case}: {text}");
        assert!(
            text.contains("it has been taken out of the store: build again"),
            "{case}: {text}"
        );
        let healed = build(&place, &[output]);
        assert_eq!(healed.code, Some(0), "{case}: {}", healed.stderr);
        assert_eq!(run(&place, &["fsck"]).code, Some(0), "{case}");
        assert_eq!(run(&place, &["prune", "--all", "--force"]).code, Some(0));
    }
    assert_eq!(
        fs::read_to_string(place.path().join("files/out")).unwrap(),
        "built\n"
    );
}

#[test]
fn an_image_with_a_cut_file_is_not_run() {
    let place = Place::new();
    place.build(DOCKERFILE).arg("--tag=app").ok();
    fs::write(in_snapshots(&place, "out"), "").unwrap();
    let refused = run(&place, &["run", "app", "cat", "/out"]);
    assert_eq!(refused.code, Some(125), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("the image `app` is damaged"),
        "{}",
        refused.stderr
    );
    assert!(
        refused.stderr.contains("/out` has another size"),
        "{}",
        refused.stderr
    );
}

#[test]
fn a_damaged_database_is_told_with_the_way_out() {
    let place = Place::new();
    place.build(DOCKERFILE).arg("--tag=app").ok();
    let database = place.path().join("root/db.sqlite");
    fs::write(&database, "x".repeat(8192)).unwrap();
    let refused = place
        .build(DOCKERFILE)
        .arg("--tag=app")
        .command()
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{text}");
    assert!(text.contains("db.sqlite` is damaged"), "{text}");
    assert!(text.contains("help: `rbuild fsck --repair`"), "{text}");
    // Killed while it mends, it mends again.
    for point in ["fsck-cured", "fsck-database"] {
        let mut command = place.rbuild();
        command
            .args(["fsck", "--repair"])
            .env("RBUILD_DIES_AT", point);
        assert_eq!(command.output().unwrap().status.code(), None, "{point}");
    }
    let repaired = run(&place, &["fsck", "--repair"]);
    assert_eq!(
        repaired.code,
        Some(0),
        "{}{}",
        repaired.stdout,
        repaired.stderr
    );
    assert!(
        repaired.stdout.contains("database db.sqlite"),
        "{}",
        repaired.stdout
    );
    let built = place.build(DOCKERFILE).arg("--tag=app").ok();
    assert_eq!(built.image.text("copy"), "built\n");
    assert_eq!(run(&place, &["fsck"]).code, Some(0));
}

#[test]
fn one_damaged_image_hides_no_other() {
    let place = Place::new();
    let one = build(&place, &["--tag=one"]);
    place
        .build("FROM base\nRUN echo two > /two\n")
        .arg("--tag=two")
        .ok();
    let digits = one.stdout.trim().trim_start_matches("sha256:");
    let config = place.path().join("root/blobs/sha256").join(digits);
    fs::write(&config, "{").unwrap();
    let listed = run(&place, &["images"]);
    assert_eq!(listed.code, Some(0), "{}", listed.stderr);
    for name in ["one:latest", "two:latest"] {
        assert!(listed.stdout.contains(name), "{}", listed.stdout);
    }
    assert!(
        listed.stderr.contains("config is damaged"),
        "{}",
        listed.stderr
    );
    // A word on the way out where the version is damaged.
    fs::write(place.path().join("root/VERSION"), "").unwrap();
    let refused = run(&place, &["images"]);
    assert_eq!(refused.code, Some(1));
    let help = "help: `rbuild fsck --repair`";
    assert!(refused.stderr.contains(help), "{}", refused.stderr);
    assert_eq!(run(&place, &["fsck", "--repair"]).code, Some(0));
    let listed = run(&place, &["images"]);
    assert!(!listed.stdout.contains("one:latest"), "{}", listed.stdout);
    assert!(listed.stdout.contains("two:latest"), "{}", listed.stdout);
}

#[test]
fn a_repair_waits_for_nobody_and_says_so() {
    let place = Place::new();
    place.build(DOCKERFILE).ok();
    let root = fs::File::open(place.path().join("root")).unwrap();
    root.lock_shared().unwrap();
    let busy = run(&place, &["fsck", "--repair"]);
    assert_eq!(busy.code, Some(1));
    assert!(
        busy.stderr
            .contains("is in use, and a repair needs it alone"),
        "{}",
        busy.stderr
    );
    assert!(
        busy.stderr.contains("help: wait until all builds"),
        "{}",
        busy.stderr
    );
    assert_eq!(
        run(&place, &["fsck"]).code,
        Some(0),
        "a check needs no waiting"
    );
    root.unlock().unwrap();
    root.lock().unwrap();
    let taken = run(&place, &["fsck"]);
    assert!(
        taken.stderr.contains("another rbuild has the store"),
        "{}",
        taken.stderr
    );
    let none = run(&place, &["fsck", "--root", "/nonexistent/store"]);
    assert_eq!(none.code, Some(1));
    assert!(
        none.stderr.contains("there is no store at"),
        "{}",
        none.stderr
    );
    assert_eq!(run(&place, &["fsck", "--wrong"]).code, Some(2));
}
