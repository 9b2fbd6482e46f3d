//! Examples below the help of each verb. A test reads every line as the command line would.

use clap::Command;

/// Verbs, and lines of `COMMAND`, at least two spaces, and what it does.
const EXAMPLES: &[(&[&str], &str)] = &[
    (
        &["build"],
        "  rbuild -t app .                                     ./Dockerfile into the store\n  \
         rbuild -t registry.example.com/app:1 --push .       and to its registry\n  \
         rbuild -f deploy/Dockerfile --target test -o out .  the files of a stage into a directory\n  \
         rbuild --secret id=npm,src=.npmrc --ssh default .   what steps may see, and nobody after them",
    ),
    (
        &["check"],
        "  rbuild check                          the Dockerfile here\n  \
         rbuild check --fix                    mend what is mechanical, after a diff\n  \
         rbuild check --format github .        annotations for a CI",
    ),
    (
        &["run"],
        "  rbuild run app                        its own command\n  \
         rbuild run -it app sh                 a shell in it\n  \
         rbuild run -p 8080:80 -e MODE=test app",
    ),
    (
        &["shell"],
        "  rbuild shell                          where the last failed step stopped\n  \
         rbuild shell last 3 -- ls /app        a command there instead",
    ),
    (
        &["images"],
        "  rbuild images -q                      ids only",
    ),
    (
        &["inspect"],
        "  rbuild inspect --format '{{.Config.Cmd}}' app\n  \
         rbuild inspect --manifest app",
    ),
    (&["history"], "  rbuild history --no-trunc app"),
    (
        &["layers"],
        "  rbuild layers app                     a tree to walk through, on a terminal\n  \
         rbuild layers app 3                   the files of the third layer",
    ),
    (
        &["explain"],
        "  rbuild explain                        why the steps of the last build ran\n  \
         rbuild explain -t app 'RUN make'      one step, and what its key is made of",
    ),
    (
        &["builds"],
        "  rbuild builds -n 5\n  rbuild builds show last",
    ),
    (
        &["logs"],
        "  rbuild logs last 'RUN make'           all that a step wrote, also one that was cached\n  \
         rbuild logs -f                        of the build that runs",
    ),
    (
        &["report"],
        "  rbuild report -o report.html          the last build as a page",
    ),
    (
        &["graph"],
        "  rbuild graph --format svg .           the plan, with what is cached\n  \
         rbuild graph --build last             what became of it",
    ),
    (&["tag"], "  rbuild tag app registry.example.com/app:1"),
    (&["rmi"], "  rbuild rmi app:old"),
    (&["du"], "  rbuild du -v"),
    (
        &["prune"],
        "  rbuild prune --dry-run                what would go\n  \
         rbuild prune -f --filter until=24h    what was not used for a day",
    ),
    (&["cache", "ls"], "  rbuild cache ls"),
    (&["cache", "rm"], "  rbuild cache rm /root/.cache/pip"),
    (&["fsck"], "  rbuild fsck --repair"),
    (&["pull"], "  rbuild pull debian:12"),
    (
        &["push"],
        "  rbuild push registry.example.com/app:1\n  rbuild push --all-tags registry.example.com/app",
    ),
    (
        &["save"],
        "  rbuild save -o app.tar app other      for docker load, podman load, skopeo copy",
    ),
    (&["load"], "  rbuild load -i app.tar"),
    (
        &["copy"],
        "  rbuild copy debian:12 oci:mirror:12   all platforms, as they are\n  \
         rbuild copy store:app docker-archive:app.tar",
    ),
    (
        &["import"],
        "  rbuild import --change 'CMD [\"sh\"]' rootfs.tar base:1",
    ),
    (&["export"], "  rbuild export -o rootfs.tar app"),
    (
        &["login"],
        "  rbuild login -u me --password-stdin registry.example.com",
    ),
    (&["logout"], "  rbuild logout registry.example.com"),
    (
        &["info"],
        "  rbuild info                           what this machine allows, and why not more\n  \
         rbuild info registry.example.com      which file decided what",
    ),
    (&["completion"], "  rbuild completion bash"),
    (&["man"], "  rbuild man man1"),
];

/// The command line with examples in its long help.
pub(super) fn add(command: Command) -> Command {
    add_below(command, &[])
}

/// In all verbs below one; their order stays what it is.
fn add_below(command: Command, above: &[String]) -> Command {
    command.mut_subcommands(|verb| {
        let path: Vec<String> = above
            .iter()
            .cloned()
            .chain([verb.get_name().to_owned()])
            .collect();
        let example = EXAMPLES.iter().find(|(verbs, _)| path == *verbs);
        let verb = match example {
            Some((_, text)) => verb.after_long_help(format!("Examples:\n{text}")),
            None => verb,
        };
        add_below(verb, &path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{command, completion, typed};

    #[test]
    fn examples_are_command_lines() {
        for (_, text) in EXAMPLES {
            for line in text.lines() {
                let line = line.trim_start();
                let typed = completion::split(line.split("  ").next().unwrap());
                let matches = command().try_get_matches_from(typed::normalise(&command(), typed));
                assert!(matches.is_ok(), "{line}: {}", matches.unwrap_err());
            }
        }
    }

    #[test]
    fn every_verb_has_an_example() {
        let command = command();
        let without = command
            .get_subcommands()
            .filter(|verb| verb.get_after_long_help().is_none());
        let without: Vec<&str> = without.map(Command::get_name).collect();
        // They say all there is to say, or have verbs below them that do.
        assert_eq!(without, ["cache", "version"]);
    }
}
