//! The path of a file inside an image: bytes, not UTF-8, and never a path of the host.

use std::fmt;

/// A path inside an image, relative to its root, without a leading `/`; empty is the root itself.
///
/// It exists so that image paths and host paths ([`std::path::Path`]) can't be mixed up.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerPath(Vec<u8>);

impl ContainerPath {
    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for ContainerPath {
    fn from(bytes: &[u8]) -> Self {
        let start = bytes
            .iter()
            .position(|byte| *byte != b'/')
            .unwrap_or(bytes.len());
        Self(bytes[start..].to_vec())
    }
}

impl From<&Vec<u8>> for ContainerPath {
    fn from(bytes: &Vec<u8>) -> Self {
        bytes.as_slice().into()
    }
}

/// With a leading `/`; control characters and what is not UTF-8 as `\xNN`, so that it is safe to print.
impl fmt::Display for ContainerPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("/")?;
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                if character.is_control() {
                    write!(formatter, "\\x{:02x}", u32::from(character))?;
                } else {
                    write!(formatter, "{character}")?;
                }
            }
            for byte in chunk.invalid() {
                write!(formatter, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for ContainerPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_bytes_are_shown_escaped() {
        let path = ContainerPath::from(&b"//a b/\xff\n"[..]);
        assert_eq!(path.to_string(), "/a b/\\xff\\x0a");
        assert_eq!(path.as_bytes(), b"a b/\xff\n");
    }
}
