//! The digests of the store, each its own type so that a mix-up does not compile.
//!
//! What comes from OCI documents stays an [`oci_spec::image::Digest`] (sha256, text). What only rbuild sees is
//! BLAKE3, 32 bytes: it is several times faster and never leaves the store. Every BLAKE3 digest that is not of a
//! file's plain bytes is made under its own context string, so that digests of different kinds never collide.

mod pieces;

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek as _};

use oci_spec::image::Digest;
use sha2::{Digest as _, Sha256};

/// Buffer for reading while hashing. Large enough for BLAKE3 to use its widest vector code.
const READ_BUFFER: usize = 128 * 1024;

/// Digest of a layer's uncompressed tar, as listed in `rootfs.diff_ids`.
///
/// Not interchangeable with [`Digest`]: the same layer has one diff_id and as many digests as there are ways to
/// compress it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DiffId(pub Digest);

impl DiffId {
    /// The digest itself.
    pub fn as_digest(&self) -> &Digest {
        &self.0
    }
}

impl fmt::Display for DiffId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl From<Digest> for DiffId {
    fn from(digest: Digest) -> Self {
        Self(digest)
    }
}

/// Fold over the diff_ids of a chain, as the OCI image spec defines it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChainId(pub Digest);

impl ChainId {
    /// The chain_id of one layer on top of `parent`; the lowest layer's chain_id is its diff_id.
    pub fn extend(parent: Option<&Self>, diff_id: &DiffId) -> Self {
        match parent {
            None => Self(diff_id.0.clone()),
            Some(parent) => Self(sha256_digest(
                Sha256::new()
                    .chain_update(parent.0.as_ref())
                    .chain_update(" ")
                    .chain_update(diff_id.0.as_ref()),
            )),
        }
    }

    /// The digest itself.
    pub fn as_digest(&self) -> &Digest {
        &self.0
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// BLAKE3 of content, with nothing of its place in time: a file's bytes, a layer's entries, a chain, a selection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentDigest(pub [u8; 32]);

impl ContentDigest {
    /// Digest of `bytes` as the content of a file.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Digest of all that `reader` yields, as the content of a file, and its length.
    ///
    /// The error is the reader's own: the caller knows its path.
    pub fn of_reader(mut reader: impl Read) -> io::Result<(Self, u64)> {
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; READ_BUFFER];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => {
                    return Ok((Self(*hasher.finalize().as_bytes()), hasher.count()));
                }
                Ok(length) => {
                    hasher.update(&buffer[..length]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Digest of what an open file holds, from its beginning, and its length. A large one is read by all CPUs.
    ///
    /// Whoever is interested in a file that others may be writing to compares what the kernel says of it before and after.
    pub fn of_file(mut file: &File) -> io::Result<(Self, u64)> {
        let size = file.metadata()?.len();
        if let Some(digest) = pieces::hash(file, size)? {
            return Ok((Self(digest), size));
        }
        file.rewind()?;
        Self::of_reader(file)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads 64 lower-case hex digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        parse_hex(text).map(Self)
    }
}

impl fmt::Display for ContentDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, formatter)
    }
}

impl fmt::Debug for ContentDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ContentDigest({self})")
    }
}

/// Finishes a sha256 as the digest that OCI documents use.
pub(crate) fn sha256_digest(hasher: Sha256) -> Digest {
    let mut text = String::with_capacity(71);
    text.push_str("sha256:");
    push_hex(&hasher.finalize(), &mut text);
    Digest::try_from(text).expect("64 lower-case hex digits are a sha256 digest")
}

/// Appends lower-case hex digits.
pub(crate) fn push_hex(bytes: &[u8], text: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

/// Lower-case hex digits of `bytes`.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    push_hex(bytes, &mut text);
    text
}

/// Writes lower-case hex digits; for `Display`.
pub(crate) fn write_hex(bytes: &[u8], formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    formatter.write_str(&to_hex(bytes))
}

/// Reads 64 lower-case hex digits.
pub(crate) fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let text = text.as_bytes();
    if text.len() != 64 {
        return None;
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diff_id(fill: char) -> DiffId {
        DiffId(
            format!("sha256:{}", String::from(fill).repeat(64))
                .parse()
                .unwrap(),
        )
    }

    #[test]
    fn chain_id_is_the_fold_of_the_image_spec() {
        let first = ChainId::extend(None, &diff_id('a'));
        assert_eq!(first.to_string(), diff_id('a').to_string());
        let second = ChainId::extend(Some(&first), &diff_id('b'));
        let text = format!("{} {}", diff_id('a'), diff_id('b'));
        assert_eq!(second.0, sha256_digest(Sha256::new().chain_update(text)));
    }

    #[test]
    fn hex_round_trips_and_refuses_what_is_not_hex() {
        let digest = ContentDigest::of_bytes(b"x");
        assert_eq!(ContentDigest::from_hex(&digest.to_string()), Some(digest));
        for wrong in ["", "00", &"A".repeat(64), &"g".repeat(64), &"0".repeat(63)] {
            assert_eq!(ContentDigest::from_hex(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn reader_and_bytes_agree() {
        let bytes = vec![7; READ_BUFFER * 2 + 3];
        let (digest, length) = ContentDigest::of_reader(&bytes[..]).unwrap();
        assert_eq!(digest, ContentDigest::of_bytes(&bytes));
        assert_eq!(length, bytes.len() as u64);
    }
}
