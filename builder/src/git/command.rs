//! Runs git so that neither this machine's settings nor a repository's content decide what is executed.
//!
//! No configuration of the system or the user, no hooks, no templates, no credential helpers, no prompts; only
//! https, http, ssh and git are spoken, also by submodules (`GIT_ALLOW_PROTOCOL` goes down to every child). Secrets
//! go by the environment, never by arguments, which all users of a machine can read. Whatever comes from a Dockerfile
//! or the command line stands behind `--`, and can't begin with a dash (checked in [`super::GitSource`]).

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::{GitError, redacted};
use crate::registry::{Authority, add_authorities, of_machine};

/// Longest answer of a command: `ls-remote` of one name has a few lines, whatever the server would like to say.
const MAX_ANSWER: u64 = 16 << 20;

/// What is kept of git's own words.
const MAX_WORDS: usize = 16 << 10;

/// Lines of git's words that an error shows.
const SHOWN_LINES: usize = 4;

/// Seconds without a byte after which an HTTP transfer is given up.
const STALL_SECONDS: &str = "60";

/// Variables that say how the network is reached: they may pass.
const PASSED_ON: [&str; 13] = [
    "PATH",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// Variables that name the file with the authorities that git trusts, the one that counts first.
const AUTHORITIES: [&str; 2] = ["GIT_SSL_CAINFO", "SSL_CERT_FILE"];

/// What it is called in git's private directory.
const BUNDLE: &str = "certificates.pem";

/// How a repository is reached.
#[derive(Clone, Default)]
pub(super) struct Access {
    /// Value of an `Authorization` header, and the addresses that get it.
    pub(super) header: Option<(String, String)>,
    /// Socket of an ssh agent, or a key.
    pub(super) ssh: Option<PathBuf>,
    /// Authorities that are trusted beside those that git would trust.
    pub(super) authorities: Vec<Authority>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Access")
            .field(
                "header",
                &self.header.as_ref().map(|(scope, _)| (scope, "***")),
            )
            .field("ssh", &self.ssh)
            .field("authorities", &self.authorities)
            .finish()
    }
}

/// Git in one directory, for one repository.
#[derive(Debug)]
pub(super) struct Git {
    program: PathBuf,
    directory: PathBuf,
    environment: Vec<(OsString, OsString)>,
    /// For messages.
    remote: String,
    /// As it is, to take it out of git's words.
    written: String,
}

/// What a command left.
pub(super) struct Outcome {
    pub(super) is_ok: bool,
    pub(super) answer: Vec<u8>,
    pub(super) words: String,
}

impl Git {
    /// Git with `directory` as its working directory. `private` is an empty directory for what ssh and TLS need. Blocks.
    pub(super) fn new(
        remote: &str,
        access: &Access,
        directory: &Path,
        private: &Path,
    ) -> Result<Self, GitError> {
        let shown = redacted(remote);
        let program = find_git().ok_or_else(|| GitError::NoGit {
            remote: shown.clone(),
        })?;
        let mut environment: Vec<(OsString, OsString)> = PASSED_ON
            .iter()
            .filter_map(|name| Some(((*name).into(), std::env::var_os(name)?)))
            .collect();
        let mut set = |name: &str, value: &OsStr| environment.push((name.into(), value.to_owned()));
        for (name, value) in [
            ("LC_ALL", "C"),
            ("HOME", "/dev/null"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ALLOW_PROTOCOL", "https:http:ssh:git"),
            ("GIT_NO_REPLACE_OBJECTS", "1"),
            ("GIT_SSH_VARIANT", "ssh"),
        ] {
            set(name, value.as_ref());
        }
        // A store inside somebody's repository must not lend us that repository's settings.
        if let Some(parent) = directory.parent() {
            set("GIT_CEILING_DIRECTORIES", parent.as_os_str());
        }
        if let Some(bundle) = write_bundle(access, private, &shown)? {
            set(AUTHORITIES[0], bundle.as_os_str());
        }
        let settings = settings(access);
        set("GIT_CONFIG_COUNT", settings.len().to_string().as_ref());
        for (position, (key, value)) in settings.iter().enumerate() {
            set(&format!("GIT_CONFIG_KEY_{position}"), key.as_ref());
            set(&format!("GIT_CONFIG_VALUE_{position}"), value.as_ref());
        }
        let key = match &access.ssh {
            None => None,
            Some(path) => {
                let failed = |source| GitError::SshKey {
                    remote: shown.clone(),
                    path: path.clone(),
                    source,
                };
                let metadata = std::fs::metadata(path).map_err(failed)?;
                // Git does not run where the user is.
                let absolute = std::path::absolute(path).map_err(failed)?;
                if metadata.file_type().is_socket() {
                    set("SSH_AUTH_SOCK", absolute.as_os_str());
                    None
                } else {
                    Some(absolute)
                }
            }
        };
        set("GIT_SSH_COMMAND", &ssh_command(key.as_deref(), private));
        Ok(Self {
            program,
            directory: directory.to_owned(),
            environment,
            remote: shown,
            written: remote.to_owned(),
        })
    }

    /// Runs a command that has to succeed; its answer.
    pub(super) async fn run(
        &self,
        action: &'static str,
        arguments: &[&str],
    ) -> Result<String, GitError> {
        let outcome = self.attempt(arguments).await?;
        if outcome.is_ok {
            return Ok(String::from_utf8_lossy(&outcome.answer).into_owned());
        }
        Err(self.failed(action, &outcome))
    }

    /// The error of a command that did not succeed.
    pub(super) fn failed(&self, action: &'static str, outcome: &Outcome) -> GitError {
        let words = outcome.words.replace(&self.written, &self.remote);
        let lines: Vec<&str> = words
            .lines()
            .map(str::trim_end)
            .filter(|line| !line.is_empty())
            .collect();
        let last = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
        GitError::Command {
            action,
            remote: self.remote.clone(),
            words: match last {
                [] => "nothing".to_owned(),
                last => last.join("\n"),
            },
        }
    }

    /// Runs a command. All of its processes end when the future is dropped.
    pub(super) async fn attempt(&self, arguments: &[&str]) -> Result<Outcome, GitError> {
        let failed = |source| GitError::Run {
            remote: self.remote.clone(),
            source,
        };
        // Modes in a repository are 0644 and 0755: not what the caller's umask makes of them. Git needs a shell anyway.
        let mut child = tokio::process::Command::new("/bin/sh")
            .args(["-c", "umask 022 && exec \"$0\" \"$@\""])
            .arg(&self.program)
            .args(arguments)
            .current_dir(&self.directory)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let mut group = Group(child.id());
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let ((answer, is_whole), words) =
            tokio::try_join!(read_answer(stdout), read_words(stderr)).map_err(failed)?;
        if !is_whole {
            return Err(GitError::TooLong {
                remote: self.remote.clone(),
                limit: MAX_ANSWER,
            });
        }
        let status = child.wait().await.map_err(failed)?;
        group.0 = None;
        tracing::debug!(?arguments, %status, "git");
        Ok(Outcome {
            is_ok: status.success(),
            answer,
            words,
        })
    }
}

/// Processes that end with us: git leaves the talking to helpers, which a killed git would not take along.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let Some(id) = self.0.and_then(|id| i32::try_from(id).ok()) else {
            return;
        };
        if let Some(group) = rustix::process::Pid::from_raw(id) {
            // It may have ended by itself: then there is nothing to kill.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

/// The first bytes of an answer, and whether that is all of it.
async fn read_answer(stream: Option<impl AsyncRead + Unpin>) -> std::io::Result<(Vec<u8>, bool)> {
    let mut answer = Vec::new();
    if let Some(stream) = stream {
        stream.take(MAX_ANSWER + 1).read_to_end(&mut answer).await?;
    }
    let is_whole = answer.len() as u64 <= MAX_ANSWER;
    Ok((answer, is_whole))
}

/// The last words of a stream that is read to its end.
async fn read_words(stream: Option<impl AsyncRead + Unpin>) -> std::io::Result<String> {
    let mut words: Vec<u8> = Vec::new();
    let mut buffer = vec![0; MAX_WORDS];
    if let Some(mut stream) = stream {
        loop {
            let length = stream.read(&mut buffer).await?;
            if length == 0 {
                break;
            }
            words.extend_from_slice(&buffer[..length]);
            let surplus = words.len().saturating_sub(MAX_WORDS);
            words.drain(..surplus);
        }
    }
    Ok(String::from_utf8_lossy(&words).into_owned())
}

/// Writes the file with all authorities that git is to trust: those of the file that the caller's environment names, else the
/// machine's, and the added ones. None where nothing was added. An earlier variable of the same name gives way to it.
fn write_bundle(
    access: &Access,
    private: &Path,
    remote: &str,
) -> Result<Option<PathBuf>, GitError> {
    if access.authorities.is_empty() {
        return Ok(None);
    }
    let failed = |path: &Path| {
        let (remote, path) = (remote.to_owned(), path.to_owned());
        move |source| GitError::Authorities {
            remote,
            path,
            source,
        }
    };
    let named = AUTHORITIES.iter().find_map(std::env::var_os);
    let mut bundle = match named.map(PathBuf::from) {
        Some(path) => std::fs::read(&path).map_err(failed(&path))?,
        None => of_machine(),
    };
    add_authorities(&mut bundle, &access.authorities);
    let path = private.join(BUNDLE);
    std::fs::write(&path, bundle).map_err(failed(&path))?;
    Ok(Some(path))
}

fn settings(access: &Access) -> Vec<(String, String)> {
    let mut settings: Vec<(String, String)> = [
        ("core.hooksPath", "/dev/null"),
        ("core.fsmonitor", "false"),
        ("core.autocrlf", "false"),
        ("core.symlinks", "true"),
        ("credential.helper", ""),
        ("init.defaultBranch", "master"),
        ("gc.auto", "0"),
        ("maintenance.auto", "false"),
        ("fetch.recurseSubmodules", "false"),
        ("advice.detachedHead", "false"),
        ("http.lowSpeedLimit", "1"),
        ("http.lowSpeedTime", STALL_SECONDS),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    if let Some((scope, value)) = &access.header {
        settings.push((
            format!("http.{scope}.extraheader"),
            format!("Authorization: {value}"),
        ));
    }
    settings
}

/// What git runs for ssh: none of the user's settings, no questions. A host that the user's `known_hosts` knows has to
/// show that key; another one is trusted on first use, as by the reference, and forgotten afterwards.
fn ssh_command(key: Option<&Path>, private: &Path) -> OsString {
    let mut command = OsString::from(
        "ssh -F /dev/null -o BatchMode=yes -o ConnectTimeout=30 -o ServerAliveInterval=20 \
         -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile=",
    );
    let mut files = vec![private.join("known_hosts")];
    files.extend(std::env::var_os("HOME").map(|home| Path::new(&home).join(".ssh/known_hosts")));
    // ssh splits the value at blanks unless they stand in double quotes; git's shell takes those away unless quoted.
    let mut value = OsString::new();
    for file in &files {
        value.push("\"");
        value.push(file);
        value.push("\" ");
    }
    command.push(shell_quoted(&value));
    if let Some(key) = key {
        command.push(" -o IdentitiesOnly=yes -i ");
        command.push(shell_quoted(key.as_os_str()));
    }
    command
}

fn shell_quoted(text: &OsStr) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut quoted = vec![b'\''];
    for &byte in text.as_bytes() {
        match byte {
            b'\'' => quoted.extend_from_slice(b"'\\''"),
            _ => quoted.push(byte),
        }
    }
    quoted.push(b'\'');
    OsString::from_vec(quoted)
}

fn find_git() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join("git"))
        .find(|program| program.is_absolute() && program.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_in_no_argument_and_in_no_debug_output() {
        let access = Access {
            header: Some(("https://h/r.git".into(), "basic c2VjcmV0".into())),
            ..Access::default()
        };
        assert!(!format!("{access:?}").contains("c2VjcmV0"));
        let settings = settings(&access);
        assert!(settings.contains(&(
            "http.https://h/r.git.extraheader".into(),
            "Authorization: basic c2VjcmV0".into()
        )));
    }

    #[test]
    fn paths_are_quoted_for_the_shell() {
        for (text, expected) in [("a b", "'a b'"), ("it's", r"'it'\''s'")] {
            assert_eq!(shell_quoted(text.as_ref()), expected);
        }
        let command = ssh_command(Some(Path::new("/k ey")), Path::new("/p"));
        let command = command.to_string_lossy();
        assert!(
            command.contains("UserKnownHostsFile='\"/p/known_hosts\" "),
            "{command}"
        );
        assert!(command.ends_with("-i '/k ey'"), "{command}");
    }

    /// A hook that got into a repository, as by CVE-2024-32002 and CVE-2025-48384, runs with plain git and not with ours.
    #[tokio::test]
    async fn hooks_are_not_run() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().unwrap();
        let (repository, private) = (
            place.path().join("repository"),
            place.path().join("private"),
        );
        for directory in [&repository, &private] {
            std::fs::create_dir(directory).unwrap();
        }
        let git = Git::new("https://h/r.git", &Access::default(), &repository, &private).unwrap();
        let author = ["-c", "user.name=a", "-c", "user.email=a@b"];
        let commit = [&author[..], &["commit", "-q", "--allow-empty", "-m", "one"]].concat();
        for words in [&["init", "-q"][..], &commit] {
            assert!(git.attempt(words).await.unwrap().is_ok, "{words:?}");
        }
        let (hook, mark) = (
            repository.join(".git/hooks/post-checkout"),
            place.path().join("ran"),
        );
        std::fs::create_dir_all(repository.join(".git/hooks")).unwrap();
        std::fs::write(&hook, format!("#!/bin/sh\n: > {}\n", mark.display())).unwrap();
        std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(
            git.attempt(&["checkout", "-q", "--detach"])
                .await
                .unwrap()
                .is_ok
        );
        assert!(!mark.exists());
        let plain = std::process::Command::new("git")
            .args([
                "-C",
                repository.to_str().unwrap(),
                "checkout",
                "-q",
                "--detach",
            ])
            .status();
        assert!(plain.unwrap().success() && mark.exists(), "the attack");
    }
}
