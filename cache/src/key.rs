//! Canonical encoding of what a step is keyed by.
//!
//! A key is BLAKE3 over a sequence of fields written by hand, never through `Debug`, `Hash` or serde, so that it
//! depends on nothing but the values:
//!
//! ```text
//! key    = header field*
//! header = length(domain) domain version:u32
//! field  = length(tag) tag type:u8 value
//! value  = 0x01 length(bytes) bytes        bytes
//!        | 0x02 length(text) text          text (UTF-8)
//!        | 0x03 number:u64                 number
//!        | 0x04                            an optional field that is absent
//!        | 0x05 count:u64 (length item)*   list
//! ```
//!
//! Numbers and lengths are little-endian `u64` unless noted. Every part is preceded by its length or has a fixed
//! one, so two different sequences of fields never give the same bytes. The domain and version keep kinds of keys
//! apart; raise the version when the meaning of a field changes.

use std::fmt;

use crate::digest::{parse_hex, write_hex};

/// BLAKE3 context of all step keys. Changing it forgets every record.
const CONTEXT: &str = "rbuild 2026-11-23 step key v1";

/// What a step is looked up by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StepKey(pub [u8; 32]);

impl StepKey {
    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads 64 lower-case hex digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        parse_hex(text).map(Self)
    }
}

impl fmt::Display for StepKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, formatter)
    }
}

impl fmt::Debug for StepKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "StepKey({self})")
    }
}

/// Writes the fields of a key; see the module for the encoding.
///
/// ```
/// use rbuild_cache::KeyEncoder;
/// let key = KeyEncoder::new("run", 1).list("argv", ["/bin/sh", "-c", "make"]).text("cwd", "/src").finish();
/// let same = KeyEncoder::new("run", 1).list("argv", ["/bin/sh", "-c", "make"]).text("cwd", "/src").finish();
/// assert_eq!(key, same);
/// ```
#[derive(Clone, Debug)]
pub struct KeyEncoder {
    hasher: blake3::Hasher,
}

impl KeyEncoder {
    /// Starts a key of the kind `domain`, whose fields have the meaning of `version`.
    pub fn new(domain: &str, version: u32) -> Self {
        let mut encoder = Self {
            hasher: blake3::Hasher::new_derive_key(CONTEXT),
        };
        encoder.sized(domain.as_bytes());
        encoder.hasher.update(&version.to_le_bytes());
        encoder
    }

    /// Adds bytes.
    pub fn bytes(&mut self, tag: &str, value: &[u8]) -> &mut Self {
        self.tag(tag, 1);
        self.sized(value)
    }

    /// Adds text. Not the same field as the same [`bytes`](Self::bytes).
    pub fn text(&mut self, tag: &str, value: &str) -> &mut Self {
        self.tag(tag, 2);
        self.sized(value.as_bytes())
    }

    /// Adds a number.
    pub fn number(&mut self, tag: &str, value: u64) -> &mut Self {
        self.tag(tag, 3);
        self.hasher.update(&value.to_le_bytes());
        self
    }

    /// Adds a yes or no.
    pub fn flag(&mut self, tag: &str, value: bool) -> &mut Self {
        self.number(tag, u64::from(value))
    }

    /// Adds bytes, or that there are none. Absent and empty differ.
    pub fn optional_bytes(&mut self, tag: &str, value: Option<&[u8]>) -> &mut Self {
        match value {
            Some(value) => self.bytes(tag, value),
            None => self.absent(tag),
        }
    }

    /// Adds text, or that there is none. Absent and empty differ.
    pub fn optional_text(&mut self, tag: &str, value: Option<&str>) -> &mut Self {
        match value {
            Some(value) => self.text(tag, value),
            None => self.absent(tag),
        }
    }

    /// Adds a number, or that there is none.
    pub fn optional_number(&mut self, tag: &str, value: Option<u64>) -> &mut Self {
        match value {
            Some(value) => self.number(tag, value),
            None => self.absent(tag),
        }
    }

    /// Adds a list; the order counts.
    pub fn list<I>(&mut self, tag: &str, items: I) -> &mut Self
    where
        I: IntoIterator,
        I::Item: AsRef<[u8]>,
    {
        self.tag(tag, 5);
        let items: Vec<_> = items.into_iter().collect();
        self.hasher.update(&(items.len() as u64).to_le_bytes());
        for item in items {
            self.sized(item.as_ref());
        }
        self
    }

    /// The key of the fields so far.
    pub fn finish(&self) -> StepKey {
        StepKey(*self.hasher.finalize().as_bytes())
    }

    fn absent(&mut self, tag: &str) -> &mut Self {
        self.tag(tag, 4);
        self
    }

    fn tag(&mut self, tag: &str, kind: u8) {
        self.sized(tag.as_bytes());
        self.hasher.update(&[kind]);
    }

    fn sized(&mut self, bytes: &[u8]) -> &mut Self {
        self.hasher.update(&(bytes.len() as u64).to_le_bytes());
        self.hasher.update(bytes);
        self
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    enum Field {
        Bytes(String, Vec<u8>),
        Text(String, String),
        Number(String, u64),
        Absent(String),
        List(String, Vec<Vec<u8>>),
    }

    /// Few letters and short values, so that different splits of the same bytes are likely.
    fn field() -> impl Strategy<Value = Field> {
        let tag = "[ab]{0,2}";
        let bytes = || prop::collection::vec(0_u8..3, 0..4);
        prop_oneof![
            (tag, bytes()).prop_map(|(tag, value)| Field::Bytes(tag, value)),
            (tag, "[ab]{0,3}").prop_map(|(tag, value)| Field::Text(tag, value)),
            (tag, 0_u64..4).prop_map(|(tag, value)| Field::Number(tag, value)),
            tag.prop_map(Field::Absent),
            (tag, prop::collection::vec(bytes(), 0..3))
                .prop_map(|(tag, value)| Field::List(tag, value)),
        ]
    }

    fn key(domain: &str, version: u32, fields: &[Field]) -> StepKey {
        let mut encoder = KeyEncoder::new(domain, version);
        for field in fields {
            match field {
                Field::Bytes(tag, value) => encoder.bytes(tag, value),
                Field::Text(tag, value) => encoder.text(tag, value),
                Field::Number(tag, value) => encoder.number(tag, *value),
                Field::Absent(tag) => encoder.optional_text(tag, None),
                Field::List(tag, value) => encoder.list(tag, value),
            };
        }
        encoder.finish()
    }

    proptest! {
        #[test]
        fn keys_are_equal_only_when_all_fields_are(
            a in ("[ab]{0,2}", 0_u32..2, prop::collection::vec(field(), 0..4)),
            b in ("[ab]{0,2}", 0_u32..2, prop::collection::vec(field(), 0..4)),
        ) {
            prop_assert_eq!(key(&a.0, a.1, &a.2) == key(&b.0, b.1, &b.2), a == b);
        }

        #[test]
        fn moving_a_border_changes_the_key(text in "[ab]{1,6}", at in 0_usize..6) {
            let at = at.min(text.len());
            let whole = KeyEncoder::new("x", 1).list("t", [&text]).finish();
            let halves = KeyEncoder::new("x", 1).list("t", [&text[..at], &text[at..]]).finish();
            prop_assert_ne!(whole, halves);
            let twice = KeyEncoder::new("x", 1).text("t", &text[..at]).text("t", &text[at..]).finish();
            prop_assert_ne!(whole, twice);
        }
    }

    #[test]
    fn key_is_what_it_always_was() {
        // A change here forgets every record of every user: raise a version on purpose instead.
        let mut encoder = KeyEncoder::new("run", 1);
        encoder
            .bytes("argv", b"make")
            .text("cwd", "/src")
            .number("shm", 64)
            .flag("insecure", false);
        encoder
            .optional_text("user", None)
            .optional_number("pids", Some(5))
            .list("env", ["A=1", "B=2"]);
        assert_eq!(
            encoder.finish().to_string(),
            "ef2986e4d81bed4298575e92d42ec81b39d917805b2efcea8d34cf46bc542e38"
        );
    }

    #[test]
    fn kinds_of_fields_differ() {
        let keys = [
            KeyEncoder::new("x", 1).bytes("t", b"").finish(),
            KeyEncoder::new("x", 1).text("t", "").finish(),
            KeyEncoder::new("x", 1).number("t", 0).finish(),
            KeyEncoder::new("x", 1).optional_bytes("t", None).finish(),
            KeyEncoder::new("x", 1).list("t", [""; 0]).finish(),
            KeyEncoder::new("x", 1).list("t", [""]).finish(),
            KeyEncoder::new("x", 1).finish(),
        ];
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(key), "{index}");
        }
    }
}
