//! `pasta` (package passt): carries what commands send through sockets of the caller. Needs no privileges.
//!
//! All of its mappings to the host are off: no port is forwarded, in no direction, and the gateway's address is not the host's
//! loopback. The host's own addresses are the namespace's too, so what listens there on the host is out of reach as well.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::link::{self, WaysOut};
use super::netlink::Netlink;
use super::{PATIENCE, WAY_OUT, cannot};
use crate::error::{JobError, JobErrorKind};
use crate::ids;
use crate::isolation::IdSource;
use crate::job::NetworkJob;

/// How often a way out is looked for.
const PAUSE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 2_000_000,
};

/// Where it is looked for besides `PATH`.
const PLACES: [&str; 3] = ["/usr/bin", "/usr/local/bin", "/usr/sbin"];

/// What to do when it is missing.
pub(super) const INSTALL: &str =
    "install `pasta` (the package is `passt`; from Debian 12, Ubuntu 23.04 and Fedora 36 on)";

/// Finds it.
pub(super) fn find(path: Option<&OsStr>) -> Option<PathBuf> {
    let listed = path.map(std::env::split_paths).into_iter().flatten();
    let places = PLACES.iter().map(PathBuf::from);
    (listed.chain(places))
        .filter(|place| place.is_absolute())
        .map(|place| place.join("pasta"))
        .find(|program| rustix::fs::access(program, rustix::fs::Access::EXEC_OK).is_ok())
}

/// The running program; it ends with this value.
pub(super) struct Pasta {
    program: PathBuf,
    child: Child,
    pidfd: OwnedFd,
    output: File,
}

/// What there is to do next.
enum News {
    Nothing,
    CallerLeft,
    Ended,
}

impl Pasta {
    pub(super) fn start(job: &NetworkJob, namespace: &OwnedFd) -> Result<Self, JobError> {
        let program = find(std::env::var_os("PATH").as_deref()).ok_or_else(|| {
            JobError::new(JobErrorKind::Network, "`pasta` is not installed")
                .with_help(format!("{INSTALL}, or {WAY_OUT}"))
        })?;
        let failed = |error: &std::io::Error| {
            let message = format!("cannot start `{}`", program.display());
            JobError::new(JobErrorKind::Network, message)
                .caused_by(error)
                .with_help(WAY_OUT)
        };
        let output = rustix::fs::memfd_create("pasta", MemfdFlags::CLOEXEC).map_err(cannot)?;
        let output = File::from(output);
        let streams = output
            .try_clone()
            .and_then(|one| Ok((one.try_clone()?, one)));
        let (stdout, stderr) = streams.map_err(|error| failed(&error))?;
        // It is to have this one descriptor beside the standard ones.
        rustix::io::fcntl_setfd(namespace, rustix::io::FdFlags::empty()).map_err(cannot)?;
        let child = Command::new(&program)
            .args(arguments(job, takes_us_for_root(), namespace.as_raw_fd()))
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn();
        let closed = rustix::io::fcntl_setfd(namespace, rustix::io::FdFlags::CLOEXEC);
        let mut child = child.map_err(|error| failed(&error))?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let opened = pid
            .ok_or(Errno::SRCH)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
        match opened.and_then(|pidfd| closed.map(|()| pidfd)) {
            Ok(pidfd) => Ok(Self {
                program,
                child,
                pidfd,
                output,
            }),
            Err(errno) => {
                // Without a way to watch it, it is of no use.
                let _ = child.kill();
                let _ = child.wait();
                Err(cannot(errno))
            }
        }
    }

    /// Waits for a way out; false when the caller left before there was one.
    pub(super) fn brings_up(
        &mut self,
        inside: &mut Netlink,
        caller: BorrowedFd<'_>,
    ) -> Result<bool, JobError> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let out = link::ways_out(inside).map_err(cannot)?;
            if out != WaysOut::default() {
                return Ok(true);
            }
            match self.news(caller, Some(&PAUSE)) {
                News::Nothing => {}
                News::CallerLeft => return Ok(false),
                News::Ended => break,
            }
        }
        Err(self.failure())
    }

    /// Waits until the caller hangs up; that it ends by itself is an error.
    pub(super) fn wait_for_end(mut self, caller: BorrowedFd<'_>) -> Result<(), JobError> {
        loop {
            match self.news(caller, None) {
                News::Nothing => {}
                News::CallerLeft => return Ok(()),
                News::Ended => return Err(self.failure()),
            }
        }
    }

    fn news(&self, caller: BorrowedFd<'_>, limit: Option<&Timespec>) -> News {
        let mut fds = [
            PollFd::from_borrowed_fd(caller, PollFlags::IN | PollFlags::RDHUP),
            PollFd::new(&self.pidfd, PollFlags::IN),
        ];
        match poll(&mut fds, limit) {
            Err(Errno::INTR) | Ok(0) => News::Nothing,
            Ok(_) if !fds[0].revents().is_empty() => News::CallerLeft,
            Ok(_) | Err(_) => News::Ended,
        }
    }

    /// What it said before it failed.
    fn failure(&mut self) -> JobError {
        self.stop();
        let mut said = String::new();
        // What can't be read is not said.
        let _ = self.output.rewind();
        let _ = (&self.output).take(4096).read_to_string(&mut said);
        let mut lines = said
            .lines()
            .filter(|line| !line.starts_with("Failed to send"));
        let reason = lines.next_back().unwrap_or("there was no way out in time");
        let message = format!(
            "`{}` brought no network up: {reason}",
            self.program.display()
        );
        let is_about_tun = [TUN, "tun device", "tun socket"]
            .iter()
            .any(|words| said.contains(words));
        let help = if is_about_tun {
            format!("{OPEN_TUN}, or {WAY_OUT}")
        } else {
            WAY_OUT.to_owned()
        };
        JobError::new(JobErrorKind::Network, message).with_help(help)
    }

    fn stop(&mut self) {
        // Fails when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Pasta {
    fn drop(&mut self) {
        self.stop();
    }
}

/// It asks for its uid, and whether that is of a namespace with all ids.
fn takes_us_for_root() -> bool {
    ids::maps().is_none_or(|maps| maps.source == IdSource::Own)
}

/// What pasta opens, and who may.
const TUN: &str = "/dev/net/tun";
const OPEN_TUN: &str = "it needs to open /dev/net/tun (`chmod 0666 /dev/net/tun`; in a container `--device /dev/net/tun`)";

/// Why pasta can't make interfaces, as far as trying its device tells; and what to do.
pub(super) fn why_no_tun() -> Option<(String, &'static str)> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let opened = rustix::fs::open(TUN, flags, Mode::empty());
    let errno = opened.err()?;
    Some((format!("`pasta` can't open `{TUN}` ({errno})"), OPEN_TUN))
}

fn arguments(job: &NetworkJob, is_root: bool, namespace: i32) -> Vec<String> {
    let ports = if job.ports.is_empty() {
        "none".to_owned()
    } else {
        let pair = |(host, inside): &(u16, u16)| format!("{host}:{inside}");
        job.ports.iter().map(pair).collect::<Vec<_>>().join(",")
    };
    let mut words = vec!["--foreground".to_owned(), "--config-net".to_owned()];
    if job.leads_to_host {
        // What it takes for the gateway is the host's loopback.
        words.extend(["--gateway".to_owned(), NetworkJob::HOST.to_string()]);
    } else {
        words.push("--no-map-gw".to_owned());
    }
    words.push("--tcp-ports".to_owned());
    words.push(ports);
    words.extend(
        [
            "--udp-ports",
            "none",
            "--tcp-ns",
            "none",
            "--udp-ns",
            "none",
        ]
        .map(str::to_owned),
    );
    if let Some(address) = &job.dns_forward {
        words.extend(["--dns-forward".to_owned(), address.clone()]);
    }
    if is_root {
        // Otherwise it becomes nobody, who may not enter the namespace.
        words.extend(["--runas", "0"].map(str::to_owned));
    }
    words.extend(["--netns-only", "--netns"].map(str::to_owned));
    words.push(format!("/proc/self/fd/{namespace}"));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mapping_to_the_host_is_off() {
        let words = arguments(&NetworkJob::default(), true, 9).join(" ");
        assert_eq!(
            words,
            "--foreground --config-net --no-map-gw --tcp-ports none --udp-ports none --tcp-ns none --udp-ns none \
             --runas 0 --netns-only --netns /proc/self/fd/9"
        );
        let published = NetworkJob {
            ports: vec![(8080, 80), (1, 2)],
            dns_forward: Some("169.254.1.1".into()),
            ..NetworkJob::default()
        };
        let words = arguments(&published, false, 9).join(" ");
        assert!(words.contains("--tcp-ports 8080:80,1:2 "), "{words}");
        assert!(
            words.contains("--dns-forward 169.254.1.1 --netns-only"),
            "{words}"
        );
    }
}
