//! Asking the kernel over netlink, see `netlink(7)`: messages of attributes, each request acknowledged.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto,
    socket_with,
};

/// The kernel answers at once; without an answer, this is how long is waited for one.
const PATIENCE: Duration = Duration::from_secs(5);

/// Length of the header of a message.
const HEADER: usize = 16;
/// Length of the header of an attribute.
const ATTRIBUTE_HEADER: usize = 4;

/// Answers are at most this long; a dump comes in several.
const LONGEST_ANSWER: usize = 64 << 10;

/// Asks, and to be told how it went.
const REQUEST: u16 = 0x1 | 0x4;
/// Makes what is not there yet.
pub(super) const CREATE: u16 = 0x400;
/// Fails when it is there already.
pub(super) const EXCLUSIVE: u16 = 0x200;
/// Puts it behind the others.
pub(super) const APPEND: u16 = 0x800;
/// All there are.
const DUMP: u16 = 0x300;

/// Kinds of answers.
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// An attribute that holds others.
const NESTED: u16 = 0x8000;

/// A socket to one part of the kernel, in the network namespace that it was opened in.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// To what knows of interfaces, addresses and routes.
    pub(super) fn route() -> Result<Self, Errno> {
        // It is number 0.
        Self::open(None)
    }

    /// To what filters packets.
    pub(super) fn netfilter() -> Result<Self, Errno> {
        Self::open(Some(netlink::NETFILTER))
    }

    fn open(protocol: Option<Protocol>) -> Result<Self, Errno> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        Self::over(socket)
    }

    /// Over one that was opened elsewhere.
    pub(super) fn over(socket: OwnedFd) -> Result<Self, Errno> {
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Asks for one thing.
    pub(super) fn ask(&mut self, message: Message) -> Result<(), Errno> {
        self.ask_together([message], Message::is_acknowledged)
    }

    /// Asks for several that are done all or not at all; `is_answered` says which are acknowledged.
    pub(super) fn ask_together(
        &mut self,
        messages: impl IntoIterator<Item = Message>,
        is_answered: impl Fn(&Message) -> bool,
    ) -> Result<(), Errno> {
        let first = self.sequence + 1;
        let mut bytes = Vec::new();
        let mut awaited = Vec::new();
        for message in messages {
            self.sequence += 1;
            if is_answered(&message) {
                awaited.push(self.sequence);
            }
            message.write(REQUEST, self.sequence, &mut bytes);
        }
        self.send(&bytes)?;
        while !awaited.is_empty() {
            for answer in split(&self.receive()?) {
                let is_ours = answer.kind == ERROR && answer.sequence >= first;
                if let Some(errno) = answer.errno().filter(|_| is_ours) {
                    // Nothing was done; what is said of the others is passed over by the next request.
                    return Err(errno);
                }
                awaited.retain(|sequence| !is_ours || *sequence != answer.sequence);
            }
        }
        Ok(())
    }

    /// Asks for a list; `each` gets the bodies.
    pub(super) fn list(
        &mut self,
        message: &Message,
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), Errno> {
        self.sequence += 1;
        let mut bytes = Vec::new();
        message.write(REQUEST | DUMP, self.sequence, &mut bytes);
        self.send(&bytes)?;
        loop {
            for answer in split(&self.receive()?) {
                match (answer.sequence == self.sequence, answer.kind) {
                    (false, _) => {}
                    (true, DONE) => return Ok(()),
                    (true, ERROR) => return answer.errno().map_or(Ok(()), Err),
                    (true, _) => each(answer.body),
                }
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Errno> {
        let kernel = SocketAddrNetlink::new(0, 0);
        sendto(&self.socket, bytes, SendFlags::empty(), &kernel).map(drop)
    }

    fn receive(&self) -> Result<Vec<u8>, Errno> {
        let mut buffer = vec![0; LONGEST_ANSWER];
        let (length, _) = rustix::io::retry_on_intr(|| {
            recv(&self.socket, buffer.as_mut_slice(), RecvFlags::empty())
        })?;
        buffer.truncate(length);
        match length {
            0 => Err(Errno::PIPE),
            _ => Ok(buffer),
        }
    }
}

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Message {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Message {
    /// `head` is the fixed part that messages of this kind begin with.
    pub(super) fn new(kind: u16, flags: u16, head: &[u8]) -> Self {
        Self {
            kind,
            flags,
            body: head.to_vec(),
        }
    }

    pub(super) fn kind(&self) -> u16 {
        self.kind
    }

    fn is_acknowledged(&self) -> bool {
        self.kind > 0
    }

    /// Adds an attribute.
    pub(super) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        push(&mut self.body, kind, value);
        self
    }

    /// Adds an attribute that holds others.
    pub(super) fn with_nested(self, kind: u16, inner: &Attributes) -> Self {
        self.with(kind | NESTED, &inner.0)
    }

    fn write(&self, flags: u16, sequence: u32, to: &mut Vec<u8>) {
        let length = u32::try_from(HEADER + self.body.len()).unwrap_or(u32::MAX);
        to.extend(length.to_ne_bytes());
        to.extend(self.kind.to_ne_bytes());
        to.extend((self.flags | flags).to_ne_bytes());
        to.extend(sequence.to_ne_bytes());
        to.extend(0_u32.to_ne_bytes());
        to.extend(&self.body);
        pad(to);
    }
}

/// Attributes inside an attribute.
#[derive(Clone, Debug, Default)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Begins with a fixed part.
    pub(super) fn after(head: &[u8]) -> Self {
        Self(head.to_vec())
    }

    pub(super) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        push(&mut self.0, kind, value);
        self
    }

    pub(super) fn with_nested(self, kind: u16, inner: &Self) -> Self {
        self.with(kind | NESTED, &inner.0)
    }
}

fn push(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(ATTRIBUTE_HEADER + value.len()).unwrap_or(u16::MAX);
    to.extend(length.to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend(value);
    pad(to);
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// A message of the kernel's.
struct Answer<'a> {
    kind: u16,
    sequence: u32,
    body: &'a [u8],
}

impl Answer<'_> {
    fn errno(&self) -> Option<Errno> {
        let code = i32::from_ne_bytes(self.body.first_chunk::<4>().copied()?);
        (code != 0).then(|| Errno::from_raw_os_error(code.saturating_neg()))
    }
}

fn split(mut bytes: &[u8]) -> Vec<Answer<'_>> {
    let mut answers = Vec::new();
    while let (Some(length), Some(kind), Some(sequence)) =
        (number32(bytes, 0), number16(bytes, 4), number32(bytes, 8))
    {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(body) = bytes.get(HEADER..length) else {
            break;
        };
        answers.push(Answer {
            kind,
            sequence,
            body,
        });
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    answers
}

/// The value of an attribute among others.
pub(super) fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let (Some(length), Some(kind)) = (number16(attributes, 0), number16(attributes, 2)) {
        let length = usize::from(length);
        let value = attributes.get(ATTRIBUTE_HEADER..length)?;
        if kind & !NESTED == wanted {
            return Some(value);
        }
        attributes = attributes
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
    }
    None
}

fn number16(bytes: &[u8], at: usize) -> Option<u16> {
    let found = bytes.get(at..)?.first_chunk::<2>()?;
    Some(u16::from_ne_bytes(*found))
}

fn number32(bytes: &[u8], at: usize) -> Option<u32> {
    let found = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_ne_bytes(*found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_attributes_are_aligned_and_found_again() {
        let message = Message::new(7, CREATE, &[1, 2, 3, 4])
            .with(3, b"name\0")
            .with_nested(5, &Attributes::new().with(1, b"x").with(2, b"four"));
        let mut bytes = Vec::new();
        message.write(REQUEST, 9, &mut bytes);
        assert_eq!(bytes.len() % 4, 0);
        let answers = split(&bytes);
        let [answer] = answers.as_slice() else {
            panic!("one message: {}", answers.len())
        };
        assert_eq!((answer.kind, answer.sequence), (7, 9));
        let attributes = &answer.body[4..];
        assert_eq!(find(attributes, 3), Some(&b"name\0"[..]));
        let inner = find(attributes, 5).expect("nested");
        assert_eq!(find(inner, 2), Some(&b"four"[..]));
        assert_eq!(find(inner, 3), None);
    }

    #[test]
    fn what_is_cut_off_is_left_out() {
        for bytes in [&[][..], &[1, 2, 3], &[255; 40], &[0; 40], &[16, 0, 0, 0]] {
            assert_eq!(find(bytes, 1).map(<[u8]>::len), None, "{bytes:?}");
            assert!(split(bytes).len() <= 2);
        }
    }
}
