//! What crosses the spawner's sockets.
//!
//! ```text
//! caller ── SOCK_SEQPACKET: one byte + descriptors [reply, …] ──▶ the idle worker
//! caller ◀══ SOCK_STREAM `reply`, one per job ══════════════════════════════════════▶ worker
//!            caller → worker: length (u64, little endian) + Request, then nothing; hanging up cancels the job
//!            worker → caller: length (u64, little endian) + Result<Reply, JobError>
//! ```
//!
//! Both ends are the same program (one is a fork of the other), so the encoding carries no version.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::JobError;
use crate::job::{
    CompleteJob, ExportJob, FileJob, FileOutcome, LayerEntry, PackJob, PackOutcome, RunJob,
    RunOutcome, SealedLayer, TreeSize, UnpackJob, UnpackOutcome,
};

/// A job.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Run(Box<RunJob>),
    Files(FileJob),
    Unpack(UnpackJob),
    Complete(CompleteJob),
    Pack(PackJob),
    Export(ExportJob),
    RemoveTree(PathBuf),
    Measure(Vec<PathBuf>),
    Examine(PathBuf),
}

/// Its answer, of the same name.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Run(RunOutcome),
    Files(FileOutcome),
    Unpack(UnpackOutcome),
    Complete(Vec<LayerEntry>),
    Pack(PackOutcome),
    Export(()),
    RemoveTree(()),
    Measure(Vec<TreeSize>),
    Examine(SealedLayer),
}

/// Most descriptors a request has: the reply socket and three for the command.
pub(crate) const MAX_DESCRIPTORS: usize = 4;

/// Larger messages are refused: a layer of a million entries has some 200 MB.
const MAX_MESSAGE: u64 = 4 << 30;

/// Gives these descriptors to a worker.
pub(crate) fn send_descriptors(
    socket: impl AsFd,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::TOOBIG);
    }
    let data = [IoSlice::new(b"j")];
    retry(|| sendmsg(&socket, &data, &mut control, SendFlags::NOSIGNAL)).map(|_| ())
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
        send_descriptors(&ours, &[null.as_fd(), theirs.as_fd()]).expect("send");
        drop(ours);
        assert_eq!(
            receive_descriptors(&theirs)
                .expect("receive")
                .expect("some")
                .len(),
            2
        );
        assert!(receive_descriptors(&theirs).expect("receive").is_none());
    }
}
