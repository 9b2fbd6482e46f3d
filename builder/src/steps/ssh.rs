//! The agent of `RUN --mount=type=ssh`: a socket of the step's own whose connections are carried to the caller's agent, so that it has
//! the owner and the mode that the Dockerfile says, and the caller's socket stays outside. A key file gets an agent for as long as
//! the step runs: the key itself is never in the sandbox.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rbuild_runner::job::{Access, SandboxMountKind};
use rustix::fs::{Mode, OFlags};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{AbortHandle, JoinSet};

use crate::error::StepError;

/// Name of the socket that steps see.
const NAME: &str = "agent";
/// Name of the socket of an agent that was started for a key.
const KEYS: &str = "keys";

/// How long an agent may take to start; it takes some milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(2);

/// Whose the socket is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mode: u32,
}

/// A forwarded agent; it ends with this value.
#[derive(Debug)]
pub(crate) struct Forwarded {
    /// The directory that the socket is in.
    directory: PathBuf,
    carrier: AbortHandle,
    /// For a key: what the agent that was started lives as long as.
    agent: Option<Child>,
}

impl Forwarded {
    /// Forwards the agent at this socket, or one with this key, from an empty directory of a lease. Blocks.
    pub(crate) fn begin(
        directory: PathBuf,
        id: &str,
        given: &Path,
        owner: Owner,
    ) -> Result<Self, StepError> {
        let failed = |action| {
            let id = id.to_owned();
            move |source| StepError::SshForward { id, action, source }
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(&directory, flags, Mode::empty())
            .map_err(|errno| failed("its directory can't be opened")(errno.into()))?;
        let kind = std::fs::metadata(given).map_err(failed("it can't be found"))?;
        let mut agent = None;
        let upstream = if kind.file_type().is_socket() {
            given.to_owned()
        } else {
            agent = Some(start_agent(&directory, given).map_err(failed("no agent for the key"))?);
            short(&opened, KEYS)
        };
        let carrier = listen(opened, upstream, owner).map_err(failed("no socket for the step"));
        match carrier {
            Ok(carrier) => Ok(Self {
                directory,
                carrier,
                agent,
            }),
            Err(error) => {
                if let Some(agent) = &mut agent {
                    end(&directory, agent);
                }
                Err(error)
            }
        }
    }
}

impl Forwarded {
    /// The socket, as it is mounted.
    pub(crate) fn mount(&self) -> SandboxMountKind {
        SandboxMountKind::Directory {
            root: self.directory.clone(),
            source: NAME.into(),
            access: Access::Shared,
        }
    }
}

impl Drop for Forwarded {
    fn drop(&mut self) {
        self.carrier.abort();
        if let Some(agent) = &mut self.agent {
            end(&self.directory, agent);
        }
    }
}

/// Takes the key out of it and lets it end; it does so within ten seconds, as it does when this process is killed.
fn end(directory: &Path, agent: &mut Child) {
    // These fail when it has ended already.
    let _ = quiet("ssh-add", directory)
        .args(["-q", "-D"])
        .env("SSH_AUTH_SOCK", KEYS)
        .status();
    let _ = agent.kill();
    let _ = agent.wait();
}

/// A path by way of the open directory: names of sockets hold 107 bytes, and those of directories may be longer.
fn short(directory: &OwnedFd, name: &str) -> PathBuf {
    PathBuf::from(format!(
        "/proc/self/fd/{}/{name}",
        directory.as_fd().as_raw_fd()
    ))
}

/// Makes the step's socket, and begins to carry.
fn listen(directory: OwnedFd, upstream: PathBuf, owner: Owner) -> io::Result<AbortHandle> {
    let runtime = tokio::runtime::Handle::current();
    let _entered = runtime.enter();
    let path = short(&directory, NAME);
    let listener = UnixListener::bind(&path)?;
    let mut mode = owner.mode;
    if rustix::process::geteuid().is_root() {
        chown(&path, Some(owner.uid), Some(owner.gid))?;
    } else if (owner.uid, owner.gid) != (0, 0) {
        // Other ids are not ours to give away here; only this step's sandbox ever sees the socket.
        mode |= 0o666;
    }
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
    Ok(runtime
        .spawn(carry(listener, directory, upstream))
        .abort_handle())
}

/// Carries every connection; `_directory` keeps the paths by way of it good.
async fn carry(listener: UnixListener, _directory: OwnedFd, upstream: PathBuf) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((near, _)) => {
                    open.spawn(one(near, upstream.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "an ssh agent is no longer forwarded");
                    return;
                }
            },
            Some(_) = open.join_next() => {}
        }
    }
}

async fn one(mut near: UnixStream, upstream: PathBuf) {
    // An end on either side ends the connection, and the client says what that means to it.
    if let Ok(mut far) = UnixStream::connect(&upstream).await {
        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    }
}

/// Starts an agent in the directory and gives it the key.
fn start_agent(directory: &Path, key: &Path) -> io::Result<Child> {
    let key = std::path::absolute(key)?;
    let mut agent = quiet("ssh-agent", directory)
        // It lives as long as `cat`, which ends with its input: with us, also when we are killed.
        .args(["-a", KEYS, "cat"])
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|error| missing("ssh-agent", error))?;
    let added = wait_for(&directory.join(KEYS)).and_then(|()| {
        let output = quiet("ssh-add", directory)
            .arg("-q")
            .arg(&key)
            .env("SSH_AUTH_SOCK", KEYS)
            // A key with a passphrase can't be asked about: that is said instead.
            .env("SSH_ASKPASS_REQUIRE", "never")
            .stderr(Stdio::piped())
            .output()
            .map_err(|error| missing("ssh-add", error))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let line = said.lines().last().unwrap_or("ssh-add failed");
        Err(io::Error::other(line.to_owned()))
    });
    if added.is_err() {
        end(directory, &mut agent);
    }
    added.map(|()| agent)
}

fn quiet(program: impl AsRef<OsStr>, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn missing(program: &str, error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::NotFound => io::Error::new(
            error.kind(),
            format!("`{program}` is not installed (package openssh-client)"),
        ),
        _ => error,
    }
}

fn wait_for(socket: &Path) -> io::Result<()> {
    let start = Instant::now();
    while !socket.exists() {
        if start.elapsed() > PATIENCE {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "ssh-agent did not start",
            ));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}
