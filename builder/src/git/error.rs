//! What can go wrong with a git repository.

use std::path::PathBuf;

/// Why files of a git repository can't be had. Addresses in it hold no credentials.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GitError {
    /// There is no git on this machine.
    #[error("cannot read `{remote}`: there is no `git` in PATH")]
    NoGit {
        /// The address.
        remote: String,
    },
    /// A command of git did not succeed.
    #[error("cannot {action} `{remote}`: git says: {words}")]
    Command {
        /// What was tried, as a verb.
        action: &'static str,
        /// The address.
        remote: String,
        /// The last lines of what git wrote.
        words: String,
    },
    /// Git could not be run, or its files not be written.
    #[error("cannot run git for `{remote}`")]
    Run {
        /// The address.
        remote: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The authorities that git is to trust could not be read, or not be written for it.
    #[error("cannot have git trust the authorities for `{remote}`, at `{}`", path.display())]
    Authorities {
        /// The address.
        remote: String,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// More answer than any repository gives.
    #[error("the answer of `{remote}` is longer than {limit} bytes")]
    TooLong {
        /// The address.
        remote: String,
        /// The limit.
        limit: u64,
    },
    /// A name that no branch, tag or commit can have.
    #[error("`{reference}` can't be the name of a branch, tag or commit")]
    BadReference {
        /// As written.
        reference: String,
    },
    /// A host that would be taken for an option.
    #[error("`{remote}` is not an address of a git repository")]
    BadRemote {
        /// As written.
        remote: String,
    },
    /// An expected commit that is none.
    #[error("`{checksum}` is not a commit")]
    BadChecksum {
        /// As written.
        checksum: String,
    },
    /// `fetch-by-commit` without a whole commit.
    #[error("`fetch-by-commit` needs the whole commit, as the reference or as the checksum")]
    NoWholeCommit,
    /// The repository has no such branch or tag.
    #[error("`{remote}` has no branch or tag `{reference}`")]
    NoReference {
        /// The address.
        remote: String,
        /// As written.
        reference: String,
    },
    /// The repository has no commit at all.
    #[error("`{remote}` has no commits")]
    Empty {
        /// The address.
        remote: String,
    },
    /// The repository does not hold the commit.
    #[error("`{remote}` does not hold the commit `{commit}`")]
    NoCommit {
        /// The address.
        remote: String,
        /// Its id.
        commit: String,
    },
    /// The reference is at another commit than was promised.
    #[error("`{reference}` of `{remote}` is the commit `{found}`, not `{expected}`")]
    Checksum {
        /// The address.
        remote: String,
        /// As written; the default branch's name where none was.
        reference: String,
        /// What was promised.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The subdirectory is missing, or reached through something that is no directory.
    #[error("`{subdirectory}` is not a directory of `{remote}`: `{place}` is {what}")]
    Subdirectory {
        /// The address.
        remote: String,
        /// As written.
        subdirectory: String,
        /// Where the way ends.
        place: String,
        /// What is there.
        what: &'static str,
    },
    /// `ssh` without an agent or key.
    #[error("`{remote}` is reached by ssh, but the build was given no key")]
    NoSshKey {
        /// The address.
        remote: String,
    },
    /// The agent's socket or the key is not there.
    #[error("cannot use `{path}` to reach `{remote}`")]
    SshKey {
        /// The address.
        remote: String,
        /// The socket or key.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl GitError {
    /// The way out, where one is known.
    pub fn help(&self) -> Option<String> {
        let words = match self {
            Self::NoGit { .. } => {
                "install git: `apt-get install git`, `apk add git` or `dnf install git`"
            }
            Self::Command { words, .. } => return help_for(words),
            Self::NoReference { reference, .. } if is_short_commit(reference) => {
                "a shortened commit can't be looked up: write all of its digits"
            }
            Self::NoReference { .. } => "`git ls-remote ADDRESS` lists the names that it has",
            Self::NoSshKey { .. } => {
                "give it with `--ssh default` (your agent) or `--ssh default=KEYFILE`"
            }
            Self::BadChecksum { .. } => "a commit is written in hexadecimal digits",
            Self::Subdirectory { what, .. } if *what == "a symlink" => {
                "symlinks on the way are not followed; write the directory's real path"
            }
            Self::Checksum { .. } => {
                "if the change is wanted, put the new commit into the Dockerfile or the command line"
            }
            _ => return None,
        };
        Some(words.to_owned())
    }
}

fn is_short_commit(text: &str) -> bool {
    (4..40).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Git's words are stable: `LC_ALL=C`.
fn help_for(words: &str) -> Option<String> {
    let has = |part: &str| words.contains(part);
    let help = if has("could not read Username")
        || has("Authentication failed")
        || has("could not read Password")
        || has("error: 403")
        || has("Repository not found")
    {
        "if it is private, give a token: `--secret id=GIT_AUTH_TOKEN,env=VARIABLE`"
    } else if has("certificate verification failed") || has("SSL certificate problem") {
        "this machine does not trust the server's certificate; if its authority is your own, give that: `--ca-cert FILE`"
    } else if has("Host key verification failed") || has("HOST IDENTIFICATION HAS CHANGED") {
        "the server's key is not the one in ~/.ssh/known_hosts; if that is right, correct the line there"
    } else if has("Permission denied") {
        "give a key that the server knows: `--ssh default` (your agent) or `--ssh default=KEYFILE`"
    } else if has("not allowed") && has("transport") {
        "repositories and submodules are fetched by https, http, ssh and git only"
    } else if has("Could not resolve host")
        || has("unable to look up")
        || has("Could not resolve hostname")
    {
        "is the name right, and is there a network?"
    } else {
        return None;
    };
    Some(help.to_owned())
}
