//! The list of all messages: the words of every error type of the sources, with what each is.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

const HEAD: &str = "\n## All messages\n\n\
    What the program can say beside the codes of [rules.md](rules.md), from its sources: `{…}` is filled in. The line `caused by:` below an error is\n\
    another of these, or what the operating system says.\n";

/// Rooms, in the order of a build.
const ROOMS: [(&str, &str); 4] = [
    ("frontend", "The Dockerfile"),
    (
        "builder",
        "The build, images and registries, the command line",
    ),
    ("runner", "Files, layers and sandboxes"),
    ("cache", "The store"),
];

/// All of them, as Markdown.
pub(super) fn list() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut text = HEAD.to_owned();
    for (room, title) in ROOMS {
        let mut messages = Vec::new();
        for path in sources(&root.join(room).join("src")) {
            messages.extend(messages_of(&fs::read_to_string(path).unwrap()));
        }
        messages.sort();
        messages.dedup();
        assert!(messages.len() > 10, "{room} has messages");
        // Writing to a string can't fail.
        let _ = write!(text, "\n### {title}\n\n| message | when |\n|---|---|\n");
        for (message, when) in messages {
            let _ = writeln!(text, "| {} | {} |", cell(&message), cell(&when));
        }
    }
    text
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "\\<")
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut entries: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && path.file_name().is_some_and(|name| name != "tests.rs")
        {
            found.push(path);
        }
    }
    found
}

/// The texts of `#[error("…")]`, each with the doc comment above it.
fn messages_of(source: &str) -> Vec<(String, String)> {
    // What is in tests no user meets.
    let source = source
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or(source);
    let mut found = Vec::new();
    let mut docs: Vec<&str> = Vec::new();
    let mut rest = source;
    while !rest.is_empty() {
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let line = line.trim();
        if let Some(doc) = line.strip_prefix("///") {
            docs.push(doc.trim());
        } else if line.starts_with("#[error(") {
            if let Some(message) = first_string(rest) {
                found.push((message, docs.join(" ")));
            }
            docs.clear();
        } else if !line.starts_with("#[") {
            docs.clear();
        }
        rest = after;
    }
    found
}

/// The first string literal of an attribute; none for `transparent`.
fn first_string(text: &str) -> Option<String> {
    let attribute = text.split_once("#[error(")?.1;
    let start = attribute.trim_start().strip_prefix('"')?;
    let mut message = String::new();
    let mut characters = start.chars();
    loop {
        match characters.next()? {
            '"' => return Some(message),
            '\\' => match characters.next()? {
                // A literal that goes on in the next line.
                '\n' => characters = characters.as_str().trim_start().chars(),
                'n' => message.push(' '),
                other => message.push(other),
            },
            other => message.push(other),
        }
    }
}
