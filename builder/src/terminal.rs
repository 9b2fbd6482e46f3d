//! A terminal of its own for `rbuild run -t`: a pseudo-terminal whose far end is the command's, and whose near end is carried to and
//! from ours. Ours never gets into the sandbox, where something could be typed into it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{
    OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};

/// Our end. Dropping it gives our own terminal back its settings.
#[derive(Debug)]
pub(crate) struct Terminal {
    near: OwnedFd,
    /// How our own terminal was set.
    before: Option<Termios>,
}

impl Terminal {
    /// Opens one; gives the command's end too.
    pub(crate) fn open() -> io::Result<(Self, OwnedFd)> {
        let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&near)?;
        unlockpt(&near)?;
        let name = ptsname(&near, Vec::new())?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let far = rustix::fs::open(name, flags, Mode::empty())?;
        let terminal = Self { near, before: None };
        terminal.take_size();
        Ok((terminal, far))
    }

    /// Gives it the size of our own terminal, where there is one.
    pub(crate) fn take_size(&self) {
        if let Ok(size) = tcgetwinsize(io::stdout()) {
            // Without a size, programs take 80 by 24.
            let _ = tcsetwinsize(&self.near, size);
        }
    }

    /// Begins to carry: what is typed goes inside as it is, Ctrl-C too. The thread that is returned ends when the last program
    /// inside has closed the terminal.
    pub(crate) fn carry(&mut self) -> io::Result<JoinHandle<()>> {
        if isatty(io::stdin()) {
            let before = tcgetattr(io::stdin())?;
            let mut raw = before.clone();
            raw.make_raw();
            tcsetattr(io::stdin(), OptionalActions::Drain, &raw)?;
            self.before = Some(before);
        }
        let (into, from) = (self.near.try_clone()?, self.near.try_clone()?);
        // It waits for what is typed and ends with the process.
        std::thread::Builder::new()
            .name("terminal-in".into())
            .spawn(move || copy(io::stdin(), File::from(into)))?;
        std::thread::Builder::new()
            .name("terminal-out".into())
            .spawn(move || copy(File::from(from), io::stdout()))
    }
}

fn copy(mut from: impl Read, mut to: impl Write) {
    let mut buffer = [0; 4096];
    // Reading the near end fails once the far end is closed everywhere.
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if to
            .write_all(&buffer[..length])
            .and_then(|()| to.flush())
            .is_err()
        {
            return;
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // Nothing else can be done for a terminal that is gone.
            let _ = tcsetattr(io::stdin(), OptionalActions::Drain, before);
        }
    }
}
