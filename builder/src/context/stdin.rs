//! Standard input as a Dockerfile or an archive. It is read in pieces, and given up when the build ends.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use rbuild_runner::archive;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio_util::sync::CancellationToken;

use super::{ContextError, MAX_TEXT_SIZE};

/// How long a build that was interrupted may go on waiting for input.
const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

const BUFFER: usize = 256 << 10;

/// What standard input turned out to be.
#[derive(Debug)]
pub(super) enum Input {
    /// An archive, written to the file that was named.
    Archive,
    /// Something else: a Dockerfile.
    Text(Vec<u8>),
}

/// Reads standard input; an archive is spooled to `file`. Blocks.
pub(super) fn read(file: &Path, cancel: &CancellationToken) -> Result<Input, ContextError> {
    let mut input = Patient { cancel };
    let mut start = Vec::new();
    input
        .by_ref()
        .take(archive::START as u64)
        .read_to_end(&mut start)
        .map_err(failed)?;
    if start.is_empty() {
        return Err(ContextError::StdinEmpty);
    }
    if archive::identify(&start) == archive::Content::Other {
        return read_rest(start, input).map(Input::Text);
    }
    let write = |source| ContextError::Read {
        path: file.to_owned(),
        source,
    };
    let mut spool = std::fs::File::create_new(file).map_err(write)?;
    spool.write_all(&start).map_err(write)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = input.read(&mut buffer).map_err(failed)?;
        if length == 0 {
            return Ok(Input::Archive);
        }
        spool.write_all(&buffer[..length]).map_err(write)?;
    }
}

/// Reads a text, such as the Dockerfile of `-f -`. Blocks.
pub(super) fn read_text(cancel: &CancellationToken) -> Result<Vec<u8>, ContextError> {
    read_rest(Vec::new(), Patient { cancel })
}

fn read_rest(mut text: Vec<u8>, input: impl Read) -> Result<Vec<u8>, ContextError> {
    let left = (MAX_TEXT_SIZE + 1).saturating_sub(text.len() as u64);
    input.take(left).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_TEXT_SIZE {
        return Err(ContextError::TooLarge {
            path: PathBuf::from("-"),
            limit: MAX_TEXT_SIZE,
        });
    }
    Ok(text)
}

fn failed(source: std::io::Error) -> ContextError {
    if source.kind() == std::io::ErrorKind::ConnectionAborted {
        return ContextError::Interrupted;
    }
    ContextError::Read {
        path: PathBuf::from("-"),
        source,
    }
}

/// Standard input that ends when the build does: a plain read of a terminal or pipe would keep the process.
pub(crate) struct Patient<'a> {
    /// Ends it.
    pub(crate) cancel: &'a CancellationToken,
}

impl Read for Patient<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            if self.cancel.is_cancelled() {
                return Err(std::io::ErrorKind::ConnectionAborted.into());
            }
            let stdin = rustix::stdio::stdin();
            let mut waiting = [PollFd::new(&stdin, PollFlags::IN)];
            match poll(&mut waiting, Some(&PATIENCE)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => match rustix::io::read(stdin, &mut *buffer) {
                    Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                    result => return Ok(result?),
                },
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}
