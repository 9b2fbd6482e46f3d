//! The commands of the guides are run as they stand there, in their order.
//!
//! In a block `console` a line that begins with `$ ` is a command, which has to succeed, and the lines below it are in what it
//! prints, in that order. Of other blocks the commands of rbuild are run. A block below a line that ends with a file's name and a
//! colon is that file. Names of registries lead to one on this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::Place;
use crate::support::registry::Registry;

/// A directory to follow a guide in, and a registry behind all names.
struct Reader {
    place: Place,
    _registry: Registry,
}

impl Reader {
    fn new() -> Self {
        let place = Place::new();
        let registry = Registry::start(&place.path().join("registry"));
        let conf: String = ["docker.io", "registry.example.com", "ghcr.io"]
            .map(|name| {
                format!(
                    "[[registry]]\nprefix = \"{name}\"\nlocation = \"{}\"\ninsecure = true\n",
                    registry.address
                )
            })
            .concat();
        fs::write(place.path().join("registries.conf"), conf).unwrap();
        let base = place.path().join("base");
        for name in ["busybox:latest", "debian:12"] {
            let copied = place
                .rbuild()
                .args(["copy", &format!("oci:{}", base.display())])
                .arg(format!("{}/library/{name}", registry.address))
                .output()
                .unwrap();
            assert!(copied.status.success(), "{copied:?}");
        }
        Self {
            place,
            _registry: registry,
        }
    }

    /// Runs a line as a shell would, and gives what it printed. It has to succeed.
    fn run(&self, line: &str) -> String {
        let directory = Path::new(env!("CARGO_BIN_EXE_rbuild")).parent().unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let output = Command::new("bash")
            .args(["-o", "pipefail", "-c", line])
            .current_dir(self.place.context())
            .env("PATH", format!("{}:{path}", directory.display()))
            .env("HOME", self.place.path())
            .env("RBUILD_ROOT", self.place.path().join("root"))
            .env(
                "CONTAINERS_REGISTRIES_CONF",
                self.place.path().join("registries.conf"),
            )
            .env("REGISTRY_USER", "alice")
            .env("REGISTRY_PASSWORD", "secret")
            .env("CI_REGISTRY", "registry.example.com")
            .env("CI_REGISTRY_USER", "alice")
            .env("CI_REGISTRY_PASSWORD", "secret")
            .env("CI_COMMIT_SHORT_SHA", "0123abcd")
            .env("GITHUB_SHA", "0123abcd")
            .env("BUILD_NUMBER", "7")
            .env_remove("SOURCE_DATE_EPOCH")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed).into_owned();
        assert!(output.status.success(), "$ {line}\n{printed}");
        printed
    }

    /// Does what a page says, and gives the number of commands.
    fn follow(&self, page: &str) -> usize {
        let text = fs::read_to_string(root().join(page)).unwrap();
        let mut commands = 0;
        for block in blocks(&text) {
            if let Some(name) = block.file {
                self.place.file(name, block.text);
            } else if block.language == "console" {
                commands += self.follow_console(block.text);
            } else {
                for command in block.text.lines().filter_map(command_in) {
                    self.run(command);
                    commands += 1;
                }
            }
        }
        commands
    }

    fn follow_console(&self, text: &str) -> usize {
        let mut commands = 0;
        let mut printed = String::new();
        for line in text.lines() {
            if let Some(command) = line.strip_prefix("$ ") {
                printed = self.run(command);
                commands += 1;
            } else {
                let at = printed.find(line);
                let at = at.unwrap_or_else(|| panic!("`{line}` is not in:\n{printed}"));
                printed.drain(..at + line.len());
            }
        }
        commands
    }
}

/// A command of rbuild in a CI system's file.
fn command_in(line: &str) -> Option<&str> {
    let line = line.trim();
    let line = line.strip_prefix("- ").unwrap_or(line);
    let line = line.strip_prefix("run: ").unwrap_or(line);
    let line = line
        .strip_prefix("sh '")
        .and_then(|line| line.strip_suffix('\''))
        .unwrap_or(line);
    (line.starts_with("rbuild ") || line.starts_with("echo ")).then_some(line)
}

struct Block<'a> {
    language: &'a str,
    /// The file that it is.
    file: Option<&'a str>,
    text: &'a str,
}

fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut found = Vec::new();
    let mut before = "";
    let mut rest = page;
    while let Some((above, after)) = rest.split_once("```") {
        let (language, after) = after.split_once('\n').unwrap();
        let (text, after) = after.split_once("```").unwrap();
        before = above.trim_end().lines().last().unwrap_or(before);
        let named = before
            .strip_suffix("`:")
            .and_then(|line| line.rsplit('`').next());
        found.push(Block {
            language,
            file: named,
            text,
        });
        rest = after;
    }
    found
}

/// The project's directory.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Pages that have each other's project: the guide makes it.
const GUIDES: [&str; 3] = ["docs/guide.md", "docs/ci.md", "docs/moving.md"];

/// Pages with messages of builds that fail; `errors` makes and compares them.
const OF_ERRORS: &str = "docs/errors.md";

#[test]
fn the_guides_do_what_they_say() {
    let reader = Reader::new();
    for (page, least) in GUIDES.into_iter().zip([20, 5, 5]) {
        assert!(reader.follow(page) >= least, "{page} has commands");
    }
}

/// All other pages, each with a small project of its own.
#[test]
fn commands_of_all_pages_work() {
    let listed = fs::read_dir(root().join("docs")).unwrap();
    let names = listed.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let pages = names.filter(|name| Path::new(name).extension() == Some("md".as_ref()));
    let mut pages: Vec<String> = pages.map(|name| format!("docs/{name}")).collect();
    pages.push("README.md".to_owned());
    pages.sort();
    let mut commands = 0;
    for page in pages {
        let text = fs::read_to_string(root().join(&page)).unwrap();
        let is_followed = GUIDES.contains(&page.as_str()) || page == OF_ERRORS;
        if is_followed
            || !blocks(&text)
                .iter()
                .any(|block| block.language == "console")
        {
            continue;
        }
        let reader = Reader::new();
        reader.place.file(
            "Dockerfile",
            "FROM busybox AS test\nARG VERSION\nRUN --mount=type=secret,id=npm cat /run/secrets/* > /dev/null; true\nCMD [\"true\"]\n",
        );
        fs::write(reader.place.path().join(".npmrc"), "token").unwrap();
        commands += reader.follow(&page);
    }
    assert!(commands >= 20, "{commands} commands");
}
