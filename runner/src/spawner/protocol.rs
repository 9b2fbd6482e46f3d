//! What crosses the spawner's sockets.
//!
//! ```text
//! caller ── SOCK_SEQPACKET: Header + descriptors [reply, …] ──▶ the idle worker
//! caller ◀══ SOCK_STREAM `reply`, one per job ══════════════════════════════════════▶ worker
//!            caller → worker: length (u64, little endian) + Request, then nothing; hanging up cancels the job
//!            worker → caller: length (u64, little endian) + Result<Reply, JobError>
//! ```
//!
//! The header is for the server, which looks at the first one without taking it: there it learns where workers are to stand.
//!
//! Both ends are the same program (one is a fork of the other), so the encoding carries no version.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recv, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::JobError;
use crate::isolation::{Ground, Rung, Survey};
use crate::job::{
    AttributesJob, CompleteJob, ExportJob, FileJob, FileOutcome, LayerEntry, MoveJob, NetworkJob,
    PackJob, PackOutcome, RunJob, RunOutcome, SealedLayer, TreeSize, UnpackJob, UnpackOutcome,
};

/// A job.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Run(Box<RunJob>),
    Network(NetworkJob),
    Files(FileJob),
    Unpack(UnpackJob),
    Complete(CompleteJob),
    Pack(PackJob),
    Export(ExportJob),
    RemoveTree(PathBuf),
    Measure(Vec<PathBuf>),
    Examine(PathBuf),
    SetAttributes(AttributesJob),
    MoveTree(MoveJob),
    Describe,
    Survey(PathBuf),
}

/// Its answer, of the same name.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Run(RunOutcome),
    Network(()),
    Files(FileOutcome),
    Unpack(UnpackOutcome),
    Complete(Vec<LayerEntry>),
    Pack(PackOutcome),
    Export(()),
    RemoveTree(()),
    Measure(Vec<TreeSize>),
    Examine(SealedLayer),
    SetAttributes(()),
    MoveTree(()),
    Describe(Ground),
    Survey(Survey),
}

/// What the server is told of a message.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Header {
    /// A job for a worker that stands on this rung, and a place of the store where overlays are to be tried first.
    Job(Rung, Option<PathBuf>),
    /// A look at what this machine allows, from where the server was started.
    Survey,
}

/// Largest header: two maps of 340 lines of three numbers, five bytes each at most, and three paths.
const MAX_HEADER: usize = 24 << 10;

/// Most descriptors a request has: the reply socket, three for the command, and its network.
pub(crate) const MAX_DESCRIPTORS: usize = 5;

/// Larger messages are refused: a layer of a million entries has some 200 MB.
const MAX_MESSAGE: u64 = 4 << 30;

/// Gives these descriptors to a worker.
pub(crate) fn send_descriptors(
    socket: impl AsFd,
    header: &Header,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    let header = postcard::to_stdvec(header).map_err(|_| Errno::INVAL)?;
    send(socket, &header, descriptors)
}

/// Gives descriptors to whoever waits in [`receive_descriptors`] at the other end.
pub(crate) fn hand_over(socket: impl AsFd, descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    send(socket, b"d", descriptors)
}

fn send(socket: impl AsFd, words: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::TOOBIG);
    }
    let data = [IoSlice::new(words)];
    retry(|| sendmsg(&socket, &data, &mut control, SendFlags::NOSIGNAL)).map(|_| ())
}

/// Waits for the next request and reads its header; the request stays where it is. `None` when every caller has gone.
pub(crate) fn peek_header(socket: impl AsFd) -> Result<Option<Header>, Errno> {
    let mut header = vec![0_u8; MAX_HEADER];
    // Nothing is said of room for descriptors, so none are received.
    let (length, _) = retry(|| recv(&socket, header.as_mut_slice(), RecvFlags::PEEK))?;
    if length == 0 {
        return Ok(None);
    }
    postcard::from_bytes(&header[..length])
        .map(Some)
        .map_err(|_| Errno::BADMSG)
}

/// Waits for the next request. `None` when every caller has gone.
pub(crate) fn receive_descriptors(socket: impl AsFd) -> Result<Option<Vec<OwnedFd>>, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0_u8; 1];
    let mut data = [IoSliceMut::new(&mut byte)];
    let received = retry(|| recvmsg(&socket, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC))?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut descriptors = Vec::with_capacity(MAX_DESCRIPTORS);
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    Ok(Some(descriptors))
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Writes one length-prefixed message.
pub(crate) fn write_message(mut to: impl Write, message: &impl Serialize) -> io::Result<()> {
    let body = postcard::to_stdvec(message).map_err(io::Error::other)?;
    let mut frame = Vec::with_capacity(body.len() + 8);
    frame.extend_from_slice(&(body.len() as u64).to_le_bytes());
    frame.extend_from_slice(&body);
    to.write_all(&frame)
}

/// Reads one length-prefixed message. `None` at the end of the stream.
pub(crate) fn read_message<T: DeserializeOwned>(mut from: impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 8];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    let length = u64::from_le_bytes(length);
    if length > MAX_MESSAGE {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "message is too long",
        ));
    }
    let mut body = Vec::new();
    from.take(length).read_to_end(&mut body)?;
    if body.len() as u64 != length {
        return Ok(None);
    }
    postcard::from_bytes(&body)
        .map(Some)
        .map_err(io::Error::other)
}

/// The answer as it stands on the wire.
pub(crate) type Answer = Result<Reply, JobError>;

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    #[test]
    fn messages_round_trip_and_a_cut_one_is_none() {
        let mut bytes = Vec::new();
        write_message(&mut bytes, &Request::RemoveTree("/x".into())).expect("write");
        let back: Option<Request> = read_message(bytes.as_slice()).expect("read");
        assert!(matches!(back, Some(Request::RemoveTree(path)) if path.as_os_str() == "/x"));
        let cut = &bytes[..bytes.len() - 1];
        assert!(read_message::<Request>(cut).expect("read").is_none());
        assert!(read_message::<Request>([0xff; 8].as_slice()).is_err());
    }

    #[test]
    fn descriptors_cross_and_the_end_is_seen() {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .expect("pair");
        let null = std::fs::File::open("/dev/null").expect("open");
        let header = Header::Job(Rung::Namespaces, None);
        send_descriptors(&ours, &header, &[null.as_fd(), theirs.as_fd()]).expect("send");
        drop(ours);
        for _ in 0..2 {
            assert_eq!(peek_header(&theirs).expect("peek").as_ref(), Some(&header));
        }
        assert_eq!(
            receive_descriptors(&theirs)
                .expect("receive")
                .expect("some")
                .len(),
            2
        );
        assert!(receive_descriptors(&theirs).expect("receive").is_none());
        assert!(peek_header(&theirs).expect("peek").is_none());
    }
}
