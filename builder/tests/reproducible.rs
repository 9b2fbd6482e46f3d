//! The same build gives the same bytes: whatever the store, the directory, the time, the file system and the number of threads.

#[path = "support/home.rs"]
mod home;
#[path = "support/place.rs"]
mod place;
#[path = "support/registry.rs"]
mod registry;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use home::{Home, told};
use place::run;

const EPOCH: &str = "1700000000";

const DOCKERFILE: &str = "FROM scratch AS make\nCOPY tree /made\nFROM scratch\nCOPY --from=make /made /out\nCOPY --chmod=755 large /large\nWORKDIR /work\nLABEL a=b\n";

/// A context with the same content and other times, inodes and order of making in each directory.
fn write_context(path: &Path, is_backwards: bool) {
    let mut names: Vec<String> = (0..40)
        .map(|number| format!("tree/d{}/f{number}", number % 7))
        .collect();
    if is_backwards {
        names.reverse();
    }
    for name in &names {
        let file = path.join(name);
        fs::create_dir_all(file.parent().expect("a parent")).expect("made");
        fs::write(&file, name.repeat(50)).expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("set");
    }
    symlink("d1/f1", path.join("tree/link")).expect("a link");
    // Several blocks of the parallel compressor.
    let large: Vec<u8> = (0..3_000_000_u32)
        .flat_map(|number| (number / 7).to_le_bytes())
        .collect();
    fs::write(path.join("large"), large).expect("written");
    fs::write(path.join("Dockerfile"), DOCKERFILE).expect("written");
    for directory in ["tree", "tree/d0", "."] {
        fs::set_permissions(path.join(directory), fs::Permissions::from_mode(0o755)).expect("set");
    }
}

/// Builds, and gives the digest of the manifest.
fn build(home: &Home, root: &str, context: &Path, compression: &str, prefix: &[&str]) -> String {
    let archive = home.path(&format!("{root}-{compression}.tar"));
    let output = format!(
        "type=oci,dest={},rewrite-timestamp=true,compression={compression}",
        archive.display()
    );
    let metadata = home.path(&format!("{root}-{compression}.json"));
    let arguments = [
        "build",
        "-o",
        &output,
        "--metadata-file",
        metadata.to_str().expect("UTF-8"),
        context.to_str().expect("UTF-8"),
    ];
    let plain = home.command(root, &arguments);
    let mut command = match prefix {
        [] => plain,
        [program, rest @ ..] => {
            let mut command = Command::new(program);
            command
                .args(rest)
                .arg(plain.get_program())
                .args(plain.get_args());
            command.env_clear();
            for (name, value) in plain.get_envs() {
                if let Some(value) = value {
                    command.env(name, value);
                }
            }
            command
        }
    };
    let (done, log) = told(
        &command
            .env("SOURCE_DATE_EPOCH", EPOCH)
            .output()
            .expect("it runs"),
    );
    assert!(done, "{log}");
    let text = fs::read_to_string(&metadata).expect("metadata");
    let metadata: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    // Not only the manifest: the archive's bytes, too.
    let bytes = fs::read(&archive).expect("an archive");
    format!(
        "{} {}",
        metadata["containerimage.digest"]
            .as_str()
            .expect("a digest"),
        rbuild::manifest::digest_of(&bytes)
    )
}

/// One flag is enough, and it says what the variable and the output's option say.
#[test]
fn a_timestamp_does_what_variable_and_option_do() {
    let Some(home) = Home::new() else { return };
    let context = home.path("context");
    write_context(&context, false);
    let expected = build(&home, "variable", &context, "gzip", &[]);
    let archive = home.path("flag.tar");
    let output = format!("type=oci,dest={}", archive.display());
    let words = [
        "build",
        "-o",
        &output,
        "--timestamp",
        EPOCH,
        context.to_str().expect("UTF-8"),
    ];
    let (done, log) = told(&home.command("flag", &words).output().expect("it runs"));
    assert!(done, "{log}");
    let bytes = fs::read(&archive).expect("an archive");
    let digest = rbuild::manifest::digest_of(&bytes).to_string();
    assert!(expected.ends_with(&digest), "{expected} {digest}");
}

#[test]
fn fresh_stores_and_other_directories_give_the_same_manifest() {
    let Some(home) = Home::new() else { return };
    let (one, other) = (home.path("one"), home.path("elsewhere/deep/other"));
    write_context(&one, false);
    write_context(&other, true);
    run(&[
        "find",
        other.to_str().expect("UTF-8"),
        "-exec",
        "touch",
        "-h",
        "-d",
        "2025-06-07",
        "{}",
        "+",
    ]);
    for compression in ["gzip", "zstd", "uncompressed"] {
        let first = build(&home, "first", &one, compression, &[]);
        let second = build(&home, "second", &other, compression, &[]);
        assert_eq!(first, second, "{compression}");
        fs::remove_dir_all(home.path("first")).expect("removed");
        let third = build(&home, "first", &one, compression, &[]);
        assert_eq!(first, third, "{compression}: made anew");
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let Some(home) = Home::new() else { return };
    let context = home.path("one");
    write_context(&context, false);
    for compression in ["gzip", "zstd"] {
        let many = build(
            &home,
            &format!("many-{compression}"),
            &context,
            compression,
            &[],
        );
        let single = ["taskset", "-c", "0"];
        let one = build(
            &home,
            &format!("one-{compression}"),
            &context,
            compression,
            &single,
        );
        assert_eq!(many, one, "{compression}");
    }
}

#[test]
fn the_time_and_the_zone_change_nothing() {
    let Some(home) = Home::new() else { return };
    let context = home.path("one");
    write_context(&context, false);
    let now = build(&home, "now", &context, "gzip", &[]);
    // The wall clock can't be set for one process; the zone, the locale and the mask can, and the files are younger now.
    run(&[
        "touch",
        "-d",
        "tomorrow",
        context.join("large").to_str().expect("UTF-8"),
    ]);
    let shell = [
        "env",
        "TZ=Asia/Kathmandu",
        "LC_ALL=tr_TR.UTF-8",
        "sh",
        "-c",
        "umask 077; exec \"$0\" \"$@\"",
    ];
    let later = build(&home, "later", &context, "gzip", &shell);
    assert_eq!(now, later);
}

#[test]
fn the_file_system_changes_nothing() {
    let Some(home) = Home::new() else { return };
    let context = home.path("one");
    write_context(&context, false);
    let here = build(&home, "here", &context, "gzip", &[]);
    // Context and store on a tmpfs, in a mount namespace of its own.
    let tmpfs = home.path("tmpfs");
    fs::create_dir(&tmpfs).expect("made");
    let script = format!(
        "mount -t tmpfs none {0} && cp -a {1} {0}/one && mkdir {0}/root && exec \"$0\" --root {0}/root \"$@\"",
        tmpfs.display(),
        context.display()
    );
    let archive = home.path("on-tmpfs.tar");
    let output = format!(
        "type=oci,dest={},rewrite-timestamp=true,compression=gzip",
        archive.display()
    );
    let inside = tmpfs.join("one");
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", &script, env!("CARGO_BIN_EXE_rbuild")])
        .args(["build", "-o", &output])
        .arg(&inside)
        .env("SOURCE_DATE_EPOCH", EPOCH)
        .env("HOME", home.path(""));
    let (done, log) = told(&command.output().expect("it runs"));
    assert!(done, "{log}");
    let bytes = fs::read(&archive).expect("an archive");
    let digest = rbuild::manifest::digest_of(&bytes).to_string();
    assert!(here.ends_with(&digest), "{here} {digest}");
}
