//! Why a step ran: the parts of its key now, against those of the same step in an earlier build.
//!
//! ```text
//! parts    step, parent, inputs ─▶ named values            what the key was made of, for people
//! align    steps now, steps then ─▶ which is which         an instruction that was edited, inserted or removed
//! compare  parts now, parts then ─▶ reasons                by name; files by name too
//! ```
//! Pure but for the file lists, which come from the store. Values of secrets are never among the parts; those of build
//! arguments and variables whose names look like secrets are replaced by a check of 16 bits.

pub(crate) mod align;
pub(crate) mod compare;
pub(crate) mod parts;

use std::fmt;

use serde::{Deserialize, Serialize};

/// Letters of an instruction that are shown whole.
const LONG_INSTRUCTION: usize = 60;

/// Letters that are shown on both sides of a difference.
const CONTEXT: usize = 12;

/// One reason for a step to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reason {
    /// There is no earlier build to compare with.
    FirstBuild,
    /// Earlier builds had no such step, or never came to it.
    NewStep,
    /// It was told to ignore the cache.
    NoCache {
        /// `--no-cache` or `--no-cache-filter`.
        flag: String,
    },
    /// The line of the Dockerfile is another.
    Instruction {
        /// Then.
        before: String,
        /// Now.
        after: String,
    },
    /// A file that it reads is another.
    File {
        /// Its path in what it is read from.
        path: String,
        /// What about it.
        change: FileChange,
    },
    /// More files than are listed.
    MoreFiles {
        /// How many more.
        count: usize,
    },
    /// Files that it reads are others; which, is not known any more.
    Files {
        /// Where they are read.
        source: String,
    },
    /// A build argument.
    BuildArgument {
        /// Its name.
        name: String,
        /// Its value then, if it had one.
        before: Option<String>,
        /// Its value now, if it has one.
        after: Option<String>,
    },
    /// An environment variable.
    Environment {
        /// Its name.
        name: String,
        /// Its value then, if it was set.
        before: Option<String>,
        /// Its value now, if it is set.
        after: Option<String>,
    },
    /// The image that it stands on.
    BaseImage {
        /// Its name now.
        name: String,
        /// Name or digest then.
        before: String,
        /// Name or digest now.
        after: String,
    },
    /// The step below left something else.
    Parent {
        /// Which, as the progress shows it.
        step: String,
    },
    /// Something else about how it runs.
    Setting {
        /// What.
        name: String,
        /// Then.
        before: Option<String>,
        /// Now.
        after: Option<String>,
    },
    /// It failed in the build before.
    FailedBefore,
    /// It was not done when the build before ended.
    UnfinishedBefore,
    /// Files of its result were found missing or damaged.
    DamagedLayer,
    /// The machine went down before its result was on the disk.
    PowerCut,
    /// Another version of rbuild made the record, and its keys are made otherwise.
    OtherVersion {
        /// That version.
        before: String,
        /// This one.
        after: String,
    },
    /// Nothing it depends on changed, but the store has its record no more.
    Pruned,
}

/// What about a file is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileChange {
    /// It was not there.
    Added,
    /// It is not there any more.
    Removed,
    /// Its bytes, or a link's target.
    Content,
    /// Its permission bits.
    Mode,
    /// Its owner or group.
    Owner,
    /// Its extended attributes.
    Attributes,
    /// What it is: a file, a directory, a link.
    Type,
}

impl fmt::Display for FileChange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Content => "content",
            Self::Mode => "mode",
            Self::Owner => "owner",
            Self::Attributes => "extended attributes",
            Self::Type => "type",
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FirstBuild => formatter.write_str("first build"),
            Self::NewStep => formatter.write_str("new step"),
            Self::NoCache { flag } => formatter.write_str(flag),
            Self::Instruction { before, after } => {
                let (before, after) = around_change(before, after);
                write!(formatter, "instruction changed: {before} → {after}")
            }
            Self::File { path, change } => write!(formatter, "file {path} ({change})"),
            Self::MoreFiles { count: 1 } => formatter.write_str("and 1 more file"),
            Self::MoreFiles { count } => write!(formatter, "and {count} more files"),
            Self::Files { source } => write!(formatter, "files of {source}"),
            Self::BuildArgument {
                name,
                before,
                after,
            } => change(
                formatter,
                &format!("build arg {name}"),
                before.as_deref(),
                after.as_deref(),
            ),
            Self::Environment {
                name,
                before,
                after,
            } => change(
                formatter,
                &format!("variable {name}"),
                before.as_deref(),
                after.as_deref(),
            ),
            Self::BaseImage {
                name,
                before,
                after,
            } if after == name => {
                write!(formatter, "base image {before} → {after}")
            }
            Self::BaseImage {
                name,
                before,
                after,
            } => write!(
                formatter,
                "base image {name} {} → {}",
                short(before),
                short(after)
            ),
            Self::Parent { step } => {
                write!(formatter, "parent step {step} gave another result")
            }
            Self::Setting {
                name,
                before,
                after,
            } => change(formatter, name, before.as_deref(), after.as_deref()),
            Self::FailedBefore => formatter.write_str("it failed in the build before"),
            Self::UnfinishedBefore => {
                formatter.write_str("the build before ended while it was running")
            }
            Self::DamagedLayer => {
                formatter.write_str("a layer of its result was damaged and taken out of the store")
            }
            Self::PowerCut => formatter
                .write_str("the machine went down before a layer of its result was on the disk"),
            Self::OtherVersion { before, after } => {
                write!(formatter, "rbuild {before} → {after}")
            }
            Self::Pruned => formatter.write_str("its record was pruned"),
        }
    }
}

/// `build arg A 1 → 2`, `build arg A 1 (new)`, `build arg A (removed)`; hidden values only as changed.
fn change(
    formatter: &mut fmt::Formatter<'_>,
    what: &str,
    before: Option<&str>,
    after: Option<&str>,
) -> fmt::Result {
    let is_hidden = |value: Option<&str>| value.is_some_and(parts::is_hidden);
    let shown = |value: &str| if value.is_empty() { "\"\"" } else { value }.to_owned();
    match (before, after) {
        _ if is_hidden(before) || is_hidden(after) => {
            write!(formatter, "{what} (its value is not shown)")
        }
        (Some(before), Some(after)) => {
            write!(formatter, "{what} {} → {}", shown(before), shown(after))
        }
        (None, Some(after)) => write!(formatter, "{what} {} (new)", shown(after)),
        (Some(_) | None, None) => write!(formatter, "{what} (removed)"),
    }
}

/// Two texts cut to what is near their difference, if they are long.
fn around_change(before: &str, after: &str) -> (String, String) {
    let (before, after): (Vec<char>, Vec<char>) =
        (before.chars().collect(), after.chars().collect());
    if before.len().max(after.len()) <= LONG_INSTRUCTION {
        return (before.into_iter().collect(), after.into_iter().collect());
    }
    let same = |pair: &(&char, &char)| pair.0 == pair.1;
    let start = before.iter().zip(&after).take_while(same).count();
    let rest = before.len().min(after.len()) - start;
    let pairs = before.iter().rev().zip(after.iter().rev()).take(rest);
    let end = pairs.take_while(same).count();
    let cut = |text: &[char]| {
        let from = start.saturating_sub(CONTEXT);
        let to = (text.len() - end + CONTEXT).min(text.len());
        let to = to.min(from + LONG_INSTRUCTION);
        // The first word tells what instruction it is.
        let word = text.iter().position(|letter| *letter == ' ').unwrap_or(0);
        let head: String = text[..word.min(from)].iter().collect();
        let middle: String = text[from..to].iter().collect();
        let (left, right) = (
            if from > 0 { " …" } else { "" },
            if to < text.len() { "…" } else { "" },
        );
        format!("{head}{left}{middle}{right}")
    };
    (cut(&before), cut(&after))
}

/// `sha256:0123456789ab…`
fn short(digest: &str) -> String {
    match digest.split_once(':') {
        Some((algorithm, hex)) if hex.len() > 12 && hex.is_ascii() => {
            format!("{algorithm}:{}…", &hex[..12])
        }
        _ => digest.to_owned(),
    }
}

/// Reasons in one line; at most `most`, and how many more there are.
pub fn in_one_line(reasons: &[Reason], most: usize) -> String {
    let listed: Vec<&Reason> = reasons
        .iter()
        .filter(|reason| !matches!(reason, Reason::MoreFiles { .. }))
        .collect();
    let more_files: usize = reasons
        .iter()
        .map(|reason| match reason {
            Reason::MoreFiles { count } => *count,
            _ => 0,
        })
        .sum();
    let left = listed.len().saturating_sub(most) + more_files;
    let mut words: Vec<String> = listed.iter().take(most).map(ToString::to_string).collect();
    if left > 0 {
        words.push(format!("and {left} more"));
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_short_sentences() {
        let some = |text: &str| Some(text.to_owned());
        let argument = |before, after| Reason::BuildArgument {
            name: "VERSION".into(),
            before,
            after,
        };
        let table = [
            (
                argument(some("1.2"), some("1.3")),
                "build arg VERSION 1.2 → 1.3",
            ),
            (argument(None, some("1.3")), "build arg VERSION 1.3 (new)"),
            (argument(some(""), some("1")), "build arg VERSION \"\" → 1"),
            (argument(some("1"), None), "build arg VERSION (removed)"),
            (
                argument(some("hidden:1234"), some("hidden:5678")),
                "build arg VERSION (its value is not shown)",
            ),
            (
                Reason::File {
                    path: "app/main.py".into(),
                    change: FileChange::Content,
                },
                "file app/main.py (content)",
            ),
            (
                Reason::BaseImage {
                    name: "debian:12".into(),
                    before: format!("sha256:{}", "1".repeat(64)),
                    after: format!("sha256:{}", "2".repeat(64)),
                },
                "base image debian:12 sha256:111111111111… → sha256:222222222222…",
            ),
            (
                Reason::BaseImage {
                    name: "debian:13".into(),
                    before: "debian:12".into(),
                    after: "debian:13".into(),
                },
                "base image debian:12 → debian:13",
            ),
        ];
        for (reason, expected) in table {
            assert_eq!(reason.to_string(), expected);
        }
    }

    #[test]
    fn long_instructions_are_cut_around_their_difference() {
        let long = |word: &str| {
            format!(
                "RUN apt-get update && apt-get install -y {word} && rm -rf /var/lib/apt/lists/*"
            )
        };
        assert_eq!(
            around_change(&long("gcc"), &long("clang make")),
            (
                "RUN … install -y gcc && rm -rf /…".to_owned(),
                "RUN … install -y clang make && rm -rf /…".to_owned()
            )
        );
        assert_eq!(
            around_change("RUN make", "RUN make -j2"),
            ("RUN make".to_owned(), "RUN make -j2".to_owned())
        );
        let (one, other) = around_change(&"é".repeat(100), &format!("{}x", "é".repeat(100)));
        assert_ne!(one, other);
    }

    #[test]
    fn a_line_is_bounded() {
        let file = |path: &str| Reason::File {
            path: path.into(),
            change: FileChange::Added,
        };
        let reasons = [
            file("a"),
            file("b"),
            file("c"),
            Reason::MoreFiles { count: 212 },
        ];
        assert_eq!(
            in_one_line(&reasons, 2),
            "file a (added), file b (added), and 213 more"
        );
        assert_eq!(
            in_one_line(&reasons[..2], 2),
            "file a (added), file b (added)"
        );
    }
}
