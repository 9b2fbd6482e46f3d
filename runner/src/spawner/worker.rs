//! A worker: does one job, answers, ends.

use std::any::Any;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::protocol::{self, Answer, Reply, Request};
use super::{SpawnerOptions, Stdio};
use crate::error::{JobError, JobErrorKind};
use crate::job::Network;
use crate::sandbox::ahead::Ahead;
use crate::{files, ids, isolation, network, sandbox, sys};

/// Does the job whose descriptors these are: the reply socket, then what the job reads or writes.
pub(super) fn work(
    descriptors: Vec<OwnedFd>,
    options: SpawnerOptions,
    standing: &Result<(), JobError>,
    ahead: Option<Ahead>,
) {
    let mut descriptors = descriptors.into_iter();
    let Some(reply) = descriptors.next().map(UnixStream::from) else {
        return;
    };
    let Ok(Some(request)) = protocol::read_message::<Request>(&reply) else {
        return;
    };
    let answer = catch_unwind(AssertUnwindSafe(|| match standing {
        Ok(()) => answer(request, descriptors, &reply, options, ahead).map_err(ids::explain),
        Err(error) => Err(error.clone()),
    }))
    .unwrap_or_else(|payload| Err(panicked(&*payload)));
    // Fails when the caller has gone, and then nobody is left to tell.
    let _ = protocol::write_message(&reply, &answer);
}

/// No panic hook is set for this: a thread of the caller may have held the hook's lock when the server was forked.
fn panicked(payload: &(dyn Any + Send)) -> JobError {
    let message = (payload.downcast_ref::<&str>().copied())
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    JobError::new(
        JobErrorKind::Lost,
        format!("the worker process of this job failed: {message}"),
    )
    .with_help("this is a bug in rbuild; please report it")
}

fn answer(
    request: Request,
    mut descriptors: impl Iterator<Item = OwnedFd>,
    reply: &UnixStream,
    options: SpawnerOptions,
    ahead: Option<Ahead>,
) -> Answer {
    let mut next = || {
        descriptors
            .next()
            .ok_or_else(|| JobError::new(JobErrorKind::Lost, "a descriptor got lost on the way"))
    };
    if let Request::Run(job) = request {
        let stdio = Stdio {
            stdin: next()?,
            stdout: next()?,
            stderr: next()?,
        };
        let network = match job.network {
            Network::Private => Some(next()?),
            Network::Host | Network::None => None,
        };
        return sandbox::run(&job, stdio, network.as_ref(), reply.as_fd(), options, ahead)
            .map(Reply::Run);
    }
    drop(ahead);
    if let Request::Network(job) = request {
        return network::keep(&job, &next()?, reply.as_fd()).map(Reply::Network);
    }
    // These are busy with files; the kernel ends them when the caller hangs up.
    let disarm = |errno| JobError::from_errno(JobErrorKind::Lost, "cannot watch the caller", errno);
    sys::signal::die_when_signalled_by(reply).map_err(disarm)?;
    let answer = match request {
        Request::Run(_) | Request::Network(_) => unreachable!("answered above"),
        Request::Files(job) => files::change(&job, options).map(Reply::Files),
        Request::Unpack(job) => files::unpack(&job).map(Reply::Unpack),
        Request::Complete(job) => files::complete(&job).map(Reply::Complete),
        Request::Pack(job) => files::pack(&job, next()?).map(Reply::Pack),
        Request::Export(job) => files::export(&job, descriptors.next(), options).map(Reply::Export),
        Request::RemoveTree(path) => files::remove_tree(&path).map(Reply::RemoveTree),
        Request::Measure(paths) => files::measure(&paths).map(Reply::Measure),
        Request::Examine(snapshot) => files::examine(&snapshot).map(Reply::Examine),
        Request::SetAttributes(job) => files::set_attributes(&job).map(Reply::SetAttributes),
        Request::MoveTree(job) => files::move_tree(&job).map(Reply::MoveTree),
        Request::Describe => Ok(Reply::Describe(isolation::survey::describe(options.roots))),
        Request::Survey(store) => Ok(Reply::Survey(isolation::survey::survey(&store))),
    };
    sys::signal::stay_when_signalled_by(reply).map_err(disarm)?;
    answer
}
