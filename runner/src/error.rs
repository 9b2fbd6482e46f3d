//! The error that comes back from a job: plain data, since it crosses a socket.

use std::error::Error;
use std::fmt;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// Why a job failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobError {
    /// What sort of failure it is, for callers that act on it.
    pub kind: JobErrorKind,
    /// What was being done, and to what: "cannot mount the root file system of the step".
    pub message: String,
    /// The path it concerns, as bytes.
    pub path: Option<Vec<u8>>,
    /// The kernel's error number.
    pub errno: Option<i32>,
    /// What to do about it.
    pub help: Option<String>,
    /// Why, outermost first.
    cause: Option<Box<Cause>>,
}

/// What sort of failure a [`JobError`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum JobErrorKind {
    /// The command, or the interpreter it names, does not exist in the image.
    CommandNotFound,
    /// The command is not executable, or a directory on the way may not be entered.
    CommandPermissionDenied,
    /// The kernel does not take the command for a program: wrong machine, or a script without `#!`.
    CommandFormat,
    /// The command could not be started for another reason.
    CommandStart,
    /// The working directory could not be made or entered.
    WorkingDirectory,
    /// The user or group is not in the image's passwd or group file.
    UnknownUser,
    /// The machine does not allow something a sandbox needs.
    MissingPrivilege,
    /// A sandbox could not be set up.
    Sandbox,
    /// There can be no private network.
    Network,
    /// A limit that was asked for can't be set.
    Limit,
    /// Reading, writing, packing or unpacking files failed.
    Files,
    /// A snapshot is not what was sealed.
    Damaged,
    /// The disk, or a quota, is full.
    NoSpace,
    /// The caller cancelled the job.
    Cancelled,
    /// The spawner or the worker of this job died, or could not be reached.
    Lost,
}

/// One link in the chain of causes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Cause {
    text: String,
    next: Option<Box<Cause>>,
}

impl JobError {
    /// An error without a cause.
    pub fn new(kind: JobErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            path: None,
            errno: None,
            help: None,
            cause: None,
        }
    }

    /// An error caused by the kernel's answer. A full disk changes the kind.
    pub fn from_errno(kind: JobErrorKind, message: impl Into<String>, errno: Errno) -> Self {
        let kind = if matches!(errno, Errno::NOSPC | Errno::DQUOT) {
            JobErrorKind::NoSpace
        } else {
            kind
        };
        Self {
            errno: Some(errno.raw_os_error()),
            ..Self::new(kind, message).caused_by(&errno)
        }
    }

    /// An error that keeps the text of `error` and of all its causes, and the first error number among them.
    pub fn from_error(kind: JobErrorKind, error: &(dyn Error + 'static)) -> Self {
        let mut made = Self::new(kind, error.to_string());
        made.cause = error.source().map(Cause::copy);
        made.errno = errno_in(error);
        if matches!(
            made.errno.map(Errno::from_raw_os_error),
            Some(Errno::NOSPC | Errno::DQUOT)
        ) {
            made.kind = JobErrorKind::NoSpace;
        }
        made
    }

    /// Adds the path it concerns.
    #[must_use]
    pub fn at(mut self, path: impl Into<Vec<u8>>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds what caused it.
    #[must_use]
    pub fn caused_by(mut self, error: &(dyn Error + 'static)) -> Self {
        self.cause = Some(Cause::copy(error));
        self
    }

    /// The texts of the causes, outermost first.
    pub fn causes(&self) -> impl Iterator<Item = &str> {
        std::iter::successors(self.cause.as_deref(), |cause| cause.next.as_deref())
            .map(|cause| cause.text.as_str())
    }
}

impl Cause {
    #[expect(
        clippy::unnecessary_box_returns,
        reason = "a link is only ever held boxed"
    )]
    fn copy(error: &(dyn Error + 'static)) -> Box<Self> {
        Box::new(Self {
            text: error.to_string(),
            next: error.source().map(Self::copy),
        })
    }
}

/// The first kernel error number in a chain of causes.
fn errno_in(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(errno) = error.downcast_ref::<Errno>() {
            return Some(errno.raw_os_error());
        }
        if let Some(code) = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::raw_os_error)
        {
            return Some(code);
        }
        next = error.source();
    }
    None
}

impl fmt::Display for JobError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)?;
        match &self.path {
            Some(path) => write!(formatter, " `{}`", String::from_utf8_lossy(path)),
            None => Ok(()),
        }
    }
}

impl Error for JobError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.next.as_deref().map(|cause| cause as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_survives_the_socket() {
        let inner = std::io::Error::other(JobError::from_errno(
            JobErrorKind::Files,
            "inner",
            Errno::NOSPC,
        ));
        let error = JobError::new(JobErrorKind::Sandbox, "cannot mount")
            .at("/x")
            .caused_by(&inner);
        let bytes = postcard::to_stdvec(&error).expect("encode");
        let back: JobError = postcard::from_bytes(&bytes).expect("decode");
        assert_eq!(back, error);
        assert_eq!(back.to_string(), "cannot mount `/x`");
        assert_eq!(back.causes().next(), Some("inner"));
        assert_eq!(
            back.source().map(ToString::to_string).as_deref(),
            Some("inner")
        );
    }

    #[test]
    fn a_full_disk_is_told_apart() {
        assert_eq!(
            JobError::from_errno(JobErrorKind::Files, "x", Errno::NOSPC).kind,
            JobErrorKind::NoSpace
        );
        let io = std::io::Error::from_raw_os_error(libc::EDQUOT);
        assert_eq!(
            JobError::from_error(JobErrorKind::Files, &io).kind,
            JobErrorKind::NoSpace
        );
    }
}
