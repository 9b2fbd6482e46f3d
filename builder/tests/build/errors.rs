//! `docs/errors.md`: every situation of the table is brought about with the real binary, and what it prints is compared with
//! the page, so that the page is what a user sees.
//!
//! `RBUILD_UPDATE_DOCS=1 cargo test -p rbuild --test build errors` writes it anew.

mod messages;
mod rows;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::Place;
use crate::support::registry::Registry;

/// One situation.
struct Row {
    /// What has gone wrong, as a person would say it.
    title: &'static str,
    /// The Dockerfile; empty where none matters. `base` is a small image with a shell.
    dockerfile: &'static str,
    /// Files of the context.
    files: &'static [(&'static str, &'static str)],
    /// What is typed; `{registry}` is a registry on this machine.
    command: &'static str,
    /// What is behind it and what helps, beyond what the message says.
    more: &'static str,
}

const HEAD: &str = "# Errors\n\n\
    Made from a table in the code by `RBUILD_UPDATE_DOCS=1 cargo test -p rbuild --test build errors`. A test brings about every\n\
    situation with the real program and compares what is printed with this page.\n\n\
    An error says what was being done, to what, and why it failed; `help:` is the way out. In a Dockerfile it points at the\n\
    place. All errors of a Dockerfile are told at once; those have codes, each with an example in [rules.md](rules.md)\n\
    (`rbuild check --explain CODE` prints one). Exit code 2 is bad usage or a Dockerfile that does not parse, 1 is everything else that fails, 130 is Ctrl-C.\n\n\
    `base` stands for a small image with a shell, `/src` for the build context, `/var/lib/rbuild` for the store.\n";

#[test]
fn the_page_is_what_a_user_sees() {
    let place = Place::new();
    let registry = Registry::start(&place.path().join("registry"));
    let (mut text, mut problems) = (HEAD.to_owned(), Vec::new());
    for (section, rows) in rows::SECTIONS {
        // Writing to a string can't fail.
        let _ = write!(text, "\n## {section}\n");
        for row in *rows {
            problems.extend(show(&mut text, row, &place, &registry).err());
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
    text += &messages::list();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/errors.md");
    if std::env::var_os("RBUILD_UPDATE_DOCS").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let differing = text
        .lines()
        .zip(written.lines())
        .find(|(now, then)| now != then);
    assert!(
        text == written,
        "docs/errors.md is not what is printed now: {differing:?}; RBUILD_UPDATE_DOCS=1 writes it anew"
    );
}

/// Brings one situation about, and appends what was typed and printed.
fn show(text: &mut String, row: &Row, place: &Place, registry: &Registry) -> Result<(), String> {
    let context = place.context();
    fs::remove_dir_all(&context).unwrap();
    fs::create_dir(&context).unwrap();
    if !row.dockerfile.is_empty() {
        let dockerfile = row.dockerfile.replace("{registry}", &registry.address);
        place.file("Dockerfile", &dockerfile);
    }
    for (path, content) in row.files {
        place.file(path, content);
    }
    let words = row.command.split(' ').skip(1);
    let words = words.map(|word| word.replace("{registry}", &registry.address));
    let mut command = Command::new(env!("CARGO_BIN_EXE_rbuild"));
    command
        .env("RBUILD_ROOT", place.path().join("root"))
        .current_dir(&context)
        .stdin(std::process::Stdio::null());
    for name in [
        "BUILDKIT_PROGRESS",
        "NO_COLOR",
        "GITHUB_ACTIONS",
        "GITLAB_CI",
        "SOURCE_DATE_EPOCH",
        "CI",
    ] {
        command.env_remove(name);
    }
    let words: Vec<String> = words.collect();
    let is_build = words.first().is_some_and(|word| word == "build");
    command.args(words);
    if is_build && !row.dockerfile.is_empty() {
        command.env("BUILDKIT_PROGRESS", "quiet").arg(format!(
            "--build-context=base=oci-layout://{}",
            place.path().join("base").display()
        ));
    }
    let output = command.output().unwrap();
    let printed = String::from_utf8_lossy(&output.stderr);
    if output.status.success() || printed.contains("panicked") {
        return Err(format!("{}: {output:?}", row.title));
    }
    let printed = same_everywhere(&printed, place, registry);
    // Writing to a string can't fail.
    let _ = write!(text, "\n### {}\n", row.title);
    if !row.dockerfile.is_empty() {
        let _ = write!(
            text,
            "\n```dockerfile\n{}```\n",
            row.dockerfile.replace("{registry}", "localhost:5000")
        );
    }
    for (path, content) in row.files {
        let shown = content.replace('\r', "␍");
        if shown.contains(|letter: char| letter.is_control() && letter != '\n') {
            let _ = write!(
                text,
                "\n`{path}`: {} bytes that are no text\n",
                content.len()
            );
            continue;
        }
        let _ = write!(text, "\n`{path}`:\n\n```\n{}\n```\n", shown.trim_end());
    }
    let typed = row.command.replace("{registry}", "localhost:5000");
    let _ = write!(text, "\n```console\n$ {typed}\n{}\n```\n", printed.trim());
    if !row.more.is_empty() {
        let _ = write!(text, "\n{}\n", row.more);
    }
    Ok(())
}

/// What a test's directories, ports and this machine's base have to do with a message is taken out of it.
fn same_everywhere(printed: &str, place: &Place, registry: &Registry) -> String {
    let text = printed
        .replace(&place.context().display().to_string(), "/src")
        .replace(
            &place.path().join("root").display().to_string(),
            "/var/lib/rbuild",
        )
        .replace(&place.path().display().to_string(), "/tmp/place")
        .replace(&registry.address, "localhost:5000");
    let mut lines = Vec::new();
    for line in text.lines() {
        lines.push(without_digests(line));
    }
    lines.join("\n")
}

/// Digests are those of this machine's busybox.
fn without_digests(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some(at) = rest.find("sha256:") {
        let (before, digest) = rest.split_at(at + "sha256:".len());
        let length = digest.bytes().take_while(u8::is_ascii_hexdigit).count();
        text += before;
        text += if length >= 12 {
            "…"
        } else {
            &digest[..length]
        };
        rest = &digest[length..];
    }
    text + rest
}
