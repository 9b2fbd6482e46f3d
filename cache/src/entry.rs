//! The table of a layer's entries, its binary form and its content digest.
//!
//! The table is what `COPY --from` keys, `du` and `fsck` read instead of walking a snapshot. It is kept in the
//! database as one blob and loaded when first asked for:
//!
//! ```text
//! table  = "RBE1" body blake3(body)
//! body   = count entry* count path*          second list: implied directories
//! entry  = kept suffix kind mode uid gid count (name value)* mtime nanos
//! ```
//!
//! `kept` is how many leading bytes the path shares with the one before it; numbers are LEB128 (mtime zig-zag);
//! byte strings are preceded by their length. A table whose checksum or shape is wrong is damage, not an empty table.

use crate::digest::ContentDigest;

/// First bytes of a table; the digit is the version of the format.
const MAGIC: &[u8; 4] = b"RBE1";

/// BLAKE3 context of [`layer_content_digest`]. Changing it changes every result key.
const LAYER_CONTEXT: &str = "rbuild 2026-11-23 layer content v1";

/// One entry of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Path relative to the root, no leading or trailing `/`; empty is the root itself.
    pub path: Vec<u8>,
    /// Type.
    pub kind: EntryKind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Kept extended attributes by name, in byte order. Overlay's own are not here.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Modification time: seconds since the epoch and nanoseconds. In the layer's tar, in no key.
    pub mtime: (i64, u32),
}

/// The type of an [`Entry`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory; `is_opaque` hides what lower layers have in it.
    Directory {
        /// Opaque.
        is_opaque: bool,
    },
    /// A regular file.
    File {
        /// Size in bytes.
        size: u64,
        /// Of the content.
        digest: ContentDigest,
    },
    /// Another name of a file that stands earlier in this layer.
    HardLink {
        /// That file's path.
        target: Vec<u8>,
    },
    /// A symbolic link.
    Symlink {
        /// Its text.
        target: Vec<u8>,
    },
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A fifo.
    Fifo,
    /// A deletion of what lower layers have under this name.
    Whiteout,
}

/// Digest of a layer's entries without times: what early cut-off compares.
///
/// The order of `entries` does not count; everything in them but `mtime` does.
pub fn layer_content_digest(entries: &[Entry]) -> ContentDigest {
    let mut order: Vec<&Entry> = entries.iter().collect();
    order.sort_by(|a, b| a.path.cmp(&b.path));
    let mut hasher = blake3::Hasher::new_derive_key(LAYER_CONTEXT);
    let mut bytes = Vec::new();
    put_number(&mut bytes, entries.len() as u64);
    for entry in order {
        put_bytes(&mut bytes, &entry.path);
        put_meaning(&mut bytes, entry);
        if bytes.len() > 16 * 1024 {
            hasher.update(&bytes);
            bytes.clear();
        }
    }
    hasher.update(&bytes);
    ContentDigest(*hasher.finalize().as_bytes())
}

/// Everything of an entry but its path and time; self-delimiting.
pub(crate) fn put_meaning(out: &mut Vec<u8>, entry: &Entry) {
    put_kind(out, &entry.kind);
    for number in [entry.mode, entry.uid, entry.gid] {
        put_number(out, u64::from(number));
    }
    put_number(out, entry.xattrs.len() as u64);
    for (name, value) in &entry.xattrs {
        put_bytes(out, name);
        put_bytes(out, value);
    }
}

fn put_kind(out: &mut Vec<u8>, kind: &EntryKind) {
    let mut device = |tag, major: u32, minor: u32| {
        out.push(tag);
        put_number(out, u64::from(major));
        put_number(out, u64::from(minor));
    };
    match kind {
        EntryKind::Directory { is_opaque: false } => out.push(0),
        EntryKind::Directory { is_opaque: true } => out.push(1),
        EntryKind::File { size, digest } => {
            out.push(2);
            put_number(out, *size);
            out.extend_from_slice(digest.as_bytes());
        }
        EntryKind::HardLink { target } => {
            out.push(3);
            put_bytes(out, target);
        }
        EntryKind::Symlink { target } => {
            out.push(4);
            put_bytes(out, target);
        }
        EntryKind::CharDevice { major, minor } => device(5, *major, *minor),
        EntryKind::BlockDevice { major, minor } => device(6, *major, *minor),
        EntryKind::Fifo => out.push(7),
        EntryKind::Whiteout => out.push(8),
    }
}

/// A decoded table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EntryTable {
    /// In the order of the layer.
    pub(crate) entries: Vec<Entry>,
    /// See [`LayerRecord::implied`](crate::LayerRecord::implied).
    pub(crate) implied: Vec<Vec<u8>>,
}

/// Encodes a table.
pub(crate) fn encode_table(entries: &[Entry], implied: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + entries.len() * 80);
    out.extend_from_slice(MAGIC);
    put_number(&mut out, entries.len() as u64);
    let mut previous: &[u8] = b"";
    for entry in entries {
        let kept = previous
            .iter()
            .zip(&entry.path)
            .take_while(|(a, b)| a == b)
            .count();
        put_number(&mut out, kept as u64);
        put_bytes(&mut out, &entry.path[kept..]);
        put_meaning(&mut out, entry);
        let (seconds, nanos) = entry.mtime;
        put_number(&mut out, (seconds << 1 ^ seconds >> 63).cast_unsigned());
        put_number(&mut out, u64::from(nanos));
        previous = &entry.path;
    }
    put_number(&mut out, implied.len() as u64);
    for path in implied {
        put_bytes(&mut out, path);
    }
    let checksum = blake3::hash(&out[MAGIC.len()..]);
    out.extend_from_slice(checksum.as_bytes());
    out
}

/// Decodes a table; none when it is damaged.
pub(crate) fn decode_table(table: &[u8]) -> Option<EntryTable> {
    let rest = table.strip_prefix(MAGIC)?;
    let (body, checksum) = rest.split_last_chunk::<32>()?;
    if blake3::hash(body).as_bytes() != checksum {
        return None;
    }
    let mut reader = Reader(body);
    let mut decoded = EntryTable::default();
    let mut previous = Vec::new();
    for _ in 0..reader.number()? {
        let kept = usize::try_from(reader.number()?).ok()?;
        if kept > previous.len() {
            return None;
        }
        previous.truncate(kept);
        previous.extend_from_slice(reader.bytes()?);
        let path = previous.clone();
        let kind = reader.kind()?;
        let mode = reader.small()?;
        let uid = reader.small()?;
        let gid = reader.small()?;
        let mut xattrs = Vec::new();
        for _ in 0..reader.number()? {
            xattrs.push((reader.bytes()?.to_vec(), reader.bytes()?.to_vec()));
        }
        let seconds = reader.number()?;
        let seconds = (seconds >> 1).cast_signed() ^ -(seconds & 1).cast_signed();
        let mtime = (seconds, reader.small()?);
        decoded.entries.push(Entry {
            path,
            kind,
            mode,
            uid,
            gid,
            xattrs,
            mtime,
        });
    }
    for _ in 0..reader.number()? {
        decoded.implied.push(reader.bytes()?.to_vec());
    }
    reader.0.is_empty().then_some(decoded)
}

/// LEB128.
pub(crate) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

/// Length and bytes.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// What is left of a table.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn small(&mut self) -> Option<u32> {
        u32::try_from(self.number()?).ok()
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn kind(&mut self) -> Option<EntryKind> {
        let (&tag, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(match tag {
            0 => EntryKind::Directory { is_opaque: false },
            1 => EntryKind::Directory { is_opaque: true },
            2 => {
                let size = self.number()?;
                let (digest, rest) = self.0.split_first_chunk::<32>()?;
                self.0 = rest;
                EntryKind::File {
                    size,
                    digest: ContentDigest(*digest),
                }
            }
            3 => EntryKind::HardLink {
                target: self.bytes()?.to_vec(),
            },
            4 => EntryKind::Symlink {
                target: self.bytes()?.to_vec(),
            },
            5 => EntryKind::CharDevice {
                major: self.small()?,
                minor: self.small()?,
            },
            6 => EntryKind::BlockDevice {
                major: self.small()?,
                minor: self.small()?,
            },
            7 => EntryKind::Fifo,
            8 => EntryKind::Whiteout,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Entry {
        Entry {
            path: b"usr/bin/tool".to_vec(),
            kind: EntryKind::File {
                size: 3,
                digest: ContentDigest::of_bytes(b"abc"),
            },
            mode: 0o755,
            uid: 1,
            gid: 2,
            xattrs: vec![(b"user.a".to_vec(), b"1".to_vec())],
            mtime: (1_700_000_000, 9),
        }
    }

    #[test]
    fn layer_digest_feels_everything_but_time_and_order() {
        let digest = layer_content_digest(&[sample()]);
        for mtime in [(0, 0), (-1, 999_999_999), (i64::MAX, 0)] {
            assert_eq!(
                layer_content_digest(&[Entry { mtime, ..sample() }]),
                digest,
                "{mtime:?}"
            );
        }
        let kinds = [
            EntryKind::File {
                size: 4,
                digest: ContentDigest::of_bytes(b"abc"),
            },
            EntryKind::File {
                size: 3,
                digest: ContentDigest::of_bytes(b"abd"),
            },
            EntryKind::Directory { is_opaque: false },
            EntryKind::Directory { is_opaque: true },
            EntryKind::HardLink {
                target: b"a".to_vec(),
            },
            EntryKind::HardLink {
                target: b"b".to_vec(),
            },
            EntryKind::Symlink {
                target: b"a".to_vec(),
            },
            EntryKind::Symlink {
                target: b"b".to_vec(),
            },
            EntryKind::CharDevice { major: 1, minor: 3 },
            EntryKind::CharDevice { major: 3, minor: 1 },
            EntryKind::BlockDevice { major: 1, minor: 3 },
            EntryKind::Fifo,
            EntryKind::Whiteout,
        ];
        let mut changed: Vec<Entry> = kinds
            .into_iter()
            .map(|kind| Entry { kind, ..sample() })
            .collect();
        changed.extend([
            Entry {
                path: b"usr/bin/toola".to_vec(),
                ..sample()
            },
            Entry {
                mode: 0o4755,
                ..sample()
            },
            Entry {
                uid: 2,
                gid: 1,
                ..sample()
            },
            Entry { uid: 0, ..sample() },
            Entry {
                xattrs: Vec::new(),
                ..sample()
            },
            Entry {
                xattrs: vec![(b"user.a".to_vec(), b"2".to_vec())],
                ..sample()
            },
            Entry {
                xattrs: vec![(b"user.a1".to_vec(), Vec::new())],
                ..sample()
            },
        ]);
        let mut seen = vec![digest, layer_content_digest(&[])];
        for entry in changed {
            let digest = layer_content_digest(std::slice::from_ref(&entry));
            assert!(!seen.contains(&digest), "{entry:?}");
            seen.push(digest);
        }
        let other = Entry {
            path: b"a".to_vec(),
            ..sample()
        };
        assert_eq!(
            layer_content_digest(&[sample(), other.clone()]),
            layer_content_digest(&[other, sample()]),
            "tar order is not content"
        );
    }

    #[test]
    fn damaged_table_is_refused() {
        let table = encode_table(&[sample()], &[b"usr".to_vec()]);
        assert!(decode_table(&table).is_some());
        for length in 0..table.len() {
            assert_eq!(decode_table(&table[..length]), None, "cut to {length}");
        }
        for index in 0..table.len() {
            let mut flipped = table.clone();
            flipped[index] ^= 1;
            assert_eq!(decode_table(&flipped), None, "flipped at {index}");
        }
    }

    fn kind() -> impl Strategy<Value = EntryKind> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..6);
        prop_oneof![
            any::<bool>().prop_map(|is_opaque| EntryKind::Directory { is_opaque }),
            (any::<u64>(), any::<[u8; 32]>()).prop_map(|(size, digest)| EntryKind::File {
                size,
                digest: ContentDigest(digest)
            }),
            bytes().prop_map(|target| EntryKind::HardLink { target }),
            bytes().prop_map(|target| EntryKind::Symlink { target }),
            any::<(u32, u32)>().prop_map(|(major, minor)| EntryKind::CharDevice { major, minor }),
            any::<(u32, u32)>().prop_map(|(major, minor)| EntryKind::BlockDevice { major, minor }),
            Just(EntryKind::Fifo),
            Just(EntryKind::Whiteout),
        ]
    }

    prop_compose! {
        fn entry()(
            path in "[ab/]{0,8}",
            kind in kind(),
            ids in any::<(u32, u32, u32)>(),
            xattrs in prop::collection::vec(("[a-z.]{0,6}", prop::collection::vec(any::<u8>(), 0..6)), 0..3),
            mtime in any::<(i64, u32)>(),
        ) -> Entry {
            let xattrs = xattrs.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect();
            Entry { path: path.into_bytes(), kind, mode: ids.0, uid: ids.1, gid: ids.2, xattrs, mtime }
        }
    }

    proptest! {
        #[test]
        fn table_round_trips(
            entries in prop::collection::vec(entry(), 0..8),
            implied in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..6), 0..3),
        ) {
            let table = encode_table(&entries, &implied);
            prop_assert_eq!(decode_table(&table), Some(EntryTable { entries, implied }));
        }

        #[test]
        fn no_bytes_make_the_decoder_fail(body in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut table = MAGIC.to_vec();
            table.extend_from_slice(&body);
            table.extend_from_slice(blake3::hash(&body).as_bytes());
            let _ = decode_table(&table); // must return, whatever it says
        }
    }
}
