//! A network of its own for the commands of a build: a namespace that all of them share, and `pasta` (package passt), which
//! carries what they send through sockets of the caller. Nothing is configured on the host, so nothing can stay behind there.
//!
//! ```text
//! worker ──clone(NEWNET)──▶ `lo` up; gives its namespace; waits for a route out; ends
//!   │ spawns pasta on that namespace
//!   │ hands the namespace to the caller, who gives it to each RUN
//!   └ waits until the caller hangs up; ends pasta
//! ```
//!
//! All of pasta's mappings to the host are off: no port of the host is forwarded, in no direction, and the gateway's address is
//! not the host's loopback. The caller's own addresses are the namespace's addresses too, so what listens there on the host is
//! out of reach as well.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use crate::error::{JobError, JobErrorKind};
use crate::ids;
use crate::job::NetworkJob;
use crate::spawner::protocol;
use crate::sys;
use crate::sys::process::{Namespaces, clone_process};

/// How long pasta may take to bring the network up; it takes some 50 ms.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a route out is looked for.
const PAUSE: Duration = Duration::from_millis(2);

/// Where pasta is looked for besides `PATH`.
const PLACES: [&str; 3] = ["/usr/bin", "/usr/local/bin", "/usr/sbin"];

/// What to do when there can be no private network.
const WAY_OUT: &str = "`--network host` gives steps the host's network";

/// Finds pasta.
pub(crate) fn find_pasta(path: Option<&std::ffi::OsStr>) -> Option<PathBuf> {
    let listed = path.map(std::env::split_paths).into_iter().flatten();
    let places = PLACES.iter().map(PathBuf::from);
    (listed.chain(places))
        .filter(|place| place.is_absolute())
        .map(|place| place.join("pasta"))
        .find(|program| rustix::fs::access(program, rustix::fs::Access::EXEC_OK).is_ok())
}

/// Brings the network up, sends its namespace through `to`, and keeps it until the caller hangs up.
pub(crate) fn keep(job: &NetworkJob, to: &OwnedFd, caller: BorrowedFd<'_>) -> Result<(), JobError> {
    let program = find_pasta(std::env::var_os("PATH").as_deref()).ok_or_else(|| {
        JobError::new(JobErrorKind::Network, "`pasta` is not installed").with_help(format!(
            "install it (the package is `passt`; from Debian 12, Ubuntu 23.04 and Fedora 36 on), or {WAY_OUT}"
        ))
    })?;
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(cannot)?;
    let holder = clone_process(Namespaces::NETWORK, || hold(&theirs)).map_err(cannot)?;
    drop(theirs);
    let namespace = protocol::receive_descriptors(&ours)
        .map_err(cannot)?
        .and_then(|mut received| received.pop())
        .ok_or_else(|| cannot(Errno::IO))?;
    let mut pasta = Pasta::start(&program, job, &namespace)?;
    let has_route = pasta.wait_for(ours.as_fd(), caller);
    // It ends by itself once it has seen a route, or its time is over.
    drop((holder, ours));
    match has_route {
        Waited::Told => {}
        Waited::CallerLeft => return Ok(()),
        Waited::Ended => return Err(pasta.failure(&program)),
    }
    protocol::hand_over(to, namespace.as_fd()).map_err(cannot)?;
    drop(namespace);
    match pasta.wait_for(caller, caller) {
        Waited::Ended => Err(pasta.failure(&program)),
        Waited::Told | Waited::CallerLeft => Ok(()),
    }
}

fn cannot(errno: Errno) -> JobError {
    let message = "cannot make a network namespace for the steps";
    JobError::from_errno(JobErrorKind::Network, message, errno).with_help(WAY_OUT)
}

/// The first process in the namespace.
fn hold(worker: &OwnedFd) -> u8 {
    let told = || -> Result<(), Errno> {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        sys::network::bring_loopback_up()?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let own = rustix::fs::open("/proc/self/ns/net", flags, Mode::empty())?;
        protocol::hand_over(worker, own.as_fd())?;
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if has_default_route() {
                rustix::io::write(worker, b"r")?;
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    };
    u8::from(told().is_err())
}

/// A destination of all zeroes, of IPv4 or IPv6, that is not unreachable by way of `lo`.
fn has_default_route() -> bool {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    is_default_in(
        &read("/proc/self/net/route"),
        &read("/proc/self/net/ipv6_route"),
    )
}

fn is_default_in(four: &str, six: &str) -> bool {
    let four = four.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(1) == Some(&"00000000") && fields.get(7) == Some(&"00000000")
    });
    let six = six.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_all = fields
            .first()
            .is_some_and(|to| to.bytes().all(|byte| byte == b'0'));
        is_all && fields.get(1) == Some(&"00") && fields.last().is_some_and(|name| *name != "lo")
    });
    four || six
}

/// Why [`Pasta::wait_for`] returned.
enum Waited {
    Told,
    CallerLeft,
    Ended,
}

/// The running program; it ends with this value.
struct Pasta {
    child: Child,
    output: File,
}

impl Pasta {
    fn start(program: &Path, job: &NetworkJob, namespace: &OwnedFd) -> Result<Self, JobError> {
        let output = rustix::fs::memfd_create("pasta", MemfdFlags::CLOEXEC).map_err(cannot)?;
        let output = File::from(output);
        // It is to have this one descriptor beside the standard ones.
        rustix::io::fcntl_setfd(namespace, rustix::io::FdFlags::empty()).map_err(cannot)?;
        let copy = output
            .try_clone()
            .and_then(|one| Ok((one.try_clone()?, one)));
        let (stdout, stderr) = copy.map_err(|error| {
            let message = "cannot start `pasta`";
            JobError::new(JobErrorKind::Network, message).caused_by(&error)
        })?;
        let mut command = Command::new(program);
        command
            .args(arguments(job, ids::maps().is_none(), namespace.as_raw_fd()))
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr);
        let child = command.spawn();
        let closed = rustix::io::fcntl_setfd(namespace, rustix::io::FdFlags::CLOEXEC);
        let child = child.map_err(|error| {
            let message = format!("cannot start `{}`", program.display());
            JobError::new(JobErrorKind::Network, message)
                .caused_by(&error)
                .with_help(WAY_OUT)
        })?;
        let pasta = Self { child, output };
        closed.map_err(cannot)?;
        Ok(pasta)
    }

    /// Waits until `news` can be read, the caller hangs up, or pasta has ended or taken too long.
    fn wait_for(&mut self, news: BorrowedFd<'_>, caller: BorrowedFd<'_>) -> Waited {
        let is_watch = news.as_raw_fd() == caller.as_raw_fd();
        let limit = Timespec {
            tv_sec: PATIENCE.as_secs().cast_signed(),
            tv_nsec: 0,
        };
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let Some(Ok(pidfd)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else {
            return Waited::Ended;
        };
        loop {
            let mut fds = [
                PollFd::new(&pidfd, PollFlags::IN),
                PollFd::from_borrowed_fd(caller, PollFlags::IN | PollFlags::RDHUP),
                PollFd::from_borrowed_fd(news, PollFlags::IN),
            ];
            match poll(&mut fds, (!is_watch).then_some(&limit)) {
                Err(Errno::INTR) => continue,
                Err(_) | Ok(0) => return Waited::Ended,
                Ok(_) => {}
            }
            let is_ready = |index: usize| !fds[index].revents().is_empty();
            if is_ready(1) {
                return Waited::CallerLeft;
            }
            if is_ready(2) {
                // The end without a word: no route came.
                return match rustix::io::read(news, &mut [0_u8; 1]) {
                    Ok(1) => Waited::Told,
                    _ => Waited::Ended,
                };
            }
            if is_ready(0) {
                return Waited::Ended;
            }
        }
    }

    /// What it said before it failed.
    fn failure(&mut self, program: &Path) -> JobError {
        self.stop();
        let mut said = String::new();
        // What can't be read is not said.
        let _ = self.output.rewind();
        let _ = (&self.output).take(4096).read_to_string(&mut said);
        let lines = said
            .lines()
            .filter(|line| !line.starts_with("Failed to send"));
        let reason = lines.last().unwrap_or("it brought no route out up in time");
        let message = format!("`{}` brought no network up: {reason}", program.display());
        let help = if said.contains("/dev/net/tun") || said.contains("tun device") {
            format!(
                "it needs to open /dev/net/tun (`chmod 0666 /dev/net/tun`; in a container `--device /dev/net/tun`), or {WAY_OUT}"
            )
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

fn arguments(job: &NetworkJob, is_root: bool, namespace: i32) -> Vec<String> {
    let ports = if job.ports.is_empty() {
        "none".to_owned()
    } else {
        let pair = |(host, inside): &(u16, u16)| format!("{host}:{inside}");
        job.ports.iter().map(pair).collect::<Vec<_>>().join(",")
    };
    let mut words: Vec<String> = ["--foreground", "--config-net", "--no-map-gw", "--tcp-ports"]
        .map(str::to_owned)
        .to_vec();
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
        };
        let words = arguments(&published, false, 9).join(" ");
        assert!(words.contains("--tcp-ports 8080:80,1:2 "), "{words}");
        assert!(
            words.contains("--dns-forward 169.254.1.1 --netns-only"),
            "{words}"
        );
    }

    #[test]
    fn routes_are_read() {
        let head = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n";
        let local = format!("{head}eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\n");
        let out = format!("{local}eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\n");
        assert!(!is_default_in(&local, ""));
        assert!(is_default_in(&out, ""));
        let zeroes = "0".repeat(32);
        let six =
            |name: &str| format!("{zeroes} 00 {zeroes} 00 {zeroes} 00000400 1 0 00200200 {name}\n");
        assert!(!is_default_in("", &six("lo")));
        assert!(is_default_in("", &six("eth0")));
    }
}
