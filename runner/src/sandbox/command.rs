//! The last steps of a sandbox's first process: descriptors, environment, becoming the command.

use std::ffi::{CStr, CString};
use std::os::fd::BorrowedFd;

use rustix::fs::{Access, AtFlags, CWD, FileType};
use rustix::io::Errno;
use rustix::process::Signal;

use crate::error::{JobError, JobErrorKind};
use crate::job::RunJob;
use crate::spawner::Stdio;
use crate::sys::process::{CStrings, close_on_exec_from};
use crate::sys::trampoline;
use crate::users::User;

/// Where commands are looked for when the environment has no `PATH`; Docker's.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command that is ready to be executed.
#[derive(Debug)]
pub(super) struct Command {
    /// Where it was found.
    program: CString,
    argv: Vec<CString>,
    environment: CStrings,
}

#[cfg(test)]
impl Command {
    /// As if there were no [`trampoline`].
    pub(super) fn execute_directly(&self) {
        let argv = CStrings::new(self.argv.clone());
        crate::sys::process::execute(&self.program, &argv, &self.environment);
    }
}

impl Command {
    /// Builds what execve needs, and looks for the program: as a shell does, and inside.
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
            .collect::<Result<Vec<_>, _>>()?;
        let environment = variables
            .iter()
            .map(|(key, value)| c_string([key, b"=".as_slice(), value].concat()));
        Ok(Self {
            program: find(name, candidates)?,
            argv: job
                .argv
                .iter()
                .cloned()
                .map(c_string)
                .collect::<Result<_, _>>()?,
            environment: CStrings::new(environment.collect::<Result<_, _>>()?),
        })
    }

    /// Where it was found.
    pub(super) fn program(&self) -> &CStr {
        &self.program
    }

    /// Becomes the command. When it can't be executed, its errno goes to `failures` as four bytes, see
    /// [`trampoline`]; what returns is why not even that could be tried.
    pub(super) fn execute(&self, failures: BorrowedFd<'_>) -> JobError {
        let errno = trampoline::execute(failures, &self.program, &self.argv, &self.environment);
        let what = "cannot start the program that becomes the command";
        let error = JobError::from_errno(JobErrorKind::Sandbox, what, errno);
        match errno {
            Errno::ACCESS => error
                .with_help("`sysctl vm.memfd_noexec` has to be 0 or 1 for rbuild to run commands"),
            _ => error,
        }
    }
}

/// The first candidate that may be executed; as a shell does, one that may not be is only remembered.
fn find(name: &[u8], candidates: Vec<CString>) -> Result<CString, JobError> {
    let mut failure = (Errno::NOENT, name.to_vec());
    for path in candidates {
        match check(&path) {
            Ok(()) => return Ok(path),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno @ Errno::ACCESS) => failure = (errno, path.into_bytes()),
            Err(errno) => {
                failure = (errno, path.into_bytes());
                break;
            }
        }
    }
    Err(cannot_execute(&failure.1, failure.0))
}

fn check(path: &CStr) -> Result<(), Errno> {
    let stat = rustix::fs::stat(path)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::ACCESS);
    }
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}

/// What the errno of a program that was found, and then not executed, means.
pub(super) fn explain(program: &[u8], errno: Errno) -> JobError {
    match errno {
        // It was there: its interpreter (`#!`, or the dynamic loader) is not.
        Errno::NOENT => JobError::from_errno(
            JobErrorKind::CommandNotFound,
            "the interpreter or the dynamic loader is not in the image that is needed by",
            errno,
        )
        .at(program),
        errno => cannot_execute(program, errno),
    }
}

fn cannot_execute(path: &[u8], errno: Errno) -> JobError {
    let (kind, message) = match errno {
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
    JobError::from_errno(kind, message, errno).at(path)
}

/// Makes `stdio` the descriptors 0, 1 and 2, and lets no other into the command.
pub(super) fn take_stdio(stdio: &Stdio) -> Result<(), JobError> {
    let take = || -> Result<(), Errno> {
        rustix::stdio::dup2_stdin(&stdio.stdin)?;
        rustix::stdio::dup2_stdout(&stdio.stdout)?;
        rustix::stdio::dup2_stderr(&stdio.stderr)?;
        if rustix::termios::isatty(&stdio.stdin) {
            // One that is another session's stays that, and nothing can be typed into it from here.
            let _ = rustix::process::ioctl_tiocsctty(&stdio.stdin);
        }
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
