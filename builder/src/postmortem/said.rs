//! Words that programs write when they fail for a reason that lies outside of them.

use super::Failed;

/// One reason, and the words that give it away.
struct Sign {
    words: &'static [&'static str],
    advice: fn(&Failed<'_>) -> Option<String>,
}

/// The first that is found, from the last line up, is told.
const SIGNS: [Sign; 9] = [
    Sign {
        words: &[
            "Temporary failure resolving",
            "Temporary failure in name resolution",
            "Could not resolve host",
            "Could not resolve '",
            "Name or service not known",
            "bad address '",
            "unable to resolve host address",
            "getaddrinfo ENOTFOUND",
            "getaddrinfo EAI_AGAIN",
            "failed to lookup address information",
            "no such host",
            "Name does not resolve",
            "DNS lookup error",
            "temporary error (try again later)",
        ],
        advice: |failed| Some(names(failed)),
    },
    Sign {
        words: &[
            "Network is unreachable",
            "Network unreachable",
            "Host is unreachable",
        ],
        advice: |failed| Some(network(failed)),
    },
    Sign {
        words: &[
            "certificate verify failed",
            "SSL certificate problem",
            "signed by unknown authority",
            "unable to get local issuer certificate",
            "self-signed certificate",
            "self signed certificate",
            "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
            "No system certificates available",
            "cannot verify the certificate",
            "UnknownIssuer",
        ],
        advice: |_| Some(certificates()),
    },
    Sign {
        words: &["No space left on device", "ENOSPC", "Disk quota exceeded"],
        advice: |_| {
            Some("the disk of the store is full, or what is mounted in the step: free some space (`rbuild prune`), put the store elsewhere with `--root`, or give `/dev/shm` more with `--shm-size`".to_owned())
        },
    },
    Sign {
        words: &["Unable to locate package", "has no installation candidate"],
        advice: package_lists,
    },
    Sign {
        words: &[
            "404  Not Found [IP:",
            "Some index files failed to download",
            "Unable to fetch some archives",
        ],
        advice: |_| {
            Some("package lists of a cached step grow old: write `apt-get update && apt-get install …` in one RUN, so that both run again together".to_owned())
        },
    },
    Sign {
        words: &[
            "[[: not found",
            "source: not found",
            "Syntax error: \"(\" unexpected",
            "Bad substitution",
            "Illegal option -o pipefail",
            "invalid option 'pipefail'",
        ],
        advice: |_| Some(needs_bash()),
    },
    Sign {
        words: &["exec format error", "Exec format error"],
        advice: |_| {
            Some(format!(
                "a program for another machine than this one ({}) was started; build it in a stage `FROM --platform=$BUILDPLATFORM …`, or install qemu-user-static",
                crate::build::this_machine()
            ))
        },
    },
    Sign {
        words: &[
            "System has not been booted with systemd",
            "Failed to connect to bus",
        ],
        advice: |_| {
            Some("no service manager runs while an image is built: start services in the image's ENTRYPOINT, or enable them with `systemctl enable`, which needs none".to_owned())
        },
    },
];

/// Lines that are looked at, from the last.
const LINES: usize = 40;

pub(super) fn advice(failed: &Failed<'_>, lines: &[&str]) -> Option<String> {
    lines.iter().rev().take(LINES).find_map(|line| {
        let sign = SIGNS
            .iter()
            .find(|sign| sign.words.iter().any(|words| line.contains(words)))?;
        (sign.advice)(failed)
    })
}

/// A shell that is no bash was given bash's words.
pub(super) fn needs_bash() -> String {
    "that is bash's, and `/bin/sh` is another shell here: write it for sh, or put `SHELL [\"/bin/bash\", \"-c\"]` before it where the image has bash".to_owned()
}

fn names(failed: &Failed<'_>) -> String {
    if failed.is_offline {
        return OFFLINE.to_owned();
    }
    let text = String::from_utf8_lossy(failed.resolv_conf);
    let servers: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .map(str::trim)
        .collect();
    let asked = if servers.is_empty() {
        "this machine names no name server in /etc/resolv.conf".to_owned()
    } else {
        format!("the step asks the name servers {}", servers.join(", "))
    };
    format!(
        "{asked}: see whether names resolve on this machine; behind a proxy, pass `--build-arg HTTPS_PROXY=…`; for a name of your own, `--add-host NAME:ADDRESS`"
    )
}

const OFFLINE: &str = "the step has no network (`--network none`, or `RUN --network=none`): fetch what it needs in an earlier step or with ADD, or let it have one";

fn network(failed: &Failed<'_>) -> String {
    if failed.is_offline {
        OFFLINE.to_owned()
    } else {
        "the address can't be reached from this machine either, or only by IPv6: see `rbuild info` for the network that steps get".to_owned()
    }
}

fn certificates() -> String {
    "the server's certificate is not trusted in the image: install `ca-certificates` first; where a proxy opens TLS, `--ca-cert FILE` has RUN steps trust its authority, and leaves nothing of it in the image".to_owned()
}

fn package_lists(failed: &Failed<'_>) -> Option<String> {
    (!failed.script.contains("update")).then(|| {
        "the image has no (recent) package lists: write `apt-get update && apt-get install …` in one RUN".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use rbuild_runner::job::CommandStatus;

    use super::*;

    #[test]
    fn last_words_lead_to_the_way_out() {
        let failed = |script, is_offline| Failed {
            status: CommandStatus::Exited(100),
            output: b"",
            script,
            working_directory: "/",
            is_offline,
            resolv_conf: b"search x\nnameserver 192.0.2.1\nnameserver 2001:db8::1\n",
        };
        for (script, is_offline, line, wanted) in [
            (
                "curl x",
                false,
                "curl: (6) Could not resolve host: x",
                "the name servers 192.0.2.1, 2001:db8::1",
            ),
            (
                "curl x",
                true,
                "curl: (6) Could not resolve host: x",
                "the step has no network",
            ),
            (
                "wget x",
                true,
                "wget: can't connect to remote host: Network is unreachable",
                "the step has no network",
            ),
            (
                "apt-get install x",
                false,
                "E: Unable to locate package x",
                "apt-get update &&",
            ),
            (
                "curl",
                false,
                "curl: (60) SSL certificate problem: unable to get local issuer certificate",
                "ca-certificates",
            ),
            (
                "cp",
                false,
                "cp: error writing 'x': No space left on device",
                "rbuild prune",
            ),
            (
                "set",
                false,
                "/bin/sh: 1: set: Illegal option -o pipefail",
                "SHELL [",
            ),
        ] {
            let said = advice(&failed(script, is_offline), &["before", line, "after"]);
            assert!(
                said.as_ref().is_some_and(|said| said.contains(wanted)),
                "{line}: {said:?}"
            );
        }
        assert_eq!(
            advice(
                &failed("apt-get update && apt-get install x", false),
                &["E: Unable to locate package x"]
            ),
            None
        );
        assert_eq!(
            advice(&failed("make", false), &["make: *** [all] Error 2"]),
            None
        );
    }
}
