//! The last steps of a sandbox's first process: descriptors, environment, execve.

use std::ffi::CString;

use rustix::io::Errno;
use rustix::process::Signal;

use crate::error::{JobError, JobErrorKind};
use crate::job::RunJob;
use crate::spawner::Stdio;
use crate::sys::process::{CStrings, close_on_exec_from, execute};
use crate::users::User;

/// Where commands are looked for when the environment has no `PATH`; Docker's.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command that is ready to be executed.
#[derive(Debug)]
pub(super) struct Command {
    name: Vec<u8>,
    /// Paths to try, in order.
    candidates: Vec<CString>,
    argv: CStrings,
    environment: CStrings,
}

impl Command {
    /// Builds what execve needs.
    pub(super) fn new(job: &RunJob, user: &User) -> Result<Self, JobError> {
        let Some(name) = job.argv.first().filter(|name| !name.is_empty()) else {
            return Err(JobError::new(
                JobErrorKind::CommandStart,
                "the command is empty",
            ));
        };
        let mut variables = job.environment.clone();
        if !variables.iter().any(|(key, _)| key == b"HOME") {
            variables.push((b"HOME".to_vec(), home(user)));
        }
        let path = variables
            .iter()
            .find(|(key, _)| key == b"PATH")
            .map_or(DEFAULT_PATH, |(_, value)| value);
        let candidates = candidates(name, path)
            .into_iter()
            .map(c_string)
            .collect::<Result<_, _>>()?;
        let environment = variables
            .iter()
            .map(|(key, value)| c_string([key, b"=".as_slice(), value].concat()));
        Ok(Self {
            name: name.clone(),
            candidates,
            argv: CStrings::new(
                job.argv
                    .iter()
                    .cloned()
                    .map(c_string)
                    .collect::<Result<_, _>>()?,
            ),
            environment: CStrings::new(environment.collect::<Result<_, _>>()?),
        })
    }

    /// Becomes the command; returns why not.
    pub(super) fn execute(&self) -> JobError {
        let mut failure = Errno::NOENT;
        let mut failed_path = self.name.as_slice();
        for path in &self.candidates {
            let errno = execute(path, &self.argv, &self.environment);
            match errno {
                // There, but its interpreter (`#!`, or the dynamic loader) is not.
                Errno::NOENT if rustix::fs::stat(path.as_c_str()).is_ok() => {
                    return JobError::from_errno(
                        JobErrorKind::CommandNotFound,
                        "the interpreter or the dynamic loader is not in the image that is needed by",
                        errno,
                    )
                    .at(path.as_bytes());
                }
                Errno::NOENT | Errno::NOTDIR => {}
                // As a shell does: go on looking, but remember that something was there.
                Errno::ACCESS => (failure, failed_path) = (errno, path.as_bytes()),
                errno => {
                    (failure, failed_path) = (errno, path.as_bytes());
                    break;
                }
            }
        }
        let (kind, message) = match failure {
            Errno::NOENT => (JobErrorKind::CommandNotFound, "cannot find the command"),
            Errno::ACCESS => (
                JobErrorKind::CommandPermissionDenied,
                "cannot execute, permission denied:",
            ),
            Errno::NOEXEC => (
                JobErrorKind::CommandFormat,
                "cannot execute, not a program for this machine nor a script that starts with `#!`:",
            ),
            _ => (JobErrorKind::CommandStart, "cannot execute"),
        };
        JobError::from_errno(kind, message, failure).at(failed_path)
    }
}

/// Makes `stdio` the descriptors 0, 1 and 2, and lets no other into the command.
pub(super) fn take_stdio(stdio: &Stdio) -> Result<(), JobError> {
    let take = || -> Result<(), Errno> {
        rustix::stdio::dup2_stdin(&stdio.stdin)?;
        rustix::stdio::dup2_stdout(&stdio.stdout)?;
        rustix::stdio::dup2_stderr(&stdio.stderr)?;
        close_on_exec_from(3)?;
        // Set now because becoming another user clears it. Without the worker nobody would stop the command.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
    };
    take().map_err(|errno| {
        JobError::from_errno(
            JobErrorKind::Sandbox,
            "cannot set up the command's output",
            errno,
        )
    })
}

fn home(user: &User) -> Vec<u8> {
    match &user.home {
        Some(home) => home.clone(),
        None if user.uid == 0 => b"/root".to_vec(),
        None => b"/".to_vec(),
    }
}

fn candidates(name: &[u8], path: &[u8]) -> Vec<Vec<u8>> {
    if name.contains(&b'/') {
        return vec![name.to_vec()];
    }
    path.split(|&byte| byte == b':')
        .map(|directory| match directory {
            b"" => [b"./", name].concat(),
            directory => [directory, b"/", name].concat(),
        })
        .collect()
}

fn c_string(bytes: Vec<u8>) -> Result<CString, JobError> {
    CString::new(bytes).map_err(|error| {
        JobError::new(
            JobErrorKind::CommandStart,
            "an argument or variable of the command holds a NUL byte",
        )
        .caused_by(&error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_follow_path() {
        let rows: &[(&str, &str, &[&str])] = &[
            ("sh", "/a:/b", &["/a/sh", "/b/sh"]),
            ("sh", "/a::", &["/a/sh", "./sh", "./sh"]),
            ("./sh", "/a", &["./sh"]),
            ("/x/sh", "/a", &["/x/sh"]),
        ];
        for (name, path, expected) in rows {
            let expected: Vec<Vec<u8>> = expected
                .iter()
                .map(|path| path.as_bytes().to_vec())
                .collect();
            assert_eq!(
                candidates(name.as_bytes(), path.as_bytes()),
                expected,
                "{name} in {path}"
            );
        }
    }

    #[test]
    fn home_by_user() {
        assert_eq!(home(&User::default()), b"/root");
        assert_eq!(
            home(&User {
                uid: 5,
                ..User::default()
            }),
            b"/"
        );
        assert_eq!(
            home(&User {
                home: Some(b"/h".to_vec()),
                ..User::default()
            }),
            b"/h"
        );
    }
}
