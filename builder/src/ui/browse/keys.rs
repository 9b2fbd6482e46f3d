//! What a terminal sends when a key is pressed.

use std::io;

use rustix::event::Timespec;

/// What a key says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
    Open,
    Close,
    Toggle,
    Wasted,
    Leave,
}

/// Sequences behind the escape character, as xterm, the Linux console and tmux send them.
const SEQUENCES: [(&[u8], Key); 14] = [
    (b"[A", Key::Up),
    (b"OA", Key::Up),
    (b"[B", Key::Down),
    (b"OB", Key::Down),
    (b"[C", Key::Open),
    (b"OC", Key::Open),
    (b"[D", Key::Close),
    (b"OD", Key::Close),
    (b"[5~", Key::PageUp),
    (b"[6~", Key::PageDown),
    (b"[H", Key::First),
    (b"[1~", Key::First),
    (b"[F", Key::Last),
    (b"[4~", Key::Last),
];

/// The keys that are pressed within this time; those that mean nothing are left out.
pub(super) fn read_within(time: &Timespec) -> io::Result<Vec<Key>> {
    if !super::is_ready(time)? {
        return Ok(Vec::new());
    }
    let mut bytes = [0; 256];
    match rustix::io::read(io::stdin(), &mut bytes) {
        // The terminal has gone.
        Ok(0) => Ok(vec![Key::Leave]),
        Ok(length) => Ok(parse(&bytes[..length])),
        Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => Ok(Vec::new()),
        Err(errno) => Err(errno.into()),
    }
}

/// The keys in what was read.
pub(super) fn parse(mut bytes: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    while let Some((&first, rest)) = bytes.split_first() {
        bytes = rest;
        let key = match first {
            b'k' => Key::Up,
            b'j' => Key::Down,
            b'l' => Key::Open,
            b'h' => Key::Close,
            b'g' => Key::First,
            b'G' => Key::Last,
            b'w' => Key::Wasted,
            b'\r' | b'\n' | b' ' => Key::Toggle,
            // Ctrl-C and Ctrl-D: in raw mode they are keys.
            b'q' | 3 | 4 => Key::Leave,
            0x1b if rest.is_empty() => Key::Leave,
            0x1b => {
                let known = SEQUENCES.iter().find(|(text, _)| rest.starts_with(text));
                let Some((text, key)) = known else {
                    bytes = after_sequence(rest);
                    continue;
                };
                bytes = &rest[text.len()..];
                *key
            }
            _ => continue,
        };
        keys.push(key);
    }
    keys
}

/// What stands behind a sequence that means nothing here: `[`, parameters, and a letter or `~`.
fn after_sequence(bytes: &[u8]) -> &[u8] {
    let Some(rest) = bytes.strip_prefix(b"[") else {
        return bytes.get(1..).unwrap_or_default();
    };
    let end = rest.iter().position(|byte| (0x40..=0x7e).contains(byte));
    end.and_then(|end| rest.get(end + 1..)).unwrap_or_default()
}
