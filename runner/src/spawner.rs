//! The process that does all privileged file work and runs all commands.
//!
//! ```text
//! builder (threads, tokio) ──socketpair──▶ one worker per job ──clone3──▶ sandbox (RUN only)
//!                                            ▲ forked ahead of the job by the spawner server
//! ```
//!
//! [`Spawner::start`] forks a small single-threaded server; every job is done by a worker that the server forks.
//! So no process with threads ever forks, clone never copies a large address space, and a job that goes wrong takes
//! nothing else with it.
//!
//! **Nothing outlives the caller.** The server is pid 1 of a pid namespace of its own, in which all workers and
//! sandboxes live. It ends when the last [`Spawner`] is dropped or its process dies, however it dies (the idle worker's
//! socket reads end-of-file); then the kernel kills everything in the namespace, and with the processes go their mount
//! namespaces. Server and workers are in a session of their own: Ctrl-C on the terminal reaches the caller only, which
//! decides and cancels.
//!
//! **Cancelling** a job is hanging up its reply socket. The worker of a `RUN` sees that, kills the sandbox's pid 1 (and so
//! all in it) and answers [`CommandStatus::Cancelled`](crate::job::CommandStatus); any other worker is ended by the
//! kernel on the spot. What it left in the job's directories is the lease owner's to remove.
//!
//! **Rungs.** As root the workers have the caller's privileges. Otherwise the server makes a child in a user namespace when the
//! first job arrives, and that child serves from then on (`userns`).
//!
//! Host paths in jobs have to be absolute.

pub(crate) mod protocol;
mod server;
pub(crate) mod userns;
mod worker;

use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use self::protocol::{Answer, Header, Reply, Request};
use crate::error::{JobError, JobErrorKind};
use crate::isolation::{Ground, Rung, Survey, survey};
use crate::job::{
    AttributesJob, CompleteJob, ExportJob, FileJob, FileOutcome, LayerEntry, MoveJob, NetworkJob,
    PackJob, PackOutcome, RunJob, RunOutcome, SealedLayer, TreeSize, UnpackJob, UnpackOutcome,
};
use crate::mounts::{MountApi, Roots};

/// A connection to the spawner process. Clones share it; when the last is dropped the process ends.
#[derive(Clone, Debug)]
pub struct Spawner {
    /// Our end of the request socket. One message is one `sendmsg`, so threads need no lock.
    socket: Arc<OwnedFd>,
    /// Where workers stand, once that was said.
    rung: Arc<OnceLock<Rung>>,
    /// Where the store is, if its file system may refuse overlays.
    doubted: Arc<OnceLock<PathBuf>>,
}

/// What a command reads and writes. Each is closed on this side once the job is sent.
#[derive(Debug)]
pub struct Stdio {
    /// Descriptor 0.
    pub stdin: OwnedFd,
    /// Descriptor 1.
    pub stdout: OwnedFd,
    /// Descriptor 2.
    pub stderr: OwnedFd,
}

/// How a spawner works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpawnerOptions {
    /// Which mount calls are used. Anything but the default is for tests.
    pub mount_api: MountApi,
    /// What steps work on. Anything but the default is for tests: see [`Spawner::keep_store_at`].
    pub roots: Roots,
    /// What an attack is tried on.
    #[cfg(test)]
    pub(crate) trial: Option<crate::sandbox::weak::Trial>,
}

/// Takes the outcome out of the reply that belongs to a request.
macro_rules! extract {
    ($reply:ident, $kind:ident) => {
        match $reply {
            Reply::$kind(outcome) => Some(outcome),
            _ => None,
        }
    };
}

impl Spawner {
    /// Forks the spawner.
    ///
    /// Has to be called before the process starts threads: the child goes on running ordinary code, and a lock that
    /// another thread held would stay locked there. (Only the allocator is safe, by glibc's own doing.)
    pub fn start() -> Result<Self, JobError> {
        Self::start_with(SpawnerOptions::default())
    }

    /// [`Spawner::start`] with options.
    pub fn start_with(options: SpawnerOptions) -> Result<Self, JobError> {
        let cannot = |errno| {
            JobError::from_errno(
                JobErrorKind::Lost,
                "cannot start the spawner process",
                errno,
            )
        };
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(cannot)?;
        server::start(&theirs, options).map_err(cannot)?;
        Ok(Self {
            socket: Arc::new(ours),
            rung: Arc::default(),
            doubted: Arc::default(),
        })
    }

    /// Says on which rung jobs are done; see [`isolation`](crate::isolation). Nothing happens before the first job. Left out,
    /// jobs are done with the caller's own privileges.
    ///
    /// # Errors
    /// Another rung was said before: a spawner stands on one for good.
    pub fn isolate(&self, rung: &Rung) -> Result<(), JobError> {
        if self.rung.get_or_init(|| rung.clone()) == rung {
            return Ok(());
        }
        Err(JobError::new(
            JobErrorKind::MissingPrivilege,
            "this process has chosen another isolation already",
        ))
    }

    /// Says where the store is. If its file system may refuse overlays, that is tried in the existing directory `place` of the
    /// store when the first job arrives, and where it does, jobs work on copies ([`Roots::Copy`]). Only before the first job.
    pub fn keep_store_at(&self, place: &Path) {
        if survey::store_file_system(place).is_some() {
            // The first one counts, as for the rung: all stores of a process are mostly one.
            let _ = self.doubted.set(place.to_owned());
        }
    }

    /// Whether overlays are tried first: then [`Ground::has_overlays`] may be false.
    pub fn doubts_overlays(&self) -> bool {
        self.doubted.get().is_some()
    }

    /// What jobs stand on. Blocks; enters the user namespace.
    pub fn describe(&self) -> Result<Ground, JobError> {
        self.begin(&Request::Describe, Vec::new(), |reply| {
            extract!(reply, Describe)
        })?
        .wait()
    }

    /// Tries out what this machine allows, with a store in the existing directory `store`. Blocks. Only before the first job:
    /// afterwards it would tell what is allowed where the workers stand.
    pub fn survey(&self, store: &Path) -> Result<Survey, JobError> {
        self.begin(&Request::Survey(store.to_owned()), Vec::new(), |reply| {
            extract!(reply, Survey)
        })?
        .wait()
    }

    /// Starts a command in a sandbox.
    pub fn run(&self, job: RunJob, stdio: Stdio) -> Result<RunHandle, JobError> {
        self.begin(
            &Request::Run(Box::new(job)),
            vec![stdio.stdin, stdio.stdout, stdio.stderr],
            |reply| extract!(reply, Run),
        )
    }

    /// Starts a command in a sandbox whose network is [`Network::Private`](crate::job::Network).
    pub fn run_in_network(
        &self,
        job: RunJob,
        stdio: Stdio,
        network: &PrivateNetwork,
    ) -> Result<RunHandle, JobError> {
        let namespace = network
            .namespace
            .try_clone()
            .map_err(|error| lost(&error))?;
        self.begin(
            &Request::Run(Box::new(job)),
            vec![stdio.stdin, stdio.stdout, stdio.stderr, namespace],
            |reply| extract!(reply, Run),
        )
    }

    /// Brings up a network for commands to be in. Blocks until it is there.
    pub fn open_network(&self, job: NetworkJob) -> Result<PrivateNetwork, JobError> {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|errno| lost(&errno))?;
        let handle = self.begin(&Request::Network(job), vec![theirs], |reply| {
            extract!(reply, Network)
        })?;
        let received = protocol::receive_descriptors(&ours).map_err(|errno| lost(&errno))?;
        match received.and_then(|mut received| received.pop()) {
            Some(namespace) => Ok(PrivateNetwork {
                namespace,
                _handle: handle,
            }),
            None => Err(handle.wait().err().unwrap_or_else(|| {
                JobError::new(JobErrorKind::Lost, "the worker gave no network")
            })),
        }
    }

    /// Starts changing files beneath a root; [`JobHandle::wait`] gives the layer.
    pub fn begin_files(&self, job: FileJob) -> Result<JobHandle<FileOutcome>, JobError> {
        self.begin(&Request::Files(job), Vec::new(), |reply| {
            extract!(reply, Files)
        })
    }

    /// Changes files beneath a root and seals the result into a layer. Blocks.
    pub fn files(&self, job: FileJob) -> Result<FileOutcome, JobError> {
        self.begin_files(job)?.wait()
    }

    /// Starts unpacking a layer blob.
    pub fn begin_unpack(&self, job: UnpackJob) -> Result<JobHandle<UnpackOutcome>, JobError> {
        self.begin(&Request::Unpack(job), Vec::new(), |reply| {
            extract!(reply, Unpack)
        })
    }

    /// Unpacks a layer blob into a snapshot directory. Blocks.
    pub fn unpack(&self, job: UnpackJob) -> Result<UnpackOutcome, JobError> {
        self.begin_unpack(job)?.wait()
    }

    /// Completes an unpacked layer that leans on lower ones; the entries it now has. Blocks.
    pub fn complete(&self, job: CompleteJob) -> Result<Vec<LayerEntry>, JobError> {
        self.begin(&Request::Complete(job), Vec::new(), |reply| {
            extract!(reply, Complete)
        })?
        .wait()
    }

    /// Starts packing a snapshot as a layer blob, written to `output` (a file or a pipe).
    pub fn begin_pack(
        &self,
        job: PackJob,
        output: OwnedFd,
    ) -> Result<JobHandle<PackOutcome>, JobError> {
        self.begin(&Request::Pack(job), vec![output], |reply| {
            extract!(reply, Pack)
        })
    }

    /// Packs a snapshot as a layer blob, written to `output` (a file or a pipe). Blocks.
    pub fn pack(&self, job: PackJob, output: OwnedFd) -> Result<PackOutcome, JobError> {
        self.begin_pack(job, output)?.wait()
    }

    /// Starts writing a merged root file system somewhere. `output` is for [`ExportForm::Tar`](crate::job::ExportForm).
    pub fn begin_export(
        &self,
        job: ExportJob,
        output: Option<OwnedFd>,
    ) -> Result<JobHandle<()>, JobError> {
        self.begin(
            &Request::Export(job),
            output.into_iter().collect(),
            |reply| extract!(reply, Export),
        )
    }

    /// Writes a merged root file system somewhere. Blocks.
    pub fn export_root(&self, job: ExportJob, output: Option<OwnedFd>) -> Result<(), JobError> {
        self.begin_export(job, output)?.wait()
    }

    /// Sets owner and mode of an existing directory of the store. Blocks.
    pub fn set_attributes(&self, job: AttributesJob) -> Result<(), JobError> {
        self.begin(&Request::SetAttributes(job), Vec::new(), |reply| {
            extract!(reply, SetAttributes)
        })?
        .wait()
    }

    /// Moves a directory, or what is in it; see [`MoveJob`]. Blocks.
    pub fn move_tree(&self, job: MoveJob) -> Result<(), JobError> {
        self.begin(&Request::MoveTree(job), Vec::new(), |reply| {
            extract!(reply, MoveTree)
        })?
        .wait()
    }

    /// Removes a directory tree, whoever owns what is in it. One that is not there is no error. Blocks.
    pub fn remove_tree(&self, path: &Path) -> Result<(), JobError> {
        self.begin(&Request::RemoveTree(path.to_owned()), Vec::new(), |reply| {
            extract!(reply, RemoveTree)
        })?
        .wait()
    }

    /// What each of these trees takes on the disk. Blocks.
    pub fn measure(&self, paths: Vec<PathBuf>) -> Result<Vec<TreeSize>, JobError> {
        self.begin(&Request::Measure(paths), Vec::new(), |reply| {
            extract!(reply, Measure)
        })?
        .wait()
    }

    /// Reads a whole snapshot, changing nothing: the `diff_id` and the entries that it has now. Blocks.
    pub fn examine(&self, snapshot: &Path) -> Result<SealedLayer, JobError> {
        self.begin(
            &Request::Examine(snapshot.to_owned()),
            Vec::new(),
            |reply| extract!(reply, Examine),
        )?
        .wait()
    }

    fn begin<T>(
        &self,
        request: &Request,
        descriptors: Vec<OwnedFd>,
        extract: fn(Reply) -> Option<T>,
    ) -> Result<JobHandle<T>, JobError> {
        let (ours, theirs) = UnixStream::pair().map_err(|error| lost(&error))?;
        let mut sent = vec![theirs.as_fd()];
        sent.extend(descriptors.iter().map(AsFd::as_fd));
        let header = match request {
            Request::Survey(_) => Header::Survey,
            _ => Header::Job(
                self.rung.get_or_init(|| Rung::Namespaces).clone(),
                self.doubted.get().cloned(),
            ),
        };
        protocol::send_descriptors(&*self.socket, &header, &sent).map_err(|errno| lost(&errno))?;
        drop(theirs);
        drop(descriptors);
        protocol::write_message(&ours, request).map_err(|error| lost(&error))?;
        let line = Arc::new(Line {
            socket: ours,
            is_cancelled: AtomicBool::new(false),
        });
        Ok(JobHandle { line, extract })
    }
}

/// A network that only commands which are given it are in; it ends with this value.
#[derive(Debug)]
pub struct PrivateNetwork {
    namespace: OwnedFd,
    _handle: JobHandle<()>,
}

/// A running command.
pub type RunHandle = JobHandle<RunOutcome>;

/// A running job. Dropping it cancels the job.
#[derive(Debug)]
#[must_use = "dropping the handle cancels the job"]
pub struct JobHandle<T> {
    line: Arc<Line>,
    extract: fn(Reply) -> Option<T>,
}

/// Cancels a job from another thread than the one that waits for it.
#[derive(Clone, Debug)]
pub struct Canceller(Arc<Line>);

/// The connection to a worker.
#[derive(Debug)]
struct Line {
    socket: UnixStream,
    /// Tells an expected hang-up from a lost worker.
    is_cancelled: AtomicBool,
}

impl<T> JobHandle<T> {
    /// Waits for the job to end.
    ///
    /// `Err` with [`JobErrorKind::Cancelled`] when it was cancelled, except for commands, which answer with
    /// [`CommandStatus::Cancelled`](crate::job::CommandStatus) once nothing of theirs runs any more.
    pub fn wait(self) -> Result<T, JobError> {
        let answer = protocol::read_message::<Answer>(&self.line.socket);
        match answer {
            Ok(Some(answer)) => (self.extract)(answer?).ok_or_else(|| {
                JobError::new(JobErrorKind::Lost, "the worker answered another question")
            }),
            Ok(None) | Err(_) if self.line.is_cancelled.load(Ordering::Relaxed) => Err(
                JobError::new(JobErrorKind::Cancelled, "the job was cancelled"),
            ),
            Ok(None) => Err(JobError::new(
                JobErrorKind::Lost,
                "the worker process of this job ended without an answer",
            )
            .with_help(
                "if the machine ran out of memory, the kernel's log says which process it killed",
            )),
            Err(error) => Err(lost(&error)),
        }
    }

    /// Ends the job; [`JobHandle::wait`] then returns soon. More than once is once.
    pub fn cancel(&self) {
        self.line.cancel();
    }

    /// A way to cancel while another thread waits.
    pub fn canceller(&self) -> Canceller {
        Canceller(Arc::clone(&self.line))
    }
}

impl Canceller {
    /// Ends the job. More than once is once; nothing happens when it has ended already.
    pub fn cancel(&self) {
        self.0.cancel();
    }
}

impl Line {
    fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Relaxed);
        // Fails only when the worker has hung up, and then there is nothing left to cancel.
        let _ = self.socket.shutdown(Shutdown::Write);
    }
}

impl<T> Drop for JobHandle<T> {
    fn drop(&mut self) {
        // A canceller may hold the socket open, so closing our share of it is not enough.
        self.cancel();
    }
}

fn lost(error: &(dyn std::error::Error + 'static)) -> JobError {
    JobError::new(JobErrorKind::Lost, "cannot reach the spawner process").caused_by(error)
}
