//! Files as people write them, and the command lines that come of them.

use std::path::Path;

use tempfile::TempDir;

use super::*;

/// Files below a home and a project, and the settings that a command line leads to.
struct Machine {
    directory: TempDir,
}

impl Machine {
    fn new(files: &[(&str, &str)]) -> Self {
        let machine = Self {
            directory: TempDir::new().expect("a directory"),
        };
        for (path, text) in files {
            let path = machine.path().join(path);
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("a directory");
            std::fs::write(path, text).expect("a file");
        }
        std::fs::create_dir_all(machine.path().join("project")).expect("a directory");
        machine
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn variables(&self, more: &[(&str, &str)]) -> Variables {
        let home = self.path().join("home").display().to_string();
        let pairs = more
            .iter()
            .copied()
            .chain([("XDG_CONFIG_HOME", home.as_str())]);
        pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    /// What is added to a command line.
    fn words(&self, typed: &str, variables: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let command = crate::cli::command();
        let project = self.path().join("project").display().to_string();
        let typed: Vec<OsString> = typed
            .split(' ')
            .map(|word| word.replace("PROJECT", &project).into())
            .collect();
        let matches = command
            .clone()
            .try_get_matches_from(&typed)
            .map_err(|error| error.to_string())?;
        let variables = self.variables(variables);
        let settings = Settings::read(&command, &matches, &variables).map_err(|error| {
            format!("{error}; {}", error.help().unwrap_or_default())
                .replace(&self.path().display().to_string(), "")
        })?;
        let flags = typed_flags(&command, &matches, &typed);
        let verb = matches.subcommand_name().unwrap_or_default();
        let words = settings.words(verb, &flags, &variables);
        Ok(words
            .into_iter()
            .map(|word| word.to_string_lossy().into_owned())
            .collect())
    }
}

const HOME: &str = "home/rbuild/rbuild.toml";
const PROJECT: &str = "project/rbuild.toml";

#[test]
fn a_file_says_what_was_not_typed() {
    let machine = Machine::new(&[(
        HOME,
        "root = \"/srv/rbuild\"\n[build]\nnetwork = \"none\"\nno-cache = true\nbuild-arg = { A = 1, B = \"x y\" }\ncache-from = [\"type=local,src=/c\", \"type=inline,ref=r\"]\n[check]\nseverity = \"error\"\n",
    )]);
    let words = machine.words("rbuild build PROJECT", &[]).expect("words");
    assert_eq!(
        words,
        [
            "--root=/srv/rbuild",
            "--network=none",
            "--no-cache",
            "--build-arg=A=1",
            "--build-arg=B=x y",
            "--cache-from=type=local,src=/c",
            "--cache-from=type=inline,ref=r",
        ]
    );
    let typed = "rbuild --root /r build --network=host --no-cache --build-arg C=3 --cache-from type=local,src=/d PROJECT";
    assert_eq!(machine.words(typed, &[]).expect("words"), [""; 0]);
    assert_eq!(
        machine.words("rbuild images", &[]).expect("words"),
        ["--root=/srv/rbuild"]
    );
}

#[test]
fn variables_go_before_files_and_projects_before_users() {
    let machine = Machine::new(&[
        (
            HOME,
            "root = \"/srv\"\n[build]\nprogress = \"plain\"\ntarget = \"dev\"\n",
        ),
        (PROJECT, "[build]\ntarget = \"release\"\n"),
    ]);
    assert_eq!(
        machine.words("rbuild build PROJECT", &[]).expect("words"),
        ["--root=/srv", "--progress=plain", "--target=release"]
    );
    let set = [("BUILDKIT_PROGRESS", "quiet"), ("RBUILD_ROOT", "/r")];
    assert_eq!(
        machine.words("rbuild build PROJECT", &set).expect("words"),
        ["--target=release"]
    );
}

#[test]
fn a_named_file_stands_for_those_of_machine_and_user() {
    let machine = Machine::new(&[
        (HOME, "[build]\nnetwork = \"none\"\n"),
        ("ci.toml", "[build]\nprogress = \"plain\"\n"),
    ]);
    let path = machine.path().join("ci.toml").display().to_string();
    let wanted = ["--progress=plain"];
    let typed = format!("rbuild --config {path} build PROJECT");
    assert_eq!(machine.words(&typed, &[]).expect("words"), wanted);
    let set = [("RBUILD_CONFIG", path.as_str())];
    assert_eq!(
        machine.words("rbuild build PROJECT", &set).expect("words"),
        wanted
    );
    let missing = machine.words("rbuild --config /nowhere.toml build PROJECT", &[]);
    assert!(missing.is_err(), "a named file has to be there");
}

#[test]
fn what_a_file_may_not_say_is_an_error_with_its_line() {
    for (path, text, wanted) in [
        (
            HOME,
            "[build]\nnetwrok = \"none\"\n",
            "/home/rbuild/rbuild.toml:2: there is no key `netwrok`; did you mean `network`?",
        ),
        (
            HOME,
            "[biuld]\n",
            "/home/rbuild/rbuild.toml:1: there is no table `biuld`; did you mean `build`?",
        ),
        (
            HOME,
            "\nnetwork = \"none\"\n",
            "/home/rbuild/rbuild.toml:2: `network` stands outside of the table of its verb; put it below",
        ),
        (
            HOME,
            "colour = 1\n",
            "/home/rbuild/rbuild.toml:1: there is no key `colour`",
        ),
        (
            HOME,
            "[build]\nno-cache = \"yes\"\n",
            "/home/rbuild/rbuild.toml:2: `no-cache` is true or false",
        ),
        (
            HOME,
            "[build]\ncache-from = [[1]]\n",
            "/home/rbuild/rbuild.toml:2: `cache-from` is a list of texts",
        ),
        (HOME, "[build\n", "/home/rbuild/rbuild.toml:1: "),
        (HOME, "[build]\nroot = \"/x\"\n", "there is no key `root`"),
        (
            PROJECT,
            "[build]\nallow = [\"security.insecure\"]\n",
            "/project/rbuild.toml:2: a project may not set `allow`; it is for the user to decide",
        ),
        (
            PROJECT,
            "[build]\nsecret = [\"id=a,src=/etc/shadow\"]\n",
            "a project may not set `secret`",
        ),
        (
            PROJECT,
            "[build]\ntag = [\"debian:12\"]\n",
            "a project may not set `tag`",
        ),
        (PROJECT, "root = \"/x\"\n", "a project may not set `root`"),
    ] {
        let error = Machine::new(&[(path, text)])
            .words("rbuild build PROJECT", &[])
            .expect_err(text);
        assert!(error.contains(wanted), "{text}: {error}");
    }
}

#[test]
fn a_projects_file_is_no_link_and_no_bottomless_pit() {
    let machine = Machine::new(&[("secret", "password = \"x\"\n")]);
    std::os::unix::fs::symlink(machine.path().join("secret"), machine.path().join(PROJECT))
        .expect("a link");
    assert_eq!(
        machine.words("rbuild build PROJECT", &[]).expect("words"),
        [""; 0]
    );
    let long = format!("# {}\n", "x".repeat(300_000));
    let error = Machine::new(&[(PROJECT, &long)]).words("rbuild build PROJECT", &[]);
    assert!(
        error
            .expect_err("it is too long")
            .contains("is larger than")
    );
}

#[test]
fn a_values_origin_is_known() {
    let machine = Machine::new(&[(HOME, "[build]\n\nmemory = \"lots\"\n")]);
    let command = crate::cli::command();
    let matches = command
        .clone()
        .try_get_matches_from(["rbuild", "build", "."])
        .expect("it parses");
    let variables = machine.variables(&[]);
    let settings = Settings::read(&command, &matches, &variables).expect("settings");
    let origin = settings.origin("--memory", "lots").expect("an origin");
    assert!(origin.ends_with("home/rbuild/rbuild.toml:3"), "{origin}");
    assert_eq!(settings.origin("--memory", "1g"), None);
}
