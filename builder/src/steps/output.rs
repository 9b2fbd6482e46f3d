//! What a command writes, from its pipes to whoever listens.

use std::os::fd::OwnedFd;

use rbuild_runner::Stdio;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::error::StepError;
use crate::event::Stream;

/// Bytes read at once.
const BUFFER: usize = 32 << 10;

/// The ends of a command's pipes that are read.
#[derive(Debug)]
pub(super) struct Output {
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Output {
    /// New pipes, and nothing to read from: both ends.
    pub(super) fn new() -> Result<(Stdio, Self), StepError> {
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(StepError::Pipe);
        let (stdout_read, stdout) = pipe()?;
        let (stderr_read, stderr) = pipe()?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let stdin =
            rustix::fs::open("/dev/null", flags, Mode::empty()).map_err(StepError::NoNull)?;
        let output = Self {
            stdout: stdout_read,
            stderr: stderr_read,
        };
        let given = Stdio {
            stdin,
            stdout,
            stderr,
        };
        Ok((given, output))
    }

    /// Hands on what comes, until the last holder of both pipes is gone. Blocks. A pipe that can't be read ends there.
    pub(super) fn relay(self, mut hear: impl FnMut(Stream, &[u8])) {
        let mut open = vec![(Stream::Stdout, self.stdout), (Stream::Stderr, self.stderr)];
        let mut buffer = vec![0; BUFFER];
        while !open.is_empty() {
            let mut waiting: Vec<PollFd<'_>> = open
                .iter()
                .map(|(_, pipe)| PollFd::new(pipe, PollFlags::IN))
                .collect();
            match poll(&mut waiting, None) {
                Err(Errno::INTR) => continue,
                // Only without memory; dropping the pipes keeps the command from waiting for us.
                Err(_) => return,
                Ok(_) => {}
            }
            let ready: Vec<bool> = waiting.iter().map(|fd| !fd.revents().is_empty()).collect();
            drop(waiting);
            let mut ready = ready.into_iter();
            open.retain(|(stream, pipe)| {
                if ready.next() != Some(true) {
                    return true;
                }
                match rustix::io::read(pipe, &mut buffer) {
                    Ok(0) => false,
                    Ok(count) => {
                        hear(*stream, &buffer[..count]);
                        true
                    }
                    Err(errno) => errno == Errno::INTR,
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_pipes_are_heard_to_their_ends() {
        let (stdio, output) = Output::new().expect("two pipes");
        let writer = std::thread::spawn(move || {
            let Stdio { stdout, stderr, .. } = stdio;
            rustix::io::write(&stderr, b"error").expect("a reader");
            drop(stderr);
            // More than a pipe holds: somebody has to read while this is written.
            for _ in 0..1000 {
                rustix::io::write(&stdout, &[b'.'; 1000]).expect("a reader");
            }
        });
        let (mut dots, mut errors) = (0, Vec::new());
        output.relay(|stream, bytes| match stream {
            Stream::Stdout => dots += bytes.len(),
            Stream::Stderr => errors.extend_from_slice(bytes),
        });
        writer.join().expect("a thread that only writes");
        assert_eq!((dots, errors), (1_000_000, b"error".to_vec()));
    }
}
